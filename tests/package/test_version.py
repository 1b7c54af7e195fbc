"""One version, in pyproject.toml: what else states it is compared with it here."""

import re
import subprocess
import tomllib
from pathlib import Path

import migrations
from scripts.project import ROOT, TAG, VERSION
from tests import schemas

# It cannot read pyproject.toml where it is: in the image, in a shell on somebody's laptop, in the past.
STATED = {"migrations/__init__.py", "client/pyproject.toml", "docs/install.md", "CHANGELOG.md"}


def test_nothing_else_states_it() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    stating = re.compile(rf"(?<![\d.]){re.escape(VERSION)}(?![\d.]*\d)")
    # The locks are full of other projects' versions.
    names = [name for name in listed.split("\0") if name and not name.startswith("requirements/")]
    found = {name for name in names if Path(ROOT, name).is_file() and stating.search(_text(ROOT / name))}
    assert found - STATED == {"pyproject.toml"}


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


def test_the_history_of_a_home_says_it() -> None:
    assert migrations.__version__ == VERSION


def test_the_client_has_it_as_well() -> None:
    assert tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]["version"] == VERSION


def test_the_guide_installs_it() -> None:
    assert set(re.findall(r"\bVERSION=(\S+)", (ROOT / "docs/install.md").read_text())) == {TAG}


def test_the_changelog_knows_none_that_is_newer() -> None:
    released = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert all(_number(each) <= _number(VERSION) for each in released)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_sources_of_packages_have_none() -> None:
    """Packaging writes it."""
    for path in (ROOT / "compositions").glob("*.yaml"):
        (composition,) = schemas.objects(path)
        for step in composition["spec"]["pipeline"]:
            assert (step["functionRef"]["name"], step["input"]["migrations"]["image"]) == (
                "function-memory",
                "memory-migrations",
            )
    (metadata,) = schemas.objects(ROOT / "package/configuration/crossplane.yaml")
    assert all("version" not in dependency for dependency in metadata["spec"]["dependsOn"])
