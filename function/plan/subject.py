"""An `XMemory` as it is observed: who it is, and what was noted on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from function import conditions, delivery, names
from function.lazy import cached_property
from function.plan import attempts, document, findings, lookup
from function.plan.rotation import Applied, Before, latest
from function.resources import secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.model import Memory
    from function.state import Inputs

STATUS = (
    "providerType",
    "endpoint",
    "database",
    "schema",
    "connectionSecretRef",
    "binding",
    "readerSecretRef",
    "provider",
    "delivery",
    "provision",
    "modules",
    "credentials",
    *findings.STATUS,
)


@dataclass(frozen=True)
class Subject:
    """The composite: who it is, and what was noted on it."""

    inputs: Inputs
    spec: Memory

    @cached_property
    def claim(self) -> tuple[str, str] | None:
        """Namespace and name of the claim."""
        ref = self.inputs.composite["spec"].get("claimRef")
        return (ref["namespace"], ref["name"]) if ref else None

    @property
    def namespace(self) -> str | None:
        """The claim's namespace."""
        return self.claim[0] if self.claim else None

    @property
    def name(self) -> str:
        """The claim's name, or the composite's own."""
        return self.claim[1] if self.claim else str(self.inputs.composite["metadata"]["name"])

    @cached_property
    def identity(self) -> names.Identity:
        """Who it is, whatever its uid."""
        return names.Identity("/".join(self.claim) if self.claim else self.name)

    @property
    def uid(self) -> str:
        """The composite's uid; a claim that is made again has another one."""
        return str(self.inputs.composite["metadata"].get("uid", ""))

    @property
    def retry(self) -> str:
        """Value of the retry annotation, which Crossplane copies from the claim."""
        return str(self.inputs.composite["metadata"].get("annotations", {}).get(names.RETRY_ANNOTATION, ""))

    @cached_property
    def status(self) -> dict[str, Any]:
        """Our part of the status, as noted by the last call."""
        noted = self.inputs.composite.get("status", {})
        return {key: noted[key] for key in STATUS if key in noted}

    @cached_property
    def attempts(self) -> tuple[attempts.Attempt, ...]:
        """Its provision Jobs."""
        return attempts.read(self.inputs.observed)

    @cached_property
    def applied(self) -> Mapping[str, Any]:
        """The request document that the backend was prepared by last; empty when it is not observed."""
        done = attempts.last_complete(self.attempts)
        return document.read(self.inputs.observed.get(names.request_key(done.hash))) if done else {}

    @property
    def has_binding(self) -> bool:
        """Whether the app has its Secret."""
        return names.BINDING in self.inputs.observed or bool(self.inputs.connection_details)

    @property
    def has_home(self) -> bool:
        """Whether a backend holds its data; any evidence counts, so that losing one piece moves nothing."""
        return bool(self.status.get("credentials") or self.has_binding or attempts.last_complete(self.attempts))

    @cached_property
    def before(self) -> Before:
        """What is known of the Memory's logins; a lost status is no new start."""
        written, reading = self._held(names.BINDING), self._held(names.BINDING_READER)
        written = written or self._published()
        held = {written, reading if self.spec.access.read_only_secret else ""} - {""}
        noted = Applied.read(self.status.get("credentials", {}))
        applied = latest(noted, Applied.read(self.applied), names.slot_of_login(written))
        states = document.states(self.applied)
        if self._is_copy_late():
            held |= {login for login, state in states.items() if state == "draining"}
        return Before(applied, states, frozenset(held), self.has_home)

    @property
    def is_copied(self) -> bool:
        """Whether the app has a copy of the Secret that Crossplane writes, and not that one itself."""
        return self.own_ref is not None and self.claim is not None

    def _is_copy_late(self) -> bool:
        """Whether the app's copy may still hold the login of before; the copy itself is not to be seen.

        Crossplane makes it whenever the composite is Ready. A step that has begun did so after that.
        """
        if not self.is_copied:
            return False
        ready = conditions.observed(self.inputs.composite, "Ready") or {}
        has_begun = self.status.get("provision", {}).get("hash") != self.applied.get("hash")
        return ready.get("status") != "True" and not has_begun

    def _held(self, key: str) -> str:
        """Name of the login that a connection Secret holds, "" when it is not observed."""
        body = self.inputs.observed.get(key)
        return secret.entry(body, "login") or secret.entry(body, "username")

    def _published(self) -> str:
        """Name of the login in the Secret that Crossplane writes."""
        details = self.inputs.connection_details
        return (details.get("login") or details.get("username", b"")).decode(errors="replace")

    def wish(self, only_type: str | None = None) -> lookup.Wish:
        """Who wants which provider; where the status is lost, the applied document still says which server it was."""
        pinned = self.status.get("provider") or _applied(self.applied.get("provider"))
        return lookup.Wish(self.spec.provider_ref, self.namespace, pinned, self.has_home, only_type)

    @cached_property
    def own_ref(self) -> tuple[str, str] | None:
        """Namespace and name of the Secret that Crossplane itself writes for the composite.

        It is the binding of a composite without a claim, and of every one with delivery Object: a Secret of ours would
        stand in an Object, readable. Crossplane copies it to the Secret that the claim names, whose name is not told.
        """
        ref = self.inputs.composite["spec"].get("writeConnectionSecretToRef")
        is_binding = self.claim is None or self.inputs.settings.get("delivery") == delivery.KIND
        return (ref["namespace"], ref["name"]) if ref and is_binding else None

    def binding_ref(self, job_namespace: str) -> tuple[str, str]:
        """Namespace and name of the connection Secret; one that is there keeps both, whatever its provider does."""
        if self.own_ref:
            return self.own_ref
        if self.claim:
            return self.claim[0], names.binding(self.name)
        there = self.inputs.observed.get(names.BINDING, {}).get("metadata", {})
        return there.get("namespace", job_namespace), there.get("name", names.binding(self.name))

    def serves(self) -> bool:
        """Whether the backend, as it was prepared last, is what the spec asks for; asked when inputs are missing."""
        logins = self.applied.get("logins")
        if not isinstance(logins, list) or not self.has_binding or not self.wish().is_pinned:
            return False
        reading = [each for each in logins if isinstance(each, dict) and each.get("role") == "reader"]
        has_reader = any(each.get("state") == "active" for each in reading)
        same = all(self.applied.get(key) == value for key, value in document.wishes(self.spec).items())
        return same and has_reader == self.spec.access.read_only_secret and self._is_rotated()

    def _is_rotated(self) -> bool:
        """Whether the passwords in force are those of the wanted epoch, and no others when the spec says so."""
        applied, asked = self.before.applied, self.spec.credentials
        closed = not asked.revoke_old or "draining" not in self.before.states.values()
        return applied is not None and applied.epoch == asked.epoch and closed


def _applied(provider: Any) -> dict[str, Any]:
    """What a request document says of its provider, but for how that was called."""
    return {key: value for key, value in provider.items() if key != "name"} if isinstance(provider, dict) else {}
