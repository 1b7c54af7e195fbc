"""The admin needs what docs/redis.md lists, and nothing else; without any of it one hears what is missing."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from memoryctl.embedded import Login
from migrations.redis.server import NEEDED, NEEDED_FOR_VECTORS, NEEDED_IN_CLUSTER, parsed
from tests.migrations import apiserver
from tests.migrations.apiserver import ApiServer
from tests.migrations.documents import ROOT
from tests.migrations.redis.documents import DAY_MS, Command, Memory
from tests.migrations.redis.test_maintain import append, put, upsert
from tests.redisservers import Group, Node, verifier

LEAST = Login("memory-admin", "least")


def documented() -> list[str]:
    """The rules of the guide, but the password."""
    text = (ROOT / "docs" / "redis.md").read_text()
    found = re.search(r"ACL SETUSER memory-admin on >\S+ (.*?)```", text, re.DOTALL)
    assert found
    return found[1].split()


def give(node: Node, rules: list[str]) -> None:
    with node.client() as admin:
        known = [rule for rule in rules if node.kind == "redis8" or not rule.startswith("+v")]
        admin.execute_command("ACL", "SETUSER", LEAST.username, "reset", "on", verifier(LEAST.password), *known)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with apiserver.serving(tmp_path, monkeypatch) as server:
        provider = {"kind": "XMemoryProvider", "metadata": {"name": "redis", "uid": "provider-uid"}}
        server.singles["/xmemoryproviders/redis"] = provider
        yield server


def whole_life(memory: Memory, command: Command) -> None:
    """Everything that we do on a server, as the least admin."""
    for each in (memory, memory.but(hold=True), memory.but(ttl_days=7)):
        answer = command.make(each, admin=LEAST)
        assert (answer.code, answer.report["verify"]) == (0, []), answer.message
    assert command.look(memory, admin=LEAST).report["code"] == 0
    with memory.connect() as app:
        for number, days in enumerate((9, 0)):
            append(app, memory, number, days * DAY_MS)
            put(app, memory, f"k{days}", days * DAY_MS)
            app.zadd(f"{memory.prefix}kv-times", {"gone": 1})
            if memory.node.kind == "redis8":
                upsert(app, memory, f"v{days}", days * DAY_MS)
    with memory.node.client() as admin:
        admin.acl_deluser(memory.name())
    for _ in range(2):
        answer = command.maintain(memory, "Repair", admin=LEAST)
        assert answer.report["code"] == 0, answer.message
    for _ in range(3):
        answer = command.do("reap", memory, memory.reap_document(), admin=LEAST)
        assert answer.report["code"] == 0, answer.message
    assert answer.message == "homes: 0 in use"


def test_admin_of_the_guide_can_do_everything(any_memory: Memory, command: Command, api: ApiServer) -> None:
    node = any_memory.node
    give(node, documented())
    with node.client() as admin:
        admin.config_resetstat()
        whole_life(any_memory.but(extra={"deletionPolicy": "Delete"}), command)
        sent = {f"+{name.removeprefix('cmdstat_').lower()}" for name in admin.info("commandstats")}
    assert api.paths
    # For a server without a file for users, a cluster, Redis 7.0, another logical database, a longer run, and for
    # what was written anew while it was looked at.
    elsewhere = {"+config|rewrite", "+cluster|nodes", "+acl|cat", "+select", "+pexpire", "+unwatch"}
    vectors = {rule for rule in documented() if rule.startswith("+v")} | {"+zmscore", "+srem"}
    needed = {rule for rule in documented() if rule.startswith("+")} - (set() if node.kind == "redis8" else vectors)
    assert needed - elsewhere <= sent, "nothing is asked for that is not needed"


def test_admin_of_the_guide_can_do_everything_in_a_cluster(
    redis_cluster: Group, command: Command, api: ApiServer
) -> None:
    for node in redis_cluster.nodes:
        give(node, documented())
    assert command.make(Memory(redis_cluster.first), admin=LEAST).code == 0
    assert command.maintain(Memory(redis_cluster.first), admin=LEAST).report["code"] == 0
    assert api.paths == []


def test_guide_lists_what_is_tried_and_nothing_else() -> None:
    rules = {rule for rule in documented() if rule.startswith("+")}
    tried = set()
    for line in (*NEEDED, *NEEDED_IN_CLUSTER, *NEEDED_FOR_VECTORS):
        first, _, rest = line.lower().partition(" ")
        container = first in {"acl", "client", "cluster", "command", "config", "memory"}
        tried.add(f"+{first}|{rest.split()[0]}" if container else f"+{first}")
    assert rules == tried


IN_CLUSTER = "+cluster|nodes"


@pytest.mark.parametrize(
    "lacking", sorted({rule for rule in documented() if rule.startswith(("+", "~"))} - {IN_CLUSTER})
)
def test_what_the_admin_lacks_is_named(redis8: Node, command: Command, lacking: str) -> None:
    named_when_lacking(redis8, command, lacking)


def test_what_the_admin_lacks_of_a_cluster_is_named(redis_cluster: Group, command: Command) -> None:
    named_when_lacking(redis_cluster.first, command, IN_CLUSTER)


def named_when_lacking(node: Node, command: Command, lacking: str) -> None:
    give(node, [rule for rule in documented() if rule != lacking])
    memory = Memory(node)
    for answer in (command.look(memory, admin=LEAST), command.make(memory, admin=LEAST)):
        assert answer.report["reason"] == "PermissionDenied", answer.message
        named = {"~mem:*": "xlen", "~mem-ledger:*": "hgetall"}.get(
            lacking, lacking[1:].partition("|")[2] or lacking[1:]
        )
        assert named in answer.message.lower()
        assert "docs/redis.md lists" in answer.message
    with node.client() as admin:
        assert admin.keys() == [], "nothing is half-made"


def test_probe_says_what_the_server_is(any_memory: Memory, command: Command) -> None:
    probed = command.look(any_memory)
    node = any_memory.node
    assert (probed.code, probed.report["code"]) == (0, 0)
    assert probed.message == f"127.0.0.1:{node.port} is ready for Memories"
    vectors = ["vector-sets"] if node.kind == "redis8" else []
    flavour = "valkey" if node.kind == "valkey" else "redis"
    assert probed.report["server"]["capabilities"] == sorted(["acl-file", flavour, *vectors])
    with node.client() as admin:
        said = admin.info("server")
    assert probed.report["server"]["version"] == said.get("valkey_version", said["redis_version"])
    assert any("writes nothing to disk" in each for each in probed.report["warnings"])


def test_server_that_evicts_is_warned_of(redis8: Node, command: Command) -> None:
    with redis8.client() as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        try:
            warnings = command.make(Memory(redis8)).report["warnings"]
        finally:
            admin.config_set("maxmemory-policy", "noeviction")
    assert any("may remove data when its memory is full (maxmemory-policy allkeys-lru)" in each for each in warnings)


def test_full_server_is_an_answer(redis8: Node, command: Command) -> None:
    with redis8.client() as admin:
        admin.config_set("maxmemory", "1")
        try:
            answer = command.make(Memory(redis8))
        finally:
            admin.config_set("maxmemory", "0")
    assert (answer.code, answer.report["reason"]) == (1, "JobFailed")
    assert "OOM" in answer.message or "maxmemory" in answer.message


@pytest.mark.parametrize(
    ("version", "numbers"), [("8.0.2", (8, 0, 2)), ("6.2.14", (6, 2, 14)), ("7.4.0-rc1", (7, 4, 0)), ("", ())]
)
def test_versions_are_compared_as_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert parsed(version) == numbers
