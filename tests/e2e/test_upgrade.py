"""The packages' next version, with Memories in place."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.e2e import guide
from tests.e2e.client import COUNT, App
from tests.e2e.cluster import version
from tests.e2e.conftest import composite_of, function_pods, ready_memory
from tests.e2e.kube import Kube, memory

pytestmark = pytest.mark.e2e


@pytest.fixture
def following(environment: Mapping[str, str], tmp_path: Path) -> str:
    """The next version, published: a checkout whose one version number says so."""
    major, minor, patch = version().split(".")
    after = f"{major}.{minor}.{int(patch) + 1}"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=guide.ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(guide.ROOT / name, tmp_path / name)
    project = tmp_path / "pyproject.toml"
    text, changed = re.subn(r'(?m)^version = ".*"$', f'version = "{after}"', project.read_text())
    assert changed == 1
    project.write_text(text)
    done = subprocess.run(
        ["make", "publish", f"VENV={guide.ROOT / '.venv'}"],
        cwd=tmp_path,
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return f"v{after}"


def test_an_upgrade_changes_no_memory(
    platform: Kube, environment: Mapping[str, str], team: Callable[[], str], app: App, following: str
) -> None:
    """No Job runs again, the Secret stays, the next Jobs run the next image, and new claims work."""
    name = team()
    platform.apply(memory(name, "old"))
    ready_memory(platform, name, "old")
    app(name, "old-memory")
    before = composite_of(platform, name, "old")["spec"]["resourceRefs"]
    secret = platform.get("secret", "old-memory", name)["data"]
    pods = {pod["metadata"]["name"] for pod in function_pods(platform)}

    guide.follow("Upgrade", dict(environment) | {"VERSION": following})

    platform.until(
        "the function's pods are new",
        lambda: not pods & {pod["metadata"]["name"] for pod in function_pods(platform)} or None,
        90,
    )
    [step] = platform.get("composition", "memory")["spec"]["pipeline"]
    wanted = step["input"]["migrations"]["image"]
    platform.until("every probe runs the next image", lambda: probe_images(platform) == {wanted} or None)
    platform.apply(memory(name, "young"))
    ready_memory(platform, name, "young")
    ready_memory(platform, name, "old")
    assert composite_of(platform, name, "old")["spec"]["resourceRefs"] == before
    assert platform.get("secret", "old-memory", name)["data"] == secret
    assert app(name, "old-memory", COUNT)["events"] == 1
    platform.apply(memory(name, "old", access={"readOnlySecret": True}))
    platform.until("the reader's Secret", lambda: platform.find("secret", "old-memory-reader", name))
    ready_memory(platform, name, "old")


def probe_images(kube: Kube) -> set[str]:
    """Images of the providers' CronJobs."""
    templates = [one["spec"]["jobTemplate"]["spec"]["template"] for one in kube.list("cronjobs")]
    return {template["spec"]["containers"][0]["image"] for template in templates}
