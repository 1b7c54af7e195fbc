"""What the suite cannot ask of every backend: what S3's store makes of conditions, versions, clocks, metrics."""

import base64
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory_client import (
    AccessDenied,
    BindingError,
    DimensionMismatch,
    Embedding,
    Memory,
    OnHold,
    Unavailable,
    VersionConflict,
)
from memory_client.stores.s3 import layout, vectors
from memory_client.stores.s3.bucket import Bucket
from memory_client.stores.s3.register import Register
from memory_client.stores.s3.vectors import distances_of
from tests.client.backends import Backend, Machine
from tests.client.s3backend import S3Backend, S3Place
from tests.rgw import tls

# The suite runs over S3 in `make test`; this takes a minute.
pytestmark = [pytest.mark.xdist_group("rgw"), pytest.mark.long]


@pytest.fixture
def backend(backends: Callable[[str, Machine], Backend], machine: Machine) -> S3Backend:
    found = backends("s3", machine)
    assert isinstance(found, S3Backend)
    return found


@pytest.fixture
def place(backend: S3Backend, tmp_path: Path) -> S3Place:
    return backend.place(tmp_path / "binding")


@pytest.fixture
def memory(place: S3Place) -> Iterator[Memory]:
    with Memory.from_binding(place.binding) as opened:
        yield opened


@pytest.fixture
def admin(place: S3Place) -> Iterator[Any]:
    with place.home.document.rgw.client() as client:
        yield client


def bucket_of(memory: Memory) -> Bucket:
    store: Any = memory._store
    found: Bucket = store._lease.store._bucket
    return found


def names(admin: Any, place: S3Place, part: str) -> list[str]:
    answer = admin.list_objects_v2(Bucket=place.home.document.home, Prefix=f"{place.prefix}{part}/")
    return [each["Key"] for each in answer.get("Contents", [])]


def test_a_client_with_another_memorys_prefix_is_denied(backend: S3Backend, place: S3Place, tmp_path: Path) -> None:
    other = backend.place(tmp_path / "other", embeddings=False)
    with Memory.from_binding(other.binding) as owner:
        owner.kv.put("mood", "theirs")
    place.bind(schema=other.prefix)
    with Memory.from_binding(place.binding) as memory:
        calls: tuple[Callable[[], object], ...] = (
            lambda: memory.capabilities,
            lambda: memory.kv.get("mood"),
            lambda: memory.kv.put("mood", "mine"),
            lambda: memory.kv.delete("mood"),
            memory.events.read,
            lambda: memory.events.append("message", 1),
            lambda: memory.events.append("message", 1, event_id="1"),
            memory.status,
        )
        for call in calls:
            with pytest.raises(AccessDenied, match=place.home.document.name("rw_a")):
                call()


def test_a_reader_reads_and_writes_nothing(place: S3Place, memory: Memory) -> None:
    memory.kv.put("mood", "curious")
    memory.embeddings.upsert("key", [1, 0, 0], content="word")
    place.bind("ro_a")
    with Memory.from_binding(place.binding) as reader:
        assert reader.kv.get("mood") == memory.kv.get("mood")
        assert reader.kv.get("none") is None
        assert reader.embeddings.search([1, 0, 0], query="word") == memory.embeddings.search([1, 0, 0], query="word")
        for call in (
            lambda: reader.kv.put("mood", "calm"),
            lambda: reader.kv.put("new", "calm"),
            lambda: reader.events.append("message", 1),
            lambda: reader.embeddings.upsert("key", [0, 1, 0]),
            lambda: reader.embeddings.delete("key"),
        ):
            with pytest.raises(AccessDenied):
                call()


