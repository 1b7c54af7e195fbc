"""What every backend does alike: written against the public API and `capabilities` alone, and unchanged for each.

A backend gives the fixtures (tests/client/backends.py): `memory`, one client of an empty Memory; `memories`, which
opens more clients of the same; `place`, to hold it; `backend`, to stop and start its server.
"""

import asyncio
import itertools
import threading
import time
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory_client import (
    AsyncMemory,
    DimensionMismatch,
    Embedding,
    Memory,
    OnHold,
    Unavailable,
    Unsupported,
    VersionConflict,
)
from tests.client.backends import Backend, Place

Memories = Callable[..., Memory]

KEYS = (
    "plain",
    "with blank",
    "a/b/../c//d/",
    "colon:and:more",
    "{braces}",
    "%2F percent",
    "*?[a-z]",
    "quote\"s and 'more' \\ back",
    "Größe",
    "鍵",
    "🗝️👩‍👩‍👧",
    ".",
    "..",
    "-",
    "line\nbreak\ttab",
    "x" * 1000,
    "ü" * 500,
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**53 + 1,
    0.1,
    "",
    'text with "quotes" and \\ and 🗝️ and \u2028',
    [],
    {},
    {"nested": [{"deep": [1, 2, {"er": None}]}], "": "empty key", "ключ": "значение"},
    "x" * 1_000_000,
)


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


@pytest.fixture
def embedding(memory: Memory) -> Memory:
    """A client of a Memory with embeddings; not asked for where the server has none, which is a test of its own."""
    assert memory.capabilities.embeddings
    return memory


class TestEvents:
    def test_what_is_appended_is_read_back_newest_first(self, memory: Memory) -> None:
        before = datetime.now(UTC) - timedelta(seconds=60)
        appended = [memory.events.append("message", {"number": number}) for number in range(5)]
        events = memory.events.read()
        assert [event.payload for event in events] == [{"number": number} for number in reversed(range(5))]
        assert [event.id for event in events] == [one.id for one in reversed(appended)]
        assert [event.created_at for event in events] == [one.created_at for one in reversed(appended)]
        assert {event.type for event in events} == {"message"}
        assert not any(one.duplicate for one in appended)
        assert all(before < one.created_at < before + timedelta(seconds=180) for one in appended)
        assert all(one.created_at.tzinfo is UTC for one in appended)

    def test_an_event_that_is_sent_again_is_not_stored_again(self, memory: Memory) -> None:
        first = memory.events.append("message", {"try": 1}, event_id="17", source="queue")
        again = memory.events.append("message", {"try": 2}, event_id="17", source="queue")
        assert (again.id, again.created_at, again.duplicate) == (first.id, first.created_at, True)
        assert [event.payload for event in memory.events.read()] == [{"try": 1}]

    def test_event_ids_are_a_sources_own(self, memory: Memory) -> None:
        for source in ("", "a", "b"):
            assert not memory.events.append("message", source, event_id="17", source=source).duplicate
        # Not to be confused by how the two are put together.
        assert not memory.events.append("message", "ab", event_id="b7", source="a").duplicate
        assert not memory.events.append("message", "ba", event_id="7", source="ab").duplicate
        assert len(memory.events.read()) == 5

    def test_of_many_who_send_the_same_event_one_stores_it(self, memories: Memories) -> None:
        memory = memories(connections=8)
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda n: memory.events.append("message", n, event_id="same"), range(8)))
        assert sum(not one.duplicate for one in done) == 1
        assert len({one.id for one in done}) == 1
        assert len(memory.events.read()) == 1

    def test_pages_neither_repeat_nor_miss(self, memory: Memory) -> None:
        for number in range(25):
            memory.events.append("message", number)
        pages: list[list[Any]] = []
        before = None
        while page := memory.events.read(10, before=before):
            pages.append([event.payload for event in page])
            before = page[-1].cursor
            memory.events.append("message", "newer, so on no later page")
        assert pages == [list(range(24, 14, -1)), list(range(14, 4, -1)), list(range(4, -1, -1))]

    def test_reads_filter_by_type_page_by_page(self, memory: Memory) -> None:
        for number in range(12):
            memory.events.append("odd" if number % 2 else "even", number)
        first = memory.events.read(4, event_type="odd")
        second = memory.events.read(4, event_type="odd", before=first[-1].cursor)
        assert [event.payload for event in (*first, *second)] == [11, 9, 7, 5, 3, 1]
        assert memory.events.read(event_type="none") == []

    def test_all_can_be_gone_through(self, memory: Memory) -> None:
        for number in range(7):
            memory.events.append("message", number)
        assert [event.payload for event in memory.events.iterate(page=3)] == list(reversed(range(7)))
        assert len(list(memory.events.iterate(page=7))) == 7
        assert list(memory.events.iterate(event_type="none")) == []
        some = itertools.islice(memory.events.iterate(event_type="message", page=2), 3)
        assert [event.payload for event in some] == [6, 5, 4]

    def test_a_payload_comes_back_as_it_was(self, memory: Memory) -> None:
        for payload in VALUES:
            memory.events.append("message", payload)
        assert [event.payload for event in memory.events.read()] == list(reversed(VALUES))

    def test_many_append_at_once_and_nothing_is_lost(self, memories: Memories) -> None:
        memory = memories(connections=4)

        def write(writer: int) -> None:
            for number in range(25):
                memory.events.append(f"writer-{writer}", number)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        for writer in range(8):
            events = memory.events.read(100, event_type=f"writer-{writer}")
            assert [event.payload for event in events] == list(reversed(range(25)))


