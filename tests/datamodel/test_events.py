"""The event log: appended once whatever is retried, read newest first, page by page."""

import datetime as dt
import re
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.datamodel.homes import Dataset, at_once, call


def test_append_gives_id_and_time_and_read_gives_the_event(dataset: Dataset) -> None:
    [(event_id, created_at, duplicate)] = dataset.call("memory_append", "said", Jsonb({"text": "hello"}))
    assert not duplicate
    assert dataset.call("memory_read") == [(event_id, "said", {"text": "hello"}, created_at)]


def test_ids_are_ordered_by_time_where_the_server_can(dataset: Dataset) -> None:
    [(event_id, _, _)] = dataset.call("memory_append", "said", Jsonb(1))
    assert event_id.version == (7 if dataset.home.memory.database.server.version >= 18 else 4)


def test_events_of_one_transaction_keep_their_order(dataset: Dataset) -> None:
    with dataset.writer.transaction():
        for number in range(20):
            dataset.call("memory_append", "counted", Jsonb(number))
    assert [row[2] for row in dataset.call("memory_read")] == list(reversed(range(20)))


def test_retried_append_is_the_same_event(dataset: Dataset) -> None:
    [first] = dataset.call("memory_append", "said", Jsonb(1), "e-1", "agent")
    [again] = dataset.call("memory_append", "said", Jsonb(1), "e-1", "agent")
    assert first[2] is False
    assert again == (*first[:2], True)
    assert len(dataset.call("memory_read")) == 1


def test_event_ids_of_other_sources_and_datasets_are_others(dataset: Dataset) -> None:
    other = dataset.home.new_dataset()
    rows = [
        *dataset.call("memory_append", "said", Jsonb(1), "e-1"),
        *dataset.call("memory_append", "said", Jsonb(1), "e-1", "agent"),
        *call(dataset.writer, "memory_append", other, "said", Jsonb(1), "e-1"),
    ]
    assert [row[2] for row in rows] == [False] * 3
    assert len({row[0] for row in rows}) == 3
    # No source, and a source that is null, are the same.
    assert dataset.call("memory_append", "said", Jsonb(1), "e-1", None)[0][2] is True


def test_eight_clients_that_append_the_same_event_make_one(dataset: Dataset) -> None:
    def append(_: int) -> list[tuple[object, ...]]:
        with dataset.home.writer() as connection:
            return [
                row
                for number in range(25)
                for row in call(connection, "memory_append", dataset.name, "said", Jsonb(number), f"e-{number}")
            ]

    rows = [row for rows in at_once(append) for row in rows]
    assert len(rows) == 200
    assert len({row[:2] for row in rows}) == 25, "everyone gets the same id and time"
    assert sum(not row[2] for row in rows) == 25, "one of the eight was first"
    assert len(dataset.call("memory_read", 1000)) == 25


def test_waiting_append_is_first_when_the_other_gives_up(dataset: Dataset) -> None:
    with dataset.home.writer() as other:
        other.execute("BEGIN")
        [(given_up, _, _)] = call(other, "memory_append", dataset.name, "said", Jsonb(1), "e-1")

        def client(number: int) -> tuple[object, ...] | None:
            if number == 0:
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'"
                with dataset.home.memory.database.superuser() as watcher:
                    for _ in range(1000):
                        if watcher.execute(waiting).fetchone() == (1,):
                            break
                        watcher.execute("SELECT pg_sleep(0.01)")
                other.execute("ROLLBACK")
                return None
            with dataset.home.writer() as connection:
                [row] = call(connection, "memory_append", dataset.name, "said", Jsonb(1), "e-1")
                return row

        [appended] = [row for row in at_once(client, clients=2) if row]
    assert appended[2] is False
    assert appended[0] != given_up
    assert [row[0] for row in dataset.call("memory_read")] == [appended[0]]


