"""The store of Memories on Redis and Valkey."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from memory_client import encoding
from memory_client.binding import Binding
from memory_client.errors import AccessDenied, DimensionMismatch, MemoryClientError, OnHold, Unsupported
from memory_client.stores import matching
from memory_client.stores.redis.events import Events, Sent
from memory_client.stores.redis.kv import Values
from memory_client.stores.redis.layout import Keys, Meta, fields
from memory_client.stores.redis.server import Command, Server
from memory_client.stores.redis.vectors import Vectors, exact
from memory_client.types import Appended, Capabilities, Embedding, Event, Hit, Json, Status, Value, Vector

T = TypeVar("T")

# How long what the provisioner says of a Memory is taken for true, in seconds.
FRESH = 10.0


class RedisStore:
    """One login of one Memory."""

    def __init__(self, binding: Binding, *, timeout: float, connections: int) -> None:
        self._binding = binding
        self._server = Server(binding, timeout=timeout, connections=connections)
        self._keys = Keys(binding.schema)
        self._events = Events(self._server, self._keys)
        self._values = Values(self._server, self._keys)
        self._vectors = Vectors(self._server, self._keys)
        self._lock = threading.Lock()
        self._known: tuple[float, Meta] | None = None

    @property
    def capabilities(self) -> Capabilities:
        """A vector set is an approximate index, although a small one is searched exactly."""
        dimension = self._meta().dimension
        embeddings = dimension is not None
        return Capabilities(
            "redis",
            embeddings=embeddings,
            vector_search="indexed" if embeddings else None,
            text_search="scan" if embeddings else None,
            metrics=frozenset({"cosine"} if embeddings else ()),
            appends_on_hold=False,
            dimension=dimension,
        )

    def append(self, event_type: str, payload: Json, *, event_id: str | None, source: str) -> Appended:
        """Adds to the stream."""
        if event_id is None:
            return self._write(lambda: self._events.append(event_type, payload, source))
        sent = Sent(event_type, payload, event_id, source)
        return self._write(lambda: self._events.append_once(sent, self._meta().ttl_days))

    def read(self, *, limit: int, before: str | None, event_type: str | None) -> list[Event]:
        """Reads the stream backwards."""
        return self._events.read(limit=limit, before=before, event_type=event_type)

    def get(self, key: str) -> Value | None:
        """Reads a hash."""
        return self._values.get(key)

    def put(self, key: str, value: Json, *, expected_version: int | None, ttl: float | None) -> int:
        """Writes a hash."""
        return self._write(lambda: self._values.put(key, value, expected_version=expected_version, ttl=ttl))

    def delete(self, key: str, *, expected_version: int | None) -> bool:
        """Removes a hash."""
        return self._write(lambda: self._values.delete(key, expected_version=expected_version))

    def upsert(self, embeddings: Iterable[Embedding]) -> int:
        """Adds to the vector set."""
        meta = self._with_embeddings()
        return self._write(lambda: self._vectors.upsert(meta, embeddings, self._pack))

    def delete_embedding(self, key: str) -> int:
        """Removes from the vector set."""
        self._with_embeddings()
        return self._write(lambda: self._vectors.delete(key))

    def search(
        self, vector: Vector | None, *, query: str | None, limit: int, where: Mapping[str, Json] | None
    ) -> Sequence[Hit]:
        """Asks the vector set, reads all texts, or both."""
        self._with_embeddings()
        words = matching.asked(vector, query, where, limit)
        packed = None if vector is None else self._numbers(vector)
        return self._vectors.search(packed, words=words, limit=limit, where=where)

    def status(self) -> Status:
        """Counts: events and embeddings at once, values one by one."""
        meta = self._meta(fresh=True)
        asked: list[Command] = [["XLEN", self._keys.events]]
        if meta.dimension:
            asked.append(["VCARD", self._keys.vectors])
        entries, *elements = self._server.run(lambda session: session.ask(*asked), repeatable=True)
        there = elements[0] if elements else None
        return Status(
            events=entries,
            keys=self._values.count(),
            embeddings=there,
            bytes=None,
            index=None if there is None else "exact" if exact(there, meta.dimension or 0) else "ready",
            on_hold=meta.legal_hold,
            ttl_days=meta.ttl_days,
        )

    def close(self) -> None:
        """Closes the connections."""
        self._server.close()

    def _write(self, work: Callable[[], T]) -> T:
        """Says whether a refused write is refused because of a legal hold, which takes writing commands from logins."""
        try:
            return work()
        except AccessDenied as denied:
            try:
                held = self._meta(fresh=True).legal_hold
            except MemoryClientError:
                raise denied from None
            if held:
                msg = "this Memory is on legal hold: on Redis, where a write can remove what is there, it takes none"
                raise OnHold(msg) from denied
            raise

    def _meta(self, *, fresh: bool = False) -> Meta:
        with self._lock:
            known = self._known
        now = time.monotonic()
        if known is None or fresh or now - known[0] > FRESH:
            [flat] = self._server.run(lambda session: session.ask(["HGETALL", self._keys.meta]), repeatable=True)
            known = (now, Meta.of(self._keys.prefix, fields(flat)))
            with self._lock:
                self._known = known
        return known[1]

    def _with_embeddings(self) -> Meta:
        meta = self._meta()
        if meta.dimension is None:
            msg = "this Memory has no embeddings: its claim says embeddings.enabled: false"
            raise Unsupported(msg)
        return meta

    def _pack(self, embedding: Embedding) -> bytes:
        matching.lifetime(embedding.ttl)
        return self._numbers(embedding.vector)

    def _numbers(self, vector: Vector) -> bytes:
        try:
            return encoding.to_bytes(vector, "<f", dimension=self._meta().dimension or 0, metric="cosine")
        except DimensionMismatch as mismatch:
            # The claim may have got another dimension, while the Memory was empty.
            dimension = self._meta(fresh=True).dimension or 0
            if dimension == mismatch.expected:
                raise
            return encoding.to_bytes(vector, "<f", dimension=dimension, metric="cosine")
