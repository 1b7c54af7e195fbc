"""Tests call the function in their own process; its log lines are for operators."""

from __future__ import annotations

import pytest
from crossplane.function import logging


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    logging.configure(logging.Level.DISABLED)
