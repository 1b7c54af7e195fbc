from pathlib import Path

import pytest

from tests.migrations.documents import Command, Memory
from tests.postgres import VERSIONS, Database, Postgres, Servers

# The data model's own tests run on every version; what provisioning asks of an older one is for `make long`.
OLDER = [pytest.param(version, marks=pytest.mark.long) for version in VERSIONS[:-1]]


@pytest.fixture(params=[*OLDER, VERSIONS[-1]], ids="postgresql-{}".format)
def postgres(request: pytest.FixtureRequest, postgres_servers: Servers) -> Postgres:
    """Each version in turn; a test that need not see every version asks for `postgres18`."""
    return postgres_servers.get(request.param)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, monkeypatch, capsys)


@pytest.fixture
def memory(database: Database) -> Memory:
    """A Memory on PostgreSQL 18 that nobody has provisioned yet."""
    return Memory(database)
