"""Maintenance: whose CronJob it is, what it is told, and what becomes of what it found."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import pytest

from function import names
from migrations.postgres.request import MaintainRequest
from tests.function.harness import (
    TIME,
    Answer,
    Object,
    World,
    inner,
    reported,
    run,
    secret_entries,
    settle,
    showing,
    step,
)
from tests.function.worlds import CA, delivered, managed_world, memory, provider, provider_world, world
from tests.schemas import catalog

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


def test_who_pauses_it_is_not_overruled() -> None:
    """What is not composed is not written: docs/install.md sends people to that field."""
    now, _ = settle(_providers())
    (key,) = [key for key in now.observed if key.startswith("maintenance-")]
    paused = copy.deepcopy(now.observed[key])
    paused["spec"]["suspend"] = True
    for each in (now.but(observed={**now.observed, key: paused}), _managed()):
        assert "suspend" not in _cronjob(run(each).resources)["spec"]


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
        f'what is older than 90 days goes when maintenance runs ("{schedule}")'
    )
    assert answer.message("InSync") == f'maintenance has not run yet; it runs at "{schedule}"'
    assert not {"embeddings", "retention", "data", "drift"} & set(answer.status)


def test_what_was_found_is_the_status() -> None:
    status = run(_found(_of())).status
    assert status["embeddings"] == {"index": "exact", "rows": 1200, "bytes": 9800000}
    assert status["retention"] == {"lastRun": "2026-02-03T04:05:06Z", "deleted": 310}
    assert status["data"] == FOUND["data"]
    assert status["drift"] == []
    assert catalog().problems({**_of().xr, "status": status}) == []


def test_what_was_found_stays_true_when_the_spec_changes() -> None:
    """It bears no hash: a Job for something else says nothing about what is in the tables."""
    now, answer = _found(_of()), run(_found(_of()))
    changed = run(now.with_spec(searchConfig="german"))
    assert changed.conditions["Provisioned"] == (False, "Running")
    assert {key: changed.status[key] for key in ("embeddings", "retention", "data", "drift")} == {
        key: answer.status[key] for key in ("embeddings", "retention", "data", "drift")
    }
    assert {kind: changed.conditions[kind] for kind in KINDS} == {kind: answer.conditions[kind] for kind in KINDS}


def test_what_was_found_stays_while_something_is_missing() -> None:
    now, answer = step(_found(_of()))
    assert run(now.but(providers=())).status["data"] == answer.status["data"]


@dataclass(frozen=True)
class Rule:
    """A finding, a spec, and what the claim says."""

    name: str
    reason: str
    condition: tuple[str, bool, str]
    message: str
    found: Any = None
    spec: Any = None


def _index(**fields: Any) -> Any:
    return {"index": {**EXACT, **fields}}


RULES = [
    Rule(
        "exact",
        "a few rows are searched faster without",
        ("IndexReady", True, "Exact"),
        "searches are exact; an index is built when there are 10000 embeddings (about 1200 now)",
        _index(),
    ),
    Rule(
        "the number is that of the spec",
        "the run of before knew another one",
        ("IndexReady", True, "Exact"),
        "searches are exact; an index is built when there are 500 embeddings (about 1200 now)",
        _index(message="searched exactly until there are 10000 embeddings"),
        {"embeddings__index": {"type": "hnsw", "minRows": 500}},
    ),
    Rule(
        "shorter vectors",
        "an exact search of more of them takes as long",
        ("IndexReady", True, "Exact"),
        "searches are exact; an index is built when there are 40000 embeddings",
        {"index": None},
        {"embeddings__dimension": 384},
    ),
    Rule(
        "building",
        "the user sees it coming",
        ("IndexReady", False, "Building"),
        "searched exactly meanwhile",
        _index(state="building", reason="Building", message="searched exactly meanwhile"),
    ),
    Rule(
        "ready",
        "the index is used",
        ("IndexReady", True, "Ready"),
        "searches use the index",
        _index(state="ready", reason="Ready"),
    ),
    Rule(
        "too many dimensions",
        "what can be done is in the message",
        ("IndexReady", False, "DimensionTooLarge"),
        "searched exactly: at most 4000",
        _index(reason="DimensionTooLarge", message="searched exactly: at most 4000"),
    ),
    Rule(
        "invalid",
        "a build failed, and said nothing",
        ("IndexReady", False, "Invalid"),
        "searches are exact: the index cannot be used",
        _index(reason="Invalid"),
    ),
    Rule(
        "no embeddings",
        "there is nothing to search",
        ("IndexReady", True, "Disabled"),
        "spec.embeddings.enabled is false: there are no embeddings",
        _index(),
        {"embeddings__enabled": False},
    ),
    Rule(
        "no index wanted",
        "it reads right at once, whatever the last run built",
        ("IndexReady", True, "Disabled"),
        "spec.embeddings.index.type is none: searches are exact",
        _index(state="ready", reason="Ready"),
        {"embeddings__index": {"type": "none"}},
    ),
    Rule(
        "embeddings that have just been enabled",
        "the last run found them disabled",
        ("IndexReady", True, "Exact"),
        "searches are exact; an index is built when there are 10000 embeddings",
        {"index": {"state": "exact", "reason": "Disabled", "message": ""}},
    ),
    Rule(
        "scheduled",
        "days, schedule, and what went last",
        ("RetentionScheduled", True, "Scheduled"),
        f'what is older than 90 days goes when maintenance runs ("{names.hourly("pg")}"); '
        "310 went on 2026-02-03T04:05:06Z",
    ),
    Rule(
        "nothing removed yet",
        "there is nothing to say of it",
        ("RetentionScheduled", True, "Scheduled"),
        f'what is older than 1 day goes when maintenance runs ("{names.hourly("pg")}")',
        {"retention": {"lastRun": None, "deleted": 0, "message": ""}},
        {"retention": {"ttlDays": 1}},
    ),
    Rule(
        "kept for ever",
        "whatever the last run failed with",
        ("RetentionScheduled", True, "Disabled"),
        "spec.retention.ttlDays is 0: rows are kept for ever",
        {"retention": {"lastRun": None, "deleted": 0, "message": "permission denied"}},
        {"retention": {"ttlDays": 0}},
    ),
    Rule(
        "on hold",
        "a hold goes before an age",
        ("RetentionScheduled", True, "OnHold"),
        "spec.legalHold is true: nothing is removed, whatever its age",
        None,
        {"legalHold": True},
    ),
    Rule(
        "failing",
        "rows stay that should go",
        ("RetentionScheduled", False, "Failing"),
        "permission denied for table memory_events",
        {"retention": {"lastRun": None, "deleted": 0, "message": "permission denied for table memory_events"}},
    ),
    Rule(
        "in sync",
        "nobody has changed anything",
        ("InSync", True, "InSync"),
        "what the backend has is as this version makes it",
    ),
    Rule(
        "drift",
        "the first three, how many more, and what to do",
        ("InSync", False, "Drift"),
        "a; b; c; and 2 more: put it back by hand, or set spec.maintenance.driftPolicy of the provider to Repair",
        {"drift": ["a", "b", "c", "d", "e"]},
    ),
    Rule(
        "a little drift",
        "all of it",
        ("InSync", False, "Drift"),
        "a: put it back by hand, or set spec.maintenance.driftPolicy of the provider to Repair",
        {"drift": ["a"]},
    ),
    Rule(
        "never checked for a reason",
        "what came in the way",
        ("InSync", False, "NeverChecked"),
        f'maintenance has not come to it: drift: permission denied; it runs at "{names.hourly("pg")}"',
        {"drift": None, "code": 13, "reason": "PermissionDenied", "message": "drift: permission denied"},
    ),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_claim_says(rule: Rule) -> None:
    now = _found(_of(), **(rule.found or {}))
    answer = run(now.with_spec(**(rule.spec or {})))
    kind, holds, reason = rule.condition
    assert answer.conditions[kind] == (holds, reason), rule.reason
    assert answer.message(kind) == rule.message


def test_drift_that_could_not_be_repaired_is_for_a_person() -> None:
    repairing = provider(maintenance={"driftPolicy": "Repair"})
    answer = run(_found(settle(world(repairing))[0], drift=["column notes.memory_kv.extra is not ours"]))
    assert answer.message("InSync") == (
        "column notes.memory_kv.extra is not ours: the provider's driftPolicy Repair could not put this back without a "
        "risk for data: do it by hand"
    )


def test_a_failing_cronjob_of_its_own_is_retention_that_fails() -> None:
    """There is no provider's condition that would say it."""
    now = _found(_managed())
    assert run(_last_run(now, lastScheduleTime=TIME, lastSuccessfulTime=TIME)).conditions["RetentionScheduled"][0]
    answer = run(_failed(now))
    assert answer.conditions["RetentionScheduled"] == (False, "Failing")
    assert f'CronJob "{_cronjob(answer.resources)["metadata"]["name"]}" in namespace "databases" did not succeed' in (
        answer.message("RetentionScheduled")
    )
    assert answer.ready


