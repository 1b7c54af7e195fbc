"""Partitions of the event log: made ahead, and as fine as retention needs them, for it drops whole ones.

A partition is named after the day it begins with (`memory_events_20261123`), a month's after the month.
"""

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

from psycopg import sql

from migrations import log
from migrations.deadline import Deadline
from migrations.postgres.connection import Connection, fetch_value, retrying

Step = Literal["day", "week", "month"]

# How many are there before they are needed; runs are an hour apart, so a fortnight of days is time enough.
AHEAD: dict[Step, int] = {"day": 14, "week": 12, "month": 12}
# Days that rows are kept, up to which partitions are as fine.
FINE: tuple[tuple[int, Step], ...] = ((31, "day"), (365, "week"))
# Fewer rows of the past cost nothing where they are, in DEFAULT; rows of any date can be written.
WORTH_A_PARTITION = 1000
# Readers and writers queue behind a lock that is waited for, so it is not waited for long: the step is tried again.
LOCK_TIMEOUT = "500ms"
TABLE = "memory_events"
DEFAULT = "memory_events_default"

_BOUND = re.compile(r"FOR VALUES FROM \('([^']+)'\) TO \('([^']+)'\)")


@dataclass(frozen=True)
class Range:
    """A span of time, `end` not in it; UTC."""

    start: dt.datetime
    end: dt.datetime


@dataclass(frozen=True)
class Partition:
    """A partition of the event log, other than DEFAULT."""

    name: str
    range: Range


def step_of(ttl_days: int) -> Step:
    """Gives how fine partitions are for rows that are kept so many days, 0 for ever."""
    return next((step for days, step in FINE if 0 < ttl_days <= days), "month")


def ensure(connection: Connection, schema: str, deadline: Deadline) -> int:
    """Makes what is missing from now on, as the owner; of the rows in DEFAULT it moves those that have a place then.

    What comes later than now, is coarser than it should be and is empty, gives way.

    Returns:
        How many were made.

    Raises:
        CommandError: A lock was busy until the deadline, or the server refuses.
    """
    run = _Run(connection, schema, deadline, step_of(_longest_ttl(connection, schema)))
    run.drop_coarse()
    return sum(run.make(each) for each in run.missing())


def read(connection: Connection, schema: str) -> list[Partition]:
    """Gives the partitions whose bounds are two points in time, the oldest first."""
    rows = connection.execute(
        """
        SELECT c.relname, pg_get_expr(c.relpartbound, c.oid)
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = to_regclass(%s)
        """,
        [sql.Identifier(schema, TABLE).as_string()],
    ).fetchall()
    bounds = ((name, _BOUND.fullmatch(bound)) for name, bound in rows)
    found = [Partition(name, Range(*map(_time, bound.groups()))) for name, bound in bounds if bound]
    return sorted(found, key=lambda each: each.range.start)


def _time(text: str) -> dt.datetime:
    """Reads a bound; the session's time zone is UTC (`connection.OPTIONS`)."""
    return dt.datetime.fromisoformat(text)


def _longest_ttl(connection: Connection, schema: str) -> int:
    """Gives the days after which no row of the schema is wanted any more, 0 for never."""
    query = sql.SQL("SELECT CASE WHEN bool_or(ttl_days = 0) THEN 0 ELSE max(ttl_days) END FROM {}.memory_datasets")
    return fetch_value(connection, query.format(sql.Identifier(schema)).as_string()) or 0


def floor(moment: dt.datetime, step: Step) -> dt.datetime:
    """Gives the beginning of the day, the week (Monday) or the month that a moment is in."""
    day = moment.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if step == "week":
        return day - dt.timedelta(days=day.weekday())
    return day.replace(day=1) if step == "month" else day


def following(start: dt.datetime, step: Step) -> dt.datetime:
    """Gives the beginning of the next day, week or month."""
    if step == "month":
        return floor(start.replace(day=1) + dt.timedelta(days=32), "month")
    return start + dt.timedelta(days=7 if step == "week" else 1)


def gaps(covered: Sequence[Range], start: dt.datetime, count: int, step: Step) -> Iterator[Range]:
    """Gives the spans from `start` on, so many steps after it, that nothing covers; each within one step."""
    bounds = [start]
    for _ in range(count + 1):
        bounds.append(following(bounds[-1], step))
    for low, high in pairwise(bounds):
        yield from _uncovered(covered, low, high)


def _uncovered(covered: Sequence[Range], low: dt.datetime, high: dt.datetime) -> Iterator[Range]:
    for each in covered:
        if each.end <= low or each.start >= high:
            continue
        if each.start > low:
            yield Range(low, each.start)
        low = max(low, each.end)
    if low < high:
        yield Range(low, high)


