"""`memoryctl status`: a laptop's Memory, and the same objects in a cluster through the real kubectl."""

import datetime as dt
import json
import re

import pytest
from click.testing import CliRunner

from memoryctl import show, status
from memoryctl.__main__ import cli
from memoryctl.cluster import Cluster
from memoryctl.errors import UserError
from memoryctl.kube import Kube
from memoryctl.objects import API_VERSION, Key, Object, key_of, secret_data
from memoryctl.reader import Laptop as LaptopReader
from memoryctl.status import Status
from tests.memoryctl.apiserver import ApiServer
from tests.memoryctl.conftest import Laptop, Ready

CLAIM = Key(API_VERSION, "Memory", "team-a", "notes")
PROVIDER = Key(API_VERSION, "XMemoryProvider", "", "pg")
FOUND = {
    "embeddings": {"index": "building", "rows": 12000, "bytes": 96_000_000},
    "retention": {"lastRun": "2026-05-01T00:00:00Z", "deleted": 120},
    "data": {"rows": 15000, "bytes": 120_000_000, "deadPercent": 7, "oldest": "2026-03-01T00:00:00Z", "held": 3},
    "drift": ["index memory_events_dataset_idx is missing"],
}
NOW = dt.datetime(2026, 5, 3, 4, tzinfo=dt.UTC)


def look(laptop: Laptop) -> Status:
    return status.read(LaptopReader(laptop.state), laptop.claim())


def changed(cluster: Cluster, key: Key, **fields: object) -> None:
    cluster.replace_status(key, cluster.require(key)["status"] | fields)


def with_condition(obj: Object, kind: str, value: str, reason: str) -> list[Object]:
    made = {"type": kind, "status": value, "reason": reason, "lastTransitionTime": "2026-05-03T00:00:00Z"}
    return [*(one for one in obj["status"]["conditions"] if one["type"] != kind), made]


def pod(api: ApiServer, job: Object, name: str, line: str, created: str) -> None:
    metadata = {"name": name, "namespace": "databases"}
    labels = {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    spec = {"containers": [{"name": "migrations"}]}
    api.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "labels": labels}, "spec": spec})
    api.cluster.patch(Key("v1", "Pod", "databases", name), {"metadata": {"creationTimestamp": created}})
    api.logs[name] = line


def test_status_shows_tree_conditions_and_last_job_of_the_laptop_without_being_asked(ready: Ready) -> None:
    done = ready.run("status", "notes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"laptop, state in {ready.state}\n")
    tree, conditions, facts, runs = done.stdout.split("\n\n")[1:]
    [claim, composite, *composed] = tree.splitlines()[1:]
    assert claim.split() == ["Memory", "team-a/notes", "True"]
    assert composite.startswith("└─ XMemory notes-")
    assert composed[-1].startswith("   └─ Secret databases/mem-")
    assert [line.split()[1] for line in composed] == ["Secret", "Job", "ConfigMap", "RoleBinding", "Role", "Secret"]
    assert {line.split()[-1] for line in composed} == {"True"}
    assert [line.split()[2] for line in conditions.splitlines() if line.startswith("Memory")] == ["ProviderReady"]
    assert "XMemoryProvider pg   BackendReady" in conditions
    assert [line.split()[0] for line in facts.splitlines()] == ["INDEX", "RETENTION", "DATA", "DRIFT"]
    assert runs.rstrip().endswith('schema "notes" is ready')
    data = [secret_data(one) for one in ready.cluster.list("v1", "Secret")]
    passwords = [one["password"].decode() for one in data if "password" in one]
    assert passwords
    assert not any(password in done.stdout for password in passwords)


def test_status_as_json_holds_everything_for_machines(ready: Ready) -> None:
    found = json.loads(ready.run("status", "notes", "-n", "team-a", "--laptop", "-o", "json").stdout)
    assert found["ready"] is True
    assert found["claim"] == {"kind": "Memory", "namespace": "team-a", "name": "notes", "resource": "", "ready": "True"}
    assert {one["kind"] for one in found["composed"]} == {"Secret", "Job", "ConfigMap", "Role", "RoleBinding"}
    assert {one["type"] for one in found["conditions"]} >= {"Ready", "Provisioned", "BackendReady"}
    assert (found["wanted"], found["drift"]) == ({"ttlDays": 90, "legalHold": False}, None)
    [job] = found["jobs"]
    assert (job["task"], job["ended"], job["code"], job["message"]) == (
        "provision",
        "Complete",
        0,
        'schema "notes" is ready',
    )


def test_status_of_a_memory_that_is_not_ready_exits_1(copied: Laptop) -> None:
    claim = copied.claim()
    conditions = [one | {"status": "False"} if one["type"] == "Ready" else one for one in claim["status"]["conditions"]]
    changed(copied.cluster, CLAIM, conditions=conditions)
    done = copied.run("status", "notes")
    assert done.returncode == 1
    assert done.stderr == "memoryctl: Memory team-a/notes is not Ready\n"
    assert "Memory team-a/notes" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("status",), (64, "Missing argument 'CLAIM'")),
        (("status", "notes", "--laptop", "--context", "kind"), (64, "--laptop names no cluster")),
        (("status", "note", "--laptop"), (1, 'there is no Memory "note" (there are team-a/notes): name it, and -n')),
        (("status", "notes", "-n", "team-b", "--laptop"), (1, 'there is no Memory "notes" in namespace "team-b"')),
        (("status", "notes", "--kubeconfig", "/nowhere"), (1, "kubectl config failed: ")),
    ],
    ids=["no claim", "laptop and cluster", "a typing error", "another namespace", "no such kubeconfig"],
)
def test_a_wrong_command_line_is_answered_by_a_sentence(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], expected: tuple[int, str]
) -> None:
    monkeypatch.setattr("memoryctl.__main__.SIGNALS", ())  # pytest's own stay
    done = CliRunner().invoke(cli, [*arguments, "--state", str(ready.state)])
    code, sentence = expected
    assert (done.exit_code, done.stdout) == (code, "")
    assert sentence in done.stderr


