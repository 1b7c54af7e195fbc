"""The offline checker refuses what an API server refuses; otherwise the tests that ask it prove nothing."""

from typing import Any

import pytest

from tests import schemas
from tests.schemas import rules, structural

JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "mem-0123456789ab", "namespace": "databases", "labels": {"app.kubernetes.io/name": "memory"}},
    "spec": {
        "backoffLimit": 4,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {"name": "provision", "image": "memory-migrations", "resources": {"limits": {"cpu": 1}}}
                ],
            }
        },
    },
}


def _job(**changes: Any) -> dict[str, Any]:
    return JOB | {"spec": JOB["spec"] | changes}


def _secret(data: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"} | metadata, "data": data}


@pytest.mark.parametrize("body", [JOB, _secret({"password": "c2VjcmV0"})])
def test_core_kinds_are_taken(body: dict[str, Any]) -> None:
    assert schemas.catalog().problems(body) == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(_job(template={}) | {"kind": "Job"}, [], id="an empty template is Kubernetes' own business"),
        pytest.param(_job(backOffLimit=4), ['spec.backOffLimit: unknown field "backOffLimit"'], id="unknown field"),
        pytest.param(_job(backoffLimit="4"), ["spec.backoffLimit: '4' is not of type 'integer'"], id="type"),
        pytest.param(
            _job(backoffLimit=4.5), ["spec.backoffLimit: 4.5 is not of type 'integer'"], id="integers stay integers"
        ),
        pytest.param(_secret({"password": "päss"}), ["data.password: 'päss' is not a 'byte'"], id="not base64"),
        pytest.param(
            _secret({}, labels={"claim": "team a"}),
            ["metadata.labels[claim]: 'team a' is not a label value"],
            id="label value",
        ),
        pytest.param(_secret({}, labels={"a b": ""}), ["metadata.labels: 'a b' is not a label key"], id="label key"),
        pytest.param(
            _secret({}, name="Team_A"),
            ["metadata.name: 'Team_A' is not a name of at most 253 lower-case letters, digits, - and ."],
            id="name",
        ),
        pytest.param(_secret({}, nmae="a"), ['metadata.nmae: unknown field "nmae"'], id="unknown metadata"),
    ],
)
def test_core_kinds_are_refused(body: dict[str, Any], says: list[str]) -> None:
    assert schemas.catalog().problems(body) == says


def test_an_unknown_kind_is_not_taken_for_a_valid_one() -> None:
    with pytest.raises(LookupError, match="there is no schema for v1/Pod"):
        schemas.catalog().problems({"apiVersion": "v1", "kind": "Pod"})


LIST: dict[str, Any] = {
    "type": "object",
    "properties": {
        "maybe": {"type": "string", "nullable": True},
        "either": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "entries": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "size": {"type": "integer", "default": 1}},
            },
        },
        "when": {"type": "string", "format": "date-time"},
        "small": {"type": "integer", "format": "int32"},
    },
}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"maybe": None}, []),
        ({"either": 1}, []),
        ({"either": "1"}, []),
        ({"either": 1.5}, ["either: 1.5 is not of type 'integer', 'string'"]),
        ({"open": {"anything": [1]}}, []),
        ({"entries": [{"name": "a"}, {"name": "a"}]}, ["entries[1]: Duplicate value: {'name': 'a'}"]),
        ({"when": "2026-01-01T00:00:00Z"}, []),
        ({"when": "yesterday"}, ["when: 'yesterday' is not a 'date-time'"]),
        ({"small": 2**31}, ["small: 2147483648 is not a 'int32'"]),
    ],
)
def test_words_of_structural_schemas(value: dict[str, Any], says: list[str]) -> None:
    assert structural.problems(value, LIST) == says


def test_defaults_reach_into_lists() -> None:
    given: dict[str, Any] = {"entries": [{"name": "a"}]}
    assert structural.defaulted(given, LIST) == {"entries": [{"name": "a", "size": 1}]}
    assert given == {"entries": [{"name": "a"}]}


def _ruled(rule: str, **more: str) -> schemas.Schema:
    words = ("namespace", "a-b", "plain")
    schema = {"type": "object", "properties": {word: {"type": "integer"} for word in words}}
    return schema | {"x-kubernetes-validations": [{"rule": rule} | more]}


@pytest.mark.parametrize(
    ("schema", "old", "says"),
    [
        (_ruled("self.__namespace__ == 1 && self.a__dash__b == 2"), None, []),
        (_ruled("self.plain > 3", message="too small"), None, ["x: too small"]),
        (_ruled("self.plain > 3"), None, ["x: failed rule: self.plain > 3"]),
        (_ruled("false", message="m", messageExpression="'was ' + string(self.plain)"), None, ["x: was 3"]),
        (_ruled("self == oldSelf", message="fixed"), None, []),
        (_ruled("self == oldSelf", message="fixed"), {"namespace": 1, "a-b": 2, "plain": 3}, []),
        (_ruled("self == oldSelf", message="fixed"), {"namespace": 1, "a-b": 2, "plain": 4}, ["x: fixed"]),
    ],
)
def test_rules(schema: schemas.Schema, old: dict[str, Any] | None, says: list[str]) -> None:
    value = {"namespace": 1, "a-b": 2, "plain": 3}
    assert list(rules.broken(value, schema, old, "x")) == says


def test_a_rule_that_is_no_question_is_an_error_of_ours() -> None:
    with pytest.raises(TypeError, match="gives 3, not true or false"):
        list(rules.broken({"plain": 3}, _ruled("self.plain"), None, "x"))
