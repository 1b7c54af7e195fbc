"""`reap`: access ends with the claim, and data when its last word was Delete."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from migrations.redis import reap as reaping
from tests.migrations import apiserver
from tests.migrations.apiserver import ApiServer
from tests.migrations.redis.documents import Answer, Command, Memory
from tests.migrations.redis.test_nodes import opens
from tests.migrations.redis.test_plan import plan
from tests.redisservers import Group


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A control plane that has the provider."""
    with apiserver.serving(tmp_path, monkeypatch) as server:
        provider = {"kind": "XMemoryProvider", "metadata": {"name": "redis", "uid": "provider-uid"}}
        server.singles["/xmemoryproviders/redis"] = provider
        yield server


def reap(command: Command, memory: Memory, grace: int = 0) -> Answer:
    return command.do("reap", memory, memory.reap_document(grace))


def here(api: ApiServer, memory: Memory) -> None:
    api.has(memory.identity, memory.uid)


def keys(memory: Memory) -> list[str]:
    with memory.node.client() as admin:
        return sorted(map(str, admin.keys()))


def test_life_of_a_home(any_memory: Memory, command: Command, api: ApiServer) -> None:
    memory = any_memory.but(extra={"deletionPolicy": "Delete"})
    assert command.make(memory).code == 0
    here(api, memory)
    session = memory.connect()
    session.xadd(f"{memory.prefix}events", {"a": "b"})
    assert reap(command, memory).message == "homes: 1 in use"
    api.lacks(memory.identity, memory.uid)
    assert reap(command, memory).message == "homes: 0 in use, 1 whose Memory is missing since the last run"
    assert session.ping(), "one look is not enough"
    assert reap(command, memory, grace=3600).message.startswith("homes: 0 in use, 1 closed, to be dropped after")
    with pytest.raises(redis.ConnectionError):
        session.execute_command("PING")
    assert not opens(memory.node, memory.writer)
    assert f"{memory.prefix}events" in keys(memory)
    for policy in ("Report", "Repair"):
        assert command.maintain(memory, policy).report["code"] == 0
        assert not opens(memory.node, memory.writer), "maintenance puts back no login that the reaper closed"
    here(api, memory)
    assert reap(command, memory).message == "homes: 1 in use"
    assert opens(memory.node, memory.writer), "the very same Memory is back"
    assert opens(memory.node, memory.reader)
    api.lacks(memory.identity, memory.uid)
    for _ in range(3):
        answer = reap(command, memory)
    assert (answer.report["code"], answer.message) == (0, "homes: 0 in use")
    assert keys(memory) == []
    with memory.node.client() as admin:
        assert admin.acl_users() == ["default", memory.node.admin.username]


def test_policy_retain_keeps_the_data(home: Memory, command: Command, api: ApiServer) -> None:
    for _ in range(4):
        answer = reap(command, home)
    assert answer.message == "homes: 0 in use, 1 closed and kept"
    assert f"{home.prefix}meta" in keys(home)
    again = home.but(uid="uid-2", adopt=True, password="second")
    assert "the home, which the reaper closed, opens again" in plan(command, again)["changes"]
    assert command.make(again).code == 0
    here(api, again)
    assert reap(command, again).message == "homes: 1 in use"
    assert opens(home.node, again.writer)


def test_legal_hold_keeps_the_data(memory: Memory, command: Command, api: ApiServer) -> None:
    held = memory.but(hold=True, extra={"deletionPolicy": "Delete"})
    assert command.make(held).code == 0
    for _ in range(4):
        answer = reap(command, held)
    assert answer.report["code"] == 0
    assert f"{held.prefix}meta" in keys(held)
    assert not opens(held.node, held.writer)
    assert api.paths


def test_drop_takes_one_home_and_leaves_its_neighbour(memory: Memory, command: Command, api: ApiServer) -> None:
    """The neighbour's dataset begins with the same letters, and its key prefix with the same word."""
    gone = memory.but(extra={"deletionPolicy": "Delete"})
    near = memory.but(identity="team-a/notes2", uid="uid-2", dataset="notes2")
    far = memory.but(identity="team-c/notes", uid="uid-3", key_prefix="mem-2")
    for each in (gone, near, far):
        assert command.make(each).code == 0
    with gone.connect() as app:
        for number in range(2500):
            app.hset(f"{gone.prefix}kv:{number}", "value", "1")
    here(api, near)
    for _ in range(3):
        assert reap(command, gone).report["code"] == 0
    assert [key for key in keys(memory) if key.startswith(gone.prefix)] == []
    assert {f"{near.prefix}meta", f"{far.prefix}meta"} < set(keys(memory))
    assert opens(memory.node, near.writer)
    assert opens(memory.node, far.writer)
    assert not opens(memory.node, gone.writer)


def test_claim_of_the_same_name_under_another_key_prefix(home: Memory, command: Command, api: ApiServer) -> None:
    """Users are the whole server's: the second is refused while the first has them, and then the first leaves them."""
    other = home.but(key_prefix="other", uid="uid-2", password="theirs", extra={"deletionPolicy": "Delete"})
    answer = command.make(other)
    assert (answer.code, answer.report["reason"]) == (14, "SchemaConflict")
    assert f'is that of the home "{home.prefix}"' in answer.message
    assert [key for key in keys(home) if key.startswith("other")] == []
    for _ in range(2):
        reap(command, home)
    assert not opens(home.node, home.writer)
    assert command.make(other).code == 0, "nobody comes in by them any more"
    for policy in ("Report", "Repair"):
        assert command.maintain(home, policy).report["code"] == 0
        reap(command, home)
        assert opens(home.node, other.writer), "maintenance and reaper of the first leave them alone"
    here(api, home)
    assert reap(command, home).report["code"] == 14, "nor do they take them back"
    assert opens(home.node, other.writer)
    api.lacks(home.identity, home.uid)
    with home.node.client() as admin:
        admin.hset(home.ledger, home.key, str(admin.hget(home.ledger, home.key)).replace("Retain", "Delete"))
    assert reap(command, home).message == "homes: 0 in use"
    assert opens(home.node, other.writer), "dropping the first home leaves them, too"


def test_cluster(redis_cluster: Group, command: Command, api: ApiServer) -> None:
    memories = [
        Memory(redis_cluster.first, identity=f"team/{number}", uid=f"uid-{number}", extra={"deletionPolicy": "Delete"})
        for number in range(4)
    ]
    for memory in memories:
        assert command.make(memory).code == 0
    for memory in memories[1:]:
        here(api, memory)
    for _ in range(3):
        answer = reap(command, memories[0])
    assert (answer.report["code"], answer.message) == (0, "homes: 3 in use")
    for node in redis_cluster.nodes:
        assert not opens(node, memories[0].writer)
        assert all(opens(node, memory.writer) for memory in memories[1:])
        with node.client() as admin:
            assert memories[0].name() not in admin.acl_users()


def test_home_that_a_provisioner_works_on_is_left_alone(
    home: Memory, command: Command, api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaping, "LOCK_SECONDS", 0.2)
    with home.node.client() as admin:
        admin.set(f"{home.ledger}:lock:{home.key}", "somebody", px=60_000)
        answer = command.do("reap", home, home.reap_document(), deadline="20")
        assert answer.report["code"] == 0
        assert answer.message == "homes: 1 in use"
    assert api.paths


def test_another_logical_database_is_not_ours(home: Memory, command: Command, api: ApiServer) -> None:
    elsewhere = home.but(database=2)
    assert reap(command, elsewhere).message == "homes: 0 in use"
    assert api.paths
