"""The approximate index is earned, kept as the claim says, and healed; and dead rows go."""

import multiprocessing
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from migrations.answers import Index
from migrations.errors import Code, CommandError
from migrations.postgres.connection import ConnectionLostError
from migrations.postgres.maintenance import indexes
from migrations.postgres.maintenance.indexes import lists_for
from tests.migrations.documents import Command, Memory
from tests.migrations.maintained import looked_after, soon, vacuumed, working
from tests.postgres import Connection, Database

NAME = indexes.NAME
EARNED = 100
SMALL = {"dimension": 8, "index": {"type": "auto", "minRows": EARNED}}


def with_index(memory: Memory, **changes: Any) -> Memory:
    """A Memory that earns its index with a hundred rows, unless told otherwise."""
    return memory.but(embeddings=SMALL | changes)


def refused(stands: dict[str, Index]) -> None:
    pytest.fail(f"nothing is to be built: {stands}")


@contextmanager
def owning(memory: Memory) -> Iterator[Connection]:
    """The superuser, who sees every dataset."""
    with memory.home.superuser() as connection:
        connection.execute(sql.SQL("SET search_path = {}, public").format(sql.Identifier(memory.schema)))
        yield connection


def add(memory: Memory, rows: int, *, first: int = 0, dimension: int = 8) -> None:
    with owning(memory) as connection:
        connection.execute(
            """
            INSERT INTO memory_embeddings (dataset, key, embedding)
            SELECT %(dataset)s, 'k' || n, ARRAY(SELECT random() - 0.5 + n * 0 FROM generate_series(1, %(dimension)s))
            FROM generate_series(%(first)s::int, %(first)s::int + %(rows)s - 1) n
            """,
            {"dataset": memory.dataset, "rows": rows, "first": first, "dimension": dimension},
        )


def built(memory: Memory) -> dict[str, str]:
    """The approximate indexes: name to definition, less what all have; an invalid one says so."""
    with owning(memory) as connection:
        rows = connection.execute(
            """
            SELECT c.relname, CASE WHEN i.indisvalid THEN '' ELSE 'invalid ' END
                              || split_part(pg_get_indexdef(c.oid), ' USING ', 2)
            FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
            WHERE i.indrelid = 'memory_embeddings'::regclass AND a.amname IN ('hnsw', 'ivfflat')
            """
        ).fetchall()
    return dict(rows)


def state(memory: Memory) -> str:
    """What searches go by."""
    with owning(memory) as connection:
        [(found,)] = connection.execute(
            "SELECT index_state FROM memory_datasets WHERE dataset = %s", [memory.dataset]
        ).fetchall()
    return str(found)


@pytest.fixture
def small(memory: Memory, command: Command) -> Memory:
    """A provisioned Memory with few dimensions, which earns its index with a hundred rows."""
    return provisioned(with_index(memory), command)


def provisioned(memory: Memory, command: Command) -> Memory:
    answer = command.provision(memory)
    assert answer.code == 0, answer
    return memory


HNSW = {NAME: "hnsw (embedding vector_cosine_ops) WITH (ef_construction='128')"}


def test_exact_then_building_then_ready(any_database: Database, command: Command) -> None:
    memory = provisioned(with_index(Memory(any_database)), command)
    add(memory, EARNED - 1)
    before = looked_after(memory)
    assert (before.state, before.reason, state(memory), built(memory)) == ("exact", "Exact", "exact", {})
    assert before.message == "searched exactly until there are 100 embeddings"
    add(memory, 1, first=EARNED)
    told = []

    def tell(stands: dict[str, Index]) -> None:
        [index] = stands.values()
        told.append((index.state, index.reason, state(memory), built(memory)))

    with working(memory, work_mem="77MB") as work:
        [ready] = indexes.look_after(work, tell).values()
        assert work.connection.execute("SHOW maintenance_work_mem").fetchall() != [("77MB",)], "it is put back"
    assert told == [("building", "Building", "building", {})]
    assert (ready.state, ready.reason, state(memory), built(memory)) == ("ready", "Ready", "ready", HNSW)
    with working(memory) as work:
        assert indexes.look_after(work, refused) == {"notes": ready}, "a second run has nothing to do"


