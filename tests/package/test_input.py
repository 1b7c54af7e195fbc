"""The CRD of the Composition's input and the function's model say the same, field by field."""

from typing import Any

import pytest

from function.model import MemoryInput
from tests import schemas
from tests.apis import fields

PATH = schemas.ROOT / "package/function/input/memory.fn.proompteng.ai_memoryinputs.yaml"
# What each object has, and the API server checks.
MACHINERY = {"apiVersion", "kind", "metadata"}
# In the words of JSON Schema.
WORDS = (
    *("type", "pattern", "minLength", "maxLength", "minimum", "maximum"),
    *("minItems", "maxItems", "minProperties", "maxProperties"),
)


def _crd() -> dict[str, Any]:
    (crd,) = schemas.objects(PATH)
    return crd


def _schema() -> dict[str, Any]:
    (version,) = _crd()["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


OURS = {path: field for path, field in fields.of_model(MemoryInput).items() if path not in MACHINERY}
THEIRS = {path: field for path, field in fields.of_schema(_schema()).items() if path not in MACHINERY}


def _values(field: fields.Field) -> list[Any]:
    return [field.schema["const"]] if "const" in field.schema else sorted(field.schema.get("enum", []))


def _without_nothing(value: Any) -> Any:
    """The model writes null for what the schema leaves out."""
    return {key: entry for key, entry in value.items() if entry is not None} if isinstance(value, dict) else value


def test_it_is_the_type_that_compositions_name() -> None:
    spec = _crd()["spec"]
    (version,) = spec["versions"]
    assert (f"{spec['group']}/{version['name']}", spec["names"]["kind"]) == (
        *MemoryInput.model_fields["api_version"].annotation.__args__,  # type: ignore[union-attr]
        *MemoryInput.model_fields["kind"].annotation.__args__,  # type: ignore[union-attr]
    )
    assert _crd()["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    assert PATH.name == f"{spec['group']}_{spec['names']['plural']}.yaml"


def test_both_know_the_same_fields() -> None:
    assert set(OURS) == set(THEIRS)


@pytest.mark.parametrize("path", sorted(set(OURS) & set(THEIRS)))
def test_both_say_the_same_of_a_field(path: str) -> None:
    ours, theirs = OURS[path], THEIRS[path]
    assert {word: ours.schema.get(word) for word in WORDS} == {word: theirs.schema.get(word) for word in WORDS}
    assert _values(ours) == _values(theirs)
    assert ours.required == theirs.required
    assert _without_nothing(ours.default) == _without_nothing(theirs.default)
    assert theirs.schema["description"].endswith(".")


@pytest.mark.parametrize("path", sorted((schemas.ROOT / "compositions").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_api_server_would_take_what_our_compositions_say(path: Any) -> None:
    (composition,) = schemas.objects(path)
    for step in composition["spec"]["pipeline"]:
        value = schemas.structural.defaulted(step["input"], _schema())
        assert not schemas.structural.problems(value, _schema())
        assert MemoryInput.read(value, "input") == MemoryInput.read(step["input"], "input")
