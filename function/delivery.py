"""Direct | Object: how composed objects reach their cluster; builders and readiness never know.

With delivery `Object` each object is the manifest of a provider-kubernetes `Object`, under the same resource key: for
Crossplane v1.20, which composes nothing that has a namespace, and for backends in another cluster. `unwrap` shows the
plan what is observed as if there were no `Object`, `wrap` puts what is planned back into them.

Managed resources are composed as they are: they have no namespace, and their provider is in this cluster.

What is there stays as it was delivered: an object that changed from one way to the other would be deleted and made
again, and a Job run again. So an `Object` stays one, under its own name and ProviderConfig, and so does what is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from function import conditions, names, readiness
from function.model import MemoryInput
from function.state import Resource

if TYPE_CHECKING:
    from function.state import Inputs, Manifest, Plan

GROUP = "kubernetes.crossplane.io"
# The kind, and the name of the delivery.
KIND = "Object"

# provider-kubernetes asks for what is Ready every 10 minutes, for what is not every 30 seconds, and at once for an
# Object whose spec has changed. Most kinds are ready when they exist, which is its default.
_JOB_IS_COMPLETE = (
    "has(object.status) && has(object.status.conditions) && "
    'object.status.conditions.exists(c, c.type == "Complete" && c.status == "True")'
)


def unwrap(inputs: Inputs) -> Inputs:
    """Show observed Objects as what they wrap."""
    return replace(inputs, observed=_Unwrapped(inputs.observed, inputs.objects)) if inputs.objects else inputs


def wrap(plan: Plan, inputs: Inputs) -> Plan:
    """Deliver what is planned; `inputs` are those of the request, not unwrapped."""
    wanted = inputs.settings.get("delivery") == KIND
    if not inputs.objects and not wanted:
        return plan
    answer = _awaited(plan)
    resources = {}
    for key, resource in plan.resources.items():
        if key in inputs.objects:
            resources[key] = _again(resource, inputs.observed[key], answer)
        elif wanted and key not in inputs.observed and not names.is_aws(key):
            resources[key] = Resource(_new(resource.body, inputs.settings, answer), ready=False)
        else:
            resources[key] = resource
    return replace(plan, resources=resources)


def conflict(inputs: Inputs, wanted: str) -> str | None:
    """Say that objects were delivered the other way than the Composition wants, None when they were not."""
    if wanted == KIND:
        ours = (key for key in inputs.observed if names.is_ours(key) and not names.is_aws(key))
        others = any(key not in inputs.objects for key in ours)
    else:
        others = bool(inputs.objects)
    return conditions.delivery_changed(wanted) if others else None


class _Unwrapped(Mapping[str, Mapping[str, Any]]):
    """Observed resources, each unwrapped when it is read."""

    def __init__(self, observed: Mapping[str, Mapping[str, Any]], objects: frozenset[str]) -> None:
        self._observed = observed
        self._objects = objects
        self._read: dict[str, Mapping[str, Any]] = {}

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        if key not in self._objects:
            return self._observed[key]
        if key not in self._read:
            self._read[key] = _inner(self._observed[key])
        return self._read[key]

    def __contains__(self, key: object) -> bool:
        return key in self._observed

    def __iter__(self) -> Iterator[str]:
        return iter(self._observed)

    def __len__(self) -> int:
        return len(self._observed)


def _inner(wrapper: Mapping[str, Any]) -> Manifest:
    """Give the object in an Object: what was asked for, over what was found.

    Our fields are taken from the manifest: the provider may be told to show no Secret's data. Before the provider has
    looked there is nothing else: such a Job counts as running, so nobody makes another, and no Object is forgotten.
    """
    manifest = wrapper["spec"]["forProvider"]["manifest"]
    found = _found(wrapper)
    metadata = {**found.get("metadata", {}), **manifest.get("metadata", {})}
    if "deletionTimestamp" in wrapper["metadata"]:
        metadata["deletionTimestamp"] = wrapper["metadata"]["deletionTimestamp"]
    return {**found, **manifest, "metadata": metadata}


def _found(wrapper: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the provider saw last, empty before it has looked."""
    return wrapper.get("status", {}).get("atProvider", {}).get("manifest") or {}


def _again(resource: Resource, wrapper: Mapping[str, Any], answer: str) -> Resource:
    """Deliver what an observed Object is to hold now: the same name, the same cluster."""
    reference = {"name": wrapper["spec"].get("providerConfigRef", {}).get("name", "default")}
    found = _found(wrapper)
    body = _object(wrapper["metadata"]["name"], resource.body, reference, answer, found)
    return Resource(body, ready=resource.ready and bool(found))


def _new(manifest: Manifest, settings: Mapping[str, Any], answer: str) -> Manifest:
    reference = {"name": MemoryInput.read(settings, "input").object.provider_config_ref.name}
    metadata = manifest["metadata"]
    name = names.delivered(manifest["kind"], metadata.get("namespace", ""), metadata["name"])
    return _object(name, manifest, reference, answer, {})


def _object(
    name: str, manifest: Manifest, reference: Mapping[str, str], answer: str, found: Mapping[str, Any]
) -> Manifest:
    spec = {"forProvider": {"manifest": manifest}, "providerConfigRef": reference}
    if manifest["kind"] == "Job":
        spec |= _as_job(found)
    elif manifest["kind"] == "ConfigMap":
        spec["readiness"] = _when(answer)
    metadata = {"name": name, "labels": manifest["metadata"].get("labels", {})}
    return {"apiVersion": f"{GROUP}/v1alpha2", "kind": KIND, "metadata": metadata, "spec": spec}


def _as_job(found: Mapping[str, Any]) -> dict[str, Any]:
    """A Job's template cannot change, so it is never updated; one that was seen to end is never made again.

    Until then it is: a Job that somebody deletes while it runs comes back, as it does with delivery Direct. `watch`
    is for providers that run with --enable-watches, the others do not heed it.
    """
    create = () if readiness.job(found).phase != "Running" else ("Create",)
    return {
        "managementPolicies": ["Observe", *create, "Delete"],
        "readiness": _when(_JOB_IS_COMPLETE),
        "watch": True,
    }


def _when(query: str) -> dict[str, str]:
    return {"policy": "DeriveFromCelQuery", "celQuery": query}


def _awaited(plan: Plan) -> str:
    """When a report holds what the plan waits for: the good answer of the Job that has just ended.

    An Object that were ready before would be asked for again only after 10 minutes. While a Job runs or has failed no
    answer is good; as soon as all are complete this query changes, and a changed Object is asked for at once.
    """
    jobs = {key: each.ready for key, each in plan.resources.items() if each.body["kind"] == "Job"}
    ended = [parsed for key in jobs if (parsed := names.parse_job_key(key))]
    if not ended or not all(jobs.values()):
        return "false"
    command, content = ended[-1]
    data = f"object.data.{command}"
    said = [f"{data}.matches('{each}')" for each in (f'"hash": *"{content}"', '"code": *0[,}]')]
    return " && ".join(["has(object.data)", f"has({data})", *said])
