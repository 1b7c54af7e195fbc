"""Isolation Dataset: many Memories in one schema, told apart by row-level security."""

import json
from typing import Any

import psycopg
import pytest
from psycopg import sql

from migrations.postgres import policies, verify
from migrations.postgres.names import names_of
from migrations.postgres.request import ProvisionRequest
from migrations.request import parse
from tests.migrations.documents import Command, Memory
from tests.postgres import Database

EIGHT = 8
SHARED = {"isolation": "Dataset"}


def memory_of(database: Database, number: int = 0, **changes: Any) -> Memory:
    """One of many Memories of one shared schema."""
    return Memory(
        database,
        identity=f"team-{number}/notes",
        schema="shared",
        dataset=f"notes-{number}",
        password=f"password-{number}",
        reader_password=f"reader-{number}",
        provider=SHARED,
    ).but(**changes)


@pytest.fixture
def pair(any_database: Database, command: Command) -> tuple[Memory, Memory]:
    """Two provisioned Memories, on each version in turn."""
    pair = memory_of(any_database, 0), memory_of(any_database, 1)
    for memory in pair:
        answer = command.provision(memory)
        assert answer.code == 0, answer
    return pair


def owner_of(memory: Memory) -> str:
    return names_of(parse(memory.document(), ProvisionRequest)).owner


def test_each_sees_its_own_rows(pair: tuple[Memory, Memory]) -> None:
    for memory in pair:
        with memory.connect() as connection:
            connection.execute(
                "SELECT memory_put(%s, 'k', %s::text::jsonb)", [memory.dataset, json.dumps(memory.dataset)]
            )
            connection.execute("SELECT memory_append(%s, 'said', '{}', 'e1')", [memory.dataset])
            connection.execute("SELECT memory_upsert_embedding(%s, 'a', '[1,2,3]', 'words')", [memory.dataset])
    for memory in pair:
        for login in (memory.writer, memory.reader):
            with memory.database.connect(login) as connection:
                assert connection.execute("SELECT dataset FROM memory_datasets").fetchall() == [(memory.dataset,)]
                assert connection.execute("SELECT dataset, value FROM memory_kv").fetchall() == [
                    (memory.dataset, memory.dataset)
                ]
                for table in ("memory_events", "memory_event_ids", "memory_embeddings"):
                    rows = connection.execute(f"SELECT dataset FROM {table}".encode()).fetchall()
                    assert rows == [(memory.dataset,)], table
                found = connection.execute("SELECT key FROM memory_search(%s, '[1,2,3]', 'words')", [memory.dataset])
                assert found.fetchall() == [("a",)]


def test_verify_finds_nothing_but_what_public_has_on_the_database(
    pair: tuple[Memory, Memory], command: Command
) -> None:
    for memory in pair:
        assert command.provision(memory).report["verify"] == [
            f"PUBLIC has CONNECT on database {memory.database.name}",
            f"PUBLIC has TEMPORARY on database {memory.database.name}",
        ]


def test_owner_is_the_schemas_and_no_login(pair: tuple[Memory, Memory]) -> None:
    owner = owner_of(pair[0])
    assert owner == owner_of(pair[1])
    with pair[0].database.superuser() as connection:
        query = "SELECT rolcanlogin, rolbypassrls FROM pg_roles WHERE rolname = %s"
        assert connection.execute(query, [owner]).fetchone() == (False, False)
        query = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'shared'::regnamespace"
        assert connection.execute(query).fetchall() == [(owner,)]
        forced = "SELECT relname FROM pg_class WHERE relnamespace = 'shared'::regnamespace AND relforcerowsecurity"
        assert connection.execute(forced).fetchall() == []
    for memory in pair:
        with memory.connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner)))


def _policies(memory: Memory) -> list[Any]:
    query = """
        SELECT tablename, policyname, permissive, roles::text[], cmd, qual, with_check
        FROM pg_policies WHERE schemaname = 'shared' ORDER BY 1, 2
    """
    with memory.database.superuser() as connection:
        return list(connection.execute(query).fetchall())


