"""Roles that bear a Memory's names and are not its own: names hold 48 bits of a hash of what a tenant chooses."""

from collections.abc import Callable

import psycopg
import pytest
from psycopg import sql

from migrations.postgres import names as names_module
from migrations.postgres.names import names_of
from migrations.postgres.request import ProvisionRequest
from migrations.request import parse
from tests.migrations import documents
from tests.migrations.documents import Command, Memory
from tests.migrations.snapshot import snapshot
from tests.postgres import Connection, Postgres

PREFIX = "mem_0123456789ab"

Rows = list[tuple[object, ...]]


@pytest.fixture
def equal_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives every Memory the same names, as if somebody had found such an identity; stamps stay what they are."""
    digest = names_module._hash

    def forced(*parts: str) -> str:
        return PREFIX.removeprefix("mem_") if len(parts) == 2 else digest(*parts)

    monkeypatch.setattr(names_module, "_hash", forced)
    monkeypatch.setattr(documents, "prefix", lambda *_: PREFIX)


def _roles(connection: Connection, prefix: str) -> Rows:
    """Everything about the roles, verifiers and memberships included."""
    query = """
        SELECT a.*, shobj_description(a.oid, 'pg_authid'),
               (SELECT array_agg(m::text ORDER BY m::text) FROM pg_auth_members m WHERE a.oid IN (m.roleid, m.member)),
               (SELECT array_agg(s::text ORDER BY s::text) FROM pg_db_role_setting s WHERE s.setrole = a.oid)
        FROM pg_authid a WHERE starts_with(a.rolname, %s) ORDER BY a.rolname
    """
    return connection.execute(query, [prefix]).fetchall()


def _drop_roles(connection: Connection, prefix: str) -> None:
    for (role,) in connection.execute(
        "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", [prefix]
    ).fetchall():
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


@pytest.mark.usefixtures("equal_prefixes")
@pytest.mark.parametrize("elsewhere", [False, True], ids=["the same database", "another database of the server"])
def test_equal_names_give_no_login_of_the_other_memory(
    memory: Memory, postgres18: Postgres, command: Command, elsewhere: bool
) -> None:
    assert command.provision(memory).code == 0
    with memory.database.superuser() as connection, postgres18.database() as second:
        before, catalog = _roles(connection, PREFIX), snapshot(memory)
        thief = Memory(
            second if elsewhere else memory.database,
            identity="team-b/brute-forced",
            uid="uid-9",
            schema="theirs",
            password="theirs",
            adopt=True,
            policy="Allow",
        )
        assert thief.prefix == memory.prefix
        answer = command.provision(thief)
        assert (answer.code, answer.report["reason"]) == (14, "SchemaConflict")
        assert answer.message == (
            f'role "{PREFIX}_owner" exists on this server and was not made for this Memory: give the claim another '
            "name (its roles' names are a hash of it), or ask the platform team to drop the role if nobody uses it"
        )
        assert _roles(connection, PREFIX) == before
        assert snapshot(memory) == catalog
        memory.connect().close()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            thief.but(database=memory.database).connect()
        with second.superuser() as other:
            assert other.execute("SELECT to_regclass('memory_ledger.homes')").fetchone() == (None,)
        assert command.provision(memory).code == 0
        connection.execute("DROP SCHEMA notes, memory_ledger CASCADE")
        _drop_roles(connection, PREFIX)


def _stamp(memory: Memory) -> str:
    return names_of(parse(memory.document(), ProvisionRequest)).role_stamp


@pytest.mark.parametrize(
    ("made_by", "comment"),
    [
        pytest.param("admin", None, id="ours makes stamp and role in one transaction, so no run of ours left it"),
        pytest.param("admin", lambda memory: _stamp(memory.but(identity="team-b/notes")), id="another identity's"),
        pytest.param("superuser", None, id="not administered by the admin, and the sentence hands it over to nobody"),
    ],
)
@pytest.mark.parametrize("suffix", ["owner", "reader", "rw_b"])
def test_role_without_our_stamp_is_a_conflict(
    memory: Memory, command: Command, made_by: str, comment: Callable[[Memory], str] | None, suffix: str
) -> None:
    role = sql.Identifier(f"{memory.prefix}_{suffix}")
    maker = memory.database.connect() if made_by == "admin" else memory.database.superuser()
    with maker, memory.database.superuser() as connection:
        maker.execute(sql.SQL("CREATE ROLE {}").format(role))
        if comment:
            maker.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(role, sql.Literal(comment(memory))))
        before = _roles(connection, memory.prefix)
        answer = command.provision(memory)
        assert (answer.code, answer.report["reason"]) == (14, "SchemaConflict")
        assert answer.message.startswith(f'role "{memory.prefix}_{suffix}" exists on this server and was not made for')
        assert "GRANT" not in answer.message
        assert _roles(connection, memory.prefix) == before
        assert connection.execute("SELECT to_regclass('memory_ledger.homes')").fetchone() == (None,)
        _drop_roles(connection, memory.prefix)
    assert command.provision(memory).code == 0, "the names are free again"


def test_every_role_carries_the_stamp_and_it_is_not_the_name(memory: Memory, command: Command) -> None:
    assert command.provision(memory).code == 0
    with memory.database.superuser() as connection:
        rows = connection.execute(
            "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE starts_with(rolname, %s)", [memory.prefix]
        ).fetchall()
    assert rows == [(_stamp(memory),)] * 7
    assert memory.prefix.removeprefix("mem_") not in _stamp(memory)


def test_run_that_changes_nothing_makes_no_role_statement(
    memory: Memory, command: Command, postgres18: Postgres
) -> None:
    logs = []
    for _ in range(2):
        before = len(postgres18.statements())
        assert command.provision(memory).code == 0
        logs.append(postgres18.statements()[before:])
    for statement in ('CREATE ROLE "mem_', 'COMMENT ON ROLE "mem_', 'GRANT "mem_'):
        assert [statement in log for log in logs] == [True, False], statement
    assert logs[1].count("shobj_description") == 2, "once before the ledger, once before the roles"
