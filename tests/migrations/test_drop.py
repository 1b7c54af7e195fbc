"""Dropping a home of each isolation: everything of it goes, nothing of anybody else's does."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.postgres.connection import Admin, retrying
from migrations.postgres.drop import Home, close_logins, drop_home
from migrations.postgres.names import names_of
from migrations.postgres.request import ProvisionRequest
from migrations.request import parse
from tests.migrations.documents import Command, Memory
from tests.postgres import Connection, Database

ISOLATIONS = ("Schema", "Database", "Dataset")


def memory_of(database: Database, isolation: str, number: int = 0) -> Memory:
    """One of several Memories that can stand side by side."""
    return Memory(
        database,
        identity=f"team-{number}/notes",
        schema="shared" if isolation == "Dataset" else f"notes_{number}",
        dataset=f"notes-{number}",
        provider={"isolation": isolation},
        password=f"password-{number}",
        reader_password=f"reader-{number}",
    )


@pytest.fixture(params=ISOLATIONS)
def pair(request: pytest.FixtureRequest, any_database: Database, command: Command) -> Iterator[tuple[Memory, Memory]]:
    """Two Memories of one isolation with rows, on each version in turn."""
    pair = memory_of(any_database, request.param, 0), memory_of(any_database, request.param, 1)
    for memory in pair:
        assert command.provision(memory).code == 0
        fill(memory)
    yield pair
    with any_database.superuser() as connection:
        for memory in pair:
            name = sql.Identifier(memory.prefix)
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


def fill(memory: Memory) -> None:
    with memory.connect() as connection:
        for number in range(3):
            connection.execute("SELECT memory_put(%s, %s, '1')", [memory.dataset, f"k{number}"])
            connection.execute("SELECT memory_append(%s, 'said', '{}', %s)", [memory.dataset, f"e{number}"])
            connection.execute("SELECT memory_upsert_embedding(%s, %s, '[1,2,3]')", [memory.dataset, f"v{number}"])


def home_of(memory: Memory) -> Home:
    request = parse(memory.document(), ProvisionRequest)
    return Home(request.home, request.identity, request.provider.isolation, memory.schema, memory.dataset)


def drop(memory: Memory) -> None:
    login = memory.database.server.admin
    request = parse(memory.document(), ProvisionRequest)
    admin = Admin(request.provider, login.username, login.password, None)
    with admin.connect() as connection:
        drop_home(connection, admin, home_of(memory), Deadline.of_job(20))


def roles(memory: Memory) -> list[str]:
    with memory.database.superuser() as connection:
        query = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s) ORDER BY 1"
        return [row[0] for row in connection.execute(query, [memory.prefix]).fetchall()]


def ledger(memory: Memory) -> list[str]:
    with memory.database.connect() as connection:
        query = "SELECT identity FROM memory_ledger.homes ORDER BY 1"
        return [row[0] for row in connection.execute(query).fetchall()]


def status(memory: Memory) -> object:
    with memory.connect() as connection:
        query = "SELECT events, keys, embeddings FROM memory_status(%s)"
        return connection.execute(query, [memory.dataset]).fetchone()


def test_everything_of_one_goes_and_nothing_of_the_other(pair: tuple[Memory, Memory], command: Command) -> None:
    gone, stays = pair
    before = roles(stays)
    drop(gone)
    assert roles(gone) == []
    assert ledger(gone) == [stays.identity]
    assert roles(stays) == before
    assert status(stays) == (3, 3, 3)
    answer = command.provision(stays)
    assert answer.code == 0
    drop(gone)
    assert ledger(gone) == [stays.identity], "what is gone may be dropped again"
    again = gone.but(uid="uid-2", password="second-password")
    assert command.provision(again).code == 0, "the place is free"
    assert status(again) == (0, 0, 0)


def test_after_the_last_nothing_is_left(pair: tuple[Memory, Memory]) -> None:
    for memory in pair:
        drop(memory)
    with pair[0].database.superuser() as connection:
        owner = names_of(parse(pair[0].document(), ProvisionRequest)).owner
        owners = connection.execute("SELECT rolname FROM pg_roles WHERE rolname = %s", [owner]).fetchall()
        schemas = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
        ).fetchall()
        databases = connection.execute(
            "SELECT datname FROM pg_database WHERE datname = ANY(%s)", [[memory.prefix for memory in pair]]
        ).fetchall()
        rights = connection.execute("SELECT count(*) FROM pg_default_acl").fetchone()
    assert sorted(schemas) == [("memory_ledger",), ("public",)]
    assert (owners, databases, rights) == ([], [], (0,))
    assert ledger(pair[0]) == []


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_closed_logins_are_refused_and_rows_kept(database: Database, command: Command, isolation: str) -> None:
    memory = memory_of(database, isolation)
    assert command.provision(memory).code == 0
    fill(memory)
    session = memory.connect()
    with database.connect() as connection:
        close_logins(connection, home_of(memory), Deadline.of_job(20))
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    for login in (memory.writer, memory.reader):
        with pytest.raises(psycopg.OperationalError, match="is not permitted to log in"):
            memory.home.connect(login)
    assert command.provision(memory).code == 0
    assert status(memory) == (3, 3, 3)
    drop(memory)


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("what", ["a row", "the dataset"])
def test_what_is_on_hold_is_not_dropped(database: Database, command: Command, isolation: str, what: str) -> None:
    memory = memory_of(database, isolation)
    held = memory.but(extra={"legalHold": what == "the dataset"})
    assert command.provision(held).code == 0
    fill(memory)
    if what == "a row":
        with memory.connect() as connection:
            connection.execute("UPDATE memory_events SET hold = true WHERE dataset = %s", [memory.dataset])
    with pytest.raises(CommandError, match="has rows on hold in memory_") as caught:
        drop(memory)
    assert caught.value.code is Code.ON_HOLD
    assert ledger(memory) == [memory.identity]
    assert command.provision(held).code == 0
    assert status(memory) == (3, 3, 3)
    if what == "a row":
        with memory.connect() as connection:
            connection.execute("UPDATE memory_events SET hold = false WHERE dataset = %s", [memory.dataset])
    assert command.provision(memory).code == 0
    drop(memory)
    assert roles(memory) == []


def test_rows_of_a_dataset_go_in_batches(database: Database, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migrations.postgres.drop.BATCH", 2)
    gone, stays = memory_of(database, "Dataset", 0), memory_of(database, "Dataset", 1)
    for memory in (gone, stays):
        assert command.provision(memory).code == 0
        fill(memory)
    drop(gone)
    with database.superuser() as connection:
        for table in ("events", "event_ids", "kv", "embeddings", "datasets"):
            rows = connection.execute(f"SELECT DISTINCT dataset FROM shared.memory_{table}".encode()).fetchall()
            assert rows == [(stays.dataset,)], table
    assert status(stays) == (3, 3, 3)


class KilledError(Exception):
    """Stands for SIGKILL between two transactions."""


@pytest.mark.long
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_drop_that_is_killed_between_any_two_transactions_is_gone_on_with(
    database: Database, command: Command, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    gone, stays = memory_of(database, isolation, 0), memory_of(database, isolation, 1)
    for memory in (gone, stays):
        assert command.provision(memory).code == 0
        fill(memory)
    left = 0

    def counted(connection: Connection, deadline: Deadline, work: Callable[[], object]) -> object:
        nonlocal left
        if left == 0:
            raise KilledError
        left -= 1
        return retrying(connection, deadline, work)

    monkeypatch.setattr("migrations.postgres.drop.retrying", counted)
    for transactions in range(100):
        left = transactions
        try:
            drop(gone)
        except KilledError:
            continue
        break
    assert transactions > 3
    assert (roles(gone), ledger(gone)) == ([], [stays.identity])
    assert status(stays) == (3, 3, 3)
    monkeypatch.undo()
    drop(stays)


def test_a_schema_that_somebody_else_made_since_stays(database: Database, command: Command) -> None:
    memory = memory_of(database, "Schema")
    assert command.provision(memory).code == 0
    with database.superuser() as connection:
        connection.execute("DROP SCHEMA notes_0 CASCADE; CREATE SCHEMA notes_0; CREATE TABLE notes_0.theirs (a int)")
        with pytest.raises(CommandError, match='schema "notes_0" was not made for the Memory "team-0/notes"') as caught:
            drop(memory)
        assert caught.value.code is Code.SCHEMA_CONFLICT
        assert connection.execute("SELECT to_regclass('notes_0.theirs')::text").fetchone() == ("notes_0.theirs",)
        connection.execute("DROP SCHEMA notes_0 CASCADE")
    drop(memory)


def test_a_database_that_somebody_else_made_since_stays(database: Database, command: Command) -> None:
    memory = memory_of(database, "Database")
    assert command.provision(memory).code == 0
    name = sql.Identifier(memory.prefix)
    with database.superuser() as connection:
        connection.execute(sql.SQL("DROP DATABASE {}").format(name))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        with pytest.raises(CommandError, match="exists on this server and was not made for this Memory"):
            drop(memory)
        query = "SELECT count(*) FROM pg_database WHERE datname = %s"
        assert connection.execute(query, [memory.prefix]).fetchone() == (1,)
        connection.execute(sql.SQL("DROP DATABASE {}").format(name))
    drop(memory)
    assert roles(memory) == []


def test_a_row_that_is_put_on_hold_meanwhile_stays(
    database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, stays = memory_of(database, "Dataset", 0), memory_of(database, "Dataset", 1)
    for memory in (gone, stays):
        assert command.provision(memory).code == 0
        fill(memory)

    def looked_too_early(*_: object) -> None:
        with database.superuser() as connection:
            connection.execute("UPDATE shared.memory_events SET hold = true WHERE dataset = 'notes-0'")

    monkeypatch.setattr("migrations.postgres.drop._check_holds", looked_too_early)
    with pytest.raises(CommandError, match="it is on hold in dataset 'notes-0': release the hold first") as caught:
        drop(gone)
    assert caught.value.code is Code.ON_HOLD
    with database.superuser() as connection:
        query = "SELECT count(*) FROM shared.memory_events WHERE dataset = 'notes-0'"
        assert connection.execute(query).fetchone() == (3,)
