"""Looking at every key once: what each home has, and what of it is too old.

Key-value entries and event ids are keys of their own, and no index names them, so a run walks the whole keyspace; once
for all homes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import redis

from migrations.deadline import Deadline
from migrations.redis.names import Home
from migrations.redis.server import Node, Server

# Keys that SCAN looks at in one go.
PAGE = 1000
# Entries of one home whose size is asked, to know the others' by.
SAMPLED = 20
# Old keys of one home that a run remembers: what is left over the next run finds.
REMEMBERED = 50_000
DAY_MS = 86_400_000
# So far the expiry of an event id may be off before it is set anew.
SLACK_MS = 60_000


@dataclass
class Seen:
    """What a walk saw of one home.

    Attributes:
        home: Which.
        ttl_ms: How long its data is kept, 0 for ever.
        held: Whether nothing of it may go.
        keys: How many key-value entries it has.
        oldest: When the oldest of those that stay was written, milliseconds since 1970, None without one.
        old: Entries that seemed to be old.
        event_ids: Event ids that seemed not to expire with their events.
        sizes: Bytes of some entries.
    """

    home: Home
    ttl_ms: int
    held: bool
    keys: int = 0
    oldest: int | None = None
    old: list[str] = field(default_factory=list)
    event_ids: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """How large its entries are, told from some of them."""
        return sum(self.sizes) * self.keys // len(self.sizes) if self.sizes else 0


def time_ms(node: Node) -> int:
    """Gives the node's time, in milliseconds since 1970."""
    seconds, microseconds = node.call("TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000


def walk(server: Server, homes: Sequence[Seen], key_prefix: str, deadline: Deadline) -> bool:
    """Looks at every key of every home.

    On hold they lose their expiry; that is all that changes.

    Returns:
        Whether it came to the end in time.
    """
    by_prefix = {seen.home.prefix: seen for seen in homes}
    for node in server.primaries:
        now = time_ms(node)
        for page in pages(node, f"{key_prefix}:*"):
            for seen, keys in _grouped(page, by_prefix):
                _look(node, seen, keys, now)
            if deadline.passed:
                return False
    return True


def pages(node: Node, pattern: str) -> Iterator[list[str]]:
    """Gives the node's keys, some at a time; a key that is there all the time comes at least once."""
    cursor = "0"
    while True:
        cursor, page = node.call("SCAN", cursor, "MATCH", pattern, "COUNT", PAGE)
        if page:
            yield page
        if cursor == "0":
            return


def keep_all(server: Server, home: Home) -> None:
    """Takes the expiry off every key of a home: Redis itself knows no hold."""
    node = server.at(home.meta)
    for page in pages(node, f"{home.prefix}*"):
        node.all([["PERSIST", key] for key in page])


def remove_all(server: Server, home: Home, check: Callable[[], None]) -> None:
    """Removes every key of a home.

    Args:
        server: Where.
        home: Whose.
        check: Is called between pages, and raises when we must not go on.
    """
    node = server.at(home.meta)
    for page in pages(node, f"{home.prefix}*"):
        check()
        node.call("UNLINK", *page)


def _grouped(page: Sequence[str], by_prefix: Mapping[str, Seen]) -> Iterator[tuple[Seen, list[str]]]:
    found: dict[str, list[str]] = {}
    for key in page:
        prefix = key[: key.find("}:") + 2]
        if prefix in by_prefix:
            found.setdefault(prefix, []).append(key)
    return ((by_prefix[prefix], keys) for prefix, keys in found.items())


def _look(node: Node, seen: Seen, keys: Sequence[str], now: int) -> None:
    entries = [key for key in keys if key.startswith(seen.home.kv)]
    seen.keys += len(entries)
    for key, times in zip(entries, times_of(node, entries), strict=True):
        if times is None:
            continue
        if seen.held or not is_old(times, seen.ttl_ms, now):
            seen.oldest = min(times[0], seen.oldest or times[0])
        elif len(seen.old) < REMEMBERED:
            seen.old.append(key)
    sampled = node.each([["MEMORY", "USAGE", key] for key in entries[: SAMPLED - len(seen.sizes)]])
    seen.sizes += [size for size in sampled if isinstance(size, int)]
    if seen.held:
        node.all([["PERSIST", key] for key in keys])
    else:
        seen.event_ids += _mistimed(node, [key for key in keys if key.startswith(seen.home.event_ids)], seen)


def times_of(node: Node, keys: Sequence[str]) -> list[tuple[int, int] | None]:
    """Reads when key-value entries were written and when they expire (0: never); None of what is no entry."""
    answers = node.each([["HMGET", key, "updated_at", "expires_at"] for key in keys])
    return [_times(answer) for answer in answers]


def _times(answer: object) -> tuple[int, int] | None:
    """Reads an entry's times. What cannot be read is not known to be old, so it stays."""
    if isinstance(answer, redis.RedisError) or not isinstance(answer, list):
        return None
    updated, expires = answer
    try:
        return int(updated), int(expires or 0)
    except (TypeError, ValueError):
        return None


def is_old(times: tuple[int, int], ttl_ms: int, now: int) -> bool:
    """Whether an entry is older than its Memory keeps them, or past an end of its own."""
    updated, expires = times
    return bool((ttl_ms and updated < now - ttl_ms) or (expires and expires <= now))


def _mistimed(node: Node, keys: Sequence[str], seen: Seen) -> list[str]:
    """Names event ids that do not expire with their events; not more than a run remembers."""
    if len(seen.event_ids) >= REMEMBERED:
        return []
    found = zip(keys, retimed(node, keys, seen.ttl_ms), strict=True)
    return [key for key, change in found if change]


def retimed(node: Node, keys: Sequence[str], ttl_ms: int) -> list[list[str | int]]:
    """Gives the command that lets each event id expire with its event, [] where it does already.

    A longer or shorter ttlDays counts for those that are there, too.
    """
    answers = node.each([words for key in keys for words in (["GET", key], ["PTTL", key])])
    now = time_ms(node) if keys else 0
    return [
        _retimed(key, event, left, ttl_ms, now)
        for key, event, left in zip(keys, answers[::2], answers[1::2], strict=True)
    ]


def _retimed(key: str, event: object, left: int, ttl_ms: int, now: int) -> list[str | int]:
    milliseconds = event.partition("-")[0] if isinstance(event, str) else ""
    if not milliseconds.isdecimal():
        return []
    ends = int(milliseconds) + ttl_ms
    if not ttl_ms:
        return ["PERSIST", key] if left >= 0 else []
    return ["PEXPIREAT", key, ends] if left < 0 or abs(now + left - ends) > SLACK_MS else []
