"""Search at size, against numpy: exact without an index, right with one."""

import dataclasses
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgvector import HalfVector
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.datamodel.homes import Home, call, made
from tests.migrations.maintained import looked_after, soon, vacuumed
from tests.postgres import Connection, Database, Postgres

Matrix = np.ndarray[tuple[int, ...], np.dtype[Any]]


def clustered(rows: int, dimension: int, seed: int = 7) -> Matrix:
    """Vectors around fifty centres, as embeddings of texts are."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((50, dimension), dtype=np.float32)
    noise = random.standard_normal((rows, dimension), dtype=np.float32)
    return centres[random.integers(0, 50, rows)] + np.float32(0.5) * noise


def load(
    connection: Connection, vectors: Matrix, *, dataset: str = "notes", prefix: str = "k", kind: str, first: int = 0
) -> None:
    """Loads by binary COPY; the texts are `number N` and the metadata say N modulo 10 and 100."""
    statement = "COPY memory_embeddings (dataset, key, content, metadata, embedding) FROM STDIN WITH (FORMAT BINARY)"
    with connection.cursor().copy(statement) as copy:
        copy.set_types(["text", "text", "text", "jsonb", kind])
        for number, vector in enumerate(vectors, first):
            copy.write_row([dataset, f"{prefix}{number}", f"number {number}", metadata(number), vector])


def metadata(number: int) -> Jsonb:
    return Jsonb({"digit": number % 10, "hundredth": number % 100})


def nearest(vectors: Matrix, query: Matrix, metric: str, among: Sequence[int] | None = None) -> list[str]:
    """Computes the ten nearest in double precision."""
    numbers = np.arange(len(vectors)) if among is None else np.asarray(among)
    wide, point = vectors[numbers].astype(np.float64), query.astype(np.float64)
    products = wide @ point
    if metric == "ip":
        distance = -products
    elif metric == "l2":
        distance = np.linalg.norm(wide - point, axis=1)
    else:
        distance = 1 - products / (np.linalg.norm(wide, axis=1) * np.linalg.norm(point))
    return [f"k{number}" for number in numbers[np.argsort(distance, kind="stable")[:10]]]


def cosine(queries: Matrix, vectors: Matrix) -> Matrix:
    """How near each vector is to each query, one row a query."""
    wide = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores: Matrix = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ wide.T
    return scores


def recall(scores: Matrix, answer: Sequence[str], before: int, after: int) -> float:
    """The share of the right ten in an answer, of the rows `k0`, `k1`, … that a search could see.

    Rows from `before` to `after` were written meanwhile: they count where they were seen.
    """
    numbers = [int(key[1:]) for key in answer]
    seen = np.append(np.arange(before), [each for each in numbers if before <= each < after]).astype(int)
    right = seen[np.argsort(-scores[seen], kind="stable")[:10]]
    return len(set(numbers) & set(right.tolist())) / len(right) if len(right) else float(not numbers)


def found(connection: Connection, *arguments: Any, **named: Any) -> list[str]:
    return [row[1] for row in call(connection, "memory_search", "notes", *arguments, **named)]


@dataclasses.dataclass(frozen=True)
class Large:
    """20,000 embeddings of 1536 dimensions, 500 of another dataset between them, and some queries."""

    home: Home
    writer: Connection
    vectors: Matrix
    queries: Matrix


@pytest.fixture(scope="module")
def large(postgres_servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    server: Postgres = postgres_servers.get(18)
    folder = tmp_path_factory.mktemp("large") / "request"
    with server.database() as database, made(database, folder, dimension=1536) as home, home.writer() as writer:
        vectors = clustered(20_000, 1536)
        random = np.random.default_rng(11)
        queries = vectors[random.integers(0, 20_000, 8)] + random.standard_normal((8, 1536), dtype=np.float32) / 4
        other = home.new_dataset()
        # Nearer to the queries than anything of ours.
        load(writer, np.repeat(queries, 60, axis=0), dataset=other, prefix="x", kind="vector")
        load(writer, vectors, kind="vector")
        with home.owner() as owner:
            owner.execute("ANALYZE memory_embeddings")
        yield Large(home, writer, vectors, queries)


def test_exact_top_ten_of_twenty_thousand(large: Large) -> None:
    for query in large.queries:
        assert found(large.writer, query) == nearest(large.vectors, query, "cosine")


def test_filtered_top_ten_of_twenty_thousand(large: Large) -> None:
    for query in large.queries:
        answer = found(large.writer, query, filter=Jsonb({"digit": 3}))
        assert answer == nearest(large.vectors, query, "cosine", range(3, 20_000, 10))


def test_words_find_one_of_twenty_thousand(large: Large) -> None:
    assert found(large.writer, query="number 12345") == ["k12345"]


def test_both_put_what_both_find_first(large: Large) -> None:
    query = large.queries[0]
    expected = nearest(large.vectors, query, "cosine")
    ninth = expected[8]
    assert found(large.writer, query, f"number {ninth[1:]}") == [ninth, *[key for key in expected if key != ninth]]


def stored(vectors: Matrix, kind: str) -> Matrix:
    return vectors.astype(np.float16) if kind == "halfvec" else vectors


@pytest.mark.long
@pytest.mark.parametrize(
    ("metric", "kind", "dimension"),
    [
        *[pytest.param(m, k, 64, id=f"{m}-{k}") for m in ("cosine", "l2", "ip") for k in ("vector", "halfvec")],
        pytest.param("cosine", "halfvec", 3072, id="auto-3072"),
    ],
)
def test_metrics_and_storage_with_and_without_an_index(
    database: Database, tmp_path: Path, metric: str, kind: str, dimension: int
) -> None:
    storage = "auto" if dimension == 3072 else {"vector": "full", "halfvec": "half"}[kind]
    settings = {"metric": metric, "storage": storage, "dimension": dimension}
    with made(database, tmp_path / "request", **settings) as home, home.writer() as writer, home.owner() as owner:
        vectors = clustered(2600 if dimension == 3072 else 4000, dimension)
        queries = vectors[:5] + np.float32(0.1)
        literal = writer.execute(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'embedding'"
        )
        assert (f"{kind}({dimension})",) in literal.fetchall()
        load_any(writer, vectors, kind)
        owner.execute("ANALYZE memory_embeddings")
        expected = [nearest(stored(vectors, kind), stored(query, kind), metric) for query in queries]
        assert [found(writer, query) for query in queries] == expected
        build_index(owner, metric, kind)
        with writer.transaction():
            answers = [found(writer, query) for query in queries]
            scans = index_scans(writer)
        assert scans == len(queries), "the index answers"
        hits = sum(len(set(answer) & set(truth)) for answer, truth in zip(answers, expected, strict=True))
        assert hits >= 0.98 * 10 * len(queries)
        # What a session has counted waits up to a second for its flush, and counts as this transaction's until then.
        writer.execute("SELECT pg_stat_force_next_flush()")
        with writer.transaction():
            answers = [found(writer, query, filter=Jsonb({})) for query in queries]
            scans = index_scans(writer)
        # A filter lets 2600 rows of 3072 dimensions through, or 4000 of 64, which are few enough to sort.
        assert scans == (len(queries) if dimension == 3072 else 0)
        assert sum(len(set(a) & set(t)) for a, t in zip(answers, expected, strict=True)) >= 0.98 * 10 * len(queries)
        assert [row[6] for row in call(writer, "memory_search", "notes", queries[0])] == sorted(
            row[6] for row in call(writer, "memory_search", "notes", queries[0])
        )


def load_any(connection: Connection, vectors: Matrix, kind: str) -> None:
    """Loads what numpy has as float32, as the column's type."""
    if kind == "vector":
        load(connection, vectors, kind=kind)
        return
    load(connection, [HalfVector(vector) for vector in vectors], kind=kind)  # type: ignore[arg-type]


