"""Names of keys, and what is in them (docs/redis.md)."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from memory_client.errors import BindingError

DAY = 86_400_000


@dataclass(frozen=True)
class Meta:
    """What the provisioner says of a Memory.

    Attributes:
        dimension: Of the embeddings, None without.
        storage: "full" (32 bits a number) or "half" (8 bits).
        ttl_days: How long entries live, 0 for ever.
        legal_hold: Whether nothing may be changed.
    """

    dimension: int | None
    metric: str | None
    storage: str
    ttl_days: int
    legal_hold: bool

    @classmethod
    def of(cls, prefix: str, fields: dict[str, str]) -> "Meta":
        """Reads the hash `meta`.

        Raises:
            BindingError: There is none, or another contract.
        """
        if fields.get("contract") != "1":
            there = f"contract {fields['contract']}" if "contract" in fields else "no Memory"
            msg = f'"{prefix}" has {there}, and this client knows contract 1: check the binding'
            raise BindingError(msg)
        dimension = fields.get("dimension")
        return cls(
            dimension=int(dimension) if dimension else None,
            metric=fields.get("metric") or None if dimension else None,
            storage=fields.get("storage", "full"),
            ttl_days=int(fields.get("ttl_days") or 0),
            legal_hold=fields.get("legal_hold") == "1",
        )


@dataclass(frozen=True)
class Keys:
    """Keys of one Memory; `prefix` ends with a colon."""

    prefix: str

    @property
    def meta(self) -> str:
        """A hash that apps only read."""
        return f"{self.prefix}meta"

    @property
    def events(self) -> str:
        """A stream."""
        return f"{self.prefix}events"

    @property
    def vectors(self) -> str:
        """A vector set."""
        return f"{self.prefix}vectors"

    @property
    def vector_times(self) -> str:
        """A sorted set of all elements of the vector set, by when they were stored."""
        return f"{self.prefix}vector-times"

    def vector_keys(self, key: str) -> str:
        """The set of a key's chunks."""
        return f"{self.prefix}vector-keys:{key}"

    def kv(self, key: str) -> str:
        """A hash."""
        return f"{self.prefix}kv:{key}"

    @property
    def kv_times(self) -> str:
        """A sorted set of the keys of all values, by when they were written."""
        return f"{self.prefix}kv-times"

    def event_id(self, digest: str) -> str:
        """A string: the stream's entry of the event."""
        return f"{self.prefix}event-id:{digest}"


def digest(source: str, event_id: str) -> str:
    """Names what a producer may send again."""
    return hashlib.sha256(f"{source}\0{event_id}".encode()).hexdigest()


def derived(text: str) -> str:
    """Gives the same UUID for the same text."""
    return str(UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=5))


def milliseconds(answer: list[bytes]) -> int:
    """Reads what TIME answers."""
    seconds, microseconds = map(int, answer)
    return seconds * 1000 + microseconds // 1000


def moment(ms: int) -> datetime:
    """Gives a point in time."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def fields(flat: list[bytes]) -> dict[str, str]:
    """Reads what HGETALL answers, or an entry of a stream."""
    texts = [text.decode() for text in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def number(text: Any) -> int | None:
    """Reads a number that may be missing or empty."""
    return int(text) if text else None
