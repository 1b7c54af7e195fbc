"""One backend, as `Memory` sees it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from memory_client.types import Appended, Capabilities, Embedding, Event, Hit, Json, Status, Value, Vector


class Store(Protocol):
    """One backend with one login. Every method may be called by many threads at once.

    Every method raises `Unavailable` when the backend does not answer, `AccessDenied` when it refuses the login, and
    `OnHold` when a legal hold forbids what is asked.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this backend, at this version, with this Memory, can do."""
        ...

    def append(self, event_type: str, payload: Json, *, event_id: str | None, source: str) -> Appended:
        """Stores an event; one with an `event_id` that `source` has used before is not stored again."""
        ...

    def read(self, *, limit: int, before: str | None, event_type: str | None) -> list[Event]:
        """Gives the newest events first; `before` is the cursor of the last one that was read."""
        ...

    def get(self, key: str) -> Value | None:
        """Gives a value, None when there is none or it has expired."""
        ...

    def put(self, key: str, value: Json, *, expected_version: int | None, ttl: float | None) -> int:
        """Stores a value, and gives its new version. `expected_version` 0: the key must not exist.

        Raises:
            VersionConflict: The key has another version.
        """
        ...

    def delete(self, key: str, *, expected_version: int | None) -> bool:
        """Removes a value; False, and no conflict, when there was none.

        Raises:
            VersionConflict: The key has another version.
        """
        ...

    def upsert(self, embeddings: Iterable[Embedding]) -> int:
        """Stores embeddings, each in place of one of the same key and chunk; gives how many.

        Raises:
            DimensionMismatch: A vector has another number of dimensions; whether others are stored is not defined.
            Unsupported: There are no embeddings here.
        """
        ...

    def delete_embedding(self, key: str) -> int:
        """Removes all chunks of a key; gives how many there were."""
        ...

    def search(
        self, vector: Vector | None, *, query: str | None, limit: int, where: Mapping[str, Json] | None
    ) -> Sequence[Hit]:
        """Gives the best matches first, by vector, by words, or by both (reciprocal rank fusion).

        `where` must be contained in an embedding's metadata, as PostgreSQL's `@>` means it.
        """
        ...

    def status(self) -> Status:
        """Says how much there is."""
        ...

    def close(self) -> None:
        """Gives back connections."""
        ...
