"""`reap` on Redis: what `migrations.homes.reap` needs of a server."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from migrations.answers import Done
from migrations.composites import Cluster
from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.homes import reap as rules
from migrations.homes.entry import Entry, now
from migrations.redis import logins, server, sweep
from migrations.redis.connection import Admin, ConnectionLostError, ended, explaining
from migrations.redis.ledger import Held, Ledger
from migrations.redis.names import Home
from migrations.redis.request import ReapRequest
from migrations.redis.server import Node, Server

# A provisioner at work is a sign of life, and the next run is minutes away.
LOCK_SECONDS = 5.0


def reap(request: ReapRequest, admin: Admin, cluster: Cluster, deadline: Deadline) -> Done:
    """Closes the logins of Memories that are gone, and drops what may be dropped.

    Raises:
        CommandError: The server, or the API server, did not answer.
    """
    with server.connected(admin) as found, _ending():
        found.check()
        return rules.reap(request, _Reaper(found, Ledger(found, request.provider.key_prefix)), cluster, deadline)


@contextmanager
def _ending() -> Iterator[None]:
    try:
        with explaining():
            yield
    except ConnectionLostError as error:
        raise ended(error) from None


@dataclass
class _Reaper:
    """The server, as the rules see it."""

    server: Server
    ledger: Ledger
    held: dict[str, Held] = field(default_factory=dict)

    def entries(self) -> Sequence[Entry]:
        """Reads the ledger's entries of this logical database."""
        place = str(self.server.admin.provider.database)
        with _ending():
            return [each for each in self.ledger.all() if each.place == place]

    @contextmanager
    def locked(self, entry: Entry) -> Iterator[Entry | None]:
        """Keeps others from a home, and reads its entry again."""
        with _ending(), self.ledger.locked(entry.key, Deadline.in_seconds(LOCK_SECONDS)) as held:
            self.held[entry.key] = held
            yield self.ledger.get(entry.key)

    def save(self, entry: Entry) -> None:
        """Writes an entry, under its lock."""
        self.ledger.save(entry, self.held[entry.key])

    def close(self, entry: Entry) -> list[str]:
        """Closes every login on every node."""
        closed = entry.but(closed_at=now())
        self._each_node(lambda node: self._shut(node, closed))
        return sorted(entry.logins)

    def reopen(self, entry: Entry) -> None:
        """Opens the logins with the passwords that the ledger has."""
        opened = entry.but(closed_at=None)
        logins.check_free(self.server, Home(entry.home))
        self._each_node(lambda node: self._set(node, opened))

    def drop(self, entry: Entry) -> None:
        """Removes users, keys, and last the entry."""
        if entry.legal_hold:
            msg = f'"{entry.home}" is on legal hold: it is kept'
            raise CommandError(Code.ON_HOLD, msg)
        home, held = Home(entry.home), self.held[entry.key]
        self._each_node(lambda node: logins.remove(node, home))
        sweep.remove_all(self.server, home, held.check)
        self.ledger.remove(entry, held)

    def _shut(self, node: Node, closed: Entry) -> None:
        self._set(node, closed)
        logins.end_sessions(node, logins.own(node, Home(closed.home)))

    def _set(self, node: Node, entry: Entry) -> None:
        home = Home(entry.home)
        wanted = logins.wanted(node, entry, home)
        logins.apply(node, wanted, logins.differences(node, home, wanted))

    def _each_node(self, work: Callable[[Node], None]) -> None:
        for node in self.server.nodes:
            work(node)
            logins.persist(node)
