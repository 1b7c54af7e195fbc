"""What a provider's composite is told, and what is composed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from migrations.postgres.request import ProbeRequest
from tests.function.harness import Object, World, complete, failed, reported, run, secret_entries, step
from tests.function.worlds import ADMIN, CA, provider, provider_world

if TYPE_CHECKING:
    from collections.abc import Mapping

CLUSTER = {"clusterRef": {"name": "db", "namespace": "databases"}, "connectionSecret": ADMIN}
SERVER = {"version": "18.4", "capabilities": ["createrole", "pgvector"]}


def _answered(start: World, **answer: Any) -> World:
    """A provider whose first probe has written an answer."""
    started, first = step(start)
    probe = next(key for key, body in first.resources.items() if body["kind"] == "Job")
    report = next(key for key, body in first.resources.items() if body["kind"] == "ConfigMap")
    said = {"hash": probe.removeprefix("probe-"), "code": 0, "message": "", "server": SERVER, **answer}
    observed = {
        **started.observed,
        report: reported(started.observed[report], "probe", **said),
        probe: complete(started.observed[probe]),
    }
    return started.but(observed=observed)


def test_first_answer_comes_from_a_job_and_later_ones_from_a_cronjob() -> None:
    asked, _ = step(provider_world(provider(ready=False)))
    answer = run(asked)
    kinds = sorted(body["kind"] for body in answer.resources.values())
    assert kinds == [
        *("ClusterRoleBinding", "ConfigMap", "CronJob", "CronJob", "CronJob", "Job", "Role", "RoleBinding"),
        *("Secret", "Secret", "Secret", "ServiceAccount"),
    ]
    assert answer.conditions["BackendReady"] == (False, "Probing")
    cronjob = answer.resources[_probe(answer.resources)]
    assert cronjob["spec"]["schedule"] == "*/5 * * * *"
    assert cronjob["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0, "one attempt"
    assert not answer.ready


def _probe(resources: Mapping[str, Object]) -> str:
    return next(key for key, body in resources.items() if body["kind"] == "CronJob" and key.startswith("probe-"))


def _key(resources: Mapping[str, Object], kind: str) -> str:
    return next(key for key, body in resources.items() if body["kind"] == kind)


def test_its_answer_is_published() -> None:
    answer = run(_answered(provider_world(provider(ready=False))))
    assert answer.ready
    assert answer.status == {"type": "postgres", "endpoint": "db.example.com:5432", **SERVER}
    assert answer.message("BackendReady") == "PostgreSQL 18.4 answers"


@pytest.mark.parametrize(
    ("code", "reason"),
    [(30, "Unreachable"), (13, "PermissionDenied"), (10, "ExtensionMissing"), (20, "InvalidSpec"), (1, "Unreachable")],
)
def test_what_the_probe_finds_is_the_condition(code: int, reason: str) -> None:
    answer = run(_answered(provider_world(provider(ready=False)), code=code, message="what is wrong, what to do"))
    assert answer.conditions["BackendReady"] == (False, reason)
    assert answer.message("BackendReady") == "what is wrong, what to do"
    assert not answer.ready


def test_the_probe_publishes_the_clusters_ca_from_its_own_secret() -> None:
    start = provider_world(provider(ready=False, postgres=CLUSTER))
    job = run(start).resources
    volume = job[_key(job, "Job")]["spec"]["template"]["spec"]["volumes"][0]
    mounted = [each["secret"] for each in volume["projected"]["sources"] if each["secret"]["name"] == "db-ca"]
    assert mounted == [{"name": "db-ca", "items": [{"key": "ca.crt", "path": "tls/ca.crt"}]}], "never its private key"
    assert run(_answered(start, caBundle=CA)).status["caBundle"] == CA


def test_a_ca_that_was_published_stays_until_there_is_a_newer_one() -> None:
    settled, _ = step(_answered(provider_world(provider(ready=False, postgres=CLUSTER)), caBundle=CA))
    report = _key(settled.observed, "ConfigMap")
    silent = {**settled.observed, report: {**settled.observed[report], "data": {}}}
    assert run(settled.but(observed=silent)).status["caBundle"] == CA


def test_a_probe_that_did_not_succeed_makes_the_answer_stale() -> None:
    settled = _answered(provider_world(provider(ready=False)))
    key = _probe(settled.observed)
    for status, reason in (
        ({"lastScheduleTime": "2026-01-01T00:05:00Z", "lastSuccessfulTime": "2026-01-01T00:05:07Z"}, "Available"),
        ({"lastScheduleTime": "2026-01-01T00:05:00Z", "active": [{"name": "x"}]}, "Available"),
        ({"lastScheduleTime": "2026-01-01T00:10:00Z", "lastSuccessfulTime": "2026-01-01T00:05:07Z"}, "Stale"),
        ({"lastScheduleTime": "2026-01-01T00:05:00Z"}, "Stale"),
    ):
        observed = {**settled.observed, key: {**settled.observed[key], "status": status}}
        answer = run(settled.but(observed=observed))
        assert answer.conditions["BackendReady"][1] == reason, status


def test_a_probe_that_failed_without_an_answer_says_so() -> None:
    started, first = step(provider_world(provider(ready=False)))
    key = _key(first.resources, "Job")
    observed = {**started.observed, key: failed(started.observed[key], None, "BackoffLimitExceeded")}
    answer = run(started.but(observed=observed))
    assert answer.conditions["BackendReady"] == (False, "Probing")
    assert "failed without an answer (Job has failed: BackoffLimitExceeded): read its pod's log" in answer.message(
        "BackendReady"
    )


def test_a_wrong_spec_is_a_condition_and_removes_nothing() -> None:
    settled = _answered(provider_world(provider(ready=False)))
    before = set(settled.observed)
    for broken, sentence in (
        (
            {"postgres": {"host": "x"}},
            "spec.postgres.connectionSecret: without it",
        ),
        ({"postgres": {"host": "x", "connectionSecret": ADMIN, "port": 0}}, "spec.postgres.port: 0 is refused"),
        (
            {"postgres": {"host": "x", "connectionSecret": ADMIN, "hots": 0}},
            "spec.postgres.hots: this field is not known",
        ),
    ):
        answer = run(settled.but(xr={**settled.xr, "spec": {"type": "postgres", **broken}}))
        assert answer.conditions["BackendReady"] == (False, "InvalidSpec")
        assert sentence in answer.message("BackendReady")
        assert before <= set(answer.resources)


def test_many_mistakes_are_told_at_once() -> None:
    wrong = {"type": "postgres", "a": 1, "b": 2, "c": 3, "d": 4}
    body = {**provider(), "spec": wrong}
    message = run(provider_world(body)).message("BackendReady")
    assert message.count("this field is not known") == 3
    assert message.endswith("and 1 more")


def test_a_changed_provider_is_probed_anew() -> None:
    settled = _answered(provider_world(provider(ready=False)))
    moved = provider(postgres={"host": "new.example.com", "connectionSecret": ADMIN})
    answer = run(settled.but(xr={**settled.xr, "spec": moved["spec"]}))
    assert answer.conditions["BackendReady"] == (False, "Probing")


def test_its_request_is_what_the_image_reads() -> None:
    answer = run(provider_world(provider(ready=False)))
    probe = next(key for key, body in answer.resources.items() if body["kind"] == "Job")
    entries = secret_entries(answer.resources[probe.replace("probe-", "request-")])
    ProbeRequest.model_validate_json(entries["request.json"])
    assert entries["ca.crt"] == CA


def test_a_named_service_account_is_not_composed() -> None:
    answer = run(provider_world(provider(ready=False, jobs={"serviceAccountName": "mine"})))
    assert "ServiceAccount" not in {body["kind"] for body in answer.resources.values()}


def test_wrong_input_is_fatal() -> None:
    start = provider_world(provider())
    assert "input.surprise: this field is not known" in run(start.but(settings={**start.settings, "surprise": 1})).fatal
