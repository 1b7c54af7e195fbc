"""The XRDs: which kinds there are, whether a manifest has their shape, and their defaults.

The rules in CEL are the API server's; here the schema is checked, and the function says what it says on a cluster.
"""

import copy
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from memoryctl.errors import UserError
from memoryctl.objects import Object

# Crossplane's annotation of a composed object.
RESOURCE_KEY = "crossplane.io/composition-resource-name"
ROOT = Path(__file__).resolve().parent.parent
# Crossplane adds these to the schema of every claim and composite.
MACHINERY = (
    "claimRef",
    "compositeDeletePolicy",
    "compositionRef",
    "compositionRevisionRef",
    "compositionRevisionSelector",
    "compositionSelector",
    "compositionUpdatePolicy",
    "resourceRef",
    "resourceRefs",
    "writeConnectionSecretToRef",
)


def python_path() -> str:
    """Gives PYTHONPATH for processes of ours: the repository first, then what is there already."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


@dataclasses.dataclass(frozen=True)
class Definition:
    """One XRD: a composite kind, its claim's kind, and the schema of their spec."""

    kind: str
    claim_kind: str
    api_version: str
    schema: Mapping[str, Any]
    status: Mapping[str, Any]
    default_composition: str

    def defaulted(self, manifest: Object) -> Object:
        """Gives a manifest of claim or composite with the schema's defaults in it.

        Raises:
            UserError: It has not the schema's shape; the message names each field.
        """
        spec = manifest.get("spec")
        problems = list(_problems(spec, self.schema))
        if problems:
            metadata = manifest["metadata"]
            msg = f"{manifest['kind']} {metadata['name']} is not valid: {'; '.join(problems)}"
            raise UserError(msg)
        return {**manifest, "spec": _with_defaults(spec, self.schema)}

    def pruned(self, status: Object) -> Object:
        """Gives a status without the fields that the schema does not know, as an API server stores it."""
        return {
            name: _pruned(status[name], one)
            for name, one in self.status.get("properties", {}).items()
            if name in status
        }


@dataclasses.dataclass(frozen=True)
class Package:
    """What the Configuration package installs: XRDs and Compositions."""

    definitions: tuple[Definition, ...]
    compositions: tuple[Object, ...]
    # Whether a Composition may deliver by provider-kubernetes; what it makes is not made here.
    with_objects: bool = False

    def definition(self, api_version: str, kind: str) -> Definition | None:
        """Gives the XRD that offers a kind, as composite or as claim."""
        for one in self.definitions:
            if one.api_version == api_version and kind in {one.kind, one.claim_kind}:
                return one
        return None

    def composition(self, composite: Object) -> Object:
        """Chooses the Composition of a composite: by reference, by labels, or the XRD's default.

        Raises:
            UserError: There is none, or it needs provider-kubernetes, which does not run here.
        """
        spec = composite["spec"]
        wanted = spec.get("compositionSelector", {}).get("matchLabels")
        definition = self.definition(composite["apiVersion"], composite["kind"])
        name = spec.get("compositionRef", {}).get("name") or (definition.default_composition if definition else "")
        for one in self.compositions:
            labels = one["metadata"].get("labels", {})
            chosen = one["metadata"]["name"] == name if not wanted else wanted.items() <= labels.items()
            if chosen and one["spec"]["compositeTypeRef"]["kind"] == composite["kind"]:
                return one if self.with_objects else _without_objects(one)
        msg = (
            f"there is no Composition for {composite['kind']} with {f'labels {wanted}' if wanted else f'name {name!r}'}"
        )
        raise UserError(msg)


def _without_objects(composition: Object) -> Object:
    if any(step["input"].get("delivery") == "Object" for step in composition["spec"]["pipeline"]):
        name = composition["metadata"]["name"]
        msg = (
            f'Composition "{name}" delivers by provider-kubernetes, which does not run here: '
            "leave out what chooses it (spec.compositionRef, spec.compositionSelector)"
        )
        raise UserError(msg)
    return composition


def load(root: Path = ROOT) -> Package:
    """Reads `apis/*/definition.yaml` and `compositions/*.yaml`."""
    definitions = [_definition(xrd) for path in sorted(root.glob("apis/*/definition.yaml")) for xrd in _documents(path)]
    compositions = [one for path in sorted(root.glob("compositions/*.yaml")) for one in _documents(path)]
    if not definitions or not compositions:
        msg = f"{root} holds no apis/ and compositions/: run memoryctl from a checkout of the repository"
        raise UserError(msg)
    return Package(tuple(definitions), tuple(compositions))


def _documents(path: Path) -> list[Any]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def _definition(xrd: Mapping[str, Any]) -> Definition:
    spec = xrd["spec"]
    version = next(one for one in spec["versions"] if one["served"])
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    return Definition(
        kind=spec["names"]["kind"],
        claim_kind=spec.get("claimNames", {}).get("kind", ""),
        api_version=f"{spec['group']}/{version['name']}",
        schema=properties["spec"],
        status=properties.get("status", {}),
        default_composition=spec.get("defaultCompositionRef", {}).get("name", ""),
    )


def _with_defaults(value: object, schema: Mapping[str, Any]) -> object:
    """Fills in defaults as an API server does: from the outside in, so that a default object gets its own defaults."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        filled = {name: copy.deepcopy(one["default"]) for name, one in properties.items() if "default" in one} | value
        others = schema.get("additionalProperties", {})
        others = others if isinstance(others, dict) else {}
        return {name: _with_defaults(one, properties.get(name, others)) for name, one in filled.items()}
    if isinstance(value, list):
        return [_with_defaults(one, schema.get("items", {})) for one in value]
    return value


def _pruned(value: Any, schema: Mapping[str, Any]) -> Any:
    properties = schema.get("properties")
    if isinstance(value, dict) and properties is not None:
        return {name: _pruned(one, properties[name]) for name, one in value.items() if name in properties}
    if isinstance(value, list):
        return [_pruned(one, schema.get("items", {})) for one in value]
    return value


def _problems(spec: object, schema: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(spec, dict):
        spec = {name: value for name, value in spec.items() if name not in MACHINERY}
    validator = jsonschema.Draft202012Validator(_closed(schema))
    for error in sorted(validator.iter_errors(spec), key=lambda one: one.json_path):
        yield _sentence(error.json_path.replace("$", "spec", 1), error)


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a structural schema as JSON schema: with field validation Strict, an unknown field is an error."""
    closed = {name: _closed(value) if isinstance(value, dict) else value for name, value in schema.items()}
    if "properties" in schema:
        closed["properties"] = {name: _closed(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        closed["type"] = ["integer", "string"]
    return closed


def _sentence(path: str, error: jsonschema.ValidationError) -> str:
    """Says what is wrong, the value, and what to write instead."""
    value: Any = error.instance
    rule, limit = str(error.validator), error.validator_value
    if rule == "additionalProperties" and isinstance(error.schema, dict):
        known = sorted(error.schema.get("properties", {}))
        unknown = [name for name in value if name not in known]
        return f"{path}: unknown field {_quoted(unknown)}; known are {_quoted(known)}"
    if rule == "required" and isinstance(limit, list):
        return f"{path}: {_quoted(name for name in limit if name not in value)} must be given"
    said = {
        "type": f"must be of type {limit}",
        "enum": f"must be one of {_quoted(limit) if isinstance(limit, list) else limit}",
        "pattern": f"must match {limit}",
    }
    return f"{path} is {value!r}, {said.get(rule, f'its {rule} is {limit}')}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
