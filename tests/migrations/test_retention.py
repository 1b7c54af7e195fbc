"""Retention: what is old goes, what is on hold or young stays, and nobody waits for it."""

import datetime as dt
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import sql
from psycopg.errors import LockNotAvailable

from migrations.postgres import connection
from migrations.postgres.maintenance import retention
from tests.migrations.documents import Command, Memory
from tests.migrations.maintained import Maintained, maintain, report_of
from tests.postgres import Connection, Database

NOW = dt.datetime.now(dt.UTC)
SHARED = {"isolation": "Dataset"}


def age(days: float) -> dt.datetime:
    return NOW - dt.timedelta(days=days)


def append(
    connection: Connection, days: float, name: str = "said", *, hold: bool = False, dataset: str = "notes"
) -> None:
    """Writes an event of some age, as an import of old data does."""
    connection.execute(
        "INSERT INTO memory_events (dataset, id, event_type, payload, hold, created_at)"
        " VALUES (%s, gen_random_uuid(), %s, '1', %s, %s)",
        [dataset, name, hold, age(days)],
    )


def many(connection: Connection, days: float, count: int) -> None:
    """Writes events of one and the same day, enough for a partition of their own."""
    connection.execute(
        "INSERT INTO memory_events (dataset, id, event_type, payload, created_at)"
        " SELECT 'notes', gen_random_uuid(), 'old', '1', date_trunc('day', %s, 'UTC') + n * interval '1 s'"
        " FROM generate_series(1, %s) n",
        [age(days), count],
    )


