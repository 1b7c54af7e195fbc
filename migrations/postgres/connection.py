"""Connecting as the admin, waiting for a backend that is not there yet, and trying again what races with others."""

import hashlib
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from migrations import log
from migrations.deadline import Deadline
from migrations.errors import (
    LOCK_NOT_AVAILABLE,
    OBJECT_IN_USE,
    RACES,
    TUPLE_CONCURRENTLY_UPDATED,
    Code,
    CommandError,
    code_of,
)
from migrations.postgres.request import Provider
from migrations.request import read_file

Connection = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")

CONNECT_SECONDS = 10
RACE_ATTEMPTS = 25
LOCK_POLL_SECONDS = 0.05
LOCK_POLL_LIMIT = 2.0

# Session settings. Names resolve in pg_catalog alone unless a statement says otherwise. A provisioner that is killed
# leaves a backend that holds our lock until its statement ends: the connection check ends it within seconds.
OPTIONS = {
    "search_path": "pg_catalog",
    "lock_timeout": "5s",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "client_connection_check_interval": "3s",
    "timezone": "UTC",
    "client_min_messages": "warning",
}

# What the server or libpq says when waiting cannot help. The protocol has no SQLSTATE for us before a session exists,
# so the words must do; a server that speaks another language is waited for until the deadline.
HOPELESS = (
    "password authentication failed",
    "authentication method requirement",
    "no pg_hba.conf entry",
    "is not permitted to log in",
    "permission denied for database",
)


# libpq, when the server has proven itself and asks who we are.
ASKED = "no password supplied"


class ConnectionLostError(Exception):
    """The connection broke in the middle; everything is idempotent, so it begins again on a new one."""


@dataclass(frozen=True)
class Admin:
    """The provider's admin login and how its server proves itself."""

    provider: Provider
    username: str
    password: str = field(repr=False)
    ca: Path | None
    # Where its sessions are, unless that is the provider's database, and the role that they act as from the start.
    database: str = ""
    role: str = ""
    # Whether PostgreSQL is to refuse every write of its sessions.
    read_only: bool = False

    @classmethod
    def load(cls, provider: Provider, directory: Path, database: str = "", role: str = "") -> "Admin":
        """Reads the admin's Secret from the mounted folder.

        Raises:
            CommandError: BAD_REQUEST when a file is missing.
        """
        ca = directory / "tls" / "ca.crt"
        return cls(
            provider=provider,
            username=read_file(directory / "admin" / "username").strip(),
            password=read_file(directory / "admin" / "password").rstrip("\r\n"),
            ca=ca if ca.exists() else None,
            database=database,
            role=role,
        )

    @classmethod
    def without_login(cls, provider: Provider, directory: Path) -> "Admin":
        """Gives nobody's login, to see whether the server asks for one."""
        ca = directory / "tls" / "ca.crt"
        return cls(provider, username="memory_probe", password="", ca=ca if ca.exists() else None)

    @property
    def server(self) -> str:
        """The server as a person writes it."""
        return f"{self.provider.host}:{self.provider.port}"

    def connect(self, database: str | None = None) -> Connection:
        """Connects once, in autocommit, to the provider's database unless told otherwise.

        Raises:
            CommandError: PERMISSION_DENIED or UNREACHABLE.
        """
        provider = self.provider
        try:
            return psycopg.connect(
                host=provider.host,
                port=provider.port,
                dbname=database or self.database or provider.database,
                user=self.username,
                password=self.password,
                passfile=os.devnull,
                require_auth="scram-sha-256",
                target_session_attrs="primary" if self.read_only else "read-write",
                connect_timeout=CONNECT_SECONDS,
                application_name="memory-migrations",
                options=" ".join(f"-c {name}={value}" for name, value in self._options().items()),
                sslmode=provider.ssl_mode,
                sslrootcert=self._root_certificates(),
                autocommit=True,
            )
        except psycopg.OperationalError as error:
            raise self._refused(database or provider.database, str(error).strip()) from None

    def _options(self) -> dict[str, str]:
        read_only = {"default_transaction_read_only": "on"} if self.read_only else {}
        # As a setting of the session RESET ROLE goes back to it.
        return OPTIONS | read_only | ({"role": self.role} if self.role else {})

    def _root_certificates(self) -> str | None:
        """Gives the file to verify the server against: the provider's CA, or what this system trusts.

        Not `system`: the OpenSSL in psycopg's binary wheel looks for its certificates in a folder that no system has,
        and libpq refuses `system` together with verify-ca.
        """
        if not self.provider.ssl_mode.startswith("verify"):
            return None
        return str(self.ca or ssl.get_default_verify_paths().cafile or "system")

    def _refused(self, database: str, words: str) -> CommandError:
        words = " ".join(words.split())
        if ASKED in words:
            return CommandError(Code.PERMISSION_DENIED, ASKED)
        if any(hopeless in words for hopeless in HOPELESS):
            whose, checked = "the admin login", "the username and password in its connectionSecret"
            if self.provider.role_management == "CNPG":
                whose, checked = "the login", "its DatabaseRole, when there is one"
            msg = (
                f'{self.server} refuses {whose} "{self.username}" of provider "{self.provider.name}" ({words}): '
                f"check {checked}, and that the server asks for scram-sha-256"
            )
            return CommandError(Code.PERMISSION_DENIED, msg)
        msg = f'cannot reach database "{database}" on {self.server}: {words}'
        return CommandError(Code.UNREACHABLE, msg)

    def wait(self, deadline: Deadline, database: str | None = None) -> Connection:
        """Connects as soon as the server takes us.

        Raises:
            CommandError: PERMISSION_DENIED at once, UNREACHABLE at the deadline, with the last answer.
        """
        attempt = 0
        while True:
            try:
                return self.connect(database)
            except CommandError as error:
                if error.code is not Code.UNREACHABLE or deadline.passed:
                    raise
                log.write("waiting for the backend", attempt=attempt, why=error.message)
            deadline.pause(attempt)
            attempt += 1


