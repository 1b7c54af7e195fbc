"""Delivery Object: the same objects inside, nothing readable that should not be, and nothing that changes its way."""

from __future__ import annotations

import json
from typing import Any

import cel
import pytest
from cel import stdlib
from hypothesis import example, given, settings
from hypothesis import strategies as st

from function import names
from migrations.errors import Code
from migrations.report import Report
from tests.function.examples import FOLDERS, Example, probed, provisioned
from tests.function.harness import (
    Answer,
    Object,
    World,
    asked,
    complete,
    failed,
    inner,
    is_wrapped,
    pipeline_input,
    reported,
    run,
    secret_entries,
    settle,
    showing,
    step,
    unseen,
)
from tests.function.worlds import delivered, memory, provider, provider_world, world
from tests.schemas import catalog

# Without role management CNPG, which delivery Object refuses.


def _may_be_delivered(example: Example) -> bool:
    """Whether nobody but the app must see a password, which would stand in an Object."""
    spec = example.read("provider.yaml")["spec"]
    is_told = spec["type"] == "custom" or spec.get("s3", {}).get("users") in {"RGW", "Shared"}
    return not example.definitions and not is_told


EXAMPLES = [pytest.param(each, id=each.folder.name) for each in map(Example, FOLDERS) if _may_be_delivered(each)]
BINDINGS = {"binding", "binding-reader"}


def _asked(answer: Answer) -> dict[str, Object]:
    """What is to be made in the backend's cluster, by key."""
    return {key: asked(body) for key, body in answer.resources.items() if key not in BINDINGS}


def _pair(example: Example) -> tuple[World, World]:
    """An example's new Memory delivered both ways; there is no place for a reader's password in an Object."""
    start = example.world(settled=False).with_spec(access={"readOnlySecret": False}, writeConnectionSecretToRef=None)
    return start.but(settings=pipeline_input(), published={}), delivered(start)


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_claim_renders_the_same_manifests_both_ways(example: Example) -> None:
    direct, wrapped = _pair(example)
    first = [run(each) for each in (direct, wrapped)]
    assert _asked(first[0]) == _asked(first[1])
    settled = [run(provisioned(each)) for each in (direct, wrapped)]
    assert _asked(settled[0]) == _asked(settled[1])
    assert settled[0].ready == settled[1].ready
    assert settled[1].ready or example.folder.name == "refused"


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_provider_renders_the_same_manifests_both_ways(example: Example) -> None:
    start = example.provider_world
    direct, wrapped = start.but(settings=pipeline_input("memoryprovider")), delivered(start)
    assert _asked(run(direct)) == _asked(run(wrapped))
    both = [probed(each) for each in (direct, wrapped)]
    assert _asked(both[0][1]) == _asked(both[1][1])
    assert both[0][1].status == both[1][1].status
    assert [answer.ready for _, answer in both] == [True, True]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_object_is_one_that_provider_kubernetes_takes(example: Example) -> None:
    known = catalog("provider-kubernetes")
    _, wrapped = _pair(example)
    for answer in (run(wrapped), run(provisioned(wrapped)), probed(delivered(example.provider_world))[1]):
        found = [body["metadata"]["name"] for body in answer.resources.values()]
        assert len(found) == len(set(found)), "an Object has no namespace, so its name says all"
        for body in answer.resources.values():
            assert body["apiVersion"] == "kubernetes.crossplane.io/v1alpha2"
            assert known.problems(body) == []
            assert known.problems(asked(body)) == []


@pytest.mark.parametrize("example", EXAMPLES)
def test_no_plaintext_stands_in_an_object(example: Example) -> None:
    """Nor anywhere else but in the connection details, which Crossplane alone reads."""
    _, wrapped = _pair(example)
    answer = run(provisioned(wrapped))
    details = answer.response.desired.composite.connection_details
    assert ("password" in details) == (example.folder.name != "refused")
    assert not BINDINGS & set(answer.resources)
    password = details.get("password", b"no password").decode()
    for body in answer.resources.values():
        texts = [json.dumps(body), *(secret_entries(asked(body)).values() if "data" in asked(body) else ())]
        assert not any(password in text for text in texts)
    assert password not in json.dumps(answer.status) + str(answer.response.conditions) + str(answer.response.results)


# Jobs and reports ---------------------------------------------------------------------------------------------------


def _started() -> tuple[World, str]:
    """A Memory whose Job runs, and the Job's key."""
    started, answer = step(delivered(world()))
    return started, answer.jobs()[0]


def _with(now: World, key: str, found: Object) -> World:
    return now.but(observed={**now.observed, key: showing(now.observed[key], found)})


