"""What provisioning leaves behind, on every version of PostgreSQL."""

import re
import time

import psycopg
import pytest
from psycopg import sql

from migrations import __version__
from tests.migrations.documents import ROOT, Command, Memory, verifier
from tests.postgres import Database, Postgres


def test_home_works_with_nothing_but_the_binding(any_database: Database, command: Command) -> None:
    memory = Memory(any_database)
    answer = command.provision(memory)
    assert (answer.code, answer.report["reason"]) == (0, "Succeeded"), answer
    assert answer.report["modules"] == [
        {"name": "core", "version": "0005"},
        {"name": "embeddings", "version": "0003"},
    ]
    assert answer.report["server"]["version"].startswith(str(any_database.server.version))
    with memory.connect() as connection:
        connection.execute("SELECT memory_append('notes', 'said', '{\"text\": \"hello\"}')")
        connection.execute("SELECT memory_put('notes', 'k', '1')")
        connection.execute("SELECT memory_upsert_embedding('notes', 'a', '[1,2,3]', 'some words')")
        found = connection.execute("SELECT key FROM memory_search('notes', '[1,2,3]')").fetchall()
        assert found == [("a",)]
        registry = connection.execute(
            "SELECT embedding_dimension, metric, ttl_days, legal_hold, index_state FROM memory_datasets"
        ).fetchall()
        assert registry == [(3, "cosine", 0, False, "exact")]


def test_verify_finds_nothing_but_what_public_has_on_the_database(any_database: Database, command: Command) -> None:
    answer = command.provision(Memory(any_database, reader_password="reader-password"))
    assert answer.report["verify"] == [
        f"PUBLIC has CONNECT on database {any_database.name}",
        f"PUBLIC has TEMPORARY on database {any_database.name}",
    ]


def test_verify_tells_what_is_wrong(memory: Memory, command: Command) -> None:
    command.provision(memory)
    with memory.database.superuser() as connection:
        role = sql.Identifier(memory.writer.username)
        connection.execute(sql.SQL("ALTER ROLE {} BYPASSRLS").format(role))
        # Not a role with rights of its own: the admin inherits from the logins, and other tests share the admin.
        connection.execute(sql.SQL("CREATE ROLE archivists; GRANT archivists TO {}").format(role))
        connection.execute("CREATE TABLE notes.foreign_table (a int); GRANT TRUNCATE ON notes.foreign_table TO PUBLIC")
    found = command.provision(memory).report["verify"]
    name = memory.writer.username
    for expected in (
        f"role {name} is BYPASSRLS",
        f"login {name} is in role archivists",
        f"login {name} can become role archivists",
        f"login {name} has TRUNCATE, REFERENCES or TRIGGER on foreign_table",
        "PUBLIC has TRUNCATE on foreign_table",
    ):
        assert expected in found


def test_no_password_reaches_the_server(postgres: Postgres, command: Command) -> None:
    with postgres.database() as database:
        memory = Memory(database, password="plaintext-of-the-writer", reader_password="plaintext-of-the-reader")
        assert command.provision(memory).code == 0
    log = postgres.statements()
    assert f'ALTER ROLE "{memory.prefix}_rw_a"' in log
    for secret in ("plaintext-of-the-writer", "plaintext-of-the-reader", database.server.admin.password):
        assert secret not in log


def test_log_and_report_hold_no_secret(memory: Memory, command: Command) -> None:
    answer = command.provision(memory)
    text = str(answer)
    assert "SCRAM-SHA-256$" not in text
    assert memory.password not in text
    assert memory.database.server.admin.password not in text


def test_settings_of_a_login(memory: Memory, command: Command) -> None:
    command.provision(memory)

    def settings() -> tuple[object, ...] | None:
        with memory.connect() as connection:
            return connection.execute(
                "SELECT current_setting('search_path'), current_setting('statement_timeout'),"
                " current_setting('idle_in_transaction_session_timeout'), current_setting('hnsw.iterative_scan', true),"
                " (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user)"
            ).fetchone()

    assert settings() == ("notes, public", "30s", "1min", "relaxed_order", 20)
    command.provision(memory.but(provider={"connectionLimit": None, "statementTimeout": None}))
    assert settings() == ("notes, public", "0", "1min", "relaxed_order", -1)


