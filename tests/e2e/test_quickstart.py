"""The main story: install, a provider, a claim, an app."""

import time
from collections.abc import Callable, Mapping

import pytest
import yaml

from tests.e2e import guide
from tests.e2e.client import App
from tests.e2e.conftest import composite_of, function_pods, ready_memory
from tests.e2e.kube import COMPOSITE, MEMORY, PROVIDER, Kube, is_ready, memory, says
from tests.e2e.times import Measured

pytestmark = pytest.mark.e2e

LIMIT_SECONDS = 15


def test_the_packages_are_healthy(installed: Kube) -> None:
    for kind in ("functions.pkg.crossplane.io", "configurations.pkg.crossplane.io"):
        [package] = [one for one in installed.list(kind) if one["metadata"]["name"].endswith("-memory")]
        assert says(package, "Healthy").startswith("True/")


def test_the_functions_pods_are_as_the_runtime_config_says(platform: Kube, team: Callable[[], str]) -> None:
    """And a namespace that enforces *restricted* would take them."""
    pods, name = function_pods(platform), team()
    assert len(pods) == 2
    for pod in pods:
        [container] = pod["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]
        spec = pod["spec"] | {"serviceAccountName": "default", "serviceAccount": "default"}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "same", "namespace": name}, "spec": spec}
        platform("create", "--dry-run=server", "-f", "-", body=body)


def test_the_guide_leads_to_a_memory_that_an_app_uses(
    platform: Kube, environment: Mapping[str, str], app: App, measured: Measured
) -> None:
    """The quick start's own example, on CloudNativePG's own cluster."""
    assert is_ready(platform.get(PROVIDER, "pg"))
    with measured.seconds("first Memory: claim Ready, and an app's pod has used it"):
        guide.follow("First Memory", environment)
    claim = yaml.safe_load((guide.ROOT / "examples/quickstart/claim.yaml").read_text())["metadata"]
    found = platform.get(MEMORY, claim["name"], claim["namespace"])
    assert is_ready(found)
    assert found["status"]["connectionSecretRef"] == {"name": "notes-memory", "namespace": claim["namespace"]}
    used = app(claim["namespace"], "notes-memory")
    assert used["events"] >= 1
    assert used["found"][0] == "bakery"
    assert used["mood"] == "sunny"


def test_a_claim_is_ready_within_15_seconds(platform: Kube, team: Callable[[], str], measured: Measured) -> None:
    """With warm images, from the moment of `kubectl apply`."""
    name = team()
    started = time.monotonic()
    with measured.seconds("claim to Ready"):
        platform.apply(memory(name, "quick"))
        ready_memory(platform, name, "quick")
    assert time.monotonic() - started <= LIMIT_SECONDS


def test_conditions_and_status_are_on_the_claim(platform: Kube, team: Callable[[], str]) -> None:
    """The app team sees them where it looks, the same as on the composite."""
    name = team()
    platform.apply(memory(name, "seen"))
    claim, composite = ready_memory(platform, name, "seen"), composite_of(platform, name, "seen")
    for kind in ("ProviderReady", "CredentialsReady", "Provisioned"):
        assert says(claim, kind).startswith("True/"), kind
        assert says(claim, kind) == says(composite, kind)
    assert claim["status"]["provider"]["name"] == "pg"
    assert claim["status"]["binding"] == {"name": "seen-memory"}
    columns = platform("get", MEMORY, "seen", "-n", name).splitlines()[0].split()
    assert columns == ["NAME", "PROVIDER", "TYPE", "SCHEMA", "SECRET", "SYNCED", "READY", "CONNECTION-SECRET", "AGE"]


def test_a_composite_without_a_claim_has_its_secret_written_where_it_says(
    platform: Kube, team: Callable[[], str], app: App
) -> None:
    """Crossplane writes it then, from the function's connection details."""
    name = team()
    body = memory(name, "bare")
    body |= {"kind": "XMemory", "metadata": {"name": f"bare-{name}"}}
    body["spec"] |= {"writeConnectionSecretToRef": {"name": "bare", "namespace": name}}
    platform.apply(body)
    platform.until("it is Ready", lambda: is_ready(platform.get(COMPOSITE, f"bare-{name}")) or None)
    assert app(name, "bare")["events"] == 1
    platform.delete(COMPOSITE, f"bare-{name}")
    platform.until("its Secret is gone", lambda: platform.find("secret", "bare", name) is None or None)
