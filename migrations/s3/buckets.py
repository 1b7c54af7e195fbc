"""A bucket as it is and as the provider wants it: what differs, and how that is put right.

What protects data is only ever added: versions, a lock and its retention are never taken away or made shorter here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from migrations import log
from migrations.errors import Code, CommandError
from migrations.s3.connection import CONFLICT, FORBIDDEN, NOT_FOUND, Connection, code_of, is_missing, status_of
from migrations.s3.request import Provider

NOT_DONE = frozenset({400, 405, 501})
REPLICATION_RULE = "memory"
ZONES = "replicates between zones, which its own administrators set up: leave replication out"
# What is safe on Ceph as well: BlockPublicAcls refuses every PUT there, RestrictPublicBuckets can lock out the owner.
PUBLIC = {
    "BlockPublicAcls": False,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": False,
}


@dataclass(frozen=True)
class Change:
    """Something that is not as it should be: in a sentence, and what puts it right, None where we cannot."""

    what: str
    apply: Callable[[], Any] | None

    def make(self) -> None:
        """Puts it right, where we can."""
        if self.apply:
            log.write("changing", what=self.what)
            self.apply()


@dataclass(frozen=True)
class Bucket:
    """A bucket as it is.

    Attributes:
        retention: Mode and days of what every new object is kept, None without.
        encryption: Algorithm and key's id, None where new objects are not encrypted by default.
        replication: The destinations' ARNs.
        public_ignored: Whether what an ACL allows to the public is ignored.
    """

    name: str
    versioning: bool = False
    object_lock: bool = False
    retention: tuple[str, int] | None = None
    encryption: tuple[str, str | None] | None = None
    replication: tuple[str, ...] = ()
    public_ignored: bool = False


def wanted_lock(provider: Provider) -> bool:
    """Whether new buckets get object lock."""
    return provider.object_lock is not None


def fresh(name: str, provider: Provider) -> Bucket:
    """Gives a bucket as it is right after it was made: object lock brings versions with it."""
    lock = wanted_lock(provider)
    return Bucket(name, versioning=lock, object_lock=lock)


def read(connection: Connection, name: str, provider: Provider) -> Bucket | None:
    """Looks at a bucket, None when there is none.

    Raises:
        CommandError: SCHEMA_CONFLICT when it is somebody else's.
    """
    s3 = connection.s3
    try:
        s3.head_bucket(Bucket=name)
    except ClientError as error:
        if is_missing(error):
            return None
        if status_of(error) == FORBIDDEN:
            # The body of an answer to HEAD is empty: ask again for the reason, which may be that the keys are unknown.
            s3.get_bucket_versioning(Bucket=name)
            raise _foreign(name) from None
        raise
    found = Bucket(name, versioning=s3.get_bucket_versioning(Bucket=name).get("Status") == "Enabled")
    lock = _optional(lambda: s3.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"])
    if lock and lock.get("ObjectLockEnabled") == "Enabled":
        rule = lock.get("Rule", {}).get("DefaultRetention")
        retention = (str(rule["Mode"]), int(rule.get("Days") or rule["Years"] * 365)) if rule else None
        found = replace(found, object_lock=True, retention=retention)
    if provider.encryption:
        found = replace(found, encryption=_encryption(connection, name))
    if provider.replication:
        found = replace(found, replication=_replication(connection, name))
    if provider.users == "RGW":
        block = _optional(lambda: s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]) or {}
        found = replace(found, public_ignored=block == PUBLIC)
    return found


def create(connection: Connection, name: str, provider: Provider) -> None:
    """Makes a bucket; that it is ours already is well.

    Raises:
        CommandError: SCHEMA_CONFLICT when it is somebody else's.
    """
    more: dict[str, Any] = {"ObjectLockEnabledForBucket": True} if wanted_lock(provider) else {}
    if provider.region != "us-east-1" and "amazonaws.com" in provider.endpoint:
        more["CreateBucketConfiguration"] = {"LocationConstraint": provider.region}
    try:
        connection.s3.create_bucket(Bucket=name, **more)
    except ClientError as error:
        if status_of(error) != CONFLICT:
            raise
        if code_of(error) != "BucketAlreadyOwnedByYou":
            raise _foreign(name) from None


def check(bucket: Bucket, provider: Provider) -> None:
    """Refuses a bucket that can never be what the provider wants.

    Raises:
        CommandError: SCHEMA_CONFLICT, or MODULE_UNSUPPORTED for what Ceph does not do.
    """
    if provider.replication and provider.users == "RGW":
        raise CommandError(Code.MODULE_UNSUPPORTED, f"users: RGW is Ceph's, which {ZONES}")
    if wanted_lock(provider) and not bucket.object_lock:
        msg = (
            f'bucket "{bucket.name}" was made without object lock, which cannot be added: name another bucket in the '
            "provider (it is made with it), or leave objectLock out"
        )
        raise CommandError(Code.SCHEMA_CONFLICT, msg)


def compare(connection: Connection, bucket: Bucket, provider: Provider) -> Iterator[Change]:
    """Gives what differs from what the provider wants and can be put right."""
    s3, name = connection.s3, bucket.name
    if provider.versioning and not bucket.versioning:
        yield Change(
            f'bucket "{name}" keeps no versions',
            lambda: s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"}),
        )
    lock = provider.object_lock
    if lock and _shorter(bucket.retention, (lock.mode, lock.days)):
        rule = {"DefaultRetention": {"Mode": _stricter(bucket, lock.mode), "Days": lock.days}}
        yield Change(
            f'bucket "{name}" locks new objects for {_retention(bucket.retention)}, not for {lock.days} days '
            f"({lock.mode})",
            lambda: s3.put_object_lock_configuration(
                Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
            ),
        )
    encryption = provider.encryption
    if encryption and bucket.encryption != (encryption.algorithm, encryption.kms_key_id):
        yield Change(
            f'bucket "{name}" does not encrypt with {encryption.algorithm}',
            partial(_encrypt, connection, name, provider),
        )
    replication = provider.replication
    if replication and bucket.replication != (replication.destination,):
        yield Change(
            f'bucket "{name}" is not replicated to {replication.destination}',
            partial(_replicate, connection, name, provider),
        )
    if provider.users == "RGW" and not bucket.public_ignored:
        yield Change(
            f'bucket "{name}" lets ACLs make objects public',
            lambda: s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=PUBLIC),
        )


def remarks(bucket: Bucket, provider: Provider) -> Iterator[str]:
    """Gives what is more than the provider asks for, and stays."""
    name, lock = bucket.name, provider.object_lock
    if bucket.versioning and not provider.versioning:
        yield f'bucket "{name}" keeps versions although the provider does not ask for it: it goes on doing so'
    if bucket.object_lock and not lock:
        yield f'bucket "{name}" has object lock although the provider does not ask for it: it cannot be taken away'
    if lock and bucket.retention and (bucket.retention[1] > lock.days or bucket.retention[0] != lock.mode):
        asked = f"{lock.days} days ({lock.mode})"
        if not _shorter(bucket.retention, (lock.mode, lock.days)):
            found = _retention(bucket.retention)
            yield f'bucket "{name}" locks new objects for {found}, more than {asked}: it stays so'


def check_encryption(connection: Connection, bucket: str, key: str, provider: Provider) -> str:
    """Tries with one object whether the server encrypts as asked; gives the version that it made.

    Raises:
        CommandError: MODULE_UNSUPPORTED.
    """
    wanted = provider.encryption
    if not wanted:
        return ""
    more = {"SSEKMSKeyId": wanted.kms_key_id} if wanted.kms_key_id else {}
    try:
        answer = connection.s3.put_object(
            Bucket=bucket, Key=key, Body=b"", ServerSideEncryption=wanted.algorithm, **more
        )
    except ClientError as error:
        if status_of(error) not in NOT_DONE:
            raise
        msg = (
            f"{connection.admin.server} does not encrypt with {wanted.algorithm} ({status_of(error)} {code_of(error)})"
            ": Ceph wants https and a key store for that; set it up, or leave encryption out"
        )
        raise CommandError(Code.MODULE_UNSUPPORTED, msg) from None
    return str(answer.get("VersionId") or "")


def _shorter(found: tuple[str, int] | None, wanted: tuple[str, int]) -> bool:
    """Whether a retention is less than wanted: fewer days, or as many in a weaker mode."""
    if found is None:
        return True
    return found[1] < wanted[1] or (found[0] == "GOVERNANCE" and wanted[0] == "COMPLIANCE" and found[1] <= wanted[1])


def _stricter(bucket: Bucket, mode: str) -> str:
    return "COMPLIANCE" if bucket.retention and bucket.retention[0] == "COMPLIANCE" else mode


def _retention(found: tuple[str, int] | None) -> str:
    return f"{found[1]} days ({found[0]})" if found else "no time"


def _encryption(connection: Connection, name: str) -> tuple[str, str | None] | None:
    found = _optional(lambda: connection.s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"])
    for rule in (found or {}).get("Rules", []):
        default = rule.get("ApplyServerSideEncryptionByDefault", {})
        return str(default.get("SSEAlgorithm", "")), default.get("KMSMasterKeyID")
    return None


def _encrypt(connection: Connection, name: str, provider: Provider) -> None:
    wanted = provider.encryption
    if wanted:
        default: dict[str, str] = {"SSEAlgorithm": wanted.algorithm}
        if wanted.kms_key_id:
            default["KMSMasterKeyID"] = wanted.kms_key_id
        rules = [{"ApplyServerSideEncryptionByDefault": default}]
        connection.s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": rules})


def _replication(connection: Connection, name: str) -> tuple[str, ...]:
    found = _optional(lambda: connection.s3.get_bucket_replication(Bucket=name)["ReplicationConfiguration"]) or {}
    return tuple(str(rule["Destination"]["Bucket"]) for rule in found.get("Rules", []))


def _replicate(connection: Connection, name: str, provider: Provider) -> None:
    """Raises CommandError MODULE_UNSUPPORTED where the server replicates by zones, as Ceph does."""
    wanted = provider.replication
    if not wanted:
        return
    rule = {
        "ID": REPLICATION_RULE,
        "Status": "Enabled",
        "Priority": 1,
        "Filter": {"Prefix": ""},
        "DeleteMarkerReplication": {"Status": "Enabled"},
        "Destination": {"Bucket": wanted.destination},
    }
    try:
        connection.s3.put_bucket_replication(
            Bucket=name, ReplicationConfiguration={"Role": wanted.role, "Rules": [rule]}
        )
    except ClientError as error:
        if status_of(error) not in NOT_DONE:
            raise
        answer = f"{status_of(error)} {code_of(error)}"
        msg = f"{connection.admin.server} does not replicate a bucket ({answer}): if it is Ceph, it {ZONES}"
        raise CommandError(Code.MODULE_UNSUPPORTED, msg) from None


def _optional(look: Callable[[], Any]) -> Any:
    """Gives what is there; servers say 404 where nothing was ever set, or where they do not know of such a thing."""
    try:
        return look()
    except ClientError as error:
        if status_of(error) in {NOT_FOUND, *NOT_DONE}:
            return None
        raise


def _foreign(name: str) -> CommandError:
    msg = f'bucket "{name}" is somebody else\'s: names of buckets are unique; name another one in the provider'
    return CommandError(Code.SCHEMA_CONFLICT, msg)
