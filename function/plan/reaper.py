"""A provider's reaper: the CronJob that closes the homes of Memories that are gone, and its rights.

On the deletion of a claim the function is not called, so somebody has to look. Where an operator owns roles and
databases there is nothing to look for: its objects go with the Memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from function import conditions
from function.plan import document, jobs
from function.plan.periodic import Periodic
from function.resources import reaper
from function.resources.job import EVERY_FIVE_MINUTES

if TYPE_CHECKING:
    from function.state import Manifest


class Reaper(Periodic):
    """The reaper of one provider."""

    command = "reap"
    part = "reaper"
    condition = conditions.REAPER_READY
    schedule = EVERY_FIVE_MINUTES

    def _body(self, report: str) -> dict[str, Any]:
        return document.reap(self.backend, self.provider, report)

    def objects(self) -> dict[str, Manifest]:
        """The CronJob, its request, and its right to see which Memories exist, by key.

        All of them for the platform's provider. A tenant's sees the claims of its own namespace: composites would tell
        it who else is there.
        """
        made = super().objects()
        if not made:
            return {}
        name, claim = self._name(self.part), self.provider.claim
        account = jobs.service_account(self.settings, self.provider)
        if claim:
            return {**made, self._placed("reaper-binding"): reaper.within(self.owner, name, account, claim[0])}
        return {**made, self._placed("reaper-cluster-binding"): reaper.everywhere(self.owner, name, account)}
