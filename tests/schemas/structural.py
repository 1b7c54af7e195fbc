"""Structural schemas as the API server reads them: defaults, unknown fields, values, and the rules in `rules`.

Source: kubernetes.io, "Extend the Kubernetes API with CustomResourceDefinitions". A null that the schema does not
allow is refused here; the API server would drop it where there is a default.
"""

import base64
import copy
import datetime as dt
from collections.abc import Iterator
from typing import Any

import jsonschema

from tests.schemas import rules

Schema = dict[str, Any]
MISSING = object()

_FORMATS = jsonschema.FormatChecker(formats=())


@_FORMATS.checks("date-time", raises=ValueError)
def _is_time(value: Any) -> bool:
    return not isinstance(value, str) or bool(dt.datetime.fromisoformat(value))


@_FORMATS.checks("byte", raises=ValueError)
def _is_base64(value: Any) -> bool:
    return not isinstance(value, str) or base64.b64decode(value, validate=True) is not None


@_FORMATS.checks("int32")
def _is_int32(value: Any) -> bool:
    return not isinstance(value, int) or -(2**31) <= value < 2**31


def defaulted(value: Any, schema: Schema) -> Any:
    """Gives a copy of a value with the schema's defaults in it, as the API server stores it."""
    value = copy.deepcopy(value)
    _default(value, schema)
    return value


def _default(value: Any, schema: Schema) -> None:
    if isinstance(value, dict):
        for name, below in schema.get("properties", {}).items():
            if name not in value and "default" in below:
                value[name] = copy.deepcopy(below["default"])
            if name in value:
                _default(value[name], below)
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            for entry in value.values():
                _default(entry, more)
    elif isinstance(value, list):
        for item in value:
            _default(item, schema.get("items", {}))


def problems(value: Any, schema: Schema, old: Any = MISSING, path: str = "") -> list[str]:
    """Says why a (defaulted) value would be refused, each as `<path>: <sentence>`; nothing when it would be taken.

    Args:
        value: The value, with its defaults.
        schema: The structural schema.
        old: What is stored now; without it, transition rules do not apply.
        path: Where the value stands, for the sentences.
    """
    found = [*_fields(value, schema, path), *_values(value, schema, path), *_duplicates(value, schema, path)]
    # Like the API server, which does not ask rules about an object that is not of their types.
    return found or list(rules.broken(value, schema, None if old is MISSING else old, path))


def _fields(value: Any, schema: Schema, path: str) -> Iterator[str]:
    """Fields that are missing, and fields that nobody declared.

    The latter are refused by `kubectl apply --validate=strict`, its default, and pruned otherwise.
    """
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _fields(item, schema.get("items", {}), f"{path}[{index}]")
    if not isinstance(value, dict):
        return
    properties, more = schema.get("properties", {}), schema.get("additionalProperties")
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name}: Required value".lstrip(".")
    for name, below in value.items():
        if name in properties:
            yield from _fields(below, properties[name], f"{path}.{name}".lstrip("."))
        elif isinstance(more, dict):
            yield from _fields(below, more, f"{path}.{name}")
        elif not (more or schema.get("x-kubernetes-preserve-unknown-fields")):
            yield f'{path}.{name}: unknown field "{name}"'.lstrip(".")


def _values(value: Any, schema: Schema, path: str) -> Iterator[str]:
    validator = jsonschema.Draft202012Validator(_json_schema(schema), format_checker=_FORMATS)
    for error in sorted(validator.iter_errors(value), key=lambda error: error.json_path):
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
        yield f"{path}{where}".lstrip(".") + f": {error.message}"


def _json_schema(schema: Schema) -> Schema:
    """The same as JSON Schema: `nullable` and int-or-string have other words there, and rules none."""
    # `required` is told in `_fields`, with the path of what is missing.
    plain = {key: entry for key, entry in schema.items() if not key.startswith("x-kubernetes-") and key != "required"}
    if schema.get("x-kubernetes-int-or-string"):
        plain |= {"type": ["integer", "string"]}
        plain.pop("anyOf", None)
    if plain.pop("nullable", False) and "type" in plain:
        types = plain["type"] if isinstance(plain["type"], list) else [plain["type"]]
        plain["type"] = [*types, "null"]
    if "properties" in plain:
        plain["properties"] = {name: _json_schema(below) for name, below in plain["properties"].items()}
    for word in ("items", "additionalProperties"):
        if isinstance(plain.get(word), dict):
            plain[word] = _json_schema(plain[word])
    return plain


def _duplicates(value: Any, schema: Schema, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        more = schema.get("additionalProperties")
        for name, below in value.items():
            schema_below = schema.get("properties", {}).get(name, more if isinstance(more, dict) else {})
            yield from _duplicates(below, schema_below, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys", [])
        unique = schema.get("x-kubernetes-list-type") in {"set", "map"}
        seen: list[Any] = []
        for index, item in enumerate(value):
            key = {name: item.get(name) for name in keys} if keys and isinstance(item, dict) else item
            if unique and key in seen:
                yield f"{path}[{index}]: Duplicate value: {key}"
            seen.append(key)
            yield from _duplicates(item, schema.get("items", {}), f"{path}[{index}]")
