"""One run of `maintain`, as its CronJob has it, and what it says of each Memory."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from migrations.answers import Index
from migrations.deadline import Deadline
from migrations.postgres.connection import Admin
from migrations.postgres.maintenance import indexes, places, vacuum
from migrations.postgres.maintenance.places import Work
from migrations.postgres.request import MaintainRequest
from migrations.request import parse
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


@contextmanager
def working(memory: Memory, *, work_mem: str = "64MB", seconds: float = 60) -> Iterator[Work]:
    """The place of a provisioned Memory, as `maintain` has it."""
    document = memory.maintain_document() | {"workMem": work_mem}
    request = parse(document, MaintainRequest)
    login = memory.database.server.admin
    admin = Admin(request.provider, login.username, login.password, None, memory.home.name)
    with memory.database.connect() as ledger:
        [place] = places.read(ledger, request)
    with admin.connect() as connection:
        yield Work(connection, admin, place, request, Deadline.in_seconds(seconds))


def looked_after(memory: Memory, *, work_mem: str = "64MB", seconds: float = 60) -> Index:
    """Runs the step, and gives where the Memory's index stands."""
    with working(memory, work_mem=work_mem, seconds=seconds) as work:
        found = indexes.look_after(work, _expected)
        [key] = [home.key for home in work.place.homes if home.identity == memory.identity]
        return found[key]


def vacuumed(memory: Memory) -> None:
    """Runs the step that removes dead rows."""
    with working(memory) as work:
        vacuum.look_after(work)


def _expected(stands: dict[str, Index]) -> None:
    """Told that a build begins, or that it failed."""
    assert {"Building", "Ready", "Invalid"} & {index.reason for index in stands.values()}


def soon(what: Callable[[], Any], seconds: float = 20) -> Any:
    """Asks until the answer is something."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)
    return found
