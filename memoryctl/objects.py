"""Kubernetes objects as plain dicts, and the little that everybody asks of them."""

import base64
import datetime as dt
from collections.abc import Mapping
from typing import Any, NamedTuple

GROUP = "memory.proompteng.ai"
API_VERSION = f"{GROUP}/v1alpha1"

# Of the Secrets that Crossplane writes itself.
CONNECTION_TYPE = "connection.crossplane.io/v1alpha1"

Object = dict[str, Any]


class Key(NamedTuple):
    """What tells one object of a cluster from all others; `namespace` is "" for a cluster-scoped one."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """As a person writes it: `Job databases/mem-1`."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def key_of(obj: Mapping[str, Any]) -> Key:
    """Gives the key of an object."""
    metadata = obj["metadata"]
    return Key(obj["apiVersion"], obj["kind"], metadata.get("namespace", ""), metadata["name"])


def secret_key(namespace: str, name: str) -> Key:
    """Gives the key of a Secret."""
    return Key("v1", "Secret", namespace, name)


def secret_data(secret: Mapping[str, Any]) -> dict[str, bytes]:
    """Gives the decoded contents of a Secret."""
    return {name: base64.b64decode(value) for name, value in secret.get("data", {}).items()}


def make_secret(key: Key, data: Mapping[str, bytes]) -> Object:
    """Gives an Opaque Secret."""
    encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
    metadata = {"name": key.name, "namespace": key.namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}


def now() -> str:
    """Gives the time as Kubernetes writes it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(obj: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Gives a condition of an object; an empty one when it has none of that type."""
    found = obj.get("status", {}).get("conditions", [])
    return next((one for one in found if one["type"] == kind), {})


def is_true(obj: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition of an object is True."""
    return condition(obj, kind).get("status") == "True"


def with_conditions(obj: Mapping[str, Any], new: list[Object]) -> list[Object]:
    """Gives an object's conditions with new ones put in; the time changes only where the status does."""
    kept = {one["type"]: one for one in obj.get("status", {}).get("conditions", [])}
    for one in new:
        before = kept.get(one["type"], {})
        same = before.get("status") == one["status"]
        kept[one["type"]] = {**one, "lastTransitionTime": before["lastTransitionTime"] if same else now()}
    return list(kept.values())
