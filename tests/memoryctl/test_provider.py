"""A provider that cannot be reached is given the embedded server; one that can is left alone."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from memoryctl import embedded
from memoryctl import provider as replacement
from memoryctl.objects import Object, secret_data

LOGIN = embedded.Login("memory_admin", "hunter2")
SERVER = embedded.Server(18, "127.0.0.1", 54321, Path("data"), LOGIN, LOGIN, "app")


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def at(port: int) -> Object:
    postgres = {"host": "127.0.0.1", "port": port, "connectionSecret": {"name": "admin", "namespace": "db"}}
    return {"kind": "XMemoryProvider", "metadata": {"name": "pg"}, "spec": {"type": "postgres", "postgres": postgres}}


def on_embedded(manifest: Object) -> tuple[Object, Object]:
    return replacement.on_embedded(manifest, SERVER)


def notice(manifest: Object) -> str:
    return replacement.notice(manifest, on_embedded(manifest)[0], SERVER)


def test_a_reachable_server_is_used(listener: int) -> None:
    assert not replacement.needs_embedded(at(listener))


def test_a_server_that_nobody_answers_at_is_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert replacement.needs_embedded(at(port))


def test_a_cluster_reference_is_looked_up_as_its_service(provider: Object) -> None:
    replaced, login = on_embedded(provider)
    assert replaced["spec"]["postgres"] == {
        "host": "127.0.0.1",
        "port": 54321,
        "sslMode": "disable",
        "database": "app",
        "connectionSecret": {"name": "memory-admin", "namespace": "databases"},
    }
    assert (login["metadata"]["namespace"], login["metadata"]["name"]) == ("databases", "memory-admin")
    assert secret_data(login) == {"username": b"memory_admin", "password": b"hunter2"}


def test_a_cluster_without_an_admin_gets_one_and_a_database_for_each_memory(provider: Object) -> None:
    """What CloudNativePG would do with its own rights."""
    del provider["spec"]["postgres"]["connectionSecret"]
    replaced, login = on_embedded(provider)
    assert replaced["spec"]["postgres"] == {
        "host": "127.0.0.1",
        "port": 54321,
        "sslMode": "disable",
        "database": "app",
        "connectionSecret": {"name": "memoryctl-admin", "namespace": "databases"},
        "roleManagement": "SQL",
        "isolation": "Database",
    }
    assert (login["metadata"]["namespace"], login["metadata"]["name"]) == ("databases", "memoryctl-admin")
    assert "its admin does CloudNativePG's work" in notice(provider)


def test_what_is_replaced_is_said_in_one_line(provider: Object) -> None:
    said = notice(provider)
    assert said.startswith(
        'provider "pg": nobody answers at memory-db-rw.databases.svc:5432, so the embedded PostgreSQL 18'
    )
    assert said.endswith("(clusterRef, connectionSecret replaced)")
    assert "\n" not in said
    assert "hunter2" not in said


def test_other_settings_stay(provider: Object) -> None:
    provider["spec"]["postgres"] |= {"enablePgVector": False, "connectionLimit": 5, "caBundle": "PEM"}
    made = on_embedded(provider)[0]["spec"]["postgres"]
    assert (made["enablePgVector"], made["connectionLimit"]) == (False, 5)
    assert "caBundle" not in made


def test_a_claimed_provider_keeps_to_its_namespace() -> None:
    manifest = at(1)
    manifest["kind"] = "MemoryProvider"
    manifest["metadata"]["namespace"] = "team-a"
    manifest["spec"]["postgres"]["connectionSecret"] = {"name": "admin"}
    made, login = on_embedded(manifest)
    assert made["spec"]["postgres"]["connectionSecret"] == {"name": "admin"}
    assert login["metadata"]["namespace"] == "team-a"


def test_a_provider_on_the_embedded_server_is_known_again() -> None:
    made, _ = on_embedded(at(1))
    assert replacement.was_replaced(made)
    assert replacement.needs_embedded(made)
    composite = made | {"spec": {**made["spec"], "claimRef": {"name": "pg"}}}
    assert not replacement.was_replaced(composite)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"postgres": None}, id="no block"),
        pytest.param({"clusterRef": None, "host": "a", "connectionSecret": None}, id="no login for the Jobs"),
        pytest.param({"clusterRef": None}, id="no address"),
        pytest.param({"host": "db.example.com"}, id="two addresses"),
        pytest.param({"connectionSecret": {"name": "admin", "namespace": "other"}}, id="two namespaces"),
    ],
)
def test_what_a_cluster_would_refuse_is_not_covered_up(provider: Object, change: Object) -> None:
    target = provider["spec"] if "postgres" in change else provider["spec"]["postgres"]
    for name, value in change.items():
        target[name] = value
        if value is None:
            del target[name]
    assert not replacement.needs_embedded(provider)
