"""Embeddings: one row for each dataset, key and chunk, whatever is sent twice."""

import datetime as dt
import re
import uuid
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.datamodel.homes import Dataset, at_once, call

ROW = "SELECT id, content, metadata, created_at, updated_at, expires_at FROM memory_embeddings WHERE dataset = %s"


def vector(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(values, dtype=np.float32)


def test_upsert_makes_and_replaces(dataset: Dataset) -> None:
    first = dataset.value("memory_upsert_embedding", "k", vector(1, 0, 0), "old words", Jsonb({"page": 1}))
    [before] = dataset.writer.execute(ROW, [dataset.name]).fetchall()
    again = dataset.value("memory_upsert_embedding", "k", vector(0, 1, 0), "new words", Jsonb({"page": 2}))
    [after] = dataset.writer.execute(ROW, [dataset.name]).fetchall()
    assert first == again
    assert isinstance(first, uuid.UUID)
    assert after[:4] == (first, "new words", {"page": 2}, before[3])
    assert after[4] > before[4]
    assert dataset.keys(vector(0, 1, 0)) == ["k"]
    assert dataset.keys(query="old") == []
    assert dataset.keys(query="new") == ["k"]


def test_defaults(dataset: Dataset) -> None:
    dataset.value("memory_upsert_embedding", "k", vector(1, 0, 0))
    assert dataset.writer.execute(ROW, [dataset.name]).fetchall()[0][1:3] == (None, {})
    dataset.value("memory_upsert_embedding", "k", vector(1, 0, 0), metadata=None, chunk=None)
    assert dataset.writer.execute(ROW, [dataset.name]).fetchall()[0][1:3] == (None, {})


def test_vectors_may_be_sent_as_text(dataset: Dataset) -> None:
    dataset.value("memory_upsert_embedding", "k", "[1,2,3]")
    assert dataset.keys("[1,2,3]") == ["k"]


def test_chunks_are_rows_of_their_own_and_go_together(dataset: Dataset) -> None:
    for chunk in range(3):
        dataset.value("memory_upsert_embedding", "k", vector(1, 0, chunk), chunk=chunk)
    dataset.value("memory_upsert_embedding", "other", vector(1, 0, 0))
    assert sorted(row[1:3] for row in dataset.call("memory_search", vector(1, 0, 0))) == [
        ("k", 0),
        ("k", 1),
        ("k", 2),
        ("other", 0),
    ]
    assert dataset.value("memory_delete_embedding", "k") == 3
    assert dataset.value("memory_delete_embedding", "k") == 0
    assert dataset.keys(vector(1, 0, 0)) == ["other"]


def test_same_key_in_another_dataset_is_another(dataset: Dataset) -> None:
    other = dataset.home.new_dataset()
    mine = dataset.value("memory_upsert_embedding", "k", vector(1, 0, 0))
    [(theirs,)] = call(dataset.writer, "memory_upsert_embedding", other, "k", vector(1, 0, 0))
    assert mine != theirs
    assert call(dataset.writer, "memory_delete_embedding", other, "k") == [(1,)]
    assert dataset.keys(vector(1, 0, 0)) == ["k"]


def test_eight_clients_that_upsert_the_same_make_one(dataset: Dataset) -> None:
    def upsert(number: int) -> set[uuid.UUID]:
        with dataset.home.writer() as connection:
            return {
                call(connection, "memory_upsert_embedding", dataset.name, "k", vector(1, number, turn))[0][0]
                for turn in range(20)
            }

    assert len(set.union(*at_once(upsert))) == 1
    assert dataset.writer.execute(ROW, [dataset.name]).rowcount == 1


def test_expiry_is_set_anew_by_each_upsert(dataset: Dataset) -> None:
    dataset.value("memory_upsert_embedding", "k", vector(1, 0, 0), ttl=dt.timedelta(hours=1))
    assert dataset.writer.execute(ROW, [dataset.name]).fetchall()[0][5] is not None
    dataset.value("memory_upsert_embedding", "k", vector(1, 0, 0))
    assert dataset.writer.execute(ROW, [dataset.name]).fetchall()[0][5] is None


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "sentence"),
    [
        pytest.param(
            {"embedding": vector(1, 2)}, "MM003", "the embedding has 2 dimensions, dataset '{}' has 3", id="dimension"
        ),
        pytest.param({"embedding": None}, "22004", "the embedding of key 'k' is NULL: give a vector", id="null"),
        pytest.param({"embedding": vector(0, 0, 0)}, "22023", "the embedding is all zeros", id="no-direction"),
        pytest.param({"ttl": dt.timedelta()}, "22023", "give an interval above 0", id="ttl"),
        pytest.param({"metadata": Jsonb([1])}, "23514", "memory_embeddings_metadata_check", id="metadata-is-a-list"),
        pytest.param({"chunk": -1}, "23514", "memory_embeddings_chunk_check", id="negative-chunk"),
    ],
)
def test_upsert_refuses(dataset: Dataset, arguments: dict[str, Any], sqlstate: str, sentence: str) -> None:
    given: dict[str, Any] = {"key": "k", "embedding": vector(1, 0, 0), **arguments}
    with pytest.raises(psycopg.Error, match=re.escape(sentence.format(dataset.name))) as caught:
        dataset.call("memory_upsert_embedding", **given)
    assert caught.value.sqlstate == sqlstate
    assert dataset.writer.execute(ROW, [dataset.name]).rowcount == 0
