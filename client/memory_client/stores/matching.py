"""What PostgreSQL's functions do for a search, for backends that do not: containment, words, fusion of two lists."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memory_client.types import Hit, Json

# The constant of reciprocal rank fusion (Cormack et al. 2009), as memory_search has it.
RANK = 60
# A word of a text; PostgreSQL's parser knows more kinds (addresses, numbers with signs), which here are several words.
WORD = re.compile(r"\w+")
# What a query is made of: a phrase in quotes, or whatever stands between blanks; either may be unwanted.
TERM = re.compile(r'(-?)(?:"([^"]*)"?|([^\s"]+))')


def contains(value: Json, wanted: Json) -> bool:
    """Says whether a JSON value contains another one, as PostgreSQL's `@>` means it.

    Objects contain objects that have fewer keys, arrays contain arrays whose elements they have, in whatever order.
    """
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and all(k in value and contains(value[k], v) for k, v in wanted.items())
    if isinstance(wanted, list | tuple):
        return isinstance(value, list | tuple) and all(any(contains(v, w) for v in value) for w in wanted)
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return not isinstance(value, Mapping | list | tuple) and bool(value == wanted)


@dataclass(frozen=True)
class Words:
    """A query as `websearch_to_tsquery('simple', …)` reads it.

    Attributes:
        ways: Each a way to match: phrases that must be there, and phrases that must not.
    """

    ways: Sequence[tuple[Sequence[Sequence[str]], Sequence[Sequence[str]]]]

    @classmethod
    def read(cls, query: str | None) -> "Words | None":
        """Reads a query: words that must all be there, "phrases", `or`, and `-unwanted`; None for a blank one."""
        if query is None or not query.strip():
            return None
        ways: list[tuple[list[list[str]], list[list[str]]]] = [([], [])]
        terms = TERM.findall(query)
        follows = False
        for place, (unwanted, quoted, bare) in enumerate(terms, 1):
            # It is a word like others where there is nothing on one of its sides.
            if bare.lower() == "or" and not unwanted and follows and place < len(terms):
                ways.append(([], []))
                follows = False
                continue
            follows = True
            if phrase := WORD.findall((quoted or bare).lower()):
                ways[-1][bool(unwanted)].append(phrase)
        return cls([way for way in ways if any(way)])

    def relevance(self, text: str | None) -> float | None:
        """Gives how well a text matches, None when it does not: the more often and the nearer together, the better."""
        words = WORD.findall((text or "").lower())
        places: dict[str, list[int]] = {}
        for place, word in enumerate(words):
            places.setdefault(word, []).append(place)
        found = [
            sum(_covers([_places(phrase, places) for phrase in wanted]))
            for wanted, unwanted in self.ways
            if all(_places(phrase, places) for phrase in wanted)
            and not any(_places(phrase, places) for phrase in unwanted)
        ]
        return max(found, default=None)


def _places(phrase: Sequence[str], places: Mapping[str, Sequence[int]]) -> list[int]:
    """Says where a phrase begins."""
    rest = [set(places.get(word, ())) for word in phrase[1:]]
    return [first for first in places.get(phrase[0], ()) if all(first + n in at for n, at in enumerate(rest, 1))]


def _covers(terms: Sequence[Sequence[int]]) -> Iterator[float]:
    """Weighs each shortest stretch of a text that has all terms (Clarke et al. 1999); 1 with nothing in between."""
    found = sorted((place, term) for term, places in enumerate(terms) for place in places)
    last: dict[int, int] = {}
    begun = -1
    for place, term in found:
        last[term] = place
        start = min(last.values())
        # Of the stretches that begin at one place, the first to be complete is the shortest.
        if len(last) == len(terms) and start > begun:
            begun = start
            yield 1 / (1 + max(0, place - start - (len(terms) - 1)))


def order(hit: Hit) -> tuple[float, bytes, int]:
    """Orders by distance, then as PostgreSQL's collation "C" does by key, then by chunk."""
    return (hit.distance if hit.distance is not None else 0.0, hit.key.encode(), hit.chunk)


def depth(limit: int, *, both: bool) -> int:
    """Says how deep each list is followed when two are fused, as memory_search does."""
    return max(4 * limit, RANK) if both else limit


def matching(candidates: Iterable[Hit], words: Words, limit: int) -> list[Hit]:
    """Gives the candidates whose content has the words, the best first."""
    found = [(relevance, hit) for hit in candidates if (relevance := words.relevance(hit.content)) is not None]
    found.sort(key=lambda each: (-each[0], each[1].key.encode(), each[1].chunk))
    return [hit for _, hit in found[:limit]]


def fuse(lists: Sequence[Sequence[Hit]], limit: int) -> list[Hit]:
    """Fuses lists, each with its best first: a score is the sum of 1 / (60 + rank) over the lists that have the hit."""
    scores: dict[tuple[str, int], float] = {}
    hits: dict[tuple[str, int], Hit] = {}
    for each in lists:
        for rank, hit in enumerate(each, 1):
            place = (hit.key, hit.chunk)
            hits[place] = hit
            scores[place] = scores.get(place, 0.0) + 1 / (RANK + rank)
    fused = [replace(hit, score=scores[place]) for place, hit in hits.items()]
    return sorted(fused, key=lambda hit: (-hit.score, *order(hit)))[:limit]


def asked(vector: Any, query: str | None, where: Mapping[str, Json] | None, limit: int) -> Words | None:
    """Looks whether a search makes sense, and gives the words to search for.

    Raises:
        ValueError: It does not.
    """
    positive(limit)
    words = Words.read(query)
    if vector is None and words is None:
        msg = "nothing to search for: give a vector, a query, or both"
        raise ValueError(msg)
    if where is not None and not isinstance(where, Mapping):
        msg = f"where is {where!r}: give a mapping that the metadata must contain"
        raise ValueError(msg)
    return words


def positive(limit: int) -> None:
    """Refuses a limit that gives nothing."""
    if limit < 1:
        msg = f"limit is {limit}: give a number from 1 on"
        raise ValueError(msg)


def lifetime(ttl: float | None) -> None:
    """Refuses a lifetime that is over before it begins."""
    if ttl is not None and not ttl > 0:
        msg = f"ttl is {ttl}: give seconds above 0, or None to keep it for ever"
        raise ValueError(msg)
