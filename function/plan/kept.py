"""What stays although something is missing: never a smaller desired set because an input is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from function import conditions, readiness
from function.names import is_ours
from function.resources.projection import is_known, project
from function.state import Event, Plan, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from function.conditions import Condition
    from function.state import Inputs, Manifest, Requirement

# How long Crossplane may cache an answer: while things move, and when nothing is expected to.
CONVERGING_SECONDS = 60
STABLE_SECONDS = 600
# Where more objects change than Crossplane listens to: it drops events of a composite that has many at once (its watch
# circuit breaker, for REST_SECONDS), and then looks again by itself only when an answer is this old. For the same
# reason no answer about such a composite holds for longer than CONVERGING_SECONDS, until there is evidence that it has
# rested for as long.
BUSY_SECONDS = 2
REST_SECONDS = 300


def kept(observed: Mapping[str, Mapping[str, Any]], key: str, *, ready: bool = True) -> dict[str, Resource]:
    """Give one observed resource again, nothing when it is not observed."""
    return {key: Resource(project(observed[key]), ready=ready)} if key in observed else {}


def ready_when_observed(observed: Mapping[str, Mapping[str, Any]], made: Mapping[str, Manifest]) -> dict[str, Resource]:
    """Give built manifests whose objects work as soon as they exist."""
    return {key: Resource(body, ready=readiness.exists(observed, key)) for key, body in made.items()}


def project_kept(  # noqa: PLR0913 - the fields of a Plan
    inputs: Inputs,
    status_keys: Sequence[str],
    stands: tuple[Condition, ...] = (),
    *,
    requirements: tuple[Requirement, ...] = (),
    ttl_seconds: int = CONVERGING_SECONDS,
    ready: bool = False,
) -> Plan:
    """Plan to leave everything as it is, and say why."""
    resources: dict[str, Resource] = {}
    for key, observed in inputs.observed.items():
        if is_ours(key) and is_known(observed.get("kind", "")):
            resources |= kept(inputs.observed, key, ready=_is_ready(observed))
    noted = inputs.composite.get("status", {})
    return Plan(
        resources=resources,
        conditions=stands,
        status={key: noted[key] for key in status_keys if key in noted},
        ready=ready,
        events=events(inputs, stands),
        requirements=requirements,
        ttl_seconds=ttl_seconds,
        connection_details=inputs.connection_details,
    )


def events(inputs: Inputs, stands: Iterable[Condition], quiet: Iterable[Condition] = ()) -> tuple[Event, ...]:
    """Give an event for each condition that the composite does not carry yet; a first one of `quiet` is none."""
    carried = conditions.carried(inputs.composite)
    told = (*stands, *(each for each in quiet if each.type in carried))
    return tuple(
        Event(warning=not each.status, reason=each.reason, message=each.message)
        for each in told
        if conditions.has_changed(each, carried.get(each.type))
    )


def _is_ready(observed: Mapping[str, Any]) -> bool:
    if observed["kind"] in {"DatabaseRole", "Database"}:
        return readiness.cnpg(observed).phase == "Applied"
    if ".aws.upbound.io/" in observed["apiVersion"]:
        return readiness.managed(observed).phase == "Applied"
    return observed["kind"] != "Job" or readiness.job(observed).phase == "Complete"
