"""`reap` on S3: what `migrations.homes.reap` needs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from botocore.exceptions import ClientError

from migrations import log
from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.homes.entry import Entry
from migrations.s3 import buckets, objects, users
from migrations.s3.connection import Connection, explaining, is_missing
from migrations.s3.ledger import Ledger, Ticket
from migrations.s3.names import ledger_bucket
from migrations.s3.request import Provider

# A provisioner at work is a sign of life, and the next run is minutes away.
LOCK_SECONDS = 5.0


class Reaper:
    """A provider's server, as `homes.reap.Server`."""

    def __init__(self, connection: Connection, provider: Provider, deadline: Deadline) -> None:
        self._connection = connection
        self._provider = provider
        self._deadline = deadline
        self._ledger: Ledger | None = None
        self._ticket: Ticket | None = None

    def entries(self) -> Sequence[Entry]:
        """Reads the whole ledger; as long as there is none there are no homes."""
        with explaining(self._connection.admin):
            ledger = find_ledger(self._connection, self._provider)
            self._ledger = ledger
            return ledger.entries() if ledger else []

    @contextmanager
    def locked(self, entry: Entry) -> Iterator[Entry | None]:
        """Keeps others from a home, as `homes.reap.Server` says."""
        ledger = self._known
        limit = Deadline.in_seconds(min(LOCK_SECONDS, self._deadline.remaining))
        with explaining(self._connection.admin), ledger.lock(entry.key, limit) as ticket:
            self._ticket = ticket
            yield ledger.find(entry.identity)

    def save(self, entry: Entry) -> None:
        """Writes an entry."""
        self._known.save(entry)

    def close(self, entry: Entry) -> list[str]:
        """Suspends the users; with users of nobody's, or of managed resources, there is nothing to do.

        There are no sessions on S3: each request is checked.
        """
        if self._provider.users == "Shared":
            log.write("its keys are the provider's, and go on working (s3.users is Shared)", home=entry.home)
        closed = []
        for name in self._users(entry):
            found = users.read(self._connection, name)
            if found and not found.suspended:
                users.suspend(self._connection, name)
                closed.append(name)
        return closed

    def reopen(self, entry: Entry) -> None:
        """Lets the users in again."""
        for name in entry.closed_logins:
            if users.read(self._connection, name):
                users.suspend(self._connection, name, suspended=False)

    def drop(self, entry: Entry) -> None:
        """Removes every version that may go; when none is left also users, bucket and entry.

        Raises:
            CommandError: ON_HOLD when a version is locked.
        """
        if entry.legal_hold:
            raise CommandError(Code.ON_HOLD, f'"{entry.home}" has a legal hold')
        alone = self._provider.bucket is None
        if buckets.read(self._connection, entry.place, self._provider):
            kept = self._empty(entry.place, "" if alone else entry.home)
            if kept:
                msg = f'{kept} versions of objects under "{entry.home}" are locked: they go when their time is over'
                raise CommandError(Code.ON_HOLD, msg)
            # With users AWS the bucket is a managed resource's.
            if alone and self._provider.users != "AWS":
                self._connection.s3.delete_bucket(Bucket=entry.place)
        for name in self._users(entry):
            users.remove(self._connection, name)
        self._known.remove(entry)

    def _empty(self, bucket: str, prefix: str) -> int:
        """Removes what may go; gives how many versions stay."""
        kept = 0
        self._abort_uploads(bucket, prefix)
        for page in objects.versions(self._connection, bucket, prefix):
            if self._ticket:
                self._ticket.renew()
            kept += self._remove(bucket, page)
            if self._deadline.passed:
                msg = "the deadline came before all objects were removed: the next run goes on"
                raise CommandError(Code.LOCK_BUSY, msg)
        return kept

    def _remove(self, bucket: str, page: list[objects.Version]) -> int:
        if not page:
            return 0
        names = [{"Key": each.key, "VersionId": each.id} for each in page]
        answer = self._connection.s3.delete_objects(Bucket=bucket, Delete={"Objects": names, "Quiet": True})
        codes = [str(each.get("Code")) for each in answer.get("Errors", [])]
        others = set(codes) - {"AccessDenied", "NoSuchKey", "NoSuchVersion"}
        if others:
            msg = f"{self._connection.admin.server} answers {min(others)} to DeleteObjects"
            raise CommandError(Code.UNREACHABLE, msg)
        return codes.count("AccessDenied")

    def _abort_uploads(self, bucket: str, prefix: str) -> None:
        s3 = self._connection.s3
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
            for each in page.get("Uploads", []):
                try:
                    s3.abort_multipart_upload(Bucket=bucket, Key=each["Key"], UploadId=each["UploadId"])
                except ClientError as error:
                    if not is_missing(error):
                        raise

    def _users(self, entry: Entry) -> list[str]:
        return sorted(entry.logins) if self._provider.users == "RGW" else []

    @property
    def _known(self) -> Ledger:
        if self._ledger is None:
            msg = f"the bucket of the ledger, {ledger_bucket(self._provider)}, is gone"
            raise CommandError(Code.UNREACHABLE, msg)
        return self._ledger


def find_ledger(connection: Connection, provider: Provider) -> Ledger | None:
    """Gives the ledger, None as long as its bucket is not there."""
    found = buckets.read(connection, ledger_bucket(provider), provider)
    return Ledger(connection, found.name, found.object_lock) if found else None
