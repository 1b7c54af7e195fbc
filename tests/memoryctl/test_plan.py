"""`memoryctl plan`: what a changed claim would do, foretold by the function and the image, and nothing done."""

import base64
import dataclasses
import json
from pathlib import Path

import psycopg
import pytest

from memoryctl import changes, definitions, embedded, mirror, plan, show
from memoryctl import provider as providers
from memoryctl.changes import Change, Plan
from memoryctl.errors import UserError
from memoryctl.kube import Kube
from memoryctl.objects import API_VERSION, Key, Object, key_of, make_secret, secret_data, secret_key
from memoryctl.reader import Laptop as LaptopReader
from tests.memoryctl.apiserver import ApiServer
from tests.memoryctl.conftest import Laptop, Ready


def planned(laptop: Laptop, *manifests: Object) -> list[Change]:
    before = laptop.files()
    found = plan.plan([str(laptop.write(*manifests))], lambda _: LaptopReader(laptop.state))
    assert laptop.files() == before, "nothing is applied"
    assert found.problems == [f"{one.of}: {problem}" for one in found.changes for problem in one.problems]
    data = [secret_data(one) for one in laptop.cluster.list("v1", "Secret")]
    passwords = [one["password"].decode() for one in data if "password" in one]
    assert passwords
    assert not any(secret in found.to_json() + show.plan(found) for secret in [*passwords, "SCRAM-SHA-256"])
    return found.changes


def on(api: ApiServer, laptop: Laptop, manifest: Object) -> Plan:
    return plan.plan([str(laptop.write(manifest))], lambda _: Kube(api.kubeconfig, ""))


def test_an_unchanged_claim_changes_nothing(ready: Ready, provider: Object, claim: Object) -> None:
    done = ready.run("plan", "-f", str(ready.write(provider, claim)))
    assert (done.returncode, done.stdout) == (0, f"laptop, state in {ready.state}\n\nnothing would change\n")


def test_a_changed_claim_is_foretold_whole(ready: Ready, claim: Object) -> None:
    """Fields, objects, conditions, the next request, and what the image says that it would do with it."""
    claim["spec"] |= {"retention": {"ttlDays": 30}, "legalHold": True, "access": {"readOnlySecret": True}}
    [change] = planned(ready, claim)
    assert change.of == "Memory team-a/notes"
    assert change.spec == [
        "access.readOnlySecret: false → true",
        "legalHold: false → true",
        "retention.ttlDays: 90 → 30",
    ]
    assert [one.resource.split("-")[0] for one in change.added] == ["provision", "request"]
    assert (change.changed, change.removed) == ([], [])
    said = "\n".join(change.conditions)
    assert 'Provisioned: True/Succeeded → False/Running, Job "mem-' in said
    assert "RetentionScheduled: True/Scheduled → True/OnHold, " in said
    request = [line.split(".", 1)[-1] if line.startswith("logins") else line for line in change.request]
    assert request == [
        "legalHold: false → true",
        "state: closed → active",
        "verifier: (none) → (hidden)",
        "retention.ttlDays: 90 → 30",
    ]
    provision = change.provision
    assert provision
    assert (provision["code"], provision["home"], provision["migrations"]) == (0, "ours", [])
    assert provision["changes"][:2] == ["retention.ttlDays 90 → 30", "legalHold false → true"]
    assert provision["changes"][2].endswith("(slot a of the reader) is opened")
    assert change.problems == []


def test_what_provision_would_refuse_is_a_problem(ready: Ready, claim: Object) -> None:
    """Asked of a server that is stopped, as it is left again."""
    dimension = int((ready.binding / "dimension").read_text())
    with psycopg.connect((ready.binding / "uri").read_text(), autocommit=True) as connection:
        connection.execute("SELECT memory_upsert_embedding('notes', 'a', %s::vector)", [str([1] * dimension)])
    directory = providers.directory(ready.state)
    embedded.stop(directory)
    claim["spec"]["embeddings"] = {"dimension": 3}
    [change] = planned(ready, claim)
    [problem] = change.problems
    assert problem.startswith("provision would be refused (DimensionConflict): embeddings.dimension 3 differs from")
    assert change.provision
    assert change.provision["home"] == "ours"
    assert not embedded.is_running(directory)
    embedded.start(directory)
    with psycopg.connect((ready.binding / "uri").read_text(), autocommit=True) as connection:
        connection.execute("DELETE FROM memory_embeddings")


