"""Other people change objects too: by mistake, by policy, or to do harm. Nothing of it stops the function."""

from __future__ import annotations

import copy
import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.function.harness import Object, World, complete, failed, run, settle, step
from tests.function.worlds import ADMIN, memory, provider, provider_world, world
from tests.schemas import catalog

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("code", "reason", "message", "modules", "server", "caBundle")
WRITTEN = [
    {"modules": ["x"]},
    {"modules": None},
    {"modules": [{"name": "core", "version": "1"}] * 100},
    {"server": {"version": "1", "capabilities": None}},
    {"server": {"version": {}, "capabilities": {}}},
    {"server": {"version": "1", "capabilities": ["x"] * 100}},
    {"server": "x"},
    {"code": [1]},
    {"code": 10**30},
    {"caBundle": "x" * 70_000},
    {"message": "x" * 70_000},
]
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _edited(now: World, key: str, **fields: Any) -> World:
    body = {**copy.deepcopy(now.observed[key]), **fields}
    return now.but(observed={**now.observed, key: {name: value for name, value in body.items() if value is not ...}})


def _key(now: World, kind: str) -> str:
    return next(key for key, body in now.observed.items() if body["kind"] == kind)


@pytest.fixture(scope="module")
def settled() -> World:
    return settle(world())[0]


def _hold(now: World, text: str) -> None:
    """Whatever a report says, the answer is one that a control plane can apply."""
    report = _key(now, "ConfigMap")
    key = "provision" if now.xr["kind"] == "XMemory" else "probe"
    answer = run(_edited(now, report, data={key: text}))
    assert set(answer.resources) >= set(now.observed)
    assert catalog().problems({**now.xr, "status": answer.status}) == []


@pytest.mark.parametrize("said", WRITTEN, ids=lambda said: next(iter(said)))
@pytest.mark.parametrize("kind", ["memory", "provider"])
def test_a_report_may_say_anything(settled: World, said: Object, kind: str) -> None:
    now = settled if kind == "memory" else step(provider_world(provider(ready=False)))[0]
    wanted = next(key.split("-")[1] for key in now.observed if key.startswith("request-"))
    _hold(now, json.dumps({"hash": wanted, "code": 0, **said}))


@pytest.mark.parametrize("text", ["", "[", "[" * 200_000, "9" * 5_000, '{"hash": "\\ud800"}', "null", "[]", '"x"'])
def test_a_report_may_be_no_report(settled: World, text: str) -> None:
    _hold(settled, text)


@quick
@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_report_is_survived(said: Object) -> None:
    now = settle(world())[0]
    wanted = next(key.split("-")[1] for key in now.observed if key.startswith("provision-"))
    _hold(now, json.dumps({"hash": wanted, **said}))


BROKEN: list[Any] = [1, ["x"], [{}]]


@pytest.mark.parametrize(
    "data",
    [..., {}, {"request.json": "e30="}, {"request.json": "!"}, {"request.json": b64encode(b"[1]").decode()}]
    + [{"request.json": b64encode(json.dumps({"logins": each}).encode()).decode()} for each in BROKEN],
)
@pytest.mark.parametrize("missing", ["nothing", "provider", "answer", "root key"])
def test_a_broken_request_secret_is_mended_not_stumbled_over(settled: World, data: Any, missing: str) -> None:
    now = _edited(settled, next(key for key in settled.observed if key.startswith("request-")), data=data)
    if missing == "provider":
        now = now.but(providers=())
    elif missing == "answer":
        now = now.but(resolved=False)
    elif missing == "root key":
        now = now.but(credentials={})
    answer = run(now)
    assert set(settled.observed) <= set(answer.resources)
    assert answer.ready == (missing == "nothing")


