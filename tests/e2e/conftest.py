"""What the end-to-end scenarios share: a database with the provider `pg`, teams, and an app in the cluster."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import guide
from tests.e2e.client import App
from tests.e2e.kube import COMPOSITE, GROUP, MEMORY, PROVIDER, SYSTEM, Body, Kube, is_ready, namespace, says
from tests.e2e.times import MEASURED, Measured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# What disturbs everybody comes last, and the very last test takes everything away.
_ORDER = (
    "test_images", "test_quickstart", "test_tenants", "test_specs", "test_homes", "test_rotation", "test_reaper",
    "test_maintenance", "test_memoryctl", "test_backends", "test_cnpg",
    "test_load", "test_failures", "test_policy", "test_upgrade", "test_uninstall", "test_v1",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules of this folder into their order, whatever the order on the command line.

    Other folders' tests of the same cluster come after the quick start, which measures a cluster that is new.
    """
    here = Path(__file__).parent
    others = _ORDER.index("test_quickstart") + 0.5

    def place(item: pytest.Item) -> float:
        return _ORDER.index(item.path.stem) if item.path.parent == here else others

    items.sort(key=place)
    if os.environ.get("E2E_V1"):
        only_here = pytest.mark.skip(reason="E2E_V1=1 has Crossplane v1.20, where only test_v1 makes sense")
        for item in items:
            if item.path.stem != "test_v1":
                item.add_marker(only_here)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Report what was measured."""
    rows = config.stash.get(MEASURED, {})
    if rows:
        terminalreporter.section("measured")
    for what, value in rows.items():
        terminalreporter.write_line(f"{value:>10}  {what}")


@pytest.fixture(scope="session")
def platform(installed: Kube, environment: Mapping[str, str], measured: Measured) -> Kube:
    """The cluster with the guide's database and the provider `pg`, which serves every namespace."""
    image = os.environ.get("MEMORY_POSTGRES_IMAGE")
    if image:
        default_postgres(installed, image)
    with measured.seconds("a provider: PostgreSQL by CloudNativePG, provider Ready"):
        guide.follow("A provider", environment)
    return installed


def default_postgres(kube: Kube, image: str) -> None:
    """Make an image the one that CloudNativePG runs when a Cluster names none."""
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cnpg-controller-manager-config", "namespace": "cnpg-system"},
        "data": {"POSTGRES_IMAGE_NAME": image},
    }
    held = kube.find("configmap", "cnpg-controller-manager-config", "cnpg-system")
    if held and held.get("data") == body["data"]:
        return
    kube.apply(body)
    kube("-n", "cnpg-system", "rollout", "restart", "deployment/cnpg-controller-manager")
    kube("-n", "cnpg-system", "rollout", "status", "deployment/cnpg-controller-manager", "--timeout=120s")


@pytest.fixture(scope="session")
def image(installed: Kube) -> str:
    """The migrations image, by the reference that the installed Composition has."""
    [step] = installed.get("composition", "memory")["spec"]["pipeline"]
    reference: str = step["input"]["migrations"]["image"]
    return reference


@pytest.fixture(scope="session")
def app(installed: Kube, image: str) -> App:
    """Runs an app's code in a pod that mounts only the Secret."""
    return App(installed, image)


_teams = itertools.count(1)


@pytest.fixture
def team(platform: Kube) -> Iterator[Callable[[], str]]:
    """Makes namespaces of teams, each enforcing Pod Security *restricted*; all go with their claims at the end."""
    made: list[str] = []

    def new() -> str:
        made.append(f"e2e-{os.getpid()}-{next(_teams)}")
        platform.apply(namespace(made[-1]))
        return made[-1]

    yield new
    for name in made:
        platform("delete", MEMORY, "--all", "-n", name, "--timeout=120s")
        platform("delete", "namespace", name, "--wait=false")


def composite_of(kube: Kube, team: str, name: str) -> dict[str, Any]:
    """Give the composite of a claim."""
    claim = kube.get(MEMORY, name, team)
    return kube.get(COMPOSITE, claim["spec"]["resourceRef"]["name"])


def ready_memory(kube: Kube, team: str, name: str, seconds: float = 180) -> Body:
    """Wait until a claim is Ready, and give it."""

    def look() -> Body | None:
        found = kube.get(MEMORY, name, team)
        return found if is_ready(found) else None

    return kube.until(f"Memory {team}/{name} is Ready", look, seconds)


def told(kube: Kube, team: str, name: str, kind: str, said: str, *, seconds: float = 180) -> Body:
    """Wait until a claim's condition says `Status/Reason`, and give the claim."""

    def look() -> Body | None:
        found = kube.get(MEMORY, name, team)
        return found if says(found, kind) == said else None

    return kube.until(f"Memory {team}/{name} says {kind}={said}", look, seconds)


def shared_provider(kube: Kube, name: str, **more: Any) -> Body:
    """A platform team's provider on the same database as `pg`."""
    held = kube.get(PROVIDER, "pg")["spec"]
    spec = {"type": "postgres", "postgres": held["postgres"], **more}
    return {"apiVersion": f"{GROUP}/v1alpha1", "kind": "XMemoryProvider", "metadata": {"name": name}, "spec": spec}


def provide(kube: Kube, name: str, **more: Any) -> None:
    """Apply a provider like `pg` and wait until it is Ready, so that its Memories need not look twice."""
    kube.apply(shared_provider(kube, name, **more))
    kube.until(f"provider {name} is Ready", lambda: is_ready(kube.get(PROVIDER, name)) or None)


def look_again(kube: Kube, team: str, name: str) -> None:
    """Make Crossplane look at a claim's composite now, and not when the function's answer is a minute old."""
    composite = composite_of(kube, team, name)["metadata"]["name"]
    kube("annotate", COMPOSITE, composite, f"looked={time.monotonic_ns()}", "--overwrite")


def function_pods(kube: Kube) -> list[Body]:
    """The pods of the function that the Composition names, without those on their way out."""
    [step] = kube.get("composition", "memory")["spec"]["pipeline"]
    pods = kube.list("pods", SYSTEM, {"pkg.crossplane.io/function": step["functionRef"]["name"]})
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
