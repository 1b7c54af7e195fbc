"""`reap` on PostgreSQL: access ends with the claim, and data when its last word was Delete.

On the deletion of a claim no function runs, so a provider looks for itself: homes that bear its uid in the ledger, and
Memories that exist. What is missing in two runs in a row is gone. Whatever is doubtful, nothing is done.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from migrations import log
from migrations.answers import Done, reaped, too_many
from migrations.apiserver import UnreadableError
from migrations.composites import Cluster, Present
from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.postgres import drop, ledger, roles
from migrations.postgres.connection import Admin, Connection, ConnectionLostError, ended, explained, home_lock, retrying
from migrations.postgres.names import Isolation, Names, lock_name, names_for
from migrations.postgres.request import ReapRequest

# A provisioner at work is a sign of life, and the next run is minutes away.
LOCK_SECONDS = 5.0
# More than this many, and more than one in so many, at once is no ordinary day: a namespace that was lost, a control
# plane that came back without its objects.
MANY = 5
SHARE = 5


@dataclass(frozen=True)
class Home:
    """A home of this provider as the ledger has it.

    Attributes:
        key: What a claim that is made again does not have: its composite's uid, or name where uids are not to be seen.
        deletes: Whether the last word was Delete.
        held: Whether the Memory has a legal hold.
        gone: Whether an earlier run missed the Memory.
        closed: Whether its logins are closed.
        due: Whether it is closed for as long as the provider's grace.
    """

    home: str
    identity: str
    uid: str
    key: str
    isolation: Isolation
    schema: str
    dataset: str
    deletes: bool
    held: bool
    gone: bool
    closed: bool
    due: bool


def reap(request: ReapRequest, admin: Admin, cluster: Cluster, deadline: Deadline) -> Done:
    """Looks once, and acts on what is certain.

    Raises:
        CommandError: The server, or the API server, did not answer, so nothing was done (any more).
    """
    with admin.connect() as connection:
        try:
            if not ledger.exists(connection):
                return _told([])
            ledger.extend(connection)
            # Homes first: one that is entered after a look at the Memories would seem to have none.
            homes = _homes(connection, request)
            present = cluster.read()
            return _Run(request, admin, cluster, deadline, connection).go(homes, present)
        except psycopg.Error as error:
            raise ended(explained(connection, error)) from None


def mark(homes: list[Home]) -> str:
    """Names a set of homes in eight characters: what a person allows is these, and no others."""
    text = "\n".join(sorted(f"{each.home} {each.key}" for each in homes))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass
class _Run:
    """One look, with what it needs."""

    request: ReapRequest
    admin: Admin
    cluster: Cluster
    deadline: Deadline
    connection: Connection
    failures: list[CommandError] = field(default_factory=list)

    def go(self, homes: list[Home], present: Present) -> Done:
        """Does nothing, or all of it.

        Raises:
            UnreadableError: The API server stopped answering; each home is as it was, or done.
        """
        missing = [each for each in homes if not present.has(each.key)]
        vanished = [each for each in missing if not each.closed]
        in_use = [each for each in homes if not each.closed]
        many = len(vanished) > MANY and len(vanished) * SHARE > len(in_use)
        if many and self.request.approved != mark(vanished):
            return too_many([each.identity for each in vanished], len(in_use), mark(vanished))
        for each in homes:
            if each not in missing and (each.gone or each.closed):
                self._each(each, self._welcome)
        for each in vanished:
            self._each(each, self._close if each.gone else self._note)
        for each in missing:
            # Somebody of the same identity may be about to say `adopt`.
            if each.closed and each.deletes and not each.held and each.due and not present.names(each.identity):
                self._each(each, self._drop)
        done = _told(_homes(self.connection, self.request))
        return Done(self.failures[0].code, self.failures[0].message, done.counts) if self.failures else done

    def _each(self, home: Home, work: Callable[[Home], None]) -> None:
        """Works on one home; one that fails does not stop the others."""
        if self.deadline.passed:
            return
        try:
            work(home)
        except UnreadableError:
            raise
        except (CommandError, ConnectionLostError) as error:
            log.write("a home failed", home=home.home, why=str(error))
            found = ended(error)
            if found.code is not Code.LOCK_BUSY:
                message = f'home "{home.home}": {found.message}'
                self.failures.append(CommandError(found.code, message, sqlstate=found.sqlstate))

    def _note(self, home: Home) -> None:
        log.write("a Memory is missing: the next run closes its logins", home=home.home, identity=home.identity)
        query = "UPDATE memory_ledger.homes SET gone_since = now() WHERE home = %s AND xr_uid = %s"
        self.connection.execute(query, [home.home, home.uid])

    def _welcome(self, home: Home) -> None:
        """Opens again what was closed: the very same Memory is back, so its passwords are what they were."""
        with self._locked(home, lambda found: found.has(home.key)) as connection:
            if connection is None:
                return
            log.write("a Memory is back", home=home.home, identity=home.identity)
            logins = self._names(home).logins
            retrying(connection, self.deadline, lambda: _open(connection, home, logins))

    def _close(self, home: Home) -> None:
        """Closes the logins, ends their sessions, and says so in the ledger; a run that is killed does it again."""
        with self._locked(home, lambda found: not found.has(home.key)) as connection:
            if connection is None:
                return
            log.write("closing the logins of a Memory that is gone", home=home.home, identity=home.identity)
            names = self._names(home)
            logins = sorted(roles.existing(connection, names).roles & set(names.logins))
            retrying(connection, self.deadline, lambda: _shut(connection, home, logins))
            drop.end_sessions(connection, logins)
            connection.execute("UPDATE memory_ledger.homes SET closed_at = now() WHERE home = %s", [home.home])

    def _drop(self, home: Home) -> None:
        with self._locked(home, lambda found: not found.names(home.identity)) as connection:
            if connection is None:
                return
            log.write("dropping a home whose Memory is gone", home=home.home, identity=home.identity)
            found = drop.Home(home.home, home.identity, home.isolation, home.schema, home.dataset)
            try:
                drop.drop_home(connection, self.admin, found, self.deadline)
            except CommandError as error:
                if error.code is not Code.ON_HOLD:
                    raise
                log.write("it is on hold, so it is kept", home=home.home, why=error.message)

    @contextmanager
    def _locked(self, home: Home, holds: Callable[[Present], bool]) -> Iterator[Connection | None]:
        """Holds the home's lock, and looks again under it: at the ledger and at the cluster.

        On a connection of its own: after a failure the lock goes with the session.

        Yields:
            The connection, None when somebody has been at the home, or what should hold of its Memory does not.
        """
        with self.admin.connect() as connection:
            try:
                limit = Deadline.in_seconds(min(LOCK_SECONDS, self.deadline.remaining))
                with home_lock(connection, lock_name(home.isolation, home.home, home.schema), limit):
                    same = home in _homes(connection, self.request)
                    yield connection if same and holds(self.cluster.find(home.identity)) else None
            except psycopg.Error as error:
                raise explained(connection, error) from None

    def _names(self, home: Home) -> Names:
        return names_for(home.identity, self.request.provider.database, home.schema, home.isolation)


def _homes(connection: Connection, request: ReapRequest) -> list[Home]:
    """Reads the homes of this very provider; a tenant's reaper answers for those of its own namespace only."""
    rows = connection.execute(
        """
        SELECT home, identity, xr_uid, CASE WHEN %(tenant)s THEN composite ELSE xr_uid END, isolation,
               coalesce(nullif(schema, ''), home), dataset, deletion_policy = 'Delete', legal_hold,
               gone_since IS NOT NULL, closed_at IS NOT NULL,
               coalesce(closed_at + make_interval(secs => %(grace)s) <= now(), false)
        FROM memory_ledger.homes
        WHERE provider_uid = %(provider)s AND (NOT %(tenant)s OR starts_with(identity, %(prefix)s) AND composite <> '')
        ORDER BY home
        """,
        {
            "tenant": request.claim is not None,
            "prefix": f"{request.claim.namespace}/" if request.claim else "",
            "grace": request.deletion_grace_seconds,
            "provider": request.provider.uid,
        },
    ).fetchall()
    return [Home(*row) for row in rows]


