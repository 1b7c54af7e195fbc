"""What happens when somebody changes, breaks or corrects what was written."""

from collections.abc import Callable

import pytest

from tests.e2e.client import COUNT, App
from tests.e2e.conftest import composite_of, look_again, provide, ready_memory, shared_provider, told
from tests.e2e.kube import MEMORY, PROVIDER, Body, Kube, KubectlError, condition, is_ready, memory, says

pytestmark = pytest.mark.e2e


def jobs_of(kube: Kube, team: str, name: str) -> dict[str, Body]:
    """The provision Jobs of a claim, by name."""
    labels = {"memory.proompteng.ai/claim-namespace": team, "memory.proompteng.ai/claim-name": name}
    return {job["metadata"]["name"]: job for job in kube.list("jobs", labels=labels)}


def test_a_wrong_spec_says_what_to_write_and_loses_nothing(platform: Kube, team: Callable[[], str], app: App) -> None:
    """First at the API server, then one that only the backend can judge, and then corrected."""
    name = team()
    with pytest.raises(KubectlError, match="lower-case letters"):
        platform.apply(memory(name, "story", schema="Not-A-Schema"))
    platform.apply(memory(name, "story", embeddings={"dimension": 8}))
    ready_memory(platform, name, "story")
    assert app(name, "story-memory")["events"] == 1
    platform.apply(memory(name, "story", embeddings={"dimension": 16}))
    wrong = told(platform, name, "story", "Provisioned", "False/DimensionConflict")
    message = condition(wrong, "Provisioned")["message"]
    assert "8" in message
    assert "16" in message
    assert not is_ready(wrong)
    assert app(name, "story-memory", COUNT)["events"] == 1, "what runs goes on running"
    platform.apply(memory(name, "story", embeddings={"dimension": 8}))
    ready_memory(platform, name, "story")
    assert app(name, "story-memory")["events"] == 2


def test_a_claim_without_a_provider_waits_for_it(platform: Kube, team: Callable[[], str]) -> None:
    name = team()
    provider = f"late-{name}"
    platform.apply(memory(name, "early", provider))
    wrong = told(platform, name, "early", "ProviderReady", "False/NotFound")
    assert provider in condition(wrong, "ProviderReady")["message"]
    platform.apply(shared_provider(platform, provider))
    # Nobody asks again: the answer to "NotFound" is a minute old at most.
    ready_memory(platform, name, "early")
    platform.delete(MEMORY, "early", name)
    platform.delete(PROVIDER, provider)


def test_a_deleted_provider_stops_nothing_and_can_come_back(platform: Kube, team: Callable[[], str], app: App) -> None:
    name = team()
    provider = f"brief-{name}"
    provide(platform, provider)
    platform.apply(memory(name, "kept", provider))
    ready_memory(platform, name, "kept")
    composite = composite_of(platform, name, "kept")
    platform.delete(PROVIDER, provider)
    look_again(platform, name, "kept")
    told(platform, name, "kept", "ProviderReady", "False/NotFound")
    assert composite_of(platform, name, "kept")["spec"]["resourceRefs"] == composite["spec"]["resourceRefs"]
    assert app(name, "kept-memory")["events"] == 1, "without its provider a Memory still works"
    provide(platform, provider)
    look_again(platform, name, "kept")
    told(platform, name, "kept", "ProviderReady", "True/Available")
    ready_memory(platform, name, "kept")
    assert app(name, "kept-memory", COUNT)["events"] == 1
    platform.delete(MEMORY, "kept", name)
    platform.delete(PROVIDER, provider)


def test_a_changed_spec_is_one_new_job(platform: Kube, team: Callable[[], str], app: App) -> None:
    """The Secret goes on working, the earlier Job is dropped, and the claim is Ready for the new spec only."""
    name = team()
    platform.apply(memory(name, "grows"))
    ready_memory(platform, name, "grows")
    [before] = jobs_of(platform, name, "grows")
    platform.apply(memory(name, "grows", access={"readOnlySecret": True}))
    platform.until("the reader's Secret", lambda: platform.find("secret", "grows-memory-reader", name))
    ready_memory(platform, name, "grows")

    def only_one_is_left() -> list[str] | None:
        left = list(jobs_of(platform, name, "grows"))
        return left if len(left) == 1 and left != [before] else None

    platform.until("the earlier Job is dropped", only_one_is_left)
    assert app(name, "grows-memory")["events"] == 1
    assert app(name, "grows-memory-reader", COUNT)["events"] == 1


def test_without_rbac_the_events_say_what_is_missing(platform: Kube, team: Callable[[], str]) -> None:
    """Crossplane composes nothing then; the guide says where to look and what to apply."""
    name = team()
    role = platform.get("clusterrole", "crossplane-memory")
    role["metadata"] = {key: role["metadata"][key] for key in ("name", "labels")}
    platform.delete("clusterrole", "crossplane-memory")
    try:
        platform.until("Crossplane has lost the right", lambda: not may_make_jobs(platform) or None)
        platform.apply(memory(name, "poor"))

        def complained() -> str | None:
            events = platform("get", "events", "-A", "--field-selector=type=Warning", "-o", "json")
            return events if "jobs" in events and "forbidden" in events and "poor" in events else None

        platform.until("an event says what is forbidden", complained)
        assert not is_ready(platform.get(MEMORY, "poor", name))
    finally:
        platform.apply(role)
    ready_memory(platform, name, "poor")


def may_make_jobs(kube: Kube) -> bool:
    """Whether Crossplane may compose Jobs."""
    account = kube.as_user("system:serviceaccount:crossplane-system:crossplane")
    return account.run("auth", "can-i", "create", "jobs", "-n", "databases").stdout.strip() == "yes"


def test_a_tenants_provider_reaches_no_other_namespace(platform: Kube, team: Callable[[], str]) -> None:
    """A tenant's provider that reaches into another namespace says so, and its Memory too."""
    name = team()
    body = shared_provider(platform, "own")
    body |= {"kind": "MemoryProvider", "metadata": {"name": "own", "namespace": name}}
    platform.apply(body, memory(name, "lost", "own"))
    wrong = told(platform, name, "lost", "ProviderReady", "False/InvalidSpec")
    assert 'a claimed provider reaches its own namespace only; write "' in condition(wrong, "ProviderReady")["message"]

    def provider_says() -> Body | None:
        found = platform.get("memoryproviders.memory.proompteng.ai", "own", name)
        return found if says(found, "BackendReady") == "False/InvalidSpec" else None

    platform.until("the provider says it too", provider_says)
    platform.delete(MEMORY, "lost", name)
    platform.delete("memoryproviders.memory.proompteng.ai", "own", name)
