"""Finding a Memory's provider, holding it to what it was, and asking whether it admits us.

Never a claim in some other namespace by its name alone: any tenant could make one that is called like a shared
provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from function import conditions, names
from function.conditions import Blocked
from function.errors import InvalidSpec
from function.lazy import cached_property
from function.model import API_VERSION, MemoryProvider, spec_of
from function.state import Provider, Requirement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from function.backends.base import Backend
    from function.conditions import Condition
    from function.model import ProviderRef

Via = Literal["Namespace", "Claim", "Shared"]
KIND = "XMemoryProvider"
# What a Memory with data is held to, and what is fixed as soon as a provider was found.
_SERVER = ("type", "host", "port", "database", "keyPrefix", "isolation", "roleManagement")
# The same, where the status is lost, in the words of the request document that was applied last.
_APPLIED = (*_SERVER, "endpoint", "bucket", "bucketPrefix", "users")
_FOUND = ("via", "namespace", "type")


@dataclass(frozen=True)
class Wish:
    """Who wants which provider.

    Attributes:
        ref: The Memory's `providerRef`.
        namespace: The Memory claim's namespace, None without a claim.
        pinned: `status.provider` as it was written when the provider was found first; empty before.
        provisioned: Whether the Memory has a home already; its data does not move by itself.
        type: The only type that the Composition serves, None when it serves all.
    """

    ref: ProviderRef
    namespace: str | None
    pinned: Mapping[str, Any]
    provisioned: bool
    type: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether the same ref was resolved before."""
        pinned, ref = self.pinned, self.ref
        if pinned and "name" not in pinned:
            return True  # How it was found is forgotten; which server it is is not.
        if not pinned or pinned["name"] != ref.name:
            return False
        return ref.namespace == (pinned.get("namespace") if pinned.get("via") == "Namespace" else None)


@dataclass(frozen=True)
class Found:
    """A provider and the rule that found it."""

    provider: Provider
    via: Via

    @cached_property
    def condition(self) -> Condition:
        """Whether it answers. One that does not holds nothing up: the Job waits for the backend by itself."""
        return _condition(self.provider)

    def pin(self, backend: Backend) -> dict[str, Any]:
        """What `status.provider` remembers."""
        provider, place = self.provider, backend.place
        namespace = {"namespace": provider.claim[0]} if provider.claim else {}
        return {
            "name": provider.title,
            **namespace,
            "type": provider.spec.type,
            "uid": provider.uid,
            "via": self.via,
            "host": place.host,
            "port": place.port,
            "database": place.database,
            "isolation": backend.isolation,
            "roleManagement": backend.manages_by,
            **({"keyPrefix": place.prefix} if place.prefix else {}),
        }


def _condition(provider: Provider) -> Condition:
    title, name = provider.title, provider.name
    probed = conditions.observed({"status": provider.status}, conditions.BACKEND_READY)
    if probed is None:
        detail = f'it has not been probed yet; see BackendReady of XMemoryProvider "{name}"'
        return conditions.provider_not_ready(title, detail)
    if probed.get("status") == "Unknown":
        # Crossplane's own word for a reconcile that failed, while the function's pods change for example.
        detail = f'Crossplane could not compose it; see the events of XMemoryProvider "{name}"'
        return conditions.provider_not_ready(title, detail)
    if probed.get("status") != "True":
        return conditions.provider_not_ready(title, probed.get("message") or probed.get("reason", ""))
    return conditions.provider_available(title)


def requirements(ref: ProviderRef, namespace: str | None) -> tuple[Requirement, ...]:
    """What must be seen to find the provider: always the same for the same spec, in the same order."""
    asked = []
    owner = ref.namespace or namespace
    if owner:
        labels = {names.LABEL_CLAIM_NAMESPACE: owner, names.LABEL_CLAIM_NAME: ref.name}
        asked.append(Requirement(names.PROVIDER_CLAIMED, API_VERSION, KIND, match_labels=labels))
    if not ref.namespace:
        asked.append(Requirement(names.PROVIDER_SHARED, API_VERSION, KIND, match_name=ref.name))
    return tuple(asked)


def find(answers: Mapping[str, Sequence[Mapping[str, Any]]], wish: Wish) -> Found:
    """Apply the three rules.

    Raises:
        Blocked: NotFound, SwitchRefused, Changed or InvalidSpec.
    """
    if wish.pinned and wish.provisioned and not wish.is_pinned:
        raise Blocked(conditions.provider_switch_refused(_title(wish.pinned), _title(wish.ref.model_dump())))
    owner = wish.ref.namespace or wish.namespace
    for candidate in sorted(answers.get(names.PROVIDER_CLAIMED, ()), key=_latest_first):
        # Labels are for finding; the claimRef is what Crossplane vouches for.
        if _claim(candidate) == (owner, wish.ref.name):
            return Found(_read(candidate, wish), "Namespace" if wish.ref.namespace else "Claim")
    for candidate in answers.get(names.PROVIDER_SHARED, ()):
        claim = _claim(candidate)
        if claim is None:
            return Found(_read(candidate, wish), "Shared")
        if wish.is_pinned:
            raise Blocked(conditions.provider_captured(wish.ref.name, "/".join(claim)))
    raise Blocked(conditions.provider_not_found(wish.ref.name, _places(wish)))


