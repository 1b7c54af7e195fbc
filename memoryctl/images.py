"""What stands for a container image that is not ours: a command of this machine."""

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from memoryctl.cluster import write_private
from memoryctl.errors import UserError

FILE = "images.json"


def parse(given: Iterable[str]) -> dict[str, list[str]]:
    """Reads `IMAGE=COMMAND`, where COMMAND is words as a shell has them.

    Raises:
        UserError: It is something else.
    """
    return dict(_parsed(one) for one in given)


def _parsed(text: str) -> tuple[str, list[str]]:
    image, separator, command = text.partition("=")
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if not (image and separator and words):
        msg = (
            f"--image is \"{text}\": write IMAGE=COMMAND, as in registry.example.com/backend:1='python3 -m provisioner'"
        )
        raise UserError(msg)
    # The next `up` may be called from somewhere else.
    program = Path(words[0])
    return image, [str(program.absolute()) if program.exists() else words[0], *words[1:]]


def read(state: Path) -> dict[str, list[str]]:
    """Gives the command of each image."""
    try:
        found: dict[str, list[str]] = json.loads((state / FILE).read_text())
    except FileNotFoundError:
        return {}
    return found


def remember(state: Path, commands: Mapping[str, list[str]]) -> None:
    """Adds to what is known."""
    if commands:
        write_private(state / FILE, json.dumps({**read(state), **commands}, indent=1))


def forget(state: Path) -> None:
    """Removes all of it."""
    (state / FILE).unlink(missing_ok=True)
