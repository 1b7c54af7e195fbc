"""The objects of the "cluster": one file each, as an API server would keep them.

`apply` is server-side apply by one manager: a field that was applied before and is not any more goes, a field that
somebody else wrote stays. The server's own fields are added where rendering could trip over them.
"""

import base64
import contextlib
import copy
import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memoryctl.errors import UserError
from memoryctl.objects import Key, Object, key_of, now

# What the API server refuses to change (of the kinds that the product composes).
IMMUTABLE = {"Job": (("spec", "template"), ("spec", "selector")), "Secret": (("type",),)}
SERVER_METADATA = ("uid", "resourceVersion", "creationTimestamp", "generation")


class Conflict(Exception):  # noqa: N818  the API server's word for it
    """The API server would answer 422: an immutable field is to change."""


class Cluster:
    """Objects in files below a private directory, written atomically."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.revision = 0
        """Counts the changes made through this instance."""

    def get(self, key: Key) -> Object | None:
        """Gives an object, None when there is none."""
        envelope = self._read(self._path(key))
        return envelope["object"] if envelope else None

    def require(self, key: Key) -> Object:
        """Gives an object that must be there."""
        return self._existing(key)["object"]

    def applied(self, key: Key) -> Object:
        """Gives an object as it was last applied, without what anybody else wrote."""
        return self._existing(key)["applied"]

    def list(self, api_version: str, kind: str, labels: Mapping[str, str] | None = None) -> list[Object]:
        """Gives the objects of a kind that carry all these labels, in the order of namespace and name."""
        paths = sorted(self._kind(api_version, kind).glob("*/*.json"))
        found = [envelope["object"] for path in paths if (envelope := self._read(path))]
        wanted = (labels or {}).items()
        return [one for one in found if wanted <= one["metadata"].get("labels", {}).items()]

    def all(self) -> Iterator[Object]:
        """Gives every object there is."""
        for path in sorted(self._root.glob("*/*/*.json")):
            if envelope := self._read(path):
                yield envelope["object"]

    def apply(self, desired: Object) -> Object:
        """Creates or changes an object so that it holds what is desired.

        Raises:
            Conflict: An immutable field is to change.
        """
        desired = _normalised(desired)
        path = self._path(key_of(desired))
        envelope = self._read(path)
        if envelope is None:
            obj = _created(desired)
        else:
            obj = _merged(envelope["object"], desired, envelope["applied"])
            _check_immutable(envelope["object"], obj)
        self._write(path, envelope, obj, desired)
        return obj

    def patch(self, key: Key, change: Mapping[str, Any]) -> Object:
        """Merges fields into an object as another manager would; None removes a field."""
        envelope = self._existing(key)
        obj = _patched(envelope["object"], change)
        self._write(self._path(key), envelope, obj, envelope["applied"])
        return obj

    def replace_status(self, key: Key, status: Mapping[str, Any]) -> Object:
        """Sets the status of an object, whole."""
        envelope = self._existing(key)
        obj = {**envelope["object"], "status": dict(status)}
        self._write(self._path(key), envelope, obj, envelope["applied"])
        return obj

    def delete(self, key: Key) -> None:
        """Removes an object; does nothing when there is none."""
        path = self._path(key)
        if path.exists():
            path.unlink()
            self.revision += 1

    def _kind(self, api_version: str, kind: str) -> Path:
        return self._root / f"{kind}.{api_version.replace('/', '.')}"

    def _path(self, key: Key) -> Path:
        return self._kind(key.api_version, key.kind) / (key.namespace or "_") / f"{key.name}.json"

    def _existing(self, key: Key) -> dict[str, Object]:
        envelope = self._read(self._path(key))
        if envelope is None:
            msg = f"there is no {key}"
            raise UserError(msg)
        return envelope

    def _read(self, path: Path) -> dict[str, Object] | None:
        try:
            content: dict[str, Object] = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        return content

    def _write(self, path: Path, before: Mapping[str, Object] | None, obj: Object, applied: Object) -> None:
        """Stamps and stores an object; nothing is written when nothing changes."""
        if before is not None and obj == before["object"]:
            if applied != before["applied"]:
                write_private(path, json.dumps({"object": obj, "applied": applied}, indent=1))
            return
        metadata = obj["metadata"] = dict(obj["metadata"])
        metadata["resourceVersion"] = str(int(metadata.get("resourceVersion", "0")) + 1)
        if before is not None and obj.get("spec") != before["object"].get("spec"):
            metadata["generation"] = metadata["generation"] + 1
        self.revision += 1
        write_private(path, json.dumps({"object": obj, "applied": applied}, indent=1))


def private_directory(path: Path) -> None:
    """Makes a directory, and those above it that are missing, for us alone.

    The mode that mkdir is given holds for the last one only.
    """
    for missing in [one for one in reversed([path, *path.parents]) if not one.exists()]:
        missing.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, content: str) -> None:
    """Writes a file that only we can read, whole or not at all."""
    private_directory(path.parent)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    fresh.replace(path)


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Holds the state directory for one memoryctl at a time.

    Raises:
        UserError: Another one is at work in it, or it cannot be written.
    """
    try:
        private_directory(state)
        lock = (state / "lock").open("w")
    except OSError as error:
        msg = f"the state directory {state} cannot be written ({error.strerror}): name another one with --state"
        raise UserError(msg) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"another memoryctl is at work in {state}: wait for it, or name another directory with --state"
            raise UserError(msg) from error
        yield


