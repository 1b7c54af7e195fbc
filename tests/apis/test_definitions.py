"""The XRDs and Compositions as documents: complete, bounded, and what Crossplane makes of them."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest

from function.model import ProviderType
from tests import schemas
from tests.apis.conftest import Real

XRDS = ("xmemories", "xmemoryproviders")
COMPOSITIONS = sorted((schemas.ROOT / "compositions").glob("*.yaml"))
MAX_STRING = 65536


def _root(plural: str) -> schemas.Schema:
    (version,) = schemas.definition(plural)["spec"]["versions"]
    root: schemas.Schema = version["schema"]["openAPIV3Schema"]
    return root


def _properties(schema: schemas.Schema, path: str = "") -> Iterator[tuple[str, schemas.Schema, bool]]:
    """Each property by its path, and whether it cannot be removed (required, or there by default)."""
    for name, below in schema.get("properties", {}).items():
        where = f"{path}.{name}".lstrip(".")
        yield where, below, name in schema.get("required", ()) or "default" in below
        yield from _properties(below, where)
        yield from _properties(below.get("items", {}), f"{where}[]")


def _nodes(schema: Any) -> Iterator[schemas.Schema]:
    yield schema
    for below in schema.get("properties", {}).values():
        yield from _nodes(below)
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from _nodes(schema[word])


PROPERTIES = [
    pytest.param(schema, id=f"{plural}: {path}") for plural in XRDS for path, schema, _ in _properties(_root(plural))
]


@pytest.mark.parametrize(
    "path", [*COMPOSITIONS, *(schemas.ROOT / "apis" / plural / "definition.yaml" for plural in XRDS)]
)
def test_crossplane_takes_the_document(path: Any) -> None:
    (document,) = schemas.objects(path)
    assert schemas.catalog("crossplane").problems(document) == []


@pytest.mark.parametrize("schema", PROPERTIES)
def test_each_field_says_what_it_is_and_how_large_it_may_be(schema: schemas.Schema) -> None:
    assert schema["description"].endswith(".")
    for node in _nodes(schema):
        if node.get("type") == "string" and "enum" not in node:
            assert 0 < node["maxLength"] <= MAX_STRING
        if node.get("type") == "array":
            assert node["maxItems"] > 0
        if "additionalProperties" in node:
            assert node["maxProperties"] > 0


@pytest.mark.parametrize("schema", PROPERTIES)
def test_each_rule_has_a_sentence_of_one_line(schema: schemas.Schema) -> None:
    for rule in schema.get("x-kubernetes-validations", ()):
        (text,) = (rule[word] for word in ("message", "messageExpression") if word in rule)
        assert "\n" not in text


@pytest.mark.parametrize("plural", XRDS)
def test_nobody_frees_an_immutable_field_by_removing_its_parent(plural: str) -> None:
    removable = {path for path, _, stays in _properties(_root(plural)["properties"]["spec"]) if not stays}
    for path, schema, stays in _properties(_root(plural)["properties"]["spec"]):
        if any("oldSelf" in rule["rule"] for rule in schema.get("x-kubernetes-validations", ())):
            assert stays, path
            assert not {parent for parent in removable if path.startswith(f"{parent}.")}, path


@pytest.mark.parametrize("plural", XRDS)
def test_defaults_keep_the_schema(plural: str) -> None:
    for path, schema, _ in _properties(_root(plural)):
        if "default" in schema:
            filled = schemas.structural.defaulted(schema["default"], schema)
            assert schemas.structural.problems(filled, schema, path=path) == []


@pytest.mark.parametrize("plural", XRDS)
def test_both_versions_of_crossplane_serve_it_with_claims(plural: str) -> None:
    spec = schemas.definition(plural)["spec"]
    assert "scope" not in spec, "v1.20 does not know the field, v2 takes LegacyCluster without it"
    assert spec["claimNames"]["categories"] == spec["names"]["categories"]
    assert "x-kubernetes-validations" not in _root(plural), "v1.20 copies no rule of the root"


def test_users_see_at_a_glance_where_a_memory_is() -> None:
    (version,) = schemas.definition("xmemories")["spec"]["versions"]
    # Crossplane itself adds SYNCED, READY and AGE: a second READY would be one too many.
    assert [column["name"] for column in version["additionalPrinterColumns"]] == [
        "PROVIDER",
        "TYPE",
        "SCHEMA",
        "SECRET",
    ]


@pytest.mark.parametrize("plural", XRDS)
def test_printer_columns_show_fields_that_exist(plural: str) -> None:
    (version,) = schemas.definition(plural)["spec"]["versions"]
    paths = {f".{path}" for path, _, _ in _properties(_root(plural))}
    assert {column["jsonPath"] for column in version["additionalPrinterColumns"]} <= paths


def test_memory_is_a_provisioned_service() -> None:
    crd = schemas.claim(schemas.definition("xmemories"))
    assert crd["metadata"]["labels"] == {"servicebinding.io/provisioned-service": "true"}


@pytest.mark.parametrize("plural", XRDS)
def test_the_default_composition_is_there(plural: str) -> None:
    spec = schemas.definition(plural)["spec"]
    compositions = {body["metadata"]["name"]: body for path in COMPOSITIONS for body in schemas.objects(path)}
    reference = compositions[spec["defaultCompositionRef"]["name"]]["spec"]["compositeTypeRef"]
    assert reference == {"apiVersion": f"{spec['group']}/v1alpha1", "kind": spec["names"]["kind"]}


def test_there_is_a_composition_for_each_delivery_and_each_type() -> None:
    either = {f"{kind}{delivery}" for kind in ("memory", "memoryprovider") for delivery in ("", "-object")}
    assert {path.stem for path in COMPOSITIONS} == either | {f"memory-{kind}" for kind in get_args(ProviderType)}


def test_compositions_differ_only_in_what_their_names_say() -> None:
    found = {path.stem: schemas.objects(path)[0] for path in COMPOSITIONS}
    assert {name: body["metadata"]["name"] for name, body in found.items()} == {name: name for name in found}
    (plain,) = found["memory"]["spec"]["pipeline"]
    for kind in get_args(ProviderType):
        typed = found[f"memory-{kind}"]
        assert typed["spec"]["pipeline"] == [plain | {"input": plain["input"] | {"providerType": kind}}]
        assert typed["metadata"]["labels"] == {"provider": kind}
    (provider,) = found["memoryprovider"]["spec"]["pipeline"]
    assert provider == {key: entry for key, entry in plain.items() if key != "credentials"}
    for name in ("memory", "memoryprovider"):
        direct, wrapped = found[name]["spec"], found[f"{name}-object"]["spec"]
        (before,), (after,) = direct["pipeline"], wrapped["pipeline"]
        assert after == before | {"input": before["input"] | {"delivery": "Object"}}
        own_secret = {"writeConnectionSecretsToNamespace": "crossplane-system"} if name == "memory" else {}
        assert wrapped == direct | {"pipeline": [after]} | own_secret


@pytest.mark.e2e
@pytest.mark.parametrize("plural", XRDS)
def test_crossplane_makes_the_definitions_that_tests_derive(plural: str, cluster: Real) -> None:
    xrd = schemas.definition(plural)
    for derived in (schemas.composite(xrd), schemas.claim(xrd)):
        real = cluster.kube.get("crd", derived["metadata"]["name"])
        assert real["metadata"].get("labels", {}) == derived["metadata"]["labels"]
        (version,), (expected,) = real["spec"]["versions"], derived["spec"]["versions"]
        assert version["schema"]["openAPIV3Schema"] == expected["schema"]["openAPIV3Schema"]
