"""The approximate index of the embeddings: exact until it is earned, built beside the work, never left half done.

A dataset earns it with `embeddings.index.minRows` rows, and keeps it until it has fewer than half of them, so that one
at the threshold does not swing. A shared schema has one index, for the datasets that earned it; the others go on
searching exactly, which is right and quicker for few rows. What searches look at is `memory_datasets.index_state`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Literal

import psycopg
from psycopg import sql

from migrations import log
from migrations.answers import Index, State
from migrations.errors import CommandError, code_of
from migrations.postgres.connection import ConnectionLostError, fetch_value, words
from migrations.postgres.embeddings import LIMITS
from migrations.postgres.maintenance.places import Home, Work

Method = Literal["hnsw", "ivfflat"]

TABLE = "memory_embeddings"
NAME = "memory_embeddings_vector_idx"
# An index that replaces another is built as _next; the one that it replaced is dropped as _old.
NEXT = f"{NAME}_next"
OLD = f"{NAME}_old"

# Shared memory for parallel workers, or the disk, does not suffice.
DISK_FULL = "53100"
# How many neighbours are weighed for each row of an HNSW index while it is built. pgvector's 64 leave rows that no
# search comes to: of 100,000 clustered vectors of 1536 dimensions 99 % of the right ones are found however long one
# looks, and with 128 all, in the same time.
EF_CONSTRUCTION = 128
# Lists of ivfflat, as pgvector's README recommends: rows / 1000 up to a million rows, their square root above. It is
# built anew when twice as many would be right.
ROWS_PER_LIST = 1000
MANY_ROWS = 1_000_000
LISTS_LIMIT = 32768
LISTS_OUTGROWN = 2
# Below this share of minRows an index that was earned is given up.
KEPT_SHARE = 0.5


@dataclass(frozen=True)
class _Column:
    """The embeddings as they are stored: `type` is vector or halfvec."""

    type: str
    dimension: int

    @property
    def excess(self) -> str:
        """Why no index can hold them, "" when one can."""
        limit = LIMITS[self.type]
        if self.dimension <= limit:
            return ""
        most = f"an index on {self.type} holds at most {limit}, and these embeddings have {self.dimension} dimensions"
        half = LIMITS["halfvec"]
        remedy = "embeddings.storage half" if self.dimension <= half else f"a model of at most {half} dimensions"
        return f"searched exactly: {most}; {remedy} in a new Memory can be indexed"


@dataclass(frozen=True)
class _Built:
    """An approximate index of the table as the catalog shows it; `lists` counts for ivfflat."""

    name: str
    valid: bool
    method: str
    operators: str
    lists: int


@dataclass(frozen=True)
class _Wanted:
    method: Method
    operators: str
    lists: int

    def is_met_by(self, index: _Built) -> bool:
        alike = index.valid and (index.method, index.operators) == (self.method, self.operators)
        return alike and (self.method != "ivfflat" or self.lists < LISTS_OUTGROWN * index.lists)


def look_after(work: Work, tell: Callable[[dict[str, Index]], None]) -> dict[str, Index]:
    """Builds, replaces or drops the index as the homes' rows and claims say.

    Args:
        work: The place.
        tell: Called with how it stands before a build begins, which takes minutes.

    Returns:
        How it stands, by `Home.key`.

    Raises:
        CommandError: The build failed; nothing of it is left, and the next run tries again.
    """
    if not (work.place.embeddings.enabled and work.has(TABLE)):
        disabled = Index("exact", "Disabled", "embeddings are not enabled")
        return {home.key: disabled for home in work.place.homes}
    return _Lifecycle(work, tell).go()


class _Lifecycle:
    def __init__(self, work: Work, tell: Callable[[dict[str, Index]], None]) -> None:
        self.work = work
        self.tell = tell
        self.connection = work.connection
        self.column = _read_column(work)

    def go(self) -> dict[str, Index]:
        with self.work.as_owner():
            earned = [home for home in self.work.place.homes if self._has_earned(home)]
            usable = any(self._is_usable(each) for each in self._built())
            if is_being_built(self.work):
                return self._settle(earned, "ready" if usable else "building")
            self._clear()
            if earned:
                self._provide(earned, self._wanted(earned))
                return self._settle(earned, "ready")
            stands = self._settle(earned, "exact")
            for index in self._built():
                self._drop(index.name)
            return stands

    def _has_earned(self, home: Home) -> bool:
        wanted = home.embeddings.index
        if wanted.type == "none" or self.column.excess:
            return False
        query = sql.SQL("SELECT index_state FROM {} WHERE dataset = %s").format(self.work.table("memory_datasets"))
        state = fetch_value(self.connection, query.as_string(), home.dataset)
        needed = ceil(wanted.min_rows * KEPT_SHARE) if state == "ready" else wanted.min_rows
        # Counts no further than it must.
        query = sql.SQL("SELECT count(*) FROM (SELECT FROM {} WHERE dataset = %s LIMIT %s) counted").format(
            self.work.table(TABLE)
        )
        return bool(fetch_value(self.connection, query.as_string(), home.dataset, needed) >= needed)

    def _wanted(self, earned: Sequence[Home]) -> _Wanted:
        """Gives the index that the homes which earned it share: ivfflat when none of them wants anything else."""
        operators = f"{self.column.type}_{self.work.place.embeddings.metric}_ops"
        if any(home.embeddings.index.type != "ivfflat" for home in earned):
            return _Wanted("hnsw", operators, 0)
        rows = fetch_value(self.connection, _count(self.work))
        return _Wanted("ivfflat", operators, lists_for(rows))

    def _provide(self, earned: Sequence[Home], wanted: _Wanted) -> None:
        """Sees to it that the wanted index is there under its name."""
        found = {index.name: index for index in self._built()}
        present, following = found.get(NAME), found.get(NEXT)
        if following and (present is None or wanted.is_met_by(present) or not wanted.is_met_by(following)):
            self._drop(NEXT)
            following = None
        if present is None:
            self.tell(self._settle(earned, "building"))
            self._build(NAME, wanted, earned)
        elif not wanted.is_met_by(present):
            usable = self._is_usable(present)
            stands = self._settle(earned, "ready" if usable else "building")
            if not following:
                replacing = {home.key: _REPLACING for home in earned} if usable else {}
                self.tell({**stands, **replacing})
                self._build(NEXT, wanted, earned)
            self._swap()

    def _is_usable(self, index: _Built) -> bool:
        """Whether searches may use it, be it the wanted one or not."""
        operators = f"{self.column.type}_{self.work.place.embeddings.metric}_ops"
        return index.name == NAME and index.valid and index.operators == operators

    def _clear(self) -> None:
        """Drops what a build or a replacement that was cancelled or killed has left."""
        for index in self._built():
            if index.name == OLD or (index.name in {NAME, NEXT} and not index.valid):
                log.write("dropping what an earlier build left", index=index.name)
                self._drop(index.name)

    def _build(self, name: str, wanted: _Wanted, earned: Sequence[Home]) -> None:
        option = ("lists", wanted.lists) if wanted.method == "ivfflat" else ("ef_construction", EF_CONSTRUCTION)
        statement = sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} USING {} (embedding {}) WITH ({} = {})").format(
            sql.Identifier(name),
            self.work.table(TABLE),
            sql.Identifier(wanted.method),
            sql.Identifier(self.work.extension_schema, wanted.operators),
            sql.Identifier(option[0]),
            sql.Literal(option[1]),
        )
        log.write("building", index=name, method=wanted.method)
        try:
            build(self.work, statement, lambda: self._drop(name))
        except CommandError as error:
            self._tell_failed(earned, error.message)
            raise
        self.connection.execute(sql.SQL("ANALYZE {}").format(self.work.table(TABLE)))

    def _tell_failed(self, earned: Sequence[Home], message: str) -> None:
        """Tells why there is no such index; searches go on as they can."""
        stands = self._settle(earned, "ready" if any(map(self._is_usable, self._built())) else "exact")
        self.tell(stands | {home.key: Index(stands[home.key].state, "Invalid", message) for home in earned})

    def _swap(self) -> None:
        """Gives the index that was built the name of the one that it replaces."""
        rename = sql.SQL("ALTER INDEX {} RENAME TO {}")
        with self.connection.transaction():
            self.connection.execute(rename.format(self.work.table(NAME), sql.Identifier(OLD)))
            self.connection.execute(rename.format(self.work.table(NEXT), sql.Identifier(NAME)))
        self._drop(OLD)

    def _drop(self, name: str) -> None:
        drop_index(self.work, name)

    def _settle(self, earned: Sequence[Home], state: State) -> dict[str, Index]:
        """Notes where each dataset stands, and gives it."""
        indexes = {home.key: self._index(home, state if home in earned else "exact") for home in self.work.place.homes}
        for home in self.work.place.homes:
            note = sql.SQL(
                "UPDATE {table} SET index_state = {state}"
                " WHERE dataset = {dataset} AND index_state IS DISTINCT FROM {state}"
            )
            values = {
                "table": self.work.table("memory_datasets"),
                "state": sql.Literal(indexes[home.key].state),
                "dataset": sql.Literal(home.dataset),
            }
            self.connection.execute(note.format(**values))
        return indexes

    def _index(self, home: Home, state: State) -> Index:
        if state == "ready":
            return _READY
        if state == "building":
            return _BUILDING
        wanted = home.embeddings.index
        if wanted.type == "none":
            return Index("exact", "Exact", "searched exactly: embeddings.index.type is none")
        if self.column.excess:
            return Index("exact", "DimensionTooLarge", self.column.excess)
        return Index("exact", "Exact", f"searched exactly until there are {wanted.min_rows} embeddings")

    def _built(self) -> list[_Built]:
        rows = self.connection.execute(
            """
            SELECT c.relname, i.indisvalid, m.amname, o.opcname,
                   coalesce((SELECT option_value::int FROM pg_options_to_table(c.reloptions)
                             WHERE option_name = 'lists'), 100)
            FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
            JOIN pg_opclass o ON o.oid = i.indclass[0]
            WHERE i.indrelid = to_regclass(%s) AND c.relname = ANY(%s)
            ORDER BY 1
            """,
            [self.work.table(TABLE).as_string(), [NAME, NEXT, OLD]],
        ).fetchall()
        return [_Built(*row) for row in rows]


_READY = Index("ready", "Ready", "searched by the approximate index")
_BUILDING = Index("building", "Building", "searched exactly while the approximate index is built")
_REPLACING = Index("ready", "Ready", "searched by the approximate index while another one is built in its place")


def lists_for(rows: int) -> int:
    """Gives how many lists an ivfflat index of so many rows should have."""
    lists = rows // ROWS_PER_LIST if rows <= MANY_ROWS else round(sqrt(rows))
    return min(max(1, lists), LISTS_LIMIT)


def is_being_built(work: Work) -> bool:
    """Whether another session is at an index of the embeddings: one is invalid, and the lock for such work is taken.

    Locks, because pg_stat_progress_create_index does not tell everybody; they are the same for an ANALYZE or a VACUUM,
    and then the next run clears what is left.
    """
    query = """
        SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = to_regclass(%(table)s) AND NOT indisvalid)
           AND EXISTS (SELECT FROM pg_locks WHERE relation = to_regclass(%(table)s) AND granted
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                       AND mode = 'ShareUpdateExclusiveLock' AND pid <> pg_backend_pid())
    """
    row = work.connection.execute(query, {"table": work.table(TABLE).as_string()}).fetchone()
    return bool(row and row[0])


def drop_index(work: Work, name: str) -> None:
    """Drops an index of the place, if it is there, without blocking anybody; as the owner."""
    work.connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(work.table(name)))


def build(work: Work, statement: sql.Composed, clear: Callable[[], None]) -> None:
    """Builds an index with the memory that the provider allows, once more without workers when that was too much.

    Args:
        work: The place; its session acts as the owner.
        statement: CREATE or REINDEX … CONCURRENTLY.
        clear: Drops what a build that failed leaves.

    Raises:
        CommandError: With what PostgreSQL says; nothing of the build is left if that can be helped.
        ConnectionLostError: The connection is gone; the next run clears.
    """
    for workers in (None, 0):
        try:
            with _settings(work, workers):
                work.connection.execute(statement)
        except psycopg.Error as error:
            if work.connection.broken:
                raise ConnectionLostError(words(error)) from None
            _try(clear)
            if workers == 0 or error.sqlstate != DISK_FULL:
                raise _failed(work, error) from None
            log.write("trying again without parallel workers", sqlstate=error.sqlstate, why=words(error))
        else:
            return


def _failed(work: Work, error: psycopg.Error) -> CommandError:
    remedy = (
        "free disk space on the server, or lower maintenance.workMem of the provider"
        if error.sqlstate == DISK_FULL
        else "the next run tries again"
    )
    msg = f"the index of {work.place.title} could not be built ({words(error)}): {remedy}"
    return CommandError(code_of(error.sqlstate or ""), msg, sqlstate=error.sqlstate or "")


def _try(clear: Callable[[], None]) -> None:
    # Writes maintain what is left of a build although no search may use it.
    try:
        clear()
    except psycopg.Error as error:
        log.write("what the build left stays until the next run", sqlstate=error.sqlstate, why=words(error))


@contextmanager
def _settings(work: Work, workers: int | None) -> Iterator[None]:
    """Gives the session memory, and patience: a build waits for every transaction that is older than itself."""
    values = {
        "maintenance_work_mem": work.request.work_mem,
        "lock_timeout": f"{max(1, round(work.deadline.remaining * 1000))}ms",
        **({} if workers is None else {"max_parallel_maintenance_workers": str(workers)}),
    }
    for name, value in values.items():
        work.connection.execute("SELECT set_config(%s, %s, false)", [name, value])
    try:
        yield
    finally:
        if not work.connection.broken:
            for name in values:
                work.connection.execute(sql.SQL("RESET {}").format(sql.Identifier(name)))


def _read_column(work: Work) -> _Column:
    kind, dimension = work.connection.execute(
        """
        SELECT t.typname, a.atttypmod FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = to_regclass(%s) AND a.attname = 'embedding'
        """,
        [work.table(TABLE).as_string()],
    ).fetchall()[0]
    return _Column(kind, dimension)


def _count(work: Work) -> str:
    return sql.SQL("SELECT count(*) FROM {}").format(work.table(TABLE)).as_string()
