"""The fields of a model and of a schema, in the same words, so that they can be compared."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from function.model import Model
from tests import schemas


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


def _walk(schema: Any, path: str = "") -> Iterator[Field]:
    for name, below in schema.get("properties", {}).items():
        where = f"{path}.{name}".lstrip(".")
        declared = below.get("type") not in {"object", "array"} or bool(
            below.get("properties")
            or below.get("items", {}).get("properties")
            or below.get("items", {}).get("type") == "string"
        )
        yield Field(where, below, name in schema.get("required", ()), declared)
        yield from _walk(below, where)
        yield from _walk(below.get("items", {}), f"{where}[]")


def of_model(kind: type[Model]) -> dict[str, Field]:
    """Gives a model's fields by path."""
    document = kind.model_json_schema(by_alias=True)
    return of_schema(_of_model(document, document.get("$defs", {})))


def of_schema(schema: Any) -> dict[str, Field]:
    """Gives a schema's fields by path."""
    return {field.path: field for field in _walk(schema)}
