"""One run of `maintain` over homes of every kind: each in its place, and reports that say something."""

import json
from typing import Any

import pytest
from psycopg import sql

from memoryctl.embedded import Login
from migrations.answers import rounded
from migrations.postgres.maintenance import measure, vacuum
from migrations.postgres.maintenance.places import Work
from migrations.postgres.maintenance.run import AT_ONCE
from tests.migrations.documents import Command, Memory
from tests.migrations.maintained import maintain, report_of
from tests.migrations.test_cnpg import CNPG, JOB_PASSWORD, Operator
from tests.postgres import Database


def old_event(memory: Memory) -> None:
    with memory.connect() as writer:
        writer.execute(
            "INSERT INTO memory_events (dataset, id, event_type, payload, created_at)"
            " VALUES (%s, gen_random_uuid(), 'old', '1', now() - interval '50 days')",
            [memory.dataset],
        )


def events(memory: Memory) -> int:
    with memory.connect() as writer:
        row = writer.execute("SELECT events FROM memory_status(%s)", [memory.dataset]).fetchone()
    assert row
    return int(row[0])


@pytest.mark.parametrize("isolation", ["Schema", "Database", "Dataset"])
def test_each_isolation_is_looked_after(any_database: Database, command: Command, isolation: str) -> None:
    memory = Memory(any_database, provider={"isolation": isolation}, extra={"retention": {"ttlDays": 10}})
    assert command.provision(memory).code == 0
    try:
        old_event(memory)
        done = maintain(command, memory)
        assert done.answer.report["code"] == 0, done.answer.log
        assert done.of()["retention"]["deleted"] == 1
        assert events(memory) == 0
    finally:
        if isolation == "Database":
            with memory.database.superuser() as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(memory.prefix)))


def test_under_cloudnative_pg_a_run_has_one_home_and_no_admin(any_database: Database, command: Command) -> None:
    memory = Memory(any_database, provider=CNPG, extra={"retention": {"ttlDays": 10}})
    operator = Operator(memory, command)
    operator.make()
    try:
        assert operator.provision().code == 0
        old_event(memory)
        only = {"identity": memory.identity, "database": memory.home.name, "schema": memory.schema}
        answer = command.run(
            "maintain", memory.maintain_document(memory=only), Login(f"{memory.prefix}_job", JOB_PASSWORD)
        )
        assert answer.report["code"] == 0, answer.log
        assert answer.report["homes"] == {"inUse": 1, "failed": 0}
        assert events(memory) == 0
        report = json.loads((command.folder / "reports" / "databases" / "mem-report.json").read_text())
        assert json.loads(report["maintenance"])["retention"]["deleted"] == 1
    finally:
        operator.remove()


def test_many_homes_are_looked_after_a_few_at_once(database: Database, command: Command) -> None:
    memories = [
        report_of(
            Memory(database, identity=f"team/m{n}", uid=f"u{n}", schema=f"s{n}", embeddings={"enabled": False}), f"r{n}"
        )
        for n in range(AT_ONCE + 3)
    ]
    for memory in memories:
        assert command.provision(memory).code == 0
    done = maintain(command, memories[0])
    assert done.answer.message == f"homes: {AT_ONCE + 3} looked after"
    for number in range(AT_ONCE + 3):
        assert done.of(f"r{number}")["code"] == 0
    assert done.of("r0")["index"]["reason"] == "Disabled"


def test_a_mistake_of_ours_in_a_step_stops_no_other(
    database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, row = Memory(database), "a row's secret"
    command.provision(memory)

    def mistaken(_: Work) -> None:
        raise ZeroDivisionError(row)

    monkeypatch.setattr(vacuum, "look_after", mistaken)
    done = maintain(command, memory)
    assert (done.answer.code, done.answer.report["reason"]) == (0, "JobFailed")
    assert done.answer.message.endswith("notes: vacuum: unexpected ZeroDivisionError: see the log")
    assert row not in json.dumps(done.answer.log)
    assert (done.of()["drift"], done.of()["message"]) == ([], "vacuum: unexpected ZeroDivisionError: see the log")


def test_a_run_without_time_says_so(database: Database, command: Command) -> None:
    memory = Memory(database)
    command.provision(memory)
    answer = command.run("maintain", memory.maintain_document(), memory.database.server.admin, deadline="0.000001")
    assert "the deadline came first: the next run takes another order" in answer.message


def test_a_home_whose_logins_are_closed_is_left_to_the_reaper(database: Database, command: Command) -> None:
    memory = Memory(database)
    command.provision(memory)
    with database.connect() as admin:
        admin.execute("UPDATE memory_ledger.homes SET closed_at = now()")
    assert maintain(command, memory).answer.message == "homes: 0 looked after"


def test_a_home_that_is_not_whole_yet_is_left_to_its_job(database: Database, command: Command) -> None:
    memory = Memory(database)
    command.kill_at(memory, "migrations")
    assert maintain(command, memory).answer.message == "homes: 0 looked after"
    command.provision(memory)
    assert maintain(command, memory).answer.message == "homes: 1 looked after"


def test_a_home_that_an_earlier_version_made_waits_for_its_job(database: Database, command: Command) -> None:
    memory = Memory(database)
    command.provision(memory)
    with database.connect() as admin:
        admin.execute("ALTER TABLE memory_ledger.homes DROP COLUMN policy")
    assert maintain(command, memory).answer.message == "homes: 0 looked after"
    command.provision(memory)
    assert maintain(command, memory).answer.message == "homes: 1 looked after"


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"retention": 1, "index": "x"}'])
def test_a_report_that_somebody_broke_is_written_anew(database: Database, command: Command, text: str) -> None:
    memory = Memory(database)
    command.provision(memory)
    maintain(command, memory)
    path = command.folder / "reports" / "databases" / "mem-report.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({"maintenance": text, "provision": "theirs"}))
    maintain(command, memory)
    assert json.loads(path.read_text()) == {**whole, "provision": "theirs"}


