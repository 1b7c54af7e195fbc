"""Homes made by the real `provision`, and datasets in them: tests work as an app does, with its logins."""

import contextlib
import dataclasses
import io
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from pgvector.psycopg import register_vector
from psycopg import sql

from migrations.__main__ import main
from tests.migrations.documents import Memory
from tests.postgres import Connection, Database

T = TypeVar("T")


def provision(memory: Memory, folder: Path) -> None:
    """Runs the Job's command with its mounted folder, in this process."""
    folder.mkdir()
    (folder / "admin").mkdir()
    admin = memory.database.server.admin
    (folder / "request.json").write_text(json.dumps(memory.document()))
    (folder / "admin" / "username").write_text(admin.username)
    (folder / "admin" / "password").write_text(admin.password)
    environment = {"MEMORY_DIR": str(folder), "MEMORY_REPORT_FILE": str(folder / "report.json")}
    with mock.patch.dict(os.environ, environment), contextlib.redirect_stderr(io.StringIO()) as log:
        code = main(["provision"])
    assert code == 0, log.getvalue()


@dataclasses.dataclass(frozen=True)
class Home:
    """A provisioned Memory; its schema may hold datasets beside its own, as homes with several will."""

    memory: Memory
    numbers: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    def writer(self) -> Connection:
        return self._prepared(self.memory.database.connect(self.memory.writer))

    def reader(self) -> Connection:
        return self._prepared(self.memory.database.connect(self.memory.reader))

    def owner(self) -> Connection:
        """As maintenance works; no login may become this role, only the admin and the superuser."""
        connection = self.memory.database.superuser()
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(f"{self.memory.prefix}_owner")))
        connection.execute("SET search_path = notes, public")
        return self._prepared(connection)

    def _prepared(self, connection: Connection) -> Connection:
        if self.memory.document()["embeddings"]["enabled"]:
            register_vector(connection)
        return connection

    def new_dataset(self) -> str:
        """Registers one more dataset in the same tables."""
        name = f"dataset-{next(self.numbers)}"
        with self.owner() as owner:
            owner.execute(
                "INSERT INTO memory_datasets (dataset, embedding_dimension, metric, index_state)"
                " SELECT %s, embedding_dimension, metric, index_state FROM memory_datasets WHERE dataset = 'notes'",
                [name],
            )
        return name


@contextlib.contextmanager
def made(database: Database, folder: Path, **embeddings: Any) -> Iterator[Home]:
    """Gives a home with dataset `notes` in schema `notes`; embeddings of 3 dimensions and cosine unless told."""
    memory = Memory(database, reader_password="reader-password", embeddings=embeddings)
    provision(memory, folder)
    yield Home(memory)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One test's dataset and the sessions to reach it."""

    home: Home
    name: str
    writer: Connection
    reader: Connection
    owner: Connection

    def call(self, function: str, *arguments: Any, by: Connection | None = None, **named: Any) -> list[tuple[Any, ...]]:
        """Calls a function on this dataset as the writer, unless told otherwise; `named` are parameters less p_."""
        return call(by or self.writer, function, self.name, *arguments, **named)

    def value(self, function: str, *arguments: Any, **named: Any) -> Any:
        """Calls a function that returns one value."""
        [(value,)] = self.call(function, *arguments, **named)
        return value

    def keys(self, *arguments: Any, **named: Any) -> list[str]:
        """Searches, and gives the keys found."""
        return [row[1] for row in self.call("memory_search", *arguments, **named)]

    def hold(self, *, held: bool = True) -> None:
        """Sets the legal hold of the whole dataset, as a changed claim does."""
        self.owner.execute("UPDATE memory_datasets SET legal_hold = %s WHERE dataset = %s", [held, self.name])

    def expire(self, table: str, key: str) -> None:
        statement = sql.SQL("UPDATE {} SET expires_at = now() - interval '1 s' WHERE dataset = %s AND key = %s")
        assert self.writer.execute(statement.format(sql.Identifier(table)), [self.name, key]).rowcount > 0


def call(connection: Connection, function: str, *arguments: Any, **named: Any) -> list[tuple[Any, ...]]:
    """Calls a function and gives its rows."""
    parameters: list[sql.Composable] = [sql.SQL("%s")] * len(arguments)
    parameters += [sql.SQL("{} => %s").format(sql.Identifier(f"p_{name}")) for name in named]
    statement = sql.SQL("SELECT * FROM {}({})").format(sql.Identifier(function), sql.SQL(", ").join(parameters))
    return connection.execute(statement, [*arguments, *named.values()]).fetchall()


def at_once(work: Callable[[int], T], clients: int = 8) -> list[T]:
    """Runs the same work in several threads that start together; each opens its own connection."""
    barrier = threading.Barrier(clients)
    results: list[T] = []
    errors: list[Exception] = []

    def run(number: int) -> None:
        try:
            barrier.wait(timeout=30)
            results.append(work(number))
        except Exception as error:  # noqa: BLE001  whatever it was: the test's own thread raises it
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
