"""JSON Schema, as much of it as request.schema.json is written in; what it does not know is a KeyError, not a yes."""

import re
from collections.abc import Iterator
from typing import Any

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "null": type(None),
}
SILENT = {"$defs", "$schema", "$id", "title", "description", "default", "type", "required", "additionalProperties"}


def problems(value: Any, wanted: dict[str, Any], whole: dict[str, Any], path: str = "") -> list[str]:
    """Says where a value is not what is wanted, and never what it is: it may be a secret.

    Args:
        value: What was given.
        wanted: A schema.
        whole: The document that its references are in.
        path: Where the value stands.
    """
    return list(_problems(value, wanted, whole, path))


def _problems(value: Any, wanted: dict[str, Any], whole: dict[str, Any], path: str) -> Iterator[str]:
    if "$ref" in wanted:
        yield from _problems(value, _resolved(wanted["$ref"], whole), whole, path)
        return
    if not _has_type(value, wanted.get("type")):
        yield f"{path or 'document'} is not of type {wanted['type']}"
        return
    for name, given in wanted.items():
        if name not in SILENT:
            yield from RULES[name](value, given, whole, path)
    if isinstance(value, dict) and wanted.get("type") == "object":
        yield from (f"{_at(path, name)} is missing" for name in wanted.get("required", []) if name not in value)
        if wanted.get("additionalProperties") is False:
            yield from (f"{_at(path, name)} is unknown" for name in value if name not in wanted.get("properties", {}))


def _resolved(reference: str, whole: dict[str, Any]) -> dict[str, Any]:
    found = whole
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def _has_type(value: Any, name: str | None) -> bool:
    if name is None:
        return True
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _properties(value: Any, given: Any, whole: dict[str, Any], path: str) -> Iterator[str]:
    for name, each in given.items():
        if name in value:
            yield from _problems(value[name], each, whole, _at(path, name))


def _items(value: Any, given: Any, whole: dict[str, Any], path: str) -> Iterator[str]:
    for number, each in enumerate(value):
        yield from _problems(each, given, whole, f"{path}[{number}]")


def _any(value: Any, given: Any, whole: dict[str, Any], path: str) -> Iterator[str]:
    found = [problems(value, each, whole, path) for each in given]
    if all(found):
        yield min(found, key=len)[0]


def _rule(holds: Any, says: str) -> Any:
    def look(value: Any, given: Any, _whole: dict[str, Any], path: str) -> Iterator[str]:
        if not holds(value, given):
            yield f"{path or 'document'} {says.format(given)}"

    return look


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


RULES: dict[str, Any] = {
    "properties": _properties,
    "items": _items,
    "anyOf": _any,
    "const": _rule(lambda value, given: value == given, "is not {}"),
    "enum": _rule(lambda value, given: value in given, "is none of {}"),
    "pattern": _rule(lambda value, given: re.search(given, value), "does not match {}"),
    "minLength": _rule(lambda value, given: len(value) >= given, "is shorter than {}"),
    "maxLength": _rule(lambda value, given: len(value) <= given, "is longer than {}"),
    "minItems": _rule(lambda value, given: len(value) >= given, "has fewer than {} items"),
    "minimum": _rule(lambda value, given: value >= given, "is less than {}"),
    "maximum": _rule(lambda value, given: value <= given, "is more than {}"),
}
