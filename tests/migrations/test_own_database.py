"""Isolation Database with role management SQL: each Memory has a database of its own."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql

from memoryctl.embedded import Login
from tests.migrations.documents import Command, Memory, verifier
from tests.postgres import Connection, Database

EIGHT = 8
OWN = {"isolation": "Database"}


@contextmanager
def gone_afterwards(*memories: Memory) -> Iterator[None]:
    """Drops what the Memories have beside the provider's database, which the fixture drops."""
    try:
        yield
    finally:
        with memories[0].database.superuser() as connection:
            for memory in memories:
                name = sql.Identifier(memory.prefix)
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


@pytest.fixture
def memory(any_database: Database) -> Iterator[Memory]:
    """A Memory on each version in turn."""
    memory = Memory(any_database, provider=OWN, reader_password="reader-password")
    with gone_afterwards(memory):
        yield memory


@pytest.fixture
def memory18(database: Database) -> Iterator[Memory]:
    memory = Memory(database, provider=OWN)
    with gone_afterwards(memory):
        yield memory


def test_home_is_a_database_of_its_own(memory: Memory, command: Command) -> None:
    answer = command.provision(memory)
    assert (answer.code, answer.report["verify"]) == (0, []), answer
    with memory.connect() as connection:
        connection.execute("SELECT memory_put('notes', 'k', '1')")
        connection.execute("SELECT memory_upsert_embedding('notes', 'a', '[1,2,3]', 'some words')")
        assert connection.execute("SELECT current_database()").fetchone() == (memory.prefix,)
        found = connection.execute("SELECT key FROM memory_search('notes', '[1,2,3]')").fetchall()
        assert found == [("a",)]
    with memory.home.connect(memory.reader) as connection:
        assert connection.execute("SELECT count(*) FROM memory_kv").fetchone() == (1,)


def test_ledger_stands_in_the_providers_database(memory: Memory, command: Command) -> None:
    assert command.provision(memory).code == 0
    with memory.database.connect() as connection:
        rows = connection.execute(
            "SELECT home, identity, isolation, database, schema FROM memory_ledger.homes"
        ).fetchall()
        assert rows == [(f"database:{memory.prefix}", "team-a/notes", "Database", memory.prefix, "notes")]
        assert connection.execute("SELECT to_regnamespace('notes')").fetchone() == (None,)
    with memory.home.superuser() as connection:
        assert connection.execute("SELECT to_regnamespace('memory_ledger')").fetchone() == (None,)


