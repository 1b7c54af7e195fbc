"""Which schema an object has: our own kinds, the core kinds that we compose, and the CRDs of other systems."""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.schemas import crossplane, structural
from tests.schemas.structural import Schema
from tests.servers import require

ROOT = Path(__file__).parents[2]
# The same by libyaml, where that is there: published definitions are megabytes, and it is ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")


def objects(path: Path) -> list[dict[str, Any]]:
    """Gives the objects of a YAML file."""
    return [entry for entry in yaml.load_all(path.read_text(encoding="utf-8"), Loader=_LOADER) if entry]


def definition(plural: str) -> dict[str, Any]:
    """Gives one of our XRDs: `xmemories` or `xmemoryproviders`."""
    (xrd,) = objects(ROOT / "apis" / plural / "definition.yaml")
    return xrd


def published() -> Path:
    """Gives the folder with other systems' CRDs: MEMORY_CRDS, or `shared/crds` beside the repository.

    A test that needs it is skipped where there is none, or fails with MEMORY_REQUIRE=all.
    """
    folder = Path(os.environ.get("MEMORY_CRDS", ROOT.parent / "shared" / "crds"))
    return require(folder if folder.is_dir() else None, "needs a folder with CRDs of other systems: set MEMORY_CRDS")


@dataclasses.dataclass(frozen=True)
class Catalog:
    """Structural schemas by `apiVersion/kind`, and how their objects' metadata looks."""

    schemas: dict[str, Schema]
    metadata: Schema

    def defaulted(self, body: dict[str, Any]) -> dict[str, Any]:
        """Gives the object with its schema's defaults.

        Raises:
            LookupError: Nobody knows that kind; unknown is not the same as right.
        """
        result: dict[str, Any] = structural.defaulted(body, self._schema(body))
        return result

    def problems(self, body: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
        """Says why the API server would refuse an object, or its change from `old`; nothing when it would not.

        Raises:
            LookupError: Nobody knows that kind.
        """
        schema = self._schema(body)
        stored = structural.MISSING if old is None else structural.defaulted(old, schema)
        found = structural.problems(structural.defaulted(body, schema), schema, stored)
        return [*found, *_metadata_problems(body.get("metadata", {}))]

    def _schema(self, body: dict[str, Any]) -> Schema:
        key = f"{body.get('apiVersion')}/{body.get('kind')}"
        if key not in self.schemas:
            problem = f"there is no schema for {key}"
            raise LookupError(problem)
        schema = self.schemas[key]
        own = schema["properties"].get("metadata", {})
        bounds = own.get("properties", {}).get("name", {})
        names = self.metadata["properties"] | {"name": self.metadata["properties"]["name"] | bounds}
        return schema | {"properties": schema["properties"] | {"metadata": self.metadata | {"properties": names}}}


@functools.cache
def catalog(*folders: str) -> Catalog:
    """Gives the schemas of our kinds, of the core kinds, and of the named folders of `published`."""
    core = _core()
    found = {**core["kinds"]}
    for plural in ("xmemories", "xmemoryproviders"):
        xrd = definition(plural)
        found |= dict(_kinds(crossplane.composite(xrd))) | dict(_kinds(crossplane.claim(xrd)))
    for folder in folders:
        for path in sorted((published() / folder).glob("*.yaml")):
            for crd in objects(path):
                found |= dict(_kinds(crd))
    return Catalog(found, core["metadata"])


def _kinds(crd: dict[str, Any]) -> Iterator[tuple[str, Schema]]:
    for version in crd["spec"]["versions"]:
        key = f"{crd['spec']['group']}/{version['name']}/{crd['spec']['names']['kind']}"
        yield key, version["schema"]["openAPIV3Schema"]


@functools.cache
def _core() -> dict[str, Any]:
    document = json.loads((Path(__file__).parent / "kubernetes.json").read_text(encoding="utf-8"))
    inline = functools.partial(_inline, definitions=document["definitions"])
    return {
        "kinds": {key: inline({"$ref": f"#/definitions/{name}"}) for key, name in document["kinds"].items()},
        "metadata": inline({"$ref": "#/definitions/ObjectMeta"}),
    }


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            return _inline(definitions[node["$ref"].rpartition("/")[2]], definitions)
        return {key: _inline(entry, definitions) for key, entry in node.items()}
    return [_inline(entry, definitions) for entry in node] if isinstance(node, list) else node


def _metadata_problems(metadata: dict[str, Any]) -> Iterator[str]:
    """What the API server checks of every object's metadata, beyond types."""
    for field, longest in (("name", 253), ("namespace", 63)):
        value = metadata.get(field, "x")
        if len(value) > longest or not _NAME.fullmatch(value):
            yield f"metadata.{field}: {value!r} is not a name of at most {longest} lower-case letters, digits, - and ."
    for key, value in metadata.get("labels", {}).items():
        prefix, _, name = key.rpartition("/")
        if len(name) > 63 or not name or not _LABEL.fullmatch(name) or (prefix and not _NAME.fullmatch(prefix)):
            yield f"metadata.labels: {key!r} is not a label key"
        if len(value) > 63 or not _LABEL.fullmatch(value):
            yield f"metadata.labels[{key}]: {value!r} is not a label value"
