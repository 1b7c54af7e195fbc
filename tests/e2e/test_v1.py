"""Crossplane v1.20, with delivery by Objects, and its upgrade to v2 with Memories in place.

Runs with `E2E_V1=1`, and then nothing else does. It takes from the environment, besides what `cluster` says:

- `MEMORY_KUBECONFIG`: a cluster with Crossplane v1.20 and CloudNativePG
- `PROVIDER_KUBERNETES`: the repository that the cluster takes provider-kubernetes v1.2.1 from; what `make publish` was
  told too
- `CROSSPLANE_UPGRADE`: a command that makes the cluster's Crossplane one of v2, in place, and ends when it runs
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import database, guide
from tests.e2e.client import COUNT, App
from tests.e2e.conftest import composite_of, default_postgres, look_again, ready_memory, told
from tests.e2e.kube import MEMORY, PROVIDER, SYSTEM, Body, Kube, condition, is_ready, memory, namespace, says
from tests.servers import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.e2e.times import Measured

V1 = bool(os.environ.get("E2E_V1"))
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not V1, reason="Crossplane v1.20 is asked for with E2E_V1=1")]

OBJECT = "objects.kubernetes.crossplane.io"
TEAM, SECRET = "e2e-v1", "the-apps-secret"
# What a Memory's Objects wrap: with the report's rights, its request document and its Job.
INSIDE = ["ConfigMap", "Job", "Role", "RoleBinding", "Secret"]


def version_of(kube: Kube) -> str:
    """Which line of Crossplane runs; v2 alone knows definitions of managed resources."""
    return "v2" if kube.find("crd", "managedresourcedefinitions.apiextensions.crossplane.io") else "v1"


@pytest.fixture(scope="module")
def platform(kube: Kube, environment: Mapping[str, str], measured: Measured) -> Iterator[Kube]:
    """A cluster with Crossplane v1.20, installed as the guide says, its database, the provider `pg`, and a team."""
    repository = require(
        os.environ.get("PROVIDER_KUBERNETES"), "PROVIDER_KUBERNETES names no repository of provider-kubernetes"
    )
    assert version_of(kube) == "v1", "E2E_V1=1 wants a cluster with Crossplane v1.20"
    known = dict(environment) | {"PROVIDER_KUBERNETES": repository}
    with measured.seconds("v1: root key, rights, provider-kubernetes, both packages Healthy"):
        for section in ("Root key", "Crossplane v1.20"):
            guide.follow(section, known)
    if image := os.environ.get("MEMORY_POSTGRES_IMAGE"):
        default_postgres(kube, image)
    with measured.seconds("v1: PostgreSQL by CloudNativePG, provider Ready"):
        guide.follow("A provider", environment)
    kube.apply(namespace(TEAM))
    yield kube
    kube("delete", MEMORY, "--all", "-n", TEAM, "--timeout=150s")
    kube("delete", "namespace", TEAM, "--wait=false")


@pytest.fixture(scope="module")
def image(platform: Kube) -> str:
    """The migrations image, by the reference that the installed Composition has."""
    [step] = platform.get("composition", "memory-object")["spec"]["pipeline"]
    reference: str = step["input"]["migrations"]["image"]
    return reference


@pytest.fixture(scope="module")
def app(platform: Kube, image: str) -> App:
    """Runs an app's code in a pod that mounts only the Secret."""
    return App(platform, image)


def claim(name: str, secret: str = SECRET, **more: Any) -> Body:
    """A claim as an app team writes it here: it names its Secret."""
    return memory(TEAM, name, writeConnectionSecretToRef={"name": secret}, **more)


@pytest.fixture(scope="module")
def settled(platform: Kube, measured: Measured) -> Body:
    """The claim `notes`, Ready."""
    with measured.seconds("v1: claim to Ready"):
        platform.apply(claim("notes"))
        return ready_memory(platform, TEAM, "notes", 240)


def objects_of(kube: Kube, name: str) -> list[Body]:
    """The Objects of a claim's composite."""
    references = composite_of(kube, TEAM, name)["spec"]["resourceRefs"]
    assert {each["kind"] for each in references} == {"Object"}
    return [kube.get(OBJECT, each["name"]) for each in references]


def entries(kube: Kube, name: str, place: str = TEAM) -> dict[str, str]:
    """Decoded entries of a Secret."""
    data = kube.get("secret", name, place)["data"]
    return {key: b64decode(value).decode() for key, value in data.items()}


def test_a_claim_is_ready_through_objects(platform: Kube, settled: Body) -> None:
    for kind in ("ProviderReady", "CredentialsReady", "Provisioned"):
        assert says(settled, kind).startswith("True/"), kind
    assert settled["status"]["delivery"] == "Object"
    found = objects_of(platform, "notes")
    assert sorted(each["spec"]["forProvider"]["manifest"]["kind"] for each in found) == INSIDE
    assert all(says(each, "Synced").startswith("True/") for each in found)
    [job] = [each for each in found if each["spec"]["forProvider"]["manifest"]["kind"] == "Job"]
    assert job["spec"]["managementPolicies"] == ["Observe", "Delete"]
    assert is_ready(platform.get(PROVIDER, "pg"))


