"""What goes in and comes out, the same for every backend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

# Whatever `json.dumps` takes.
Json: TypeAlias = Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector: TypeAlias = Sequence[float] | NDArray[Any]
else:  # numpy need not be there
    Vector: TypeAlias = Sequence[float]


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do, and how.

    Attributes:
        backend: Which one.
        embeddings: Whether vectors can be stored and searched.
        vector_search: "exact" compares with every vector, "indexed" may miss some when there are many; None without.
        text_search: "indexed" by the server, "scan" when the client reads all texts; None without.
        metrics: Distances that searches may use.
        appends_on_hold: Whether a legal hold lets new events in.
        dimension: How many numbers a vector has, None without embeddings.
    """

    backend: Literal["postgresql", "redis", "s3"]
    embeddings: bool
    vector_search: Literal["exact", "indexed"] | None
    text_search: Literal["indexed", "scan"] | None
    metrics: frozenset[str]
    appends_on_hold: bool
    dimension: int | None


@dataclass(frozen=True)
class Appended:
    """An event that was stored; `duplicate` when one with the same event id was there already, and is meant.

    `queued` when the offline queue keeps it: `id` is its event id then, and `created_at` when it was made.
    """

    id: str
    created_at: datetime
    duplicate: bool
    queued: bool = False


@dataclass(frozen=True)
class Event:
    """An event. `cursor` is what `read(before=...)` takes to go on with older ones."""

    id: str
    type: str
    payload: Json
    created_at: datetime
    cursor: str


@dataclass(frozen=True)
class Value:
    """A value and its version, which counts up from 1 with every write."""

    value: Json
    version: int
    updated_at: datetime


@dataclass(frozen=True)
class Embedding:
    """A vector to be stored under a key; a text of several parts has several chunks. `ttl` is in seconds."""

    key: str
    vector: Vector
    content: str | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)
    chunk: int = 0
    ttl: float | None = None


@dataclass(frozen=True)
class Hit:
    """A result of a search.

    Attributes:
        score: The higher the better; comparable within one search only.
        distance: To the query's vector by the Memory's metric, None when there was none.
    """

    key: str
    chunk: int
    content: str | None
    metadata: Mapping[str, Json]
    score: float
    distance: float | None


@dataclass(frozen=True)
class Status:
    """How a Memory is. `bytes` is None where the backend does not tell; `ttl_days` 0 means for ever."""

    events: int
    keys: int
    embeddings: int | None
    bytes: int | None
    index: Literal["exact", "building", "ready"] | None
    on_hold: bool
    ttl_days: int
