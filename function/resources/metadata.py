"""Names, namespaces and labels of composed objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from function import names


@dataclass(frozen=True)
class Owner:
    """For whom objects are composed: what their labels say, and where they live.

    Attributes:
        provider: Object name of the provider.
        claim: Namespace and name of the claim, None for a composite without one.
        namespace: The provider's job namespace.
    """

    provider: str
    claim: tuple[str, str] | None
    namespace: str

    def labels(self, component: str) -> dict[str, str]:
        """Labels of one object."""
        return names.labels(component, provider=self.provider, claim=self.claim)

    def metadata(self, name: str, component: str, namespace: str | None = None) -> dict[str, Any]:
        """Metadata of one object, in the job namespace unless another is given."""
        return {"name": name, "namespace": namespace or self.namespace, "labels": self.labels(component)}