def test_an_app_uses_the_secret_that_the_claim_names(platform: Kube, settled: Body, app: App) -> None:
    assert app(TEAM, SECRET)["events"] == 1
    own = settled["status"]["connectionSecretRef"]
    assert own["namespace"] == SYSTEM
    assert entries(platform, own["name"], own["namespace"]) == entries(platform, SECRET), "status names what there is"
    assert "binding" not in settled["status"], "the name is the claim's alone"
    columns = platform("get", MEMORY, "notes", "-n", TEAM).splitlines()
    row = dict(zip(columns[0].split(), columns[1].split(), strict=True))
    assert row["CONNECTION-SECRET"] == SECRET, "but who asks for the claim sees it"


def test_no_plaintext_stands_in_any_object(platform: Kube, settled: Body) -> None:
    """Of all Objects of the cluster, whole: what is asked for, what was found, what tools noted on them."""
    assert is_ready(settled)
    password = entries(platform, SECRET)["password"]
    admin = entries(platform, "memory-admin", "databases")["password"]
    found = platform.list(OBJECT)
    assert len(found) > len(INSIDE), "those of the provider too"
    text = json.dumps(found)
    encoded = {each for each in re.findall(r"[A-Za-z0-9+/]{16,}={0,2}", text) if len(each) % 4 == 0}
    decoded = [b64decode(each).decode("utf-8", "replace") for each in encoded]
    for secret in (password, admin):
        assert not any(secret in each for each in (text, *decoded))
    assert any('"verifier"' in each for each in decoded), "otherwise nothing was decoded"


def test_a_changed_spec_runs_another_job(platform: Kube, settled: Body, app: App) -> None:
    """And the Job that was there before goes, with its document."""
    before = {each["metadata"]["name"] for each in objects_of(platform, "notes")}
    platform.apply(claim("notes", adopt=True))

    def look() -> Body | None:
        found = platform.get(MEMORY, "notes", TEAM)
        changed = found["status"]["provision"]["hash"] != settled["status"]["provision"]["hash"]
        return found if changed and is_ready(found) and says(found, "Provisioned").startswith("True/") else None

    platform.until("the changed claim is Ready", look, 240)
    platform.until("the Job before is gone", lambda: len(objects_of(platform, "notes")) == len(INSIDE) or None)
    after = {each["metadata"]["name"] for each in objects_of(platform, "notes")}
    assert len(before & after) == len(INSIDE) - 2, "document and Job are new"
    assert app(TEAM, SECRET, COUNT)["events"] == 1


