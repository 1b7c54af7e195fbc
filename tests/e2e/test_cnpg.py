"""CloudNativePG alone: a provider without any admin's Secret, a database for each Memory, and a pooler before them."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.e2e import guide
from tests.e2e.client import CONNECT, COUNT, App, pod
from tests.e2e.conftest import composite_of, default_postgres, ready_memory, told
from tests.e2e.kube import CNPG, COMPOSITE, GROUP, MEMORY, PROVIDER, Body, Kube, is_ready, memory, namespace
from tests.e2e.test_maintenance import OLD, ended, start
from tests.e2e.times import Measured
from tests.servers import require

pytestmark = pytest.mark.e2e

READY_SECONDS = 20
REFUSED_SECONDS = 10
EXAMPLE = guide.ROOT / "examples" / "cloudnative-pg"

# Says when the login was refused, as the node's clock has it; it was let in before.
REFUSED = """
import time
print("in", flush=True)
limit = time.time() + 120
while time.time() < limit:
    try:
        psycopg.connect(
            host=host, port=port, dbname=binding["database"], user=binding["username"], password=binding["password"],
            sslmode="verify-full", sslrootcert=str(tls), connect_timeout=5,
        ).close()
    except psycopg.OperationalError as error:
        print(json.dumps({"at": time.time(), "said": str(error)}))
        break
    time.sleep(0.1)
try:
    ask("SELECT count(*) FROM memory_read(%s)", binding["dataset"])
    raise SystemExit("the open session reads on")
except psycopg.Error as error:
    print(json.dumps({"open": type(error).__name__}))
"""


@dataclass(frozen=True)
class Managed:
    """A Cluster of its own, and a provider that names it and no Secret."""

    kube: Kube
    namespace: str
    provider: str
    cluster: str

    def ask(self, query: str) -> str:
        """Give what a query answers to the superuser beside the server."""
        primary = self.kube.get(CNPG, self.cluster, self.namespace)["status"]["currentPrimary"]
        where = ["exec", "-n", self.namespace, primary, "-c", "postgres"]
        return self.kube(*where, "--", "psql", "-Atq", "-d", "postgres", "-c", query).strip()

    def claim(self, team: str, name: str, **spec: Any) -> Body:
        """A claim on it."""
        return memory(team, name, self.provider, schema=name, **spec)


@pytest.fixture(scope="module")
def managed(installed: Kube, measured: Measured) -> Iterator[Managed]:
    if image := os.environ.get("MEMORY_POSTGRES_IMAGE"):
        default_postgres(installed, image)
    place = Managed(installed, f"managed-{os.getpid()}", f"managed-{os.getpid()}", "memory-db")
    [cluster] = yaml.safe_load_all((EXAMPLE / "cloudnativepg.yaml").read_text())
    provider = yaml.safe_load((EXAMPLE / "provider.yaml").read_text())
    cluster["metadata"]["namespace"] = place.namespace
    cluster["spec"]["certificates"] = {"serverAltDNSNames": [f"memory-pooler.{place.namespace}.svc"]}
    provider["metadata"]["name"] = place.provider
    provider["spec"]["postgres"]["clusterRef"]["namespace"] = place.namespace
    with measured.seconds("a provider without an admin: Cluster Ready, provider Ready"):
        installed.apply(namespace(place.namespace), cluster)
        installed(
            *("-n", place.namespace, "wait", f"{CNPG}/{place.cluster}", "--for=condition=Ready", "--timeout=300s"),
            timeout=320,
        )
        installed.apply(provider)
        installed.until("the provider is Ready", lambda: is_ready(installed.get(PROVIDER, place.provider)) or None)
    yield place
    installed.delete(PROVIDER, place.provider)
    installed.delete(CNPG, place.cluster, place.namespace)
    installed("delete", "namespace", place.namespace, "--wait=false")


def test_a_claim_is_ready_within_20_seconds_and_an_app_uses_it(
    managed: Managed, team: Callable[[], str], app: App, measured: Measured
) -> None:
    name = team()
    started = time.monotonic()
    with measured.seconds("CNPG: claim to Ready"):
        managed.kube.apply(managed.claim(name, "notes"))
        ready_memory(managed.kube, name, "notes")
    assert time.monotonic() - started <= READY_SECONDS
    assert app(name, "notes-memory") == {"events": 1, "found": ["bakery", "harbour", "orchard"], "mood": "sunny"}
    held = managed.kube.get(MEMORY, "notes", name)["status"]
    assert held["database"].startswith("mem_")
    assert held["provider"]["roleManagement"] == "CNPG"


def test_no_admins_secret_is_in_use(managed: Managed, team: Callable[[], str]) -> None:
    """No superuser's Secret is there, and what Jobs mount lets them log in as a Memory's own role, or not at all."""
    name = team()
    managed.kube.apply(managed.claim(name, "notes"))
    ready_memory(managed.kube, name, "notes")
    kube, place = managed.kube, managed.namespace
    assert kube.get(CNPG, managed.cluster, place)["spec"]["enableSuperuserAccess"] is False
    assert kube.find("secret", f"{managed.cluster}-superuser", place) is None
    provider = kube.get(PROVIDER, managed.provider)
    assert "connectionSecret" not in provider["spec"]["postgres"]
    templates = [one["spec"]["template"]["spec"] for one in kube.list("jobs", place)]
    templates += [one["spec"]["jobTemplate"]["spec"]["template"]["spec"] for one in kube.list("cronjobs", place)]
    templates += [one["spec"] for one in kube.list("pods", place, {"app.kubernetes.io/managed-by": "function-memory"})]
    mounted = {each["secret"]["name"] for spec in templates for each in sources(spec) if "secret" in each}
    users = set()
    for secret in mounted:
        found = kube.find("secret", secret, place)
        data = found["data"] if found else {}
        assert "ca.key" not in data or secret == f"{managed.cluster}-ca"
        if "username" in data:
            users.add(kube("get", "secret", secret, "-n", place, "-o", "go-template={{.data.username | base64decode}}"))
    assert users
    assert all(user.startswith("mem_") and user.endswith("_job") for user in users), users
    powers = managed.ask("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'mem\\_%' AND (rolsuper OR rolcreaterole)")
    assert powers == "0"


def sources(spec: Body) -> list[Body]:
    """What a pod's volumes are made of."""
    return [each for volume in spec["volumes"] for each in volume.get("projected", {"sources": [volume]})["sources"]]


