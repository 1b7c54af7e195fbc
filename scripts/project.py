"""What images and packages are called, and where they go."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"

_PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# The one place of the version; images and packages are tagged with it.
VERSION: str = _PROJECT["version"]
TAG = f"v{VERSION}"
SOURCE: str = _PROJECT["urls"]["Source"]

# Of a reference, as go-containerregistry (hence Crossplane) reads it: the host has a dot or a port, or is `localhost`.
_HOST = re.compile(r"localhost|[^/]*[.:][^/]*")
_PATH = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")


class UserError(Exception):
    """Something is missing or wrong; the text says what, and what to do instead."""


def program(main: Callable[[], None]) -> NoReturn:
    """Run a program: 0, or 1 and a sentence."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in order with what its commands print
    try:
        main()
    except UserError as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error.cmd[0]} failed with exit code {error.returncode}, see above")
    sys.exit(0)


def run(*command: str, env: Mapping[str, str] | None = None) -> None:
    """Run a command at the root of the repository, showing what it prints; `CalledProcessError` when it fails."""
    subprocess.run(command, cwd=ROOT, check=True, env=env)


def registry() -> str:
    """Give where images and packages go: host and optional path, from REGISTRY."""
    value = os.environ.get("REGISTRY", "").rstrip("/")
    if not value:
        msg = "REGISTRY is not set: write where images and packages go, as in REGISTRY=registry.example.org/team"
        raise UserError(msg)
    host, _, path = value.partition("/")
    if not _HOST.fullmatch(host) or (path and not _PATH.fullmatch(path)):
        msg = f'REGISTRY is "{value}": write a host and an optional path in lower case, as in registry.example.org/team'
        raise UserError(msg)
    return value


def dependency_name(repository: str) -> str:
    """Give the name that Crossplane gives to a package which it installs as a dependency.

    The repository without its host, as a DNS label: crossplane-runtime, `xpkg.ToDNSLabel`.
    """
    path = repository.partition("/")[2]
    kept = []
    for place, letter in enumerate(path[:63]):
        if letter in "abcdefghijklmnopqrstuvwxyz0123456789":
            kept.append(letter)
        elif letter in "./:-" and place not in {0, 62, len(path) - 1}:
            kept.append("-")
    return "".join(kept).strip("-")
