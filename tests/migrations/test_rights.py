"""What a writer, a reader and everybody else may do in a home: tried, as each of them, on every version."""

from collections.abc import Callable

import psycopg
import pytest
from psycopg import errors, sql

from tests.migrations.documents import Command, Memory
from tests.postgres import Connection, Database


@pytest.fixture
def home(any_database: Database, command: Command) -> Memory:
    """A provisioned Memory with a read-only login, beside another one in the same database."""
    memory = Memory(any_database, reader_password="reader-password")
    other = Memory(any_database, identity="team-b/secrets", schema="secrets", dataset="secrets", password="theirs")
    assert command.provision(memory).code == 0
    assert command.provision(other).code == 0
    with other.connect() as connection:
        connection.execute("SELECT memory_put('secrets', 'k', '1')")
    with memory.connect() as connection:
        connection.execute("SELECT memory_put('notes', 'k', '1')")
        connection.execute("SELECT memory_append('notes', 'said', '{}')")
        connection.execute("SELECT memory_upsert_embedding('notes', 'a', '[1,2,3]', 'words')")
    return memory


DENIED_TO_BOTH = {
    "make a table in the home": "CREATE TABLE notes.mine (a int)",
    "make a function in the home": "CREATE FUNCTION notes.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "make a schema": "CREATE SCHEMA mine",
    "change a table": "ALTER TABLE notes.memory_kv ADD COLUMN a int",
    "drop a table": "DROP TABLE notes.memory_kv",
    "make an index": "CREATE INDEX ON notes.memory_kv (updated_at)",
    "truncate": "TRUNCATE notes.memory_kv",
    "replace a function": (
        "CREATE OR REPLACE FUNCTION notes.memory_get(p_dataset text, p_key text) RETURNS TABLE "
        "(value jsonb, version bigint, updated_at timestamptz) LANGUAGE sql AS 'SELECT null, 1, now()'"
    ),
    "hand out rights": "ALTER SCHEMA notes RENAME TO ours",
    "read the history": "SELECT * FROM notes.memory_migrations",
    "write the history": "DELETE FROM notes.memory_migrations",
    "lift a hold": "UPDATE notes.memory_datasets SET legal_hold = false",
    "drop the registry": "DELETE FROM notes.memory_datasets",
    "read another Memory": "SELECT * FROM secrets.memory_kv",
    "call another Memory's functions": "SELECT * FROM secrets.memory_get('secrets', 'k')",
    "read the ledger": "SELECT * FROM memory_ledger.homes",
    "move the extension": "ALTER EXTENSION vector SET SCHEMA notes",
    "make a role": "CREATE ROLE mine",
    "see passwords": "SELECT rolpassword FROM pg_authid",
    "read files": "SELECT pg_read_file('postgresql.conf')",
}

DENIED_TO_THE_READER = {
    "insert": "INSERT INTO notes.memory_kv (dataset, key, value) VALUES ('notes', 'x', '1')",
    "update": "UPDATE notes.memory_kv SET value = '2'",
    "delete": "DELETE FROM notes.memory_kv",
    "append": "SELECT memory_append('notes', 'said', '{}')",
    "put": "SELECT memory_put('notes', 'k', '2')",
    "remove": "SELECT memory_delete('notes', 'k')",
    "upsert": "SELECT memory_upsert_embedding('notes', 'a', '[1,2,3]')",
    "remove an embedding": "SELECT memory_delete_embedding('notes', 'a')",
    "lock against writers": "DO $$ BEGIN LOCK TABLE notes.memory_kv IN EXCLUSIVE MODE; END $$",
}


def _denied(connection: Connection, statements: dict[str, str]) -> dict[str, str]:
    """Tries each statement, and gives those that were not refused for lack of rights."""
    allowed = {}
    for what, statement in statements.items():
        try:
            connection.execute(statement.encode())
            allowed[what] = "was done"
        except errors.InsufficientPrivilege:
            pass
        except psycopg.Error as error:
            allowed[what] = str(error)
    return allowed


def test_writer_is_no_owner(home: Memory) -> None:
    with home.connect() as connection:
        assert _denied(connection, DENIED_TO_BOTH) == {}


def test_reader_cannot_write(home: Memory) -> None:
    with home.database.connect(home.reader) as connection:
        assert _denied(connection, {**DENIED_TO_BOTH, **DENIED_TO_THE_READER}) == {}


def test_reader_reads(home: Memory) -> None:
    with home.database.connect(home.reader) as connection:
        for statement in (
            b"SELECT * FROM memory_read('notes')",
            b"SELECT * FROM memory_get('notes', 'k')",
            b"SELECT * FROM memory_search('notes', '[1,2,3]')",
            b"SELECT * FROM memory_search('notes', p_query => 'words')",
            b"SELECT * FROM memory_status('notes')",
            b"SELECT * FROM memory_embeddings",
            b"SELECT * FROM memory_datasets",
        ):
            assert connection.execute(statement).fetchall(), statement


