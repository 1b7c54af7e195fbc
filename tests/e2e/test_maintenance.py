"""After the first week: old rows go, an index is earned, drift is named; all of it is read on the claim."""

from __future__ import annotations

import itertools
import json
import os
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import database
from tests.e2e.conftest import provide, ready_memory, told
from tests.e2e.kube import MEMORY, PROVIDER, Body, Kube, condition, memory, says

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.client import App
    from tests.e2e.times import Measured

pytestmark = pytest.mark.e2e

# Nobody's clock: the tests run it when they want to.
NEVER = "0 0 1 1 *"
ROWS = 4000

_runs = itertools.count(1)

OLD = """
ask("SELECT FROM memory_append(%s, 'young', '1')", binding["dataset"])
connection.execute(
    "INSERT INTO memory_events (dataset, id, event_type, payload, created_at)"
    " SELECT %s, gen_random_uuid(), 'old', '1', now() - interval '3 days' FROM generate_series(1, 2500)",
    [binding["dataset"]],
)
print(json.dumps({"events": ask("SELECT count(*) FROM memory_events")[0][0]}))
"""
VECTORS = f"""
connection.execute(
    "INSERT INTO memory_embeddings (dataset, key, embedding)"
    " SELECT %s, n::text, (SELECT array_agg(random())::real[] FROM generate_series(1, 1536 + n * 0))::vector"
    " FROM generate_series(1, {ROWS}) n",
    [binding["dataset"]],
)
print(json.dumps(ask("SELECT count(*) FROM memory_embeddings")[0][0]))
"""
EVENTS = """
print(json.dumps([row[0] for row in ask("SELECT DISTINCT event_type FROM memory_events")]))
"""


@pytest.fixture(scope="module")
def provider(platform: Kube) -> Iterator[str]:
    """A provider of our own, so that nobody else's homes are looked after."""
    name = f"kept-{os.getpid()}"
    provide(platform, name, maintenance={"schedule": NEVER})
    yield name
    platform.delete(PROVIDER, name)


def cronjob(kube: Kube, label: str, value: str) -> Body:
    labels = {f"memory.proompteng.ai/{label}": value, "app.kubernetes.io/component": "maintain"}
    [found] = kube.list("cronjobs", database.NAMESPACE, labels)
    return found


def start(kube: Kube, source: Body) -> str:
    """Starts one run of the real CronJob, now."""
    name = f"{source['metadata']['name'][:40]}-{next(_runs)}"
    where = source["metadata"]["namespace"]
    kube("create", "job", "-n", where, name, f"--from=cronjob/{source['metadata']['name']}")
    return name


def ended(kube: Kube, job: str, where: str = database.NAMESPACE) -> dict[str, Any]:
    """Waits for a run, and gives its last line."""
    kube("wait", "-n", where, f"job/{job}", "--for=condition=Complete", "--timeout=180s")
    said: dict[str, Any] = json.loads(kube("logs", "-n", where, f"job/{job}").splitlines()[-1])
    kube.delete("job", job, where)
    return said


def maintain(kube: Kube, provider: str) -> dict[str, Any]:
    said = ended(kube, start(kube, cronjob(kube, "provider", provider)))
    assert said["code"] == 0, said
    return said


def change(kube: Kube, kind: str, name: str, spec: dict[str, Any], *where: str) -> None:
    kube("patch", kind, name, *where, "--type=merge", "-p", json.dumps({"spec": spec}))