def hold(found: Found, backend: Backend, wish: Wish) -> None:
    """Compare a provider with what was pinned under the same ref.

    Before the Memory has a home, a platform team may still correct all that is about its server.

    Raises:
        Blocked: Changed, with what was and what is.
    """
    if not wish.is_pinned:
        return
    is_noted = "via" in wish.pinned
    fixed = [*(_FOUND if is_noted else ()), *((_SERVER if is_noted else _APPLIED) if wish.provisioned else ())]
    now = found.pin(backend) if is_noted else backend.request()
    # A Memory from before these were noted has a schema, and its roles were made by a Job.
    assumed = {"isolation": "Schema", "roleManagement": "SQL"}
    before = {**{field: value for field, value in assumed.items() if field in now}, **wish.pinned}
    differences = [
        f"{field} was {before.get(field, 'none')} and is {now.get(field, 'none')}"
        for field in dict.fromkeys(fixed)
        if before.get(field) != now.get(field)
    ]
    if differences:
        raise Blocked(conditions.provider_changed(found.provider.title, differences))


def consumer(provider: Provider, namespace: str | None) -> tuple[Requirement, ...]:
    """What must be seen, beside the provider, to know whether it admits a namespace.

    Only for a `Selector`: requiring a kind that Crossplane may not list blocks the whole reconcile.
    """
    if namespace is None or provider.spec.allowed_consumers.namespaces.from_ != "Selector":
        return ()
    return (Requirement(names.CONSUMER, "v1", "Namespace", match_name=namespace),)


def admit(provider: Provider, namespace: str | None, answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Ask a provider whether it admits Memories of a namespace; without a claim only `All` does.

    Raises:
        Blocked: NotAdmitted. The names of other consumers, and labels that may hold them, are not ours to tell.
    """
    consumers = provider.spec.allowed_consumers.namespaces
    source = consumers.from_ or ("Same" if provider.claim else "All")
    own = provider.claim[0] if provider.claim else None
    if source == "Selector" and namespace and consumers.selector:
        admitted = consumers.selector.selects(_labels(provider, namespace, answers))
    else:
        admitted = {
            "All": True,
            "Same": namespace is not None and namespace == own,
            "Names": namespace in consumers.names,
        }.get(source, False)
    if not admitted:
        only = f'namespace "{own}" only' if own else "nobody (from: Same without a claim: write All or Names)"
        lists = {"Names": "the namespaces of a list", "Selector": "the namespaces whose labels match its selector"}
        who = f'namespace "{namespace}"' if namespace else "a composite without a claim"
        raise Blocked(conditions.provider_not_admitted(provider.title, who, lists.get(source, only)))


def _labels(
    provider: Provider, namespace: str, answers: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Mapping[str, str]:
    if names.CONSUMER not in answers:
        raise Blocked(conditions.consumer_not_seen(provider.title, namespace))
    found = next((each for each in answers[names.CONSUMER] if each["metadata"]["name"] == namespace), None)
    if found is None:
        raise Blocked(conditions.consumer_not_found(provider.title, namespace))
    return found["metadata"].get("labels") or {}


def _read(candidate: Mapping[str, Any], wish: Wish) -> Provider:
    name, kind = wish.ref.name, candidate["spec"].get("type")
    if wish.type and kind != wish.type:
        problem = (
            f'it is of type "{kind}" and this Composition serves "{wish.type}": '
            f'name a provider of type "{wish.type}", or use a Composition that serves "{kind}"'
        )
        raise Blocked(conditions.provider_invalid(name, problem))
    try:
        return provider_of(candidate)
    except InvalidSpec as error:
        raise Blocked(conditions.provider_invalid(name, str(error))) from None


def provider_of(composite: Mapping[str, Any]) -> Provider:
    """Read an `XMemoryProvider`.

    Raises:
        InvalidSpec: Its spec is not one.
    """
    metadata = composite["metadata"]
    return Provider(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        claim=_claim(composite),
        spec=MemoryProvider.read(spec_of(composite)),
        status=composite.get("status", {}),
        retry=metadata.get("annotations", {}).get(names.RETRY_ANNOTATION, ""),
        approved=metadata.get("annotations", {}).get(names.REAP_ANNOTATION, ""),
    )


def _claim(composite: Mapping[str, Any]) -> tuple[str, str] | None:
    ref = composite.get("spec", {}).get("claimRef")
    return (ref["namespace"], ref["name"]) if ref else None


def _latest_first(candidate: Mapping[str, Any]) -> tuple[bool, list[int], str]:
    """Order composites of one claim: while an old one is being deleted, the claim's new one is meant."""
    metadata = candidate["metadata"]
    newest = [-ord(char) for char in metadata.get("creationTimestamp") or ""]
    return "deletionTimestamp" in metadata, newest, metadata["name"]


def _places(wish: Wish) -> list[str]:
    places = []
    owner = wish.ref.namespace or wish.namespace
    if owner:
        places.append(f'no MemoryProvider claim of that name in namespace "{owner}"')
    if not wish.ref.namespace:
        places.append("no unclaimed XMemoryProvider of that name")
    return places


def _title(ref: Mapping[str, Any]) -> str:
    name, namespace = ref.get("name"), ref.get("namespace")
    return f'"{namespace}/{name}"' if namespace else f'"{name}"'
