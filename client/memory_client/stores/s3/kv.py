"""Values: an object each, replaced by compare-and-set; one that was deleted leaves its version behind."""

import json
from datetime import datetime
from typing import Any

from memory_client.encoding import to_json
from memory_client.errors import OnHold, Unavailable, VersionConflict
from memory_client.stores.matching import lifetime
from memory_client.stores.s3.bucket import Bucket
from memory_client.stores.s3.cache import Cache
from memory_client.stores.s3.layout import Names, expired, expiry, now
from memory_client.stores.s3.register import Register
from memory_client.types import Json, Value

TRIES = 50
HELD = "this Memory is on legal hold: what is there is neither replaced nor deleted"


class Values:
    """The values of one Memory."""

    def __init__(self, bucket: Bucket, names: Names, register: Register) -> None:
        self._bucket = bucket
        self._names = names
        self._register = register
        self._shown: Cache[tuple[bool, str | None]] = Cache(bucket, _visibility)

    def get(self, key: str) -> Value | None:
        """Reads a value that has not expired."""
        entry = self._register.read(self._names.value(key))
        said: dict[str, Any] = json.loads(entry.body) if entry else {}
        if not _shows(said, now()):
            return None
        return Value(said["value"], said["version"], datetime.fromisoformat(said["updatedAt"]))

    def put(self, key: str, value: Json, *, expected_version: int | None, ttl: float | None, held: bool) -> int:
        """Writes a value in place of the one that was read."""
        lifetime(ttl)
        at = now()
        return self._replace(
            key, {"value": value, "expiresAt": expiry(ttl, at), "deleted": False}, expected_version, held=held
        )

    def delete(self, key: str, *, expected_version: int | None, held: bool) -> bool:
        """Writes that there is none any more."""
        gone = {"value": None, "expiresAt": None, "deleted": True}
        return self._replace(key, gone, expected_version, held=held) > 0

    def count(self) -> tuple[int, int]:
        """Gives how many can be read, and the bytes of all. It reads each that it has not read before."""
        at = now()
        found, size = self._shown.under(self._names.values)
        return sum(not deleted and not expired(expires_at, at) for deleted, expires_at in found.values()), size

    def _replace(self, key: str, fields: dict[str, Json], expected: int | None, *, held: bool) -> int:
        """Gives the version that was written, 0 when there was nothing to delete."""
        name = self._names.value(key)
        for _ in range(TRIES):
            entry = self._register.read(name)
            said: dict[str, Any] = json.loads(entry.body) if entry else {}
            at = now()
            stored = said["version"] if _shows(said, at) else 0
            if fields["deleted"] and not stored:
                return 0
            if expected not in (None, stored):
                raise VersionConflict(key, expected or 0, stored)
            if held and stored:
                raise OnHold(HELD)
            version = said.get("version", 0) + 1
            written = {"key": key, "version": version, "updatedAt": at.isoformat(), **fields}
            if self._register.write(name, to_json(written).encode(), entry):
                return int(version)
        msg = f'key "{key}": other writers were always faster'
        raise Unavailable(msg)


def _shows(said: dict[str, Any], at: datetime) -> bool:
    return bool(said) and not said["deleted"] and not expired(said["expiresAt"], at)


def _visibility(body: bytes) -> tuple[bool, str | None]:
    said = json.loads(body)
    return said["deleted"], said["expiresAt"]