def test_a_job_is_made_once_and_never_updated() -> None:
    """A template cannot change; and a Job that ended and was cleared away would run again."""
    first = run(delivered(world()))
    policies = {key: body["spec"].get("managementPolicies") for key, body in first.resources.items()}
    started, key = _started()
    assert policies.pop(key) == ["Observe", "Create", "Delete"]
    assert set(policies.values()) == {None}, "what can change is kept as it should be"
    assert run(started).resources[key]["spec"]["managementPolicies"] == ["Observe", "Create", "Delete"]
    job = inner(started.observed[key])
    for ended in (complete(job), failed(job, 11)):
        assert run(_with(started, key, ended)).resources[key]["spec"]["managementPolicies"] == ["Observe", "Delete"]


def test_a_change_of_the_composition_changes_no_job() -> None:
    started, key = _started()
    settings = {**started.settings, "migrations": {"image": "another", "version": 1}}
    for now in (started, started.but(observed={name: unseen(body) for name, body in started.observed.items()})):
        assert asked(run(now.but(settings=settings)).resources[key]) == asked(started.observed[key])


def _holds(query: str, value: Object) -> bool:
    context = cel.Context({"object": value})
    stdlib.add_stdlib_to_context(context)
    return bool(cel.evaluate(query, context))


def test_a_jobs_object_is_ready_when_the_job_is_complete() -> None:
    started, key = _started()
    readiness = started.observed[key]["spec"]["readiness"]
    assert readiness["policy"] == "DeriveFromCelQuery"
    job = inner(started.observed[key])
    without_conditions = {**job, "status": {}}
    new = {name: value for name, value in job.items() if name != "status"}
    states = {"complete": complete(job), "failed": failed(job, 11), "made": new, "running": without_conditions}
    assert {name: _holds(readiness["celQuery"], each) for name, each in states.items()} == {
        "complete": True,
        "failed": False,
        "made": False,
        "running": False,
    }


def _report(now: World) -> str:
    return next(key for key, body in now.observed.items() if asked(body)["kind"] == "ConfigMap")


@pytest.mark.parametrize("command", ["provision", "probe"])
def test_a_report_is_ready_when_it_holds_the_good_answer(command: str) -> None:
    """Ready Objects are asked for every ten minutes only: an answer that is waited for would come that late."""
    start = world() if command == "provision" else provider_world(provider(ready=False))
    started, _ = step(delivered(start))
    job = next(key for key in started.observed if names.parse_job_key(key))
    content = job.split("-")[1]
    report = _report(started)

    def query(now: World) -> str:
        readiness = run(now).resources[report]["spec"]["readiness"]
        assert readiness["policy"] == "DeriveFromCelQuery"
        found: str = readiness["celQuery"]
        return found

    empty = inner(started.observed[report])
    good = _written(empty, command, content, Code.SUCCEEDED)
    assert not _holds(query(started), good), "the Job is not seen to have ended"
    ended = _with(started, job, complete(inner(started.observed[job])))
    assert query(ended) != query(started), "a changed Object is looked at again at once"
    assert _holds(query(ended), good)
    others = [
        empty,
        {**empty, "data": {"maintenance": "{}"}},
        _written(empty, command, "0123456789", Code.SUCCEEDED),
        _written(empty, command, content, Code.UNREACHABLE),
        _written(empty, command, "0123456789", Code.SUCCEEDED, f'"hash": "{content}"'),
    ]
    assert [_holds(query(ended), each) for each in others] == [False] * len(others)


def _written(configmap: Object, key: str, content: str, code: Code, message: str = "") -> Object:
    text = Report(hash=content, code=code, message=message).to_json()
    return {**configmap, "data": {key: text}}


# What is not seen yet -----------------------------------------------------------------------------------------------


def test_an_object_that_its_provider_has_not_looked_at_is_neither_ready_nor_forgotten() -> None:
    started, _ = step(delivered(world()))
    waiting = started.but(observed={key: unseen(body) for key, body in started.observed.items()})
    for now in (waiting, waiting.but(providers=()), waiting.with_spec(searchConfig="english")):
        answer = run(now)
        assert set(started.observed) <= set(answer.resources)
        assert not any(each.ready == 1 for each in answer.response.desired.resources.values())
        assert len(answer.jobs()) == 1, "its Job may run"
        assert not answer.ready
    assert run(waiting).conditions["Provisioned"] == (False, "Running")


