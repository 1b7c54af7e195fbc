"""What is remembered of a Memory, what counts as proof, and what a reconcile may forget."""

from __future__ import annotations

import copy

import pytest
from crossplane.function.proto.v1 import run_function_pb2 as fnv1

from function.conditions import REPAIRABLE_EXIT_CODES
from tests.function.harness import Answer, Object, World, complete, failed, run, settle, step
from tests.function.worlds import ADMIN, CA, memory, provider, world

OWN = {"host": "own.team-b.svc", "sslMode": "require", "connectionSecret": {"name": "own-admin"}}
LATER = "2026-01-02T00:00:00Z"


def _server(**postgres: object) -> Object:
    return provider(postgres={"host": "db.example.com", "caBundle": CA, "connectionSecret": ADMIN, **postgres})


def _with_status(start: World, **fields: object) -> World:
    """The same with fields of the composite's status replaced, or removed by None."""
    xr = copy.deepcopy(start.xr)
    for name, value in fields.items():
        xr["status"].pop(name, None)
        if value is not None:
            xr["status"][name] = value
    return start.but(xr=xr)


def _without(start: World, *prefixes: str) -> World:
    """The same with some composed objects not observed."""
    return start.but(observed={key: body for key, body in start.observed.items() if not key.startswith(prefixes)})


def _remade(**status: object) -> Object:
    """The provider, deleted and made again: same name, same server, another uid."""
    body = provider()
    body["metadata"]["uid"] = "another"
    body["status"] |= status
    return body


def _unprobed() -> Object:
    """A provider that says nothing about its server, neither whether it answers nor what it can do."""
    return provider(ready=False)


def _able(*capabilities: str) -> Object:
    body = provider()
    body["status"]["capabilities"] = list(capabilities)
    return body


@pytest.mark.parametrize(
    ("moved", "difference"),
    [
        ({"host": "new.example.com"}, "host was db.example.com and is new.example.com"),
        ({"port": 5433}, "port was 5432 and is 5433"),
        ({"database": "other"}, "database was app and is other"),
    ],
    ids=["host", "port", "database"],
)
def test_a_server_that_moved_in_any_pinned_field_moves_nothing(moved: Object, difference: str) -> None:
    settled, before = settle(world(_server()))
    answer = run(settled.but(providers=(_server(**moved),)))
    assert answer.conditions["ProviderReady"] == (False, "Changed")
    assert f"is not what this Memory was made on ({difference}): nothing was moved" in answer.message("ProviderReady")
    assert answer.resources == before.resources


