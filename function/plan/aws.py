"""A Memory's users, keys and bucket as managed resources of the upbound AWS provider.

A key is an object of its own for each epoch: a rotation makes the next one in the other slot, and the one of before
stays as it was made, until its slot is closed or taken. What a reference leads to is made first by the provider itself,
so all that is wanted is composed at once, but for the lifecycle: it removes objects, so it waits until a Job has found
the bucket to be this Memory's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from function import conditions, names, readiness
from function.lazy import cached_property
from function.plan.kept import kept
from function.resources import aws
from function.resources.projection import project
from function.state import Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.backends.base import LoginSlot
    from function.conditions import Condition
    from function.model import S3
    from function.resources.metadata import Owner
    from function.state import Manifest

_LONGEST_WORDS = 600


@dataclass(frozen=True)
class Wish:
    """What a Memory wants to be there.

    Attributes:
        prefix: Of its logins.
        logins: Its logins, and what becomes of each.
        epoch: Whose keys the active ones have.
        place: Where its objects are.
        days: How long these are kept, 0 for ever.
        is_held: Whether nothing may be deleted.
        has_home: Whether a Job has found the bucket to be this Memory's.
        is_frozen: Whether all stays as it is, for a Job with another request is at work.
    """

    prefix: str
    logins: tuple[LoginSlot, ...]
    epoch: int
    place: aws.Place
    days: int
    is_held: bool
    has_home: bool
    is_frozen: bool


def access_key(namespace: str, place: str, part: str, epoch: int) -> str:
    """Give the resource key of a login's key; another epoch's is another object. `part` is `rw-a`."""
    return names.placed(names.aws_key("key", part), namespace, place, str(epoch))


@dataclass(frozen=True)
class Users:
    """The objects for one Memory.

    Attributes:
        owner: Whose labels they carry.
        spec: What the provider says.
        shared: The provider's bucket, or the prefix of its buckets.
        secrets: Namespace of the Secrets that keys are written to.
        wish: What is wanted.
        observed: Composed resources by key.
    """

    owner: Owner
    spec: S3
    shared: str
    secrets: str
    wish: Wish
    observed: Mapping[str, Mapping[str, Any]]

    login_secret = None
    is_begun = True

    @property
    def is_frozen(self) -> bool:
        """Whether all stays as it is."""
        return self.wish.is_frozen

    def _key(self, *part: str) -> str:
        return names.placed(names.aws_key(*part), self.owner.namespace, self.shared)

    @cached_property
    def _make(self) -> aws.Maker:
        return aws.Maker(self.owner, self.spec)

    @cached_property
    def _stem(self) -> str:
        """What the names of users and rights begin with; a login's has underscores, which no object's name can."""
        return self.wish.prefix.replace("_", "-")

    def _part(self, login: LoginSlot) -> str:
        """What a login is to its Memory: `rw-a`."""
        return login.name.removeprefix(f"{self.wish.prefix}_").replace("_", "-")

    @cached_property
    def _wanted(self) -> dict[str, Manifest]:
        """All that should be there now, by key; keys of draining logins are only kept."""
        made = self._bucket() if self.wish.place.alone else {}
        for login in self.wish.logins:
            part = self._part(login)
            if login.state == "active" or (login.state == "draining" and self._is_there(part)):
                made |= self._user(login, part)
        return made | self._lifecycle()

    def _is_there(self, part: str) -> bool:
        mine = tuple(f"{names.aws_key(kind, part)}-" for kind in ("user", "attachment", "key"))
        return any(key.startswith(mine) for key in self.observed)

    def _user(self, login: LoginSlot, part: str) -> dict[str, Manifest]:
        name, rights = f"{self._stem}-{part}", f"{self._stem}-{login.role}"
        encryption = self.spec.encryption
        document = aws.document(self.wish.place, login.role, held=self.wish.is_held, encryption=encryption)
        made = {
            self._key("policy", login.role): self._make.policy(rights, document),
            self._key("user", part): self._make.user(name),
            self._key("attachment", part): self._make.attachment(name, rights),
        }
        if login.state == "active":
            key = access_key(self.owner.namespace, self.shared, part, self.wish.epoch)
            made[key] = self._make.access_key(names.aws_secret(self._stem, key), name, self.secrets)
        return made

    def _bucket(self) -> dict[str, Manifest]:
        """The bucket and its settings, but for its lifecycle."""
        make, spec, bucket = self._make, self.spec, self.wish.place.bucket
        made = {
            "bucket": make.bucket(bucket),
            "ownership": make.ownership(bucket),
            "access": make.public_access(bucket),
        }
        if spec.versioning:
            made["versioning"] = make.versioning(bucket)
        if spec.object_lock:
            made["lock"] = make.lock(bucket, spec.object_lock)
        if spec.encryption:
            made["encryption"] = make.encryption(bucket, spec.encryption)
        if spec.replication:
            made["replication"] = make.replication(self.wish.place, spec.replication)
        return {self._key(part): body for part, body in made.items()}

    def _lifecycle(self) -> dict[str, Manifest]:
        """What becomes of old objects. A hold counts at once: nobody waits for a Job to say so."""
        wish = self.wish
        if not (wish.place.alone and wish.has_home):
            return {}
        return {self._key("lifecycle"): self._make.lifecycle(wish.place, wish.days, held=wish.is_held)}

    def resources(self) -> dict[str, Resource]:
        """Every object that is wanted, and every key that a login still has."""
        if self.wish.is_frozen:
            made: dict[str, Resource] = {}
            for key in filter(names.is_aws, self.observed):
                made |= kept(self.observed, key, ready=self._is_applied(key))
            return made | {key: Resource(body, ready=False) for key, body in self._lifecycle().items() if key in made}
        wanted = {key: Resource(body, ready=self._states[key].phase == "Applied") for key, body in self._wanted.items()}
        return {**self._still_used(), **wanted}

    def _is_applied(self, key: str) -> bool:
        return readiness.managed(self.observed[key]).phase == "Applied"

    def _still_used(self) -> dict[str, Resource]:
        """Keys of logins that are draining, whichever epoch's they are."""
        made: dict[str, Resource] = {}
        for login in self.wish.logins:
            if login.state == "draining":
                stem = f"{names.aws_key('key', self._part(login))}-"
                for key in [each for each in self.observed if each.startswith(stem)]:
                    made |= kept(self.observed, key, ready=self._is_applied(key))
        return made

    @cached_property
    def _states(self) -> dict[str, readiness.Applied]:
        """How each wanted object stands."""
        return {key: self._state(key, body) for key, body in self._wanted.items()}

    def _state(self, key: str, body: Manifest) -> readiness.Applied:
        seen = self.observed.get(key)
        if seen is None or project(seen)["spec"] != body["spec"]:
            return readiness.Applied("Waiting")
        return readiness.managed(seen)

    @cached_property
    def is_applied(self) -> bool:
        """Whether a Job that starts now finds everything."""
        return all(state.phase == "Applied" for state in self._states.values())

    @property
    def has_failed(self) -> bool:
        """Whether the provider has said of one of them that it cannot make it."""
        return bool(self._failed)

    @cached_property
    def _failed(self) -> list[str]:
        return [key for key, state in self._states.items() if state.phase == "Failed"]

    def waiting(self) -> Condition:
        """Say what is not there yet, and why not, in the provider's words when it has said so."""
        if not self._failed:
            return conditions.managing(alone=self.wish.place.alone)
        body, said = self._wanted[self._failed[0]], self._states[self._failed[0]].message[:_LONGEST_WORDS]
        return conditions.not_managed(f'{body["kind"]} "{body["metadata"]["name"]}"', said)
