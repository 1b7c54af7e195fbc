"""Drift: each kind is found and named, nothing is changed but by repair, and that changes nothing else."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from migrations.postgres import sqlfile
from migrations.postgres.drift import check as drift
from migrations.postgres.drift import expected, mending
from migrations.postgres.drift.differences import Difference
from tests.datamodel.homes import provision
from tests.migrations.documents import Memory
from tests.migrations.drifting import Catalog, at_work, catalog, damage, fill, left, said
from tests.postgres import Database, Postgres


@dataclasses.dataclass
class Homes:
    """One home with a row of each kind for all tests of a version: each leaves it as it was."""

    folder: Callable[[], Path]
    stack: ExitStack
    made: dict[int, tuple[Memory, Catalog]] = dataclasses.field(default_factory=dict)

    @contextmanager
    def use(self, postgres: Postgres) -> Iterator[tuple[Memory, Catalog]]:
        version = postgres.version
        if version not in self.made:
            self.made[version] = self._make(self.stack.enter_context(postgres.database()))
        home = self.made.pop(version)
        yield home
        self.made[version] = home  # a test that failed has left it as it is: the next one gets another

    def _make(self, database: Database) -> tuple[Memory, Catalog]:
        memory = Memory(database, reader_password="may-read")
        provision(memory, self.folder() / "request")
        fill(memory)
        return memory, catalog(memory)


@pytest.fixture(scope="session")
def homes(postgres_servers: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    del postgres_servers  # asked for so that the databases go before their servers do
    with ExitStack() as stack:
        yield Homes(lambda: tmp_path_factory.mktemp("drift"), stack)


@dataclasses.dataclass(frozen=True)
class Case:
    """Somebody's statements, and what is said of them."""

    statements: str
    sentences: tuple[str, ...]

    def __init__(self, statements: str, *sentences: str) -> None:
        object.__setattr__(self, "statements", statements)
        object.__setattr__(self, "sentences", sentences)


