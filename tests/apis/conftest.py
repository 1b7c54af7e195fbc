"""Who answers the case tables: the offline schemas always, and a real API server when MEMORY_KUBECONFIG names one.

The real one needs `kubectl` on the PATH and Crossplane in the cluster. The XRDs of this checkout are applied to it and
stay there; everything else that a test makes is deleted.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from tests import schemas

KUBECONFIG = os.environ.get("MEMORY_KUBECONFIG")
SERVERS = ("offline", "real") if KUBECONFIG else ("offline",)


class Server(Protocol):
    """Something that takes or refuses objects."""

    def refusal(self, body: dict[str, Any], old: dict[str, Any] | None = None) -> str:
        """Gives what is said against an object, or against its change from `old`; nothing when it is taken."""
        ...


class Offline:
    """The schemas of this checkout, evaluated here."""

    def __init__(self) -> None:
        self._catalog = schemas.catalog()

    def refusal(self, body: dict[str, Any], old: dict[str, Any] | None = None) -> str:
        if old is not None:
            assert self._catalog.problems(old) == []
        return "\n".join(self._catalog.problems(body, old))


class Real:
    """A cluster with Crossplane. Only what an update changes is really stored; all else is a dry run."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def kubectl(self, *arguments: str, body: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", f"--kubeconfig={KUBECONFIG}", *arguments]
        text = None if body is None else json.dumps(body)
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120)

    def must(self, *arguments: str, body: dict[str, Any] | None = None) -> str:
        done = self.kubectl(*arguments, body=body)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refusal(self, body: dict[str, Any], old: dict[str, Any] | None = None) -> str:
        if old is None:
            return self._said(self.kubectl("create", "--dry-run=server", "-f", "-", body=body))
        # Paused, or Crossplane would make a composite of the claim, possibly only after the claim is gone again.
        paused = old | {"metadata": old["metadata"] | {"annotations": {"crossplane.io/paused": "true"}}}
        self.must("create", "-f", "-", body=paused)
        try:
            return self._replaced(body)
        finally:
            self.must("delete", "--wait=true", "--timeout=60s", "-f", "-", body=old)

    def _replaced(self, body: dict[str, Any]) -> str:
        for _ in range(10):
            said = self._said(self.kubectl("replace", "--dry-run=server", "-f", "-", body=body))
            if "(Conflict)" not in said:  # Crossplane was writing to the new object at that moment
                break
        return said

    @staticmethod
    def _said(done: subprocess.CompletedProcess[str]) -> str:
        return done.stderr if done.returncode else ""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Real]:
    """The real API server, with this checkout's XRDs."""
    real = Real(f"memory-apis-{os.getpid()}")
    for plural in ("xmemories", "xmemoryproviders"):
        real.must("apply", "-f", str(schemas.ROOT / "apis" / plural / "definition.yaml"))
        for condition in ("Established", "Offered"):
            real.must("wait", f"--for=condition={condition}", "--timeout=60s", f"xrd/{plural}.memory.proompteng.ai")
    real.must("create", "namespace", real.namespace)
    yield real
    real.must("delete", "namespace", real.namespace, "--timeout=60s")


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    if request.param == "offline":
        return Offline()
    answer: Real = request.getfixturevalue("cluster")
    return answer