def test_what_the_function_refuses_is_a_problem_and_asks_nobody(ready: Ready, claim: Object) -> None:
    claim["spec"]["access"] = {"readerRole": "bob"}
    [change] = planned(ready, claim)
    [problem] = change.problems
    assert problem.startswith('Provisioned=False/PermissionDenied: spec.access.readerRole: "bob" is not among')
    assert (change.added, change.provision) == ([], None)


def test_a_changed_provider_tells_what_becomes_of_its_memories(ready: Ready, provider: Object) -> None:
    provider["spec"]["maintenance"] = {"schedule": "0 3 * * *"}
    done = ready.run("plan", "-f", str(ready.write(provider)))
    assert done.returncode == 0, done.stderr
    [_, pg, notes] = done.stdout.split("\n\n")
    lines = pg.splitlines()
    assert lines[:4] == ["XMemoryProvider pg", "  SPEC", "    maintenance.schedule: (none) → 0 3 * * *", "  OBJECTS"]
    assert lines[4].startswith("    ~ CronJob databases/memory-provider-")
    assert lines[5].endswith("* * * * → 0 3 * * *")
    assert "RetentionScheduled stays True/Scheduled, what is older than 90 days goes" in notes


def test_a_new_claim_of_a_provider_that_is_there_is_all_new(ready: Ready, claim: Object) -> None:
    claim["metadata"]["name"] = "diary"
    claim["spec"]["dataset"] = {"name": "diary", "schema": "diary"}
    [change] = planned(ready, claim)
    assert (change.of, change.removed, change.changed) == ("Memory team-a/diary", [], [])
    assert "dataset.schema: (none) → diary" in change.spec
    assert {one.name.split()[0] for one in change.added} >= {"Job", "Secret", "ConfigMap"}
    assert change.provision
    assert change.provision["home"] == "new"
    assert 'schema "diary" is made' in change.provision["changes"]


@pytest.mark.parametrize(
    ("given", "code", "sentence"),
    [
        ("", 64, "Missing option '-f'"),
        ("secret", 1, "there is nothing to plan: name a manifest of a Memory or a provider with -f"),
        ("claim", 1, "to compare with: memoryctl up makes it"),
    ],
    ids=["no file", "no claim", "no state"],
)
def test_a_plan_of_nothing_is_answered_by_a_sentence(
    tmp_path: Path, claim: Object, given: str, code: int, sentence: str
) -> None:
    laptop, files = Laptop(tmp_path), {"claim": claim, "secret": make_secret(secret_key("a", "b"), {})}
    done = laptop.run("plan", "--laptop", *(["-f", str(laptop.write(files[given]))] if given else []))
    assert done.returncode == code
    assert sentence in done.stderr


@pytest.fixture
def on_cluster(api: ApiServer) -> ApiServer:
    """The shared laptop's objects in a cluster, with Compositions, and with what an API server adds to a CronJob."""
    for composition in definitions.load().compositions:
        [step] = composition["spec"]["pipeline"]
        step["functionRef"]["name"] = "acme-function-memory"
        api.cluster.apply(composition)
    for cronjob in api.cluster.list("batch/v1", "CronJob"):
        pod = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        containers = [one | {"imagePullPolicy": "Always"} for one in pod["containers"]]
        pod = {"dnsPolicy": "ClusterFirst", "containers": containers}
        change = {"suspend": False, "jobTemplate": {"spec": {"template": {"spec": pod}}}}
        api.cluster.patch(key_of(cronjob), {"spec": change})
    return api


