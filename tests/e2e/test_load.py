"""Many claims at once, on two cores."""

from collections.abc import Callable

import pytest

from tests.e2e.conftest import function_pods
from tests.e2e.kube import COMPOSITE, MEMORY, Kube, condition, is_ready, memory
from tests.e2e.times import Measured

pytestmark = pytest.mark.e2e

CLAIMS = 50
LIMIT_SECONDS = 180
LIMIT_BYTES = 70e6


def test_fifty_claims_at_once(platform: Kube, team: Callable[[], str], measured: Measured) -> None:
    """All are Ready in time, Crossplane's circuit breaker stays closed, and the function stays small."""
    name = team()
    opened: set[str] = set()

    def all_ready() -> bool | None:
        opened.update(
            one["metadata"]["name"]
            for one in platform.list(COMPOSITE)
            if condition(one, "Responsive").get("reason") == "WatchCircuitOpen"
        )
        return sum(is_ready(claim) for claim in platform.list(MEMORY, name)) == CLAIMS or None

    with measured.seconds(f"{CLAIMS} claims at once to Ready"):
        platform.apply(*(memory(name, f"claim-{number}") for number in range(CLAIMS)))
        platform.until(f"{CLAIMS} claims are Ready", all_ready, LIMIT_SECONDS)
    assert not opened
    assert len(platform.list("secrets", name)) == CLAIMS
    used = {pod["metadata"]["name"]: memory_of(platform, pod) for pod in function_pods(platform)}
    measured.note("the function's largest pod after that", f"{max(used.values()) / 1e6:.0f} MB")
    assert max(used.values()) <= LIMIT_BYTES, used


def memory_of(kube: Kube, pod: dict[str, object]) -> int:
    """Working set of a pod in bytes, as its kubelet counts it for eviction."""
    assert isinstance(pod["spec"], dict)
    assert isinstance(pod["metadata"], dict)
    pods = kube.raw(f"/api/v1/nodes/{pod['spec']['nodeName']}/proxy/stats/summary")["pods"]
    [found] = [one for one in pods if one["podRef"]["uid"] == pod["metadata"]["uid"]]
    held: int = found["memory"]["workingSetBytes"]
    return held
