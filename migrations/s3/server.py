"""What a server can do, tried where it matters: in the very bucket, with objects that are gone afterwards."""

import uuid
from dataclasses import dataclass

from botocore.exceptions import ClientError

from migrations.errors import Code, CommandError
from migrations.s3 import buckets, objects
from migrations.s3.buckets import Bucket
from migrations.s3.connection import FORBIDDEN, Connection, code_of, status_of
from migrations.s3.names import LEDGER
from migrations.s3.request import Provider

SCRATCH = f"{LEDGER}scratch/"
NOT_MET = 412


@dataclass(frozen=True)
class Facts:
    """The server as the admin sees it."""

    version: str
    bucket: Bucket
    conditional_put: bool
    admin_api: bool

    @property
    def capabilities(self) -> list[str]:
        """What a provider's status lists."""
        found = {
            "rgw": self.version == "Ceph RGW",
            "admin-api": self.admin_api,
            "versioning": self.bucket.versioning,
            "object-lock": self.bucket.object_lock,
            "conditional-put": self.conditional_put,
        }
        return sorted(name for name, holds in found.items() if holds)

    def described(self) -> dict[str, object]:
        """Gives the `server` entry of a report."""
        return {"version": self.version, "capabilities": self.capabilities}


def version_of(connection: Connection, bucket: str) -> str:
    """Names the server; none of them says its version."""
    answer = connection.s3.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]
    if any(name.startswith("x-rgw-") for name in answer):
        return "Ceph RGW"
    return "Amazon S3" if "AmazonS3" in answer.get("server", "") else answer.get("server", "S3")


def try_conditions(connection: Connection, bucket: str, *, locked: bool) -> bool:
    """Writes a scratch object twice, the second time on condition that it is not there.

    Returns:
        Whether the server refuses the second; where a bucket has versions some write it.

    Raises:
        CommandError: PERMISSION_DENIED when the admin may not write.
    """
    key, written = f"{SCRATCH}{uuid.uuid4().hex}", []
    try:
        written.append(objects.write(connection, bucket, key, b"{}", locked=locked))
        try:
            written.append(objects.write(connection, bucket, key, b"{}", locked=locked, IfNoneMatch="*"))
        except ClientError as error:
            if status_of(error) not in {NOT_MET, *buckets.NOT_DONE}:
                raise
            return status_of(error) == NOT_MET
    except ClientError as error:
        if status_of(error) != FORBIDDEN:
            raise
        msg = (
            f'{connection.admin.server} refuses the admin PutObject in bucket "{bucket}" ({code_of(error)}): give it '
            "the rights that docs/s3.md lists"
        )
        raise CommandError(Code.PERMISSION_DENIED, msg) from None
    finally:
        _tidy(connection, bucket, key, written, locked=locked)
    return False


def try_encryption(connection: Connection, bucket: str, provider: Provider, *, locked: bool) -> None:
    """Writes a scratch object encrypted as the provider asks.

    Raises:
        CommandError: MODULE_UNSUPPORTED when the server does not.
    """
    if not provider.encryption:
        return
    key = f"{SCRATCH}{uuid.uuid4().hex}"
    version = buckets.check_encryption(connection, bucket, key, provider)
    _tidy(connection, bucket, key, [version], locked=locked)


def _tidy(connection: Connection, bucket: str, key: str, written: list[str], *, locked: bool) -> None:
    for version in written:
        objects.erase(connection, bucket, key, version, locked=locked and bool(version))
