import pytest

from tests.migrations.documents import Command
from tests.migrations.s3.memories import Memory, Runner
from tests.rgw import Rgw


@pytest.fixture
def runner(command: Command) -> Runner:
    return Runner(command)


@pytest.fixture
def memory(rgw: Rgw) -> Memory:
    """A Memory in a bucket that is not there yet, and that it shares with others."""
    return Memory(rgw, rgw.name("shared"))
