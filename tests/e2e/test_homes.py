"""A claim that is deleted and made again."""

from collections.abc import Callable

import pytest

from tests.e2e.client import COUNT, App
from tests.e2e.conftest import ready_memory, told
from tests.e2e.kube import MEMORY, Kube, condition, memory

pytestmark = pytest.mark.e2e


@pytest.fixture
def again(platform: Kube, team: Callable[[], str], app: App) -> str:
    """A team whose claim `kept` held one event, was deleted, and has left nothing but its data."""
    name = team()
    platform.apply(memory(name, "kept"))
    ready_memory(platform, name, "kept")
    assert app(name, "kept-memory")["events"] == 1
    platform.delete(MEMORY, "kept", name)
    platform.until("its Secret is gone", lambda: platform.find("secret", "kept-memory", name) is None or None)
    return name


def test_without_adopt_nobody_finds_the_data(platform: Kube, again: str) -> None:
    """The namespace may belong to another team by now."""
    platform.apply(memory(again, "kept"))
    found = told(platform, again, "kept", "Provisioned", "False/AdoptionRequired")
    assert "adopt: true" in condition(found, "Provisioned")["message"]
    assert platform.find("secret", "kept-memory", again) is None


def test_with_adopt_the_data_is_there(platform: Kube, again: str, app: App) -> None:
    platform.apply(memory(again, "kept", adopt=True))
    ready_memory(platform, again, "kept")
    assert app(again, "kept-memory", COUNT)["events"] == 1


def test_adopt_may_come_after_the_refusal(platform: Kube, again: str, app: App) -> None:
    platform.apply(memory(again, "kept"))
    told(platform, again, "kept", "Provisioned", "False/AdoptionRequired")
    platform.apply(memory(again, "kept", adopt=True))
    ready_memory(platform, again, "kept")
    assert app(again, "kept-memory", COUNT)["events"] == 1
