"""PostgreSQL: the contract's functions (docs/data-model.md), and COPY for many embeddings at once."""

import functools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, LiteralString, TypeVar
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.abc import PQGen

from memory_client import encoding
from memory_client.binding import Binding
from memory_client.errors import (
    AccessDenied,
    BindingError,
    DimensionMismatch,
    MemoryClientError,
    OnHold,
    Unavailable,
    Unsupported,
    VersionConflict,
)
from memory_client.parts import part
from memory_client.stores import bulk
from memory_client.stores.pool import Connection, Pool
from memory_client.types import Appended, Capabilities, Embedding, Event, Hit, Json, Status, Value, Vector

T = TypeVar("T")

# Rows of a batch, and the seconds that one should take.
FIRST_BATCH = 1000
LARGEST_BATCH = 1 << 20
QUICK = 1.0
SLOW = 4.0
# A transaction that another one was in the way of is tried again: nothing of it was done.
TRIES = 5
TRANSIENT = ("40001", "40P01")
# What libpq has from a server that refuses a login comes without a SQLSTATE.
REFUSED = re.compile(
    r"authentication failed|not permitted to log in|permission denied|no pg_hba\.conf entry|does not exist|no such user"
)
# Classes of errors: connection, resources, operator's intervention, system; and a server that only reads.
AWAY = ("08", "53", "57", "58", "25006")


@dataclass(frozen=True)
class Facts:
    """What the schema says of a dataset."""

    dataset: str
    index: str | None
    vectors: bulk.Vectors | None


class _VersionError(MemoryClientError):
    """A key has another version than expected."""


# What has a meaning of its own.
OURS: dict[str, type[MemoryClientError]] = {
    "MM001": _VersionError,
    "MM002": OnHold,
    "MM004": AccessDenied,
    "28000": AccessDenied,
    "28P01": AccessDenied,
    "42501": AccessDenied,
}


