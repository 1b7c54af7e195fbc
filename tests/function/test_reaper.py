"""A provider's reaper: what is composed for it, what it is told, and what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from migrations.postgres.request import ReapRequest
from tests.function.harness import Answer, Object, World, reported, run, secret_entries, settle, step
from tests.function.worlds import ADMIN, CA, provider, provider_world

OWN = {"host": "db.team-a.svc", "caBundle": CA, "connectionSecret": {"name": "admin"}}


def _tenants(**spec: Any) -> Object:
    return provider("pg-x1y2z", ("team-a", "pg"), ready=False, postgres=OWN, **spec)


def _one(answer: Answer, kind: str, prefix: str = "reaper") -> Object:
    (found,) = [body for key, body in answer.resources.items() if key.startswith(prefix) and body["kind"] == kind]
    return found


def _asked(answer: Answer) -> Any:
    """The document that the reaper's CronJob mounts."""
    spec = _one(answer, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    mounted = spec["volumes"][0]["projected"]["sources"][0]["secret"]["name"]
    (request,) = [body for body in answer.resources.values() if body["metadata"]["name"] == mounted]
    return json.loads(secret_entries(request)["request.json"])


def test_it_looks_every_five_minutes_and_never_twice_at_once() -> None:
    cronjob = _one(settle(provider_world(provider(ready=False)))[1], "CronJob")
    assert cronjob["metadata"]["namespace"] == "databases"
    assert (cronjob["spec"]["schedule"], cronjob["spec"]["concurrencyPolicy"]) == ("*/5 * * * *", "Forbid")
    job = cronjob["spec"]["jobTemplate"]["spec"]
    assert job["activeDeadlineSeconds"] < 300
    assert job["backoffLimit"] == 0
    (container,) = job["template"]["spec"]["containers"]
    assert (container["command"], container["args"]) == (["python", "-m", "migrations"], ["reap"])


def test_its_request_is_what_the_image_reads() -> None:
    shared = provider(ready=False, deletionGrace="90m")
    asked = _asked(run(provider_world(shared)))
    ReapRequest.model_validate(asked)
    assert asked["provider"]["uid"] == "uid-of-pg"
    assert (asked["deletionGraceSeconds"], asked["claim"], asked["approved"]) == (5400, None, "")


@pytest.mark.parametrize(
    ("grace", "seconds"), [("0s", 0), ("45s", 45), ("90m", 5400), ("72h", 259200), ("999999h", 3599996400)]
)
def test_the_grace_is_told_in_seconds(grace: str, seconds: int) -> None:
    assert _asked(run(provider_world(provider(ready=False, deletionGrace=grace))))["deletionGraceSeconds"] == seconds


def test_without_a_word_the_grace_is_three_days() -> None:
    assert _asked(run(provider_world(provider(ready=False))))["deletionGraceSeconds"] == 72 * 3600


def test_the_platforms_reaper_sees_composites() -> None:
    answer = settle(provider_world(provider(ready=False)))[1]
    binding = _one(answer, "ClusterRoleBinding")
    assert "namespace" not in binding["metadata"]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "memory-reaper",
    }
    account = _one(answer, "ServiceAccount", "service-account")["metadata"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account["name"], "namespace": "databases"}]
    assert [body["kind"] for key, body in answer.resources.items() if key.startswith("reaper")] == [
        "CronJob",
        "ClusterRoleBinding",
    ]


def test_a_tenants_reaper_sees_its_own_namespace_only() -> None:
    """Composites would tell it which teams there are, and what they have."""
    answer = settle(provider_world(_tenants()))[1]
    assert not [body for body in answer.resources.values() if body["kind"] == "ClusterRoleBinding"]
    binding = _one(answer, "RoleBinding")
    assert binding["metadata"]["namespace"] == "team-a"
    assert binding["roleRef"]["name"] == "memory-reaper"
    assert _asked(answer)["claim"] == {"namespace": "team-a", "name": "pg"}


