"""The real Crossplane CLI, offline and without Docker: what it prints, as plain objects."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.function.harness import ROOT_KEY, Object, dump
from tests.schemas import ROOT, published
from tests.servers import require

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

KEY = "crossplane.io/composition-resource-name"
PLURALS = {"XMemory": ("xmemories", "memory"), "XMemoryProvider": ("xmemoryproviders", "memoryprovider")}


@dataclasses.dataclass(frozen=True)
class Validation:
    """What `crossplane resource validate` says.

    Attributes:
        passed: Its exit code is 0.
        statuses: By kind and name: valid, invalid or missingSchema.
        errors: The sentence of each error.
    """

    passed: bool
    statuses: Mapping[tuple[str, str], str]
    errors: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Crossplane:
    """The CLI in a folder of its own, which is its home.

    Attributes:
        cli: The `crossplane` CLI.
        core: Crossplane's own binary: its reconciler renders.
        function: Where the function listens.
        home: A folder to write to.
    """

    cli: Path
    core: Path
    function: str
    home: Path

    def render(self, composite: Object, required: Collection[Object] = (), observed: Collection[Object] = ()) -> str:
        """Gives what `crossplane composition render` prints for a composite.

        Among `required` may be the composite's connection Secret: the control plane finds it like all of them.
        """
        plural, default = PLURALS[composite["kind"]]
        composition = composite["spec"].get("compositionRef", {}).get("name", default)
        arguments: list[str | Path] = [
            self.write("xr.yaml", composite),
            ROOT / "compositions" / f"{composition}.yaml",
            self.write("functions.yaml", self._function()),
            f"--xrd={ROOT / 'apis' / plural / 'definition.yaml'}",
            f"--crossplane-binary={self.core}",
            f"--function-credentials={self.write('root-key.yaml', _root_key())}",
            "--include-full-xr",
            "--include-function-results",
        ]
        if required:
            arguments.append(f"--required-resources={self.write('required.yaml', *required)}")
        if observed:
            arguments.append(f"--observed-resources={self.write('observed.yaml', *observed)}")
        done = self.run("composition", "render", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def validate(self, *bodies: Object) -> Validation:
        """Gives what `crossplane resource validate` says of objects: our kinds, Kubernetes' own, and others'."""
        others = (published() / name for name in ("provider-kubernetes", "cloudnative-pg", "provider-aws"))
        schemas = ",".join(map(str, (ROOT / "apis", *others)))
        done = self.run(
            *("resource", "validate", schemas, self.write("resources.yaml", *bodies)),
            *("--crossplane-image=", f"--cache-dir={self.home / 'cache'}", "--error-on-missing-schemas"),
            "--output=json",
        )
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)["resources"]
        return Validation(
            passed=done.returncode == 0,
            statuses={(each["kind"], each["name"]): each["status"] for each in found},
            errors=tuple(error["message"] for each in found for error in each.get("errors", [])),
        )

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """One command, with nothing of this machine's settings: no Docker, no cluster, no registry's credentials."""
        return subprocess.run(
            [self.cli, *arguments],
            cwd=self.home,
            env={"HOME": str(self.home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def write(self, name: str, *bodies: Object) -> Path:
        """Write objects to a file of the folder."""
        path = self.home / name
        path.write_text("---\n".join(dump(body) for body in bodies))
        return path

    def _function(self) -> Object:
        annotations = {
            "render.crossplane.io/runtime": "Development",
            "render.crossplane.io/runtime-development-target": self.function,
        }
        return {
            "apiVersion": "pkg.crossplane.io/v1",
            "kind": "Function",
            "metadata": {"name": "function-memory", "annotations": annotations},
            "spec": {"package": "function-memory"},
        }


@dataclasses.dataclass(frozen=True)
class Shown:
    """An answer of the function as far as Crossplane shows it: all but `ttl`, requirements, and an event's target.

    Attributes:
        ready: Whether the composite is Ready.
        unready: Keys of the composed resources that are not.
        status: The composite's, without conditions.
        conditions: Status, reason and message by type.
        told: Types of the conditions that the claim gets too.
        events: Severity, reason and message.
        resources: Composed resources by key, without what Crossplane adds to each.
    """

    ready: bool
    unready: frozenset[str]
    status: Object
    conditions: Mapping[str, tuple[str, str, str]]
    told: frozenset[str]
    events: list[tuple[str, str, str]]
    resources: Mapping[str, Object]

    @classmethod
    def golden(cls, body: Object) -> Shown:
        """What is to be shown of a file of `expected/`."""
        told = (each["type"] for each in body["conditions"] if each["target"] == "TARGET_COMPOSITE_AND_CLAIM")
        return cls(
            ready=body["ready"] == "READY_TRUE",
            unready=frozenset(key for key, each in body["resources"].items() if each["ready"] != "READY_TRUE"),
            status=body["status"],
            conditions={each["type"]: _said(each, "STATUS_CONDITION_") for each in body["conditions"]},
            told=frozenset(told),
            events=[(_word(each["severity"]), each["reason"], each["message"]) for each in body["results"]],
            resources={key: each["resource"] for key, each in body["resources"].items()},
        )

    @classmethod
    def rendered(cls, text: str) -> Shown:
        """What `crossplane composition render` printed."""
        composite, composed, events = parted(text)
        status = dict(composite["status"])
        conditions = {each["type"]: _said(each) for each in status.pop("conditions")}
        ready = conditions.pop("Ready")[0] == "True"
        assert conditions.pop("Synced")[0] == "True"
        assert conditions.pop("Responsive")[0] == "True"
        step, waits = 'Pipeline step "memory": ', " is not yet ready"
        return cls(
            ready=ready,
            unready=frozenset(each["message"].split('"')[1] for each in events if each["message"].endswith(waits)),
            told=frozenset(status.pop("claimConditionTypes", ())),
            status=status,
            conditions=conditions,
            events=[
                (each["severity"], each["reason"], each["message"].removeprefix(step))
                for each in events
                if each["message"].startswith(step)
            ],
            resources={body["metadata"]["annotations"][KEY]: _own(body) for body in composed},
        )


def parted(text: str) -> tuple[Object, list[Object], list[Object]]:
    """Gives the composite, the composed resources and the events that `crossplane composition render` printed."""
    composite, *others = (body for body in yaml.safe_load_all(text) if body)
    composed = [body for body in others if body["kind"] != "Result"]
    return composite, composed, [body for body in others if body["kind"] == "Result"]


def binary(variable: str, default: str | None, what: str) -> Path:
    """Gives a program by its variable; a test that needs it is skipped where there is none."""
    found = os.environ.get(variable) or default
    return Path(require(found, f"needs {what}: set {variable}"))


def _own(body: Object) -> Object:
    """A composed resource as the function wants it."""
    metadata = {key: value for key, value in body["metadata"].items() if key not in {"ownerReferences", "annotations"}}
    metadata["labels"] = {
        key: value for key, value in metadata["labels"].items() if not key.startswith("crossplane.io")
    }
    others = {key: value for key, value in body["metadata"]["annotations"].items() if key != KEY}
    return {**body, "metadata": {**metadata, **({"annotations": others} if others else {})}}


def _said(condition: Mapping[str, Any], prefix: str = "") -> tuple[str, str, str]:
    status = condition["status"].removeprefix(prefix).title()
    return status, condition["reason"], condition.get("message", "")


def _word(severity: str) -> str:
    return severity.removeprefix("SEVERITY_").title()


def _root_key() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "memory-root-key", "namespace": "crossplane-system"},
        "data": {"current": b64encode(ROOT_KEY).decode()},
    }
