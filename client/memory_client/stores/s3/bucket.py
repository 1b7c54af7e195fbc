"""Requests to S3 as one login, under one prefix.

Nothing is taken from AWS_… variables, from ~/.aws or from a cloud's metadata service: the binding says all. A proxy
that the environment names is used.
"""

import base64
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import botocore.session
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import ClientError

from memory_client.binding import Binding
from memory_client.errors import AccessDenied, BindingError, MemoryClientError, Unavailable

T = TypeVar("T")
R = TypeVar("R")

# Requests of one call that are under way at once.
PARALLEL = 16
ATTEMPTS = 3
PAUSE = 0.05
FORBIDDEN = 403
MISSING = 404
# The condition is not met: 412; 409 is Amazon's word for a race, and Ceph has 500 for the same.
NOT_MET = {409, 412}
BUSY = {429, 500, 502, 503, 504}
# Of botocore's own: key in its files, environment variable, value, conversion.
SETTINGS = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
SKEWED = "RequestTimeTooSkewed"
BROKEN = (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError)


@dataclass(frozen=True)
class Found:
    """An object that was read. `etag` is without quotes, `version` None in a bucket that has none."""

    body: bytes
    etag: str
    version: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Listed:
    """An object of a listing."""

    name: str
    etag: str
    size: int


@dataclass(frozen=True)
class Version:
    """A version of an object, which may be a marker of its deletion."""

    id: str
    modified: datetime
    etag: str
    deleted: bool


