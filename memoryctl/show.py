"""What a person sees: progress, the tree of objects, the conditions, the bindings."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memoryctl.crossplane import Reconciled, ready
from memoryctl.objects import key_of


class Progress:
    """Short lines with the seconds since the beginning."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has been."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """Prints a line at once."""
        sys.stdout.write(f"{self.seconds:5.1f} s  {text}\n")
        sys.stdout.flush()


def tree(reconciled: Iterable[Reconciled]) -> str:
    """Gives the composed objects below their composites, and these below their claims."""
    rows = [("OBJECT", "RESOURCE", "READY")]
    for one in reconciled:
        composite = key_of(one.composite)
        state = _word(ready(one.composite))
        claim = one.composite["spec"].get("claimRef")
        indent = ""
        if claim:
            rows.append((f"{claim['kind']} {claim['namespace']}/{claim['name']}", "", state))
            indent = "   "
        rows.append((f"{'└─ ' if claim else ''}{composite}", "", state))
        children = sorted(one.resources.items())
        for name, child in children:
            branch = "└─" if name == children[-1][0] else "├─"
            rows.append((f"{indent}{branch} {key_of(child.body)}", name, _word(child.ready)))
    return _table(rows)


def conditions(reconciled: Iterable[Reconciled]) -> str:
    """Gives every condition of claims (of composites, where there is no claim)."""
    rows = [("OF", "CONDITION", "STATUS", "REASON", "MESSAGE")]
    for one in reconciled:
        name = owner(one.composite)
        for found in one.composite.get("status", {}).get("conditions", []):
            rows.append((name, found["type"], found["status"], found["reason"], found.get("message", "")))
            name = ""
    return _table(rows)


def bindings(written: Mapping[Path, list[str]]) -> str:
    """Gives the directories and their keys; never a value."""
    return "\n".join(f"{_relative(directory)}\n   {'  '.join(keys)}" for directory, keys in sorted(written.items()))


def owner(composite: Mapping[str, Any]) -> str:
    """Names what a person wrote: the claim, or the composite without one."""
    claim = composite["spec"].get("claimRef")
    return f"{claim['kind']} {claim['namespace']}/{claim['name']}" if claim else str(key_of(composite))


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _word(is_ready: bool) -> str:
    return "True" if is_ready else "False"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
