"""A custom backend's image: on a laptop a command stands for it."""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memoryctl import images
from memoryctl.cluster import Cluster
from memoryctl.errors import UserError
from memoryctl.jobs import Jobs
from memoryctl.objects import Key, Object, is_true, make_secret, secret_data, secret_key

IMAGE = "registry.example.com/team/backend:1"
NAMESPACE = "databases"
KEY = Key("batch/v1", "Job", NAMESPACE, "mem-1")
REPORT = Key("v1", "ConfigMap", NAMESPACE, "report")
PROGRAM = """
import json, os, pathlib, sys
place = pathlib.Path(os.environ["MEMORY_DIR"])
found = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
place = pathlib.Path(os.environ["MEMORY_CONFIG_DIR"])
user = (place / "admin-user").read_text()
answer = {"user": user, "arguments": sys.argv[1:], "files": found, "cwd": os.getcwd()}
answer["path"] = os.environ.get("PYTHONPATH", "")
file = pathlib.Path(os.environ["MEMORY_REPORT_FILE"])
file.write_text(json.dumps({"provision": json.dumps(answer)}))
for namespace, name in (("databases", "keys"), ("databases", "nobodys"), ("team-b", "keys")):
    path = file.parent / "secrets" / namespace / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"password": "aHVudGVyMg=="}))
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    cluster = Cluster(tmp_path / "objects")
    request = {"report": {"namespace": REPORT.namespace, "name": REPORT.name}}
    secrets = {
        "request": {"request.json": json.dumps(request).encode()},
        "login": {"password": b"first"},
        "config": {"admin-user": b"root", "admin-password": b"second"},
        "keys": {},
    }
    for name, data in secrets.items():
        cluster.apply(make_secret(secret_key(NAMESPACE, name), data))
    cluster.apply(make_secret(secret_key("team-b", "keys"), {}))
    metadata = {"name": REPORT.name, "namespace": REPORT.namespace}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    return cluster


@pytest.fixture
def backend(tmp_path: Path) -> list[str]:
    (tmp_path / "backend.py").write_text(PROGRAM)
    return [sys.executable, str(tmp_path / "backend.py")]


@pytest.fixture
def jobs(tmp_path: Path, cluster: Cluster, backend: list[str]) -> Iterator[Jobs]:
    jobs = Jobs(cluster, tmp_path, {IMAGE: backend})
    yield jobs
    jobs.close()


def job(image: str = IMAGE) -> Object:
    """Gives a Job of a custom backend: no command, for the image has its own; its configuration in a folder."""
    login = {"name": "login", "items": [{"key": "password", "path": "login/mem_1_rw_a"}]}
    sources = [
        {"secret": {"name": "request", "items": [{"key": "request.json", "path": "request.json"}]}},
        {"secret": login},
    ]
    mounts = [
        {"name": "memory", "mountPath": "/memory"},
        {"name": "config", "mountPath": "/config"},
        {"name": "elsewhere", "mountPath": "/tmp"},
    ]
    volumes = [
        {"name": "memory", "projected": {"sources": sources}},
        {"name": "config", "secret": {"secretName": "config"}},
        {"name": "elsewhere", "emptyDir": {}},
    ]
    container = {
        "name": "migrations",
        "image": image,
        "args": ["provision"],
        "env": [{"name": "MEMORY_CONFIG_DIR", "value": "/config"}],
        "volumeMounts": mounts,
    }
    spec = {"backoffLimit": 0, "template": {"spec": {"containers": [container], "volumes": volumes}}}
    metadata = {"name": KEY.name, "namespace": KEY.namespace}
    return {"apiVersion": KEY.api_version, "kind": KEY.kind, "metadata": metadata, "spec": spec}


def run(cluster: Cluster, jobs: Jobs) -> Object:
    cluster.apply(job())
    assert jobs.start() == ([KEY], [])
    jobs.wait(60)
    assert is_true(cluster.require(KEY), "Complete"), jobs.log(KEY).read_text()
    answer: Object = json.loads(cluster.require(REPORT)["data"]["provision"])
    return answer


def test_a_command_stands_for_an_image_and_sees_what_its_pod_would(cluster: Cluster, jobs: Jobs) -> None:
    answer = run(cluster, jobs)
    assert (answer["arguments"], answer["user"]) == (["provision"], "root")
    assert answer["files"] == ["config/admin-password", "config/admin-user", "login/mem_1_rw_a", "request.json"]
    assert (answer["cwd"], answer["path"]) == (str(Path.cwd()), "")


def test_keys_that_a_job_makes_end_up_in_the_secret_that_is_there_for_them(cluster: Cluster, jobs: Jobs) -> None:
    """As its token may on a cluster: in its own namespace, and nothing new."""
    run(cluster, jobs)
    assert secret_data(cluster.require(secret_key(NAMESPACE, "keys"))) == {"password": b"hunter2"}
    assert secret_data(cluster.require(secret_key("team-b", "keys"))) == {}
    assert cluster.get(secret_key(NAMESPACE, "nobodys")) is None


def test_an_image_that_nothing_stands_for_is_a_sentence(cluster: Cluster, jobs: Jobs) -> None:
    cluster.apply(job("other:1"))
    started, waiting = jobs.start()
    assert started == []
    [problem] = waiting
    assert problem == (
        f'{KEY} waits: image "other:1" is not ours, and a laptop has no containers: say which command stands for it, '
        "with up --image 'other:1=COMMAND'"
    )


def test_what_was_said_once_is_remembered(tmp_path: Path, backend: list[str]) -> None:
    state = tmp_path / "state"
    assert images.read(state) == {}
    images.remember(state, images.parse([f"{IMAGE}={shlex.join(backend)}", "other=run 'a b'"]))
    images.remember(state, images.parse(["other=run c"]))
    images.remember(state, {})
    assert images.read(state) == {IMAGE: backend, "other": ["run", "c"]}
    images.forget(state)
    assert images.read(state) == {}


def test_a_program_of_a_folder_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").touch()
    assert images.parse(["a=./run x"]) == {"a": [str(tmp_path / "run"), "x"]}


@pytest.mark.parametrize("text", ["image", "=command", "image=", "image='"])
def test_what_is_no_stand_in_is_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match="write IMAGE=COMMAND, as in"):
        images.parse([text])
