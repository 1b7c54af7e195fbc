"""Which passwords are in force: the step from the epoch that is applied towards the one that is wanted.

Epoch n lives in slot n mod 2. One rule decides everything here: the login that a Secret holds is neither closed nor
given another password before the Secret holds another login. So a rotation keys the other slot, and only then come the
next epoch, or an early end of the slot before (`revokeOld`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from function import conditions
from function.conditions import Blocked
from function.names import slot_of_login

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.backends.base import Slot, State
    from function.credentials import KeyRing, RootKey


def slot_of(epoch: int) -> Slot:
    """Say which slot an epoch's login is."""
    return "b" if epoch % 2 else "a"


@dataclass(frozen=True)
class Applied:
    """An epoch that a Job has applied, and the root key that its passwords come from."""

    epoch: int
    key_id: str

    @property
    def shown(self) -> dict[str, Any]:
        """What `status.credentials` says."""
        return {"epoch": self.epoch, "slot": slot_of(self.epoch), "keyId": self.key_id}

    @classmethod
    def read(cls, noted: Mapping[str, Any]) -> Applied | None:
        """Read `status.credentials`, or a request document (one without an epoch is older than rotation)."""
        epoch, key_id = noted.get("epoch", 0), noted.get("keyId")
        return cls(epoch, key_id) if isinstance(epoch, int) and isinstance(key_id, str) else None


@dataclass(frozen=True)
class Before:
    """What is there before the next step.

    Attributes:
        applied: The epoch in force; None when there is none yet.
        states: What the backend was last asked to make of each login, by name; empty when nobody knows any more.
        held: Names of the logins in the Secrets that apps have.
        has_home: Whether there is a home at all, whatever else is lost.
    """

    applied: Applied | None
    states: Mapping[str, State]
    held: frozenset[str]
    has_home: bool

    def holds(self, slot: Slot) -> bool:
        """Whether a Secret holds a login of this slot."""
        return any(slot_of_login(login) == slot for login in self.held)


@dataclass(frozen=True)
class Rotation:
    """The epoch that the next Job makes true, or that the last one has.

    Attributes:
        epoch: That epoch.
        wanted: The epoch that the spec asks for; another one when more than one step leads there.
        key: The root key that the passwords of `epoch` come from.
        revokes: Whether the login of the epoch before is to end as soon as no Secret holds it.
        before: What is there.
    """

    epoch: int
    wanted: int
    key: RootKey
    revokes: bool
    before: Before

    @property
    def slot(self) -> Slot:
        """The slot that is active."""
        return slot_of(self.epoch)

    @property
    def done(self) -> Applied:
        """What is applied when the Job for it is complete."""
        return Applied(self.epoch, self.key.key_id)

    def state(self, login: str, slot: Slot) -> State:
        """Say what becomes of a login whose role is wanted."""
        if slot == self.slot:
            return "active"
        forgotten: State = "draining" if self.before.has_home and self.epoch else "closed"
        was = self.before.states.get(login, forgotten)
        moves = self.before.applied is not None and self.before.applied.epoch != self.epoch
        may_end = not moves and not self.before.holds(slot)
        return "closed" if was == "closed" or (self.revokes and may_end) else "draining"


def latest(noted: Applied | None, document: Applied | None, held: Slot | None) -> Applied | None:
    """Say which epoch is in force: what the status notes, or the applied document where the status is lost or late.

    `held` is the slot that the app's Secret holds, None without one. A Secret can be ahead of the status, and a
    document ahead of the Secret, when what was wanted changed at that moment.
    """
    known = [each for each in (noted, document) if each]
    return max(known, key=lambda each: (slot_of(each.epoch) == held, each.epoch), default=None)


def due(before: Before, wanted: int) -> int:
    """Give the epoch to apply next.

    Raises:
        Blocked: The epoch is lower than the applied one; its passwords are given up, and do not come back.
    """
    if before.applied is None or before.applied.epoch == wanted:
        return wanted
    epoch = before.applied.epoch
    if wanted < epoch:
        raise Blocked(conditions.epoch_lowered(wanted, epoch))
    # The wanted epoch may live in the very slot that apps hold: the epoch before it leads them over to the other one.
    following = wanted - 1 if slot_of(wanted) == slot_of(epoch) else wanted
    # A Secret that still holds that slot is late: it follows first.
    return epoch if before.holds(slot_of(following)) else following


def key_for(ring: KeyRing, before: Before, epoch: int) -> RootKey:
    """Give the root key of an epoch: the applied one keeps its own while that is known, any other has the current one.

    Raises:
        Blocked: Nobody knows the key of the applied epoch any more.
    """
    if before.applied is None:
        return ring.current
    own = ring.known_as(before.applied.key_id)
    if own is None:
        raise Blocked(conditions.unknown_root_key(before.applied.key_id))
    return own if before.applied.epoch == epoch else ring.current
