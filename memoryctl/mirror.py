"""A copy of a cluster's objects, fetched as they are asked for: what is changed here is changed nowhere else."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from memoryctl.cluster import Cluster, write_private
from memoryctl.definitions import MACHINERY, RESOURCE_KEY
from memoryctl.kube import Kube
from memoryctl.objects import Key, Object, key_of
from memoryctl.reader import UnreadableError


class Mirror(Cluster):
    """Objects of a cluster in a private directory.

    Methods raise UnreadableError for what we may not read there.

    Attributes:
        before: The same objects, as they are in the cluster.
    """

    def __init__(self, folder: Path, kube: Kube) -> None:
        super().__init__(folder / "after")
        self.before = Cluster(folder / "before")
        self._kube = kube
        self._folder = folder
        # What has been asked for, and need not be again.
        self._asked: set[Key] = set()
        self._listed: set[tuple[str, str, frozenset[tuple[str, str]]]] = set()

    def get(self, key: Key) -> Object | None:
        """Gives an object, None when there is none."""
        found = super().get(key)
        if found is None and key not in self._asked:
            self.fetch([key])
            found = super().get(key)
        return found

    def require(self, key: Key) -> Object:
        """Gives an object that must be there."""
        self.get(key)
        return super().require(key)

    def fetch(self, keys: Iterable[Key]) -> None:
        """Fetches objects that have not been asked for, in few calls."""
        missing = [key for key in keys if key not in self._asked]
        for key, found in self._kube.get_all(missing).items():
            if isinstance(found, UnreadableError):
                raise found
            self._asked.add(key)
            if found:
                self._store(found)

    def apply(self, desired: Object) -> Object:
        """Applies as the API server would, to which what is there already is no change, whatever it added."""
        live = self.get(key_of(desired))
        composed = RESOURCE_KEY in desired["metadata"].get("annotations", {})
        if live and composed and is_within(desired, live):
            return live
        return super().apply(desired)

    def delete(self, key: Key) -> None:
        """Removes an object from the copy."""
        self._asked.add(key)
        super().delete(key)

    def list(self, api_version: str, kind: str, labels: Mapping[str, str] | None = None) -> list[Object]:
        """Gives the objects of a kind that carry all these labels, in the order of namespace and name."""
        asked = (api_version, kind, frozenset((labels or {}).items()))
        if asked not in self._listed:
            self._listed.add(asked)
            for found in self._kube.list(api_version, kind, labels):
                if key_of(found) not in self._asked:
                    self._asked.add(key_of(found))
                    self._store(found)
        return super().list(api_version, kind, labels)

    def _store(self, obj: Object) -> None:
        metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
        metadata.setdefault("generation", 1)
        # A number for us: the API server's is for nobody to count with.
        envelope = {"object": {**obj, "metadata": {**metadata, "resourceVersion": "1"}}, "applied": _owned(obj)}
        for root in (self._folder / "after", self._folder / "before"):
            key = key_of(obj)
            kind = f"{key.kind}.{key.api_version.replace('/', '.')}"
            write_private(root / kind / (key.namespace or "_") / f"{key.name}.json", json.dumps(envelope))


def _owned(obj: Object) -> Object:
    """Gives what goes when nobody applies it any more: the wishes of claims and composites."""
    spec = obj.get("spec", {})
    return {"spec": {name: value for name, value in spec.items() if name not in MACHINERY}} if spec else {}


def is_within(wanted: Any, live: Any) -> bool:
    """Whether a value holds all that is wanted; lists have as many things in the same order."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(
            name in live and is_within(value, live[name]) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(is_within(one, other) for one, other in zip(wanted, live, strict=True))
        )
    return bool(wanted == live)


def within(wanted: Any, live: Any) -> Any:
    """Gives of a value what `wanted` speaks of, so that the two can be compared."""
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        return {name: within(wanted[name], value) for name, value in live.items() if name in wanted}
    if isinstance(wanted, list) and isinstance(live, list):
        rest = live[len(wanted) :]
        return [within(one, other) for one, other in zip(wanted, live, strict=False)] + rest
    return live