@pytest.mark.parametrize(
    ("ran", "ttl"),
    [
        ({}, 60),
        ({"lastSuccessfulTime": "2026-01-01T00:04:59Z"}, 60),
        ({"lastSuccessfulTime": "2026-01-01T00:05:00Z"}, 600),
        ({"lastSuccessfulTime": "2026-01-01T00:05:00Z", "lastScheduleTime": "2026-01-01T01:40:00Z"}, 600),
        ({"lastSuccessfulTime": "soon"}, 60),
        ({"lastSuccessfulTime": "2026-01-01T00:05:00"}, 60),
    ],
    ids=["no run", "too soon", "rested", "failed since", "no time", "no zone"],
)
def test_an_answer_holds_long_when_a_run_shows_that_the_memory_has_rested(ran: Any, ttl: int) -> None:
    """Right after the many changes of its making Crossplane may be deaf for five minutes."""
    assert TIME == "2026-01-01T00:00:00Z", "when its Job ended"
    assert run(_last_run(_managed(), **ran)).ttl == ttl


WORST = {
    "index": {**EXACT, "reason": "Invalid", "message": "disk full"},
    "retention": {"lastRun": None, "deleted": 0, "message": "no"},
    "drift": ["a"],
}


@pytest.mark.parametrize("found", [WORST, {"drift": None}], ids=["all bad", "never checked"])
def test_a_memory_serves_whatever_maintenance_says(found: Any) -> None:
    now, before = step(_found(_of()))
    after, _ = step(_found(_of(), **found))
    answer = run(after)
    assert answer.ready == before.ready is True
    assert answer.ttl == before.ttl == 600, "a report that changes is noticed; there is nothing to ask for"
    assert answer.resources == run(now).resources


