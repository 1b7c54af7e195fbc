"""Request → `Inputs`: the only reader of protobuf.

Reads with `.get` and `in` alone: `map["missing"]` would create the key. Integers come back as integers (a Struct knows
doubles only).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from sys import intern
from typing import TYPE_CHECKING, Any

from function import delivery, names
from function.cache import ContentCache
from function.state import Inputs

if TYPE_CHECKING:
    from crossplane.function.proto.v1 import run_function_pb2 as fnv1
    from google.protobuf import struct_pb2

# An object of 6 kB takes some 20 kB as a dict.
_dicts: ContentCache[dict[str, Any]] = ContentCache(384_000)


def decode(req: fnv1.RunFunctionRequest) -> Inputs:
    """Read what the plan may ask for; composed resources are converted when they are looked at."""
    composite = to_dict(req.observed.composite.resource)
    return Inputs(
        kind=composite.get("kind", ""),
        composite=composite,
        observed=_Observed(req.observed.resources),
        required=_required(req),
        credentials={name: dict(each.credential_data.data) for name, each in req.credentials.items()},
        settings=to_dict(req.input),
        connection_details=dict(req.observed.composite.connection_details),
        details=_Details(req.observed.resources),
        objects=frozenset(key for key in _objects(req.observed.resources) if names.is_ours(key)),
    )


def kind_of(req: fnv1.RunFunctionRequest) -> str:
    """Give the composite's kind without reading anything else."""
    kind = req.observed.composite.resource.fields.get("kind")
    return kind.string_value if kind else ""


def _objects(resources: Mapping[str, fnv1.Resource]) -> Iterator[str]:
    """Give the keys of Objects of provider-kubernetes; asked of every resource in every call, so without converting."""
    for key in resources:
        fields = resources[key].resource.fields
        kind = fields.get("kind")
        if kind is not None and kind.string_value == delivery.KIND:
            version = fields.get("apiVersion")
            if version is not None and version.string_value.startswith(f"{delivery.GROUP}/"):
                yield key


def to_dict(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Convert an object; the result is shared, so nobody may change it.

    `metadata.managedFields`, the larger half of an observed object, is dropped from the request: nobody here reads it.
    """
    if "metadata" in struct.fields:
        metadata = struct.fields["metadata"].struct_value.fields
        if "managedFields" in metadata:
            del metadata["managedFields"]
    # Not deterministic: another order of the same map would only be converted once more.
    return _dicts.get(struct.SerializeToString(), lambda: _fields(struct))


def _required(req: fnv1.RunFunctionRequest) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Answers to requirements: Crossplane v2 gives them under one name, v1.20 under the other."""
    answers = {**req.extra_resources, **req.required_resources}
    return {name: _Answers([item.resource for item in each.items]) for name, each in answers.items()}


def _fields(struct: struct_pb2.Struct) -> dict[str, Any]:
    # Interned: field names would be half of what a converted object takes. Keys, not items: protobuf's are quicker.
    fields = struct.fields
    return {intern(key): _value(fields[key]) for key in sorted(fields)}


def _value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "struct_value":
        return _fields(value.struct_value)
    if kind == "list_value":
        return [_value(each) for each in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    return None if kind in {"null_value", None} else getattr(value, kind)


class _Answers(Sequence[Mapping[str, Any]]):
    """Objects of one answer, each converted when it is read: of some only their being there counts."""

    def __init__(self, structs: list[struct_pb2.Struct]) -> None:
        self._structs = structs

    def __getitem__(self, index: Any) -> Any:
        return to_dict(self._structs[index])

    def __len__(self) -> int:
        return len(self._structs)


class _Observed(Mapping[str, Mapping[str, Any]]):
    """Observed composed resources, each converted when it is read."""

    def __init__(self, resources: Mapping[str, fnv1.Resource]) -> None:
        self._resources = resources
        self._read: dict[str, Mapping[str, Any]] = {}

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        if key not in self._read:
            if key not in self._resources:
                raise KeyError(key)
            self._read[key] = to_dict(self._resources[key].resource)
        return self._read[key]

    def __contains__(self, key: object) -> bool:
        return key in self._resources

    def __iter__(self) -> Iterator[str]:
        # A map's order differs from process to process.
        return iter(sorted(self._resources))

    def __len__(self) -> int:
        return len(self._resources)


class _Details(Mapping[str, Mapping[str, bytes]]):
    """Connection details of observed resources, each read when it is asked for."""

    def __init__(self, resources: Mapping[str, fnv1.Resource]) -> None:
        self._resources = resources

    def __getitem__(self, key: str) -> Mapping[str, bytes]:
        if key not in self._resources:
            raise KeyError(key)
        return dict(self._resources[key].connection_details)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._resources))

    def __len__(self) -> int:
        return len(self._resources)