# As the issue names them.
KINDS = {
    "dropped index": Case("DROP INDEX memory_embeddings_tsv_idx", "index memory_embeddings_tsv_idx is missing"),
    "added column": Case("ALTER TABLE memory_kv ADD extra int", "column memory_kv.extra is not of this version"),
    "changed grant": Case("REVOKE INSERT ON memory_kv FROM {writer}", "writer group lacks INSERT on memory_kv"),
    "disabled trigger": Case(
        "ALTER TABLE memory_kv DISABLE TRIGGER memory_kv_hold", "trigger memory_kv_hold on memory_kv is disabled"
    ),
    "altered type": Case(
        "ALTER TABLE memory_kv ALTER value TYPE text", "column memory_kv.value is text instead of jsonb"
    ),
    "edited function": Case(
        "CREATE OR REPLACE FUNCTION memory_delete_embedding(p_dataset text, p_key text) RETURNS int LANGUAGE sql"
        " AS 'SELECT 1'",
        "function memory_delete_embedding(text,text) was edited",
    ),
    "wrong owner": Case(
        "RESET ROLE; ALTER TABLE notes.memory_kv OWNER TO memory_admin",
        'table memory_kv belongs to "memory_admin" instead of "mem_owner"',
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_and_named_and_nothing_is_changed_but_by_repair(
    postgres: Postgres, homes: Homes, kind: str
) -> None:
    case = KINDS[kind]
    with homes.use(postgres) as (memory, pristine), at_work(memory) as work:
        assert drift.find(work) == []
        damage(memory, case.statements)
        damaged = catalog(memory)
        assert said(memory, drift.find(work)) == sorted(case.sentences)
        assert catalog(memory) == damaged, "a look changes nothing"
        assert drift.repair(work, drift.find(work)) == []
        assert catalog(memory) == pristine, "and nothing else was changed"


# On PostgreSQL 18 alone: what is found does not depend on the version, and versions are slow to go through.
CASES = {
    # Tables
    "unlogged table": Case("ALTER TABLE memory_kv SET UNLOGGED", "table memory_kv is unlogged"),
    "fill factor": Case(
        "ALTER TABLE memory_kv SET (fillfactor = 50)", "table memory_kv lacks the setting fillfactor=85"
    ),
    "row-level security": Case(
        "ALTER TABLE memory_kv ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "row-level security is forced for memory_kv",
        "row-level security is on for memory_kv",
    ),
    "policy": Case(
        "CREATE POLICY every ON memory_kv USING (true)", "policy every on memory_kv is not of this version"
    ),
    "rule": Case(
        "CREATE RULE none AS ON DELETE TO memory_kv DO INSTEAD NOTHING", "rule none on memory_kv is not of this version"
    ),
    # Columns
    "default": Case(
        "ALTER TABLE memory_kv ALTER version SET DEFAULT 7", "column memory_kv.version has another default"
    ),
    "dropped default": Case(
        "ALTER TABLE memory_events ALTER hold DROP DEFAULT", "column memory_events.hold has another default"
    ),
    "added default": Case(
        "ALTER TABLE memory_kv ALTER key SET DEFAULT 'x'", "column memory_kv.key has another default"
    ),
    "may be null": Case(
        "ALTER TABLE memory_kv ALTER value DROP NOT NULL", "column memory_kv.value may be null"
    ),
    "must not be null": Case(
        "ALTER TABLE memory_datasets ALTER metric SET NOT NULL", "column memory_datasets.metric may not be null"
    ),
    "identity": Case(
        "ALTER TABLE memory_datasets ALTER ttl_days DROP DEFAULT;"
        "ALTER TABLE memory_datasets ALTER ttl_days ADD GENERATED BY DEFAULT AS IDENTITY",
        "column memory_datasets.ttl_days has another default",
        "column memory_datasets.ttl_days is an identity column",
    ),
    "computed otherwise": Case(
        "ALTER TABLE memory_embeddings ALTER tsv SET EXPRESSION AS (to_tsvector('english', content))",
        "column memory_embeddings.tsv is computed in another way",
    ),
    "computed": Case(
        "ALTER TABLE memory_datasets DROP embedding_model,"
        " ADD embedding_model text GENERATED ALWAYS AS (nullif(dataset, dataset)) STORED",
        "column memory_datasets.embedding_model is computed from others",
    ),
    "dropped computed column": Case(
        "ALTER TABLE memory_embeddings DROP tsv",
        "column memory_embeddings.tsv is missing",
        "index memory_embeddings_tsv_idx is missing",
    ),
    "type of another length": Case(
        "ALTER TABLE memory_kv ALTER version TYPE numeric", "column memory_kv.version is numeric instead of bigint"
    ),
    "collation": Case(
        'ALTER TABLE memory_event_ids ALTER event_id TYPE text COLLATE "C"',
        "column memory_event_ids.event_id is text COLLATE \"C\" instead of text",
    ),
    # Constraints and indexes
    "dropped primary key": Case(
        "ALTER TABLE memory_kv DROP CONSTRAINT memory_kv_pkey",
        "constraint memory_kv_pkey on memory_kv is missing",
    ),
    "dropped check": Case(
        "ALTER TABLE memory_datasets DROP CONSTRAINT memory_datasets_ttl_days_check",
        "constraint memory_datasets_ttl_days_check on memory_datasets is missing",
    ),
    "changed check": Case(
        "ALTER TABLE memory_datasets DROP CONSTRAINT memory_datasets_ttl_days_check,"
        " ADD CONSTRAINT memory_datasets_ttl_days_check CHECK (ttl_days >= -1)",
        "constraint memory_datasets_ttl_days_check on memory_datasets was changed",
    ),
    "check that was not validated": Case(
        "ALTER TABLE memory_datasets DROP CONSTRAINT memory_datasets_ttl_days_check,"
        " ADD CONSTRAINT memory_datasets_ttl_days_check CHECK (ttl_days >= 0) NOT VALID",
        "constraint memory_datasets_ttl_days_check on memory_datasets is not validated",
    ),
    "added check": Case(
        "ALTER TABLE memory_kv ADD CONSTRAINT short CHECK (length(key) < 99)",
        "constraint short on memory_kv is not of this version",
    ),
    "added unique constraint": Case(
        "ALTER TABLE memory_kv ADD CONSTRAINT once UNIQUE (dataset, version)",
        "constraint once on memory_kv is not of this version",
    ),
    "added index": Case(
        "CREATE INDEX memory_kv_version_idx ON memory_kv (version)",
        "index memory_kv_version_idx is not of this version",
    ),
    "changed index": Case(
        "DROP INDEX memory_embeddings_dataset_key_idx;"
        "CREATE INDEX memory_embeddings_dataset_key_idx ON memory_embeddings (dataset, key)",
        "index memory_embeddings_dataset_key_idx was changed",
    ),
    "invalid index": Case(
        "RESET ROLE; UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'notes.memory_embeddings_tsv_idx'::regclass",
        "index memory_embeddings_tsv_idx is invalid",
    ),
    "invalid primary key": Case(
        "RESET ROLE; UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'notes.memory_kv_pkey'::regclass",
        "index memory_kv_pkey is invalid",
    ),
    # Triggers
    "dropped trigger": Case(
        "DROP TRIGGER memory_kv_hold ON memory_kv", "trigger memory_kv_hold on memory_kv is missing"
    ),
    "added trigger": Case(
        "CREATE TRIGGER extra BEFORE DELETE ON memory_kv FOR EACH ROW EXECUTE FUNCTION memory_refuse_held()",
        "trigger extra on memory_kv is not of this version",
    ),
    "changed trigger": Case(
        "CREATE OR REPLACE TRIGGER memory_kv_hold BEFORE DELETE ON memory_kv"
        " FOR EACH ROW EXECUTE FUNCTION memory_refuse_held()",
        "trigger memory_kv_hold on memory_kv was changed",
    ),
    "trigger of replicas": Case(
        "ALTER TABLE memory_kv ENABLE REPLICA TRIGGER memory_kv_hold",
        "trigger memory_kv_hold on memory_kv does not fire as it should",
    ),
    # Functions
    "dropped function": Case(
        "DROP FUNCTION memory_get(text, text)", "function memory_get(text,text) is missing"
    ),
    "function with another result": Case(
        "DROP FUNCTION memory_get(text, text);"
        "CREATE FUNCTION memory_get(p_dataset text, p_key text) RETURNS int RETURN 1;"
        "REVOKE ALL ON FUNCTION memory_get FROM {writer}; GRANT EXECUTE ON FUNCTION memory_get TO {writer}, {reader};"
        "COMMENT ON FUNCTION memory_get IS 'memory: read'",
        "function memory_get(text,text) was edited",
    ),
    "added function": Case(
        "CREATE FUNCTION memory_get(p_key text) RETURNS int RETURN 1",
        "function memory_get(text) is not of this version",
    ),
    "definer": Case(
        "ALTER FUNCTION memory_get(text, text) SECURITY DEFINER", "function memory_get(text,text) was edited"
    ),
    "search path of a function": Case(
        "ALTER FUNCTION memory_get(text, text) RESET search_path", "function memory_get(text,text) was edited"
    ),
    "function of another owner": Case(
        "RESET ROLE; ALTER FUNCTION notes.memory_get(text, text) OWNER TO memory_admin",
        'function memory_get(text,text) belongs to "memory_admin" instead of "mem_owner"',
    ),
    "lost mark": Case(
        "COMMENT ON FUNCTION memory_get(text, text) IS NULL",
        'function memory_get(text,text) lost the mark "memory: read"',
    ),
    "added mark": Case(
        "COMMENT ON FUNCTION memory_delete(text, text, bigint) IS 'memory: read'",
        'function memory_delete(text,text,bigint) has the mark "memory: read"',
    ),
    # Rights
    "right too much": Case("GRANT UPDATE ON memory_kv TO {reader}", "reader group has UPDATE on memory_kv"),
    "right of a login": Case("GRANT SELECT ON memory_kv TO {ro_a}", "login mem_ro_a has SELECT on memory_kv"),
    "right of everybody": Case("GRANT SELECT ON memory_kv TO PUBLIC", "PUBLIC has SELECT on memory_kv"),
    "right of a stranger": Case(
        "GRANT SELECT, DELETE ON memory_kv TO memory_admin", 'role "memory_admin" has DELETE, SELECT on memory_kv'
    ),
    "right on the registry": Case(
        "GRANT UPDATE ON memory_datasets TO {writer}", "writer group has UPDATE on memory_datasets"
    ),
    "right on the history": Case(
        "GRANT SELECT ON memory_migrations TO {reader}", "reader group has SELECT on memory_migrations"
    ),
    "right to hand on": Case(
        "GRANT SELECT ON memory_kv TO {writer} WITH GRANT OPTION; SET ROLE {writer};"
        "GRANT SELECT ON notes.memory_kv TO memory_admin",
        'role "memory_admin" has SELECT on memory_kv',
        "writer group has SELECT (grantable) on memory_kv",
        "writer group lacks SELECT on memory_kv",
    ),
    "right on a column": Case(
        "GRANT UPDATE (value) ON memory_kv TO {reader}, memory_admin",
        "reader group has UPDATE on memory_kv.value",
        'role "memory_admin" has UPDATE on memory_kv.value',
    ),
    "right on the schema": Case(
        "GRANT CREATE ON SCHEMA notes TO {writer}; REVOKE USAGE ON SCHEMA notes FROM {reader}",
        "reader group lacks USAGE on schema notes",
        "writer group has CREATE on schema notes",
    ),
    "right to call": Case(
        "GRANT EXECUTE ON FUNCTION memory_put TO PUBLIC; REVOKE EXECUTE ON FUNCTION memory_get FROM {reader}",
        "PUBLIC has EXECUTE on memory_put(text,text,jsonb,bigint,interval)",
        "reader group lacks EXECUTE on memory_get(text,text)",
    ),
    "right of the owner": Case("REVOKE ALL ON memory_kv FROM {owner}", "owner lacks " + "DELETE, INSERT, MAINTAIN, "
        "REFERENCES, SELECT, TRIGGER, TRUNCATE, UPDATE on memory_kv"),
    "rights to come": Case(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA notes GRANT DELETE ON TABLES TO {reader};"
        "ALTER DEFAULT PRIVILEGES IN SCHEMA notes REVOKE INSERT ON TABLES FROM {writer};"
        "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON ROUTINES TO PUBLIC;"
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO memory_admin",
        "PUBLIC has EXECUTE on new routines",
        "reader group has DELETE on new tables in the schema",
        'role "memory_admin" has SELECT on new tables',
        "writer group lacks INSERT on new tables in the schema",
    ),
    # The schema, and partitions
    "owner of the schema": Case(
        "RESET ROLE; ALTER SCHEMA notes OWNER TO memory_admin",
        'schema notes belongs to "memory_admin" instead of "mem_owner"',
    ),
    "owner of the history": Case(
        "RESET ROLE; ALTER TABLE notes.memory_migrations OWNER TO memory_admin",
        'table memory_migrations belongs to "memory_admin" instead of "mem_owner"',
    ),
    "right on the history, of the owner": Case(
        "REVOKE ALL ON memory_migrations FROM {owner}",
        "owner lacks rights on schema notes or its table memory_migrations",
    ),
    "owner of the schema, who lets us in": Case(
        "RESET ROLE; ALTER SCHEMA notes OWNER TO memory_admin; GRANT USAGE ON SCHEMA notes TO {owner}",
        'schema notes belongs to "memory_admin" instead of "mem_owner"',
    ),
    "mark of the schema": Case("COMMENT ON SCHEMA notes IS 'mine'", "schema notes does not carry its mark"),
    "trigger of a partition": Case(
        "ALTER TABLE memory_events_default DISABLE TRIGGER memory_events_hold;"
        "DROP TRIGGER memory_events_hold_truncate ON memory_events_default",
        "trigger memory_events_hold on memory_events_default is disabled",
        "trigger memory_events_hold_truncate on memory_events_default is missing",
    ),
    "of a partitioned table, and so of all partitions": Case(
        "ALTER TABLE memory_events ADD extra int; ALTER TABLE memory_events ALTER event_type TYPE varchar(99);"
        "ALTER TABLE memory_events DISABLE TRIGGER memory_events_hold; DROP INDEX memory_events_held_idx;"
        "ALTER TABLE memory_events ADD CHECK (event_type <> 'x'); CREATE INDEX extra ON memory_events (id)",
        "column memory_events.event_type is character varying(99) instead of text",
        "column memory_events.extra is not of this version",
        "constraint memory_events_event_type_check on memory_events is not of this version",
        "index extra is not of this version",
        "index memory_events_held_idx is missing",
        "trigger memory_events_hold on memory_events is disabled",
    ),
    # Roles
    "membership of the admin": Case(
        "RESET ROLE; REVOKE {owner} FROM memory_admin GRANTED BY memory_admin;"
        "ALTER TABLE notes.memory_kv DISABLE TRIGGER memory_kv_hold",
        "role memory_admin cannot become role mem_owner",
    ),
    "attribute": Case("RESET ROLE; ALTER ROLE {writer} LOGIN", "group mem_writer can log in"),
    "membership": Case(
        "RESET ROLE; REVOKE {reader} FROM {writer} GRANTED BY memory_admin;"
        "SET ROLE memory_admin; GRANT {owner} TO {rw_a} WITH SET TRUE",
        "login mem_rw_a can become role mem_owner",
        "login mem_rw_a is in role mem_owner",
        "role mem_writer is not in role mem_reader",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_it_is_found_and_put_back(postgres18: Postgres, homes: Homes, kind: str) -> None:
    case = CASES[kind]
    with homes.use(postgres18) as (memory, pristine), at_work(memory) as work:
        damage(memory, case.statements)
        differences = drift.find(work)
        assert said(memory, differences) == sorted(case.sentences)
        assert said(memory, drift.repair(work, differences)) == []
        assert catalog(memory) == pristine


@pytest.fixture
def home(database: Database, tmp_path: Path) -> Memory:
    """A home of the test's own on PostgreSQL 18, with a row of each kind."""
    memory = Memory(database, reader_password="may-read")
    provision(memory, tmp_path / "request")
    fill(memory)
    return memory


def test_what_holds_values_is_never_dropped_and_what_lost_them_is_not_made_up(home: Memory) -> None:
    assert left(
        home,
        "ALTER TABLE memory_kv ADD a int, ADD b int; UPDATE memory_kv SET a = 1; ALTER TABLE memory_kv DROP updated_at;"
        "DROP TABLE memory_event_ids; CREATE TABLE junk (a int); CREATE VIEW seen AS SELECT key FROM memory_kv;"
        "CREATE SEQUENCE counter; CREATE TYPE pair AS (a int, b int); CREATE TYPE mood AS ENUM ('sad', 'happy')",
    ) == [
        "column memory_kv.a is not of this version: it holds values: drop it by hand when nobody needs them",
        "column memory_kv.updated_at is missing: its values are gone: restore them from a backup",
        "sequence counter is not of this version",
        "table junk is not of this version",
        "table memory_event_ids is missing: restore it from a backup",
        "type mood is not of this version",
        "type pair is not of this version",
        "view seen is not of this version",
    ]


def test_a_column_that_lost_nothing_comes_back(home: Memory) -> None:
    assert left(home, "TRUNCATE memory_kv; ALTER TABLE memory_kv DROP updated_at, DROP version") == []
    with home.connect() as connection:
        connection.execute("SELECT memory_put('notes', 'k', '1')")
        [row] = connection.execute("SELECT version, updated_at IS NULL FROM memory_kv").fetchall()
    assert row == (1, False)


def test_a_type_is_put_back_only_when_no_value_is_lost(home: Memory) -> None:
    """And the sentence holds none of the values."""
    to_text = "ALTER TABLE memory_kv ALTER value TYPE text; ALTER TABLE memory_kv ALTER version TYPE text;"
    stays = [
        (
            "column memory_kv.value is text instead of jsonb: some of its values are not the same as jsonb: "
            "convert them by hand"
        ),
        (
            "column memory_kv.version is text instead of bigint: some of its values are not the same as bigint: "
            "convert them by hand"
        ),
    ]
    assert left(home, to_text + """UPDATE memory_kv SET value = '{{"secret":1}}', version = 'secret'""") == stays
    assert left(home, "UPDATE memory_kv SET value = 'secret', version = '007'") == stays
    with home.database.superuser() as connection:
        rows = connection.execute("SELECT value, version FROM notes.memory_kv").fetchall()
    assert rows == [("secret", "007")]
    assert left(home, """UPDATE memory_kv SET value = '{{"secret": 1}}', version = '7'""") == []


def test_rows_that_break_a_rule_keep_it_from_coming_back(home: Memory) -> None:
    assert left(
        home,
        "ALTER TABLE memory_kv DROP CONSTRAINT memory_kv_pkey; DROP INDEX memory_embeddings_dataset_key_idx;"
        "ALTER TABLE memory_embeddings ALTER created_at DROP NOT NULL;"
        "INSERT INTO memory_kv SELECT * FROM memory_kv;"
        "INSERT INTO memory_embeddings (dataset, key, embedding, created_at) SELECT dataset, key, embedding, NULL"
        " FROM memory_embeddings",
    ) == [
        "column memory_embeddings.created_at may be null: the rows that are there do not allow it",
        "constraint memory_kv_pkey on memory_kv is missing: the rows that are there do not allow it",
        "index memory_embeddings_dataset_key_idx is invalid: the rows that are there do not allow it",
    ]


def test_what_others_own_is_named_and_never_touched(home: Memory) -> None:
    """And what cannot be mended keeps nothing else from being mended."""
    damage(
        home,
        "DROP INDEX memory_embeddings_tsv_idx; RESET ROLE; CREATE TABLE notes.theirs (a int);"
        "CREATE FUNCTION notes.theirs() RETURNS int RETURN 1; ALTER TABLE notes.memory_kv OWNER TO postgres;"
        "ALTER ROLE {writer} BYPASSRLS",
    )
    with at_work(home) as work:
        before = drift.find(work)
        after = drift.repair(work, before)
    assert said(home, before) == [
        'function theirs() is not of this version and belongs to "postgres"',
        "index memory_embeddings_tsv_idx is missing",
        "role mem_writer is BYPASSRLS",
        'table memory_kv belongs to "postgres" instead of "mem_owner"',
        'table theirs is not of this version and belongs to "postgres"',
    ]
    assert said(home, after) == [
        'function theirs() is not of this version and belongs to "postgres"',
        "role mem_writer is BYPASSRLS: permission denied to alter role",
        'table memory_kv belongs to "postgres" instead of "mem_owner": must be owner of table memory_kv',
        'table theirs is not of this version and belongs to "postgres"',
    ]


def test_who_holds_a_lock_is_not_waited_for_long(home: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(mending, "ALONE_SECONDS", 0.5)
    damage(home, "DROP INDEX memory_embeddings_tsv_idx; ALTER TABLE memory_events DISABLE TRIGGER memory_events_hold")
    with home.connect() as client, at_work(home) as work:
        with client.transaction():
            client.execute("SELECT memory_put('notes', 'k', '2')")
            client.execute("SELECT memory_upsert_embedding('notes', 'k', '[1,2,3]')")
            with home.database.superuser() as connection:  # a client at work lets nobody else disable it
                connection.execute("UPDATE pg_trigger SET tgenabled = 'D' WHERE tgname = 'memory_kv_hold'")
            stays = drift.repair(work, drift.find(work))
        assert said(home, stays) == [
            "index memory_embeddings_tsv_idx is invalid: it is locked, the next run tries again",
            "trigger memory_kv_hold on memory_kv is disabled: it is locked, the next run tries again",
        ]
        assert work.connection.execute("SHOW lock_timeout").fetchone() == ("5s",)
        assert drift.repair(work, drift.find(work)) == []


def test_the_history_must_match_the_files(home: Memory) -> None:
    damage(home, "UPDATE memory_migrations SET sha256 = 'x' WHERE version = '0003' AND module = 'core'")
    title = "migration core/0003_kv.sql differs from what was applied here as core/0003_kv.sql"
    with at_work(home) as work:
        assert said(home, drift.find(work)) == [f"{title}: restore the file, and put the change into a new one"]
    damage(home, "DELETE FROM memory_migrations WHERE version = '0003' AND module = 'core'")
    with at_work(home) as work:
        [difference] = drift.find(work)
    assert "migration core/0003_kv.sql comes before" in str(difference)
    damage(home, "DELETE FROM memory_migrations WHERE module = 'core' AND version > '0003'")
    lacks = "which the history of this Memory lacks"
    assert left(home, "SELECT 1") == [
        f"function memory_delete(text,text,bigint) is of core/0003_kv.sql, {lacks}",
        f"function memory_get(text,text) is of core/0003_kv.sql, {lacks}",
        f"function memory_put(text,text,jsonb,bigint,interval) is of core/0003_kv.sql, {lacks}",
        f"function memory_status(text) is of core/0004_status.sql, {lacks}",
        f"function memory_version_conflict(text,text,bigint) is of core/0003_kv.sql, {lacks}",
        f"index memory_events_held_idx is of core/0005_held_events.sql, {lacks}",
        f"table memory_kv is of core/0003_kv.sql, {lacks}",
    ]
    damage(home, "DROP TABLE memory_migrations")
    with at_work(home) as work:
        assert said(home, drift.find(work)) == ["table memory_migrations is missing: restore it from a backup"]


def test_files_that_are_still_to_come_are_no_drift(home: Memory, tmp_path: Path) -> None:
    folder = tmp_path / "sql"
    shutil.copytree(sqlfile.FOLDER, folder)
    (folder / "core" / "0099_more.sql").write_text("CREATE TABLE @{schema}.memory_more (a int);")
    with at_work(home) as work:
        assert drift.find(work, folder) == []
        (folder / "core" / "0099_more.sql").unlink()
        (folder / "core" / "0005_held_events.sql").unlink()
        [difference] = drift.find(work, folder)
    assert "which this image does not have" in str(difference)


def test_an_index_that_is_built_alone_is_expected(home: Memory, tmp_path: Path) -> None:
    folder = tmp_path / "sql"
    shutil.copytree(sqlfile.FOLDER, folder)
    alone = "-- memory: no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS seen_idx ON @{schema}.memory_kv (key);"
    (folder / "core" / "0099_seen.sql").write_text(alone)
    with at_work(home) as work:
        [file] = [file for file in sqlfile.read("core", folder) if file.version == "0099"]
        damage(
            home,
            "INSERT INTO memory_migrations (module, version, name, sha256, duration_ms, tool_version)"
            f" VALUES ('core', '0099', 'seen', '{file.sha256}', 1, 'x')",
        )
        assert said(home, drift.find(work, folder)) == ["index seen_idx is missing"]
        assert drift.repair(work, drift.find(work, folder), folder) == []
        [row] = work.connection.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'notes.seen_idx'::regclass")
    assert row == (True,)


def test_the_earned_index_is_another_steps(home: Memory) -> None:
    damage(home, "CREATE INDEX memory_embeddings_vector_idx ON memory_embeddings USING hnsw (embedding vector_l2_ops)")
    with at_work(home) as work:
        assert drift.find(work) == []


def test_extension_is_watched(home: Memory) -> None:
    damage(home, "RESET ROLE; UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    with at_work(home) as work:
        assert said(home, drift.find(work)) == ["extension vector is 0.7.4, older than 0.8.0"]
    damage(
        home,
        "RESET ROLE; UPDATE pg_extension SET extversion = '0.8.1' WHERE extname = 'vector';"
        "CREATE SCHEMA elsewhere; ALTER EXTENSION vector SET SCHEMA elsewhere",
    )
    with at_work(home) as work:
        found = said(home, drift.find(work))
    assert found == [
        'extension vector is in schema "elsewhere" instead of "public"',
        "owner lacks USAGE on schema elsewhere",
        "reader group lacks USAGE on schema elsewhere",
        "writer group lacks USAGE on schema elsewhere",
    ]
    assert left(home, "RESET ROLE; GRANT USAGE ON SCHEMA elsewhere TO PUBLIC") == []
    with home.connect() as connection:
        connection.execute("SET search_path = notes, elsewhere")
        assert connection.execute("SELECT key FROM memory_search('notes', '[1,2,3]')").fetchone() == ("k",)
    damage(home, "RESET ROLE; DROP EXTENSION vector CASCADE; ALTER TABLE notes.memory_kv ADD extra int")
    with at_work(home) as work:
        assert said(home, drift.find(work)) == [
            "column memory_kv.extra is not of this version",
            "extension vector is missing",
        ]


def test_partitions_are_held_to_what_a_fresh_one_has(home: Memory) -> None:
    with home.database.superuser() as connection:
        query = "SELECT max(relname) FROM pg_class WHERE relispartition AND relname ~ '^memory_events_[0-9]+$'"
        [(name,)] = connection.execute(query).fetchall()
    damage(
        home,
        f"DROP TRIGGER memory_events_hold_truncate ON {name}; ALTER TABLE {name} DISABLE TRIGGER memory_events_hold;"
        f"GRANT TRUNCATE ON {name} TO {{writer}}; ALTER TABLE {name} ALTER hold DROP DEFAULT;"
        f"CREATE INDEX extra ON {name} (id); ALTER TABLE {name} ADD CONSTRAINT small CHECK (pg_column_size(id) < 99)",
    )
    with at_work(home) as work:
        differences = drift.find(work)
        assert said(home, differences) == [
            f"column {name}.hold has another default",
            f"constraint small on {name} is not of this version",
            "index extra is not of this version",
            f"trigger memory_events_hold on {name} is disabled",
            f"trigger memory_events_hold_truncate on {name} is missing",
            f"writer group has TRUNCATE on {name}",
        ]
        assert drift.repair(work, differences) == []


def test_an_index_of_all_partitions_comes_back_while_clients_write(home: Memory) -> None:
    """A partition with rows gets its own first, which locks nobody out."""
    pristine = catalog(home)
    damage(home, "DROP INDEX memory_events_held_idx")
    with at_work(home) as work:
        log = home.database.server.data.parent / "postgresql.log"
        before = log.stat().st_size
        assert drift.repair(work, drift.find(work)) == []
        with log.open("rb") as lines:
            lines.seek(before)
            statements = [line for line in lines.read().decode().splitlines() if "CREATE INDEX" in line]
        shown = [line.split("statement: ")[1] for line in statements if "ON ONLY" not in line and "ON notes." in line]
    assert len(shown) == 2, shown
    assert shown[0].startswith("CREATE INDEX CONCURRENTLY ON notes.memory_events_")
    assert shown[1].startswith("CREATE INDEX memory_events_held_idx ON notes.memory_events USING btree")
    assert catalog(home) == pristine


def test_what_is_no_table_any_more_and_what_was_computed_is_a_persons(home: Memory) -> None:
    assert left(
        home,
        "DROP TABLE memory_event_ids; CREATE VIEW memory_event_ids AS SELECT 1 AS a;"
        "ALTER TABLE memory_events DETACH PARTITION memory_events_default;"
        "ALTER TABLE memory_embeddings ALTER tsv DROP EXPRESSION",
    ) == [
        "column memory_embeddings.tsv is not computed from others",
        "memory_event_ids is a view instead of a table",
        "table memory_events_default is no partition of memory_events: attach it again by hand",
    ]


def test_what_somebody_changed_is_never_taken_for_what_should_be(home: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look finds it: what is expected is made by the very owner whose default privileges were changed."""
    monkeypatch.setattr(expected, "_known", {})
    damage(
        home,
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {reader}, memory_admin;"
        "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON ROUTINES TO {reader}, memory_admin;"
        "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO memory_admin;"
        "ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM {owner}; SET search_path = pg_catalog;"
        "ALTER FUNCTION notes.memory_get(text, text) SECURITY DEFINER",
    )
    everything = "DELETE, INSERT, MAINTAIN, REFERENCES, SELECT, TRIGGER, TRUNCATE, UPDATE"
    with at_work(home) as work:
        assert said(home, drift.find(work)) == [
            "function memory_get(text,text) was edited",
            f"owner lacks {everything} on new tables",
            f"reader group has {everything} on new tables",
            "reader group has EXECUTE on new routines",
            f'role "memory_admin" has {everything} on new tables',
            'role "memory_admin" has EXECUTE on new routines',
        ]
        assert drift.repair(work, drift.find(work)) == []


def test_homes_that_should_be_the_same_are_tried_out_once(
    home: Memory, postgres18: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expected, "_known", {})

    def tried() -> int:
        return postgres18.statements().count('CREATE SCHEMA "memory_drift_schema')

    with at_work(home) as work:
        before = tried()
        assert [drift.find(work), drift.find(work)] == [[], []]
        assert tried() == before + 1
        monkeypatch.setattr(expected, "_KEPT", 1)
        changed = work.place.embeddings.model_copy(update={"dimension": 4})
        homes = tuple(dataclasses.replace(each, embeddings=changed) for each in work.place.homes)
        other = dataclasses.replace(work, place=dataclasses.replace(work.place, homes=homes))
        differences = ["column memory_embeddings.embedding is public.vector(3) instead of public.vector(4)"]
        assert said(home, drift.find(other)) == differences
        assert drift.find(work) == []
        assert tried() == before + 3


def test_what_was_refused_is_tried_again_when_owners_are_right(home: Memory) -> None:
    damage(home, "ALTER TABLE memory_kv DISABLE TRIGGER memory_kv_hold")
    with at_work(home) as work:
        differences = drift.find(work)
        damage(home, "RESET ROLE; REVOKE {owner} FROM memory_admin GRANTED BY memory_admin")
        assert drift.repair(work, differences) == []


def test_a_broken_connection_ends_a_repair(home: Memory) -> None:
    damage(home, "ALTER TABLE memory_kv DISABLE TRIGGER memory_kv_hold")
    with at_work(home) as work:
        differences = drift.find(work)
        with home.database.superuser() as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", [work.connection.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            drift.repair(work, differences)


def test_a_sentence_is_no_longer_than_a_status_takes() -> None:
    assert len(str(Difference("x" * 400))) == 300


def test_a_home_that_is_not_there_is_one_sentence(home: Memory) -> None:
    assert left(home, "DROP SCHEMA notes CASCADE") == ["schema notes is missing: restore it from a backup"]