def build_index(owner: Connection, metric: str, kind: str = "vector") -> None:
    """Builds what maintenance does once a dataset has earned it, and notes that all have."""
    operators = sql.Identifier("public", f"{kind}_{metric}_ops")
    statement = sql.SQL("CREATE INDEX memory_embeddings_vector_idx ON memory_embeddings USING hnsw (embedding {})")
    owner.execute(statement.format(operators))
    owner.execute("UPDATE memory_datasets SET index_state = 'ready'")


def index_scans(connection: Connection) -> int:
    """Counts the scans of the approximate index in the transaction so far."""
    row = connection.execute(
        "SELECT pg_stat_get_xact_numscans('notes.memory_embeddings_vector_idx'::regclass)"
    ).fetchone()
    assert row
    return int(row[0])


@pytest.mark.parametrize("iterative", ["relaxed_order", "strict_order", "off"])
def test_with_an_index_every_answer_is_whole(database: Database, tmp_path: Path, iterative: str) -> None:
    """A filter, or another dataset in the same index, hides most of what an approximate scan visits."""
    with (
        made(database, tmp_path / "request", dimension=32) as home,
        home.writer() as writer,
        home.owner() as owner,
    ):
        vectors = clustered(4000, 32)
        few = home.new_dataset()
        load(writer, vectors, kind="vector")
        load(writer, -vectors[:15], dataset=few, prefix="f", kind="vector")
        rare = [7, 77, 777, 1777, 2777, 3777, 17, 27, 37, 47, 57, 67]
        keys = [f"k{number}" for number in rare]
        writer.execute("UPDATE memory_embeddings SET metadata = '{\"rare\": true}' WHERE key = ANY(%s)", [keys])
        build_index(owner, "cosine")
        owner.execute("ANALYZE memory_embeddings")
        writer.execute(sql.SQL("SET hnsw.iterative_scan = {}").format(iterative))
        for query in vectors[:5] + np.float32(0.1):
            # Whatever the planner would choose: the approximate scan is what is to be tried.
            with writer.transaction():
                writer.execute(
                    "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
                )
                answer = found(writer, query, filter=Jsonb({"rare": True}))
                truth = nearest(vectors, query, "cosine", sorted(rare))
                assert len(answer) == 10
                assert set(answer) <= set(keys)
                assert len(set(answer) & set(truth)) >= 9, "the index is approximate"
                theirs = call(writer, "memory_search", few, query)
                assert len(theirs) == 10
                assert all(row[1].startswith("f") for row in theirs)
                assert len(found(writer, query, limit=100)) == 100
                assert index_scans(writer) > 0