def test_a_deleted_object_is_a_job_that_goes() -> None:
    settled, _ = settle(delivered(world()))
    (key,) = run(settled).jobs()
    body = settled.observed[key]
    going = {**body, "metadata": {**body["metadata"], "deletionTimestamp": "2026-01-01T01:00:00Z"}}
    assert f"{key[:-1]}2" in run(settled.but(observed={**settled.observed, key: going})).jobs()


@pytest.mark.parametrize("lost", [{"providers": ()}, {"credentials": {}}, {"resolved": False}])
def test_kept_objects_carry_nothing_that_others_added(lost: dict[str, Any]) -> None:
    settled, answer = settle(delivered(world()))
    kept = run(settled.but(**lost))
    assert kept.resources == answer.resources
    assert kept.response.desired.composite.connection_details == answer.response.desired.composite.connection_details


def test_a_provider_that_shows_no_secrets_is_one_too() -> None:
    """With --sanitize-secrets provider-kubernetes shows no data; what is asked for says it all."""
    settled, answer = settle(delivered(world()))
    observed = {
        key: showing(body, {**inner(body), "data": {"redacted": None}}) if asked(body)["kind"] == "Secret" else body
        for key, body in settled.observed.items()
    }
    for now in (settled.but(observed=observed), settled.but(observed=observed, providers=())):
        assert run(now).resources == answer.resources
        assert run(now).ready


def test_a_manifest_that_somebody_has_stripped_is_survived() -> None:
    """Only who administers the platform can; the function serves the other Memories on."""
    settled, _ = settle(delivered(world()))
    observed = dict(settled.observed)
    for key, body in settled.observed.items():
        manifest = {name: value for name, value in asked(body).items() if name in {"apiVersion", "kind"}}
        spec = {**body["spec"], "forProvider": {"manifest": manifest}}
        observed[key] = {**body, "spec": spec, "status": {}}
    for now in (settled.but(observed=observed), settled.but(observed=observed, providers=())):
        assert set(observed) <= set(run(now).resources)


# Where Objects lead -------------------------------------------------------------------------------------------------


def _config(name: str) -> Object:
    return {**pipeline_input("memory-object"), "object": {"providerConfigRef": {"name": name}}}


def _configs(answer: Answer) -> set[str]:
    return {body["spec"]["providerConfigRef"]["name"] for body in answer.resources.values()}


def test_objects_name_the_inputs_provider_config() -> None:
    start = delivered(world())
    assert _configs(run(start)) == {"default"}
    assert _configs(run(start.but(settings=_config("far")))) == {"far"}


def test_an_object_never_moves_to_another_cluster() -> None:
    """Its provider would make the same there, and forget what is here."""
    settled, answer = settle(delivered(world()))
    moved = settled.but(settings=_config("far"))
    assert run(moved).resources == answer.resources
    changed = run(moved.with_spec(searchConfig="english"))
    assert _configs(changed) == {"default", "far"}


