"""Role management CNPG: roles and the database are objects, no Job has an admin, and nothing is made too early."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from function import names, readiness
from function.resources.projection import project
from tests.function.harness import (
    Answer,
    Object,
    World,
    complete,
    failed,
    run,
    secret_entries,
    served,
    settle,
    step,
)
from tests.function.worlds import (
    ADMIN,
    CA,
    CLUSTER,
    ROLES_CRD,
    managed,
    managed_world,
    memory,
    provider,
    provider_world,
)
from tests.schemas import catalog

UID = "uid-of-notes-x7k2p"
PREFIX = names.Identity("team-a/notes").roles("app")
slow = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _managed(**spec: Any) -> World:
    return managed_world(memory(**spec))


def _objects(bodies: Any) -> dict[str, Object]:
    """Objects of CloudNativePG by what they are: `owner`, `rw_a`, `database`."""
    found = {}
    for body in bodies.values():
        if body["kind"] in {"DatabaseRole", "Database"}:
            found[body["spec"]["name"].removeprefix(PREFIX).removeprefix("_") or "database"] = body
    return found


def _spec(seen: World | Answer, part: str) -> Object:
    bodies = seen.observed if isinstance(seen, World) else seen.resources
    found: Object = _objects(bodies)[part]["spec"]
    return found


def _key(seen: World, part: str) -> str:
    (found,) = [key for key, body in seen.observed.items() if body is _objects(seen.observed)[part]]
    return found


def _with(seen: World, part: str, **status: Any) -> World:
    """The same with another status of one object."""
    key = _key(seen, part)
    return seen.but(observed={**seen.observed, key: {**seen.observed[key], "status": status}})


def _settled(start: World) -> World:
    return settle(start, steps=14)[0]


def _stages(start: World) -> list[set[str]]:
    """What is composed new in each step."""
    found = []
    for _ in range(10):
        after, answer = step(start)
        for body in _objects(after.observed).values():
            assert body["status"].get("applied") is not False, body
        found.append(set(answer.resources) - set(start.observed))
        start = after
    return found


def _kinds(keys: set[str]) -> set[str]:
    """Keys without their hashes."""
    return {
        "-".join(part for part in key.split("-") if not set(part) <= set("0123456789abcdef") or len(part) < 3)
        for key in keys
    }


def test_nothing_is_made_before_what_it_needs() -> None:
    """So that the operator never fails for a dependency, after which it would wait half a minute."""
    stages = [_kinds(each) for each in _stages(_managed())]
    assert stages[0] >= {"cnpg-role-owner", "cnpg-role-writer", "cnpg-role-reader", "cnpg-secret-rw-a", "login"}
    assert stages[1] == {"cnpg-database", "cnpg-role-rw-a", "cnpg-role-job", "report-binding"}
    assert stages[2] == {"provision-1", "request"}
    assert stages[4] == {"binding"}


def test_roles_and_database_as_objects_of_the_cluster() -> None:
    seen = _settled(_managed(access={"readOnlySecret": True}))
    found = _objects(seen.observed)
    assert set(found) == {"owner", "writer", "reader", "rw_a", "ro_a", "job", "database"}
    known = catalog("cloudnative-pg")
    assert [known.problems(project(body)) for body in found.values()] == [[]] * len(found)
    assert {body["metadata"]["namespace"] for body in found.values()} == {"databases"}
    assert {body["spec"]["cluster"]["name"] for body in found.values()} == {"db"}
    assert _spec(seen, "rw_a")["inRoles"] == [f"{PREFIX}_writer"]
    assert _spec(seen, "ro_a")["inRoles"] == [f"{PREFIX}_reader"]
    assert _spec(seen, "job")["inRoles"][0] == f"{PREFIX}_owner"
    assert _spec(seen, "database") == {
        "cluster": {"name": "db"},
        "name": PREFIX,
        "owner": f"{PREFIX}_owner",
        "databaseReclaimPolicy": "retain",
        "extensions": [{"name": "vector", "schema": "public"}],
    }


def test_logins_go_with_the_claim_and_the_owner_and_groups_stay() -> None:
    found = _objects(_settled(_managed()).observed)
    policies = {part: body["spec"].get("databaseRoleReclaimPolicy") for part, body in found.items()}
    kept, gone = dict.fromkeys(("owner", "writer", "reader"), "retain"), dict.fromkeys(("rw_a", "job"), "delete")
    assert policies == {**kept, **gone, "database": None}


def test_only_logins_that_may_come_in_have_a_password() -> None:
    found = _objects(_settled(_managed()).observed)
    assert {part for part, body in found.items() if body["spec"].get("login")} == {"rw_a", "job"}
    assert {part for part, body in found.items() if body["spec"].get("passwordSecret")} == {"rw_a", "job"}
    assert all(found[part]["spec"]["disablePassword"] for part in ("owner", "writer", "reader"))


def test_connection_limit_is_that_of_the_apps_logins() -> None:
    seen = _settled(managed_world(memory(), connectionLimit=7))
    limits = {part: body["spec"].get("connectionLimit") for part, body in _objects(seen.observed).items()}
    assert (limits["rw_a"], limits["job"], limits["owner"]) == (7, -1, -1)


def test_the_operator_gets_verifiers_that_it_is_told_to_reload() -> None:
    seen = _settled(_managed())
    found = [body for body in seen.observed.values() if body.get("type") == "kubernetes.io/basic-auth"]
    assert len(found) == 2
    for body in found:
        assert body["metadata"]["labels"]["cnpg.io/reload"] == "true"
        assert secret_entries(body)["password"].startswith("SCRAM-SHA-256$4096:")


def test_no_plaintext_but_in_the_binding_and_in_the_secret_that_the_job_logs_in_with() -> None:
    seen, answer = settle(_managed(access={"readOnlySecret": True}), steps=14)
    passwords = {}
    for key, body in answer.resources.items():
        if key.startswith(("binding", "login-")):
            passwords[key] = secret_entries(body)["password"]
    assert len(set(passwords.values())) == 3
    for key, body in answer.resources.items():
        text = json.dumps(body) + "".join(secret_entries(body).values() if body["kind"] == "Secret" else ())
        assert [one for one in passwords if passwords[one] in text] == ([key] if key in passwords else []), key
    assert not any(each in json.dumps(seen.xr) for each in passwords.values())


def test_no_job_mounts_an_admins_login() -> None:
    start = _managed()
    mounted = set()
    for _ in range(6):
        start, answer = step(start)
        for body in answer.resources.values():
            if body["kind"] == "Job":
                [volume] = body["spec"]["template"]["spec"]["volumes"]
                mounted |= {each["secret"]["name"] for each in volume["projected"]["sources"]}
    logins = {name for name in mounted if name.startswith(PREFIX.replace("_", "-"))}
    assert len(logins) == 1
    [login] = [body for key, body in start.observed.items() if key.startswith("login-")]
    assert logins == {login["metadata"]["name"]}
    assert secret_entries(login)["username"] == f"{PREFIX}_job"
    probing, _ = step(provider_world(managed()).but(definitions=(ROLES_CRD,)))
    [job] = [body for key, body in probing.observed.items() if key.startswith("probe-") and body["kind"] == "Job"]
    [volume] = job["spec"]["template"]["spec"]["volumes"]
    assert "admin" not in json.dumps(volume)


def test_the_app_connects_to_the_memorys_own_database() -> None:
    seen, answer = settle(_managed(), steps=14)
    entries = secret_entries(seen.observed["binding"])
    assert entries["database"] == PREFIX
    assert f"/{PREFIX}?" in entries["uri"]
    assert answer.status["database"] == PREFIX


@pytest.mark.parametrize("part", ["owner", "writer", "reader", "rw_a", "job", "database"])
def test_the_job_waits_until_every_object_is_applied(part: str) -> None:
    seen = _managed()
    for _ in range(2):
        seen, answer = step(seen)
        assert not answer.jobs()
    late = _with(seen, part)
    answer = run(late)
    assert not answer.jobs()
    assert answer.conditions["Provisioned"] == (False, "Running")
    assert "CloudNativePG" in answer.message("Provisioned")
    assert run(seen).jobs()


def test_the_job_waits_until_the_role_has_taken_its_password() -> None:
    """`secretResourceVersion` says which version of the Secret the operator has read."""
    seen = step(step(_managed())[0])[0]
    status = seen.observed[_key(seen, "rw_a")]["status"]
    assert run(seen).jobs()
    assert not run(_with(seen, "rw_a", **{**status, "secretResourceVersion": "1"})).jobs()
    assert not run(_with(seen, "rw_a", **{**status, "observedGeneration": 0})).jobs()


def test_crossplane_looks_again_soon_while_objects_are_made() -> None:
    """It drops events of a composite that has many of them, so nothing may depend on them."""
    start = _managed()
    for _ in range(4):
        start, answer = step(start)
        assert answer.ttl == 2
    assert settle(start, steps=14)[1].ttl == 60, "a change of the spec may be one of the events that are dropped"
    unready = managed()
    unready["status"]["conditions"][0] |= {"status": "False", "reason": "Unreachable"}
    assert step(_managed().but(providers=(unready,)))[1].ttl == 60


def test_a_failed_object_is_looked_at_again_at_once_eight_times() -> None:
    """The operator may read a Secret only after it has noticed itself; a changed label makes it look again."""
    seen = step(step(_managed())[0])[0]
    forbidden = {"applied": False, "message": 'secrets "x" is forbidden'}
    asked = []
    for _ in range(12):
        answer = run(_with(seen, "rw_a", **forbidden))
        asked.append(_objects(answer.resources)["rw_a"]["metadata"]["labels"].get("memory.proompteng.ai/attempt", ""))
        key = _key(seen, "rw_a")
        body = copy.deepcopy(seen.observed[key])
        body["metadata"]["labels"] |= {"memory.proompteng.ai/attempt": asked[-1]}
        seen = seen.but(observed={**seen.observed, key: body})
    assert asked == ["1", "2", "3", "4", "5", "6", "7", *["8"] * 5]
    assert answer.conditions["Provisioned"] == (False, "NotApplied")
    assert 'secrets "x" is forbidden' in answer.message("Provisioned")
    assert answer.ttl == 60
    settled = _settled(seen)
    label = _objects(settled.observed)["rw_a"]["metadata"]["labels"]["memory.proompteng.ai/attempt"]
    assert label == "8", "what works is not touched again"


def test_a_missing_extension_is_said_in_cloudnativepgs_words() -> None:
    seen = step(step(_managed())[0])[0]
    key = _key(seen, "database")
    body = copy.deepcopy(seen.observed[key])
    body["metadata"]["labels"]["memory.proompteng.ai/attempt"] = "8"
    said = 'extension "vector" is not available'
    body["status"] = {
        "applied": False,
        "message": "not all database objects were reconciled",
        "extensions": [{"name": "vector", "applied": False, "message": said}],
    }
    answer = run(seen.but(observed={**seen.observed, key: body}))
    assert answer.conditions["Provisioned"] == (False, "ExtensionMissing")
    assert said in answer.message("Provisioned")


def test_an_extension_schema_of_its_own_is_made_with_the_database() -> None:
    spec = _spec(_settled(managed_world(memory(), extensionSchema="ext")), "database")
    assert spec["schemas"] == [{"name": "ext", "owner": f"{PREFIX}_owner"}]
    assert spec["extensions"] == [{"name": "vector", "schema": "ext"}]


@pytest.mark.parametrize(
    "start",
    [
        managed_world(memory(embeddings={"enabled": False})),
        managed_world(memory(embeddings={"enabled": False}), enablePgVector=False),
    ],
)
def test_without_embeddings_no_extension(start: World) -> None:
    assert "extensions" not in _spec(_settled(start), "database")


def test_the_database_goes_only_when_it_was_made_for_this_very_memory() -> None:
    """Before its Job is complete it may hold the rows of an earlier claim, which nobody gave to this one."""
    start = _managed(deletionPolicy="Delete")
    for _ in range(4):
        start, answer = step(start)
        if "database" in _objects(answer.resources):
            assert _spec(answer, "database")["databaseReclaimPolicy"] == "retain"
    refused = start
    for _ in range(4):
        refused, answer = step(refused, code=15)
    settled = _settled(start)
    assert _spec(settled, "database")["databaseReclaimPolicy"] == "delete"
    assert _spec(settled, "owner")["databaseRoleReclaimPolicy"] == "retain"
    # A Job for another wish of the same claim runs: it is its own all the while.
    answer = step(settled.with_spec(searchConfig="english"))[1]
    assert _spec(answer, "database")["databaseReclaimPolicy"] == "delete"
    # Somebody thought better of it: at once.
    answer = step(settled.with_spec(deletionPolicy="Retain"))[1]
    assert _spec(answer, "database")["databaseReclaimPolicy"] == "retain"


def test_a_refused_adoption_never_drops_what_it_was_refused() -> None:
    start = _managed(deletionPolicy="Delete")
    for _ in range(8):
        start, answer = step(start, code=15)
    assert answer.conditions["Provisioned"] == (False, "AdoptionRequired")
    assert _spec(answer, "database")["databaseReclaimPolicy"] == "retain"
    assert "binding" not in answer.resources


def test_rotation_by_epoch() -> None:
    """The Secret changes when the roles of the epoch are applied and its Job is complete, and not before."""
    settled = _settled(_managed())
    old = secret_entries(settled.observed["binding"])
    start, started = settled.with_spec(credentials={"epoch": 1}), False
    for hour in range(10):
        start, answer = step(start, time=f"2026-02-01T{hour:02}:00:00Z")
        started = started or len(answer.jobs()) == 2
        if secret_entries(answer.resources["binding"]) != old:
            break
        applied = _objects(start.observed).get("rw_b", {}).get("status", {}).get("applied")
        assert not started or applied
    assert started
    entries = secret_entries(start.observed["binding"])
    assert entries["username"] == f"{PREFIX}_rw_b"
    assert entries["password"] != old["password"]
    assert _spec(start, "rw_a") == _spec(settled, "rw_a"), "the old slot drains as it is"
    assert set(_spec(_settled(start), "job")["inRoles"]) == {f"{PREFIX}_{part}" for part in ("owner", "rw_a", "rw_b")}


def test_an_old_slot_is_closed_and_keeps_no_password() -> None:
    settled = _settled(_settled(_managed()).with_spec(credentials={"epoch": 1}))
    assert f"cnpg-secret-rw-a-{_key(settled, 'rw_a')[-6:]}" in settled.observed
    closed = _settled(settled.with_spec(credentials={"epoch": 1, "revokeOld": True}))
    spec = _spec(closed, "rw_a")
    assert spec["disablePassword"]
    assert not spec.get("login")
    assert "passwordSecret" not in spec
    assert f"cnpg-secret-rw-a-{_key(settled, 'rw_a')[-6:]}" not in closed.observed


def test_two_epochs_later_the_first_password_is_no_more() -> None:
    settled = _settled(_managed())
    verifiers = []
    for epoch in (0, 1, 2):
        settled = _settled(settled.with_spec(credentials={"epoch": epoch}))
        login = secret_entries(settled.observed["binding"])["username"]
        name = names.cnpg_secret(login)
        [held] = [body for body in settled.observed.values() if body["metadata"]["name"] == name]
        verifiers.append((login[-1], secret_entries(held)["password"]))
    assert [slot for slot, _ in verifiers] == ["a", "b", "a"]
    assert len(set(verifiers)) == 3


def test_while_a_job_for_another_wish_runs_nothing_is_changed_under_it() -> None:
    settled = _settled(_managed())
    now = step(settled.with_spec(searchConfig="english"))[0]
    running = [
        key for key, body in now.observed.items() if body["kind"] == "Job" and not body["status"].get("conditions")
    ]
    assert running
    answer = run(now.with_spec(searchConfig="english", credentials={"epoch": 1}))
    assert set(_objects(answer.resources)) == set(_objects(now.observed))
    logins = [key for key in answer.resources if key.startswith("login-")]
    assert logins == [key for key in now.observed if key.startswith("login-")]


def test_a_memory_that_is_new_gives_its_job_no_rights_on_logins() -> None:
    """There are no sessions to end yet, and the first Job waits for one thing less."""
    assert _spec(step(step(_managed())[0])[1], "job")["inRoles"] == [f"{PREFIX}_owner"]


def test_an_older_operator_is_a_condition_on_the_memory() -> None:
    start = _managed().but(definitions=())
    answer = run(start)
    assert answer.conditions["ProviderReady"] == (False, "OperatorTooOld")
    message = answer.message("ProviderReady")
    assert "1.30" in message
    assert "connectionSecret" in message
    assert not answer.resources
    settled, before = settle(_managed(), steps=14)
    assert set(run(settled.but(definitions=())).resources) == set(before.resources)


def test_an_older_operator_is_a_condition_on_the_provider() -> None:
    start = provider_world(managed()).but(definitions=(ROLES_CRD,))
    probing, before = step(start)
    answer = run(probing.but(definitions=()))
    assert answer.conditions["BackendReady"] == (False, "OperatorTooOld")
    assert "1.30" in answer.message("BackendReady")
    assert set(answer.resources) == set(before.resources)


def test_only_role_management_cnpg_asks_for_the_definition() -> None:
    """To ask for a kind that Crossplane may not list would hold up the whole reconcile."""
    assert "cnpg-roles" in run(_managed()).response.requirements.resources
    external = managed_world(memory()).but(providers=(provider(),))
    assert "cnpg-roles" not in run(external).response.requirements.resources
    assert "cnpg-roles" not in run(provider_world(provider())).response.requirements.resources


def test_the_definition_is_seen_and_not_read() -> None:
    """It has 15 kB, and all that counts is that it is there."""
    odd = {**ROLES_CRD, "spec": {"group": "x" * 30_000}}
    assert run(_managed().but(definitions=(odd,))).to_yaml() == run(_managed()).to_yaml()


def test_a_tenants_own_cluster() -> None:
    """A claimed provider may use CloudNativePG in its own namespace, and in no other."""
    mine = managed(claim=("team-a", "pg"), clusterRef={"name": "db"})
    seen = _settled(managed_world(memory()).but(providers=(mine,)))
    assert {body["metadata"]["namespace"] for body in _objects(seen.observed).values()} == {"team-a"}
    theirs = managed(claim=("team-a", "pg"))
    answer = run(managed_world(memory()).but(providers=(theirs,)))
    assert answer.conditions["ProviderReady"] == (False, "InvalidSpec")
    assert not answer.resources


@pytest.mark.parametrize(
    "postgres",
    [
        {**CLUSTER, "connectionSecret": ADMIN, "roleManagement": "CNPG"},
        {"host": "db.example.com", "connectionSecret": ADMIN, "roleManagement": "CNPG"},
    ],
)
def test_role_management_cnpg_goes_with_a_cluster_and_without_an_admin(postgres: Object) -> None:
    body = provider(postgres=postgres)
    answer = run(managed_world(memory()).but(providers=(body,)))
    assert answer.conditions["ProviderReady"] == (False, "InvalidSpec")
    assert "spec.postgres.roleManagement" in answer.message("ProviderReady")


def test_a_corrected_cluster_before_there_is_a_home_has_objects_of_its_own() -> None:
    """A DatabaseRole's cluster cannot change, and under the same key it would have to."""
    seen = step(_managed())[0]
    moved = step(seen.but(providers=(managed(clusterRef={"name": "other", "namespace": "databases"}),)))[1]
    kept = {key for key in moved.resources if names.is_cnpg(key)}
    assert not kept & set(seen.observed)
    assert {body["spec"]["cluster"]["name"] for body in _objects(moved.resources).values()} == {"other"}