LIFE = 64  # dimensions
LAST = 4000  # rows
EARNED = 1000
RIGHT = 0.98


class Life:
    """A dataset that grows while it is searched; its keys are `k0`, `k1`, … in the order of writing."""

    def __init__(self, home: Home) -> None:
        random = np.random.default_rng(3)
        made = clustered(LAST + 10, LIFE)
        self.home = home
        self.vectors = made[:LAST]
        near = self.vectors[:10] + random.standard_normal((10, LIFE), dtype=np.float32) / 4
        self.queries = np.concatenate([near, made[LAST:]])
        self.scores = cosine(self.queries, self.vectors)
        self.written = 0
        self.recalls: list[float] = []

    def write(self, connection: Connection, until: int) -> None:
        """Writes as an app does, or by COPY when there is much of it."""
        if until - self.written > 500:
            load(connection, self.vectors[self.written : until], first=self.written, kind="vector")
            self.written = until
        while self.written < until:
            key, vector, more = f"k{self.written}", self.vectors[self.written], metadata(self.written)
            call(connection, "memory_upsert_embedding", "notes", key, vector, metadata=more)
            self.written += 1

    def search(self, connection: Connection, number: int) -> float:
        """Gives the recall of one search; one row more may be committed than is counted yet."""
        before, number = self.written, number % len(self.queries)
        answer = found(connection, self.queries[number])
        return recall(self.scores[number], answer, before, self.written + 1)

    def all_searches(self, connection: Connection) -> float:
        return statistics.mean(self.search(connection, number) for number in range(len(self.queries)))

    def meanwhile(self, work: Callable[[], None], rows: int) -> float:
        """Searches, and writes as many rows more, while something is done; gives the recall."""
        done = threading.Event()
        self.recalls = []

        def search() -> None:
            with self.home.reader() as reader:
                while not done.is_set() or len(self.recalls) < len(self.queries):
                    self.recalls.append(self.search(reader, len(self.recalls)))

        def write() -> None:
            with self.home.writer() as writer:
                self.write(writer, self.written + rows)

        writing, searching = threading.Thread(target=write), threading.Thread(target=search)
        writing.start()
        searching.start()
        try:
            work()
        finally:
            writing.join()
            done.set()
            searching.join()
        return statistics.mean(self.recalls)

    def build(self) -> None:
        """One run of the index's maintenance, which cannot end before enough went on beside it."""
        build = threading.Thread(target=looked_after, args=(self.home.memory,))
        enough = len(self.queries)
        with self.home.writer() as holder:
            with holder.transaction():
                holder.execute("LOCK TABLE memory_embeddings IN ROW EXCLUSIVE MODE")
                build.start()
                soon(lambda: state(holder) == "building")
                begun, written = len(self.recalls), self.written
                soon(lambda: len(self.recalls) > begun + enough and self.written > written + enough)
                assert (state(holder), build.is_alive()) == ("building", True)
            build.join()
            assert state(holder) == "ready"


