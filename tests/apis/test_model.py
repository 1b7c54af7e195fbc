"""The function's models and the XRDs say the same: fields, defaults, enums, bounds."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from function import model
from tests import schemas
from tests.apis.cases import API_VERSION, CASES, Case

PAIRS: dict[str, tuple[type[model.Model], str]] = {
    "Memory": (model.Memory, "xmemories"),
    "MemoryProvider": (model.MemoryProvider, "xmemoryproviders"),
}
# Not in the XRD: it depends on whether the provider is claimed, which the schema cannot see.
DEFAULTED_BY_THE_FUNCTION = {
    "allowedConsumers",
    "allowedConsumers.namespaces",
    "allowedConsumers.namespaces.from",
    "allowedConsumers.namespaces.names",
}
NUMBERS = ("minimum", "maximum", "maxItems", "maxProperties")


@dataclasses.dataclass(frozen=True)
class Field:
    """One field, in the words of JSON Schema."""

    path: str
    schema: dict[str, Any]
    required: bool
    below: bool  # whether fields below it are declared, or it is passed on unread

    @property
    def default(self) -> Any:
        """The default, with those of the fields below; None where there is none."""
        default = self.schema.get("default")
        return None if default is None else schemas.structural.defaulted(default, self.schema)


def _of_model(schema: Any, definitions: Any) -> Any:
    """The model's schema without references, and without the null of optional fields."""
    if isinstance(schema, list):
        return [_of_model(entry, definitions) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        rest = {key: entry for key, entry in schema.items() if key != "$ref"}
        return _of_model(definitions[schema["$ref"].rpartition("/")[2]] | rest, definitions)
    if "anyOf" in schema:
        (only,) = (entry for entry in schema["anyOf"] if entry != {"type": "null"})
        return _of_model(only | {key: entry for key, entry in schema.items() if key != "anyOf"}, definitions)
    return {key: _of_model(entry, definitions) for key, entry in schema.items()}


def _fields(schema: Any, path: str = "") -> Iterator[Field]:
    for name, below in schema.get("properties", {}).items():
        where = f"{path}.{name}".lstrip(".")
        declared = below.get("type") not in {"object", "array"} or bool(
            below.get("properties")
            or below.get("items", {}).get("properties")
            or below.get("items", {}).get("type") == "string"
        )
        yield Field(where, below, name in schema.get("required", ()), declared)
        yield from _fields(below, where)
        yield from _fields(below.get("items", {}), f"{where}[]")


def _model_fields(kind: str) -> dict[str, Field]:
    document = PAIRS[kind][0].model_json_schema(by_alias=True)
    return {field.path: field for field in _fields(_of_model(document, document.get("$defs", {})))}


def _xrd_fields(kind: str) -> dict[str, Field]:
    (version,) = schemas.definition(PAIRS[kind][1])["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return {field.path: field for field in _fields(spec)}


SHARED = [
    pytest.param(ours, theirs, id=f"{kind}: {path}")
    for kind in PAIRS
    for path, ours in _model_fields(kind).items()
    for theirs in [_xrd_fields(kind).get(path)]
    if theirs
]


@pytest.mark.parametrize("kind", PAIRS)
def test_both_know_the_same_fields(kind: str) -> None:
    ours, theirs = _model_fields(kind), _xrd_fields(kind)
    unread = {path for path, field in ours.items() if not field.below}
    assert set(ours) == {path for path in theirs if not any(path.startswith((f"{top}.", f"{top}[]")) for top in unread)}


@pytest.mark.parametrize(("ours", "theirs"), SHARED)
def test_both_have_the_same_default(ours: Field, theirs: Field) -> None:
    if ours.path in DEFAULTED_BY_THE_FUNCTION:
        assert "default" not in theirs.schema
    else:
        assert _without_nothing(ours.default) == _without_nothing(theirs.default)


def _without_nothing(value: Any) -> Any:
    """The model writes null for what the XRD leaves out."""
    return {key: entry for key, entry in value.items() if entry is not None} if isinstance(value, dict) else value


@pytest.mark.parametrize(("ours", "theirs"), SHARED)
def test_both_have_the_same_bounds(ours: Field, theirs: Field) -> None:
    choices = [ours.schema["const"]] if "const" in ours.schema else ours.schema.get("enum", [])
    assert sorted(choices) == sorted(theirs.schema.get("enum", []))
    assert {word: ours.schema.get(word) for word in NUMBERS} == {word: theirs.schema.get(word) for word in NUMBERS}


@pytest.mark.parametrize(("ours", "theirs"), SHARED)
def test_the_api_server_is_the_first_to_refuse(ours: Field, theirs: Field) -> None:
    """What it takes, the function can read: there the sentence comes at once, here it is a condition later."""
    assert theirs.required or not ours.required or "default" in theirs.schema or ours.path == "postgres"
    if "maxLength" in ours.schema:
        assert theirs.schema["maxLength"] <= ours.schema["maxLength"]
    if "pattern" in ours.schema:
        rules = [rule["rule"] for rule in theirs.schema.get("x-kubernetes-validations", ())]
        assert f"self.matches('{ours.schema['pattern']}')" in rules


TAKEN = [pytest.param(case, id=f"{case.kind}: {case.name}") for case in CASES if not case.path]


@pytest.mark.parametrize("case", TAKEN)
def test_the_function_reads_what_the_api_server_takes(case: Case) -> None:
    body = {"apiVersion": API_VERSION, "kind": f"X{case.kind}", "metadata": {"name": "a"}, "spec": case.spec}
    stored = schemas.catalog().defaulted(body)
    kind = PAIRS[case.kind][0]
    assert kind.read(model.spec_of(stored)) == kind.read(case.spec)


@pytest.mark.parametrize("path", sorted((schemas.ROOT / "compositions").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_function_reads_its_input(path: Any) -> None:
    (composition,) = schemas.objects(path)
    for step in composition["spec"]["pipeline"]:
        settings = model.MemoryInput.read(step["input"], "input")
        if step.get("credentials"):
            assert [entry["name"] for entry in step["credentials"]] == [settings.root_key]
