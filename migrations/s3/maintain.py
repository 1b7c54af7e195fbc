"""`maintain` on S3: each bucket's lifecycle, and for each home holds, drift, integrity and how much there is."""

import hashlib
import random
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from migrations import log
from migrations.answers import Answer, Done, Index, Measure
from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.homes.entry import Entry
from migrations.s3 import buckets, holds, lifecycle, logins, meta, objects
from migrations.s3.buckets import Bucket, Change
from migrations.s3.connection import Admin, Connection, explaining, is_missing
from migrations.s3.ledger import Ledger
from migrations.s3.names import Home, is_managed, ledger_bucket
from migrations.s3.provision import CONDITIONS
from migrations.s3.reap import find_ledger
from migrations.s3.request import MaintainRequest

LOCK_SECONDS = 5.0
# Holds on the objects of one home take no more of a run than this.
STEP_SECONDS = 300.0
# Objects of a home that are read again in one run, and how large one may be.
SAMPLE = 20
LARGEST = 16 * 2**20
# Objects that are counted; a home with more is told as having so many.
COUNTED = 200_000
NAMED = 3

_random = random.SystemRandom()


def maintain(request: MaintainRequest, admin: Admin, deadline: Deadline) -> Done:
    """Looks after every home of a provider.

    Raises:
        CommandError: The server did not answer.
    """
    with admin.connect(deadline) as connection:
        ledger = find_ledger(connection, request.provider)
        if ledger is None:
            return _told(0, [])
        everything = ledger.entries()
        own = [each for each in everything if _is_own(request, each)]
        # In no order: where a run has time for a part of them only, the next one has it for others.
        _random.shuffle(own)
        run = _Run(request, connection, ledger, deadline)
        for bucket in sorted({each.place for each in own}):
            run.look_after(bucket, [each for each in own if each.place == bucket])
        return _told(len(own), run.failures)


def _is_own(request: MaintainRequest, entry: Entry) -> bool:
    if entry.provider_uid != request.provider.uid:
        return False
    return request.claim is None or entry.identity.startswith(f"{request.claim.namespace}/")


def _told(homes: int, failures: Sequence[tuple[str, Code, str]]) -> Done:
    """Counts how homes stand, in words that are the same as long as they stand so."""
    failed = {home for home, _, _ in failures}
    counts = {"inUse": homes, "failed": len(failed)}
    if not failures:
        return Done(Code.SUCCEEDED, f"homes: {homes} looked after", counts)
    told = sorted(failures, key=lambda failure: (failure[0], failure[2]))
    named = "; ".join(f"{home}: {message}" for home, _, message in told[:NAMED])
    more = f"; and {len(told) - NAMED} more" if len(told) > NAMED else ""
    return Done(told[0][1], f"homes: {homes}, and in {len(failed)} of them a step failed: {named}{more}", counts)


