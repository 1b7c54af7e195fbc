"""The binding directories: connection Secrets as servicebinding.io mounts them into an app's pod."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from memoryctl.cluster import Cluster, private_directory
from memoryctl.objects import CONNECTION_TYPE, key_of, secret_data

SECRET_TYPES = ("servicebinding.io/", CONNECTION_TYPE)
DATA = "..data"


def write_all(cluster: Cluster, root: Path) -> dict[Path, list[str]]:
    """Writes `<root>/<namespace>/<secret>/<key>` for every connection Secret, and removes what has none any more.

    `<root>/<namespace>` is what SERVICE_BINDING_ROOT is in a pod of that namespace.

    Returns:
        The keys in each binding directory.
    """
    written = {}
    for secret in cluster.list("v1", "Secret"):
        if secret.get("type", "").startswith(SECRET_TYPES):
            key = key_of(secret)
            directory = root / key.namespace / key.name
            data = secret_data(secret)
            write(directory, data)
            written[directory] = sorted(data)
    for stale in set(root.glob("*/*")) - written.keys():
        shutil.rmtree(stale)
    return written


def write(directory: Path, data: Mapping[str, bytes]) -> None:
    """Writes all keys at once, as the kubelet does: a link to a folder is exchanged, so no reader sees a mixture."""
    for name in data:
        if name != Path(name).name:
            msg = f"{name!r} is not the name of a file"
            raise ValueError(msg)
    private_directory(directory)
    current = directory / DATA
    if current.exists() and {path.name: path.read_bytes() for path in current.iterdir()} == dict(data):
        return
    before = current.resolve()
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=directory))  # 0700
    for name, value in data.items():
        path = fresh / name
        path.touch(mode=0o600)
        path.write_bytes(value)
    link = directory / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(current)
    for name in data:
        visible = directory / name
        if not visible.is_symlink():
            visible.symlink_to(Path(DATA) / name)
    for path in directory.iterdir():
        if not path.name.startswith("..") and path.name not in data:
            path.unlink()
    if before not in {current, fresh} and before.is_dir():
        shutil.rmtree(before)
