"""`make publish`: pushes the migrations image, builds the packages with its digest, and pushes them.

The crossplane CLI pushes all three, with the logins that docker has. build/published.json then says what is where, by
digest: what a release signs.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
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
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


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
    return f"sha256:{hashlib.sha256(_manifest(reference)).hexdigest()}"


def _manifest(reference: str) -> bytes:
    host, _, path = reference.partition("/")
    if speaks_http(host):
        name, _, tag = path.rpartition(":")
        request = urllib.request.Request(
            f"http://{host}/v2/{name}/manifests/{tag}", headers={"Accept": ", ".join(_MANIFESTS)}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            body: bytes = answer.read()
        return body
    # A registry with TLS wants a login too, and these know docker's.
    if shutil.which("skopeo"):
        return _output("skopeo", "inspect", "--raw", f"docker://{reference}")
    if shutil.which("docker"):
        return _output("docker", "buildx", "imagetools", "inspect", "--raw", reference)
    msg = f"nothing here asks {host} for a digest: install skopeo, or docker with buildx"
    raise UserError(msg)


def speaks_http(host: str) -> bool:
    """Whether go-containerregistry, hence the crossplane CLI, does without TLS there: at a local or private address."""
    name = host.rpartition(":")[0] or host
    if re.fullmatch(r"localhost|.*\.local|.*\.localhost", name):
        return True
    try:
        return ipaddress.ip_address(name).is_private
    except ValueError:
        return False


def _output(*command: str) -> bytes:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    """Publish everything to REGISTRY."""
    where = registry()
    packages.cli()
    migrations = push(packages.MIGRATIONS, images.built("migrations"), where)
    pushed = {packages.MIGRATIONS: migrations}
    for name, archives in packages.build(where, migrations).items():
        pushed[name] = push(name, archives, where)
    PUBLISHED.write_text(json.dumps(pushed, indent=2) + "\n")


if __name__ == "__main__":
    program(main)
