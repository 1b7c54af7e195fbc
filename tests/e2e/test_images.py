"""Each image by itself under Pod Security *restricted*, as nobody set it up; and what was published."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from migrations.errors import Code
from scripts import archives, dockerfile, images, packages, publish
from scripts.project import ROOT, TAG
from tests.e2e.conftest import function_pods
from tests.e2e.kube import SYSTEM, Body, Kube, namespace
from tests.package import archive
from tests.servers import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.e2e

HEALTH = """
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
with grpc.insecure_channel("127.0.0.1:9443") as channel:
    ask = health_pb2_grpc.HealthStub(channel).Check
    answer = ask(health_pb2.HealthCheckRequest(), timeout=30, wait_for_ready=True)
print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
"""
METRICS = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:8080/metrics", timeout=10).status)
"""
# Who it is, and what it may write. /dev and what a pod mounts are not the image's.
SELF = """
import errno, os, json
def written(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "written"
outcomes = {written(f"{folder}/x") for folder in ("", "/app", "/tmp", "/usr/bin", "/etc")}
print(json.dumps([os.getuid(), sorted(outcomes)]))
"""


@pytest.fixture(scope="module")
def place(kube: Kube) -> Iterator[str]:
    """A namespace that takes nothing but *restricted* pods, with a request that is none."""
    name = f"e2e-images-{os.getpid()}"
    request = {"name": "request", "namespace": name}
    kube.apply(namespace(name))
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": request, "data": {"request.json": "[]"}})
    yield name
    kube("delete", "namespace", name, "--wait=false")


@pytest.fixture
def pod(kube: Kube, place: str, environment: Mapping[str, str]) -> Callable[..., str]:
    """Starts a pod of an image, with its own user and entry point unless told otherwise, and gives its name."""

    def start(image: str, *, user: int | None = None, **container: Any) -> str:
        name = f"{image}-{hashlib.sha256(json.dumps([user, container]).encode()).hexdigest()[:8]}"
        reference = f"{environment['REGISTRY']}/{image}:{TAG}"
        kube("create", "-f", "-", body=_pod(place, name, reference, user, container))
        return name

    return start


@pytest.fixture
def ended(kube: Kube, place: str) -> Callable[[str], tuple[Body, str]]:
    """Waits until a pod's container has ended; gives how, and what it said."""

    def wait(name: str) -> tuple[Body, str]:
        state = kube.until(f"{name} ends", lambda: _state(kube, place, name, "terminated"))
        return state, "" if state["reason"] == "StartError" else kube("logs", "-n", place, name)

    return wait


def _pod(place: str, name: str, image: str, user: int | None, container: Body) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": place},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                # With no user given, the kubelet starts it only when the image itself names one that is not root.
                "runAsNonRoot": True,
                **({"runAsUser": user} if user else {}),
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "Always",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    **container,
                }
            ],
            "volumes": [{"name": "memory", "configMap": {"name": "request"}}],
        },
    }


def _state(kube: Kube, place: str, name: str, state: str) -> Body | None:
    """The state of a pod's container, once it is that."""
    statuses = kube.get("pod", name, place).get("status", {}).get("containerStatuses", [])
    found: Body | None = statuses[0]["state"].get(state) if statuses else None
    return found


@pytest.mark.parametrize("target", images.TARGETS)
def test_images_are_as_the_dockerfile_says(target: str) -> None:
    """Whatever built them."""
    file = images.archive(target)
    require(file.exists() or None, f"{file.relative_to(ROOT)}: run make images")
    wanted = dockerfile.settings((ROOT / "Dockerfile").read_text(), target, images.labels())
    found = archives.config(file)["config"]
    for same in ("User", "WorkingDir", "Entrypoint", "ExposedPorts"):
        assert (found.get(same) or {}) == wanted.get(same), same
    assert set(wanted["Env"]) <= set(found["Env"])
    assert wanted["Labels"].keys() <= found["Labels"].keys()


@pytest.mark.parametrize("user", [None, 2000], ids=["its own user", "Crossplane's user"])
def test_the_function_serves(kube: Kube, place: str, pod: Callable[..., str], user: int | None) -> None:
    name = pod(packages.FUNCTION, user=user, args=["--insecure"])
    kube.until(f"{name} runs", lambda: _state(kube, place, name, "running"))

    def python(code: str) -> str:
        return kube("exec", "-n", place, name, "--", "python", "-c", code).strip()

    assert python(HEALTH) == "SERVING"
    assert python(METRICS) == "200"
    assert json.loads(python(SELF)) == [user or 65532, ["EROFS"]]


def test_the_function_that_crossplane_runs_is_nobody_either(kube: Kube, installed: Kube) -> None:
    for found in function_pods(installed):
        said = kube("exec", "-n", SYSTEM, found["metadata"]["name"], "--", "python", "-c", SELF)
        user, outcomes = json.loads(said)
        assert user != 0
        assert outcomes == ["EROFS"]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        pytest.param(["provision"], Code.BAD_REQUEST, "bad request document", id="a bad request"),
        pytest.param(["reap-everything"], Code.USAGE, "usage: python -m migrations", id="no such command"),
    ],
)
def test_the_provisioner_answers_with_its_exit_code(
    pod: Callable[..., str], ended: Callable[[str], tuple[Body, str]], arguments: list[str], code: Code, sentence: str
) -> None:
    name = pod(packages.MIGRATIONS, args=arguments, volumeMounts=[{"name": "memory", "mountPath": "/memory"}])
    state, log = ended(name)
    assert state["exitCode"] == code, log
    assert sentence in log


def test_the_provisioner_is_nobody_and_writes_nothing(
    pod: Callable[..., str], ended: Callable[[str], tuple[Body, str]]
) -> None:
    _, log = ended(pod(packages.MIGRATIONS, command=["python", "-c", SELF]))
    assert json.loads(log) == [65532, ["EROFS"]]


@pytest.mark.parametrize("image", [packages.FUNCTION, packages.MIGRATIONS])
def test_there_is_no_shell(pod: Callable[..., str], ended: Callable[[str], tuple[Body, str]], image: str) -> None:
    state, _ = ended(pod(image, command=["sh", "-c", "true"]))
    assert state["reason"] == "StartError"
    assert "executable file not found" in state["message"]


def test_jobs_run_the_image_that_was_pushed(image: str, environment: Mapping[str, str]) -> None:
    """By digest: whoever moves the tag moves no Job."""
    where = f"{environment['REGISTRY']}/{packages.MIGRATIONS}"
    assert image == f"{where}@{publish.digest(f'{where}:{TAG}')}"


def test_images_of_several_platforms_become_one(
    environment: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", environment["PATH"])
    files = [archive.write(tmp_path / f"{name}.tar", name) for name in ("amd64", "arm64")]
    pushed = publish.push("test-of-platforms", files, environment["REGISTRY"])
    index = publish.manifest(f"{environment['REGISTRY']}/test-of-platforms:{TAG}")
    platforms = [entry["platform"] for entry in json.loads(index)["manifests"]]
    assert [(each["os"], each["architecture"]) for each in platforms] == [("linux", "amd64"), ("linux", "arm64")]
    assert pushed == f"{environment['REGISTRY']}/test-of-platforms@sha256:{hashlib.sha256(index).hexdigest()}"
