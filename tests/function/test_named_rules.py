"""Rules of api.md, function.md and provisioning.md that hold of every answer, each under its name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from crossplane.function.proto.v1 import run_function_pb2 as fnv1

from function.conditions import PERMANENT_EXIT_CODES, TRANSIENT_EXIT_CODES
from function.decode import decode
from function.plan import compose
from tests.function.harness import (
    Answer,
    Object,
    World,
    complete,
    failed,
    reported,
    request,
    run,
    secret_entries,
    served,
    settle,
    step,
)
from tests.function.worlds import memory, provider, provider_world, world
from tests.schemas import catalog

LONG = ".".join(("a" * 63, "b" * 63, "c" * 63, "d" * 61))
EVERYBODY = {"namespaces": {"from": "All"}}
LONGEST_MESSAGE = 2000
SERVER = {"version": "18.4", "capabilities": ["createrole", "pgvector"]}


def _with_reader() -> World:
    return world(memory_xr=memory(access={"readOnlySecret": True}))


def _probing(name: str = "pg") -> World:
    return provider_world(provider(name, ready=False))


def _answered(start: World, **said: Any) -> World:
    """A provider whose first probe has written an answer."""
    started, first = step(start)
    probe, report = _one(first, "Job"), _one(first, "ConfigMap")
    answer = {"hash": probe.removeprefix("probe-"), "code": 0, "message": "", "server": SERVER, **said}
    body = reported(started.observed[report], "probe", **answer)
    return started.but(observed={**started.observed, report: body, probe: complete(started.observed[probe])})


def _one(answer: Answer, kind: str, prefix: str = "") -> str:
    """The one key of a kind, and of a prefix where there are more."""
    (found,) = [key for key, body in answer.resources.items() if body["kind"] == kind and key.startswith(prefix)]
    return found


def _of(answer: Answer, kind: str, prefix: str = "") -> Object:
    return answer.resources[_one(answer, kind, prefix)]


def _spec_of_job(which: str) -> Object:
    """Whatever runs the image: a Memory's Job, a provider's Job or its CronJobs."""
    if which in {"probe", "reaper"}:
        spec: Object = _of(run(_probing()), "CronJob", which)["spec"]["jobTemplate"]["spec"]
    else:
        spec = _of(run(world() if which == "provision" else _probing()), "Job")["spec"]
    return spec


every_job = pytest.mark.parametrize("which", ["provision", "first probe", "probe", "reaper"])


def test_a_composite_without_a_claim_is_of_no_namespace() -> None:
    """An unclaimed provider has none either, and two that have none are not in the same one."""
    same = provider(allowedConsumers={"namespaces": {"from": "Same"}})
    answer = run(world(same, memory_xr=memory(claim=None)))
    assert answer.conditions["ProviderReady"] == (False, "NotAdmitted")
    assert "not a composite without a claim: ask the provider's owner" in answer.message("ProviderReady")
    assert answer.resources == {}


def test_all_admits_a_composite_without_a_claim() -> None:
    assert run(world(provider(allowedConsumers=EVERYBODY), memory_xr=memory(claim=None))).jobs()


def test_a_claims_secret_is_named_after_the_claim_whatever_its_composite_says() -> None:
    """Crossplane gives the composite of a claim a writeConnectionSecretToRef of its own, in its own namespace."""
    claimed = memory(access={"readOnlySecret": True})
    claimed["spec"]["writeConnectionSecretToRef"] = {"namespace": "crossplane-system", "name": "uid-of-notes"}
    answer = settle(world(memory_xr=claimed))[1]
    places = [
        (answer.resources[key]["metadata"]["namespace"], answer.resources[key]["metadata"]["name"])
        for key in ("binding", "binding-reader")
    ]
    assert places == [("team-a", "notes-memory"), ("team-a", "notes-memory-reader")]
    assert answer.status["connectionSecretRef"] == {"namespace": "team-a", "name": "notes-memory"}


def test_a_provider_is_asked_again_soon_while_it_converges() -> None:
    assert run(_probing()).ttl == 60
    assert run(_answered(_probing(), code=30)).ttl == 60
    assert run(_answered(_probing())).ttl == 600


def test_a_retry_annotation_probes_anew() -> None:
    settled = _answered(_probing())
    metadata = {**settled.xr["metadata"], "annotations": {"memory.proompteng.ai/retry": "1"}}
    again = settled.but(xr={**settled.xr, "metadata": metadata})
    before, answer = run(settled), run(again)
    assert _one(answer, "Job").startswith("probe-")
    assert _one(answer, "Job") != _one(before, "Job")
    assert answer.conditions["BackendReady"] == (False, "Probing")
    assert run(_answered(again)).ready


@pytest.mark.parametrize("status", [None, {}, {"lastSuccessfulTime": "2026-01-01T00:00:07Z"}], ids=str)
def test_a_cronjob_that_never_ran_makes_nothing_stale(status: Object | None) -> None:
    """The first answer is that of a Job; the CronJob's schedule comes round later."""
    settled = _answered(_probing())
    key = _one(run(settled), "CronJob", "probe")
    body = {name: value for name, value in settled.observed[key].items() if name != "status"}
    body |= {} if status is None else {"status": status}
    answer = run(settled.but(observed={**settled.observed, key: body}))
    assert answer.conditions["BackendReady"] == (True, "Available")


