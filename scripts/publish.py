"""`make publish`: pushes the migrations image, builds the packages with its digest, and pushes them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from scripts import packages
from scripts.images import IMAGES, has_docker, run
from scripts.packages import CONFIGURATION, FUNCTION, MIGRATIONS
from scripts.project import TAG, UserError, program, registry

_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


def push_image(archive: Path, reference: str) -> str:
    """Push an image archive, and give the digest that its registry has it by.

    Raises:
        UserError: Nothing here pushes images.
    """
    if command := os.environ.get("IMAGE_BUILDER"):
        return _with_builder(shlex.split(command), archive, reference)
    if shutil.which("skopeo"):
        return _with_digest_file("skopeo", "copy", f"docker-archive:{archive}", f"docker://{reference}")
    if has_docker():
        return _with_docker(archive, reference)
    for command in ("podman", "buildah"):
        if shutil.which(command):
            name = _output(command, "pull", "--quiet", f"docker-archive:{archive}")
            return _with_digest_file(command, "push", name, f"docker://{reference}")
    msg = "nothing here pushes images: install docker, podman, buildah or skopeo, or set IMAGE_BUILDER"
    raise UserError(msg)


def _with_builder(command: list[str], archive: Path, reference: str) -> str:
    host, _, path = reference.partition("/")
    run(*command, "push", str(archive), path, env=os.environ | {"MEMORY_CLUSTER_REGISTRY": host})
    name, _, tag = path.rpartition(":")
    # Its registries have neither TLS nor logins, and are not behind a proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    accept = {"Accept": ", ".join(_MANIFESTS)}
    request = urllib.request.Request(f"http://{host}/v2/{name}/manifests/{tag}", method="HEAD", headers=accept)
    with opener.open(request, timeout=60) as answer:
        digest: str = answer.headers["Docker-Content-Digest"]
    return digest


def _with_digest_file(*command: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "digest")
        run(command[0], command[1], f"--digestfile={path}", *command[2:])
        return path.read_text().strip()


def _with_docker(archive: Path, reference: str) -> str:
    loaded = _output("docker", "load", "--quiet", f"--input={archive}").rpartition("Loaded image: ")[2]
    run("docker", "tag", loaded, reference)
    run("docker", "push", "--quiet", reference)
    known: list[str] = json.loads(_output("docker", "inspect", "--format={{json .RepoDigests}}", reference))
    return next(each for each in known if each.startswith(f"{reference.rpartition(':')[0]}@")).partition("@")[2]


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> None:
    """Publish everything to REGISTRY."""
    where, cli = registry(), packages.cli()
    archive = IMAGES / "migrations.tar"
    if not archive.exists():
        msg = f"{archive} is missing: run make images"
        raise UserError(msg)
    digest = push_image(archive, f"{where}/{MIGRATIONS}:{TAG}")
    packages.build(where, f"{where}/{MIGRATIONS}@{digest}")
    for name in (FUNCTION, CONFIGURATION):
        run(cli, "xpkg", "push", f"--package-files={packages.archive(name)}", f"{where}/{name}:{TAG}")


if __name__ == "__main__":
    program(main)