class TestKeyValues:
    def test_versions_count_writes(self, memory: Memory) -> None:
        assert memory.kv.get("mood") is None
        assert memory.kv.put("mood", "curious") == 1
        assert memory.kv.put("mood", "calm") == 2
        value = memory.kv.get("mood")
        assert value is not None
        assert (value.value, value.version) == ("calm", 2)
        assert abs(value.updated_at - datetime.now(UTC)) < timedelta(seconds=60)

    def test_zero_means_that_the_key_must_not_exist(self, memory: Memory) -> None:
        assert memory.kv.put("mood", "curious", expected_version=0) == 1
        with pytest.raises(VersionConflict) as conflict:
            memory.kv.put("mood", "calm", expected_version=0)
        assert (conflict.value.key, conflict.value.expected, conflict.value.stored) == ("mood", 0, 1)

    def test_a_conflict_says_which_version_there_is(self, memory: Memory) -> None:
        for mood in ("curious", "calm", "bored"):
            memory.kv.put("mood", mood)
        for expected in (1, 2, 4):
            with pytest.raises(VersionConflict) as conflict:
                memory.kv.put("mood", "glad", expected_version=expected)
            assert (conflict.value.expected, conflict.value.stored) == (expected, 3)
        assert memory.kv.put("mood", "glad", expected_version=3) == 4
        with pytest.raises(VersionConflict) as conflict:
            memory.kv.put("none", "glad", expected_version=3)
        assert conflict.value.stored == 0

    def test_of_those_who_expect_the_same_version_one_wins(self, memories: Memories) -> None:
        memory = memories(connections=8)
        for expected in range(5):
            barrier = threading.Barrier(8)

            def put(number: int, expected: int = expected, barrier: threading.Barrier = barrier) -> int | None:
                barrier.wait(timeout=20)
                try:
                    return memory.kv.put("turn", number, expected_version=expected)
                except VersionConflict:
                    return None

            with ThreadPoolExecutor(8) as pool:
                versions = list(pool.map(put, range(8)))
            assert [version for version in versions if version] == [expected + 1]
            value = memory.kv.get("turn")
            assert value is not None
            assert versions[value.value] == expected + 1

    def test_what_is_deleted_is_gone_and_deleting_it_again_does_no_harm(self, memory: Memory) -> None:
        memory.kv.put("mood", "curious")
        assert memory.kv.delete("mood") is True
        assert memory.kv.get("mood") is None
        assert memory.kv.delete("mood") is False
        assert memory.kv.delete("mood", expected_version=1) is False
        assert memory.kv.put("mood", "back", expected_version=0) > 0
        value = memory.kv.get("mood")
        assert value is not None
        assert value.value == "back"

    def test_a_delete_minds_the_version(self, memory: Memory) -> None:
        memory.kv.put("mood", "curious")
        memory.kv.put("mood", "calm")
        with pytest.raises(VersionConflict) as conflict:
            memory.kv.delete("mood", expected_version=1)
        assert (conflict.value.expected, conflict.value.stored) == (1, 2)
        assert memory.kv.delete("mood", expected_version=2) is True

    def test_a_value_is_there_until_its_time_has_come(self, memory: Memory) -> None:
        memory.kv.put("mood", "brief", ttl=0.4)
        memory.kv.put("other", "long", ttl=timedelta(hours=1))
        value = memory.kv.get("mood")
        assert value is not None
        assert value.value == "brief"
        until(lambda: memory.kv.get("mood") is None)
        assert memory.kv.get("other") is not None
        assert memory.kv.delete("mood") is False
        assert memory.kv.put("mood", "anew", expected_version=0) > 0

    def test_who_knew_an_expired_value_does_not_take_a_new_one_for_it(self, memory: Memory) -> None:
        known = memory.kv.put("mood", "brief", ttl=0.2)
        until(lambda: memory.kv.get("mood") is None)
        assert memory.kv.put("mood", "new") > known
        with pytest.raises(VersionConflict):
            memory.kv.put("mood", "mine", expected_version=known)

    def test_a_write_without_a_ttl_stays(self, memory: Memory) -> None:
        memory.kv.put("mood", "brief", ttl=0.2)
        memory.kv.put("mood", "for good")
        until(_after(0.4))
        assert memory.kv.get("mood") is not None

    def test_any_key_will_do(self, memory: Memory) -> None:
        for key in KEYS:
            assert memory.kv.put(key, {"key": key}, expected_version=0) == 1, key
        for key in KEYS:
            value = memory.kv.get(key)
            assert value is not None
            assert value.value == {"key": key}
        for left, key in enumerate(KEYS[::-1], 1 - len(KEYS)):
            assert memory.kv.delete(key), key
            assert memory.kv.get(key) is None
            assert memory.status().keys == -left

    def test_a_value_comes_back_as_it_was(self, memory: Memory) -> None:
        for value in VALUES:
            memory.kv.put("key", value)
            found = memory.kv.get("key")
            assert found is not None
            assert found.value == value
            assert type(found.value) is type(value)