SPECS = st.fixed_dictionaries(
    {
        "access": st.fixed_dictionaries({"readOnlySecret": st.booleans()}),
        "deletionPolicy": st.sampled_from(["Retain", "Delete"]),
        "embeddings": st.fixed_dictionaries({"enabled": st.booleans()}),
    }
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("epoch"), st.integers(0, 3)),
        st.tuples(st.just("reader"), st.booleans()),
        st.tuples(st.just("search"), st.sampled_from(["simple", "english"])),
        st.tuples(st.just("end"), st.sampled_from([0, 11, 15, 30])),
        st.tuples(st.just("step"), st.none()),
    ),
    max_size=10,
)


def _happened(now: World, events: list[tuple[str, Any]]) -> World:
    for tick, (kind, value) in enumerate(events):
        if kind == "epoch":
            now = now.with_spec(credentials={"epoch": max(value, now.xr["spec"]["credentials"].get("epoch", 0))})
        if kind == "reader":
            now = now.with_spec(access={"readOnlySecret": value})
        if kind == "search":
            now = now.with_spec(searchConfig=value)
        now = step(now, code=value if kind == "end" else 0, time=f"2026-01-01T{tick:02}:00:00Z")[0]
    return now


@slow
@given(SPECS, EVENTS)
def test_whatever_happens_nothing_is_made_too_early(spec: Object, events: list[tuple[str, Any]]) -> None:
    now = _managed(**spec)
    for event in events:
        now = _happened(now, [event])
        for body in _objects(now.observed).values():
            assert body["status"].get("applied") is not False, body


