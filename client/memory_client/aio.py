"""The same Memory for programs that await."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Protocol, Self, TypeVar, overload

from memory_client.memory import CONNECTIONS, PAGE, TIMEOUT, Memory, Seconds
from memory_client.queue import OfflineQueue, Resolver
from memory_client.types import Appended, Capabilities, Embedding, Event, Hit, Json, Status, Value, Vector

P = ParamSpec("P")
T = TypeVar("T")


class _Run(Protocol):
    async def __call__(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T: ...


class AsyncEvents:
    """`Memory.events`, awaited."""

    def __init__(self, memory: Memory, run: _Run) -> None:
        self._events = memory.events
        self._run = run

    async def append(
        self, event_type: str, payload: Json, *, event_id: str | None = None, source: str = ""
    ) -> Appended:
        """As `Memory.events.append`."""
        return await self._run(self._events.append, event_type, payload, event_id=event_id, source=source)

    async def read(self, limit: int = 50, *, before: str | None = None, event_type: str | None = None) -> list[Event]:
        """As `Memory.events.read`."""
        return await self._run(self._events.read, limit, before=before, event_type=event_type)

    async def iterate(
        self, *, before: str | None = None, event_type: str | None = None, page: int = PAGE
    ) -> AsyncIterator[Event]:
        """As `Memory.events.iterate`, for `async for`."""
        while events := await self.read(page, before=before, event_type=event_type):
            for event in events:
                yield event
            if len(events) < page:
                return
            before = events[-1].cursor


class AsyncKeyValues:
    """`Memory.kv`, awaited."""

    def __init__(self, memory: Memory, run: _Run) -> None:
        self._kv = memory.kv
        self._run = run

    async def get(self, key: str) -> Value | None:
        """As `Memory.kv.get`."""
        return await self._run(self._kv.get, key)

    async def put(
        self, key: str, value: Json, *, expected_version: int | None = None, ttl: Seconds | None = None
    ) -> int:
        """As `Memory.kv.put`."""
        return await self._run(self._kv.put, key, value, expected_version=expected_version, ttl=ttl)

    async def delete(self, key: str, *, expected_version: int | None = None) -> bool:
        """As `Memory.kv.delete`."""
        return await self._run(self._kv.delete, key, expected_version=expected_version)


class AsyncEmbeddings:
    """`Memory.embeddings`, awaited."""

    def __init__(self, memory: Memory, run: _Run) -> None:
        self._embeddings = memory.embeddings
        self._run = run

    @overload
    async def upsert(
        self,
        key: str,
        vector: Vector,
        *,
        content: str | None = None,
        metadata: Mapping[str, Json] | None = None,
        chunk: int = 0,
        ttl: Seconds | None = None,
    ) -> int: ...

    @overload
    async def upsert(self, key: Iterable[Embedding]) -> int: ...

    async def upsert(  # noqa: PLR0913  what an embedding has
        self,
        key: str | Iterable[Embedding],
        vector: Vector | None = None,
        *,
        content: str | None = None,
        metadata: Mapping[str, Json] | None = None,
        chunk: int = 0,
        ttl: Seconds | None = None,
    ) -> int:
        """As `Memory.embeddings.upsert`; an iterable is gone through in another thread."""
        if not isinstance(key, str):
            return await self._run(self._embeddings.upsert, key)
        call = functools.partial(
            self._embeddings.upsert,
            content=content,
            metadata=metadata,
            chunk=chunk,
            ttl=ttl,
        )
        return await self._run(call, key, vector)

    async def delete(self, key: str) -> int:
        """As `Memory.embeddings.delete`."""
        return await self._run(self._embeddings.delete, key)

    async def search(
        self,
        vector: Vector | None = None,
        *,
        query: str | None = None,
        limit: int = 10,
        where: Mapping[str, Json] | None = None,
    ) -> list[Hit]:
        """As `Memory.embeddings.search`."""
        return await self._run(self._embeddings.search, vector, query=query, limit=limit, where=where)


class AsyncMemory:
    """A Memory for programs that await.

    Calls run in threads, as many at once as there are connections. A call that is cancelled before its turn is not
    done; one that is under way goes on in its thread to its end, and nobody is told of it: as with every request that
    was sent, it may have been done. Give events an `event_id`, and values an `expected_version`, to be able to do it
    again.
    """

    def __init__(self, memory: Memory, *, threads: int = CONNECTIONS) -> None:
        self._memory = memory
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="memory")
        self.events = AsyncEvents(memory, self._run)
        self.kv = AsyncKeyValues(memory, self._run)
        self.embeddings = AsyncEmbeddings(memory, self._run)

    @classmethod
    def from_binding(
        cls,
        path: Path | str | None = None,
        *,
        timeout: float = TIMEOUT,
        connections: int = CONNECTIONS,
        queue: Path | str | None = None,
        resolver: Resolver | None = None,
    ) -> Self:
        """As `Memory.from_binding`; a resolver is called in another thread."""
        memory = Memory.from_binding(path, timeout=timeout, connections=connections, queue=queue, resolver=resolver)
        return cls(memory, threads=connections)

    @property
    def queue(self) -> OfflineQueue | None:
        """The offline queue; its own calls are not awaited, and `flush` takes its time."""
        return self._memory.queue

    async def capabilities(self) -> Capabilities:
        """As `Memory.capabilities`: awaited, because the backend may have to be asked."""
        return await self._run(lambda: self._memory.capabilities)

    async def status(self) -> Status:
        """As `Memory.status`."""
        return await self._run(self._memory.status)

    async def close(self) -> None:
        """Waits for what is under way, and gives back the connections."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._threads.shutdown)
        await loop.run_in_executor(None, self._memory.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(call, *arguments, **named))
