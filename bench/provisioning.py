"""Provisioning on a real PostgreSQL with its default durability: an empty schema, nothing to do, and eight at once."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from bench.measure import Figure, milliseconds
from memoryctl import embedded
from migrations.deadline import Deadline
from migrations.postgres.connection import Admin
from migrations.postgres.provision import provision
from migrations.postgres.request import ProvisionRequest
from migrations.request import parse
from tests.migrations.documents import Memory
from tests.postgres import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
ROUNDS = 20
TOGETHER = 8
MAINTENANCE_RUNS = 3


def measure() -> list[Figure]:
    """Start a server and provision on it."""
    with tempfile.TemporaryDirectory() as folder:
        server = embedded.start(Path(folder) / "server")
        try:
            return _measure(Database(server, server.database), Path(folder))
        finally:
            embedded.remove(Path(folder) / "server")


def _measure(database: Database, folder: Path) -> list[Figure]:
    memories = [
        Memory(database, identity=f"bench/{number}", schema=f"bench_{number}", embeddings={"dimension": 1536})
        for number in range(ROUNDS)
    ]
    fresh = [_provision(memory, folder) for memory in memories]
    connecting = list(_connecting(database))
    connected = milliseconds("", connecting).p50 / 1000
    idle = [_provision(memory, folder) - connected for memory in memories]
    return [
        milliseconds("migrations: connecting (scram-sha-256)", connecting),
        milliseconds("migrations: an empty schema", fresh),
        milliseconds("migrations: nothing to do, besides connecting", idle, "≤ 150"),
        *_isolations(database, folder, connected),
        _maintenance(database, folder),
        milliseconds(f"migrations: {TOGETHER} processes, {TOGETHER} Memories, all", [_together(database, folder)]),
    ]


def _isolations(database: Database, folder: Path, connected: float) -> Iterator[Figure]:
    """A database for each Memory takes two connections, a shared schema has the policies of all."""
    for isolation, connections in (("Database", 2), ("Dataset", 1)):
        memories = [
            Memory(
                database,
                identity=f"{isolation}/{number}",
                schema="bench_shared" if isolation == "Dataset" else f"own_{number}",
                dataset=f"notes-{number}",
                provider={"isolation": isolation},
            )
            for number in range(ROUNDS)
        ]
        for memory in memories:
            _provision(memory, folder)
        idle = [_provision(memory, folder) - connections * connected for memory in memories]
        yield milliseconds(f"migrations: nothing to do, isolation {isolation}", idle, "≤ 150")


def _maintenance(database: Database, folder: Path) -> Figure:
    """One run over all homes that are there, of which nothing is to be done; a thousand have a quarter of an hour."""
    memory = Memory(database, schema="maintained")
    environment = {**os.environ, "MEMORY_DIR": str(_mounted(memory, folder, memory.maintain_document()))}
    environment["MEMORY_REPORT_FILE"] = str(folder / "maintained" / "report.json")
    took = []
    for _ in range(MAINTENANCE_RUNS + 1):
        before = time.perf_counter()
        command = [sys.executable, "-m", "migrations", "maintain"]
        subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, check=True)
        took.append(time.perf_counter() - before)
    report = json.loads(json.loads((folder / "maintained" / "report.json").read_text())["maintain"])
    if report["code"]:
        raise RuntimeError(report["message"])
    homes = report["homes"]["inUse"]
    # The first run measures sizes and writes reports.
    return milliseconds(
        f"migrations: maintenance, for each of {homes} Memories", [each / homes for each in took[1:]], "≤ 900"
    )


def _provision(memory: Memory, folder: Path) -> float:
    request = parse(memory.document(), ProvisionRequest)
    admin = Admin.load(request.provider, _mounted(memory, folder))
    before = time.perf_counter()
    provision(request, admin, Deadline.of_job(60))
    return time.perf_counter() - before


def _connecting(database: Database) -> Iterator[float]:
    for _ in range(ROUNDS):
        before = time.perf_counter()
        psycopg.connect(database.conninfo()).close()
        yield time.perf_counter() - before


def _together(database: Database, folder: Path) -> float:
    memories = [Memory(database, identity=f"eight/{n}", schema=f"eight_{n}") for n in range(TOGETHER)]
    mounted = [_mounted(memory, folder) for memory in memories]
    before = time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "migrations", "provision"],
            cwd=ROOT,
            env={**os.environ, "MEMORY_DIR": str(path), "MEMORY_REPORT_FILE": str(path / "report.json")},
            stderr=subprocess.DEVNULL,
        )
        for path in mounted
    ]
    codes = [process.wait() for process in processes]
    if any(codes):
        msg = f"provisioners ended with {codes}"
        raise RuntimeError(msg)
    return time.perf_counter() - before


def _mounted(memory: Memory, folder: Path, document: dict[str, Any] | None = None) -> Path:
    """The files that a Job mounts: those of `provision` unless told otherwise."""
    path = folder / memory.schema
    (path / "admin").mkdir(parents=True, exist_ok=True)
    (path / "request.json").write_text(json.dumps(document or memory.document()))
    for name, value in dataclasses.asdict(memory.database.server.admin).items():
        (path / "admin" / name).write_text(value)
    return path
