"""Partitions of the event log: there before they are needed, and never in the way of rows that exist."""

import datetime as dt

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.datamodel.homes import Dataset, at_once
from tests.postgres import Connection

PARTITIONS = """
    SELECT c.relname, pg_get_expr(c.relpartbound, c.oid)
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'memory_events'::regclass ORDER BY c.relname
"""


def ahead(months: int) -> dt.date:
    """The first of the month that comes so many months after this one, in UTC."""
    today = dt.datetime.now(dt.UTC).date()
    number = today.year * 12 + today.month - 1 + months
    return dt.date(number // 12, number % 12 + 1, 1)


def name(months: int) -> str:
    return f"memory_events_{ahead(months):%Y%m}"


def partitions(connection: Connection) -> dict[str, str]:
    connection.execute("SET timezone = 'UTC'")
    return dict(connection.execute(PARTITIONS).fetchall())


def ensure(connection: Connection, months: int) -> int:
    row = connection.execute("SELECT memory_ensure_event_partitions(%s)", [months]).fetchone()
    assert row
    return int(row[0])


def test_home_has_this_month_twelve_more_and_a_default(own_home: Dataset) -> None:
    expected = {
        name(months): f"FOR VALUES FROM ('{ahead(months)} 00:00:00+00') TO ('{ahead(months + 1)} 00:00:00+00')"
        for months in range(13)
    }
    assert partitions(own_home.owner) == expected | {"memory_events_default": "DEFAULT"}


def test_ensure_makes_what_is_missing_and_nothing_twice(own_home: Dataset) -> None:
    owner = own_home.owner
    owner.execute("SET timezone = 'Pacific/Kiritimati'")  # months are those of UTC, whatever the session's zone is
    assert ensure(owner, 12) == 0
    assert ensure(owner, 15) == 3
    assert ensure(owner, 15) == 0
    assert f"FROM ('{ahead(15)} 00:00:00+00')" in partitions(owner)[name(15)]


def test_two_that_ensure_at_once_both_succeed(own_home: Dataset) -> None:
    def work(_: int) -> int:
        with own_home.home.owner() as owner:
            return ensure(owner, 20)

    assert sorted(at_once(work, clients=4)) == [0, 0, 0, 8]


def test_new_partition_has_what_the_others_have(own_home: Dataset) -> None:
    ensure(own_home.owner, 13)
    own_home.writer.execute(
        "INSERT INTO memory_events (dataset, event_type, payload, created_at) VALUES ('notes', 'x', '1', %s)",
        [ahead(13)],
    )
    query = "SELECT hold, id IS NOT NULL FROM {}"
    assert own_home.owner.execute(sql.SQL(query).format(sql.Identifier(name(13)))).fetchall() == [(False, True)]
    triggers = "SELECT array_agg(tgname::text ORDER BY tgname) FROM pg_trigger WHERE tgrelid = %s::regclass"
    for partition in partitions(own_home.owner):
        row = own_home.owner.execute(triggers, [partition]).fetchone()
        assert row == (["memory_events_hold", "memory_events_hold_truncate"],), partition


def test_month_whose_rows_stand_in_default_is_left_alone(own_home: Dataset) -> None:
    owner = own_home.owner
    owner.execute(
        "INSERT INTO memory_events (dataset, event_type, payload, created_at) VALUES ('notes', 'early', '1', %s)",
        [ahead(14)],
    )
    notices: list[str] = []
    owner.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    assert ensure(owner, 15) == 2
    assert {name(13), name(15)} <= partitions(owner).keys()
    assert name(14) not in partitions(owner)
    assert len(notices) == 1
    assert name(14) in notices[0]
    assert [row[1] for row in own_home.call("memory_read")] == ["early"]


def test_month_that_other_partitions_cover_is_left_alone(own_home: Dataset) -> None:
    owner = own_home.owner
    daily = sql.SQL("CREATE TABLE a_day PARTITION OF memory_events FOR VALUES FROM ({}) TO ({})")
    owner.execute(daily.format(f"{ahead(13)} 00:00:00+00", f"{ahead(13) + dt.timedelta(days=1)} 00:00:00+00"))
    assert ensure(owner, 13) == 0
    assert name(13) not in partitions(owner)


def test_writer_makes_no_partition(own_home: Dataset) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ensure(own_home.writer, 13)


def test_making_a_partition_blocks_no_writer_and_no_page(own_home: Dataset) -> None:
    [(_, created_at, _)] = own_home.call("memory_append", "said", Jsonb(1))
    own_home.writer.execute("SET lock_timeout = '2s'")
    own_home.owner.execute("BEGIN")
    assert ensure(own_home.owner, 13) == 1
    own_home.call("memory_append", "said", Jsonb(2))
    own_home.owner.execute("COMMIT")
    assert len(own_home.call("memory_read", before=created_at + dt.timedelta(days=1))) == 2