def test_a_report_of_any_length_is_a_message_that_fits() -> None:
    started, first = step(world())
    (job,) = first.jobs()
    report = _one(first, "ConfigMap")
    said = reported(started.observed[report], "provision", hash=job.split("-")[1], code=11, message="x" * 5000)
    observed = {**started.observed, job: failed(started.observed[job], 11), report: said}
    assert run(started.but(observed=observed)).message("Provisioned") == "x" * LONGEST_MESSAGE
    probed = run(_answered(_probing(), code=30, message="x" * 5000))
    assert probed.message("BackendReady") == "x" * LONGEST_MESSAGE


def test_a_providers_name_of_any_length_is_a_label() -> None:
    assert len(LONG) == 253
    start = world(provider(LONG), memory_xr=memory(providerRef={"name": LONG}, access={"readOnlySecret": True}))
    for answer in (settle(start)[1], run(_answered(_probing(LONG)))):
        assert answer.ready
        for key, body in answer.resources.items():
            assert catalog().problems(body) == [], key
            assert all(len(value) <= 63 for value in body["metadata"]["labels"].values()), key


def test_conditions_and_events_are_for_claim_and_composite() -> None:
    """The provider's as well, and what is said of a spec that cannot work."""
    broken = _probing()
    broken = broken.but(xr={**broken.xr, "spec": {"type": "postgres"}})
    for answer in (run(world()), run(world().but(providers=())), run(_probing()), run(broken)):
        targets = {each.target for each in answer.response.conditions}
        assert targets | {each.target for each in answer.response.results} == {fnv1.TARGET_COMPOSITE_AND_CLAIM}
        told = {each.type for each in answer.response.conditions} - {"IndexReady", "RetentionScheduled", "InSync"}
        assert len(answer.response.results) == len(told) > 0


def test_two_probes_never_run_side_by_side() -> None:
    assert _of(run(_probing()), "CronJob", "probe")["spec"]["concurrencyPolicy"] == "Forbid"


@pytest.mark.parametrize("start", [world(), _probing()], ids=["memory", "provider"])
def test_a_binding_waits_for_its_role(start: World) -> None:
    """The API server answers a binding to a Role that is not there with 404, which fails all of a reconcile."""
    after, first = step(start)
    assert "RoleBinding" not in {body["kind"] for body in first.resources.values()}
    settled, second = step(after)
    key = _one(second, "RoleBinding")
    role = _one(second, "Role")
    without = {name: body for name, body in settled.observed.items() if name != role}
    assert key in run(settled.but(observed=without)).resources, "what is there stays"


@pytest.mark.parametrize("start", [world(), _probing()], ids=["memory", "provider"])
def test_jobs_may_touch_their_own_report_only(start: World) -> None:
    answer = run(step(start)[0])
    report, role, binding = (_of(answer, kind) for kind in ("ConfigMap", "Role", "RoleBinding"))
    name, namespace = report["metadata"]["name"], report["metadata"]["namespace"]
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": ["get", "patch"]}
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert {role["metadata"]["namespace"], binding["metadata"]["namespace"]} == {namespace}
    account = _of(answer, "Job")["spec"]["template"]["spec"]["serviceAccountName"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]


def test_bindings_are_of_one_type_for_every_backend() -> None:
    answer = settle(_with_reader())[1]
    assert {answer.resources[key]["type"] for key in ("binding", "binding-reader")} == {"servicebinding.io/memory"}
    assert answer.resources[answer.key("request-")]["type"] == "Opaque"


@pytest.mark.parametrize("reader", [False, True])
def test_the_request_lists_every_login_and_a_verifier_for_active_ones_only(*, reader: bool) -> None:
    answer = run(world(memory_xr=memory(access={"readOnlySecret": reader})))
    document = json.loads(secret_entries(answer.resources[answer.key("request-")])["request.json"])
    logins = document["logins"]
    assert [(each["name"][len("mem_") + 12 :], each["role"], each["slot"], each["state"]) for each in logins] == [
        ("_rw_a", "writer", "a", "active"),
        ("_rw_b", "writer", "b", "closed"),
        ("_ro_a", "reader", "a", "active" if reader else "closed"),
        ("_ro_b", "reader", "b", "closed"),
    ]
    assert [("verifier" in each) for each in logins] == [each["state"] == "active" for each in logins]


