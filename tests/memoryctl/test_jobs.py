"""A Job is run as the Job controller and the kubelet would: real processes, real exit codes."""

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from function import readiness
from memoryctl.cluster import Cluster
from memoryctl.errors import UserError
from memoryctl.jobs import Jobs
from memoryctl.objects import Key, Object, condition, key_of, make_secret, secret_key

NAMESPACE = "databases"
KEY = Key("batch/v1", "Job", NAMESPACE, "mem-1")
REPORT = Key("v1", "ConfigMap", NAMESPACE, "report")
SECONDS = 60.0
ANSWERS = """
import json, os, sys
if sys.argv[1] != "plan":
    sys.exit("no")
admin = open(os.environ["MEMORY_DIR"] + "/admin/username").read()
print(json.dumps({"asked": sys.argv[1], "admin": admin}))
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    cluster = Cluster(tmp_path / "objects")
    request = {"report": {"namespace": REPORT.namespace, "name": REPORT.name}}
    cluster.apply(make_secret(secret_key(NAMESPACE, "request"), {"request.json": json.dumps(request).encode()}))
    cluster.apply(make_secret(secret_key(NAMESPACE, "admin"), {"username": b"admin", "password": b"hunter2"}))
    metadata = {"name": REPORT.name, "namespace": REPORT.namespace}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    return cluster


@pytest.fixture
def jobs(tmp_path: Path, cluster: Cluster) -> Iterator[Jobs]:
    jobs = Jobs(cluster, tmp_path)
    yield jobs
    jobs.close()


def job(script: str, **spec: object) -> Object:
    """Gives a Job as the function renders it, around a Python script."""
    admin = [{"key": key, "path": f"admin/{key}"} for key in ("username", "password")]
    sources = [
        {"secret": {"name": "request", "items": [{"key": "request.json", "path": "request.json"}]}},
        {"secret": {"name": "admin", "items": admin}},
    ]
    container = {
        "name": "migrations",
        "command": ["python", "-c"],
        "args": [script],
        "env": [{"name": "MEMORY_DEADLINE_SECONDS", "value": "900"}],
        "volumeMounts": [{"name": "memory", "mountPath": "/memory"}],
    }
    pod = {"containers": [container], "volumes": [{"name": "memory", "projected": {"sources": sources}}]}
    metadata = {"name": KEY.name, "namespace": KEY.namespace}
    template = {"template": {"spec": pod}}
    return {"apiVersion": KEY.api_version, "kind": KEY.kind, "metadata": metadata, "spec": {**template, **spec}}


def container(cluster: Cluster) -> Object:
    [found] = cluster.require(KEY)["spec"]["template"]["spec"]["containers"]
    made: Object = found
    return made


def policy(*codes: int, action: str = "FailJob", operator: str = "In") -> Object:
    ignored = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {"rules": [ignored, {"action": action, "onExitCodes": {"operator": operator, "values": list(codes)}}]}


def ended(cluster: Cluster, jobs: Jobs, manifest: Object) -> Object:
    cluster.apply(manifest)
    assert jobs.start() == ([KEY], [])
    assert cluster.require(KEY)["status"]["active"] == 1
    [(key, _)] = jobs.wait(SECONDS)
    assert key == KEY
    return cluster.require(KEY)


def failed(observed: Object) -> tuple[str, str]:
    found = condition(observed, "Failed")
    return found["reason"], found["message"]


def test_a_job_is_complete_when_its_process_exits_with_0(cluster: Cluster, jobs: Jobs) -> None:
    observed = ended(cluster, jobs, job("raise SystemExit(0)"))
    assert readiness.job(observed).phase == "Complete"
    assert {"succeeded", "completionTime", "startTime"} <= set(observed["status"])


def test_a_permanent_exit_code_fails_the_job_at_once_and_the_function_can_read_it(cluster: Cluster, jobs: Jobs) -> None:
    observed = ended(cluster, jobs, job("raise SystemExit(11)", podFailurePolicy=policy(10, 11), backoffLimit=4))
    reason, message = failed(observed)
    assert reason == "PodFailurePolicy"
    assert message.startswith("Container migrations for pod databases/mem-1-")
    assert message.endswith(" failed with exit code 11 matching FailJob rule at index 1")
    assert readiness.job(observed).exit_code == 11
    assert observed["status"]["failed"] == 1


def test_another_exit_code_is_tried_again_until_the_backoff_limit(cluster: Cluster, jobs: Jobs, tmp_path: Path) -> None:
    count = tmp_path / "pods"
    script = f"open({str(count)!r}, 'a').write('x'); raise SystemExit(1)"
    observed = ended(cluster, jobs, job(script, podFailurePolicy=policy(11), backoffLimit=2))
    assert failed(observed) == ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    assert (count.read_text(), observed["status"]["failed"]) == ("xxx", 3)


def test_a_pod_that_succeeds_after_a_failed_one_completes_the_job(cluster: Cluster, jobs: Jobs, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"import pathlib; p = pathlib.Path({str(mark)!r}); e = p.exists(); p.touch(); raise SystemExit(not e)"
    observed = ended(cluster, jobs, job(script, backoffLimit=4))
    assert readiness.job(observed).phase == "Complete"
    assert observed["status"]["failed"] == 1


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        pytest.param(policy(0, 3, operator="NotIn"), "PodFailurePolicy", id="NotIn fails on every other code"),
        pytest.param(policy(7, action="Count"), "BackoffLimitExceeded", id="Count only counts"),
    ],
)
def test_the_operators_and_actions_of_a_policy(cluster: Cluster, jobs: Jobs, rules: Object, reason: str) -> None:
    observed = ended(cluster, jobs, job("raise SystemExit(7)", podFailurePolicy=rules, backoffLimit=0))
    assert failed(observed)[0] == reason


def test_a_killed_process_has_the_exit_code_of_its_signal(cluster: Cluster, jobs: Jobs) -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    observed = ended(cluster, jobs, job(script, podFailurePolicy=policy(137), backoffLimit=0))
    assert readiness.job(observed).exit_code == 137


def test_a_job_is_stopped_at_its_deadline(cluster: Cluster, jobs: Jobs) -> None:
    observed = ended(cluster, jobs, job("import threading; threading.Event().wait()", activeDeadlineSeconds=1))
    assert failed(observed) == ("DeadlineExceeded", "Job was active longer than specified deadline")


def test_a_job_sees_its_own_files_privately_and_nothing_of_ours(
    cluster: Cluster, jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("MEMORY_DIR", "/elsewhere")
    seen = tmp_path / "seen.json"
    script = f"""
