"""SIGKILL at every named step and at random moments: the next run ends where an undisturbed one does."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.migrations.documents import ROOT
from tests.migrations.redis.documents import Command, Memory, in_threads
from tests.migrations.redis.snapshot import snapshot
from tests.redisservers import Node

STEPS = ["server", "lock", "judge", "ledger", "meta", "logins", "sessions", "persist", "hold", "verify", "seal"]


def spawn(command: Command, memory: Memory) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "migrations", "provision"],
        cwd=ROOT,
        env=command.mounted_for(memory, memory.document()),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_at(process: "subprocess.Popen[str]", step: str) -> None:
    assert process.stderr
    for line in process.stderr:
        if json.loads(line).get("step") == step:
            process.kill()
            break
    else:
        pytest.fail(f"the run never came to {step}")
    process.stderr.close()
    assert process.wait() in (-signal.SIGKILL, 0)  # 0: the last step may be quicker than the signal


def finish(process: "subprocess.Popen[str]") -> int:
    assert process.stderr
    process.stderr.read()
    process.stderr.close()
    return process.wait()


@pytest.fixture
def undisturbed(memory: Memory, command: Command) -> Iterator[dict[str, Any]]:
    """What a run makes that nobody killed, on hold, which has all steps."""
    answer = command.make(memory.but(hold=True))
    assert answer.steps == STEPS, "the steps of this test are those of a run"
    yield renamed(memory)
    memory.node.wipe()


def renamed(memory: Memory) -> dict[str, Any]:
    """A snapshot without the names that are one Memory's own."""
    text = json.dumps(snapshot(memory))
    for name, value in (("ID", memory.id12), ("KEY", memory.key), ("IDENTITY", memory.identity)):
        text = text.replace(value, name)
    found: dict[str, Any] = json.loads(text)
    found["entry"].pop("report", None)
    found["users"].sort()
    found["saved"].sort()
    return found


def test_killed_at_every_step_the_next_run_converges(
    redis8: Node, command: Command, undisturbed: dict[str, Any]
) -> None:
    """All at once, a Memory for each step: each next run waits for the dead one's lock to free itself."""
    memories = {step: Memory(redis8, identity=f"team/{step}", hold=True) for step in STEPS}
    processes = {step: spawn(command, memory) for step, memory in memories.items()}
    with ThreadPoolExecutor(len(STEPS)) as pool:
        list(pool.map(lambda step: kill_at(processes[step], step), STEPS))
    assert in_threads(list(memories.values())) == [[]] * len(STEPS)
    for step, memory in memories.items():
        assert renamed(memory) == undisturbed, step


@pytest.mark.long
def test_killed_at_random_moments(redis8: Node, command: Command, undisturbed: dict[str, Any]) -> None:
    for moment in range(15):
        memory = Memory(redis8, identity=f"team/{moment}", hold=True)
        process = spawn(command, memory)
        assert process.stderr
        process.stderr.readline()
        delay = random.uniform(0, 0.03)
        time.sleep(delay)
        process.kill()
        process.stderr.close()
        process.wait()
        assert command.make(memory).code == 0, f"killed after {delay:.4f} s"
        assert renamed(memory) == undisturbed, f"killed after {delay:.4f} s"


@pytest.mark.long
@pytest.mark.parametrize("step", ["logins", "sessions"])
def test_killed_adoption_ends_the_old_sessions_all_the_same(home: Memory, command: Command, step: str) -> None:
    with home.connect() as session:
        before = session.client_id()
        again = home.but(uid="uid-2", adopt=True)
        kill_at(spawn(command, again), step)
        # Killed a moment late, the run has ended them by itself.
        assert session.client_id() == before or step == "sessions"
        began = time.monotonic()
        assert command.make(again).code == 0
        assert time.monotonic() - began < 6, "the lock of a dead run frees itself within seconds"
        assert session.client_id() != before, "it has had to log in again"