def test_rotation_by_epoch(managed: Managed, team: Callable[[], str], app: App) -> None:
    """The Secret changes when the new login is let in; the old one goes on until the next rotation."""
    name = team()
    managed.kube.apply(managed.claim(name, "turn"))
    ready_memory(managed.kube, name, "turn")
    old = keep(managed.kube, name, "turn-memory", "turn-0")
    assert app(name, "turn-memory")["events"] == 1
    managed.kube.apply(managed.claim(name, "turn", credentials={"epoch": 1}))
    rotated(managed.kube, name, "turn", 1)
    assert app(name, "turn-memory")["events"] == 2
    assert app(name, old, COUNT) == {"events": 2}, "the old login drains"
    managed.kube.apply(managed.claim(name, "turn", credentials={"epoch": 2}))
    rotated(managed.kube, name, "turn", 2)
    assert app(name, "turn-memory")["events"] == 3
    code, log = app.outcome(name, old, COUNT)
    assert code != 0
    assert "authentication failed" in log


def keep(kube: Kube, team: str, secret: str, name: str) -> str:
    """Copy a Secret, as somebody would who saw it, and give the copy's name."""
    held = kube.get("secret", secret, team)
    kube.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": team}, "data": held["data"]}
    )
    return name


def rotated(kube: Kube, team: str, name: str, epoch: int) -> None:
    """Wait until an epoch is applied and the claim Ready."""

    def look() -> bool | None:
        found = kube.get(MEMORY, name, team)
        return (is_ready(found) and found["status"]["credentials"]["epoch"] == epoch) or None

    kube.until(f"epoch {epoch} is applied", look, 240)


