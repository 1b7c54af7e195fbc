"""Several nodes, TLS, another logical database, and servers that are not there (yet)."""

import threading
from pathlib import Path

import pytest
import redis
import trustme

from memoryctl.embedded import Login
from tests.migrations.redis.documents import Command, Memory
from tests.redisservers import Client, Group, Node, Servers, free_port, launch, launch_cluster, launch_pair, until


def opens(node: Node, login: Login) -> bool:
    try:
        with node.client(login) as app:
            return bool(app.ping())
    except redis.AuthenticationError:
        return False


def lines(admin: Client) -> list[str]:
    return str(admin.execute_command("CLUSTER", "NODES")).splitlines()


def test_logins_are_on_every_node_of_a_cluster_and_keys_in_one_slot(redis_cluster: Group, command: Command) -> None:
    memories = [Memory(redis_cluster.first, identity=f"team/{number}") for number in range(6)]
    for memory in memories:
        answer = command.make(memory)
        assert (answer.code, answer.report["verify"]) == (0, [])
        assert answer.report["server"]["capabilities"] == ["acl-file", "cluster", "redis", "replicas", "vector-sets"]
        assert all(opens(node, login) for node in redis_cluster.nodes for login in (memory.writer, memory.reader))
        with redis.RedisCluster(
            host=memory.node.host,
            port=memory.node.port,
            username=memory.writer.username,
            password=memory.writer.password,
            decode_responses=True,
        ) as app:
            assert app.hget(f"{memory.prefix}meta", "dataset") == "notes"
            assert app.hset(f"{memory.prefix}kv:k", mapping={"value": "1", "updated_at": "1"}) == 2
    first = memories[0]
    closed = first.but(slots={("writer", "a"): ("closed", "")})
    assert command.make(closed).code == 0
    assert not any(opens(node, first.writer) for node in redis_cluster.nodes)
    assert command.maintain(first.but(ttl_days=1)).message == "homes: 6 looked after"


@pytest.mark.long
def test_cluster_that_speaks_tls(tmp_path: Path, command: Command) -> None:
    group = launch_cluster(tmp_path / "servers", tls=True)
    try:
        memory = Memory(group.nodes[1])
        answer = command.make(memory)
        assert (answer.code, answer.report["verify"]) == (0, [])
        assert all(opens(node, memory.writer) for node in group.nodes)
        assert command.maintain(memory).report["code"] == 0
    finally:
        group.stop()


def test_cluster_is_reached_by_any_of_its_nodes(redis_cluster: Group, command: Command) -> None:
    memory = Memory(redis_cluster.nodes[2])
    assert command.make(memory).code == 0
    assert command.make(memory.but(node=redis_cluster.nodes[1])).code == 0
    probed = command.look(memory.but(node=redis_cluster.nodes[3]))
    assert probed.report["code"] == 0, "the replica of a cluster names the others"


def test_logins_are_on_the_replica(redis_pair: Group, command: Command) -> None:
    memory = Memory(redis_pair.first)
    assert command.make(memory).code == 0
    assert all(opens(node, memory.writer) for node in redis_pair.nodes)
    session = memory.connect(node=redis_pair.nodes[1])
    session.ping()
    assert command.make(memory.but(slots={("writer", "a"): ("closed", "")})).code == 0
    with pytest.raises(redis.ConnectionError):
        session.ping()
    assert not any(opens(node, memory.writer) for node in redis_pair.nodes)