def test_the_planner_knows_the_table_after_a_build(small: Memory) -> None:
    add(small, EARNED)
    looked_after(small)
    with owning(small) as connection:
        found = connection.execute("SELECT reltuples FROM pg_class WHERE relname = 'memory_embeddings'").fetchall()
    assert found == [(EARNED,)]


def test_an_earned_index_is_kept_until_half_of_its_rows_are_gone(small: Memory) -> None:
    add(small, EARNED)
    looked_after(small)
    with owning(small) as connection:
        for left, expected in ((50, "ready"), (49, "exact")):
            connection.execute("DELETE FROM memory_embeddings WHERE substr(key, 2)::int >= %s", [left])
            assert (looked_after(small).state, state(small)) == (expected, expected)
            assert built(small) == (HNSW if expected == "ready" else {})
    add(small, EARNED - 50, first=200)
    assert looked_after(small).state == "exact", "it has to be earned anew"


def test_none_is_exact_and_drops_the_index(small: Memory, command: Command) -> None:
    add(small, EARNED)
    looked_after(small)
    memory = provisioned(with_index(small, index={"type": "none", "minRows": EARNED}), command)
    index = looked_after(memory)
    assert (index.state, index.reason) == ("exact", "Exact")
    assert index.message == "searched exactly: embeddings.index.type is none"
    assert (state(memory), built(memory)) == ("exact", {})


def test_ivfflat_only_when_asked_for(memory: Memory, command: Command) -> None:
    memory = provisioned(with_index(memory, index={"type": "ivfflat", "minRows": EARNED}), command)
    add(memory, 2000)
    assert looked_after(memory).state == "ready"
    assert built(memory) == {NAME: "ivfflat (embedding vector_cosine_ops) WITH (lists='2')"}
    add(memory, 1999, first=2000)
    looked_after(memory)
    assert built(memory) == {NAME: "ivfflat (embedding vector_cosine_ops) WITH (lists='2')"}, "not outgrown yet"
    add(memory, 1, first=4000)
    assert looked_after(memory).state == "ready"
    assert built(memory) == {NAME: "ivfflat (embedding vector_cosine_ops) WITH (lists='4')"}
    memory = provisioned(with_index(memory, index={"type": "hnsw", "minRows": EARNED}), command)
    assert looked_after(memory).state == "ready"
    assert built(memory) == HNSW


@pytest.mark.parametrize(
    ("rows", "lists"),
    [(0, 1), (10_000, 10), (100_000, 100), (1_000_000, 1000), (4_000_000, 2000), (10**10, 32768)],
)
def test_lists_of_ivfflat(rows: int, lists: int) -> None:
    assert lists_for(rows) == lists


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_above_2000_dimensions_halfvec_is_indexed(memory: Memory, command: Command, metric: str) -> None:
    settings = {"dimension": 2001, "metric": metric, "index": {"type": "auto", "minRows": 5}}
    memory = provisioned(memory.but(embeddings=settings), command)
    add(memory, 5, dimension=2001)
    assert looked_after(memory).state == "ready"
    assert built(memory) == {NAME: f"hnsw (embedding halfvec_{metric}_ops) WITH (ef_construction='128')"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"dimension": 2001, "storage": "full"},
            (
                "searched exactly: an index on vector holds at most 2000, and these embeddings have 2001 dimensions; "
                "embeddings.storage half in a new Memory can be indexed"
            ),
        ),
        (
            {"dimension": 4001},
            (
                "searched exactly: an index on halfvec holds at most 4000, and these embeddings have 4001 dimensions; "
                "a model of at most 4000 dimensions in a new Memory can be indexed"
            ),
        ),
    ],
    ids=["full-2001", "4001"],
)
def test_too_many_dimensions_for_an_index(
    memory: Memory, command: Command, settings: dict[str, Any], message: str
) -> None:
    memory = provisioned(memory.but(embeddings=settings | {"index": {"type": "hnsw", "minRows": 1}}), command)
    add(memory, 1, dimension=settings["dimension"])
    assert looked_after(memory) == Index("exact", "DimensionTooLarge", message)
    assert built(memory) == {}


def test_without_embeddings_there_is_nothing_to_index(memory: Memory, command: Command) -> None:
    memory = provisioned(memory.but(embeddings={"enabled": False}), command)
    assert looked_after(memory) == Index("exact", "Disabled", "embeddings are not enabled")
    vacuumed(memory)


