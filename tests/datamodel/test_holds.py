"""Holds are kept by the database itself: of a row, and of the whole dataset."""

import datetime as dt
from collections.abc import Callable

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.datamodel.homes import Dataset
from tests.datamodel.test_embeddings import vector

REFUSED: dict[str, str] = {
    "delete-event": "DELETE FROM memory_events WHERE dataset = %s",
    "change-event": "UPDATE memory_events SET payload = '2' WHERE dataset = %s",
    "change-event-and-release": "UPDATE memory_events SET event_type = 'x', hold = false WHERE dataset = %s",
    "move-event-in-time": "UPDATE memory_events SET created_at = created_at - interval '1 y' WHERE dataset = %s",
    "move-event-to-another-dataset": "UPDATE memory_events SET dataset = 'notes' WHERE dataset = %s",
    "delete-embedding": "DELETE FROM memory_embeddings WHERE dataset = %s",
    "change-vector": "UPDATE memory_embeddings SET embedding = '[1,0,0.0001]' WHERE dataset = %s",
    "change-content": "UPDATE memory_embeddings SET content = 'other' WHERE dataset = %s",
    "forget-content": "UPDATE memory_embeddings SET content = NULL WHERE dataset = %s",
    "change-metadata": "UPDATE memory_embeddings SET metadata = '{}', hold = false WHERE dataset = %s",
    "rename-embedding": "UPDATE memory_embeddings SET key = 'other' WHERE dataset = %s",
}
REFUSED_OF_DATASET: dict[str, str] = {
    "delete-value": "DELETE FROM memory_kv WHERE dataset = %s",
    "change-value": "UPDATE memory_kv SET value = '2' WHERE dataset = %s",
    "rename-value": "UPDATE memory_kv SET key = 'other' WHERE dataset = %s",
}


def fill(dataset: Dataset) -> None:
    dataset.call("memory_append", "said", Jsonb(1))
    dataset.call("memory_put", "k", Jsonb(1))
    dataset.call("memory_upsert_embedding", "k", vector(1, 0, 0), "words", Jsonb({"page": 1}))


def hold_rows(dataset: Dataset) -> None:
    for table in ("memory_events", "memory_embeddings"):
        statement = sql.SQL("UPDATE {} SET hold = true WHERE dataset = %s").format(sql.Identifier(table))
        assert dataset.writer.execute(statement, [dataset.name]).rowcount == 1


def assert_held(work: Callable[[], object]) -> None:
    with pytest.raises(psycopg.Error, match="on hold") as caught:
        work()
    assert caught.value.sqlstate == "MM002"


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED)
def test_row_on_hold(dataset: Dataset, statement: str) -> None:
    fill(dataset)
    hold_rows(dataset)
    for connection in (dataset.writer, dataset.owner):  # the owner is maintenance
        assert_held(lambda by=connection: by.execute(statement, [dataset.name]))  # type: ignore[misc]
    for table in ("memory_events", "memory_embeddings"):
        release = sql.SQL("UPDATE {} SET hold = false WHERE dataset = %s").format(sql.Identifier(table))
        assert dataset.writer.execute(release, [dataset.name]).rowcount == 1
    with dataset.writer.transaction(force_rollback=True):
        assert dataset.writer.execute(statement, [dataset.name]).rowcount == 1


@pytest.mark.parametrize("statement", (REFUSED | REFUSED_OF_DATASET).values(), ids=REFUSED | REFUSED_OF_DATASET)
def test_dataset_on_hold(dataset: Dataset, statement: str) -> None:
    fill(dataset)
    dataset.hold()
    for connection in (dataset.writer, dataset.owner):
        assert_held(lambda by=connection: by.execute(statement, [dataset.name]))  # type: ignore[misc]
    dataset.hold(held=False)
    with dataset.writer.transaction(force_rollback=True):
        assert dataset.writer.execute(statement, [dataset.name]).rowcount == 1