def _after(seconds: float) -> Callable[[], bool]:
    due = time.monotonic() + seconds
    return lambda: time.monotonic() >= due


class TestEmbeddings:
    def test_the_nearest_comes_first(self, embedding: Memory) -> None:
        for key, vector in (("east", [1, 0, 0]), ("north", [0, 1, 0]), ("north-east", [1, 1, 0]), ("up", [0, 0, 2])):
            assert embedding.embeddings.upsert(key, vector, content=f"to the {key}") == 1
        hits = embedding.embeddings.search([1, 0.2, 0], limit=3)
        assert [hit.key for hit in hits] == ["east", "north-east", "north"]
        assert [hit.content for hit in hits] == ["to the east", "to the north-east", "to the north"]
        distances = [hit.distance for hit in hits]
        cosines = [1 / 1.04**0.5, 1.2 / (2**0.5 * 1.04**0.5), 0.2 / 1.04**0.5]
        assert distances == pytest.approx([1 - cosine for cosine in cosines], abs=2e-3)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    def test_a_vector_may_be_an_array_or_a_sequence(self, embedding: Memory) -> None:
        arrays = [np.array([0.25, 0.5, 0.75], dtype=kind) for kind in (np.float16, np.float32, np.float64, ">f8")]
        strided = np.array([[0.25, 9, 0.5, 9, 0.75, 9]])[0, ::2]
        numbers = [0.25, 0.5, 0.75]
        vectors: list[Any] = [numbers, tuple(numbers), array("f", numbers), *arrays, strided]
        for vector in vectors:
            embedding.embeddings.upsert("key", vector)
            for query in (vector, [0.5, 1.0, 1.5]):
                [hit] = embedding.embeddings.search(query)
                assert hit.distance == pytest.approx(0, abs=1e-3)
        embedding.embeddings.upsert("whole numbers", np.array([1, 2, 3]))
        assert len(embedding.embeddings.search(np.array([1, 2, 3]))) == 2

    def test_an_upsert_takes_the_place_of_its_key_and_chunk(self, embedding: Memory) -> None:
        embedding.embeddings.upsert("key", [1, 0, 0], content="old", metadata={"a": 1})
        embedding.embeddings.upsert("key", [0, 1, 0], content="other chunk", chunk=1)
        embedding.embeddings.upsert("key", [0, 0, 1], content="new", metadata={"b": 2})
        hits = embedding.embeddings.search([0, 0, 1])
        assert [(hit.key, hit.chunk, hit.content, hit.metadata) for hit in hits] == [
            ("key", 0, "new", {"b": 2}),
            ("key", 1, "other chunk", {}),
        ]
        assert embedding.embeddings.search([0, 0, 1], query="old") == embedding.embeddings.search([0, 0, 1])

    def test_a_key_is_deleted_with_all_its_chunks(self, embedding: Memory) -> None:
        embedding.embeddings.upsert(Embedding("key", [1, chunk, 0], chunk=chunk) for chunk in range(3))
        embedding.embeddings.upsert("other", [1, 1, 1])
        assert embedding.embeddings.delete("key") == 3
        assert [hit.key for hit in embedding.embeddings.search([1, 0, 0])] == ["other"]
        assert embedding.embeddings.delete("key") == 0

    def test_many_are_stored_at_once(self, embedding: Memory) -> None:
        count = 300
        numbers = iter(range(count))
        many = (Embedding(f"key-{n}", [1.0, n / 100, 0.5], f"text {n}", {"n": n}, chunk=n % 3) for n in numbers)
        assert embedding.embeddings.upsert(many) == count
        assert embedding.status().embeddings == count
        hits = embedding.embeddings.search([1.0, 1.5, 0.5], where={"n": 150})
        assert [(hit.key, hit.chunk, hit.content, hit.metadata) for hit in hits] == [
            ("key-150", 0, "text 150", {"n": 150})
        ]
        again = [
            Embedding(f"key-{n}", [0.5, 1.0, 1.0], f"new {n}", {"n": n}, chunk=n % 3) for n in range(100, count + 50)
        ]
        assert embedding.embeddings.upsert(again) == count - 50
        assert embedding.status().embeddings == count + 50
        for number, text in ((99, "text 99"), (100, "new 100"), (299, "new 299"), (349, "new 349")):
            [hit] = embedding.embeddings.search([1, 1, 1], where={"n": number})
            assert hit.content == text

    def test_of_one_key_that_is_given_twice_the_last_counts(self, embedding: Memory) -> None:
        embedding.embeddings.upsert([Embedding("key", [1, 0, 0], "first"), Embedding("key", [1, 0, 0], "last")])
        assert [hit.content for hit in embedding.embeddings.search([1, 0, 0])] == ["last"]

    def test_nothing_to_store_is_no_error(self, embedding: Memory) -> None:
        assert embedding.embeddings.upsert([]) == 0

    def test_search_by_words(self, embedding: Memory) -> None:
        texts = {
            "tea": "Anna likes green tea",
            "trip": "The trip to Oslo is in May",
            "may": "may I have more tea, Anna",
        }
        embedding.embeddings.upsert(Embedding(key, [1, 1, 1], text) for key, text in texts.items())
        found = {
            words: {hit.key for hit in embedding.embeddings.search(query=words)}
            for words in ("tea", "Oslo", '"green tea"', "oslo or green", "tea -green", "nothing", "anna more")
        }
        assert found == {
            "tea": {"tea", "may"},
            "Oslo": {"trip"},
            '"green tea"': {"tea"},
            "oslo or green": {"trip", "tea"},
            "tea -green": {"may"},
            "nothing": set(),
            "anna more": {"may"},
        }
        assert all(hit.distance is None for hit in embedding.embeddings.search(query="tea"))

    def test_search_by_both_puts_first_what_is_good_in_both(self, embedding: Memory) -> None:
        embedding.embeddings.upsert("near", [1, 0, 0], content="nothing of that")
        embedding.embeddings.upsert("both", [1, 0.1, 0], content="green tea")
        embedding.embeddings.upsert("words", [0, 0, 1], content="green tea is what this long text is about, too")
        hits = embedding.embeddings.search([1, 0, 0], query="green tea")
        assert hits[0].key == "both"
        assert {hit.key for hit in hits} == {"near", "both", "words"}
        assert all(hit.distance is not None for hit in hits)
        # Reciprocal rank fusion: 1 / (60 + rank) for each list.
        assert hits[0].score == pytest.approx(1 / 61 + 1 / 62, abs=1 / 61 - 1 / 63)

    def test_where_is_containment(self, embedding: Memory) -> None:
        embedding.embeddings.upsert(
            "a", [1, 0, 0], content="word", metadata={"who": "anna", "tags": ["x", "y"], "n": 1}
        )
        embedding.embeddings.upsert(
            "b", [0, 1, 0], content="word", metadata={"tags": ["x"], "deep": {"er": 1, "more": 2}, "n": 1.0}
        )
        embedding.embeddings.upsert("c", [0, 0, 1], content="word", metadata={"who": None, "tags": [], "n": 3})
        expected: list[tuple[dict[str, Any], set[str]]] = [
            ({}, {"a", "b", "c"}),
            ({"who": "anna"}, {"a"}),
            ({"tags": ["x"]}, {"a", "b"}),
            ({"tags": ["y", "x"]}, {"a"}),
            (
                {"tags": "x"},
                set(),
            ),  # PostgreSQL finds a bare value in an array at the top only, where metadata has none
            ({"deep": {"er": 1}}, {"b"}),
            ({"who": None}, {"c"}),
            ({"n": 1}, {"a", "b"}),
            ({"who": "anna", "n": 2}, set()),
            ({"n": True}, set()),
        ]
        for where, keys in expected:
            by_vector = embedding.embeddings.search([1, 1, 1], where=where)
            by_words = embedding.embeddings.search(query="word", where=where)
            by_both = embedding.embeddings.search([1, 1, 1], query="word", where=where)
            assert [{hit.key for hit in hits} for hits in (by_vector, by_words, by_both)] == [keys] * 3, where

    def test_a_vector_of_another_length_is_refused_by_name(self, embedding: Memory) -> None:
        for vector in ([1.0, 0.0], [1.0, 0.0, 0.0, 0.0], np.ones(1536, dtype=np.float32)):
            with pytest.raises(DimensionMismatch) as mismatch:
                embedding.embeddings.upsert("key", vector)
            assert (mismatch.value.expected, mismatch.value.given) == (3, len(vector))
            with pytest.raises(DimensionMismatch):
                embedding.embeddings.search(vector)
            with pytest.raises(DimensionMismatch):
                embedding.embeddings.upsert([Embedding("a", [1, 0, 0]), Embedding("b", vector)])

    def test_a_vector_that_has_no_cosine_is_refused(self, embedding: Memory) -> None:
        for vector in ([0, 0, 0], [-0.0, 0.0, 0.0], [1, float("nan"), 1], [1, float("inf"), 1], [1, 1e39, 1]):
            with pytest.raises(ValueError, match="the vector"):
                embedding.embeddings.upsert("key", vector)
            with pytest.raises(ValueError, match="the vector"):
                embedding.embeddings.search(vector)

    def test_an_embedding_is_found_until_its_time_has_come(self, embedding: Memory) -> None:
        embedding.embeddings.upsert("brief", [1, 0, 0], content="word", ttl=0.4)
        embedding.embeddings.upsert(
            [Embedding("brief-too", [1, 0, 0], "word", ttl=0.4), Embedding("long", [1, 0, 0], "word")]
        )
        assert len(embedding.embeddings.search([1, 0, 0])) == 3
        until(lambda: [hit.key for hit in embedding.embeddings.search([1, 0, 0])] == ["long"])
        assert [hit.key for hit in embedding.embeddings.search(query="word")] == ["long"]

    def test_any_key_will_do(self, embedding: Memory) -> None:
        for number, key in enumerate(KEYS):
            embedding.embeddings.upsert([Embedding(key, [1, number, 0], key), Embedding(key, [0, 0, 1], chunk=10)])
        hits = embedding.embeddings.search([1, 0, 0], limit=100)
        assert [(hit.key, hit.content) for hit in hits[: len(KEYS)]] == [(key, key) for key in KEYS]
        for left, key in enumerate(KEYS[::-1], 1 - len(KEYS)):
            assert embedding.embeddings.delete(key) == 2, key
            assert len(embedding.embeddings.search([1, 0, 0], limit=100)) == -2 * left

    def test_a_memory_without_them_says_so(self, backend: Backend, tmp_path: Path) -> None:
        with Memory.from_binding(backend.place(tmp_path / "without", embeddings=False).binding) as memory:
            there = memory.capabilities
            assert there.dimension is None
            assert (there.embeddings, there.vector_search, there.text_search, there.metrics) == (
                False, None, None, frozenset()
            )  # fmt: skip
            for call in (
                lambda: memory.embeddings.upsert("key", [1, 0, 0]),
                lambda: memory.embeddings.search([1, 0, 0]),
                lambda: memory.embeddings.search(query="word"),
                lambda: memory.embeddings.delete("key"),
            ):
                with pytest.raises(Unsupported, match="embeddings"):
                    call()
            assert memory.status().embeddings is None
            assert memory.kv.put("mood", "curious") == 1