class PostgresStore:
    """One login of one Memory."""

    def __init__(self, binding: Binding, *, timeout: float, connections: int) -> None:
        self._binding = binding
        self._timeout = timeout
        self._pool = Pool(self._connect, size=connections, timeout=timeout)
        self._lock = threading.Lock()
        self._known: Facts | None = None
        self._expect_new = True
        self._batch = FIRST_BATCH

    @property
    def capabilities(self) -> Capabilities:
        """As the dataset is when it is first asked for."""
        facts = self._facts()
        there = facts.vectors
        return Capabilities(
            "postgresql",
            embeddings=there is not None,
            vector_search=None if there is None else "indexed" if facts.index == "ready" else "exact",
            text_search="indexed" if there else None,
            metrics=frozenset([there.metric] if there and there.metric else []),
            appends_on_hold=True,
            dimension=there.dimension if there else None,
        )

    def append(self, event_type: str, payload: Json, *, event_id: str | None, source: str) -> Appended:
        """Calls memory_append."""
        values = (event_type, encoding.to_json(payload), event_id, source)
        [(found, created_at, duplicate)] = self._call("memory_append(%s, %s, %s, %s, %s)", *values)
        return Appended(str(found), created_at.astimezone(UTC), duplicate)

    def read(self, *, limit: int, before: str | None, event_type: str | None) -> list[Event]:
        """Calls memory_read."""
        rows = self._call("memory_read(%s, %s, %s, %s, %s)", limit, *_position(before), event_type)
        return [
            Event(str(found), kind, payload, created_at, _cursor(created_at, found))
            for found, kind, payload, created_at in map(_in_utc, rows)
        ]

    def get(self, key: str) -> Value | None:
        """Calls memory_get."""
        rows = self._call("memory_get(%s, %s)", key)
        return Value(*_in_utc(rows[0])) if rows else None

    def put(self, key: str, value: Json, *, expected_version: int | None, ttl: float | None) -> int:
        """Calls memory_put."""
        values = (key, encoding.to_json(value), expected_version, None if ttl is None else timedelta(seconds=ttl))
        with self._conflicts(key, expected_version):
            [(version,)] = self._call("memory_put(%s, %s, %s, %s, %s)", *values)
        return int(version)

    def delete(self, key: str, *, expected_version: int | None) -> bool:
        """Calls memory_delete."""
        with self._conflicts(key, expected_version):
            [(deleted,)] = self._call("memory_delete(%s, %s, %s)", key, expected_version)
        return bool(deleted)

    def upsert(self, embeddings: Iterable[Embedding]) -> int:
        """Stores by COPY what is new, the rest by one statement a batch; each batch is a transaction."""
        given = iter(embeddings)
        stored = 0
        while batch := part(given, rows=self._batch):
            begin = monotonic()
            self._anew(functools.partial(self._load, bulk.ordered(batch)))
            self._pace(monotonic() - begin)
            stored += len(batch)
        return stored

    def _load(self, rows: list[Embedding]) -> None:
        # Asked for before a connection is taken: there may be one only.
        place = (self._binding.schema, self._dataset(), vectors := self._vectors(), rows)

        def work(connection: Connection) -> None:
            if self._expect_new and not vectors.guarded and bulk.copy(connection, *place):
                return
            # Who stores again what is there does so for many: COPY is tried again when a batch was new after all.
            self._expect_new = bulk.upsert(connection, *place)

        self._run(work)

    def _pace(self, seconds: float) -> None:
        """Makes batches larger while they are quick: with an index they are slow, and statements have a timeout."""
        if seconds < QUICK:
            self._batch = min(2 * self._batch, LARGEST_BATCH)
        elif seconds > SLOW:
            self._batch = max(self._batch // 2, 1)

    def delete_embedding(self, key: str) -> int:
        """Calls memory_delete_embedding."""
        self._vectors()
        [(deleted,)] = self._call("memory_delete_embedding(%s, %s)", key)
        return int(deleted)

    def search(
        self, vector: Vector | None, *, query: str | None, limit: int, where: Mapping[str, Json] | None
    ) -> Sequence[Hit]:
        """Calls memory_search."""
        vectors = self._vectors()
        given = None if vector is None else self._anew(lambda: self._packed(vector))
        contained = None if where is None else encoding.to_json(dict(where))
        rows = self._call("memory_search(%s, %s, %s, %s, %s)", given, query, limit, contained, vectors=vectors)
        return [Hit(*row[1:]) for row in rows]

    def status(self) -> Status:
        """Calls memory_status."""
        query = "memory_status(%s)"
        [(events, keys, embeddings, size, index, _, _, held, days)] = self._call(query)
        there = self._facts().vectors is not None
        return Status(events, keys, embeddings if there else None, size, index if there else None, held, days)

    def close(self) -> None:
        """Closes the connections."""
        self._pool.close()

    def _call(self, call: LiteralString, *values: object, vectors: bulk.Vectors | None = None) -> list[tuple[Any, ...]]:
        """Gives the rows of a function of the schema; its first parameter is the dataset."""
        statement = sql.SQL("SELECT * FROM {}.{}").format(sql.Identifier(self._binding.schema), sql.SQL(call))
        dataset = self._dataset()

        def work(connection: Connection) -> list[tuple[Any, ...]]:
            if vectors is not None:
                bulk.teach(connection, vectors)
            return connection.execute(statement, [dataset, *values]).fetchall()

        return self._run(work)

    def _run(self, work: Callable[[Connection], T]) -> T:
        """Does one transaction's work, again where another one was in its way."""
        for left in reversed(range(TRIES)):
            try:
                with self._pool.connection() as connection:
                    return work(connection)
            except psycopg.Error as error:
                if left and error.sqlstate in TRANSIENT:
                    continue
                raise self._translated(error) from error
        raise AssertionError  # the last one has raised

    def _dataset(self) -> str:
        return self._binding.dataset or self._facts().dataset

    def _vectors(self) -> bulk.Vectors:
        vectors = self._facts().vectors
        if vectors is None:
            msg = "this Memory has no embeddings: its claim says embeddings.enabled: false"
            raise Unsupported(msg)
        return vectors

    def _packed(self, vector: Vector) -> bulk.Packed:
        known = self._vectors()
        numbers = encoding.to_bytes(vector, ">f", dimension=known.dimension, metric=known.metric)
        return bulk.Packed(numbers, known.dimension)

    def _anew(self, work: Callable[[], T]) -> T:
        """Does it again when the claim got another dimension since it was asked for, while the Memory was empty."""
        known = self._vectors()
        try:
            return work()
        except DimensionMismatch:
            self._known = None
            if self._vectors() == known:
                raise
            return work()

    def _facts(self) -> Facts:
        known = self._known
        if known is None:
            with self._lock:
                known = self._known = self._run(self._read_facts)
        return known

    def _read_facts(self, connection: Connection) -> Facts:
        schema = sql.Identifier(self._binding.schema)
        rows = connection.execute(
            sql.SQL(
                """
                SELECT d.dataset, d.index_state, d.embedding_dimension, d.metric, n.nspname, v.oid, v.typarray,
                       e.typname = 'halfvec', c.relrowsecurity
                FROM {schema}.memory_datasets d
                LEFT JOIN pg_class c ON c.oid = to_regclass({table})
                LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding'
                LEFT JOIN pg_type e ON e.oid = a.atttypid
                LEFT JOIN pg_namespace n ON n.oid = e.typnamespace
                LEFT JOIN pg_type v ON v.typnamespace = n.oid AND v.typname = 'vector'
                WHERE %(dataset)s::text IS NULL OR d.dataset = %(dataset)s
                """
            ).format(schema=schema, table=sql.Literal(f"{schema.as_string(connection)}.memory_embeddings")),
            {"dataset": self._binding.dataset},
        ).fetchall()
        if len(rows) != 1:
            wanted = f'"{self._binding.dataset}"' if self._binding.dataset else "one"
            there = ", ".join(row[0] for row in rows) or "none that this login sees"
            msg = f'schema "{self._binding.schema}" should have dataset {wanted}, and has {there}: check the binding'
            raise BindingError(msg)
        [(dataset, index, dimension, metric, *types)] = rows
        return Facts(dataset, index, None if dimension is None else bulk.Vectors(dimension, metric, *types))

    @contextmanager
    def _conflicts(self, key: str, expected: int | None) -> Iterator[None]:
        """Says which version a key has, for a conflict."""
        try:
            yield
        except _VersionError:
            there = self.get(key)
            stored = there.version if there else 0
            # As expected by now: somebody was here in between.
            raise VersionConflict(key, expected or 0, None if stored == expected else stored) from None

    def _translated(self, error: psycopg.Error) -> Exception:
        state = error.sqlstate or ""
        message = error.diag.message_primary or " ".join(str(error).split())
        if state in ("MM003", "22000"):
            return self._mismatch(message)
        if state in OURS:
            kind = OURS[state]
            return kind(f"{self._binding.username} is refused: {message}" if kind is AccessDenied else message)
        if state.startswith(AWAY) or (
            not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        ):
            return self._away(message, connected=bool(state))
        if state.startswith(("22", "23")):
            return ValueError(message)
        return MemoryClientError(f"{self._binding.endpoint} answered {state}: {message}")

    def _away(self, message: str, *, connected: bool) -> Exception:
        if not connected and REFUSED.search(message):
            return AccessDenied(f"{self._binding.endpoint} refuses {self._binding.username}: {message}")
        return Unavailable(f"{self._binding.endpoint} does not answer: {message}")

    def _mismatch(self, message: str) -> Exception:
        before, self._known = self._vectors().dimension, None
        now = self._vectors().dimension
        return ValueError(message) if now == before else DimensionMismatch(now, before)

    def _connect(self) -> Connection:
        binding = self._binding
        connection = _Connection.connect(
            host=binding.host,
            port=binding.port,
            dbname=binding.database,
            user=binding.username,
            password=binding.password,
            **_tls(binding),
            application_name="memory-client",
            connect_timeout=max(2, round(self._timeout)),  # libpq takes 1 for 2
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
            tcp_user_timeout=round(self._timeout * 1000),
            autocommit=True,
            prepare_threshold=None,  # a pooler in between may give every statement another session
        )
        connection.patience = self._timeout
        return connection


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that does not wait for ever for a server that took a statement and says nothing."""

    patience = 30.0

    def wait(self, gen: PQGen[T], *arguments: Any, **named: Any) -> T:
        """Waits as psycopg does, for as long as our patience lasts."""
        try:
            return super().wait(_limited(gen, self.patience), *arguments, **named)
        except _SilenceError:
            self.pgconn.finish()  # whatever the server is at, nobody will ask this connection again
            raise


class _SilenceError(psycopg.OperationalError):
    """The server did not answer in time."""


def _limited(gen: PQGen[T], seconds: float) -> PQGen[T]:
    until = monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and monotonic() >= until:
                msg = f"no answer within {seconds:g} s"
                raise _SilenceError(msg)
            wanted = gen.send(ready)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


def _tls(binding: Binding) -> dict[str, Any]:
    """Gives libpq's parameters; without a CA the binding's `uri` alone says how TLS is used."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(binding.uri).query).items()}
    given = {
        "sslmode": binding.sslmode or query.get("sslmode"),
        "sslrootcert": str(binding.ca_file) if binding.ca else query.get("sslrootcert"),
    }
    return {name: value for name, value in given.items() if value}


def _in_utc(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Ends a row, whose last value is a moment, with that moment in UTC."""
    return (*row[:-1], row[-1].astimezone(UTC))


def _cursor(created_at: datetime, found: UUID) -> str:
    return f"{created_at.isoformat()}/{found}"


def _position(cursor: str | None) -> tuple[datetime | None, UUID | None]:
    if cursor is None:
        return None, None
    moment, _, found = cursor.partition("/")
    try:
        return datetime.fromisoformat(moment), UUID(found)
    except ValueError:
        msg = f'before is "{cursor}": give the cursor of an event that was read'
        raise ValueError(msg) from None
