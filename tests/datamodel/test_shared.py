"""A shared schema, asked of its catalog: a login of A sees, changes and infers nothing of B, whatever there is.

What is tried follows from pg_class and pg_proc, so a table or a function of a later release is tried by itself.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from migrations.postgres.names import names_of
from migrations.postgres.request import ProvisionRequest
from migrations.request import parse
from tests.datamodel.homes import provision
from tests.migrations.documents import Memory
from tests.postgres import Connection, Database, Postgres

A, B, NOBODY = "ours", "theirs", "nobody"
SECRET = "secret of the other"
DENIED = "42501"
ROLES = ("writer", "reader")


@dataclasses.dataclass(frozen=True)
class Shared:
    """Two Memories in one schema."""

    a: Memory
    b: Memory

    def connect(self, role: str) -> Connection:
        """Connects as a login of A's."""
        return self.a.database.connect(self.a.writer if role == "writer" else self.a.reader)

    def owner(self) -> Connection:
        """Connects as the schema's owner, who sees all rows and whom no login can become."""
        connection = self.a.database.superuser()
        owner = names_of(parse(self.a.document(), ProvisionRequest)).owner
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner)))
        connection.execute("SET search_path = shared, public")
        return connection


@dataclasses.dataclass(frozen=True)
class Table:
    """A relation of the schema; `keys` are the columns of its primary key, `guarded` whether it holds datasets."""

    name: str
    kind: str
    guarded: bool
    columns: tuple[str, ...]
    keys: tuple[str, ...]

    @property
    def at(self) -> sql.Identifier:
        return sql.Identifier("shared", self.name)


def memory_of(database: Database, dataset: str) -> Memory:
    provider = {"isolation": "Dataset"}
    identity, password = f"team-{dataset}/notes", f"{dataset}-password"
    return Memory(database, identity, schema="shared", dataset=dataset, password=password, provider=provider).but(
        reader_password=f"{dataset}-reader"
    )


def fill(memory: Memory, text: str) -> None:
    """Gives a dataset rows of every kind; the keys are the same in every dataset."""
    payload = json.dumps({"text": text})
    with memory.connect() as connection:
        for number in range(3):
            values = [memory.dataset, text, payload, f"e{number}"]
            connection.execute("SELECT memory_append(%s, %s, %s::jsonb, %s, 'queue')", values)
            connection.execute("SELECT memory_put(%s, %s, %s::jsonb)", [memory.dataset, f"k{number}", payload])
            values = [memory.dataset, f"k{number}", f"[1,2,{number}]", text, payload]
            connection.execute("SELECT memory_upsert_embedding(%s, %s, %s::vector, %s, %s::jsonb)", values)


@pytest.fixture(scope="session")
def made(postgres_servers: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Postgres], Shared]]:
    """Gives one shared schema for all tests of a version; what a test changes it rolls back."""
    del postgres_servers  # asked for so that the databases go before their servers do
    known: dict[int, Shared] = {}
    with ExitStack() as stack:

        def shared(postgres: Postgres) -> Shared:
            if postgres.version not in known:
                database = stack.enter_context(postgres.database())
                known[postgres.version] = _make(database, tmp_path_factory.mktemp("shared"))
            return known[postgres.version]

        yield shared


def _make(database: Database, folder: Path) -> Shared:
    shared = Shared(memory_of(database, A), memory_of(database, B))
    for memory, text in ((shared.a, "our own"), (shared.b, SECRET)):
        provision(memory, folder / memory.dataset)
        fill(memory, text)
    with database.superuser() as connection:
        connection.execute("ANALYZE")
    return shared


@pytest.fixture
def shared(postgres: Postgres, made: Callable[[Postgres], Shared]) -> Iterator[Shared]:
    """A and B on each version in turn; B has the same rows before and after."""
    shared = made(postgres)
    before = rows_of(shared, B)
    yield shared
    assert rows_of(shared, B) == before