@dataclass
class _Run:
    """One run over the homes of a provider."""

    request: MaintainRequest
    connection: Connection
    ledger: Ledger
    deadline: Deadline
    failures: list[tuple[str, Code, str]] = field(default_factory=list)

    def look_after(self, name: str, entries: Sequence[Entry]) -> None:
        """Looks after one bucket, and the homes in it."""
        answers = {each.key: Answer.after(each.report) for each in entries}
        state = _Bucket()

        def bucket() -> None:
            state.found, state.differences = self._bucket(name)

        self._step("bucket", name, answers.values(), bucket)
        if state.found:
            self._step("retention", name, answers.values(), lambda: self._lifecycle(name, entries, answers))
        for entry in entries:
            answer = answers[entry.key]
            if self.deadline.passed:
                late = "the deadline came first: the next run takes another order"
                self.failures.append((entry.home, Code.UNREACHABLE, late))
            elif state.found:
                self._home(entry, state.found, state.differences, answer)
            answer.publish()

    def _home(self, entry: Entry, bucket: Bucket, differences: list[str], answer: Answer) -> None:
        home = Home(entry.place, entry.home, self.request.provider.bucket is None)
        one = [answer]
        self._step("holds", entry.home, one, lambda: self._holds(home, entry, bucket))
        self._step("drift", entry.home, one, lambda: answer.drift([*differences, *self._drift(home, entry, bucket)]))
        self._step("measure", entry.home, one, lambda: self._measure(home, entry, bucket, answer))

    def _step(self, name: str, home: str, answers: Any, work: Callable[[], None]) -> None:
        """Takes a step; what it raises is noted, and the next one is taken all the same."""
        try:
            with explaining(self.connection.admin):
                work()
        except CommandError as error:
            if error.code is Code.LOCK_BUSY:
                log.write("somebody else is at work: the next run takes this step", home=home, at=name)
                return
            self._failed(name, home, answers, error)
        except Exception as error:  # noqa: BLE001  a mistake of ours in one home must not keep the others waiting
            log.write("unexpected error", error=type(error).__name__, where=traceback.format_tb(error.__traceback__))
            message = f"unexpected {type(error).__name__}: see the log"
            self._failed(name, home, answers, CommandError(Code.JOB_FAILED, message))

    def _failed(self, step: str, home: str, answers: Any, error: CommandError) -> None:
        log.write("a step failed", home=home, at=step, why=error.message)
        self.failures.append((home, error.code, f"{step}: {error.message}"))
        for answer in answers:
            answer.failed(step, error.code, error.message)
            if step == "retention":
                answer.retention_failed(error.message)

    def _bucket(self, name: str) -> tuple[Bucket, list[str]]:
        """Gives the bucket, and how it differs; what protects data is put right where that is asked for."""
        provider = self.request.provider
        found = buckets.read(self.connection, name, provider)
        if found is None:
            raise CommandError(Code.UNREACHABLE, f'bucket "{name}" is gone')
        changes = list(buckets.compare(self.connection, found, provider))
        if self.request.drift_policy == "Repair" and provider.users != "AWS":
            _repair(changes)
            found = buckets.read(self.connection, name, provider) or found
        told = [each.what for each in changes]
        if provider.object_lock and not found.object_lock:
            told.append(f'bucket "{name}" has no object lock')
        return found, told

    def _lifecycle(self, name: str, entries: Sequence[Entry], answers: dict[str, Answer]) -> None:
        provider = self.request.provider
        with self.ledger.lock(f"lifecycle-{name}", self._within(LOCK_SECONDS)):
            # As the ledger is by now, under the lock: a hold that was set meanwhile counts.
            here = [each for each in self.ledger.entries() if each.place == name]
            left: list[Entry] = []
            if not is_managed(provider):
                is_ledger = name == ledger_bucket(provider)
                _, left = lifecycle.write(self.connection, name, here, provider.lifecycle, ledger=is_ledger)
        full = {each.key for each in left}
        for entry in entries:
            if entry.key in full:
                answers[entry.key].retention_failed(
                    f'bucket "{name}" has {lifecycle.MANY_RULES} lifecycle rules, as many as S3 takes: nothing of this '
                    "Memory expires; give it a provider with another bucket"
                )
            else:
                # How many went, and when, the server tells nobody.
                answers[entry.key].retention(0, "")

    def _holds(self, home: Home, entry: Entry, bucket: Bucket) -> None:
        if not holds.is_due(entry, locked=bucket.object_lock):
            return
        with self.ledger.lock(entry.key, self._within(LOCK_SECONDS)) as ticket:
            found = self.ledger.find(entry.identity)
            if found is None or found.home != entry.home:
                return
            limit = self._within(STEP_SECONDS)
            changed, count = holds.apply(self.connection, home, found, limit, ticket.renew)
            self.ledger.save(changed)
        log.write("saw to legal holds", home=entry.home, versions=count, on=entry.legal_hold)

    def _drift(self, home: Home, entry: Entry, bucket: Bucket) -> list[str]:
        changes = list(self._differences(home, entry, bucket))
        if self.request.drift_policy == "Repair":
            _repair(changes)
        return [each.what for each in changes]

    def _differences(self, home: Home, entry: Entry, bucket: Bucket) -> Iterator[Change]:
        works = bool(entry.settings.get(CONDITIONS, {}).get("works"))
        yield from meta.compare(self.connection, meta.of(entry, home, bucket, conditional_put=works), bucket)
        if self.request.provider.users == "RGW" and not entry.closed_at:
            wanted = logins.Wanted(entry.logins, {}, entry.legal_hold)
            yield from logins.compare(self.connection, home, bucket, wanted)

    def _measure(self, home: Home, entry: Entry, bucket: Bucket, answer: Answer) -> None:
        """Counts, and reads a sample of locked objects again."""
        counted = _Counted()
        for page in objects.pages(self.connection, home.bucket, home.prefix):
            for each in page:
                if each["Key"] != home.meta:
                    counted.add(each, each["Key"].startswith(f"{home.prefix}embeddings/"))
            if counted.rows >= COUNTED or self.deadline.passed:
                break
        if entry.embeddings.enabled:
            answer.index(Index("exact", "Exact", "searches are exact: a client reads all embeddings"))
        else:
            answer.index(Index("exact", "Disabled", ""))
        answer.measured(counted.measure(held=entry.legal_hold))
        if bucket.object_lock:
            self._check(home, counted.sample, answer)

    def _check(self, home: Home, keys: Sequence[str], answer: Answer) -> None:
        checked, wrong = 0, []
        for key in keys:
            same = self._is_whole(home.bucket, key)
            if same is not None:
                checked += 1
                if not same:
                    wrong.append(f"object {key} is not what was written: its sha256 differs")
        answer.integrity(checked, len(wrong), _day(datetime.now(UTC)))
        if wrong:
            answer.drift([*wrong, *answer.sections.get("drift", [])])

    def _is_whole(self, bucket: str, key: str) -> bool | None:
        """Whether a locked object is what was written; None when that cannot be told."""
        try:
            found = self.connection.s3.get_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        with found["Body"] as body:
            locked = "ObjectLockMode" in found or found.get("ObjectLockLegalHoldStatus") == "ON"
            noted = found["Metadata"].get("sha256")
            if not locked or not noted or found["ContentLength"] > LARGEST:
                return None
            return bool(hashlib.sha256(body.read()).hexdigest() == noted)

    def _within(self, seconds: float) -> Deadline:
        return Deadline.in_seconds(min(seconds, self.deadline.remaining))