def names(connection: Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT event_type FROM memory_events ORDER BY created_at").fetchall()]


def kept_for(database: Database, days: int, **more: Any) -> Memory:
    return Memory(database, extra={"retention": {"ttlDays": days}, **more})


def owner(memory: Memory) -> Connection:
    connection = memory.home.superuser()
    connection.execute(sql.SQL("SET search_path = {}, public").format(sql.Identifier(memory.schema)))
    return connection


def succeeded(done: Maintained) -> Maintained:
    assert (done.answer.code, done.answer.report["code"]) == (0, 0), done.answer.log
    return done


def partitions(connection: Connection) -> list[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'memory_events'::regclass ORDER BY 1"
    return [row[0] for row in connection.execute(query).fetchall()]


def test_what_is_older_than_the_claim_wants_goes(any_database: Database, command: Command) -> None:
    memory = kept_for(any_database, 30)
    assert command.provision(memory).code == 0
    with memory.connect() as writer:
        for days, name in ((31, "old"), (29, "young"), (400, "ancient"), (0, "now")):
            append(writer, days, name)
        for key in ("old", "young"):
            writer.execute("SELECT memory_put('notes', %s, '1')", [key])
            writer.execute("SELECT memory_upsert_embedding('notes', %s, '[1,2,3]')", [key])
        for table in ("memory_kv", "memory_embeddings"):
            writer.execute(f"UPDATE {table} SET updated_at = %s WHERE key = 'old'", [age(31)])
        done = succeeded(maintain(command, memory))
        assert names(writer) == ["young", "now"]
        for table in ("memory_kv", "memory_embeddings"):
            assert writer.execute(f"SELECT key FROM {table}").fetchall() == [("young",)]
    said = done.of()["retention"]
    assert (said["deleted"], said["message"]) == (4, "")
    assert dt.datetime.fromisoformat(said["lastRun"]) >= NOW.replace(microsecond=0)


def test_a_run_that_removes_nothing_leaves_the_report_as_it_is(database: Database, command: Command) -> None:
    memory = kept_for(database, 30)
    command.provision(memory)
    with memory.connect() as writer:
        append(writer, 31)
        append(writer, 1)
    first = maintain(command, memory)
    path = first.reports / "databases" / "mem-report.json"
    written = path.stat().st_mtime_ns
    again = succeeded(maintain(command, memory))
    assert again.of() == first.of()
    assert path.stat().st_mtime_ns == written
    assert again.answer.report["homes"] == {"inUse": 1, "failed": 0}


def test_zero_days_keep_for_ever_and_what_has_expired_by_itself_goes(database: Database, command: Command) -> None:
    memory = kept_for(database, 0)
    command.provision(memory)
    with memory.connect() as writer:
        append(writer, 4000)
        for key in ("expired", "just expired", "lasting"):
            writer.execute("SELECT memory_put('notes', %s, '1', p_ttl => '1 hour')", [key])
            writer.execute("SELECT memory_upsert_embedding('notes', %s, '[1,2,3]', p_ttl => '1 hour')", [key])
        for table, key, days in itertools.product(
            ("memory_kv", "memory_embeddings"), ("expired", "just expired"), (2, 0.5)
        ):
            if (key == "expired") == (days == 2):
                writer.execute(f"UPDATE {table} SET expires_at = %s WHERE key = %s", [age(days), key])
        succeeded(maintain(command, memory))
        assert len(names(writer)) == 1
        kept = "SELECT key FROM {} ORDER BY key"
        for table in ("memory_kv", "memory_embeddings"):
            rows = writer.execute(sql.SQL(kept).format(sql.Identifier(table))).fetchall()
            assert rows == [("just expired",), ("lasting",)]


def test_a_partition_of_expired_rows_goes_as_a_whole(database: Database, command: Command) -> None:
    memory = kept_for(database, 30)
    command.provision(memory)
    with memory.connect() as writer, owner(memory) as admin:
        many(writer, 40, 3000)
        succeeded(maintain(command, memory))  # moves them out of DEFAULT first, then drops the day
        assert names(writer) == []
        before = postgres_statements(memory)
        many(writer, 41, 3000)
        count = len(partitions(admin))
        done = succeeded(maintain(command, memory))
        statements = postgres_statements(memory)[len(before) :]
        assert done.of()["retention"]["deleted"] == 3000
        assert len(partitions(admin)) == count
    assert "DROP TABLE" in statements
    assert 'DELETE FROM "notes"."memory_events_2' not in statements


def postgres_statements(memory: Memory) -> str:
    return (memory.database.server.data.parent / "postgresql.log").read_text(errors="replace")


def test_held_rows_survive_everything(database: Database, command: Command) -> None:
    memory = kept_for(database, 10)
    command.provision(memory)
    with memory.connect() as writer:
        for days in (11, 400):
            append(writer, days, "held", hold=True)
            for _ in range(1500):
                append(writer, days, "free")
        writer.execute("SELECT memory_upsert_embedding('notes', 'held', '[1,2,3]')")
        writer.execute("UPDATE memory_embeddings SET hold = true, updated_at = %s", [age(99)])
        for _ in range(3):
            done = succeeded(maintain(command, memory))
        assert names(writer) == ["held", "held"]
        assert writer.execute("SELECT count(*) FROM memory_embeddings").fetchone() == (1,)
    assert done.of()["data"]["held"] == 3
    assert done.of()["retention"]["deleted"] == 3000


@pytest.mark.parametrize("says", ["claim", "registry"])
def test_a_legal_hold_keeps_all(database: Database, command: Command, says: str) -> None:
    """The claim's word is in ledger and registry; somebody with the owner's rights may say it to the registry alone."""
    memory = kept_for(database, 1, legalHold=says == "claim")
    command.provision(memory)
    with owner(memory) as admin:
        if says == "registry":
            admin.execute("UPDATE memory_datasets SET legal_hold = true")
        append(admin, 50)
        many(admin, 80, 1500)
        admin.execute(
            "INSERT INTO memory_kv (dataset, key, value, updated_at) VALUES ('notes', 'k', '1', %s)", [age(9)]
        )
        done = succeeded(maintain(command, memory))
        assert names(admin) == [*["old"] * 1500, "said"]
        assert admin.execute("SELECT count(*) FROM memory_kv").fetchone() == (1,)
    assert done.of()["retention"]["lastRun"] is None


def test_a_hold_that_comes_between_the_look_and_the_batch_is_kept(
    database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = kept_for(database, 10)
    command.provision(memory)
    with owner(memory) as admin:
        append(admin, 11)
        look = retention._Run.rows

        def hold_then_look(*arguments: Any) -> None:
            admin.execute("UPDATE memory_datasets SET legal_hold = true")
            look(*arguments)

        monkeypatch.setattr(retention._Run, "rows", hold_then_look)
        succeeded(maintain(command, memory))
        assert names(admin) == ["said"]


def test_no_hold_comes_between_the_last_look_and_the_drop(
    database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = kept_for(database, 10)
    command.provision(memory)
    look, refused = retention._Run.datasets, []
    with owner(memory) as admin:
        many(admin, 80, 1500)
        admin.execute("SET lock_timeout = '50ms'")

        def try_to_hold(*arguments: Any, locked: bool = False) -> Any:
            found = look(*arguments, locked=locked)
            if locked:
                with pytest.raises(LockNotAvailable):
                    admin.execute("UPDATE memory_datasets SET legal_hold = true")
                refused.append(found)
            return found

        monkeypatch.setattr(retention._Run, "datasets", try_to_hold)
        succeeded(maintain(command, memory))
        assert refused
        assert names(admin) == []


def test_a_row_that_took_an_expired_ones_place_is_kept(
    database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are looked for once: by the time of their batch another row may be where one of them was."""
    memory = kept_for(database, 10)
    command.provision(memory)
    place = "SELECT ctid::text FROM memory_kv"
    with owner(memory) as admin:
        insert = "INSERT INTO memory_kv (dataset, key, value, updated_at) VALUES ('notes', %s, '1', %s)"
        admin.execute(insert, ["old", age(50)])
        before = admin.execute(place).fetchall()
        batch = connection.retrying

        def replaced(*arguments: Any) -> Any:
            if admin.execute("DELETE FROM memory_kv WHERE key = 'old'").rowcount:
                admin.execute("VACUUM (INDEX_CLEANUP on) memory_kv")
                admin.execute(insert, ["new", age(0)])
                assert admin.execute(place).fetchall() == before
            return batch(*arguments)

        monkeypatch.setattr(retention, "retrying", replaced)
        succeeded(maintain(command, memory))
        assert admin.execute("SELECT key FROM memory_kv").fetchall() == [("new",)]


def test_an_events_id_stays_as_long_as_the_event(database: Database, command: Command) -> None:
    memory = kept_for(database, 10)
    command.provision(memory)
    with memory.connect() as writer, owner(memory) as admin:
        for event in ("held", "gone"):
            writer.execute("SELECT memory_append('notes', %s, '1', %s)", [event, event])
        for table in ("memory_events", "memory_event_ids"):
            admin.execute(f"UPDATE {table} SET created_at = created_at - interval '20 days'")
        writer.execute("UPDATE memory_events SET hold = true WHERE event_type = 'held'")
        succeeded(maintain(command, memory))
        again = [
            writer.execute("SELECT duplicate FROM memory_append('notes', %s, '1', %s)", [event, event]).fetchone()
            for event in ("held", "gone")
        ]
    assert again == [(True,), (False,)]


def test_each_dataset_of_a_shared_schema_keeps_its_own_time(database: Database, command: Command) -> None:
    memories = []
    for number, days in enumerate((10, 0, 10)):
        memory = kept_for(database, days, legalHold=number == 2).but(
            identity=f"team/m{number}", uid=f"uid-{number}", dataset=f"d{number}", schema="shared", provider=SHARED
        )
        memories.append(report_of(memory, f"report-{number}"))
        assert command.provision(memories[-1]).code == 0
    with owner(memories[0]) as admin:
        for memory, days in itertools.product(memories, (5, 50)):
            append(admin, days, f"{memory.dataset} {days}", dataset=memory.dataset)
        done = succeeded(maintain(command, memories[0]))
        assert sorted(names(admin)) == ["d0 5", "d1 5", "d1 50", "d2 5", "d2 50"]
    assert [done.of(f"report-{number}")["retention"]["deleted"] for number in range(3)] == [1, 0, 0]


def test_a_row_written_meanwhile_is_never_lost(database: Database, command: Command) -> None:
    memory = kept_for(database, 10)
    command.provision(memory)
    stop, written = threading.Event(), itertools.count()

    def write() -> Iterator[int]:
        with memory.connect() as writer:
            while not stop.is_set():
                number = next(written)
                writer.execute("SELECT memory_append('notes', 'new', to_jsonb(%s), %s)", [number, str(number)])
                writer.execute("SELECT memory_put('notes', 'key', to_jsonb(%s))", [number])
                yield number

    counts: list[int] = []
    thread = threading.Thread(target=lambda: counts.extend(write()))
    with owner(memory) as admin:
        thread.start()
        for days in (20, 30, 400):
            many(admin, days, 2500)
            admin.execute("UPDATE memory_kv SET updated_at = %s", [age(11)])
            succeeded(maintain(command, memory))
        stop.set()
        thread.join()
        rows = admin.execute("SELECT payload::text::int FROM memory_events WHERE event_type = 'new'").fetchall()
        assert sorted(number for (number,) in rows) == counts
        assert admin.execute("SELECT value::text::int FROM memory_kv").fetchone() in {(counts[-1],), None}
        assert "old" not in names(admin)


def test_a_provisioner_at_work_is_not_waited_for(
    database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = kept_for(database, 10)
    command.provision(memory)
    monkeypatch.setattr("migrations.postgres.maintenance.run.LOCK_SECONDS", 0.2)
    with memory.connect() as writer:
        append(writer, 50)
        with memory.hold():
            done = succeeded(maintain(command, memory))
            assert names(writer) == ["said"]
        assert done.of()["retention"] is None
        succeeded(maintain(command, memory))
        assert names(writer) == []


def test_a_partition_that_somebody_keeps_is_said(
    database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = kept_for(database, 10)
    command.provision(memory)
    monkeypatch.setattr("migrations.postgres.maintenance.run.STEP_SECONDS", 1.5)
    with memory.connect() as reader, owner(memory) as admin:
        admin.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(f"{memory.prefix}_owner")))
        admin.execute("CREATE TABLE y2001 PARTITION OF memory_events FOR VALUES FROM ('2001-01-01') TO ('2002-01-01')")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM memory_events")
        done = maintain(command, memory)
        assert "a long transaction is in the way" in done.of()["retention"]["message"]
        assert done.answer.report["reason"] == "LockBusy"
        reader.execute("COMMIT")
        assert succeeded(maintain(command, memory)).of()["retention"]["message"] == ""


def test_a_reader_that_stands_in_the_way_makes_nobody_wait_long(database: Database, command: Command) -> None:
    """A long reader of the event log keeps a partition from being dropped; appends go on behind the short waits."""
    memory = kept_for(database, 10)
    command.provision(memory)
    with memory.connect() as writer, memory.connect() as reader, owner(memory) as admin:
        many(admin, 40, 1500)
        writer.execute("SET lock_timeout = '2s'")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM memory_events")
        done: list[Maintained] = []
        run = threading.Thread(target=lambda: done.append(maintain(command, memory)))
        run.start()
        for _ in range(20):
            writer.execute("SELECT memory_append('notes', 'new', '1')")
        reader.execute("COMMIT")
        run.join()
        succeeded(done[0])
        assert set(names(writer)) == {"new"}


def test_a_failing_step_is_said_and_stops_no_other_home(database: Database, command: Command) -> None:
    healthy, broken = (
        report_of(kept_for(database, 10).but(identity=f"team/{name}", uid=name, schema=name), name)
        for name in ("healthy", "broken")
    )
    for memory in (healthy, broken):
        assert command.provision(memory).code == 0
        with memory.connect() as writer:
            append(writer, 50)
    with owner(broken) as admin:
        admin.execute("DROP TABLE broken.memory_datasets CASCADE")
    done = maintain(command, healthy)
    assert done.answer.code == 0
    assert done.answer.report["reason"] == "JobFailed"
    assert "/broken: " in done.answer.message
    assert "memory_datasets" in done.of("broken")["retention"]["message"]
    assert done.of("healthy")["retention"]["deleted"] == 1
    assert done.answer.report["homes"] == {"inUse": 2, "failed": 1}


def test_the_server_is_away(database: Database, command: Command) -> None:
    memory = kept_for(database, 10)
    document = memory.maintain_document()
    document["provider"]["port"] = 1
    answer = command.run("maintain", document, memory.database.server.admin)
    assert (answer.code, answer.report["reason"]) == (0, "Unreachable")


def test_a_provider_without_homes(database: Database, command: Command) -> None:
    done = succeeded(maintain(command, Memory(database)))
    assert done.answer.message == "homes: 0 looked after"


def test_a_tenants_run_looks_after_its_own_namespace(database: Database, command: Command) -> None:
    theirs = report_of(kept_for(database, 10).but(identity="other/notes", uid="o", schema="theirs"), "theirs")
    ours = report_of(kept_for(database, 10).but(identity="team/notes", uid="t", schema="ours"), "ours")
    for memory in (ours, theirs):
        command.provision(memory)
    done = succeeded(maintain(command, ours, claim={"namespace": "team", "name": "pg"}))
    assert done.answer.report["homes"] == {"inUse": 1, "failed": 0}
    with pytest.raises(FileNotFoundError):
        done.of("theirs")