def tables(shared: Shared) -> list[Table]:
    """Every relation that the schema has."""
    with shared.owner() as owner:
        rows = owner.execute(
            """
            SELECT c.relname, c.relkind::text,
                   c.relkind IN ('r', 'p') AND NOT c.relispartition AND 'dataset' = ANY (columns.names),
                   columns.names, coalesce(keys.names, '{}')
            FROM pg_class c
            CROSS JOIN LATERAL (SELECT array_agg(attname::text ORDER BY attnum) AS names FROM pg_attribute a
                                WHERE a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped
                                AND attgenerated = '') columns
            LEFT JOIN LATERAL (SELECT array_agg(a.attname::text) AS names FROM pg_index i
                               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
                               WHERE i.indrelid = c.oid AND i.indisprimary) keys ON true
            WHERE c.relnamespace = 'shared'::regnamespace AND c.relkind NOT IN ('i', 'I')
            ORDER BY c.relname
            """
        ).fetchall()
    return [Table(name, kind, guarded, tuple(columns), tuple(keys)) for name, kind, guarded, columns, keys in rows]


def guarded(shared: Shared) -> list[Table]:
    """The tables that hold rows of datasets."""
    found = [table for table in tables(shared) if table.guarded]
    assert len(found) >= 5
    return found


def rows_of(shared: Shared, dataset: str) -> dict[str, list[Any]]:
    """All rows of a dataset, as the owner sees them."""
    with shared.owner() as owner:
        found = {}
        for table in guarded(shared):
            query = sql.SQL("SELECT t::text FROM {} t WHERE dataset = %s ORDER BY 1").format(table.at)
            found[table.name] = owner.execute(query, [dataset]).fetchall()
    return found


def refusal(connection: Connection, statement: sql.SQL | sql.Composed, *values: object) -> tuple[str, str]:
    """Gives SQLSTATE and all that a refused statement says; what was not refused is rolled back."""
    try:
        with connection.transaction(force_rollback=True):
            done = connection.execute(statement, values)
            return "", f"{done.rowcount} rows"
    except psycopg.Error as error:
        diag = error.diag
        said = [diag.message_primary, diag.message_detail, diag.message_hint, diag.context, diag.constraint_name]
        return str(error.sqlstate), "\n".join(filter(None, said))


def test_every_table_of_datasets_has_rows_of_both(shared: Shared) -> None:
    """Else the other tests would prove nothing of it: fill a new table in `fill`."""
    for dataset in (A, B):
        empty = [name for name, rows in rows_of(shared, dataset).items() if not rows]
        assert empty == []


@pytest.mark.parametrize("role", ROLES)
def test_reads_its_own_rows_only(shared: Shared, role: str) -> None:
    own = rows_of(shared, A)
    with shared.connect(role) as connection:
        for table in guarded(shared):
            for query in (
                "SELECT t::text FROM {} t ORDER BY 1",
                "SELECT t::text FROM {} t WHERE dataset <> 'x' OR true ORDER BY 1",
                "SELECT t::text FROM ONLY {} t TABLESAMPLE BERNOULLI (100) ORDER BY 1" if table.kind == "r" else "",
                "SELECT t::text FROM {} t WHERE ctid >= '(0,0)' ORDER BY 1",
            ):
                if query:
                    rows = connection.execute(sql.SQL(query).format(table.at)).fetchall()
                    assert rows == own[table.name], (table.name, query)
            with connection.cursor().copy(sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(table.at)) as copy:
                text = b"".join(map(bytes, copy)).decode()
            assert text.count("\n") == len(own[table.name])
            assert SECRET not in text


@pytest.mark.parametrize("role", ROLES)
def test_what_no_policy_guards_is_denied(shared: Shared, role: str) -> None:
    """Partitions, the history, and whatever else is there: no command at all."""
    rest = [table for table in tables(shared) if not table.guarded]
    assert len(rest) > 13
    with shared.connect(role) as connection:
        for table in rest:
            column = sql.Identifier(table.columns[0])
            for statement in (
                "SELECT FROM {0}",
                "SELECT count(*) FROM {0}",
                "SELECT {1} FROM {0}",
                "INSERT INTO {0} DEFAULT VALUES",
                "UPDATE {0} SET {1} = {1}",
                "DELETE FROM {0}",
                "TRUNCATE {0}",
                "LOCK TABLE {0} IN ACCESS SHARE MODE",
                "COPY {0} TO STDOUT",
                "EXPLAIN SELECT * FROM {0}",
            ):
                state, said = refusal(connection, sql.SQL(statement).format(table.at, column))
                assert state == DENIED, (table.name, statement, said)


