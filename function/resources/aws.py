"""Managed resources of the upbound AWS provider: a bucket with its settings, and users with their keys.

Cluster-scoped kinds, for a composite that is cluster-scoped too. They name each other by references, which the provider
resolves when the other is there. Tags, and what the references lead to, are the provider's to write.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from function.model import S3, Encryption, Lifecycle, ObjectLock, Replication
    from function.resources.metadata import Owner

IAM = "iam.aws.upbound.io"
S3_GROUP = "s3.aws.upbound.io"
# The definitions whose presence says that the provider's two families are there.
USERS_CRD, BUCKETS_CRD = f"users.{IAM}", f"buckets.{S3_GROUP}"
_IAM, _S3 = f"{IAM}/v1beta1", f"{S3_GROUP}/v1beta2"
# Neither lets the provider write defaults of Amazon's into the spec. What holds data outlives its object: the reaper
# decides about data.
_STAYS = {"deletionPolicy": "Orphan", "managementPolicies": ["Observe", "Create", "Update"]}
_GOES = {"deletionPolicy": "Delete", "managementPolicies": ["Observe", "Create", "Update", "Delete"]}
_UPLOAD_DAYS = 7
# What was replaced, deleted or expired stays for a day, to be found again; what is locked stays until its time is over.
_VERSION_DAYS = 1
# Where the layout keeps what ages; meta.json stands beside these, and stays.
KINDS = ("events", "event-ids", "kv", "embeddings")

_READ = ("s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention", "s3:GetObjectLegalHold")
_WRITE = (
    *("s3:PutObject", "s3:PutObjectRetention", "s3:PutObjectLegalHold"),
    *("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"),
)
_DELETE = ("s3:DeleteObject",)
_LIST = ("s3:ListBucket", "s3:ListBucketVersions")
_NEVER = (
    *("s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:PutObjectAcl", "s3:PutObjectVersionAcl"),
    *("s3:PutObjectTagging", "s3:PutObjectVersionTagging", "s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging"),
)
# Nor, while the Memory is on hold, may a login lift one. Amazon wants the right to put an object on hold of whoever
# writes one that is on hold from the start, so only what lifts is denied; Ceph does not, and has no such condition.
_LIFTED = {"StringEquals": {"s3:object-lock-legal-hold": ["OFF"]}}


@dataclass(frozen=True)
class Place:
    """Where a Memory's objects are; `alone` when the bucket is its own."""

    bucket: str
    prefix: str
    alone: bool


def document(
    place: Place, role: Literal["writer", "reader"], *, held: bool, encryption: Encryption | None
) -> dict[str, Any]:
    """Give the rights of one role on its own prefix: those that the Jobs give on Ceph, but for holds, and of a key.

    Args:
        place: Where its Memory is.
        role: What it may do there.
        held: Whether nothing there may be deleted.
        encryption: How objects are encrypted: a key of one's own has to be used by whoever reads and writes.
    """
    bucket, objects = f"arn:aws:s3:::{place.bucket}", f"arn:aws:s3:::{place.bucket}/{place.prefix}*"
    changes = (*_WRITE, *_DELETE)
    writes = role == "writer"
    allowed = _READ if not writes else (*_READ, *_WRITE) if held else (*_READ, *_WRITE, *_DELETE)
    denied = (*_NEVER, *changes) if not writes else (*_NEVER, *_DELETE) if held else _NEVER
    listing = _statement("List", "Allow", _LIST, bucket)
    if not place.alone:
        listing["Condition"] = {"StringLike": {"s3:prefix": [f"{place.prefix}*"]}}
    statements = [
        listing,
        _statement("Objects", "Allow", [each for each in allowed if each not in denied], objects),
        _statement("Never", "Deny", denied, objects),
        _statement("Meta", "Deny", changes, f"arn:aws:s3:::{place.bucket}/{place.prefix}meta.json"),
        {"Sid": "Outside", "Effect": "Deny", "Action": ["s3:*"], "NotResource": [bucket, objects]},
    ]
    if held and writes:
        statements.append({**_statement("Hold", "Deny", ["s3:PutObjectLegalHold"], objects), "Condition": _LIFTED})
    if encryption and encryption.kms_key_id:
        # Nobody but S3 uses the key for them; an id or an alias is no ARN, which alone can be a resource.
        key = encryption.kms_key_id if encryption.kms_key_id.startswith("arn:") else "*"
        use = _statement("Key", "Allow", ["kms:Decrypt", *(["kms:GenerateDataKey"] if writes else [])], key)
        statements.append({**use, "Condition": {"StringLike": {"kms:ViaService": ["s3.*.amazonaws.com"]}}})
    return {"Version": "2012-10-17", "Statement": statements}


def _statement(sid: str, effect: str, actions: Sequence[str], resource: str) -> dict[str, Any]:
    return {"Sid": sid, "Effect": effect, "Action": sorted(actions), "Resource": [resource]}


