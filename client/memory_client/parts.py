"""Many embeddings, part by part."""

from collections.abc import Iterable, Iterator
from itertools import islice

from memory_client.types import Embedding

# Numbers of a part's vectors: 32 MB as backends store them.
NUMBERS = 8 << 20


def part(embeddings: Iterator[Embedding], *, rows: int | None = None) -> list[Embedding]:
    """Takes the next ones: as many as may be held in memory, and `rows` at most; none when there are no more."""
    first = list(islice(embeddings, 1))
    if not first:
        return []
    most = max(1, NUMBERS // max(1, len(first[0].vector)))
    return first + list(islice(embeddings, min(most, rows or most) - 1))


def parts(embeddings: Iterable[Embedding]) -> Iterator[list[Embedding]]:
    """Goes through all of them."""
    given = iter(embeddings)
    while taken := part(given):
        yield taken
