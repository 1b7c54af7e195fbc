"""A cluster as the suite uses it: through kubectl, as a person would."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")
Body = dict[str, Any]

GROUP = "memory.proompteng.ai"
MEMORY = f"memories.{GROUP}"
COMPOSITE = f"xmemories.{GROUP}"
PROVIDER = f"xmemoryproviders.{GROUP}"
CLAIMED_PROVIDER = f"memoryproviders.{GROUP}"
CNPG = "clusters.postgresql.cnpg.io"
SYSTEM = "crossplane-system"

_POLL_SECONDS = 0.25


class KubectlError(AssertionError):
    """kubectl failed; the message is what it said."""


@dataclass(frozen=True)
class Kube:
    """kubectl with one kubeconfig, as one user."""

    kubeconfig: str
    user: str | None = None

    def environment(self) -> dict[str, str]:
        """Environment in which a plain `kubectl` talks to this cluster."""
        return os.environ | {"KUBECONFIG": self.kubeconfig}

    def run(self, *arguments: str, body: object = None, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run kubectl; `body` is given to it as JSON on standard input."""
        impersonate = [f"--as={self.user}"] if self.user else []
        return subprocess.run(
            ["kubectl", *impersonate, *arguments],
            input=None if body is None else json.dumps(body),
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def __call__(self, *arguments: str, body: object = None, timeout: float = 180) -> str:
        """Run kubectl and give what it prints; `KubectlError` with what it says when it fails."""
        done = self.run(*arguments, body=body, timeout=timeout)
        if done.returncode:
            raise KubectlError(done.stderr.strip())
        return done.stdout

    def as_user(self, user: str) -> Kube:
        """Give the same cluster as somebody else."""
        return Kube(self.kubeconfig, user)

    def apply(self, *bodies: Body) -> None:
        """Apply objects, as `kubectl apply` does."""
        self("apply", "-f", "-", body={"apiVersion": "v1", "kind": "List", "items": list(bodies)})

    def find(self, kind: str, name: str, namespace: str | None = None) -> Body | None:
        """Give one object, None when it is not there."""
        place = ["-n", namespace] if namespace else []
        text = self("get", kind, name, *place, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text else None

    def get(self, kind: str, name: str, namespace: str | None = None) -> Body:
        """Give one object that must be there."""
        found = self.find(kind, name, namespace)
        if found is None:
            msg = f"{kind} {namespace or ''}/{name}: not there"
            raise KubectlError(msg)
        return found

    def list(self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> list[Body]:
        """Give all objects of a kind, of every namespace unless one is named."""
        place = ["-n", namespace] if namespace else ["-A"]
        selector = ["-l", ",".join(f"{key}={value}" for key, value in labels.items())] if labels else []
        items: list[Body] = json.loads(self("get", kind, *place, *selector, "-o", "json"))["items"]
        return items

    def raw(self, path: str) -> Body:
        """Ask the API server for a path."""
        answer: Body = json.loads(self("get", "--raw", path))
        return answer

    def delete(self, kind: str, name: str, namespace: str | None = None, *more: str) -> None:
        """Delete one object and wait until it is gone."""
        place = ["-n", namespace] if namespace else []
        self("delete", kind, name, *place, "--ignore-not-found", "--timeout=150s", *more)

    def until(self, what: str, look: Callable[[], T | None], seconds: float = 150) -> T:
        """Look until there is something, and give it; fail with what the cluster says after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            seen = look()
            if seen is not None and seen is not False:
                return seen
            if time.monotonic() > deadline:
                msg = f"not within {seconds:.0f} s: {what}\n{self.story()}"
                raise AssertionError(msg)
            time.sleep(_POLL_SECONDS)

    def story(self) -> str:
        """What an on-call person would look at: claims, Jobs, pods and the latest warnings."""
        asked = (
            ("get", f"{MEMORY},{PROVIDER}", "-A"),
            ("get", "jobs,pods", "-A"),
            ("get", "events", "-A", "--field-selector=type=Warning", "--sort-by=.lastTimestamp"),
        )
        return "\n".join("\n".join(self.run(*arguments).stdout.splitlines()[-25:]) for arguments in asked)


def condition(body: Body, kind: str) -> Body:
    """Give a condition of an object; empty when it has none of that type."""
    held: Iterable[Body] = body.get("status", {}).get("conditions", [])
    return next((one for one in held if one["type"] == kind), {})


def says(body: Body, kind: str) -> str:
    """Give status and reason of a condition, such as `False/NotAdmitted`; empty without it."""
    held = condition(body, kind)
    return f"{held['status']}/{held.get('reason', '')}" if held else ""


def is_ready(body: Body | None) -> bool:
    """Whether an object is Ready, and that is said of the spec that it has now."""
    held = condition(body or {}, "Ready")
    return held.get("status") == "True"


def namespace(name: str) -> Body:
    """A namespace that enforces Pod Security *restricted*."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def memory(team: str, name: str, provider: str = "pg", schema: str | None = None, **spec: Any) -> Body:
    """A claim as an app team writes it."""
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "Memory",
        "metadata": {"name": name, "namespace": team},
        "spec": {
            "providerRef": {"name": provider},
            "dataset": {"name": name, "schema": schema or f"{team}_{name}".replace("-", "_")},
            **spec,
        },
    }
