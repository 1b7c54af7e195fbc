"""A Memory in its backend: what to ask for there, and what to compose for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from function import conditions, delivery, names
from function.backends.base import logins
from function.credentials import Login
from function.lazy import cached_property
from function.plan import attempts, aws, cnpg, document, jobs
from function.plan.answers import Answer
from function.plan.findings import STATUS as FOUND
from function.plan.findings import Findings, Upkeep
from function.plan.kept import BUSY_SECONDS, CONVERGING_SECONDS, REST_SECONDS, STABLE_SECONDS, kept, ready_when_observed
from function.plan.maintenance import OwnMaintenance, schedule
from function.resources import job, report, secret
from function.resources.aws import Place
from function.resources.metadata import Owner
from function.state import Manifest, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.backends.base import Backend, Cluster, LoginSlot
    from function.conditions import Condition
    from function.model import S3, MemoryInput
    from function.plan.attempts import Decision, Start
    from function.plan.document import Document
    from function.plan.lookup import Found
    from function.plan.managed import Managed
    from function.plan.rotation import Rotation
    from function.plan.subject import Subject


@dataclass(frozen=True)
class Home:
    """A Memory in its backend: what to ask for there, and what to compose for it."""

    subject: Subject
    settings: MemoryInput
    found: Found
    backend: Backend
    rotation: Rotation

    @cached_property
    def owner(self) -> Owner:
        """Whose labels the objects carry."""
        return Owner(self.found.provider.name, self.subject.claim, self.backend.namespace)

    @cached_property
    def prefix(self) -> str:
        """Prefix of the roles in the backend."""
        return self.subject.identity.roles(self.backend.place.database)

    @cached_property
    def database(self) -> str:
        """The database that the home is in."""
        return self.backend.database_of(self.subject.identity)

    @cached_property
    def document(self) -> Document:
        """The request document for the current spec."""
        subject = self.subject
        body = {
            **document.wishes(subject.spec),
            "identity": subject.identity.text,
            "uid": subject.uid,
            "composite": str(subject.inputs.composite["metadata"]["name"]),
            "epoch": self.rotation.epoch,
            "keyId": self.rotation.key.key_id,
            "provider": self.backend.request(),
            "database": self.database,
            "logins": [self._login(each) for each in self.logins],
            **self.backend.request_of(subject.identity, subject.spec),
            "adoption": self._adoption(),
            "report": {"namespace": self.backend.namespace, "name": names.report(subject.identity.id12)},
        }
        retries = {"claim": subject.retry, "provider": self.found.provider.retry}
        return document.finish(body, self.settings.migrations.version, retries)

    @cached_property
    def logins(self) -> tuple[LoginSlot, ...]:
        """Every login that the Memory may have, and what becomes of it."""
        return logins(self.prefix, self.subject.spec, self.rotation.state)

    @property
    def is_rotated(self) -> bool:
        """Whether no further Job has to follow the one for this step."""
        draining = any(each.state == "draining" for each in self.logins)
        return self.rotation.epoch == self.rotation.wanted and not (self.rotation.revokes and draining)

    def _adoption(self) -> dict[str, Any]:
        """What the platform team allows; `from` is the identity that hands its home over to this one."""
        spec, home, identity = self.found.provider.spec, self.subject.spec.dataset.schema_, self.subject.identity.text
        giver = next((each.from_ for each in spec.adoptions or () if (each.schema_, each.to) == (home, identity)), None)
        return {"adopt": self.subject.spec.adopt, "policy": spec.adoption, "from": giver}

    def _login(self, login: LoginSlot) -> dict[str, str]:
        shown = {"name": login.name, "role": login.role, "slot": login.slot, "state": login.state}
        verifier = self._verifier(login) if login.state == "active" else None
        return {**shown, "verifier": verifier} if verifier else shown

    def _verifier(self, login: LoginSlot) -> str | None:
        return self.backend.verifier(self.credential(login.name), self.rotation.key)

    def credential(self, login: str) -> Login:
        """What the password of an active login is derived from."""
        return Login(self.subject.identity.text, self.subject.uid, login, self.rotation.epoch)

    @cached_property
    def situation(self) -> attempts.Situation:
        """What decides about the next attempt."""
        status = self.found.provider.status
        return attempts.Situation(
            wanted=self.document.hash,
            noted=self.subject.status.get("provision", {}),
            provider_ready=self.found.condition.status,
            capabilities=tuple(status.get("capabilities", ())),
            # Not a method: a cycle would keep the whole request in memory until the garbage collector runs.
            has_request=partial(_has_request, self.subject.inputs.observed, self.backend.namespace),
        )

    @cached_property
    def _placed(self) -> dict[str, str]:
        """Keys of objects that would move with the provider."""
        parts = (*report.PARTS, *(report.KEYS_PARTS if self.backend.shares_login else ()))
        return {key: names.placed(key, self.backend.namespace) for key in parts}

    @property
    def is_handed_out(self) -> bool:
        """Whether the Secrets that the spec asks for exist."""
        has_reader = names.BINDING_READER in self.subject.inputs.observed
        return self.subject.has_binding and (has_reader or not self.subject.spec.access.read_only_secret)

    def gated(self, decision: Decision) -> Decision:
        """Hold a Job back until others have made what they make: logins, and where these belong."""
        managed = self._managed(decision)
        if managed is None or decision.start is None or managed.is_frozen or managed.is_applied:
            return decision
        return replace(decision, start=None)

    def _managed(self, decision: Decision) -> Managed | None:
        """The logins, and what belongs to them, as objects of others; None where Jobs make them."""
        if self.backend.operator is None:
            return None
        if decision not in self._made:
            self._made[decision] = self._make(decision)
        return self._made[decision]

    @cached_property
    def _made(self) -> dict[Decision, Managed | None]:
        """They are asked for often in a call."""
        return {}

    def _make(self, decision: Decision) -> Managed | None:
        if self.backend.cluster:
            return self._roles(decision, self.backend.cluster)
        return self._users(decision, self.backend.cloud) if self.backend.cloud else None

    def _is_frozen(self, decision: Decision) -> bool:
        """Whether a Job with another request is at work."""
        at_work = [each.hash for each in decision.kept if each.state.phase == "Running"]
        at_work += [decision.start.hash] if decision.start else []
        return any(each != self.document.hash for each in at_work)

    def _users(self, decision: Decision, cloud: S3) -> aws.Users:
        spec, identity, own = self.subject.spec, self.subject.identity, self.subject.own_ref
        wish = aws.Wish(
            prefix=self.prefix,
            logins=self.logins,
            epoch=self.rotation.epoch,
            place=Place(self.database, self.backend.home_of(identity, spec), alone=cloud.bucket is None),
            days=spec.retention.ttl_days,
            is_held=spec.legal_hold,
            has_home=self.subject.has_home,
            is_frozen=self._is_frozen(decision),
        )
        # The provider's own cluster is this one, where a job namespace of another cluster need not be.
        secrets = own[0] if own and self.settings.delivery == delivery.KIND else self.backend.namespace
        shared, observed = self.backend.place.database, self.subject.inputs.observed
        return aws.Users(self.owner, cloud, shared, secrets, wish, observed)

    def _roles(self, decision: Decision, cluster: Cluster) -> cnpg.Roles:
        spec, identity = self.subject.spec, self.subject.identity
        wish = cnpg.Wish(
            prefix=self.prefix,
            stamp=names.role_stamp(identity.text, self.backend.place.database),
            logins=self.logins,
            database=self.database,
            has_vectors=spec.embeddings.enabled,
            drops=spec.deletion_policy == "Delete" and not spec.legal_hold,
            has_home=self.subject.has_home,
            is_provisioned=decision.phase == "Complete",
            is_frozen=self._is_frozen(decision),
        )
        return cnpg.Roles(self.owner, cluster, wish, self._known_by, self.subject.inputs.observed)

    @cached_property
    def _known_by(self) -> cnpg.Credentials:
        job, key = self.credential(names.job_role(self.prefix)), self.rotation.key
        active = [each.name for each in self.logins if each.state == "active"]
        verifiers = {each: self.credential(each).verifier(key) for each in (*active, job.name)}
        return cnpg.Credentials(verifiers, job.password(key), (key.key_id, str(job.epoch), job.uid))

    def resources(self, decision: Decision) -> dict[str, Resource]:
        """Every composed resource, by key."""
        observed = self.subject.inputs.observed
        managed = self._managed(decision)
        made = ready_when_observed(observed, {**self._report(managed), **self._bindings(decision)})
        login = (managed.login_secret if managed else None) or self.backend.admin_secret
        for more in (managed.resources() if managed else {}, self._jobs(decision, login), self._maintenance(decision)):
            made |= more
        return made

    def _maintenance(self, decision: Decision) -> dict[str, Resource]:
        """Its own CronJob, where the provider can have none for all; it logs in as Jobs do."""
        managed = self._managed(decision)
        if managed is None or managed.login_secret is None:
            return {}
        if managed.is_frozen:
            return self._own_maintenance.kept()
        # Not before the app has what it waits for: each change of what is composed is work for Crossplane.
        is_provisioned = decision.phase == "Complete" and self.is_handed_out
        return self._own_maintenance.resources(managed.login_secret, is_provisioned=is_provisioned)

    @cached_property
    def _own_maintenance(self) -> OwnMaintenance:
        provider = self.found.provider
        return OwnMaintenance(self.owner, self.settings, provider, self.backend, self.subject, self.database)

    @cached_property
    def _upkeep(self) -> Upkeep:
        """What is meant to be looked after, and what was found."""
        provider, own = self.found.provider, self._own_maintenance if self.backend.cluster else None
        return Upkeep(
            self.subject.spec,
            Findings.read(self.subject.inputs.observed.get(self._placed["report"])),
            provider.spec.maintenance,
            own.schedule if own else schedule(provider, provider.name),
            self.backend.searches,
            own.failed if own else "",
        )

    def upkeep(self) -> tuple[Condition, ...]:
        """How the data is looked after; whatever it says, the Memory serves."""
        return self._upkeep.conditions()

    def pace(self, decision: Decision, *, settled: bool) -> int:
        """How many seconds an answer holds."""
        managed = self._managed(decision)
        if settled:
            return STABLE_SECONDS if managed is None or self._has_rested(decision) else CONVERGING_SECONDS
        moves = managed and not managed.has_failed and decision.phase != "Failed" and self.found.condition.status
        return BUSY_SECONDS if moves else CONVERGING_SECONDS

    def _has_rested(self, decision: Decision) -> bool:
        """Whether it is long ago that a Job made this of it."""
        ended = decision.subject.state.finished if decision.subject else ""
        return self._own_maintenance.ran_since(ended, REST_SECONDS)

    def _report(self, managed: Managed | None) -> dict[str, Manifest]:
        name, observed = names.report(self.subject.identity.id12), self.subject.inputs.observed
        account = jobs.service_account(self.settings, self.found.provider)
        made = report.objects(self.owner, name, account, self._placed, observed)
        if self.backend.shares_login:
            made |= report.keys(self.owner, self.subject.identity.keys, account, self._placed, observed)
        binding = self._placed["report-binding"]
        if managed and not managed.is_begun and binding not in observed:
            # It is time enough with the next objects: each change of what is composed is another round for Crossplane.
            made.pop(binding, None)
        return made

    def _jobs(self, decision: Decision, login: str | None) -> dict[str, Resource]:
        """The Jobs that stay, the one that starts, and the request document of each."""
        observed, wanted = self.subject.inputs.observed, self.document.hash
        made: dict[str, Resource] = {}
        for each in decision.kept:
            if each.hash != wanted:
                made |= kept(observed, names.request_key(each.hash))
                if each.state.phase == "Running":
                    made |= kept(observed, names.login_key(each.hash))
            made |= kept(observed, each.key, ready=each.state.phase == "Complete")
        start = decision.start
        if decision.phase != "Complete":
            # A Job that is not observed at this moment may run, and mount its document.
            for content in names.parse_request_keys(observed):
                made |= kept(observed, names.request_key(content))
            # Nor is that document, perhaps.
            for key in names.parse_login_keys(observed):
                made |= kept(observed, key)
        if start:
            made[names.provision_key(start.hash, start.number)] = Resource(self._job(start, login), ready=False)
        if (start and start.hash == wanted) or any(each.hash == wanted for each in decision.kept):
            # Written anew, not projected: a rotated CA reaches the next Job this way.
            key = names.request_key(wanted)
            made[key] = Resource(self._request(), ready=key in observed)
            if self.backend.takes_passwords and decision.phase == "Running":
                key = names.login_key(wanted)
                made[key] = Resource(self._passwords(), ready=key in observed)
        return made

    def _request(self) -> Manifest:
        name = names.request(self.subject.identity.id12, self.document.hash)
        return secret.request(self.owner, name, self.document.text, self.backend.ca)

    def _entries_of(self, content: str) -> dict[str, str]:
        """The entries of the Secret with the passwords of a request, and whose each is."""
        if content != self.document.hash:
            # Of an earlier spec, which had other logins.
            there = self.subject.inputs.observed.get(names.login_key(content), {}).get("data") or {}
            return {entry: f"{self.prefix}_{entry.replace('-', '_')}" for entry in sorted(there)}
        active = [each.name for each in self.logins if each.state == "active"]
        return {each.removeprefix(f"{self.prefix}_").replace("_", "-"): each for each in active}

    def _passwords(self) -> Manifest:
        """What the backend must be told. It is there as long as the Job that tells it is at work."""
        key, name = self.rotation.key, names.passwords(self.subject.identity.id12, self.document.hash)
        logins = self._entries_of(self.document.hash)
        entries = {entry: self.credential(login).password(key) for entry, login in logins.items()}
        return secret.passwords(self.owner, name, entries)

    def _job(self, start: Start, login: str | None) -> Manifest:
        id12, content = self.subject.identity.id12, start.hash
        task = jobs.task(
            "provision",
            self.settings,
            self.found.provider,
            self.backend,
            request=names.request(id12, content),
            admin=login,
            ca=names.request(id12, content) if self.backend.ca else None,
            logins=(names.passwords(id12, content), self._entries_of(content))
            if self.backend.takes_passwords
            else None,
        )
        return job.job(self.owner, names.job(id12, content, start.number), task)

    def _bindings(self, decision: Decision) -> dict[str, Manifest]:
        """The Secrets of the applied state: they change only when the Job for the new one is complete."""
        observed = self.subject.inputs.observed
        if decision.phase != "Complete":
            keys = (names.BINDING, names.BINDING_READER)
            return {key: each.body for name in keys for key, each in kept(observed, name).items()}
        namespace, name = self.subject.binding_ref(self.backend.namespace)
        wanted: dict[str, tuple[str, Literal["rw", "ro"]]] = {}
        if not self.subject.own_ref:
            wanted[names.BINDING] = (name, "rw")
        if self.subject.spec.access.read_only_secret:
            wanted[names.BINDING_READER] = (names.binding_reader(name), "ro")
        made: dict[str, Manifest] = {}
        for key, (title, role) in wanted.items():
            entries = self._entries(role)
            if entries:
                made[key] = secret.binding(self.owner, title, namespace, entries)
            elif key in observed:
                # What a login is made of may not be seen at this moment.
                made[key] = kept(observed, key)[key].body
        return made

    def _entries(self, role: Literal["rw", "ro"]) -> Mapping[str, str] | None:
        """The entries of a connection Secret, None while nobody has said its login."""
        given, login = self._given(role), names.login(self.prefix, role, self.rotation.slot)
        if given is None:
            return None
        entries = self.backend.binding(self.subject.identity, self.subject.spec, *given)
        # Where a key of somebody else's making stands in the login's place, nothing else would say whose it is.
        return entries if given[0] == login else {**entries, "login": login}

    def _given(self, role: Literal["rw", "ro"]) -> tuple[str, str] | None:
        """User name and password of a login: derived, or what a Job was given by the admin, or what the cloud made."""
        login, inputs = names.login(self.prefix, role, self.rotation.slot), self.subject.inputs
        if self.backend.cloud:
            made = inputs.details.get(self._access_key(role), {})
            username, password = (made.get(key, b"").decode(errors="replace") for key in ("username", "password"))
            return (username, password) if username and password else None
        if self.backend.shares_login:
            handed = inputs.observed.get(self._placed["keys"])
            username, password = (secret.entry(handed, key) for key in ("username", "password"))
            return (username, password) if username and password else None
        return login, self.credential(login).password(self.rotation.key)

    def _access_key(self, role: Literal["rw", "ro"]) -> str:
        """Resource key of the access key that is in force."""
        part = f"{role}-{self.rotation.slot}"
        return aws.access_key(self.backend.namespace, self.backend.place.database, part, self.rotation.epoch)

    def connection_details(self, decision: Decision) -> Mapping[str, bytes]:
        """What Crossplane is to write, for a composite without a claim that names a Secret.

        Crossplane writes that Secret on every reconcile, under a type of its own: we cannot compose the same one.
        """
        if not self.subject.own_ref:
            return {}
        if decision.phase != "Complete":
            return self.subject.inputs.connection_details
        entries = self._entries("rw")
        if entries is None:
            return self.subject.inputs.connection_details
        return {key: value.encode() for key, value in entries.items()}

    def conditions(self, decision: Decision) -> tuple[Condition, ...]:
        """Credentials and provisioning, as they stand."""
        credentials, here = self._credentials(decision), self.backend.namespace
        if decision.phase == "Complete" and not self.is_rotated:
            rotation = self.rotation
            return credentials, conditions.rotating(self._job_name(decision), here, rotation.epoch, rotation.wanted)
        if decision.phase == "Complete":
            return credentials, conditions.provisioned(self._job_name(decision), here)
        managed = self._managed(decision)
        if managed and decision.phase == "Running" and decision.start is None and decision.subject is None:
            return credentials, managed.waiting()
        if decision.phase == "Running" or decision.subject is None:
            at = decision.start or decision.subject
            current = at is not None and at.hash == self.document.hash
            return credentials, conditions.provisioning(self._job_name(decision), here, current=current)
        state = decision.subject.state
        reason = attempts.failure_reason(state)
        explained = conditions.job_failed(reason, state.message, self._job_name(decision), here)
        return credentials, conditions.not_provisioned(reason, self._answer.message or explained)

    def _credentials(self, decision: Decision) -> Condition:
        namespace, name = self.subject.binding_ref(self.backend.namespace)
        if self.subject.has_binding:
            caveat = self.backend.caveat(self.subject.spec)
            return conditions.credentials_ready(name, namespace, is_copied=self.subject.is_copied, caveat=caveat)
        if decision.phase == "Complete" and self._given("rw") is None:
            if self.backend.cloud:
                stem = self.prefix.replace("_", "-")
                return conditions.waiting_for_access_key(names.aws_secret(stem, self._access_key("rw")))
            return conditions.waiting_for_keys(self.subject.identity.keys, self.backend.namespace)
        if decision.phase == "Complete":
            return conditions.waiting_for_secret(name, namespace)
        return conditions.waiting_for_backend()

    def _job_name(self, decision: Decision) -> str:
        at = decision.start or decision.subject
        return names.job(self.subject.identity.id12, at.hash, at.number) if at else ""

    @cached_property
    def _answer(self) -> Answer:
        """What the Job for the current spec reported."""
        observed = self.subject.inputs.observed.get(self._placed["report"])
        return Answer.read(observed, "provision", self.document.hash)

    def status(self, decision: Decision) -> dict[str, Any]:
        """The status: what is applied changes only with a complete Job."""
        noted = {key: each for key, each in self.subject.status.items() if key not in FOUND}
        noted |= self._upkeep.found.status(self.subject.spec)
        note = attempts.noted(decision, self.situation, self._job_name(decision))
        noted |= {"provider": self.found.pin(self.backend), "provision": dict(note)}
        noted["delivery"] = self.settings.delivery
        before = self.rotation.before.applied
        if before:
            noted["credentials"] = before.shown
        if decision.phase == "Complete":
            noted |= self._applied()
            if not self.subject.spec.access.read_only_secret:
                noted.pop("readerSecretRef", None)
        return noted

    def _applied(self) -> dict[str, Any]:
        applied: dict[str, Any] = {
            "providerType": self.found.provider.spec.type,
            "endpoint": self.backend.entrance.endpoint,
            "database": self.database,
            "schema": self.backend.home_of(self.subject.identity, self.subject.spec),
            "credentials": self.rotation.done.shown,
        }
        if self._answer.modules:
            applied["modules"] = [each.model_dump() for each in self._answer.modules]
        return applied | self._refs()

    def _refs(self) -> dict[str, Any]:
        """Secrets that really exist."""
        namespace, name = self.subject.binding_ref(self.backend.namespace)
        refs: dict[str, Any] = {}
        if self.subject.has_binding:
            refs = {"connectionSecretRef": {"name": name, "namespace": namespace}}
            if not self.subject.is_copied:
                # A claim's binding is in its own namespace, and under which name Crossplane does not say.
                refs["binding"] = {"name": name}
        if self.subject.spec.access.read_only_secret and names.BINDING_READER in self.subject.inputs.observed:
            refs["readerSecretRef"] = {"name": names.binding_reader(name), "namespace": namespace}
        return refs


def _has_request(observed: Mapping[str, Mapping[str, Any]], namespace: str, content: str) -> bool:
    found = observed.get(names.request_key(content))
    return found is not None and found["metadata"].get("namespace") == namespace
