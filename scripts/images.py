"""`make images`: build/images/{function,migrations}.tar, image archives as `docker save` writes them.

With docker, podman or buildah, from the Dockerfile; or, where there is no base image to pull, with IMAGE_BUILDER, a
program that packs a folder. An image whose inputs are unchanged is not built again. PLATFORMS (as in
linux/amd64,linux/arm64) builds for each of them, into build/images/<target>-<architecture>.tar; BASE_IMAGE stands in
for the Dockerfile's, as by digest or from a mirror.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING, Protocol

from scripts import archives, dockerfile
from scripts.project import BUILD, ROOT, SOURCE, TAG, VERSION, UserError, program, run

if TYPE_CHECKING:
    from pathlib import Path

TARGETS = {"function": "function-memory", "migrations": "memory-migrations"}
# That of this machine.
NATIVE = ""

_DOCKERFILE = ROOT / "Dockerfile"


class Builder(Protocol):
    """Makes image archives."""

    def build(self, target: str, platform: str, archive: Path) -> None:
        """Build one of the Dockerfile's targets for a platform."""


class Engine:
    """docker, podman or buildah: they read the Dockerfile."""

    def __init__(self, command: str) -> None:
        self._command = command

    def build(self, target: str, platform: str, archive: Path) -> None:
        """Build one of the Dockerfile's targets for a platform."""
        name = f"{TARGETS[target]}:{TAG}"
        options = [f"--target={target}", f"--tag={name}", *([f"--platform={platform}"] if platform else [])]
        arguments = labels()
        if base := os.environ.get("BASE_IMAGE"):
            arguments["BASE_IMAGE"] = base
        options += [f"--build-arg={key}={value}" for key, value in arguments.items()]
        # An attestation would make an index of the one image.
        run(self._command, "build", *options, ".", env=os.environ | {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"})
        archive.unlink(missing_ok=True)
        if self._command == "docker":
            run("docker", "save", f"--output={archive}", name)
        else:
            run(self._command, "push", name, f"docker-archive:{archive}:{name}")


class Packer:
    """IMAGE_BUILDER: packs a folder that scripts/rootfs made, with the settings of the Dockerfile's last stages."""

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)

    def build(self, target: str, _platform: str, archive: Path) -> None:
        """Build one of the Dockerfile's targets for this machine, the only platform that it can."""
        wanted = dockerfile.settings(_DOCKERFILE.read_text(), target, labels())
        options = [f"--entrypoint={word}" for word in wanted["Entrypoint"]]
        options += [f"--env={entry}" for entry in wanted["Env"]]
        options += [f"--user={wanted['User']}", f"--workdir={wanted['WorkingDir']}", f"--save={archive}"]
        run(*self._command, "build", f"build/{TARGETS[target]}:{TAG}", f"--rootfs={rootfs(target)}", *options)
        # For these it has no options.
        archives.configure(archive, {name: wanted[name] for name in ("Labels", "ExposedPorts")})


def rootfs(target: str) -> Path:
    """Give the folder with an image's files, assembled anew when what it is made of has changed."""
    folder = BUILD / "rootfs" / target
    with archives.made_of(folder, inputs(target)) as stale:
        if stale:
            shutil.rmtree(folder, ignore_errors=True)
            run("scripts/rootfs", target, str(folder))
    return folder


def inputs(target: str) -> str:
    """Give a digest of all that an image's files are made of."""
    digest = hashlib.sha256()
    code = (path for path in (ROOT / target).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    for path in (ROOT / "scripts/rootfs", ROOT / f"requirements/{target}.txt", *sorted(code)):
        digest.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def is_current(target: str) -> bool:
    """Whether the archive of this machine's image is there, and made of what is here now."""
    return archives.is_made_of(archive(target), _inputs_of_image(target))


def _inputs_of_image(target: str) -> str:
    return f"{inputs(target)} {_DOCKERFILE.read_text()} {labels()}"


def labels() -> dict[str, str]:
    """Give what an image's labels say about this build."""
    revision = os.environ.get("REVISION")
    if not revision and shutil.which("git"):
        git = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        revision = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return {"VERSION": VERSION, "REVISION": revision or "unknown", "SOURCE": SOURCE}


def platforms() -> list[str]:
    """Give the platforms to build for: those of PLATFORMS, or this machine's."""
    return [each.strip() for each in os.environ.get("PLATFORMS", NATIVE).split(",")]


def archive(target: str, platform: str = NATIVE) -> Path:
    """Give the file of an image."""
    architecture = platform.partition("/")[2].replace("/", "-")
    return BUILD / "images" / f"{target}{'-' if architecture else ''}{architecture}.tar"


def built(target: str) -> list[Path]:
    """Give the files of a target's image for all platforms.

    Raises:
        UserError: One was not built.
    """
    files = [archive(target, platform) for platform in platforms()]
    for path in files:
        if not path.exists():
            msg = f"{path.relative_to(ROOT)} is not there: run make images"
            raise UserError(msg)
    return files


def builder() -> Builder:
    """Give what builds images here.

    Raises:
        UserError: There is nothing.
    """
    if command := os.environ.get("IMAGE_BUILDER"):
        return _packer(command)
    # The command alone builds nothing: its daemon must answer.
    if shutil.which("docker") and not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return Engine("docker")
    for name in ("podman", "buildah"):
        if shutil.which(name):
            return Engine(name)
    msg = (
        "nothing here builds images: start docker, or install podman or buildah, "
        "or set IMAGE_BUILDER to a program that packs a folder into an image"
    )
    raise UserError(msg)


def _packer(command: str) -> Packer:
    if not shutil.which(shlex.split(command)[0]):
        msg = f'IMAGE_BUILDER is "{command}": there is no such program'
        raise UserError(msg)
    if platforms() != [NATIVE]:
        msg = f'PLATFORMS is "{os.environ["PLATFORMS"]}": IMAGE_BUILDER packs for this machine only: unset one of them'
        raise UserError(msg)
    return Packer(command)


def make(found: Builder, target: str, platform: str = NATIVE) -> Path:
    """Give the file of an image, built anew when what it is made of has changed."""
    path = archive(target, platform)
    with archives.made_of(path, _inputs_of_image(target)) as stale:
        if stale:
            found.build(target, platform, path)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB{'' if stale else ', unchanged'}")
    return path


def main() -> None:
    """Build what is not there yet."""
    found = builder()
    for target in TARGETS:
        for platform in platforms():
            make(found, target, platform)


if __name__ == "__main__":
    program(main)
