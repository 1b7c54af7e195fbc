"""The offline queue: what is written while the backend is away is done once, and in order."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory_client import (
    AccessDenied,
    AsyncMemory,
    Conflict,
    DimensionMismatch,
    Embedding,
    Memory,
    MemoryClientError,
    Merged,
    OfflineQueue,
    Unavailable,
    VersionConflict,
    binding,
)
from memory_client.journal import PROVISIONAL, Journal
from memory_client.queue import Resolution
from memory_client.stores.postgres import PostgresStore
from tests.client.backends import Backend, Machine, Place
from tests.client.conformance import until
from tests.client.line import Line
from tests.migrations.documents import ROOT


@pytest.fixture
def backend(backends: Callable[[str, Machine], Backend], machine: Machine) -> Backend:
    return backends("postgresql-18", machine)


@pytest.fixture
def other(memory: Memory) -> Memory:
    """Another app, which is online."""
    return memory


class Offline:
    """A Memory with a queue over a line that can be cut."""

    def __init__(self, place: Place, path: Path) -> None:
        self.place = place
        self.path = path
        self.stack = contextlib.ExitStack()
        self.line = Line(PostgresStore(binding.read(place.binding), timeout=5, connections=2))
        self.memory = self.open()

    def open(self, **options: Any) -> Memory:
        """Opens the file, as a process that is started anew."""
        queue = OfflineQueue(self.line, self.path, interval=None, **options)
        self.memory = self.stack.enter_context(Memory(queue))
        return self.memory

    @property
    def queue(self) -> OfflineQueue:
        assert self.memory.queue
        return self.memory.queue


@pytest.fixture
def offline(place: Place, tmp_path: Path) -> Iterator[Offline]:
    made = Offline(place, tmp_path / "queue.db")
    yield made
    made.line.away = True
    made.stack.close()


def settled(queue: OfflineQueue) -> int:
    sent = queue.flush()
    assert queue.pending == 0
    return sent


def test_while_the_backend_is_there_nothing_is_kept(offline: Offline) -> None:
    memory = offline.memory
    assert not memory.events.append("message", 1).queued
    assert memory.kv.put("mood", "curious", expected_version=0) == 1
    with pytest.raises(VersionConflict):
        memory.kv.put("mood", "calm", expected_version=0)
    assert memory.embeddings.upsert("key", [1, 0, 0]) == 1
    assert memory.embeddings.delete("key") == 1
    assert memory.kv.delete("mood") is True
    assert offline.queue.pending == 0
    assert offline.queue.flush() == 0
    assert memory.status().events == 1
    assert memory.capabilities.embeddings


def test_writes_of_every_kind_arrive_in_order(offline: Offline, other: Memory) -> None:
    offline.line.away = True
    memory = offline.memory
    kept = [memory.events.append("message", {"n": n}) for n in range(3)]
    assert all(one.queued and not one.duplicate for one in kept)
    assert len({one.id for one in kept}) == 3
    memory.kv.put("gone", 1)
    assert memory.kv.delete("gone") is True
    memory.kv.put("brief", 1, ttl=60)
    assert memory.embeddings.upsert("one", np.array([1, 0, 0]), content="tea", metadata={"a": 1}, ttl=60) == 1
    assert memory.embeddings.upsert(Embedding(f"key-{n}", [0, 1, n]) for n in range(700)) == 700
    assert memory.embeddings.delete("key-5") == 0
    memory.events.append("message", {"n": 3})
    assert offline.queue.pending == 11
    with pytest.raises(Unavailable):
        offline.queue.flush()
    assert offline.queue.pending == 11
    offline.line.away = False
    assert settled(offline.queue) == 11
    assert [event.payload["n"] for event in other.events.read()] == [3, 2, 1, 0]
    assert other.kv.get("gone") is None
    assert other.kv.get("brief") is not None
    assert other.status().embeddings == 700
    [hit] = other.embeddings.search([1, 0, 0], limit=1)
    assert (hit.key, hit.content, hit.metadata) == ("one", "tea", {"a": 1})


def test_what_is_kept_outlives_the_process(offline: Offline, other: Memory) -> None:
    offline.line.away = True
    offline.memory.events.append("message", "kept")
    offline.memory.close()
    offline.line = Line(PostgresStore(binding.read(offline.place.binding), timeout=5, connections=2))
    memory = offline.open()
    memory.events.append("message", "after")
    offline.queue.flush()
    assert [event.payload for event in other.events.read()] == ["after", "kept"]


def test_while_anything_is_kept_the_next_is_kept_behind_it(offline: Offline, other: Memory) -> None:
    offline.line.away = True
    offline.memory.events.append("message", 1)
    offline.line.away = False
    assert offline.memory.events.append("message", 2).queued
    assert settled(offline.queue) == 2
    assert [event.payload for event in other.events.read()] == [2, 1]


@pytest.mark.parametrize("event_id", ["17", None])
def test_an_event_whose_answer_was_lost_is_stored_once(offline: Offline, other: Memory, event_id: str | None) -> None:
    offline.line.lost = 1
    assert offline.memory.events.append("message", 1, event_id=event_id).queued
    assert [event.payload for event in other.events.read()] == [1]
    offline.line.lost = 1
    with contextlib.suppress(Unavailable):
        offline.queue.flush()
    settled(offline.queue)
    assert [event.payload for event in other.events.read()] == [1]


def test_an_event_that_is_kept_already_is_a_duplicate(offline: Offline, other: Memory) -> None:
    offline.line.away = True
    first = offline.memory.events.append("message", 1, event_id="17", source="a")
    again = offline.memory.events.append("message", 2, event_id="17", source="a")
    elsewhere = offline.memory.events.append("message", 3, event_id="17", source="b")
    assert [one.duplicate for one in (first, again, elsewhere)] == [False, True, False]
    offline.line.away = False
    assert settled(offline.queue) == 2
    assert [event.payload for event in other.events.read()] == [3, 1]


def test_a_value_whose_answer_was_lost_is_written_once(offline: Offline, other: Memory) -> None:
    other.kv.put("mood", "curious")
    for expected in (None, 2, 0):
        key = "new" if expected == 0 else "mood"
        offline.line.away = expected is None
        offline.line.lost = 1
        offline.memory.kv.put(key, f"made on {expected}", expected_version=expected)
        offline.line.away = False
        with contextlib.suppress(Unavailable):
            offline.queue.flush()
        settled(offline.queue)
    found = {key: other.kv.get(key) for key in ("mood", "new")}
    assert {key: (value.value, value.version) for key, value in found.items() if value} == {
        "mood": ("made on 2", 3),
        "new": ("made on 0", 1),
    }
    assert offline.queue.conflicts() == []


def test_values_that_follow_each_other_offline_do_so_online(offline: Offline, other: Memory) -> None:
    other.kv.put("mood", "curious")
    offline.line.away = True
    memory = offline.memory
    first = memory.kv.put("mood", "one")
    assert first >= PROVISIONAL
    value = memory.kv.get("mood")
    assert value is not None
    assert (value.value, value.version) == ("one", first)
    second = memory.kv.put("mood", "two", expected_version=first)
    third = memory.kv.put("mood", "three", expected_version=second)
    assert memory.kv.put("fresh", 1, expected_version=0) == 1
    assert memory.kv.put("fresh", 2, expected_version=1) == 2
    assert memory.kv.put("fresh", 3) == 3
    memory.kv.delete("mood", expected_version=third)
    assert memory.kv.get("mood") is None
    offline.line.away = False
    settled(offline.queue)
    assert offline.queue.conflicts() == []
    assert other.kv.get("mood") is None
    fresh = other.kv.get("fresh")
    assert fresh is not None
    assert (fresh.value, fresh.version) == (3, 3)


def test_a_value_that_expired_while_it_was_kept_is_not_read(offline: Offline, other: Memory) -> None:
    other.kv.put("mood", "old")
    offline.line.away = True
    offline.memory.kv.put("mood", "brief", ttl=0.1)
    offline.memory.embeddings.upsert("key", [1, 0, 0], ttl=0.1)
    until(lambda: offline.memory.kv.get("mood") is None)
    offline.line.away = False
    settled(offline.queue)
    until(lambda: other.kv.get("mood") is None)
    until(lambda: other.embeddings.search([1, 0, 0]) == [])


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_lost_the_end_is_as_if_nothing_had_been(offline: Offline, other: Memory, seed: int) -> None:
    """Any writes, with calls and answers that are lost, flushes that break off, and processes that are started anew."""
    chance = random.Random(seed)
    events: list[int] = []
    values: dict[str, int] = {}
    stored: set[str] = set()

    def append(number: int) -> None:
        offline.memory.events.append("message", number)
        events.append(number)

    def put(number: int) -> None:
        key = chance.choice("abc")
        offline.memory.kv.put(key, number // 3)
        values[key] = number // 3

    def compare_and_set(number: int) -> None:
        key = chance.choice("abc")
        there = offline.memory.kv.get(key)
        assert (there and there.value) == values.get(key)
        offline.memory.kv.put(key, number // 3, expected_version=there.version if there else 0)
        values[key] = number // 3

    def delete(_: int) -> None:
        key = chance.choice("abc")
        offline.memory.kv.delete(key)
        values.pop(key, None)

    def embed(number: int) -> None:
        offline.memory.embeddings.upsert(f"key-{number % 5}", [1, 0, number])
        stored.add(f"key-{number % 5}")

    def unembed(number: int) -> None:
        offline.memory.embeddings.delete(f"key-{number % 5}")
        stored.discard(f"key-{number % 5}")

    for number in range(60):
        offline.line.away = chance.random() < 0.3
        offline.line.lost = int(chance.random() < 0.3)
        act = chance.choice([append, append, put, compare_and_set, compare_and_set, delete, embed, unembed])
        with contextlib.suppress(Unavailable):  # a read that finds nobody
            act(number)
        if chance.random() < 0.2:
            offline.line.away = False
            offline.line.lost = chance.randint(0, 2)
            with contextlib.suppress(Unavailable):
                offline.queue.flush()
        if chance.random() < 0.05:
            offline.open()
    offline.line.away, offline.line.lost = False, 0
    settled(offline.queue)
    assert offline.queue.conflicts() == offline.queue.refused() == []
    assert [event.payload for event in other.events.iterate()] == events[::-1]
    found = {key: other.kv.get(key) for key in "abc"}
    assert {key: value.value for key, value in found.items() if value} == values
    assert {hit.key for hit in other.embeddings.search([1, 0, 0])} == stored


def test_others_may_write_at_the_very_moment(offline: Offline, other: Memory) -> None:
    other.kv.put("mood", "curious")
    offline.line.away = True
    offline.memory.kv.put("mood", "mine")
    offline.line.away = False
    offline.line.before = lambda: other.kv.put("mood", "theirs")
    settled(offline.queue)
    value = other.kv.get("mood")
    assert value is not None
    assert (value.value, value.version) == ("mine", 3)


class TestConflicts:
    @pytest.fixture
    def conflict(self, offline: Offline, other: Memory) -> Offline:
        """`mood` was changed offline, and by somebody else too."""
        other.kv.put("mood", "curious")
        offline.line.away = True
        offline.memory.kv.put("mood", "mine", expected_version=1)
        other.kv.put("mood", "theirs")
        return offline

    def test_without_a_resolver_both_values_are_kept_and_the_rest_goes_on(
        self, conflict: Offline, other: Memory
    ) -> None:
        conflict.memory.events.append("message", "behind")
        conflict.line.away = False
        settled(conflict.queue)
        [kept] = conflict.queue.conflicts()
        assert (kept.key, kept.mine, kept.theirs) == ("mood", "mine", "theirs")
        assert (kept.expected_version, kept.stored_version) == (1, 2)
        assert "made on version 1" in kept.reason
        assert [event.payload for event in other.events.read()] == ["behind"]
        value = other.kv.get("mood")
        assert value is not None
        assert value.value == "theirs"
        assert kept.stored_version is not None
        assert conflict.memory.kv.put("mood", "both", expected_version=kept.stored_version) == 3
        conflict.queue.forget(kept)
        assert conflict.queue.conflicts() == []

    @pytest.mark.parametrize(
        ("resolution", "stored"),
        [("theirs", ("theirs", 2)), ("mine", ("mine", 3)), (Merged(["mine", "theirs"]), (["mine", "theirs"], 3))],
        ids=["theirs", "mine", "merged"],
    )
    @pytest.mark.parametrize("lost", [0, 1])
    def test_a_resolver_decides(
        self, conflict: Offline, other: Memory, resolution: Resolution, stored: tuple[Any, int], lost: int
    ) -> None:
        asked: list[Conflict] = []

        def resolver(each: Conflict) -> Resolution:
            asked.append(each)
            return resolution

        conflict.queue._resolver = resolver
        conflict.line.away, conflict.line.lost = False, lost
        with contextlib.suppress(Unavailable):
            conflict.queue.flush()
        settled(conflict.queue)
        value = other.kv.get("mood")
        assert value is not None
        assert (value.value, value.version) == stored
        assert [(each.key, each.mine, each.theirs and each.theirs.value) for each in asked] == [
            ("mood", "mine", "theirs")
        ]
        assert (asked[0].expected_version, asked[0].deletes) == (1, False)
        assert conflict.queue.conflicts() == []
        assert conflict.memory.kv.put("mood", "and on", expected_version=stored[1]) == stored[1] + 1

    def test_one_that_follows_what_was_decided_is_no_conflict(self, conflict: Offline, other: Memory) -> None:
        conflict.memory.kv.put("mood", "mine too", expected_version=2)
        conflict.line.away = False
        conflict.queue._resolver = lambda _: "mine"
        settled(conflict.queue)
        value = other.kv.get("mood")
        assert value is not None
        assert (value.value, value.version) == ("mine too", 4)

    def test_a_key_that_was_deleted_meanwhile(self, conflict: Offline, other: Memory) -> None:
        other.kv.delete("mood")
        conflict.line.away = False
        settled(conflict.queue)
        [kept] = conflict.queue.conflicts()
        assert (kept.mine, kept.theirs, kept.stored_version) == ("mine", None, 0)

    def test_a_delete_minds_the_version(self, offline: Offline, other: Memory) -> None:
        other.kv.put("mood", "curious")
        for resolution, stored in (("theirs", "theirs"), (Merged("both"), "both"), ("mine", None)):
            seen = other.kv.get("mood")
            assert seen is not None
            offline.line.away = True
            offline.memory.kv.delete("mood", expected_version=seen.version)
            other.kv.put("mood", "theirs")
            offline.line.away = False
            offline.queue._resolver = lambda _, said=resolution: said
            settled(offline.queue)
            value = other.kv.get("mood")
            assert (value and value.value) == stored

    @pytest.mark.parametrize(
        ("resolver", "said"), [(lambda _: "ours", "the resolver said 'ours'"), (lambda _: 1 / 0, "division by zero")]
    )
    def test_a_resolver_that_fails_keeps_the_write(
        self, conflict: Offline, resolver: Callable[[Conflict], Any], said: str
    ) -> None:
        conflict.line.away = False
        conflict.queue._resolver = resolver
        with pytest.raises(MemoryClientError, match=said):
            conflict.queue.flush()
        assert conflict.queue.pending == 1


def test_what_the_backend_does_not_take_is_put_aside(offline: Offline, other: Memory) -> None:
    offline.line.away = True
    offline.memory.embeddings.upsert("key", [1, 0])
    offline.memory.events.append("message", "behind")
    offline.line.away = False
    settled(offline.queue)
    [kept] = offline.queue.refused()
    assert (kept.kind, kept.key) == ("upsert", "key")
    assert kept.reason.startswith(DimensionMismatch.__name__)
    assert kept.mine[0]["chunk"] == 0
    assert offline.queue.conflicts() == []
    assert [event.payload for event in other.events.read()] == ["behind"]
    offline.queue.forget(kept)
    assert offline.queue.refused() == []


def test_an_embedding_that_is_deleted_while_nobody_answers(offline: Offline, other: Memory) -> None:
    other.embeddings.upsert("key", [1, 0, 0])
    offline.line.away = True
    assert offline.memory.embeddings.delete("key") == 0
    offline.line.away = False
    settled(offline.queue)
    assert other.embeddings.search([1, 0, 0]) == []


@pytest.mark.parametrize("deletes", [False, True])
def test_a_key_that_others_write_to_all_the_time_stays_the_first(
    offline: Offline, other: Memory, deletes: bool
) -> None:
    version = other.kv.put("mood", "theirs")
    offline.queue._resolver = lambda _: "mine"
    offline.line.away = True
    if deletes:
        offline.memory.kv.delete("mood", expected_version=version)
    else:
        offline.memory.kv.put("mood", "mine")
    offline.memory.events.append("message", "behind")
    offline.line.away = False

    def meddle() -> None:
        other.kv.put("mood", "theirs")
        offline.line.before = meddle

    offline.line.before = meddle
    with pytest.raises(Unavailable, match="by others all the time"):
        offline.queue.flush()
    assert (offline.queue.pending, other.events.read()) == (2, [])
    offline.line.before = None
    settled(offline.queue)
    value = other.kv.get("mood")
    assert (value and value.value) == (None if deletes else "mine")
    assert [event.payload for event in other.events.read()] == ["behind"]


def test_who_finds_another_one_sending_waits_for_it(
    place: Place, tmp_path: Path, other: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(PostgresStore(binding.read(place.binding), timeout=5, connections=2))
    tries: list[bool] = []
    alone = Journal.alone

    def counted(journal: Journal, *, wait: bool = True) -> contextlib.AbstractContextManager[bool]:
        tries.append(wait)
        return alone(journal, wait=wait)

    monkeypatch.setattr(Journal, "alone", counted)
    with Memory(OfflineQueue(line, tmp_path / "queue.db", interval=0.01)) as memory:
        assert memory.queue
        line.away = True
        with memory.queue._journal.alone():
            memory.events.append("message", 1)
            line.away = False
            before = len(tries)
            until(lambda: len(tries) > before + 3)
            assert other.events.read() == []
        until(lambda: len(other.events.read()) == 1)


def test_a_file_that_cannot_be_written_to_is_the_callers_to_know(offline: Offline) -> None:
    offline.line.away = True
    offline.queue._journal._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError):
        offline.memory.events.append("message", 1)
    offline.queue._journal._connection.execute("PRAGMA query_only = OFF")
    assert offline.memory.events.append("message", 1).queued


def test_awaited_it_is_the_same(place: Place, tmp_path: Path) -> None:
    async def use() -> None:
        async with AsyncMemory.from_binding(place.binding, queue=tmp_path / "queue.db") as memory:
            await memory.events.append("message", 1)
            assert memory.queue
            assert memory.queue.pending == 0
        async with AsyncMemory.from_binding(place.binding) as memory:
            assert memory.queue is None

    asyncio.run(use())


def test_a_held_value_is_put_aside(offline: Offline, other: Memory, place: Place) -> None:
    other.kv.put("mood", "curious")
    offline.line.away = True
    offline.memory.kv.put("mood", "calm")
    place.hold(held=True)
    offline.line.away = False
    settled(offline.queue)
    assert [kept.reason.split(":")[0] for kept in offline.queue.refused()] == ["OnHold"]


def test_a_login_that_is_refused_keeps_the_writes(offline: Offline) -> None:
    offline.line.away = True
    offline.memory.events.append("message", 1)
    wrong = binding.read(offline.place.binding)
    offline.line.store.close()
    offline.line.store = PostgresStore(
        binding.Binding(**{**vars(wrong), "password": "wrong"}), timeout=5, connections=1
    )
    offline.line.away = False
    with pytest.raises(AccessDenied):
        offline.queue.flush()
    assert offline.queue.pending == 1


def test_the_queue_sends_by_itself(place: Place, tmp_path: Path, other: Memory) -> None:
    line = Line(PostgresStore(binding.read(place.binding), timeout=5, connections=2))
    with Memory(OfflineQueue(line, tmp_path / "queue.db", interval=0.02)) as memory:
        line.away = True
        for number in range(3):
            memory.events.append("message", number)
        assert other.events.read() == []
        line.away = False
        until(lambda: len(other.events.read()) == 3)
        assert memory.queue
        until(lambda: memory.queue is not None and memory.queue.pending == 0)
        assert not memory.events.append("message", "direct").queued


def test_a_resolver_that_fails_is_logged_and_asked_again(
    place: Place, tmp_path: Path, other: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    asked = threading.Semaphore(0)

    def resolver(_: Conflict) -> Resolution:
        asked.release()
        if len(caplog.records) < 2:
            msg = "not yet"
            raise OSError(msg)
        return "mine"

    line = Line(PostgresStore(binding.read(place.binding), timeout=5, connections=2))
    with Memory(OfflineQueue(line, tmp_path / "queue.db", interval=0.02, resolver=resolver)) as memory:
        line.away = True
        memory.kv.put("mood", "mine", expected_version=7)
        line.away = False
        until(lambda: other.kv.get("mood") is not None)
    assert "could not be done" in caplog.text


def test_two_processes_share_a_file(offline: Offline, other: Memory) -> None:
    """Each keeps behind what the other keeps, and one of them sends."""
    first, second = offline.memory, offline.open()
    offline.line.away = True
    for number in range(10):
        (first if number % 2 else second).events.append("message", number)
    offline.line.away = False
    assert first.queue
    assert second.queue
    threads = [threading.Thread(target=queue.flush) for queue in (first.queue, second.queue)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.payload for event in other.events.read()] == list(reversed(range(10)))


def test_the_file_is_written_through(offline: Offline) -> None:
    journal = offline.queue._journal._connection
    assert journal.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal.execute("PRAGMA synchronous").fetchone() == (2,)
    offline.line.away = True
    offline.memory.events.append("message", 1)
    with contextlib.closing(sqlite3.connect(offline.path)) as another:
        assert another.execute("SELECT count(*) FROM writes").fetchone() == (1,)


def start(place: Place, queue: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.client.writing", str(place.binding), str(queue), name, str(count)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "client"), "COVERAGE_PROCESS_START": ""}
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def write_and_kill(place: Place, backend: Backend, queue: Path, count: int, stretch: int) -> tuple[int, int]:
    """Two processes write; each is killed every so many writes and started again, and the server comes and goes.

    Returns:
        How often a process was killed, and how often the server stopped.
    """
    chance = random.Random()
    ended = threading.Event()
    kills: list[str] = []
    stops: list[float] = []

    def come_and_go() -> None:
        while not ended.is_set():
            backend.stop()
            stops.append(time.monotonic())
            ended.wait(chance.uniform(0.1, 1))
            backend.start()
            ended.wait(chance.uniform(0.1, 3))

    def write(name: str) -> None:
        process = start(place, queue, name, count)
        while process.poll() is None:
            due = written(queue, name) + chance.randint(1, stretch)
            until(lambda: process.poll() is not None or written(queue, name) >= due, seconds=60)  # noqa: B023
            time.sleep(chance.uniform(0, 0.003))  # at any moment of a write
            process.kill()
            if process.wait() == -signal.SIGKILL:
                kills.append(name)
                process = start(place, queue, name, count)
        assert process.returncode == 0

    switch = threading.Thread(target=come_and_go)
    with ThreadPoolExecutor(2) as pool:
        switch.start()
        list(pool.map(write, ("left", "right")))
        ended.set()
    switch.join()
    return len(kills), len(stops)


def written(queue: Path, name: str) -> int:
    """How far a process is."""
    progress = Path(f"{queue}.{name}")
    return int(progress.read_text() or 0) if progress.exists() else 0


def check(place: Place, queue: Path, count: int) -> None:
    with Memory.from_binding(place.binding, queue=queue) as memory:
        assert memory.queue
        memory.queue.flush()
        assert memory.queue.pending == 0
        assert memory.queue.conflicts() == memory.queue.refused() == []
        for name in ("left", "right"):
            numbers = [event.payload for event in memory.events.iterate(event_type=name)]
            assert numbers == list(reversed(range(count)))
            value = memory.kv.get(name)
            assert value is not None
            assert value.value == (count - 1) // 10 * 10
        assert memory.status().events == 2 * count


def test_each_event_is_stored_once_although_writers_are_killed(place: Place, backend: Backend, tmp_path: Path) -> None:
    kills, stops = write_and_kill(place, backend, tmp_path / "queue.db", 150, stretch=100)
    check(place, tmp_path / "queue.db", 150)
    assert kills >= 2
    assert stops >= 1


@pytest.mark.long
def test_ten_thousand_writes_although_writers_are_killed(place: Place, backend: Backend, tmp_path: Path) -> None:
    kills, stops = write_and_kill(place, backend, tmp_path / "queue.db", 5000, stretch=400)
    check(place, tmp_path / "queue.db", 5000)
    assert kills >= 2 * 5000 / 400
    assert stops > 3
    print(f"10000 writes, {kills} kills, {stops} stops of the server")
