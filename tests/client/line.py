"""A line to a real store that can be cut, before a call arrives or before its answer does."""

from collections.abc import Callable
from typing import Any, TypeAlias

from memory_client import Unavailable
from memory_client.stores.base import Store

Act: TypeAlias = Callable[[], object]


class Line:
    """A store. While `away` no call arrives; the next `lost` calls of a write arrive, and their answers do not."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.away = False
        self.lost = 0
        self.before: Act | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        if name == "close" or not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            if self.away:
                msg = "the line is cut"
                raise Unavailable(msg)
            if self.before and name in WRITES:
                before, self.before = self.before, None
                before()
            answer = found(*arguments, **named)
            if self.lost and name in WRITES:
                self.lost -= 1
                msg = "the answer is lost"
                raise Unavailable(msg)
            return answer

        return call


WRITES = ("append", "put", "delete", "upsert", "delete_embedding")
