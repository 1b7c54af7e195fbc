"""The client against a real PostgreSQL with its default durability: many embeddings at once, and single calls."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.measure import Figure, milliseconds
from memory_client import Embedding, Memory
from memoryctl import embedded
from tests.client.backends import entries, mount
from tests.datamodel.homes import made
from tests.postgres import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 20_000
ROUNDS = 3
DIMENSION = 768
CALLS = 200
AIM = "≥ 20000"


def measure() -> list[Figure]:
    """Start a server, make a Memory, and use it with one process."""
    with tempfile.TemporaryDirectory() as folder:
        server = embedded.start(Path(folder) / "server")
        try:
            return list(_measure(Database(server, server.database), Path(folder)))
        finally:
            embedded.remove(Path(folder) / "server")


def _measure(database: Database, folder: Path) -> Iterator[Figure]:
    with made(database, folder / "request", dimension=DIMENSION) as home:
        directory = mount(folder / "binding", entries(home.memory, home.memory.writer, "notes"))
        with Memory.from_binding(directory) as memory:
            memory.embeddings.upsert(_embeddings("warm", 10))
            yield _loads(memory, "new", [f"new-{number}" for number in range(ROUNDS)], AIM)
            yield _loads(memory, "replaced", ["new-0"], "")
            seconds = []
            for number in range(CALLS):
                begin = time.perf_counter()
                memory.events.append("message", {"number": number})
                seconds.append(time.perf_counter() - begin)
            yield milliseconds("client: append an event", seconds)


def _loads(memory: Memory, how: str, names: list[str], aim: str) -> Figure:
    rates = []
    for name in names:
        given = _embeddings(name, ROWS)
        begin = time.perf_counter()
        memory.embeddings.upsert(given)
        rates.append(ROWS / (time.perf_counter() - begin))
    title = f"client: {ROWS} embeddings of {DIMENSION} dimensions, {how}"
    return Figure(title, "rows/s", statistics.median(rates), max(rates), len(rates), aim)


def _embeddings(name: str, count: int) -> list[Embedding]:
    vectors = np.random.default_rng(17).standard_normal((count, DIMENSION), dtype=np.float32)
    return [
        Embedding(f"{name}-{number}", vector, f"text number {number} of many", {"number": number})
        for number, vector in enumerate(vectors)
    ]
