"""The CustomResourceDefinitions that Crossplane makes from an XRD of scope LegacyCluster.

Source: crossplane-runtime v2.3.3, `pkg/xcrd`. `tests/apis` compares the result with what a real Crossplane made.
"""

import copy
from typing import Any

from tests.schemas.structural import Schema

_STRING: Schema = {"type": "string"}
_SELECTOR: Schema = {
    "type": "object",
    "required": ["matchLabels"],
    "properties": {"matchLabels": {"type": "object", "additionalProperties": _STRING}},
}
_CONDITIONS: Schema = {
    "description": "Conditions of the resource.",
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": {
        "type": "object",
        "required": ["lastTransitionTime", "reason", "status", "type"],
        "properties": {
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "message": _STRING,
            "observedGeneration": {"type": "integer", "format": "int64"},
            "reason": _STRING,
            "status": _STRING,
            "type": _STRING,
        },
    },
}


def _reference(*required: str, optional: tuple[str, ...] = ()) -> Schema:
    names = dict.fromkeys((*required, *optional), _STRING)
    return {"type": "object", "required": list(required), "properties": names}


_BOTH: Schema = {
    "compositionRef": _reference("name"),
    "compositionSelector": _SELECTOR,
    "compositionRevisionRef": _reference("name"),
    "compositionRevisionSelector": _SELECTOR,
    "compositionUpdatePolicy": {"type": "string", "enum": ["Automatic", "Manual"]},
}
_COMPOSITE: Schema = _BOTH | {
    "claimRef": _reference("apiVersion", "kind", "namespace", "name"),
    "resourceRefs": {
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "items": _reference("apiVersion", "kind", optional=("name", "namespace")),
    },
    "writeConnectionSecretToRef": _reference("name", "namespace"),
}
_CLAIM: Schema = _BOTH | {
    "compositeDeletePolicy": {"type": "string", "enum": ["Background", "Foreground"]},
    "resourceRef": _reference("apiVersion", "kind", "name"),
    "writeConnectionSecretToRef": _reference("name"),
}
_STATUS: Schema = {
    "conditions": _CONDITIONS,
    "connectionDetails": {
        "type": "object",
        "properties": {"lastPublishedTime": {"type": "string", "format": "date-time"}},
    },
    "claimConditionTypes": {"type": "array", "x-kubernetes-list-type": "set", "items": _STRING},
}


def composite(xrd: dict[str, Any]) -> dict[str, Any]:
    """Gives the definition of the composite resource (XR)."""
    update = xrd["spec"].get("defaultCompositionUpdatePolicy", "Automatic")
    crd = _definition(xrd, xrd["spec"]["names"], "Cluster", _COMPOSITE)
    for version in crd["spec"]["versions"]:
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["compositionUpdatePolicy"][
            "default"
        ] = update
    return crd


def claim(xrd: dict[str, Any]) -> dict[str, Any]:
    """Gives the definition of the claim."""
    delete = xrd["spec"].get("defaultCompositeDeletePolicy", "Background")
    crd = _definition(xrd, xrd["spec"]["claimNames"], "Namespaced", _CLAIM)
    for version in crd["spec"]["versions"]:
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["compositeDeletePolicy"]["default"] = (
            delete
        )
    return crd


def _definition(xrd: dict[str, Any], names: dict[str, Any], scope: str, machinery: Schema) -> dict[str, Any]:
    group = xrd["spec"]["group"]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{names['plural']}.{group}",
            "labels": dict(xrd["spec"].get("metadata", {}).get("labels", {})),
        },
        "spec": {
            "group": group,
            "names": names,
            "scope": scope,
            "versions": [_version(version, machinery) for version in xrd["spec"]["versions"]],
        },
    }


def _version(version: dict[str, Any], machinery: Schema) -> dict[str, Any]:
    schema = version["schema"]["openAPIV3Schema"]
    spec, status = (copy.deepcopy(schema["properties"][name]) for name in ("spec", "status"))
    # Names become label values, so Crossplane bounds them. The rest of metadata is the API server's.
    metadata = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 63}}}
    return {
        "name": version["name"],
        "served": version["served"],
        "storage": version["referenceable"],
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "description": schema["description"],
                "required": ["spec"],
                "properties": {
                    "apiVersion": _STRING,
                    "kind": _STRING,
                    "metadata": metadata,
                    "spec": spec | {"properties": spec["properties"] | copy.deepcopy(machinery)},
                    "status": status | {"properties": status["properties"] | _STATUS},
                },
            }
        },
    }