@pytest.mark.parametrize("login", [lambda home: home.writer, lambda home: home.reader], ids=["writer", "reader"])
def test_login_becomes_no_other_role(home: Memory, login: Callable[[Memory], object]) -> None:
    with home.database.connect(login(home)) as connection:  # type: ignore[arg-type]  # the lambdas give logins
        rows = connection.execute("SELECT rolname FROM pg_roles WHERE rolname <> current_user").fetchall()
        assert len(rows) > 14
        for (role,) in rows:
            for statement in ("SET ROLE {}", "SET SESSION AUTHORIZATION {}"):
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(sql.SQL(statement).format(sql.Identifier(role)))


def test_public_has_nothing_on_the_home(home: Memory) -> None:
    with home.database.superuser() as connection:
        connection.execute("DROP ROLE IF EXISTS stranger")
        connection.execute("CREATE ROLE stranger")
        try:
            rows = connection.execute(
                """
                SELECT 'schema' WHERE has_schema_privilege('stranger', 'notes', 'USAGE, CREATE')
                UNION ALL
                SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'notes'::regnamespace
                AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_any_column_privilege('stranger', c.oid,
                    'SELECT, INSERT, UPDATE, REFERENCES')
                UNION ALL
                SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'notes'::regnamespace
                AND c.relkind IN ('r', 'p') AND has_table_privilege('stranger', c.oid, 'DELETE, TRUNCATE, TRIGGER')
                UNION ALL
                SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'notes'::regnamespace
                AND has_function_privilege('stranger', p.oid, 'EXECUTE')
                """
            ).fetchall()
            assert rows == []
        finally:
            connection.execute("DROP ROLE stranger")


def test_what_the_owner_makes_later_has_the_same_rights(home: Memory) -> None:
    with home.database.connect() as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(f"{home.prefix}_owner")))
        connection.execute("CREATE TABLE notes.later (a int); CREATE FUNCTION notes.g() RETURNS int RETURN 1")
        connection.execute("RESET ROLE")
    with home.connect() as connection:
        connection.execute("INSERT INTO later VALUES (1)")
        assert connection.execute("SELECT g()").fetchone() == (1,)
        assert _denied(connection, {"truncate": "TRUNCATE notes.later"}) == {}
    with home.database.connect(home.reader) as connection:
        assert connection.execute("SELECT a FROM later").fetchone() == (1,)
        assert _denied(connection, {"insert": "INSERT INTO notes.later VALUES (2)", "call": "SELECT notes.g()"}) == {}


def test_rights_are_repaired(home: Memory, command: Command) -> None:
    with home.database.connect() as connection:
        owner, reader = sql.Identifier(f"{home.prefix}_owner"), sql.Identifier(f"{home.prefix}_reader")
        connection.execute(sql.SQL("SET ROLE {}").format(owner))
        connection.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA notes TO PUBLIC, {}").format(reader))
        connection.execute(sql.SQL("GRANT ALL ON SCHEMA notes TO PUBLIC, {}").format(reader))
        connection.execute(sql.SQL("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA notes TO PUBLIC, {}").format(reader))
        connection.execute("REVOKE SELECT ON notes.memory_datasets FROM PUBLIC")
        connection.execute("CREATE SEQUENCE notes.counter; GRANT ALL ON SEQUENCE notes.counter TO PUBLIC")
        connection.execute("RESET ROLE")
    assert all("on database" in line for line in command.provision(home).report["verify"])
    test_public_has_nothing_on_the_home(home)
    test_reader_cannot_write(home)


def test_owner_and_groups_are_no_logins(home: Memory) -> None:
    with home.database.superuser() as connection:
        rows = connection.execute(
            "SELECT rolname, rolcanlogin, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication"
            " FROM pg_roles WHERE starts_with(rolname, %s) ORDER BY 1",
            [home.prefix],
        ).fetchall()
    kinds = [(name.removeprefix(home.prefix), login, more) for name, login, more in rows]
    assert kinds == [
        ("_owner", False, False),
        ("_reader", False, False),
        ("_ro_a", True, False),
        ("_ro_b", False, False),
        ("_rw_a", True, False),
        ("_rw_b", False, False),
        ("_writer", False, False),
    ]


def test_comments_name_no_tenant(home: Memory) -> None:
    with home.connect() as connection:
        rows = connection.execute("SELECT description FROM pg_description").fetchall()
        roles = connection.execute("SELECT description FROM pg_shdescription WHERE description ~ '^memory:'").fetchall()
    assert len(roles) >= 7
    comments = [text for (text,) in rows + roles]
    assert [text for (text,) in rows if text.startswith("memory:")]
    assert not [text for text in comments if home.identity in text or home.uid in text]
