"""The client's wheel, in an environment that has nothing else."""

import os
import site
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.project import ROOT, VERSION
from tests.client.backends import Backend, Machine
from tests.client.conftest import backends, machine

__all__ = ["backends", "machine"]  # fixtures

BARE = """
import importlib.metadata, memory_client, pathlib, sys
from memory_client import Memory, MemoryClientError
found = importlib.metadata.metadata("memory-client")
print(found["Version"], *sorted(found.get_all("Provides-Extra")))
folder = pathlib.Path(memory_client.__file__).parent
print(folder.is_relative_to(sys.prefix), (folder / "py.typed").exists())
for kind in ("postgresql", "redis", "s3"):
    (pathlib.Path(sys.argv[1]) / "type").write_text(kind)
    try:
        Memory.from_binding(sys.argv[1])
    except MemoryClientError as error:
        print(str(error).partition("pip install ")[2])
"""

WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
from memory_client import DimensionMismatch, Embedding, Memory
with Memory.from_binding(sys.argv[1]) as memory:
    memory.embeddings.upsert("one", (1, 0, 0), content="tea")
    memory.embeddings.upsert(Embedding(f"key-{n}", [0.0, 1.0, n]) for n in range(300))
    try:
        memory.embeddings.upsert("two", [1, 0])
    except DimensionMismatch as error:
        print(error)
    print(memory.embeddings.search([1, 0.1, 0], query="tea", limit=1)[0].key, memory.status().embeddings)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT / "client", check=True, capture_output=True)
    [found] = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--disable-pip-version-check", str(wheel)], check=True)
    return folder / "bin" / "python"


def run(python: Path, text: str, *arguments: str) -> list[str]:
    command = [str(python), "-I", "-c", text, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_is_called_after_the_version(wheel: Path) -> None:
    assert wheel.name == f"memory_client-{VERSION}-py3-none-any.whl"


def test_a_bare_one_says_which_extra_is_missing(python: Path, tmp_path: Path) -> None:
    values = {"endpoint": "host:1", "database": "0", "schema": "x", "username": "x", "password": "x"}
    for name, value in values.items():
        (tmp_path / name).write_text(value)
    extras = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert run(python, BARE, str(tmp_path)) == [
        " ".join([VERSION, *sorted(extras)]),
        "True True",
        '"memory-client[postgres]"',
        '"memory-client[redis]"',
        '"memory-client[s3]"',
    ]


def test_it_works_without_numpy(
    python: Path, backends: Callable[[str, Machine], Backend], machine: Machine, tmp_path: Path
) -> None:
    """With the packages of the tests, because a registry may be out of reach."""
    [library] = (python.parents[1] / "lib").iterdir()
    packages = library / "site-packages" / "packages.pth"
    packages.write_text("\n".join(site.getsitepackages()))
    try:
        directory = backends("postgresql-18", machine).place(tmp_path / "binding").binding
        assert run(python, WITHOUT_NUMPY, str(directory)) == [
            "the vector has 2 dimensions and this Memory 3: use the model that it was made for",
            "one 301",
        ]
    finally:
        packages.unlink()
