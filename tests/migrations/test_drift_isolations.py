"""Drift where Memories share a schema, have a database of their own, or get their roles from CloudNativePG."""

import re
from collections.abc import Iterator

import pytest
from psycopg import sql

from memoryctl.embedded import Login
from migrations.postgres.drift import check as drift
from tests.migrations.documents import Command, Memory
from tests.migrations.drifting import at_work
from tests.migrations.test_cnpg import CNPG, JOB_PASSWORD, Operator, asking
from tests.migrations.test_shared_schema import memory_of, owner_of
from tests.postgres import Database


@pytest.fixture
def three(any_database: Database, command: Command) -> list[Memory]:
    """Three Memories of one shared schema; the last is another provider's."""
    memories = [memory_of(any_database, number) for number in range(3)]
    memories[2] = memories[2].but(provider={**memories[2].provider, "uid": "other", "name": "other"})
    for memory in memories:
        answer = command.provision(memory)
        assert answer.code == 0, answer
    return memories


def change(memory: Memory, owner: str, statements: str, **names: str) -> None:
    values = {"owner": owner, "db": memory.home.name, **names}
    text = sql.SQL(statements).format(**{name: sql.Identifier(value) for name, value in values.items()})
    with memory.home.superuser() as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner)))
        connection.execute(text)


def test_a_shared_schema_is_looked_at_once_for_all_its_memories(three: list[Memory]) -> None:
    first, second, third = three
    owner = owner_of(first)
    roles = {"w0": f"{first.prefix}_writer", "r1": f"{second.prefix}_reader", "r2": f"{third.prefix}_reader"}
    with at_work(first) as work:
        assert len(work.place.homes) == 2
        assert drift.find(work) == []
        change(
            first,
            owner,
            "ALTER TABLE shared.memory_kv DISABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
            "ALTER TABLE shared.memory_events_default DISABLE ROW LEVEL SECURITY;"
            "DROP POLICY {w0} ON shared.memory_events; ALTER POLICY {r1} ON shared.memory_kv USING (true);"
            "CREATE POLICY everybody ON shared.memory_kv USING (true);"
            "CREATE POLICY {r1} ON shared.memory_migrations USING (true);"
            "GRANT SELECT ON shared.memory_migrations, shared.memory_events_default TO {r1};"
            "REVOKE DELETE ON shared.memory_kv FROM {w0};"
            "ALTER DEFAULT PRIVILEGES IN SCHEMA shared GRANT SELECT ON TABLES TO {r1}",
            **roles,
        )
        differences = drift.find(work)
        homes = {"shared/notes-0": 0, "shared/notes-1": 1, "": None}
        found = [(homes[each.home], re.sub(r"mem_[0-9a-f]{12}", "mem", str(each))) for each in differences]
        assert sorted(found, key=str) == sorted(
            [
                (1, "policy mem_reader is missing on memory_kv"),
                (None, "policy everybody on memory_kv is not ours"),
                (1, "policy mem_reader on memory_kv is not ours"),
                (1, "policy mem_reader on memory_migrations is not ours"),
                (0, "policy mem_writer is missing on memory_events"),
                (1, "reader group has SELECT on memory_events_default"),
                (1, "reader group has SELECT on memory_migrations"),
                (1, "reader group has SELECT on new tables in the schema"),
                (None, "row-level security is off on memory_events_default"),
                (None, "row-level security is forced on memory_kv: maintenance by its owner would see nothing"),
                (None, "row-level security is off on memory_kv"),
                (0, "writer group lacks DELETE on memory_kv"),
            ],
            key=str,
        )
        assert drift.repair(work, differences) == []
    with third.connect() as connection:
        connection.execute("SELECT memory_put('notes-2', 'k', '1')")


@pytest.fixture
def group(database: Database) -> Iterator[str]:
    """A platform team's group, on PostgreSQL 18."""
    with database.superuser() as connection:
        connection.execute("CREATE ROLE auditors NOLOGIN")
    try:
        yield "auditors"
    finally:
        with database.superuser() as connection:
            connection.execute("DROP OWNED BY auditors; DROP ROLE auditors")


def test_a_database_of_the_memorys_own_is_looked_at_too(database: Database, command: Command) -> None:
    memory = Memory(database, reader_password="may-read", provider={"isolation": "Database"})
    assert command.provision(memory).code == 0
    try:
        with at_work(memory) as work:
            assert drift.find(work) == []
            change(
                memory,
                f"{memory.prefix}_owner",
                "GRANT CONNECT ON DATABASE {db} TO PUBLIC; REVOKE CONNECT ON DATABASE {db} FROM {w}, {r};"
                "COMMENT ON DATABASE {db} IS 'mine'; RESET ROLE; GRANT CREATE ON SCHEMA public TO PUBLIC;"
                "ALTER DATABASE {db} OWNER TO memory_admin",
                w=f"{memory.prefix}_writer",
                r=f"{memory.prefix}_reader",
            )
            differences = drift.find(work)
            assert sorted(str(each).replace(memory.prefix, "mem") for each in differences) == [
                "PUBLIC has CONNECT on database mem",
                "PUBLIC has CREATE on schema public",
                'database mem belongs to "memory_admin" instead of "mem_owner"',
                "database mem does not carry its mark",
            ]
            assert drift.repair(work, differences) == []
            change(
                memory,
                f"{memory.prefix}_owner",
                "REVOKE CONNECT ON DATABASE {db} FROM {w}, {r}",
                w=f"{memory.prefix}_writer",
                r=f"{memory.prefix}_reader",
            )
            differences = drift.find(work)
            assert [str(each).replace(memory.prefix, "mem") for each in differences] == [
                "reader group lacks CONNECT on database mem",
                "writer group lacks CONNECT on database mem",
            ]
            assert drift.repair(work, differences) == []
        memory.connect().close()
    finally:
        with database.superuser() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(memory.prefix)))


