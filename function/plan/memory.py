"""The plan for an `XMemory`: find the provider, prepare its backend by one Job, hand out the binding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from function import conditions, delivery
from function.backends import backend_of
from function.conditions import Blocked
from function.credentials import KeyRing
from function.errors import InvalidSpec
from function.model import Memory, MemoryInput, spec_of
from function.plan import attempts, lookup, operators, rotation
from function.plan.home import Home
from function.plan.kept import CONVERGING_SECONDS, events, project_kept
from function.plan.rotation import Rotation
from function.plan.subject import STATUS, Subject
from function.state import Plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from function.backends.base import Backend
    from function.conditions import Condition
    from function.plan.lookup import Found
    from function.state import Inputs, Requirement


def compose(inputs: Inputs) -> Plan:
    """Plan one Memory; what is missing or wrong is a condition, and removes nothing."""
    try:
        subject = Subject(inputs, Memory.read(spec_of(inputs.composite)))
    except InvalidSpec as error:
        problem = conditions.not_provisioned("BadRequest", str(error))
        return project_kept(inputs, STATUS, (problem,))
    asked = [*lookup.requirements(subject.spec.provider_ref, subject.namespace)]
    if _unresolved(inputs, asked):
        return project_kept(inputs, STATUS, requirements=tuple(asked), ttl_seconds=0, ready=subject.serves())
    try:
        settings = MemoryInput.read(inputs.settings, "input")
    except InvalidSpec as error:
        return Plan(fatal=f"cannot read the Composition's {error}", requirements=tuple(asked))
    found: list[Condition] = []
    try:
        return _compose(subject, settings, asked, found)
    except Blocked as blocked:
        stands = (*found, blocked.condition, *_what_waits(subject, blocked.condition))
        ttl = 0 if _unresolved(inputs, asked) else CONVERGING_SECONDS
        return project_kept(inputs, STATUS, stands, requirements=tuple(asked), ttl_seconds=ttl, ready=subject.serves())


def _unresolved(inputs: Inputs, asked: Iterable[Requirement]) -> bool:
    return any(each.name not in inputs.required for each in asked)


def _what_waits(subject: Subject, blocked: Condition) -> tuple[Condition, ...]:
    """A home that was made for another spec is not what is asked for now, whatever was said of it then."""
    if blocked.type == conditions.PROVISIONED or not subject.has_home or subject.serves():
        return ()
    return (conditions.not_provisioned("Running", f"the changed spec waits for {blocked.type}"),)


def _compose(subject: Subject, settings: MemoryInput, asked: list[Requirement], said: list[Condition]) -> Plan:
    """Plan with everything at hand.

    In case the rest is blocked, conditions that hold already go to `said`, and what else must be seen to `asked`.
    """
    _check_delivery(subject, settings)
    provider = _provider(subject, settings, asked)
    said.append(provider.condition)
    home = Home(subject, settings, provider, backend_of(provider.provider), _rotation(subject, settings))
    _check_wishes(home.backend, subject.spec)
    decision = home.gated(attempts.decide(subject.attempts, home.situation))
    resources = home.resources(decision)
    stands, upkeep = (*said, *home.conditions(decision)), home.upkeep()
    # Between the steps of a rotation too, where Crossplane copies the Secret for the app: it does so only then.
    is_rotated = home.is_rotated or subject.is_copied
    ready = decision.phase == "Complete" and is_rotated and home.is_handed_out
    return Plan(
        resources=resources,
        conditions=(*stands, *upkeep),
        status=home.status(decision),
        ready=ready,
        events=events(subject.inputs, stands, quiet=upkeep),
        requirements=tuple(asked),
        connection_details=home.connection_details(decision),
        ttl_seconds=home.pace(decision, settled=ready and all(each.status for each in stands)),
    )


def _check_wishes(backend: Backend, spec: Memory) -> None:
    """Refuse what the provider's spec alone rules out; the rest is for the Job to find out."""
    for reason, problem in (
        ("SchemaConflict", backend.conflict(spec)),
        ("ModuleUnsupported", backend.refusal(spec)),
        ("PermissionDenied", backend.denial(spec)),
    ):
        if problem:
            raise Blocked(conditions.not_provisioned(reason, problem))


def _check_delivery(subject: Subject, settings: MemoryInput) -> None:
    """Hold a Memory to how it was delivered, and want a place for its password that is no Object."""
    changed = delivery.conflict(subject.inputs, settings.delivery)
    if changed:
        raise Blocked(conditions.not_provisioned("DeliveryChanged", changed))
    if settings.delivery != delivery.KIND:
        return
    if subject.own_ref is None:
        raise Blocked(conditions.no_secret_ref(subject.inputs.composite["metadata"]["name"]))
    if subject.spec.access.read_only_secret:
        raise Blocked(conditions.no_reader_ref())


def _provider(subject: Subject, settings: MemoryInput, asked: list[Requirement]) -> Found:
    """Find, check, hold and admit; the order decides what a user is told first."""
    wish = subject.wish(settings.provider_type)
    found = lookup.find(subject.inputs.required, wish)
    asked += lookup.consumer(found.provider, subject.namespace)
    lookup.admit(found.provider, subject.namespace, subject.inputs.required)
    backend = backend_of(found.provider)
    try:
        backend.check_delivery(settings.delivery)
        backend.check(settings.claimed_providers)
        lookup.hold(found, backend, wish)
        asked += operators.requirements(backend)
        problem = operators.missing(backend, subject.inputs)
        if problem:
            raise Blocked(conditions.operator_too_old(found.provider.title, problem))
        _ = backend.ca
    except InvalidSpec as error:
        raise Blocked(conditions.provider_invalid(found.provider.title, str(error))) from None
    except LookupError as error:
        raise Blocked(conditions.provider_not_ready(found.provider.title, str(error))) from None
    return found


def _rotation(subject: Subject, settings: MemoryInput) -> Rotation:
    """The epoch that is due, and the root key that its passwords come from."""
    ring, before, asked = _ring(subject, settings), subject.before, subject.spec.credentials
    epoch = rotation.due(before, asked.epoch)
    return Rotation(epoch, asked.epoch, rotation.key_for(ring, before, epoch), asked.revoke_old, before)


def _ring(subject: Subject, settings: MemoryInput) -> KeyRing:
    data = subject.inputs.credentials.get(settings.root_key)
    if data is None:
        raise Blocked(conditions.root_key_missing(conditions.no_root_key(settings.root_key)))
    try:
        return KeyRing.read(settings.root_key, data)
    except InvalidSpec as error:
        raise Blocked(conditions.root_key_missing(str(error))) from None
