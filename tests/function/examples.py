"""The folders of `examples/`: what a person wrote, what a control plane makes of it, and what the function answers.

    provider.yaml, claim.yaml   what a person writes
    namespace.yaml              what a person writes where the provider looks at it: the claim's Namespace
    xr.yaml                     the composite that Crossplane makes from the claim
    required.yaml               the provider's composite, probed, the Namespace, and definitions that tell of operators
    observed.yaml               the composed objects once all is done, with all that servers add
    expected/*.yaml             the function's answers: to the provider, to the new claim (first), to the settled one

`MEMORY_UPDATE_GOLDENS=1` writes all but the first line anew; the diff is then to be reviewed.
"""

from __future__ import annotations

import os
import uuid
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.function import worlds
from tests.function.harness import (
    Answer,
    Object,
    World,
    access_keys,
    complete,
    dump,
    inner,
    pipeline_input,
    reported,
    run,
    showing,
    step,
)
from tests.schemas import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

UPDATE = bool(os.environ.get("MEMORY_UPDATE_GOLDENS"))
FOLDERS = sorted(path.parent for path in (ROOT / "examples").glob("*/claim.yaml"))
_CA = (Path(__file__).parent / "ca.pem").read_text()
_SERVERS: dict[str, Object] = {
    "postgres": {
        "version": "18.4",
        "capabilities": ["create-on-database", "createrole", "pgvector", "pgvector/0.8.5"],
    },
    "redis": {"version": "8.2.1", "capabilities": ["acl-file", "redis", "vector-sets"]},
    "s3": {"version": "", "capabilities": ["conditional-put", "object-lock", "versioning"]},
    "custom": {"version": "11.8.3-MariaDB", "capabilities": []},
}
_RESOURCE_KEY = "crossplane.io/composition-resource-name"


