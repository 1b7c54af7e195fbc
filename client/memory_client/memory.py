"""The Memory that an app works with."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, overload

from memory_client import binding
from memory_client.opening import open_store
from memory_client.queue import OfflineQueue, Resolver
from memory_client.rotation import RotatingStore
from memory_client.stores.base import Store
from memory_client.types import Appended, Capabilities, Embedding, Event, Hit, Json, Status, Value, Vector

Seconds = float | timedelta

TIMEOUT = 30.0
CONNECTIONS = 4
PAGE = 200
# What a key may have in bytes, so that every backend takes it.
LONGEST_KEY = 1024


class Events:
    """The log of events, which is only added to. It is a Memory's `events`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def append(self, event_type: str, payload: Json, *, event_id: str | None = None, source: str = "") -> Appended:
        """Stores an event.

        >>> memory.events.append("message", {"text": "hello"}, event_id="17", source="queue").duplicate
        False

        Args:
            event_type: What kind it is, in your own words; reads can filter by it.
            payload: Anything that JSON can say.
            event_id: Your own id of it: sent twice under the same id it is stored once.
            source: Whose ids these are; two sources may use the same ones.

        Returns:
            Its id and time; `duplicate` when it was there already, and these are the first one's.
        """
        _check_text("event_type", event_type)
        _check_text("source", source)
        if event_id is not None:
            _check_text("event_id", event_id)
        return self._store.append(event_type, payload, event_id=event_id, source=source)

    def read(self, limit: int = 50, *, before: str | None = None, event_type: str | None = None) -> list[Event]:
        """Gives the newest events first.

        >>> [event.payload["text"] for event in memory.events.read(10, event_type="message")]
        ['hello']

        Args:
            limit: How many at most.
            before: The `cursor` of an event: only older ones are given.
            event_type: Only events of this type.
        """
        _check_limit(limit)
        return self._store.read(limit=limit, before=before, event_type=event_type)

    def iterate(self, *, before: str | None = None, event_type: str | None = None, page: int = PAGE) -> Iterator[Event]:
        """Goes through all events, the newest first; `page` are asked for at a time.

        >>> sum(1 for _ in memory.events.iterate())
        1
        """
        while events := self.read(page, before=before, event_type=event_type):
            yield from events
            if len(events) < page:
                return
            before = events[-1].cursor


