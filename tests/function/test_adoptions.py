"""Handing a home over: what the platform team writes in a provider, and what a Memory's Job is told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.function.harness import Object, World, run, secret_entries, settle
from tests.function.worlds import ADMIN, CA, provider, provider_world, world

SERVER = {"host": "db.example.com", "caBundle": CA, "connectionSecret": ADMIN}
ENTRY = {"schema": "notes", "from": "team-z/notes", "to": "team-a/notes"}


def _provider(*entries: Object, **postgres: Any) -> Object:
    more: Any = {"adoptions": list(entries)} if entries else {}
    return provider(postgres={**SERVER, **postgres}, **more)


def _told(start: World) -> Any:
    (text,) = [
        secret_entries(body)["request.json"] for key, body in run(start).resources.items() if key.startswith("request-")
    ]
    return json.loads(text)["adoption"]


def test_the_taker_is_told_who_gives() -> None:
    assert _told(world(_provider(ENTRY)))["from"] == "team-z/notes"


@pytest.mark.parametrize(
    "entry",
    [
        {**ENTRY, "schema": "other"},
        {**ENTRY, "to": "team-a/other"},
        {**ENTRY, "from": "team-a/notes", "to": "team-z/notes"},
    ],
    ids=["another schema", "another taker", "the giver"],
)
def test_nobody_else_is(entry: Object) -> None:
    assert _told(world(_provider(entry)))["from"] is None


def test_an_entry_runs_the_takers_job_and_nobody_elses() -> None:
    settled, before = settle(world(_provider()))
    theirs = {"schema": "theirs", "from": "team-y/notes", "to": "team-z/notes"}
    assert settle(settled.but(providers=(_provider(theirs),)))[1].jobs() == before.jobs()
    assert settle(settled.but(providers=(_provider(theirs, ENTRY),)))[1].jobs() != before.jobs()


@pytest.mark.parametrize("isolation", ["Schema", "Dataset"])
def test_a_schema_can_be_handed_over(isolation: str) -> None:
    answer = run(
        provider_world(_provider(ENTRY, isolation=isolation, **({"schema": "notes"} if isolation == "Dataset" else {})))
    )
    assert answer.conditions["BackendReady"][1] != "InvalidSpec", answer.message("BackendReady")


def test_a_database_of_its_own_cannot_be_handed_over() -> None:
    broken = _provider(ENTRY, isolation="Database")
    answer = run(provider_world(broken))
    assert answer.conditions["BackendReady"] == (False, "InvalidSpec")
    assert answer.message("BackendReady") == (
        "spec.adoptions: a home cannot be handed over with isolation Database, for each is named after its "
        "Memory: leave it out, and let the new Memory copy what it needs"
    )


def test_such_an_entry_removes_nothing_that_runs() -> None:
    settled, before = settle(world(_provider(isolation="Database")))
    answer = run(settled.but(providers=(_provider(ENTRY, isolation="Database"),)))
    assert answer.conditions["ProviderReady"] == (False, "InvalidSpec")
    assert answer.resources == before.resources