def test_an_index_with_another_operator_is_replaced(small: Memory) -> None:
    add(small, EARNED)
    with owning(small) as connection:
        connection.execute(f"CREATE INDEX {NAME} ON memory_embeddings USING hnsw (embedding vector_l2_ops)".encode())
    with working(small) as work:
        told: list[dict[str, Index]] = []
        [index] = indexes.look_after(work, told.append).values()
    assert [each["notes"].state for each in told] == ["building"], "it was of no use"
    assert (index.state, built(small)) == ("ready", HNSW)


def test_searches_use_the_old_index_until_it_is_replaced(small: Memory) -> None:
    add(small, EARNED)
    with owning(small) as connection:
        connection.execute(
            f"CREATE INDEX {NAME} ON memory_embeddings USING ivfflat (embedding vector_cosine_ops)".encode()
        )
    told: list[tuple[Index, str]] = []
    with working(small) as work:
        indexes.look_after(work, lambda stands: told.append((stands["notes"], state(small))))
    [(index, registered)] = told
    assert (index.state, registered) == ("ready", "ready")
    assert index.message.endswith("while another one is built in its place")
    assert built(small) == HNSW


@pytest.mark.parametrize("swapped", [False, True])
def test_a_replacement_killed_halfway_is_finished(small: Memory, swapped: bool) -> None:
    add(small, EARNED)
    old, new = (indexes.OLD, NAME) if swapped else (NAME, indexes.NEXT)
    with owning(small) as connection:
        for name, what in ((old, "ivfflat (embedding vector_cosine_ops)"), (new, HNSW[NAME])):
            connection.execute(f"CREATE INDEX {name} ON memory_embeddings USING {what}".encode())
    with working(small) as work:
        [index] = indexes.look_after(work, refused).values()
    assert (index.state, built(small)) == ("ready", HNSW)


def test_a_replacement_that_is_not_wanted_any_more_goes(small: Memory) -> None:
    add(small, EARNED)
    looked_after(small)
    with owning(small) as connection:
        connection.execute(
            f"CREATE INDEX {indexes.NEXT} ON memory_embeddings USING hnsw (embedding vector_l2_ops)".encode()
        )
    looked_after(small)
    assert built(small) == HNSW


@contextmanager
def held(memory: Memory) -> Iterator[None]:
    """A writer whose transaction every build on the table waits for."""
    with memory.connect() as writer, writer.transaction():
        vector = str([0.5] * 8)
        writer.execute("SELECT memory_upsert_embedding('notes', 'held', %s)", [vector])
        yield


def is_building(memory: Memory) -> int | None:
    """The backend that builds, once it waits for the writer."""
    with memory.home.superuser() as connection:
        row = connection.execute(
            "SELECT pid FROM pg_stat_progress_create_index WHERE datname = current_database() AND lockers_total > 0"
        ).fetchone()
    return row[0] if row else None


@pytest.mark.long
def test_a_build_under_kill_9_is_healed(any_database: Database, command: Command) -> None:
    memory = provisioned(with_index(Memory(any_database)), command)
    add(memory, EARNED)
    process = multiprocessing.get_context("spawn").Process(target=looked_after, args=(memory,))
    with held(memory):
        process.start()
        backend = soon(lambda: is_building(memory))
        process.kill()
        process.join()
        assert process.exitcode != 0
        # Its backend finds out within seconds; until then nothing is started, and searches are exact.
        assert looked_after(memory).state == "building"
        assert state(memory) == "building"
        assert built(memory) == {NAME: f"invalid {HNSW[NAME]}"}
        soon(lambda: is_building(memory) != backend)
    assert built(memory) == {NAME: f"invalid {HNSW[NAME]}"}
    assert looked_after(memory).state == "ready"
    assert (state(memory), built(memory)) == ("ready", HNSW)


