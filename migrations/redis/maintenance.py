"""`maintain` on Redis: one walk over the keys, then each home; a step, or a home, that fails stops no other."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from random import SystemRandom

from migrations import log
from migrations.answers import Answer, Done, Index, Measure
from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.homes.entry import Entry
from migrations.redis import acl, logins, meta, server, sweep
from migrations.redis.connection import Admin, ConnectionLostError, ended, explaining
from migrations.redis.ledger import Held, Ledger
from migrations.redis.names import Home
from migrations.redis.request import MaintainRequest
from migrations.redis.retention import Retention
from migrations.redis.server import Server
from migrations.redis.sweep import DAY_MS, Seen

# A provisioner that is at work is let finish; the next run is an hour away, and steps that need the lock wait for it.
LOCK_SECONDS = 5.0
# So long a step may keep the lock from a provisioner; of what is left the next run takes more.
STEP_SECONDS = 300.0
# Failed homes that the answer names.
NAMED = 3

# How the words begin of what is mended whatever the policy, and what was done then.
_NEEDED = ("is missing", "is open", "is off", "has another password")
_MENDED = {"is missing": "put back", "is open": "closed"}

_random = SystemRandom()


def maintain(request: MaintainRequest, admin: Admin, deadline: Deadline) -> Done:
    """Looks after every home of a provider.

    Raises:
        CommandError: The server did not answer, or lets the admin not do what is needed.
    """
    with server.connected(admin) as found:
        try:
            with explaining():
                found.check()
                return _all(request, found, deadline)
        except ConnectionLostError as error:
            raise ended(error) from None


def _all(request: MaintainRequest, server: Server, deadline: Deadline) -> Done:
    ledger = Ledger(server, request.provider.key_prefix)
    entries = [each for each in ledger.all() if _is_of(request, each)]
    # In no order: where a run has time for a part of them only, the next one has it for others.
    _random.shuffle(entries)
    seen = {each.key: Seen(Home(each.home), each.ttl_days * DAY_MS, each.legal_hold) for each in entries}
    # What the walk does not come to is left to the next run, and time to look after the homes.
    half = Deadline.in_seconds(deadline.remaining / 2)
    whole = sweep.walk(server, list(seen.values()), request.provider.key_prefix, half)
    runs = [_Run(request, server, ledger, deadline, each, seen[each.key], whole) for each in entries]
    for run in runs:
        run.go()
    failures = [(run.entry, *failure) for run in runs for failure in run.failures]
    unsaved = [words for node in server.nodes if any(run.mended for run in runs) and (words := logins.persist(node))]
    for words in unsaved:
        log.write("users are not written", why=words)
    return _told(entries, failures)


def _is_of(request: MaintainRequest, entry: Entry) -> bool:
    """Whether a home is this very provider's; a tenant's run looks after those of its own namespace only."""
    own = request.claim is None or entry.identity.startswith(f"{request.claim.namespace}/")
    return own and entry.provider_uid == request.provider.uid and entry.place == str(request.provider.database)


def _told(entries: Sequence[Entry], failures: Sequence[tuple[Entry, Code, str]]) -> Done:
    """Counts how homes stand, in words that are the same as long as they stand so."""
    failed = {entry.home for entry, _, _ in failures}
    counts = {"inUse": len(entries), "failed": len(failed)}
    if not failures:
        return Done(Code.SUCCEEDED, f"homes: {len(entries)} looked after", counts)
    told = sorted(failures, key=lambda failure: (failure[0].home, failure[2]))
    named = "; ".join(f"{entry.home} {message}" for entry, _, message in told[:NAMED])
    more = f"; and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
    return Done(told[0][1], f"homes: {len(entries)}, and in {len(failed)} of them a step failed: {named}{more}", counts)


@dataclass
class _Run:
    """One home."""

    request: MaintainRequest
    server: Server
    ledger: Ledger
    deadline: Deadline
    entry: Entry
    seen: Seen
    # Whether the walk over the keys came to its end.
    whole: bool
    mended: bool = False
    failures: list[tuple[Code, str]] = field(default_factory=list)
    answer: Answer = field(init=False)

    @property
    def home(self) -> Home:
        return self.seen.home

    def go(self) -> None:
        """Takes the steps and writes the report."""
        if self.deadline.passed:
            self.failures.append((Code.UNREACHABLE, "the deadline came first: the next run takes another order"))
            return
        self.answer = Answer.after(self.entry.report)
        self._step("retention", lambda: self._locked(self._retention))
        self._step("drift", lambda: self._locked(self._drift))
        self._step("measure", self._measure)
        self.answer.publish()

    def _step(self, name: str, work: Callable[[], None]) -> None:
        """Takes a step; what it raises is noted, and the next one is taken all the same."""
        try:
            with explaining():
                work()
        except (CommandError, ConnectionLostError) as error:
            self._failed(name, ended(error))
        except Exception as error:  # noqa: BLE001  a mistake of ours in one home must not keep the others waiting
            log.write("unexpected error", error=type(error).__name__, where=traceback.format_tb(error.__traceback__))
            self._failed(name, CommandError(Code.JOB_FAILED, f"unexpected {type(error).__name__}: see the log"))

    def _failed(self, step: str, error: CommandError) -> None:
        log.write("a step failed", home=self.home.prefix, at=step, why=error.message)
        self.failures.append((error.code, f"{step}: {error.message}"))
        self.answer.failed(step, error.code, error.message)
        if step == "retention":
            self.answer.retention_failed(error.message)

    def _locked(self, work: Callable[[Held, Deadline], None]) -> None:
        """Works under the home's lock, on the entry as it is then; not while a provisioner is at work on it."""
        within = Deadline.in_seconds(min(LOCK_SECONDS, self.deadline.remaining))
        try:
            with self.ledger.locked(self.entry.key, within) as held:
                found = self.ledger.get(self.entry.key)
                if found is None:
                    log.write("the home is gone meanwhile", home=self.home.prefix)
                    return
                self.entry = found
                work(held, Deadline.in_seconds(min(STEP_SECONDS, self.deadline.remaining)))
        except CommandError as error:
            if error.code is not Code.LOCK_BUSY:
                raise
            log.write("a provisioner is at work: the next run takes this step", home=self.home.prefix)

    def _retention(self, held: Held, deadline: Deadline) -> None:
        removed = 0
        if not self.entry.legal_hold:
            work = Retention(self.server, self.home, self.entry.ttl_days * DAY_MS, deadline, held.check)
            work.event_ids(self.seen.event_ids)
            gone = work.keys(self.seen.old) + work.keys_by_time()
            self.seen.keys -= gone
            removed = work.events() + gone + work.embeddings()
            work.times()
        self.answer.retention(removed, datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"))

    def _drift(self, held: Held, _deadline: Deadline) -> None:
        """Compares, and mends what the policy says; who comes in is mended whatever it says."""
        if not self.entry.settings.get("sealed"):
            # What the logins are to be is known when a provisioner has come to its end.
            log.write("a provisioner has not finished: the next run takes this step", home=self.home.prefix)
            return
        repair = self.request.drift_policy == "Repair"
        told: list[str] = []
        for node in self.server.nodes:
            wanted = logins.wanted(node, self.entry, self.home, skip=self.entry.settings.get("untouched", ()))
            found = logins.differences(node, self.home, wanted)
            needed = {login for login, words in found.items() if self._must_be_mended(words)}
            mended = {login for login, words in found.items() if repair and not words.startswith(acl.TAKEN)} | needed
            held.check()
            logins.apply(node, wanted, mended)
            self.mended = self.mended or bool(mended)
            for login, words in sorted(found.items()):
                if login in needed:
                    told.append(f"login {login} {words} on {node.name}: {_MENDED.get(words, 'set right')}")
                elif login not in mended:
                    told.append(f"login {login} {words} on {node.name}")
        self.answer.drift(told + self._meta(held, repair=repair))

    def _must_be_mended(self, words: str) -> bool:
        """Whether a difference is one that no policy leaves: who comes in, and on hold everything.

        A restart, or a node that was away, brings back what was before.
        """
        return words.startswith(_NEEDED) or (self.entry.legal_hold and not words.startswith(acl.TAKEN))

    def _meta(self, held: Held, *, repair: bool) -> list[str]:
        vectors = meta.look(self.server, self.home)
        wanted, found = meta.wanted(self.entry, vectors), meta.read(self.server, self.home)
        if wanted == found:
            return []
        if repair:
            held.check()
            meta.write(self.server, self.home, wanted)
            return []
        names = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        return [f"{self.home.meta}: {', '.join(names)} {'is' if len(names) == 1 else 'are'} not as provisioned"]

    def _measure(self) -> None:
        vectors = meta.look(self.server, self.home)
        self.answer.index(_index(self.entry, vectors))
        if not self.whole:
            return
        node, home = self.server.at(self.home.meta), self.home
        events = int(node.call("XLEN", home.events))
        first = node.call("XRANGE", home.events, "-", "+", "COUNT", 1)
        times = [float(entry[0].partition("-")[0]) for entry in first]
        times += [float(score) for score in node.call("ZRANGE", home.vector_times, 0, 0, "WITHSCORES")[1::2]]
        times += [float(self.seen.oldest)] if self.seen.oldest else []
        sizes = node.each([["MEMORY", "USAGE", key] for key in (home.events, home.vectors, home.vector_times)])
        stream, *rest = [each if isinstance(each, int) else 0 for each in sizes]
        rows = events + self.seen.keys + vectors.rows
        self.answer.measured(
            Measure(
                rows=rows,
                bytes=stream + sum(rest) + self.seen.bytes,
                dead_percent=0,
                oldest=_day(min(times, default=inf)),
                held=rows if self.entry.legal_hold else 0,
                embeddings=vectors.rows if self.entry.embeddings.enabled else None,
                embedding_bytes=sum(rest) if self.entry.embeddings.enabled else None,
            )
        )


def _day(milliseconds: float) -> str | None:
    """Gives a day as RFC 3339, None of a time that an app made up."""
    try:
        return f"{datetime.fromtimestamp(milliseconds / 1000, UTC).date()}T00:00:00Z"
    except (OverflowError, ValueError):
        return None


def _index(entry: Entry, vectors: meta.Vectors) -> Index:
    if not entry.embeddings.enabled:
        return Index("exact", "Disabled", "embeddings are not enabled")
    if vectors.rows:
        return Index("ready", "Ready", "searched by the vector set itself, which is an approximate index")
    return Index("exact", "Exact", "there are no embeddings yet")
