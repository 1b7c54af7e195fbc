# Both images. The last stages hold what scripts/rootfs makes and nothing else: no shell, no package manager.
# Where there is no base image to pull, `make images` runs the same script and reads the last stages from this file.
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /src
COPY scripts/rootfs scripts/rootfs

FROM build AS function-root
COPY requirements/function.txt requirements/function.txt
COPY function function
RUN scripts/rootfs function /root-of-image

FROM build AS migrations-root
COPY requirements/migrations.txt requirements/migrations.txt
COPY migrations migrations
RUN scripts/rootfs migrations /root-of-image

FROM scratch AS runtime
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
ENV PATH=/usr/bin LANG=C.UTF-8 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PYTHONPATH=/app PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION} \
      org.opencontainers.image.source=${SOURCE} \
      org.opencontainers.image.licenses=Apache-2.0
USER 65532:65532

FROM runtime AS function
LABEL org.opencontainers.image.title=function-memory \
      org.opencontainers.image.description="Composition function: memory for AI agents as a Kubernetes claim"
COPY --from=function-root /root-of-image /
WORKDIR /app
EXPOSE 9443 8080
ENTRYPOINT ["python", "-m", "function.main"]

FROM runtime AS migrations
LABEL org.opencontainers.image.title=memory-migrations \
      org.opencontainers.image.description="What the Jobs of function-memory run: prepares a backend for one Memory"
COPY --from=migrations-root /root-of-image /
WORKDIR /app
ENTRYPOINT ["python", "-m", "migrations"]