@pytest.mark.parametrize("role", ROLES)
def test_changes_no_row_of_the_other(shared: Shared, role: str) -> None:
    with shared.connect(role) as connection:
        for table in guarded(shared):
            writes = role == "writer" and table.name != "memory_datasets"
            for statement in (
                "UPDATE {} SET dataset = dataset WHERE dataset = 'theirs'",
                "DELETE FROM {} WHERE dataset = 'theirs'",
                "UPDATE {} SET dataset = 'ours' WHERE dataset = 'theirs'",
            ):
                found = refusal(connection, sql.SQL(statement).format(table.at))
                assert found == ("", "0 rows") if writes else found[0] == DENIED, (table.name, statement)
            given_away = refusal(connection, sql.SQL("UPDATE {} SET dataset = 'theirs'").format(table.at))
            assert given_away[0] in ({DENIED, "MM002"}), table.name
            for statement in ("TRUNCATE {}", "ALTER TABLE {} DISABLE ROW LEVEL SECURITY", "DROP TABLE {}",
                              "CREATE POLICY mine ON {} USING (true)", "CREATE INDEX ON {} (dataset)"):  # fmt: skip
                assert refusal(connection, sql.SQL(statement).format(table.at))[0] == DENIED, (table.name, statement)
            query = "SELECT has_table_privilege(%s, 'REFERENCES, TRIGGER, TRUNCATE')"
            assert connection.execute(query, [f"shared.{table.name}"]).fetchone() == (False,)


@pytest.mark.parametrize(
    "conflict", ["", "ON CONFLICT DO NOTHING", "ON CONFLICT ({keys}) DO UPDATE SET dataset = excluded.dataset"]
)
def test_a_row_that_the_other_has_is_refused_like_one_that_nobody_has(shared: Shared, conflict: str) -> None:
    """So nobody learns by trying which keys are there."""
    with shared.connect("writer") as connection, shared.owner() as owner:
        for table in guarded(shared):
            if table.name == "memory_datasets":
                continue
            columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
            query = sql.SQL("SELECT {} FROM {} WHERE dataset = %s LIMIT 1").format(columns, table.at)
            [theirs] = owner.execute(query, [B]).fetchall()
            keys = sql.SQL(", ").join(map(sql.Identifier, table.keys))
            insert = sql.SQL("INSERT INTO {} ({}) VALUES ({}) {}").format(
                table.at,
                columns,
                sql.SQL(", ").join([sql.Placeholder()] * len(table.columns)),
                sql.SQL(conflict).format(keys=keys),
            )
            row = [json.dumps(value) if isinstance(value, dict | list) else value for value in theirs]
            position = table.columns.index("dataset")
            said = {}
            for dataset in (B, NOBODY):
                row[position] = dataset
                said[dataset] = refusal(connection, insert, *row)
            assert said[B] == said[NOBODY] == (DENIED, said[B][1]), table.name
            assert said[B][1] == f'new row violates row-level security policy for table "{table.name}"'
            row[position] = A
            if not conflict:
                with owner.transaction(force_rollback=True):  # Its own row of the same keys is no conflict.
                    connection.execute("BEGIN")
                    query = sql.SQL("DELETE FROM {}").format(table.at)
                    connection.execute(query)
                    connection.execute(insert, row)
                    connection.execute("ROLLBACK")


