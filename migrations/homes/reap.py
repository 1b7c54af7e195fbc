"""`reap` where homes are documents: access ends with the claim, and data when its last word was Delete.

The rules are those of `migrations.postgres.reap`. What is missing in two runs in a row is gone; whatever is doubtful,
nothing is done.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Protocol

from migrations import log
from migrations.answers import Done, reaped, too_many
from migrations.apiserver import UnreadableError
from migrations.composites import Cluster, Present
from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.homes.entry import Entry, now
from migrations.request import P, Reap

# More than this many, and more than one in so many, at once is no ordinary day.
MANY = 5
SHARE = 5


class Server(Protocol):
    """What the reaper needs of a backend. What fails raises CommandError."""

    def entries(self) -> Sequence[Entry]:
        """Reads the whole ledger."""
        ...

    def locked(self, entry: Entry) -> AbstractContextManager[Entry | None]:
        """Keeps others from a home, and reads its entry again; None where it is gone, or somebody else is at work."""
        ...

    def save(self, entry: Entry) -> None:
        """Writes an entry, under its lock."""
        ...

    def close(self, entry: Entry) -> list[str]:
        """Closes every login of a home that is open, and ends its sessions; gives which they were."""
        ...

    def reopen(self, entry: Entry) -> None:
        """Opens `closed_logins` again, with the passwords that they had."""
        ...

    def drop(self, entry: Entry) -> None:
        """Removes a home: data, logins, and last its entry. ON_HOLD when something in it must be kept."""
        ...


def reap(request: Reap[P], server: Server, cluster: Cluster, deadline: Deadline) -> Done:
    """Looks once, and acts on what is certain.

    Raises:
        CommandError: The server, or the API server, did not answer, so nothing was done (any more).
    """
    # Homes first: one that is entered after a look at the Memories would seem to have none.
    homes = _of(request, server.entries())
    return _Run(request, server, cluster, deadline).go(homes, cluster.read())


def mark(homes: Sequence[Entry]) -> str:
    """Names a set of homes in eight characters: what a person allows is these, and no others."""
    text = "\n".join(sorted(f"{each.home} {each.uid}" for each in homes))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _of(request: Reap[P], entries: Sequence[Entry]) -> list[Entry]:
    """Gives the homes of this very provider; a tenant's reaper answers for those of its own namespace only."""
    own = [each for each in entries if each.provider_uid == request.provider.uid]
    if request.claim is None:
        return own
    prefix = f"{request.claim.namespace}/"
    return [each for each in own if each.identity.startswith(prefix) and each.composite]


class _Run:
    """One look, with what it needs."""

    def __init__(self, request: Reap[P], server: Server, cluster: Cluster, deadline: Deadline) -> None:
        self.request: Reap[P] = request
        self.server = server
        self.cluster = cluster
        self.deadline = deadline
        self.failures: list[CommandError] = []

    def go(self, homes: Sequence[Entry], present: Present) -> Done:
        """Does nothing, or all of it.

        Raises:
            UnreadableError: The API server stopped answering; each home is as it was, or done.
        """
        missing = [each for each in homes if not self._is_there(each, present)]
        vanished = [each for each in missing if not each.closed_at]
        in_use = [each for each in homes if not each.closed_at]
        many = len(vanished) > MANY and len(vanished) * SHARE > len(in_use)
        if many and self.request.approved != mark(vanished):
            return too_many([each.identity for each in vanished], len(in_use), mark(vanished))
        for each in homes:
            if each not in missing and (each.gone_since or each.closed_at):
                self._each(each, self._welcome)
        for each in vanished:
            self._each(each, self._close if each.gone_since else self._note)
        for each in missing:
            # Somebody of the same identity may be about to say `adopt`.
            if self._is_due(each) and not present.names(each.identity):
                self._each(each, self._drop)
        done = _told(_of(self.request, self.server.entries()))
        return Done(self.failures[0].code, self.failures[0].message, done.counts) if self.failures else done

    def _is_there(self, entry: Entry, present: Present) -> bool:
        """Whether the very composite exists; a tenant sees its name and not its uid."""
        return present.has(entry.composite if self.request.claim else entry.uid)

    def _is_due(self, entry: Entry) -> bool:
        """Whether it is closed for as long as the provider's grace, and may go."""
        if not entry.closed_at or entry.deletion_policy != "Delete" or entry.legal_hold:
            return False
        closed = datetime.fromisoformat(entry.closed_at)
        return closed + timedelta(seconds=self.request.deletion_grace_seconds) <= datetime.now(UTC)

    def _each(self, entry: Entry, work: Callable[[Entry], None]) -> None:
        """Works on one home under its lock; one that fails does not stop the others."""
        if self.deadline.passed:
            return
        try:
            with self.server.locked(entry) as found:
                # Somebody who has been at it meanwhile is a sign of life.
                if found == entry:
                    work(entry)
        except UnreadableError:
            raise
        except CommandError as error:
            log.write("a home failed", home=entry.home, why=error.message)
            if error.code not in {Code.LOCK_BUSY, Code.ON_HOLD}:
                self.failures.append(CommandError(error.code, f'home "{entry.home}": {error.message}'))

    def _note(self, entry: Entry) -> None:
        log.write("a Memory is missing: the next run closes its logins", home=entry.home, identity=entry.identity)
        self.server.save(entry.but(gone_since=now()))

    def _welcome(self, entry: Entry) -> None:
        """Opens again what was closed: the very same Memory is back, so its passwords are what they were."""
        if not self._is_there(entry, self.cluster.find(entry.identity)):
            return
        log.write("a Memory is back", home=entry.home, identity=entry.identity)
        self.server.reopen(entry)
        self.server.save(entry.but(gone_since=None, closed_at=None, closed_logins=[]))

    def _close(self, entry: Entry) -> None:
        """Closes the logins and says so in the ledger; a run that is killed does it again."""
        if self._is_there(entry, self.cluster.find(entry.identity)):
            return
        log.write("closing the logins of a Memory that is gone", home=entry.home, identity=entry.identity)
        closed = self.server.close(entry)
        self.server.save(entry.but(closed_at=now(), closed_logins=sorted({*entry.closed_logins, *closed})))

    def _drop(self, entry: Entry) -> None:
        if self.cluster.find(entry.identity).names(entry.identity):
            return
        log.write("dropping a home whose Memory is gone", home=entry.home, identity=entry.identity)
        self.server.drop(entry)


def _told(homes: Sequence[Entry]) -> Done:
    """Counts how homes stand, in words that are the same as long as they stand so."""
    closed = [each for each in homes if each.closed_at]
    missing = [each for each in homes if each.gone_since and not each.closed_at]
    dropped = [each for each in closed if each.deletion_policy == "Delete"]
    return reaped(len(homes), missing=len(missing), closed=len(closed), dropped=len(dropped))