def test_a_tenants_reaper_looks_at_its_namespace_wherever_its_jobs_run() -> None:
    reaching = provider(
        "pg-x1y2z", ("team-a", "pg"), ready=False, postgres={**OWN, "connectionSecret": ADMIN, "sslMode": "require"}
    )
    start = provider_world(reaching)
    allowed = {**start.settings, "claimedProviders": {"allowOtherNamespaces": True}}
    binding = _one(settle(start.but(settings=allowed))[1], "RoleBinding")
    assert binding["metadata"]["namespace"] == "team-a"
    assert binding["subjects"][0]["namespace"] == "databases"


def test_a_named_account_is_the_one_that_is_bound() -> None:
    answer = settle(provider_world(provider(ready=False, jobs={"serviceAccountName": "mine"})))[1]
    assert _one(answer, "ClusterRoleBinding")["subjects"][0]["name"] == "mine"


def _said(start: World, **answer: Any) -> World:
    """A provider whose reaper has reported on this very spec."""
    settled, first = settle(start)
    (report,) = [key for key, body in settled.observed.items() if body["kind"] == "ConfigMap"]
    said = {"hash": _asked(first)["hash"], "code": 0, "message": "homes: 3 in use", **answer}
    return settled.but(observed={**settled.observed, report: reported(settled.observed[report], "reap", **said)})


def test_what_it_found_is_the_providers_condition() -> None:
    answer = run(_said(provider_world(provider(ready=False))))
    assert answer.conditions["ReaperReady"] == (True, "Available")
    assert answer.message("ReaperReady") == "homes: 3 in use"


@pytest.mark.parametrize(
    ("code", "reason"),
    [(17, "OnHold"), (30, "Unreachable"), (13, "PermissionDenied"), (1, "JobFailed"), (99, "JobFailed")],
)
def test_what_it_cannot_do_is_said_and_touches_nothing_else(code: int, reason: str) -> None:
    start = provider_world(provider(ready=False))
    before = run(_said(start))
    answer = run(_said(start, code=code, message="what is wrong, what to do"))
    assert answer.conditions["ReaperReady"] == (False, reason)
    assert answer.message("ReaperReady") == "what is wrong, what to do"
    assert answer.conditions["BackendReady"] == before.conditions["BackendReady"]
    assert answer.ready == before.ready
    assert answer.resources == before.resources


def test_before_its_first_run_nothing_is_wrong() -> None:
    answer = settle(provider_world(provider(ready=False)))[1]
    assert answer.conditions["ReaperReady"] == (True, "Waiting")


def test_a_reaper_that_does_not_succeed_any_more_is_stale() -> None:
    settled = _said(provider_world(provider(ready=False)))
    (key,) = [key for key, body in settled.observed.items() if key.startswith("reaper") and body["kind"] == "CronJob"]
    stale = {**settled.observed[key], "status": {"lastScheduleTime": "2026-01-01T00:05:00Z"}}
    answer = run(settled.but(observed={**settled.observed, key: stale}))
    assert answer.conditions["ReaperReady"] == (False, "Stale")
    assert '-reaper" in namespace "databases" did not succeed: look at its pods' in answer.message("ReaperReady")


def test_a_person_allows_by_an_annotation_what_the_report_asks_for() -> None:
    body = provider(ready=False)
    before = _asked(run(provider_world(body)))
    body["metadata"]["annotations"] = {"memory.proompteng.ai/reap": "1a2b3c4d"}
    after = _asked(run(provider_world(body)))
    assert after["approved"] == "1a2b3c4d"
    assert after["hash"] != before["hash"], "so that what was said before is not taken for an answer to this"


def test_the_probe_is_not_asked_again_for_it() -> None:
    start = provider_world(provider(ready=False))
    started, first = step(start)
    body = provider(ready=False, deletionGrace="1h")
    body["metadata"]["annotations"] = {"memory.proompteng.ai/reap": "1a2b3c4d"}
    again = run(started.but(xr=body))
    assert [key for key in again.resources if key.startswith("probe-")] == [
        key for key in first.resources if key.startswith("probe-")
    ]
