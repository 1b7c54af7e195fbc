"""The request document for S3."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from migrations import request
from migrations.request import Maintain, ModelBase, Probe, Provision, Reap, ReportTarget, Text

# Amazon's rules for names of buckets, without the dots that TLS cannot take.
Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]


class ObjectLock(ModelBase):
    """How long a version cannot be deleted."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"]
    days: Annotated[int, Field(ge=1, le=36500)]


class Lifecycle(ModelBase):
    """When objects go to a cheaper class of storage."""

    transition_days: Annotated[int, Field(ge=1, le=36500)]
    storage_class: Text


class Encryption(ModelBase):
    """How the server encrypts objects. `kms_key_id` is None for its own key."""

    algorithm: Literal["AES256", "aws:kms"]
    kms_key_id: Text | None


class Replication(ModelBase):
    """Where copies of objects go: a bucket's ARN, and that of the role that writes them."""

    role: Text
    destination: Text


class Provider(request.Provider):
    """The server, and what the platform team decided about buckets.

    Attributes:
        endpoint: URL of the server.
        bucket: One for all Memories, each with a prefix; None where each has a bucket.
        bucket_prefix: What the names of the Memories' buckets begin with; None where they share one.
        users: Who makes users: managed resources, our Jobs by Ceph's admin API, or nobody (the admin's keys are given).
    """

    type: Literal["s3"]
    endpoint: Annotated[str, Field(pattern=r"^https?://[^/]+$")]
    region: Text
    force_path_style: bool
    bucket: Bucket | None
    bucket_prefix: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,49}$")] | None
    users: Literal["AWS", "RGW", "Shared"]
    versioning: bool
    object_lock: ObjectLock | None
    lifecycle: Lifecycle | None
    encryption: Encryption | None
    replication: Replication | None

    @model_validator(mode="after")
    def _bucket_or_prefix(self) -> Self:
        if (self.bucket is None) == (self.bucket_prefix is None):
            msg = "exactly one of bucket and bucketPrefix says where Memories live"
            raise ValueError(msg)
        return self


class Login(request.Login):
    """An S3 user. S3 takes no verifier: its secret key stands in the file login/<name>, where our Jobs make users."""


class ProbeRequest(Probe[Provider]):
    """What `probe` reads."""


class ReapRequest(Reap[Provider]):
    """What `reap` reads."""


class MaintainRequest(Maintain[Provider]):
    """What `maintain` reads."""


class ProvisionRequest(Provision[Provider, Login]):
    """What `provision` reads. `database` is the bucket: the provider's, or the Memory's own.

    Attributes:
        prefix: What the keys of this Memory's objects begin with, `<dataset>-<id12>/`.
        keys: The Secret that a Job writes the admin's keys to where users are Shared, None otherwise.
    """

    prefix: Annotated[str, Field(pattern=r"^[a-z0-9_.-]{1,63}-[0-9a-f]{12}/$")]
    keys: ReportTarget | None