def test_public_has_nothing_on_the_database(memory: Memory, command: Command) -> None:
    assert command.provision(memory).code == 0
    stranger = memory.but(identity="team-b/notes", schema="theirs")
    with gone_afterwards(stranger):
        assert command.provision(stranger).code == 0
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            memory.home.connect(stranger.writer)
        with memory.home.superuser() as connection:
            for right in ("CONNECT", "TEMPORARY", "CREATE"):
                query = "SELECT has_database_privilege('public', current_database(), %s)"
                assert connection.execute(query, [right]).fetchone() == (False,), right
            for right in ("USAGE", "CREATE"):
                query = "SELECT has_schema_privilege('public', 'public', %s)"
                assert connection.execute(query, [right]).fetchone() == (False,), right
        with memory.connect() as connection:
            for statement in ("CREATE TABLE public.mine (a int)", "CREATE TEMPORARY TABLE mine (a int)"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


def test_rights_taken_back_by_hand_are_repaired_and_told(memory18: Memory, command: Command) -> None:
    assert command.provision(memory18).code == 0
    with memory18.home.superuser() as connection:
        database = sql.Identifier(memory18.prefix)
        connection.execute(sql.SQL("GRANT ALL ON DATABASE {} TO PUBLIC").format(database))
        connection.execute("ALTER SCHEMA public OWNER TO postgres; GRANT USAGE ON SCHEMA public TO PUBLIC")
    found = command.provision(memory18).report["verify"]
    assert found == ["PUBLIC has USAGE on schema public"], "that one is not the owner's to take away"


def test_run_that_changes_nothing_is_quick(memory18: Memory, command: Command) -> None:
    assert command.provision(memory18).code == 0
    before = _databases(memory18)
    assert command.provision(memory18).code == 0
    assert _databases(memory18) == before


def _databases(memory: Memory) -> list[object]:
    with memory.database.superuser() as connection:
        query = "SELECT oid, datname, datdba, datacl, shobj_description(oid, 'pg_database') FROM pg_database ORDER BY 1"
        return list(connection.execute(query).fetchall())


@pytest.mark.long
def test_eight_memories_at_once_on_an_empty_server(any_database: Database, command: Command) -> None:
    memories = [
        Memory(any_database, identity=f"team-{number}/own", password=f"password-{number}", provider=OWN)
        for number in range(EIGHT)
    ]
    with gone_afterwards(*memories):
        _together(command, memories)
        for memory in memories:
            with memory.connect() as connection:
                connection.execute("SELECT memory_put('notes', 'k', '1')")


@pytest.mark.long
def test_the_same_memory_eight_times_at_once(memory: Memory, command: Command) -> None:
    _together(command, [memory] * EIGHT)
    memory.connect().close()


@pytest.mark.long
def test_template_that_somebody_uses_is_waited_for(memory18: Memory, command: Command) -> None:
    """CREATE DATABASE is refused (55006) while anybody is connected to its template."""
    template = dataclasses.replace(memory18.database, name="template1")
    with template.superuser() as busy:
        process = command.spawn(memory18)
        assert process.stderr
        for line in process.stderr:
            if json.loads(line).get("sqlstate") == "55006":
                break
        else:
            pytest.fail("it was never refused")
        busy.close()
        log = process.communicate()[1]
        assert process.returncode == 0, log


def _together(command: Command, memories: list[Memory]) -> None:
    processes = [command.spawn(memory) for memory in memories]
    logs = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(memories), "\n".join(logs)


STEPS = ["ledger", "roles", "database", "closed", "home", "extension", "migrations", "grants", "logins", "verify"]


@pytest.mark.long
@pytest.mark.parametrize("step", [*STEPS, "seal"])
def test_killed_at_a_step(memory18: Memory, command: Command, step: str) -> None:
    command.kill_at(memory18, step)
    answer = command.provision(memory18)
    assert (answer.code, answer.report["verify"]) == (0, [])
    memory18.connect().close()


@pytest.mark.parametrize(
    "left",
    [
        pytest.param("CREATE DATABASE {} OWNER {}", id="killed before the stamp"),
        pytest.param(
            "CREATE DATABASE {} OWNER {} ALLOW_CONNECTIONS false", id="closed by a drop that did not come to its end"
        ),
    ],
)
def test_database_that_was_left_half_made_is_gone_on_with(memory18: Memory, command: Command, left: str) -> None:
    assert command.provision(memory18).code == 0
    name, owner = sql.Identifier(memory18.prefix), sql.Identifier(f"{memory18.prefix}_owner")
    with memory18.database.superuser() as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL(left).format(name, owner))
    answer = command.provision(memory18)
    assert (answer.code, answer.report["verify"]) == (0, [])
    memory18.connect().close()


def test_database_of_somebody_else_is_a_conflict(memory18: Memory, command: Command) -> None:
    with memory18.database.superuser() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(memory18.prefix)))
        answer = command.provision(memory18.but(adopt=True, policy="Allow"))
        assert (answer.code, answer.report["reason"]) == (14, "SchemaConflict")
        assert answer.message.startswith(
            f'database "{memory18.prefix}" exists on this server and was not made for this Memory: give the claim'
        )
        assert connection.execute("SELECT to_regclass('memory_ledger.homes')").fetchone() == (None,)


def test_database_with_another_stamp_is_a_conflict(memory18: Memory, command: Command) -> None:
    assert command.provision(memory18).code == 0
    with memory18.database.superuser() as connection:
        name = sql.Identifier(memory18.prefix)
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS 'ours now'").format(name))
    assert command.provision(memory18).code == 14


def test_a_claim_made_again_needs_adopt(memory18: Memory, command: Command) -> None:
    assert command.provision(memory18).code == 0
    with memory18.connect() as old:
        old.execute("SELECT memory_put('notes', 'k', '\"mine\"')")
        again = memory18.but(uid="uid-2", password="second-password")
        answer = command.provision(again)
        assert (answer.code, answer.report["reason"]) == (15, "AdoptionRequired")
        assert answer.message.startswith(f'schema "notes" of database "{memory18.prefix}" holds the data of an earlier')
        assert command.provision(again.but(adopt=True)).code == 0
        with pytest.raises(psycopg.OperationalError):
            old.execute("SELECT 1")
    with again.connect() as connection:
        assert connection.execute("SELECT value FROM memory_get('notes', 'k')").fetchone() == ("mine",)


def test_a_claim_made_again_in_another_schema_is_a_conflict(memory18: Memory, command: Command) -> None:
    assert command.provision(memory18).code == 0
    answer = command.provision(memory18.but(schema="elsewhere", uid="uid-2", adopt=True))
    assert answer.code == 14
    assert 'was made with dataset.schema "notes", not "elsewhere"' in answer.message


@pytest.fixture
def bare_template(memory18: Memory) -> Iterator[Connection]:
    """template1 without pgvector, for as long as the test lasts; gives the superuser's session in the provider's."""
    template = dataclasses.replace(memory18.database, name="template1")
    with template.superuser() as connection:
        connection.execute("DROP EXTENSION vector")
    with memory18.database.superuser() as superuser:
        yield superuser
    with template.superuser() as connection:
        connection.execute("CREATE EXTENSION vector WITH SCHEMA public")


