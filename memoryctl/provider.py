"""A provider whose server cannot be reached from here gets the embedded PostgreSQL instead."""

import contextlib
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memoryctl import embedded
from memoryctl.objects import Key, Object, make_secret, secret_key

# Says on the stored object that its backend is the embedded server, whose port may be another one tomorrow.
ANNOTATION = "memoryctl/backend"
REPLACED = (
    *("clusterRef", "host", "port", "sslMode", "caBundle", "database", "pooler", "connectionSecret"),
    *("roleManagement", "isolation"),
)
# The Secret of a provider that names none, because CloudNativePG would do the admin's work.
STAND_IN = "memoryctl-admin"
CONNECT_SECONDS = 2.0


def needs_embedded(provider: Mapping[str, Any]) -> bool:
    """Whether a provider is PostgreSQL at an address where nobody listens, or was given the embedded server before.

    One that a cluster would refuse for these very fields is left as it is, so that the function refuses it here too.
    """
    spec = provider.get("spec", {})
    if spec.get("type") != "postgres" or not _is_complete(provider):
        return False
    return was_replaced(provider) or not _reachable(*_address(provider))


def was_replaced(manifest: Mapping[str, Any]) -> bool:
    """Whether an object is a provider that was given the embedded server."""
    return ANNOTATION in manifest["metadata"].get("annotations", {}) and "claimRef" not in manifest.get("spec", {})


def on_embedded(provider: Object, server: embedded.Server) -> tuple[Object, Object]:
    """Gives a provider that names the embedded server, and the Secret with its admin's login.

    The Secret keeps the name and namespace that the manifest says, so that Jobs run where they would run.
    """
    given = provider["spec"]["postgres"]
    postgres = {name: value for name, value in given.items() if name not in REPLACED} | {
        "host": server.host,
        "port": server.port,
        "sslMode": "disable",
        "database": server.database,
        **_admin(provider),
    }
    annotations = {**provider["metadata"].get("annotations", {}), ANNOTATION: "embedded"}
    metadata = {**provider["metadata"], "annotations": annotations}
    login = {"username": server.admin.username.encode(), "password": server.admin.password.encode()}
    return (
        {**provider, "metadata": metadata, "spec": {**provider["spec"], "postgres": postgres}},
        make_secret(_admin_secret(provider), login),
    )


def notice(before: Mapping[str, Any], after: Mapping[str, Any], server: embedded.Server) -> str:
    """Says in one line what was replaced."""
    host, port = _address(before)
    given, new = before["spec"]["postgres"], after["spec"]["postgres"]
    replaced = [name for name in REPLACED if name in given and given[name] != new.get(name)]
    # The login behind a Secret is the embedded server's, whatever the Secret is called.
    names = ", ".join(dict.fromkeys([*replaced, "connectionSecret"]))
    played = "" if "connectionSecret" in given else "; its admin does CloudNativePG's work, a database for each Memory"
    return (
        f'provider "{before["metadata"]["name"]}": nobody answers at {host}:{port}, so the embedded PostgreSQL '
        f"{server.version} at {server.host}:{server.port} stands in ({names} replaced){played}"
    )


def directory(state: Path) -> Path:
    """Gives the embedded server's directory."""
    return state / "postgresql"


def _is_complete(provider: Mapping[str, Any]) -> bool:
    postgres = provider["spec"].get("postgres", {})
    cluster, secret = postgres.get("clusterRef"), postgres.get("connectionSecret")
    if (cluster is None) == ("host" not in postgres):
        return False
    own = provider["metadata"].get("namespace")
    if secret is None:
        return cluster is not None and bool(cluster.get("namespace", own))
    return cluster is None or cluster.get("namespace", own) == secret.get("namespace", own)


def _admin(provider: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the fields that say who makes roles: as the manifest does, or what comes nearest to CloudNativePG."""
    given = provider["spec"]["postgres"]
    if "connectionSecret" in given:
        return {name: given[name] for name in ("connectionSecret", "roleManagement", "isolation") if name in given}
    namespace = given["clusterRef"].get("namespace") or provider["metadata"].get("namespace", "")
    secret = {"name": STAND_IN, "namespace": namespace}
    return {"connectionSecret": secret, "roleManagement": "SQL", "isolation": "Database"}


def _address(provider: Mapping[str, Any]) -> tuple[str, int]:
    postgres = provider["spec"]["postgres"]
    reference = postgres.get("clusterRef")
    if reference is None:
        return postgres["host"], postgres.get("port", 5432)
    namespace = reference.get("namespace") or provider["metadata"].get("namespace", "")
    return f"{reference['name']}-rw.{namespace}.svc", 5432


def _reachable(host: str, port: int) -> bool:
    """Whether somebody listens; in a thread, because the limit of a connection does not hold for its name's look-up."""
    answers: list[bool] = []

    def connect() -> None:
        with contextlib.suppress(OSError), socket.create_connection((host, port), CONNECT_SECONDS):
            answers.append(True)

    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(CONNECT_SECONDS)
    return bool(answers)


def _admin_secret(provider: Mapping[str, Any]) -> Key:
    reference = _admin(provider)["connectionSecret"]
    return secret_key(reference.get("namespace") or provider["metadata"].get("namespace", ""), reference["name"])
