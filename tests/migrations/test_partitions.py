"""Partitions of the event log: ahead of time, as fine as retention needs, and none with rows is touched."""

import datetime as dt
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from migrations.postgres.maintenance import partitions
from migrations.postgres.maintenance.partitions import Partition, Range, floor, following, gaps
from tests.migrations.documents import Command, Memory
from tests.migrations.maintained import maintain
from tests.postgres import Connection, Database

UTC = dt.UTC
NOW = dt.datetime.now(UTC)
MOMENTS = st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2090, 1, 1), timezones=st.just(UTC))
STEPS = st.sampled_from(["day", "week", "month"])


def kept_for(database: Database, days: int) -> Memory:
    return Memory(database, extra={"retention": {"ttlDays": days}})


def found(memory: Memory) -> list[Partition]:
    with memory.database.superuser() as connection:
        connection.execute("SET timezone = 'UTC'")
        return partitions.read(connection, memory.schema)


def lengths(memory: Memory) -> set[int]:
    return {(each.range.end - each.range.start).days for each in found(memory) if each.range.start > NOW}


@given(MOMENTS, STEPS)
def test_a_step_begins_before_its_moment_and_ends_after_it(moment: dt.datetime, step: partitions.Step) -> None:
    start = floor(moment, step)
    assert start <= moment < following(start, step)
    assert floor(start, step) == start
    assert floor(following(start, step), step) == following(start, step)


@given(MOMENTS, STEPS, st.lists(st.tuples(st.integers(-40, 400), st.integers(1, 90)), max_size=6))
def test_gaps_are_what_nothing_covers(
    moment: dt.datetime, step: partitions.Step, others: list[tuple[int, int]]
) -> None:
    """Days that are covered already and days that are made now: all from the beginning on, none twice."""
    start = floor(moment, step)
    covered: list[Range] = []
    for offset, days in sorted(others):
        begin = max([start + dt.timedelta(days=offset), *(each.end for each in covered)])
        covered.append(Range(begin, begin + dt.timedelta(days=days)))
    made = list(gaps(covered, start, 5, step))
    every = sorted([*made, *covered], key=lambda each: each.start)
    assert all(before.end <= after.start for before, after in pairwise(every))
    end = start
    for _ in range(6):
        end = following(end, step)
    day = start
    while day < end:
        assert any(each.start <= day < each.end for each in every)
        day += dt.timedelta(days=1)
    assert all(start <= each.start < each.end <= end for each in made)


@pytest.mark.parametrize(
    ("days", "long"), [(0, {28, 29, 30, 31}), (31, {1}), (32, {7}), (365, {7}), (366, {28, 29, 30, 31})]
)
def test_partitions_are_as_fine_as_retention(database: Database, command: Command, days: int, long: set[int]) -> None:
    memory = kept_for(database, days)
    assert command.provision(memory).code == 0
    # Where the month that was there ends, a part of a week may be left.
    assert lengths(memory) <= long | (set(range(1, 7)) if long == {7} else set())
    ahead = max(each.range.end for each in found(memory))
    assert ahead - NOW > dt.timedelta(days=13 if long == {1} else 80)


def test_a_changed_age_changes_what_is_empty_and_to_come(database: Database, command: Command) -> None:
    memory = kept_for(database, 0)
    command.provision(memory)
    months = found(memory)
    assert command.provision(kept_for(database, 7)).code == 0
    assert lengths(memory) == {1}
    assert months[0] in found(memory), "the month that we are in is in use"
    command.provision(memory)
    assert lengths(memory) & {28, 30, 31}, "days that are there stay, months follow"
    made = found(memory)
    assert maintain(command, memory).answer.report["code"] == 0
    assert found(memory) == made


def test_a_coarse_partition_with_a_row_stays(database: Database, command: Command) -> None:
    memory = kept_for(database, 0)
    command.provision(memory)
    last = found(memory)[-1]
    with memory.connect() as writer:
        write(writer, last.range.start, 1)
    assert command.provision(kept_for(database, 7)).code == 0
    assert last in found(memory)


def write(writer: Connection, start: dt.datetime, count: int) -> None:
    writer.execute(
        "INSERT INTO memory_events (dataset, id, event_type, payload, hold, created_at)"
        " SELECT 'notes', gen_random_uuid(), 'x', '1', n = 1, %s + n * interval '1 s' FROM generate_series(1, %s) n",
        [start, count],
    )


def test_rows_move_out_of_default_with_the_partition_that_is_made_for_them(
    database: Database, command: Command
) -> None:
    """Also those on hold, which no writer could move, and many of the past; a few of the past stay."""
    memory = kept_for(database, 0)
    command.provision(memory)
    last = found(memory)[-1]
    with memory.connect() as writer, memory.database.superuser() as admin:
        admin.execute(sql.SQL("DROP TABLE notes.{}").format(sql.Identifier(last.name)))
        write(writer, last.range.start, 5)
        write(writer, dt.datetime(2001, 2, 3, tzinfo=UTC), partitions.WORTH_A_PARTITION)
        write(writer, dt.datetime(1999, 2, 3, tzinfo=UTC), partitions.WORTH_A_PARTITION - 1)
        assert maintain(command, memory).answer.report["code"] == 0
        assert last in found(memory)
        assert "memory_events_200102" in {each.name for each in found(memory)}
        query = "SELECT tableoid::regclass::text, count(*) FROM notes.memory_events GROUP BY 1"
        assert dict(admin.execute(query).fetchall()) == {
            f"notes.{last.name}": 5,
            "notes.memory_events_200102": 1000,
            "notes.memory_events_default": 999,
        }
        guards = "SELECT tgenabled FROM pg_trigger WHERE tgrelid = 'notes.memory_events_default'::regclass"
        assert admin.execute(guards).fetchall() == [("O",), ("O",)]
        with pytest.raises(Exception, match="on hold"):
            writer.execute("DELETE FROM memory_events")


def test_a_partition_of_a_shared_schema_is_guarded(database: Database, command: Command) -> None:
    memory = kept_for(database, 7).but(provider={"isolation": "Dataset"})
    assert command.provision(memory).code == 0
    with memory.database.superuser() as admin:
        query = "SELECT DISTINCT relrowsecurity FROM pg_class WHERE relname ~ '^memory_events_[0-9]' AND relkind = 'r'"
        assert admin.execute(query).fetchall() == [(True,)]


def test_partitions_of_others_are_left_alone(database: Database, command: Command) -> None:
    memory = kept_for(database, 0)
    command.provision(memory)
    with memory.database.superuser() as admin:
        admin.execute("SET timezone = 'UTC'")
        admin.execute(
            "CREATE TABLE notes.early PARTITION OF notes.memory_events FOR VALUES FROM (MINVALUE) TO ('1970-01-01')"
        )
        assert "early" not in {each.name for each in partitions.read(admin, "notes")}
    assert maintain(command, memory).answer.report["code"] == 0