def test_embeddings_off_needs_no_extension(postgres18: Postgres, command: Command) -> None:
    with postgres18.database(vector=False) as database:
        memory = Memory(database, embeddings={"enabled": False}, provider={"enablePgVector": False})
        answer = command.provision(memory)
        assert answer.code == 0, answer
        assert answer.report["modules"] == [{"name": "core", "version": "0005"}]
        with memory.connect() as connection:
            assert connection.execute("SHOW search_path").fetchone() == ("notes",)
            row = connection.execute("SELECT embedding_dimension, metric, index_state FROM memory_datasets").fetchone()
            assert row == (None, None, None)
            with pytest.raises(psycopg.errors.UndefinedFunction):
                connection.execute("SELECT * FROM memory_search('notes', p_query => 'x')")
        with database.connect() as connection:
            assert connection.execute("SELECT dimension FROM memory_ledger.homes").fetchone() == (None,)


def test_embeddings_come_later_and_stay_when_switched_off(memory: Memory, command: Command) -> None:
    assert command.provision(memory.but(embeddings={"enabled": False})).code == 0
    assert command.provision(memory).code == 0
    with memory.connect() as connection:
        connection.execute("SELECT memory_upsert_embedding('notes', 'a', '[1,2,3]')")
    assert command.provision(memory.but(embeddings={"enabled": False})).code == 0
    with memory.connect() as connection:
        assert connection.execute("SELECT key FROM memory_search('notes', '[1,2,3]')").fetchall() == [("a",)]


def test_partitions_are_a_year_ahead_and_made_again(memory: Memory, command: Command) -> None:
    command.provision(memory)
    names = "SELECT relid::regclass::text FROM pg_partition_tree('notes.memory_events') WHERE isleaf ORDER BY 1"
    with memory.database.superuser() as connection:
        before = connection.execute(names).fetchall()
        assert len(before) == 14  # this month, twelve ahead, DEFAULT
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.SQL(before[0][0])))
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.SQL(before[12][0])))
        command.provision(memory)
        assert connection.execute(names).fetchall() == before


def test_rows_in_default_go_to_the_month_that_is_made_for_them(memory: Memory, command: Command) -> None:
    command.provision(memory)
    with memory.database.superuser() as connection:
        query = "SELECT max(relname) FROM pg_class WHERE relname ~ '^memory_events_[0-9]+$'"
        last = connection.execute(query).fetchone()
        assert last
        name = str(last[0])
        connection.execute(sql.SQL("DROP TABLE notes.{}").format(sql.Identifier(name)))
        month = f"{name[-6:-2]}-{name[-2:]}-02T00:00:00Z"
        connection.execute(
            "INSERT INTO notes.memory_events (dataset, event_type, payload, created_at)"
            " VALUES ('notes', 'x', '{}', %s)",
            [month],
        )
        answer = command.provision(memory)
        assert (answer.code, answer.report["warnings"]) == (0, [])
        rows = connection.execute("SELECT tableoid::regclass::text FROM notes.memory_events").fetchall()
        assert rows == [(f"notes.{name}",)]


def test_claim_changes_reach_the_registry_and_the_ledger(memory: Memory, command: Command) -> None:
    command.provision(memory)
    changed = memory.but(extra={"retention": {"ttlDays": 30}, "legalHold": True, "deletionPolicy": "Delete"})
    assert command.provision(changed).code == 0
    with memory.database.connect() as connection:
        row = connection.execute(
            "SELECT identity, xr_uid, provider_uid, dimension, ttl_days, legal_hold, deletion_policy"
            " FROM memory_ledger.homes WHERE home = 'notes'"
        ).fetchone()
        assert row == ("team-a/notes", "uid-1", "provider-uid", 3, 30, True, "Delete")
    with memory.connect() as connection:
        assert connection.execute("SELECT ttl_days, legal_hold FROM memory_datasets").fetchone() == (30, True)


