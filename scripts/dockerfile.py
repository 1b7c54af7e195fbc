"""The settings of the Dockerfile's last stages, so that they stand in one place however an image is built."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def settings(text: str, target: str, arguments: Mapping[str, str]) -> dict[str, Any]:
    """Give the run configuration of a stage, in the words of an OCI image's `config`.

    Args:
        text: The Dockerfile.
        target: The stage; those that it begins from count too.
        arguments: What `--build-arg` would be given.

    Raises:
        KeyError: No stage of that name, or an argument that is not given.
    """
    found: dict[str, Any] = {"Env": [], "Labels": {}, "ExposedPorts": {}}
    for word, rest in _stages(text)[target]:
        values = [re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], value) for value in shlex.split(rest)]
        match word:
            case "ENV":
                found["Env"] += values
            case "LABEL":
                found["Labels"] |= dict(value.split("=", 1) for value in values)
            case "EXPOSE":
                found["ExposedPorts"] |= {f"{port}/tcp": {} for port in values}
            case "USER":
                found["User"] = rest
            case "WORKDIR":
                found["WorkingDir"] = rest
            case "ENTRYPOINT":
                found["Entrypoint"] = json.loads(rest)
    return found


def _stages(text: str) -> dict[str, list[tuple[str, str]]]:
    """The instructions of each named stage, with those of the stages that it begins from."""
    stages: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for word, rest in _instructions(text):
        if word == "FROM":
            base, _, name = rest.split()
            current = stages[name] = list(stages.get(base, []))
        else:
            current.append((word, rest))
    return stages


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word and not word.startswith("#"):
            yield word, rest.strip()
