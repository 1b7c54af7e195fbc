"""The last test: everything is taken away as docs/install.md says, and the data is still there."""

import subprocess
from collections.abc import Mapping

import pytest

from tests.e2e import database, guide
from tests.e2e.client import App
from tests.e2e.conftest import ready_memory
from tests.e2e.kube import GROUP, Kube, memory, namespace, says

pytestmark = pytest.mark.e2e


def test_uninstalling_loses_no_data(platform: Kube, environment: Mapping[str, str], app: App) -> None:
    platform.apply(namespace("e2e-last"), memory("e2e-last", "last"))
    schema = ready_memory(platform, "e2e-last", "last")["spec"]["dataset"]["schema"]
    app("e2e-last", "last-memory")

    guide.follow("Uninstall", environment)

    crds = [crd["metadata"]["name"] for crd in platform.list("crds")]
    assert not [name for name in crds if name.endswith(GROUP)]
    # Crossplane's own roles for our kinds go with the XRDs, by the garbage collector.
    platform.until("nothing of ours is left", lambda: not left_overs(platform) or None)
    assert database.ask(platform, f"SELECT count(*) FROM {schema}.memory_events") == "1"
    platform("delete", "namespace", "e2e-last", "databases", "--timeout=120s")


def left_overs(kube: Kube) -> list[str]:
    """Names of cluster-scoped objects that an installation makes."""
    kinds = ("functions.pkg.crossplane.io", "configurations.pkg.crossplane.io", "clusterroles")
    names = [one["metadata"]["name"] for kind in kinds for one in kube.list(kind)]
    return [name for name in names if "memory" in name]


def test_the_configuration_brings_its_function(kube: Kube, environment: Mapping[str, str]) -> None:
    """By the CLI and with nothing else: Crossplane names the dependency as the Compositions do."""
    package = f"{environment['REGISTRY']}/configuration-memory:{environment['VERSION']}"
    command = ["crossplane", "xpkg", "install", "configuration", package, "--wait=3m"]
    done = subprocess.run(
        command, env=kube.environment() | dict(environment), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kube.until("the function is Healthy", lambda: all_healthy(kube) or None)
    named = {
        step["functionRef"]["name"]
        for composition in kube.list("compositions")
        for step in composition["spec"]["pipeline"]
    }
    [function] = kube.list("functions.pkg.crossplane.io")
    assert named == {function["metadata"]["name"]}
    guide.follow("Uninstall", environment)


def all_healthy(kube: Kube) -> bool:
    """Whether packages are there, and Healthy."""
    packages = [*kube.list("functions.pkg.crossplane.io"), *kube.list("configurations.pkg.crossplane.io")]
    return len(packages) > 1 and all(says(one, "Healthy").startswith("True/") for one in packages)