@pytest.mark.parametrize("role", ROLES)
def test_a_function_that_tells_what_it_is_given_is_given_nothing(shared: Shared, role: str) -> None:
    """Conditions that fail on the other's rows, and would quote them, are not tried on them."""
    with shared.connect(role) as connection:
        for table in guarded(shared):
            for condition in (
                "1 / (CASE WHEN t.dataset = 'ours' THEN 1 ELSE 0 END) = 1",
                "CASE WHEN t.dataset <> 'ours' THEN (t::text)::integer ELSE 1 END = 1",
                "CASE WHEN t.dataset <> 'ours' THEN pg_catalog.to_jsonb(t)::text::date IS NULL ELSE true END",
            ):
                query = sql.SQL("SELECT count(*) FROM {} t WHERE " + condition).format(table.at)
                assert connection.execute(query).fetchone() == (len(rows_of(shared, A)[table.name]),), condition


@pytest.mark.parametrize("role", ROLES)
def test_statistics_and_plans_show_no_value_of_the_other(shared: Shared, role: str) -> None:
    with shared.connect(role) as connection:
        for view in ("pg_stats", "pg_stats_ext", "pg_stats_ext_exprs"):
            query = sql.SQL("SELECT * FROM {} WHERE schemaname = 'shared'").format(sql.Identifier(view))
            assert connection.execute(query).fetchall() == [], view
        assert refusal(connection, sql.SQL("SELECT * FROM pg_statistic"))[0] == DENIED
        for table in guarded(shared):
            for options in ("VERBOSE", "ANALYZE, VERBOSE"):
                explain = sql.SQL("EXPLAIN ({}) SELECT * FROM {} t WHERE dataset = 'theirs' OR t::text LIKE '%e%'")
                plan = connection.execute(explain.format(sql.SQL(options), table.at)).fetchall()
                assert SECRET not in str(plan)
                assert "dataset = 'ours'" in str(plan)


ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "text": ("k0", "e0", SECRET),
    "jsonb": ('{"text": "mine"}',),
    "vector": ("[1,2,0]",),
    "integer": ("1",),
    "bigint": ("1", "7"),
    "interval": ("1 day",),
    "uuid": ("00000000-0000-0000-0000-000000000000",),
    "timestamp with time zone": ("2100-01-01T00:00:00Z",),
}


@pytest.mark.parametrize("role", ROLES)
def test_functions_answer_of_the_other_as_of_nobody(shared: Shared, role: str) -> None:
    """Called with B's dataset, every function says what it says of a dataset that does not exist."""
    with shared.connect(role) as connection:
        functions = connection.execute(
            """
            SELECT p.proname, p.proargnames, ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) t),
                   has_function_privilege(p.oid, 'EXECUTE')
            FROM pg_proc p WHERE p.pronamespace = 'shared'::regnamespace AND p.prorettype <> 'trigger'::regtype
            """
        ).fetchall()
        assert len(functions) >= 15
        for name, parameters, types, allowed in functions:
            for number in range(max(len(ARGUMENTS[kind]) for kind in types)):
                values = [ARGUMENTS[kind][number % len(ARGUMENTS[kind])] for kind in types]
                call = sql.SQL("SELECT f::text FROM {}({}) f").format(
                    sql.Identifier("shared", name),
                    sql.SQL(", ").join(sql.SQL("%s::" + kind) for kind in types),
                )
                said = [_answer(connection, call, parameters, values, dataset) for dataset in (B, NOBODY)]
                assert said[0] == said[1] or "p_dataset" not in parameters, name
                assert SECRET not in str(said[0]).replace(f"{SECRET!r}", "") or SECRET in values, name
                if not allowed:
                    assert said[0][0] == DENIED


def _answer(
    connection: Connection, call: sql.Composed, parameters: list[str], values: list[str], dataset: str
) -> tuple[str, str]:
    given = [dataset if name == "p_dataset" else value for name, value in zip(parameters, values, strict=False)]
    try:
        with connection.transaction(force_rollback=True):
            return "", str(connection.execute(call, given).fetchall())
    except psycopg.Error as error:
        diag = error.diag
        said = f"{diag.message_primary} {diag.message_detail} {diag.message_hint} {diag.context}"
        return str(error.sqlstate), said.replace(f"'{dataset}'", "'…'")


