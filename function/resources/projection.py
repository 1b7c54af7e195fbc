"""Observed objects as the function would have written them.

What is not desired is deleted, so an object whose inputs are missing is emitted again. Only what builders write may
come back: with a server's additions the function would own them, and a Job with the `selector` or the `controller-uid`
labels that the server gave it can never be applied again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from function import names
from function.cache import ContentCache, content_of
from function.resources.secret import SECRET_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping

# A mask says which fields builders write: `WHOLE` takes a value as it is, a dict descends, a one-element list does so
# for every element.
WHOLE = None
_projected: ContentCache[dict[str, Any]] = ContentCache(256_000)
Mask = dict[str, Any]

_LABELS: Mask = dict.fromkeys((*names.LABEL_KEYS, names.LABEL_RELOAD, names.LABEL_ATTEMPT), WHOLE)
_METADATA: Mask = {"name": WHOLE, "namespace": WHOLE, "labels": _LABELS}
_FILES: Mask = {"secret": {"name": WHOLE, "items": [{"key": WHOLE, "path": WHOLE}]}}
_POD: Mask = {
    "restartPolicy": WHOLE,
    "serviceAccountName": WHOLE,
    "securityContext": WHOLE,
    "containers": [
        {
            "name": WHOLE,
            "image": WHOLE,
            "command": WHOLE,
            "args": WHOLE,
            "env": [{"name": WHOLE, "value": WHOLE}],
            "resources": WHOLE,
            "securityContext": WHOLE,
            "volumeMounts": [{"name": WHOLE, "mountPath": WHOLE, "readOnly": WHOLE}],
        }
    ],
    "volumes": [
        {
            "name": WHOLE,
            "projected": {"defaultMode": WHOLE, "sources": [_FILES]},
            "secret": {"secretName": WHOLE, "defaultMode": WHOLE},
        }
    ],
    "nodeSelector": WHOLE,
    "tolerations": WHOLE,
    "imagePullSecrets": [{"name": WHOLE}],
}
_JOB: Mask = {
    "backoffLimit": WHOLE,
    "activeDeadlineSeconds": WHOLE,
    "podFailurePolicy": {
        "rules": [
            {
                "action": WHOLE,
                "onPodConditions": [{"type": WHOLE, "status": WHOLE}],
                "onExitCodes": {"containerName": WHOLE, "operator": WHOLE, "values": WHOLE},
            }
        ]
    },
    "template": {"metadata": {"labels": _LABELS}, "spec": _POD},
}
_CRONJOB: Mask = {
    "schedule": WHOLE,
    "concurrencyPolicy": WHOLE,
    "successfulJobsHistoryLimit": WHOLE,
    "failedJobsHistoryLimit": WHOLE,
    "startingDeadlineSeconds": WHOLE,
    "jobTemplate": {"metadata": {"labels": _LABELS}, "spec": _JOB},
}
_BINDING: Mask = {
    "roleRef": {"apiGroup": WHOLE, "kind": WHOLE, "name": WHOLE},
    "subjects": [{"kind": WHOLE, "name": WHOLE, "namespace": WHOLE}],
}
_ROLE: Mask = {
    "cluster": {"name": WHOLE},
    "name": WHOLE,
    "comment": WHOLE,
    "login": WHOLE,
    "disablePassword": WHOLE,
    "inRoles": WHOLE,
    "connectionLimit": WHOLE,
    "databaseRoleReclaimPolicy": WHOLE,
    "passwordSecret": {"name": WHOLE},
}
_DATABASE: Mask = {
    "cluster": {"name": WHOLE},
    "name": WHOLE,
    "owner": WHOLE,
    "databaseReclaimPolicy": WHOLE,
    "extensions": [{"name": WHOLE, "schema": WHOLE}],
    "schemas": [{"name": WHOLE, "owner": WHOLE}],
}
_WITH_POLICIES: Mask = {
    "providerConfigRef": {"name": WHOLE},
    "deletionPolicy": WHOLE,
    "managementPolicies": WHOLE,
    "writeConnectionSecretToRef": {"name": WHOLE, "namespace": WHOLE},
}


def _managed(**fields: Any) -> Mask:
    """A managed resource: the provider writes tags, and what references lead to, into the same part of the spec."""
    return {"spec": {"forProvider": fields, **_WITH_POLICIES}}


def _setting(*fields: str) -> Mask:
    """One of a bucket's settings."""
    return _managed(bucketRef=_NAMED, region=WHOLE, **dict.fromkeys(fields, WHOLE))


_NAMED: Mask = {"name": WHOLE}
# Its entries are a Job's: emitted again they would be ours, and go with the next answer.
_WRITTEN_BY_JOBS: Mask = {"type": WHOLE}
_MASKS: Mapping[str, Mask] = {
    "Job": {"spec": _JOB},
    "CronJob": {"spec": _CRONJOB},
    "Secret": {"type": WHOLE, "data": dict.fromkeys(SECRET_KEYS, WHOLE)},
    "ConfigMap": {},
    "ServiceAccount": {},
    "DatabaseRole": {"spec": _ROLE},
    "Database": {"spec": _DATABASE},
    "Role": {
        "rules": [{"apiGroups": WHOLE, "resources": WHOLE, "resourceNames": WHOLE, "verbs": WHOLE}],
    },
    "RoleBinding": _BINDING,
    "ClusterRoleBinding": _BINDING,
    "User": _managed(forceDestroy=WHOLE),
    "Policy": _managed(policy=WHOLE),
    "UserPolicyAttachment": _managed(userRef=_NAMED, policyArnRef=_NAMED),
    "AccessKey": _managed(userRef=_NAMED),
    "Bucket": _managed(region=WHOLE, objectLockEnabled=WHOLE),
    "BucketOwnershipControls": _setting("rule"),
    "BucketPublicAccessBlock": _setting(
        "blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"
    ),
    "BucketVersioning": _setting("versioningConfiguration"),
    "BucketObjectLockConfiguration": _setting("objectLockEnabled", "rule"),
    "BucketServerSideEncryptionConfiguration": _setting("rule"),
    "BucketReplicationConfiguration": _setting("role", "rule"),
    "BucketLifecycleConfiguration": _setting("rule"),
}


def project(observed: Mapping[str, Any]) -> dict[str, Any]:
    """Give an observed object as a builder of this package wrote it, nothing that a server added."""
    return _projected.get(content_of(observed), lambda: _project(observed))


def _project(observed: Mapping[str, Any]) -> dict[str, Any]:
    kind, name = observed["kind"], observed["metadata"].get("name", "")
    fields = _WRITTEN_BY_JOBS if kind == "Secret" and names.is_keys(name) else _MASKS[kind]
    mask = {"apiVersion": WHOLE, "kind": WHOLE, "metadata": _METADATA, **fields}
    kept: dict[str, Any] = _masked(observed, mask)
    return kept


def is_known(kind: str) -> bool:
    """Whether this package writes objects of a kind."""
    return kind in _MASKS


def _masked(value: Any, mask: Any) -> Any:
    if mask is WHOLE:
        return value
    if isinstance(mask, list):
        return [_masked(element, mask[0]) for element in value]
    # Some servers write out fields that have no value.
    return {key: _masked(value[key], below) for key, below in mask.items() if value.get(key) is not None}
