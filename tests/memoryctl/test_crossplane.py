"""Claims become composites and the real function's answer is applied, as Crossplane does both."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from memoryctl import definitions, function
from memoryctl.cluster import Cluster
from memoryctl.crossplane import Crossplane, Reconciled, complaint
from memoryctl.definitions import Package
from memoryctl.errors import UserError
from memoryctl.objects import API_VERSION, Key, Object, condition, key_of, make_secret, secret_key

CLAIM = Key(API_VERSION, "Memory", "team-a", "notes")


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    with function.process(tmp_path_factory.mktemp("function") / "log") as process:
        process.wait_ready()
        yield process.channel


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    cluster = Cluster(tmp_path / "objects")
    root_key = secret_key("crossplane-system", "memory-root-key")
    cluster.apply(make_secret(root_key, {"current": bytes(range(32))}))
    return cluster


@pytest.fixture
def package() -> Package:
    return definitions.load()


@pytest.fixture
def provider(provider: Object) -> Object:
    """A provider at an address: with a clusterRef nothing is rendered before its probe has answered."""
    del provider["spec"]["postgres"]["clusterRef"]
    provider["spec"]["postgres"]["host"] = "db.example.com"
    return provider


@pytest.fixture
def crossplane(cluster: Cluster, package: Package, channel: grpc.Channel) -> Crossplane:
    return Crossplane(cluster, package, function.Pipeline(channel, cluster))


def apply(cluster: Cluster, package: Package, *manifests: Object) -> None:
    for manifest in manifests:
        definition = package.definition(manifest["apiVersion"], manifest["kind"])
        assert definition
        cluster.apply(definition.defaulted(manifest))


def memory(reconciled: list[Reconciled]) -> Reconciled:
    [found] = [one for one in reconciled if one.composite["kind"] == "XMemory"]
    return found


def with_input(package: Package, **fields: object) -> Package:
    """Gives a package whose Composition `memory` has another input."""
    return replace(package, compositions=tuple(_changed(one, fields) for one in package.compositions))


def _changed(composition: Object, fields: Object) -> Object:
    if composition["metadata"]["name"] != "memory":
        return composition
    [step] = composition["spec"]["pipeline"]
    pipeline = [step | {"input": step["input"] | fields}]
    return composition | {"spec": {**composition["spec"], "pipeline": pipeline}}


def test_a_claim_becomes_a_composite_with_a_name_that_stays(
    cluster: Cluster, package: Package, crossplane: Crossplane, claim: Object
) -> None:
    claim["metadata"] |= {
        "labels": {"team": "a", "app.kubernetes.io/name": "stays"},
        "annotations": {"memory.proompteng.ai/retry": "1", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }
    apply(cluster, package, claim)
    composite = memory(crossplane.reconcile()).composite
    name = composite["metadata"]["name"]
    assert name.startswith("notes-")
    assert composite["metadata"]["labels"] == {
        "team": "a",
        "crossplane.io/claim-name": "notes",
        "crossplane.io/claim-namespace": "team-a",
        "crossplane.io/composite": name,
    }
    assert composite["metadata"]["annotations"] == {"memory.proompteng.ai/retry": "1"}
    reference = {"apiVersion": API_VERSION, "kind": "Memory", "namespace": "team-a", "name": "notes"}
    assert composite["spec"]["claimRef"] == reference
    again = memory(crossplane.reconcile()).composite
    assert (again["metadata"]["name"], again["metadata"]["uid"]) == (name, composite["metadata"]["uid"])


def test_a_change_of_the_claim_reaches_the_composite(
    cluster: Cluster, package: Package, crossplane: Crossplane, claim: Object
) -> None:
    claim["metadata"]["annotations"] = {"memory.proompteng.ai/retry": "1"}
    apply(cluster, package, claim)
    crossplane.reconcile()
    del claim["metadata"]["annotations"]
    claim["spec"]["access"] = {"readOnlySecret": True}
    apply(cluster, package, claim)
    composite = memory(crossplane.reconcile()).composite
    assert composite["spec"]["access"] == {"readOnlySecret": True}
    assert "annotations" not in composite["metadata"]


def test_composed_objects_belong_to_their_composite(
    cluster: Cluster, package: Package, crossplane: Crossplane, claim: Object, provider: Object
) -> None:
    apply(cluster, package, provider, claim)
    crossplane.reconcile()
    composite = memory(crossplane.reconcile()).composite
    references = composite["spec"]["resourceRefs"]
    bodies = [cluster.require(Key(one["apiVersion"], one["kind"], one["namespace"], one["name"])) for one in references]
    assert {"Job", "Secret", "ConfigMap"} <= {one["kind"] for one in bodies}
    for body in bodies:
        [owner] = body["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (composite["metadata"]["uid"], True)
        labels = body["metadata"]["labels"]
        assert labels["crossplane.io/composite"] == composite["metadata"]["name"]
        assert (labels["crossplane.io/claim-namespace"], labels["crossplane.io/claim-name"]) == ("team-a", "notes")


def test_reconciling_comes_to_rest(
    cluster: Cluster, package: Package, crossplane: Crossplane, claim: Object, provider: Object
) -> None:
    apply(cluster, package, provider, claim)
    for _ in range(3):
        crossplane.reconcile()
    revision = cluster.revision
    reconciled = crossplane.reconcile()
    assert cluster.revision == revision
    assert [event for one in reconciled for event in one.events] == []


def test_an_object_that_somebody_deleted_comes_back_under_its_name(
    cluster: Cluster, package: Package, crossplane: Crossplane, claim: Object, provider: Object
) -> None:
    apply(cluster, package, provider, claim)
    crossplane.reconcile()
    key = key_of(cluster.list("v1", "ConfigMap")[0])
    cluster.delete(key)
    crossplane.reconcile()
    assert cluster.get(key)


def test_what_is_not_desired_any_more_is_deleted(
    cluster: Cluster, package: Package, crossplane: Crossplane, provider: Object
) -> None:
    apply(cluster, package, provider)
    crossplane.reconcile()
    [composite] = cluster.list(API_VERSION, "XMemoryProvider")
    stray = Key("v1", "ConfigMap", "databases", "stray")
    annotations = {"crossplane.io/composition-resource-name": "an-earlier-version-made-it"}
    metadata = {"name": stray.name, "namespace": stray.namespace, "annotations": annotations}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "namespace": stray.namespace, "name": stray.name}
    references = [*composite["spec"]["resourceRefs"], reference]
    cluster.patch(key_of(composite), {"spec": {"resourceRefs": references}})
    crossplane.reconcile()
    assert cluster.get(stray) is None


def test_status_and_conditions_reach_the_claim(
    cluster: Cluster, package: Package, crossplane: Crossplane, claim: Object
) -> None:
    apply(cluster, package, claim)
    composite = memory(crossplane.reconcile()).composite
    told = cluster.require(CLAIM)
    assert condition(told, "ProviderReady")["reason"] == "NotFound"
    assert (condition(told, "Ready")["status"], condition(told, "Synced")["status"]) == ("False", "True")
    assert "ProviderReady" in composite["status"]["claimConditionTypes"]
    assert 'there is no provider "pg"' in complaint(composite)


def test_a_composite_without_a_claim_is_reconciled_too(
    cluster: Cluster, package: Package, crossplane: Crossplane, claim: Object, provider: Object
) -> None:
    composite = {**claim, "kind": "XMemory", "metadata": {"name": "notes"}}
    apply(cluster, package, provider, composite)
    reconciled = memory(crossplane.reconcile())
    assert reconciled.composite["metadata"]["name"] == "notes"
    assert "claimRef" not in reconciled.composite["spec"]
    assert any(key.startswith("provision-") for key in memory(crossplane.reconcile()).resources)


def test_a_provider_that_asks_for_labels_is_shown_the_namespace(
    cluster: Cluster, package: Package, crossplane: Crossplane, provider: Object, claim: Object
) -> None:
    selector = {"matchLabels": {"memory": "allowed"}}
    provider["spec"]["allowedConsumers"] = {"namespaces": {"from": "Selector", "selector": selector}}
    apply(cluster, package, provider, claim)
    assert 'there is no Namespace "team-a" to look at' in complaint(memory(crossplane.reconcile()).composite)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", "labels": {}}}
    cluster.apply(namespace)
    assert 'not namespace "team-a"' in complaint(memory(crossplane.reconcile()).composite)
    cluster.apply({**namespace, "metadata": {"name": "team-a", "labels": selector["matchLabels"]}})
    assert "provision" in str(memory(crossplane.reconcile()).resources)
    cluster.apply(namespace)
    assert "provision" in str(memory(crossplane.reconcile()).resources), "what is there stays"


def test_a_fatal_result_keeps_everything_and_makes_conditions_unknown(
    cluster: Cluster, package: Package, channel: grpc.Channel, claim: Object, provider: Object
) -> None:
    apply(cluster, package, provider, claim)
    pipeline = function.Pipeline(channel, cluster)
    before = memory(Crossplane(cluster, package, pipeline).reconcile()).composite
    objects = cluster.list("v1", "Secret")
    after = memory(Crossplane(cluster, with_input(package, invented=True), pipeline).reconcile()).composite
    assert condition(after, "Synced")["reason"] == "ReconcileError"
    assert 'pipeline step "memory" returned a fatal result' in condition(after, "Synced")["message"]
    assert condition(before, "ProviderReady")["status"] == "False"
    assert condition(after, "ProviderReady")["status"] == "Unknown"
    assert cluster.list("v1", "Secret") == objects
    assert "invented" in complaint(after)


def test_a_missing_credential_is_a_reconcile_error(
    cluster: Cluster, package: Package, crossplane: Crossplane, claim: Object
) -> None:
    cluster.delete(secret_key("crossplane-system", "memory-root-key"))
    apply(cluster, package, claim)
    said = complaint(memory(crossplane.reconcile()).composite)
    assert 'cannot get credential "root-key": there is no Secret crossplane-system/memory-root-key' in said


def test_another_function_in_the_pipeline_is_a_reconcile_error(
    cluster: Cluster, package: Package, channel: grpc.Channel, claim: Object
) -> None:
    composition = package.composition({**claim, "kind": "XMemory"})
    step = {**composition["spec"]["pipeline"][0], "functionRef": {"name": "function-other"}}
    changed = {**composition, "spec": {**composition["spec"], "pipeline": [step]}}
    package = replace(package, compositions=(changed,))
    apply(cluster, package, claim)
    crossplane = Crossplane(cluster, package, function.Pipeline(channel, cluster))
    said = complaint(memory(crossplane.reconcile()).composite)
    assert 'step "memory" calls function "function-other": memoryctl runs function-memory only' in said


def test_a_function_that_does_not_start_is_a_sentence(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as output:
        child = subprocess.Popen([sys.executable, "-c", "raise SystemExit('no such port')"], stderr=output)
    address = "127.0.0.1:1"
    with grpc.insecure_channel(address, options=function.CHANNEL) as channel:
        process = function.Process(child, address, channel, log)
        with pytest.raises(UserError, match=r"the function does not start, see .*: no such port"):
            process.wait_ready()
    child.wait()


def test_functions_of_two_laptops_are_in_nobody_s_way(tmp_path: Path) -> None:
    """A pod of the function serves metrics on 8080, a port that anybody's program on a laptop likes."""
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # by somebody else, which is as good
            taken.bind(("127.0.0.1", 8080))
            taken.listen()
        with function.process(tmp_path / "one") as one, function.process(tmp_path / "two") as two:
            one.wait_ready()
            two.wait_ready()
            assert one.address != two.address


def test_a_function_that_is_gone_is_a_reconcile_error(
    cluster: Cluster, package: Package, tmp_path: Path, claim: Object
) -> None:
    apply(cluster, package, claim)
    with function.process(tmp_path / "log") as process:
        process.wait_ready()
        function.stop(process.child)
        crossplane = Crossplane(cluster, package, function.Pipeline(process.channel, cluster))
        said = complaint(memory(crossplane.reconcile()).composite)
    assert "cannot call function function-memory: UNAVAILABLE" in said
