"""The right of a provider's reaper to see which Memories exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from function.resources.metadata import Owner

_RBAC = "rbac.authorization.k8s.io"
# Static, of package/install: what nobody composes cannot be composed with more in it.
CLUSTER_ROLE = "memory-reaper"


def everywhere(owner: Owner, name: str, service_account: str) -> dict[str, Any]:
    """Give the right in the whole cluster, where composites are: to a provider of the platform's."""
    metadata = owner.metadata(name, "reap")
    # It has no namespace, and with one the API server would refuse it.
    del metadata["namespace"]
    return _binding(owner, "ClusterRoleBinding", metadata, service_account)


def within(owner: Owner, name: str, service_account: str, namespace: str) -> dict[str, Any]:
    """Give the right in one namespace, for the claims there: to the provider of a tenant."""
    return _binding(owner, "RoleBinding", owner.metadata(name, "reap", namespace), service_account)


def _binding(owner: Owner, kind: str, metadata: dict[str, Any], service_account: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": metadata,
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": CLUSTER_ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": service_account, "namespace": owner.namespace}],
    }
