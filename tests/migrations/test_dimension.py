"""What of the embeddings may change: the dimension while there are none, and nothing afterwards."""

import pytest

from tests.migrations.documents import Command, Memory
from tests.migrations.snapshot import snapshot


@pytest.fixture
def filled(memory: Memory, command: Command) -> Memory:
    assert command.provision(memory).code == 0
    with memory.connect() as connection:
        connection.execute("SELECT memory_upsert_embedding('notes', 'a', '[1,2,3]', 'words')")
    return memory


def _rows(memory: Memory) -> list[tuple[object, ...]]:
    with memory.connect() as connection:
        return connection.execute("SELECT * FROM memory_embeddings").fetchall()


def test_changed_dimension_is_11_with_both_numbers_and_the_rows_are_left(filled: Memory, command: Command) -> None:
    rows, before = _rows(filled), snapshot(filled)
    answer = command.provision(filled.but(embeddings={"dimension": 4}))
    assert (answer.code, answer.report["reason"]) == (11, "DimensionConflict")
    assert answer.message == (
        'embeddings.dimension 4 differs from 3, the dimension of the embeddings in schema "notes": '
        "set it back to 3, or use another Memory for the new model; nothing was changed"
    )
    assert _rows(filled) == rows
    assert snapshot(filled) == before
    assert command.provision(filled).code == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"metric": "l2"}, 'embeddings.metric "l2" differs from "cosine"', id="functions follow from it"),
        pytest.param({"storage": "half"}, 'embeddings.storage "half" differs from "full"', id="precision would go"),
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_metric_and_storage_are_fixed(
    filled: Memory, command: Command, changes: dict[str, str], sentence: str, empty: bool
) -> None:
    if empty:
        with filled.connect() as connection:
            connection.execute("DELETE FROM memory_embeddings")
    answer = command.provision(filled.but(embeddings=changes))
    assert answer.code == 11
    assert answer.message.startswith(sentence)


def test_storage_that_means_the_same_is_no_change(filled: Memory, command: Command) -> None:
    assert command.provision(filled.but(embeddings={"storage": "full"})).code == 0


@pytest.mark.parametrize("dimension", [5, 3072])
def test_new_dimension_on_an_empty_table_is_applied(filled: Memory, command: Command, dimension: int) -> None:
    with filled.database.superuser() as connection:
        connection.execute("DELETE FROM notes.memory_embeddings")
        # An approximate index that was earned once: it cannot outlive the type.
        connection.execute(
            "CREATE INDEX memory_embeddings_vector_idx ON notes.memory_embeddings"
            " USING hnsw (embedding vector_cosine_ops)"
        )
    changed = filled.but(embeddings={"dimension": dimension})
    assert command.provision(changed).code == 0
    with changed.connect() as connection:
        vector = str([0.5] * dimension)
        connection.execute("SELECT memory_upsert_embedding('notes', 'a', %s)", [vector])
        assert connection.execute("SELECT key FROM memory_search('notes', %s)", [vector]).fetchall() == [("a",)]
        row = connection.execute("SELECT embedding_dimension, metric FROM memory_datasets").fetchone()
        assert row == (dimension, "cosine")