@pytest.mark.parametrize("label", ["app.kubernetes.io/instance", "memory.proompteng.ai/mine", "job-name"])
def test_a_label_that_others_put_on_a_job_is_theirs(settled: World, label: str) -> None:
    """A Job's template cannot change: an own label copied there would be refused on every reconcile."""
    key = _key(settled, "Job")
    body = copy.deepcopy(settled.observed[key])
    body["metadata"]["labels"][label] = "x"
    answer = run(settled.but(observed={**settled.observed, key: body}))
    assert answer.resources[key] == run(settled).resources[key]


@pytest.mark.parametrize("labels", [{"app.kubernetes.io/managed-by": "Helm"}, {}, None])
def test_a_changed_label_makes_nothing_less_ours(settled: World, labels: Any) -> None:
    observed = copy.deepcopy(dict(settled.observed))
    for body in observed.values():
        body["metadata"]["labels"] = labels
    for lost in (settled.but(providers=()), settled.but(credentials={}), settled.but(resolved=False)):
        assert set(run(lost.but(observed=observed)).resources) == set(observed)


def test_a_key_that_others_put_into_a_secret_stays_theirs(settled: World) -> None:
    mixed = _edited(settled, "binding", data={**settled.observed["binding"]["data"], "extra": "eA=="})
    assert "extra" not in run(mixed.but(providers=())).resources["binding"]["data"]


def test_a_secret_in_the_way_is_told(settled: World) -> None:
    """Crossplane cannot apply what another object's name holds: the Secret is never observed."""
    without = {key: body for key, body in settled.observed.items() if key != "binding"}
    bare = {key: value for key, value in settled.xr.items() if key != "status"}
    answer = run(settled.but(observed=without, xr=bare))
    assert answer.conditions["CredentialsReady"] == (False, "WaitingForBackend")
    assert 'waiting for Secret "notes-memory" in namespace "team-a"' in answer.message("CredentialsReady")
    assert "another object of that name is in the way" in answer.message("CredentialsReady")
    assert not {"connectionSecretRef", "binding"} & set(answer.status), "they name what really exists"


