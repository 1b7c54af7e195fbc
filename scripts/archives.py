"""Image archives, as `docker save` writes them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def config(archive: Path) -> dict[str, Any]:
    """Give the configuration of the one image in an archive."""
    with tarfile.open(archive) as tar:
        (entry,) = json.loads(_read(tar, "manifest.json"))
        found: dict[str, Any] = json.loads(_read(tar, entry["Config"]))
    return found


def configure(archive: Path, settings: Mapping[str, Any]) -> None:
    """Set fields of an image's run configuration (labels, ports, …) in its archive, in place."""
    with tarfile.open(archive) as tar:
        (entry,) = json.loads(_read(tar, "manifest.json"))
        image = json.loads(_read(tar, entry["Config"]))
        layers = {name: _read(tar, name) for name in entry["Layers"]}
    image["config"].update(settings)
    body = json.dumps(image, sort_keys=True).encode()
    entry["Config"] = f"{hashlib.sha256(body).hexdigest()}.json"
    files = {entry["Config"]: body, **layers, "manifest.json": json.dumps([entry]).encode()}
    with tarfile.open(archive, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    found = tar.extractfile(name)
    assert found is not None, f"{name} is not a file"  # noqa: S101
    return found.read()
