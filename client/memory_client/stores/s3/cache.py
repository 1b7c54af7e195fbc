"""What was read of objects, as long as they are the same."""

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from memory_client.stores.s3.bucket import Bucket, Listed

T = TypeVar("T")


class Cache(Generic[T]):
    """Reads all objects under a prefix, those alone anew whose ETag is another one."""

    def __init__(self, bucket: Bucket, parse: Callable[[bytes], T]) -> None:
        self._bucket = bucket
        self._parse = parse
        self._lock = threading.Lock()
        self._known: Mapping[str, tuple[str, T]] = {}

    def under(self, prefix: str) -> tuple[dict[str, T], int]:
        """Gives what objects hold by their names, and how many bytes they are."""
        listed = [each for page in self._bucket.names(prefix) for each in page]
        known = self._known
        same = {each.name: known[each.name] for each in listed if known.get(each.name, ("",))[0] == each.etag}
        new = [each for each in listed if each.name not in same]
        read = zip(new, self._bucket.each(self._read, new), strict=True)
        fresh = same | {each.name: found for each, found in read if found is not None}
        with self._lock:
            self._known = fresh
        return {name: parsed for name, (_, parsed) in fresh.items()}, sum(each.size for each in listed)

    def _read(self, listed: Listed) -> tuple[str, T] | None:
        found = self._bucket.get(listed.name)
        return (found.etag, self._parse(found.body)) if found else None