def _normalised(desired: Object) -> Object:
    """What an API server makes of a manifest: a Secret's stringData ends up encoded in data."""
    desired = copy.deepcopy(desired)
    for name, value in desired.pop("stringData", {}).items():
        desired.setdefault("data", {})[name] = base64.b64encode(value.encode()).decode()
    for name in SERVER_METADATA:
        desired["metadata"].pop(name, None)
    return desired


def _created(desired: Object) -> Object:
    obj = copy.deepcopy(desired)
    obj["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
    if obj["kind"] == "Job":
        _select_pods(obj)
    return obj


def _select_pods(job: Object) -> None:
    """Adds what the API server adds to a Job, and what no later apply may carry or miss."""
    uid = job["metadata"]["uid"]
    labels = job["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})
    labels |= {"batch.kubernetes.io/controller-uid": uid, "controller-uid": uid}
    labels |= {"batch.kubernetes.io/job-name": job["metadata"]["name"], "job-name": job["metadata"]["name"]}
    job["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def _merged(live: Object, desired: Object, previous: Object) -> Object:
    """Three-way merge of maps; a list belongs whole to whoever applied it."""
    result = {name: value for name, value in live.items() if name in desired or name not in previous}
    for name, before in previous.items():
        if name not in desired and isinstance(before, dict) and isinstance(live.get(name), dict):
            others = _merged(live[name], {}, before)
            if others:
                result[name] = others
    for name, value in desired.items():
        before = previous.get(name)
        owned = before if isinstance(before, dict) else {}
        nested = isinstance(value, dict) and isinstance(live.get(name), dict)
        result[name] = _merged(live[name], value, owned) if nested else copy.deepcopy(value)
    return result


def _patched(live: Mapping[str, Any], change: Mapping[str, Any]) -> Object:
    result = copy.deepcopy(dict(live))
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            result[name] = _patched(result.get(name) or {}, value)
        else:
            result[name] = value
    return result


def _check_immutable(before: Object, after: Object) -> None:
    for path in IMMUTABLE.get(before["kind"], ()):
        old, new = before, after
        for part in path:
            old, new = (old or {}).get(part, {}), (new or {}).get(part, {})
        if old != new:
            msg = f"{key_of(before)} is invalid: {'.'.join(path)}: field is immutable"
            raise Conflict(msg)
