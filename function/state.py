"""The two borders of `plan`: what it reads (`Inputs`) and what it says (`Plan`). Plain data; no protobuf."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from function.conditions import Condition
    from function.model import MemoryProvider

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """One request, typed and lazy: what is not read is not converted.

    Attributes:
        kind: Kind of the composite.
        composite: The observed composite (apiVersion, kind, metadata, spec, status). Shared: never change it.
        observed: Composed resources by resource key. Shared: never change them.
        required: Answers to requirements by name; a name that is absent has not been resolved yet.
        credentials: Pipeline credentials: name to key to bytes.
        settings: The pipeline step's `input`.
        connection_details: What Crossplane has published for the composite.
        details: Connection details of composed resources by resource key; of most there are none.
        objects: Keys of those of ours that are observed as Objects of provider-kubernetes.
    """

    kind: str
    composite: Mapping[str, Any]
    observed: Mapping[str, Mapping[str, Any]]
    required: Mapping[str, Sequence[Mapping[str, Any]]]
    credentials: Mapping[str, Mapping[str, bytes]]
    settings: Mapping[str, Any]
    connection_details: Mapping[str, bytes]
    details: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    objects: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Requirement:
    """A cluster-scoped object that the function wants to see: by name or by labels, never both."""

    name: str
    api_version: str
    kind: str
    match_name: str | None = None
    match_labels: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Resource:
    """A desired composed resource and whether it does its work already."""

    body: Manifest
    ready: bool


@dataclass(frozen=True)
class Event:
    """Something that has just changed, for the events of composite and claim."""

    warning: bool
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """Everything that one call says.

    Attributes:
        resources: Desired composed resources by resource key.
        conditions: Conditions for composite and claim.
        status: The composite's status, whole: what is left out would be removed.
        ready: Whether the composite is ready, whatever its resources say; None leaves it to the resources.
        events: Transitions only.
        requirements: Always the same for the same spec, in the same order.
        ttl_seconds: How long the answer may be cached.
        fatal: A spec that can never work, as a sentence.
        connection_details: What Crossplane publishes for a composite that names a Secret of its own.
    """

    resources: Mapping[str, Resource] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    status: Mapping[str, Any] = field(default_factory=dict)
    ready: bool | None = None
    events: tuple[Event, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    ttl_seconds: int = 60
    fatal: str | None = None
    connection_details: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Provider:
    """A provider as it was found, its spec read.

    Attributes:
        name: Object name of the `XMemoryProvider`.
        uid: Its uid.
        claim: Namespace and name of its claim; None for a platform team's own object.
        spec: Its spec.
        status: What its probe published. Shared: never change it.
        retry: Value of the retry annotation, "" without one.
        approved: Value of the reap annotation, "" without one.
    """

    name: str
    uid: str
    claim: tuple[str, str] | None
    spec: MemoryProvider
    status: Mapping[str, Any]
    retry: str
    approved: str

    @property
    def title(self) -> str:
        """What people call it: the claim's name, or the object's."""
        return self.claim[1] if self.claim else self.name
