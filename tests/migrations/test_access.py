"""Roles of others that share a Memory's rights: tried as their members, on every version."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors, sql

from memoryctl.embedded import Login
from tests.migrations.documents import Command, Memory
from tests.postgres import Connection, Database

ROLES = ("analysts", "etl", "payroll")


@pytest.fixture
def home(any_database: Database, command: Command) -> Iterator[Memory]:
    """A provisioned Memory with a row, and a platform team's groups, each with one user."""
    memory = Memory(any_database)
    with any_database.superuser() as connection:
        for role in ROLES:
            connection.execute(
                sql.SQL("CREATE ROLE {role} NOLOGIN; CREATE ROLE {user} LOGIN PASSWORD 'theirs' IN ROLE {role}").format(
                    role=sql.Identifier(role), user=sql.Identifier(f"{role}_user")
                )
            )
    try:
        assert command.provision(memory).code == 0
        with memory.connect() as connection:
            connection.execute("SELECT memory_put('notes', 'k', '1')")
        yield memory
    finally:
        with any_database.superuser() as connection:
            for role in ROLES:
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(f"{role}_user")))
                connection.execute(sql.SQL("DROP OWNED BY {role}; DROP ROLE {role}").format(role=sql.Identifier(role)))


def asking(memory: Memory, reader: str | None = None, writer: str | None = None) -> Memory:
    return memory.but(extra={"access": {"readerRole": reader, "writerRole": writer}})


def user(memory: Memory, role: str) -> Connection:
    return memory.database.connect(Login(f"{role}_user", "theirs"))


READ = "SELECT value FROM notes.memory_get('notes', 'k')"
WRITE = "SELECT notes.memory_put('notes', 'k', '2')"


def test_reader_role_reads_and_does_not_write(home: Memory, command: Command) -> None:
    assert command.provision(asking(home, reader="analysts")).code == 0
    with user(home, "analysts") as connection:
        assert connection.execute(READ).fetchone() == (1,)
        for refused in (WRITE, "DELETE FROM notes.memory_kv", "SELECT * FROM memory_ledger.homes"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(refused)


def test_writer_role_reads_and_writes_and_makes_nothing(home: Memory, command: Command) -> None:
    assert command.provision(asking(home, writer="etl")).code == 0
    with user(home, "etl") as connection:
        connection.execute(WRITE)
        assert connection.execute(READ).fetchone() == (2,)
        for refused in ("CREATE TABLE notes.mine (a int)", "TRUNCATE notes.memory_kv"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(refused)


def test_nobody_else_reads(home: Memory, command: Command) -> None:
    assert command.provision(asking(home, reader="analysts", writer="etl")).code == 0
    with user(home, "payroll") as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(READ)


@pytest.mark.parametrize(("field", "group"), [("reader", "reader"), ("writer", "writer")])
def test_membership_gives_rights_and_never_the_role_itself(
    home: Memory, command: Command, field: str, group: str
) -> None:
    assert command.provision(asking(home, **{field: "analysts"})).code == 0
    with user(home, "analysts") as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(f"{home.prefix}_{group}")))


def test_a_role_that_is_not_named_any_more_loses_it(home: Memory, command: Command) -> None:
    assert command.provision(asking(home, reader="analysts", writer="etl")).code == 0
    assert command.provision(asking(home, reader="payroll")).code == 0
    with user(home, "payroll") as connection:
        assert connection.execute(READ).fetchone() == (1,)
    for role in ("analysts", "etl"):
        with user(home, role) as connection, pytest.raises(errors.InsufficientPrivilege):
            connection.execute(READ)
    assert command.provision(home).code == 0
    with user(home, "payroll") as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(READ)


def test_what_the_platform_team_granted_itself_stays(home: Memory, command: Command) -> None:
    """Ours are those that the ledger notes, whoever's login made them."""
    with home.database.connect() as admin:
        admin.execute(sql.SQL("GRANT {} TO payroll").format(sql.Identifier(f"{home.prefix}_reader")))
    assert command.provision(asking(home, reader="analysts")).code == 0
    assert command.provision(home).code == 0
    with user(home, "payroll") as connection:
        assert connection.execute(READ).fetchone() == (1,)