class TestWhole:
    def test_capabilities_tell_of_the_backend(self, memory: Memory) -> None:
        there = memory.capabilities
        assert there.backend in ("postgresql", "redis", "s3")
        if there.embeddings:
            assert there.vector_search in ("exact", "indexed")
            assert "cosine" in there.metrics
            assert there.dimension == 3

    def test_status_counts(self, memory: Memory) -> None:
        empty = memory.status()
        assert (empty.events, empty.keys, empty.on_hold, empty.ttl_days) == (0, 0, False, 0)
        memory.events.append("message", 1)
        memory.events.append("message", 2)
        memory.kv.put("mood", "curious")
        memory.kv.put("brief", "gone", ttl=0.1)
        if memory.capabilities.embeddings:
            memory.embeddings.upsert(Embedding("key", [1, 0, 0], chunk=chunk) for chunk in range(3))
        until(lambda: memory.status().keys == 1)
        status = memory.status()
        assert (status.events, status.keys) == (2, 1)
        assert status.embeddings == (3 if memory.capabilities.embeddings else None)
        assert status.bytes is None or status.bytes > 0

    def test_several_clients_see_the_same(self, memories: Memories) -> None:
        one, other = memories(), memories()
        one.kv.put("mood", "curious")
        value = other.kv.get("mood")
        assert value is not None
        other.kv.put("mood", "calm", expected_version=value.version)
        with pytest.raises(VersionConflict):
            one.kv.put("mood", "bored", expected_version=value.version)

    def test_two_memories_see_nothing_of_each_other(self, memory: Memory, backend: Backend, tmp_path: Path) -> None:
        with Memory.from_binding(backend.place(tmp_path / "other").binding) as other:
            memory.kv.put("mood", "mine")
            memory.events.append("message", "mine", event_id="17")
            assert other.kv.get("mood") is None
            assert other.events.read() == []
            assert not other.events.append("message", "theirs", event_id="17").duplicate
            if memory.capabilities.embeddings:
                memory.embeddings.upsert("key", [1, 0, 0])
                assert other.embeddings.search([1, 0, 0]) == []

    def test_a_legal_hold_keeps_what_there_is(self, memory: Memory, place: Place) -> None:
        there = memory.capabilities
        memory.events.append("message", "before")
        memory.kv.put("mood", "curious")
        if there.embeddings:
            memory.embeddings.upsert("key", [1, 0, 0], content="before")
        place.hold(held=True)
        until(lambda: memory.status().on_hold)
        with pytest.raises(OnHold):
            memory.kv.put("mood", "calm")
        with pytest.raises(OnHold):
            memory.kv.delete("mood")
        value = memory.kv.get("mood")
        assert value is not None
        assert value.value == "curious"
        if there.embeddings:
            with pytest.raises(OnHold):
                memory.embeddings.upsert("key", [0, 1, 0], content="after")
            with pytest.raises(OnHold):
                memory.embeddings.upsert([Embedding("new", [0, 1, 0]), Embedding("key", [0, 1, 0])])
            with pytest.raises(OnHold):
                memory.embeddings.delete("key")
            assert [hit.content for hit in memory.embeddings.search([1, 0, 0])] == ["before"]
        if there.appends_on_hold:
            memory.events.append("message", "while held")
        else:
            with pytest.raises(OnHold):
                memory.events.append("message", "while held")
        place.hold(held=False)
        until(lambda: not memory.status().on_hold)
        assert memory.kv.delete("mood") is True

    def test_a_server_that_is_away_is_unavailable_and_a_queue_keeps_writes_until_it_is_back(
        self, memories: Memories, backend: Backend, tmp_path: Path
    ) -> None:
        memory = memories(timeout=2)
        queued = memories(timeout=2, queue=tmp_path / "queue.db")
        memory.kv.put("mood", "curious")
        queued.events.append("message", "before")
        backend.stop()
        try:
            for call in (
                lambda: memory.kv.get("mood"),
                lambda: memory.events.append("message", 1),
                lambda: memories(timeout=2).status(),
            ):
                with pytest.raises(Unavailable):
                    call()
            assert [queued.events.append("message", number).queued for number in range(5)] == [True] * 5
            queued.kv.put("mood", "offline")
            assert queued.queue
            assert queued.queue.pending == 6
        finally:
            backend.start()
        value = memory.kv.get("mood")
        assert value is not None
        assert value.value in ("curious", "offline")
        queued.queue.flush()
        assert queued.queue.pending == 0
        assert [event.payload for event in memory.events.read()] == [4, 3, 2, 1, 0, "before"]
        value = memory.kv.get("mood")
        assert value is not None
        assert (value.value, value.version) == ("offline", 2)

    def test_more_calls_at_once_than_connections(self, memories: Memories) -> None:
        memory = memories(connections=2)
        with ThreadPoolExecutor(16) as pool:
            assert sorted(pool.map(lambda n: memory.kv.put(f"key-{n}", n), range(64))) == [1] * 64

    def test_bad_input_gets_a_sentence_before_anything_is_sent(self, memory: Memory) -> None:
        for call, said in (
            (lambda: memory.kv.put("", 1), "key is empty"),
            (lambda: memory.kv.put("x" * 1025, 1), "1025 bytes"),
            (lambda: memory.kv.put("a\0b", 1), "NUL"),
            (lambda: memory.kv.put("key", {"a": ["b\0"]}), "NUL"),
            (lambda: memory.kv.put("key", float("nan")), "[Oo]ut of range|JSON"),
            (lambda: memory.kv.put("key", "\ud800"), "surrogates"),
            (lambda: memory.kv.put("key", 1, ttl=0), "ttl is 0"),
            (lambda: memory.kv.put("key", 1, expected_version=-1), "expected_version is -1"),
            (lambda: memory.events.read(0), "limit is 0"),
            (lambda: memory.events.read(before="yesterday"), "yesterday"),
            (memory.embeddings.search, "nothing to search for"),
            (lambda: memory.embeddings.search(query="  "), "nothing to search for"),
            (lambda: memory.embeddings.upsert([Embedding("key", [1, 0, 0], chunk=-1)]), "chunk is -1"),
            (lambda: memory.embeddings.upsert([Embedding("key", [1, 0, 0], ttl=-1)]), "ttl is -1"),
        ):
            with pytest.raises(ValueError, match=said):
                call()
        anything: Any = memory
        with pytest.raises(TypeError, match="key is 17: give a str"):
            anything.kv.put(17, 1)
        with pytest.raises(TypeError, match="JSON"):
            memory.kv.put("key", {1, 2})
        with pytest.raises(TypeError, match='there is no vector for key "key"'):
            anything.embeddings.upsert("key")
        memory.kv.put("key", "a backslash, then u0000: \\u0000")
        assert memory.status().keys == 1

    def test_awaited_it_is_the_same(self, memory: Memory, place: Place) -> None:
        async def use() -> list[object]:
            async with AsyncMemory.from_binding(place.binding) as awaited:
                first = await awaited.events.append("message", 1, event_id="17", source="queue")
                await asyncio.gather(*(awaited.events.append("many", n) for n in range(20)))
                seen: list[object] = [
                    first.duplicate,
                    (await awaited.events.append("message", 1, event_id="17", source="queue")).duplicate,
                    [event.payload for event in await awaited.events.read(event_type="message")],
                    sorted([event.payload async for event in awaited.events.iterate(event_type="many", page=7)]),
                    await awaited.kv.put("mood", "curious", expected_version=0),
                    (await awaited.kv.get("mood")) == memory.kv.get("mood"),
                    await awaited.kv.delete("mood"),
                    await awaited.capabilities() == memory.capabilities,
                    await awaited.status() == memory.status(),
                ]
                with pytest.raises(VersionConflict):
                    await awaited.kv.put("mood", "calm", expected_version=7)
                if memory.capabilities.embeddings:
                    await awaited.embeddings.upsert("one", [1, 0, 0], content="tea")
                    await awaited.embeddings.upsert(Embedding(f"key-{n}", [0, 1, n]) for n in range(3))
                    hits = await awaited.embeddings.search([1, 0, 0], query="tea")
                    assert hits == memory.embeddings.search([1, 0, 0], query="tea")
                    assert await awaited.embeddings.delete("one") == 1
                return seen

        many = list(range(20))
        assert asyncio.run(use()) == [False, True, [1], many, 1, True, True, True, True]
