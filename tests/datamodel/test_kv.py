"""Keys and values: compare-and-set that loses no update, and expiry that reads honour at once."""

import datetime as dt
import re

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.datamodel.homes import Dataset, at_once, call


def test_put_counts_versions_and_get_gives_the_last(dataset: Dataset) -> None:
    assert dataset.value("memory_put", "k", Jsonb({"n": 1})) == 1
    assert dataset.value("memory_put", "k", Jsonb({"n": 2})) == 2
    [(value, version, updated_at)] = dataset.call("memory_get", "k")
    assert (value, version) == ({"n": 2}, 2)
    assert updated_at.tzinfo is not None


def test_get_of_what_is_not_there_is_no_row(dataset: Dataset) -> None:
    assert dataset.call("memory_get", "k") == []


def test_null_of_json_is_a_value_and_null_of_sql_is_none(dataset: Dataset) -> None:
    dataset.value("memory_put", "k", Jsonb(None))
    assert [row[0] for row in dataset.call("memory_get", "k")] == [None]
    with pytest.raises(psycopg.errors.NotNullViolation):
        dataset.value("memory_put", "k", None)


def test_keys_of_other_datasets_are_others(dataset: Dataset) -> None:
    other = dataset.home.new_dataset()
    dataset.value("memory_put", "k", Jsonb(1))
    assert call(dataset.writer, "memory_get", other, "k") == []
    assert call(dataset.writer, "memory_put", other, "k", Jsonb(2), 0) == [(1,)]
    assert call(dataset.writer, "memory_delete", other, "k") == [(True,)]
    assert len(dataset.call("memory_get", "k")) == 1


def test_expected_version(dataset: Dataset) -> None:
    assert dataset.value("memory_put", "k", Jsonb(1), 0) == 1
    assert dataset.value("memory_put", "k", Jsonb(2), 1) == 2
    assert dataset.call("memory_get", "k")[0][:2] == (2, 2)


@pytest.mark.parametrize(
    ("stored", "expected", "sentence"),
    [
        pytest.param(1, 0, "key 'k' has version 1, not version 0", id="exists"),
        pytest.param(2, 1, "key 'k' has version 2, not version 1", id="older"),
        pytest.param(1, 2, "key 'k' has version 1, not version 2", id="newer"),
        pytest.param(0, 1, "key 'k' has no value, not version 1", id="missing"),
        pytest.param(1, -1, "key 'k' has version 1, not version -1", id="no-version-at-all"),
    ],
)
def test_put_with_another_version_is_a_conflict(dataset: Dataset, stored: int, expected: int, sentence: str) -> None:
    for number in range(stored):
        dataset.value("memory_put", "k", Jsonb(number))
    before = dataset.call("memory_get", "k")
    with pytest.raises(psycopg.Error, match=re.escape(sentence)) as caught:
        dataset.value("memory_put", "k", Jsonb("lost"), expected)
    assert caught.value.sqlstate == "MM001"
    assert dataset.call("memory_get", "k") == before


def test_eight_clients_that_count_lose_nothing(dataset: Dataset) -> None:
    def count(_: int) -> int:
        conflicts = 0
        with dataset.home.writer() as connection:
            for _ in range(20):
                while True:
                    rows = call(connection, "memory_get", dataset.name, "k")
                    value, version = rows[0][:2] if rows else (0, 0)
                    try:
                        call(connection, "memory_put", dataset.name, "k", Jsonb(value + 1), version)
                        break
                    except psycopg.Error as error:
                        if error.sqlstate != "MM001":
                            raise
                        conflicts += 1
        return conflicts

    assert sum(at_once(count)) > 0, "they met, so the test has tested something"
    assert dataset.call("memory_get", "k")[0][:2] == (160, 160)


