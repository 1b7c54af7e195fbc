from pathlib import Path

import pytest

from tests.migrations.documents import Command, Memory
from tests.postgres import Database


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, monkeypatch, capsys)


@pytest.fixture
def memory(database: Database) -> Memory:
    """A Memory on PostgreSQL 18 that nobody has provisioned yet."""
    return Memory(database)
