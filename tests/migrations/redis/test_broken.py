"""What breaks on the way: each command ends with the reason, and the next run finds nothing half-done."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.redis import meta, sweep
from migrations.redis.ledger import Ledger
from migrations.redis.names import Home
from migrations.redis.reap import _Reaper
from migrations.redis.retention import Retention
from migrations.redis.server import Node as Seen
from migrations.redis.server import Server, _check_primaries
from tests.migrations import apiserver
from tests.migrations.redis.documents import DAY_MS, Command, Memory
from tests.migrations.redis.test_lock import ledger_of
from tests.migrations.redis.test_maintain import append, names, put, report_of, upsert
from tests.migrations.redis.test_nodes import opens
from tests.migrations.redis.test_plan import run
from tests.redisservers import launch


@pytest.fixture
def refusing(home: Memory) -> Iterator[Memory]:
    """A home on a server that takes no writes for the moment, as after a failover."""
    with home.node.client() as admin:
        admin.config_set("min-replicas-to-write", "1")
        yield home
        admin.config_set("min-replicas-to-write", "0")


def test_server_that_takes_no_writes_is_waited_for(refusing: Memory, command: Command) -> None:
    answer = command.make(refusing, deadline="2")
    assert (answer.code, answer.report["reason"]) == (30, "Unreachable")
    assert "broke and the deadline is near: NOREPLICAS" in answer.message
    assert any(line["message"] == "the connection broke, beginning again" for line in answer.log)
    answer = command.maintain(refusing)
    assert (answer.report["code"], answer.report["reason"]) == (30, "Unreachable")
    assert "the next run begins again: NOREPLICAS" in answer.message
    assert opens(refusing.node, refusing.writer)


def test_reaper_whose_server_takes_no_writes(
    refusing: Memory, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with apiserver.serving(tmp_path, monkeypatch) as api:
        provider = {"kind": "XMemoryProvider", "metadata": {"name": "redis", "uid": "provider-uid"}}
        api.singles["/xmemoryproviders/redis"] = provider
        answer = command.do("reap", refusing, refusing.reap_document())
    assert (answer.code, answer.report["code"]) == (0, 30)
    assert f'home "{refusing.prefix}"' in answer.message


def test_cluster_that_has_no_slots_yet(tmp_path: Path, command: Command) -> None:
    node = launch(tmp_path / "server", options=["cluster-enabled yes"])
    try:
        memory = Memory(node)
        assert command.make(memory, deadline="1").code == 30
        assert "no node of the cluster has slot" in command.maintain(memory).message
        code, found = run(command, memory)
        assert (code, found["reason"]) == (30, "Unreachable")
    finally:
        node.stop()


def test_cluster_without_a_node_that_takes_writes(home: Memory) -> None:
    with ledger_of(home) as ledger:
        replica = Seen("replica:6379", None, primary=False)
        server = Server(ledger.server.admin, [replica], away=["one:6379"])
        with pytest.raises(CommandError, match="names no node that takes writes: one:6379 are away") as refused:
            _check_primaries(server)
        assert refused.value.code is Code.UNREACHABLE


def test_mistake_of_ours_in_one_home_stops_no_other(
    home: Memory, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = home.but(identity="team-b/notes")
    assert command.make(other).code == 0
    look = meta.look

    def mistaken(server: Server, place: Home) -> meta.Vectors:
        if place.prefix == home.prefix:
            raise KeyError
        return look(server, place)

    monkeypatch.setattr(meta, "look", mistaken)
    answer = command.maintain(home)
    assert (answer.report["code"], answer.report["reason"]) == (1, "JobFailed")
    assert "drift: unexpected KeyError: see the log" in answer.message
    assert report_of(command, other)["code"] == 0


def test_times_that_an_app_made_up(home: Memory, command: Command) -> None:
    with home.connect() as app:
        app.zadd(f"{home.prefix}vector-times", {"0:never": "-inf"})
        app.hset(f"{home.prefix}kv:far", mapping={"updated_at": "9" * 30, "expires_at": ""})
    assert command.maintain(home).report["code"] == 0
    assert report_of(command, home)["data"]["oldest"] is None


def test_hold_is_looked_at_where_data_is_dropped(home: Memory) -> None:
    with ledger_of(home) as ledger:
        entry = ledger.get(home.key)
        assert entry
        with pytest.raises(CommandError) as refused:
            _Reaper(ledger.server, Ledger(ledger.server, "mem")).drop(entry.but(legal_hold=True))
        assert refused.value.code is Code.ON_HOLD


def test_deadline_ends_retention_between_batches(home: Memory) -> None:
    with home.connect() as app:
        append(app, home, 1, 2 * DAY_MS)
        put(app, home, "k", 2 * DAY_MS)
        upsert(app, home, "v", 2 * DAY_MS, expires_at=1)
        put(app, home, "young", 0)
    before = names(home)
    with ledger_of(home) as ledger:
        prefix = Home(home.prefix)
        late = Retention(ledger.server, prefix, DAY_MS, Deadline.in_seconds(0), lambda: None)
        late.times()
        assert (late.events(), late.keys([f"{home.prefix}kv:k"]), late.embeddings()) == (0, 0, 0)
        assert names(home) == before
        timely = Retention(ledger.server, prefix, DAY_MS, Deadline.in_seconds(9), lambda: None)
        assert timely.keys([f"{home.prefix}kv:young"]) == 0, "what only seemed to be old stays"
        assert timely.keys([f"{home.prefix}kv:k"]) == 1


def test_walk_that_takes_too_long_leaves_time_for_the_homes(
    home: Memory, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What clients have noted the time of goes all the same; how much there is, nobody knows then."""
    memory = home.but(ttl_days=1)
    assert command.make(memory).code == 0
    with memory.connect() as app:
        put(app, memory, "old", 2 * DAY_MS)
        put(app, memory, "young", 0)
        append(app, memory, 1, 2 * DAY_MS)
    walk = sweep.walk

    def slowly(server: Server, homes: Sequence[sweep.Seen], key_prefix: str, deadline: Deadline) -> bool:
        assert len(homes) == 1
        assert 5 < deadline.remaining < 10, "half of what is left"
        return walk(server, [], key_prefix, Deadline.in_seconds(0))

    monkeypatch.setattr(sweep, "walk", slowly)
    assert command.maintain(memory).report["code"] == 0
    assert report_of(command, memory)["data"] is None
    assert names(memory) & {"kv:old", "kv:young"} == {"kv:young"}


