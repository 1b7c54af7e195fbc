"""Embeddings: an object each. A search reads all of them, those that it has not read before, and compares with each."""

import base64
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from operator import mul
from uuid import NAMESPACE_URL, uuid5

from memory_client.encoding import from_bytes, to_json
from memory_client.errors import OnHold
from memory_client.stores import matching
from memory_client.stores.s3.bucket import Bucket
from memory_client.stores.s3.cache import Cache
from memory_client.stores.s3.kv import HELD
from memory_client.stores.s3.layout import Names, expired, expiry, now
from memory_client.types import Embedding, Hit, Json

try:
    import numpy as np
except ImportError:  # without it vectors are compared one number at a time
    np = None  # type: ignore[assignment]

# Embeddings that are written before more are taken.
BATCH = 64
# Vectors that are compared at once: their numbers are made twice as wide for that.
ROWS = 4096
FLOAT = 4


@dataclass(frozen=True)
class Record:
    """An embedding as it is stored; `packed` is its vector."""

    hit: Hit
    expires_at: str | None
    packed: bytes

    @classmethod
    def of(cls, body: bytes) -> "Record":
        """Reads the body of an object."""
        said = json.loads(body)
        hit = Hit(said["key"], said["chunk"], said["content"], said["metadata"], score=0.0, distance=None)
        return cls(hit, said["expiresAt"], base64.b64decode(said["vector"]))

    def shows(self, at: datetime, where: Mapping[str, Json] | None) -> bool:
        """Whether it counts in a search."""
        return not expired(self.expires_at, at) and matching.contains(self.hit.metadata, where or {})


class Vectors:
    """The embeddings of one Memory."""

    def __init__(self, bucket: Bucket, names: Names) -> None:
        self._bucket = bucket
        self._names = names
        self._cache = Cache(bucket, Record.of)

    def upsert(self, embeddings: Iterable[Embedding], pack: Callable[[Embedding], bytes], *, held: bool) -> int:
        """Writes embeddings, several at once."""
        stored = 0
        rest = iter(embeddings)
        there = self._listed(self._names.embeddings) if held else set()
        while batch := list(islice(rest, BATCH)):
            # Of those with one name the last one counts.
            bodies = {self._names.embedding(each.key, each.chunk): self._body(each, pack(each)) for each in batch}
            if there & bodies.keys():
                raise OnHold(HELD)
            self._bucket.each(lambda pair: self._bucket.put(*pair, held=held), bodies.items())
            stored += len(batch)
        return stored

    def delete(self, key: str, *, held: bool) -> int:
        """Deletes the chunks of a key."""
        found = self._listed(self._names.chunks(key))
        if held and found:
            raise OnHold(HELD)
        self._bucket.each(self._bucket.delete, found)
        return len(found)

    def search(
        self,
        packed: bytes | None,
        *,
        metric: str,
        words: matching.Words | None,
        limit: int,
        where: Mapping[str, Json] | None,
    ) -> list[Hit]:
        """Searches by vector, by words, or by both."""
        at = now()
        found, _ = self._cache.under(self._names.embeddings)
        records = [record for record in found.values() if record.shows(at, where)]
        depth = matching.depth(limit, both=packed is not None and words is not None)
        hits = [record.hit for record in records]
        lists = []
        if packed is not None:
            # One of another dimension is from before the claim got this one.
            alike = [record for record in records if len(record.packed) == len(packed)]
            distances = distances_of(packed, [record.packed for record in alike], metric)
            hits = [replace(record.hit, distance=far) for record, far in zip(alike, distances, strict=True)]
            lists.append(sorted(hits, key=matching.order)[:depth])
        if words is not None:
            lists.append(matching.matching(hits, words, depth))
        return matching.fuse(lists, limit)

    def count(self) -> tuple[int, int]:
        """Gives how many there are, and their bytes."""
        found = [each.size for page in self._bucket.names(self._names.embeddings) for each in page]
        return len(found), sum(found)

    def _listed(self, prefix: str) -> set[str]:
        return {each.name for page in self._bucket.names(prefix) for each in page}

    def _body(self, embedding: Embedding, packed: bytes) -> bytes:
        at = now()
        stored = {
            "id": str(uuid5(NAMESPACE_URL, self._names.embedding(embedding.key, embedding.chunk))),
            "key": embedding.key,
            "chunk": embedding.chunk,
            "content": embedding.content,
            "metadata": dict(embedding.metadata),
            "vector": base64.b64encode(packed).decode(),
            "updatedAt": at.isoformat(),
            "expiresAt": expiry(embedding.ttl, at),
        }
        return to_json(stored).encode()


def distances_of(packed: bytes, others: Sequence[bytes], metric: str) -> list[float]:
    """Gives the distances of a vector to others, as pgvector has them.

    Args:
        packed: The vector, 32-bit floating point numbers with their lowest byte first.
        others: Vectors of the same length.
        metric: `cosine`: 1 less the cosine; `l2`: Euclid's; `ip`: the negative inner product.
    """
    if np is None:
        return [_distance(from_bytes(packed, "<f"), from_bytes(other, "<f"), metric) for other in others]
    vector = np.frombuffer(packed, "<f4").astype(np.float64)
    found: list[float] = []
    for first in range(0, len(others), ROWS):
        joined = b"".join(others[first : first + ROWS])
        rows = np.frombuffer(joined, "<f4").reshape(-1, len(packed) // FLOAT).astype(np.float64)
        if metric == "l2":
            distances = np.linalg.norm(rows - vector, axis=1)
        elif metric == "ip":
            distances = -(rows @ vector)
        else:
            distances = 1 - rows @ vector / (np.linalg.norm(rows, axis=1) * np.linalg.norm(vector))
        found += distances.tolist()
    return found


def _distance(left: Sequence[float], right: Sequence[float], metric: str) -> float:
    if metric == "l2":
        return math.dist(left, right)
    product: float = sum(map(mul, left, right))
    return -product if metric == "ip" else 1 - product / (math.hypot(*left) * math.hypot(*right))
