"""A new user: clones into an empty folder and does what the README says."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.schemas import ROOT, catalog
from tests.servers import require

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (ROOT / "README.md").read_text()
ACCOUNT = "nobody"
# Run by CI as they stand: the tests that this is one of, and the benchmark, which is never part of tests.
IN_CI = {"make test", "make bench"}


def commands() -> list[str]:
    """Every command of the README, in its order."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def repository() -> Iterator[Path]:
    """What `git clone` gives, with what is not committed yet."""
    folder = Path(tempfile.mkdtemp(prefix="readme-"))
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def clone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone in a private folder of whoever runs this."""
    del tmp_path_factory
    folder = Path(tempfile.mkdtemp(prefix="clone-"))
    shutil.copytree(repository, folder / "memory")
    yield folder / "memory"
    shutil.rmtree(folder)


def test_the_claim_of_the_readme_is_the_one_of_the_demo() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    claim = yaml.safe_load(block)
    assert claim == yaml.safe_load((ROOT / "examples" / "quickstart" / "claim.yaml").read_text())
    assert catalog().problems(claim) == []
    assert len(block.strip().splitlines()) <= 11


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_every_command_is_executed() -> None:
    assert set(commands()) == {*IN_CI, "make demo", "make down PURGE=1"}
    script = (ROOT / ".ci" / "run").read_text()
    assert all(f"\npart '{command}' {command}\n" in script for command in IN_CI)


def _run(clone: Path, command: str, account: int | None) -> str:
    """One command as a person types it, in an environment of its own that this run's settings do not reach."""
    passed = ("PATH", "LANG", "PIP_CERT", "PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_DEFAULT_TIMEOUT", "SSL_CERT_FILE")
    env = {name: os.environ[name] for name in passed if name in os.environ}
    if account is not None:
        # The account's own Python is the system's; one below root's home would not be its to run.
        env["PATH"] = "/usr/local/bin:/usr/bin:/bin"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=clone,
        env={**env, "HOME": str(clone.parent)},
        user=account,
        group=None if account is None else pwd.getpwuid(account).pw_gid,
        extra_groups=None if account is None else [],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _demo(clone: Path, account: int | None) -> None:
    try:
        shown = _run(clone, "make demo", account)
    finally:
        _run(clone, "make down PURGE=1", account)
    ready = re.search(r"Ready ([0-9.]+) s after PostgreSQL ran", shown)
    assert ready
    assert float(ready[1]) <= 5
    for part in ("OBJECT", "CONDITION", "BINDINGS", "Search by vector"):
        assert part in shown
    assert shown.index("OBJECT") < shown.index("CONDITION") < shown.index("BINDINGS") < shown.index("Search by vector")


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a home that PostgreSQL's account may not enter")
def test_demo_as_root_from_a_private_folder(clone: Path) -> None:
    assert clone.parent.stat().st_mode & 0o077 == 0
    _demo(clone, None)


def test_demo_as_an_ordinary_user(clone: Path) -> None:
    if os.geteuid() != 0:
        _demo(clone, None)
        return
    account = pwd.getpwnam(ACCOUNT)
    system = shutil.which("python3.11", path="/usr/local/bin:/usr/bin:/bin")
    require(system, "no python3.11 of the system for an ordinary user: apt-get install python3.11 python3.11-venv")
    for path in (clone.parent, *clone.parent.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
    _demo(clone, account.pw_uid)
