"""Image archives, as `docker save` writes them, and other things that are not made twice of the same."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def made_of(path: Path, inputs: str) -> Iterator[bool]:
    """Hold a file or folder to make it: gives whether it must be made, because it is not there or of other inputs.

    One process at a time. What was interrupted is made anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _record(path).open("a+") as record:
        fcntl.flock(record, fcntl.LOCK_EX)
        stale = not is_made_of(path, inputs)
        if stale:
            record.truncate(0)
        yield stale
        if stale:
            record.write(_key(inputs))


def is_made_of(path: Path, inputs: str) -> bool:
    """Whether a file or folder is there, and was made of these inputs."""
    return path.exists() and _record(path).exists() and _record(path).read_text() == _key(inputs)


def _record(path: Path) -> Path:
    return Path(f"{path}.inputs")


def _key(inputs: str) -> str:
    return hashlib.sha256(inputs.encode()).hexdigest()


def config(archive: Path) -> dict[str, Any]:
    """Give the configuration of the one image in an archive."""
    with tarfile.open(archive) as tar:
        (entry,) = json.loads(read(tar, "manifest.json"))
        found: dict[str, Any] = json.loads(read(tar, entry["Config"]))
    return found


def configure(archive: Path, settings: Mapping[str, Any]) -> None:
    """Set fields of an image's run configuration (labels, ports, …) in its archive, in place."""
    with tarfile.open(archive) as tar:
        (entry,) = json.loads(read(tar, "manifest.json"))
        image = json.loads(read(tar, entry["Config"]))
        layers = {name: read(tar, name) for name in entry["Layers"]}
    image["config"].update(settings)
    body = json.dumps(image, sort_keys=True).encode()
    entry["Config"] = f"{hashlib.sha256(body).hexdigest()}.json"
    files = {entry["Config"]: body, **layers, "manifest.json": json.dumps([entry]).encode()}
    with tarfile.open(archive, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def read(tar: tarfile.TarFile, name: str) -> bytes:
    """Give what is in a file of an archive."""
    found = tar.extractfile(name)
    if found is None:
        msg = f"{name} is not a file of the archive"
        raise ValueError(msg)
    return found.read()
