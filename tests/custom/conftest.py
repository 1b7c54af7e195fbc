"""The toy server of the template, and a MariaDB, each once a session."""

import dataclasses
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import mariadb
from tests.memoryctl.conftest import laptop
from tests.schemas import ROOT

__all__ = ["laptop"]  # a fixture

TEMPLATE = ROOT / "examples" / "custom-template"
EXAMPLE = ROOT / "examples" / "custom-mariadb"


@dataclasses.dataclass(frozen=True)
class Server:
    """A server with its provisioner, as the kit takes them."""

    folder: Path
    endpoint: str
    database: str
    command: str
    try_command: str

    @property
    def config(self) -> Path:
        return self.folder / "config"

    def kit(self, *checks: str, command: str = "", more: tuple[str, ...] = ("--keep",)) -> tuple[int, str]:
        """Runs the kit, or some of its checks; gives exit code and output."""
        words = [sys.executable, str(TEMPLATE / "kit" / "contract_kit.py"), "--command", command or self.command]
        words += ["--try", self.try_command, "--endpoint", self.endpoint, "--database", self.database]
        words += ["--config", str(self.config), *more, *(word for check in checks for word in ("--only", check))]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
        return done.returncode, done.stdout + done.stderr


def configured(folder: Path, username: str, password: str) -> None:
    """Writes what the configSecret holds."""
    (folder / "config").mkdir()
    (folder / "config" / "username").write_text(username)
    (folder / "config" / "password").write_text(f"{password}\n")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("toy")
    configured(folder, "root", "admin-password-of-toy")
    command = [sys.executable, str(TEMPLATE / "toy" / "server.py"), "0", "root", "admin-password-of-toy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = process.stdout.readline().split()[-1]
        provisioner = shlex.join([sys.executable, str(TEMPLATE / "provisioner")])
        tries = shlex.join([sys.executable, str(TEMPLATE / "toy" / "try_login.py")])
        yield Server(folder, f"127.0.0.1:{port}", "toy", provisioner, tries)
        process.kill()


@pytest.fixture(scope="session")
def maria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mariadb.MariaDB]:
    folder = tmp_path_factory.mktemp("mariadb")
    folder.chmod(0o755)
    with mariadb.running(folder) as server:
        # What COPY does in its Dockerfile.
        shutil.copytree(EXAMPLE / "image" / "provisioner", folder / "provisioner")
        shutil.copy(EXAMPLE / "kit" / "try_login.py", folder)
        yield server


@pytest.fixture(scope="session")
def example(maria: mariadb.MariaDB) -> Server:
    """The worked example."""
    configured(maria.folder, *mariadb.ADMIN)
    command = shlex.join(maria.command("python3", str(maria.folder / "provisioner")))
    tries = shlex.join(maria.command("python3", str(maria.folder / "try_login.py")))
    return Server(maria.folder, maria.endpoint, "memory_ledger", command, tries)