@dataclass
class _Bucket:
    """What was found of a bucket."""

    found: Bucket | None = None
    differences: list[str] = field(default_factory=list)


@dataclass
class _Counted:
    """What a home has, and a sample of it that every object is in with the same chance."""

    rows: int = 0
    size: int = 0
    embeddings: int = 0
    embedding_size: int = 0
    oldest: datetime | None = None
    sample: list[str] = field(default_factory=list)

    def add(self, found: dict[str, Any], embedding: bool) -> None:
        """Counts one object."""
        self.rows += 1
        self.size += found["Size"]
        self.embeddings += embedding
        self.embedding_size += found["Size"] if embedding else 0
        self.oldest = min(self.oldest or found["LastModified"], found["LastModified"])
        if len(self.sample) < SAMPLE:
            self.sample.append(found["Key"])
        elif (at := _random.randrange(self.rows)) < SAMPLE:
            self.sample[at] = found["Key"]

    def measure(self, *, held: bool) -> Measure:
        """Gives it as answers have it."""
        oldest = _day(self.oldest) if self.oldest else None
        return Measure(self.rows, self.size, 0, oldest, self.rows if held else 0, self.embeddings, self.embedding_size)


def _day(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT00:00:00Z")


def _repair(changes: Sequence[Change]) -> None:
    for each in changes:
        each.make()
