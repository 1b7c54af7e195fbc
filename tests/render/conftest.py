"""The CLI, and the function that it calls."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from memoryctl import function
from tests.render.cli import Crossplane, binary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the function listens, in a process of its own."""
    with function.process(tmp_path_factory.mktemp("function") / "log") as process:
        process.wait_ready()
        yield process.address


@pytest.fixture(scope="session")
def programs() -> tuple[Path, Path]:
    """The CLI, and Crossplane's own binary."""
    return (
        binary("CROSSPLANE_CLI", shutil.which("crossplane"), "the crossplane CLI, on the PATH or named"),
        binary("CROSSPLANE_CORE", None, "Crossplane's own binary of 2.3 or newer"),
    )


@pytest.fixture
def crossplane(programs: tuple[Path, Path], address: str, tmp_path: Path) -> Crossplane:
    """The CLI in an empty folder."""
    cli, core = programs
    return Crossplane(cli, core, address, tmp_path)
