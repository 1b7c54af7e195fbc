"""Roles of others: a Memory names one, and only its provider's owner decides which may be named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.function.harness import Object, World, run, secret_entries, settle
from tests.function.worlds import ADMIN, CA, memory, provider, world

SERVER = {"host": "db.example.com", "caBundle": CA, "connectionSecret": ADMIN}


def _world(*grantable: str, **access: str) -> World:
    return world(_provider(*grantable), memory_xr=memory(access=access))


def _provider(*grantable: str) -> Object:
    return provider(postgres={**SERVER, **({"grantableRoles": list(grantable)} if grantable else {})})


def _asked(observed: Any) -> Any:
    (text,) = [secret_entries(body)["request.json"] for key, body in observed.items() if key.startswith("request-")]
    return json.loads(text)["access"]


def test_a_granted_role_is_asked_for() -> None:
    settled, answer = settle(_world("analysts", "etl", readerRole="analysts", writerRole="etl"))
    assert answer.ready
    assert _asked(settled.observed) == {"readerRole": "analysts", "writerRole": "etl"}


@pytest.mark.parametrize("field", ["readerRole", "writerRole"])
@pytest.mark.parametrize("grantable", [(), ("payroll", "warehouse")], ids=["no-list", "another"])
def test_a_role_that_the_provider_does_not_list_is_refused(field: str, grantable: tuple[str, ...]) -> None:
    answer = run(_world(*grantable, **{field: "analysts"}))
    assert answer.conditions["Provisioned"] == (False, "PermissionDenied")
    assert answer.message("Provisioned") == (
        f'spec.access.{field}: "analysts" is not among the postgres.grantableRoles of provider "pg": leave it out, '
        'name a role that the provider lists, or ask its owner to add "analysts" there'
    )
    assert not [role for role in ("payroll", "warehouse") if role in answer.message("Provisioned")], "not ours to tell"
    assert answer.resources == {}
    assert not answer.ready


def test_refusing_a_role_removes_nothing_that_runs() -> None:
    settled, before = settle(_world("analysts"))
    answer = run(settled.with_spec(access__readerRole="payroll"))
    assert answer.conditions["Provisioned"] == (False, "PermissionDenied")
    assert answer.resources == before.resources


def test_taking_a_role_off_the_list_removes_nothing_that_runs() -> None:
    settled, before = settle(_world("analysts", readerRole="analysts"))
    answer = run(settled.but(providers=(_provider(),)))
    assert answer.conditions["Provisioned"] == (False, "PermissionDenied")
    assert answer.resources == before.resources


def test_the_list_is_no_part_of_what_jobs_are_told() -> None:
    """So a longer list runs no Job again, and no team learns of another's roles from its request document."""
    settled, before = settle(_world("analysts", readerRole="analysts"))
    answer = settle(settled.but(providers=(_provider("analysts", "payroll"),)))[1]
    assert answer.jobs() == before.jobs()
    assert not [body for body in answer.resources.values() if "payroll" in json.dumps(body)]