def test_a_name_in_two_namespaces_has_to_be_told_apart(copied: Laptop) -> None:
    other = copied.cluster.applied(CLAIM)
    copied.cluster.apply({**other, "metadata": {**other["metadata"], "namespace": "team-b"}})
    with pytest.raises(UserError, match=r"more than one Memory \"notes\" \(there are team-a/notes, team-b/notes\)"):
        status.find_claim(LaptopReader(copied.state), "notes", "")


def test_what_maintenance_found_is_shown(copied: Laptop) -> None:
    conditions = with_condition(copied.claim(), "InSync", "False", "Drift")
    changed(copied.cluster, CLAIM, **FOUND, conditions=conditions)
    copied.cluster.patch(CLAIM, {"spec": {"legalHold": True}})
    found = look(copied)
    assert found.drift == FOUND["drift"]
    text = show.status(found, NOW)
    assert re.search(r"^ +InSync +False +Drift +4h", text, re.MULTILINE)
    for line in (
        "INDEX      building, 12000 rows, 96 MB",
        "RETENTION  90 days, on legal hold, last removed 120 rows 2d4h ago",
        "DATA       15000 rows, 120 MB, 7 % dead, oldest 2026-03-01, 3 rows held",
        "DRIFT      1 difference",
        "DRIFT\n- index memory_events_dataset_idx is missing",
    ):
        assert line in text


def test_no_drift_is_another_thing_than_never_having_looked(copied: Laptop) -> None:
    changed(copied.cluster, CLAIM, conditions=with_condition(copied.claim(), "InSync", "True", "InSync"))
    assert "DRIFT      none" in show.status(look(copied), NOW)
    changed(copied.cluster, CLAIM, conditions=with_condition(copied.claim(), "InSync", "False", "NeverChecked"))
    assert look(copied).drift is None


def test_the_last_maintenance_is_the_providers_and_nobody_elses(copied: Laptop) -> None:
    [job] = [one for one in copied.cluster.list("batch/v1", "Job") if one["metadata"]["name"].startswith("mem-")]
    ours = {"app.kubernetes.io/managed-by": "function-memory", "app.kubernetes.io/component": "maintain"}
    whose: Object = {"memory.proompteng.ai/claim-namespace": "team-b", "memory.proompteng.ai/claim-name": "other"}
    made: list[tuple[str, str, Object]]
    made = [("old", "pg", {}), ("new", "pg", {}), ("tenant", "other", {}), ("their", "pg", whose)]
    for minute, (name, provider, claim) in enumerate(made):
        labels = {**ours, "memory.proompteng.ai/provider": provider, **claim}
        metadata = {"name": name, "namespace": "databases", "labels": labels}
        key = key_of(copied.cluster.apply({**job, "metadata": metadata}))
        copied.cluster.patch(key, {"metadata": {"creationTimestamp": f"2026-05-03T00:0{minute}:00Z"}})
    log = copied.state / "logs" / "databases.new.log"
    log.write_text('{"message": "step"}\n{"code": 30, "message": "2 of 3 homes looked after"}\n')
    run = look(copied).jobs[1]
    assert (run.task, run.name, run.code, run.message) == ("maintain", "new", 30, "2 of 3 homes looked after")


