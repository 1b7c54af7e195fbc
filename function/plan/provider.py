"""The plan for an `XMemoryProvider`: probe its backend, publish what it says, and have its homes looked after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from function import conditions, delivery, names, readiness
from function.backends import backend_of
from function.errors import InvalidSpec
from function.lazy import cached_property
from function.model import MemoryInput
from function.plan import document, jobs, lookup, operators
from function.plan.answers import Answer, Server
from function.plan.kept import CONVERGING_SECONDS, STABLE_SECONDS, events, kept, project_kept, ready_when_observed
from function.plan.maintenance import Maintenance
from function.plan.reaper import Reaper
from function.resources import job, report, secret
from function.resources.metadata import Owner
from function.state import Inputs, Manifest, Plan, Provider, Resource

if TYPE_CHECKING:
    from function.backends.base import Backend
    from function.conditions import Condition
    from function.plan.document import Document
    from function.plan.periodic import Periodic

_STATUS = ("type", "endpoint", "version", "capabilities", "caBundle")
# Others say what they are in place of a version.
_TITLES = {"postgres": "PostgreSQL", "redis": "Redis"}
_REASONS = {10: "ExtensionMissing", 13: "PermissionDenied", 20: "InvalidSpec"}


def compose(inputs: Inputs) -> Plan:
    """Plan one provider; a spec that cannot work is a condition, and removes nothing."""
    try:
        settings = MemoryInput.read(inputs.settings, "input")
    except InvalidSpec as error:
        return Plan(fatal=f"cannot read the Composition's {error}")
    changed = delivery.conflict(inputs, settings.delivery)
    if changed:
        return project_kept(inputs, _STATUS, (conditions.backend_not_ready("DeliveryChanged", changed),))
    try:
        provider = lookup.provider_of(inputs.composite)
        backend = backend_of(provider)
        backend.check_delivery(settings.delivery)
        backend.check(settings.claimed_providers)
    except InvalidSpec as error:
        return project_kept(inputs, _STATUS, (conditions.backend_not_ready("InvalidSpec", str(error)),))
    asked, problem = operators.requirements(backend), operators.missing(backend, inputs)
    if problem:
        stands = (conditions.backend_not_ready("OperatorTooOld", problem),)
        return project_kept(inputs, _STATUS, stands, requirements=asked)
    return Probe(inputs, settings, provider, backend).plan()


@dataclass(frozen=True)
class Probe:
    """A provider whose spec can work, and the question that its backend is asked."""

    inputs: Inputs
    settings: MemoryInput
    provider: Provider
    backend: Backend

    def plan(self) -> Plan:
        """Say everything."""
        stands = (self.condition(), *(said for each in self._periodic for said in each.conditions()))
        return Plan(
            resources=self.resources(),
            conditions=stands,
            status=self.status(),
            ready=stands[0].status,
            events=events(self.inputs, stands),
            requirements=operators.requirements(self.backend),
            ttl_seconds=STABLE_SECONDS if stands[0].status else CONVERGING_SECONDS,
        )

    @cached_property
    def owner(self) -> Owner:
        """Whose labels the objects carry."""
        return Owner(self.provider.name, self.provider.claim, self.backend.namespace)

    @cached_property
    def document(self) -> Document:
        """The request document."""
        body = document.probe(self.backend, self._name("report"))
        return document.finish(body, self.settings.migrations.version, {"provider": self.provider.retry})

    def _name(self, *suffix: str) -> str:
        return names.provider_object(self.provider.name, *suffix)

    def _placed(self, key: str) -> str:
        return names.placed(key, self.backend.namespace)

    def resources(self) -> dict[str, Resource]:
        """Every composed resource, by key."""
        observed, name = self.inputs.observed, self._name("report")
        account = jobs.service_account(self.settings, self.provider)
        keys = {part: self._placed(part) for part in report.PARTS}
        made: dict[str, Manifest] = {
            **report.objects(self.owner, name, account, keys, observed),
            names.request_key(self.document.hash): self._request(),
            self._placed("probe"): job.cronjob(self.owner, self._name("probe"), self._task, job.EVERY_FIVE_MINUTES),
        }
        if account == self._name():
            made[self._placed("service-account")] = report.service_account(self.owner, account)
        for each in self._periodic:
            made |= each.objects()
        return {**ready_when_observed(observed, made), **self._first_answer()}

    @cached_property
    def _periodic(self) -> tuple[Periodic, ...]:
        """What comes again beside the probe itself."""
        kinds = (Reaper, Maintenance)
        return tuple(each(self.inputs, self.settings, self.provider, self.backend, self.owner) for each in kinds)

    def _first_answer(self) -> dict[str, Resource]:
        key, observed = names.probe_key(self.document.hash), self.inputs.observed
        if key in observed:
            return kept(observed, key, ready=readiness.job(observed[key]).phase == "Complete")
        return {key: Resource(job.job(self.owner, self._name("probe", self.document.hash), self._task), ready=False)}

    def _request(self) -> Manifest:
        own_ca = None if self.backend.ca_secret else self.backend.ca
        return secret.request(self.owner, self._name(self.document.hash), self.document.text, own_ca)

    @cached_property
    def _task(self) -> job.Task:
        request = self._name(self.document.hash)
        own_ca = request if not self.backend.ca_secret and self.backend.ca else None
        return jobs.task(
            "probe",
            self.settings,
            self.provider,
            self.backend,
            request=request,
            admin=self.backend.admin_secret,
            ca=self.backend.ca_secret or own_ca,
        )

    @cached_property
    def _answer(self) -> Answer:
        return Answer.read(self.inputs.observed.get(self._placed("report")), "probe", self.document.hash)

    def condition(self) -> Condition:
        """Whether the backend answers, by the last probe of this spec."""
        if self._answer.code is None:
            return conditions.backend_not_ready("Probing", self._why_no_answer())
        if self._answer.code:
            reason = _REASONS.get(self._answer.code, "Unreachable")
            return conditions.backend_not_ready(reason, self._answer.message)
        if readiness.cronjob_is_stale(self.inputs.observed.get(self._placed("probe"), {})):
            message = conditions.cronjob_failed(self._name("probe"), self.backend.namespace)
            return conditions.backend_not_ready("Stale", message)
        server = self._answer.server or Server()
        title = _TITLES.get(self.provider.spec.type, "")
        return conditions.backend_ready("Valkey" if "valkey" in server.capabilities else title, server.version)

    def _why_no_answer(self) -> str:
        observed = self.inputs.observed.get(names.probe_key(self.document.hash))
        state = readiness.job(observed) if observed else None
        name = self._name("probe", self.document.hash)
        where = f'Job "{name}" in namespace "{self.backend.namespace}"'
        if state and state.phase == "Failed":
            return (
                f"{where} failed without an answer ({state.message}): read its pod's log and events, then change the "
                f"annotation {names.RETRY_ANNOTATION} to probe again"
            )
        if state and state.phase == "Complete":
            return f'{where} is complete but wrote no answer to ConfigMap "{self._name("report")}": see its log'
        return f"waiting for {where}"

    def status(self) -> dict[str, Any]:
        """What Memories and people read; without an answer, what the last one said."""
        noted = self.inputs.composite.get("status", {})
        said: dict[str, Any] = {"type": self.provider.spec.type, "endpoint": self.backend.place.endpoint}
        if noted.get("endpoint") == said["endpoint"]:
            # Of another server it would say nothing.
            said |= {key: noted[key] for key in _STATUS if key in noted and key not in said}
        if self._answer.server:
            said["version"] = self._answer.server.version
            said["capabilities"] = list(self._answer.server.capabilities)
        if self._answer.ca_bundle:
            said["caBundle"] = self._answer.ca_bundle
        return said