def test_ttl_days_of_one_removes_old_rows_within_a_run_and_says_so(
    platform: Kube, provider: str, team: Callable[[], str], app: App, measured: Measured
) -> None:
    name = team()
    platform.apply(memory(name, "aged", provider, retention={"ttlDays": 0}))
    ready_memory(platform, name, "aged")
    assert app(name, "aged-memory", OLD) == {"events": 2501}
    maintain(platform, provider)
    told(platform, name, "aged", "RetentionScheduled", "True/Disabled")
    platform.until("the provider says so", lambda: _maintained(platform, provider) == "True/Available" or None)
    assert sorted(app(name, "aged-memory", EVENTS)) == ["old", "young"]
    change(platform, MEMORY, "aged", {"retention": {"ttlDays": 1}}, "-n", name)
    told(platform, name, "aged", "RetentionScheduled", "True/Scheduled")
    platform.until("the Job for it is complete", lambda: _ttl(platform, name) == "1" or None)
    with measured.seconds("maintenance removes old rows, and the claim says so"):
        maintain(platform, provider)
        found = platform.until("the claim says so", lambda: _removed(platform, name, 2500))
    assert app(name, "aged-memory", EVENTS) == ["young"]
    assert "2500" in condition(found, "RetentionScheduled")["message"]
    assert found["status"]["data"]["rows"] == 1


def _maintained(kube: Kube, provider: str) -> str:
    return says(kube.get(PROVIDER, provider), "MaintenanceReady")


def _ttl(kube: Kube, team: str) -> str:
    return database.ask(kube, f"SELECT ttl_days FROM memory_ledger.homes WHERE identity = '{team}/aged'")


def _removed(kube: Kube, team: str, rows: int) -> Body | None:
    found = kube.get(MEMORY, "aged", team)
    return found if found["status"].get("retention", {}).get("deleted") == rows else None


def test_an_index_is_earned_in_front_of_the_user(
    platform: Kube, provider: str, team: Callable[[], str], app: App, measured: Measured
) -> None:
    name = team()
    platform.apply(memory(name, "grown", provider, embeddings={"index": {"minRows": ROWS}}))
    found = ready_memory(platform, name, "grown")
    assert says(found, "IndexReady") == "True/Exact"
    assert app(name, "grown-memory", VECTORS) == ROWS
    job = start(platform, cronjob(platform, "provider", provider))
    with measured.seconds(f"an index of {ROWS} vectors of 1536 dimensions, seen on the claim"):
        told(platform, name, "grown", "IndexReady", "False/Building")
        found = told(platform, name, "grown", "IndexReady", "True/Ready")
    assert ended(platform, job)["code"] == 0
    found = told(platform, name, "grown", "InSync", "True/InSync")
    assert found["status"]["embeddings"]["index"] == "ready"
    assert found["status"]["embeddings"]["rows"] == ROWS


def test_drift_is_named_on_the_claim_and_repaired_when_the_provider_says_so(
    platform: Kube, provider: str, team: Callable[[], str]
) -> None:
    name = team()
    platform.apply(memory(name, "drifted", provider))
    found = ready_memory(platform, name, "drifted")
    assert says(found, "InSync") == "False/NeverChecked"
    schema = found["spec"]["dataset"]["schema"]
    database.ask(platform, f"DROP INDEX {schema}.memory_embeddings_tsv_idx")
    maintain(platform, provider)
    found = told(platform, name, "drifted", "InSync", "False/Drift")
    assert "index memory_embeddings_tsv_idx is missing" in condition(found, "InSync")["message"]
    assert found["status"]["drift"] == ["index memory_embeddings_tsv_idx is missing"]
    change(platform, PROVIDER, provider, {"maintenance": {"schedule": NEVER, "driftPolicy": "Repair"}})
    platform.until("the CronJob says so", lambda: _repairs(platform, provider) or None)
    maintain(platform, provider)
    told(platform, name, "drifted", "InSync", "True/InSync")
    indexes = (
        f"SELECT count(*) FROM pg_indexes WHERE schemaname = '{schema}' AND indexname = 'memory_embeddings_tsv_idx'"
    )
    assert database.ask(platform, indexes) == "1"


def _repairs(kube: Kube, provider: str) -> bool:
    """Whether the request that the CronJob mounts asks for repair."""
    pod = cronjob(kube, "provider", provider)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [mounted] = [each["secret"]["name"] for each in pod["volumes"][0]["projected"]["sources"][:1]]
    # It may be mounted before it is there: Crossplane applies in no order.
    request = kube.find("secret", mounted, database.NAMESPACE)
    return request is not None and '"driftPolicy":"Repair"' in b64decode(request["data"]["request.json"]).decode()
