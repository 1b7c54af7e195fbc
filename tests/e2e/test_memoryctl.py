"""`memoryctl status` and `plan` on a cluster, as whoever is on call runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e import guide
from tests.e2e.conftest import ready_memory
from tests.e2e.kube import Kube, memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.e2e


def memoryctl(kube: Kube, *arguments: str) -> Any:
    command = [sys.executable, "-m", "memoryctl", *arguments, "--kubeconfig", kube.kubeconfig, "-o", "json"]
    done = subprocess.run(command, cwd=guide.ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_status_shows_what_is_composed_and_how_its_job_ended(platform: Kube, team: Callable[[], str]) -> None:
    name = team()
    platform.apply(memory(name, "watched"))
    ready_memory(platform, name, "watched")
    found = memoryctl(platform, "status", "watched", "-n", name)
    assert found["ready"] is True
    assert found["unread"] == []
    assert {one["kind"] for one in found["composed"]} >= {"Job", "Secret", "ConfigMap", "Role", "RoleBinding"}
    assert {one["ready"] for one in found["composed"]} == {"True"}
    assert {"Ready", "Provisioned", "BackendReady"} <= {one["type"] for one in found["conditions"]}
    [run] = [one for one in found["jobs"] if one["task"] == "provision"]
    assert (run["ended"], run["code"]) == ("Complete", 0)
    assert run["message"].endswith("is ready")


def test_plan_says_what_a_changed_claim_would_do_and_of_an_unchanged_one_nothing(
    platform: Kube, team: Callable[[], str], tmp_path: Path
) -> None:
    """Whatever API server and Crossplane have added to the objects."""
    name, file = team(), tmp_path / "claim.yaml"
    claim = memory(name, "planned")
    platform.apply(claim)
    ready_memory(platform, name, "planned")
    file.write_text(yaml.safe_dump(claim))
    assert memoryctl(platform, "plan", "-f", str(file))["changes"] == []
    claim["spec"]["retention"] = {"ttlDays": 30}
    file.write_text(yaml.safe_dump(claim))
    [change] = memoryctl(platform, "plan", "-f", str(file))["changes"]
    assert change["spec"] == ["retention.ttlDays: 90 → 30"]
    assert change["request"] == ["retention.ttlDays: 90 → 30"]
    assert sorted(one["resource"].split("-")[0] for one in change["added"]) == ["provision", "request"]
    assert (change["changed"], change["removed"], change["problems"]) == ([], [], [])
