"""The offline queue: writes made while the backend is away are kept in a file, and done once it is back.

What "once" means:

- An event carries an event id from the moment the call is made, yours or one that is made up. Sent again, because
  nobody knows whether the backend stored it before the connection or the process ended, it is recognised.
- Embeddings, and deletes, are the same when they are done again.
- A value is written on the version that was read just before (compare-and-set), and this version is noted in the file
  first. Where the answer did not come, the key is read again: the next version with this value is ours, and done.

Order: while anything is kept, every write is kept behind it, so they arrive in the order in which they were made. Calls
that run at the same time have no order.
"""

import base64
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from memory_client import encoding
from memory_client.errors import (
    AccessDenied,
    DimensionMismatch,
    MemoryClientError,
    OnHold,
    Unavailable,
    Unsupported,
    VersionConflict,
)
from memory_client.journal import PROVISIONAL, Journal, Kept, Write
from memory_client.parts import part
from memory_client.stores.base import Store
from memory_client.types import Appended, Capabilities, Embedding, Event, Hit, Json, Status, Value, Vector

log = logging.getLogger(__name__)

# Seconds between two tries while the backend is away.
INTERVAL = 1.0
# Seconds after which somebody who writes nothing looks whether another process has left something.
IDLE = 10.0
# How many writes are sent before the file is told, where doing them again is the same.
TOGETHER = 100
# How many embeddings are kept as one write.
EMBEDDINGS = 500
# How often a value is tried that somebody else keeps writing to as well.
TRIES = 20


@dataclass(frozen=True)
class Conflict:
    """A value, or a delete, that was made on another version than the key has now.

    Attributes:
        key: Which.
        mine: What was to be stored; None for a delete.
        deletes: Whether it is a delete.
        expected_version: The version that it was made on, 0 for none.
        theirs: What is stored; None when there is nothing.
        made_at: When it was made.
    """

    key: str
    mine: Json
    deletes: bool
    expected_version: int
    theirs: Value | None
    made_at: datetime


@dataclass(frozen=True)
class Merged:
    """A value to be stored instead of both."""

    value: Json


# What a resolver says: the stored value stays, ours is written over it, or something made of both.
Resolution = Literal["theirs", "mine"] | Merged
Resolver = Callable[[Conflict], Resolution]


