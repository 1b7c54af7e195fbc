"""`provision` on Redis: the order of the steps. Each is idempotent, and a killed run is resumed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import redis

from migrations import log
from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.homes import entry as entries
from migrations.homes.entry import Claimed, Entry
from migrations.redis import logins, meta, server, sweep
from migrations.redis.connection import Admin, ConnectionLostError, explained
from migrations.redis.ledger import Held, Ledger
from migrations.redis.names import Home, home_of
from migrations.redis.request import ProvisionRequest
from migrations.redis.server import Server

T = TypeVar("T")

MODULES = {"core": "1", "embeddings": "1"}


@dataclass(frozen=True)
class Done:
    """What a successful run reports."""

    server: dict[str, object]
    modules: list[dict[str, str]]
    warnings: list[str]
    verify: list[str]


def provision(request: ProvisionRequest, admin: Admin, deadline: Deadline) -> Done:
    """Makes the server hold what the request says, as soon as it is there.

    Raises:
        CommandError: With the reason.
    """
    check(request)
    home = home_of(request)
    attempt = 0
    while True:
        found = server.wait(admin, deadline)
        try:
            return _Run(request, home, found, deadline).go()
        except ConnectionLostError as error:
            lost = str(error)
        finally:
            found.close()
        if deadline.passed:
            msg = f"the connection to {admin.server} broke and the deadline is near: {lost}"
            raise CommandError(Code.UNREACHABLE, msg)
        log.write("the connection broke, beginning again", why=lost)
        deadline.pause(attempt)
        attempt += 1


def check(request: ProvisionRequest) -> None:
    """Refuses what Redis has nothing for, whatever the server.

    Raises:
        CommandError: MODULE_UNSUPPORTED.
    """
    for module in request.modules:
        if module not in MODULES:
            msg = (
                f'modules: "{module}" is not in this migrations image for Redis, which has {", ".join(MODULES)}: leave '
                "it out"
            )
            raise CommandError(Code.MODULE_UNSUPPORTED, msg)
    for name, role in (("readerRole", request.access.reader_role), ("writerRole", request.access.writer_role)):
        if role is not None:
            msg = f'access.{name}: Redis has no groups for "{role}" to be in: leave it out, or choose another provider'
            raise CommandError(Code.MODULE_UNSUPPORTED, msg)
    if request.adoption.giver:
        msg = (
            f'adoption: the keys of "{request.adoption.giver}" bear its own prefix, and Redis hands no home over: '
            "leave the hand-over out, and copy the data with a client"
        )
        raise CommandError(Code.MODULE_UNSUPPORTED, msg)


def modules_of(request: ProvisionRequest) -> list[dict[str, str]]:
    """Gives the modules that a home has, core first."""
    names = ["core", *(["embeddings"] if request.embeddings.enabled else [])]
    names += [module for module in request.modules if module not in names]
    return [{"name": name, "version": MODULES[name]} for name in names]


def judge(request: ProvisionRequest, server: Server, home: Home, found: Entry | None) -> tuple[Claimed, meta.Vectors]:
    """Decides whether a home can be a request's, and changes nothing.

    Raises:
        CommandError: It cannot.
    """
    claimed = entries.claim(found, request, home.prefix, request.database)
    logins.check_free(server, home)
    vectors = meta.look(server, home)
    meta.check_dimension(vectors, request.embeddings)
    return claimed, vectors


@dataclass
class _Run:
    """One attempt."""

    request: ProvisionRequest
    home: Home
    server: Server
    deadline: Deadline
    warnings: list[str] = field(default_factory=list)

    def go(self) -> Done:
        """Takes the steps.

        Raises:
            CommandError: One of them cannot be taken.
            ConnectionLostError: The connection broke.
        """
        try:
            return self._locked()
        except redis.RedisError as error:
            raise explained(error) from None

    def _locked(self) -> Done:
        # Before the lock as well: what cannot be is said at once, without a key of ours on the server.
        log.step("server")
        self.server.check()
        meta.check_supported(self.server, self.request.embeddings)
        ledger = Ledger(self.server, self.request.provider.key_prefix)
        log.step("lock")
        with ledger.locked(entries.key_of(self.request.identity), self.deadline) as held:
            return self._steps(ledger, held)

    def _steps(self, ledger: Ledger, held: Held) -> Done:
        request, home = self.request, self.home
        claimed, vectors = self._step(
            held, "judge", lambda: judge(request, self.server, home, ledger.get(entries.key_of(request.identity)))
        )
        before = claimed.entry.logins
        skip = logins.untouched(request, before)
        # An adoption that was killed is one still: its sessions have not ended.
        adopting = claimed.adopted or bool(claimed.entry.settings.get("adopting"))
        entry = claimed.entry.but(settings={"sealed": False, "untouched": sorted(skip), "adopting": adopting})
        self._step(held, "ledger", lambda: ledger.save(entry, held))
        entry = entry.but(logins=logins.verifiers_after(request, before))
        self._step(held, "meta", lambda: meta.write(self.server, home, meta.wanted(entry, vectors)))
        self._step(held, "logins", lambda: self._logins(entry, skip))
        self._step(held, "sessions", lambda: self._sessions(entry, before))
        self._step(held, "persist", self._persist)
        if request.legal_hold:
            # After the logins: from here on nobody makes a key that would expire.
            self._step(held, "hold", lambda: sweep.keep_all(self.server, home))
        verify = self._step(held, "verify", lambda: logins.of_server(self.server, entry, home, skip))
        sealed = entry.but(settings={**entry.settings, "sealed": True, "adopting": False})
        self._step(held, "seal", lambda: ledger.save(sealed, held))
        warnings = [*self.server.warnings(), *meta.warnings(entry, vectors), *self.warnings]
        return Done(self.server.described(), modules_of(request), warnings, verify)

    def _step(self, held: Held, name: str, work: Callable[[], T]) -> T:
        log.step(name)
        held.check()
        return work()

    def _logins(self, entry: Entry, skip: set[str]) -> None:
        for node in self.server.nodes:
            wanted = logins.wanted(node, entry, self.home, skip)
            logins.apply(node, wanted, logins.differences(node, self.home, wanted))

    def _sessions(self, entry: Entry, before: dict[str, str]) -> None:
        adopting = entry.settings["adopting"]
        names = self.home.logins if adopting else logins.ended(self.request, before, entry.logins)
        for node in self.server.nodes:
            logins.end_sessions(node, names)

    def _persist(self) -> None:
        # Whether or not a login differed: the run before this one may have been killed here.
        self.warnings += filter(None, (logins.persist(node) for node in self.server.nodes))
