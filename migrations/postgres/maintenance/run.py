"""One run of `maintain`: all places of a provider, a few at once; a step, or a place, that fails stops no other."""

import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import SystemRandom
from typing import Self

import psycopg

from migrations import log
from migrations.answers import Answer, Done, Index
from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.postgres import ledger
from migrations.postgres.connection import Admin, Connection, ConnectionLostError, ended, explained, home_lock
from migrations.postgres.drift import check as drift
from migrations.postgres.maintenance import indexes, measure, partitions, places, retention, vacuum
from migrations.postgres.maintenance.places import Place, Work
from migrations.postgres.names import lock_name
from migrations.postgres.request import MaintainRequest

# Places that are worked on at once: enough to fill two cores of a server, few enough for its connections.
AT_ONCE = 4
# A provisioner that is at work is let finish; the next run is an hour away, and steps that need the lock wait for it.
LOCK_SECONDS = 5.0
# So long a step may keep the lock from a provisioner; of what is left the next run takes more.
STEP_SECONDS = 300.0
# Failed homes that the answer names.
NAMED = 3

_random = SystemRandom()


def maintain(request: MaintainRequest, admin: Admin, deadline: Deadline) -> Done:
    """Looks after every home of a provider, or under CloudNativePG after the one that the session can.

    Raises:
        CommandError: The server did not answer.
    """
    with admin.connect() as connection:
        try:
            if not ledger.exists(connection):
                return _told([], [])
            ledger.extend(connection)
            found = places.read(connection, request)
            # In no order: where a run has time for a part of them only, the next one has it for others.
            _random.shuffle(found)
        except psycopg.Error as error:
            raise ended(explained(connection, error)) from None
    with ThreadPoolExecutor(AT_ONCE) as pool, _Sessions(admin) as sessions:
        runs = [_Run(request, admin, sessions, deadline, place) for place in found]
        failures = [failure for failed in pool.map(_Run.go, runs) for failure in failed]
    return _told(found, failures)


def _told(found: Sequence[Place], failures: Sequence[tuple[Place, Code, str]]) -> Done:
    """Counts how places stand, in words that are the same as long as they stand so."""
    homes = sum(len(place.homes) for place in found)
    failed = {place.title for place, _, _ in failures}
    counts = {"inUse": homes, "failed": len(failed)}
    if not failures:
        return Done(Code.SUCCEEDED, f"homes: {homes} looked after", counts)
    told = sorted(failures, key=lambda failure: (failure[0].title, failure[2]))
    named = "; ".join(f"{place.title}: {message}" for place, _, message in told[:NAMED])
    more = f"; and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
    return Done(
        told[0][1], f"homes: {homes}, and in {len(failed)} of their schemas a step failed: {named}{more}", counts
    )


class _BusyError(Exception):
    """Somebody else holds a home's lock."""


class _Sessions:
    """Connections that are kept for the next place; each thread has its own."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._kept = threading.local()
        self._all: list[Connection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._all:
            connection.close()

    @contextmanager
    def use(self, database: str) -> Iterator[Connection]:
        """Gives a session in a database; after a failure it is not used again, and its locks go with it."""
        connection = self._open(database)
        self._kept.at = None
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._kept.at = (database, connection)

    def _open(self, database: str) -> Connection:
        at: tuple[str, Connection] | None = getattr(self._kept, "at", None)
        if at and at[0] == database and not at[1].closed:
            return at[1]
        if at:
            at[1].close()
        connection = self._admin.connect(database)
        self._all.append(connection)
        return connection


@dataclass
class _Run:
    """One place."""

    request: MaintainRequest
    admin: Admin
    sessions: _Sessions
    deadline: Deadline
    place: Place
    answers: dict[str, Answer] = field(default_factory=dict)
    failures: list[tuple[Place, Code, str]] = field(default_factory=list)

    def go(self) -> list[tuple[Place, Code, str]]:
        """Takes the steps and writes the reports.

        Returns:
            What failed.
        """
        if self.deadline.passed:
            return [(self.place, Code.UNREACHABLE, "the deadline came first: the next run takes another order")]
        self.answers = {home.key: Answer.after(home.report) for home in self.place.homes}
        self._step("partitions", self._partitions, locked=True)
        self._step("retention", self._retention, locked=True)
        self._step("index", self._index)
        self._step("vacuum", vacuum.look_after)
        self._step("drift", self._drift, locked=True)
        self._step("measure", self._measure)
        for answer in self.answers.values():
            answer.publish()
        return self.failures

    def _step(self, name: str, work: Callable[[Work], None], *, locked: bool = False) -> None:
        """Takes a step; what it raises is noted, and the next one is taken all the same."""
        try:
            with self.sessions.use(self.place.database) as connection:
                at_work = Work(connection, self.admin, self.place, self.request, self.deadline)
                try:
                    if locked:
                        self._under_lock(at_work, work)
                    else:
                        work(at_work)
                except psycopg.Error as error:
                    raise explained(connection, error) from None
        except _BusyError:
            log.write("a provisioner is at work: the next run takes this step", place=self.place.title, at=name)
        except (CommandError, ConnectionLostError) as error:
            self._failed(name, ended(error))
        except Exception as error:  # noqa: BLE001  a mistake of ours in one place must not keep the others waiting
            log.write("unexpected error", error=type(error).__name__, where=traceback.format_tb(error.__traceback__))
            self._failed(name, CommandError(Code.JOB_FAILED, f"unexpected {type(error).__name__}: see the log"))

    def _under_lock(self, at_work: Work, work: Callable[[Work], None]) -> None:
        name = lock_name(self.place.isolation, self.place.homes[0].key, self.place.schema)
        with ExitStack() as held:
            try:
                held.enter_context(home_lock(at_work.connection, name, self._within(LOCK_SECONDS)))
            except CommandError as error:
                raise _BusyError from error
            work(replace(at_work, deadline=self._within(STEP_SECONDS)))

    def _within(self, seconds: float) -> Deadline:
        return Deadline.in_seconds(min(seconds, self.deadline.remaining))

    def _failed(self, step: str, error: CommandError) -> None:
        log.write("a step failed", place=self.place.title, at=step, why=error.message, sqlstate=error.sqlstate)
        message = error.message
        if error.code is Code.LOCK_BUSY:
            message += (
                ": a long transaction is in the way; look for it in pg_stat_activity, and end it if nobody needs it"
            )
        self.failures.append((self.place, error.code, f"{step}: {message}"))
        for answer in self.answers.values():
            answer.failed(step, error.code, message)
            if step == "retention":
                answer.retention_failed(message)

    def _partitions(self, work: Work) -> None:
        with work.as_owner():
            partitions.ensure(work.connection, self.place.schema, work.deadline)

    def _retention(self, work: Work) -> None:
        removed: Counter[str] = Counter(retention.look_after(work))
        when = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        for home in self.place.homes:
            self.answers[home.key].retention(removed[home.dataset], when)

    def _index(self, work: Work) -> None:
        def tell(found: Mapping[str, Index]) -> None:
            for key, index in found.items():
                self.answers[key].index(index)
                self.answers[key].publish()

        for key, index in indexes.look_after(work, tell).items():
            self.answers[key].index(index)

    def _drift(self, work: Work) -> None:
        found = drift.find(work)
        if found and self.request.drift_policy == "Repair":
            found = drift.repair(work, found)
        for key, answer in self.answers.items():
            answer.drift(sorted(str(each) for each in found if each.home in {"", key}))

    def _measure(self, work: Work) -> None:
        for key, found in measure.take(work).items():
            self.answers[key].measured(found)
