"""Maintenance: whose CronJob it is, what it is told, and what becomes of what it found."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from function import names
from migrations.request import MaintainRequest
from tests.function.harness import Answer, Object, World, reported, run, secret_entries, settle, step
from tests.function.worlds import CA, managed_world, memory, provider, provider_world, world

OWN = {"host": "db.team-a.svc", "caBundle": CA, "connectionSecret": {"name": "admin"}}


def _cronjobs(bodies: Any) -> list[Object]:
    return [body for key, body in bodies.items() if key.startswith("maintenance-")]


def _cronjob(bodies: Any) -> Object:
    (found,) = _cronjobs(bodies)
    return found


def _pod(cronjob: Object) -> Object:
    found: Object = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def _mounted(cronjob: Object) -> list[str]:
    """Names of the Secrets that a run has: request, login, CA."""
    return [each["secret"]["name"] for each in _pod(cronjob)["volumes"][0]["projected"]["sources"]]


def _asked(answer: Answer) -> Any:
    """The document that the CronJob mounts."""
    mounted = _mounted(_cronjob(answer.resources))[0]
    (request,) = [body for body in answer.resources.values() if body["metadata"]["name"] == mounted]
    return json.loads(secret_entries(request)["request.json"])


def _providers(**spec: Any) -> World:
    return provider_world(provider(ready=False, **spec))


# The CronJob of a provider.


def test_a_provider_has_one_for_all_its_memories() -> None:
    cronjob = _cronjob(run(_providers()).resources)
    assert cronjob["metadata"]["namespace"] == "databases"
    assert _pod(cronjob)["containers"][0]["args"] == ["maintain"]
    assert not _cronjobs(settle(world())[1].resources), "a thousand Memories must not mean a thousand pods an hour"


def test_its_request_is_what_the_image_reads() -> None:
    asked = _asked(run(_providers(maintenance={"driftPolicy": "Repair", "workMem": "2GB"})))
    MaintainRequest.model_validate(asked)
    assert (asked["driftPolicy"], asked["workMem"], asked["memory"], asked["claim"]) == ("Repair", "2GB", None, None)
    assert asked["provider"]["uid"] == "uid-of-pg"


def test_a_tenants_looks_after_its_namespace_only() -> None:
    tenants = provider("pg-x1y2z", ("team-a", "pg"), ready=False, postgres=OWN)
    assert _asked(run(provider_world(tenants)))["claim"] == {"namespace": "team-a", "name": "pg"}


def test_it_runs_once_an_hour_and_never_twice_at_once() -> None:
    spec = _cronjob(run(_providers()).resources)["spec"]
    minute, *rest = spec["schedule"].split()
    assert 0 <= int(minute) < 60
    assert rest == ["*"] * 4
    assert spec["concurrencyPolicy"] == "Forbid"


def test_not_all_providers_begin_at_the_same_minute() -> None:
    schedules = {
        _cronjob(run(provider_world(provider(name, ready=False))).resources)["spec"]["schedule"]
        for name in ("pg", "pg-2", "other", "shared")
    }
    assert len(schedules) > 1
    assert _cronjob(run(_providers()).resources)["spec"]["schedule"] in schedules, "the same every time"


def test_a_schedule_of_the_platforms_counts() -> None:
    cronjob = _cronjob(run(_providers(maintenance={"schedule": "0 3 * * SUN"})).resources)
    assert cronjob["spec"]["schedule"] == "0 3 * * SUN"
    assert cronjob["spec"]["startingDeadlineSeconds"] == 3600, "a night's run that came too late is made up for"


@pytest.mark.parametrize(("wanted", "seconds"), [(None, 3300), (600, 3300), (7200, 7200)])
def test_a_run_has_the_time_that_an_index_takes(wanted: int | None, seconds: int) -> None:
    jobs = {"activeDeadlineSeconds": wanted} if wanted else {}
    cronjob = _cronjob(run(_providers(jobs=jobs)).resources)
    job = cronjob["spec"]["jobTemplate"]["spec"]
    assert (job["activeDeadlineSeconds"], job["backoffLimit"]) == (seconds, 0)
    assert _pod(cronjob)["containers"][0]["env"] == [{"name": "MEMORY_DEADLINE_SECONDS", "value": str(seconds)}]


def _said(**answer: Any) -> World:
    """A provider whose maintenance has reported on this very spec."""
    settled, first = settle(_providers())
    (report,) = [key for key, body in settled.observed.items() if body["kind"] == "ConfigMap"]
    said = {"hash": _asked(first)["hash"], "code": 0, "message": "homes: 3 looked after", **answer}
    return settled.but(observed={**settled.observed, report: reported(settled.observed[report], "maintain", **said)})


def _last_run(now: World, **status: Any) -> World:
    (key,) = [key for key in now.observed if key.startswith("maintenance-")]
    return now.but(observed={**now.observed, key: {**now.observed[key], "status": status}})


def _failed(now: World) -> World:
    return _last_run(now, lastScheduleTime="2026-01-01T01:42:00Z", lastSuccessfulTime="2026-01-01T00:43:00Z")


def test_before_its_first_run_nothing_is_wrong() -> None:
    answer = settle(_providers())[1]
    assert answer.conditions["MaintenanceReady"] == (True, "Waiting")
    assert _cronjob(answer.resources)["spec"]["schedule"] in answer.message("MaintenanceReady")


def test_what_it_did_is_the_providers_condition() -> None:
    answer = run(_said())
    assert answer.conditions["MaintenanceReady"] == (True, "Available")
    assert answer.message("MaintenanceReady") == "homes: 3 looked after"


@pytest.mark.parametrize(("code", "reason"), [(30, "Unreachable"), (13, "PermissionDenied"), (99, "JobFailed")])
def test_what_it_cannot_do_is_said_and_touches_nothing_else(code: int, reason: str) -> None:
    before, answer = run(_said()), run(_failed(_said(code=code, message="what is wrong, what to do")))
    assert answer.conditions["MaintenanceReady"] == (False, reason), "not that its pod has failed"
    assert answer.message("MaintenanceReady") == "what is wrong, what to do"
    assert answer.conditions["BackendReady"] == before.conditions["BackendReady"]
    assert (answer.ready, answer.resources) == (before.ready, before.resources)


@pytest.mark.parametrize("now", [_said(), settle(_providers())[0]], ids=["that did succeed", "that never did"])
def test_one_that_does_not_succeed_is_stale(now: World) -> None:
    answer = run(_failed(now))
    assert answer.conditions["MaintenanceReady"] == (False, "Stale")
    assert '-maintenance" in namespace "databases" did not succeed' in answer.message("MaintenanceReady")


# The CronJob of a Memory whose roles CloudNativePG makes.


def _managed(**spec: Any) -> World:
    return settle(managed_world(memory(**spec)), steps=14)[0]


def test_without_an_admin_a_memory_has_its_own() -> None:
    now = _managed()
    answer = run(now)
    cronjob = _cronjob(answer.resources)
    assert cronjob["metadata"]["namespace"] == "databases"
    login = next(key for key in answer.resources if key.startswith("login-"))
    assert _mounted(cronjob)[1] == answer.resources[login]["metadata"]["name"], "as its Jobs do"
    asked = _asked(answer)
    MaintainRequest.model_validate(asked)
    assert asked["memory"] == {"identity": "team-a/notes", "database": answer.status["database"], "schema": "notes"}
    report = next(body for body in answer.resources.values() if body["kind"] == "ConfigMap")
    assert asked["report"] == {"namespace": "databases", "name": report["metadata"]["name"]}
    assert not _cronjobs(run(provider_world(managed_world().providers[0])).resources), "there is no login for all"
    assert "MaintenanceReady" not in run(provider_world(managed_world().providers[0])).conditions


def test_its_own_comes_when_there_is_something_to_look_after() -> None:
    now = managed_world(memory())
    for _ in range(14):
        before = now
        now, answer = step(now)
        assert bool(_cronjobs(answer.resources)) == ("binding" in before.observed)
    assert answer.ready


def test_memories_begin_at_different_minutes() -> None:
    schedules = {
        _cronjob(_managed_as(name).observed)["spec"]["schedule"] for name in ("notes", "atlas", "sessions", "orders")
    }
    assert len(schedules) > 1


def _managed_as(name: str) -> World:
    return settle(managed_world(memory(("team-a", name), f"{name}-x7k2p")), steps=14)[0]


def test_a_rotation_gives_its_own_the_new_login() -> None:
    """What it names is there at any moment."""
    now = _managed()
    seen = {_mounted(_cronjob(now.observed))[1]}
    now = now.with_spec(credentials__epoch=1)
    for _ in range(10):
        now, answer = step(now)
        secrets = {body["metadata"]["name"] for body in answer.resources.values() if body["kind"] == "Secret"}
        mounted = _mounted(_cronjob(answer.resources))
        assert set(mounted) <= secrets
        seen.add(mounted[1])
    assert len(seen) == 2, "another password is another Secret"


def test_its_own_is_not_forgotten_while_something_is_missing() -> None:
    now = _managed()
    before = run(now).resources
    kept = {key: body for key, body in before.items() if key.startswith(("maintenance-", "request-"))}
    assert len(kept) == 3
    for less in (now.but(providers=()), now.but(credentials={}), now.but(resolved=False)):
        assert {key: run(less).resources.get(key) for key in kept} == kept


def test_its_own_stays_as_it_is_while_a_job_for_something_else_is_at_work() -> None:
    now, before = _managed(), run(_managed()).resources
    (key,) = [key for key in before if key.startswith("maintenance-")]
    now, _ = step(now.with_spec(searchConfig="german"))
    answer = run(now.with_spec(searchConfig="english"))
    assert any(each.startswith("provision-") for each in answer.resources)
    assert answer.resources[key] == before[key]


# Data that is not to go.


def _database(bodies: Any) -> Object:
    (found,) = [body for body in bodies.values() if body["kind"] == "Database"]
    spec: Object = found["spec"]
    return spec


def test_a_database_outlives_its_claim_while_a_hold_is_on() -> None:
    dropped, held = _managed(deletionPolicy="Delete"), _managed(deletionPolicy="Delete", legalHold=True)
    assert _database(dropped.observed)["databaseReclaimPolicy"] == "delete"
    assert _database(held.observed)["databaseReclaimPolicy"] == "retain"
    assert _database(run(dropped.with_spec(legalHold=True)).resources)["databaseReclaimPolicy"] == "retain", "at once"


def test_a_hold_does_not_wait_for_a_job_that_is_at_work() -> None:
    now, _ = step(_managed(deletionPolicy="Delete").with_spec(searchConfig="german"))
    now, answer = step(now)
    assert _database(answer.resources)["databaseReclaimPolicy"] == "delete"
    working = run(now.with_spec(legalHold=True, searchConfig="english"))
    assert _database(working.resources)["databaseReclaimPolicy"] == "retain"


# What was found.


EXACT = {"state": "exact", "reason": "Exact", "message": "", "rows": 1200, "bytes": 9800000}
FOUND: dict[str, Any] = {
    "hash": "",
    "code": 0,
    "reason": "Succeeded",
    "message": "",
    "migration": "",
    "sqlstate": "",
    "index": EXACT,
    "retention": {"lastRun": "2026-02-03T04:05:06Z", "deleted": 310, "message": ""},
    "drift": [],
    "data": {"rows": 48000, "bytes": 31000000, "deadPercent": 2, "oldest": "2025-10-03T00:00:00Z", "held": 7},
}


def _found(now: World, **found: Any) -> World:
    """A Memory that maintenance has looked after."""
    (report,) = [key for key, body in now.observed.items() if body["kind"] == "ConfigMap"]
    written = reported(now.observed[report], "maintenance", **{**copy.deepcopy(FOUND), **found})
    return now.but(observed={**now.observed, report: written})


def _of(**spec: Any) -> World:
    return settle(world(memory_xr=memory(**spec)))[0]


KINDS = ("IndexReady", "RetentionScheduled", "InSync")


def test_before_the_first_run() -> None:
    answer = run(_of())
    schedule = names.hourly("pg")
    assert {kind: answer.conditions[kind] for kind in KINDS} == {
        "IndexReady": (True, "Exact"),
        "RetentionScheduled": (True, "Scheduled"),
        "InSync": (False, "NeverChecked"),
    }
    assert answer.message("IndexReady") == "searches are exact; an index is built when there are 10000 embeddings"
    assert answer.message("RetentionScheduled") == (
        f'rows are removed after 90 days, when maintenance runs ("{schedule}")'
    )
    assert answer.message("InSync") == f'maintenance has not run yet; it runs at "{schedule}"'
    assert not {"embeddings", "retention", "data", "drift"} & set(answer.status)