def test_roles_of_others_that_were_let_in_are_expected(database: Database, command: Command, group: str) -> None:
    memory = Memory(database, extra={"access": {"readerRole": None, "writerRole": group}})
    assert command.provision(memory).code == 0
    with at_work(memory) as work:
        assert drift.find(work) == []
        with database.connect() as admin:
            admin.execute(sql.SQL("REVOKE {} FROM auditors").format(sql.Identifier(f"{memory.prefix}_writer")))
        differences = drift.find(work)
        assert [str(each) for each in differences] == [f"role auditors is not in role {memory.prefix}_writer"]
        assert drift.repair(work, differences) == []


@pytest.fixture
def operator(database: Database, command: Command) -> Iterator[Operator]:
    operator = Operator(Memory(database, provider=CNPG, reader_password="may-read"), command)
    operator.make()
    try:
        yield operator
    finally:
        operator.remove()


def test_under_cloudnative_pg_a_job_finds_and_mends_what_the_owner_can(group: str, operator: Operator) -> None:
    """Roles are the operator's to mend, and roles of others have rights of their own."""
    memory = asking(operator, writer=group)
    assert operator.provision(memory).code == 0
    owner, job = f"{memory.prefix}_owner", Login(f"{memory.prefix}_job", JOB_PASSWORD)
    with at_work(memory, job) as work:
        assert drift.find(work) == []
        change(
            memory,
            owner,
            "REVOKE INSERT ON notes.memory_kv FROM {g}; GRANT UPDATE ON notes.memory_datasets TO {g};"
            "ALTER DEFAULT PRIVILEGES IN SCHEMA notes REVOKE INSERT ON TABLES FROM {g};"
            "DROP INDEX notes.memory_embeddings_tsv_idx; ALTER TABLE notes.memory_kv ADD extra int;"
            "REVOKE ALL ON SCHEMA public FROM {r}; RESET ROLE; REVOKE {r} FROM {l}",
            g=group,
            r=f"{memory.prefix}_reader",
            l=f"{memory.prefix}_ro_a",
        )
        differences = drift.find(work)
        membership = f"role {memory.prefix}_ro_a is not in role {memory.prefix}_reader"
        assert [str(each) for each in differences] == [
            "column memory_kv.extra is not of this version",
            "index memory_embeddings_tsv_idx is missing",
            "reader group lacks USAGE on schema public",
            'role "auditors" has UPDATE on memory_datasets',
            'role "auditors" lacks INSERT on memory_kv',
            'role "auditors" lacks INSERT on new tables in the schema',
            membership,
        ]
        assert [str(each) for each in drift.repair(work, differences)] == [membership]


def test_missing_roles_are_named(database: Database, command: Command) -> None:
    memory = Memory(database, embeddings={"enabled": False})
    assert command.provision(memory).code == 0
    with database.superuser() as connection:
        for part in ("writer", "ro_b"):
            role = sql.Identifier(f"{memory.prefix}_{part}")
            connection.execute(sql.SQL("DROP OWNED BY {}; DROP ROLE {}").format(role, role))
        role = sql.Identifier(f"{memory.prefix}_rw_b")
        connection.execute(sql.SQL("DROP TABLE notes.memory_kv; COMMENT ON ROLE {} IS NULL").format(role))
    with at_work(memory) as work:
        found = [str(each).replace(memory.prefix, "mem") for each in drift.find(work)]
    assert found == [
        "role mem_ro_b is missing",
        "role mem_rw_b does not carry its mark",
        "role mem_writer is missing",
    ], "no rights can be compared without it"
    with database.connect() as admin:
        admin.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(f"{memory.prefix}_writer")))
    with at_work(memory) as work:
        assert "table memory_kv is missing: restore it from a backup" in map(str, drift.find(work))


@pytest.mark.parametrize("schema", ["user", "key", "select"])
def test_any_name_of_a_schema_is_the_same_to_it(database: Database, command: Command, schema: str) -> None:
    """A word of SQL, of a function's text, or of a column's name."""
    memory = Memory(database, schema=schema, dataset="key")
    assert command.provision(memory).code == 0
    with at_work(memory) as work:
        assert drift.find(work) == []


def test_embeddings_that_a_claim_has_no_more_are_compared_with_what_they_were(
    database: Database, command: Command
) -> None:
    memory = Memory(database, embeddings={"dimension": 7, "metric": "l2", "storage": "half"})
    assert command.provision(memory).code == 0
    without = memory.but(embeddings={"enabled": False, "dimension": 1536})
    assert command.provision(without).code == 0
    with at_work(memory) as work:
        assert not work.place.embeddings.enabled
        assert drift.find(work) == []
