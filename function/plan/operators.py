"""What of others must be in the cluster: operators whose objects a backend is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from function.state import Requirement

if TYPE_CHECKING:
    from function.backends.base import Backend
    from function.state import Inputs


def requirements(backend: Backend) -> tuple[Requirement, ...]:
    """What must be seen to know that they are there; nothing where Jobs do everything."""
    kind = "CustomResourceDefinition"
    wanted = backend.operator.definitions if backend.operator else {}
    return tuple(Requirement(name, "apiextensions.k8s.io/v1", kind, match_name=crd) for name, crd in wanted.items())


def missing(backend: Backend, inputs: Inputs) -> str | None:
    """Say what is not there, None when all is, or nobody has said yet."""
    wanted = backend.operator.definitions if backend.operator else {}
    for name, crd in wanted.items():
        answer = inputs.required.get(name)
        if backend.operator and answer is not None and not len(answer):
            return f"there is no CustomResourceDefinition {crd} in this cluster, {backend.operator.advice}"
    return None
