"""What Crossplane does: claims become composites, the function composes, its answer is applied."""

import copy
import dataclasses
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from memoryctl.cluster import Cluster, Conflict
from memoryctl.definitions import MACHINERY, RESOURCE_KEY, Definition, Package
from memoryctl.function import Desired, Event, Pipeline, PipelineError, Result
from memoryctl.objects import (
    CONNECTION_TYPE,
    GROUP,
    Key,
    Object,
    condition,
    is_true,
    key_of,
    make_secret,
    secret_data,
    secret_key,
    with_conditions,
)

LABEL_COMPOSITE = "crossplane.io/composite"
LABEL_CLAIM_NAME = "crossplane.io/claim-name"
LABEL_CLAIM_NAMESPACE = "crossplane.io/claim-namespace"
# A name that a claim generates: what is left of 63 characters beside a dash and five random ones.
PREFIX_LENGTH = 57
# Crossplane's own fields of a claim; all but those that choose the Composition stay with the claim.
KEPT_BY_CLAIM = set(MACHINERY) - {"compositionRef", "compositionSelector"}
SYSTEM_CONDITIONS = ("Synced", "Ready")
# How a Memory's data is looked after, which keeps it from nothing.
UPKEEP_CONDITIONS = ("IndexReady", "RetentionScheduled", "InSync")


@dataclasses.dataclass(frozen=True)
class Reconciled:
    """What one reconcile of a composite did.

    Attributes:
        composite: The composite as it is now.
        resources: Composed resources by resource key, with the function's word on each.
        events: What the function reports.
    """

    composite: Object
    resources: Mapping[str, Desired]
    events: tuple[Event, ...]


