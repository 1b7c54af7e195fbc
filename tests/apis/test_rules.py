"""What the API server takes and refuses, and in which words."""

import copy
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests import schemas
from tests.apis.cases import API_VERSION, CASES, Case
from tests.apis.conftest import Server
from tests.schemas import rules

XRDS = {"Memory": "xmemories", "MemoryProvider": "xmemoryproviders"}
NAMESPACE = f"memory-apis-{os.getpid()}"


def _object(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": f"case-{os.getpid()}"}
    if not kind.startswith("X"):
        metadata["namespace"] = NAMESPACE
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("kind", ["claim", "composite"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name}")
def test_each_edit_is_answered_as_promised(case: Case, kind: str, server: Server) -> None:
    name = case.kind if kind == "claim" else f"X{case.kind}"
    old = None if case.stored_spec is None else _object(name, case.stored_spec)
    said = server.refusal(_object(name, case.spec), old)
    if not case.path:
        assert said == "", case.reason
    else:
        assert any(case.path in line and case.says in line for line in said.splitlines()), (case.reason, said)


def _rules(schema: schemas.Schema, path: str = "") -> Iterator[tuple[str, schemas.Schema, dict[str, Any]]]:
    """Each rule by its place, with a copy of the whole schema in which it is the only one."""
    bare = _without_rules(schema)
    for place, node in _nodes(schema, path):
        for rule in node.get("x-kubernetes-validations", ()):
            alone = copy.deepcopy(bare)
            next(target for where, target in _nodes(alone, path) if where == place)["x-kubernetes-validations"] = [rule]
            yield place, alone, rule


def _nodes(schema: schemas.Schema, path: str) -> Iterator[tuple[str, schemas.Schema]]:
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from _nodes(below, f"{path}.{name}".lstrip("."))
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from _nodes(schema[word], f"{path}[]")


def _without_rules(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_rules(entry) for key, entry in schema.items() if key != "x-kubernetes-validations"}
    return [_without_rules(entry) for entry in schema] if isinstance(schema, list) else schema


def _schema(kind: str) -> schemas.Schema:
    (version,) = schemas.claim(schemas.definition(XRDS[kind]))["spec"]["versions"]
    schema: schemas.Schema = version["schema"]["openAPIV3Schema"]
    return schema


ALL_RULES = [
    pytest.param(kind, alone, id=f"{kind}: {place}: {rule['rule']}")
    for kind in XRDS
    for place, alone, rule in _rules(_schema(kind))
]


@pytest.mark.parametrize(("kind", "alone"), ALL_RULES)
def test_each_rule_has_a_case_that_only_it_answers(kind: str, alone: schemas.Schema) -> None:
    catalog = schemas.catalog()
    for case in (case for case in CASES if case.kind == kind and case.says):
        now, old = (spec and catalog.defaulted(_object(kind, spec)) for spec in (case.spec, case.stored_spec))
        if any(case.says in broken for broken in rules.broken(now, alone, old, "")):
            return
    pytest.fail("no case of the table breaks this rule with its own sentence")
