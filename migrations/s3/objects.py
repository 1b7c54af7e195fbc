"""Objects as the admin handles them: its own documents, and all versions of what apps wrote."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from migrations.s3.connection import FORBIDDEN, Connection, is_missing, status_of

PAGE = 1000
# A bucket may hold every new object for years; our own documents are replaced, and held no longer than this.
OWN_SECONDS = 30


@dataclass(frozen=True)
class Version:
    """One version of an object; `id` is "null" where the bucket has none."""

    key: str
    id: str
    size: int
    modified: datetime
    latest: bool
    marker: bool


def read(connection: Connection, bucket: str, key: str) -> bytes | None:
    """Gives an object's body, None when it is not there."""
    try:
        found: bytes = connection.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if is_missing(error):
            return None
        raise
    return found


def write(connection: Connection, bucket: str, key: str, body: bytes, *, locked: bool, **more: Any) -> str:
    """Writes a document of ours; gives its version, "" where there are none.

    Args:
        connection: The server.
        bucket: Where.
        key: Under which key.
        body: What.
        locked: Whether the bucket has object lock, and with it perhaps a retention that ours must not have.
        more: Further parameters of PutObject.
    """
    if locked:
        until = datetime.now(UTC) + timedelta(seconds=OWN_SECONDS)
        more |= {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
    answer = connection.s3.put_object(
        Bucket=bucket,
        Key=key,
        Body=body,
        ContentType="application/json",
        ContentMD5=base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
        Metadata={"sha256": hashlib.sha256(body).hexdigest()},
        **more,
    )
    return str(answer.get("VersionId") or "")


def erase(connection: Connection, bucket: str, key: str, version: str, *, locked: bool) -> None:
    """Removes a version of a document of ours, or hides it where that is refused."""
    more: dict[str, Any] = {"VersionId": version} if version else {}
    if locked:
        more["BypassGovernanceRetention"] = True
    try:
        connection.s3.delete_object(Bucket=bucket, Key=key, **more)
    except ClientError as error:
        if status_of(error) != FORBIDDEN or not version:
            raise
        connection.s3.delete_object(Bucket=bucket, Key=key)


def listed(connection: Connection, bucket: str, prefix: str) -> tuple[list[dict[str, Any]], datetime]:
    """Gives up to a page of objects under a prefix, and what time it is at the server."""
    answer = connection.s3.list_objects_v2(Bucket=bucket, Prefix=prefix)
    date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
    return list(answer.get("Contents", [])), parsedate_to_datetime(date)


def pages(connection: Connection, bucket: str, prefix: str) -> Iterator[list[dict[str, Any]]]:
    """Gives all objects under a prefix, as the latest version is."""
    paginator = connection.s3.get_paginator("list_objects_v2")
    for page in paginator.paginate(Bucket=bucket, Prefix=prefix):
        yield list(page.get("Contents", []))


def versions(connection: Connection, bucket: str, prefix: str, after: str = "") -> Iterator[list[Version]]:
    """Gives all versions under a prefix, delete markers among them, a page at a time; those of keys after one."""
    paginator = connection.s3.get_paginator("list_object_versions")
    more = {"KeyMarker": after} if after else {}
    for page in paginator.paginate(Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": PAGE}, **more):
        found = [_version(each, marker=False) for each in page.get("Versions", [])]
        yield found + [_version(each, marker=True) for each in page.get("DeleteMarkers", [])]


def any_under(connection: Connection, bucket: str, prefix: str) -> str | None:
    """Gives the key of some object under a prefix, None where there is none."""
    found = connection.s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("Contents", [])
    return str(found[0]["Key"]) if found else None


def _version(raw: dict[str, Any], *, marker: bool) -> Version:
    return Version(
        raw["Key"], raw["VersionId"], int(raw.get("Size", 0)), raw["LastModified"], bool(raw["IsLatest"]), marker
    )
