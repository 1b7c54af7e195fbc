"""Secrets: the request document that Jobs mount, and the binding that apps mount."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

from function import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.resources.metadata import Owner

# The same type for every backend: a Secret's type cannot change, and a Memory may move.
BINDING_TYPE = "servicebinding.io/memory"
REQUEST_FILE = "request.json"
CA_FILE = "ca.crt"
# Every key that a Secret of ours may have; what others add to one is theirs.
SECRET_KEYS = (
    *(REQUEST_FILE, CA_FILE),
    *("type", "provider", "endpoint", "host", "port", "database", "schema", "username", "password", "uri", "sslmode"),
    *("certificates", "dataset", "dimension", "metric", "contract", "region", "login"),
    *("rw-a", "rw-b", "ro-a", "ro-b"),
)


def request(owner: Owner, name: str, document: str, ca: str | None) -> dict[str, Any]:
    """Give the Secret with a request document and, beside it and outside its hash, the backend's CA."""
    data = {REQUEST_FILE: document}
    if ca:
        data[CA_FILE] = ca
    return _secret(owner.metadata(name, "request"), "Opaque", data)


def binding(owner: Owner, name: str, namespace: str, entries: Mapping[str, str]) -> dict[str, Any]:
    """Give a connection Secret whose keys follow servicebinding.io."""
    return _secret(owner.metadata(name, "binding", namespace), BINDING_TYPE, entries)


def entry(observed: Mapping[str, Any] | None, key: str) -> str:
    """Read one entry of an observed Secret, "" when it is not there or nothing that we wrote."""
    try:
        return b64decode((observed or {})["data"][key]).decode()
    except (KeyError, TypeError, ValueError):
        return ""


def login(owner: Owner, name: str, username: str, password: str) -> dict[str, Any]:
    """Give a Secret that a Job logs in with: the one place of a plaintext password beside the binding."""
    return _secret(owner.metadata(name, "login"), "Opaque", {"username": username, "password": password})


def passwords(owner: Owner, name: str, entries: Mapping[str, str]) -> dict[str, Any]:
    """Give the Secret with the passwords that a Job is to set, by login without its prefix (`rw-a`)."""
    return _secret(owner.metadata(name, "login"), "Opaque", entries)


def keys(owner: Owner, name: str) -> dict[str, Any]:
    """Give a Secret that a Job writes to, always without `data`: with it the function would own, and erase, that."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": owner.metadata(name, "keys"), "type": "Opaque"}


def role_password(owner: Owner, name: str, username: str, verifier: str) -> dict[str, Any]:
    """Give a Secret that CloudNativePG takes a role's password from; it is told of each change by the label."""
    metadata = owner.metadata(name, "role-password")
    metadata["labels"][names.LABEL_RELOAD] = "true"
    return _secret(metadata, "kubernetes.io/basic-auth", {"username": username, "password": verifier})


def _secret(metadata: dict[str, Any], kind: str, entries: Mapping[str, str]) -> dict[str, Any]:
    # `data`, not `stringData`: the API server never gives stringData back, so it could not be projected.
    data = {key: b64encode(value.encode()).decode() for key, value in entries.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data}
