"""One object that many write and one at a time: each writer says what it has read, and only one of them wins.

Where the server takes conditions on a PUT, it decides. Where it takes none, which is so on Ceph in a bucket with
versions, the versions decide: a writer notes in the metadata `base` which version it has read, and the first one that
follows a version in the server's order has won. Whoever comes later on the same base counts for nothing, sees so when
it lists the versions after its own write, and writes the winner's body once more.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from memory_client.errors import Unavailable
from memory_client.stores.s3.bucket import Bucket, Found, Version

TRIES = 20
REMEMBERED = 10_000
PAUSE = 0.2


@dataclass(frozen=True)
class Entry:
    """What is there, and what stands for it when it is to be replaced."""

    body: bytes
    tag: str


class Register:
    """Reads and replaces objects; `conditional` says whether the server decides, `held` whether they are on hold."""

    def __init__(self, bucket: Bucket, conditional: Callable[[], bool], held: Callable[[], bool]) -> None:
        self._bucket = bucket
        self._conditional = conditional
        self._held = held
        self._lock = threading.Lock()
        # Which version each version follows, which never changes.
        self._bases: dict[str, str | None] = {}

    def read(self, name: str) -> Entry | None:
        """Gives what counts, None when there is nothing."""
        if self._conditional():
            found = self._bucket.get(name)
            return Entry(found.body, found.etag) if found else None
        return self._valid(name)

    def write(self, name: str, body: bytes, on: Entry | None) -> bool:
        """Replaces what was read, None for nothing; False when somebody else has done so first.

        Args:
            name: Of the object.
            body: Its new body, which no other writer has.
            on: What was read.
        """
        if not self._conditional():
            return self._write_version(name, body, on)
        if self._bucket.put_if(name, body, held=self._held(), etag=on.tag if on else None):
            return True
        # Perhaps it was done, and only the answer was lost.
        found = self._bucket.get(name)
        return found is not None and found.body == body

    def _write_version(self, name: str, body: bytes, on: Entry | None) -> bool:
        base = on.tag if on else ""
        mine = self._bucket.put(name, body, held=self._held(), base=base) or ""
        self._remember(mine, base)
        since = self._since(name, base)
        if since and since[0].id == mine:
            return True
        counting = self._counting(name, since, base)
        won = any(version.id == mine for version in counting)
        for attempt in range(TRIES):
            if not counting or since[-1].etag == counting[-1].etag:
                break
            # A plain GET gives what a loser wrote. Each of the losers waits for another one to put that right.
            time.sleep(random.uniform(0, PAUSE))  # noqa: S311
            if attempt and (winner := self._bucket.get(name, counting[-1].id)):
                self._bucket.put(name, winner.body, held=self._held(), base=counting[-1].id)
            since = self._since(name, base)
            counting = self._counting(name, since, base)
        return won

    def _valid(self, name: str) -> Entry | None:
        for _ in range(TRIES):
            found = self._bucket.get(name)
            if found is None:
                return None
            newest = [version for version, _ in zip(self._bucket.versions(name, page=3), range(2), strict=False)]
            if newest and newest[0].id == found.version:
                return self._checked(name, found, newest)
        msg = f"{name} changes faster than it can be read"
        raise Unavailable(msg)

    def _checked(self, name: str, found: Found, newest: list[Version]) -> Entry | None:
        base = found.metadata.get("base")
        before = newest[1].id if len(newest) > 1 and not newest[1].deleted else ""
        if base is None or base == before or found.version is None:
            return Entry(found.body, found.version or "")
        kept = self._since(name, "")
        # Whoever follows the version before it has won; what is older than all that are kept is gone.
        anchor = next((at for at in range(len(kept) - 1, 0, -1) if self._base(name, kept[at]) == kept[at - 1].id), 0)
        last = [kept[anchor], *self._counting(name, kept[anchor + 1 :], kept[anchor].id)][-1].id
        valid = self._bucket.get(name, last)
        return Entry(valid.body, last) if valid else None

    def _since(self, name: str, base: str) -> list[Version]:
        """Gives the versions after one, the oldest first; after a deletion for none."""
        since = []
        for version in self._bucket.versions(name):
            if version.deleted or version.id == base:
                break
            since.append(version)
        return since[::-1]

    def _counting(self, name: str, since: list[Version], last: str) -> list[Version]:
        """Gives those of some versions that count, as they came, if `last` counts and they follow it."""
        counting = []
        for version in since:
            base = self._base(name, version)
            if base is None or base == last:
                counting.append(version)
                last = version.id
        return counting

    def _base(self, name: str, version: Version) -> str | None:
        with self._lock:
            if version.id in self._bases:
                return self._bases[version.id]
        metadata = self._bucket.metadata(name, version.id)
        base = None if metadata is None else metadata.get("base")
        self._remember(version.id, base)
        return base

    def _remember(self, version: str, base: str | None) -> None:
        with self._lock:
            if len(self._bases) >= REMEMBERED:
                self._bases.clear()
            self._bases[version] = base
