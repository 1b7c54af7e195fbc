"""Fixtures that every folder of tests shares."""

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import environment, installed, kube, measured
from tests.postgres import VERSIONS, Database, Postgres, Servers
from tests.rgw import Rgw, launch, stop

__all__ = ["environment", "installed", "kube", "measured"]  # fixtures


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
