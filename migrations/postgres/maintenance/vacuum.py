"""Dead rows: what updates and deletions left is removed before it makes searches and scans slow.

Autovacuum does this for most tables. It is late where a fifth of a large table is very many rows, and slow where there
is an HNSW index: removing 10,000 dead rows from one took 50 s, so the index is built anew first.
"""

from dataclasses import dataclass

from psycopg import sql

from migrations import log
from migrations.postgres.maintenance import indexes
from migrations.postgres.maintenance.places import Work

DEAD_SHARE = 0.2
DEAD_ROWS = 1000


@dataclass(frozen=True)
class _Table:
    name: str
    dead: int


def look_after(work: Work) -> None:
    """Vacuums the tables of the place, partitions too, of which more than a fifth is dead rows.

    Raises:
        CommandError: The index could not be built anew.
        psycopg.Error: What PostgreSQL refuses.
    """
    with work.as_owner():
        busy = indexes.is_being_built(work)
        if not busy:
            _clear(work)
        for table in _bloated(work):
            log.write("removing dead rows", table=table.name, dead=table.dead)
            if table.name == indexes.TABLE and not busy:
                _reindex(work)
            work.connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(work.table(table.name)))


def _bloated(work: Work) -> list[_Table]:
    rows = work.connection.execute(
        """
        SELECT s.relname, s.n_dead_tup FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
        WHERE s.schemaname = %s AND c.relowner = %s::regrole
          AND s.n_dead_tup >= %s AND s.n_dead_tup > %s * (s.n_live_tup + s.n_dead_tup)
        ORDER BY s.relname
        """,
        [work.place.schema, sql.Identifier(work.place.owner).as_string(), DEAD_ROWS, DEAD_SHARE],
    ).fetchall()
    return [_Table(*row) for row in rows]


def _clear(work: Work) -> None:
    """Drops the invalid indexes that a killed REINDEX CONCURRENTLY left: every write goes on maintaining them."""
    rows = work.connection.execute(
        r"""
        SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relowner = %s::regrole AND NOT i.indisvalid AND c.relname ~ '_cc(new|old)\d*$'
        ORDER BY 1
        """,
        [work.place.schema, sql.Identifier(work.place.owner).as_string()],
    ).fetchall()
    for (name,) in rows:
        log.write("dropping what an earlier build left", index=name)
        indexes.drop_index(work, name)


def _reindex(work: Work) -> None:
    if work.has(indexes.NAME):
        statement = sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(work.table(indexes.NAME))
        indexes.build(work, statement, lambda: _clear(work))
