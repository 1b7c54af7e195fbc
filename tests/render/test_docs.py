"""docs/render.md as a platform team follows it: its files, and its commands as they stand there.

Where this differs from a CI with Docker stands in one place, `COMMAND`: who runs the function and the reconciler.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.e2e import guide
from tests.e2e.conftest import default_postgres
from tests.function.examples import Example
from tests.render.cli import parted
from tests.schemas import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.e2e.kube import Kube
    from tests.render.cli import Crossplane

GUIDE = (ROOT / "docs" / "render.md").read_text()
SECTIONS = guide.sections(GUIDE)
COMMAND = """#!/bin/sh
[ "$1 $2" != "composition render" ] || set -- "$@" --crossplane-binary={core} \\
  --function-annotations=render.crossplane.io/runtime=Development \\
  --function-annotations=render.crossplane.io/runtime-development-target={function}
exec {cli} "$@"
"""


class Team:
    """A platform team's repository: `render/` from the control plane, `claims/` from the app teams."""

    def __init__(self, crossplane: Crossplane) -> None:
        self.folder = crossplane.home / "repository"
        (self.folder / "claims").mkdir(parents=True)
        (self.folder / "render").mkdir()
        (root_key,) = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
        (self.folder / "render" / "root-key.yaml").write_text(root_key)
        self._home = crossplane.home
        self._path = _command(crossplane)

    def claim(self, name: str, text: str) -> None:
        """A file of `claims/`."""
        (self.folder / "claims" / f"{name}.yaml").write_text(text)

    def follow(self, section: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a section's commands as a step of CI does: in one shell that ends at the first failure."""
        path = f"{self._path}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(SECTIONS[section])],
            cwd=self.folder,
            env={"HOME": str(self._home), **(environment or {}), "PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def _command(crossplane: Crossplane) -> Path:
    """A folder with a `crossplane` that needs no Docker."""
    words = {"cli": crossplane.cli, "core": crossplane.core, "function": crossplane.function}
    folder = crossplane.home / "bin"
    folder.mkdir()
    command = folder / "crossplane"
    command.write_text(COMMAND.format_map({name: shlex.quote(str(word)) for name, word in words.items()}))
    command.chmod(0o755)
    return folder


@pytest.fixture
def team(crossplane: Crossplane) -> Team:
    return Team(crossplane)


@pytest.fixture
def example() -> Example:
    return Example(ROOT / "examples" / "quickstart")


@pytest.fixture
def fetched(team: Team, example: Example) -> Team:
    """The team's repository after the first section, with what the packages and the example hold."""
    function = {"apiVersion": "pkg.crossplane.io/v1", "kind": "Function", "metadata": {"name": "function-memory"}}
    files = {
        "composition": (ROOT / "compositions" / "memory.yaml").read_text(),
        "definition": (ROOT / "apis" / "xmemories" / "definition.yaml").read_text(),
        "provider": (example.folder / "required.yaml").read_text(),
        "functions": yaml.safe_dump({**function, "spec": {"package": "function-memory"}}),
    }
    for name, text in files.items():
        (team.folder / "render" / f"{name}.yaml").write_text(text)
    return team


@pytest.mark.render
def test_a_claim_is_rendered(fetched: Team, example: Example) -> None:
    fetched.claim("notes", (example.folder / "claim.yaml").read_text())
    done = fetched.follow("In each pull request")
    assert done.returncode == 0, done.stdout + done.stderr
    _, composed, _ = parted((fetched.folder / "rendered" / "notes.yaml").read_text())
    golden = yaml.safe_load((example.folder / "expected" / "first.yaml").read_text())
    assert sorted(body["kind"] for body in composed) == sorted(
        each["resource"]["kind"] for each in golden["resources"].values()
    )


@pytest.mark.render
def test_the_cli_makes_the_composite_that_the_examples_hold(fetched: Team, example: Example) -> None:
    """All but what an API server adds: defaults, which `render` fills in, uid and time."""
    fetched.claim("notes", (example.folder / "claim.yaml").read_text())
    fetched.follow("In each pull request")
    made = yaml.safe_load((fetched.folder / "rendered" / "notes-xr.yaml").read_text())
    held = example.read("xr.yaml")
    assert made["metadata"]["labels"] == held["metadata"]["labels"]
    assert made["spec"].items() <= held["spec"].items()


@pytest.mark.render
def test_a_wrong_claim_stops_before_anything_is_rendered(fetched: Team, example: Example) -> None:
    fetched.claim("notes", (example.folder / "claim.yaml").read_text().replace("schema: notes", "schema: Notes"))
    done = fetched.follow("In each pull request")
    assert done.returncode != 0
    assert '"Notes" is not a usable schema: write 1 to 63 lower-case letters' in done.stdout
    assert not (fetched.folder / "rendered").exists()


@pytest.mark.render
def test_a_claim_that_its_provider_refuses_fails_with_the_sentence(fetched: Team) -> None:
    refused = ROOT / "examples" / "refused"
    (fetched.folder / "render" / "provider.yaml").write_text((refused / "required.yaml").read_text())
    fetched.claim("guests", (refused / "claim.yaml").read_text())
    done = fetched.follow("In each pull request")
    assert done.returncode != 0
    assert 'provider "pg" admits the namespaces of a list, not namespace "team-z"' in " ".join(done.stdout.split())


@pytest.mark.e2e
def test_what_a_control_plane_has_renders_a_claim(
    installed: Kube, environment: Mapping[str, str], team: Team, example: Example
) -> None:
    """Both sections, the first one against a control plane with the packages and the provider of the guide."""
    if image := os.environ.get("MEMORY_POSTGRES_IMAGE"):
        default_postgres(installed, image)
    guide.follow("A provider", environment)
    fetched = team.follow("Once, and after each upgrade", environment)
    assert fetched.returncode == 0, fetched.stdout + fetched.stderr
    team.claim("notes", (example.folder / "claim.yaml").read_text())
    done = team.follow("In each pull request")
    assert done.returncode == 0, done.stdout + done.stderr