@given(*[st.lists(st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?", fullmatch=True), min_size=3, max_size=3)] * 2)
def test_objects_of_different_objects_have_different_names(one: list[str], other: list[str]) -> None:
    both = [names.delivered(kind, namespace[:63], name) for kind, namespace, name in (one, other)]
    same = one[0] == other[0] and one[1][:63] == other[1][:63] and one[2] == other[2]
    assert (both[0] == both[1]) == same
    assert all(len(name) <= 253 for name in both)


# The binding --------------------------------------------------------------------------------------------------------


def test_the_binding_is_handed_to_crossplane() -> None:
    """The same entries as the Secret that delivery Direct composes; status names the one that Crossplane writes."""
    start = delivered(world())
    settled, answer = settle(start)
    assert answer.ready
    direct = settle(world())[1]
    details = {key: value.decode() for key, value in answer.response.desired.composite.connection_details.items()}
    assert details == secret_entries(direct.resources["binding"])
    own = {"name": start.xr["metadata"]["uid"], "namespace": "crossplane-system"}
    assert answer.status["connectionSecretRef"] == own
    assert "binding" not in answer.status, "the claim's Secret has a name that only the claim knows"
    assert "spec.writeConnectionSecretToRef of the claim" in answer.message("CredentialsReady")
    assert answer.status["delivery"] == "Object"
    assert run(settled).conditions["CredentialsReady"] == (True, "Available")


CHANGES = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=3)


@settings(max_examples=15, deadline=None)
@example([(1, True)], set())
@example([(2, False)], {2, 3})
@given(CHANGES, st.sets(st.integers(0, 40)))
def test_no_rotation_takes_the_login_from_under_the_apps_copy(changes: list[tuple[int, bool]], lost: set[int]) -> None:
    """Crossplane copies the Secret for the app only while the composite is Ready, and may fail to say so (`lost`)."""
    now, answer = settle(delivered(world()))
    held = dict(now.published)
    verifiers = _verifiers(answer)
    epoch, tick = 0, 0
    for more, revoke in changes:
        epoch += more
        now = now.with_spec(credentials={"epoch": epoch, "revokeOld": revoke})
        for _ in range(40):
            tick += 1
            after, answer = step(now, time=f"2026-02-01T00:{tick // 60:02}:{tick % 60:02}Z")
            for key in set(answer.jobs()) - set(now.observed):
                document = _document(answer, key.split("-")[1])
                (login,) = [each for each in document["logins"] if each["name"] == held["username"].decode()]
                assert login["state"] != "closed"
                assert login.get("verifier", verifiers[held["password"]]) == verifiers[held["password"]]
            if answer.ready and tick not in lost:
                verifiers |= _verifiers(answer)
                held = dict(after.published)
            elif answer.ready:
                after = _unsaid(after)
            if after == now and tick not in lost:
                break
            now = after
        assert answer.ready
        assert answer.status["credentials"]["epoch"] == epoch
        assert held == now.published, "the app has the newest in the end"


def test_a_step_that_failed_is_not_given_up_for_the_one_before() -> None:
    """Whether the app has its copy is asked before a step, not while the composite is not Ready because of it."""
    now, _ = settle(delivered(world()))
    now = now.with_spec(credentials={"epoch": 1, "revokeOld": True})
    started: list[str] = []
    for hour in range(8):
        after, answer = step(now, time=f"2026-02-01T{hour:02}:00:00Z", code=13 if len(started) > 1 else 0)
        started += sorted(set(answer.jobs()) - set(now.observed))
        now = after
    assert len(started) == 2
    assert _document(run(now), started[1].split("-")[1])["logins"][0]["state"] == "closed"
    assert run(now).conditions["Provisioned"] == (False, "PermissionDenied")


def _document(answer: Answer, content: str) -> Object:
    text = secret_entries(asked(answer.resources[f"request-{content}"]))["request.json"]
    found: Object = json.loads(text)
    return found


def _verifiers(answer: Answer) -> dict[bytes, str]:
    """The verifier of the password that is handed out."""
    details = answer.response.desired.composite.connection_details
    document = _document(answer, answer.status["provision"]["hash"])
    (verifier,) = [each["verifier"] for each in document["logins"] if each["name"] == details["username"].decode()]
    return {details["password"]: verifier}


def _unsaid(now: World) -> World:
    """The composite without the word that it is Ready: it was not written, and nothing was copied."""
    status = now.xr["status"]
    others = [each for each in status["conditions"] if each["type"] != "Ready"]
    return now.but(xr={**now.xr, "status": {**status, "conditions": others}})


def test_credentials_are_ready_when_crossplane_has_published_them() -> None:
    settled, _ = settle(delivered(world()))
    answer = run(settled.but(published={}))
    assert answer.conditions["CredentialsReady"] == (False, "WaitingForBackend")
    assert not answer.ready


def test_without_a_claim_the_binding_is_what_the_composite_names() -> None:
    plain = memory(claim=None)
    plain["spec"]["writeConnectionSecretToRef"] = {"namespace": "apps", "name": "mine"}
    answer = settle(world(memory_xr=plain).but(settings=pipeline_input("memory-object")))[1]
    assert answer.ready
    assert answer.status["connectionSecretRef"] == {"namespace": "apps", "name": "mine"}
    assert answer.status["binding"] == {"name": "mine"}
    assert "claim" not in answer.message("CredentialsReady")


@pytest.mark.parametrize("claim", [("team-a", "notes"), None])
def test_without_a_secret_for_the_password_nothing_is_made(claim: tuple[str, str] | None) -> None:
    answer = run(world(memory_xr=memory(claim)).but(settings=pipeline_input("memory-object")))
    assert answer.conditions == {"CredentialsReady": (False, "NoSecretRef")}
    said = answer.message("CredentialsReady")
    for what in (
        "writeConnectionSecretsToNamespace in the Composition",
        "spec.writeConnectionSecretToRef",
        "notes-x7k2p",
    ):
        assert what in said
    assert not answer.resources
    assert not answer.ready


def test_a_readers_secret_has_no_place() -> None:
    settled, before = settle(delivered(world()))
    for now in (delivered(world()), settled):
        answer = run(now.with_spec(access={"readOnlySecret": True}))
        assert answer.conditions["CredentialsReady"] == (False, "NoSecretRef")
        assert "spec.access.readOnlySecret" in answer.message("CredentialsReady")
        assert not answer.ready
    assert answer.resources == before.resources


def test_role_management_cnpg_is_refused() -> None:
    """The Jobs' own login is a Secret with a plaintext password there."""
    cluster = {"clusterRef": {"name": "memory-db", "namespace": "databases"}, "roleManagement": "CNPG"}
    body = provider(postgres=cluster)
    answers = {
        "BackendReady": run(delivered(provider_world(body))),
        "ProviderReady": run(delivered(world(body))),
    }
    for kind, answer in answers.items():
        assert answer.conditions[kind] == (False, "InvalidSpec")
        assert "spec.postgres.roleManagement: CNPG does not go with delivery Object" in answer.message(kind)
        assert not answer.resources


# The other way ------------------------------------------------------------------------------------------------------


def _other(start: World, to: str) -> World:
    return start.but(settings=pipeline_input(to))


@pytest.mark.parametrize("there", ["Direct", "Object"])
def test_a_memory_that_was_delivered_the_other_way_keeps_everything(there: str) -> None:
    start = delivered(world()) if there == "Object" else world()
    settled, before = settle(start)
    wanted = "memory" if there == "Object" else "memory-object"
    for changed in (settled, settled.with_spec(searchConfig="english")):
        answer = run(_other(changed, wanted))
        assert answer.conditions["Provisioned"] == (False, "DeliveryChanged")
        assert "nothing was moved" in answer.message("Provisioned")
        assert f"a Composition with delivery {there}" in answer.message("Provisioned")
        assert answer.resources == before.resources, "nothing shrinks, nothing changes its way"
        assert answer.status["delivery"] == there
        assert answer.status == before.status
        details = before.response.desired.composite.connection_details
        assert answer.response.desired.composite.connection_details == details
    assert run(_other(settled, wanted)).ready, "what it was made for it still does"
    assert run(settled).ready, "and the right Composition is all it takes"


@pytest.mark.parametrize("there", ["Direct", "Object"])
def test_a_provider_that_was_delivered_the_other_way_keeps_everything(there: str) -> None:
    start = provider_world(provider(ready=False))
    settled, before = probed(delivered(start) if there == "Object" else start)
    answer = run(_other(settled, "memoryprovider" if there == "Object" else "memoryprovider-object"))
    assert answer.conditions == {"BackendReady": (False, "DeliveryChanged")}
    assert answer.resources == before.resources
    assert answer.status == before.status


@pytest.mark.parametrize("composition", ["memory", "memory-object"])
def test_some_of_each_stay_some_of_each(composition: str) -> None:
    """However that came about."""
    direct, wrapped = settle(world())[0], settle(delivered(world()))[0]
    keys = sorted(set(direct.observed) & set(wrapped.observed))
    mixed = {key: (direct if number % 2 else wrapped).observed[key] for number, key in enumerate(keys)}
    answer = run(_other(wrapped, composition).but(observed=mixed))
    assert answer.conditions["Provisioned"] == (False, "DeliveryChanged")
    assert {key: is_wrapped(body) for key, body in answer.resources.items()} == {
        key: is_wrapped(body) for key, body in mixed.items()
    }


@pytest.mark.parametrize(
    "theirs", [{"apiVersion": "kubernetes.crossplane.io/v1alpha2"}, {"apiVersion": "example.org/v1"}]
)
def test_objects_of_another_step_are_no_reason(theirs: Object) -> None:
    """A step of somebody else may use provider-kubernetes; and another API may call something an Object."""
    body = {**theirs, "kind": "Object", "metadata": {"name": "theirs", "labels": {}}, "spec": {}}
    body["spec"] = {"forProvider": {"manifest": {"apiVersion": "v1", "kind": "Namespace", "metadata": {}}}}
    settled, before = settle(world())
    answer = run(settled.but(observed={**settled.observed, "theirs": body}))
    assert answer.ready
    assert answer.resources == before.resources
    lost = run(settled.but(observed={**settled.observed, "theirs": body}, providers=()))
    assert lost.resources == before.resources
    assert "theirs" not in lost.resources


def test_the_report_is_read_through_its_object() -> None:
    """What went wrong stands in the condition."""
    started, key = _started()
    report = _report(started)
    ended = _with(started, key, failed(inner(started.observed[key]), 14))
    said = reported(inner(started.observed[report]), "provision", hash=key.split("-")[1], code=14, message="taken")
    answer = run(_with(ended, report, said))
    assert answer.conditions["Provisioned"] == (False, "SchemaConflict")
    assert answer.message("Provisioned") == "taken"
    assert "data" not in asked(answer.resources[report]), "that is the Jobs'"