def test_nothing_is_taken_from_the_environment(place: S3Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[default]\nregion = nowhere\nendpoint_url = http://127.0.0.1:9\ns3 =\n  use_dualstack_endpoint = true\n"
    )
    for name, value in {
        "AWS_PROFILE": "none-such",
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(config),
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "else",
        "AWS_SESSION_TOKEN": "token",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": "nowhere",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_CA_BUNDLE": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    with Memory.from_binding(place.binding) as memory:
        assert memory.kv.put("mood", "curious") == 1


def test_a_wrong_secret_key_is_denied(place: S3Place) -> None:
    place.bind(password="wrong")
    with Memory.from_binding(place.binding) as memory, pytest.raises(AccessDenied, match="SignatureDoesNotMatch"):
        memory.kv.get("mood")


def test_a_prefix_or_a_bucket_that_is_not_there_says_so(place: S3Place, memory: Memory) -> None:
    place.describe(contract=2)
    with pytest.raises(BindingError, match="contract 2, and this client knows contract 1"):
        memory.status()
    place.bind(schema=f"{place.prefix}deeper/")
    with Memory.from_binding(place.binding) as lost, pytest.raises(BindingError, match="no Memory"):
        lost.status()
    place.bind(database="no-such-bucket")
    with Memory.from_binding(place.binding) as lost, pytest.raises((BindingError, AccessDenied), match="ucket"):
        lost.status()


def test_over_tls_the_server_must_be_the_bindings(place: S3Place, tmp_path: Path) -> None:
    with tls(place.home.document.rgw, tmp_path) as front:
        place.bind(**{"endpoint": front.endpoint, "ca.crt": front.ca.read_text()})
        with Memory.from_binding(place.binding) as memory:
            assert memory.kv.put("mood", "curious") == 1
        place.bind(endpoint=front.endpoint)
        with Memory.from_binding(place.binding) as memory, pytest.raises(Unavailable, match="certificate"):
            memory.kv.get("mood")


def test_every_object_carries_the_hash_of_its_body(place: S3Place, memory: Memory, admin: Any) -> None:
    memory.events.append("message", {"text": "größer"}, event_id="1")
    memory.kv.put("mood", "curious")
    memory.kv.delete("mood")
    memory.embeddings.upsert("key", [1, 0, 0])
    for part in ("events", "event-ids", "kv", "embeddings"):
        [name] = names(admin, place, part)
        found = admin.get_object(Bucket=place.home.document.home, Key=name)
        assert found["Metadata"]["sha256"] == hashlib.sha256(found["Body"].read()).hexdigest()


def test_an_event_whose_sender_died_before_it_was_written_is_stored_by_the_next(
    place: S3Place, memory: Memory, admin: Any
) -> None:
    first = memory.events.append("message", "first", event_id="1")
    [name] = names(admin, place, "events")
    admin.delete_object(Bucket=place.home.document.home, Key=name)
    again = memory.events.append("message", "again", event_id="1")
    assert (again.id, again.created_at) == (first.id, first.created_at)
    with Memory.from_binding(place.binding) as other:
        [event] = other.events.read()
    assert (event.id, event.payload) == (first.id, "again")


def test_an_event_that_retention_removed_stays_a_duplicate(
    place: S3Place, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.describe(ttlDays=7)
    with Memory.from_binding(place.binding) as memory:
        assert memory.status().ttl_days == 7
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: int((datetime.now(UTC).timestamp() - 8 * 86400) * 1e9))
            first = memory.events.append("message", "first", event_id="1")
        assert first.created_at < datetime.now(UTC) - timedelta(days=7)
        [name] = names(admin, place, "events")
        admin.delete_object(Bucket=place.home.document.home, Key=name)
        again = memory.events.append("message", "again", event_id="1")
        assert (again.duplicate, again.id, again.created_at) == (True, first.id, first.created_at)
        assert names(admin, place, "events") == []


def test_events_of_one_client_are_in_order_although_the_clock_stands_still(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now)
        for number in range(5):
            memory.events.append("message", number)
    assert [event.payload for event in memory.events.read()] == [4, 3, 2, 1, 0]


def test_a_listing_goes_on_over_pages(memory: Memory, place: S3Place) -> None:
    listed = [each for page in bucket_of(memory).names(f"{place.prefix}events/", page=2) for each in page]
    assert listed == []
    for number in range(5):
        memory.events.append("message", number)
    pages = list(bucket_of(memory).names(f"{place.prefix}events/", page=2))
    assert [len(page) for page in pages] == [2, 2, 1]
    assert len({each.name for page in pages for each in page}) == 5


def test_names_of_keys_are_no_others(memory: Memory) -> None:
    long = "ü" * 400
    cut = layout.encoded(long)
    for key in (long, cut, "~", "%7E", "a~b", ".", "%2E", "..", "a/b", "a%2Fb"):
        memory.kv.put(key, key)
    for key in (long, cut, "~", "%7E", "a~b", ".", "%2E", "..", "a/b", "a%2Fb"):
        value = memory.kv.get(key)
        assert value is not None
        assert (value.value, value.version) == (key, 1)


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_distances_are_those_of_pgvector(place: S3Place, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place.describe(metric=metric)
    stored: dict[str, list[float]] = {"a": [1, 2, 2], "b": [-3, 0, 4], "c": [0.5, 0.25, -1]}
    query = [2, -1, 2]
    # SELECT '[2,-1,2]' <=> v, <-> v, <#> v FROM (VALUES …) v, with pgvector 0.8.
    expected = {
        "cosine": {"a": 0.5555555555555556, "b": 0.8666666666666667, "c": 1.3636964837266540},
        "l2": {"a": 3.1622776601683795, "b": 5.477225575051661, "c": 3.579455265819088},
        "ip": {"a": -4.0, "b": -2.0, "c": 1.25},
    }[metric]
    with Memory.from_binding(place.binding) as memory:
        assert memory.capabilities.metrics == {metric}
        memory.embeddings.upsert(Embedding(key, vector) for key, vector in stored.items())
        hits = memory.embeddings.search(query)
        assert {hit.key: hit.distance for hit in hits} == pytest.approx(expected, abs=1e-6)
        assert [hit.key for hit in hits] == sorted(expected, key=lambda key: expected[key])
        # The same without numpy.
        monkeypatch.setattr(vectors, "np", None)
        plain = memory.embeddings.search(query)
        assert {hit.key: hit.distance for hit in plain} == pytest.approx(expected, abs=1e-6)
        if metric != "cosine":
            memory.embeddings.upsert("zero", [0, 0, 0])
            assert len(memory.embeddings.search(query)) == 4


def test_many_vectors_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(3).normal(size=(10, 4)).astype("<f4")
    packed = [row.tobytes() for row in rows]
    whole = distances_of(packed[0], packed, "l2")
    monkeypatch.setattr(vectors, "ROWS", 3)
    assert distances_of(packed[0], packed, "l2") == whole
    assert whole[0] == 0


def test_a_search_reads_what_it_has_read_no_second_time(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.embeddings.upsert(Embedding(f"key-{n}", [1, n, 0]) for n in range(5))
    bucket = bucket_of(memory)
    read: list[str] = []
    get = bucket.get

    def counted(name: str, version: str | None = None) -> Any:
        read.append(name)
        return get(name, version)

    monkeypatch.setattr(bucket, "get", counted)
    memory.embeddings.search([1, 0, 0])
    assert len(read) == 5
    memory.embeddings.search([1, 0, 0])
    memory.embeddings.upsert("key-3", [0, 0, 1])
    assert memory.embeddings.search([0, 0, 1], limit=1)[0].key == "key-3"
    assert len(read) == 6
    memory.embeddings.delete("key-3")
    assert len(memory.embeddings.search([1, 0, 0])) == 4
    assert len(read) == 6


def test_embeddings_of_another_dimension_than_the_claims_are_passed_by(place: S3Place, memory: Memory) -> None:
    memory.embeddings.upsert("old", [1, 0, 0])
    with pytest.raises(DimensionMismatch):
        memory.embeddings.upsert("new", [1, 0, 0, 0])
    place.describe(dimension=4)
    assert memory.embeddings.upsert("new", [1, 0, 0, 0]) == 1
    assert [hit.key for hit in memory.embeddings.search([1, 0, 0, 0])] == ["new"]


def test_without_versions_a_held_memory_takes_no_events(place: S3Place, memory: Memory) -> None:
    assert memory.capabilities.appends_on_hold is False
    place.hold(held=True)
    try:
        with pytest.raises(OnHold, match="legal hold"):
            memory.events.append("message", 1)
    finally:
        place.hold(held=False)


class TestLocked:
    """In a bucket with versions and locks, where Ceph takes no conditions on a PUT."""

    @pytest.fixture
    def backend(self, backends: Callable[[str, Machine], Backend], machine: Machine) -> S3Backend:
        found = backends("s3-locked", machine)
        assert isinstance(found, S3Backend)
        return found

    @pytest.fixture
    def register(self, memory: Memory) -> Register:
        return Register(bucket_of(memory), lambda: False, lambda: False)

    @pytest.fixture
    def name(self, place: S3Place) -> str:
        return f"{place.prefix}kv/turn.json"

    def test_objects_are_written_on_hold(self, place: S3Place, memory: Memory, admin: Any) -> None:
        place.hold(held=True)
        try:
            assert memory.status().on_hold
            assert memory.capabilities.appends_on_hold
            memory.events.append("message", 1)
            [name] = names(admin, place, "events")
            held = admin.get_object_legal_hold(Bucket=place.home.document.home, Key=name)
            assert held["LegalHold"]["Status"] == "ON"
            memory.embeddings.upsert("new", [1, 0, 0])
            with pytest.raises(OnHold):
                memory.embeddings.upsert("new", [0, 1, 0])
        finally:
            place.hold(held=False)

    def test_a_counter_of_many_writers_loses_nothing(self, memory: Memory) -> None:
        def count(_: int) -> None:
            for _ in range(3):
                while True:
                    value = memory.kv.get("counter")
                    before, version = (value.value, value.version) if value else (0, 0)
                    with contextlib.suppress(VersionConflict):
                        memory.kv.put("counter", before + 1, expected_version=version)
                        break

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, range(4)))
        value = memory.kv.get("counter")
        assert value is not None
        assert (value.value, value.version) == (12, 12)

    def test_who_comes_later_on_the_same_base_loses(self, register: Register, name: str, memory: Memory) -> None:
        assert register.write(name, b"1", None)
        base = register.read(name)
        assert base is not None
        assert register.write(name, b"2", base)
        assert not register.write(name, b"late", base)
        assert not register.write(name, b"first", None)
        # What a plain GET gives has been put right.
        found = bucket_of(memory).get(name)
        assert found is not None
        assert found.body == b"2"
        now = register.read(name)
        assert now is not None
        assert now.body == b"2"
        assert register.write(name, b"3", now)

    def test_what_a_loser_left_behind_when_it_died_counts_for_nothing(
        self, register: Register, name: str, memory: Memory
    ) -> None:
        bucket = bucket_of(memory)
        assert register.write(name, b"1", None)
        base = register.read(name)
        assert base is not None
        assert register.write(name, b"2", base)
        bucket.put(name, b"of one who died", held=False, base=base.tag)
        fresh = Register(bucket, lambda: False, lambda: False)
        found = fresh.read(name)
        assert found is not None
        assert found.body == b"2"
        assert fresh.write(name, b"3", found)
        found = fresh.read(name)
        assert found is not None
        assert found.body == b"3"

    def test_after_a_deletion_it_begins_anew(self, register: Register, name: str, memory: Memory) -> None:
        assert register.write(name, b"1", None)
        bucket_of(memory).delete(name)
        assert register.read(name) is None
        assert register.write(name, b"2", None)
        found = register.read(name)
        assert found is not None
        assert found.body == b"2"
        assert bucket_of(memory).metadata(name, "no-such-version") is None

    def test_what_was_written_without_a_base_counts(self, register: Register, name: str, memory: Memory) -> None:
        bucket_of(memory).put(name, b"1", held=False)
        found = register.read(name)
        assert found is not None
        assert register.write(name, b"2", found)


def test_a_lost_answer_is_found_out_by_another_look(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PUT was done, and the connection broke before its answer came."""
    bucket = bucket_of(memory)
    put_if = bucket.put_if

    def lost(*arguments: Any, **named: Any) -> bool:
        put_if(*arguments, **named)
        return False

    monkeypatch.setattr(bucket, "put_if", lost)
    assert memory.kv.put("mood", "curious", expected_version=0) == 1
    assert memory.kv.put("mood", "calm", expected_version=1) == 2
    assert not memory.events.append("message", 1, event_id="1").duplicate
    assert memory.events.append("message", 1, event_id="1").duplicate


def test_the_vector_is_as_the_layout_says(place: S3Place, memory: Memory, admin: Any) -> None:
    memory.embeddings.upsert("key", [1.5, -2, 0], metadata={"a": 1}, ttl=3600)
    [name] = names(admin, place, "embeddings")
    said = json.loads(admin.get_object(Bucket=place.home.document.home, Key=name)["Body"].read())
    assert np.frombuffer(base64.b64decode(said["vector"]), "<f4").tolist() == [1.5, -2, 0]
    lives = datetime.fromisoformat(said["expiresAt"]) - datetime.fromisoformat(said["updatedAt"])
    assert lives == timedelta(hours=1)


def test_threads_share_one_client(memory: Memory) -> None:
    barrier = threading.Barrier(6)

    def use(number: int) -> int:
        barrier.wait(20)
        return memory.kv.put(f"key-{number}", number)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(use, range(6))) == [1] * 6
