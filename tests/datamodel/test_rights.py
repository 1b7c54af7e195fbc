"""Who may call what, and that a dataset which is not ours is an error and no empty answer."""

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.datamodel.homes import Dataset, call
from tests.datamodel.test_embeddings import vector

READS: dict[str, list[object]] = {
    "memory_read": [],
    "memory_get": ["k"],
    "memory_search": [vector(1, 0, 0), "words"],
    "memory_status": [],
}
WRITES: dict[str, list[object]] = {
    "memory_append": ["said", Jsonb(1), "e-1"],
    "memory_put": ["k", Jsonb(1)],
    "memory_delete": ["k"],
    "memory_upsert_embedding": ["k", vector(1, 0, 0), "words"],
    "memory_delete_embedding": ["k"],
}


def test_reader_reads(dataset: Dataset) -> None:
    dataset.call("memory_append", "said", Jsonb(1))
    dataset.call("memory_put", "k", Jsonb(1))
    dataset.call("memory_upsert_embedding", "k", vector(1, 0, 0), "words")
    for function, arguments in READS.items():
        rows = dataset.call(function, *arguments, by=dataset.reader)
        assert rows == dataset.call(function, *arguments)
        assert len(rows) == 1, function


@pytest.mark.parametrize("function", WRITES)
def test_reader_writes_nothing(dataset: Dataset, function: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f"permission denied for function {function}"):
        dataset.call(function, *WRITES[function], by=dataset.reader)
    assert dataset.call("memory_status")[0][:3] == (0, 0, 0)


@pytest.mark.parametrize("function", READS | WRITES)
def test_dataset_of_somebody_else(dataset: Dataset, function: str) -> None:
    for name, shown in (("not-ours", "'not-ours'"), (None, "NULL")):
        with pytest.raises(psycopg.Error, match=f"dataset {shown} is not one of this Memory") as caught:
            call(dataset.writer, function, name, *(READS | WRITES)[function])
        assert caught.value.sqlstate == "MM004"


def test_callers_search_path_does_not_matter(dataset: Dataset) -> None:
    """A table of the same name that comes first on it is not what the functions use."""
    dataset.call("memory_put", "k", Jsonb(1))
    with dataset.home.memory.database.superuser() as superuser:
        # A database that lets its users make temporary tables is the usual one.
        superuser.execute("CREATE TEMPORARY TABLE memory_kv (dataset text, key text, value jsonb, version bigint)")
        superuser.execute("SET search_path = pg_temp")
        rows = superuser.execute("SELECT version FROM notes.memory_get(%s, 'k')", [dataset.name]).fetchall()
    assert rows == [(1,)]
