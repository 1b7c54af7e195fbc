"""The binding directory: a connection Secret as servicebinding.io mounts it into a pod, one file a key."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from memory_client.errors import BindingError

ROOT_VARIABLE = "SERVICE_BINDING_ROOT"
# What every backend of a Memory promises; `type` is servicebinding.io's, and can be told from these.
PROMISED = ("endpoint", "database", "schema", "username", "password")
# What the kubelet exchanges as a whole when the Secret changes.
DATA = "..data"
# How often a reader may find the folder exchanged under its hands.
TRIES = 20


@dataclass(frozen=True)
class Binding:
    """What leads to one Memory.

    Attributes:
        directory: Where it was read from.
        type: The backend: "postgresql", "redis", "s3", or what a provider of type custom says.
        endpoint: `host:port`, an URL on S3.
        database: Database on PostgreSQL, number of the logical database on Redis, bucket on S3.
        schema: Schema on PostgreSQL, prefix of all keys on Redis and S3.
        username: Login, on S3 the access key.
        password: Its password, on S3 the secret key.
        uri: All of it in one, "" where there is none; its query has more of how TLS is used.
        provider: Name of the provider.
        dataset: Name of the dataset, None when the binding does not tell.
        dimension: Of the embeddings, None without.
        metric: How embeddings are compared, None without.
        region: On S3.
        sslmode: libpq's, None when the binding does not tell.
        ca: Certificates (PEM) to trust, None for the system's.
        values: Every file of the directory, for what a backend has of its own.
    """

    directory: Path
    type: str
    endpoint: str
    database: str
    schema: str
    username: str
    password: str = field(repr=False)
    uri: str = field(default="", repr=False)
    provider: str = ""
    dataset: str | None = None
    dimension: int | None = None
    metric: str | None = None
    region: str | None = None
    sslmode: str | None = None
    ca: str | None = field(default=None, repr=False)
    values: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def host(self) -> str:
        """The host of the endpoint, an IPv6 address without its brackets."""
        return self.endpoint.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port of the endpoint."""
        return int(self.endpoint.rpartition(":")[2])

    @property
    def ca_file(self) -> Path:
        """Where `ca` is, for libraries that want a file."""
        return self.directory / "ca.crt"


def read(directory: Path) -> Binding:
    """Reads all files of one moment, whatever the kubelet exchanges meanwhile.

    Raises:
        BindingError: It is not the binding of a Memory.
    """
    return _binding(directory, _files(directory))


def find(path: Path | str | None) -> Path:
    """Gives the directory of a Memory's binding.

    Args:
        path: The directory; None for the one Memory below $SERVICE_BINDING_ROOT.

    Raises:
        BindingError: There is none, or more than one.
    """
    if path is not None:
        return Path(path)
    root = os.environ.get(ROOT_VARIABLE)
    if not root:
        msg = f"no path is given and {ROOT_VARIABLE} is not set: mount the connection Secret and say where"
        raise BindingError(msg)
    if not Path(root).is_dir():
        msg = f"{ROOT_VARIABLE} is {root}, and that is no directory: mount the connection Secret below it"
        raise BindingError(msg)
    there = {entry: _missing(_files(entry)) for entry in sorted(Path(root).iterdir()) if _is_binding(entry)}
    memories = [entry for entry, missing in there.items() if not missing]
    if len(memories) == 1:
        return memories[0]
    if memories:
        names = ", ".join(entry.name for entry in memories)
        msg = f"{root} has {len(memories)} Memories, {names}: say which, as from_binding({str(memories[0])!r})"
        raise BindingError(msg)
    others = "; ".join(f"{entry.name} has no {', '.join(missing)}" for entry, missing in there.items())
    msg = f"{root} has no binding of a Memory ({others or 'it is empty'}): mount the connection Secret below it"
    raise BindingError(msg)


def _is_binding(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _files(directory: Path) -> dict[str, str]:
    """Reads the files of one folder; again, when the kubelet put another in its place and removed it."""
    data = directory / DATA
    for _ in range(TRIES):
        try:
            folder = data.resolve(strict=True) if data.is_symlink() else directory
            found = dict(_texts(folder))
            if folder == directory or data.resolve(strict=True) == folder:
                return found  # else it may have been removed file by file
        except FileNotFoundError:
            if not directory.is_dir():
                break
        except OSError as error:
            msg = f"{directory} cannot be read: {error.strerror}"
            raise BindingError(msg) from error
    msg = f"{directory} is not there: mount the connection Secret, or give another path"
    raise BindingError(msg)


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("..") and path.is_file():
            # Whoever writes a Secret by hand easily ends it with a newline, and no value of ours has one at its end.
            yield path.name, path.read_text(errors="replace").removesuffix("\n")


def _missing(values: dict[str, str]) -> list[str]:
    return [key for key in PROMISED if not values.get(key)]


def _type(values: dict[str, str]) -> str:
    """Tells the backend by its endpoint and by how its names look."""
    if "://" in values["endpoint"]:
        return "s3"
    return "redis" if ":" in values["schema"] else "postgresql"


def _binding(directory: Path, values: dict[str, str]) -> Binding:
    missing = _missing(values)
    if missing:
        msg = f"{directory} is not the binding of a Memory: it has no {', '.join(missing)}"
        raise BindingError(msg)
    kind = values.get("type") or _type(values)
    if kind != "s3" and not values["endpoint"].rpartition(":")[2].isdecimal():
        msg = f'{directory / "endpoint"} is "{values["endpoint"]}": it should be host:port'
        raise BindingError(msg)
    dimension = values.get("dimension") or None
    if dimension and not dimension.isdecimal():
        msg = f'{directory / "dimension"} is "{dimension}": it should be a number'
        raise BindingError(msg)
    return Binding(
        directory,
        kind,
        **{key: values[key] for key in PROMISED},
        uri=values.get("uri", ""),
        provider=values.get("provider", ""),
        dimension=int(dimension) if dimension else None,
        dataset=values.get("dataset") or None,
        metric=values.get("metric") or None,
        region=values.get("region") or None,
        sslmode=values.get("sslmode") or None,
        ca=values.get("ca.crt") or None,
        values=values,
    )