@pytest.mark.parametrize(
    ("embeddings", "kind"),
    [
        pytest.param({"dimension": 2000}, "vector(2000)", id="auto keeps full precision while an index can hold it"),
        pytest.param({"dimension": 2001}, "halfvec(2001)", id="auto halves above the limit of an index on vector"),
        pytest.param({"dimension": 3, "storage": "half"}, "halfvec(3)", id="half when asked for"),
        pytest.param({"dimension": 3072, "storage": "full"}, "vector(3072)", id="full when asked for"),
    ],
)
@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_storage_and_metric(
    memory: Memory, command: Command, embeddings: dict[str, object], kind: str, metric: str
) -> None:
    wanted = memory.but(embeddings={**embeddings, "metric": metric})
    assert command.provision(wanted).code == 0
    vector = [1.0] + [0.5] * (int(str(embeddings["dimension"])) - 1)
    with memory.connect() as connection:
        row = connection.execute(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 'memory_embeddings'::regclass AND attname = 'embedding'"
        ).fetchone()
        assert row == (kind,)
        connection.execute("SELECT memory_upsert_embedding('notes', 'a', %s)", [str(vector)])
        found = connection.execute("SELECT key, distance FROM memory_search('notes', %s)", [str(vector)]).fetchone()
        assert found
        assert found[0] == "a"
        assert (found[1] < 0) == (metric == "ip")


def test_closed_login_is_cut_and_a_draining_one_is_left(memory: Memory, command: Command) -> None:
    command.provision(memory)
    rotated = memory.document()
    slots = {login["name"][-4:]: login for login in rotated["logins"]}
    slots["rw_a"].update(state="draining")
    del slots["rw_a"]["verifier"]
    slots["rw_b"].update(state="active", verifier=verifier("second-password"))
    admin = memory.database.server.admin
    old = memory.connect()
    assert command.run("provision", rotated, admin).code == 0
    second = type(admin)(f"{memory.prefix}_rw_b", "second-password")
    memory.connect().close()
    memory.database.connect(second).close()
    assert old.execute("SELECT 1").fetchone() == (1,)

    slots["rw_a"].update(state="closed")
    assert command.run("provision", rotated, admin).code == 0
    with pytest.raises(psycopg.OperationalError):
        old.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|not permitted to log in"):
        memory.connect()
    memory.database.connect(second).close()


def test_run_with_nothing_to_do_changes_no_definition_and_is_quick(memory: Memory, command: Command) -> None:
    command.provision(memory)
    begin = time.monotonic()
    answer = command.provision(memory)
    took = time.monotonic() - begin
    assert answer.code == 0
    assert not [step for step in answer.steps if step.startswith("migration:")]
    assert took < 1.0, f"{took:.3f} s: the benchmark says 150 ms, this is only the order of magnitude"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param(
            {"extra": {"modules": ["core", "astrology"]}},
            'modules: "astrology" is not in this migrations image, which has core, embeddings: leave it out',
            id="a module that this image does not carry",
        ),
        pytest.param(
            {"provider": {"enablePgVector": False}},
            'embeddings.enabled: provider "pg" has no pgvector (postgres.enablePgVector is false): '
            "set embeddings.enabled to false, or choose another provider",
            id="embeddings on a provider without pgvector",
        ),
    ],
)
def test_unsupported_module_is_16(memory: Memory, command: Command, changes: dict[str, object], sentence: str) -> None:
    answer = command.provision(memory.but(**changes))
    assert (answer.code, answer.report["reason"], answer.message) == (16, "ModuleUnsupported", sentence)


def test_tool_version_is_the_projects() -> None:
    found = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found
    assert found[1] == __version__
