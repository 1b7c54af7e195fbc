"""Who answers the case tables: the offline schemas in `make test`, a real API server in `make e2e`.

The real one needs `kubectl` on the PATH and the packages in the cluster of MEMORY_KUBECONFIG. Everything that a test
makes is deleted.
"""

import os
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from tests import schemas
from tests.e2e.kube import Kube

SERVERS = ("offline", pytest.param("real", marks=pytest.mark.e2e))


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
    """A cluster with the packages. Only what an update changes is really stored; all else is a dry run."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace

    def refusal(self, body: dict[str, Any], old: dict[str, Any] | None = None) -> str:
        if old is None:
            return self._said("create", body)
        # Paused, or Crossplane would make a composite of the claim, possibly only after the claim is gone again.
        paused = old | {"metadata": old["metadata"] | {"annotations": {"crossplane.io/paused": "true"}}}
        self.kube("create", "-f", "-", body=paused)
        try:
            return self._replaced(body)
        finally:
            self.kube("delete", "--wait=true", "--timeout=60s", "-f", "-", body=old)

    def _replaced(self, body: dict[str, Any]) -> str:
        for _ in range(10):
            said = self._said("replace", body)
            if "(Conflict)" not in said:  # Crossplane was writing to the new object at that moment
                break
        return said

    def _said(self, verb: str, body: dict[str, Any]) -> str:
        done = self.kube.run(verb, "--dry-run=server", "-f", "-", body=body)
        return done.stderr if done.returncode else ""


@pytest.fixture(scope="session")
def cluster(installed: Kube) -> Iterator[Real]:
    """The real API server, with this checkout's XRDs."""
    real = Real(installed, f"memory-apis-{os.getpid()}")
    installed("create", "namespace", real.namespace)
    yield real
    installed("delete", "namespace", real.namespace, "--timeout=60s")


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    if request.param == "offline":
        return Offline()
    answer: Real = request.getfixturevalue("cluster")
    return answer