@contextmanager
def home_lock(connection: Connection, name: str, deadline: Deadline) -> Iterator[None]:
    """Holds a home's advisory lock (`names.lock_name`) for the session.

    It is that of one database, the provider's: whoever works on a home connects there first, wherever the home is.
    It is polled for: a blocked pg_advisory_lock holds a snapshot, and the holder's CREATE INDEX CONCURRENTLY would wait
    for that snapshot for ever.

    Raises:
        CommandError: LOCK_BUSY when somebody else holds it until the deadline.
    """
    key = int.from_bytes(hashlib.sha256(f"memory-home\0{name}".encode()).digest()[:8], "big", signed=True)
    attempt = 0
    while not fetch_value(connection, "SELECT pg_try_advisory_lock(%s)", key):
        if deadline.passed:
            shown = name.replace(":", " ", 1) if ":" in name else f'schema "{name}"'
            msg = (
                f"another provisioner holds the lock of {shown} for the whole wait: look for a session of "
                "application memory-migrations in pg_stat_activity, and end it if nobody waits for it"
            )
            raise CommandError(Code.LOCK_BUSY, msg)
        deadline.pause(min(attempt, 5), LOCK_POLL_SECONDS)
        attempt += 1
    yield
    # Not in a finally: after a failure the session ends and the lock with it.
    connection.execute("SELECT pg_advisory_unlock(%s)", [key])


def fetch_value(connection: Connection, query: str, *parameters: object) -> Any:
    """Gives the first column of the only row."""
    row = connection.execute(query, parameters).fetchone()
    return row[0] if row else None


def retrying(connection: Connection, deadline: Deadline, work: Callable[[], T], migration: str = "") -> T:
    """Runs idempotent work in one transaction, again when it lost a race with another provisioner.

    Raises:
        CommandError: With the code of what went wrong; a lock that stays busy is waited for until the deadline.
        ConnectionLostError: The connection is gone.
    """

    def in_transaction() -> T:
        with connection.transaction():
            return work()

    return retrying_alone(connection, deadline, in_transaction, migration)


def retrying_alone(connection: Connection, deadline: Deadline, work: Callable[[], T], migration: str = "") -> T:
    """As `retrying`, for statements that PostgreSQL refuses inside a transaction."""
    attempt = 0
    while True:
        try:
            return work()
        except psycopg.Error as error:
            if connection.broken or not _worth_another(error, attempt, deadline):
                raise explained(connection, error, migration) from None
            log.write("trying again", sqlstate=error.sqlstate, why=words(error), migration=migration)
        deadline.pause(min(attempt, 4), 0.02)
        attempt += 1


def _worth_another(error: psycopg.Error, attempt: int, deadline: Deadline) -> bool:
    if error.sqlstate in {LOCK_NOT_AVAILABLE, OBJECT_IN_USE}:
        return not deadline.passed
    race = error.sqlstate in RACES or (error.sqlstate == TUPLE_CONCURRENTLY_UPDATED and "concurrently" in words(error))
    return race and attempt < RACE_ATTEMPTS


def explained(connection: Connection, error: psycopg.Error, migration: str = "") -> CommandError | ConnectionLostError:
    """Turns PostgreSQL's refusal into ours. Its detail and context are left out: they can hold rows."""
    if connection.broken:
        return ConnectionLostError(words(error))
    sqlstate = error.sqlstate or ""
    where = f"migration {migration}: " if migration else ""
    return CommandError(code_of(sqlstate), f"{where}{words(error)}", migration=migration, sqlstate=sqlstate)


def ended(error: CommandError | ConnectionLostError) -> CommandError:
    """Gives a broken connection as the end of a run, for commands that run again by themselves."""
    if isinstance(error, CommandError):
        return error
    return CommandError(Code.UNREACHABLE, f"the connection broke, and the next run begins again: {error}")


def words(error: psycopg.Error) -> str:
    """Gives the server's first line, without the statement, detail and rows that may follow it."""
    return error.diag.message_primary or type(error).__name__
