"""The report: a ConfigMap that Jobs write to, and the right to write to just that one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from function.resources.metadata import Owner

_RBAC = "rbac.authorization.k8s.io"


def configmap(owner: Owner, name: str) -> dict[str, Any]:
    """Give the ConfigMap, always without `data`: with it the function would own, and erase, what Jobs wrote."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": owner.metadata(name, "report")}


def role(owner: Owner, name: str) -> dict[str, Any]:
    """Give the right to read and patch one ConfigMap."""
    rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": ["get", "patch"]}
    metadata = owner.metadata(name, "report")
    return {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]}


def role_binding(owner: Owner, name: str, service_account: str) -> dict[str, Any]:
    """Give that right to the provider's Jobs."""
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": owner.metadata(name, "report"),
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": service_account, "namespace": owner.namespace}],
    }


def service_account(owner: Owner, name: str) -> dict[str, Any]:
    """Give the account that a provider's Jobs run as."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": owner.metadata(name, "jobs")}