def test_there_are_events_for_what_has_changed_and_for_nothing_else() -> None:
    """None at first: nobody waits for a run of maintenance."""
    now = world()
    while True:
        after, answer = step(now)
        assert not {"NeverChecked", "Exact", "Scheduled"} & {each.reason for each in answer.response.results}
        if after == now:
            break
        now = after
    found, answer = step(_found(now, **WORST))
    assert [each.reason for each in answer.response.results] == ["Invalid", "Failing", "Drift"]
    assert not run(found).response.results
    assert [each.reason for each in run(_found(found)).response.results] == ["Exact", "Scheduled", "InSync"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"drift": [1]}',
        '{"drift": "none"}',
        '{"index": {"state": "gone", "reason": "Exact"}}',
        '{"data": {"rows": -1, "bytes": 0, "deadPercent": 0, "held": 0}}',
        '{"data": {"rows": 0, "bytes": 9007199254740993, "deadPercent": 0, "held": 0}}',
        '{"data": {"rows": 0, "bytes": 0, "deadPercent": 101, "held": 0}}',
        '{"retention": {"lastRun": "2026-13-45T00:00:00Z", "deleted": 1}}',
        '{"retention": {"lastRun": "yesterday", "deleted": 1}}',
        '{"message": "\\ud800"}',
    ],
)
def test_a_report_that_cannot_be_read_is_none(text: str) -> None:
    """Whoever may write it may write anything, and the API server refuses a whole status for one field."""
    now = _of()
    (report,) = [key for key, body in now.observed.items() if body["kind"] == "ConfigMap"]
    body = {**now.observed[report], "data": {**now.observed[report].get("data", {}), "maintenance": text}}
    answer = run(now.but(observed={**now.observed, report: body}))
    assert answer.conditions["InSync"] == (False, "NeverChecked")
    assert not {"embeddings", "retention", "data", "drift"} & set(answer.status)


def test_a_report_is_bounded() -> None:
    answer = run(_found(_of(), drift=["x" * 5000] * 100))
    assert [len(each) for each in answer.status["drift"]] == [300] * 20
    assert len(answer.message("InSync")) < 2000
    said = {"lastRun": None, "deleted": 0, "message": "y" * 5000}
    assert run(_found(_of(), retention=said)).message("RetentionScheduled") == "y" * 1000


def test_delivered_by_objects_it_is_the_same() -> None:
    now = settle(delivered(world()))[0]
    (key,) = [key for key, body in now.observed.items() if inner(body)["kind"] == "ConfigMap"]
    written = reported(inner(now.observed[key]), "maintenance", **FOUND)
    answer = run(now.but(observed={**now.observed, key: showing(now.observed[key], written)}))
    assert answer.conditions["InSync"] == (True, "InSync")
    cronjob = settle(delivered(_providers()))[1].resources
    assert _cronjob(cronjob)["spec"]["forProvider"]["manifest"]["kind"] == "CronJob"