@dataclass(frozen=True)
class _Run:
    connection: Connection
    schema: str
    deadline: Deadline
    step: Step

    @property
    def now(self) -> dt.datetime:
        moment: dt.datetime = fetch_value(self.connection, "SELECT now()")
        return moment

    def missing(self) -> list[Range]:
        covered = [each.range for each in read(self.connection, self.schema)]
        start = floor(self.now, self.step)
        return [*gaps(covered, start, AHEAD[self.step], self.step), *self._past(covered, start)]

    def _past(self, covered: Sequence[Range], until: dt.datetime) -> list[Range]:
        """Gives the spans of the past of which DEFAULT holds many rows: data that was brought along, for example."""
        query = sql.SQL(
            "SELECT date_trunc(%s, created_at, 'UTC') FROM {} WHERE created_at < %s GROUP BY 1 HAVING count(*) >= %s"
            " ORDER BY 1"
        )
        statement = query.format(sql.Identifier(self.schema, DEFAULT))
        rows = self.connection.execute(statement, [self.step, until, WORTH_A_PARTITION]).fetchall()
        return [each for (start,) in rows for each in gaps(covered, start, 0, self.step) if each.end <= until]

    def drop_coarse(self) -> None:
        """Drops what begins later than now and is coarser than wanted, unless a row is in it."""
        now = self.now
        for each in read(self.connection, self.schema):
            is_coarse = each.range.end > following(floor(each.range.start, self.step), self.step)
            if is_coarse and each.range.start > now:
                retrying(self.connection, self.deadline, partial(self._drop_empty, each.name))

    def _drop_empty(self, name: str) -> None:
        table = sql.Identifier(self.schema, name)
        self.connection.execute(
            sql.SQL("SET LOCAL lock_timeout = {}; LOCK TABLE {} IN EXCLUSIVE MODE").format(LOCK_TIMEOUT, table)
        )
        if not fetch_value(self.connection, sql.SQL("SELECT EXISTS (SELECT FROM {})").format(table).as_string()):
            self.connection.execute(sql.SQL("DROP TABLE {}").format(table))

    def make(self, span: Range) -> bool:
        retrying(self.connection, self.deadline, partial(self._make, span))
        log.write("made a partition", schema=self.schema, start=str(span.start), end=str(span.end))
        return True

    def _make(self, span: Range) -> None:
        """Makes one in the transaction that it runs in. Attaching blocks neither readers nor writers of the others.

        Rows that stand in DEFAULT go along. Also those on hold: the trigger that guards them is off for this
        transaction, in which nobody else sees the table.
        """
        whole_month = floor(span.start, "month") == span.start and following(span.start, "month") == span.end
        name = f"{TABLE}_{span.start:%Y%m}" if whole_month else f"{TABLE}_{span.start:%Y%m%d}"
        values = {
            "parent": sql.Identifier(self.schema, TABLE),
            "default": sql.Identifier(self.schema, DEFAULT),
            "new": sql.Identifier(self.schema, name),
            "truncate": sql.Identifier(self.schema, "memory_refuse_truncate"),
            "start": sql.Literal(span.start.isoformat()),
            "end": sql.Literal(span.end.isoformat()),
            "timeout": sql.Literal(LOCK_TIMEOUT),
        }
        self._execute(values, *_BEGIN)
        within = "SELECT EXISTS (SELECT FROM {default} WHERE created_at >= {start} AND created_at < {end})"
        if fetch_value(self.connection, sql.SQL(within).format(**values).as_string()):
            self._execute(values, *_MOVE)
        self._execute(values, *_ATTACH)
        if self._is_guarded():
            # Without a policy: nobody reads around the parent's.
            self._execute(values, "ALTER TABLE {new} ENABLE ROW LEVEL SECURITY")

    def _execute(self, values: dict[str, sql.Composable], *statements: str) -> None:
        self.connection.execute(sql.SQL(";\n").join(sql.SQL(each).format(**values) for each in statements))

    def _is_guarded(self) -> bool:
        query = "SELECT relrowsecurity FROM pg_class WHERE oid = to_regclass(%s)"
        return bool(fetch_value(self.connection, query, sql.Identifier(self.schema, TABLE).as_string()))


_BEGIN = (
    "SET LOCAL lock_timeout = {timeout}",
    "LOCK TABLE {parent} IN SHARE UPDATE EXCLUSIVE MODE",
    # ATTACH would take it after a look at all its rows; nobody may write one between our look and that.
    "LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE",
    "CREATE TABLE {new} (LIKE {parent} INCLUDING ALL)",
)
_MOVE = (
    "ALTER TABLE {default} DISABLE TRIGGER memory_events_hold",
    (
        "WITH moved AS (DELETE FROM {default} WHERE created_at >= {start} AND created_at < {end} RETURNING *)"
        " INSERT INTO {new} SELECT * FROM moved"
    ),
    "ALTER TABLE {default} ENABLE TRIGGER memory_events_hold",
)
_ATTACH = (
    "ALTER TABLE {parent} ATTACH PARTITION {new} FOR VALUES FROM ({start}) TO ({end})",
    (
        "CREATE TRIGGER memory_events_hold_truncate BEFORE TRUNCATE ON {new}"
        " FOR EACH STATEMENT EXECUTE FUNCTION {truncate}('rows')"
    ),
)
