"""Retention: what is older than its Memory wants goes, and nothing on hold.

Nothing here expires by itself that still receives data. Each thing is looked at again in the moment before it goes,
under WATCH: what was written meanwhile is young, and stays.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import redis

from migrations.deadline import Deadline
from migrations.redis import sweep
from migrations.redis.names import Home
from migrations.redis.server import Node, Server

# Entries of a stream that go in one command.
TRIMMED = 10_000
# Keys, or elements, that are looked at and removed in one transaction.
BATCH = 50
# Elements whose attributes are read in one round trip.
LOOKED_AT = 500
# A writer that never pauses makes us look again; after so many times the next run has it.
ATTEMPTS = 20


@dataclass
class Retention:
    """What goes of one home; each method gives how much."""

    server: Server
    home: Home
    ttl_ms: int
    deadline: Deadline
    check: Callable[[], None]

    @property
    def node(self) -> Node:
        """The node that has the home."""
        return self.server.at(self.home.meta)

    def events(self) -> int:
        """Trims the stream to what is young; the milliseconds of an entry's id are its age."""
        if not self.ttl_ms:
            return 0
        until, removed = sweep.time_ms(self.node) - self.ttl_ms, 0
        while not self.deadline.passed:
            self.check()
            # About so many at a time, whole blocks of the stream: the server answers others in between.
            gone = int(self.node.call("XTRIM", self.home.events, "MINID", "~", until, "LIMIT", TRIMMED))
            removed += gone
            if not gone:
                return removed + int(self.node.call("XTRIM", self.home.events, "MINID", "=", until))
        return removed

    def event_ids(self, mistimed: Sequence[str]) -> None:
        """Lets event ids expire with their events, those that still do not."""
        for batch in _batches(mistimed):
            self.check()
            self.node.all([change for change in sweep.retimed(self.node, batch, self.ttl_ms) if change])

    def keys(self, old: Sequence[str]) -> int:
        """Removes key-value entries that seemed to be old, those that still are."""
        kind = _Kind(list, self._old_keys, self._forget_keys)
        removed = 0
        for batch in _batches(old):
            if self.deadline.passed:
                break
            removed += self._each(batch, kind)
        return removed

    def keys_by_time(self) -> int:
        """Removes old entries that clients have noted the time of, whether or not a walk over all keys came to them."""
        if not self.ttl_ms:
            return 0
        kind = _Kind(list, self._old_keys, self._forget_keys)
        pages = self._by_time(self.home.kv_times)
        return sum(self._each([f"{self.home.kv}{name}" for name in page], kind) for page in pages)

    def times(self) -> None:
        """Forgets when keys were written that have expired by themselves meanwhile."""
        kind = _Kind(list, self._missing, self._forget_times)
        cursor = "0"
        while not self.deadline.passed:
            cursor, pairs = self.node.call("ZSCAN", self.home.kv_times, cursor, "COUNT", LOOKED_AT)
            keys = self._missing([f"{self.home.kv}{name}" for name in pairs[::2]])
            for batch in _batches(keys):
                self._each(batch, kind)
            if cursor == "0":
                return

    def embeddings(self) -> int:
        """Removes elements of the vector set by their time, and those that are past an end of their own."""
        if not self.server.has_vectors:
            return 0
        times, removed = self.home.vector_times, 0
        by_time = _Kind(lambda _: [times], self._old_elements, self._forget)
        by_end = _Kind(lambda _: [times, self.home.vectors], self._ended_elements, self._forget)
        if self.ttl_ms:
            for batch in self._by_time(times):
                removed += self._each(batch, by_time)
        for batch in self._expired():
            removed += self._each(batch, by_end)
        return removed

    def _by_time(self, times: str) -> Iterator[list[str]]:
        """Gives what a time index says is old, some at a time, as long as what was given goes."""
        until = f"({sweep.time_ms(self.node) - self.ttl_ms}"
        last: list[str] = []
        while True:
            page = self.node.call("ZRANGE", times, "-inf", until, "BYSCORE", "LIMIT", 0, BATCH)
            if not page or page == last or self.deadline.passed:
                return
            yield page
            last = page

    def _expired(self) -> Iterator[list[str]]:
        """Finds elements past their own end, which no index knows: it takes a look at each."""
        cursor = "0"
        found: list[str] = []
        while not self.deadline.passed:
            cursor, pairs = self.node.call("ZSCAN", self.home.vector_times, cursor, "COUNT", LOOKED_AT)
            found += self._ended_elements(pairs[::2])
            if cursor == "0":
                break
        yield from _batches(found)

    def _each(self, batch: Sequence[str], kind: "_Kind") -> int:
        """Removes of a batch what is to go, in a transaction that fails when any of it is written meanwhile."""
        self.check()
        for _ in range(ATTEMPTS):
            with self.node.client.pipeline() as pipe:
                pipe.watch(*kind.watched(batch))
                # On another connection: what counts is that it is read after the WATCH.
                chosen = kind.choose(batch)
                if not chosen:
                    return 0
                pipe.multi()
                for words in kind.remove(chosen):
                    pipe.execute_command(*words)
                try:
                    pipe.execute()
                except redis.WatchError:
                    continue
                return len(chosen)
        return 0

    def _old_keys(self, keys: Sequence[str]) -> list[str]:
        now = sweep.time_ms(self.node)
        found = zip(keys, sweep.times_of(self.node, keys), strict=True)
        return [key for key, times in found if times and sweep.is_old(times, self.ttl_ms, now)]

    def _missing(self, keys: Sequence[str]) -> list[str]:
        answers = self.node.each([["EXISTS", key] for key in keys])
        return [key for key, there in zip(keys, answers, strict=True) if there == 0]

    def _forget_times(self, keys: Sequence[str]) -> list[list[str]]:
        return [["ZREM", self.home.kv_times, *(key.removeprefix(self.home.kv) for key in keys)]]

    def _old_elements(self, elements: Sequence[str]) -> list[str]:
        until = sweep.time_ms(self.node) - self.ttl_ms
        scores = self.node.call("ZMSCORE", self.home.vector_times, *elements)
        found = zip(elements, scores, strict=True)
        return [each for each, score in found if score is not None and float(score) < until]

    def _ended_elements(self, elements: Sequence[str]) -> list[str]:
        now = sweep.time_ms(self.node)
        answers = self.node.each([["VGETATTR", self.home.vectors, each] for each in elements])
        return [each for each, answer in zip(elements, answers, strict=True) if _has_ended(answer, now)]

    def _forget_keys(self, keys: Sequence[str]) -> list[list[str]]:
        return [["UNLINK", *keys], *self._forget_times(keys)]

    def _forget(self, elements: Sequence[str]) -> list[list[str]]:
        commands = [["ZREM", self.home.vector_times, *elements]]
        for element in elements:
            chunk, _, key = element.partition(":")
            commands += [["VREM", self.home.vectors, element], ["SREM", self.home.vector_keys(key), chunk]]
        return commands


@dataclass(frozen=True)
class _Kind:
    """One kind of data: what a change of is noticed, which of it is to go now, and how it goes."""

    watched: Callable[[Sequence[str]], Sequence[str]]
    choose: Callable[[Sequence[str]], list[str]]
    remove: Callable[[Sequence[str]], list[list[str]]]


def _has_ended(attributes: object, now: int) -> bool:
    """Whether an element is past an end of its own; one whose attributes cannot be read stays."""
    if not isinstance(attributes, str):
        return False
    try:
        expires = int(json.loads(attributes).get("expires_at") or 0)
    except (AttributeError, TypeError, ValueError):
        return False
    return 0 < expires <= now


def _batches(items: Sequence[str]) -> Iterator[list[str]]:
    return (list(items[start : start + BATCH]) for start in range(0, len(items), BATCH))
