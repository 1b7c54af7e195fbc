"""How images are made: settings out of the Dockerfile, archives, and what is not made twice."""

import hashlib
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts import archives, dockerfile, images
from scripts.project import ROOT, SOURCE, VERSION
from tests.package import archive

TEXT = (ROOT / "Dockerfile").read_text()
ARGUMENTS = {"VERSION": "1.2.3", "REVISION": "abc", "SOURCE": "https://example.org/source"}
LABEL = "org.opencontainers.image"


@pytest.mark.parametrize("target", images.TARGETS)
def test_an_image_says_what_it_is_and_of_what_it_was_made(target: str) -> None:
    labels = dockerfile.settings(TEXT, target, ARGUMENTS)["Labels"]
    assert labels.pop(f"{LABEL}.description")
    assert labels == {
        f"{LABEL}.title": images.TARGETS[target],
        f"{LABEL}.version": "1.2.3",
        f"{LABEL}.revision": "abc",
        f"{LABEL}.source": "https://example.org/source",
        f"{LABEL}.licenses": "Apache-2.0",
    }


@pytest.mark.parametrize("target", images.TARGETS)
def test_an_image_runs_as_nobody_that_the_kubelet_can_tell_from_root(target: str) -> None:
    """A number: of a name the kubelet does not know whether it is root (runAsNonRoot)."""
    assert dockerfile.settings(TEXT, target, ARGUMENTS)["User"] == "65532:65532"


def test_the_function_serves_where_crossplane_calls() -> None:
    settings = dockerfile.settings(TEXT, "function", ARGUMENTS)
    assert settings["ExposedPorts"] == {"9443/tcp": {}, "8080/tcp": {}}
    assert settings["Entrypoint"] == ["python", "-m", "function.main"]


def test_last_stages_begin_from_nothing() -> None:
    """What COPY brings is all there is; a base image would bring a shell."""
    bases = {name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)$", TEXT, re.MULTILINE)}
    assert {bases[bases[target]] for target in images.TARGETS} == {"scratch"}


def test_the_context_is_what_the_dockerfile_copies() -> None:
    """No test, secret or cache of a checkout gets into a build."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    copied = {source for line in TEXT.splitlines() if line.startswith("COPY ") and "--from" not in line
              for source in line.split()[1:-1]}  # fmt: skip
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied


def test_labels_are_of_this_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVISION", raising=False)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = images.labels()
    assert found.pop("REVISION").removesuffix("-dirty") == head.strip()
    assert found == {"VERSION": VERSION, "SOURCE": SOURCE}


def test_outside_of_git_the_revision_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVISION", "0123abc")
    assert images.labels()["REVISION"] == "0123abc"


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        pytest.param('FROM a AS x\nENV A=1 B="2 3"', {"Env": ["A=1", "B=2 3"]}, id="quotes"),
        pytest.param("FROM a AS x\nLABEL a=${VERSION} \\\n  b=c", {"Labels": {"a": "1.2.3", "b": "c"}}, id="arguments"),
        pytest.param(
            "FROM a AS y\nUSER 1\nFROM y AS x\nWORKDIR /w", {"User": "1", "WorkingDir": "/w"}, id="a stage before"
        ),
        pytest.param(
            "FROM a AS y\nUSER 1\nFROM b AS x\n# USER 2\nEXPOSE 1 2",
            {"ExposedPorts": {"1/tcp": {}, "2/tcp": {}}},
            id="no other stage",
        ),
    ],
)
def test_settings_are_read_as_docker_reads_them(text: str, settings: dict[str, Any]) -> None:
    found = dockerfile.settings(text, "x", ARGUMENTS)
    assert {key: value for key, value in found.items() if value} == settings


def test_what_a_builder_has_no_option_for_is_set_afterwards(tmp_path: Path) -> None:
    archive.write(tmp_path / "image.tar", settings={"User": "1"})
    before = archives.config(tmp_path / "image.tar")
    archives.configure(tmp_path / "image.tar", {"Labels": {"a": "b"}})
    after = archives.config(tmp_path / "image.tar")
    assert after["config"] == {"User": "1", "Labels": {"a": "b"}}
    assert {**after, "config": None} == {**before, "config": None}
    with tarfile.open(tmp_path / "image.tar") as tar:
        assert f"sha256:{hashlib.sha256(archives.read(tar, 'layer.tar')).hexdigest()}" in after["rootfs"]["diff_ids"]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., bool]:
    """Makes a file of some inputs, and tells whether it had to."""

    def run(inputs: str, *, fail: bool = False) -> bool:
        with archives.made_of(tmp_path / "made", inputs) as stale:
            if stale:
                (tmp_path / "made").write_text(inputs)
            if fail:
                raise InterruptedError
        return stale

    return run


def test_nothing_is_made_twice_of_the_same(make: Callable[..., bool], tmp_path: Path) -> None:
    assert [make(inputs) for inputs in ("one", "one", "two", "two", "one")] == [True, False, True, False, True]
    (tmp_path / "made").unlink()
    assert make("one")


def test_what_was_interrupted_is_made_anew(make: Callable[..., bool]) -> None:
    with pytest.raises(InterruptedError):
        make("one", fail=True)
    assert make("one")


def test_a_process_waits_for_what_another_makes(tmp_path: Path) -> None:
    """`make test` runs in several, and all of them want the images' files."""
    code = "\n".join(
        [
            "import pathlib, sys",
            "from scripts import archives",
            "print('asks', flush=True)",
            "with archives.made_of(pathlib.Path(sys.argv[1]), 'one') as stale: print(stale)",
        ]
    )
    with archives.made_of(tmp_path / "made", "one") as stale:
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "made")], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout
        assert (stale, child.stdout.readline()) == (True, "asks\n")
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
        (tmp_path / "made").touch()
    with child:
        assert child.stdout.read() == "False\n"


@pytest.mark.parametrize(("target", "other"), [("function", "migrations"), ("migrations", "function")])
def test_an_image_is_made_of_its_own_files(
    target: str, other: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("scripts/rootfs", *(f"requirements/{each}.txt" for each in images.TARGETS)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for each in images.TARGETS:
        (tmp_path / each / "__pycache__").mkdir(parents=True)
        (tmp_path / each / "code.py").write_text(each)
    monkeypatch.setattr(images, "ROOT", tmp_path)
    before = images.inputs(target)
    (tmp_path / other / "code.py").write_text("changed")
    (tmp_path / target / "__pycache__" / "code.pyc").write_text("compiled")
    assert images.inputs(target) == before
    for name in (f"{target}/code.py", f"requirements/{target}.txt", "scripts/rootfs"):
        (tmp_path / name).write_text("changed")
        assert images.inputs(target) != before
        before = images.inputs(target)
