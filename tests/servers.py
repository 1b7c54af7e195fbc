"""What a test does when a real server that it needs is not on this machine."""

import os
from typing import TypeVar

import pytest

T = TypeVar("T")


def require(found: T | None, missing: str) -> T:
    """Gives what was found, or skips the test saying what is missing; MEMORY_REQUIRE=all makes that a failure."""
    if found is not None:
        return found
    if os.environ.get("MEMORY_REQUIRE") == "all":
        pytest.fail(f"MEMORY_REQUIRE=all: {missing}", pytrace=False)
    pytest.skip(missing)