class KeyValues:
    """Values under keys, with versions. It is a Memory's `kv`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, key: str) -> Value | None:
        """Gives a value with its version, None when there is none or it has expired.

        >>> memory.kv.get("mood")
        """
        _check_key(key)
        return self._store.get(key)

    def put(self, key: str, value: Json, *, expected_version: int | None = None, ttl: Seconds | None = None) -> int:
        """Stores a value, and gives its version.

        >>> memory.kv.put("mood", "curious", expected_version=0)
        1

        Args:
            key: Any text that is not empty.
            value: Anything that JSON can say.
            expected_version: Only when the key has this version; 0: only when it is not there. None: in any case.
            ttl: Seconds for which it can be read; None for as long as the Memory keeps what is not written.

        Raises:
            VersionConflict: The key has another version: read it again and decide anew.
        """
        _check_key(key)
        _check_version(expected_version)
        return self._store.put(key, value, expected_version=expected_version, ttl=_seconds(ttl))

    def delete(self, key: str, *, expected_version: int | None = None) -> bool:
        """Removes a value; False when there was none, whatever version is expected.

        >>> memory.kv.delete("mood"), memory.kv.delete("mood")
        (True, False)

        Raises:
            VersionConflict: The key has another version.
        """
        _check_key(key)
        _check_version(expected_version)
        return self._store.delete(key, expected_version=expected_version)


class Embeddings:
    """Vectors with their text, to be searched. It is a Memory's `embeddings`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @overload
    def upsert(
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
    def upsert(self, key: Iterable[Embedding]) -> int: ...

    def upsert(  # noqa: PLR0913  what an embedding has
        self,
        key: str | Iterable[Embedding],
        vector: Vector | None = None,
        *,
        content: str | None = None,
        metadata: Mapping[str, Json] | None = None,
        chunk: int = 0,
        ttl: Seconds | None = None,
    ) -> int:
        """Stores one embedding, or many; each takes the place of the one of its key and chunk.

        >>> memory.embeddings.upsert("likes", [0.1, 0.9, 0.2], content="Anna likes green tea", metadata={"who": "anna"})
        1
        >>> memory.embeddings.upsert(Embedding(f"line-{n}", [1.0, n, 0.5]) for n in range(3))
        3

        Many are stored in parts: when one is refused, those before it may be there. To send them again does no harm.

        Args:
            key: Whose vector it is; or embeddings, as many as you like, and nothing else.
            vector: A numpy array, or any sequence of numbers, as long as `capabilities` and the claim say.
            content: The text that it was made of, for searches by words and for whoever reads the result.
            metadata: What searches can filter by.
            chunk: Which part of the text, from 0 on.
            ttl: Seconds for which it is found; None for as long as the Memory keeps what is not written.

        Returns:
            How many were given.

        Raises:
            DimensionMismatch: A vector has another number of dimensions than the Memory.
            Unsupported: This Memory has no embeddings.
        """
        if not isinstance(key, str):
            return self._store.upsert(map(_checked, key))
        if vector is None:
            msg = f'there is no vector for key "{key}": give upsert(key, vector), or an iterable of Embedding alone'
            raise TypeError(msg)
        one = Embedding(key, vector, content, metadata or {}, chunk, _seconds(ttl))
        return self._store.upsert([_checked(one)])

    def delete(self, key: str) -> int:
        """Removes all chunks of a key, and gives how many there were.

        >>> memory.embeddings.delete("likes")
        1
        """
        _check_key(key)
        return self._store.delete_embedding(key)

    def search(
        self,
        vector: Vector | None = None,
        *,
        query: str | None = None,
        limit: int = 10,
        where: Mapping[str, Json] | None = None,
    ) -> list[Hit]:
        """Gives the best matches first: by vector, by words, or by both (reciprocal rank fusion).

        >>> [hit.key for hit in memory.embeddings.search([1, 0, 0.5], query="green tea", limit=1)]
        ['line-0']

        Args:
            vector: What is near it by the Memory's metric.
            query: Words as for a search engine: all of them, "a phrase", this or that, -without.
            limit: How many at most.
            where: What the metadata must contain, as PostgreSQL's `@>` means it.

        Raises:
            DimensionMismatch: The vector has another number of dimensions than the Memory.
            Unsupported: This Memory has no embeddings.
        """
        _check_limit(limit)
        words = query if query and query.strip() else None
        if vector is None and words is None:
            msg = "nothing to search for: give a vector, a query, or both"
            raise ValueError(msg)
        return list(self._store.search(vector, query=words, limit=limit, where=where))


class Memory:
    """A Memory: `events`, `kv` and `embeddings`. Threads may share it; it connects when it is first asked.

    >>> with Memory.from_binding("/bindings/notes") as memory:
    ...     memory.kv.put("mood", "curious")
    1

    Attributes:
        events: The log of events.
        kv: Values under keys.
        embeddings: Vectors with their text.
        queue: The offline queue, None without.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.queue = store if isinstance(store, OfflineQueue) else None
        self.events = Events(store)
        self.kv = KeyValues(store)
        self.embeddings = Embeddings(store)

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
        """Opens the Memory that a mounted connection Secret leads to.

        When the login is refused the directory is read again, and if it says something else by then, the call is done
        once more with that. So an app outlives the rotation of its password without being started anew.

        Args:
            path: The directory; None for the one Memory below $SERVICE_BINDING_ROOT.
            timeout: Seconds that a call waits for a connection, and for an answer.
            connections: How many calls may be under way at once, each on a connection of its own; others wait.
            queue: A file in which writes are kept while the backend is away, and from which they are done when it is
                back (`OfflineQueue`). It outlives the process, and several processes may share it.
            resolver: Decides about values that somebody else has changed meanwhile; without one such writes are put
                aside (`memory.queue.conflicts()`).

        Raises:
            BindingError: There is no binding of a Memory.
        """
        directory = binding.find(path)

        def opened(found: binding.Binding) -> Store:
            return open_store(found, timeout=timeout, connections=connections)

        store = RotatingStore(lambda: binding.read(directory), opened)
        return cls(store if queue is None else OfflineQueue(store, queue, resolver=resolver))

    @property
    def capabilities(self) -> Capabilities:
        """What this Memory can do, and how: backends differ."""
        return self._store.capabilities

    def status(self) -> Status:
        """Says how much there is; it counts, so not with every request."""
        return self._store.status()

    def close(self) -> None:
        """Gives back the connections; what is under way is finished first."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _checked(embedding: Embedding) -> Embedding:
    _check_key(embedding.key)
    if embedding.chunk < 0:
        msg = f'chunk is {embedding.chunk} for key "{embedding.key}": count parts from 0 on'
        raise ValueError(msg)
    if embedding.content is not None:
        _check_text("content", embedding.content)
    _seconds(embedding.ttl)
    return embedding


def _check_key(key: str) -> None:
    _check_text("key", key)
    if not key:
        msg = "key is empty: give a text"
        raise ValueError(msg)
    if len(key.encode()) > LONGEST_KEY:
        msg = f"key has {len(key.encode())} bytes in UTF-8: give {LONGEST_KEY} at most, a hash of a longer one say"
        raise ValueError(msg)


def _check_text(name: str, text: str) -> None:
    if not isinstance(text, str):
        msg = f"{name} is {text!r}: give a str"
        raise TypeError(msg)
    if "\0" in text:
        msg = f"{name} holds the character NUL, which not every backend can store: take it out"
        raise ValueError(msg)
    text.encode()  # half of a surrogate pair: UnicodeEncodeError, which is a ValueError


def _check_limit(limit: int) -> None:
    if limit < 1:
        msg = f"limit is {limit}: give a number from 1 on"
        raise ValueError(msg)


def _check_version(expected: int | None) -> None:
    if expected is not None and expected < 0:
        msg = f"expected_version is {expected}: give the version that was read, 0 for none, or None for any"
        raise ValueError(msg)


def _seconds(ttl: Seconds | None) -> float | None:
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if seconds is not None and seconds <= 0:
        msg = f"ttl is {seconds:g}: give seconds above 0, or None to keep it"
        raise ValueError(msg)
    return seconds