@pytest.mark.parametrize(
    ("noted", "difference"),
    [
        ({"type": "redis"}, "type was redis and is postgres"),
        ({"namespace": "team-a"}, "namespace was team-a and is none"),
        ({"via": "Claim"}, "via was Claim and is Shared"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value.split()[0],
)
def test_what_a_provider_was_is_pinned_too(noted: Object, difference: str) -> None:
    settled, before = settle(world())
    other = _with_status(settled, provider={**settled.xr["status"]["provider"], **noted})
    answer = run(other)
    assert answer.conditions["ProviderReady"] == (False, "Changed")
    assert f"({difference})" in answer.message("ProviderReady")
    assert answer.resources == before.resources
    assert answer.status["provider"] == other.xr["status"]["provider"], "nor is the pin written anew"


@pytest.mark.parametrize(
    "ref", [{"name": "pg"}, {"name": "pg", "namespace": "team-c"}, {"name": "pg", "namespace": "team-a"}], ids=str
)
def test_another_namespace_in_the_ref_is_another_provider(ref: Object) -> None:
    """Whatever else is called like it: a shared one, one of the Memory's own namespace, one of a third."""
    everybody = {"namespaces": {"from": "All"}}
    theirs = provider("pg-b", ("team-b", "pg"), postgres=OWN, allowedConsumers=everybody)
    others = [
        provider(f"pg-{team}", (team, "pg"), postgres=OWN, allowedConsumers=everybody) for team in ("team-a", "team-c")
    ]
    start = world(theirs, *others, provider(), memory_xr=memory(providerRef={"name": "pg", "namespace": "team-b"}))
    settled, before = settle(start)
    assert before.ready
    assert before.status["provider"]["via"] == "Namespace"
    answer = run(settled.with_spec(providerRef=ref))
    assert answer.conditions["ProviderReady"] == (False, "SwitchRefused")
    assert 'data is on provider "team-b/pg"' in answer.message("ProviderReady")
    assert answer.resources == before.resources


EVIDENCE = {
    "credentials": lambda start: _without(start, "binding", "provision-"),
    "binding": lambda start: _with_status(_without(start, "provision-"), credentials=None),
    "job": lambda start: _with_status(_without(start, "binding"), credentials=None),
}


@pytest.mark.parametrize("only", EVIDENCE)
def test_any_single_piece_of_evidence_is_a_home(only: str) -> None:
    settled, _ = settle(world())
    left = EVIDENCE[only](settled).but(providers=(provider("other"),)).with_spec(providerRef={"name": "other"})
    answer = run(left)
    assert answer.conditions["ProviderReady"] == (False, "SwitchRefused"), f"only {only} is left"
    assert set(answer.resources) == set(left.observed)


@pytest.mark.parametrize("only", EVIDENCE)
def test_any_single_piece_of_evidence_holds_the_server_too(only: str) -> None:
    settled, _ = settle(world())
    left = EVIDENCE[only](settled).but(providers=(_server(host="new.example.com"),))
    assert run(left).conditions["ProviderReady"] == (False, "Changed"), f"only {only} is left"


def test_ready_only_when_every_secret_that_is_asked_for_exists() -> None:
    settled, _ = settle(world())
    started, answer = step(settled.with_spec(access={"readOnlySecret": True}))
    assert not answer.ready
    ended, answer = step(started)
    assert not answer.ready
    handed_out, answer = step(ended)
    assert answer.conditions["Provisioned"] == (True, "Succeeded")
    assert "binding-reader" in answer.resources
    assert not answer.ready, "it is asked for, and not observed yet"
    assert answer.ttl == 60
    assert step(handed_out)[1].ready


def test_unresolved_requirements_leave_a_settled_memory_ready() -> None:
    settled, before = settle(world())
    answer = run(settled.but(resolved=False))
    assert answer.ready
    assert answer.ttl == 0
    assert answer.resources == before.resources
    assert answer.status == before.status


def test_unresolved_requirements_make_no_new_memory_ready() -> None:
    answer = run(world().but(resolved=False))
    assert answer.response.desired.composite.ready == fnv1.READY_FALSE, "unsaid, its (no) resources would decide"
    assert answer.ttl == 0


@pytest.mark.parametrize(
    "change",
    [
        {"searchConfig": "english"},
        {"access": {"readOnlySecret": True}},
        {"embeddings__dimension": 768},
        {"dataset__name": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_unresolved_requirements_make_no_changed_memory_ready(change: Object) -> None:
    settled, before = settle(world())
    answer = run(settled.but(resolved=False).with_spec(**change))
    assert answer.response.desired.composite.ready == fnv1.READY_FALSE
    assert answer.resources == before.resources


@pytest.mark.parametrize("code", [0, 11])
def test_status_says_what_is_applied_while_the_next_job_runs(code: int) -> None:
    """Even of a field that the XRD holds fast."""
    settled, before = settle(world(memory_xr=memory(access={"readOnlySecret": True})))
    applied = {key: value for key, value in before.status.items() if key != "provision"}
    refs = {"connectionSecretRef", "readerSecretRef", "binding"}
    assert {"endpoint", "database", "schema", "providerType", "credentials", *refs} <= set(applied)
    started, first = step(settled.with_spec(dataset__schema="elsewhere", access={"readOnlySecret": False}))
    ended, running = step(started, code=code)
    for answer in (first, running):
        assert answer.conditions["Provisioned"] == (False, "Running")
        assert {**answer.status, "provision": None} == {**applied, "provision": None}
    after = {key: value for key, value in run(ended).status.items() if key != "provision"}
    if code == 0:
        del applied["readerSecretRef"]
        applied["schema"] = "elsewhere"
    assert after == applied


@pytest.mark.parametrize("code", REPAIRABLE_EXIT_CODES)
def test_repairable_codes_compare_with_what_the_failure_noted(code: int) -> None:
    able = ["createrole", "pgvector", "pgvector/0.8.5"]
    started, answer = step(world())
    (first,) = answer.jobs()
    broken, answer = step(started.but(observed={**started.observed, first: failed(started.observed[first], code)}))
    assert answer.status["provision"]["capabilities"] == ["createrole", "pgvector"]
    silent, _ = step(broken.but(providers=(_unprobed(),)), code=code)
    now, answer = step(silent.but(providers=(_able(*able),)), code=code)
    assert answer.jobs()[-1] == f"{first[:-2]}-2", "new capabilities are worth one new attempt"
    for _ in range(3):
        now, answer = step(now, code=code)
    assert answer.jobs() == [f"{first[:-2]}-2"], "and only one"
    assert answer.status["provision"]["capabilities"] == able


def _at_attempt(number: int) -> tuple[World, Answer]:
    """A Memory that was provisioned by its n-th Job; the ones before found nobody at the server's address."""
    now, _ = step(world())
    for _ in range(number - 1):
        now, _ = step(now, code=30)
        now, _ = step(now)
    return settle(now)


def test_a_deleted_job_of_a_later_attempt_comes_back_under_its_number() -> None:
    settled, before = _at_attempt(3)
    (key,) = before.jobs()
    assert key.endswith("-3")
    answer = run(_without(settled, "provision-"))
    assert answer.jobs() == [key]
    assert answer.status["provision"]["attempt"] == 3


def test_the_last_complete_job_stays_while_the_next_one_runs() -> None:
    settled, before = settle(world())
    started, first = step(settled.with_spec(searchConfig="english"))
    answer = run(started)
    assert answer.conditions["Provisioned"] == (False, "Running")
    assert set(before.jobs()) < set(answer.jobs()) == set(first.jobs())
    (old,) = before.jobs()
    assert f"request-{old.split('-')[1]}" in answer.resources, "with the document that says what is applied"


def test_which_complete_job_is_the_last_goes_by_time() -> None:
    """A higher number is a later attempt at the same spec only."""
    settled, before = _at_attempt(3)
    (third,) = before.jobs()
    changed, answer = step(settled.with_spec(searchConfig="english"))
    (second_spec,) = set(answer.jobs()) - {third}
    done = {**changed.observed, second_spec: complete(changed.observed[second_spec], LATER)}
    again, answer = step(changed.but(observed=done).with_spec(searchConfig="german"))
    (running,) = set(answer.jobs()) - {third, second_spec}
    assert set(run(again).jobs()) == {second_spec, running}


def test_a_job_that_is_not_observed_may_mount_its_document() -> None:
    started, answer = step(world())
    request = answer.key("request-")
    unseen = _without(started, "provision-").with_spec(searchConfig="english")
    for troubled in (unseen, _with_status(unseen, provision=None)):
        assert request in run(troubled).resources


def test_conditions_that_hold_are_said_when_the_rest_is_blocked() -> None:
    for start in (world(), settle(world())[0]):
        answer = run(start.but(credentials={}))
        assert answer.conditions == {
            "ProviderReady": (True, "Available"),
            "CredentialsReady": (False, "RootKeyMissing"),
        }


def test_a_provider_that_is_made_again_is_one_more_job() -> None:
    """Its uid is in the request document: the backend's ledger is stamped with it."""
    settled, before = settle(world())
    again, started = step(settled.but(providers=(_remade(),)))
    assert started.conditions["ProviderReady"] == (True, "Available")
    assert started.conditions["Provisioned"] == (False, "Running")
    (new,) = set(started.jobs()) - set(before.jobs())
    assert new.endswith("-1")
    running = run(again)
    assert set(running.jobs()) == {*before.jobs(), new}
    settled, after = settle(again)
    assert after.jobs() == [new]
    assert after.ready
    assert after.status["provider"] == {**before.status["provider"], "uid": "another"}
    for answer in (started, running, after):
        assert _standing(answer) == _standing(before), "nothing else moves"


def _standing(answer: Answer) -> dict[str, Object]:
    """All but Jobs and their documents."""
    return {key: body for key, body in answer.resources.items() if not key.startswith(("provision-", "request-"))}