class Run(threading.Thread):
    """A run in a thread, and how it ended."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self.work = work
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.work()
        except (CommandError, ConnectionLostError, psycopg.Error) as error:
            self.error = error


def test_a_cancelled_build_is_healed(database: Database, command: Command) -> None:
    memory = provisioned(with_index(Memory(database)), command)
    add(memory, EARNED)
    run = Run(lambda: looked_after(memory))
    with held(memory), memory.home.superuser() as superuser:
        run.start()
        superuser.execute("SELECT pg_cancel_backend(%s)", [soon(lambda: is_building(memory))])
        soon(lambda: is_building(memory) is None)
    run.join(timeout=30)
    assert isinstance(run.error, CommandError)
    assert (run.error.code, run.error.sqlstate) == (Code.UNREACHABLE, "57014")
    assert "could not be built (canceling statement due to user request)" in run.error.message
    assert (state(memory), built(memory)) == ("exact", {}), "writes do not go on paying for what is left"
    assert looked_after(memory).state == "ready"
    assert (state(memory), built(memory)) == ("ready", HNSW)


def test_a_backend_that_is_terminated_is_healed(small: Memory) -> None:
    add(small, EARNED)
    run = Run(lambda: looked_after(small))
    with held(small), small.home.superuser() as superuser:
        run.start()
        superuser.execute("SELECT pg_terminate_backend(%s)", [soon(lambda: is_building(small))])
        run.join(timeout=30)
    assert isinstance(run.error, ConnectionLostError)
    assert built(small) == {NAME: f"invalid {HNSW[NAME]}"}
    assert looked_after(small).state == "ready"
    assert built(small) == HNSW


def test_a_build_that_fails_is_told_and_the_index_that_is_there_serves_on(small: Memory) -> None:
    """It waits for a writer until the deadline, and what is left of it for as long as the writer stays."""
    add(small, EARNED)
    with owning(small) as connection:
        statement = f"CREATE INDEX {NAME} ON memory_embeddings USING ivfflat (embedding vector_cosine_ops)"
        connection.execute(statement.encode())
    told: list[dict[str, Index]] = []
    with held(small), working(small, seconds=0.3) as work, pytest.raises(CommandError) as failed:
        indexes.look_after(work, told.append)
    assert failed.value.code is Code.LOCK_BUSY
    assert re.fullmatch(
        r"the index of .* could not be built \(.*lock timeout\): the next run tries again", str(failed.value)
    )
    last = told[-1]["notes"]
    assert (last.state, last.reason, last.message) == ("ready", "Invalid", failed.value.message)
    assert (state(small), next(iter(built(small)))) == ("ready", NAME)
    assert looked_after(small).state == "ready"
    assert built(small) == HNSW


def test_without_shared_memory_it_is_built_by_one_process(small: Memory) -> None:
    """What a container with 64 MB of /dev/shm does to a parallel build."""
    add(small, EARNED)
    with owning(small) as connection:
        connection.execute("ALTER TABLE memory_embeddings SET (parallel_workers = 2)")
    assert looked_after(small, work_mem="1000GB").state == "ready"
    assert built(small) == HNSW


def shared(database: Database, command: Command, number: int) -> Memory:
    memory = Memory(
        database,
        identity=f"team-{number}/notes",
        schema="shared",
        dataset=f"notes-{number}",
        password=f"password-{number}",
        provider={"isolation": "Dataset"},
    )
    return provisioned(with_index(memory), command)


def test_a_shared_schema_has_one_index_for_those_that_earned_it(database: Database, command: Command) -> None:
    few, many = shared(database, command, 0), shared(database, command, 1)
    add(few, EARNED - 1)
    add(many, EARNED)
    told: list[dict[str, Index]] = []
    with working(many) as work:
        indexes.look_after(work, told.append)
    assert [[each.state for each in stands.values()] for stands in told] == [["exact", "building"]]
    assert looked_after(many).state == "ready"
    assert looked_after(few) == Index("exact", "Exact", "searched exactly until there are 100 embeddings")
    assert (state(few), state(many), built(many)) == ("exact", "ready", HNSW)
    add(few, 1, first=EARNED)
    with working(few) as work:
        indexes.look_after(work, refused)
    assert (state(few), state(many)) == ("ready", "ready")


def test_memories_of_a_shared_schema_may_want_different_indexes(database: Database, command: Command) -> None:
    memories = [shared(database, command, number) for number in range(3)]
    for memory, method in zip(memories, ("none", "ivfflat", "hnsw"), strict=True):
        provisioned(with_index(memory, index={"type": method, "minRows": EARNED}), command)
        add(memory, EARNED)
    assert [looked_after(memory).state for memory in memories] == ["exact", "ready", "ready"]
    assert built(memories[0]) == HNSW, "hnsw answers ivfflat's Memories as well"


def test_a_database_of_its_own_is_looked_after_too(database: Database, command: Command) -> None:
    memory = provisioned(with_index(Memory(database, provider={"isolation": "Database"})), command)
    add(memory, EARNED)
    assert looked_after(memory).state == "ready"
    assert built(memory) == HNSW


def flushed(connection: Connection, statement: str) -> None:
    """Runs a statement whose dead rows the statistics know at once."""
    connection.execute(f"{statement}; SELECT pg_stat_force_next_flush()".encode())


def dead(memory: Memory, table: str) -> int:
    with owning(memory) as connection:
        [(rows,)] = connection.execute(
            "SELECT n_dead_tup FROM pg_stat_user_tables WHERE schemaname = %s AND relname = %s", [memory.schema, table]
        ).fetchall()
    return int(rows)


def node(memory: Memory, name: str) -> int:
    """The file of a relation: another one when it was built anew."""
    with owning(memory) as connection:
        [(number,)] = connection.execute("SELECT relfilenode FROM pg_class WHERE relname = %s", [name]).fetchall()
    return int(number)


@contextmanager
def no_autovacuum(memory: Memory, table: str) -> Iterator[Connection]:
    with owning(memory) as connection:
        off = sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = false)")
        connection.execute(off.format(sql.Identifier(table)))
        yield connection


def test_a_fifth_of_dead_rows_is_removed_and_the_index_built_anew(small: Memory) -> None:
    with no_autovacuum(small, "memory_embeddings") as connection:
        add(small, 5005)
        looked_after(small)
        first = node(small, NAME)
        flushed(connection, "DELETE FROM memory_embeddings WHERE substr(key, 2)::int < 1001")
        vacuumed(small)
        assert (dead(small, "memory_embeddings"), node(small, NAME)) == (1001, first), "a fifth is not more than one"
        flushed(connection, "DELETE FROM memory_embeddings WHERE substr(key, 2)::int = 1001")
        vacuumed(small)
        assert dead(small, "memory_embeddings") == 0
        assert node(small, NAME) != first
        assert (built(small), state(small)) == (HNSW, "ready")


def test_few_dead_rows_stay(small: Memory) -> None:
    with no_autovacuum(small, "memory_embeddings") as connection:
        add(small, 1000)
        flushed(connection, "DELETE FROM memory_embeddings WHERE substr(key, 2)::int < 999")
        vacuumed(small)
        assert dead(small, "memory_embeddings") == 999


def test_partitions_and_tables_without_an_index_are_vacuumed(small: Memory) -> None:
    with owning(small) as connection:
        [(partition,)] = connection.execute(
            """
            INSERT INTO memory_events (dataset, event_type, payload)
            SELECT 'notes', 'said', '{}' FROM generate_series(1, 1001)
            RETURNING tableoid::regclass::text
            """
        ).fetchall()[:1]
    with no_autovacuum(small, partition) as connection, no_autovacuum(small, "memory_embeddings"):
        add(small, 1001)
        flushed(connection, "DELETE FROM memory_events; DELETE FROM memory_embeddings")
        vacuumed(small)
        assert (dead(small, partition), dead(small, "memory_embeddings")) == (0, 0)


@pytest.mark.long
def test_a_killed_reindex_is_healed(database: Database, command: Command) -> None:
    memory = provisioned(with_index(Memory(database)), command)
    with no_autovacuum(memory, "memory_embeddings") as connection:
        add(memory, 1500)
        looked_after(memory)
        flushed(connection, "DELETE FROM memory_embeddings WHERE substr(key, 2)::int < 1400")
        process = multiprocessing.get_context("spawn").Process(target=vacuumed, args=(memory,))
        with held(memory):
            process.start()
            soon(lambda: is_building(memory))
            process.kill()
            process.join()
            vacuumed(memory)
            assert set(built(memory)) == {NAME, f"{NAME}_ccnew"}, "another one is at it"
            soon(lambda: is_building(memory) is None)
        assert built(memory)[f"{NAME}_ccnew"].startswith("invalid")
        assert looked_after(memory).state == "ready", "the index itself was valid all the time"
        vacuumed(memory)
        assert built(memory) == HNSW