def test_pages_give_every_event_once(dataset: Dataset) -> None:
    # Three events at each moment, from DEFAULT to months that come: pages end within a moment, and span partitions.
    now = dt.datetime.now(dt.UTC)
    days = (-2000, -1999, 40, 80)
    with dataset.writer.cursor().copy(
        "COPY memory_events (dataset, event_type, payload, created_at) FROM STDIN"
    ) as copy:
        for number, day in enumerate(day for day in days for _ in range(3)):
            copy.write_row([dataset.name, "old", Jsonb(number), now + dt.timedelta(days=day)])
    for number in range(4):
        dataset.call("memory_append", "new", Jsonb(number))
    everything = dataset.call("memory_read", 1000)
    assert len(everything) == 16
    assert everything == sorted(everything, key=lambda row: (row[3], row[0]), reverse=True)
    for size in (1, 2, 5, 16, 100):
        pages: list[tuple[object, ...]] = []
        page = dataset.call("memory_read", size)
        while page:
            assert len(page) <= size
            pages += page
            page = dataset.call("memory_read", size, page[-1][3], page[-1][0])
        assert pages == everything, size


def test_before_without_id_leaves_out_that_moment(dataset: Dataset) -> None:
    [(_, first, _)] = dataset.call("memory_append", "said", Jsonb(1))
    [(_, second, _)] = dataset.call("memory_append", "said", Jsonb(2))
    assert [row[2] for row in dataset.call("memory_read", before=second)] == [1]
    assert dataset.call("memory_read", before=first) == []


def test_read_by_type(dataset: Dataset) -> None:
    for number in range(6):
        dataset.call("memory_append", "even" if number % 2 == 0 else "odd", Jsonb(number))
    assert [row[2] for row in dataset.call("memory_read", event_type="even")] == [4, 2, 0]
    assert [row[2] for row in dataset.call("memory_read", 1, event_type="odd")] == [5]


def test_read_gives_fifty_unless_told_otherwise(dataset: Dataset) -> None:
    for number in range(51):
        dataset.call("memory_append", "said", Jsonb(number))
    assert len(dataset.call("memory_read")) == 50
    assert len(dataset.call("memory_read", None)) == 50
    assert len(dataset.call("memory_read", 51)) == 51


def test_later_pages_do_not_touch_later_partitions(dataset: Dataset) -> None:
    [(_, created_at, _)] = dataset.call("memory_append", "said", Jsonb(1))
    query = (
        "EXPLAIN SELECT e.id FROM memory_events e WHERE e.dataset = 'x' AND e.created_at <= %(before)s"
        " AND (e.created_at, e.id) < (%(before)s, gen_random_uuid()) ORDER BY e.created_at DESC, e.id DESC LIMIT 50"
    )
    # An autovacuum may have seen this table of one page by now, and one page is cheapest read whole.
    with dataset.owner.transaction(), psycopg.ClientCursor(dataset.owner) as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        plan = "\n".join(row[0] for row in cursor.execute(query, {"before": created_at}).fetchall())
    [body] = dataset.owner.execute("SELECT prosrc FROM pg_proc WHERE proname = 'memory_read'").fetchone() or [""]
    assert "e.created_at <= p_before" in body, "the plan below is that of this query"
    months = set(re.findall(r"memory_events_(\d{6})", plan))
    assert months == {created_at.astimezone(dt.UTC).strftime("%Y%m")}
    assert "Seq Scan" not in plan


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "sentence"),
    [
        pytest.param({"limit": 0}, "22023", "p_limit is 0: give a number from 1 on, or NULL for 50", id="limit-zero"),
        pytest.param({"limit": -1}, "22023", "p_limit is -1: give", id="limit-negative"),
        pytest.param(
            {"before_id": "00000000-0000-0000-0000-000000000001"},
            "22023",
            "p_before_id is 00000000-0000-0000-0000-000000000001 and p_before is NULL: give both",
            id="id-without-time",
        ),
    ],
)
def test_read_refuses(dataset: Dataset, arguments: dict[str, Any], sqlstate: str, sentence: str) -> None:
    with pytest.raises(psycopg.Error, match=re.escape(sentence)) as caught:
        dataset.call("memory_read", **arguments)
    assert caught.value.sqlstate == sqlstate


@pytest.mark.parametrize(("event_type", "payload"), [(None, Jsonb(1)), ("said", None)], ids=["type", "payload"])
def test_append_refuses_null(dataset: Dataset, event_type: str | None, payload: Jsonb | None) -> None:
    for event_id in (None, "e-1"):
        with pytest.raises(psycopg.errors.NotNullViolation):
            dataset.call("memory_append", event_type, payload, event_id)
    assert dataset.call("memory_append", "said", Jsonb(1), "e-1")[0][2] is False, "the refused event took no id"
