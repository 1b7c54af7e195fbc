"""The demo works for whoever cloned the repository: as root below a private home, and as an ordinary user."""

import os
import pwd
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from memoryctl.definitions import ROOT
from tests.servers import require

PARTS = ("apis", "client", "compositions", "examples", "function", "memoryctl", "migrations")
NOBODY = "nobody"
MANIFESTS = ("-f", "examples/quickstart/provider.yaml", "-f", "examples/quickstart/claim.yaml")


@pytest.fixture
def clone() -> Iterator[Path]:
    """A copy of the repository in a private directory."""
    directory = Path(tempfile.mkdtemp(prefix="clone-"))  # 0700, and not below pytest's own 0700 directory of ours
    for part in PARTS:
        shutil.copytree(ROOT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__"))
    yield directory
    shutil.rmtree(directory)


def interpreter(directory: Path) -> Path:
    """Makes an environment that every account can run, with the packages of this one."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    candidates = [Path(sys.executable).resolve(), Path("/usr/bin", version), Path("/usr/local/bin", version)]
    base = next((one for one in candidates if one.is_file() and all_may_enter(one)), None)
    # Debian's Python names folders that are not there.
    packages = [path for path in site.getsitepackages() if Path(path).exists() and all_may_enter(Path(path))]
    found = require(base if packages else None, f"no {version} with packages that an unprivileged account may read")
    target = directory / "venv"
    subprocess.run([found, "-m", "venv", "--without-pip", target], check=True, cwd="/", env={"PATH": os.defpath})
    library = target / "lib" / version / "site-packages"
    (library / "packages.pth").write_text("\n".join(packages))
    return target / "bin" / "python"


def all_may_enter(path: Path) -> bool:
    """Whether every account may read a path and enter all directories above it."""
    return path.stat().st_mode & 0o004 != 0 and all(one.stat().st_mode & 0o001 for one in path.parents)


def run(python: Path, clone: Path, account: int | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "memoryctl", *arguments],
        cwd=clone,
        user=account,
        group=account and pwd.getpwuid(account).pw_gid,
        extra_groups=None if account is None else [],
        env={"PATH": os.environ["PATH"], "HOME": str(clone), "PYTHONPATH": str(clone / "client")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def check_demo(python: Path, clone: Path, account: int | None) -> None:
    try:
        done = run(python, clone, account, "demo", *MANIFESTS)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Ready " in done.stdout
        assert "The invoice of the bakery on Mill Street" in done.stdout.rsplit("Search by vector", 1)[1]
    finally:
        done = run(python, clone, account, "down", "--purge")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (clone / ".memoryctl").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a home that PostgreSQL's account may not enter")
def test_the_demo_as_root_below_a_private_directory(clone: Path) -> None:
    check_demo(Path(sys.executable), clone, None)


def test_the_demo_as_an_ordinary_user(clone: Path) -> None:
    if os.geteuid() != 0:
        check_demo(Path(sys.executable), clone, None)
        return
    python = interpreter(clone)
    account = pwd.getpwnam(NOBODY)
    for path in (clone, *clone.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    check_demo(python, clone, account.pw_uid)
