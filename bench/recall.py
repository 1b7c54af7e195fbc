"""`make bench-recall`: what many write first (an ivfflat index on an empty table, DELETE for retention), and ours.

Both get the same vectors, queries and events, one after the other, on servers of their own with default durability.
Recall is measured against numpy over exactly the rows that a search could see. Sizes are those of the acceptance unless
the environment says otherwise: ROWS, DIMENSION, QUERIES, EVENTS, MIN_ROWS.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import Jsonb

from bench import plot
from memoryctl import embedded
from migrations.deadline import Deadline
from migrations.postgres.connection import Admin
from migrations.postgres.maintenance import places
from migrations.postgres.maintenance import retention as expired
from migrations.postgres.maintenance.places import Work
from migrations.postgres.request import MaintainRequest
from migrations.request import parse
from tests.datamodel.test_recall import Matrix, clustered, cosine, recall
from tests.migrations.documents import Memory
from tests.postgres import Connection, Database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"

ROWS = int(os.environ.get("ROWS", "100000"))
DIMENSION = int(os.environ.get("DIMENSION", "1536"))
QUERIES = int(os.environ.get("QUERIES", "50"))
EVENTS = int(os.environ.get("EVENTS", "3000000"))
# With how many rows ours earns its index: what the API has when nothing is said.
MIN_ROWS = min(ROWS, int(os.environ.get("MIN_ROWS", str(10_000 * 1536 // DIMENSION))))
# Of ROWS.
GROWTH = (0.01, 0.05, 0.1, 0.2, 0.5, 0.9, 1.0)
# One of so many rows has a tag, and one of so many more is another tenant's: 1 %.
SELECTIVE = 100
TOP = 10
COPIED = 1000
# Events are of so many days, evenly; those of the first third are older than they are kept.
DAYS = 45
KEPT_DAYS = 30
MARGIN_DAYS = 1
SERVER = {"shared_buffers": "1GB", "max_wal_size": "4GB"}
WORK_MEM = "1GB"

NAIVE = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE embeddings (
    id bigserial PRIMARY KEY, tenant text, key text, content text, metadata jsonb, embedding vector({dimension}),
    created_at timestamptz DEFAULT now()
);
CREATE INDEX ON embeddings USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100);
CREATE INDEX ON embeddings (tenant);
CREATE TABLE events (
    id bigserial PRIMARY KEY, tenant text, event_type text, payload jsonb, created_at timestamptz
);
CREATE INDEX ON events (tenant, created_at);
"""


