"""Embeddings: a vector set, which compares by cosine, with an index by time and one by key."""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from memory_client.encoding import from_bytes, to_json
from memory_client.stores import matching
from memory_client.stores.redis.layout import Keys, Meta, derived, milliseconds
from memory_client.stores.redis.server import Command, Server, Session
from memory_client.types import Embedding, Hit, Json

# As many vectors of 768 dimensions are compared one by one within some 10 ms.
EXACT = 10_000 * 768
# What is sent at once: embeddings, and elements whose attributes are asked for.
BATCH = 100
PAGE = 1000
# What a filter of VSIM can name (top-level fields), and compare with: the attribute `m_<name>` is a copy for it.
NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
PLAIN = re.compile(r"[A-Za-z0-9 _.,:;/@+-]{0,256}")
# Integers that a filter's floating point numbers can tell apart.
LARGEST = 2**53


class Vectors:
    """The embeddings of one Memory."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self._server = server
        self._keys = keys

    def upsert(self, meta: Meta, embeddings: Iterable[Embedding], pack: Callable[[Embedding], bytes]) -> int:
        """Stores embeddings, each in a transaction of its own, many at once on the way."""
        stored = 0
        rest = iter(embeddings)
        while batch := [(each, pack(each)) for each in islice(rest, BATCH)]:
            self._server.run(partial(_store, self._keys, meta, batch), repeatable=True)
            stored += len(batch)
        return stored

    def delete(self, key: str) -> int:
        """Removes the chunks of a key."""
        chunks_key = self._keys.vector_keys(key)

        def remove(session: Session) -> int:
            [chunks] = session.watch(chunks_key, ["SMEMBERS", chunks_key])
            if not chunks:
                return 0
            elements = [f"{chunk.decode()}:{key}" for chunk in chunks]
            removed = session.transaction(
                *(["VREM", self._keys.vectors, element] for element in elements),
                ["ZREM", self._keys.vector_times, *elements],
                ["DEL", chunks_key],
            )
            return sum(removed[: len(elements)])

        return self._server.run(remove, repeatable=False)

    def search(
        self, packed: bytes | None, *, words: matching.Words | None, limit: int, where: Mapping[str, Json] | None
    ) -> list[Hit]:
        """Searches by vector, by words, or by both."""
        keys = self._keys
        depth = matching.depth(limit, both=packed is not None and words is not None)

        def work(session: Session) -> list[Hit]:
            lists = []
            if packed is not None:
                lists.append(_nearest(session, keys, packed, depth, where))
            if words is not None:
                matched = matching.matching(_all(session, keys, where), words, depth)
                lists.append(matched if packed is None else _measured(session, keys, packed, matched))
            return matching.fuse(lists, limit)

        return self._server.run(work, repeatable=True)


def exact(elements: int, dimension: int) -> bool:
    """Says whether a search compares with every vector."""
    return elements * dimension <= EXACT


def filter_of(where: Mapping[str, Json] | None) -> str:
    """Translates what a filter can say of a containment; never more, so it never hides what is contained."""
    return " and ".join(
        f".m_{name} == {_literal(value)}"
        for name, value in sorted((where or {}).items())
        if NAME.fullmatch(name) and _filterable(value)
    )


def _store(keys: Keys, meta: Meta, batch: Sequence[tuple[Embedding, bytes]], session: Session) -> None:
    [time] = session.ask(["TIME"])
    now = milliseconds(time)
    session.ask(*(command for each, packed in batch for command in _stored(keys, meta, each, packed, now)))


def _stored(keys: Keys, meta: Meta, embedding: Embedding, packed: bytes, now: int) -> list[Command]:
    element = f"{embedding.chunk}:{embedding.key}"
    ttl = embedding.ttl
    metadata = dict(embedding.metadata)
    attributes = {
        "id": derived(f"{keys.vectors}/{element}"),
        "key": embedding.key,
        "chunk": embedding.chunk,
        "content": embedding.content,
        "metadata": metadata,
        "updated_at": now,
        "expires_at": None if ttl is None else now + max(1, round(ttl * 1000)),
    }
    attributes |= {f"m_{n}": v for n, v in metadata.items() if NAME.fullmatch(n) and _filterable(v)}
    quantization = "Q8" if meta.storage == "half" else "NOQUANT"
    vector = ["VADD", keys.vectors, "FP32", packed, element, quantization, "SETATTR", to_json(attributes)]
    return [
        ["MULTI"],
        vector,
        ["ZADD", keys.vector_times, now, element],
        ["SADD", keys.vector_keys(embedding.key), embedding.chunk],
        ["EXEC"],
    ]


def _filterable(value: Json) -> bool:
    if isinstance(value, str):
        return PLAIN.fullmatch(value) is not None
    if isinstance(value, bool):
        return True
    return isinstance(value, int | float) and abs(value) < LARGEST and math.isfinite(value)


def _literal(value: Json) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(int(value)) if isinstance(value, bool | int) else format(value, ".17g")


@dataclass(frozen=True)
class _Record:
    """What is stored with a vector."""

    hit: Hit
    expires_at: int | None

    @classmethod
    def of(cls, attributes: bytes) -> "_Record":
        stored = json.loads(attributes)
        hit = Hit(stored["key"], stored["chunk"], stored["content"], stored["metadata"], score=0.0, distance=None)
        return cls(hit, stored["expires_at"])

    def shows(self, now: int, where: Mapping[str, Json] | None) -> bool:
        return (self.expires_at is None or self.expires_at > now) and matching.contains(self.hit.metadata, where or {})


def _nearest(session: Session, keys: Keys, packed: bytes, limit: int, where: Mapping[str, Json] | None) -> list[Hit]:
    """Asks for more as long as what does not count (expired, other metadata) leaves too few."""
    elements, time = session.ask(["VCARD", keys.vectors], ["TIME"])
    if not elements:
        return []
    now = milliseconds(time)
    how: list[str | int] = ["TRUTH"] if exact(elements, len(packed) // 4) else []
    condition = filter_of(where)
    if condition:
        # As many as it takes, instead of a hundred times as many as are asked for.
        how = [*how, "FILTER", condition, "FILTER-EF", elements]
    count = limit
    while True:
        depth = [] if "TRUTH" in how else ["EF", max(2 * count, 400)]
        [answer] = session.ask(["VSIM", keys.vectors, "FP32", packed, "WITHSCORES", "COUNT", count, *depth, *how])
        found = _hits(session, keys, answer[::2], now, where)
        similar = dict(zip(answer[::2], answer[1::2], strict=True))
        # VSIM says how similar: 1 for the same direction, 0 for the opposite one.
        hits = [replace(hit, distance=2 * (1 - float(similar[element]))) for element, hit in found]
        if len(hits) >= limit or len(similar) < count or count >= elements:
            return sorted(hits, key=matching.order)[:limit]
        count = min(4 * count, elements)


def _all(session: Session, keys: Keys, where: Mapping[str, Json] | None) -> Iterator[Hit]:
    elements, time = session.ask(["ZRANGE", keys.vector_times, 0, -1], ["TIME"])
    for first in range(0, len(elements), PAGE):
        page = elements[first : first + PAGE]
        yield from (hit for _, hit in _hits(session, keys, page, milliseconds(time), where))


def _hits(
    session: Session, keys: Keys, elements: Sequence[bytes], now: int, where: Mapping[str, Json] | None
) -> list[tuple[bytes, Hit]]:
    """Gives what belongs to elements; one that is removed meanwhile has nothing."""
    answers = session.ask(*(["VGETATTR", keys.vectors, element] for element in elements)) if elements else []
    records = [
        (element, _Record.of(answer)) for element, answer in zip(elements, answers, strict=True) if answer is not None
    ]
    return [(element, record.hit) for element, record in records if record.shows(now, where)]


def _measured(session: Session, keys: Keys, packed: bytes, hits: Sequence[Hit]) -> list[Hit]:
    """Gives hits with their distances."""
    if not hits:
        return []
    answers = session.ask(*(["VEMB", keys.vectors, f"{hit.chunk}:{hit.key}"] for hit in hits))
    given = from_bytes(packed, "<f")
    return [
        replace(hit, distance=_distance(given, [float(number) for number in answer]))
        for hit, answer in zip(hits, answers, strict=True)
        if answer is not None
    ]


def _distance(left: Sequence[float], right: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(left, right, strict=True))
    return 1 - product / (math.hypot(*left) * math.hypot(*right))
