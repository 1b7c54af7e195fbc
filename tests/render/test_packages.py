"""The packages as the real CLI builds them: what is in the files that are pushed."""

from __future__ import annotations

import itertools
import json
import shutil
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from scripts import archives, packages
from scripts.project import TAG
from tests.package import archive
from tests.render.cli import binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.render

WHERE = "registry.example.org/proompteng"
IMAGE = f"{WHERE}/memory-migrations@sha256:{'0' * 64}"
# Of the xpkg specification: where Crossplane looks in the image, and a marketplace.
STREAM, EXAMPLES = "package.yaml", ".up/examples.yaml"
RUNTIME: dict[str, Any] = {
    "User": "65532:65532",
    "Entrypoint": ["python"],
    "WorkingDir": "/app",
    "Labels": {"version": "1"},
}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], dict[str, Path]]]:
    """Builds the packages; gives their files by name. What the function's image does is no matter here."""
    folder = tmp_path_factory.mktemp("packages")
    cli = binary("CROSSPLANE_CLI", shutil.which("crossplane"), "the crossplane CLI, on the PATH or named")
    runtime = archive.write(folder / "function.tar", settings=RUNTIME)
    numbers = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSPLANE_CLI", str(cli))

        def run() -> dict[str, Path]:
            found = packages.build(WHERE, IMAGE, [runtime], folder / str(next(numbers)))
            return {name: path for name, (path,) in found.items()}

        yield run


@pytest.fixture(scope="module")
def built(build: Callable[[], dict[str, Path]]) -> dict[str, Path]:
    """The packages, by name."""
    return build()


def _layers(package: Path) -> list[str]:
    with tarfile.open(package) as tar:
        (entry,) = json.loads(archives.read(tar, "manifest.json"))
    names: list[str] = entry["Layers"]
    return names


def _objects(package: Path, name: str) -> list[dict[str, Any]]:
    """Objects in a file of a package; each file is a layer of its own."""
    with tarfile.open(package) as tar:
        for layer in _layers(package):
            content = tar.extractfile(layer)
            with tarfile.open(fileobj=content) as inner:
                if inner.getnames() == [name]:
                    return [body for body in yaml.safe_load_all(archives.read(inner, name)) if body]
    return []


def test_files_are_called_by_name_and_version(built: dict[str, Path]) -> None:
    assert [path.name for path in built.values()] == [
        f"function-memory-{TAG}.xpkg",
        f"configuration-memory-{TAG}.xpkg",
        f"configuration-memory-v1-{TAG}.xpkg",
    ]


def test_the_function_brings_itself_and_its_input(built: dict[str, Path]) -> None:
    found = _objects(built[packages.FUNCTION], STREAM)
    assert [(body["kind"], body["metadata"]["name"]) for body in found] == [
        ("Function", "function-memory"),
        ("CustomResourceDefinition", "memoryinputs.memory.fn.proompteng.ai"),
    ]


def test_the_function_embeds_its_runtime(built: dict[str, Path]) -> None:
    """All of the image's layers, and it runs as the image does."""
    found = archives.config(built[packages.FUNCTION])
    labels = found["config"].pop("Labels")
    assert found["config"] == {key: value for key, value in RUNTIME.items() if key != "Labels"}
    assert RUNTIME["Labels"].items() <= labels.items()
    assert (found["os"], found["architecture"], len(found["rootfs"]["diff_ids"])) == ("linux", "amd64", 3)


@pytest.mark.parametrize("package", packages.CONFIGURATIONS)
def test_the_configuration_brings_definitions_and_compositions(built: dict[str, Path], package: str) -> None:
    """And nothing is lost on the way: the CLI writes them anew, field by field that it knows."""
    found = {_name(body): body for body in _objects(built[package], STREAM)}
    wanted = {_name(body): body for body in packages.configuration(WHERE, IMAGE, package).values()}
    assert set(found) == set(wanted)
    for name, body in wanted.items():
        assert _within(found[name], body) == body, name


def _within(found: Any, wanted: Any) -> Any:
    """What is found where something is wanted."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return {key: _within(found.get(key), value) for key, value in wanted.items()}
    if isinstance(wanted, list) and isinstance(found, list) and len(found) == len(wanted):
        return [_within(*pair) for pair in zip(found, wanted, strict=True)]
    return found


def _name(body: dict[str, Any]) -> tuple[str, str]:
    return body["kind"], body["metadata"]["name"]


@pytest.mark.parametrize("package", packages.CONFIGURATIONS)
def test_the_configuration_shows_an_example_and_runs_nothing(built: dict[str, Path], package: str) -> None:
    shown = _objects(built[package], EXAMPLES)
    assert [body["kind"] for body in shown] == ["Memory", "XMemoryProvider"]
    assert len(_layers(built[package])) == 2
    assert "Entrypoint" not in archives.config(built[package])["config"]


def test_the_same_sources_give_the_same_packages(built: dict[str, Path], build: Callable[[], dict[str, Path]]) -> None:
    for name, path in build().items():
        assert path.read_bytes() == built[name].read_bytes()
