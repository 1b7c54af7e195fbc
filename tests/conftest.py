"""Fixtures that every folder of tests shares."""

from collections.abc import Iterator

import pytest
from _pytest.nodeid import coerce_node_id

from tests import redisservers
from tests.e2e.cluster import environment, installed, kube, measured
from tests.postgres import VERSIONS, Database, Postgres, Servers
from tests.redisservers import KINDS, Group, Node
from tests.rgw import Rgw, launch, stop

__all__ = ["environment", "installed", "kube", "measured"]  # fixtures


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tells pytest-xdist which tests one worker is to have.

    It finds that in a test's id, where it writes it in a way that pytest 9.2 does not see (pytest-xdist 3.8).
    """
    if hasattr(config, "workerinput"):
        for item in items:
            group = item.get_closest_marker("xdist_group")
            if group and "@" not in item.nodeid.rpartition("]")[2]:
                item._id = coerce_node_id(f"{item.nodeid}@{group.args[0]}")


@pytest.fixture(scope="session")
def postgres_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("postgresql"))
    yield servers
    servers.remove()


@pytest.fixture(params=VERSIONS, ids="postgresql-{}".format)
def postgres(request: pytest.FixtureRequest, postgres_servers: Servers) -> Postgres:
    """Each version in turn; a test that need not see every version asks for `postgres18`."""
    return postgres_servers.get(request.param)


@pytest.fixture
def postgres18(postgres_servers: Servers) -> Postgres:
    return postgres_servers.get(18)


@pytest.fixture
def any_database(postgres: Postgres) -> Iterator[Database]:
    """A fresh database on each version in turn, with pgvector."""
    with postgres.database() as database:
        yield database


@pytest.fixture
def database(postgres18: Postgres) -> Iterator[Database]:
    """A fresh database on PostgreSQL 18, with pgvector."""
    with postgres18.database() as database:
        yield database


@pytest.fixture(scope="session")
def rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rgw]:
    """Ceph RGW, for tests that carry `pytest.mark.xdist_group("rgw")`."""
    server = launch(tmp_path_factory.mktemp("rgw"))
    yield server
    stop(server)


@pytest.fixture(scope="session")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redisservers.Servers]:
    servers = redisservers.Servers(tmp_path_factory.mktemp("redis"))
    yield servers
    servers.stop()


@pytest.fixture(params=KINDS)
def any_redis(request: pytest.FixtureRequest, redis_servers: redisservers.Servers) -> Node:
    """Each server in turn, empty; a test that need not see every one asks for `redis8`."""
    return _empty(redis_servers.get(request.param))


@pytest.fixture
def redis8(redis_servers: redisservers.Servers) -> Node:
    """An empty Redis 8, whose users are in a file of their own."""
    return _empty(redis_servers.get("redis8"))


@pytest.fixture
def redis_tls(redis_servers: redisservers.Servers) -> Node:
    """An empty Redis 8 that speaks TLS only."""
    return _empty(redis_servers.get("redis8", tls=True))


@pytest.fixture
def redis_cluster(redis_servers: redisservers.Servers) -> Group:
    """An empty cluster of three masters and a replica."""
    group = redis_servers.cluster(replicas=1)
    group.wipe()
    return group


@pytest.fixture
def redis_pair(redis_servers: redisservers.Servers) -> Group:
    """An empty primary with a replica."""
    group = redis_servers.pair()
    group.wipe()
    return group


def _empty(node: Node) -> Node:
    node.wipe()
    return node
