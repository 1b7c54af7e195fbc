"""The SQL of docs/install.md for what an uninstallation leaves in a database."""

import re
from pathlib import Path

import psycopg
import pytest

from tests.migrations.documents import Command, Memory
from tests.postgres import Connection, Database, Postgres

GUIDE = (Path(__file__).parents[2] / "docs" / "install.md").read_text()
CLOSE, REMOVE = re.findall(r"```sql\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture
def memories(memory: Memory, command: Command) -> tuple[Memory, Memory]:
    """Two of one database, one of them with a reader."""
    other = memory.but(identity="team-b/other", schema="other", reader_password="reads")
    for each in (memory, other):
        assert command.provision(each).code == 0
        each.connect().close()
    return memory, other


def run(connection: Connection, script: str) -> None:
    r"""Run statements as psql does, of which `\gexec` executes what it gives."""
    for statement, end in re.findall(r"(.*?)(;|\\gexec)\n", script, re.DOTALL):
        rows = connection.execute(statement)
        if end == "\\gexec":
            for (given,) in rows.fetchall():
                connection.execute(given)


def close(database: Database) -> None:
    with database.connect() as admin:
        run(admin, CLOSE)


def test_logins_are_closed_by_the_admin(memories: tuple[Memory, Memory]) -> None:
    close(memories[0].database)
    for login in (memories[0].writer, memories[1].writer, memories[1].reader):
        with pytest.raises(psycopg.OperationalError, match="is not permitted to log in"):
            memories[0].database.connect(login)


def test_closed_logins_are_opened_by_the_next_job(memories: tuple[Memory, Memory], command: Command) -> None:
    """And the data is there."""
    close(memories[0].database)
    assert command.provision(memories[1]).code == 0
    memories[1].connect().close()


def left(*memories: Memory) -> tuple[set[str], set[str]]:
    """What is there of Memories of one database: prefixes of their roles, and schemas of anybody's."""
    with memories[0].database.superuser() as superuser:
        roles = superuser.execute("SELECT left(rolname, 16) FROM pg_roles").fetchall()
        schemas = superuser.execute("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'").fetchall()
    prefixes = {name for (name,) in roles} & {memory.prefix for memory in memories}
    return prefixes, {name for (name,) in schemas} - {"public", "information_schema"}


def test_nothing_is_left_when_it_is_removed_for_good(memories: tuple[Memory, Memory]) -> None:
    with memories[0].database.superuser() as superuser:
        run(superuser, REMOVE)
    assert left(*memories) == (set(), set())


def test_one_claims_data_can_be_removed_alone(memories: tuple[Memory, Memory]) -> None:
    kept, removed = memories
    all_but_last, _, last = REMOVE.rstrip().rpartition("\n")
    assert last == "DROP SCHEMA memory_ledger CASCADE;"
    script = all_but_last.replace(";", f" WHERE homes.identity = '{removed.identity}';", 1) + "\n"
    with kept.database.superuser() as superuser:
        run(superuser, script + f"DELETE FROM memory_ledger.homes WHERE identity = '{removed.identity}';\n")
    assert left(kept, removed) == ({kept.prefix}, {kept.schema, "memory_ledger"})
    kept.connect().close()


def test_memories_of_another_database_are_left_alone(
    memories: tuple[Memory, Memory], postgres18: Postgres, command: Command
) -> None:
    """Roles are those of the whole server, and it may serve others."""
    with postgres18.database() as database:
        other = memories[0].but(database=database)
        assert command.provision(other).code == 0
        with memories[0].database.superuser() as superuser:
            run(superuser, CLOSE)
            run(superuser, REMOVE)
        other.connect().close()
        with database.superuser() as superuser:
            run(superuser, REMOVE)
