"""Dropping a home of each isolation, with its roles and its entry in the ledger; each step can be taken again.

The caller holds the home's lock (`names.lock_name`) in the provider's database, and has decided that nobody needs the
home any more: what is on hold is refused here all the same. The entry goes last, so a run that is killed is gone on
with.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import psycopg
from psycopg import sql

from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.postgres import grants, home, ledger, policies, roles
from migrations.postgres.connection import Admin, Connection, fetch_value, retrying, retrying_alone
from migrations.postgres.names import Isolation, Names, names_for

T = TypeVar("T")

BATCH = 1000
# Partitions that go in one transaction: each takes several locks, and a server has room for some thousands.
PARTITIONS_AT_ONCE = 50
ON_HOLD = "MM002"
ENDING_MILLISECONDS = 5000


@dataclass(frozen=True)
class Home:
    """One home, as its row of `memory_ledger.homes` describes it."""

    key: str
    identity: str
    isolation: Isolation
    schema: str
    dataset: str

    def names(self, database: str) -> Names:
        """Gives its names; `database` is the provider's."""
        return names_for(self.identity, database, self.schema, self.isolation)


def close_logins(connection: Connection, home_: Home, deadline: Deadline) -> None:
    """Refuses the home's logins and ends their sessions; rows and passwords stay, for the Memory may come back.

    Args:
        connection: To the provider's database, as the admin.
        home_: The home.
        deadline: Of the run.

    Raises:
        CommandError: SCHEMA_CONFLICT when a role of that name is not ours.
    """
    names = home_.names(connection.info.dbname)

    def close() -> None:
        there = [role for role in names.logins if role in roles.existing(connection, names).roles]
        closing = [sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(role)) for role in there]
        if closing:
            connection.execute(sql.SQL(";\n").join(closing))

    retrying(connection, deadline, close)
    end_sessions(connection, names.logins)


def end_sessions(connection: Connection, logins: Sequence[str]) -> None:
    """Ends the sessions of logins, and waits for that.

    Runs after the commit that closed them: before it, a login could come back at once.
    """
    query = "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE usename = ANY(%s)"
    connection.execute(query, [ENDING_MILLISECONDS, list(logins)])


def drop_home(connection: Connection, admin: Admin, home_: Home, deadline: Deadline) -> None:
    """Drops everything that a home is: rows, roles, entry.

    Args:
        connection: To the provider's database, as the admin, with the home's lock held.
        admin: Who that is; a database of the home's own is connected to anew.
        home_: The home.
        deadline: Of the run.

    Raises:
        CommandError: ON_HOLD, before anything is dropped, when the dataset or one of its rows is on hold;
            SCHEMA_CONFLICT when what bears the home's names is not ours.
    """
    close_logins(connection, home_, deadline)
    run = _Run(connection, admin, home_, home_.names(connection.info.dbname), deadline)
    {"Schema": run.schema, "Database": run.database, "Dataset": run.dataset}[home_.isolation]()
    retrying(connection, deadline, partial(ledger.forget, connection, home_.key))


def withdraw(connection: Connection, admin: Admin, home_: Home, deadline: Deadline) -> None:
    """Takes a Memory's roles out of a shared schema; its rows stay.

    Args:
        connection: To the provider's database, as the admin, with the home's lock held.
        admin: Who that is.
        home_: The home, of isolation Dataset.
        deadline: Of the run.

    Raises:
        CommandError: SCHEMA_CONFLICT when what bears the home's names is not ours.
    """
    run = _Run(connection, admin, home_, home_.names(connection.info.dbname), deadline)
    if run.is_standing(connection):
        run.withdraw()
    run.drop_roles(run.names.own)


