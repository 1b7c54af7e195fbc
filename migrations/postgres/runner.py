"""Applies a module's files to a home, in their order, each once, whatever happened to the run before."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import sql

from migrations import __version__, log
from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.postgres.connection import Connection, fetch_value, retrying, retrying_alone
from migrations.postgres.sqlfile import File

_HISTORY = """
CREATE TABLE IF NOT EXISTS {schema}.memory_migrations (
    module text NOT NULL,
    version text NOT NULL,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    duration_ms integer NOT NULL,
    tool_version text NOT NULL,
    PRIMARY KEY (module, version)
)
"""


@dataclass(frozen=True)
class Applied:
    """One row of the history."""

    module: str
    version: str
    name: str
    sha256: str

    @property
    def title(self) -> str:
        """The file that was applied."""
        return f"{self.module}/{self.version}_{self.name}.sql"


@contextmanager
def acting_as(connection: Connection, owner: str, schema: str, extension_schema: str) -> Iterator[None]:
    """Makes the session the owner's, with the home first on its search path.

    The whole session and not SET LOCAL: that has no effect outside a transaction, so files that run alone would run as
    the admin.
    """
    path = [sql.Identifier(name).as_string() for name in (schema, extension_schema) if name]
    query = "SELECT set_config('role', %s, false), set_config('search_path', %s, false)"
    connection.execute(query, [owner, ", ".join(path)])
    yield
    # Not in a finally: after a failure the session ends.
    connection.execute("RESET ROLE; RESET search_path")


def history(connection: Connection, schema: str) -> list[Applied]:
    """Gives what was applied to the home, making the history when there is none."""
    if not has_history(connection, schema):
        connection.execute(sql.SQL(_HISTORY).format(schema=sql.Identifier(schema)))
        return []
    query = sql.SQL("SELECT module, version, name, sha256 FROM {}.memory_migrations ORDER BY module, version")
    return [Applied(*row) for row in connection.execute(query.format(sql.Identifier(schema))).fetchall()]


def has_history(connection: Connection, schema: str) -> bool:
    """Whether anything was ever applied to the home."""
    return fetch_value(connection, "SELECT to_regclass(%s)", f'"{schema}".memory_migrations') is not None


def outstanding(modules: Mapping[str, Sequence[File]], applied: Sequence[Applied]) -> list[File]:
    """Gives the files of all modules that are still to be applied.

    Raises:
        CommandError: As `pending` does.
    """
    return [
        file
        for module, files in modules.items()
        for file in pending(files, [row for row in applied if row.module == module])
    ]


def pending(files: Sequence[File], applied: Sequence[Applied]) -> list[File]:
    """Gives the files of one module that are still to be applied.

    Raises:
        CommandError: The history and the files do not belong together: CHECKSUM_MISMATCH when a file was edited, taken
            away or put in between, MODULE_UNSUPPORTED when a newer image was here.
    """
    known = {file.version: file for file in files}
    newest = files[-1].version if files else ""
    for row in applied:
        file = known.get(row.version)
        if file is None:
            raise _unknown(row, newest)
        if (file.name, file.sha256) != (row.name, row.sha256):
            msg = (
                f"migration {file.title} differs from what was applied here as {row.title}: "
                "restore the file, and put the change into a new one"
            )
            raise CommandError(Code.CHECKSUM_MISMATCH, msg, migration=file.title)
    done = {row.version for row in applied}
    rest = [file for file in files if file.version not in done]
    last = max(done, default="")
    late = next((file for file in rest if file.version < last), None)
    if late:
        msg = f"migration {late.title} comes before {last}, which is applied already: give it the next free number"
        raise CommandError(Code.CHECKSUM_MISMATCH, msg, migration=late.title)
    return rest


def _unknown(row: Applied, newest: str) -> CommandError:
    if row.version > newest:
        msg = f"this home was migrated with {row.title}, which this image does not have: use the newer migrations image"
        return CommandError(Code.MODULE_UNSUPPORTED, msg, migration=row.title)
    msg = f"migration {row.title} was applied here and is missing from this image: restore the file"
    return CommandError(Code.CHECKSUM_MISMATCH, msg, migration=row.title)


def apply(
    connection: Connection,
    schema: str,
    files: Sequence[File],
    values: Mapping[str, sql.Composable],
    deadline: Deadline,
) -> None:
    """Applies files as the session's role, each in its transaction and noted in it.

    Raises:
        CommandError: Naming the file; those before it stay applied.
    """
    for file in files:
        log.step(f"migration:{file.title}")
        statement = file.render(values)
        if file.alone:
            _apply_alone(connection, schema, file, statement, deadline)
        else:
            _apply_in_transaction(connection, schema, file, statement, deadline)


def _apply_in_transaction(
    connection: Connection, schema: str, file: File, statement: sql.Composed, deadline: Deadline
) -> None:
    def work() -> None:
        begin = time.monotonic()
        connection.execute(statement)
        _note(connection, schema, file, begin)

    retrying(connection, deadline, work, file.title)


def _apply_alone(connection: Connection, schema: str, file: File, statement: sql.Composed, deadline: Deadline) -> None:
    begin = time.monotonic()

    def work() -> None:
        _drop_invalid(connection, schema, file)
        connection.execute(statement)

    retrying_alone(connection, deadline, work, file.title)
    # A run that is killed here does the file again: such a file says IF [NOT] EXISTS.
    retrying(connection, deadline, lambda: _note(connection, schema, file, begin), file.title)


def _drop_invalid(connection: Connection, schema: str, file: File) -> None:
    """Drops what a cancelled CREATE INDEX CONCURRENTLY left: IF NOT EXISTS would skip over it for ever."""
    query = """
        SELECT NOT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s
    """
    if file.index and fetch_value(connection, query, schema, file.index):
        drop = sql.SQL("DROP INDEX CONCURRENTLY {}")
        connection.execute(drop.format(sql.Identifier(schema, file.index)))


def _note(connection: Connection, schema: str, file: File, begin: float) -> None:
    duration = round((time.monotonic() - begin) * 1000)
    query = sql.SQL(
        "INSERT INTO {}.memory_migrations (module, version, name, sha256, duration_ms, tool_version)"
        " VALUES (%s, %s, %s, %s, %s, %s)"
    )
    values = [file.module, file.version, file.name, file.sha256, duration, __version__]
    connection.execute(query.format(sql.Identifier(schema)), values)
