"""docs/install.md as a person follows it: its sections' commands, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "install.md"

_HEADING = re.compile(r"^## (?:\d+\.? )?(.+)$", re.MULTILINE)
_COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections(text: str | None = None) -> dict[str, list[str]]:
    """Give the blocks of commands of each section, by the section's title without its number."""
    parts = _HEADING.split(GUIDE.read_text() if text is None else text)[1:]
    return {title: _COMMANDS.findall(body) for title, body in zip(parts[::2], parts[1::2], strict=True)}


def follow(section: str, environment: Mapping[str, str]) -> str:
    """Run a section's commands, and give what they print; `AssertionError` with the command that failed.

    Each block runs in a shell of its own, from the root of the checkout, as the guide asks.
    """
    blocks = sections()[section]
    assert blocks, f"docs/install.md has no commands under {section!r}"
    said = []
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=ROOT,
            env=os.environ | dict(environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, f"{section}: exit {done.returncode}\n{block}\n{done.stdout}{done.stderr}"
        said.append(done.stdout)
    return "".join(said)