@dataclasses.dataclass(frozen=True)
class Data:
    """Vectors, queries, and how near each is to each."""

    vectors: Matrix
    others: Matrix
    queries: Matrix
    scores: Matrix
    scores_of_others: Matrix

    @classmethod
    def make(cls) -> Data:
        """Clustered vectors; half of the queries are near one of them, half anywhere in a cluster."""
        made = clustered(ROWS + ROWS // SELECTIVE + QUERIES, DIMENSION)
        vectors, others, fresh = np.split(made, [ROWS, ROWS + ROWS // SELECTIVE])
        random = np.random.default_rng(11)
        near = vectors[random.integers(0, ROWS, QUERIES)]
        near += random.standard_normal(near.shape, dtype=np.float32) / 4
        queries = np.where(np.arange(QUERIES)[:, None] % 2 == 0, near, fresh).astype(np.float32)
        return cls(vectors, others, queries, cosine(queries, vectors), cosine(queries, others))


@dataclasses.dataclass
class Side:
    """One of the two: how it is written to and searched."""

    name: str
    database: Database
    login: embedded.Login
    table: str
    tenant: str
    search: str
    filtered: str
    event_table: str
    written: int = 0

    def connect(self) -> Connection:
        """As an app."""
        connection = self.database.connect(self.login)
        register_vector(connection)
        return connection

    def owner(self) -> Connection:
        """As the superuser, who may look at everything."""
        return self.database.superuser()

    def load(self, data: Data, until: int) -> float:
        """Loads by binary COPY, a thousand rows each; gives the seconds."""
        begin = time.perf_counter()
        with self.connect() as connection:
            # An index that is there makes a thousand rows take long on a busy machine.
            connection.execute("SET statement_timeout = 0")
            while self.written < until:
                last = min(until, self.written + COPIED)
                rows = ((f"k{n}", {"tag": n % SELECTIVE}, data.vectors[n]) for n in range(self.written, last))
                self.copy(connection, "notes", rows)
                self.written = last
        return time.perf_counter() - begin

    def copy(self, connection: Connection, tenant: str, rows: Iterator[tuple[str, dict[str, int], Matrix]]) -> None:
        """Writes rows of key, metadata and vector in one COPY."""
        statement = sql.SQL("COPY {} ({}, key, content, metadata, embedding) FROM STDIN WITH (FORMAT BINARY)")
        target = sql.SQL(".").join(map(sql.Identifier, self.table.split(".")))
        with connection.cursor().copy(statement.format(target, sql.Identifier(self.tenant))) as copy:
            copy.set_types(["text", "text", "text", "jsonb", "vector"])
            for key, metadata, vector in rows:
                copy.write_row([tenant, key, f"the text of {key}", Jsonb(metadata), vector])

    def ask(self, connection: Connection, query: Matrix) -> list[str]:
        """Gives the keys of the nearest ten."""
        return [key for (key,) in connection.execute(self.search.encode(), {"query": query}).fetchall()]


@dataclasses.dataclass
class Searches:
    """What searches took and found while something else went on."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    recall: list[float] = dataclasses.field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Milliseconds; null where there was none."""
        if not self.seconds:
            return {"searches": 0, "recall": None, "p50": None, "p95": None, "max": None}
        ordered = sorted(1000 * each for each in self.seconds)
        return {
            "searches": len(ordered),
            "recall": round(statistics.mean(self.recall), 4),
            "p50": round(statistics.median(ordered), 1),
            "p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], 1),
            "max": round(ordered[-1], 1),
        }


def searched(side: Side, data: Data, rounds: int = 1) -> Searches:
    """Asks every query; a first round, which is not counted, warms caches."""
    found = Searches()
    with side.connect() as connection:
        for number in [*range(QUERIES), *list(range(QUERIES)) * rounds]:
            _one(side, data, connection, number, found)
    found.seconds, found.recall = found.seconds[QUERIES:], found.recall[QUERIES:]
    return found


def _one(side: Side, data: Data, connection: Connection, number: int, found: Searches) -> None:
    before, begin = side.written, time.perf_counter()
    answer = side.ask(connection, data.queries[number])
    found.seconds.append(time.perf_counter() - begin)
    # The batch that is being copied may be committed and not counted yet.
    found.recall.append(recall(data.scores[number], answer, before, min(ROWS, side.written + COPIED)))


def meanwhile(side: Side, data: Data, work: Callable[[], float], until: int = 0) -> tuple[float, Searches]:
    """Searches, and writes on up to a number of rows, while something is done; gives its seconds and the searches."""
    found, done = Searches(), threading.Event()

    def searcher() -> None:
        with side.connect() as connection:
            number = 0
            while not done.is_set():
                _one(side, data, connection, number % QUERIES, found)
                number += 1

    threads = [threading.Thread(target=searcher), threading.Thread(target=side.load, args=(data, until))]
    for thread in threads:
        thread.start()
    try:
        seconds = work()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return seconds, found


@dataclasses.dataclass
class Ours:
    """A Memory, and the commands of its Jobs as processes."""

    memory: Memory
    folder: Path

    def run(self, command: str, document: dict[str, Any]) -> float:
        """Runs a command as its Job does; gives the seconds of the whole process."""
        mounted = Path(tempfile.mkdtemp(dir=self.folder))
        (mounted / "admin").mkdir()
        (mounted / "request.json").write_text(json.dumps(document))
        for name, value in dataclasses.asdict(self.memory.database.server.admin).items():
            (mounted / "admin" / name).write_text(value)
        reports = {"MEMORY_DIR": str(mounted), "MEMORY_REPORT_FILE": str(self.folder / "reports.json")}
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "migrations", command],
            cwd=ROOT,
            env={**os.environ, **reports, "MEMORY_DEADLINE_SECONDS": "7200"},
            capture_output=True,
            text=True,
            check=False,
        )
        answer = json.loads(done.stderr.splitlines()[-1])
        if done.returncode or answer["code"]:
            msg = f"{command} ended with {answer}"
            raise RuntimeError(msg)
        return time.perf_counter() - begin

    def provision(self) -> float:
        """Makes or changes the home."""
        return self.run("provision", self.memory.document())

    def maintain(self) -> float:
        """Looks after it once."""
        return self.run("maintain", self.memory.maintain_document() | {"workMem": WORK_MEM})

    def retain(self) -> float:
        """The step of `maintain` that removes what has expired; gives its seconds alone."""
        request = parse(self.memory.maintain_document(), MaintainRequest)
        login = self.memory.database.server.admin
        admin = Admin(request.provider, login.username, login.password, None)
        with admin.connect() as connection:
            [place] = places.read(connection, request)
            work = Work(connection, admin, place, request, Deadline.in_seconds(600))
            begin = time.perf_counter()
            expired.look_after(work)
            return time.perf_counter() - begin


def grow(side: Side, data: Data, ours: Ours | None) -> dict[str, Any]:
    """Fills the table in steps and measures after each; ours builds its index as soon as it is earned."""
    stages, building = [], None
    for share in GROWTH:
        size = max(side.written, int(ROWS * share))
        before, seconds = side.written, side.load(data, size)
        stage = {"rows": size, "loadSeconds": round(seconds, 2), "loaded": size - before}
        _vacuum(side)
        if ours and building is None and size >= MIN_ROWS:
            building = _build(side, data, ours, size)
        stages.append(stage | searched(side, data).summary())
        _tell(side, stages[-1])
    return {"stages": stages, "building": building}


def _vacuum(side: Side) -> None:
    with side.owner() as owner:
        owner.execute(
            sql.SQL("VACUUM (ANALYZE) {}").format(sql.SQL(".").join(map(sql.Identifier, side.table.split("."))))
        )


def _build(side: Side, data: Data, ours: Ours, size: int) -> dict[str, Any]:
    """One run of `maintain`, with a searcher and, while there are rows to write, a writer."""
    more = min(ROWS, size + ROWS // 10)
    seconds, found = meanwhile(side, data, ours.maintain, more)
    result = {"rows": size, "written": more - size, "seconds": round(seconds, 1), **found.summary()}
    _tell(side, {"building": result})
    return result


def rebuild(side: Side, data: Data, ours: Ours) -> dict[str, Any]:
    """Drops the index at full size, as the worst moment to earn one."""
    with side.owner() as owner:
        owner.execute("DROP INDEX notes.memory_embeddings_vector_idx")
        owner.execute("UPDATE notes.memory_datasets SET index_state = 'exact'")
    return {
        "exact": searched(side, data).summary(),
        **_build(side, data, ours, ROWS),
        "after": searched(side, data).summary(),
    }


def filtered(side: Side, data: Data) -> dict[str, Any]:
    """A filter that one of a hundred rows passes, and a tenant with as many: how many of ten come, and are right."""
    with side.connect() as connection, side.owner() as owner:
        if side.name == "ours":
            owner.execute(
                "INSERT INTO notes.memory_datasets (dataset, embedding_dimension, metric, index_state, ttl_days)"
                " VALUES ('few', %s, 'cosine', 'exact', %s)",
                [DIMENSION, KEPT_DAYS],
            )
        side.copy(connection, "few", ((f"x{n}", {"tag": -1}, vector) for n, vector in enumerate(data.others)))
        _vacuum(side)
        tagged, few = Searches(), Searches()
        numbers = np.arange(7, ROWS, SELECTIVE)
        counts: dict[str, list[int]] = {"metadata": [], "tenant": []}
        for number, query in enumerate(data.queries):
            right = {f"k{n}" for n in numbers[np.argsort(-data.scores[number, numbers])[:TOP]]}
            values = {"query": query, "tenant": "notes", "filter": Jsonb({"tag": 7})}
            counts["metadata"].append(_filtered(side, connection, values, right, tagged))
            right = {f"x{n}" for n in np.argsort(-data.scores_of_others[number])[:TOP]}
            values = {"query": query, "tenant": "few", "filter": None}
            counts["tenant"].append(_filtered(side, connection, values, right, few))
    return {
        "metadata": {**tagged.summary(), "fewest": min(counts["metadata"])},
        "tenant": {**few.summary(), "fewest": min(counts["tenant"])},
    }


def _filtered(side: Side, connection: Connection, values: dict[str, Any], right: set[str], found: Searches) -> int:
    begin = time.perf_counter()
    keys = {key for (key,) in connection.execute(side.filtered.encode(), values).fetchall()}
    found.seconds.append(time.perf_counter() - begin)
    found.recall.append(len(keys & right) / TOP)
    return len(keys)


def retention(side: Side, data: Data, work: Callable[[], float]) -> dict[str, Any]:
    """Removes the expired third of the events while searches go on."""
    with side.owner() as owner:
        table = sql.SQL(".").join(map(sql.Identifier, side.event_table.split(".")))
        count = sql.SQL("SELECT count(*) FROM {}").format(table)
        [(total,)] = owner.execute(count).fetchall()
        owner.execute("CHECKPOINT")
        quiet = searched(side, data, rounds=4)
        [(start,)] = owner.execute("SELECT pg_current_wal_lsn()").fetchall()
        seconds, found = meanwhile(side, data, work)
        [(wal,)] = owner.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %s)", [start]).fetchall()
        [(left,)] = owner.execute(count).fetchall()
        [(size,)] = owner.execute(
            "SELECT coalesce((SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(%(table)s)),"
            " pg_total_relation_size(%(table)s))",
            {"table": side.event_table},
        ).fetchall()
    return {
        "events": total,
        "deleted": total - left,
        "seconds": round(seconds, 2),
        "walBytes": int(wal),
        "bytesAfter": int(size),
        "before": quiet.summary(),
        "meanwhile": found.summary(),
    }


def _moments(number: str) -> str:
    """SQL for the age of an event: a third is expired, by a day or more, none of the others is about to be."""
    per = EVENTS // 3
    old, young = DAYS - KEPT_DAYS - MARGIN_DAYS, KEPT_DAYS - MARGIN_DAYS
    return (
        f"date_trunc('day', now(), 'UTC') - CASE WHEN {number} < {per}"
        f" THEN interval '{KEPT_DAYS + MARGIN_DAYS} days' + {number} * interval '{old} days' / {per}"
        f" ELSE ({number} - {per}) * interval '{young} days' / {EVENTS - per} END"
    )


def naive(data: Data, folder: Path) -> dict[str, Any]:
    """What one gets from the first hit of a search: an index at once, pgvector's defaults, DELETE and VACUUM."""
    with _server(folder / "naive") as server:
        database = Database(server, server.database)
        with database.superuser() as owner:
            owner.execute(NAIVE.format(dimension=DIMENSION).encode())
            side = Side(
                "naive",
                database,
                server.superuser,
                "embeddings",
                "tenant",
                f"SELECT key FROM embeddings WHERE tenant = 'notes' ORDER BY embedding <=> %(query)s LIMIT {TOP}",
                "SELECT key FROM embeddings WHERE tenant = %(tenant)s AND (%(filter)s::jsonb IS NULL OR metadata @>"
                f" %(filter)s::jsonb) ORDER BY embedding <=> %(query)s LIMIT {TOP}",
                "events",
            )
            result = grow(side, data, None)
            result["filtered"] = filtered(side, data)
            _tell(side, result["filtered"])
            owner.execute(
                "INSERT INTO events (tenant, event_type, payload, created_at) SELECT 'notes', 'said',"
                f" jsonb_build_object('text', 'event ' || n), {_moments('n')}"
                f" FROM generate_series(0, {EVENTS} - 1) n".encode()
            )
            owner.execute("VACUUM (ANALYZE) events")

            def delete() -> float:
                begin = time.perf_counter()
                owner.execute(f"DELETE FROM events WHERE created_at < now() - interval '{KEPT_DAYS} days'".encode())
                return time.perf_counter() - begin

            result["retention"] = retention(side, data, delete)
            begin = time.perf_counter()
            owner.execute("VACUUM events")
            result["retention"]["vacuumSeconds"] = round(time.perf_counter() - begin, 2)
            _tell(side, result["retention"])
    return result


def our_way(data: Data, folder: Path) -> dict[str, Any]:
    """The same by `provision` and `maintain`, run as their Jobs do."""
    with _server(folder / "ours") as server:
        database = Database(server, server.database)
        settings = {"dimension": DIMENSION, "index": {"type": "auto", "minRows": MIN_ROWS}}
        # On hold until its past is in: a partition for each day is made, and nothing is removed yet.
        held = {"retention": {"ttlDays": KEPT_DAYS}, "legalHold": True}
        ours = Ours(Memory(database, embeddings=settings, extra=held), folder)
        ours.provision()
        side = Side(
            "ours",
            database,
            ours.memory.writer,
            "notes.memory_embeddings",
            "dataset",
            "SELECT key FROM memory_search('notes', %(query)s)",
            "SELECT key FROM memory_search(%(tenant)s, %(query)s, p_filter => %(filter)s)",
            "notes.memory_events",
        )
        result = grow(side, data, ours)
        result["filtered"] = filtered(side, data)
        _tell(side, result["filtered"])
        if MIN_ROWS < ROWS // 2:
            result["rebuilt"] = rebuild(side, data, ours)
            _tell(side, result["rebuilt"])
        _fill_events(side, ours)
        ours.memory = ours.memory.but(extra=held | {"legalHold": False})
        ours.provision()
        result["retention"] = retention(side, data, ours.retain)
        result["retention"]["vacuumSeconds"] = 0
        result["retention"]["idleRunSeconds"] = round(ours.maintain(), 2)
        _tell(side, result["retention"])
    return result


def _fill_events(side: Side, ours: Ours) -> None:
    insert = (
        "INSERT INTO notes.memory_events (dataset, id, event_type, payload, created_at)"
        " SELECT 'notes', gen_random_uuid(), 'said', jsonb_build_object('text', 'event ' || n), {moments}"
        " FROM generate_series({series}) n"
    )
    few = 1000 * DAYS
    with side.owner() as owner:
        # Some of every day first: `maintain` gives days of the past that have rows a partition each.
        step = max(1, EVENTS // few)
        owner.execute(insert.format(moments=_moments("n"), series=f"0, {EVENTS} - 1, {step}").encode())
        ours.maintain()
        rest = insert.format(moments=_moments("n"), series=f"0, {EVENTS} - 1") + f" WHERE n % {step} <> 0"
        owner.execute(rest.encode())
        [(strays,)] = owner.execute("SELECT count(*) FROM notes.memory_events_default").fetchall()
        if strays > few // DAYS:
            msg = f"{strays} events are in no partition of a day: this would measure something else"
            raise RuntimeError(msg)
        owner.execute("VACUUM (ANALYZE) notes.memory_events")


@contextlib.contextmanager
def _server(directory: Path) -> Iterator[embedded.Server]:
    try:
        yield embedded.start(directory, settings=SERVER)
    finally:
        embedded.remove(directory)


def _tell(side: Side, figures: dict[str, Any]) -> None:
    click.echo(f"{dt.datetime.now(dt.UTC):%H:%M:%S} {side.name}: {json.dumps(figures)}")


def main() -> None:
    """Measure, print, write; with PLOT the plot of docs/ is drawn from it."""
    data = Data.make()
    folder = Path(tempfile.mkdtemp())
    try:
        body = {
            "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "machine": {"cores": os.cpu_count(), "load": os.getloadavg(), "python": platform.python_version()},
            "sizes": {"rows": ROWS, "dimension": DIMENSION, "queries": QUERIES, "events": EVENTS, "minRows": MIN_ROWS},
            "naive": naive(data, folder),
            "ours": our_way(data, folder),
        }
    finally:
        shutil.rmtree(folder)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"recall-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(body, indent=2))
    click.echo(f"written to {path}")
    if target := os.environ.get("PLOT"):
        Path(target).write_text(plot.draw(body))
        click.echo(f"drawn in {target}")


if __name__ == "__main__":
    main()
