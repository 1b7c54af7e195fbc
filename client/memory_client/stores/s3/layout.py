"""Names of objects, and what is in them (docs/s3.md)."""

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from memory_client.errors import BindingError

# Listings give the smallest name first: counted down from here, the newest event has it.
LAST = 10**18 - 1
EVENT = re.compile(r"([0-9]{18})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.json")
# A name of S3 has up to 1024 bytes, and ours has more than the key in it.
LONGEST_NAME = 800
KEPT_OF_LONG = 600
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Meta:
    """What the provisioner says of a Memory.

    Attributes:
        dimension: Of the embeddings, None without.
        ttl_days: How long entries live, 0 for ever.
        legal_hold: Whether what is there must stay.
        versioning: Whether the bucket keeps what is written over.
        object_lock: Whether objects can be put on hold.
        conditional_put: Whether a PUT may have conditions.
    """

    dimension: int | None
    metric: str | None
    ttl_days: int
    legal_hold: bool
    versioning: bool
    object_lock: bool
    conditional_put: bool

    @classmethod
    def of(cls, place: str, body: bytes | None) -> "Meta":
        """Reads `meta.json`.

        Raises:
            BindingError: There is none, or another contract.
        """
        said: dict[str, Any] = json.loads(body) if body else {}
        if said.get("contract") != 1:
            there = f"contract {said['contract']}" if "contract" in said else "no Memory"
            msg = f"{place} has {there}, and this client knows contract 1: check the binding"
            raise BindingError(msg)
        dimension = said.get("dimension")
        versioning = bool(said.get("versioning"))
        return cls(
            dimension=dimension,
            metric=said.get("metric") if dimension else None,
            ttl_days=said.get("ttlDays") or 0,
            legal_hold=bool(said.get("legalHold")),
            versioning=versioning,
            object_lock=bool(said.get("objectLock")),
            conditional_put=bool(said.get("conditionalPut")),
        )


@dataclass(frozen=True)
class Names:
    """Names of one Memory's objects; `prefix` ends with a slash."""

    prefix: str

    @property
    def meta(self) -> str:
        """What apps only read."""
        return f"{self.prefix}meta.json"

    @property
    def events(self) -> str:
        """What the names of events begin with."""
        return f"{self.prefix}events/"

    @property
    def values(self) -> str:
        """What the names of values begin with."""
        return f"{self.prefix}kv/"

    @property
    def embeddings(self) -> str:
        """What the names of embeddings begin with."""
        return f"{self.prefix}embeddings/"

    def event_id(self, source: str, event_id: str) -> str:
        """What remembers an event that its source may send again."""
        sender = hashlib.sha256(f"{source}\0{event_id}".encode())
        return f"{self.prefix}event-ids/{sender.hexdigest()}"

    def value(self, key: str) -> str:
        """A value."""
        return f"{self.values}{encoded(key)}.json"

    def chunks(self, key: str) -> str:
        """What the names of a key's embeddings begin with."""
        return f"{self.embeddings}{encoded(key)}/"

    def embedding(self, key: str, chunk: int) -> str:
        """An embedding."""
        return f"{self.chunks(key)}{chunk}.json"


def encoded(key: str) -> str:
    """Gives a key as one part of a name: percent-encoded, and a long one cut, with its hash after a tilde."""
    name = quote(key, safe="").replace("~", "%7E")
    if len(name) > LONGEST_NAME:
        return f"{name[:KEPT_OF_LONG]}~{hashlib.sha256(key.encode()).hexdigest()}"
    # Parts "." and ".." mean something in an URL, and libraries take them out.
    return name.replace(".", "%2E") if not name.strip(".") else name


def event_name(microseconds: int, event_id: str) -> str:
    """Names an event; the later it is, the sooner a listing gives it."""
    return f"{LAST - microseconds:018d}-{event_id}.json"


def event_of(name: str) -> tuple[str, datetime]:
    """Gives the id and the time of an event from its name.

    Raises:
        ValueError: It is not the name of an event.
    """
    found = EVENT.fullmatch(name)
    if not found:
        msg = f'before is "{name}": give the cursor of an event that was read'
        raise ValueError(msg)
    return found[2], EPOCH + timedelta(microseconds=LAST - int(found[1]))


class Clock:
    """Gives each event of one client a time of its own, in microseconds since 1970: S3 has no clock to ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        """Gives a time that is later than all before."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last


def now() -> datetime:
    """Gives this machine's time."""
    return datetime.now(UTC)


def expiry(ttl: float | None, since: datetime) -> str | None:
    """Says when something expires, None for never."""
    return None if ttl is None else (since + timedelta(seconds=ttl)).isoformat()


def expired(expires_at: str | None, at: datetime) -> bool:
    """Whether something is past its time."""
    return expires_at is not None and datetime.fromisoformat(expires_at) <= at