def test_a_projected_job_carries_nothing_that_its_server_gave_it() -> None:
    """With the selector or these labels every later apply of it fails for ever."""
    settled, before = settle(world())
    (key,) = before.jobs()
    observed = settled.observed[key]
    given = {each for each in observed["metadata"]["labels"] if each.endswith(("controller-uid", "job-name"))}
    assert len(given) == 4
    assert {"selector", "manualSelector"} <= set(observed["spec"])
    for answer in (run(settled), run(settled.but(credentials={})), run(settled.but(resolved=False))):
        job = answer.resources[key]
        assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
        assert set(job["metadata"]) == {"name", "namespace", "labels"}
        assert not {"selector", "manualSelector"} & set(job["spec"])
        for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
            assert not given & set(labels)
            assert labels["app.kubernetes.io/managed-by"] == "function-memory"
        assert served(key, job)["spec"] == observed["spec"], "and nothing is missing"


@every_job
def test_a_job_is_not_removed_when_it_has_finished(which: str) -> None:
    """Crossplane would make it again for ever."""
    assert "ttlSecondsAfterFinished" not in _spec_of_job(which)


@every_job
def test_jobs_run_under_pod_security_restricted(which: str) -> None:
    pod = _spec_of_job(which)["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    assert {kind for volume in pod["volumes"] for kind in volume} == {"name", "projected"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(container["resources"][kind].keys() == {"cpu", "memory"} for kind in ("requests", "limits"))
    assert all(mount["readOnly"] for mount in container["volumeMounts"])


@every_job
def test_exit_codes_that_say_something_fail_the_job_and_an_eviction_does_not(which: str) -> None:
    spec = _spec_of_job(which)
    ignored, fails = spec["podFailurePolicy"]["rules"]
    assert ignored == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert fails == {
        "action": "FailJob",
        "onExitCodes": {
            "containerName": spec["template"]["spec"]["containers"][0]["name"],
            "operator": "In",
            "values": [10, 11, 12, 13, 14, 15, 16, 17, 20, 30, 31],
        },
    }
    assert set(fails["onExitCodes"]["values"]) == {*PERMANENT_EXIT_CODES, *TRANSIENT_EXIT_CODES}


def test_bindings_live_with_the_claim_and_all_else_with_the_jobs() -> None:
    answer = settle(_with_reader())[1]
    places = {key: body["metadata"]["namespace"] for key, body in answer.resources.items()}
    assert places.pop("binding") == "team-a"
    assert places.pop("binding-reader") == "team-a"
    assert sorted(key.split("-")[0] for key in places) == ["provision", "report", "report", "report", "request"]
    assert set(places.values()) == {"databases"}
    provides = {key: body["metadata"].get("namespace") for key, body in run(_probing()).resources.items()}
    of_the_cluster = {key for key in provides if key.startswith("reaper-cluster-")}
    assert {namespace for key, namespace in provides.items() if key not in of_the_cluster} == {"databases"}
    assert {provides[key] for key in of_the_cluster} == {None}


CLAIMED = ("provider-claimed", {"match_labels": {"claim-namespace": "team-a", "claim-name": "pg"}})
THEIRS = ("provider-claimed", {"match_labels": {"claim-namespace": "team-b", "claim-name": "pg"}})
SHARED = ("provider-shared", {"match_name": "pg"})


@pytest.mark.parametrize(
    ("xr", "wanted"),
    [
        (memory(), [CLAIMED, SHARED]),
        (memory(claim=None), [SHARED]),
        (memory(providerRef={"name": "pg", "namespace": "team-b"}), [THEIRS]),
    ],
    ids=["claim", "no claim", "namespace"],
)
def test_requirements_are_asked_in_both_forms_and_in_one_order(xr: Object, wanted: list[tuple[str, Object]]) -> None:
    asked = World(xr=xr)
    assert [each.name for each in compose(decode(request(asked))).requirements] == [name for name, _ in wanted]
    for start in (asked.but(resolved=False), asked, asked.but(providers=(provider(),)), asked.but(credentials={})):
        requirements = run(start).response.requirements
        for form in (requirements.resources, requirements.extra_resources):
            assert {name: _selector(form[name]) for name in sorted(form)} == dict(wanted)


def _selector(selector: fnv1.ResourceSelector) -> Object:
    assert (selector.api_version, selector.kind) == ("memory.proompteng.ai/v1alpha1", "XMemoryProvider")
    if selector.HasField("match_name"):
        return {"match_name": selector.match_name}
    labels = selector.match_labels.labels
    return {"match_labels": {key.removeprefix("crossplane.io/"): labels[key] for key in sorted(labels)}}
