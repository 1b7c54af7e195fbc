"""The packages as the real CLI builds them: what is in the files that are pushed."""

from __future__ import annotations

import json
import shutil
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from scripts import archives, dockerfile, images, packages
from scripts.project import ROOT, TAG
from tests.render.cli import binary
from tests.servers import require

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.render

WHERE = "registry.example.org/proompteng"
IMAGE = f"{WHERE}/memory-migrations@sha256:{'0' * 64}"
# Of the xpkg specification: where Crossplane looks in the image, and a marketplace.
STREAM, EXAMPLES = "package.yaml", ".up/examples.yaml"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both packages, by name."""
    cli = binary("CROSSPLANE_CLI", shutil.which("crossplane"), "the crossplane CLI, on the PATH or named")
    require(images.archive("function").exists() or None, "build/images/function.tar: run make images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSPLANE_CLI", str(cli))
        found = packages.build(WHERE, IMAGE, tmp_path_factory.mktemp("packages"))
    return {name: path for name, (path,) in found.items()}


def _layers(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        (entry,) = json.loads(archives.read(tar, "manifest.json"))
    names: list[str] = entry["Layers"]
    return names


def _objects(archive: Path, name: str) -> list[dict[str, Any]]:
    """Objects in a file of a package; each file is a layer of its own."""
    with tarfile.open(archive) as tar:
        for layer in _layers(archive):
            content = tar.extractfile(layer)
            with tarfile.open(fileobj=content) as inner:
                if inner.getnames() == [name]:
                    return [body for body in yaml.safe_load_all(archives.read(inner, name)) if body]
    return []


def test_files_are_called_by_name_and_version(built: dict[str, Path]) -> None:
    assert [path.name for path in built.values()] == [
        f"function-memory-{TAG}.xpkg",
        f"configuration-memory-{TAG}.xpkg",
    ]


def test_the_function_brings_itself_and_its_input(built: dict[str, Path]) -> None:
    found = _objects(built[packages.FUNCTION], STREAM)
    assert [(body["kind"], body["metadata"]["name"]) for body in found] == [
        ("Function", "function-memory"),
        ("CustomResourceDefinition", "memoryinputs.memory.fn.proompteng.ai"),
    ]


def test_the_function_embeds_its_runtime(built: dict[str, Path]) -> None:
    """The image of `make images`, all of its layers first, and it runs as that one does."""
    package, runtime = built[packages.FUNCTION], images.archive("function")
    ours, theirs = (archives.config(path)["rootfs"]["diff_ids"] for path in (runtime, package))
    assert theirs[: len(ours)] == ours
    ran, packed = (archives.config(path)["config"] for path in (runtime, package))
    labels = {key: value for key, value in packed.pop("Labels").items() if not key.startswith("io.crossplane.")}
    assert labels == ran.pop("Labels")
    assert {key: value for key, value in packed.items() if value} == {key: value for key, value in ran.items() if value}


def test_the_image_runs_as_the_dockerfile_says(built: dict[str, Path]) -> None:
    wanted = dockerfile.settings((ROOT / "Dockerfile").read_text(), "function", images.labels())
    found = archives.config(built[packages.FUNCTION])["config"]
    same = ("User", "WorkingDir", "Entrypoint", "ExposedPorts")
    assert {key: found[key] for key in same} == {key: wanted[key] for key in same}
    assert set(wanted["Env"]) <= set(found["Env"])
    assert set(wanted["Labels"]) <= set(found["Labels"])


def test_the_configuration_brings_definitions_and_compositions(built: dict[str, Path]) -> None:
    """And nothing is lost on the way: the CLI writes them anew, field by field that it knows."""
    found = {_name(body): body for body in _objects(built[packages.CONFIGURATION], STREAM)}
    wanted = {_name(body): body for body in packages.configuration(WHERE, IMAGE).values()}
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


def test_the_configuration_shows_an_example_and_runs_nothing(built: dict[str, Path]) -> None:
    shown = _objects(built[packages.CONFIGURATION], EXAMPLES)
    assert [body["kind"] for body in shown] == ["Memory", "XMemoryProvider"]
    assert len(_layers(built[packages.CONFIGURATION])) == 2
    assert "Entrypoint" not in archives.config(built[packages.CONFIGURATION])["config"]


def test_the_same_sources_give_the_same_packages(built: dict[str, Path], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        cli = binary("CROSSPLANE_CLI", shutil.which("crossplane"), "the crossplane CLI, on the PATH or named")
        patch.setenv("CROSSPLANE_CLI", str(cli))
        again = packages.build(WHERE, IMAGE, tmp_path / "again")
    for name, (path,) in again.items():
        assert path.read_bytes() == built[name].read_bytes()