def test_a_cluster_foretells_what_the_laptop_foretells(
    ready: Ready, on_cluster: ApiServer, copied: Laptop, claim: Object
) -> None:
    """But what provision would do is for a Job to find out, and none is made."""
    claim["spec"] |= {"retention": {"ttlDays": 30}, "access": {"readOnlySecret": True}}
    [expected] = planned(ready, claim)
    found = on(on_cluster, copied, claim)
    assert found.where == 'cluster of context "test"'
    assert found.changes == [dataclasses.replace(expected, provision=None)]
    assert found.notes == [plan.NO_JOB]
    assert on_cluster.methods == {"GET"}


def test_what_an_api_server_adds_is_no_change(on_cluster: ApiServer, copied: Laptop) -> None:
    provider = copied.cluster.applied(Key(API_VERSION, "XMemoryProvider", "", "pg"))
    given = {**provider, "metadata": {"name": "pg", "annotations": provider["metadata"]["annotations"]}}
    given["spec"] = {name: value for name, value in provider["spec"].items() if name != "resourceRefs"}
    assert on(on_cluster, copied, given).changes == []
    given["spec"]["maintenance"] = {**given["spec"].get("maintenance", {}), "schedule": "0 3 * * *"}
    [change] = on(on_cluster, copied, given).changes
    [cronjob] = change.changed
    assert [path.split(":")[0] for path in cronjob.paths] == ["spec.schedule"]


def test_who_may_read_no_secrets_is_told_of_the_fields_alone(
    on_cluster: ApiServer, copied: Laptop, claim: Object
) -> None:
    """Without the root key, and what is there, the function would say something else than it will."""
    on_cluster.forbidden = {"Secret"}
    claim["spec"]["retention"] = {"ttlDays": 30}
    found = on(on_cluster, copied, claim)
    [change] = found.changes
    assert (change.spec, change.added) == (["retention.ttlDays: 90 → 30"], [])
    [note] = found.notes
    assert note.startswith("Memory team-a/notes: only its own fields are compared: secrets is forbidden")
    assert show.plan(found).endswith(f"NOTES\n- {note}")


def test_a_cluster_without_our_composition_is_told_so(api: ApiServer, copied: Laptop, claim: Object) -> None:
    with pytest.raises(UserError, match='there is no Composition "memory" in the cluster: is function-memory'):
        on(api, copied, claim)


def test_what_the_function_says_of_an_object_is_compared_and_nothing_else() -> None:
    live = {"a": {"said": 1, "added": 2}, "list": [{"name": "x", "added": True}, {"name": "y"}], "more": 1}
    said = {"a": {"said": 1}, "list": [{"name": "x"}, {"name": "y"}]}
    assert mirror.is_within(said, live)
    assert mirror.within(said, live) == said
    assert not mirror.is_within({"list": [{"name": "x"}]}, live), "an element that goes is a change"
    assert not mirror.is_within({"new": 1}, live)
    assert mirror.within({"list": [{"name": "x"}]}, live) == {"list": [{"name": "x"}, {"name": "y"}]}


def test_no_difference_ever_shows_a_secret() -> None:
    before = make_secret(secret_key("a", "b"), {"password": b"old", "stays": b"same"})
    after = make_secret(secret_key("a", "b"), {"password": b"new", "stays": b"same", "more": b"added"})
    assert changes.of_objects(before, after) == ["data.more: (none) → (hidden)", "data.password: (hidden) → (hidden)"]
    documents = [{"hash": text, "deep": [{"name": "x", "verifier": text}], "text": text * 90} for text in ("1", "2")]
    requests = [{"data": {"request.json": base64.b64encode(json.dumps(one).encode()).decode()}} for one in documents]
    assert changes.of_requests(*requests) == [
        "deep[x].verifier: (hidden) → (hidden)",
        f"text: {'1' * 80}… → {'2' * 80}…",
    ]


def test_lists_are_compared_by_name_or_by_place() -> None:
    before = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "args": ["x"], "kind": {"a": 1}}
    after = {"env": [{"name": "B", "value": "3"}, {"name": "A", "value": "1"}], "args": ["y", "z"], "kind": [1]}
    assert list(changes.of_values(before, after)) == [
        "args[0]: x → y",
        "args[1]: (none) → z",
        "env[B].value: 2 → 3",
        'kind: {"a": 1} → [1]',
    ]
