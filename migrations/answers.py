"""What maintenance tells of each Memory: one key of its report, written only when it says something new."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from migrations import log, report
from migrations.errors import Code
from migrations.request import ReportTarget

KEY = "maintenance"
# As many, and as long, as the composite's status takes.
MANY_DIFFERENCES = 20
LONGEST_DIFFERENCE = 300


State = Literal["exact", "building", "ready"]
Reason = Literal["Exact", "Building", "Ready", "Disabled", "DimensionTooLarge", "Invalid"]


@dataclass(frozen=True)
class Done:
    """What a run over all homes of a provider reports."""

    code: Code
    message: str
    counts: dict[str, int]


@dataclass(frozen=True)
class Index:
    """Where a home's index stands, and a sentence about it; `ready` means that searches use it."""

    state: State
    reason: Reason
    message: str


@dataclass(frozen=True)
class Measure:
    """One Memory's data; `oldest` is a day as RFC 3339, None of an empty one.

    `embedding_bytes` is None where Memories share tables: a size of all tells of the others.
    """

    rows: int
    bytes: int
    dead_percent: int
    oldest: str | None
    held: int
    embeddings: int | None
    embedding_bytes: int | None

    def shown(self) -> dict[str, Any]:
        """Gives it as the report has it."""
        return {
            "rows": rounded(self.rows),
            "bytes": rounded(self.bytes),
            "deadPercent": self.dead_percent,
            "oldest": self.oldest,
            "held": rounded(self.held),
        }


def rounded(number: int) -> int:
    """Rounds to two digits, so that an answer changes with what it means and not with each row."""
    return int(float(f"{number:.1e}"))


def too_many(identities: Sequence[str], in_use: int, mark: str) -> Done:
    """Says that a reaper does not believe what it sees, and by which mark a person lets it."""
    log.write("many Memories are missing at once", identities=list(identities))
    message = (
        f"{len(identities)} of {in_use} homes in use have no Memory any more, too many at once to believe: nothing "
        "was done. The log of the reaper's last pod names them. If the claims are lost, restore them; if they were "
        f"deleted on purpose, set the provider's annotation memory.proompteng.ai/reap to {mark}"
    )
    return Done(Code.ON_HOLD, message, {"inUse": in_use, "missing": len(identities)})


def reaped(homes: int, *, missing: int, closed: int, dropped: int) -> Done:
    """Says how homes stand after a reaper's run, in words that are the same as long as they stand so.

    Args:
        homes: All of them.
        missing: Whose Memory the last run did not find, and whose logins are open still.
        closed: Whose logins are closed.
        dropped: Which of those are to go.
    """
    parts = [
        (homes - closed - missing, "in use"),
        (missing, "whose Memory is missing since the last run"),
        (closed - dropped, "closed and kept"),
        (dropped, "closed, to be dropped after the grace unless something is on hold"),
    ]
    message = "homes: " + ", ".join(f"{count} {what}" for count, what in parts if count or what == "in use")
    return Done(Code.SUCCEEDED, message, {"inUse": homes - closed, "missing": missing, "closed": closed})


@dataclass
class Answer:
    """What a run found of one home; a section that it did not come to stays as the last run left it."""

    target: ReportTarget
    before: Mapping[str, Any] | None
    sections: dict[str, Any] = field(default_factory=dict)
    failure: tuple[Code, str] | None = None

    @classmethod
    def after(cls, target: ReportTarget) -> "Answer":
        """Begins with what the report says by now; where that cannot be read nothing will be written over it."""
        text = report.read(KEY, target.namespace, target.name)
        if text is None:
            return cls(target, None)
        try:
            before = json.loads(text or "{}")
        except ValueError:
            before = {}
        return cls(target, before if isinstance(before, dict) else {})

    def _last(self, section: str) -> Any:
        """Gives what is known of a section; what somebody else has written there may be anything, and is nothing."""
        found = self.sections.get(section, (self.before or {}).get(section))
        return found if isinstance(found, list if section == "drift" else dict) else None

    def _last_retention(self) -> dict[str, Any]:
        return self._last("retention") or {"lastRun": None, "deleted": 0}

    def index(self, found: Index) -> None:
        """Notes how the index is: `state`, `reason`, `message`."""
        last = self._last("index")
        sizes = {key: last[key] for key in ("rows", "bytes") if key in last} if last else {}
        self.sections["index"] = {**asdict(found), **sizes}

    def retention(self, removed: int, when: str) -> None:
        """Notes what was removed; a run that removed nothing leaves what the last one said."""
        self.sections["retention"] = {**self._last_retention(), "message": ""}
        if removed:
            self.sections["retention"] = {"lastRun": when, "deleted": removed, "message": ""}

    def retention_failed(self, message: str) -> None:
        """Notes why nothing, or not all, was removed."""
        self.sections["retention"] = {**self._last_retention(), "message": message}

    def drift(self, differences: list[str]) -> None:
        """Notes the differences, as many as a status has room for."""
        shown = [each[:LONGEST_DIFFERENCE] for each in differences]
        if len(shown) > MANY_DIFFERENCES:
            rest = len(shown) - MANY_DIFFERENCES + 1
            shown = [*shown[: MANY_DIFFERENCES - 1], f"and {rest} more"]
        self.sections["drift"] = shown

    def integrity(self, checked: int, failed: int, at: str) -> None:
        """Notes how many objects of a sample were read again, and how many are not what was written; `at` is a day."""
        self.sections["integrity"] = {"checked": checked, "failed": failed, "at": at}

    def measured(self, measure: Measure) -> None:
        """Notes how much there is."""
        self.sections["data"] = measure.shown()
        index = self._last("index")
        if index and measure.embeddings is not None:
            size = measure.embedding_bytes
            self.sections["index"] = {
                **index,
                "rows": rounded(measure.embeddings),
                "bytes": None if size is None else rounded(size),
            }

    def failed(self, step: str, code: Code, message: str) -> None:
        """Notes the first step that failed."""
        self.failure = self.failure or (code, f"{step}: {message}")

    def publish(self) -> None:
        """Writes it, unless the report says just this already."""
        code, message = self.failure or (Code.SUCCEEDED, "")
        head = {"hash": "", "code": int(code), "reason": code.reason, "message": message}
        sections = {key: self._last(key) for key in ("index", "retention", "drift", "data")}
        if integrity := self._last("integrity"):
            sections["integrity"] = integrity
        answer = {**head, "migration": "", "sqlstate": "", **sections}
        if self.before is None or answer == self.before:
            return
        if report.write(KEY, json.dumps(answer, ensure_ascii=False), (self.target.namespace, self.target.name)):
            log.write("wrote the report of a Memory", namespace=self.target.namespace, report=self.target.name)
        self.before = answer