def test_the_newest_composite_of_a_claim_is_meant() -> None:
    """While an old one is being deleted there are two."""
    own = {"host": "own.team-a.svc", "sslMode": "require", "connectionSecret": {"name": "own-admin"}}
    new = provider("pg-new", ("team-a", "pg"), postgres=own)
    old = provider("pg-old", ("team-a", "pg"), postgres={**own, "host": "old.team-a.svc"})
    old["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    for order in ((old, new), (new, old)):
        assert run(world(*order)).status["provider"]["host"] == "own.team-a.svc"
    older = {**old, "metadata": {**old["metadata"], "creationTimestamp": "2025-01-01T00:00:00Z"}}
    del older["metadata"]["deletionTimestamp"]
    for order in ((older, new), (new, older)):
        assert run(world(*order)).status["provider"]["host"] == "own.team-a.svc"


def test_an_unseen_job_is_rendered_only_where_its_document_is() -> None:
    started, answer = step(world())
    unseen = {key: body for key, body in started.observed.items() if key not in answer.jobs()}
    moved = provider(postgres={"host": "db.example.com", "connectionSecret": {**ADMIN, "namespace": "db2"}})
    after = run(started.but(observed=unseen, providers=(moved,)).with_spec(searchConfig="english"))
    assert not set(after.jobs()) & set(answer.jobs())


def test_a_lost_status_moves_no_data_and_changes_no_password(settled: World) -> None:
    bare = settled.but(xr={key: value for key, value in settled.xr.items() if key != "status"})
    elsewhere = provider("other", postgres={"host": "other.example.com", "connectionSecret": ADMIN})
    answer = run(bare.but(providers=(elsewhere,)).with_spec(providerRef={"name": "other"}))
    assert answer.conditions["ProviderReady"] == (False, "Changed")
    assert set(answer.resources) == set(settled.observed)
    answer = run(bare.but(credentials={"root-key": {"current": bytes(32)}}))
    assert answer.conditions["CredentialsReady"] == (False, "UnknownRootKey")
    assert run(bare).resources == run(settled).resources


def test_a_refused_switch_is_not_ready(settled: World) -> None:
    """Ready is said of the spec as it stands."""
    answer = run(settled.with_spec(providerRef={"name": "other"}))
    assert answer.conditions["ProviderReady"] == (False, "SwitchRefused")
    assert not answer.ready
    assert answer.conditions["Provisioned"] == (False, "Running")
    assert answer.message("Provisioned") == "the changed spec waits for ProviderReady"


def test_what_was_provisioned_says_nothing_of_a_changed_spec(settled: World) -> None:
    away = settled.but(providers=())
    assert "Provisioned" not in run(away).conditions, "it stays as it is"
    changed = run(away.with_spec(searchConfig="english"))
    assert changed.conditions["Provisioned"] == (False, "Running")


def test_going_back_within_a_second_is_done_again(settled: World) -> None:
    """Times have whole seconds; the status knows which spec was tried last."""
    changed, answer = step(settled.with_spec(searchConfig="english"))
    new = next(key for key in answer.jobs() if key not in settled.observed)
    broken = {**changed.observed, new: failed(changed.observed[new], 11)}
    back = run(changed.but(observed=broken).with_spec(searchConfig="simple"))
    assert any(key.endswith("-2") for key in back.jobs())
    assert not back.ready


def test_a_ca_of_another_server_is_not_published_any_longer() -> None:
    cluster = {"clusterRef": {"name": "db", "namespace": "databases"}, "connectionSecret": ADMIN}
    now = provider_world(provider(ready=False, postgres=cluster))
    status = {
        "endpoint": "db-rw.databases.svc:5432",
        "caBundle": "PEM",
        "version": "18.4",
        "capabilities": ["pgvector"],
    }
    probed = now.but(xr={**now.xr, "status": status})
    assert run(probed).status["caBundle"] == "PEM"
    other = {**cluster, "clusterRef": {"name": "db2", "namespace": "databases"}}
    moved = probed.but(xr={**probed.xr, "spec": provider(postgres=other)["spec"]})
    assert run(moved).status == {"type": "postgres", "endpoint": "db2-rw.databases.svc:5432"}


def test_a_pasted_password_is_not_shown() -> None:
    pasted = {"host": "postgresql://admin:hunter2@db/app" + "x" * 300, "connectionSecret": ADMIN}
    body = {**provider(), "spec": {"type": "postgres", "postgres": pasted}}
    message = run(provider_world(body)).message("BackendReady")
    assert "spec.postgres.host: this value is refused" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("code", "reason", "sentence"),
    [
        (None, "DeadlineExceeded", "did not end in time: look at its pod's events"),
        (None, "BackoffLimitExceeded", "read the log of its last pod, then change the spec or the annotation"),
        (13, "PodFailurePolicy", "ended with PermissionDenied and its report could not be read"),
    ],
)
def test_a_job_that_left_no_report_is_explained(code: int | None, reason: str, sentence: str) -> None:
    started, answer = step(world(provider(ready=False)))
    (key,) = answer.jobs()
    message = run(started.but(observed={**started.observed, key: failed(started.observed[key], code, reason)}))
    assert sentence in message.message("Provisioned")
    assert 'in namespace "databases"' in message.message("Provisioned")


def test_a_probe_that_is_complete_and_silent_is_explained() -> None:
    started, _ = step(provider_world(provider(ready=False)))
    key = _key(started, "Job")
    answer = run(started.but(observed={**started.observed, key: complete(started.observed[key])}))
    assert "is complete but wrote no answer to ConfigMap" in answer.message("BackendReady")


def test_a_binding_keeps_the_place_that_crossplane_keeps_for_it() -> None:
    settled_xr = settle(world(memory_xr=memory(claim=None)))[0]
    moved = provider(postgres={"host": "db.example.com", "connectionSecret": {**ADMIN, "namespace": "db2"}})
    after, answer = settle(settled_xr.but(providers=(moved,)))
    assert answer.status["connectionSecretRef"]["namespace"] == "databases"
    assert after.observed["binding"]["metadata"]["namespace"] == "databases"
