"""The store of Memories on S3."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from memory_client import encoding
from memory_client.binding import Binding
from memory_client.errors import AccessDenied, DimensionMismatch, MemoryClientError, OnHold, Unsupported
from memory_client.stores import matching
from memory_client.stores.s3.bucket import Bucket
from memory_client.stores.s3.events import Events
from memory_client.stores.s3.kv import HELD, Values
from memory_client.stores.s3.layout import Meta, Names
from memory_client.stores.s3.register import Register
from memory_client.stores.s3.vectors import Vectors
from memory_client.types import Appended, Capabilities, Embedding, Event, Hit, Json, Status, Value, Vector

T = TypeVar("T")

# How long what the provisioner says of a Memory is taken for true, in seconds.
FRESH = 10.0


class S3Store:
    """One login of one Memory."""

    def __init__(self, binding: Binding, *, timeout: float, connections: int) -> None:
        self._binding = binding
        self._bucket = Bucket(binding, timeout=timeout, connections=connections)
        self._names = Names(binding.schema)
        self._lock = threading.Lock()
        self._known: tuple[float, Meta] | None = None
        register = Register(self._bucket, lambda: self._meta().conditional_put, self._marks)
        self._events = Events(self._bucket, self._names, register)
        self._values = Values(self._bucket, self._names, register)
        self._vectors = Vectors(self._bucket, self._names)

    @property
    def capabilities(self) -> Capabilities:
        """A search reads and compares everything."""
        meta = self._meta()
        there = meta.dimension is not None
        return Capabilities(
            "s3",
            embeddings=there,
            vector_search="exact" if there else None,
            text_search="scan" if there else None,
            metrics=frozenset({meta.metric} if there and meta.metric else ()),
            appends_on_hold=meta.versioning,
            dimension=meta.dimension if there else None,
        )

    def append(self, event_type: str, payload: Json, *, event_id: str | None, source: str) -> Appended:
        """Writes an object."""
        if event_id is None:
            return self._write(lambda: self._events.append(event_type, payload, source=source, held=self._marks()))
        sent = {"type": event_type, "payload": payload, "eventId": event_id, "source": source}
        return self._write(lambda: self._events.append_once(sent, self._meta(), held=self._marks()))

    def read(self, *, limit: int, before: str | None, event_type: str | None) -> list[Event]:
        """Lists objects and reads them."""
        return self._events.read(limit=limit, before=before, event_type=event_type)

    def get(self, key: str) -> Value | None:
        """Reads an object."""
        return self._values.get(key)

    def put(self, key: str, value: Json, *, expected_version: int | None, ttl: float | None) -> int:
        """Replaces an object."""
        return self._write(
            lambda: self._values.put(
                key, value, expected_version=expected_version, ttl=ttl, held=self._meta().legal_hold
            )
        )

    def delete(self, key: str, *, expected_version: int | None) -> bool:
        """Replaces an object with one that says that there is none."""
        return self._write(
            lambda: self._values.delete(key, expected_version=expected_version, held=self._meta().legal_hold)
        )

    def upsert(self, embeddings: Iterable[Embedding]) -> int:
        """Writes objects."""
        self._with_embeddings()
        return self._write(lambda: self._vectors.upsert(embeddings, self._pack, held=self._meta().legal_hold))

    def delete_embedding(self, key: str) -> int:
        """Deletes objects."""
        self._with_embeddings()
        return self._write(lambda: self._vectors.delete(key, held=self._meta().legal_hold))

    def search(
        self, vector: Vector | None, *, query: str | None, limit: int, where: Mapping[str, Json] | None
    ) -> Sequence[Hit]:
        """Reads all embeddings that are new since the last search, and compares with all."""
        meta = self._with_embeddings()
        words = matching.asked(vector, query, where, limit)
        packed = None if vector is None else self._numbers(vector)
        return self._vectors.search(packed, metric=meta.metric or "cosine", words=words, limit=limit, where=where)

    def status(self) -> Status:
        """Lists everything, and reads the values that it has not read before: some of them may have expired."""
        meta = self._meta(fresh=True)
        events, of_events = self._events.count()
        keys, of_values = self._values.count()
        embeddings, of_embeddings = self._vectors.count()
        there = meta.dimension is not None
        return Status(
            events=events,
            keys=keys,
            embeddings=embeddings if there else None,
            bytes=of_events + of_values + of_embeddings,
            index="exact" if there else None,
            on_hold=meta.legal_hold,
            ttl_days=meta.ttl_days,
        )

    def close(self) -> None:
        """Closes the connections."""
        self._bucket.close()

    def _marks(self) -> bool:
        """Whether objects are to be put on hold as they are written."""
        meta = self._meta()
        return meta.legal_hold and meta.object_lock

    def _write(self, work: Callable[[], T]) -> T:
        """Says whether a refused write is refused because of a legal hold, which takes rights from logins."""
        try:
            return work()
        except AccessDenied as denied:
            try:
                held = self._meta(fresh=True).legal_hold
            except MemoryClientError:
                raise denied from None
            if held:
                raise OnHold(HELD) from denied
            raise

    def _meta(self, *, fresh: bool = False) -> Meta:
        with self._lock:
            known = self._known
        at = time.monotonic()
        if known is None or fresh or at - known[0] > FRESH:
            found = self._bucket.get(self._names.meta)
            place = f"s3://{self._binding.database}/{self._names.prefix}"
            known = (at, Meta.of(place, found.body if found else None))
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
        meta = self._meta()
        try:
            return encoding.to_bytes(vector, "<f", dimension=meta.dimension or 0, metric=meta.metric)
        except DimensionMismatch as mismatch:
            # The claim may have got another dimension, while the Memory was empty.
            meta = self._meta(fresh=True)
            if meta.dimension == mismatch.expected:
                raise
            return encoding.to_bytes(vector, "<f", dimension=meta.dimension or 0, metric=meta.metric)
