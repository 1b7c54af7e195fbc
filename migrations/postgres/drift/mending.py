"""How differences are mended. Each way takes what it needs, says why when it cannot, and loses no value."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from migrations.deadline import Deadline
from migrations.postgres import grants, managed, policies
from migrations.postgres.connection import retrying, retrying_alone
from migrations.postgres.maintenance.places import Home, Work

# Readers and writers wait behind what waits for a lock, so not for long, but again and again.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '1s'"
PATIENCE_SECONDS = 20.0
ALONE_SECONDS = 60.0

T = TypeVar("T")


class NotMendedError(Exception):
    """A difference stays; the words say why, and what a person does."""


@dataclass(frozen=True)
class Fix:
    """One way of mending with its arguments; equal ones are done once, lower orders first."""

    order: int
    way: Callable[..., None]
    arguments: tuple[Any, ...] = ()

    def apply(self, work: Work) -> None:
        """Does it.

        Raises:
            NotMendedError: It cannot be done without losing something; nothing was changed.
            CommandError: PostgreSQL refused, or somebody else held a lock for too long.
        """
        self.way(work, *self.arguments)


def _patience(work: Work) -> Deadline:
    return Deadline(min(work.deadline.at, Deadline.in_seconds(PATIENCE_SECONDS).at))


def _in_transaction(work: Work, change: Callable[[], T]) -> T:
    def limited() -> T:
        work.connection.execute(LOCK_TIMEOUT)
        with _rows_that_are_there():
            return change()

    return retrying(work.connection, _patience(work), limited)


@contextmanager
def _rows_that_are_there() -> Iterator[None]:
    """Tells rows that break a rule from a race with another session, which is tried again."""
    try:
        yield
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        if error.diag.schema_name == "pg_catalog":
            raise
        # Not the server's words: they may hold a value.
        msg = "the rows that are there do not allow it"
        raise NotMendedError(msg) from None


def execute(work: Work, *statements: str) -> None:
    """Executes statements as the owner, all or none. Their names come from the catalog, which has quoted them."""
    with work.as_owner() as connection:
        _in_transaction(work, lambda: connection.execute(";\n".join(statements).encode()))


def replace_function(work: Work, statement: str, definition: str) -> None:
    """Gives a function its definition back; one whose result or parameters changed is made anew."""
    with work.as_owner() as connection:

        def change() -> None:
            try:
                with connection.transaction():
                    connection.execute(definition.encode())
            except (psycopg.errors.InvalidFunctionDefinition, psycopg.errors.WrongObjectType):
                connection.execute(f"DROP {statement};\n{definition}".encode())

        _in_transaction(work, change)


def execute_alone(work: Work, *statements: str) -> None:
    """As `execute`, for what PostgreSQL refuses inside a transaction: one after the other, and again from the first.

    What it waits for keeps nobody waiting, and an index that was built in vain is built again in the next run.
    """

    def change() -> None:
        with _rows_that_are_there():
            for statement in statements:
                connection.execute(statement.encode())

    limit = round(min(ALONE_SECONDS, max(work.deadline.remaining, 0.001)) * 1000)
    with work.as_owner() as connection:
        connection.execute(f"SET lock_timeout = {limit}".encode())
        try:
            retrying_alone(connection, Deadline.in_seconds(0), change)
        finally:
            if not connection.broken:
                connection.execute("RESET lock_timeout")


def index_partitions(work: Work, table: str, definition: str) -> None:
    """Makes the index of a partitioned table: first those of its partitions, a partition with rows keeps no writer out.

    PostgreSQL takes an index that is there for its own when the parent gets one like it.
    """
    head, rest = definition.split(f" ON ONLY {table} ", 1)
    begin = f"{head.rsplit(' ', 1)[0]} CONCURRENTLY"
    with work.as_owner() as connection:
        query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass ORDER BY 1"
        partitions = [row[0] for row in connection.execute(query, [table]).fetchall()]
        filled = [name for name in partitions if _holds(work, _put("SELECT FROM {table}", table=name))]
    for partition in filled:
        execute_alone(work, f"{begin} ON {partition} {rest}")
    execute(work, f"{head} ON {table} {rest}")


def execute_as_admin(work: Work, *statements: str) -> None:
    """As `execute`, as the session's login."""
    _in_transaction(work, lambda: work.connection.execute(";\n".join(statements).encode()))


def grant(work: Work, home: Home) -> None:
    """Gives a home's groups their rights and takes all others from them and its logins."""
    names, shared = managed.present(work.connection, home.names), work.place.isolation == "Dataset"
    with work.as_owner() as connection:
        _in_transaction(work, lambda: grants.repair(connection, work.place.schema, names, shared=shared))