def test_a_rotation_waits_for_the_apps_copy(platform: Kube, settled: Body, app: App) -> None:
    """Its second step closes the login of before, which the copy must not hold any more then."""
    assert is_ready(settled)
    before = entries(platform, SECRET)["username"]
    platform.apply(claim("notes", adopt=True, credentials={"epoch": 1, "revokeOld": True}))

    def look() -> Body | None:
        held = entries(platform, SECRET)["username"]
        can_login = database.ask(platform, f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{held}'") == "t"
        assert can_login or entries(platform, SECRET)["username"] != held
        found = platform.get(MEMORY, "notes", TEAM)
        is_done = says(found, "Provisioned") == "True/Succeeded" and found["status"]["credentials"]["epoch"] == 1
        return found if is_done and is_ready(found) else None

    platform.until("the rotation is done", look, 300)
    assert database.ask(platform, f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{before}'") == "f"
    assert entries(platform, SECRET)["username"] != before
    assert app(TEAM, SECRET, COUNT)["events"] == 1


def test_a_reader_is_refused_with_the_reason(platform: Kube, settled: Body) -> None:
    assert is_ready(settled)
    platform.apply(claim("greedy", "greedy", access={"readOnlySecret": True}))
    found = told(platform, TEAM, "greedy", "CredentialsReady", "False/NoSecretRef")
    assert "spec.access.readOnlySecret" in condition(found, "CredentialsReady")["message"]
    assert not composite_of(platform, TEAM, "greedy")["spec"].get("resourceRefs")
    platform.delete(MEMORY, "greedy", TEAM)


def uids(kube: Kube, name: str) -> dict[str, str]:
    """Of everything that belongs to a claim: its composite, its Objects, and what they hold."""
    found = {each["metadata"]["name"]: each["metadata"]["uid"] for each in objects_of(kube, name)}
    found["composite"] = composite_of(kube, TEAM, name)["metadata"]["uid"]
    for each in objects_of(kube, name):
        manifest = each["spec"]["forProvider"]["manifest"]
        kind, metadata = manifest["kind"], manifest["metadata"]
        held = kube.get(kind.lower(), metadata["name"], metadata["namespace"])
        found[f"{kind} {metadata['name']}"] = held["metadata"]["uid"]
    return found


def test_an_upgrade_to_v2_moves_nothing(
    platform: Kube, settled: Body, environment: Mapping[str, str], app: App, measured: Measured
) -> None:
    """The same Objects, the same Jobs, the same Secret and rows; and then new claims need no provider-kubernetes."""
    assert is_ready(settled)
    command = require(os.environ.get("CROSSPLANE_UPGRADE"), "CROSSPLANE_UPGRADE names no command for the upgrade")
    before, secret = uids(platform, "notes"), entries(platform, SECRET)
    held = uids_of_providers(platform)
    with measured.seconds("v1: upgrade of Crossplane to v2"):
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert version_of(platform) == "v2"
    platform.until("packages are Healthy", lambda: healthy(platform) or None, 240)

    settles(platform)
    assert uids(platform, "notes") == before
    assert uids_of_providers(platform) == held
    assert entries(platform, SECRET) == secret
    assert app(TEAM, SECRET, COUNT)["events"] == 1

    patch = {"spec": {"package": f"{environment['REGISTRY']}/configuration-memory:{environment['VERSION']}"}}
    [configuration] = platform.list("configurations.pkg.crossplane.io")
    name = configuration["metadata"]["name"]
    platform("patch", "configuration.pkg.crossplane.io", name, "--type=merge", "-p", json.dumps(patch))
    platform.until("the default is Direct", lambda: default_of(platform) == "memory" or None)
    platform.until("packages are Healthy", lambda: healthy(platform) or None, 240)
    settles(platform)
    assert uids(platform, "notes") == before
    platform.apply(memory(TEAM, "young"))
    young = ready_memory(platform, TEAM, "young")
    assert young["status"]["delivery"] == "Direct"
    assert app(TEAM, "young-memory")["events"] == 1
    assert app(TEAM, SECRET, COUNT)["events"] == 1

    rotated: dict[str, Any] = {"adopt": True, "credentials": {"epoch": 1, "revokeOld": True}}
    platform.apply(claim("notes", **rotated, compositionRef={"name": "memory"}))
    changed = told(platform, TEAM, "notes", "Provisioned", "False/DeliveryChanged")
    assert "nothing was moved" in condition(changed, "Provisioned")["message"]
    assert uids(platform, "notes") == before
    platform.apply(claim("notes", **rotated, compositionRef={"name": "memory-object"}))
    told(platform, TEAM, "notes", "Provisioned", "True/Succeeded")


def settles(kube: Kube) -> None:
    """Have the claim composed anew, and wait until v2 says that it is Ready; `Responsive` is a word of v2's."""
    look_again(kube, TEAM, "notes")

    def look() -> bool | None:
        found = composite_of(kube, TEAM, "notes")
        return (is_ready(found) and says(found, "Responsive").startswith("True/")) or None

    kube.until("the composite is Ready under the new Crossplane", look, 240)
    ready_memory(kube, TEAM, "notes")


def uids_of_providers(kube: Kube) -> dict[str, str]:
    """What belongs to the provider `pg`; its probes' Jobs come and go."""
    references = kube.get(PROVIDER, "pg")["spec"]["resourceRefs"]
    return {each["name"]: kube.get(OBJECT, each["name"])["metadata"]["uid"] for each in references}


def healthy(kube: Kube) -> bool:
    """Whether all packages are."""
    kinds = ("providers", "functions", "configurations")
    packages = [each for kind in kinds for each in kube.list(f"{kind}.pkg.crossplane.io")]
    return all(says(each, "Healthy").startswith("True/") for each in packages)


def default_of(kube: Kube) -> str:
    """The Composition that a new claim gets."""
    name: str = kube.get("xrd", "xmemories.memory.proompteng.ai")["spec"]["defaultCompositionRef"]["name"]
    return name


def test_a_deleted_claim_takes_everything_but_the_data_along(platform: Kube, settled: Body) -> None:
    assert settled["metadata"]["name"] == "notes"
    objects = [each["metadata"]["name"] for each in objects_of(platform, "notes")]
    inside = [each["spec"]["forProvider"]["manifest"] for each in objects_of(platform, "notes")]
    platform.delete(MEMORY, "notes", TEAM)

    def gone() -> bool:
        held = (platform.find(each["kind"].lower(), each["metadata"]["name"], "databases") for each in inside)
        return not any(held) and not any(platform.find(OBJECT, name) for name in objects)

    platform.until("nothing is left", lambda: gone() or None)
    assert platform.find("secret", SECRET, TEAM) is None