def _shut(connection: Connection, home: Home, logins: list[str]) -> None:
    """Closes what is open, and notes it; the passwords stay, so that the same Memory can come back."""
    query = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND rolcanlogin ORDER BY 1"
    opened = [name for (name,) in connection.execute(query, [logins]).fetchall()]
    _alter(connection, opened, "NOLOGIN")
    query = "UPDATE memory_ledger.homes SET closed_logins = closed_logins || %s::text[] WHERE home = %s"
    connection.execute(query, [opened, home.home])


def _open(connection: Connection, home: Home, logins: tuple[str, ...]) -> None:
    """Opens what `_shut` closed, with the password that it has."""
    query = """
        SELECT r.rolname FROM pg_roles r JOIN memory_ledger.homes h ON r.rolname = ANY(h.closed_logins)
        WHERE h.home = %s AND r.rolname = ANY(%s)
    """
    _alter(connection, [name for (name,) in connection.execute(query, [home.home, list(logins)]).fetchall()], "LOGIN")
    query = """
        UPDATE memory_ledger.homes SET gone_since = NULL, closed_at = NULL, closed_logins = '{}' WHERE home = %s
    """
    connection.execute(query, [home.home])


def _alter(connection: Connection, logins: list[str], what: str) -> None:
    for name in logins:
        connection.execute(sql.SQL("ALTER ROLE {} {}").format(sql.Identifier(name), sql.SQL(what)))


def _told(homes: list[Home]) -> Done:
    """Counts how homes stand, in words that are the same as long as they stand so."""
    closed = [each for each in homes if each.closed]
    missing = [each for each in homes if each.gone and not each.closed]
    dropped = [each for each in closed if each.deletes]
    return reaped(len(homes), missing=len(missing), closed=len(closed), dropped=len(dropped))
