"""What a login may do, as a document of a user's policy.

Ceph lets the owner of an object do with it what it likes unless a policy denies it, and an object belongs to the user
who wrote it: so what no login may do is denied by name. A Deny with NotAction has no effect there; one with NotResource
has.
"""

import json
from typing import Any, Literal

from migrations.s3.names import SHORT, Home

Document = dict[str, Any]
Level = Literal["write", "read"]

READ = ("s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention", "s3:GetObjectLegalHold")
WRITE = (
    "s3:PutObject",
    "s3:PutObjectRetention",
    "s3:PutObjectLegalHold",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)
DELETE = ("s3:DeleteObject",)
LIST = ("s3:ListBucket", "s3:ListBucketVersions")
NEVER = (
    "s3:DeleteObjectVersion",
    "s3:BypassGovernanceRetention",
    "s3:PutObjectAcl",
    "s3:PutObjectVersionAcl",
    "s3:PutObjectTagging",
    "s3:PutObjectVersionTagging",
    "s3:DeleteObjectTagging",
    "s3:DeleteObjectVersionTagging",
)
# Nor, while the Memory is on hold: a hold that a login could lift is none. One may be put on with the object itself.
HELD = (*DELETE, "s3:PutObjectLegalHold")
CHANGES = (*WRITE, *DELETE)


def of_login(home: Home, level: Level, *, held: bool) -> Document:
    """Gives the rights of one login on its own prefix.

    Args:
        home: Where its Memory is.
        level: What it may do there.
        held: Whether nothing there may be deleted.
    """
    bucket, objects = f"arn:aws:s3:::{home.bucket}", f"arn:aws:s3:::{home.bucket}/{home.prefix}*"
    listing: Document = _statement("List", "Allow", LIST, bucket)
    if not home.alone:
        listing["Condition"] = {"StringLike": {"s3:prefix": [f"{home.prefix}*"]}}
    writes = level == "write"
    allowed = READ if not writes else (*READ, *WRITE) if held else (*READ, *WRITE, *DELETE)
    denied = (*NEVER, *CHANGES) if not writes else (*NEVER, *HELD) if held else NEVER
    statements = [
        listing,
        _statement("Objects", "Allow", [each for each in allowed if each not in denied], objects),
        _statement("Never", "Deny", denied, objects),
        _statement("Meta", "Deny", CHANGES, f"arn:aws:s3:::{home.bucket}/{home.meta}"),
        {"Sid": "Outside", "Effect": "Deny", "Action": ["s3:*"], "NotResource": [bucket, objects]},
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def of_admin(home: Home) -> Document:
    """Gives the admin's rights on objects that apps wrote: on Ceph those are not the bucket's owner's.

    One document for all buckets of a provider: Ceph lets a user have a hundred.
    """
    buckets = f"{home.bucket[: -SHORT - 1]}-*" if home.alone else home.bucket
    resources = [f"arn:aws:s3:::{buckets}", f"arn:aws:s3:::{buckets}/*"]
    return {
        "Version": "2012-10-17",
        "Statement": [{"Sid": "Admin", "Effect": "Allow", "Action": ["s3:*"], "Resource": resources}],
    }


def text(document: Document) -> str:
    """Gives it as it is sent."""
    return json.dumps(document, separators=(",", ":"))


def _statement(sid: str, effect: str, actions: Any, resource: str) -> Document:
    return {"Sid": sid, "Effect": effect, "Action": sorted(actions), "Resource": [resource]}