def test_of_eight_clients_that_make_a_key_one_does(dataset: Dataset) -> None:
    def make(number: int) -> int:
        made = 0
        with dataset.home.writer() as connection:
            for key in range(20):
                try:
                    call(connection, "memory_put", dataset.name, f"k-{key}", Jsonb(number), 0)
                    made += 1
                except psycopg.Error as error:
                    if error.sqlstate != "MM001":
                        raise
        return made

    assert sum(at_once(make)) == 20


def test_expired_value_is_none(dataset: Dataset) -> None:
    dataset.value("memory_put", "k", Jsonb(1), ttl=dt.timedelta(hours=1))
    assert len(dataset.call("memory_get", "k")) == 1
    dataset.expire("memory_kv", "k")
    assert dataset.call("memory_get", "k") == []
    with pytest.raises(psycopg.Error, match="key 'k' has no value, not version 1"):
        dataset.value("memory_put", "k", Jsonb(2), 1)
    assert dataset.value("memory_delete", "k", 1) is False
    assert dataset.value("memory_put", "k2", Jsonb(2), 0) == 1


def test_version_counts_on_after_expiry(dataset: Dataset) -> None:
    """Else a client that read version 1 before it expired would overwrite another's new version 1."""
    dataset.value("memory_put", "k", Jsonb(1))
    dataset.expire("memory_kv", "k")
    assert dataset.value("memory_put", "k", Jsonb(2), 0) == 2


def test_put_sets_expiry_anew(dataset: Dataset) -> None:
    expiry = "SELECT expires_at - now() FROM memory_kv WHERE dataset = %s"
    for ttl in (dt.timedelta(hours=1), dt.timedelta(days=2)):
        dataset.value("memory_put", "k", Jsonb(1), ttl=ttl)
        [(left,)] = dataset.writer.execute(expiry, [dataset.name]).fetchall()
        assert ttl - dt.timedelta(minutes=1) < left <= ttl
    dataset.value("memory_put", "k", Jsonb(1), 2)
    assert dataset.writer.execute(expiry, [dataset.name]).fetchall() == [(None,)]


def test_delete(dataset: Dataset) -> None:
    dataset.value("memory_put", "k", Jsonb(1))
    assert dataset.value("memory_delete", "k") is True
    assert dataset.value("memory_delete", "k") is False
    assert dataset.call("memory_get", "k") == []


def test_delete_with_expected_version(dataset: Dataset) -> None:
    dataset.value("memory_put", "k", Jsonb(1))
    for wrong in (0, 2):
        with pytest.raises(psycopg.Error, match=f"key 'k' has version 1, not version {wrong}") as caught:
            dataset.value("memory_delete", "k", wrong)
        assert caught.value.sqlstate == "MM001"
    assert dataset.value("memory_delete", "k", 1) is True
    assert dataset.value("memory_delete", "k", 1) is False, "sent again it does no harm"


def test_delete_of_an_expired_value_removes_the_row(dataset: Dataset) -> None:
    dataset.value("memory_put", "k", Jsonb("a secret"))
    dataset.expire("memory_kv", "k")
    assert dataset.value("memory_delete", "k") is False
    assert dataset.writer.execute("SELECT FROM memory_kv WHERE dataset = %s", [dataset.name]).rowcount == 0


@pytest.mark.parametrize("ttl", ["0 s", "-1 day"])
def test_ttl_is_above_zero(dataset: Dataset, ttl: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"p_ttl is .*: give an interval above 0, or NULL"):
        dataset.value("memory_put", "k", Jsonb(1), ttl=ttl)


def test_updates_are_heap_only(own_home: Dataset) -> None:
    for number in range(100):
        own_home.value("memory_put", "k", Jsonb(number), ttl=dt.timedelta(hours=1))
    own_home.writer.close()  # a session hands in its numbers when it ends
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'memory_kv'"
    for _ in range(100):
        updates, hot = own_home.owner.execute(query).fetchall()[0]
        if updates == 99:
            break
        own_home.owner.execute("SELECT pg_sleep(0.05)")
    assert (updates, hot) == (99, 99)