def test_home_that_is_dropped_while_the_keys_are_walked_over(
    home: Memory, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = sweep.walk

    def late(*arguments: Any) -> bool:
        with home.node.client() as admin:
            admin.delete(home.ledger)
            admin.acl_deluser(home.name())
        return walk(*arguments)

    monkeypatch.setattr(sweep, "walk", late)
    assert command.maintain(home).report["code"] == 0
    with home.node.client() as admin:
        assert home.name() not in admin.acl_users(), "nobody comes back"


def test_one_command_of_many_that_fails_is_a_failure(home: Memory) -> None:
    with ledger_of(home) as ledger, pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        ledger.server.first.all([["TIME"], ["XLEN", f"{home.prefix}meta"]])


def test_what_a_run_does_not_remember_the_next_one_finds(
    home: Memory, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "REMEMBERED", 1)
    monkeypatch.setattr(sweep, "PAGE", 1)
    memory = home.but(ttl_days=1)
    assert command.make(memory).code == 0
    with memory.connect() as app:
        for number in range(3):
            put(app, memory, str(number), 2 * DAY_MS)
            append(app, memory, number, 0)
        app.delete(f"{memory.prefix}kv-times")  # as a client that keeps no such index
    left = []
    for _ in range(3):
        assert command.maintain(memory).report["code"] == 0
        left.append(sum(name.startswith("kv:") for name in names(memory)))
    assert left == [2, 1, 0]
    with memory.node.client() as admin:
        assert all(admin.pttl(f"{memory.prefix}event-id:{number}") > 0 for number in range(3))