def test_functions_under_a_legal_hold(dataset: Dataset) -> None:
    fill(dataset)
    dataset.hold()
    assert_held(lambda: dataset.call("memory_put", "k", Jsonb(2)))
    assert_held(lambda: dataset.call("memory_put", "k", Jsonb(2), 1))
    assert_held(lambda: dataset.call("memory_delete", "k"))
    assert_held(lambda: dataset.call("memory_upsert_embedding", "k", vector(0, 1, 0), "words", Jsonb({"page": 1})))
    assert_held(lambda: dataset.call("memory_delete_embedding", "k"))
    # What adds, or changes no payload, goes on.
    assert dataset.value("memory_put", "new", Jsonb(1)) == 1
    assert dataset.value("memory_put", "k", Jsonb(1), ttl=dt.timedelta(days=1)) == 2
    dataset.call("memory_append", "said", Jsonb(2))
    dataset.call("memory_upsert_embedding", "new", vector(0, 1, 0))
    dataset.call("memory_upsert_embedding", "k", vector(1, 0, 0), "words", Jsonb({"page": 1}))
    assert dataset.call("memory_get", "k")[0][0] == 1


def test_functions_and_a_row_on_hold(dataset: Dataset) -> None:
    fill(dataset)
    hold_rows(dataset)
    assert_held(lambda: dataset.call("memory_upsert_embedding", "k", vector(0, 1, 0), "words", Jsonb({"page": 1})))
    assert_held(lambda: dataset.call("memory_delete_embedding", "k"))
    dataset.call("memory_upsert_embedding", "k", vector(1, 0, 0), "words", Jsonb({"page": 1}))
    assert dataset.keys(vector(1, 0, 0)) == ["k"]


def test_expired_value_under_a_legal_hold_stays(dataset: Dataset) -> None:
    dataset.call("memory_put", "k", Jsonb(1))
    dataset.expire("memory_kv", "k")
    dataset.hold()
    assert dataset.call("memory_get", "k") == []
    assert_held(lambda: dataset.call("memory_put", "k", Jsonb(2), 0))
    assert_held(lambda: dataset.call("memory_delete", "k"))


def test_other_datasets_are_not_on_hold(dataset: Dataset) -> None:
    fill(dataset)
    other = Dataset(dataset.home, dataset.home.new_dataset(), dataset.writer, dataset.reader, dataset.owner)
    fill(other)
    dataset.hold()
    assert other.value("memory_delete", "k") is True
    assert other.value("memory_delete_embedding", "k") == 1


def test_held_dataset_keeps_its_registry_row_and_the_writer_cannot_lift_the_hold(dataset: Dataset) -> None:
    dataset.hold()
    assert_held(lambda: dataset.owner.execute("DELETE FROM memory_datasets WHERE dataset = %s", [dataset.name]))
    for statement in (
        "UPDATE memory_datasets SET legal_hold = false WHERE dataset = %s",
        "DELETE FROM memory_datasets WHERE dataset = %s",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            dataset.writer.execute(statement, [dataset.name])
    dataset.hold(held=False)
    assert dataset.owner.execute("DELETE FROM memory_datasets WHERE dataset = %s", [dataset.name]).rowcount == 1


def test_truncate(own_home: Dataset) -> None:
    """As the owner: no login may truncate at all."""
    [(_, created_at, _)] = own_home.call("memory_append", "said", Jsonb(1))
    partition = f"memory_events_{created_at.astimezone(dt.UTC):%Y%m}"
    own_home.writer.execute(
        "INSERT INTO memory_events (dataset, event_type, payload, created_at)"
        " VALUES ('notes', 'old', '1', '2020-01-01')"
    )
    own_home.call("memory_upsert_embedding", "k", vector(1, 0, 0))
    own_home.call("memory_put", "k", Jsonb(1))
    with_rows = ["memory_events", partition, "memory_events_default", "memory_embeddings"]
    all_tables = [*with_rows, "memory_kv", "memory_datasets"]

    def truncate(table: str) -> None:
        with own_home.owner.transaction(force_rollback=True):
            own_home.owner.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(table)))

    for table in all_tables:
        truncate(table)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            own_home.writer.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(table)))
    for table in ("memory_events", "memory_embeddings"):
        own_home.writer.execute(sql.SQL("UPDATE {} SET hold = true").format(sql.Identifier(table)))
    for table in with_rows:
        assert_held(lambda name=table: truncate(name))  # type: ignore[misc]
    truncate("memory_kv")
    for table in ("memory_events", "memory_embeddings"):
        own_home.writer.execute(sql.SQL("UPDATE {} SET hold = false").format(sql.Identifier(table)))
    truncate("memory_events")
    own_home.hold()
    for table in all_tables:
        assert_held(lambda name=table: truncate(name))  # type: ignore[misc]
