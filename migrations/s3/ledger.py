"""The ledger on S3: a document for each home, and locks made of objects.

A conditional PUT is no lock: servers ignore the condition in buckets with versions. So who wants a lock leaves a ticket
of his own, and has it when a look after that shows no other: of two, the one who looks later sees the other's.
"""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.homes import entry as entries
from migrations.homes.entry import Entry
from migrations.s3 import objects
from migrations.s3.connection import Connection
from migrations.s3.names import LEDGER

LOCKS = f"{LEDGER}locks/"
SUFFIX = ".json"
# A ticket that is older, by the server's clock, is of somebody who was killed.
LEASE_SECONDS = 30.0
PAUSE_LIMIT = 1.0


@dataclass(frozen=True)
class Ledger:
    """The ledger in a bucket; `locked` says whether that has object lock."""

    connection: Connection
    bucket: str
    locked: bool

    def entries(self) -> list[Entry]:
        """Reads all of it; what is removed while we read is not in it."""
        found = (self._read(key) for key in self._keys())
        return [each for each in found if each]

    def find(self, identity: str) -> Entry | None:
        """Reads an identity's entry."""
        return self._read(f"{LEDGER}{entries.key_of(identity)}{SUFFIX}")

    def save(self, entry: Entry) -> None:
        """Writes an entry; its lock is held by then."""
        objects.write(self.connection, self.bucket, self._key(entry), entry.to_json().encode(), locked=self.locked)

    def remove(self, entry: Entry) -> None:
        """Removes an entry. Earlier versions go with the lifecycle of the ledger."""
        objects.erase(self.connection, self.bucket, self._key(entry), "", locked=False)

    @contextmanager
    def lock(self, name: str, limit: Deadline) -> Iterator["Ticket"]:
        """Keeps others out of what a name stands for.

        Raises:
            CommandError: LOCK_BUSY when somebody else had it for the whole time.
        """
        ticket = Ticket(self, f"{LOCKS}{name}/{uuid.uuid4().hex}")
        try:
            ticket.take(limit)
            yield ticket
        finally:
            ticket.drop()

    def _key(self, entry: Entry) -> str:
        return f"{LEDGER}{entry.key}{SUFFIX}"

    def _keys(self) -> Sequence[str]:
        found = []
        for page in objects.pages(self.connection, self.bucket, LEDGER):
            found += [each["Key"] for each in page]
        return [each for each in found if each.endswith(SUFFIX) and "/" not in each.removeprefix(LEDGER)]

    def _read(self, key: str) -> Entry | None:
        text = objects.read(self.connection, self.bucket, key)
        return None if text is None else entries.read(text, f"{self.bucket}/{key}")


@dataclass
class Ticket:
    """Somebody's wish for a lock, or his having it."""

    ledger: Ledger
    key: str
    since: float | None = None
    versions: list[str] = field(default_factory=list)

    def take(self, limit: Deadline) -> None:
        """Waits until nobody else has a ticket."""
        others: list[str] = []
        attempt = 0
        while True:
            if not others or self.since is not None:
                self.renew()
            others = self._others()
            if not others and self.since is not None:
                return
            # The first by name keeps its ticket, and waits for who has the lock; the others step back.
            if others and min(others) < self.key:
                self.drop()
            if limit.passed:
                what = self.key.removeprefix(LOCKS).partition("/")[0]
                msg = f"somebody else is at work on {what} and did not finish in time"
                raise CommandError(Code.LOCK_BUSY, msg)
            Deadline.in_seconds(min(PAUSE_LIMIT, limit.remaining)).pause(attempt, first=0.05)
            attempt += 1

    def renew(self) -> None:
        """Says that we are still there.

        Raises:
            CommandError: LOCK_BUSY when we were silent for so long that somebody else may have the lock.
        """
        silent = 0.0 if self.since is None else time.monotonic() - self.since
        if silent > LEASE_SECONDS:
            raise CommandError(Code.LOCK_BUSY, "the server was so slow that our lock has lapsed: beginning again")
        if self.since is None or silent > LEASE_SECONDS / 3:
            now = time.monotonic()
            ledger, body = self.ledger, json.dumps({"at": entries.now()}).encode()
            self.versions.append(objects.write(ledger.connection, ledger.bucket, self.key, body, locked=ledger.locked))
            self.since = now

    def drop(self) -> None:
        """Takes the ticket back."""
        for version in self.versions:
            objects.erase(
                self.ledger.connection,
                self.ledger.bucket,
                self.key,
                version,
                locked=self.ledger.locked and bool(version),
            )
        self.versions, self.since = [], None

    def _others(self) -> list[str]:
        """Gives the tickets of others who live, and tidies up after those who do not."""
        folder = self.key.rpartition("/")[0] + "/"
        found, now = objects.listed(self.ledger.connection, self.ledger.bucket, folder)
        living = []
        for each in found:
            if each["Key"] == self.key:
                continue
            if (now - each["LastModified"]).total_seconds() > LEASE_SECONDS:
                objects.erase(self.ledger.connection, self.ledger.bucket, each["Key"], "", locked=False)
            else:
                living.append(each["Key"])
        return living
