"""The CronJob that looks after data: one for all Memories of a provider, or one for each.

Where an operator makes roles there is no login that may work on all homes, so each Memory has its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from function import conditions, names, readiness
from function.plan import document, jobs
from function.plan.kept import kept
from function.plan.periodic import Periodic
from function.resources import job, secret
from function.state import Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.backends.base import Backend
    from function.model import MemoryInput
    from function.plan.document import Document
    from function.plan.subject import Subject
    from function.resources.metadata import Owner
    from function.state import Provider

PART = "maintenance"


class Maintenance(Periodic):
    """The CronJob of a provider."""

    command = "maintain"
    part = PART
    condition = conditions.MAINTENANCE_READY

    @property
    def schedule(self) -> str:
        """When it runs."""
        return schedule(self.provider, self.provider.name)

    def _body(self, report: str) -> dict[str, Any]:
        return document.maintain(self.backend, self.provider, report, None)


def schedule(provider: Provider, whose: str) -> str:
    """Say when maintenance runs: what the provider says, or once an hour, at another minute for others."""
    return provider.spec.maintenance.schedule or names.hourly(whose)


@dataclass(frozen=True)
class OwnMaintenance:
    """The CronJob of one Memory.

    Attributes:
        database: Where its home is.
    """

    owner: Owner
    settings: MemoryInput
    provider: Provider
    backend: Backend
    subject: Subject
    database: str

    @property
    def _key(self) -> str:
        return names.placed(PART, self.backend.namespace)

    @property
    def _name(self) -> str:
        return names.maintenance(self.subject.identity.id12)

    @property
    def schedule(self) -> str:
        """When it runs."""
        return schedule(self.provider, self.subject.identity.text)

    @property
    def failed(self) -> str:
        """Why its last run has left nothing behind, "" when it has not failed."""
        stale = readiness.cronjob_is_stale(self._observed)
        return conditions.cronjob_failed(self._name, self.backend.namespace) if stale else ""

    @property
    def _observed(self) -> Mapping[str, Any]:
        return self.subject.inputs.observed.get(self._key, {})

    def ran_since(self, moment: str, seconds: int) -> bool:
        """Whether a run succeeded so long after a moment."""
        return readiness.cronjob_ran_since(self._observed, moment, seconds)

    def kept(self) -> dict[str, Resource]:
        """The CronJob as it is; while a Job is at work its request stays with all others."""
        return kept(self.subject.inputs.observed, self._key)

    def resources(self, login: str, *, is_provisioned: bool) -> dict[str, Resource]:
        """The CronJob, which logs in by the Secret `login`, and its request; nothing before there is a home."""
        observed = self.subject.inputs.observed
        if not is_provisioned and self._key not in observed:
            return {}
        asked = self._document
        request = names.request(self.subject.identity.id12, asked.hash)
        task = jobs.task(
            "maintain",
            self.settings,
            self.provider,
            self.backend,
            request=request,
            admin=login,
            ca=request if self.backend.ca else None,
        )
        made = {
            names.request_key(asked.hash): secret.request(self.owner, request, asked.text, self.backend.ca),
            self._key: job.cronjob(self.owner, self._name, task, self.schedule),
        }
        return {key: Resource(body, ready=key in observed) for key, body in made.items()}

    @property
    def _document(self) -> Document:
        memory: Mapping[str, str] = {
            "identity": self.subject.identity.text,
            "database": self.database,
            "schema": self.subject.spec.dataset.schema_,
        }
        report = names.report(self.subject.identity.id12)
        body = document.maintain(self.backend, self.provider, report, memory)
        return document.finish(body, self.settings.migrations.version, {})