import json, os, pathlib
root = pathlib.Path(os.environ["MEMORY_DIR"])
files = {{str(path.relative_to(root)): (path.stat().st_mode & 0o777) for path in root.rglob("*")}}
seen = {{"files": files, "root": root.stat().st_mode & 0o777, "password": (root / "admin/password").read_text(),
        "env": dict(os.environ)}}
pathlib.Path({str(seen)!r}).write_text(json.dumps(seen))
"""
    ended(cluster, jobs, job(script))
    found = json.loads(seen.read_text())
    files = {"admin": 0o700, "admin/username": 0o600, "admin/password": 0o600, "request.json": 0o600}
    assert (found["files"], found["root"], found["password"]) == (files, 0o700, "hunter2")
    assert found["env"]["MEMORY_DEADLINE_SECONDS"] == "900"
    assert found["env"]["HOME"] == found["env"]["MEMORY_DIR"]
    assert "PGHOST" not in found["env"]
    assert not any("hunter2" in value for value in found["env"].values())
    assert not Path(found["env"]["MEMORY_DIR"]).exists()


def test_a_job_is_asked_another_question_and_stays_as_it_is(cluster: Cluster, jobs: Jobs) -> None:
    """With its own files and environment; what it says on standard output is the answer."""
    cluster.apply(job("provision"))
    cluster.patch(
        KEY,
        {
            "spec": {
                "template": {"spec": {"containers": [{**container(cluster), "command": ["python", "-c", ANSWERS]}]}}
            }
        },
    )
    before = cluster.require(KEY)
    assert jobs.ask(KEY, "plan") == {"asked": "plan", "admin": "admin"}
    assert cluster.require(KEY) == before
    with pytest.raises(
        UserError, match=r"`migrations nonsense` for Job databases/mem-1 ended with 1 and no answer: no"
    ):
        jobs.ask(KEY, "nonsense")
    cluster.delete(secret_key(NAMESPACE, "admin"))
    with pytest.raises(UserError, match=r'Job databases/mem-1 could not start: .*Secret "databases/admin" not found'):
        jobs.ask(KEY, "plan")


def test_reports_of_memories_go_to_their_configmaps_and_nowhere_else(cluster: Cluster, jobs: Jobs) -> None:
    """What maintenance says of each Memory stands in files beside its own report, by namespace and name."""
    memory = REPORT._replace(name="mem-1")
    metadata = {"name": memory.name, "namespace": NAMESPACE}
    data = {"provision": "before", "maintenance": "before"}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    script = """