@slow
@given(SPECS, EVENTS, st.data())
def test_taking_something_out_of_the_request_removes_no_resource(
    spec: Object, events: list[tuple[str, Any]], data: st.DataObject
) -> None:
    now = _happened(_managed(**spec), events)
    whole = set(run(now).resources)
    inputs: dict[str, dict[str, Any]] = {
        "provider": {"providers": ()},
        "definition": {"definitions": ()},
        "definition unanswered": {"unanswered": ("cnpg-roles",)},
        "root key": {"credentials": {}},
        "unresolved": {"resolved": False},
        "all status": {"xr": {key: value for key, value in now.xr.items() if key != "status"}},
    }
    lost = data.draw(st.sampled_from([*sorted(now.observed), *inputs]))
    less = now.but(**inputs.get(lost, {"observed": {key: each for key, each in now.observed.items() if key != lost}}))
    assert set(less.observed) & whole <= set(run(less).resources), lost


def test_a_secret_stays_while_its_role_is_not_seen() -> None:
    """Nobody knows then whether it still has its password from there."""
    now = _happened(_managed(), [("epoch", 0), ("epoch", 0), ("step", None), ("epoch", 1)])
    (role,) = (key for key in now.observed if key.startswith("cnpg-role-rw-a-"))
    (secret,) = (key for key in now.observed if key.startswith("cnpg-secret-rw-a-"))
    less = now.but(observed={key: each for key, each in now.observed.items() if key != role})
    assert secret in run(less).resources


