"""What a Memory has for itself: a schema, a database, or the rows of a shared schema."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.function.harness import Object, World, run, secret_entries, settle
from tests.function.worlds import ADMIN, CA, memory, provider, world

SERVER = {"host": "db.example.com", "caBundle": CA, "connectionSecret": ADMIN}
SHARED = {"schema": "shared"}
# Twelve digits of a hash of team-a/notes and app.
OWN = "mem_4651cad1bf3a"


def _provider(**changes: Any) -> Object:
    return provider(postgres={**SERVER, **changes})


def _world(wanted: str = "notes", **changes: Any) -> World:
    return world(_provider(**changes), memory_xr=memory(dataset={"name": "notes", "schema": wanted}))


def _asked(world: World) -> Any:
    (text,) = [
        secret_entries(body)["request.json"] for key, body in world.observed.items() if key.startswith("request-")
    ]
    return json.loads(text)


def test_a_database_of_its_own_is_in_binding_status_and_request() -> None:
    settled, answer = settle(_world(isolation="Database"))
    assert answer.ready
    asked = _asked(settled)
    assert (asked["provider"]["isolation"], asked["provider"]["database"], asked["database"]) == (
        "Database",
        "app",
        OWN,
    )
    binding = secret_entries(answer.resources["binding"])
    assert (binding["database"], binding["schema"]) == (OWN, "notes")
    assert f"@db.example.com:5432/{OWN}?" in binding["uri"]
    assert answer.status["database"] == OWN
    pinned = answer.status["provider"]
    assert (pinned["database"], pinned["isolation"]) == ("app", "Database"), "the provider's, where the ledger is"


def test_a_pooler_serves_the_memorys_own_database() -> None:
    _, answer = settle(_world(isolation="Database", pooler={"host": "pooler.example.com"}))
    binding = secret_entries(answer.resources["binding"])
    assert binding["uri"].split("@")[1].startswith(f"pooler.example.com:5432/{OWN}?")


def test_a_shared_schema_turns_on_isolation_dataset() -> None:
    settled, answer = settle(_world("shared", **SHARED))
    assert answer.ready
    asked = _asked(settled)
    assert (asked["provider"]["isolation"], asked["database"]) == ("Dataset", "app")
    binding = secret_entries(answer.resources["binding"])
    assert (binding["database"], binding["schema"], binding["dataset"]) == ("app", "shared", "notes")
    assert answer.status["provider"]["isolation"] == "Dataset"


@pytest.mark.parametrize("isolation", [{}, {"isolation": "Dataset"}], ids=["derived", "written"])
def test_another_schema_than_the_providers_is_a_conflict_that_names_both(isolation: dict[str, str]) -> None:
    answer = run(_world("billing", **SHARED, **isolation))
    assert answer.conditions["Provisioned"] == (False, "SchemaConflict")
    assert answer.message("Provisioned") == (
        'dataset.schema "billing" differs from provider "pg" schema "shared": set one of them'
    )
    assert answer.resources == {}


def test_a_provider_that_changes_its_schema_moves_nothing() -> None:
    settled, before = settle(_world("shared", **SHARED))
    answer = run(settled.but(providers=(_provider(schema="other"),)))
    assert answer.conditions["Provisioned"] == (False, "SchemaConflict")
    assert answer.resources == before.resources


ALL: dict[str, dict[str, str]] = {"Schema": {}, "Database": {"isolation": "Database"}, "Dataset": {"schema": "shared"}}


@pytest.mark.parametrize("became", ALL)
@pytest.mark.parametrize("was", ALL)
def test_changed_isolation_moves_no_memory(was: str, became: str) -> None:
    settled, before = settle(_world("shared", **ALL[was]))
    answer = run(settled.but(providers=(_provider(**ALL[became]),)))
    if was == became:
        assert answer.ready
        return
    assert answer.conditions["ProviderReady"] == (False, "Changed")
    assert f"isolation was {was} and is {became}" in answer.message("ProviderReady")
    assert "nothing was moved" in answer.message("ProviderReady")
    assert answer.resources == before.resources


def test_a_lost_status_still_holds_the_isolation() -> None:
    settled, before = settle(_world(isolation="Database"))
    forgotten = settled.but(xr={key: value for key, value in settled.xr.items() if key != "status"})
    answer = run(forgotten.but(providers=(_provider(),)))
    assert answer.conditions["ProviderReady"] == (False, "Changed")
    assert answer.resources == before.resources


def test_a_memory_from_before_the_isolation_was_noted_has_a_schema() -> None:
    settled, _ = settle(_world())
    pinned = {key: value for key, value in settled.xr["status"]["provider"].items() if key != "isolation"}
    old = settled.but(xr={**settled.xr, "status": {**settled.xr["status"], "provider": pinned}})
    assert run(old).ready
    assert run(old.but(providers=(_provider(isolation="Database"),))).conditions["ProviderReady"] == (False, "Changed")


def test_before_there_is_a_home_the_isolation_may_be_corrected() -> None:
    first = run(_world()).status
    assert first["provider"]["isolation"] == "Schema"
    start = _world(isolation="Database")
    answer = run(start.but(xr={**start.xr, "status": {"provider": first["provider"]}}))
    assert answer.conditions["ProviderReady"][1] != "Changed"
    assert answer.status["provider"]["isolation"] == "Database"
