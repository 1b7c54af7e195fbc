"""Search by meaning, by words and by both, and what must never show."""

import datetime as dt
import re
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.datamodel.homes import Dataset, call, made, provision
from tests.datamodel.test_embeddings import vector
from tests.postgres import Database

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon")


def fill(dataset: Dataset) -> None:
    """Five directions from x to y; the further from x, the more words in common with the last."""
    for number, angle in enumerate(np.linspace(0, np.pi / 2, 5)):
        dataset.value(
            "memory_upsert_embedding",
            f"k{number}",
            vector(np.cos(angle), np.sin(angle), 0),
            " ".join(WORDS[: number + 1]),
            Jsonb({"number": number, "even": number % 2 == 0, "tags": ["all", f"t{number}"]}),
        )


def test_by_meaning(dataset: Dataset) -> None:
    fill(dataset)
    rows = dataset.call("memory_search", vector(1, 0, 0))
    assert [row[1] for row in rows] == ["k0", "k1", "k2", "k3", "k4"]
    assert [row[2] for row in rows] == [0] * 5
    assert rows[1][3:5] == ("alpha beta", {"number": 1, "even": False, "tags": ["all", "t1"]})
    assert [row[5] for row in rows] == [1 / (60 + rank) for rank in range(1, 6)]
    expected = [1 - np.cos(angle) for angle in np.linspace(0, np.pi / 2, 5)]
    assert [row[6] for row in rows] == pytest.approx(expected, abs=1e-6)


def test_by_words_alone(dataset: Dataset) -> None:
    fill(dataset)
    rows = dataset.call("memory_search", query="delta")
    assert [row[1] for row in rows] == ["k3", "k4"]
    assert [row[5:] for row in rows] == [(1 / 61, None), (1 / 62, None)]
    assert dataset.keys(query="alpha -beta") == ["k0"]
    assert sorted(dataset.keys(query="epsilon or gamma")) == ["k2", "k3", "k4"]
    assert dataset.keys(query='"beta alpha"') == []
    assert dataset.keys(query='"alpha beta" delta') == ["k3", "k4"]
    assert dataset.keys(query="nowhere") == []


def test_words_that_nobody_can_type_wrong(dataset: Dataset) -> None:
    fill(dataset)
    for query in ("'", '"', "((", ":*", "& | !", "-", "\\", "beta)) -- '"):
        assert set(dataset.keys(query=query)) <= {"k1", "k2", "k3", "k4"}, query


def test_both_fuse(dataset: Dataset) -> None:
    fill(dataset)
    rows = dataset.call("memory_search", vector(1, 0, 0), "epsilon")
    near = {f"k{number}": 1 / (61 + number) for number in range(5)}
    near["k4"] += 1 / 61
    assert {row[1]: row[5] for row in rows} == pytest.approx(near)
    assert [row[1] for row in rows] == ["k4", "k0", "k1", "k2", "k3"]
    assert all(row[6] is not None for row in rows)


def test_both_where_words_find_nothing_is_by_meaning(dataset: Dataset) -> None:
    fill(dataset)
    assert dataset.call("memory_search", vector(1, 0, 0), "nowhere") == dataset.call("memory_search", vector(1, 0, 0))
    assert dataset.call("memory_search", vector(1, 0, 0), " ") == dataset.call("memory_search", vector(1, 0, 0))


