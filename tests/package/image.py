"""The files of an image as its layers have them, whoever built it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import archives, images
from scripts.project import UserError
from tests.servers import require

if TYPE_CHECKING:
    from collections.abc import Iterator

SITE = "usr/local/lib/python3.11/dist-packages"


@dataclasses.dataclass(frozen=True)
class Image:
    """An image's files by path, as in `usr/bin/python`."""

    target: str
    layers: list[tarfile.TarFile]

    @functools.cached_property
    def members(self) -> dict[str, tarfile.TarInfo]:
        """What is where."""
        return {str(Path(member.name)): member for layer in self.layers for member in layer}

    def read(self, path: str) -> bytes:
        """Give what is in a file."""
        member = self.members[path]
        (layer,) = (each for each in self.layers if member in each.getmembers())
        return archives.read(layer, member.name)

    def files(self, under: str = "", suffix: str = "") -> Iterator[str]:
        """Give the paths of files below a folder."""
        for path, member in self.members.items():
            if member.isreg() and path.startswith(under) and path.endswith(suffix):
                yield path


@contextlib.contextmanager
def load(target: str, folder: Path) -> Iterator[Image]:
    """Give an image of these sources: that of `make images`, or the same files assembled here, or one built now.

    Args:
        target: Which one.
        folder: Where to write.
    """
    if images.is_current(target):
        layers = _layers(images.archive(target), folder)
    elif can_assemble():
        layers = [folder / "rootfs.tar"]
        subprocess.run(["tar", "-C", images.rootfs(target), "-cf", layers[0], "."], check=True)
    else:
        layers = _layers(images.make(_builder(), target), folder)
    with contextlib.ExitStack() as stack:
        yield Image(target, [stack.enter_context(tarfile.open(layer)) for layer in layers])


def can_assemble() -> bool:
    """Whether scripts/rootfs runs here."""
    return os.geteuid() == 0 and "VERSION_CODENAME=bookworm" in Path("/etc/os-release").read_text()


def _builder() -> images.Builder:
    try:
        return images.builder()
    except UserError as error:
        return require(None, str(error))


def _layers(archive: Path, folder: Path) -> list[Path]:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        (entry,) = json.loads(archives.read(tar, "manifest.json"))
    return [folder / name for name in entry["Layers"]]