@pytest.mark.parametrize("index", [False, True], ids=["exact", "approximate"])
@pytest.mark.parametrize("role", ROLES)
def test_search_finds_none_of_the_other(shared: Shared, role: str, index: bool) -> None:
    with shared.owner() as owner:
        if index:
            owner.execute("CREATE INDEX passing ON memory_embeddings USING hnsw (embedding vector_cosine_ops)")
        try:
            with shared.connect(role) as connection:
                query = "SELECT key, content FROM memory_search(%s, '[1,2,0]', 'secret or own', 50)"
                assert connection.execute(query, [A]).fetchall() == [(f"k{n}", "our own") for n in range(3)]
                query = "SELECT memory_nearest(%s, '[1,2,0]', 50, NULL)"
                for dataset, found in ((A, 3), (B, 0)):
                    [(ids,)] = connection.execute(query, [dataset]).fetchall()
                    assert len(ids) == found
        finally:
            owner.execute("DROP INDEX IF EXISTS passing")


def test_status_tells_nothing_of_the_others_volume(shared: Shared) -> None:
    with shared.connect("reader") as connection, shared.b.connect() as other:
        query = "SELECT * FROM memory_status(%s)"
        before = connection.execute(query, [A]).fetchall()
        payload = json.dumps({"text": "x" * 100_000})
        with other.transaction(force_rollback=True):
            other.execute("SELECT memory_put(%s, 'large', %s::jsonb)", [B, payload])
            assert connection.execute(query, [A]).fetchall() == before
            [large] = other.execute(query, [B]).fetchall()
        [small] = other.execute(query, [B]).fetchall()
    assert large[3] > small[3] > 0, "its own it does tell"


def test_registry_and_history(shared: Shared) -> None:
    for role in ROLES:
        with shared.connect(role) as connection:
            assert connection.execute("SELECT dataset FROM memory_datasets").fetchall() == [(A,)]
            assert refusal(connection, sql.SQL("SELECT * FROM memory_migrations"))[0] == DENIED
            assert refusal(connection, sql.SQL("SELECT * FROM memory_ledger.homes"))[0] == DENIED


def test_no_login_is_in_reach_of_the_other_or_of_the_owner(shared: Shared) -> None:
    with shared.connect("writer") as connection:
        roles = connection.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^mem_'").fetchall()
        mine = shared.a.prefix
        assert len(roles) >= 13
        for (name,) in roles:
            if not name.startswith(mine):
                assert connection.execute("SELECT pg_has_role(%s, 'MEMBER')", [name]).fetchone() == (False,), name
                assert refusal(connection, sql.SQL("SET ROLE {}").format(sql.Identifier(name)))[0] == DENIED


