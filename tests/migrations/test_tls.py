"""The server proves itself before it hears a password. On PostgreSQL 17: the wheel's servers speak no TLS."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.migrations.documents import Answer, Command, Memory
from tests.postgres import Servers
from tests.servers import require


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, and a server certificate that it signed, for 127.0.0.1."""
    openssl = require(shutil.which("openssl"), "no openssl: it makes the certificates of this test")
    folder = tmp_path_factory.mktemp("authority")
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    for words in (
        "req -x509 -newkey rsa:2048 -nodes -subj /CN=authority -days 2 -keyout ca.key -out ca.crt",
        "req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.crt",
    ):
        subprocess.run([openssl, *words.split()], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def memory(postgres_servers: Servers, authority: Path) -> Iterator[Memory]:
    """A Memory on a server with that certificate."""
    postgres = postgres_servers.get(17)
    data = postgres.server.data
    for name in ("server.crt", "server.key"):
        shutil.copy(authority / name, data / name)
        os.chown(data / name, data.stat().st_uid, data.stat().st_gid)
        (data / name).chmod(0o600)
    with postgres.database() as database, database.superuser() as connection:
        connection.execute("ALTER SYSTEM SET ssl = on")
        connection.execute("SELECT pg_reload_conf(), pg_sleep(0.2)")
        yield Memory(database)
        connection.execute("ALTER SYSTEM RESET ssl")
        connection.execute("SELECT pg_reload_conf()")


def _provision(command: Command, memory: Memory, mode: str, ca: Path | None) -> Answer:
    document = memory.but(provider={"sslMode": mode}).document()
    environment = command.mount(document, memory.database.server.admin) | {"MEMORY_DEADLINE_SECONDS": "0.5"}
    if ca:
        tls = Path(environment["MEMORY_DIR"]) / "tls"
        tls.mkdir()
        shutil.copy(ca, tls / "ca.crt")
    return command.run_mounted("provision", environment)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_server_of_the_providers_ca(memory: Memory, command: Command, authority: Path, mode: str) -> None:
    assert _provision(command, memory, mode, authority / "ca.crt").code == 0


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_without_a_ca_what_the_system_trusts_counts(
    memory: Memory, command: Command, authority: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    answer = _provision(command, memory, mode, None)
    assert answer.code == 30
    assert "certificate verify failed" in answer.message
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.crt"))
    assert _provision(command, memory, mode, None).code == 0


def test_server_by_another_name_is_refused(memory: Memory, command: Command, authority: Path) -> None:
    document = memory.but(provider={"sslMode": "verify-full", "host": "localhost"}).document()
    environment = command.mount(document, memory.database.server.admin) | {"MEMORY_DEADLINE_SECONDS": "0.5"}
    tls = Path(environment["MEMORY_DIR"]) / "tls"
    tls.mkdir()
    shutil.copy(authority / "ca.crt", tls / "ca.crt")
    answer = command.run_mounted("provision", environment)
    assert answer.code == 30
    assert 'server certificate for "server"' in answer.message or "does not match host name" in answer.message


def test_server_without_tls_hears_no_password(command: Command, postgres_servers: Servers) -> None:
    with postgres_servers.get(18).database() as database:
        answer = _provision(command, Memory(database), "require", None)
    assert answer.code == 30
    assert "server does not support SSL, but SSL was required" in answer.message
