"""SIGKILL at every named step and at random moments: the next run ends where an undisturbed one does."""

import json
import random
import time
from collections.abc import Iterator

import pytest

from migrations.postgres import sqlfile
from tests.migrations.documents import Command, Memory
from tests.migrations.snapshot import snapshot
from tests.postgres import Postgres

STEPS = [
    "lock",
    "ledger",
    "roles",
    "home",
    "extension",
    "migrations",
    "dimension",
    *(f"migration:{file.title}" for module in ("core", "embeddings") for file in sqlfile.read(module)),
    "registry",
    "partitions",
    "grants",
    "access",
    "logins",
    "sessions",
    "verify",
    "seal",
]


@pytest.fixture
def undisturbed(postgres18: Postgres, command: Command) -> Iterator[dict[str, list[str]]]:
    """The catalog of a run that nobody killed."""
    with postgres18.database() as database:
        memory = Memory(database)
        answer = command.provision(memory)
        assert answer.steps == STEPS, "the steps of this test are those of a run"
        yield snapshot(memory)


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step(memory: Memory, command: Command, undisturbed: dict[str, list[str]], step: str) -> None:
    command.kill_at(memory, step)
    assert command.provision(memory).code == 0
    assert snapshot(memory) == undisturbed
    memory.connect().close()


@pytest.mark.long
@pytest.mark.parametrize("moment", range(8))
def test_killed_at_a_random_moment(
    memory: Memory, command: Command, undisturbed: dict[str, list[str]], moment: int
) -> None:
    process = command.spawn(memory)
    assert process.stderr
    process.stderr.readline()
    delay = random.uniform(moment * 0.03, (moment + 1) * 0.03)
    time.sleep(delay)
    process.kill()
    process.stderr.close()
    process.wait()
    assert command.provision(memory).code == 0, f"killed after {delay:.4f} s"
    assert snapshot(memory) == undisturbed, f"killed after {delay:.4f} s"


def test_killed_adoption_is_done_again_whole(memory: Memory, command: Command) -> None:
    assert command.provision(memory).code == 0
    again = memory.but(uid="uid-2", adopt=True, password="second-password")
    process = command.spawn(again)
    assert process.stderr
    for line in process.stderr:
        if json.loads(line).get("step") == "grants":
            process.kill()
            break
    process.stderr.close()
    process.wait()
    with memory.database.connect() as connection:
        assert connection.execute("SELECT xr_uid FROM memory_ledger.homes").fetchone() in {("uid-1",), ("uid-2",)}
    assert command.provision(again).code == 0
    again.connect().close()
