"""The manifests that a person hands over."""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from memoryctl.definitions import Package
from memoryctl.errors import UserError
from memoryctl.objects import Object

# A name becomes a file name here, so what Kubernetes refuses must not come through.
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")

CORE = (("v1", "Secret"), ("v1", "Namespace"))
# An API server puts it on every Namespace.
LABEL_NAME = "kubernetes.io/metadata.name"


def read(paths: Iterable[str], package: Package) -> list[Object]:
    """Reads manifests of claims, composites, Secrets and Namespaces; `-` is standard input.

    Raises:
        UserError: A file cannot be read, or a manifest is not valid.
    """
    return [_checked(one, path, package) for path in paths for one in _documents(path)]


def _documents(path: str) -> Iterator[Any]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
        yield from (one for one in yaml.safe_load_all(text) if one is not None)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise UserError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is not YAML: {' '.join(str(error).split())}"
        raise UserError(msg) from error


def _checked(manifest: object, path: str, package: Package) -> Object:
    if not isinstance(manifest, dict) or not isinstance(manifest.get("metadata"), dict):
        msg = f"{path} is not a Kubernetes manifest: it needs apiVersion, kind, metadata and spec"
        raise UserError(msg)
    api_version, kind, metadata = manifest.get("apiVersion"), manifest.get("kind"), manifest["metadata"]
    definition = package.definition(str(api_version), str(kind))
    if definition is None and (api_version, kind) not in CORE:
        known = [name for one in package.definitions for name in (one.claim_kind, one.kind)]
        offer = f"{', '.join(known)} ({package.definitions[0].api_version}), Secret and Namespace (v1)"
        msg = f"{path}: {kind} ({api_version}) is not a kind that memoryctl knows: {offer} are"
        raise UserError(msg)
    name = _name(metadata.get("name"), f"{path}: {kind}: metadata.name")
    if kind == "Namespace" or (definition and kind == definition.kind):
        if "namespace" in metadata:
            claim = f", or write a {definition.claim_kind}" if definition else ""
            msg = f"{path}: {kind} {name} is cluster-scoped: take metadata.namespace away{claim}"
            raise UserError(msg)
    else:
        metadata = {**metadata, "namespace": _name(metadata.get("namespace", "default"), f"{path}: metadata.namespace")}
    if kind == "Namespace":
        metadata = {**metadata, "labels": {**metadata.get("labels", {}), LABEL_NAME: name}}
    manifest = {**manifest, "metadata": metadata}
    return definition.defaulted(manifest) if definition else manifest


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        msg = f"{where} is {value!r}: use lower-case letters, digits, '-' and '.', at most 253"
        raise UserError(msg)
    return value