@dataclass(frozen=True)
class Maker:
    """Who composes, and how the provider reaches Amazon."""

    owner: Owner
    spec: S3

    def user(self, name: str) -> dict[str, Any]:
        """Give a user; it can be deleted with whatever key it has."""
        return self._object(_IAM, "User", name, "user", {"forceDestroy": True}, _GOES)

    def policy(self, name: str, rights: dict[str, Any]) -> dict[str, Any]:
        """Give rights that several users can have."""
        text = json.dumps(rights, separators=(",", ":"))
        return self._object(_IAM, "Policy", name, "policy", {"policy": text}, _GOES)

    def attachment(self, user: str, policy: str) -> dict[str, Any]:
        """Give rights to a user."""
        given = {"userRef": {"name": user}, "policyArnRef": {"name": policy}}
        return self._object(_IAM, "UserPolicyAttachment", user, "policy", given, _GOES)

    def access_key(self, name: str, user: str, namespace: str) -> dict[str, Any]:
        """Give a key of a user; the provider writes it to a Secret of the same name, as username and password."""
        secret = {"writeConnectionSecretToRef": {"name": name, "namespace": namespace}}
        return self._object(_IAM, "AccessKey", name, "access-key", {"userRef": {"name": user}}, {**_GOES, **secret})

    def bucket(self, name: str) -> dict[str, Any]:
        """Give a bucket; objects can be locked in it if it is made so."""
        lock = {"objectLockEnabled": True} if self.spec.object_lock else {}
        return self._object(_S3, "Bucket", name, "bucket", {"region": self.spec.region, **lock}, _STAYS)

    def ownership(self, bucket: str) -> dict[str, Any]:
        """Give objects to the bucket's owner, whoever wrote them: no access lists."""
        return self._of(bucket, "BucketOwnershipControls", {"rule": {"objectOwnership": "BucketOwnerEnforced"}})

    def public_access(self, bucket: str) -> dict[str, Any]:
        """Block all access of the public."""
        blocked = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
        return self._of(bucket, "BucketPublicAccessBlock", dict.fromkeys(blocked, True), version="v1beta1")

    def versioning(self, bucket: str) -> dict[str, Any]:
        """Keep what is overwritten."""
        return self._of(bucket, "BucketVersioning", {"versioningConfiguration": {"status": "Enabled"}})

    def lock(self, bucket: str, lock: ObjectLock) -> dict[str, Any]:
        """Lock each new version for some days."""
        rule = {"defaultRetention": {"mode": lock.mode, "days": lock.days}}
        return self._of(bucket, "BucketObjectLockConfiguration", {"objectLockEnabled": "Enabled", "rule": rule})

    def encryption(self, bucket: str, encryption: Encryption) -> dict[str, Any]:
        """Encrypt each new object; one key a bucket makes few questions to the key service."""
        chosen: dict[str, Any] = {"sseAlgorithm": encryption.algorithm}
        if encryption.kms_key_id:
            chosen["kmsMasterKeyId"] = encryption.kms_key_id
        rule: dict[str, Any] = {"applyServerSideEncryptionByDefault": chosen}
        if encryption.algorithm == "aws:kms":
            rule["bucketKeyEnabled"] = True
        return self._of(bucket, "BucketServerSideEncryptionConfiguration", {"rule": [rule]})

    def replication(self, place: Place, replication: Replication) -> dict[str, Any]:
        """Copy each new version, and no deletion."""
        rule = {
            "id": "all",
            "status": "Enabled",
            "priority": 1,
            "filter": {"prefix": place.prefix},
            "destination": {"bucket": replication.destination},
            "deleteMarkerReplication": {"status": "Disabled"},
        }
        return self._of(place.bucket, "BucketReplicationConfiguration", {"role": replication.role, "rule": [rule]})

    def lifecycle(self, place: Place, days: int, *, held: bool) -> dict[str, Any]:
        """Remove what is older than `days` (0: nothing), move what is older, and end uploads that nobody went on with.

        On hold nothing is removed, no earlier version either.
        """
        ages = days if not held else 0
        rules = [_rule("uploads", place.prefix, abortIncompleteMultipartUpload=[{"daysAfterInitiation": _UPLOAD_DAYS}])]
        if ages:
            rules += [self._expiry(f"{place.prefix}{kind}/", kind, ages) for kind in KINDS]
        moved = self.spec.lifecycle
        if moved and (not ages or moved.transition_days < ages):
            rules.append(_rule("move", place.prefix, transition=[_transition(moved)]))
        return self._of(place.bucket, "BucketLifecycleConfiguration", {"rule": rules})

    def _expiry(self, prefix: str, kind: str, days: int) -> dict[str, Any]:
        versions = {"noncurrentVersionExpiration": [{"noncurrentDays": _VERSION_DAYS}]} if self.spec.versioning else {}
        return _rule(kind, prefix, expiration=[{"days": days}], **versions)

    def _of(self, bucket: str, kind: str, settings: dict[str, Any], *, version: str = "v1beta2") -> dict[str, Any]:
        """One of a bucket's settings, which are objects of their own."""
        wanted = {"bucketRef": {"name": bucket}, "region": self.spec.region, **settings}
        return self._object(f"{S3_GROUP}/{version}", kind, bucket, "bucket", wanted, _STAYS)

    def _object(  # noqa: PLR0913, PLR0917 - what every managed resource says
        self, api_version: str, kind: str, name: str, component: str, wanted: dict[str, Any], policies: dict[str, Any]
    ) -> dict[str, Any]:
        config = self.spec.provider_config_ref.name if self.spec.provider_config_ref else "default"
        return {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {"name": name, "labels": self.owner.labels(component)},
            "spec": {"forProvider": wanted, "providerConfigRef": {"name": config}, **policies},
        }


def _rule(name: str, prefix: str, **actions: Any) -> dict[str, Any]:
    return {"id": name, "status": "Enabled", "filter": [{"prefix": prefix}], **actions}


def _transition(moved: Lifecycle) -> dict[str, Any]:
    return {"days": moved.transition_days, "storageClass": moved.storage_class}
