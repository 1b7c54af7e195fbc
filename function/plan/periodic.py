"""What a provider has done again and again: a CronJob, the request that it mounts, and what it says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from function import conditions, names, readiness
from function.lazy import cached_property
from function.plan import document, jobs
from function.plan.answers import Answer
from function.resources import job, secret

if TYPE_CHECKING:
    from function.backends.base import Backend
    from function.conditions import Condition
    from function.model import MemoryInput
    from function.plan.document import Document
    from function.resources.metadata import Owner
    from function.state import Inputs, Manifest, Provider


@dataclass(frozen=True)
class Periodic(ABC):
    """One CronJob of a provider.

    Attributes:
        command: What it runs.
        part: What it is called, in keys and in names.
        condition: Type of the condition that tells of it.
    """

    command: ClassVar[Literal["reap", "maintain"]]
    part: ClassVar[str]
    condition: ClassVar[str]

    inputs: Inputs
    settings: MemoryInput
    provider: Provider
    backend: Backend
    owner: Owner

    @property
    @abstractmethod
    def schedule(self) -> str:
        """When it runs, as a cron schedule."""

    @abstractmethod
    def _body(self, report: str) -> dict[str, Any]:
        """What it needs to know; `report` is the name of the ConfigMap that it answers in."""

    @property
    def exists(self) -> bool:
        """Whether there is a login for it; where an operator makes roles, none may work on all homes."""
        return self.backend.cluster is None

    @cached_property
    def document(self) -> Document:
        """Its request document."""
        retries = {"provider": self.provider.retry}
        return document.finish(self._body(self._name("report")), self.settings.migrations.version, retries)

    def _name(self, *suffix: str) -> str:
        return names.provider_object(self.provider.name, *suffix)

    def _placed(self, key: str) -> str:
        return names.placed(key, self.backend.namespace)

    def objects(self) -> dict[str, Manifest]:
        """The CronJob and its request, by key."""
        if not self.exists:
            return {}
        request, own_ca = self._name(self.document.hash), None if self.backend.ca_secret else self.backend.ca
        task = jobs.task(
            self.command,
            self.settings,
            self.provider,
            self.backend,
            request=request,
            admin=self.backend.admin_secret,
            ca=self.backend.ca_secret or (request if own_ca else None),
        )
        return {
            names.request_key(self.document.hash): secret.request(self.owner, request, self.document.text, own_ca),
            self._placed(self.part): job.cronjob(self.owner, self._name(self.part), task, self.schedule),
        }

    def conditions(self) -> tuple[Condition, ...]:
        """What it says; Memories are served all the same when it says nothing good."""
        if not self.exists:
            return ()
        answer = Answer.read(self.inputs.observed.get(self._placed("report")), self.command, self.document.hash)
        if answer.code:
            reason = conditions.REASONS_BY_EXIT_CODE.get(answer.code, "JobFailed")
            return (conditions.false(self.condition, reason, answer.message),)
        if readiness.cronjob_is_stale(self.inputs.observed.get(self._placed(self.part), {})):
            failed = conditions.cronjob_failed(self._name(self.part), self.backend.namespace)
            return (conditions.false(self.condition, "Stale", failed),)
        if answer.code is None:
            return (conditions.not_run_yet(self.condition, self.part, self.schedule),)
        return (conditions.true(self.condition, "Available", answer.message),)
