"""What an observed object says of itself: one predicate a kind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

# "Container c for pod ns/name failed with exit code 11 matching FailJob rule at index 0": the code is nowhere else.
_EXIT_CODE = re.compile(r"failed with exit code (\d+) matching")


@dataclass(frozen=True)
class JobState:
    """How a Job stands.

    Attributes:
        phase: Running until the Job controller has said otherwise.
        exit_code: Of the container that failed the Job, when a podFailurePolicy rule matched.
        reason: The Failed condition's reason (PodFailurePolicy, DeadlineExceeded, BackoffLimitExceeded).
        message: The Failed condition's message.
        finished: RFC 3339 time of the end, "" while running; sorts as text.
    """

    phase: Literal["Running", "Complete", "Failed"]
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    finished: str = ""


def job(observed: Mapping[str, Any]) -> JobState:
    """Read `Complete` and `Failed`; `SuccessCriteriaMet` and `FailureTarget` come earlier, while pods still run."""
    for condition in observed.get("status", {}).get("conditions", ()):
        if condition.get("status") != "True":
            continue
        finished = condition.get("lastTransitionTime", "")
        if condition.get("type") == "Complete":
            return JobState("Complete", finished=finished)
        if condition.get("type") == "Failed":
            message = condition.get("message", "")
            code = _EXIT_CODE.search(message)
            return JobState("Failed", int(code[1]) if code else None, condition.get("reason", ""), message, finished)
    return JobState("Running")


def cronjob_is_stale(observed: Mapping[str, Any]) -> bool:
    """Whether the last scheduled run neither succeeded nor is still going on; there is no clock to ask."""
    status = observed.get("status", {})
    scheduled = status.get("lastScheduleTime", "")
    return not status.get("active") and bool(scheduled > status.get("lastSuccessfulTime", ""))


def cronjob_ran_since(observed: Mapping[str, Any], moment: str, seconds: int) -> bool:
    """Whether a run succeeded so long after a moment; there is no clock, but there is evidence that time has passed."""
    try:
        ran = datetime.fromisoformat(observed.get("status", {}).get("lastSuccessfulTime", ""))
        return ran >= datetime.fromisoformat(moment) + timedelta(seconds=seconds)
    except (TypeError, ValueError):
        return False


def exists(observed: Mapping[str, Any], key: str) -> bool:
    """Secrets, ConfigMaps, ServiceAccounts and RBAC work as soon as they are there."""
    return key in observed


# What a managed resource says of another one that is not there yet.
_NOT_RESOLVED = "cannot resolve references"


@dataclass(frozen=True)
class Applied:
    """Whether somebody has done what one of their objects says.

    Attributes:
        phase: Waiting until it says something of the object as it is now.
        message: Its own words about a failure.
    """

    phase: Literal["Waiting", "Applied", "Failed"]
    message: str = ""


def cnpg(observed: Mapping[str, Any], secret_version: str | None = None) -> Applied:
    """Read a DatabaseRole or a Database; they have no condition Ready.

    Args:
        observed: The object.
        secret_version: `resourceVersion` of the Secret that a role's password should come from.
    """
    status = observed.get("status", {})
    if status.get("applied") is False:
        return Applied("Failed", _cnpg_words(status))
    current = status.get("observedGeneration") == observed["metadata"].get("generation")
    taken = secret_version is None or status.get("secretResourceVersion") == secret_version
    return Applied("Applied" if status.get("applied") and current and taken else "Waiting")


def managed(observed: Mapping[str, Any]) -> Applied:
    """Read a managed resource's `Synced` and `Ready`; either may be of an earlier spec, where it says of which."""
    metadata, said = observed["metadata"], observed.get("status", {}).get("conditions", ())
    found = {each.get("type"): each for each in said if not _is_late(each, metadata.get("generation"))}
    synced = found.get("Synced", {})
    if synced.get("status") == "False" and not str(synced.get("message", "")).startswith(_NOT_RESOLVED):
        return Applied("Failed", str(synced.get("message", "")))
    is_done = all(found.get(kind, {}).get("status") == "True" for kind in ("Synced", "Ready"))
    return Applied("Applied" if is_done else "Waiting")


def _is_late(condition: Mapping[str, Any], generation: Any) -> bool:
    seen = condition.get("observedGeneration")
    return isinstance(seen, int) and isinstance(generation, int) and 0 < seen < generation


def _cnpg_words(status: Mapping[str, Any]) -> str:
    """Give what it says of an extension or a schema, and of the whole when there is nothing of these."""
    parts = [each for kind in ("extensions", "schemas") for each in status.get(kind) or ()]
    failed = [f"{each.get('name')}: {each.get('message', '')}" for each in parts if not each.get("applied")]
    return "; ".join(failed) or str(status.get("message", ""))