@pytest.mark.long
def test_after_a_failover_the_replica_has_the_home_and_its_logins(tmp_path: Path, command: Command) -> None:
    group = launch_pair(tmp_path)
    primary, replica = group.nodes
    try:
        memory = Memory(primary, ttl_days=7)
        assert command.make(memory).code == 0
        with memory.connect() as app, replica.client() as admin:
            app.xadd(f"{memory.prefix}events", {"a": "b"})
            until(lambda: admin.xlen(f"{memory.prefix}events") == 1)
            primary.stop(kill=True)
            admin.replicaof("NO", "ONE")
        moved = memory.but(node=replica)
        assert opens(replica, memory.writer)
        assert command.make(moved).report["verify"] == []
        assert command.maintain(moved).message == "homes: 1 looked after"
        primary.options = (*primary.options, f"replicaof {replica.host} {replica.port}")
        primary.start()
        with replica.client() as admin:
            until(lambda: "online" in str(admin.info("replication").get("slave0")))
        assert command.make(moved.but(slots={("writer", "a"): ("closed", "")})).code == 0
        assert not opens(primary, memory.writer), "the old primary is a replica now, and visited as one"
    finally:
        group.stop()


def test_replica_is_no_provider(redis_pair: Group, command: Command) -> None:
    answer = command.make(Memory(redis_pair.nodes[1]), deadline="1")
    assert (answer.code, answer.report["reason"]) == (30, "Unreachable")
    assert f"is a replica of 127.0.0.1:{redis_pair.first.port}" in answer.message


def test_replica_that_takes_logins_and_cannot_be_reached_is_no_success(tmp_path: Path, command: Command) -> None:
    """It says that it is elsewhere: the primary sees it, and we do not."""
    primary = launch(tmp_path / "primary", options=["repl-diskless-sync-delay 0"])
    replica = launch(
        tmp_path / "replica",
        options=[
            f"replicaof 127.0.0.1 {primary.port}",
            "masteruser platform",
            "masterauth the-platform's-password",
            "repl-diskless-sync-delay 0",
            f"replica-announce-port {(nowhere := free_port())}",
        ],
    )
    try:
        with primary.client() as admin:
            until(lambda: "online" in str(admin.info("replication").get("slave0")))
            answer = command.make(Memory(primary), deadline="2")
            assert (answer.code, answer.report["reason"]) == (30, "Unreachable")
            assert f"cannot reach 127.0.0.1:{nowhere} (127.0.0.1:{primary.port} names it" in answer.message
            assert admin.keys() == []
    finally:
        replica.stop()
        primary.stop()


def test_node_that_the_server_gave_up_is_told_and_not_waited_for(tmp_path: Path, command: Command) -> None:
    group = launch_cluster(tmp_path / "servers", replicas=1, timeout_ms=1000)
    try:
        memory, gone = Memory(group.first), group.nodes[3]
        gone.stop(kill=True)
        with group.first.client() as admin:
            until(lambda: any("fail" in line and "fail?" not in line for line in lines(admin)))
        answer = command.make(memory)
        assert answer.code == 0
        assert answer.report["warnings"][0].startswith(f"127.0.0.1:{gone.port} is away")
        gone.start()
        with group.first.client() as admin:
            until(lambda: not any("fail" in line for line in lines(admin)))
        assert command.maintain(memory).report["code"] == 0
        assert opens(gone, memory.writer)
    finally:
        group.stop()


def test_replica_that_is_not_with_its_primary_yet_is_told(tmp_path: Path, command: Command) -> None:
    primary = launch(tmp_path / "primary", options=["repl-diskless-sync-delay 30"])
    options = [f"replicaof 127.0.0.1 {primary.port}", "masteruser platform", "masterauth the-platform's-password"]
    replica = launch(tmp_path / "replica", options=options)
    try:
        with primary.client() as admin:
            until(lambda: "wait_bgsave" in str(admin.info("replication").get("slave0")))
        answer = command.make(Memory(primary))
        assert answer.code == 0
        away = f"127.0.0.1:{replica.port} is away, as the server itself says: it gets its logins from maintenance"
        assert answer.report["warnings"][0] == f"{away} once it is back"
    finally:
        replica.stop(kill=True)
        primary.stop()


