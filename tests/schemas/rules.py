"""`x-kubernetes-validations`, evaluated by a CEL library. Types and cost are checked by a real API server only."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import cel
from cel import stdlib

# Words of CEL: a property of that name is `__<word>__` in a rule.
_RESERVED = frozenset(
    {
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    }
)
_ESCAPES = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))
_OLD = re.compile(r"\boldSelf\b")


def broken(value: Any, schema: Mapping[str, Any], old: Any, path: str) -> Iterator[str]:
    """Gives `<path>: <message>` for each rule that a valid value (and, for transition rules, what was there) breaks.

    Nothing below a list is compared with what was there: the API server does so for lists of type map only, and no
    transition rule of ours stands in one.
    """
    for rule in schema.get("x-kubernetes-validations", ()):
        yield from _broken(rule, value, schema, old, path)
    if isinstance(value, Mapping):
        for name, below in value.items():
            schema_below = _below(schema, name)
            old_below = old.get(name) if isinstance(old, Mapping) else None
            yield from broken(below, schema_below, old_below, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from broken(item, schema.get("items", {}), None, f"{path}[{index}]")


def _broken(rule: Mapping[str, Any], value: Any, schema: Mapping[str, Any], old: Any, path: str) -> Iterator[str]:
    if _OLD.search(rule["rule"]) and old is None:
        return
    values = {"self": _escaped(value, schema)} | ({} if old is None else {"oldSelf": _escaped(old, schema)})
    verdict = _evaluate(rule["rule"], values)
    if not isinstance(verdict, bool):
        problem = f"{path}: the rule {rule['rule']!r} gives {verdict!r}, not true or false"
        raise TypeError(problem)
    if not verdict:
        text = _evaluate(rule["messageExpression"], values) if "messageExpression" in rule else None
        yield f"{path}: {text or rule.get('message') or 'failed rule: ' + rule['rule']}"


def _evaluate(expression: str, values: dict[str, Any]) -> Any:
    context = cel.Context(values)
    stdlib.add_stdlib_to_context(context)
    return cel.evaluate(expression, context)


def _below(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    more = schema.get("additionalProperties")
    below: Mapping[str, Any] = schema.get("properties", {}).get(name, more if isinstance(more, Mapping) else {})
    return below


def _escaped(value: Any, schema: Mapping[str, Any]) -> Any:
    """The value as rules see it: properties by their escaped names; keys of maps, and data, as they are."""
    if isinstance(value, Mapping):
        declared = schema.get("properties", {})
        return {
            (_escape(name) if name in declared else name): _escaped(entry, _below(schema, name))
            for name, entry in value.items()
        }
    if isinstance(value, list):
        return [_escaped(item, schema.get("items", {})) for item in value]
    return value


def _escape(name: str) -> str:
    if name in _RESERVED:
        return f"__{name}__"
    for plain, escaped in _ESCAPES:
        name = name.replace(plain, escaped)
    return name
