"""The servers that tests are given: each is what its name says, and asks for a password."""

from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from memoryctl.embedded import Login
from tests.redisservers import TITLES, Group, Keeps, Node, launch, until


def test_every_server_asks_for_a_password(any_redis: Node) -> None:
    with any_redis.client() as client:
        name = "valkey_version" if any_redis.kind == "valkey" else "redis_version"
        assert str(client.info("server")[name]).startswith(TITLES[any_redis.kind].partition(" ")[2] or "8")
        assert client.acl_whoami() == any_redis.admin.username
    for login in (Login("default", ""), Login(any_redis.admin.username, "wrong")):
        with any_redis.client(login) as client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_tls_is_checked_against_the_authority(redis_tls: Node) -> None:
    with redis_tls.client(database=3) as client:
        assert client.set("a", "1")
    none = Retry(NoBackoff(), 0)
    with redis.Redis(port=redis_tls.port, ssl=True, retry=none) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_cluster_has_three_masters_and_a_replica(redis_cluster: Group) -> None:
    with redis_cluster.first.client() as client:
        nodes = client.cluster("NODES")
    assert sorted("master" in each["flags"] for each in nodes.values()) == [False, True, True, True]


def test_replica_has_what_its_primary_has(redis_pair: Group) -> None:
    with redis_pair.first.client() as primary, redis_pair.nodes[1].client() as replica:
        primary.set("a", "1")
        until(lambda: replica.get("a") == "1")


@pytest.mark.parametrize("keeps", ["aclfile", "config", "nothing"])
def test_restart_keeps_data_and_only_those_users_that_are_written(tmp_path: Path, keeps: Keeps) -> None:
    node = launch(tmp_path, keeps=keeps)
    try:
        with node.client() as client:
            client.set("a", "1")
            client.execute_command("ACL SETUSER somebody on nopass")
        node.stop(save=True)
        node.start()
        with node.client() as client:
            assert client.get("a") == "1"
            assert "somebody" not in client.acl_users()
    finally:
        node.stop()
