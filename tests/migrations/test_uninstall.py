"""The SQL of docs/install.md for what an uninstallation leaves in a database."""

import re
from pathlib import Path

import psycopg
import pytest

from tests.migrations.documents import Command, Memory
from tests.postgres import Connection, Database

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
    for line in script.splitlines():
        rows = connection.execute(line.removesuffix("\\gexec").encode())
        if line.endswith("\\gexec"):
            for (statement,) in rows.fetchall():
                connection.execute(statement)


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


def test_nothing_is_left_when_it_is_removed_for_good(memories: tuple[Memory, Memory]) -> None:
    with memories[0].database.superuser() as superuser:
        run(superuser, REMOVE)
        roles = superuser.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'mem\\_%'").fetchall()
        schemas = superuser.execute("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'").fetchall()
    assert roles == []
    assert {name for (name,) in schemas} == {"public", "information_schema"}