def test_missing_extension_names_the_database_and_heals(
    memory18: Memory, command: Command, bare_template: Connection
) -> None:
    assert bare_template
    answer = command.provision(memory18)
    assert (answer.code, answer.report["reason"]) == (10, "ExtensionMissing")
    assert answer.message.startswith(f'the extension vector is not installed in database "{memory18.prefix}" on ')
    assert answer.message.endswith(
        "as a superuser run in that database, and in template1 for the databases of Memories to come: "
        'CREATE EXTENSION vector WITH SCHEMA "public";'
    )
    with memory18.home.superuser() as superuser:
        superuser.execute(answer.message.rpartition(": ")[2].encode())
    assert command.provision(memory18).code == 0
    memory18.connect().close()


def test_admin_that_may_create_the_extension_does(
    memory18: Memory, command: Command, bare_template: Connection
) -> None:
    assert bare_template
    answer = command.run("provision", memory18.document(), memory18.database.server.superuser)
    assert answer.code == 0, answer
    with bare_template as connection:
        for role in ("rw_a", "rw_b", "ro_a", "ro_b", "writer", "reader", "owner"):
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(memory18.prefix))
            )
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(f"{memory18.prefix}_{role}")))


def test_embeddings_off_needs_no_extension(memory18: Memory, command: Command, bare_template: Connection) -> None:
    assert bare_template
    without = memory18.but(embeddings={"enabled": False})
    assert command.provision(without).code == 0
    without.connect().close()


@pytest.fixture
def poor(database: Database) -> Login:
    """An admin that is CREATEROLE and may create schemas, and no databases."""
    login = Login(f"poor_{database.name}_own", "poor-password")
    with database.superuser() as superuser:
        name = login.username
        superuser.execute(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD '{verifier(login.password)}'".encode())
        superuser.execute(f"GRANT CREATE ON DATABASE {database.name} TO {name}".encode())
    return login


def test_admin_without_createdb_is_told_the_sql(memory18: Memory, command: Command, poor: Login) -> None:
    answer = command.run("provision", memory18.document(), poor)
    assert (answer.code, answer.report["reason"]) == (13, "PermissionDenied")
    assert answer.message.endswith(f'as a superuser run: ALTER ROLE "{poor.username}" CREATEDB;')
    with memory18.database.superuser() as superuser:
        superuser.execute(answer.message.rpartition("run: ")[2].encode())
    assert command.run("provision", memory18.document(), poor).code == 0


def test_probe_tells_that_createdb_is_missing(memory18: Memory, command: Command, poor: Login) -> None:
    answer = command.run("probe", memory18.probe_document(), poor)
    assert (answer.report["code"], answer.report["reason"]) == (13, "PermissionDenied")
    assert "CREATEDB;" in answer.message
    assert "createdb" not in answer.report["server"]["capabilities"]
    in_schemas = memory18.but(provider={})
    assert command.run("probe", in_schemas.probe_document(), poor).report["code"] == 0
    assert "createdb" in command.probe(memory18).report["server"]["capabilities"]


def test_probe_looks_for_the_extension_where_databases_come_from(
    memory18: Memory, command: Command, bare_template: Connection
) -> None:
    assert bare_template
    answer = command.probe(memory18)
    assert (answer.report["code"], answer.report["reason"]) == (10, "ExtensionMissing")
    assert 'in database "template1"' in answer.message
    assert command.probe(memory18.but(provider={})).report["code"] == 0, "the provider's own database has it"
    assert command.probe(memory18.but(provider={**OWN, "enablePgVector": False})).report["code"] == 0


def test_database_that_is_not_the_memorys_is_refused(memory18: Memory, command: Command) -> None:
    for provider, database in ((OWN, memory18.database.name), (OWN, "mem_000000000000"), ({}, memory18.prefix)):
        document = {**memory18.but(provider=provider).document(), "database": database}
        answer = command.run("provision", document, memory18.database.server.admin)
        assert (answer.code, answer.report["reason"]) == (20, "BadRequest")
        assert f'database: "{database}" is not that of "team-a/notes" with isolation' in answer.message


def test_changed_isolation_moves_nothing(database: Database, command: Command) -> None:
    in_schema = Memory(database)
    assert command.provision(in_schema).code == 0
    answer = command.provision(in_schema.but(provider=OWN))
    assert (answer.code, answer.report["reason"]) == (14, "SchemaConflict")
    assert (
        'already has its home in schema "notes" (isolation Schema), not in schema "notes" of database' in answer.message
    )
    with database.superuser() as connection:
        assert connection.execute("SELECT FROM pg_database WHERE datname = %s", [in_schema.prefix]).fetchall() == []