class Bucket:
    """One login's requests, for many threads."""

    def __init__(self, binding: Binding, *, timeout: float, connections: int) -> None:
        self._binding = binding
        self._timeout = timeout
        self._connections = connections
        self._lock = threading.Lock()
        self._made: Any = None
        self._workers: ThreadPoolExecutor | None = None

    def get(self, name: str, version: str | None = None) -> Found | None:
        """Reads an object, or one version of it; None when it is not there."""
        chosen = {} if version is None else {"VersionId": version}

        def read() -> Found:
            answer = self._client.get_object(Bucket=self._binding.database, Key=name, **chosen)
            return Found(
                answer["Body"].read(), answer["ETag"].strip('"'), answer.get("VersionId"), answer.get("Metadata", {})
            )

        try:
            return self._call(read)
        except ClientError as error:
            self._check_absent(error, name)
            return None

    def metadata(self, name: str, version: str) -> Mapping[str, str] | None:
        """Gives the metadata of a version; None when it is not there."""
        try:
            answer = self._call(
                lambda: self._client.head_object(Bucket=self._binding.database, Key=name, VersionId=version)
            )
        except ClientError as error:
            self._check_absent(error, name)
            return None
        return dict(answer.get("Metadata", {}))

    def put(self, name: str, body: bytes, *, held: bool, base: str | None = None) -> str | None:
        """Writes an object, and gives its version; `base` is the version that it follows, "" for none."""
        answer = self._translating(lambda: self._call(lambda: self._put(name, body, held=held, base=base)))
        version: str | None = answer.get("VersionId")
        return version

    def put_if(self, name: str, body: bytes, *, held: bool, etag: str | None) -> bool:
        """Writes an object if it is still the one with this ETag, or for None if there is none.

        False: it is not, or the server does not say whether it wrote.
        """
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            self._put(name, body, held=held, base=None, **condition)
        except ClientError as error:
            if _status(error) in NOT_MET | BUSY or (_status(error) == MISSING and etag):
                return False
            raise self._translated(error) from error
        except BROKEN:
            return False
        return True

    def delete(self, name: str) -> None:
        """Deletes an object; a bucket with versions keeps it, under a marker."""
        self._translating(
            lambda: self._call(lambda: self._client.delete_object(Bucket=self._binding.database, Key=name))
        )

    def names(self, prefix: str, *, after: str = "", page: int = 1000) -> Iterator[list[Listed]]:
        """Lists what begins with a prefix, a page at a time, in the order of names."""
        asked: dict[str, Any] = {"Bucket": self._binding.database, "Prefix": prefix, "MaxKeys": page}
        if after:
            asked["StartAfter"] = after
        while True:
            answer = self._asked("list_objects_v2", asked)
            yield [Listed(each["Key"], each["ETag"].strip('"'), each["Size"]) for each in answer.get("Contents", [])]
            if not answer.get("IsTruncated"):
                return
            asked["ContinuationToken"] = answer["NextContinuationToken"]

    def versions(self, name: str, page: int = 1000) -> Iterator[Version]:
        """Gives the versions of an object, the newest first."""
        asked: dict[str, Any] = {"Bucket": self._binding.database, "Prefix": name, "MaxKeys": page}
        while True:
            answer = self._asked("list_object_versions", asked)
            kinds = ((each, kind) for kind in ("Versions", "DeleteMarkers") for each in answer.get(kind, []))
            found = [
                Version(each["VersionId"], each["LastModified"], each.get("ETag", ""), kind == "DeleteMarkers")
                for each, kind in kinds
                if each["Key"] == name
            ]
            # Sorting keeps the server's order of those that came within the same moment.
            yield from sorted(found, key=lambda each: each.modified, reverse=True) if _mixed(found) else found
            # Names that go on where this one ends come after it.
            if not answer.get("IsTruncated") or answer.get("NextKeyMarker") != name:
                return
            asked |= {"KeyMarker": name, "VersionIdMarker": answer["NextVersionIdMarker"]}

    def each(self, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Does some work for many items, several at once."""
        given = list(items)
        if len(given) < 2:  # noqa: PLR2004
            return [work(item) for item in given]
        with self._lock:
            if self._workers is None:
                self._workers = ThreadPoolExecutor(PARALLEL, thread_name_prefix="memory-client-s3")
        return list(self._workers.map(work, given))

    def close(self) -> None:
        """Closes all connections."""
        with self._lock:
            made, self._made = self._made, None
            workers, self._workers = self._workers, None
        if workers is not None:
            workers.shutdown()
        if made is not None:
            made.close()

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._connect()
            return self._made

    def _connect(self) -> Any:
        binding = self._binding
        session = botocore.session.Session(SETTINGS)
        return session.create_client(
            "s3",
            region_name=binding.region or "us-east-1",
            endpoint_url=binding.endpoint,
            verify=str(binding.ca_file) if binding.ca else True,
            aws_access_key_id=binding.username,
            aws_secret_access_key=binding.password,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                connect_timeout=self._timeout,
                read_timeout=self._timeout,
                max_pool_connections=PARALLEL + self._connections,
                # What is done again, and when, is decided here.
                retries={"total_max_attempts": 1, "mode": "standard"},
                # Servers other than Amazon's know no checksums behind a body.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                use_fips_endpoint=False,
                use_dualstack_endpoint=False,
            ),
        )

    def _asked(self, request: str, parameters: dict[str, Any]) -> Any:
        return self._translating(lambda: self._call(lambda: getattr(self._client, request)(**parameters)))

    def _put(self, name: str, body: bytes, *, held: bool, base: str | None, **condition: str) -> Any:
        metadata = {"sha256": hashlib.sha256(body).hexdigest()}
        if base is not None:
            metadata["base"] = base
        hold = {"ObjectLockLegalHoldStatus": "ON"} if held else {}
        return self._client.put_object(
            Bucket=self._binding.database,
            Key=name,
            Body=body,
            ContentType="application/json",
            # Asked for wherever objects are locked.
            ContentMD5=base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
            Metadata=metadata,
            **hold,
            **condition,
        )

    def _call(self, request: Callable[[], R]) -> R:
        """Does a request that may be done twice, again when the server is busy or the connection broke."""
        for attempt in range(1, ATTEMPTS):
            try:
                return request()
            except ClientError as error:
                if _status(error) not in BUSY:
                    raise
            except BROKEN:
                pass
            time.sleep(random.uniform(0, PAUSE * 2**attempt))  # noqa: S311
        try:
            return request()
        except BROKEN as error:
            raise self._away(error) from error

    def _check_absent(self, error: ClientError, name: str) -> None:
        """Raises what the error is about, unless it is that an object is not there.

        Who may list a part of the bucket only is told 403 for what is not there: the list of that name tells.
        """
        code = error.response["Error"]["Code"]
        if _status(error) == MISSING and code != "NoSuchBucket":
            return
        if _status(error) == FORBIDDEN and code in ("AccessDenied", "403"):
            try:
                answer = self._call(
                    lambda: self._client.list_objects_v2(Bucket=self._binding.database, Prefix=name, MaxKeys=1)
                )
            except ClientError:
                raise self._translated(error) from error
            if not any(each["Key"] == name for each in answer.get("Contents", [])):
                return
        raise self._translated(error) from error

    def _translating(self, work: Callable[[], R]) -> R:
        try:
            return work()
        except ClientError as error:
            raise self._translated(error) from error

    def _translated(self, error: ClientError) -> MemoryClientError:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        said = f"{code} {message}".strip()
        binding = self._binding
        if code == SKEWED:
            return AccessDenied(f"{binding.endpoint} refuses {binding.username}: {said}; set this machine's clock")
        if _status(error) == FORBIDDEN:
            return AccessDenied(f"{binding.endpoint} refuses {binding.username}: {said}")
        if code == "NoSuchBucket":
            return BindingError(f'{binding.endpoint} has no bucket "{binding.database}": check the binding')
        if _status(error) in BUSY:
            return self._away(said)
        return MemoryClientError(f"{binding.endpoint} answered {_status(error)}: {said}")

    def _away(self, error: object) -> Unavailable:
        return Unavailable(f"{self._binding.endpoint} does not answer: {error}")


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _mixed(found: Sequence[Version]) -> bool:
    """Whether there are markers, which the server lists apart."""
    return any(each.deleted for each in found)