class Crossplane:
    """Reconciles the composites of a cluster."""

    def __init__(self, cluster: Cluster, package: Package, pipeline: Pipeline) -> None:
        self._cluster = cluster
        self._package = package
        self._pipeline = pipeline

    def reconcile(self) -> list[Reconciled]:
        """Binds every claim to its composite and reconciles every composite once; providers first."""
        for definition in self._definitions():
            for claim in self._cluster.list(definition.api_version, definition.claim_kind):
                self._bind(claim, definition)
        return [
            self._reconcile(composite, definition)
            for definition in self._definitions()
            for composite in self._cluster.list(definition.api_version, definition.kind)
        ]

    def reconcile_one(self, key: Key) -> Reconciled:
        """Binds a claim and reconciles its composite, or reconciles a composite, once; every other stays as it is."""
        definition = self._package.definition(key.api_version, key.kind)
        if definition is None:
            msg = f"{key} is no claim or composite of ours"
            raise ValueError(msg)
        obj = self._cluster.require(key)
        if key.kind == definition.claim_kind:
            self._bind(obj, definition)
            key = Key(key.api_version, definition.kind, "", self._cluster.require(key)["spec"]["resourceRef"]["name"])
            obj = self._cluster.require(key)
        return self._reconcile(obj, definition)

    def _definitions(self) -> Iterator[Definition]:
        yield from sorted(self._package.definitions, key=lambda one: one.kind, reverse=True)

    def _bind(self, claim: Object, definition: Definition) -> None:
        """Makes the composite of a claim, or brings it up to date."""
        key = key_of(claim)
        name = claim["spec"].get("resourceRef", {}).get("name")
        if name is None:
            name = f"{key.name[:PREFIX_LENGTH]}-{secrets.token_hex(3)[:5]}"
            reference = {"apiVersion": key.api_version, "kind": definition.kind, "name": name}
            self._cluster.patch(key, {"spec": {"resourceRef": reference}})
        metadata = claim["metadata"]
        labels = {
            **_passed_on(metadata.get("labels", {})),
            LABEL_CLAIM_NAME: key.name,
            LABEL_CLAIM_NAMESPACE: key.namespace,
            LABEL_COMPOSITE: name,
        }
        annotations = _passed_on(metadata.get("annotations", {}))
        reference = {"apiVersion": key.api_version, "kind": key.kind, "namespace": key.namespace, "name": key.name}
        spec = {name: value for name, value in claim["spec"].items() if name not in KEPT_BY_CLAIM}
        composite = {
            "apiVersion": key.api_version,
            "kind": definition.kind,
            "metadata": {"name": name, "labels": labels} | ({"annotations": annotations} if annotations else {}),
            "spec": {**spec, "claimRef": reference},
        }
        self._cluster.apply(composite)

    def _reconcile(self, composite: Object, definition: Definition) -> Reconciled:
        observed = self._observed(composite)
        key = key_of(composite)
        result, problem = Result({}, {}, [], ready=None, events=()), ""
        try:
            published = self._published(composite)
            result = self._pipeline.run(self._package.composition(composite), composite, observed, published)
            problem = result.fatal
            if not problem:
                self._compose(composite, observed, result.resources)
                self._publish(composite, result.connection_details)
        except (PipelineError, Conflict) as error:
            problem = str(error)
        # A pipeline that failed says nothing about the status: what was there stays.
        current = self._cluster.require(key)
        status = definition.pruned(current.get("status", {}) if problem else result.status)
        status["conditions"] = self._conditions(current, result, problem)
        status["claimConditionTypes"] = sorted(result.claim_conditions | set(_claim_conditions(current)))
        composite = self._cluster.replace_status(key, status)
        self._tell_claim(composite, definition)
        resources = result.resources or {name: Desired(body, ready=False) for name, body in observed.items()}
        return Reconciled(composite, resources, result.events)

    def _published(self, composite: Object) -> dict[str, bytes]:
        """Gives the connection details that were written for a composite."""
        reference = composite["spec"].get("writeConnectionSecretToRef")
        secret = self._cluster.get(secret_key(reference["namespace"], reference["name"])) if reference else None
        return secret_data(secret) if secret else {}

    def _publish(self, composite: Object, details: Mapping[str, bytes]) -> None:
        """Writes a composite's connection details where it says, under Crossplane's own type of Secret."""
        reference = composite["spec"].get("writeConnectionSecretToRef")
        if reference and details:
            secret = make_secret(secret_key(reference["namespace"], reference["name"]), details)
            self._cluster.apply({**secret, "type": CONNECTION_TYPE})

    def _observed(self, composite: Object) -> dict[str, Object]:
        """Gives the composed objects by resource key: those that the composite refers to and that exist."""
        found = {}
        for reference in composite["spec"].get("resourceRefs", []):
            body = self._cluster.get(_key(reference))
            if body:
                found[body["metadata"]["annotations"][RESOURCE_KEY]] = body
        return found

    def _compose(self, composite: Object, observed: Mapping[str, Object], desired: Mapping[str, Desired]) -> None:
        """Records what is composed, deletes what is not desired any more, applies the rest."""
        bodies = {key: _rendered(key, one.body, composite, observed.get(key)) for key, one in desired.items()}
        references = [_reference(body) for body in bodies.values()]
        self._cluster.patch(key_of(composite), {"spec": {"resourceRefs": references}})
        for key in observed.keys() - bodies.keys():
            self._cluster.delete(key_of(observed[key]))
        invalid = []
        for body in bodies.values():
            try:
                self._cluster.apply(body)
            except Conflict as error:  # 422: this object only, the others are applied
                invalid.append(str(error))
        if invalid:
            raise Conflict("; ".join(invalid))

    def _conditions(self, composite: Object, result: Result, problem: str) -> list[Object]:
        returned = {one["type"] for one in result.conditions}
        lost = [
            {"type": one["type"], "status": "Unknown", "reason": "FatalError"}
            for one in composite.get("status", {}).get("conditions", [])
            if problem and one["type"] not in {*returned, *SYSTEM_CONDITIONS}
        ]
        if problem:
            synced = _condition("Synced", False, "ReconcileError", f"cannot compose resources: {problem}")
            return with_conditions(composite, [*result.conditions, *lost, synced])
        synced = _condition("Synced", True, "ReconcileSuccess")
        return with_conditions(composite, [*result.conditions, synced, _ready(result)])

    def _tell_claim(self, composite: Object, definition: Definition) -> None:
        """Copies status and conditions to the claim, whose own conditions keep their times."""
        reference = composite["spec"].get("claimRef")
        if not reference:
            return
        key = Key(definition.api_version, definition.claim_kind, reference["namespace"], reference["name"])
        claim = self._cluster.require(key)
        copied = copy.deepcopy(composite["status"])
        shared = {*copied.pop("claimConditionTypes"), "Ready"}
        told = [one for one in copied["conditions"] if one["type"] in shared]
        copied["conditions"] = with_conditions(claim, [*told, _condition("Synced", True, "ReconcileSuccess")])
        self._cluster.replace_status(key, copied)


