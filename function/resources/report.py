"""The report: a ConfigMap that Jobs write to, and the right to write to just that one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from function.resources import secret

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from function.resources.metadata import Owner

# Parts of a report, by the stem of their resource key; and of a Secret that Jobs write to.
PARTS = ("report", "report-role", "report-binding")
KEYS_PARTS = ("keys", "keys-role", "keys-binding")

_RBAC = "rbac.authorization.k8s.io"


def objects(
    owner: Owner, name: str, service_account: str, keys: Mapping[str, str], observed: Container[str]
) -> dict[str, dict[str, Any]]:
    """Give the report's parts by resource key; `keys` are those of `PARTS`.

    The binding waits for its Role: the API server answers a binding to a Role that is not there with 404, Crossplane
    applies in no order, and one such answer fails its whole reconcile.
    """
    made = {keys["report"]: configmap(owner, name), keys["report-role"]: role(owner, name)}
    if keys["report-role"] in observed or keys["report-binding"] in observed:
        made[keys["report-binding"]] = role_binding(owner, name, service_account)
    return made


def keys(
    owner: Owner, name: str, service_account: str, placed: Mapping[str, str], observed: Container[str]
) -> dict[str, dict[str, Any]]:
    """Give a Secret that Jobs write to, and their right to, as `objects`; `placed` are the keys of `KEYS_PARTS`."""
    made = {placed["keys"]: secret.keys(owner, name), placed["keys-role"]: role(owner, name, "secrets")}
    if placed["keys-role"] in observed or placed["keys-binding"] in observed:
        made[placed["keys-binding"]] = role_binding(owner, name, service_account)
    return made


def configmap(owner: Owner, name: str) -> dict[str, Any]:
    """Give the ConfigMap, always without `data`: with it the function would own, and erase, what Jobs wrote."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": owner.metadata(name, "report")}


def role(owner: Owner, name: str, kind: str = "configmaps") -> dict[str, Any]:
    """Give the right to read and patch one ConfigMap, or one Secret."""
    rule = {"apiGroups": [""], "resources": [kind], "resourceNames": [name], "verbs": ["get", "patch"]}
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
