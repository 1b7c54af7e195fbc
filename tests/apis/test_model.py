"""The function's models and the XRDs say the same: fields, defaults, enums, bounds."""

from typing import Any

import pytest

from function import model
from tests import schemas
from tests.apis import fields
from tests.apis.cases import API_VERSION, CASES, Case
from tests.apis.fields import Field

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


def _model_fields(kind: str) -> dict[str, Field]:
    return fields.of_model(PAIRS[kind][0])


def _xrd_fields(kind: str) -> dict[str, Field]:
    (version,) = schemas.definition(PAIRS[kind][1])["spec"]["versions"]
    return fields.of_schema(version["schema"]["openAPIV3Schema"]["properties"]["spec"])


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
    if not isinstance(value, dict):
        return value
    return {key: _without_nothing(entry) for key, entry in value.items() if entry is not None}


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
