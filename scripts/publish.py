"""`make publish`: pushes the migrations image, builds the packages with its digest, and pushes them.

The crossplane CLI pushes all three, with the logins that docker has. build/published.json then says what is where, by
digest: what a release signs.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import shutil
import subprocess
import urllib.request
from typing import TYPE_CHECKING

from scripts import images, packages
from scripts.project import BUILD, TAG, UserError, program, registry, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PUBLISHED = BUILD / "published.json"
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_LOCAL = [ipaddress.IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.1/32")]


def push(name: str, archives: Sequence[Path], where: str) -> str:
    """Push an image or package, one archive for each platform, and give its reference by digest."""
    reference = f"{where}/{name}:{TAG}"
    files = ",".join(str(path) for path in archives)
    # Made for packages, it takes any image, and several become one of several platforms.
    run(packages.cli(), "xpkg", "push", f"--package-files={files}", reference)
    pushed = f"{where}/{name}@{digest(reference)}"
    print(f"{reference} is {pushed}")
    return pushed


def digest(reference: str) -> str:
    """Ask a registry for the digest that a tag stands for."""
    return f"sha256:{hashlib.sha256(manifest(reference)).hexdigest()}"


def manifest(reference: str) -> bytes:
    """Give the manifest or index that a tag stands for, byte by byte.

    Raises:
        UserError: Nothing here can ask.
    """
    host = reference.partition("/")[0]
    if may_lack_tls(host):
        with contextlib.suppress(OSError):
            return _over_http(reference)
    # A registry with TLS wants a login too, and these know docker's.
    if shutil.which("skopeo"):
        return _output("skopeo", "inspect", "--raw", f"docker://{reference}")
    if shutil.which("docker"):
        return _output("docker", "buildx", "imagetools", "inspect", "--raw", reference)
    msg = f"nothing here asks {host} for a digest: install skopeo, or docker with buildx"
    raise UserError(msg)


def _over_http(reference: str) -> bytes:
    host, _, path = reference.partition("/")
    name, _, tag = path.rpartition(":")
    request = urllib.request.Request(f"http://{host}/v2/{name}/manifests/{tag}", headers={"Accept": _MANIFESTS})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        body: bytes = answer.read()
    return body


def may_lack_tls(host: str) -> bool:
    """Whether the crossplane CLI tries a registry without TLS too: go-containerregistry, `Registry.Scheme`."""
    name, _, port = host.partition(":")
    if name.endswith(".localhost") or (name == "localhost" and port):
        return True
    try:
        address = ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return any(address in network for network in _LOCAL)


def _output(*command: str) -> bytes:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    """Publish everything to REGISTRY."""
    where = registry()
    packages.cli()
    runtimes = images.built("function")
    migrations = push(packages.MIGRATIONS, images.built("migrations"), where)
    pushed = {packages.MIGRATIONS: migrations}
    for name, archives in packages.build(where, migrations, runtimes).items():
        pushed[name] = push(name, archives, where)
    PUBLISHED.write_text(json.dumps(pushed, indent=2) + "\n")


if __name__ == "__main__":
    program(main)
