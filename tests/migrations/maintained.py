"""One run of `maintain`, as its CronJob has it, and what it says of each Memory."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from tests.migrations.documents import Answer, Command, Memory


@dataclasses.dataclass(frozen=True)
class Maintained:
    """What a run said, of the provider and of each Memory."""

    answer: Answer
    reports: Path

    def of(self, name: str = "mem-report", namespace: str = "databases") -> dict[str, Any]:
        """Gives the report of a Memory."""
        written = json.loads((self.reports / namespace / f"{name}.json").read_text())
        report: dict[str, Any] = json.loads(written["maintenance"])
        return report


def maintain(command: Command, memory: Memory, **wishes: Any) -> Maintained:
    """Looks after all homes of a Memory's provider, in this process."""
    answer = command.run("maintain", memory.maintain_document(**wishes), memory.database.server.admin)
    return Maintained(answer, command.folder / "reports")


def report_of(memory: Memory, name: str) -> Memory:
    """Gives a Memory whose report has a name of its own."""
    return memory.but(extra={**memory.extra, "report": {"namespace": "databases", "name": name}})