def state(connection: Connection) -> str:
    [(value,)] = connection.execute("SELECT index_state FROM memory_datasets WHERE dataset = 'notes'").fetchall()
    return str(value)


def test_recall_through_the_whole_life(database: Database, tmp_path: Path) -> None:
    settings = {"dimension": LIFE, "index": {"type": "auto", "minRows": EARNED}}
    with (
        made(database, tmp_path / "request", **settings) as home,
        home.writer() as writer,
        home.owner() as owner,
    ):
        life = Life(home)
        for size in (0, 1, 9, 100, EARNED - 1):
            life.write(writer, size)
            assert looked_after(home.memory).state == "exact"
            assert life.all_searches(writer) == 1
        life.write(writer, EARNED)
        assert life.meanwhile(life.build, rows=200) >= RIGHT, "while it is built"
        assert life.meanwhile(lambda: None, rows=200) >= RIGHT, "while the index grows"
        life.write(writer, LAST)
        with writer.transaction():
            assert life.all_searches(writer) >= RIGHT
            assert index_scans(writer) == len(life.queries), "the index answers"
        filtered_search_is_right(life, writer)
        few_of_many_are_right(life, writer)
        half = [f"k{number}" for number in range(0, LAST, 2)]
        owner.execute("DELETE FROM memory_embeddings WHERE key = ANY(%s)", [half])
        vacuumed(home.memory)
        assert recall_of_odd_keys(life, writer) >= RIGHT, "when half of it is deleted"


def filtered_search_is_right(life: Life, connection: Connection) -> None:
    """A filter that one of a hundred rows passes, and one that one of ten passes, by the index alone."""
    for query in life.queries:
        answer = found(connection, query, filter=Jsonb({"hundredth": 7}))
        assert answer == nearest(life.vectors, query, "cosine", range(7, LAST, 100))
    hits = 0
    for query in life.queries:
        ids = "SELECT unnest(memory_nearest_by_index('notes', %s, 10, %s, 100))"
        rows = connection.execute(
            f"SELECT key FROM memory_embeddings WHERE id IN ({ids})".encode(), [query, Jsonb({"digit": 3})]
        ).fetchall()
        assert len(rows) == 10
        hits += len({key for (key,) in rows} & set(nearest(life.vectors, query, "cosine", range(3, LAST, 10))))
    assert hits >= RIGHT * 10 * len(life.queries)


def few_of_many_are_right(life: Life, connection: Connection) -> None:
    """A dataset with one of a hundred rows of the table that it shares has not earned the index."""
    few = life.home.new_dataset()
    with life.home.owner() as owner:
        owner.execute("UPDATE memory_datasets SET index_state = 'exact' WHERE dataset = %s", [few])
    load(connection, clustered(LAST // 100, LIFE, seed=5), dataset=few, kind="vector")
    for query in life.queries:
        answer = [row[1] for row in call(connection, "memory_search", few, query)]
        assert answer == nearest(clustered(LAST // 100, LIFE, seed=5), query, "cosine")


def recall_of_odd_keys(life: Life, connection: Connection) -> float:
    truths = [nearest(life.vectors, query, "cosine", range(1, LAST, 2)) for query in life.queries]
    answers = [found(connection, query) for query in life.queries]
    hits = sum(len(set(answer) & set(truth)) for answer, truth in zip(answers, truths, strict=True))
    return hits / (10 * len(life.queries))
