"""A Memory's roles and database as objects of CloudNativePG, in stages.

Its operator looks again only after half a minute at what it could not do, so nothing is composed before that which it
needs is there. It learns of a role's Secret and of its own right to read that Secret in no particular order, and may
fail for that: then the object's label changes, which makes it look at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from function import conditions, names, readiness
from function.lazy import cached_property
from function.plan.kept import kept
from function.resources import cnpg, secret
from function.resources.projection import project
from function.state import Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.backends.base import Cluster, LoginSlot
    from function.conditions import Condition
    from function.resources.metadata import Owner
    from function.state import Manifest

# How often the operator is asked to look again before its own pace has to do.
_ATTEMPTS = 8
_LONGEST_WORDS = 600


@dataclass(frozen=True)
class Credentials:
    """What its logins are known by.

    Attributes:
        verifiers: Of the active logins and of the Jobs' own, by name.
        password: The Jobs' own.
        source: What the Jobs' password comes from; another one is another Secret.
    """

    verifiers: Mapping[str, str]
    password: str
    source: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """What a Memory wants to be there.

    Attributes:
        prefix: Of its roles.
        stamp: Their comment.
        logins: Its logins, and what becomes of each.
        database: Name of its database.
        has_vectors: Whether it needs pgvector.
        drops: Whether its claim says that the database goes with it.
        has_home: Whether a Job has been there before.
        is_provisioned: Whether a Job for just this has found the database to be this Memory's.
        is_frozen: Whether all stays as it is, for a Job with another request is at work.
    """

    prefix: str
    stamp: str
    logins: tuple[LoginSlot, ...]
    database: str
    has_vectors: bool
    drops: bool
    has_home: bool
    is_provisioned: bool
    is_frozen: bool


@dataclass(frozen=True)
class _Part:
    """One object, what must be applied before it, and the Secret that it must find."""

    body: Manifest
    after: tuple[str, ...] = ()
    secret: str | None = None


@dataclass(frozen=True)
class Roles:
    """The objects for one Memory."""

    owner: Owner
    cluster: Cluster
    wish: Wish
    credentials: Credentials
    observed: Mapping[str, Mapping[str, Any]]

    def _key(self, part: str) -> str:
        return names.placed(f"cnpg-{part}", self.owner.namespace, self.cluster.name, self.wish.prefix)

    @property
    def job(self) -> str:
        """Name of the login that Jobs have."""
        return names.job_role(self.wish.prefix)

    @cached_property
    def login_key(self) -> str:
        """Key of the Secret with the Jobs' password; another password is another object."""
        where = (self.owner.namespace, self.cluster.name, self.wish.prefix)
        return names.placed("login", *where, *self.credentials.source)

    @property
    def login_secret(self) -> str:
        """Name of that Secret."""
        return names.job_login(self.wish.prefix, self.login_key)

    @cached_property
    def _secrets(self) -> dict[str, Manifest]:
        """The Secrets with verifiers, by key."""
        made = {}
        for login, verifier in self.credentials.verifiers.items():
            name = names.cnpg_secret(login)
            made[self._key(f"secret-{self._part(login)}")] = secret.role_password(self.owner, name, login, verifier)
        return made

    def _part(self, role: str) -> str:
        """What a role is to its Memory: `owner`, `rw-a`."""
        return role.removeprefix(f"{self.wish.prefix}_").replace("_", "-")

    @cached_property
    def _parts(self) -> dict[str, _Part]:
        """The objects of CloudNativePG, by key, in the order in which they can be made."""
        prefix = self.wish.prefix
        owner, writer, reader = (f"{prefix}_{group}" for group in ("owner", "writer", "reader"))
        made = dict([self._role(owner), self._role(writer), self._role(reader)])
        made[self._key("database")] = _Part(self._database(owner), self._groups)
        ended = []
        for login in self.wish.logins:
            key, part = self._role(login.name, writer if login.role == "writer" else reader, is_login=True)
            if login.state == "active" or key in self.observed:
                is_left = login.state == "draining"
                made[key] = _Part(project(self.observed[key])) if is_left else part
                ended.append(login.name)
        # To end their sessions. A Memory that is new has none, and its first Job waits for one thing less.
        key, part = self._role(self.job, owner, *(ended if self.wish.has_home else ()), is_login=True)
        return {**made, key: part}

    def _role(self, name: str, *member_of: str, is_login: bool = False) -> tuple[str, _Part]:
        has_password = name in self.credentials.verifiers
        part = self._part(name)
        wanted = cnpg.Role(
            name,
            member_of,
            reclaim="delete" if is_login else "retain",
            secret=names.cnpg_secret(name) if has_password else None,
            connection_limit=self.cluster.connection_limit if has_password and name != self.job else -1,
        )
        body = cnpg.role(self.owner, self.cluster.name, wanted, self.wish.stamp)
        after = (*self._groups, *(self._key(f"role-{self._part(each)}") for each in member_of))
        password = self._key(f"secret-{part}") if has_password else None
        return self._key(f"role-{part}"), _Part(body, after if is_login else (), password)

    @cached_property
    def _groups(self) -> tuple[str, ...]:
        """Keys of what nothing can be made without.

        All else waits for all of these: Crossplane counts what changes, and two objects at once are one change less.
        """
        return tuple(self._key(f"role-{group}") for group in ("owner", "writer", "reader"))

    @property
    def is_frozen(self) -> bool:
        """Whether all stays as it is."""
        return self.wish.is_frozen

    @cached_property
    def is_begun(self) -> bool:
        """Whether the roles that nobody logs in as are there."""
        return all(self._states[key].phase == "Applied" for key in self._groups)

    def _database(self, owner: str) -> Manifest:
        """The database. Only what was provisioned for this very Memory goes with its claim.

        Before that it may hold the rows of an earlier claim of the same name, which this one was never given.
        """
        wish, there = self.wish, self.observed.get(self._key("database"), {})
        is_ours = wish.is_provisioned or there.get("spec", {}).get("databaseReclaimPolicy") == "delete"
        vector = self.cluster.vector_schema if wish.has_vectors else None
        wanted = cnpg.Database(wish.database, owner, vector, "delete" if wish.drops and is_ours else "retain")
        return cnpg.database(self.owner, self.cluster.name, wanted)

    def resources(self) -> dict[str, Resource]:
        """Every object whose turn it is, and every one that is there."""
        if self.wish.is_frozen:
            there = filter(names.is_cnpg, self.observed)
            return {name: self._spared(each) for key in there for name, each in kept(self.observed, key).items()}
        login = secret.login(self.owner, self.login_secret, self.job, self.credentials.password)
        secrets = {**self._secrets, self.login_key: login}
        made = {key: Resource(body, ready=self._holds(key, body)) for key, body in secrets.items()}
        for key, part in self._parts.items():
            made |= self._object(key, part)
        return {**self._still_read(), **made}

    def _spared(self, kept: Resource) -> Resource:
        """A database that is to outlive its claim does so from now on: nobody waits for a Job to say so."""
        body = kept.body
        if body["kind"] != "Database" or self.wish.drops:
            return kept
        return replace(kept, body={**body, "spec": {**body["spec"], "databaseReclaimPolicy": "retain"}})

    def _object(self, key: str, part: _Part) -> dict[str, Resource]:
        if not self._is_due(part):
            return kept(self.observed, key, ready=False)
        body = cnpg.attempted(part.body, self._attempts(key))
        return {key: Resource(body, ready=self._states[key].phase == "Applied")}

    def _still_read(self) -> dict[str, Resource]:
        """Secrets that a role still has its password from: of one that is draining, or not closed yet.

        And of one that is not seen at this moment, for it may.
        """
        made: dict[str, Resource] = {}
        for login in self.wish.logins:
            part = self._part(login.name)
            role = self.observed.get(self._key(f"role-{part}"))
            if role is None or "passwordSecret" in role.get("spec", {}):
                made |= kept(self.observed, self._key(f"secret-{part}"))
        return made

    def _holds(self, key: str, body: Manifest) -> bool:
        """Whether a Secret is there with what it should hold."""
        return key in self.observed and self.observed[key].get("data") == body["data"]

    def _is_due(self, part: _Part) -> bool:
        """Whether all that an object needs is there."""
        if part.secret and not self._holds(part.secret, self._secrets[part.secret]):
            return False
        return all(self._states[key].phase == "Applied" for key in part.after)

    @cached_property
    def _states(self) -> dict[str, readiness.Applied]:
        """How each object stands."""
        return {key: self._state(key) for key in self._parts}

    def _state(self, key: str) -> readiness.Applied:
        part, seen = self._parts[key], self.observed.get(key)
        if seen is None or project(seen)["spec"] != part.body["spec"]:
            return readiness.Applied("Waiting")
        password = self.observed.get(part.secret) if part.secret else None
        return readiness.cnpg(seen, password["metadata"].get("resourceVersion") if password else None)

    def _attempts(self, key: str) -> int:
        if key not in self.observed:
            return 0
        before = cnpg.attempts(self.observed[key])
        failed = self._states[key].phase == "Failed"
        return before + 1 if failed and before < _ATTEMPTS else before

    @cached_property
    def is_applied(self) -> bool:
        """Whether a Job that starts now finds everything."""
        return self.login_key in self.observed and all(state.phase == "Applied" for state in self._states.values())

    def waiting(self) -> Condition:
        """Say what is not there yet, and why not, in CloudNativePG's words when it has said so."""
        if not self._failed:
            return conditions.applying(self.owner.namespace)
        key, state = self._failed[0]
        said = state.message[:_LONGEST_WORDS]
        body = self._parts[key].body
        what = f'{body["kind"]} "{body["metadata"]["name"]}"'
        reason = "ExtensionMissing" if said.startswith("vector: ") else "NotApplied"
        return conditions.not_applied(reason, what, self.owner.namespace, said)

    @property
    def has_failed(self) -> bool:
        """Whether CloudNativePG cannot make one of them, however often it is asked."""
        return bool(self._failed)

    @cached_property
    def _failed(self) -> list[tuple[str, readiness.Applied]]:
        failed = [key for key, state in self._states.items() if state.phase == "Failed"]
        return [(key, self._states[key]) for key in failed if cnpg.attempts(self.observed[key]) >= _ATTEMPTS]
