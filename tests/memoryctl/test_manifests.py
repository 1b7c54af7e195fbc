"""What a person hands over: defaults from the XRDs, and a sentence for everything that has not their shape."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from memoryctl import definitions, manifests
from memoryctl.definitions import Package
from memoryctl.errors import UserError
from memoryctl.objects import Object


@pytest.fixture(scope="module")
def package() -> Package:
    return definitions.load()


def read(package: Package, directory: Path, manifest: object) -> Object:
    path = directory / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest))
    [made] = manifests.read([str(path)], package)
    return made


def changed(manifest: Object, path: str, value: object) -> Object:
    """Gives a manifest with one field set, or removed when the value is None."""
    *parents, last = path.split(".")
    target: Any = manifest
    for name in parents:
        target = target.setdefault(name, {})
    if value is None:
        del target[last]
    else:
        target[last] = value
    return manifest


def test_a_claim_gets_the_defaults_of_the_schema(package: Package, tmp_path: Path, claim: Object) -> None:
    spec = read(package, tmp_path, claim)["spec"]
    vectors = {"enabled": True, "dimension": 1536, "metric": "cosine", "storage": "auto", "index": {"type": "auto"}}
    assert spec["embeddings"] == vectors
    assert (spec["access"], spec["searchConfig"], spec["adopt"]) == ({"readOnlySecret": False}, "simple", False)
    assert spec["dataset"] == {"name": "notes", "schema": "notes"}


def test_a_default_does_not_replace_what_is_given(package: Package, tmp_path: Path, claim: Object) -> None:
    claim["spec"]["embeddings"] = {"dimension": 3}
    spec = read(package, tmp_path, claim)["spec"]
    vectors = {"enabled": True, "dimension": 3, "metric": "cosine", "storage": "auto", "index": {"type": "auto"}}
    assert spec["embeddings"] == vectors


def test_defaults_are_filled_once(package: Package, tmp_path: Path, provider: Object) -> None:
    once = read(package, tmp_path, provider)
    assert once["spec"]["postgres"]["port"] == 5432
    assert read(package, tmp_path, once) == once


def test_crossplanes_own_fields_are_known(package: Package, tmp_path: Path, claim: Object) -> None:
    claim["spec"]["compositionSelector"] = {"matchLabels": {"provider": "postgres"}}
    assert read(package, tmp_path, claim)["spec"]["compositionSelector"]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("spec.ttl", 5, r'Memory notes is not valid: spec: unknown field "ttl"; known are "access", "adopt"'),
        ("spec.dataset.table", "x", r'spec\.dataset: unknown field "table"; known are "name", "schema"'),
        ("spec.embeddings.dimension", "many", r"spec\.embeddings\.dimension is 'many', must be of type integer"),
        ("spec.embeddings.dimension", 0, r"spec\.embeddings\.dimension is 0, its minimum is 1"),
        ("spec.embeddings.metric", "dot", r'must be one of "cosine", "l2", "ip"'),
        ("spec.dataset.schema", None, r'spec\.dataset: "schema" must be given'),
        ("spec.providerRef", None, r'spec: "providerRef" must be given'),
        ("spec.dataset.name", "", r"spec\.dataset\.name is '', its minLength is 1"),
        ("spec", "nothing", r"spec is 'nothing', must be of type object"),
        (
            "kind",
            "Memories",
            r"Memories \(memory\.proompteng\.ai/v1alpha1\) is not a kind that memoryctl knows: .*Memory",
        ),
        ("apiVersion", "v2", r"is not a kind that memoryctl knows"),
        ("metadata.name", "../x", r"metadata\.name is '\.\./x': use lower-case letters"),
        ("metadata.namespace", "A", r"metadata\.namespace is 'A': use lower-case letters"),
        ("metadata", "notes", r"is not a Kubernetes manifest: it needs apiVersion, kind, metadata and spec"),
    ],
)
def test_a_claim_without_the_shape_gets_a_sentence(
    tmp_path: Path, claim: Object, path: str, value: object, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        read(definitions.load(), tmp_path, changed(claim, path, value))


def test_a_composite_has_no_namespace(package: Package, tmp_path: Path, provider: Object) -> None:
    with pytest.raises(UserError, match=r"pg is cluster-scoped: .* or write a MemoryProvider"):
        read(package, tmp_path, changed(provider, "metadata.namespace", "team-a"))


def test_a_namespace_is_in_none_and_carries_its_name(package: Package, tmp_path: Path) -> None:
    written = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", "labels": {"memory": "allowed"}}}
    labels = {"memory": "allowed", "kubernetes.io/metadata.name": "team-a"}
    assert read(package, tmp_path, written)["metadata"] == {"name": "team-a", "labels": labels}
    with pytest.raises(UserError, match=r"Namespace team-a is cluster-scoped: take metadata.namespace away$"):
        read(package, tmp_path, changed(written, "metadata.namespace", "team-a"))


def test_a_claim_without_a_namespace_is_in_default(package: Package, tmp_path: Path, claim: Object) -> None:
    assert read(package, tmp_path, changed(claim, "metadata.namespace", None))["metadata"]["namespace"] == "default"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param("a: [", "is not YAML: while parsing", id="a bracket is open"),
        pytest.param("- a", "is not a Kubernetes manifest", id="a list"),
    ],
)
def test_a_file_that_is_no_manifest(package: Package, tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=sentence):
        manifests.read([str(path)], package)


def test_a_file_that_is_not_there(package: Package, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.yaml cannot be read: No such file or directory"):
        manifests.read([str(tmp_path / "nothing.yaml")], package)


def test_several_documents_and_standard_input(
    package: Package, claim: Object, provider: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = yaml.safe_dump_all([provider, None, claim])
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    kinds = [one["kind"] for one in manifests.read(["-"], package)]
    assert kinds == ["XMemoryProvider", "Memory"]


def test_a_status_is_pruned_to_the_schema(package: Package) -> None:
    definition = package.definition("memory.proompteng.ai/v1alpha1", "XMemory")
    assert definition is not None
    status = {
        "schema": "notes",
        "invented": 1,
        "provider": {"name": "pg", "secret": "x"},
        "modules": [{"name": "core"}],
    }
    kept = definition.pruned(status)
    assert (kept["schema"], kept["provider"], kept["modules"]) == ("notes", {"name": "pg"}, [{"name": "core"}])
    assert "invented" not in kept


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        pytest.param({}, "memory", id="the XRD's default"),
        pytest.param({"compositionRef": {"name": "memory-postgres"}}, "memory-postgres", id="by name"),
        *(
            pytest.param(
                {"compositionSelector": {"matchLabels": {"provider": kind}}}, f"memory-{kind}", id=f"by {kind}"
            )
            for kind in ("postgres", "redis", "s3", "custom")
        ),
    ],
)
def test_the_composition_of_a_composite(package: Package, spec: Object, name: str) -> None:
    composite = {"apiVersion": "memory.proompteng.ai/v1alpha1", "kind": "XMemory", "spec": spec}
    assert package.composition(composite)["metadata"]["name"] == name


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"compositionRef": {"name": "memoryprovider"}}, "no Composition for XMemory with name 'memoryprovider'"),
        ({"compositionSelector": {"matchLabels": {"provider": "mysql"}}}, "with labels {'provider': 'mysql'}"),
        ({"compositionRef": {"name": "memory-object"}}, 'Composition "memory-object" delivers by provider-kubernetes'),
    ],
)
def test_a_composition_that_is_not_there(package: Package, spec: Object, sentence: str) -> None:
    composite = {"apiVersion": "memory.proompteng.ai/v1alpha1", "kind": "XMemory", "spec": spec}
    with pytest.raises(UserError, match=sentence):
        package.composition(composite)


def test_a_folder_without_a_package_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run memoryctl from a checkout"):
        definitions.load(tmp_path)
