"""What maintenance found of a Memory: one key of its report, for status and conditions.

It is believed whatever the spec says by now: what was found stays true until the next run. Where spec and finding
contradict each other, the spec says what is meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator

from function import conditions
from function.cache import ContentCache
from function.plan.answers import Said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.conditions import Condition
    from function.model import Maintenance, Memory

STATUS = ("embeddings", "retention", "data", "drift", "integrity")

_LONGEST_MESSAGE = 1000
_MANY_DIFFERENCES = 20
_LONGEST_DIFFERENCE = 300
_SHOWN_DIFFERENCES = 3
_read: ContentCache[Findings] = ContentCache(64_000)


def _time(text: str) -> str:
    """The API server refuses a status with any other."""
    datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
    return text


# Up to what a Struct's numbers are exact.
_Count = Annotated[int, Field(ge=0, le=2**53, strict=True)]
_Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"), AfterValidator(_time)]
_Message = Annotated[str, AfterValidator(lambda message: message[:_LONGEST_MESSAGE])]


class Index(Said):
    """How the index of the embeddings is, and how many there are; None where that is not told."""

    state: Literal["exact", "building", "ready"]
    reason: Literal["Exact", "Building", "Ready", "Disabled", "DimensionTooLarge", "Invalid"]
    message: _Message = ""
    rows: _Count | None = None
    bytes: _Count | None = None


class Removal(Said):
    """What was removed last, and why nothing more, "" where nothing was in the way."""

    last_run: _Time | None = None
    deleted: _Count = 0
    message: _Message = ""


class Data(Said):
    """How much data there is."""

    rows: _Count
    bytes: _Count
    dead_percent: Annotated[int, Field(ge=0, le=100, strict=True)]
    oldest: _Time | None = None
    held: _Count


class Integrity(Said):
    """How many objects of a sample were read again, and how many of them are not what was written."""

    checked: _Count
    failed: _Count
    last_run: Annotated[_Time, Field(alias="at")]


class Findings(Said):
    """What the last run found; a section is None as long as no run has come to it.

    Attributes:
        message: What a step failed with, "" when none did.
        drift: How the backend differs from what it should be.
    """

    message: _Message = ""
    index: Index | None = None
    retention: Removal | None = None
    drift: tuple[str, ...] | None = None
    data: Data | None = None
    integrity: Integrity | None = None

    @field_validator("drift")
    @classmethod
    def _bounded(cls, drift: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return drift and tuple(each[:_LONGEST_DIFFERENCE] for each in drift[:_MANY_DIFFERENCES])

    @classmethod
    def read(cls, observed: Mapping[str, Any] | None) -> Findings:
        """Read a report; one that cannot be read says nothing."""
        text = ((observed or {}).get("data") or {}).get("maintenance")
        return _read.get(text.encode(), lambda: cls._parsed(text)) if isinstance(text, str) else _NOTHING

    @classmethod
    def _parsed(cls, text: str) -> Findings:
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return _NOTHING

    def status(self, spec: Memory) -> dict[str, Any]:
        """Our part of the composite's status."""
        if spec.embeddings.enabled:
            return self._shown
        return {key: said for key, said in self._shown.items() if key != "embeddings"}

    @cached_property
    def _shown(self) -> dict[str, Any]:
        """It is as old as what was read, and that is read once."""
        said: dict[str, Any] = {}
        if self.index:
            said["embeddings"] = {"index": self.index.state, **_known(self.index, "rows", "bytes")}
        if self.retention and self.retention.last_run:
            said["retention"] = _known(self.retention, "last_run", "deleted")
        if self.data:
            said["data"] = _known(self.data, "rows", "bytes", "dead_percent", "oldest", "held")
        if self.drift is not None:
            said["drift"] = list(self.drift)
        if self.integrity:
            # The report calls the time by another name.
            found = self.integrity
            said["integrity"] = {"checked": found.checked, "failed": found.failed, "lastRun": found.last_run}
        return said


_NOTHING = Findings()


def _known(section: Said, *fields: str) -> dict[str, Any]:
    return section.model_dump(by_alias=True, include=set(fields), exclude_none=True)


@dataclass(frozen=True)
class Upkeep:
    """A Memory's spec and what maintenance found.

    Attributes:
        wanted: What its provider says about maintenance.
        schedule: When maintenance runs.
        searches: How searches are where no index is ever built, "" where one is.
        failed: Why its own CronJob left nothing behind, "" where it has none or that is in order.
    """

    spec: Memory
    found: Findings
    wanted: Maintenance
    schedule: str
    searches: str
    failed: str

    def conditions(self) -> tuple[Condition, ...]:
        """Index, retention and drift, as they stand; a Memory serves whatever they say."""
        return self._index(), self._retention(), self._drift()

    def _index(self) -> Condition:
        wanted, found = self.spec.embeddings, self.found.index
        if not wanted.enabled:
            return conditions.index_disabled("spec.embeddings.enabled is false: there are no embeddings")
        if wanted.index.type == "none":
            return conditions.index_disabled("spec.embeddings.index.type is none: searches are exact")
        if found is None or found.reason in {"Exact", "Disabled"}:
            if self.searches:
                return conditions.index_not_built(self.searches)
            return conditions.index_not_earned(wanted.rows_for_index, found.rows if found else None)
        if found.reason == "Ready":
            return conditions.index_ready(found.message)
        return conditions.index_not_ready(found.reason, found.message)

    def _retention(self) -> Condition:
        days, found = self.spec.retention.ttl_days, self.found.retention or Removal()
        if self.spec.legal_hold:
            return conditions.retention_on_hold()
        if days == 0:
            return conditions.retention_disabled()
        problem = found.message or self.failed
        if problem:
            return conditions.retention_fails(problem)
        return conditions.retention_scheduled(days, self.schedule, found.deleted, found.last_run)

    def _drift(self) -> Condition:
        found = self.found.drift
        if found is None:
            return conditions.never_checked(self.schedule, self.found.message or self.failed)
        if not found:
            return conditions.in_sync()
        shown = found[:_SHOWN_DIFFERENCES]
        repairs = self.wanted.drift_policy == "Repair"
        return conditions.drifted(shown, len(found) - len(shown), repairs=repairs)
