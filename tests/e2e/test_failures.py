"""Whatever is killed, nothing is lost, and it ends Ready with nobody's help."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e import database
from tests.e2e.client import COUNT, App
from tests.e2e.conftest import composite_of, function_pods, ready_memory
from tests.e2e.kube import CNPG, MEMORY, SYSTEM, Kube, is_ready, memory, namespace, says

pytestmark = pytest.mark.e2e

HIBERNATION = "cnpg.io/hibernation"


@pytest.fixture(scope="module")
def in_use(platform: Kube, app: App) -> Iterator[str]:
    """A team whose Memory `calm` is in use while all this happens."""
    name = f"e2e-{os.getpid()}-calm"
    platform.apply(namespace(name), memory(name, "calm"))
    ready_memory(platform, name, "calm")
    app(name, "calm-memory")
    yield name
    platform.delete(MEMORY, "calm", name)
    platform.delete("namespace", name)


@pytest.fixture
def bystander(platform: Kube, in_use: str, app: App) -> Iterator[str]:
    """That team, which must not notice anything: the same composite, the same objects, the same data."""
    before = composite_of(platform, in_use, "calm")
    yield in_use
    ready_memory(platform, in_use, "calm")
    after = composite_of(platform, in_use, "calm")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["resourceRefs"] == before["spec"]["resourceRefs"]
    # A database that was killed may come back later than what was to be Ready before that.
    _, log = platform.until("the app reads", lambda: succeeded(app.outcome(in_use, "calm-memory", COUNT)))
    assert json.loads(log)["events"] == 1


def succeeded(outcome: tuple[int, str]) -> tuple[int, str] | None:
    """Give the outcome of a run that went well."""
    return outcome if outcome[0] == 0 else None


def kill(kube: Kube, namespace: str, *selector: str) -> None:
    """End pods at once, as a lost node does: no grace."""
    kube("delete", "pod", "-n", namespace, *selector, "--force", "--grace-period=0", "--wait=false")


@contextmanager
def locked(kube: Kube, table: str) -> Iterator[None]:
    """Hold a table, so that whoever works on it waits."""
    # The server ends what is left when the connection is cut, after a sentence at the latest.
    script = f"BEGIN; LOCK TABLE {table}; SELECT 'held'; SELECT pg_sleep(300)"
    process = subprocess.Popen(
        ["kubectl", *database.psql(kube, "-f", "-")],
        env=kube.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    for statement in script.split("; "):
        process.stdin.write(statement + ";\n")
    process.stdin.flush()
    assert process.stdout.readline().strip() == "held"
    try:
        yield
    finally:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300);'"
        database.ask(kube, ended)
        process.communicate(timeout=30)


def test_the_pod_of_a_job_is_killed_midway(platform: Kube, team: Callable[[], str], app: App) -> None:
    """The second Job of a Memory waits at a table that somebody holds, is killed there, and its next pod finishes."""
    name = team()
    platform.apply(memory(name, "hit"))
    schema = ready_memory(platform, name, "hit")["spec"]["dataset"]["schema"]
    app(name, "hit-memory")
    labels = {"memory.proompteng.ai/claim-namespace": name, "app.kubernetes.io/component": "provision"}
    with locked(platform, f"{schema}.memory_events"):
        platform.apply(memory(name, "hit", access={"readOnlySecret": True}))

        def at_work() -> str | None:
            pods = platform.list("pods", labels=labels)
            names: list[str] = [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running"]
            return names[0] if names else None

        victim = platform.until("the second Job's pod runs", at_work)
        wait_for_lock(platform)
        kill(platform, database.NAMESPACE, victim)
        platform.until("another pod takes over", lambda: at_work() not in {None, victim} or None)
    ready_memory(platform, name, "hit")
    assert app(name, "hit-memory-reader", COUNT)["events"] == 1


def wait_for_lock(kube: Kube) -> None:
    """Wait until somebody in the database waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    kube.until("the Job waits for the table", lambda: database.ask(kube, query) != "0" or None)


def test_a_claim_that_is_made_while_the_database_is_down(
    platform: Kube, team: Callable[[], str], bystander: str
) -> None:
    """It becomes Ready after the outage, with nobody's help; what was Ready before stays so."""
    name = team()
    platform("annotate", CNPG, database.NAME, "-n", database.NAMESPACE, f"{HIBERNATION}=on", "--overwrite")
    try:
        gone = {"cnpg.io/cluster": database.NAME}
        platform.until("the database is down", lambda: not platform.list("pods", database.NAMESPACE, gone) or None)
        platform.apply(memory(name, "patient"))
        platform.until(
            "the claim says that its Job runs",
            lambda: says(platform.get(MEMORY, "patient", name), "Provisioned") == "False/Running" or None,
        )
        assert not is_ready(platform.get(MEMORY, "patient", name))
        assert is_ready(platform.get(MEMORY, "calm", bystander))
    finally:
        platform("annotate", CNPG, database.NAME, "-n", database.NAMESPACE, f"{HIBERNATION}=off", "--overwrite")
    ready_memory(platform, name, "patient")


@pytest.mark.usefixtures("bystander")
def test_the_functions_pods_are_killed_while_twenty_claims_are_applied(platform: Kube, team: Callable[[], str]) -> None:
    name = team()
    for number in range(20):
        platform.apply(memory(name, f"claim-{number}"))
        if number % 4 == 0:
            kill(platform, SYSTEM, *(pod["metadata"]["name"] for pod in function_pods(platform)))
    platform.until(
        "all twenty are Ready",
        lambda: sum(is_ready(claim) for claim in platform.list(MEMORY, name)) == 20 or None,
        240,
    )


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("moment", [0.0, 0.8, 2.0], ids="after {} s".format)
@pytest.mark.parametrize(
    "pods",
    [
        pytest.param((SYSTEM, "-l", "app=crossplane"), id="crossplane"),
        pytest.param((SYSTEM, "-l", "pkg.crossplane.io/function"), id="function"),
        pytest.param(("cnpg-system", "--all"), id="database-operator"),
        pytest.param(("databases", "-l", "cnpg.io/cluster=memory-db"), id="database"),
        pytest.param(("databases", "-l", "app.kubernetes.io/component=provision"), id="job"),
    ],
)
def test_any_pod_may_die_at_any_moment(
    platform: Kube, team: Callable[[], str], pods: tuple[str, ...], moment: float
) -> None:
    name = team()
    platform.apply(memory(name, "tough"))
    time.sleep(moment)
    kill(platform, *pods)
    ready_memory(platform, name, "tough", seconds=240)
