"""What the suite measures, printed at its end: seconds and bytes as they were, on whatever machine it ran."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

MEASURED = pytest.StashKey[dict[str, str]]()


class Measured:
    """Collects what is measured, in the order in which it was."""

    def __init__(self, config: pytest.Config) -> None:
        self._rows = config.stash.setdefault(MEASURED, {})

    def note(self, what: str, value: str) -> None:
        """Note one result."""
        self._rows[what] = value

    @contextmanager
    def seconds(self, what: str) -> Iterator[None]:
        """Time a block; nothing is noted of one that fails."""
        started = time.monotonic()
        yield
        self.note(what, f"{time.monotonic() - started:.1f} s")