@pytest.mark.parametrize("limit", [1, 10, 20, 40])
def test_fusion_is_reciprocal_rank_fusion(dataset: Dataset, limit: int) -> None:
    """Against a computation of its own, over more rows than either list is followed."""
    random = np.random.default_rng(3)
    vectors = random.standard_normal((300, 3)).astype(np.float32)
    texts = [" ".join(random.choice(WORDS, size=size)) for size in random.integers(1, 6, 300)]
    with dataset.writer.cursor().copy("COPY memory_embeddings (dataset, key, content, embedding) FROM STDIN") as copy:
        for number, (text, row) in enumerate(zip(texts, vectors, strict=True)):
            copy.write_row([dataset.name, f"k{number:03}", text, str(row.tolist())])
    query = vectors[0]
    relevance: dict[str, float] = dict(
        dataset.writer.execute(
            "SELECT key, ts_rank_cd(tsv, 'alpha | beta') FROM memory_embeddings"
            " WHERE dataset = %s AND tsv @@ 'alpha | beta'",
            [dataset.name],
        ).fetchall()
    )
    wide = vectors.astype(np.float64)
    distances = 1 - wide @ wide[0] / (np.linalg.norm(wide, axis=1) * np.linalg.norm(wide[0]))
    distance = {f"k{number:03}": float(value) for number, value in enumerate(distances)}
    depth = max(4 * limit, 60)
    scores: dict[str, float] = {}
    for ranked in (
        sorted(distance, key=lambda key: (distance[key], key))[:depth],
        sorted(relevance, key=lambda key: (-relevance[key], key))[:depth],
    ):
        for rank, key in enumerate(ranked, start=1):
            scores[key] = scores.get(key, 0) + 1 / (60 + rank)
    expected = sorted(scores, key=lambda key: (-scores[key], distance[key], key))[:limit]
    assert len(relevance) > depth, "the list of words is longer than it is followed"
    rows = dataset.call("memory_search", query, "alpha or beta", limit)
    assert [row[1] for row in rows] == expected
    assert [row[5] for row in rows] == pytest.approx([scores[key] for key in expected])
    assert [row[6] for row in rows] == pytest.approx([distance[key] for key in expected], abs=1e-6)


def test_equal_rows_come_in_the_order_of_their_keys(dataset: Dataset) -> None:
    for key in ("b", "a", "B", "ä", "c", "aa"):
        for chunk in (1, 0):
            dataset.value("memory_upsert_embedding", key, vector(1, 0, 0), "the same words", chunk=chunk)
    expected = [(key, chunk) for key in ("B", "a", "aa", "b", "c", "ä") for chunk in (0, 1)]
    for arguments in (
        {"embedding": vector(1, 0, 0)},
        {"query": "same"},
        {"embedding": vector(1, 0, 0), "query": "same"},
    ):
        for limit in (1, 3, 12):
            rows = dataset.call("memory_search", **arguments, limit=limit)
            assert [row[1:3] for row in rows] == expected[:limit], (arguments, limit)


def test_filter_is_containment(dataset: Dataset) -> None:
    fill(dataset)
    for query in ({"embedding": vector(1, 0, 0)}, {"query": "alpha"}, {"embedding": vector(1, 0, 0), "query": "alpha"}):
        assert sorted(dataset.keys(**query, filter=Jsonb({"even": True}))) == ["k0", "k2", "k4"]
        assert dataset.keys(**query, filter=Jsonb({"tags": ["t3"]})) == ["k3"]
        assert dataset.keys(**query, filter=Jsonb({"even": True, "number": 1})) == []
        assert len(dataset.keys(**query, filter=Jsonb({}))) == 5


def test_filtered_answers_are_as_many_as_asked_for(dataset: Dataset) -> None:
    """Filtering after the search would find none of them: they are the farthest."""
    for number in range(100):
        dataset.value(
            "memory_upsert_embedding", f"k{number:02}", vector(1, number / 10, 0), "word", Jsonb({"late": number >= 90})
        )
    for query in ({"embedding": vector(1, 0, 0)}, {"query": "word"}, {"embedding": vector(1, 0, 0), "query": "word"}):
        found = dataset.keys(**query, filter=Jsonb({"late": True}))
        assert found == [f"k{number}" for number in range(90, 100)]


def test_other_datasets_of_the_same_table_never_show(dataset: Dataset) -> None:
    fill(dataset)
    other = dataset.home.new_dataset()
    for number in range(100):
        call(dataset.writer, "memory_upsert_embedding", other, f"x{number}", vector(1, 0, number / 1e6), "alpha")
    for query in ({"embedding": vector(1, 0, 0)}, {"query": "alpha"}, {"embedding": vector(1, 0, 0), "query": "alpha"}):
        assert sorted(dataset.keys(**query, limit=50)) == ["k0", "k1", "k2", "k3", "k4"]


