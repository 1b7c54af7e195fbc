"""A backend that is not there, that comes, that goes in the middle; a lock that somebody holds."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from memoryctl import embedded
from migrations.postgres import grants
from tests.migrations.documents import Command, Memory
from tests.postgres import Database, Postgres, launch


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server that these tests stop and break."""
    postgres = launch(tmp_path_factory.mktemp("own") / "18", 18)
    yield postgres
    embedded.remove(postgres.directory)


@pytest.fixture
def memory(own: Postgres) -> Iterator[Memory]:
    own.start()
    with own.database() as database:
        yield Memory(database)


def test_backend_that_never_comes_is_30_at_the_deadline(own: Postgres, memory: Memory, command: Command) -> None:
    own.stop()
    begin = time.monotonic()
    answer = command.provision(memory, deadline="1")
    took = time.monotonic() - begin
    own.start()
    assert (answer.code, answer.report["reason"]) == (30, "Unreachable")
    assert answer.message.startswith(f'cannot reach database "{memory.database.name}" on 127.0.0.1:{own.server.port}: ')
    assert "Connection refused" in answer.message
    assert 0.8 < took < 2
    assert len([line for line in answer.log if line["message"] == "waiting for the backend"]) > 2


def test_backend_that_comes_meanwhile_is_used(own: Postgres, memory: Memory, command: Command) -> None:
    own.stop()
    timer = threading.Timer(0.5, own.start)
    timer.start()
    answer = command.provision(memory)
    timer.join()
    assert answer.code == 0
    assert [line for line in answer.log if line["message"] == "waiting for the backend"]


def test_database_that_comes_later_is_waited_for(own: Postgres, memory: Memory, command: Command) -> None:
    assert own.version == 18
    missing = Database(memory.database.server, "not_there_yet")
    answer = command.provision(memory.but(database=missing), deadline="0.5")
    assert answer.code == 30
    assert 'database "not_there_yet" does not exist' in answer.message


def test_wrong_password_is_13_at_once(memory: Memory, command: Command) -> None:
    wrong = embedded.Login("memory_admin", "wrong-password")
    begin = time.monotonic()
    answer = command.run("provision", memory.document(), wrong)
    assert time.monotonic() - begin < 5
    assert (answer.code, answer.report["reason"]) == (13, "PermissionDenied")
    assert 'refuses the admin login "memory_admin" of provider "pg"' in answer.message
    assert "wrong-password" not in str(answer)


def test_server_that_asks_for_no_password_is_refused(own: Postgres, memory: Memory, command: Command) -> None:
    """Whatever the host asks for: who stands in its place must not get our password, or our trust."""
    rules = own.server.data / "pg_hba.conf"
    before = rules.read_text()
    try:
        for method in ("trust", "password"):
            rules.write_text(before.replace("scram-sha-256", method))
            with memory.database.superuser() as connection:
                connection.execute("SELECT pg_reload_conf(), pg_sleep(0.2)")
            answer = command.provision(memory)
            assert answer.code == 13, method
            assert 'authentication method requirement "scram-sha-256" failed' in answer.message
            knocking = memory.but(provider={"roleManagement": "CNPG", "isolation": "Database"})
            environment = command.mount(knocking.probe_document(), None)
            said = command.run_mounted("probe", environment).report
            assert said["code"] == 13, method
            assert "DatabaseRole" in said["message"]
    finally:
        rules.write_text(before)
        own.stop()
        own.start()


def test_connection_that_breaks_in_a_step_begins_again(
    memory: Memory, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: list[bool] = []
    repair = grants.repair

    def cut(connection: psycopg.Connection[tuple[object, ...]], *arguments: object, **options: object) -> None:
        if not broken:
            broken.append(True)
            with memory.database.superuser() as superuser:
                superuser.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        repair(connection, *arguments, **options)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(grants, "repair", cut)
    answer = command.provision(memory)
    assert answer.code == 0
    assert [line for line in answer.log if line["message"] == "the connection broke, beginning again"]
    assert answer.steps.count("ledger") == 2


def test_connection_that_breaks_while_the_lock_is_waited_for(memory: Memory, command: Command) -> None:
    holder = memory.hold()

    def cut() -> None:
        with memory.database.superuser() as superuser:
            superuser.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'memory-migrations'"
            )
        holder.close()

    timer = threading.Timer(0.4, cut)
    timer.start()
    answer = command.provision(memory)
    timer.join()
    assert answer.code == 0
    assert answer.steps.count("lock") == 2


def test_connections_that_break_until_the_deadline_are_30(
    memory: Memory, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(connection: psycopg.Connection[tuple[object, ...]], *_: object, **__: object) -> None:
        with memory.database.superuser() as superuser:
            superuser.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        connection.execute("SELECT 1")

    monkeypatch.setattr(grants, "repair", cut)
    answer = command.provision(memory, deadline="1")
    assert answer.code == 30
    assert "broke and the deadline is near" in answer.message


def test_lock_that_stays_busy_is_31(memory: Memory, command: Command) -> None:
    with memory.hold():
        answer = command.provision(memory, deadline="1")
        assert (answer.code, answer.report["reason"]) == (31, "LockBusy")
        assert 'holds the lock of schema "notes" for the whole wait' in answer.message
        other = memory.but(identity="team-b/other", schema="other")
        assert command.provision(other).code == 0, "another home is not locked"


def test_lock_that_is_given_back_is_taken(memory: Memory, command: Command) -> None:
    holder = memory.hold()
    timer = threading.Timer(0.3, holder.close)
    timer.start()
    assert command.provision(memory).code == 0
    timer.join()


def test_error_between_the_steps_has_a_code(memory: Memory, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(connection: psycopg.Connection[tuple[object, ...]]) -> None:
        connection.execute("SELECT * FROM pg_authid")

    monkeypatch.setattr("migrations.postgres.server.read", refuse)
    answer = command.provision(memory)
    assert (answer.code, answer.report["sqlstate"]) == (13, "42501")
    assert answer.message == "permission denied for table pg_authid"


def test_report_of_an_outage_is_written(own: Postgres, memory: Memory, command: Command, tmp_path: Path) -> None:
    own.stop()
    command.provision(memory, deadline="0.2")
    own.start()
    assert "Unreachable" in (tmp_path / "report-1.json").read_text()
