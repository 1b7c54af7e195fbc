"""With a pooler apps connect to it, and everything else to the server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.function.harness import Object, secret_entries, settle, step
from tests.function.worlds import ADMIN, CA, memory, provider, provider_world, world

SERVER = {"host": "db.example.com", "caBundle": CA, "connectionSecret": ADMIN}
POOLER = {"host": "pool.example.com", "port": 6432}


def _provider(pooler: Object | None = None, **more: Any) -> Object:
    return provider(postgres={**SERVER, **more, **({"pooler": pooler} if pooler else {})})


def _request(observed: Any) -> Any:
    (document,) = [secret_entries(body)["request.json"] for key, body in observed.items() if key.startswith("request-")]
    return json.loads(document)


def test_the_secret_and_the_status_carry_the_pooler() -> None:
    answer = settle(world(_provider(POOLER)))[1]
    entries = secret_entries(answer.resources["binding"])
    assert (entries["host"], entries["port"], entries["endpoint"]) == (
        "pool.example.com",
        "6432",
        "pool.example.com:6432",
    )
    assert "@pool.example.com:6432/app?sslmode=verify-full" in entries["uri"]
    assert entries["ca.crt"] == CA
    assert answer.status["endpoint"] == "pool.example.com:6432"


def test_a_reader_connects_there_too() -> None:
    reading = memory(access={"readOnlySecret": True})
    entries = secret_entries(settle(world(_provider(POOLER), memory_xr=reading))[1].resources["binding-reader"])
    assert entries["endpoint"] == "pool.example.com:6432"


def test_jobs_and_the_pin_keep_the_servers_address() -> None:
    settled, answer = settle(world(_provider(POOLER)))
    asked = _request(settled.observed)["provider"]
    assert (asked["host"], asked["port"]) == ("db.example.com", 5432)
    assert "pooler" not in json.dumps(asked)
    assert (answer.status["provider"]["host"], answer.status["provider"]["port"]) == ("db.example.com", 5432)


def test_the_probe_asks_the_server() -> None:
    probing, answer = step(provider_world(_provider(POOLER)))
    asked = [secret_entries(body) for key, body in probing.observed.items() if key.startswith("request-")]
    assert {json.loads(each["request.json"])["provider"]["host"] for each in asked} == {"db.example.com"}
    assert answer.status["endpoint"] == "db.example.com:5432"


@pytest.mark.parametrize(
    ("before", "after", "endpoint"),
    [
        pytest.param(None, POOLER, "pool.example.com:6432", id="added"),
        pytest.param(POOLER, {"host": "other.example.com"}, "other.example.com:5432", id="changed"),
        pytest.param(POOLER, None, "db.example.com:5432", id="removed"),
    ],
)
def test_another_pooler_changes_the_secret_without_a_job(
    before: Object | None, after: Object | None, endpoint: str
) -> None:
    settled, first = settle(world(_provider(before)))
    again, answer = settle(settled.but(providers=(_provider(after),)))
    assert answer.conditions["ProviderReady"] == (True, "Available"), "it is not Changed"
    assert answer.ready
    assert answer.jobs() == first.jobs()
    assert secret_entries(answer.resources["binding"])["endpoint"] == endpoint
    assert secret_entries(again.observed["binding"])["endpoint"] == endpoint
    assert answer.status["endpoint"] == endpoint
    assert (
        secret_entries(answer.resources["binding"])["password"]
        == secret_entries(first.resources["binding"])["password"]
    )
