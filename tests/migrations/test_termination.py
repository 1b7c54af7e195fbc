"""SIGTERM, as Kubernetes sends it to an evicted pod: the process ends at once, and the next run ends as ever."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from migrations import termination
from tests.migrations.documents import ROOT, Command, Memory
from tests.migrations.snapshot import snapshot
from tests.postgres import Postgres

SOON = 3.0
STEPS = ["lock", "ledger", "roles", "home", "migrations", "migration:core/0002_events.sql", "grants", "logins"]


@pytest.fixture
def undisturbed(postgres18: Postgres, command: Command) -> Iterator[dict[str, list[str]]]:
    """The catalog of a run that nobody ended."""
    with postgres18.database() as database:
        memory = Memory(database)
        assert command.provision(memory).code == 0
        yield snapshot(memory)


def _until(process: subprocess.Popen[str], field: str, value: str) -> None:
    assert process.stderr
    for line in process.stderr:
        if json.loads(line).get(field) == value:
            return
    pytest.fail(f"the run never came to {value}")


def _terminate(process: subprocess.Popen[str], signals: int = 1) -> str:
    """Sends SIGTERM, checks how the process ends, and gives its last line."""
    begin = time.monotonic()
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    took = time.monotonic() - begin
    assert process.returncode == 143, errors
    assert took < SOON
    lines = [json.loads(line) for line in errors.splitlines()]  # JSON alone, so no trace of a stack
    return str(lines[-1]["message"])


def _sessions(memory: Memory) -> int:
    """Counts what is left; a backend needs a moment to see that its client said goodbye."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'memory-migrations' AND datname = %s"
    with memory.database.superuser() as connection:
        for _ in range(50):
            row = connection.execute(query, [memory.database.name]).fetchone()
            if row == (0,):
                break
            time.sleep(0.02)
    return int(row[0]) if row else -1


@pytest.mark.parametrize("step", STEPS)
def test_ended_at_a_step(memory: Memory, command: Command, undisturbed: dict[str, list[str]], step: str) -> None:
    process = command.spawn(memory)
    _until(process, "step", step)
    assert _terminate(process) == "ended by SIGTERM: the next run goes on from here"
    assert _sessions(memory) == 0
    assert command.provision(memory).code == 0
    assert snapshot(memory) == undisturbed


def test_ended_in_a_statement_that_waits(memory: Memory, command: Command, undisturbed: dict[str, list[str]]) -> None:
    """The statement is cancelled, and a second signal does not disturb that."""
    assert command.provision(memory).code == 0
    with memory.database.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE memory_ledger.homes")
        process = command.spawn(memory)
        _until(process, "step", "ledger")
        time.sleep(0.2)
        assert _terminate(process, signals=2).startswith("ended by SIGTERM")
        assert _sessions(memory) == 0, "while the table is still locked"
    assert command.provision(memory).code == 0
    assert snapshot(memory) == undisturbed


def test_ended_while_another_holds_the_homes_lock(memory: Memory, command: Command) -> None:
    with memory.hold():
        process = command.spawn(memory)
        _until(process, "step", "lock")
        time.sleep(0.2)
        assert _terminate(process).startswith("ended by SIGTERM")
        assert _sessions(memory) == 0
    assert command.provision(memory).code == 0


def test_ended_while_the_backend_is_waited_for(memory: Memory, command: Command) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        process = command.spawn(memory.but(provider={"port": nobody.getsockname()[1]}))
        _until(process, "message", "waiting for the backend")
        assert _terminate(process).startswith("ended by SIGTERM")


def test_ended_while_the_backend_says_nothing(memory: Memory, command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = command.spawn(memory.but(provider={"port": silent.getsockname()[1]}))
        client, _ = silent.accept()
        with client:
            assert _terminate(process).startswith("ended by SIGTERM")


def test_signal_after_the_end_hides_no_exit_code(memory: Memory, command: Command) -> None:
    process = command.spawn(memory)
    _until(process, "reason", "Succeeded")
    time.sleep(0.005)  # the report is written, and the interpreter cleans up
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode in (0, 143)  # 143: between the report and the end of main


def test_ended_late_when_the_program_does_not_end_itself() -> None:
    """Something in the main thread that no exception gets through, as a call into a library can be."""
    program = (
        "from migrations import termination\n"
        "import time\n"
        "termination.PATIENCE_SECONDS = 0.2\n"
        "termination.install()\n"
        "while True:\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    except BaseException:\n"
        "        pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "without an answer from the server" in json.loads(errors)["message"]


def test_other_signals_end_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process, where only the end itself is put off."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(termination, "PATIENCE_SECONDS", 0)
    reader, writer = os.pipe()
    try:
        os.write(writer, bytes([signal.SIGINT, signal.SIGTERM]))
        termination.end_late(reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert ended == [143]
    assert json.loads(capsys.readouterr().err)["message"].startswith("ended by SIGTERM")
