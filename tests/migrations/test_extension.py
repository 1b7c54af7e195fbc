"""pgvector is the platform team's to install: what they are told, and that the Memory heals when they have."""

import dataclasses

import pytest

from memoryctl.embedded import Login
from migrations.errors import Code, CommandError
from migrations.postgres import server
from migrations.postgres.connection import Admin
from migrations.postgres.request import ProvisionRequest
from migrations.request import parse
from tests.migrations.documents import Command, Memory, verifier
from tests.postgres import Database, Postgres


def test_missing_extension_is_10_and_heals(postgres: Postgres, command: Command) -> None:
    with postgres.database(vector=False) as database, database.superuser() as superuser:
        memory = Memory(database)
        answer = command.provision(memory)
        assert (answer.code, answer.report["reason"]) == (10, "ExtensionMissing")
        address = f"127.0.0.1:{database.server.port}"
        assert answer.message.startswith(
            f'the extension vector is not installed in database "{database.name}" on {address}, and "memory_admin" '
            "cannot create it ("
        )
        assert answer.message.endswith(
            "install pgvector 0.8 or later on the server, then as a superuser run in that database: "
            'CREATE EXTENSION vector WITH SCHEMA "public";'
        )
        superuser.execute(answer.message.rpartition(": ")[2].encode())
        assert command.provision(memory).code == 0
        memory.connect().close()


def test_sentence_makes_the_schema_too(postgres18: Postgres, command: Command) -> None:
    with postgres18.database(vector=False) as database, database.superuser() as superuser:
        memory = Memory(database, provider={"extensionSchema": "extensions"})
        statements = command.provision(memory).message.rpartition("database: ")[2]
        assert statements == (
            'CREATE SCHEMA IF NOT EXISTS "extensions"; CREATE EXTENSION vector WITH SCHEMA "extensions";'
        )
        superuser.execute(statements.encode())
        answer = command.provision(memory)
        assert answer.code == 13
        assert 'GRANT USAGE ON SCHEMA "extensions" TO PUBLIC;' in answer.message
        superuser.execute('GRANT USAGE ON SCHEMA "extensions" TO PUBLIC')
        assert command.provision(memory).code == 0
        with memory.connect() as connection:
            assert connection.execute("SHOW search_path").fetchone() == ("notes, extensions",)
            connection.execute("SELECT memory_upsert_embedding('notes', 'a', '[1,2,3]')")


def test_admin_that_may_create_it_does(postgres18: Postgres, command: Command) -> None:
    with postgres18.database(vector=False) as database:
        document = Memory(database).document()
        answer = command.run("provision", document, database.server.superuser)
        assert answer.code == 0
        assert "the admin is a superuser" in answer.report["warnings"][0]
        with database.superuser() as connection:
            row = connection.execute(
                "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'"
            ).fetchone()
            assert row == ("public",)


def _facts(database: Database, version: str) -> tuple[Admin, server.Facts]:
    request = parse(Memory(database).document(), ProvisionRequest)
    with database.connect() as connection:
        facts = server.read(connection)
    admin = Admin(request.provider, "memory_admin", "", None)
    return admin, dataclasses.replace(facts, vector=version)


def test_old_pgvector_is_refused(database: Database) -> None:
    with pytest.raises(CommandError, match=r"pgvector 0.7.4 .* is older than 0.8.0.*ALTER EXTENSION vector UPDATE;"):
        server.check_vector(*_facts(database, "0.7.4"))
    server.check_vector(*_facts(database, "0.8.0"))


@pytest.mark.parametrize(
    ("version", "warned"),
    [
        pytest.param("0.8.0", True, id="works, with known faults"),
        pytest.param("0.8.4", False, id="the first without them"),
        pytest.param("0.10.0", False, id="numbers, not letters, are compared"),
    ],
)
def test_pgvector_with_known_faults_is_a_warning(database: Database, version: str, warned: bool) -> None:
    _, facts = _facts(database, version)
    assert bool(server.warnings(facts)) == warned


def test_old_postgresql_is_refused(database: Database) -> None:
    admin, facts = _facts(database, "0.8.5")
    old = dataclasses.replace(facts, number=150013, version="15.13")
    with pytest.raises(CommandError, match=r"is PostgreSQL 15\.13: 16 or later is needed") as caught:
        server.check_admin(admin, old)
    assert caught.value.code is Code.MODULE_UNSUPPORTED


def test_admin_without_rights_is_told_the_sql(database: Database, command: Command) -> None:
    poor = Login(f"poor_{database.name}", "poor-password")
    name, address = poor.username, f"127.0.0.1:{database.server.port}"
    with database.superuser() as superuser:
        superuser.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{verifier(poor.password)}'".encode())
        answer = command.run("provision", Memory(database).document(), poor)
        assert (answer.code, answer.report["reason"]) == (13, "PermissionDenied")
        assert answer.message == (
            f'the admin "{name}" of provider "pg" lacks rights on {address}: as a superuser run: '
            f'ALTER ROLE "{name}" CREATEROLE; GRANT CREATE ON DATABASE "{database.name}" TO "{name}";'
        )
        superuser.execute(answer.message.rpartition("run: ")[2].encode())
    assert command.run("provision", Memory(database).document(), poor).code == 0


def test_extension_that_somebody_else_is_making_is_used(postgres18: Postgres, command: Command) -> None:
    """Ours waits for theirs, is refused as a duplicate, and looks again."""
    with postgres18.database(vector=False) as database, database.superuser() as other:
        other.execute("BEGIN; CREATE EXTENSION vector WITH SCHEMA public")
        memory = Memory(database)
        process = command.spawn(memory, database.server.superuser)
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        for _ in range(200):
            if other.execute(query).fetchone() == (1,):
                break
            # The statistics of a transaction stand still unless told otherwise.
            other.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.02)")
        else:
            pytest.fail("the run never waited for the other's extension")
        other.execute("COMMIT")
        log = process.communicate()[1]
        assert process.returncode == 0, log
        assert "trying again" in log
