"""The one cache: what costs more than telling two contents apart, by content.

Conversions between Structs and plain data cost 200 to 300 µs for a Job. All of it gives the same for the same bytes, so
keeping it changes no answer. A process may take 70 MB, of which these caches get 5: what is asked for again soon, of
some fifty Memories.
"""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

V = TypeVar("V")


def content_of(body: Mapping[str, Any]) -> bytes:
    """Give bytes that are the same for equal manifests built in the same order; they never leave the process.

    `marshal` is the quickest way to get them. Version 2: later ones mark shared objects, and equal ones would differ.
    """
    return marshal.dumps(dict(body), 2)


class ContentCache(Generic[V]):
    """Values by the bytes that they were made from; the oldest go first when it is full.

    Args:
        limit: Bytes of content that are remembered. A value takes as much memory (text) to ten times as much (a dict).
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._values: dict[bytes, V] = {}

    def get(self, content: bytes, make: Callable[[], V]) -> V:
        """Give the value of some content, made when it is not known."""
        value = self._values.get(content)
        if value is None:
            value = self._values[content] = make()
            self._size += len(content)
            while self._size > self._limit:
                oldest = next(iter(self._values))
                del self._values[oldest]
                self._size -= len(oldest)
        return value
