"""How vectors are stored: type, operator, and what may change once there are some."""

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from migrations.errors import Code, CommandError
from migrations.postgres.connection import Connection, fetch_value
from migrations.postgres.request import ProvisionRequest
from migrations.request import Embeddings

# How many dimensions an index holds. Above the first, `storage: auto` means halfvec.
LIMITS = {"vector": 2000, "halfvec": 4000}

STORAGE = {"vector": "full", "halfvec": "half"}
OPERATORS = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}


@dataclass(frozen=True)
class Stored:
    """The table as it is: `type` is vector or halfvec."""

    type: str
    dimension: int
    metric: str | None


def vector_type(embeddings: Embeddings) -> str:
    """Gives the column type that the request means."""
    if embeddings.storage == "auto":
        return "vector" if embeddings.dimension <= LIMITS["vector"] else "halfvec"
    return {"full": "vector", "half": "halfvec"}[embeddings.storage]


def storage_of(embeddings: Embeddings) -> str:
    """Gives the storage that the request means, without `auto`."""
    return STORAGE[vector_type(embeddings)]


def placeholders(embeddings: Embeddings, extension_schema: str) -> dict[str, sql.Composable]:
    """Gives the values that only the embeddings module uses."""
    kind = vector_type(embeddings)
    return {
        "extension_schema": sql.Identifier(extension_schema),
        "dimension": sql.Literal(embeddings.dimension),
        "metric": sql.Literal(embeddings.metric),
        "vector_type": sql.Identifier(extension_schema, kind),
        "vector_ops": sql.Identifier(extension_schema, f"{kind}_{embeddings.metric}_ops"),
        "distance": sql.SQL("OPERATOR({}.{})").format(
            sql.Identifier(extension_schema), sql.SQL(OPERATORS[embeddings.metric])
        ),
    }


def adjust(connection: Connection, request: ProvisionRequest, extension_schema: str) -> None:
    """Holds the request against the table that is there, and applies a new dimension when it is empty.

    Runs in a transaction, as the owner.

    Raises:
        CommandError: DIMENSION_CONFLICT naming both values; no row is touched.
    """
    stored = differing(connection, request)
    if stored is None:
        return
    wanted, kind = request.embeddings, vector_type(request.embeddings)
    table = sql.Identifier(request.dataset.home, "memory_embeddings")
    # Nobody may write the first row between the look and the change.
    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table))
    check_empty(connection, request, stored)
    statement = sql.SQL("DROP INDEX IF EXISTS {}; ALTER TABLE {} ALTER COLUMN embedding TYPE {}({})").format(
        sql.Identifier(request.dataset.home, "memory_embeddings_vector_idx"),
        table,
        sql.Identifier(extension_schema, kind),
        sql.Literal(wanted.dimension),
    )
    connection.execute(statement)


def differing(connection: Connection, request: ProvisionRequest) -> Stored | None:
    """Gives the table when its dimension is another than the request's, None when nothing is to be changed.

    Raises:
        CommandError: DIMENSION_CONFLICT when metric or storage, which are fixed, are other than the request's.
    """
    stored = _read(connection, request)
    wanted = request.embeddings
    if stored is None:
        return None
    if stored.metric is not None and stored.metric != wanted.metric:
        raise _fixed(metric=(stored.metric, wanted.metric))
    kind = vector_type(wanted)
    if stored.dimension != wanted.dimension:
        return stored
    if stored.type != kind:
        raise _fixed(storage=(STORAGE[stored.type], STORAGE[kind]))
    return None


def check_empty(connection: Connection, request: ProvisionRequest, stored: Stored) -> None:
    """Refuses another dimension than that of the embeddings that are there.

    Raises:
        CommandError: DIMENSION_CONFLICT naming both values.
    """
    wanted, table = request.embeddings, sql.Identifier(request.dataset.home, "memory_embeddings")
    if fetch_value(connection, sql.SQL("SELECT EXISTS (SELECT FROM {})").format(table).as_string()):
        msg = (
            f"embeddings.dimension {wanted.dimension} differs from {stored.dimension}, the dimension of the embeddings "
            f'in schema "{request.dataset.home}": set it back to {stored.dimension}, or use another Memory for the new '
            "model; nothing was changed"
        )
        raise CommandError(Code.DIMENSION_CONFLICT, msg)


def _read(connection: Connection, request: ProvisionRequest) -> Stored | None:
    row = connection.execute(
        """
        SELECT t.typname, a.atttypmod FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = to_regclass(%s) AND a.attname = 'embedding'
        """,
        [f'"{request.dataset.home}".memory_embeddings'],
    ).fetchone()
    if row is None:
        return None
    query = sql.SQL("SELECT metric FROM {}.memory_datasets WHERE dataset = %s").format(
        sql.Identifier(request.dataset.home)
    )
    metric = fetch_value(connection, query.as_string(), request.dataset.name)
    return Stored(row[0], row[1], metric)


def _fixed(**differing: tuple[str, str]) -> CommandError:
    [(what, (stored, wanted))] = differing.items()
    msg = (
        f'embeddings.{what} "{wanted}" differs from "{stored}", which this Memory was made with, and that is fixed: '
        f"set it back to {stored}, or use another Memory; nothing was changed"
    )
    return CommandError(Code.DIMENSION_CONFLICT, msg)


def registered(connection: Connection, request: ProvisionRequest) -> dict[str, Any]:
    """Gives the registry row of the home's dataset by column, empty when there is none; runs as the owner."""
    table = sql.Identifier(request.dataset.home, "memory_datasets").as_string()
    if not fetch_value(connection, "SELECT to_regclass(%s)", table):
        return {}
    query = sql.SQL("SELECT to_jsonb(d) FROM {} d WHERE dataset = %s").format(sql.SQL(table))
    return dict(fetch_value(connection, query.as_string(), request.dataset.name) or {})


def register(connection: Connection, request: ProvisionRequest) -> None:
    """Keeps the registry row of the home's dataset as the request says; runs as the owner.

    Without embeddings its dimension stays what it was: the table may be there from before.
    """
    embeddings = request.embeddings
    values = {
        "dataset": request.dataset.name,
        "ttl_days": request.retention.ttl_days,
        "legal_hold": request.legal_hold,
        **({"embedding_dimension": embeddings.dimension, "metric": embeddings.metric} if embeddings.enabled else {}),
    }
    columns = [sql.Identifier(name) for name in values]
    statement = sql.SQL(
        """
        INSERT INTO {table} AS d ({columns}, index_state) VALUES ({values}, {state}) ON CONFLICT (dataset)
        DO UPDATE SET ({columns}) = ROW({excluded}) WHERE ({current}) IS DISTINCT FROM ({excluded})
        """
    ).format(
        table=sql.Identifier(request.dataset.home, "memory_datasets"),
        columns=sql.SQL(", ").join(columns),
        values=sql.SQL(", ").join(map(sql.Literal, values.values())),
        state=sql.Literal("exact" if embeddings.enabled else None),
        excluded=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in values),
        current=sql.SQL(", ").join(sql.Identifier("d", name) for name in values),
    )
    connection.execute(statement)