def test_a_deleted_claims_login_is_refused_within_10_seconds_and_its_rows_stay(
    managed: Managed, team: Callable[[], str], app: App, image: str, measured: Measured
) -> None:
    name, kube = team(), managed.kube
    kube.apply(managed.claim(name, "kept"))
    ready_memory(kube, name, "kept")
    assert app(name, "kept-memory")["events"] == 1
    keep(kube, name, "kept-memory", "seen")
    kube("create", "-f", "-", body=pod(name, "thief", "seen", image, CONNECT + REFUSED))
    kube.until("it is in", lambda: "in" in kube.run("logs", "thief", "-n", name).stdout.split() or None)
    started = time.time()
    kube.delete(MEMORY, "kept", name)
    kube.until("it ends", lambda: kube.get("pod", "thief", name)["status"]["phase"] in {"Succeeded", "Failed"} or None)
    log = kube("logs", "thief", "-n", name).splitlines()
    assert len(log) == 3, log
    refused = json.loads(log[1])
    measured.note("CNPG: deletion of a claim to its login being refused", f"{refused['at'] - started:.1f} s")
    assert refused["at"] - started <= REFUSED_SECONDS
    # The role may go in the moment in which its login has just been checked.
    assert re.search("authentication failed|role .* does not exist", refused["said"])
    assert "open" in json.loads(log[2]), "an open session has no rights any more"

    kube.apply(managed.claim(name, "kept"))
    told(kube, name, "kept", "Provisioned", "False/AdoptionRequired")
    assert kube.find("secret", "kept-memory", name) is None
    kube.apply(managed.claim(name, "kept", adopt=True))
    ready_memory(kube, name, "kept")
    assert app(name, "kept-memory", COUNT) == {"events": 1}


def test_delete_drops_the_database(managed: Managed, team: Callable[[], str], app: App) -> None:
    name, kube = team(), managed.kube
    kube.apply(managed.claim(name, "gone", deletionPolicy="Delete"))
    database = ready_memory(kube, name, "gone")["status"]["database"]
    assert app(name, "gone-memory")["events"] == 1
    there = f"SELECT count(*) FROM pg_database WHERE datname = '{database}'"
    object_name = database.replace("_", "-")
    kube.until("its policy is the claim's", lambda: policy(managed, object_name) == "delete" or None)
    assert managed.ask(there) == "1"
    kube.delete(MEMORY, "gone", name)
    kube.until("the database is dropped", lambda: managed.ask(there) == "0" or None)


def policy(managed: Managed, database: str) -> str:
    found: str = managed.kube.get("databases.postgresql.cnpg.io", database, managed.namespace)["spec"][
        "databaseReclaimPolicy"
    ]
    return found


def test_a_claim_that_was_refused_the_rows_of_an_earlier_one_never_drops_them(
    managed: Managed, team: Callable[[], str], app: App
) -> None:
    name, kube = team(), managed.kube
    kube.apply(managed.claim(name, "mine"))
    database = ready_memory(kube, name, "mine")["status"]["database"]
    assert app(name, "mine-memory")["events"] == 1
    kube.delete(MEMORY, "mine", name)
    kube.apply(managed.claim(name, "mine", deletionPolicy="Delete"))
    told(kube, name, "mine", "Provisioned", "False/AdoptionRequired")
    kube.delete(MEMORY, "mine", name)
    assert managed.ask(f"SELECT count(*) FROM pg_database WHERE datname = '{database}'") == "1"


def test_nothing_waits_or_fails_for_what_it_needs(managed: Managed, team: Callable[[], str]) -> None:
    """No event of Crossplane's or of CloudNativePG's speaks of it, and no object says so in the end."""
    name, kube = team(), managed.kube
    kube.apply(managed.claim(name, "calm"))
    ready_memory(kube, name, "calm")
    composite = composite_of(kube, name, "calm")["metadata"]["name"]
    bad = ("cannot compose", "cannot apply", "does not exist", "forbidden", "NotApplied", "not found")
    ours = {composite, "calm", *(ref["name"] for ref in kube.get(COMPOSITE, composite)["spec"]["resourceRefs"])}
    for event in kube.list("events"):
        if event["involvedObject"].get("name") in ours:
            assert not any(word in f"{event['reason']} {event['message']}" for word in bad), event["message"]
    for kind in ("databaseroles.postgresql.cnpg.io", "databases.postgresql.cnpg.io"):
        for body in kube.list(kind, managed.namespace):
            assert body["status"]["applied"], body["metadata"]["name"]


