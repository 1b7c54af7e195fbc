"""`make images`: build/images/{function,migrations}.tar, image archives as `docker save` writes them.

With docker, podman or buildah, from the Dockerfile; or, where there is no base image to pull, with IMAGE_BUILDER, a
program that packs a folder. An image whose inputs are unchanged is not built again.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Protocol

from scripts import archives, dockerfile
from scripts.project import BUILD, ROOT, SOURCE, TAG, TARGETS, VERSION, UserError, program

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = BUILD / "images"
_DOCKERFILE = ROOT / "Dockerfile"


class Builder(Protocol):
    """Makes the archive of an image."""

    def build(self, target: str, archive: Path) -> None:
        """Build one of the Dockerfile's targets."""


class Engine:
    """docker, podman or buildah: they read the Dockerfile."""

    def __init__(self, command: str) -> None:
        self._command = command

    def build(self, target: str, archive: Path) -> None:
        """Build one of the Dockerfile's targets."""
        name = f"{title(target)}:{TAG}"
        arguments = [f"--build-arg={key}={value}" for key, value in build_arguments().items()]
        if base := os.environ.get("BASE"):
            arguments.append(f"--build-arg=BASE={base}")
        run(self._command, "build", f"--target={target}", f"--tag={name}", *arguments, ".")
        archive.unlink(missing_ok=True)
        if self._command == "docker":
            run("docker", "save", f"--output={archive}", name)
        else:
            run(self._command, "push", name, f"docker-archive:{archive}:{name}")


class Packer:
    """IMAGE_BUILDER: packs a folder that scripts/rootfs made, with the settings of the Dockerfile's last stages."""

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)

    def build(self, target: str, archive: Path) -> None:
        """Build one of the Dockerfile's targets."""
        root = BUILD / "root" / target
        key = BUILD / "root" / f"{target}.inputs"
        inputs = inputs_of(target)
        if not key.exists() or key.read_text() != inputs:
            key.unlink(missing_ok=True)
            shutil.rmtree(root, ignore_errors=True)
            run("scripts/rootfs", target, str(root))
            key.write_text(inputs)
        wanted = dockerfile.settings(_DOCKERFILE.read_text(), target, build_arguments())
        options = [f"--entrypoint={word}" for word in wanted["Entrypoint"]] + [
            f"--env={each}" for each in wanted["Env"]
        ]
        options += [f"--user={wanted['User']}", f"--workdir={wanted['WorkingDir']}", f"--save={archive}"]
        run(*self._command, "build", f"build/{title(target)}:{TAG}", f"--rootfs={root}", *options)
        archives.configure(archive, {name: wanted[name] for name in ("Labels", "ExposedPorts")})


def title(target: str) -> str:
    """Give the name of a target's image."""
    return f"{target}-memory" if target == "function" else f"memory-{target}"


def build_arguments() -> dict[str, str]:
    """Give what the labels say about this build."""
    return {"VERSION": VERSION, "REVISION": _revision(), "SOURCE": SOURCE}


def _revision() -> str:
    if given := os.environ.get("REVISION"):
        return given
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def inputs_of(target: str) -> str:
    """Give a digest of all that an image is made of, its labels apart."""
    digest = hashlib.sha256()
    code = (path for path in (ROOT / target).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    for path in (_DOCKERFILE, ROOT / "scripts/rootfs", ROOT / f"requirements/{target}.txt", *sorted(code)):
        digest.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def builder() -> Builder:
    """Give what builds images here.

    Raises:
        UserError: There is nothing.
    """
    if command := os.environ.get("IMAGE_BUILDER"):
        return Packer(command)
    if has_docker():
        return Engine("docker")
    for command in ("podman", "buildah"):
        if shutil.which(command):
            return Engine(command)
    msg = (
        "nothing here builds images: start docker, or install podman or buildah; "
        "or set IMAGE_BUILDER to a program that packs a folder into an image"
    )
    raise UserError(msg)


def has_docker() -> bool:
    """Whether there is docker, and its daemon answers."""
    if not shutil.which("docker"):
        return False
    return not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode


def run(*command: str, **more: Any) -> None:
    """Run a command at the root of the repository, showing what it prints."""
    subprocess.run(command, cwd=ROOT, check=True, **more)


def main() -> None:
    """Build what is not there yet."""
    found = builder()
    IMAGES.mkdir(parents=True, exist_ok=True)
    for target in TARGETS:
        archive, key = IMAGES / f"{target}.tar", IMAGES / f"{target}.inputs"
        inputs = f"{inputs_of(target)} {_revision()}"
        if archive.exists() and key.exists() and key.read_text() == inputs:
            print(f"{archive.relative_to(ROOT)}: unchanged")
            continue
        key.unlink(missing_ok=True)
        found.build(target, archive)
        key.write_text(inputs)
        print(f"{archive.relative_to(ROOT)}: {archive.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    program(main)
