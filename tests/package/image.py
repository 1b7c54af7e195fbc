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
    """Give an image of these sources: that of `make images`, or the same files assembled here.

    Args:
        target: Which one.
        folder: Where to write.
    """
    if images.is_current(target):
        layers = _layers(images.archive(target), folder)
    else:
        layers = [folder / "rootfs.tar"]
        subprocess.run(["tar", "-C", rootfs(target), "-cf", layers[0], "."], check=True)
    with contextlib.ExitStack() as stack:
        yield Image(target, [stack.enter_context(tarfile.open(layer)) for layer in layers])


def rootfs(target: str) -> Path:
    """Give the folder with an image's files."""
    here = os.geteuid() == 0 and "VERSION_CODENAME=bookworm" in Path("/etc/os-release").read_text()
    require(here or None, "the image's files are assembled by root on Debian bookworm")
    return images.rootfs(target)


def _layers(archive: Path, folder: Path) -> list[Path]:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        (entry,) = json.loads(archives.read(tar, "manifest.json"))
    return [folder / name for name in entry["Layers"]]