def test_expired_never_shows(dataset: Dataset) -> None:
    fill(dataset)
    dataset.value("memory_upsert_embedding", "k1", vector(1, 0, 0), "alpha beta", ttl=dt.timedelta(hours=1))
    dataset.expire("memory_embeddings", "k0")
    for query in ({"embedding": vector(1, 0, 0)}, {"query": "alpha"}, {"embedding": vector(1, 0, 0), "query": "alpha"}):
        assert sorted(dataset.keys(**query)) == ["k1", "k2", "k3", "k4"]


def test_ten_unless_told_otherwise(dataset: Dataset) -> None:
    for number in range(11):
        dataset.value("memory_upsert_embedding", f"k{number}", vector(1, number, 0))
    assert len(dataset.keys(vector(1, 0, 0))) == 10
    assert len(dataset.keys(vector(1, 0, 0), limit=None)) == 10
    assert len(dataset.keys(vector(1, 0, 0), limit=11)) == 11
    assert len(dataset.keys(vector(1, 0, 0), limit=2**31 - 1)) == 11


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "sentence"),
    [
        pytest.param({}, "22023", "nothing to search for: give p_embedding, p_query, or both", id="nothing"),
        pytest.param({"query": " "}, "22023", "nothing to search for", id="blank"),
        pytest.param(
            {"embedding": vector(1, 2, 3, 4)},
            "MM003",
            "the embedding has 4 dimensions, dataset '{}' has 3",
            id="dimension",
        ),
        pytest.param({"embedding": vector(0, 0, 0)}, "22023", "the embedding is all zeros", id="no-direction"),
        pytest.param(
            {"query": "a", "limit": 0}, "22023", "p_limit is 0: give a number from 1 on, or NULL for 10", id="0"
        ),
        pytest.param({"query": "a", "limit": -5}, "22023", "p_limit is -5: give", id="negative"),
        pytest.param(
            {"query": "a", "filter": Jsonb([1])}, "22023", "p_filter is [1]: give a JSON object", id="filter-is-a-list"
        ),
    ],
)
def test_search_refuses(dataset: Dataset, arguments: dict[str, Any], sqlstate: str, sentence: str) -> None:
    with pytest.raises(psycopg.Error, match=re.escape(sentence.format(dataset.name))) as caught:
        dataset.call("memory_search", **arguments)
    assert caught.value.sqlstate == sqlstate


def test_words_are_those_of_the_homes_language(any_database: Database, tmp_path: Path) -> None:
    with made(any_database, tmp_path / "simple") as home:
        english = home.memory.but(
            identity="team-a/english", schema="english", dataset="english", search_config="english"
        )
        provision(english, tmp_path / "english")
        with home.writer() as simple, any_database.connect(english.writer) as stemmed:
            call(simple, "memory_upsert_embedding", "notes", "k", "[1,0,0]", "the memories of a machine")
            call(stemmed, "memory_upsert_embedding", "english", "k", "[1,0,0]", "the memories of a machine")
            assert call(simple, "memory_search", "notes", None, "memory") == []
            assert call(stemmed, "memory_search", "english", None, "memory")[0][1] == "k"
            assert call(simple, "memory_search", "notes", None, "the")[0][1] == "k"
            assert call(stemmed, "memory_search", "english", None, "the") == [], "only stop words find nothing"


@pytest.mark.parametrize(("before", "after"), [(3, 4), (1536, 3072)], ids=["vector", "vector-to-halfvec"])
def test_functions_follow_when_an_empty_table_changes_its_dimension(
    any_database: Database, tmp_path: Path, before: int, after: int
) -> None:
    with made(any_database, tmp_path / "before", dimension=before) as home, home.writer() as writer:
        assert call(writer, "memory_search", "notes", np.ones(before)) == []
        provision(home.memory.but(embeddings={"dimension": after}), tmp_path / "after")
        call(writer, "memory_upsert_embedding", "notes", "k", np.ones(after), "words")
        assert call(writer, "memory_search", "notes", np.ones(after))[0][1] == "k"
        with pytest.raises(psycopg.Error, match=f"has {before} dimensions, dataset 'notes' has {after}"):
            call(writer, "memory_search", "notes", np.ones(before))
