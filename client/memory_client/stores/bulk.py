"""Many embeddings at once: COPY of new ones, and one statement for those whose keys are there already.

A staging table would need TEMPORARY on the database, which a Memory with a database of its own does not have; and COPY
into a table with row-level security is refused. So: COPY straight into the table; where a key is found to exist, or
where row-level security is on, INSERT … ON CONFLICT from arrays. Both do what memory_upsert_embedding does.
"""

import struct
from collections.abc import Iterator, Sequence
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

# How many rows are packed and sent at a time: the server stores them while the next ones are packed.
PACKED_TOGETHER = 128
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


def ordered(embeddings: Sequence[Embedding]) -> list[Embedding]:
    """Gives what is to be stored of a batch: of one key and chunk the last.

    In order, so that two who store the same ones do not wait for each other crosswise.
    """
    last = {(each.key, each.chunk): each for each in embeddings}
    return [last[at] for at in sorted(last)]


def copy(connection: Connection, schema: str, dataset: str, vectors: Vectors, rows: list[Embedding]) -> bool:
    """Stores rows whose keys are new; False, and nothing is stored, when one is not."""
    now = EPOCH
    if any(row.ttl is not None for row in rows):
        [(now,)] = connection.execute("SELECT now()")
    statement = sql.SQL(
        "COPY {}.memory_embeddings (dataset, key, chunk, content, embedding, metadata, expires_at)"
        " FROM STDIN (FORMAT binary)"
    ).format(sql.Identifier(schema))
    try:
        with connection.cursor() as cursor, cursor.copy(statement) as stream:
            stream.write(HEADER)
            for start in range(0, len(rows), PACKED_TOGETHER):
                stream.write(b"".join(_binary(dataset, vectors, rows[start : start + PACKED_TOGETHER], now)))
            stream.write(TRAILER)
    except psycopg.errors.UniqueViolation:
        return False
    return True


def _binary(dataset: str, vectors: Vectors, rows: list[Embedding], now: datetime) -> Iterator[bytes]:
    begin = struct.pack(">h", 7) + _text(dataset)
    width = 2 if vectors.half else 4
    vector = struct.pack(">ihh", 4 + width * vectors.dimension, vectors.dimension, 0)
    for row, numbers in zip(rows, _numbers(vectors, rows, ">e" if vectors.half else ">f"), strict=True):
        metadata = encoding.to_json(dict(row.metadata)).encode()
        yield begin
        yield _text(row.key)
        yield struct.pack(">ii", 4, row.chunk)
        yield NULL if row.content is None else _text(row.content)
        yield vector
        yield numbers
        yield struct.pack(">ib", len(metadata) + 1, 1)  # version 1 of jsonb's binary form
        yield metadata
        yield NULL if row.ttl is None else _moment(now + timedelta(seconds=row.ttl))


def _numbers(vectors: Vectors, rows: list[Embedding], number: encoding.Format) -> Sequence[bytes]:
    given = [row.vector for row in rows]
    return encoding.all_to_bytes(given, number, dimension=vectors.dimension, metric=vectors.metric)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">i", len(encoded)) + encoded


def _moment(at: datetime) -> bytes:
    return struct.pack(">iq", 8, (at - EPOCH) // timedelta(microseconds=1))


def upsert(connection: Connection, schema: str, dataset: str, vectors: Vectors, rows: list[Embedding]) -> bool:
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
    columns = [
        [row.key for row in rows],
        [row.chunk for row in rows],
        [row.content for row in rows],
        # The functions take type vector, whatever the column is, and so does this.
        [Packed(numbers, vectors.dimension) for numbers in _numbers(vectors, rows, ">f")],
        [encoding.to_json(dict(row.metadata)) for row in rows],
        [row.ttl for row in rows],
    ]
    [(made,)] = connection.execute(statement, [dataset, *columns])
    return bool(made)
