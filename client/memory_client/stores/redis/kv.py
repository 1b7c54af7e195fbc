"""Values: a hash each, written by compare-and-set."""

import json
from collections.abc import Iterator
from typing import Any

from memory_client.encoding import to_json
from memory_client.errors import VersionConflict
from memory_client.stores.matching import lifetime
from memory_client.stores.redis.layout import DAY, Keys, milliseconds, moment, number
from memory_client.stores.redis.server import Server, Session
from memory_client.types import Json, Value

# How many values are looked at at once.
PAGE = 1000


class Values:
    """The values of one Memory."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self._server = server
        self._keys = keys

    def get(self, key: str) -> Value | None:
        """Reads a value that has not expired."""
        read = ["HMGET", self._keys.kv(key), "value", "version", "updated_at", "expires_at"]
        [found, time] = self._server.run(lambda session: session.ask(read, ["TIME"]), repeatable=True)
        text, version, updated_at, expires_at = found
        if text is None or _expired(expires_at, time):
            return None
        return Value(json.loads(text), int(version), moment(int(updated_at)))

    def put(self, key: str, value: Json, *, expected_version: int | None, ttl: float | None) -> int:
        """Writes a value, in a transaction that a change since its version was read makes void."""
        lifetime(ttl)
        text = to_json(value)
        hash_key = self._keys.kv(key)

        def write(session: Session) -> int:
            stored, there, now = _current(session, hash_key)
            if expected_version is not None and expected_version != (stored if there else 0):
                raise VersionConflict(key, expected_version, stored if there else 0)
            expires_at = None if ttl is None else now + max(1, round(ttl * 1000))
            written = ["value", text, "version", stored + 1, "updated_at", now, "expires_at", expires_at or ""]
            # A day more than it can be read: what expired is maintenance's to remove, and this only helps.
            last = ["PEXPIREAT", hash_key, expires_at + DAY] if expires_at else ["PERSIST", hash_key]
            session.transaction(["HSET", hash_key, *written], last, ["ZADD", self._keys.kv_times, now, key])
            return stored + 1

        return self._server.run(write, repeatable=False)

    def delete(self, key: str, *, expected_version: int | None) -> bool:
        """Removes a value, in such a transaction."""
        hash_key = self._keys.kv(key)

        def remove(session: Session) -> bool:
            stored, there, _ = _current(session, hash_key)
            if not there:
                return False
            if expected_version not in (None, stored):
                raise VersionConflict(key, expected_version or 0, stored)
            session.transaction(["DEL", hash_key], ["ZREM", self._keys.kv_times, key])
            return True

        return self._server.run(remove, repeatable=False)

    def count(self) -> int:
        """Counts what can be read; it looks at every key, because time removes values without telling."""
        return self._server.run(lambda session: sum(self._counts(session)), repeatable=True)

    def _counts(self, session: Session) -> Iterator[int]:
        names, time = session.ask(["ZRANGE", self._keys.kv_times, 0, -1], ["TIME"])
        for first in range(0, len(names), PAGE):
            page = names[first : first + PAGE]
            found = session.ask(*(["HMGET", self._keys.kv(name.decode()), "version", "expires_at"] for name in page))
            yield sum(version is not None and not _expired(expires_at, time) for version, expires_at in found)


def _current(session: Session, hash_key: str) -> tuple[int, bool, int]:
    """Gives the version (0 for none), whether it can be read, and the server's time in milliseconds."""
    found: list[Any]
    [found, time] = session.watch(hash_key, ["HMGET", hash_key, "version", "expires_at"], ["TIME"])
    version, expires_at = found
    return int(version or 0), version is not None and not _expired(expires_at, time), milliseconds(time)


def _expired(expires_at: bytes | None, time: list[bytes]) -> bool:
    limit = number(expires_at)
    return limit is not None and limit <= milliseconds(time)
