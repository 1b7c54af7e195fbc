"""One row about a dataset, with and without the embeddings module."""

from pathlib import Path

from psycopg.types.json import Jsonb

from tests.datamodel.homes import Dataset, call, made
from tests.datamodel.test_embeddings import vector
from tests.postgres import Database

COLUMNS = ["events", "keys", "embeddings", "bytes", "index_state", "oldest", "newest", "legal_hold", "ttl_days"]


def test_empty(dataset: Dataset) -> None:
    [(events, keys, embeddings, size, index, oldest, newest, held, ttl)] = dataset.call("memory_status")
    assert (events, keys, embeddings, index, oldest, newest, held, ttl) == (0, 0, 0, "exact", None, None, False, 0)
    assert size > 0


def test_counts_what_reads_give_of_this_dataset(dataset: Dataset) -> None:
    other = dataset.home.new_dataset()
    [(_, oldest, _)] = dataset.call("memory_append", "said", Jsonb(1))
    dataset.call("memory_append", "said", Jsonb(2))
    for key in ("a", "b", "expired"):
        dataset.call("memory_put", key, Jsonb(1))
        dataset.call("memory_upsert_embedding", key, vector(1, 0, 0))
    for table in ("memory_kv", "memory_embeddings"):
        dataset.expire(table, "expired")
    call(dataset.writer, "memory_put", other, "theirs", Jsonb(1))
    cursor = dataset.writer.execute("SELECT * FROM memory_status(%s)", [dataset.name])
    assert [column.name for column in cursor.description or ()] == COLUMNS
    [row] = cursor.fetchall()
    assert row[:3] == (2, 2, 2)
    assert row[5] == oldest
    assert (
        row[6]
        == dataset.writer.execute(
            "SELECT max(updated_at) FROM memory_embeddings WHERE dataset = %s AND key = 'b'", [dataset.name]
        ).fetchall()[0][0]
    )


def test_hold_ttl_and_index(dataset: Dataset) -> None:
    dataset.owner.execute(
        "UPDATE memory_datasets SET legal_hold = true, ttl_days = 30, index_state = 'ready' WHERE dataset = %s",
        [dataset.name],
    )
    [row] = dataset.call("memory_status")
    assert (row[4], row[7], row[8]) == ("ready", True, 30)


def test_bytes_are_those_of_all_tables(own_home: Dataset) -> None:
    sizes = own_home.owner.execute(
        "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE c.relkind = 'r'"
        " AND c.relnamespace = 'notes'::regnamespace AND c.relname NOT IN ('memory_datasets', 'memory_migrations')"
    ).fetchall()
    assert own_home.call("memory_status")[0][3] == sizes[0][0]


def test_without_embeddings(any_database: Database, tmp_path: Path) -> None:
    with made(any_database, tmp_path / "request", enabled=False) as home, home.writer() as writer:
        call(writer, "memory_append", "notes", "said", Jsonb(1))
        [(events, keys, embeddings, size, index, oldest, newest, held, ttl)] = call(writer, "memory_status", "notes")
        assert (events, keys, embeddings, index, held, ttl) == (1, 0, None, None, False, 0)
        assert oldest == newest is not None
        assert size > 0
        assert writer.execute("SELECT to_regclass('notes.memory_embeddings')").fetchall() == [(None,)]
        assert writer.execute("SELECT FROM pg_proc WHERE proname = 'memory_search'").rowcount == 0
