"""What is particular to awaiting: calls run in threads, and a thread cannot be cancelled."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from memory_client import AsyncMemory, Embedding, Memory, VersionConflict, binding
from memory_client.stores.postgres import PostgresStore
from tests.client.backends import Backend, Machine, Place
from tests.client.line import Line


@pytest.fixture
def backend(backends: Callable[[str, Machine], Backend], machine: Machine) -> Backend:
    return backends("postgresql-18", machine)


@pytest.fixture
def line(place: Place) -> Iterator[Line]:
    with closing(PostgresStore(binding.read(place.binding), timeout=5, connections=2)) as store:
        yield Line(store)


def test_a_cancelled_call_goes_on_and_one_that_waited_is_not_done(line: Line) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert leave.wait(20)

    async def use() -> None:
        async with AsyncMemory(Memory(line), threads=1) as memory:
            line.before = hold
            under_way = asyncio.create_task(memory.kv.put("under way", 1))
            while not entered.is_set():
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(memory.kv.put("waiting", 1))
            await asyncio.sleep(0)
            for task in (waiting, under_way):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            leave.set()
            while await memory.kv.get("under way") is None:
                await asyncio.sleep(0.01)
            assert await memory.kv.get("waiting") is None

    asyncio.run(use())


def test_closing_waits_for_what_is_under_way(line: Line, memory: Memory) -> None:
    async def use() -> None:
        async with AsyncMemory(Memory(line)) as awaited:
            tasks = [asyncio.create_task(awaited.events.append("message", number)) for number in range(20)]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    asyncio.run(use())
    assert len(memory.events.read()) == 20


def test_the_loop_is_free_while_a_call_waits(line: Line) -> None:
    async def use() -> None:
        beats = 0
        leave = threading.Event()
        line.before = lambda: leave.wait(20)
        async with AsyncMemory(Memory(line)) as memory:
            task = asyncio.create_task(memory.events.append("message", 1))
            while beats < 20:
                await asyncio.sleep(0.001)
                beats += 1
            assert not task.done()
            leave.set()
            await task

    asyncio.run(use())


def test_arguments_and_errors_come_through(line: Line) -> None:
    async def use() -> None:
        async with AsyncMemory(Memory(line)) as memory:
            await memory.embeddings.upsert("key", [1, 0, 0], content="tea", metadata={"a": 1}, chunk=2, ttl=60)
            await memory.embeddings.upsert([Embedding("key", [1, 0, 0], "tea")])
            [hit] = await memory.embeddings.search([1, 0, 0], query="tea", limit=5, where={"a": 1})
            assert (hit.key, hit.chunk) == ("key", 2)
            with pytest.raises(VersionConflict):
                await memory.kv.delete("none", expected_version=1) or await memory.kv.put("none", 1, expected_version=1)
            assert [event async for event in memory.events.iterate()] == []
            for number in range(4):
                await memory.events.append("message", number)
            assert [event.payload async for event in memory.events.iterate(page=2)] == [3, 2, 1, 0]

    asyncio.run(use())
