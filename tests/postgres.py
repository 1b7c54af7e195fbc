"""Real PostgreSQL servers for tests: each version is started once a session (and xdist worker), databases are fresh."""

import dataclasses
import itertools
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from memoryctl import embedded
from tests.servers import require

VERSIONS = (16, 17, 18)
WRAPPER_17 = "MEMORY_POSTGRES_17"
SETTINGS = {
    "fsync": "off",  # a test server has nothing to lose
    "max_connections": "200",
    "log_statement": "all",
    "log_line_prefix": "%m [%p] %u@%d ",
}

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Database:
    """A fresh database in which the server's admin may create schemas; the admin is CREATEROLE and not superuser."""

    server: embedded.Server
    name: str

    def conninfo(self, login: embedded.Login | None = None) -> str:
        """Gives the connection string of a login, of the admin unless told otherwise."""
        return self.server.conninfo(login, self.name)

    def connect(self, login: embedded.Login | None = None) -> Connection:
        """Connects (autocommit) as a login, as the admin unless told otherwise."""
        return psycopg.connect(self.conninfo(login), autocommit=True)

    def superuser(self) -> Connection:
        """Connects (autocommit) as the superuser, for what only a platform team can do."""
        return self.connect(self.server.superuser)


@dataclasses.dataclass
class Postgres:
    """One running server of one version."""

    server: embedded.Server
    directory: Path
    installation: embedded.Installation | None = None
    numbers: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    @property
    def version(self) -> int:
        return self.server.version

    def statements(self) -> str:
        """Gives the server's log so far, with every statement that it received."""
        return (self.server.data.parent / "postgresql.log").read_text(errors="replace")

    @contextmanager
    def database(self, *, vector: bool = True) -> Iterator[Database]:
        """Makes a database, and drops it afterwards; pgvector is in its schema public unless told otherwise."""
        name = f"test_{next(self.numbers)}"
        # Not from template1, where pgvector is for the databases that Memories have for themselves.
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        embedded.furnish_database(self.server, name, vector=vector)
        try:
            yield Database(self.server, name)
        finally:
            self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        # A connection for each: a test may stop and start the server in between.
        with psycopg.connect(self.server.conninfo(self.server.superuser, "postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def stop(self) -> None:
        embedded.stop(self.directory, installation=self.installation)

    def start(self) -> None:
        """Starts it again after a stop, on the same port."""
        self.server = embedded.start(
            self.directory, version=self.version, settings=SETTINGS, installation=self.installation
        )


class Servers:
    """The servers of one test session; started when first asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[int, Postgres] = {}

    def get(self, version: int) -> Postgres:
        """Gives the server of this version, or skips the test when this machine has none."""
        if version not in self._running:
            self._running[version] = launch(self._directory / str(version), version)
        return self._running[version]

    def remove(self) -> None:
        for postgres in self._running.values():
            embedded.remove(postgres.directory, installation=postgres.installation)


def launch(directory: Path, version: int) -> Postgres:
    """Starts a server of one's own; whoever calls this removes it again (`embedded.remove`)."""
    installation = None
    if version not in embedded.FOLDERS:
        wrapper = require(
            os.environ.get(WRAPPER_17),
            f"no PostgreSQL {version}: set {WRAPPER_17} to the command that runs its programs ({{dir}}: their folder)",
        )
        installation = embedded.Installation(version, command=tuple(shlex.split(wrapper)))
    server = embedded.start(directory, version=version, settings=SETTINGS, installation=installation)
    return Postgres(server, directory, installation)