import json, os, pathlib
own = pathlib.Path(os.environ["MEMORY_REPORT_FILE"])
own.write_text('{"maintain": "own"}')
for name in ("mem-1", "mem-gone"):
    path = own.parent / "reports" / "databases" / f"{name}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**before, "maintenance": f"after {before}"}))
"""
    cluster.apply(job(script))
    jobs.start()
    cluster.patch(memory, {"data": {"provision": "by another Job meanwhile"}})
    assert [outcome.complete for _, outcome in jobs.wait(SECONDS)] == [True]
    assert cluster.require(REPORT)["data"] == {"maintain": "own"}
    assert cluster.require(memory)["data"] == {
        "provision": "by another Job meanwhile",
        "maintenance": "after {'provision': 'before', 'maintenance': 'before'}",
    }
    assert cluster.get(REPORT._replace(name="mem-gone")) is None


def test_a_report_is_merged_into_the_configmap(cluster: Cluster, jobs: Jobs) -> None:
    cluster.patch(REPORT, {"data": {"probe": "old", "other": "stays"}})
    script = "import os; open(os.environ['MEMORY_REPORT_FILE'], 'w').write('{\"probe\": \"new\"}')"
    ended(cluster, jobs, job(script))
    assert cluster.require(REPORT)["data"] == {"probe": "new", "other": "stays"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(None, 'Secret "databases/admin" not found', id="no Secret"),
        pytest.param({"data": {"password": None}}, 'Secret "databases/admin" has no key "password"', id="no key"),
    ],
)
def test_a_job_waits_for_what_it_mounts(cluster: Cluster, jobs: Jobs, change: Object | None, sentence: str) -> None:
    key = secret_key(NAMESPACE, "admin")
    if change is None:
        cluster.delete(key)
    else:
        cluster.patch(key, change)
    cluster.apply(job("raise SystemExit(0)"))
    assert jobs.start() == ([], [f'Job databases/mem-1 waits: volume "memory": {sentence}'])
    cluster.apply(make_secret(key, {"username": b"admin", "password": b"hunter2"}))
    assert jobs.start() == ([KEY], [])


def test_a_job_that_is_gone_is_stopped_and_leaves_no_trace(cluster: Cluster, jobs: Jobs) -> None:
    cluster.apply(job("import threading; threading.Event().wait()"))
    jobs.start()
    cluster.delete(KEY)
    jobs.start()
    assert jobs.wait(SECONDS) == []
    assert not jobs.busy
    assert cluster.get(KEY) is None


def test_a_job_that_was_interrupted_runs_again(cluster: Cluster, tmp_path: Path) -> None:
    first = Jobs(cluster, tmp_path)
    cluster.apply(job("import threading; threading.Event().wait()"))
    first.start()
    first.close()
    assert list((tmp_path / "run").iterdir()) == []
    again = Jobs(cluster, tmp_path)
    assert again.start() == ([KEY], [])
    again.close()


def test_files_of_a_memoryctl_that_was_killed_are_removed(cluster: Cluster, tmp_path: Path) -> None:
    left_over = tmp_path / "run" / "x" / "password"
    left_over.parent.mkdir(parents=True)
    left_over.touch()
    Jobs(cluster, tmp_path).close()
    assert not left_over.exists()


def test_a_variable_from_elsewhere_is_refused(cluster: Cluster, jobs: Jobs) -> None:
    manifest = job("raise SystemExit(0)")
    manifest["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "X", "valueFrom": {"fieldRef": {}}}]
    cluster.apply(manifest)
    jobs.start()
    with pytest.raises(UserError, match="variable X comes from"):
        jobs.wait(SECONDS)


def test_what_a_pod_prints_is_in_a_log(cluster: Cluster, jobs: Jobs) -> None:
    observed = ended(cluster, jobs, job("print('hello')"))
    log = jobs.log(key_of(observed))
    assert log.read_text() == "hello\n"
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700


def test_the_process_is_this_python(cluster: Cluster, jobs: Jobs) -> None:
    observed = ended(cluster, jobs, job("import sys; print(sys.executable)"))
    assert Path(jobs.log(key_of(observed)).read_text().strip()).samefile(Path(sys.executable))
    assert os.access(sys.executable, os.X_OK)
