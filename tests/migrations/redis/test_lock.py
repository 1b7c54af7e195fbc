"""The lock of a home, and a ledger that only its holder writes."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.homes import entry as entries
from migrations.redis import ledger as ledgers
from migrations.redis import server
from migrations.redis.connection import Admin, ConnectionLostError
from migrations.redis.ledger import Ledger
from migrations.redis.names import Home
from migrations.redis.request import ProvisionRequest
from migrations.redis.server import Node as Seen
from migrations.redis.server import Server
from migrations.request import parse
from tests.migrations.redis.documents import Command, Memory
from tests.migrations.redis.test_kill import finish, spawn
from tests.redisservers import until


@contextmanager
def ledger_of(memory: Memory) -> Iterator[Ledger]:
    request = parse(memory.document(), ProvisionRequest)
    admin = Admin(request.provider, memory.node.admin.username, memory.node.admin.password, ca=None)
    with server.connected(admin) as found:
        yield Ledger(found, memory.key_prefix)


def test_lock_is_kept_for_as_long_as_the_work_takes(home: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(ledgers, "RENEW_SECONDS", 0.05)
    began = time.monotonic()
    with ledger_of(home) as ledger, home.node.client() as admin:
        with ledger.locked(home.key, Deadline.in_seconds(1)) as held:
            while time.monotonic() - began < 0.6:
                assert admin.get(f"{home.ledger}:lock:{home.key}") == held.token
                held.check()
            with pytest.raises(CommandError) as busy, ledger.locked(home.key, Deadline.in_seconds(0.1)):
                pass
            assert busy.value.code is Code.LOCK_BUSY
            assert "CLIENT LIST" in busy.value.message
        assert not admin.exists(f"{home.ledger}:lock:{home.key}")


def test_run_whose_lock_is_anothers_writes_nothing(home: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "RENEW_SECONDS", 0.05)
    with ledger_of(home) as ledger, home.node.client() as admin:
        entry = ledger.get(home.key)
        assert entry
        with ledger.locked(home.key, Deadline.in_seconds(1)) as held:
            admin.set(held.name, "somebody else's")
            with pytest.raises(ConnectionLostError):
                ledger.save(entry.but(ttl_days=9), held)
            with pytest.raises(ConnectionLostError):
                ledger.remove(entry, held)
            until(held.lost.is_set)
            with pytest.raises(ConnectionLostError):
                held.check()
        assert admin.get(held.name) == "somebody else's", "nor does it free what is not its own"
        assert ledger.get(home.key) == entry


def test_renewal_and_write_at_the_same_moment(home: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "RENEW_SECONDS", 0.0001)
    with ledger_of(home) as ledger:
        entry = ledger.get(home.key)
        assert entry
        with ledger.locked(home.key, Deadline.in_seconds(1)) as held:
            for number in range(200):
                ledger.save(entry.but(ttl_days=number), held)
        assert (found := ledger.get(home.key))
        assert found.ttl_days == 199


@pytest.mark.long
def test_run_that_was_stopped_for_long_begins_again(home: Memory, command: Command) -> None:
    process = spawn(command, home.but(ttl_days=3))
    assert process.stderr
    for line in process.stderr:
        if '"judge"' in line:
            os.kill(process.pid, signal.SIGSTOP)
            break
    try:
        assert command.make(home.but(ttl_days=5)).code == 0
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert finish(process) == 0
    with home.connect() as app:
        assert app.hget(f"{home.prefix}meta", "ttl_days") in {"3", "5"}
    assert command.make(home).report["verify"] == []


def test_entry_of_another_version_is_not_read() -> None:
    with pytest.raises(CommandError) as refused:
        entries.read('{"version": 2}', "here")
    assert refused.value.code is Code.CHECKSUM_MISMATCH


def test_prefix_that_is_none() -> None:
    with pytest.raises(CommandError, match="is no prefix of a Memory"):
        _ = Home("mem:notes:").id12


@pytest.mark.parametrize(
    ("info", "sentence"),
    [
        ({"redis_version": "6.2.14"}, "is Redis 6.2.14: Memories need Redis 7.0 or newer, or Valkey"),
        ({}, "Memories need Redis 7.0"),
    ],
)
def test_server_that_is_too_old(home: Memory, info: dict[str, str], sentence: str) -> None:
    """What INFO of such a server says; its version is looked at before anything is asked of it."""
    request = parse(home.document(), ProvisionRequest)
    admin = Admin(request.provider, "nobody", "", ca=None)
    with pytest.raises(CommandError, match=sentence) as refused:
        Server(admin, [Seen("old:6379", None, info=info)]).check()
    assert refused.value.code is Code.MODULE_UNSUPPORTED


def test_slot_that_nobody_has(home: Memory) -> None:
    request = parse(home.document(), ProvisionRequest)
    admin = Admin(request.provider, "nobody", "", ca=None)
    nodes = [Seen("one:6379", None, slots=(range(1),), info={"cluster_enabled": "1"})]
    with pytest.raises(ConnectionLostError, match="no node of the cluster has slot"):
        Server(admin, nodes).at(f"{home.prefix}meta")
