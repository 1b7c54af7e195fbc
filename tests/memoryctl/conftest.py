"""A laptop of one's own for each test: a state directory, and memoryctl as a process from the repository root."""

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from memoryctl.cluster import Cluster
from memoryctl.definitions import ROOT
from memoryctl.objects import API_VERSION, Key, Object
from tests.memoryctl.apiserver import ApiServer, serving
from tests.servers import require

QUICKSTART = ROOT / "examples" / "quickstart"
SECONDS = 120


@dataclasses.dataclass(frozen=True)
class Laptop:
    """Runs memoryctl in a state directory, and reads what it left there."""

    directory: Path

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.state / "objects")

    @property
    def binding(self) -> Path:
        return self.state / "bindings" / "team-a" / "notes-memory"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "memoryctl", *arguments, "--state", str(self.state)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=environment())

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            output, errors = process.communicate(timeout=SECONDS)
        assert "Traceback" not in output + errors
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def up(self, *manifests: Object) -> subprocess.CompletedProcess[str]:
        return self.run("up", "-f", str(self.write(*manifests))) if manifests else self.run("up")

    def write(self, *manifests: Object) -> Path:
        path = self.directory / "manifests.yaml"
        path.write_text(yaml.safe_dump_all(manifests))
        return path

    def jobs(self) -> list[str]:
        return [job["metadata"]["name"] for job in self.cluster.list("batch/v1", "Job")]

    def files(self) -> dict[str, bytes]:
        """Every object and every binding, as bytes."""
        found = [path for part in ("objects", "bindings") for path in (self.state / part).rglob("*") if path.is_file()]
        return {str(path.relative_to(self.state)): path.read_bytes() for path in found}

    def claim(self) -> Object:
        return self.cluster.require(Key(API_VERSION, "Memory", "team-a", "notes"))


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}", **extra}


def example(name: str) -> Any:
    return yaml.safe_load((QUICKSTART / f"{name}.yaml").read_text())


@pytest.fixture
def provider() -> Object:
    """The quick start's provider, to be changed at will."""
    manifest: Object = example("provider")
    return manifest


@pytest.fixture
def claim() -> Object:
    """The quick start's claim, to be changed at will."""
    manifest: Object = example("claim")
    return manifest


@dataclasses.dataclass(frozen=True)
class Ready(Laptop):
    """A laptop on which the quick start is up; whoever asks for it only looks."""

    output: str = ""
    errors: str = ""
    code: int = 1


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    laptop = Laptop(tmp_path_factory.mktemp("ready"))
    done = laptop.up(example("provider"), example("claim"))
    assert done.returncode == 0, done.stdout + done.stderr
    yield Ready(laptop.directory, done.stdout, done.stderr, done.returncode)
    laptop.run("down", "--purge")


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    made = Laptop(tmp_path)
    yield made
    made.run("down", "--purge")
    assert not made.state.exists()


@pytest.fixture
def copied(ready: Ready, tmp_path: Path) -> Laptop:
    """The shared laptop's objects and logs, to be changed at will; nothing runs there."""
    for part in ("objects", "logs"):
        shutil.copytree(ready.state / part, tmp_path / "state" / part)
    return Laptop(tmp_path)


@pytest.fixture
def api(copied: Laptop, tmp_path: Path) -> Iterator[ApiServer]:
    require(shutil.which("kubectl"), "kubectl is not on the PATH")
    with serving(copied.cluster, tmp_path) as api:
        yield api
