"""Many embeddings at once: COPY of new ones, and one statement for those whose keys are there already.

A staging table would need TEMPORARY on the database, which a Memory with a database of its own does not have; and COPY
into a table with row-level security is refused. So: COPY straight into the table; where a key is found to exist, or
where row-level security is on, INSERT … ON CONFLICT from arrays. Both do what memory_upsert_embedding does.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import sql
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format
from psycopg.types import TypeInfo

from memory_client import encoding
from memory_client.stores.pool import Connection
from memory_client.types import Embedding

# One batch is one transaction, and what is held in memory; 8 MB are some 2700 rows of 768 dimensions.
BATCH_BYTES = 8 << 20
# What COPY begins and ends with (PostgreSQL manual, COPY, Binary Format).
HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
NULL = struct.pack(">i", -1)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Vectors:
    """How a Memory stores vectors: the oids of pgvector's types, the schema that they are in, and whether halved."""

    dimension: int
    metric: str | None
    schema: str
    oid: int
    array_oid: int
    half: bool
    guarded: bool


@dataclass(frozen=True)
class Row:
    """An embedding, ready to be sent; `vector` as the column stores it."""

    key: str
    chunk: int
    content: str | None
    metadata: str
    vector: bytes
    ttl: float | None


class Packed:
    """A vector in pgvector's binary form, to be given to a query."""

    def __init__(self, numbers: bytes, dimension: int) -> None:
        self.sent = struct.pack(">hh", dimension, 0) + numbers


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Packed) -> Buffer:
        return obj.sent


def teach(connection: Connection, vectors: Vectors) -> None:
    """Lets a connection send `Packed` and lists of them."""
    TypeInfo("vector", vectors.oid, vectors.array_oid).register(connection)
    dumper = type("PackedDumper", (_PackedDumper,), {"oid": vectors.oid})
    connection.adapters.register_dumper(Packed, dumper)


def batches(embeddings: Iterable[Embedding], pack: Callable[[Embedding], bytes]) -> Iterator[tuple[int, list[Row]]]:
    """Gives rows to be stored together, and how many were given for them: of one key and chunk the last one counts.

    They are in order, so that two who store the same ones do not wait for each other crosswise.
    """
    rows: dict[tuple[str, int], Row] = {}
    size = given = 0
    for each in embeddings:
        row = Row(each.key, each.chunk, each.content, encoding.to_json(dict(each.metadata)), pack(each), each.ttl)
        rows[each.key, each.chunk] = row
        given += 1
        size += len(row.vector) + len(row.metadata) + len(row.content or "")
        if size >= BATCH_BYTES:
            yield given, [rows[at] for at in sorted(rows)]
            rows, size, given = {}, 0, 0
    if rows:
        yield given, [rows[at] for at in sorted(rows)]


def copy(connection: Connection, schema: str, dataset: str, vectors: Vectors, rows: list[Row]) -> bool:
    """Stores rows whose keys are new; False, and nothing is stored, when one is not."""
    now = None
    if any(row.ttl is not None for row in rows):
        found = connection.execute("SELECT now()").fetchone()
        now = found[0] if found else None
    statement = sql.SQL(
        "COPY {}.memory_embeddings (dataset, key, chunk, content, embedding, metadata, expires_at)"
        " FROM STDIN (FORMAT binary)"
    ).format(sql.Identifier(schema))
    try:
        with connection.cursor() as cursor, cursor.copy(statement) as stream:
            stream.write(b"".join(_binary(dataset, vectors, rows, now)))
    except psycopg.errors.UniqueViolation:
        return False
    return True


def _binary(dataset: str, vectors: Vectors, rows: list[Row], now: datetime | None) -> Iterator[bytes]:
    begin = struct.pack(">h", 7) + _text(dataset)
    width = 2 if vectors.half else 4
    vector = struct.pack(">ihh", 4 + width * vectors.dimension, vectors.dimension, 0)
    yield HEADER
    for row in rows:
        metadata = row.metadata.encode()
        yield begin
        yield _text(row.key)
        yield struct.pack(">ii", 4, row.chunk)
        yield NULL if row.content is None else _text(row.content)
        yield vector
        yield row.vector
        yield struct.pack(">ib", len(metadata) + 1, 1)  # version 1 of jsonb's binary form
        yield metadata
        yield NULL if row.ttl is None or now is None else _moment(now + timedelta(seconds=row.ttl))
    yield TRAILER


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">i", len(encoded)) + encoded


def _moment(at: datetime) -> bytes:
    return struct.pack(">iq", 8, (at - EPOCH) // timedelta(microseconds=1))


def upsert(connection: Connection, schema: str, dataset: str, vectors: Vectors, rows: list[Row]) -> bool:
    """Stores rows, each in place of the one of its key and chunk; True when none of them was there."""
    teach(connection, vectors)
    statement = sql.SQL(
        """
        WITH stored AS (
            INSERT INTO {table} AS e (dataset, key, chunk, content, embedding, metadata, expires_at)
            SELECT %s, g.key, g.chunk, g.content, g.embedding, g.metadata::jsonb, now() + make_interval(secs => g.ttl)
            FROM unnest(%b::text[], %b::int4[], %b::text[], %b::{vector}[], %b::text[], %b::float8[])
                g (key, chunk, content, embedding, metadata, ttl)
            ON CONFLICT (dataset, key, chunk) DO UPDATE
            SET content = excluded.content, embedding = excluded.embedding, metadata = excluded.metadata,
                updated_at = now(), expires_at = excluded.expires_at
            RETURNING e.xmax = 0 AS made  -- a row that was replaced has the transaction's id there
        )
        SELECT bool_and(made) FROM stored
        """
    ).format(table=sql.Identifier(schema, "memory_embeddings"), vector=sql.Identifier(vectors.schema, "vector"))
    full = [packed(row, vectors) for row in rows]
    columns = [
        [row.key for row in rows],
        [row.chunk for row in rows],
        [row.content for row in rows],
        full,
        [row.metadata for row in rows],
        [row.ttl for row in rows],
    ]
    [(made,)] = connection.execute(statement, [dataset, *columns])
    return bool(made)


def packed(row: Row, vectors: Vectors) -> Packed:
    """Gives a row's vector as a value of type vector, which the functions take whatever the column is."""
    if not vectors.half:
        return Packed(row.vector, vectors.dimension)
    numbers = struct.unpack(f">{vectors.dimension}e", row.vector)
    return Packed(struct.pack(f">{vectors.dimension}f", *numbers), vectors.dimension)