@pytest.fixture
def pooled(managed: Managed) -> Iterator[str]:
    """A provider whose apps go through a Pooler of CloudNativePG's."""
    image = require(os.environ.get("MEMORY_PGBOUNCER_IMAGE"), "MEMORY_PGBOUNCER_IMAGE names no image of PgBouncer")
    kube, name = managed.kube, f"pooled-{os.getpid()}"
    pooler = {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Pooler",
        "metadata": {"name": "memory-pooler", "namespace": managed.namespace},
        "spec": {
            "cluster": {"name": managed.cluster},
            "instances": 1,
            "type": "rw",
            "pgbouncer": {"poolMode": "session", "image": image},
        },
    }
    kube.apply(pooler)
    where = ("-n", managed.namespace)
    kube.until("the pooler runs", lambda: ready_replicas(kube, managed.namespace, "memory-pooler"))
    held = kube.get(PROVIDER, managed.provider)["spec"]["postgres"]
    postgres = {**held, "pooler": {"host": f"memory-pooler.{managed.namespace}.svc"}}
    spec = {"type": "postgres", "postgres": postgres}
    kube.apply({"apiVersion": f"{GROUP}/v1alpha1", "kind": "XMemoryProvider", "metadata": {"name": name}, "spec": spec})
    kube.until("the provider is Ready", lambda: is_ready(kube.get(PROVIDER, name)) or None)
    yield name
    kube.delete(PROVIDER, name)
    kube("delete", "poolers.postgresql.cnpg.io", "memory-pooler", *where)


def ready_replicas(kube: Kube, place: str, name: str) -> Mapping[str, Any] | None:
    """A Deployment whose pods are ready."""
    found = kube.find("deployment", name, place)
    return found if found and found["status"].get("readyReplicas") else None


def test_an_app_writes_through_a_pooler(managed: Managed, pooled: str, team: Callable[[], str], app: App) -> None:
    name, kube = team(), managed.kube
    kube.apply(memory(name, "pool", pooled, schema="pool"))
    ready_memory(kube, name, "pool")
    host = kube("get", "secret", "pool-memory", "-n", name, "-o", "go-template={{.data.host | base64decode}}")
    assert host == f"memory-pooler.{managed.namespace}.svc"
    assert app(name, "pool-memory")["events"] == 1
    assert app(name, "pool-memory", COUNT) == {"events": 1}
    kube.delete(MEMORY, "pool", name)


def test_maintenance_of_a_memory_logs_in_as_its_own_role(managed: Managed, team: Callable[[], str], app: App) -> None:
    """No login may work on all of them there, so each Memory has a CronJob of its own."""
    name, kube = team(), managed.kube
    kube.apply(managed.claim(name, "notes", retention={"ttlDays": 1}))
    ready_memory(kube, name, "notes")
    app(name, "notes-memory", OLD)
    labels = {f"{GROUP}/claim-namespace": name, "app.kubernetes.io/component": "maintain"}
    [source] = kube.until("its CronJob", lambda: kube.list("cronjobs", managed.namespace, labels) or None)
    assert ended(kube, start(kube, source), managed.namespace)["code"] == 0
    found = told(kube, name, "notes", "InSync", "True/InSync")
    assert found["status"]["retention"]["deleted"] == 2500
    assert [each for each in kube.list("cronjobs", managed.namespace) if _is_providers(each)] == []


def _is_providers(cronjob: Body) -> bool:
    labels = cronjob["metadata"]["labels"]
    return labels["app.kubernetes.io/component"] == "maintain" and f"{GROUP}/claim-name" not in labels