def test_a_job_that_died_without_a_report_shows_its_last_words(copied: Laptop) -> None:
    [log] = (copied.state / "logs").glob("databases.mem-*.log")
    log.write_text("Traceback\nMemoryError\n")
    [run] = look(copied).jobs
    assert (run.code, run.message) == (None, "MemoryError")


def test_a_job_whose_log_is_gone_shows_what_it_reported(copied: Laptop) -> None:
    [log] = (copied.state / "logs").glob("databases.mem-*.log")
    log.unlink()
    [run] = look(copied).jobs
    assert (run.code, run.message) == (0, 'schema "notes" is ready')
    for report in copied.cluster.list("v1", "ConfigMap"):
        copied.cluster.patch(key_of(report), {"data": None})
    assert look(copied).jobs[0].message == ""


def test_an_object_that_is_gone_is_missing_in_the_tree(copied: Laptop) -> None:
    [job] = [one for one in copied.cluster.list("batch/v1", "Job") if one["metadata"]["name"].startswith("mem-")]
    copied.cluster.delete(key_of(job))
    found = look(copied)
    assert [one.ready for one in found.composed if one.kind == "Job"] == ["missing"]
    assert found.jobs == []


def test_a_claim_without_composite_is_shown_too(copied: Laptop) -> None:
    copied.cluster.delete(CLAIM)
    metadata, spec = {"name": CLAIM.name, "namespace": CLAIM.namespace}, {"providerRef": {"name": "pg"}}
    copied.cluster.apply({"apiVersion": API_VERSION, "kind": "Memory", "metadata": metadata, "spec": spec})
    found = look(copied)
    assert (found.ready, found.composite, found.jobs) == (False, None, [])
    assert {one.of for one in found.conditions} == {"XMemoryProvider pg"}


def test_a_cluster_shows_what_the_laptop_shows(copied: Laptop, api: ApiServer) -> None:
    [job] = [one for one in copied.cluster.list("batch/v1", "Job") if one["metadata"]["name"].startswith("mem-")]
    pod(api, job, "first", '{"code": 30, "message": "unreachable"}', "2026-05-03T00:00:00Z")
    pod(api, job, "second", '{"code": 0, "message": "schema \\"notes\\" is ready"}', "2026-05-03T00:01:00Z")
    done = copied.run("status", "notes", "--kubeconfig", str(api.kubeconfig), "-o", "json")
    assert done.returncode == 0, done.stderr
    there, here = json.loads(done.stdout), json.loads(look(copied).to_json())
    assert there.pop("where") == 'cluster of context "test"'
    assert there == {name: value for name, value in here.items() if name != "where"}
    assert api.methods == {"GET"}


def test_what_may_not_be_read_is_said_and_stops_nothing(copied: Laptop, api: ApiServer) -> None:
    api.forbidden = {"XMemory", "XMemoryProvider", "Secret", "log"}
    kube = Kube(api.kubeconfig, "")
    claim = status.find_claim(kube, "notes", kube.namespace)
    [job] = [one for one in copied.cluster.list("batch/v1", "Job") if one["metadata"]["name"].startswith("mem-")]
    pod(api, job, "pod", "", "2026-05-03T00:00:00Z")
    found = status.read(kube, claim, "databases")
    assert found.ready
    assert found.composite
    assert found.composite.ready == "unreadable"
    assert {one.kind for one in found.composed} == {"Job", "ConfigMap", "Role", "RoleBinding"}
    assert [(run.ended, run.message) for run in found.jobs] == [("Complete", 'schema "notes" is ready')]
    said = "\n".join(found.unread)
    for what in ("XMemory notes-", "XMemoryProvider pg: ", "Secrets in databases: ", "the log of Job databases/mem-"):
        assert what in said
    assert "NOT READ\n- XMemory" in show.status(found, NOW)
    assert status.read(kube, claim).unread[-1].startswith("Jobs: only the composite says where they run")


def test_a_composed_object_that_may_not_be_read_keeps_its_place_in_the_tree(api: ApiServer) -> None:
    api.forbidden = {"Secret"}
    kube = Kube(api.kubeconfig, "test")
    found = status.read(kube, status.find_claim(kube, "notes", "team-a"))
    assert [one.ready for one in found.composed if one.kind == "Secret"] == ["unreadable", "unreadable"]
    assert [one.ready for one in found.composed if one.kind == "Job"] == ["True"]


def test_a_machine_without_kubectl_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="kubectl is not on the PATH: install it to look at a cluster, or use --laptop"):
        Kube(None, "")
