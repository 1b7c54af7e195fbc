"""What backends without PostgreSQL's functions do for a search is what PostgreSQL does."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_client.stores.matching import Words, asked, contains, depth, fuse, lifetime, matching, positive
from memory_client.types import Hit
from tests.postgres import Connection, Servers

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, 2.0]) | st.sampled_from("ab")
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)
WORDS = ("tea", "green", "Anna", "or", "-", '"', "likes", "e-mail", "größe", "42")
TERMS = ("tea", "green", "-tea", "or", '"green tea"', '-"likes green"', "Anna")
QUERIES = st.lists(st.sampled_from(TERMS), max_size=4).map(" ".join)
TEXTS = st.lists(st.sampled_from((*WORDS, ",", "Tea.")), max_size=8).map(" ".join)


@pytest.fixture(scope="module")
def connection(postgres_servers: Servers) -> Iterator[Connection]:
    with postgres_servers.get(18).database() as database, database.superuser() as opened:
        yield opened


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=OBJECTS, wanted=OBJECTS)
def test_containment_is_postgresqls(connection: Connection, value: Any, wanted: Any) -> None:
    row = connection.execute("SELECT %s::jsonb @> %s::jsonb", [json.dumps(value), json.dumps(wanted)]).fetchone()
    assert row is not None
    assert contains(value, wanted) is row[0]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=TEXTS,
    query=st.lists(
        st.sampled_from(("tea", "green", "-tea", "or", '"green tea"', '-"likes green"', "Anna")), max_size=4
    ).map(" ".join),
)
def test_words_match_as_on_postgresql(connection: Connection, text: str, query: str) -> None:
    statement = "SELECT to_tsvector('simple', %s) @@ websearch_to_tsquery('simple', %s)"
    row = connection.execute(statement, [text, query]).fetchone()
    assert row is not None
    words = Words.read(query)
    assert (words is not None and words.relevance(text) is not None) is row[0]


def hit(key: str, distance: float | None = None, content: str | None = None, chunk: int = 0) -> Hit:
    return Hit(key, chunk, content, {}, 0.0, distance)


def test_the_more_often_and_the_nearer_together_the_better() -> None:
    candidates = [
        hit("far", content="green is what I call this kind of tea"),
        hit("near", content="a green tea"),
        hit("often", content="green tea, green tea"),
        hit("none", content="nothing"),
        hit("no text"),
    ]
    words = Words.read("green tea")
    assert words is not None
    assert [each.key for each in matching(candidates, words, 10)] == ["often", "near", "far"]
    assert [each.key for each in matching(candidates, words, 1)] == ["often"]


def test_fusion_is_by_reciprocal_rank() -> None:
    near, both, text = hit("near", 0.1), hit("both", 0.2), hit("text", 0.9)
    fused = fuse([[near, both], [both, text]], 10)
    assert [each.key for each in fused] == ["both", "near", "text"]
    assert [each.score for each in fused] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])
    assert fuse([[near, both]], 1)[0].key == "near"
    # Of equals the nearer, then by the bytes of the key, then by the chunk.
    equal = [hit("é", 0.2), hit("z", 0.2), hit("a", 0.3), hit("z", 0.2, chunk=1)]
    assert [(each.key, each.chunk) for each in fuse([[one] for one in equal], 10)] == [
        ("z", 0), ("z", 1), ("é", 0), ("a", 0)
    ]  # fmt: skip
    assert (depth(10, both=False), depth(10, both=True), depth(20, both=True)) == (10, 60, 80)


def test_what_makes_no_sense_is_refused() -> None:
    cases: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: asked(None, "  ", None, 1), "nothing to search for"),
        (lambda: asked([1], None, ["a"], 1), "where is"),  # type: ignore[arg-type]
        (lambda: asked([1], None, None, 0), "limit is 0"),
        (lambda: positive(-1), "limit is -1"),
        (lambda: lifetime(0), "ttl is 0"),
        (lambda: lifetime(float("nan")), "ttl is nan"),
    )
    for call, said in cases:
        with pytest.raises(ValueError, match=said):
            call()
    assert Words.read(None) is None