def _claim_conditions(composite: Mapping[str, Any]) -> list[str]:
    found: list[str] = composite.get("status", {}).get("claimConditionTypes", [])
    return found


def ready(obj: Mapping[str, Any]) -> bool:
    """Whether a composite or claim is Ready for the spec that it has."""
    return is_true(obj, "Ready") and is_true(obj, "Synced")


def complaint(composite: Mapping[str, Any]) -> str:
    """Says what a composite's conditions complain about, "" when they do not.

    A Memory that works stays Ready while something that was asked of it is refused: that is a complaint too.
    """
    found = composite.get("status", {}).get("conditions", [])
    others = (*SYSTEM_CONDITIONS, *UPKEEP_CONDITIONS)
    told = [one for one in found if one["type"] not in others and one["status"] != "True"]
    if not is_true(composite, "Synced"):
        told = [condition(composite, "Synced")]
    elif not told and not is_true(composite, "Ready"):
        told = [condition(composite, "Ready")]
    return "; ".join(
        f"{one.get('type')}={one.get('status')}/{one.get('reason')}: {one.get('message', '')}" for one in told
    )


def _passed_on(values: Mapping[str, str]) -> dict[str, str]:
    """Gives a claim's labels or annotations without those of Kubernetes, which Crossplane leaves on the claim."""
    return {
        name: value
        for name, value in values.items()
        if not name.split("/")[0].endswith(("kubernetes.io", "k8s.io")) or GROUP in name
    }


def _rendered(key: str, body: Object, composite: Object, observed: Object | None) -> Object:
    """Gives a composed object with the metadata that Crossplane adds; an observed one keeps name and namespace."""
    body = copy.deepcopy(body)
    metadata = body.setdefault("metadata", {})
    if observed:
        metadata["name"] = observed["metadata"]["name"]
        if "namespace" in observed["metadata"]:
            metadata["namespace"] = observed["metadata"]["namespace"]
    owner = key_of(composite)
    metadata.setdefault("name", f"{owner.name}-{secrets.token_hex(6)}")
    claim = composite["spec"].get("claimRef", {})
    labels = metadata.setdefault("labels", {})
    labels[LABEL_COMPOSITE] = composite["metadata"].get("labels", {}).get(LABEL_COMPOSITE, owner.name)
    if claim:
        labels |= {LABEL_CLAIM_NAME: claim["name"], LABEL_CLAIM_NAMESPACE: claim["namespace"]}
    metadata.setdefault("annotations", {})[RESOURCE_KEY] = key
    metadata["ownerReferences"] = [
        {
            "apiVersion": owner.api_version,
            "kind": owner.kind,
            "name": owner.name,
            "uid": composite["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    return body


def _reference(body: Object) -> dict[str, str]:
    key = key_of(body)
    made = {"apiVersion": key.api_version, "kind": key.kind, "name": key.name}
    return made | ({"namespace": key.namespace} if key.namespace else {})


def _key(reference: Mapping[str, str]) -> Key:
    return Key(reference["apiVersion"], reference["kind"], reference.get("namespace", ""), reference["name"])


def _ready(result: Result) -> Object:
    """Gives the Ready condition: the function's word on the composite, or else on all composed resources."""
    unready = [name for name, one in result.resources.items() if not one.ready]
    is_ready = result.ready if result.ready is not None else not unready
    if is_ready:
        return _condition("Ready", True, "Available")
    message = f"Unready resources: {', '.join(unready)}" if unready else "the composite is not ready"
    return _condition("Ready", False, "Creating", message)


def _condition(kind: str, status: bool, reason: str, message: str = "") -> Object:
    made = {"type": kind, "status": str(status), "reason": reason}
    return made | ({"message": message} if message else {})