def test_policies_are_literals_for_one_group_each(pair: tuple[Memory, Memory]) -> None:
    expected = []
    for table in ("memory_datasets", "memory_embeddings", "memory_event_ids", "memory_events", "memory_kv"):
        for memory in pair:
            own = f"(dataset = '{memory.dataset}'::text)"
            for group, command, check in (("reader", "SELECT", None), ("writer", "ALL", own)):
                if (table, group) != ("memory_datasets", "writer"):
                    name = f"{memory.prefix}_{group}"
                    expected.append((table, name, "PERMISSIVE", [name], command, own, check))
    assert _policies(pair[0]) == sorted(expected, key=lambda row: row[:2])


BROKEN = [
    pytest.param("DROP POLICY {reader} ON shared.memory_kv", "policy {reader} is missing on memory_kv", id="missing"),
    pytest.param(
        "DROP POLICY {writer} ON shared.memory_kv; CREATE POLICY {writer} ON shared.memory_kv TO {writer} USING (true)",
        "policy {writer} on memory_kv is not ours",
        id="widened",
    ),
    pytest.param(
        "CREATE POLICY everybody ON shared.memory_kv USING (true)",
        "policy everybody on memory_kv is not ours",
        id="extra",
    ),
    pytest.param(
        "CREATE POLICY own ON shared.memory_events_default TO {writer} USING (true)",
        "policy own on memory_events_default is not ours",
        id="on a partition",
    ),
    pytest.param(
        "CREATE POLICY narrow ON shared.memory_kv AS RESTRICTIVE TO {reader} USING (false)",
        "policy narrow on memory_kv is not ours",
        id="narrowed",
    ),
    pytest.param(
        "ALTER TABLE shared.memory_kv DISABLE ROW LEVEL SECURITY", "row-level security is off on memory_kv", id="off"
    ),
    pytest.param(
        "ALTER TABLE shared.memory_kv FORCE ROW LEVEL SECURITY",
        "row-level security is forced on memory_kv",
        id="forced",
    ),
    pytest.param(
        "GRANT SELECT ON shared.memory_events_default TO {reader}",
        "has rights on memory_events_default, which no policy guards",
        id="a partition that can be read",
    ),
    pytest.param(
        "GRANT SELECT (payload) ON shared.memory_events_default TO {reader}",
        "has rights on memory_events_default, which no policy guards",
        id="one column of it",
    ),
    pytest.param(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA shared GRANT SELECT ON TABLES TO {reader}",
        "would be given rights on what comes later in schema shared",
        id="default rights",
    ),
]


@pytest.mark.parametrize(("breaking", "sentence"), BROKEN)
def test_what_opens_the_schema_is_told_and_repaired(
    database: Database, command: Command, breaking: str, sentence: str
) -> None:
    memory, other = memory_of(database, 0), memory_of(database, 1)
    for each in (memory, other):
        assert command.provision(each).code == 0
    before = _policies(memory), _rights(memory)
    roles = {name: f"{memory.prefix}_{name}" for name in ("reader", "writer")} | {"owner": owner_of(memory)}
    with database.superuser() as connection:
        connection.execute(breaking.format(**roles).encode())
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(database.server.admin.username)))
        found = differences(connection, memory)
    assert [line for line in found if sentence.format(**roles) in line], found
    answer = command.provision(memory)
    assert answer.code == 0
    assert [line for line in answer.report["verify"] if not line.startswith("PUBLIC has")] == []
    assert (_policies(memory), _rights(memory)) == before


def differences(connection: psycopg.Connection[Any], memory: Memory) -> list[str]:
    names = names_of(parse(memory.document(), ProvisionRequest))
    found = verify.differences(connection, memory.schema, names, shared=True)
    return [*found, *policies.differences(connection, memory.schema, names, memory.dataset)]