@slow
@given(SPECS)
def test_the_result_fed_back_changes_nothing(spec: Object) -> None:
    seen, answer = settle(_managed(**spec), steps=14)
    assert answer.ready
    again = run(seen)
    assert again.response.SerializeToString(deterministic=True) == answer.response.SerializeToString(deterministic=True)
    for key, body in answer.resources.items():
        assert project(served(key, copy.deepcopy(body))) == body


@pytest.mark.parametrize(
    ("status", "secret_version", "phase"),
    [
        ({}, None, "Waiting"),
        ({"applied": True, "observedGeneration": 1}, None, "Waiting"),
        ({"applied": True, "observedGeneration": 2}, None, "Applied"),
        ({"applied": True, "observedGeneration": 2}, "7", "Waiting"),
        ({"applied": True, "observedGeneration": 2, "secretResourceVersion": "6"}, "7", "Waiting"),
        ({"applied": True, "observedGeneration": 2, "secretResourceVersion": "7"}, "7", "Applied"),
        ({"applied": False, "observedGeneration": 2, "message": "no"}, None, "Failed"),
        ({"applied": None, "message": "a replica cluster"}, None, "Waiting"),
    ],
)
def test_readiness_of_cloudnativepgs_objects(status: Object, secret_version: str | None, phase: str) -> None:
    body = {"kind": "DatabaseRole", "metadata": {"generation": 2}, "status": status}
    assert readiness.cnpg(body, secret_version).phase == phase


def test_a_provider_without_a_version_answers_all_the_same() -> None:
    start = provider_world(provider(ready=False, postgres=CLUSTER)).but(definitions=(ROLES_CRD,))
    seen = step(start)[0]
    key = next(key for key in seen.observed if seen.observed[key]["kind"] == "Job")
    report = next(key for key in seen.observed if seen.observed[key]["kind"] == "ConfigMap")
    said = {"hash": key.removeprefix("probe-"), "code": 0, "message": "", "caBundle": CA}
    said["server"] = {"version": "", "capabilities": []}
    body = {**seen.observed[report], "data": {"probe": json.dumps(said)}}
    answer = run(seen.but(observed={**seen.observed, report: body, key: complete(seen.observed[key])}))
    assert answer.conditions["BackendReady"] == (True, "Available")
    assert answer.message("BackendReady") == "PostgreSQL answers"
    assert answer.status["caBundle"] == CA
    broken = run(seen.but(observed={**seen.observed, key: failed(seen.observed[key], 1)}))
    assert broken.conditions["BackendReady"] == (False, "Probing")