def share(work: Work, home: Home, role: str, writes: bool) -> None:
    """Gives a role of others what it has in a Memory's own database where CloudNativePG manages memberships."""
    guest = grants.Guest(role, writes, work.extension_schema)
    with work.as_owner() as connection:
        _in_transaction(work, lambda: grants.share(connection, work.place.schema, home.names, guest))


def guard(work: Work, home: Home) -> None:
    """Puts a home's policies on, a table at a time, and takes off those that open more."""
    with work.as_owner() as connection:
        for repair in policies.repairs(connection, work.place.schema, home.names, home.dataset):
            _in_transaction(work, partial(connection.execute, repair))


def close_database(work: Work, home: Home) -> None:
    """Closes a Memory's own database to PUBLIC and opens it to its groups."""
    _in_transaction(work, lambda: grants.repair_database(work.connection, home.names))


def open_extension(work: Work, home: Home, schema: str) -> None:
    """Lets the groups of a Memory's own database look into the schema that pgvector is in."""
    groups = sql.SQL(", ").join(map(sql.Identifier, (home.names.writer, home.names.reader)))
    statement = sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(schema), groups)
    with work.as_owner() as connection:
        _in_transaction(work, lambda: connection.execute(statement))


def drop_column(work: Work, table: str, column: str) -> None:
    """Drops a column that holds no value at all.

    Raises:
        NotMendedError: It holds some.
    """

    def change() -> None:
        _lock(work, table)
        if _holds(work, _put("SELECT FROM {table} WHERE {column} IS NOT NULL", table=table, column=column)):
            msg = "it holds values: drop it by hand when nobody needs them"
            raise NotMendedError(msg)
        work.connection.execute(_put("ALTER TABLE {table} DROP COLUMN {column}", table=table, column=column))

    with work.as_owner():
        _in_transaction(work, change)


def add_column(work: Work, table: str, definition: str, derived: bool) -> None:
    """Adds a column whose values cannot have been lost: `derived` from others, or of a table without rows.

    Raises:
        NotMendedError: There are rows, whose values somebody has to bring back.
    """

    def change() -> None:
        _lock(work, table)
        if not derived and _holds(work, _put("SELECT FROM {table}", table=table)):
            msg = "its values are gone: restore them from a backup"
            raise NotMendedError(msg)
        work.connection.execute(_put("ALTER TABLE {table} ADD COLUMN {it}", table=table, it=definition))

    with work.as_owner():
        _in_transaction(work, change)


@dataclass(frozen=True)
class Retyping:
    """A column that gets its type back; all as SQL, `default` is "" where there is none."""

    table: str
    column: str
    actual: str
    wanted: str
    default: str

    def change(self, work: Work) -> None:
        """Does it when every value is the same after a cast there and back, in the transaction that it runs in.

        Raises:
            NotMendedError: One is not, or cannot be cast.
        """
        parts = {
            "table": self.table,
            "column": self.column,
            "wanted": self.wanted,
            "default": self.default,
            # Collations are no part of what is cast to.
            "there": self.wanted.split(" COLLATE ")[0],
            "back": self.actual.split(" COLLATE ")[0],
        }
        steps = [
            "ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT",
            "ALTER COLUMN {column} TYPE {wanted} USING {column}::{there}",
            *(["ALTER COLUMN {column} SET DEFAULT {default}"] if self.default else []),
        ]
        differing = "SELECT FROM {table} WHERE ({column}::{there}::{back})::text IS DISTINCT FROM {column}::text"
        _lock(work, self.table)
        try:
            lossy = _holds(work, _put(differing, **parts))
            if not lossy:
                work.connection.execute(_put(", ".join(steps), **parts))
        except (psycopg.DataError, psycopg.errors.CannotCoerce):
            lossy = True
        if lossy:
            msg = f"some of its values are not the same as {self.wanted}: convert them by hand"
            raise NotMendedError(msg)


def change_type(work: Work, retyping: Retyping) -> None:
    """Gives a column its type back."""
    with work.as_owner():
        _in_transaction(work, lambda: retyping.change(work))


def _lock(work: Work, table: str) -> None:
    work.connection.execute(_put("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE", table=table))


def _holds(work: Work, query: sql.Composed) -> bool:
    row = work.connection.execute(sql.SQL("SELECT EXISTS ({})").format(query)).fetchone()
    return bool(row and row[0])


def _put(template: str, **parts: str) -> sql.Composed:
    """Puts SQL in place of names; what it names comes from the catalog, which has quoted it."""
    return sql.SQL(template).format(**{name: sql.SQL(part) for name, part in parts.items()})
