"""Real backends for the client's tests: each gives places, which are Memories that one test has for itself."""

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from memoryctl import binding
from memoryctl.embedded import EmbeddedError, Login
from tests.client.redisbackend import RedisBackend
from tests.client.s3backend import Gate, S3Backend
from tests.datamodel.homes import Home, made
from tests.migrations.documents import Memory as Document
from tests.postgres import Postgres, Servers
from tests.redisservers import Kind
from tests.redisservers import Servers as RedisServers
from tests.rgw import Rgw

DIMENSION = 3


class Place(Protocol):
    """One Memory, empty, with embeddings of 3 dimensions and cosine where the backend has them."""

    @property
    def binding(self) -> Path:
        """The directory that a writer's connection Secret is mounted to."""
        ...

    def hold(self, *, held: bool) -> None:
        """Sets or lifts the legal hold, as a changed claim does."""
        ...


class Backend(Protocol):
    """One real server."""

    def place(self, folder: Path, *, embeddings: bool = True) -> Place:
        """Makes a Memory; `folder` is empty and the test's own."""
        ...

    def stop(self) -> None:
        """Stops the server."""
        ...

    def start(self) -> None:
        """Starts it again with what it had, on the same port, and waits until it answers."""
        ...


@dataclasses.dataclass(frozen=True)
class Machine:
    """The servers that a session of tests (a test worker's) has, each started when first asked for."""

    postgres: Servers
    redis: RedisServers
    rgw: Callable[[], Rgw]


# Gives a backend, or skips the test when this machine has no such server.
Factory = Callable[[Machine, ExitStack, Path], Backend]


def entries(document: Document, login: Login, dataset: str) -> dict[str, str]:
    """What the function puts into the connection Secret of a Memory on PostgreSQL, less what is for people."""
    server = document.database.server
    found = {
        "type": "postgresql",
        "provider": "pg",
        "endpoint": f"{server.host}:{server.port}",
        "host": server.host,
        "port": str(server.port),
        "database": document.home.name,
        "schema": document.schema,
        "username": login.username,
        "password": login.password,
        "uri": f"postgresql://{server.host}:{server.port}/{document.home.name}?sslmode=disable",
        "dataset": dataset,
        "contract": "1",
    }
    embeddings = document.document()["embeddings"]
    if embeddings["enabled"]:
        found |= {"dimension": str(embeddings["dimension"]), "metric": embeddings["metric"]}
    return found


def mount(directory: Path, values: dict[str, str]) -> Path:
    """Writes a binding as the kubelet does, or exchanges what it holds."""
    binding.write(directory, {name: value.encode() for name, value in values.items()})
    return directory


@dataclasses.dataclass(frozen=True)
class PostgresPlace:
    """A dataset among others in one home."""

    home: Home
    dataset: str
    binding: Path

    def hold(self, *, held: bool) -> None:
        with self.home.owner() as owner:
            owner.execute("UPDATE memory_datasets SET legal_hold = %s WHERE dataset = %s", [held, self.dataset])


class PostgresBackend:
    """One home with embeddings and one without; a place is a dataset of its own there."""

    def __init__(self, postgres: Postgres, stack: ExitStack, folder: Path) -> None:
        self._postgres = postgres
        self._stack = stack
        self._folder = folder
        self._homes: dict[bool, Home] = {}

    def place(self, folder: Path, *, embeddings: bool = True) -> PostgresPlace:
        if embeddings not in self._homes:
            database = self._stack.enter_context(self._postgres.database())
            self._homes[embeddings] = self._stack.enter_context(
                made(database, self._folder / f"request-{embeddings}", enabled=embeddings)
            )
        home = self._homes[embeddings]
        dataset = home.new_dataset()
        return PostgresPlace(home, dataset, mount(folder, entries(home.memory, home.memory.writer, dataset)))

    def stop(self) -> None:
        self._postgres.stop()

    def start(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                return self._postgres.start()
            except EmbeddedError:
                # A client that tries to connect meanwhile may be given this very port for its own end.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def postgresql(version: int) -> Factory:
    return lambda machine, stack, folder: PostgresBackend(machine.postgres.get(version), stack, folder)


def redis(kind: Kind, *, cluster: bool = False) -> Factory:
    def made(machine: Machine, _: ExitStack, folder: Path) -> RedisBackend:
        nodes = machine.redis.cluster(kind).nodes if cluster else [machine.redis.get(kind, name="-client")]
        return RedisBackend(nodes, folder)

    return made


def s3(*, own: bool, **provider: object) -> Factory:
    def made(machine: Machine, stack: ExitStack, folder: Path) -> S3Backend:
        rgw = machine.rgw()
        gate = Gate(rgw.endpoint)
        stack.callback(gate.close)
        return S3Backend(rgw, folder, gate, own=own, **provider)

    return made


# The suite runs over each of these.
BACKENDS: dict[str, Factory] = {
    "postgresql-16": postgresql(16),
    "postgresql-17": postgresql(17),
    "postgresql-18": postgresql(18),
    "redis-8": redis("redis8"),
    "redis-7": redis("redis7"),
    "valkey": redis("valkey"),
    "redis-cluster": redis("redis8", cluster=True),
    "s3": s3(own=False),
    "s3-locked": s3(own=True, versioning=True, objectLock={"mode": "GOVERNANCE", "days": 1}),
}
# Of these servers none has vector sets.
WITHOUT_EMBEDDINGS = ("redis-7", "valkey")
# Those that `make long` runs it over: each is much like one of the others, or slow.
LONG = ("postgresql-16", "postgresql-17", "redis-7", "valkey", "redis-cluster", "s3", "s3-locked")