def _rights(memory: Memory) -> list[Any]:
    query = """
        SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
               ARRAY(SELECT a::text FROM unnest(c.relacl) a ORDER BY 1),
               ARRAY(SELECT format('%s %s', attname, attacl) FROM pg_attribute
                     WHERE attrelid = c.oid AND cardinality(attacl) > 0 ORDER BY 1)
        FROM pg_class c WHERE c.relnamespace = 'shared'::regnamespace
        UNION ALL
        SELECT d.defaclobjtype::text, false, false, ARRAY(SELECT a::text FROM unnest(d.defaclacl) a ORDER BY 1), '{}'
        FROM pg_default_acl d WHERE d.defaclnamespace = 'shared'::regnamespace
        ORDER BY 1
    """
    with memory.database.superuser() as connection:
        return list(connection.execute(query).fetchall())


def test_what_comes_later_is_nobodys(pair: tuple[Memory, Memory]) -> None:
    """A partition of maintenance, a table and a function of the next release: until a run has seen to them."""
    memory = pair[0]
    with memory.database.superuser() as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner_of(memory))))
        connection.execute("DROP TABLE shared.memory_events_default")
        assert connection.execute("SELECT shared.memory_ensure_event_partitions(14)").fetchone() == (2,)
        connection.execute("CREATE TABLE shared.later (dataset text PRIMARY KEY, secret text)")
        connection.execute("CREATE FUNCTION shared.later() RETURNS int LANGUAGE sql RETURN 1")
        partitions = connection.execute(
            "SELECT c.relname, c.relrowsecurity FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid"
            " WHERE c.relnamespace = 'shared'::regnamespace AND c.relkind = 'r'"
        ).fetchall()
    assert len(partitions) == 15
    for login in (memory.writer, memory.reader):
        with memory.database.connect(login) as connection:
            for name, guarded in partitions:
                assert guarded, name
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name)))
            for statement in ("SELECT * FROM later", "SELECT later()"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


def test_a_table_of_a_later_release_gets_its_policies(pair: tuple[Memory, Memory], command: Command) -> None:
    memory, other = pair
    with memory.database.superuser() as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner_of(memory))))
        connection.execute("CREATE TABLE shared.later (dataset text PRIMARY KEY, secret text)")
        connection.execute("INSERT INTO shared.later VALUES ('notes-0', 'mine'), ('notes-1', 'theirs')")
        connection.execute("CREATE TABLE shared.without_dataset (secret text)")
        connection.execute("CREATE VIEW shared.as_its_owner AS SELECT * FROM shared.later")
    assert command.provision(memory).code == 0
    with memory.connect() as connection:
        assert connection.execute("SELECT secret FROM later").fetchall() == [("mine",)]
        for hidden in ("without_dataset", "as_its_owner", "memory_migrations"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT * FROM {hidden}".encode())
    with other.connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT * FROM later")


def test_run_that_changes_nothing_takes_no_lock_that_readers_wait_for(
    pair: tuple[Memory, Memory], command: Command
) -> None:
    with pair[0].connect() as reading, reading.transaction():
        reading.execute("SELECT count(*) FROM memory_kv, memory_events, memory_embeddings, memory_datasets")
        assert command.provision(pair[1], deadline="5").code == 0


def test_a_reader_that_does_not_end_holds_a_new_memory_up_and_nobody_else(database: Database, command: Command) -> None:
    first, second = memory_of(database, 0), memory_of(database, 1)
    assert command.provision(first).code == 0
    with first.connect() as reading:
        with reading.transaction():
            reading.execute("SELECT count(*) FROM memory_kv")
            process = command.spawn(second)
            assert process.stderr
            for line in process.stderr:
                if json.loads(line).get("sqlstate") == "55P03":
                    break
            with first.connect() as other:
                other.execute("SELECT memory_put('notes-0', 'k', '1')")
        assert process.communicate() is not None
        assert process.returncode == 0


def _together(command: Command, memories: list[Memory]) -> None:
    processes = [command.spawn(memory) for memory in memories]
    logs = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(memories), "\n".join(logs)


@pytest.mark.long
def test_eight_memories_of_one_schema_at_once(any_database: Database, command: Command) -> None:
    memories = [memory_of(any_database, number) for number in range(EIGHT)]
    _together(command, memories)
    for memory in memories:
        with memory.connect() as connection:
            connection.execute("SELECT memory_put(%s, 'k', '1')", [memory.dataset])
            assert connection.execute("SELECT count(*) FROM memory_kv").fetchone() == (1,)


@pytest.mark.long
def test_the_same_memory_eight_times_at_once(any_database: Database, command: Command) -> None:
    memory = memory_of(any_database)
    _together(command, [memory] * EIGHT)
    before = _policies(memory), _rights(memory)
    assert command.provision(memory).code == 0
    assert (_policies(memory), _rights(memory)) == before


STEPS = ["ledger", "roles", "home", "migrations", "registry", "policies", "grants", "logins", "verify", "seal"]


@pytest.mark.long
@pytest.mark.parametrize("number", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step(database: Database, command: Command, step: str, number: int) -> None:
    memories = [memory_of(database, each) for each in range(number + 1)]
    for memory in memories[:-1]:
        assert command.provision(memory).code == 0
    command.kill_at(memories[-1], step)
    answer = command.provision(memories[-1])
    assert answer.code == 0
    assert [line for line in answer.report["verify"] if not line.startswith("PUBLIC has")] == []
    for memory in memories:
        with memory.connect() as connection:
            assert connection.execute("SELECT dataset FROM memory_datasets").fetchall() == [(memory.dataset,)]


CONFLICTS = [
    pytest.param(
        {"embeddings": {"dimension": 4}},
        11,
        'embeddings.dimension "4" differs from "3", which all Memories of the shared schema "shared" have: '
        "set embeddings.dimension: 3, or choose another provider; nothing was changed",
        id="dimension",
    ),
    pytest.param({"embeddings": {"metric": "l2"}}, 11, 'embeddings.metric "l2" differs from "cosine"', id="metric"),
    pytest.param(
        {"embeddings": {"storage": "half"}}, 11, 'embeddings.storage "half" differs from "full"', id="storage"
    ),
    pytest.param({"search_config": "english"}, 14, 'searchConfig "english" differs from "simple"', id="searchConfig"),
    pytest.param(
        {"embeddings": {"enabled": False}},
        14,
        'modules "core" differs from "core, embeddings", which all Memories of the shared schema "shared" have: '
        "set embeddings.enabled and modules as the others have them, or choose another provider; nothing was changed",
        id="modules",
    ),
    pytest.param(
        {"dataset": "notes-0"},
        14,
        'dataset.name "notes-0" in the shared schema "shared" is the home of another Memory: choose another name '
        "(adopt does not help; the platform team can hand a home over)",
        id="the same dataset",
    ),
    pytest.param(
        {"provider": {"isolation": "Schema"}},
        14,
        'dataset.schema "shared" is in use with isolation Dataset, and provider "pg" has isolation Schema: '
        "choose another schema",
        id="another isolation",
    ),
]


@pytest.mark.parametrize(("changes", "code", "sentence"), CONFLICTS)
def test_what_cannot_share_is_a_conflict_that_names_both(
    database: Database, command: Command, changes: dict[str, Any], code: int, sentence: str
) -> None:
    memory = memory_of(database)
    assert command.provision(memory).code == 0
    before = _policies(memory), _rights(memory)
    other = memory_of(database, 1, **changes)
    answer = command.provision(other.but(adopt=True, policy="Allow"))
    assert (answer.code, sentence in answer.message) == (code, True), answer.message
    assert (_policies(memory), _rights(memory)) == before
    with database.superuser() as connection:
        query = "SELECT FROM pg_roles WHERE starts_with(rolname, %s)"
        assert connection.execute(query, [other.prefix]).fetchall() == []
        assert connection.execute("SELECT count(*) FROM memory_ledger.homes").fetchone() == (1,)


@pytest.mark.parametrize(("changes", "code"), [case.values[:2] for case in CONFLICTS[:5]])
def test_who_shares_already_cannot_change_it_either(
    database: Database, command: Command, changes: dict[str, Any], code: int
) -> None:
    memory = memory_of(database)
    for each in (memory, memory_of(database, 1)):
        assert command.provision(each).code == 0
    assert command.provision(memory.but(**changes)).code == code
    assert command.provision(memory).code == 0


def test_who_is_alone_may_still_change_the_dimension(database: Database, command: Command) -> None:
    memory = memory_of(database)
    assert command.provision(memory).code == 0
    wider = {"dimension": 4}
    assert command.provision(memory.but(embeddings=wider)).code == 0
    assert command.provision(memory_of(database, 1)).code == 11
    assert command.provision(memory_of(database, 1, embeddings=wider)).code == 0


def test_a_memorys_own_schema_does_not_become_shared(database: Database, command: Command) -> None:
    own = memory_of(database, provider={})
    assert command.provision(own).code == 0
    answer = command.provision(own.but(provider=SHARED))
    assert answer.code == 14
    assert answer.message.startswith(
        '"team-0/notes" already has its home in schema "shared" (isolation Schema), not in dataset "notes-0" of the '
        'shared schema "shared" (isolation Dataset): put provider and dataset back'
    )
    answer = command.provision(memory_of(database, 1))
    assert (answer.code, "is in use with isolation Schema, and provider" in answer.message) == (14, True)
    assert command.provision(own).report["verify"] == [
        f"PUBLIC has CONNECT on database {database.name}",
        f"PUBLIC has TEMPORARY on database {database.name}",
    ]


def test_a_shared_home_does_not_become_a_schema_or_a_database(database: Database, command: Command) -> None:
    memory = memory_of(database)
    assert command.provision(memory).code == 0
    for isolation in ("Schema", "Database"):
        answer = command.provision(memory.but(provider={"isolation": isolation}))
        assert answer.code == 14
        assert 'already has its home in dataset "notes-0" of the shared schema "shared" (isolation Dataset)' in (
            answer.message
        )


@pytest.mark.parametrize("what", ["schema", "dataset"])
def test_what_was_not_made_for_this_provider_is_a_conflict(database: Database, command: Command, what: str) -> None:
    memory = memory_of(database)
    with database.superuser() as connection:
        if what == "schema":
            connection.execute("CREATE SCHEMA shared")
        else:
            assert command.provision(memory_of(database, 1)).code == 0
            connection.execute("INSERT INTO shared.memory_datasets (dataset) VALUES ('notes-0')")
        answer = command.provision(memory.but(adopt=True, policy="Allow"))
    assert answer.code == 14
    assert answer.message == (
        f'schema "shared" in database "{database.name}", or its dataset "notes-0", was not made for Memories of '
        'provider "pg": choose another dataset.name, or ask the platform team for another postgres.schema'
    )


def test_a_claim_made_again_needs_adopt_and_finds_its_rows(pair: tuple[Memory, Memory], command: Command) -> None:
    memory, other = pair
    with memory.connect() as connection:
        connection.execute("SELECT memory_put('notes-0', 'k', '\"mine\"')")
    again = memory.but(uid="uid-2", password="second-password")
    answer = command.provision(again)
    assert (answer.code, answer.message.split(" holds")[0]) == (15, 'dataset "notes-0" of the shared schema "shared"')
    with other.connect() as session:
        assert command.provision(again.but(adopt=True)).code == 0
        session.execute("SELECT 1")  # nobody else's sessions end
    with again.connect() as connection:
        assert connection.execute("SELECT value FROM memory_get('notes-0', 'k')").fetchone() == ("mine",)


def test_a_role_of_others_sees_what_the_memory_sees(pair: tuple[Memory, Memory], command: Command) -> None:
    memory = pair[0]
    for each in pair:
        with each.connect() as connection:
            connection.execute("SELECT memory_put(%s, 'k', '1')", [each.dataset])
    auditors = f"auditors_{memory.prefix}"
    with memory.database.superuser() as connection:
        connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(auditors)))
        access = {"access": {"readerRole": auditors, "writerRole": None}}
        assert command.provision(memory.but(extra=access)).code == 0
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(auditors)))
        assert connection.execute("SELECT dataset FROM shared.memory_kv").fetchall() == [(memory.dataset,)]
    assert command.provision(memory).code == 0
    with memory.database.superuser() as connection:
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(auditors)))
