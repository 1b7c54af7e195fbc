"""A provider's reaper: the CronJob that closes the homes of Memories that are gone, its rights, and what it says.

On the deletion of a claim the function is not called, so somebody has to look. Where an operator owns roles and
databases there is nothing to look for: its objects go with the Memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from function import conditions, names, readiness
from function.plan import document, jobs
from function.plan.answers import Answer
from function.resources import job, reaper, secret

if TYPE_CHECKING:
    from function.backends.base import Backend
    from function.conditions import Condition
    from function.model import MemoryInput
    from function.plan.document import Document
    from function.resources.metadata import Owner
    from function.state import Inputs, Manifest, Provider


@dataclass(frozen=True)
class Reaper:
    """The reaper of one provider."""

    inputs: Inputs
    settings: MemoryInput
    provider: Provider
    backend: Backend
    owner: Owner

    @cached_property
    def _document(self) -> Document:
        body = document.reap(self.backend, self.provider, self._name("report"))
        return document.finish(body, self.settings.migrations.version, {"provider": self.provider.retry})

    def _name(self, *suffix: str) -> str:
        return names.provider_object(self.provider.name, *suffix)

    def _placed(self, key: str) -> str:
        return names.placed(key, self.backend.namespace)

    @property
    def _exists(self) -> bool:
        return self.backend.manages_by == "SQL"

    def objects(self, account: str) -> dict[str, Manifest]:
        """What to compose, by key; `account` is whom the Jobs run as."""
        if not self._exists:
            return {}
        request, own_ca = self._name(self._document.hash), None if self.backend.ca_secret else self.backend.ca
        task = jobs.task(
            "reap",
            self.settings,
            self.provider,
            request=request,
            admin=self.backend.admin_secret,
            ca=self.backend.ca_secret or (request if own_ca else None),
        )
        return {
            names.request_key(self._document.hash): secret.request(self.owner, request, self._document.text, own_ca),
            self._placed("reaper"): job.cronjob(self.owner, self._name("reaper"), task),
            **self._right(account),
        }

    def _right(self, account: str) -> dict[str, Manifest]:
        """The right to see which Memories exist.

        All of them for the platform's provider. A tenant's sees the claims of its own namespace: composites would tell
        it who else is there.
        """
        name, claim = self._name("reaper"), self.provider.claim
        if claim:
            return {self._placed("reaper-binding"): reaper.within(self.owner, name, account, claim[0])}
        return {self._placed("reaper-cluster-binding"): reaper.everywhere(self.owner, name, account)}

    def conditions(self) -> tuple[Condition, ...]:
        """What it says; a provider that cannot reap serves its Memories all the same."""
        if not self._exists:
            return ()
        if readiness.cronjob_is_stale(self.inputs.observed.get(self._placed("reaper"), {})):
            failed = conditions.cronjob_failed(self._name("reaper"), self.backend.namespace)
            return (conditions.reaper_fails("Stale", failed),)
        answer = Answer.read(self.inputs.observed.get(self._placed("report")), "reap", self._document.hash)
        if answer.code is None:
            return (conditions.reaper_waits(),)
        if answer.code:
            reason = conditions.REASONS_BY_EXIT_CODE.get(answer.code, "JobFailed")
            return (conditions.reaper_fails(reason, answer.message),)
        return (conditions.reaper_works(answer.message),)
