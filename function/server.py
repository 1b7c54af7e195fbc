"""The function in service: gRPC with health and reflection, metrics beside it, and an end that breaks no call."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import grpc
from crossplane.function import logging, runtime
from crossplane.function.proto.v1 import run_function_pb2_grpc as grpcv1
from crossplane.function.proto.v1beta1 import run_function_pb2_grpc as grpcv1beta1
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, ProcessCollector

from function import metrics
from function.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Sequence

MEGABYTE = 1024 * 1024
# A busy process is handed the next call within a millisecond or two, a starved one somewhat later.
QUIET_SECONDS = 0.05


def run(  # noqa: PLR0913 - one for each flag
    runner: grpcv1.FunctionRunnerServiceServicer,
    *,
    debug: bool,
    address: str,
    metrics_address: str,
    tls_certs_dir: str | None,
    insecure: bool,
    max_recv_message_size: int,
    max_send_message_size: int | None,
) -> None:
    """Serve until SIGTERM or SIGINT, with the SDK's standard options.

    Raises:
        StartError: A flag, a file or a port is in the way.
    """
    logging.configure(logging.Level.DEBUG if debug else logging.Level.INFO)
    options = (
        ("grpc.max_receive_message_length", max_recv_message_size * MEGABYTE),
        ("grpc.max_send_message_length", (max_send_message_size or max_recv_message_size) * MEGABYTE),
    )
    credentials = None if insecure else _credentials(tls_certs_dir)
    asyncio.run(_serve(runner, address, metrics_address, credentials, options))


async def _serve(
    runner: grpcv1.FunctionRunnerServiceServicer,
    address: str,
    metrics_address: str,
    credentials: grpc.ServerCredentials | None,
    options: Sequence[tuple[str, int]],
) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metered = metrics.Metered(runner, registry)
    server = grpc.aio.server(options=options)
    grpcv1.add_FunctionRunnerServiceServicer_to_server(metered, server)
    grpcv1beta1.add_FunctionRunnerServiceServicer_to_server(runtime.BetaFunctionRunner(wrapped=metered), server)
    told = health.aio.HealthServicer()  # type: ignore[attr-defined]  # documented there, imported for that
    health_pb2_grpc.add_HealthServicer_to_server(told, server)
    reflection.enable_server_reflection((*runtime.SERVICE_NAMES, health.SERVICE_NAME), server)
    try:
        port = _listen(server, address, credentials)
        metrics_port = metrics.serve(registry, metrics_address)
        await server.start()
        for service in ("", *runtime.SERVICE_NAMES):
            await told.set(service, health_pb2.HealthCheckResponse.SERVING)
        logging.get_logger().info("serving", port=port, tls=credentials is not None, metrics_port=metrics_port)
        await stopping.wait()
        logging.get_logger().info("stopping")
        await told.enter_graceful_shutdown()
        await _drain(metered)
    finally:
        await server.stop(runtime.SHUTDOWN_GRACE_PERIOD_SECONDS)


async def _drain(metered: metrics.Metered) -> None:
    """Go on until no call comes in any more, for a limited time.

    gRPC hands calls over one by one, and stopping it cancels those that it has taken but not handed over yet.
    """
    deadline = time.monotonic() + runtime.SHUTDOWN_GRACE_PERIOD_SECONDS
    await asyncio.sleep(QUIET_SECONDS)
    while metered.quiet_seconds < QUIET_SECONDS and time.monotonic() < deadline:
        await asyncio.sleep(QUIET_SECONDS)


def _credentials(folder: str | None) -> grpc.ServerCredentials:
    if not folder:
        msg = (
            "there are no certificates to serve with: name their folder with --tls-server-certs-dir, "
            "or serve everybody, unencrypted, with --insecure"
        )
        raise StartError(msg)
    try:
        return runtime.load_credentials(folder)
    except OSError as error:
        msg = (
            f"cannot read {error.filename}: {error.strerror}: "
            "--tls-server-certs-dir names a folder with tls.crt, tls.key and ca.crt"
        )
        raise StartError(msg) from error


def _listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        return server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        what = "name a free address of this machine with --address"
        if credentials:
            what += ", and see that tls.crt, tls.key and ca.crt are PEM and belong together"
        msg = f"cannot serve on {address}, which gRPC explains above: {what}"
        raise StartError(msg) from error