class OfflineQueue:
    """A store that keeps writes while another one is unavailable. It is a Memory's `queue`.

    >>> with Memory.from_binding("/bindings/notes", queue="queue.db") as queued:
    ...     queued.events.append("message", {"text": "made in a tunnel, or not"}).duplicate
    ...     queued.queue.flush()
    ...     queued.queue.pending, queued.queue.conflicts(), queued.queue.refused()
    False
    0
    (0, [], [])

    Args:
        store: Where to.
        path: The file. Several processes may share it, on one machine: a network's file system will not do.
        resolver: Decides about conflicts.
        interval: Seconds between two tries of a thread that sends by itself; None for no such thread, only `flush`.
    """

    def __init__(
        self, store: Store, path: Path | str, *, resolver: Resolver | None = None, interval: float | None = INTERVAL
    ) -> None:
        self._store = store
        self._journal = Journal(Path(path))
        self._resolver = resolver
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, args=[interval], name="memory-queue", daemon=True)
        if interval is not None:
            self._thread.start()

    @property
    def pending(self) -> int:
        """How many writes are kept."""
        return self._journal.count()

    def flush(self) -> int:
        """Does what is kept, in order, and gives how many that were.

        Raises:
            Unavailable: The backend is still away.
            AccessDenied: It refuses the login.
        """
        with self._journal.alone():
            return self._replay()

    def conflicts(self) -> list[Kept]:
        """Gives the values that were not written because somebody else had written, and no resolver decided."""
        return self._journal.aside(conflicts=True)

    def refused(self) -> list[Kept]:
        """Gives the writes that the backend does not take, and why: a legal hold, a vector of another length."""
        return self._journal.aside(conflicts=False)

    def forget(self, kept: Kept) -> None:
        """Strikes one of `conflicts` or `refused` off, once it is decided."""
        self._journal.forget(kept.seq)

    @property
    def capabilities(self) -> Capabilities:
        """The backend's."""
        return self._store.capabilities

    def append(self, event_type: str, payload: Json, *, event_id: str | None, source: str) -> Appended:
        """Stores or keeps an event."""
        found = str(uuid4()) if event_id is None else event_id
        write = Write(0, "append", event_type, encoding.to_json(payload), source, found, at=time.time())
        if self._journal.empty():
            try:
                return self._store.append(event_type, payload, event_id=found, source=source)
            except Unavailable:
                pass
        kept = self._keep(write)
        return Appended(found, datetime.fromtimestamp(write.at, UTC), duplicate=kept is None, queued=True)

    def read(self, *, limit: int, before: str | None, event_type: str | None) -> list[Event]:
        """Reads what is stored; what is kept is not among it."""
        return self._store.read(limit=limit, before=before, event_type=event_type)

    def get(self, key: str) -> Value | None:
        """Gives the value that is kept for a key, before one that is stored."""
        last = self._journal.last(key)
        if last is None:
            return self._store.get(key)
        expired = last.ttl is not None and time.time() >= last.at + last.ttl
        if last.kind == "delete" or expired:
            return None
        return Value(last.value, last.promised or 0, datetime.fromtimestamp(last.at, UTC))

    def put(self, key: str, value: Json, *, expected_version: int | None, ttl: float | None) -> int:
        """Stores or keeps a value; gives the version that it will have if nobody else writes."""
        base = None
        body = encoding.to_json(value)
        if self._journal.empty():
            try:
                return self._store.put(key, value, expected_version=expected_version, ttl=ttl)
            except Unavailable:
                base = expected_version  # it may have been done
        promised = None if expected_version is None else expected_version + 1
        write = Write(0, "put", key, body, expected=expected_version, base=base, ttl=ttl, at=time.time())
        kept = self._keep(dataclasses.replace(write, promised=promised))
        return (kept.promised if kept else None) or PROVISIONAL

    def delete(self, key: str, *, expected_version: int | None) -> bool:
        """Deletes a value, or keeps that it is to be; True then, for nobody knows whether there is one."""
        if self._journal.empty():
            try:
                return self._store.delete(key, expected_version=expected_version)
            except Unavailable:
                pass
        self._keep(Write(0, "delete", key, "null", expected=expected_version, at=time.time()))
        return True

    def upsert(self, embeddings: Iterable[Embedding]) -> int:
        """Stores embeddings, or keeps them, part by part."""
        given = iter(embeddings)
        stored = 0
        while some := part(given, rows=EMBEDDINGS):
            self._store_or_keep(some)
            stored += len(some)
        return stored

    def _store_or_keep(self, embeddings: list[Embedding]) -> None:
        if self._journal.empty():
            try:
                self._store.upsert(embeddings)
            except Unavailable:
                pass
            else:
                return
        body = encoding.to_json([_plain(each) for each in embeddings])
        self._keep(Write(0, "upsert", embeddings[0].key, body, at=time.time()))

    def delete_embedding(self, key: str) -> int:
        """Deletes a key's embeddings, or keeps that they are to be; 0 then, for nobody knows how many there are."""
        if self._journal.empty():
            try:
                return self._store.delete_embedding(key)
            except Unavailable:
                pass
        self._keep(Write(0, "delete_embedding", key, "null", at=time.time()))
        return 0

    def search(
        self, vector: Vector | None, *, query: str | None, limit: int, where: Mapping[str, Json] | None
    ) -> Sequence[Hit]:
        """Searches what is stored; what is kept is not among it."""
        return self._store.search(vector, query=query, limit=limit, where=where)

    def status(self) -> Status:
        """Counts what is stored; `pending` counts what is kept."""
        return self._store.status()

    def close(self) -> None:
        """Stops; what is kept stays in the file for whoever opens it next."""
        self._ended.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._journal.close()
        self._store.close()

    def _keep(self, write: Write) -> Write | None:
        kept = self._journal.add(write)
        self._wake.set()
        return kept

    def _work(self, interval: float) -> None:
        """Sends what is kept, whenever there is something and the backend is there."""
        while not self._ended.is_set():
            try:
                with self._journal.alone(wait=False) as ours:
                    if ours:
                        self._replay()
            except (Unavailable, AccessDenied) as error:
                log.debug("writes stay in the queue: %s", error)
            except Exception:
                # The resolver's, say. The write stays the first, and is tried again.
                log.exception("a write of the queue could not be done")
            if self._journal.empty():
                self._wake.wait(IDLE)
                self._wake.clear()
            else:
                self._ended.wait(interval)

    def _replay(self) -> int:
        count = 0
        while not self._ended.is_set() and (numbers := self._journal.numbers(TOGETHER)):
            done: list[int] = []
            try:
                for seq in numbers:
                    write = self._journal.get(seq)
                    if self._once(write):
                        done.append(seq)
                    count += 1
            finally:
                self._journal.done(done)
        return count

    def _once(self, write: Write) -> bool:
        """Does a write; True when the file has still to be told."""
        try:
            if write.kind == "put":
                self._put(write)
                return False
            if write.kind == "delete":
                self._delete(write)
                return False
            self._repeatable(write)
        except (OnHold, Unsupported, DimensionMismatch, ValueError, TypeError) as error:
            self._journal.put_aside(write, f"{type(error).__name__}: {error}")
            return False
        return True

    def _repeatable(self, write: Write) -> None:
        if write.kind == "append":
            self._store.append(write.name, write.value, event_id=write.event_id, source=write.source or "")
        elif write.kind == "upsert":
            passed = time.time() - write.at
            self._store.upsert([_embedding(each, passed) for each in write.value])
        else:
            self._store.delete_embedding(write.name)

    def _put(self, write: Write) -> None:
        """Writes a value on the version that it was made on, or on whatever there is when it was made for any."""
        for _ in range(TRIES):
            if write.base is not None and (done := self._done(write)):
                self._journal.put_done(write, done)
                return
            base = write.expected
            if base is None:
                there = self._store.get(write.name)
                base = there.version if there else 0
            self._journal.send(write.seq, write.body, expected=write.expected, base=base)
            write = dataclasses.replace(write, base=base)
            try:
                version = self._store.put(write.name, write.value, expected_version=base, ttl=write.ttl_left)
            except VersionConflict:
                if write.expected is None or self._done(write):
                    continue
                if (resolved := self._resolved(write)) is None:
                    return
                write = resolved
            else:
                self._journal.put_done(write, version)
                return
        raise _busy(write)

    def _done(self, write: Write) -> int | None:
        """Gives the version that a write has got, when it was done and its answer was lost."""
        there = self._store.get(write.name)
        if there is None or there.value != write.value:
            return None
        # A key that was not there begins at 1, or counts on from before it was deleted or expired.
        return there.version if write.base == 0 or there.version == (write.base or 0) + 1 else None

    def _delete(self, write: Write) -> None:
        for _ in range(TRIES):
            try:
                self._store.delete(write.name, expected_version=write.expected)
            except VersionConflict:
                if (resolved := self._resolved(write)) is None:
                    return
                if resolved.kind == "put":
                    self._put(resolved)
                    return
                write = resolved
            else:
                self._journal.done([write.seq])
                return
        raise _busy(write)

    def _resolved(self, write: Write) -> Write | None:
        """Asks what is to be done about a conflict; None when nothing is any more."""
        there = self._store.get(write.name)
        version = there.version if there else 0
        if self._resolver is None:
            reason = f"it was made on version {write.expected}, and the key has {version or 'no value'}"
            self._journal.put_aside(write, reason, there.value if there else None, version)
            return None
        made_at = datetime.fromtimestamp(write.at, UTC)
        deletes = write.kind == "delete"
        conflict = Conflict(write.name, write.value, deletes, write.expected or 0, there, made_at)
        try:
            resolution = self._resolver(conflict)
        except Exception as error:
            msg = f'the resolver failed for key "{write.name}", which stays in the queue: {error}'
            raise MemoryClientError(msg) from error
        if resolution == "theirs":
            self._journal.put_done(write, version)
            return None
        if isinstance(resolution, Merged):
            write = dataclasses.replace(write, kind="put", body=encoding.to_json(resolution.value))
        elif resolution != "mine":
            msg = f'the resolver said {resolution!r} of key "{write.name}": say "theirs", "mine", or Merged(value)'
            raise MemoryClientError(msg)
        return dataclasses.replace(write, expected=version, base=None)


def _busy(write: Write) -> Unavailable:
    return Unavailable(f'key "{write.name}" is written to by others all the time: it stays in the queue')


def _plain(embedding: Embedding) -> dict[str, Any]:
    """Gives an embedding as JSON; the vector's numbers as 8 bytes each, whatever the Memory makes of them later."""
    numbers = encoding.to_bytes(embedding.vector, "<d", dimension=len(embedding.vector), metric=None)
    return {
        "key": embedding.key,
        "vector": base64.b64encode(numbers).decode(),
        "content": embedding.content,
        "metadata": dict(embedding.metadata),
        "chunk": embedding.chunk,
        "ttl": embedding.ttl,
    }


def _embedding(plain: dict[str, Any], passed: float) -> Embedding:
    ttl = plain["ttl"]
    return Embedding(
        plain["key"],
        encoding.from_bytes(base64.b64decode(plain["vector"]), "<d"),
        plain["content"],
        plain["metadata"],
        plain["chunk"],
        None if ttl is None else max(0.001, ttl - passed),
    )
