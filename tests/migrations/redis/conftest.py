from pathlib import Path

import pytest

from tests.migrations.redis.documents import Command, Memory
from tests.redisservers import Node


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, monkeypatch, capsys)


@pytest.fixture
def memory(redis8: Node) -> Memory:
    """A Memory on Redis 8 that nobody has provisioned yet."""
    return Memory(redis8)


@pytest.fixture
def any_memory(any_redis: Node) -> Memory:
    """A Memory on each server in turn, without embeddings where there are no vector sets."""
    return Memory(any_redis)


@pytest.fixture
def home(memory: Memory, command: Command) -> Memory:
    """A Memory on Redis 8 that has its home."""
    assert command.make(memory).code == 0
    return memory
