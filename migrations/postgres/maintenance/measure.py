"""How much there is, how old and how dead: for people and for metrics, so rounded to what is worth a report."""

from psycopg import sql

from migrations.answers import Measure
from migrations.postgres.connection import fetch_value
from migrations.postgres.maintenance.places import Work

# Less dead rows than this are none: a share of a few rows says nothing.
MANY_DEAD = 1000
# What the age of a row counts from, as in retention.
_AGE = {"memory_events": "created_at", "memory_kv": "updated_at", "memory_embeddings": "updated_at"}


def take(work: Work) -> dict[str, Measure]:
    """Measures each home of a place, by its key in the ledger."""
    with work.as_owner():
        dead = _dead_percent(work)
        return {home.key: _of(work, home.dataset, dead) for home in work.place.homes}


def _of(work: Work, dataset: str, dead: int) -> Measure:
    status = sql.SQL("SELECT events + keys, bytes, embeddings FROM {}({})")
    call = status.format(work.table("memory_status"), sql.Literal(dataset))
    rows, size, embeddings = work.connection.execute(call).fetchone() or (0, 0, None)
    oldest = min(filter(None, (_oldest(work, name, dataset) for name in _AGE if work.has(name))), default=None)
    own = embeddings is not None and work.place.isolation != "Dataset"
    table = work.table("memory_embeddings").as_string()
    return Measure(
        rows=rows + (embeddings or 0),
        bytes=size,
        dead_percent=dead,
        oldest=f"{oldest}T00:00:00Z" if oldest else None,
        held=sum(_held(work, name, dataset) for name in ("memory_events", "memory_embeddings") if work.has(name)),
        embeddings=embeddings,
        embedding_bytes=fetch_value(work.connection, "SELECT pg_total_relation_size(%s)", table) if own else None,
    )


def _oldest(work: Work, table: str, dataset: str) -> str | None:
    query = sql.SQL("SELECT min({})::date::text FROM {} WHERE dataset = {}").format(
        sql.Identifier(_AGE[table]), work.table(table), sql.Literal(dataset)
    )
    day: str | None = fetch_value(work.connection, query.as_string())
    return day


def _held(work: Work, table: str, dataset: str) -> int:
    query = sql.SQL("SELECT count(*) FROM {} WHERE dataset = {} AND hold")
    return int(fetch_value(work.connection, query.format(work.table(table), sql.Literal(dataset)).as_string()))


def _dead_percent(work: Work) -> int:
    """Gives the share of dead rows in tables that have many; the server's statistics know."""
    query = """
        SELECT coalesce(round(100.0 * sum(n_dead_tup) / nullif(sum(n_live_tup + n_dead_tup), 0)), 0)::integer
        FROM pg_stat_user_tables WHERE schemaname = %s AND n_dead_tup >= %s
    """
    return int(fetch_value(work.connection, query, work.place.schema, MANY_DEAD))
