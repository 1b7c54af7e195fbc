"""Several teams on one platform: who may use which provider, and what one cannot take from another."""

import os
from collections.abc import Callable

import pytest

from tests.e2e.client import App
from tests.e2e.conftest import look_again, provide, ready_memory, shared_provider, told
from tests.e2e.kube import CLAIMED_PROVIDER, GROUP, MEMORY, PROVIDER, Kube, KubectlError, condition, memory

pytestmark = pytest.mark.e2e

OTHER = """
for query in (
    "SELECT count(*) FROM {schema}.memory_events",
    "SELECT * FROM {schema}.memory_read('{dataset}')",
    "SET ROLE {role}",
    "CREATE SCHEMA mine",
):
    try:
        ask(query)
    except psycopg.errors.InsufficientPrivilege:
        continue
    raise SystemExit(query + " was allowed")
print(json.dumps("refused"))
"""


def test_two_teams_on_one_provider_see_only_their_own(platform: Kube, team: Callable[[], str], app: App) -> None:
    one, other = team(), team()
    platform.apply(memory(one, "shared"), memory(other, "shared"))
    ready_memory(platform, one, "shared")
    theirs = ready_memory(platform, other, "shared")
    assert app(one, "shared-memory")["events"] == 1
    assert app(other, "shared-memory")["events"] == 1
    schema, dataset = theirs["spec"]["dataset"]["schema"], theirs["spec"]["dataset"]["name"]
    script = OTHER.format(schema=schema, dataset=dataset, role=binding_user(platform, other, "shared-memory"))
    assert app(one, "shared-memory", script) == "refused"


def binding_user(kube: Kube, team: str, secret: str) -> str:
    """Login of a connection Secret."""
    name = kube("get", "secret", secret, "-n", team, "-o", "go-template={{.data.username | base64decode}}")
    assert name
    return name


def test_a_schema_of_another_team_is_refused(platform: Kube, team: Callable[[], str]) -> None:
    one, other = team(), team()
    platform.apply(memory(one, "first", schema=f"taken_{one.replace('-', '_')}"))
    taken = ready_memory(platform, one, "first")["spec"]["dataset"]["schema"]
    platform.apply(memory(other, "second", schema=taken))

    found = told(platform, other, "second", "Provisioned", "False/SchemaConflict")
    assert f'"{taken}"' in condition(found, "Provisioned")["message"]
    assert one not in condition(found, "Provisioned")["message"], "whose it is is not the other team's business"
    assert platform.find("secret", "second-memory", other) is None


def test_a_provider_that_does_not_admit_the_team(platform: Kube, team: Callable[[], str]) -> None:
    """Nothing is rendered; the condition says why; and it is tried again."""
    inside, outside = team(), team()
    name = f"private-{os.getpid()}"
    listed = {"namespaces": {"from": "Names", "names": [inside]}}
    provide(platform, name, allowedConsumers=listed)
    platform.apply(memory(inside, "in", name), memory(outside, "out", name))
    ready_memory(platform, inside, "in")

    found = told(platform, outside, "out", "ProviderReady", "False/NotAdmitted")
    message = condition(found, "ProviderReady")["message"]
    assert name in message
    assert outside in message
    assert inside not in message, "the names of other consumers are not ours to tell"
    composite = platform.get(f"xmemories.{GROUP}", found["spec"]["resourceRef"]["name"])
    assert not composite["spec"].get("resourceRefs")
    listed["namespaces"]["names"] = [inside, outside]
    provide(platform, name, allowedConsumers=listed)
    look_again(platform, outside, "out")
    ready_memory(platform, outside, "out")
    for claim, where in (("in", inside), ("out", outside)):
        platform.delete(MEMORY, claim, where)
    platform.delete(PROVIDER, name)


def test_a_provider_selects_teams_by_their_namespaces_labels(platform: Kube, team: Callable[[], str]) -> None:
    inside, outside = team(), team()
    name = f"selected-{inside}"
    selector = {"matchLabels": {"memory.example.com/tier": inside}}
    consumers = {"namespaces": {"from": "Selector", "selector": selector}}
    provide(platform, name, allowedConsumers=consumers)
    platform("label", "namespace", inside, f"memory.example.com/tier={inside}")
    platform.apply(memory(inside, "in", name), memory(outside, "out", name))
    ready_memory(platform, inside, "in")
    told(platform, outside, "out", "ProviderReady", "False/NotAdmitted")
    platform("label", "namespace", outside, f"memory.example.com/tier={inside}")
    look_again(platform, outside, "out")
    ready_memory(platform, outside, "out")
    for claim, where in (("in", inside), ("out", outside)):
        platform.delete(MEMORY, claim, where)
    platform.delete(PROVIDER, name)


@pytest.mark.parametrize("kind", [MEMORY, CLAIMED_PROVIDER])
def test_a_tenant_cannot_capture_what_is_not_its_own_by_resource_ref(
    platform: Kube, team: Callable[[], str], kind: str
) -> None:
    """Without the policy, Crossplane would hand an unclaimed composite of that name to the claim."""
    name = team()
    platform("create", "rolebinding", "tenant", "-n", name, "--clusterrole=admin", f"--user={name}")
    tenant = platform.as_user(name)
    if kind == MEMORY:
        body, reference = memory(name, "greedy"), {"kind": "XMemory", "name": "anything"}
    else:
        body = shared_provider(platform, "greedy")
        body |= {"kind": "MemoryProvider", "metadata": {"name": "greedy", "namespace": name}}
        reference = {"kind": "XMemoryProvider", "name": "pg"}
    reference["apiVersion"] = body["apiVersion"]
    captured = body | {"spec": body["spec"] | {"resourceRef": reference}}
    with pytest.raises(KubectlError, match=r"spec\.resourceRef"):
        tenant("create", "-f", "-", body=captured)
    tenant("create", "-f", "-", body=body)
    platform.until("Crossplane binds it", lambda: platform.get(kind, "greedy", name)["spec"].get("resourceRef"))
    patch = f'{{"spec": {{"resourceRef": {{"name": "{reference["name"]}"}}}}}}'
    with pytest.raises(KubectlError, match=r"spec\.resourceRef"):
        tenant("patch", kind, "greedy", "-n", name, "--type=merge", "-p", patch)
    with pytest.raises(KubectlError, match=r"spec\.resourceRef"):
        tenant("patch", kind, "greedy", "-n", name, "--type=merge", "-p", '{"spec": {"resourceRef": null}}')
    assert not platform.get(PROVIDER, "pg")["spec"].get("claimRef")
    tenant("annotate", kind, "greedy", "-n", name, "note=ordinary changes are taken")
    platform.delete(kind, "greedy", name)