def test_a_role_that_was_dropped_meanwhile_is_nothing_to_take_away(home: Memory, command: Command) -> None:
    assert command.provision(asking(home, reader="analysts")).code == 0
    with home.database.superuser() as connection:
        connection.execute("DROP ROLE analysts_user; DROP ROLE analysts")
        assert command.provision(home).code == 0
        connection.execute("CREATE ROLE analysts; CREATE ROLE analysts_user")


def test_asked_again_nothing_is_done(home: Memory, command: Command) -> None:
    asked = asking(home, reader="analysts", writer="etl")
    assert command.provision(asked).code == 0
    with home.database.superuser() as connection:
        query = "SELECT oid, roleid, member, grantor, admin_option, inherit_option, set_option FROM pg_auth_members"
        before = connection.execute(f"{query} ORDER BY 1").fetchall()
        assert command.provision(asked).code == 0
        assert connection.execute(f"{query} ORDER BY 1").fetchall() == before


def refused(home: Memory, command: Command, role: str) -> tuple[int, str]:
    """Code and sentence for a reader role; nothing is granted, and the Memory goes on."""
    answer = command.provision(asking(home, reader=role))
    with home.database.superuser() as connection:
        granted = connection.execute(
            "SELECT count(*) FROM pg_auth_members WHERE roleid = %s::regrole AND member <> %s::regrole",
            [f"{home.prefix}_reader", f"{home.prefix}_writer"],
        ).fetchone()
    # Both reader logins, and the admin by CREATE ROLE.
    assert granted == (3,)
    home.connect().close()
    return answer.code, answer.message


def test_a_role_that_does_not_exist_is_refused(home: Memory, command: Command) -> None:
    assert refused(home, command, "nobody") == (
        13,
        (
            'access.readerRole: there is no role "nobody" on the server: leave it out, or ask the platform team to run '
            'CREATE ROLE "nobody" NOLOGIN; and then change the annotation memory.proompteng.ai/retry'
        ),
    )


def test_a_login_is_refused(home: Memory, command: Command) -> None:
    assert refused(home, command, "payroll_user") == (
        13,
        (
            'access.readerRole: role "payroll_user" is LOGIN, and only a group may share a Memory\'s rights: '
            "name a group that its users are members of, or ask the platform team to run "
            'ALTER ROLE "payroll_user" NOLOGIN;'
        ),
    )


@pytest.mark.parametrize("power", ["SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS"])
def test_a_role_with_powers_is_refused(home: Memory, command: Command, power: str) -> None:
    with home.database.superuser() as connection:
        connection.execute(f"ALTER ROLE payroll {power}")
    code, sentence = refused(home, command, "payroll")
    assert code == 13
    assert f'role "payroll" is {power}, and only a group' in sentence
    assert f"NO{power};" in sentence


def test_a_role_of_another_memory_is_refused(home: Memory, command: Command) -> None:
    other = home.but(identity="team-b/other", schema="other")
    assert command.provision(other).code == 0
    code, sentence = refused(home, command, f"{other.prefix}_writer")
    assert code == 20
    assert "is PostgreSQL's own or that of a Memory: name a group of the platform team's" in sentence


@pytest.mark.parametrize("role", ["pg_read_all_data", "mem_0123456789ab_reader"])
def test_reserved_names_are_refused(home: Memory, command: Command, role: str) -> None:
    assert refused(home, command, role)[0] == 20


def test_a_memorys_role_under_another_name_is_refused(home: Memory, command: Command) -> None:
    """Its stamp says what it is."""
    with home.database.superuser() as connection:
        connection.execute("COMMENT ON ROLE payroll IS 'memory:0123'")
    assert refused(home, command, "payroll")[0] == 20


def test_the_admin_is_refused(home: Memory, command: Command) -> None:
    code, sentence = refused(home, command, home.database.server.admin.username)
    assert code == 20
    assert "is the provider's admin" in sentence


def test_a_refused_role_enters_nothing(any_database: Database, command: Command) -> None:
    memory = asking(Memory(any_database), writer="nobody")
    answer = command.provision(memory)
    assert (answer.code, answer.report["reason"]) == (13, "PermissionDenied")
    assert answer.message.startswith("access.writerRole: ")
    with any_database.superuser() as connection:
        assert connection.execute("SELECT to_regclass('memory_ledger.homes')").fetchone() == (None,)
        found = connection.execute("SELECT FROM pg_roles WHERE starts_with(rolname, %s)", [memory.prefix]).fetchall()
        assert found == []
    with pytest.raises(psycopg.OperationalError):
        memory.connect()