LEAKS: dict[str, tuple[str, Callable[[Shared, str], None]]] = {
    "a policy for everybody": (
        "CREATE POLICY leak ON memory_kv USING (true)",
        test_reads_its_own_rows_only,
    ),
    "a table without row-level security": (
        "ALTER TABLE memory_embeddings DISABLE ROW LEVEL SECURITY",
        test_a_function_that_tells_what_it_is_given_is_given_nothing,
    ),
    "a policy that lets rows be given away": (
        (
            "CREATE POLICY leak ON memory_kv FOR UPDATE USING (dataset = 'ours') WITH CHECK (true);"
            "CREATE POLICY leak_too ON memory_kv FOR SELECT USING (dataset = 'ours' OR version > 1)"
        ),
        test_changes_no_row_of_the_other,
    ),
    "a partition that can be read": (
        "GRANT SELECT ON memory_events_default TO PUBLIC",
        test_what_no_policy_guards_is_denied,
    ),
    "a table of a new release without a policy": (
        (
            "CREATE TABLE later (dataset text PRIMARY KEY); INSERT INTO later VALUES ('ours'), ('theirs');"
            "GRANT SELECT ON later TO PUBLIC"
        ),
        test_reads_its_own_rows_only,
    ),
    "a function with its owner's eyes": (
        (
            "CREATE FUNCTION leak(p_dataset text) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = shared"
            " AS 'SELECT count(*) FROM memory_kv WHERE dataset = p_dataset'; GRANT EXECUTE ON FUNCTION leak TO PUBLIC"
        ),
        test_functions_answer_of_the_other_as_of_nobody,
    ),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_noticed(database: Database, tmp_path: Path, leak: str) -> None:
    shared = _make(database, tmp_path)
    statement, notices = LEAKS[leak]
    notices(shared, "writer")
    with shared.owner() as owner:
        owner.execute(statement.encode())
    with pytest.raises((AssertionError, psycopg.Error)):
        notices(shared, "writer")


PARTITIONS = 1000
LOCKS = """
    SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()
    AND relation IS DISTINCT FROM 'pg_catalog.pg_locks'::regclass
"""


@pytest.fixture
def partitioned(database: Database, tmp_path: Path) -> Shared:
    """A shared schema whose events have 1,000 partitions by time, and a table with 1,000 by dataset."""
    memory = memory_of(database, A)
    provision(memory, tmp_path / "first")
    shared = Shared(memory, memory)
    with shared.owner() as owner:
        owner.execute(
            "CREATE TABLE large (dataset text, key text, PRIMARY KEY (dataset, key)) PARTITION BY LIST (dataset)"
        )
        owner.execute("CREATE TABLE large_ours PARTITION OF large FOR VALUES IN ('ours')")
        for number in range(PARTITIONS - 1):
            owner.execute(f"CREATE TABLE large_{number} PARTITION OF large FOR VALUES IN ('other-{number}')".encode())
        owner.execute("INSERT INTO large SELECT 'ours', k::text FROM generate_series(1, 10) k")
        have = owner.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = 'memory_events'::regclass").fetchone()
        assert have
        for number in range(PARTITIONS - have[0]):
            name, start = f"memory_events_old_{number}", f"timestamptz '2000-01-01Z' + {number} * interval '1 day'"
            owner.execute(
                f"DO $$ BEGIN EXECUTE format('CREATE TABLE {name} PARTITION OF memory_events"
                f" FOR VALUES FROM (%L) TO (%L)', {start}, {start} + interval '1 day'); END $$".encode()
            )
    provision(memory, tmp_path / "second")
    return shared


@pytest.mark.long
def test_plans_stay_pruned_with_a_thousand_partitions(
    partitioned: Shared, record_property: Callable[[str, object], None]
) -> None:
    """At most ten locks: a policy with a literal is known when the statement is planned."""
    statements = {
        "by dataset": "SELECT count(*) FROM large",
        "by dataset and key": "SELECT count(*) FROM large WHERE key = '3'",
        "by time": "SELECT count(*) FROM memory_events"
        " WHERE created_at >= '2000-03-01T12:00:00Z' AND created_at < '2000-03-01T18:00:00Z'",
        "update by dataset": "UPDATE large SET key = key WHERE key = '3'",
    }
    with partitioned.connect("writer") as connection:
        for what, statement in statements.items():
            connection.execute(statement.encode())  # The catalog is read once a session.
            begin = time.perf_counter()
            plan = connection.execute(b"EXPLAIN (SUMMARY) " + statement.encode()).fetchall()
            took = (time.perf_counter() - begin) * 1000
            with connection.transaction():
                connection.execute(statement.encode())
                [(locks,)] = connection.execute(LOCKS).fetchall()
            planning = str(plan[-1][0])
            record_property(what, f"{locks} locks, {planning}")
            print(f"{what}: {locks} locks, {planning}, {took:.1f} ms with the way")
            assert locks <= 10, (what, plan)
            assert "large_0" not in str(plan)
        with connection.transaction():
            connection.execute("SELECT memory_append('ours', 'said', '{}')")
            [(locks,)] = connection.execute(LOCKS).fetchall()
            print(f"memory_append: {locks} locks")
            assert locks <= 10
        for name in ("large_ours", "large_0", "memory_events_old_0"):
            assert refusal(connection, sql.SQL("SELECT FROM {}").format(sql.Identifier(name)))[0] == DENIED
