"""What would change: how two versions of an object differ, path by path, without ever showing a secret."""

import base64
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from memoryctl.objects import Object

# Of metadata, what somebody says; the rest is the server's.
METADATA = ("labels", "annotations", "ownerReferences")
REQUEST = "request.json"
# Never shown, wherever they stand in a request document.
SECRET_NAMES = ("password", "verifier")
LONGEST = 80
MISSING = object()


@dataclasses.dataclass(frozen=True)
class _Hidden:
    """A value that is compared and never shown."""

    value: str


@dataclasses.dataclass(frozen=True)
class Composed:
    """A composed object that would come, change or go; `paths` says where it changes."""

    name: str
    resource: str
    paths: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Change:
    """What would happen to one claim, or to one composite without claim.

    Attributes:
        of: Which one.
        spec: Fields of its spec that change.
        added, changed, removed: Objects composed for it.
        conditions: Those that would be another, until the Jobs that are to come have run.
        request: Fields in which the next request to the backend differs from the last one.
        provision: What `migrations plan` says to that request; None when there is none, or it could not be asked.
        problems: What stands in the way, a sentence each.
    """

    of: str
    spec: list[str] = dataclasses.field(default_factory=list)
    added: list[Composed] = dataclasses.field(default_factory=list)
    changed: list[Composed] = dataclasses.field(default_factory=list)
    removed: list[Composed] = dataclasses.field(default_factory=list)
    conditions: list[str] = dataclasses.field(default_factory=list)
    request: list[str] = dataclasses.field(default_factory=list)
    provision: Object | None = None
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing would happen."""
        return not any((self.spec, self.added, self.changed, self.removed, self.conditions))


@dataclasses.dataclass(frozen=True)
class Plan:
    """All of it, for every claim and composite that something would happen to."""

    where: str
    changes: list[Change]
    notes: list[str]

    @property
    def problems(self) -> list[str]:
        """What stands in the way, with whose it is."""
        return [f"{one.of}: {problem}" for one in self.changes for problem in one.problems]

    def to_json(self) -> str:
        """Gives all of it for machines."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)


def of_objects(before: Object | None, after: Object | None) -> list[str]:
    """Gives a line for each path of an object with another value, status aside; of Secrets the values are hidden."""
    return list(of_values(_plain(before or {}), _plain(after or {})))


def of_requests(before: Object | None, after: Object | None) -> list[str]:
    """Gives a line for each path in which the request documents of two Secrets differ, but for their hash."""
    return list(of_values(_request(before), _request(after)))


def of_values(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Gives what differs between two JSON values: `<path>: <before> → <after>`.

    Lists of things that have a name are compared by it, others by place.
    """
    if before == after:
        return
    left, right = _children(before), _children(after)
    if before is MISSING and right:  # what comes or goes whole is told leaf by leaf
        left = {}
    if after is MISSING and left:
        right = {}
    one_kind = MISSING in (before, after) or isinstance(before, list) == isinstance(after, list)
    if left is None or right is None or not one_kind:
        yield f"{path.lstrip('.')}: {_shown(before)} → {_shown(after)}"
        return
    for step in sorted({*left, *right}):
        yield from of_values(left.get(step, MISSING), right.get(step, MISSING), path + step)


def _children(value: Any) -> dict[str, Any] | None:
    if isinstance(value, Mapping):
        return {f".{name}": one for name, one in value.items()}
    if isinstance(value, list):
        named = all(isinstance(one, Mapping) and "name" in one for one in value)
        return {f"[{one['name'] if named else place}]": one for place, one in enumerate(value)}
    return None


def _shown(value: Any) -> str:
    if value is MISSING:
        return "(none)"
    if isinstance(value, _Hidden):
        return "(hidden)"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=lambda _: "(hidden)")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _plain(obj: Object) -> Object:
    """Gives what somebody says of an object, with what is secret hidden."""
    kept = {name: value for name, value in obj.items() if name not in {"metadata", "status", "data"}}
    metadata = obj.get("metadata", {})
    kept["metadata"] = {name: metadata[name] for name in METADATA if name in metadata}
    if obj.get("kind") == "Secret":
        kept["data"] = {name: _Hidden(value) for name, value in obj.get("data", {}).items()}
    # What a ConfigMap of ours holds is what Jobs have reported.
    return kept


def _request(secret: Object | None) -> Any:
    text = (secret or {}).get("data", {}).get(REQUEST, "")
    document = json.loads(base64.b64decode(text)) if text else {}
    return {name: _masked(value) for name, value in document.items() if name != "hash"}


def _masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _Hidden(str(one)) if name in SECRET_NAMES and one is not None else _masked(one)
            for name, one in value.items()
        }
    return [_masked(one) for one in value] if isinstance(value, list) else value
