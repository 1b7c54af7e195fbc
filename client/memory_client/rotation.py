"""A store that goes on with a new login when the old one is refused."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from memory_client.binding import Binding
from memory_client.errors import AccessDenied, BindingError, Unavailable
from memory_client.parts import parts
from memory_client.stores.base import Store
from memory_client.types import Appended, Capabilities, Embedding, Event, Hit, Json, Status, Value, Vector

T = TypeVar("T")


class _Lease:
    """A store, and how many calls are at it; closed with the last one once it is retired."""

    def __init__(self, binding: Binding, store: Store) -> None:
        self.binding = binding
        self.store = store
        self.calls = 0
        self.retired = False


class RotatingStore:
    """Reads the binding again when its login is refused, and does the call once more with what it says now.

    A call is also done again when the connection broke, and the binding says something else by then, but only where it
    is known that doing it twice is the same as doing it once: who ends an old login's sessions may end one whose
    transaction was just done.
    """

    def __init__(self, read: Callable[[], Binding], opened: Callable[[Binding], Store]) -> None:
        self._read = read
        self._opened = opened
        self._lock = threading.Lock()
        binding = read()
        self._lease = _Lease(binding, opened(binding))

    @property
    def capabilities(self) -> Capabilities:
        """The backend's."""
        return self._do(lambda store: store.capabilities)

    def append(self, event_type: str, payload: Json, *, event_id: str | None, source: str) -> Appended:
        """Again only with an event id, by which the backend knows it."""
        return self._do(
            lambda store: store.append(event_type, payload, event_id=event_id, source=source),
            twice=event_id is not None,
        )

    def read(self, *, limit: int, before: str | None, event_type: str | None) -> list[Event]:
        """Again: it changes nothing."""
        return self._do(lambda store: store.read(limit=limit, before=before, event_type=event_type))

    def get(self, key: str) -> Value | None:
        """Again: it changes nothing."""
        return self._do(lambda store: store.get(key))

    def put(self, key: str, value: Json, *, expected_version: int | None, ttl: float | None) -> int:
        """Not again: it would conflict with itself, or write over what somebody else has written since."""
        return self._do(
            lambda store: store.put(key, value, expected_version=expected_version, ttl=ttl),
            twice=False,
        )

    def delete(self, key: str, *, expected_version: int | None) -> bool:
        """Not again: it would say that there was none, or delete what somebody else has written since."""
        return self._do(lambda store: store.delete(key, expected_version=expected_version), twice=False)

    def upsert(self, embeddings: Iterable[Embedding]) -> int:
        """Again, part by part: what comes out of an iterator comes once."""
        return sum(self._do(lambda store, part=part: store.upsert(part)) for part in parts(embeddings))  # type: ignore[misc]

    def delete_embedding(self, key: str) -> int:
        """Not again: it would say that there were none."""
        return self._do(lambda store: store.delete_embedding(key), twice=False)

    def search(
        self, vector: Vector | None, *, query: str | None, limit: int, where: Mapping[str, Json] | None
    ) -> Sequence[Hit]:
        """Again: it changes nothing."""
        return self._do(lambda store: store.search(vector, query=query, limit=limit, where=where))

    def status(self) -> Status:
        """Again: it changes nothing."""
        return self._do(lambda store: store.status())

    def close(self) -> None:
        """Closes the store as soon as no call is at it."""
        self._retire(self._lease)

    def _do(self, call: Callable[[Store], T], *, twice: bool = True) -> T:
        with self._leased() as lease:
            try:
                return call(lease.store)
            except (AccessDenied, Unavailable) as error:
                renewed = self._renew(lease)
                if not renewed or (isinstance(error, Unavailable) and not twice):
                    raise
        with self._leased() as lease:
            return call(lease.store)

    @contextmanager
    def _leased(self) -> Iterator[_Lease]:
        with self._lock:
            lease = self._lease
            lease.calls += 1
        try:
            yield lease
        finally:
            with self._lock:
                lease.calls -= 1
                ended = lease.retired and lease.calls == 0
            if ended:
                lease.store.close()

    def _renew(self, old: _Lease) -> bool:
        """Whether there is another store now than the one that failed."""
        with self._lock:
            if self._lease is not old:
                return True
            try:
                binding = self._read()
            except BindingError:
                return False  # what the backend said tells more
            if binding == old.binding:
                return False
            self._lease = _Lease(binding, self._opened(binding))
        self._retire(old)
        return True

    def _retire(self, lease: _Lease) -> None:
        with self._lock:
            lease.retired = True
            ended = lease.calls == 0
        if ended:
            lease.store.close()
