"""A claim is deleted: its login is closed, and its data goes when it said so."""

from __future__ import annotations

import itertools
import json
import os
import time
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import database
from tests.e2e.conftest import provide, ready_memory
from tests.e2e.kube import CNPG, PROVIDER, Body, Kube, memory, says

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.client import App

pytestmark = pytest.mark.e2e

_runs = itertools.count(1)


@pytest.fixture(scope="module")
def provider(platform: Kube) -> Iterator[str]:
    """A provider of our own, so that nobody else's homes are reaped; without a grace."""
    name = f"reaped-{os.getpid()}"
    provide(platform, name, deletionGrace="0s")
    yield name
    platform.delete(PROVIDER, name)


def objects(kube: Kube, provider: str, kind: str) -> list[Body]:
    labels = {"memory.proompteng.ai/provider": provider, "app.kubernetes.io/component": "reap"}
    return kube.list(kind, None if kind == "clusterrolebindings" else database.NAMESPACE, labels)


def reap(kube: Kube, provider: str) -> dict[str, Any]:
    """One run of the real CronJob, now; gives its report."""
    [cronjob] = objects(kube, provider, "cronjobs")
    source, name = cronjob["metadata"]["name"], f"{provider}-run-{next(_runs)}"
    kube("create", "job", "-n", database.NAMESPACE, name, f"--from=cronjob/{source}")
    kube("wait", "-n", database.NAMESPACE, f"job/{name}", "--for=condition=Complete", "--timeout=180s")
    report = kube.get("configmap", source.replace("-reaper", "-report"), database.NAMESPACE)
    kube.delete("job", name, database.NAMESPACE)
    found: dict[str, Any] = json.loads(report["data"]["reap"])
    return found


def login_of(kube: Kube, team: str, name: str) -> dict[str, str]:
    """What an app has noted of its Secret before that was deleted."""
    data = kube.get("secret", f"{name}-memory", team)["data"]
    return {key: b64decode(data[key]).decode() for key in ("username", "password")}


def answer_to(kube: Kube, login: dict[str, str]) -> str:
    """What the server says to a login: nothing when it lets it in."""
    primary: str = kube.get(CNPG, database.NAME, database.NAMESPACE)["status"]["currentPrimary"]
    psql = ["psql", "-h", "127.0.0.1", "-U", login["username"], "-d", "app", "-Atqc", "SELECT"]
    inside = ["exec", "-n", database.NAMESPACE, primary, "-c", "postgres", "--"]
    return kube.run(*inside, "env", f"PGPASSWORD={login['password']}", *psql).stderr


@pytest.fixture
def left(platform: Kube, provider: str, team: Callable[[], str], app: App) -> Callable[..., tuple[str, dict[str, str]]]:
    """Makes a Memory with one event, and deletes its claim; gives its schema and its login."""

    def make(**spec: Any) -> tuple[str, dict[str, str]]:
        name = team()
        platform.apply(memory(name, "gone", provider, **spec))
        schema = ready_memory(platform, name, "gone")["spec"]["dataset"]["schema"]
        assert app(name, "gone-memory")["events"] == 1
        login = login_of(platform, name, "gone")
        assert answer_to(platform, login) == ""
        platform.delete("memories.memory.proompteng.ai", "gone", name)
        platform.until("its composite is gone", lambda: not _composites(platform, name) or None)
        return schema, login

    return make


def _composites(kube: Kube, team: str) -> list[Body]:
    return kube.list("xmemories.memory.proompteng.ai", None, {"crossplane.io/claim-namespace": team})


def events(kube: Kube, schema: str) -> str:
    return database.ask(kube, f"SELECT count(*) FROM {schema}.memory_events")


def test_a_deleted_claims_login_is_refused_within_two_runs_and_its_rows_are_kept(
    platform: Kube, provider: str, left: Callable[..., tuple[str, dict[str, str]]]
) -> None:
    schema, login = left()
    for _ in range(2):
        assert reap(platform, provider)["code"] == 0
    assert "is not permitted to log in" in answer_to(platform, login)
    reap(platform, provider)
    assert events(platform, schema) == "1"
    platform.until(
        "the provider says so", lambda: says(platform.get(PROVIDER, provider), "ReaperReady") == "True/Available"
    )


def test_with_delete_the_home_is_dropped(
    platform: Kube, provider: str, left: Callable[..., tuple[str, dict[str, str]]]
) -> None:
    schema, login = left(deletionPolicy="Delete")
    for _ in range(3):
        assert reap(platform, provider)["code"] == 0
    assert database.ask(platform, f"SELECT count(*) FROM pg_namespace WHERE nspname = '{schema}'") == "0"
    assert database.ask(platform, f"SELECT count(*) FROM pg_roles WHERE rolname = '{login['username']}'") == "0"


def noticed(kube: Kube, provider: str, what: str, look: Callable[[], bool]) -> None:
    """Waits for what Crossplane does about a change of the provider, and changes it again while nothing happens.

    Its circuit breaker (v2.3) may drop the event of a change when there were many before, lets one through every 30 s,
    and without another one the change is seen ten minutes later.
    """
    changed = time.monotonic()

    def seen() -> bool:
        nonlocal changed
        if time.monotonic() - changed > 35:
            changed = time.monotonic()
            kube("annotate", PROVIDER, provider, f"e2e.proompteng.ai/seen={changed:.0f}", "--overwrite")
        return look()

    kube.until(what, seen)


def _paused(kube: Kube, provider: str) -> bool:
    return says(kube.get(PROVIDER, provider), "Synced") == "False/ReconcilePaused"


def test_nothing_happens_while_the_list_is_forbidden(
    platform: Kube, provider: str, left: Callable[..., tuple[str, dict[str, str]]]
) -> None:
    schema, login = left(deletionPolicy="Delete")
    platform("annotate", PROVIDER, provider, "crossplane.io/paused=true", "--overwrite")
    try:
        # A reconcile that is under way when the annotation comes would make the binding again.
        noticed(platform, provider, "it is paused", lambda: _paused(platform, provider))
        [binding] = objects(platform, provider, "clusterrolebindings")
        platform.delete("clusterrolebinding", binding["metadata"]["name"])
        for _ in range(3):
            found = reap(platform, provider)
            assert (found["code"], found["reason"]) == (13, "PermissionDenied")
        assert answer_to(platform, login) == ""
        assert events(platform, schema) == "1"
    finally:
        platform("annotate", PROVIDER, provider, "crossplane.io/paused-")
    noticed(platform, provider, "the binding is back", lambda: bool(objects(platform, provider, "clusterrolebindings")))
    for _ in range(2):
        reap(platform, provider)
    assert "is not permitted to log in" in answer_to(platform, login)