def test_tls_with_the_providers_ca(redis_tls: Node, command: Command) -> None:
    memory = Memory(redis_tls)
    assert command.make(memory).code == 0
    probed = command.look(memory)
    assert (probed.report["code"], probed.report["caBundle"]) == (0, redis_tls.ca)
    with memory.connect() as app:
        assert app.hget(f"{memory.prefix}meta", "contract") == "1"


def test_server_of_another_ca_is_not_trusted(redis_tls: Node, command: Command) -> None:
    environment = command.mounted_for(Memory(redis_tls), Memory(redis_tls).document(), deadline="1")
    (Path(environment["MEMORY_DIR"]) / "tls" / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    answer = command.run_mounted("provision", environment)
    assert answer.code == 30
    assert "certificate verify failed" in answer.message
    document = Memory(redis_tls, provider={"tls": False}).document()
    assert command.do("provision", Memory(redis_tls), document, deadline="1").code == 30


def test_another_logical_database(redis8: Node, command: Command) -> None:
    memory = Memory(redis8, database=3)
    assert command.make(memory).code == 0
    with memory.connect() as app, redis8.client() as admin:
        assert app.hget(f"{memory.prefix}meta", "dataset") == "notes"
        assert admin.keys() == []
    assert command.maintain(memory).message == "homes: 1 looked after"
    assert Memory(redis8).prefix != memory.prefix


@pytest.mark.parametrize("place", ["single", "cluster"])
def test_logical_database_that_is_not_there(redis8: Node, redis_servers: Servers, command: Command, place: str) -> None:
    node = redis8 if place == "single" else redis_servers.cluster(replicas=1).first
    for answer in (command.make(Memory(node, database=99)), command.look(Memory(node, database=99))):
        assert answer.report["reason"] == "BadRequest"
        assert "has no logical database 99" in answer.message
        assert "a cluster has only 0" in answer.message


def test_server_that_comes_later_is_waited_for(tmp_path: Path, command: Command) -> None:
    node = launch(tmp_path)
    node.stop()
    timer = threading.Timer(0.7, node.start)
    timer.start()
    try:
        answer = command.make(Memory(node))
        assert answer.code == 0
        assert any(line["message"] == "waiting for the backend" for line in answer.log)
    finally:
        timer.join()
        node.stop()


def test_server_that_does_not_come_ends_the_wait(command: Command, redis8: Node) -> None:
    nowhere = Memory(redis8, provider={"port": free_port()})
    answer = command.make(nowhere, deadline="1")
    assert (answer.code, answer.report["reason"]) == (30, "Unreachable")
    probed = command.look(nowhere)
    assert (probed.code, probed.report["code"]) == (0, 30)
    for other in ("maintain", "plan", "reap"):
        document = {"maintain": nowhere.maintain_document(), "reap": nowhere.reap_document()}
        if other in document:
            assert command.do(other, nowhere, document[other]).report["code"] == 30


def test_wrong_password_is_refused_at_once(memory: Memory, command: Command) -> None:
    answer = command.make(memory, admin=Login(memory.node.admin.username, "wrong"))
    assert (answer.code, answer.report["reason"]) == (13, "PermissionDenied")
    assert 'refuses the admin login "platform" of provider "redis"' in answer.message
    assert "adminSecret" in answer.message


def test_restart_in_the_middle_begins_again(tmp_path: Path, command: Command) -> None:
    node = launch(tmp_path)
    try:
        memory = Memory(node)
        with node.client() as admin:
            admin.set(f"{memory.ledger}:lock:{memory.key}", "somebody")
        # It waits for the lock while the server goes away under it, and the lock with it.
        timers = [threading.Timer(0.5, lambda: node.stop(kill=True)), threading.Timer(1.5, node.start)]
        for timer in timers:
            timer.start()
        answer = command.make(memory)
        for timer in timers:
            timer.join()
        assert answer.code == 0
        assert any("broke" in line["message"] for line in answer.log)
    finally:
        node.stop()