@dataclass(frozen=True)
class Example:
    """One folder."""

    folder: Path

    def read(self, name: str) -> Object:
        """The one object of a file."""
        body: Object = yaml.safe_load((self.folder / name).read_text())
        return body

    @property
    def required(self) -> tuple[Object, ...]:
        """What the function requires: the provider's composite, and what else the goldens' world has."""
        return tuple(yaml.safe_load_all((self.folder / "required.yaml").read_text()))

    @property
    def namespaces(self) -> tuple[Object, ...]:
        """The claim's Namespace as an API server keeps it, where a person wrote one."""
        if not (self.folder / "namespace.yaml").exists():
            return ()
        metadata = self.read("namespace.yaml")["metadata"]
        return (worlds.namespace(metadata["name"], **metadata["labels"]),)

    @property
    def definitions(self) -> tuple[Object, ...]:
        """The CustomResourceDefinitions that tell of an operator which makes logins, where that is needed."""
        spec = self.read("provider.yaml")["spec"]
        if spec["type"] == "postgres" and "connectionSecret" not in spec["postgres"]:
            return (worlds.ROLES_CRD,)
        if spec["type"] == "s3" and spec["s3"]["users"] == "AWS":
            return worlds.AWS_CRDS if "bucketPrefix" in spec["s3"] else worlds.AWS_CRDS[:1]
        return ()

    @property
    def composite(self) -> Object:
        """What Crossplane makes from the claim."""
        claim = self.read("claim.yaml")
        metadata = claim["metadata"]
        name = f"{metadata['name']}-x7k2p"
        spec = {key: value for key, value in claim["spec"].items() if key != "writeConnectionSecretToRef"}
        namespace = composition(claim["spec"], "memory")["spec"].get("writeConnectionSecretsToNamespace")
        if namespace:
            spec["writeConnectionSecretToRef"] = {"name": _uid(name), "namespace": namespace}
        return worlds.xr("XMemory", name, spec, (metadata["namespace"], metadata["name"]), _uid(name))

    @property
    def connection_secret(self) -> Object | None:
        """The composite's own connection Secret, as Crossplane has published it; None where it has none."""
        world = self.world(settled=True)
        ref = world.xr["spec"].get("writeConnectionSecretToRef")
        data = {key: b64encode(value).decode() for key, value in world.published.items()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": ref, "data": data} if ref else None

    @property
    def provider_composite(self) -> Object:
        """What Crossplane makes from the provider's claim, or what the platform team wrote."""
        body = self.read("provider.yaml")
        metadata = body["metadata"]
        if body["kind"] == "XMemoryProvider":
            return worlds.xr("XMemoryProvider", metadata["name"], body["spec"], None, _uid(metadata["name"]))
        name = f"{metadata['name']}-q4m9z"
        return worlds.xr("XMemoryProvider", name, body["spec"], (metadata["namespace"], metadata["name"]), _uid(name))

    def observed(self) -> dict[str, Object]:
        """The composed objects by key."""
        found = yaml.safe_load_all((self.folder / "observed.yaml").read_text())
        return {body["metadata"]["annotations"][_RESOURCE_KEY]: body for body in found if body}

    def world(self, *, settled: bool) -> World:
        """What a call for the Memory sees."""
        seen = self.observed() if settled else {}
        provider, *others = self.required
        xr = self.read("xr.yaml")
        world = World(xr, seen, providers=(provider,), settings=_input(xr["spec"], "memory"), **_by_kind(others))
        world = world.but(details=access_keys(seen))
        return world.but(published=dict(run(world).response.desired.composite.connection_details))

    @property
    def provider_world(self) -> World:
        """What a call for the provider sees at first."""
        xr = self.provider_composite
        settings = _input(xr["spec"], "memoryprovider")
        return World(xr, settings=settings, credentials={}, definitions=self.definitions)

    def answers(self) -> dict[str, Answer]:
        """The function's answer to each golden's question."""
        return {
            "provider": run(self.provider_world.but(observed=probed(self.provider_world)[0].observed)),
            "first": run(self.world(settled=False)),
            "settled": run(self.world(settled=True)),
        }

    def write(self) -> None:
        """Write everything that a machine makes, goldens last."""
        required = probed(self.provider_world)[0].xr
        self._write("xr.yaml", dump(self.composite))
        self._write("required.yaml", "---\n".join(map(dump, (required, *self.namespaces, *self.definitions))))
        settings = _input(self.composite["spec"], "memory")
        others = _by_kind([*self.namespaces, *self.definitions])
        start = World(xr=self.composite, providers=(required,), settings=settings, **others)
        settled = start
        for epoch in range(self.composite["spec"]["credentials"]["epoch"] + 1):
            settled = provisioned(settled.with_spec(credentials__epoch=epoch))
        self._write("observed.yaml", "---\n".join(dump(body) for _, body in sorted(settled.observed.items())))
        for name, answer in self.answers().items():
            self._write(f"expected/{name}.yaml", answer.to_yaml())

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def probed(world: World) -> tuple[World, Answer]:
    """A provider whose probe has answered."""
    world, answer = step(world)
    if not answer.resources:
        return world, answer
    report = next(key for key, body in world.observed.items() if inner(body)["kind"] == "ConfigMap")
    probe = next(key for key, body in world.observed.items() if inner(body)["kind"] == "Job")
    found = reported(
        inner(world.observed[report]),
        "probe",
        hash=probe.removeprefix("probe-"),
        code=0,
        reason="Succeeded",
        message="",
        server=_server(world.xr["spec"]),
        caBundle=_CA,
    )
    ended = complete(inner(world.observed[probe]))
    now = {report: showing(world.observed[report], found), probe: showing(world.observed[probe], ended)}
    return step(world.but(observed={**world.observed, **now}))


def _server(spec: Object) -> Object:
    """What a probe finds; one that has no login finds a server, and nothing out about it."""
    kind = spec["type"]
    is_seen = kind != "postgres" or "connectionSecret" in spec["postgres"]
    return _SERVERS[kind] if is_seen else {"version": "", "capabilities": []}


def provisioned(world: World) -> World:
    """A Memory whose Job has run and reported; one that is refused stays as it is."""
    for _ in range(6):
        world, answer = step(world)
        seen = dict(world.observed)
        for key in answer.jobs():
            report = next(name for name, body in seen.items() if inner(body)["kind"] == "ConfigMap")
            found = _installed(inner(seen[report]), key.split("-")[1], world.xr["spec"]["embeddings"])
            seen[report] = showing(seen[report], found)
        world = world.but(observed=seen)
    return world


def _installed(report: Object, content_hash: str, embeddings: Object) -> Object:
    modules = [
        {"name": "core", "version": "1"},
        *([{"name": "embeddings", "version": "1"}] if embeddings["enabled"] else []),
    ]
    found = reported(report, "provision", hash=content_hash, code=0, reason="Succeeded", message="", modules=modules)
    return reported(found, "maintenance", **_looked_after(embeddings))


def _looked_after(embeddings: Object) -> Object:
    """What maintenance says of a Memory that an app has used for some months."""
    index = {"state": "exact", "reason": "Exact", "message": "searched exactly", "rows": 1200, "bytes": 9_800_000}
    if not embeddings["enabled"]:
        index = {"state": "exact", "reason": "Disabled", "message": "embeddings are not enabled"}
    elif embeddings["index"].get("minRows", 10_000) <= 1200:
        index |= {"state": "ready", "reason": "Ready", "message": "searched by the approximate index"}
    return {
        "hash": "",
        "code": 0,
        "reason": "Succeeded",
        "message": "",
        "migration": "",
        "sqlstate": "",
        "index": index,
        "retention": {"lastRun": "2026-01-01T00:00:00Z", "deleted": 310, "message": ""},
        "drift": [],
        "data": {"rows": 48000, "bytes": 31_000_000, "deadPercent": 2, "oldest": "2025-10-03T00:00:00Z", "held": 0},
    }


def composition(spec: Object, default: str) -> Object:
    """The Composition that a claim asks for."""
    name = spec.get("compositionRef", {}).get("name", default)
    body: Object = yaml.safe_load((ROOT / "compositions" / f"{name}.yaml").read_text())
    return body


def _input(spec: Object, default: str) -> Object:
    return pipeline_input(composition(spec, default)["metadata"]["name"])


def _by_kind(bodies: Sequence[Object]) -> dict[str, Any]:
    """What a world has beside providers, by its fields."""
    return {
        field: tuple(body for body in bodies if body["kind"] == kind)
        for field, kind in (("namespaces", "Namespace"), ("definitions", "CustomResourceDefinition"))
    }


def _uid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))