@dataclass(frozen=True)
class _Run:
    connection: Connection
    admin: Admin
    home: Home
    names: Names
    deadline: Deadline

    def schema(self) -> None:
        """Drops a schema of its own."""
        if self.is_standing(self.connection):
            _check_holds(self.connection, self.names.owner, self.home, self.deadline)
            _empty(self.connection, self.names.owner, self.home.schema, self.deadline)
        self.drop_roles(self.names.roles)

    def database(self) -> None:
        """Drops a database of its own; nobody can connect to it any more once nothing was found on hold."""
        connection, names = self.connection, self.names
        found = home.find_database(connection, names)
        if found and not found.ours:
            raise home.database_conflict(names)
        if found:
            if found.open:
                with self.admin.wait(self.deadline, names.database) as inside:
                    if self.is_standing(inside):
                        _check_holds(inside, names.owner, self.home, self.deadline)
            close = "ALTER DATABASE {} ALLOW_CONNECTIONS false"
            self._as_owner(connection, partial(connection.execute, _named(close, names.database)))
            drop = sql.SQL("DROP DATABASE {}").format(sql.Identifier(names.database))
            with _acting(connection, names.owner):
                retrying_alone(connection, self.deadline, partial(connection.execute, drop))
        self.drop_roles(names.roles)

    def dataset(self) -> None:
        """Drops the rows of a shared schema that are this Memory's, and the schema with the last Memory of it."""
        connection, names, schema = self.connection, self.names, self.home.schema
        if self.is_standing(connection):
            _check_holds(connection, names.owner, self.home, self.deadline)
            if self._is_last():
                _empty(connection, names.owner, schema, self.deadline)
            else:
                self._delete_rows()
                self.withdraw()
        self.drop_roles(names.own)
        if self._is_last():
            self.drop_roles((names.owner,))

    def is_standing(self, connection: Connection) -> bool:
        query = "SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = %s"
        stamp = fetch_value(connection, query, self.home.schema)
        if stamp not in (None, self.names.stamp):
            msg = (
                f'schema "{self.home.schema}" was not made for the Memory "{self.home.identity}": it stays; '
                "look who made it"
            )
            raise CommandError(Code.SCHEMA_CONFLICT, msg)
        return stamp is not None

    def _is_last(self) -> bool:
        """Whether no other Memory has its home in the shared schema."""
        query = """
            SELECT NOT EXISTS (SELECT FROM memory_ledger.homes
                               WHERE isolation = 'Dataset' AND schema = %s AND home <> %s)
        """
        return bool(fetch_value(self.connection, query, self.home.schema, self.home.key))

    def _delete_rows(self) -> None:
        """Deletes in batches, each committed; the registry's row last, for it is what says that there are others."""
        schema, dataset = self.home.schema, self.home.dataset
        query = """
            SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'dataset' AND NOT a.attisdropped
            WHERE n.nspname = %s AND c.relkind = 'r' AND c.relowner = %s::regrole
            ORDER BY c.relname = 'memory_datasets', c.relname
        """
        for (table,) in self.connection.execute(query, [schema, f'"{self.names.owner}"']).fetchall():
            batch = sql.SQL(
                "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE dataset = {dataset}"
                " LIMIT {limit}))"
            ).format(table=sql.Identifier(schema, table), dataset=sql.Literal(dataset), limit=sql.Literal(BATCH))
            while self._as_owner(self.connection, partial(_count, self.connection, batch)) == BATCH:
                pass

    def withdraw(self) -> None:
        connection, names, schema = self.connection, self.names, self.home.schema
        there = roles.existing(connection, names).roles
        if not set(names.own) <= there:
            return  # They were dropped by a run before, so nothing depends on them.
        for table in policies.tables(connection, schema, names.owner):
            self._as_owner(connection, partial(policies.withdraw, connection, schema, table, names))
        self._as_owner(connection, partial(grants.withdraw, connection, schema, names))

    def _as_owner(self, connection: Connection, work: Callable[[], T]) -> T:
        with _acting(connection, self.names.owner):
            return retrying(connection, self.deadline, work)

    def drop_roles(self, wanted: tuple[str, ...]) -> None:
        """Drops those that are there; an owner's default rights, and what a login made for itself, go with them."""
        connection = self.connection

        def drop() -> None:
            there = roles.existing(connection, self.names).roles
            gone = [role for role in wanted if role in there]
            for role in gone:
                if role == self.names.owner:
                    connection.execute(_named("SET LOCAL ROLE {}; DROP OWNED BY {}; RESET ROLE", role, role))
                elif role in self.names.logins:
                    connection.execute(_named("DROP OWNED BY {}", role))
            if gone:
                listed = sql.SQL(", ").join(map(sql.Identifier, gone))
                connection.execute(sql.SQL("DROP ROLE {}").format(listed))

        retrying(connection, self.deadline, drop)


def _check_holds(connection: Connection, owner: str, home_: Home, deadline: Deadline) -> None:
    """Refuses to drop what is on hold, as the owner, who sees all rows.

    Raises:
        CommandError: ON_HOLD.
    """
    query = """
        SELECT c.relname, a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname IN ('hold', 'legal_hold') AND NOT a.attisdropped
        WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relowner = %s::regrole
    """
    for table, column in connection.execute(query, [home_.schema, f'"{owner}"']).fetchall():
        statement = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} AND dataset = {})").format(
            sql.Identifier(home_.schema, table), sql.Identifier(column), sql.Literal(home_.dataset)
        )
        with _acting(connection, owner):
            held = retrying(connection, deadline, partial(fetch_value, connection, statement.as_string()))
        if held:
            msg = (
                f'dataset "{home_.dataset}" of "{home_.identity}" has rows on hold in {table}: nothing was dropped; '
                "release the hold first"
            )
            raise CommandError(Code.ON_HOLD, msg)


def _empty(connection: Connection, owner: str, schema: str, deadline: Deadline) -> None:
    """Drops a schema, its partitions first and a few at a time: a transaction has room for so many locks only."""
    query = """
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relispartition AND c.relkind = 'r' AND c.relowner = %s::regrole LIMIT %s
    """
    with _acting(connection, owner):
        while rows := connection.execute(query, [schema, f'"{owner}"', PARTITIONS_AT_ONCE]).fetchall():
            listed = sql.SQL(", ").join(sql.Identifier(schema, name) for (name,) in rows)
            drop = sql.SQL("DROP TABLE {}").format(listed)
            retrying(connection, deadline, partial(connection.execute, drop))
        whole = sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema))
        retrying(connection, deadline, partial(connection.execute, whole))


@contextmanager
def _acting(connection: Connection, owner: str) -> Iterator[None]:
    """Makes the session the owner's for a while, and the admin's again whatever happens to the statements."""
    connection.execute(_named("SET ROLE {}", owner))
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("RESET ROLE")


def _named(statement: str, *names: str) -> sql.Composed:
    return sql.SQL(statement).format(*map(sql.Identifier, names))


def _count(connection: Connection, statement: sql.Composed) -> int:
    """Executes a deletion and counts.

    Raises:
        CommandError: ON_HOLD when a row was put on hold since that was asked.
    """
    try:
        return connection.execute(statement).rowcount
    except psycopg.Error as error:
        if error.sqlstate == ON_HOLD:
            raise CommandError(Code.ON_HOLD, f"{error.diag.message_primary}: release the hold first") from None
        raise
