"""Which provision Job there should be: one at a time, one per desired state, again only when that can help.

Everything is read from the observed Jobs and from `status.provision`; there is no other memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from function import names, readiness
from function.conditions import REASONS_BY_EXIT_CODE, REPAIRABLE_EXIT_CODES, TRANSIENT_EXIT_CODES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from function.readiness import JobState


@dataclass(frozen=True)
class Attempt:
    """One observed provision Job."""

    key: str
    hash: str
    number: int
    state: JobState
    terminating: bool = False


@dataclass(frozen=True)
class Situation:
    """What decides about the next attempt.

    Attributes:
        wanted: Hash of the desired state.
        noted: `status.provision` of the last call.
        provider_ready: Whether the backend answers, as far as the provider's probe knows.
        capabilities: What the probe found on the server.
        has_request: Whether the request document of a hash is where a Job could mount it.
    """

    wanted: str
    noted: Mapping[str, Any]
    provider_ready: bool
    capabilities: tuple[str, ...]
    has_request: Callable[[str], bool]


@dataclass(frozen=True)
class Start:
    """A Job to render."""

    hash: str
    number: int


@dataclass(frozen=True)
class Decision:
    """What to do.

    Attributes:
        kept: Jobs that stay; any other is dropped.
        start: The Job to render, None when none is due.
        phase: Of the wanted hash: Running also while an earlier spec's Job is.
        subject: The attempt that `phase` speaks of, None when it is about to start.
    """

    kept: tuple[Attempt, ...]
    start: Start | None
    phase: Literal["Running", "Complete", "Failed"]
    subject: Attempt | None


def read(observed: Mapping[str, Mapping[str, Any]]) -> tuple[Attempt, ...]:
    """Find the provision Jobs among the observed resources, oldest hash order first (by key)."""
    found = []
    for key in sorted(observed):
        parsed = names.parse_provision_key(key)
        if parsed:
            terminating = "deletionTimestamp" in observed[key].get("metadata", {})
            found.append(Attempt(key, *parsed, readiness.job(observed[key]), terminating))
    return tuple(found)


def decide(attempts: tuple[Attempt, ...], situation: Situation) -> Decision:
    """Say which Jobs stay and which one starts."""
    evidence = last_complete(attempts)
    running = [each for each in attempts if each.state.phase == "Running"]
    if running:
        # The next one is not rendered: an older one could finish last and put old logins back.
        subject = next((each for each in running if each.hash == situation.wanted), running[0])
        return Decision(_unique([*running, evidence]), None, "Running", subject)
    start = _due(attempts, situation)
    if start:
        return Decision(attempts, start, "Running", None)
    current = _newest(attempts, situation.wanted)
    if current and current.state.phase == "Complete":
        return Decision((current,), None, "Complete", current)
    return Decision(_unique([current, evidence]), None, "Failed", current)


def _due(attempts: tuple[Attempt, ...], situation: Situation) -> Start | None:
    """The Job to render now that none runs, None when that would change nothing."""
    unseen = _unseen(attempts, situation)
    if unseen:
        return unseen
    current = _newest(attempts, situation.wanted)
    if current is None:
        return Start(situation.wanted, _first_number(situation))
    failed = current.state.phase == "Failed"
    if _is_outdated(current, attempts, situation) or (failed and _is_worth_repeating(current, situation)):
        return Start(current.hash, current.number + 1)
    return None


def last_complete(attempts: Iterable[Attempt]) -> Attempt | None:
    """The Job that made the backend what it is now."""
    complete = [each for each in attempts if each.state.phase == "Complete"]
    return max(complete, key=lambda each: (each.state.finished, each.number), default=None)


def failure_reason(state: JobState) -> str:
    """Condition reason of a failed Job."""
    if state.exit_code is not None:
        return REASONS_BY_EXIT_CODE.get(state.exit_code, "JobFailed")
    return "DeadlineExceeded" if state.reason == "DeadlineExceeded" else "JobFailed"


def noted(decision: Decision, situation: Situation, job: str) -> Mapping[str, Any]:
    """What `status.provision` says after a decision; while an earlier spec's Job runs, what it said before."""
    at = decision.start or decision.subject
    if at is None or at.hash != situation.wanted:
        return situation.noted
    note: dict[str, Any] = {"hash": at.hash, "attempt": at.number, "job": job}
    if decision.phase == "Failed":
        before = _capabilities_at_failure(at.number, situation)
        note["capabilities"] = list(situation.capabilities if before is None else before)
    return note


def _unseen(attempts: tuple[Attempt, ...], situation: Situation) -> Start | None:
    """The Job of an earlier spec that was rendered last and is not observed.

    It may only not have been seen yet, and run: so it comes first, once more, before the one for this spec.
    """
    noted = situation.noted
    content, number = noted.get("hash"), noted.get("attempt", 1)
    if content in {None, situation.wanted} or not situation.has_request(str(content)):
        return None
    seen = any(each.hash == content and each.number >= number for each in attempts)
    return None if seen else Start(str(content), int(number))


def _is_outdated(current: Attempt, attempts: tuple[Attempt, ...], situation: Situation) -> bool:
    """Whether another state was tried after this one: going back to an earlier spec is work, not a memory of work."""
    if current.terminating or situation.noted.get("hash", current.hash) != current.hash:
        return True
    others = [each.state.finished for each in attempts if each.hash != current.hash]
    return max(others, default="") > current.state.finished


def _is_worth_repeating(failed: Attempt, situation: Situation) -> bool:
    code = failed.state.exit_code
    if code in TRANSIENT_EXIT_CODES or failed.state.reason == "DeadlineExceeded":
        return situation.provider_ready
    before = _capabilities_at_failure(failed.number, situation)
    # A server that has not been probed (again) yet is not one that has changed.
    differs = bool(situation.capabilities) and before is not None and before != situation.capabilities
    return code in REPAIRABLE_EXIT_CODES and differs


def _capabilities_at_failure(number: int, situation: Situation) -> tuple[str, ...] | None:
    note = situation.noted
    if (note.get("hash"), note.get("attempt")) != (situation.wanted, number) or "capabilities" not in note:
        return None
    return tuple(note["capabilities"])


def _first_number(situation: Situation) -> int:
    """A Job that somebody deleted comes back under its own number."""
    return int(situation.noted.get("attempt", 1)) if situation.noted.get("hash") == situation.wanted else 1


def _newest(attempts: Iterable[Attempt], content: str) -> Attempt | None:
    return max((each for each in attempts if each.hash == content), key=lambda each: each.number, default=None)


def _unique(attempts: Iterable[Attempt | None]) -> tuple[Attempt, ...]:
    return tuple(dict.fromkeys(each for each in attempts if each))