def test_what_is_there_is_measured(database: Database, command: Command) -> None:
    memory = Memory(database)
    command.provision(memory)
    with memory.connect() as writer:
        for number in range(123):
            writer.execute("SELECT memory_append('notes', 'x', '1')")
            writer.execute("SELECT memory_upsert_embedding('notes', %s, '[1,2,3]')", [str(number)])
        writer.execute("SELECT memory_put('notes', 'k', '1')")
        writer.execute("UPDATE memory_embeddings SET hold = true WHERE key = '7'")
    said: dict[str, Any] = maintain(command, memory).of()
    assert said["data"]["rows"] == 250, "two digits of 247"
    assert said["data"]["held"] == 1
    assert said["data"]["deadPercent"] == 0
    assert said["data"]["bytes"] > 100_000
    assert said["data"]["oldest"].endswith("T00:00:00Z")
    assert said["index"]["rows"] == 120
    assert said["index"]["bytes"] > 0


def test_the_oldest_row_is_as_old_as_retention_takes_it_for(database: Database, command: Command) -> None:
    """An embedding that was written again begins anew."""
    memory = Memory(database)
    command.provision(memory)
    with memory.connect() as writer:
        writer.execute("SELECT memory_upsert_embedding('notes', 'k', '[1,2,3]')")
        for column, days in (("created_at", 90), ("updated_at", 2)):
            writer.execute(f"UPDATE memory_embeddings SET {column} = now() - interval '{days} days'".encode())
        row = writer.execute("SELECT to_char((now() - interval '2 days') AT TIME ZONE 'UTC', 'YYYY-MM-DD')").fetchone()
    assert row
    assert maintain(command, memory).of()["data"]["oldest"] == f"{row[0]}T00:00:00Z"


@pytest.mark.parametrize(("exact", "said"), [(0, 0), (7, 7), (99, 99), (104, 100), (1234, 1200), (995_001, 1_000_000)])
def test_numbers_are_told_to_two_digits(exact: int, said: int) -> None:
    assert rounded(exact) == said


def test_dead_rows_are_told_where_there_are_many(database: Database, command: Command) -> None:
    memory = Memory(database)
    command.provision(memory)
    with memory.connect() as writer, database.superuser() as admin:
        admin.execute("ALTER TABLE notes.memory_kv SET (autovacuum_enabled = false)")
        writer.execute(
            "INSERT INTO memory_kv (dataset, key, value) SELECT 'notes', n::text, '1' FROM generate_series(1, 10000) n"
        )
        writer.execute("DELETE FROM memory_kv WHERE key::int <= 1500")
        writer.execute("SELECT pg_stat_force_next_flush()")
        writer.execute("SELECT 1")
        found = measure.MANY_DEAD
        query = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'memory_kv'"
        row = admin.execute(query).fetchone()
        assert row
        assert row[0] >= found
    assert maintain(command, memory).of()["data"]["deadPercent"] == 15


def test_drift_is_reported_and_repaired_only_when_the_provider_says_so(database: Database, command: Command) -> None:
    memory = Memory(database)
    command.provision(memory)
    assert maintain(command, memory).of()["drift"] == []
    with database.superuser() as admin:
        admin.execute("DROP INDEX notes.memory_embeddings_tsv_idx")
    for _ in range(2):
        assert maintain(command, memory).of()["drift"] == ["index memory_embeddings_tsv_idx is missing"]
    assert maintain(command, memory, drift="Repair").of()["drift"] == []
    assert maintain(command, memory).of()["drift"] == []


@pytest.mark.parametrize("days", [7, 90, 1000])
def test_partitions_that_come_and_go_are_no_drift(database: Database, command: Command, days: int) -> None:
    memory = Memory(database, extra={"retention": {"ttlDays": days}})
    command.provision(memory)
    old_event(memory)
    for _ in range(2):
        assert maintain(command, memory).of()["drift"] == []


def test_a_memory_of_a_shared_schema_hears_of_its_own_drift(database: Database, command: Command) -> None:
    memories = [
        report_of(
            Memory(
                database,
                identity=f"team/m{number}",
                uid=f"u{number}",
                dataset=f"d{number}",
                schema="shared",
                provider={"isolation": "Dataset"},
            ),
            f"r{number}",
        )
        for number in range(2)
    ]
    for memory in memories:
        assert command.provision(memory).code == 0
    with database.superuser() as admin:
        policy = f"{memories[0].prefix}_reader"
        admin.execute(sql.SQL("DROP POLICY {} ON shared.memory_kv").format(sql.Identifier(policy)))
    done = maintain(command, memories[0])
    assert done.of("r0")["drift"] == [f"policy {policy} is missing on memory_kv"]
    assert done.of("r1")["drift"] == []


def test_a_status_has_room_for_so_many_differences(database: Database, command: Command) -> None:
    memory = Memory(database)
    command.provision(memory)
    with database.superuser() as admin:
        for number in range(30):
            admin.execute(f"ALTER TABLE notes.memory_kv ADD COLUMN extra_{number} text".encode())
    said = maintain(command, memory).of()["drift"]
    assert len(said) == 20
    assert said[-1] == "and 11 more"
