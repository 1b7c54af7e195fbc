"""`plan` on PostgreSQL: what `provision` would do, foretold by reading alone.

The same judgements in the same order, in sessions that PostgreSQL itself keeps from writing. What only time brings (new
partitions) and what is the same after every run (grants that are right already) is left out.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psycopg

from migrations.errors import Code, CommandError
from migrations.postgres import (
    access,
    embeddings,
    handover,
    home,
    ledger,
    logins,
    managed,
    policies,
    roles,
    runner,
    server,
    sqlfile,
    verify,
)
from migrations.postgres.connection import Admin, Connection, ConnectionLostError, explained, fetch_value
from migrations.postgres.names import Names, names_of
from migrations.postgres.provision import wanted_modules
from migrations.postgres.request import ProvisionRequest
from migrations.postgres.server import Facts

# Differences that `verify` tells and `provision` leaves: others made them, and may have a reason.
_LEFT = re.compile(
    r"role \S+ is |group \S+ can log in|login \S+ (can become|is in) role |login \S+ can read schema memory_ledger"
)
_PUBLIC = re.compile(r"PUBLIC has \S+ on (database |schema public)")


@dataclass(frozen=True)
class Refusal:
    """Why `provision` would not go on: exit code, reason, sentence."""

    code: int
    reason: str
    message: str
    migration: str = ""


@dataclass
class Plan:
    """What `provision` would do.

    Attributes:
        home: Whether it is made, ours, taken over from an earlier claim, or cannot be ours.
        migrations: Files that would be applied, `<module>/<file>`.
        changes: A sentence for each other thing that would change; nothing after a refusal.
        refused: Why it would end early.
    """

    home: Literal["new", "ours", "adopt", "refused"] = "refused"
    migrations: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    refused: Refusal | None = None

    @property
    def message(self) -> str:
        """The plan in a sentence."""
        if self.refused:
            return f"provision would be refused ({self.refused.reason}): {self.refused.message}"
        count = len(self.migrations) + len(self.changes)
        return f"provision would change {count} thing{'' if count == 1 else 's'}" if count else "nothing would change"


def plan(request: ProvisionRequest, admin: Admin, folder: Path = sqlfile.FOLDER) -> Plan:
    """Foretells what `provision` would do with this request, as the server is now.

    Raises:
        CommandError: Nothing could be looked at: the request is wrong, or the server does not answer or let us in.
    """
    names, admin = names_of(request), replace(admin, read_only=True)
    made = Plan()
    with admin.connect() as connection:
        look = _Look(request, admin, names, connection, made)
        try:
            look.go(folder)
        except CommandError as error:
            if error.code is Code.UNREACHABLE:
                raise
            made.refused = Refusal(int(error.code), error.code.reason, error.message, error.migration)
        except psycopg.Error as error:
            found = explained(look.home if look.home and look.home.broken else connection, error)
            lost = isinstance(found, ConnectionLostError)
            raise CommandError(Code.UNREACHABLE, str(found)) if lost else found from None
    return made


@dataclass
class _Look:
    """One look, on one connection to the provider's database."""

    request: ProvisionRequest
    admin: Admin
    names: Names
    connection: Connection
    plan: Plan
    # To the home's database, which may be another one.
    home: Connection | None = None
    adopted: bool = False
    # The roles that are there.
    there: frozenset[str] = frozenset()
    # The role that a home which is handed over belongs to.
    givers: frozenset[str] = frozenset()

    def go(self, folder: Path) -> None:
        """Takes the steps of `provision`, and notes what each would do.

        Raises:
            CommandError: One of them cannot be taken.
        """
        request, connection = self.request, self.connection
        modules = wanted_modules(request, folder)
        if self.is_managed:
            managed.check(connection, self.names)
            self.names = managed.present(connection, self.names)
            self.there = frozenset(self.names.roles)
        else:
            server.check_admin(self.admin, server.read(connection))
            self.there = roles.existing(connection, self.names).roles
        access.check(connection, request.access)
        entry, owner = self._claim()
        made = [name for name in self.names.roles if name not in self.there]
        self._note([f"roles are made: {', '.join(made)}"] if made else [])
        with self._at_home() as self.home:
            self._contents(self.home, modules, owner)
        self._note(self._guests(entry))
        self._note(self._logins(entry))
        self._note(self._wishes(entry))

    @property
    def is_managed(self) -> bool:
        """Whether CloudNativePG makes roles and logins."""
        return self.request.provider.role_management == "CNPG"

    def _note(self, sentences: Iterator[str] | Sequence[str]) -> None:
        self.plan.changes += sentences

    def _guests(self, entry: dict[str, Any]) -> Iterator[str]:
        """Says which roles of others would get or lose the rights of a group."""
        access_, noted = self.request.access, entry.get("granted") or {}
        if entry and not self.is_managed:
            joining, leaving = access.differences(self.connection, self.request, self.names)
            yield from (f"role {each.member} gets the rights of {each.group}" for each in joining)
            yield from (f"role {member} loses the rights of {group}" for group, member in leaving)
            return
        for group, wanted in (("reader", access_.reader_role), ("writer", access_.writer_role)):
            before = noted.get(group)
            if wanted and wanted != before:
                yield f"role {wanted} gets the {group}'s rights"
            if before and before != wanted:
                yield f"role {before} loses the {group}'s rights"

    def _claim(self) -> tuple[dict[str, Any], str]:
        """Asks the ledger whose home it is.

        Returns:
            The home's entry, empty when it has none that counts; and the role that what is there belongs to.
        """
        request, connection = self.request, self.connection
        homes = None
        if ledger.exists(connection):
            homes = ledger.extended(connection)
            lacking = ledger.lacking(connection)
            self._note([f"the ledger of homes gets the columns {', '.join(lacking)}"] if lacking else [])
        else:
            self._note([f'schema memory_ledger, the ledger of homes, is made in database "{connection.info.dbname}"'])
        giver = request.adoption.giver
        with connection.transaction():
            due = handover.due(connection, request, homes) if homes else None
            if due is None:
                found = ledger.find(connection, request, self.names, homes)
                self.adopted = ledger.judge(found, request, self.names)
        if due:
            self.plan.home, self.adopted = "adopt", True
            self._note([f'{request.where} is handed over from "{giver}", whose logins are closed and whose roles go'])
            self.givers = frozenset({due[0].owner})
            # What was noted of the giver's logins and guests is void.
            return {**self._entry(), "logins": {}, "granted": {}, "closed_at": None}, due[0].owner
        self.plan.home = "adopt" if self.adopted and found.exists else "ours" if found.exists else "new"
        if self.plan.home == "new":
            self._note([f"{request.where} is made"])
            return {}, self.names.owner
        if self.adopted:
            self._note([f"{request.where} is taken over from an earlier claim, and the sessions of its logins end"])
        return self._entry(), self.names.owner

    def _entry(self) -> dict[str, Any]:
        query = "SELECT to_jsonb(h) FROM memory_ledger.homes h WHERE home = %s"
        return dict(fetch_value(self.connection, query, self.request.home))

    @contextmanager
    def _at_home(self) -> Iterator[Connection | None]:
        """Gives a connection to the home's database, None when that is still to be made."""
        if self.request.provider.isolation != "Database" or self.is_managed:
            yield self.connection
        elif home.find_database(self.connection, self.names) is None:
            yield None
        else:
            with self.admin.connect(self.names.database) as connection:
                yield connection

    def _contents(self, connection: Connection | None, modules: dict[str, list[sqlfile.File]], owner: str) -> None:
        """Holds what is in the home's database against what should be."""
        request, schema = self.request, self.request.dataset.home
        everything = [file.title for files in modules.values() for file in files]
        if connection is None:
            if request.embeddings.enabled:
                self._note(["the extension vector is made in the new database, unless template1 has it"])
            self.plan.migrations = everything
            return
        facts = server.read(connection)
        if request.embeddings.enabled:
            self._extension(connection, facts)
        stands = fetch_value(connection, "SELECT to_regnamespace(%s)", f'"{schema}"') is not None
        if not stands or owner not in self.there | self.givers:
            self.plan.migrations = everything
            return
        with runner.acting_as(connection, owner, schema, facts.vector_schema):
            pending = self._migrations(connection, modules)
            registered = embeddings.registered(connection, request)
        self.plan.migrations = [file.title for file in pending]
        self._note(_registry(request, registered))
        if owner == self.names.owner and self.there >= set(self.names.roles):
            self._note(f"repaired: {each}" for each in self._differences(connection))

    def _extension(self, connection: Connection, facts: Facts) -> None:
        owner = self.names.owner if self.request.provider.isolation == "Database" else ""
        if not facts.vector:
            server.check_creatable(connection, self.admin, facts, owner=owner)
            self._note([f'the extension vector is made in schema "{self.admin.provider.extension_schema}"'])
            return
        server.check_vector(self.admin, facts)
        if not self.is_managed:
            asked = [role if role in self.there else "public" for role in (self.names.owner, self.names.reader)]
            home.check_extension_usable(connection, facts, asked)

    def _migrations(self, connection: Connection, modules: dict[str, list[sqlfile.File]]) -> list[sqlfile.File]:
        """Gives the files that are still to be applied, and looks at the dimension before, as `provision` does."""
        request, schema = self.request, self.request.dataset.home
        applied = runner.history(connection, schema) if runner.has_history(connection, schema) else []
        pending = runner.outstanding(modules, applied)
        stored = embeddings.differing(connection, request) if request.embeddings.enabled else None
        if stored:
            embeddings.check_empty(connection, request, stored)
            wanted = request.embeddings.dimension
            self._note([f"embeddings.dimension {stored.dimension} → {wanted}: there are no embeddings yet"])
        return pending

    def _differences(self, connection: Connection) -> list[str]:
        """Gives what is wrong with the rights in the home and is put right by every run."""
        request, schema = self.request, self.request.dataset.home
        shared = request.provider.isolation == "Dataset"
        found = verify.differences(connection, schema, self.names, shared=shared, managed=self.is_managed)
        if shared:
            found += policies.differences(connection, schema, self.names, request.dataset.name)
        closed = request.provider.isolation == "Database"
        return sorted(each for each in found if not _LEFT.match(each) and (closed or not _PUBLIC.match(each)))

    def _logins(self, entry: dict[str, Any]) -> Iterator[str]:
        """Says which logins would be opened, closed or re-keyed, and given other settings."""
        rows = self.connection.execute(
            "SELECT rolname, rolcanlogin, rolconnlimit, rolconfig FROM pg_roles WHERE rolname = ANY(%s)",
            [list(self.names.logins)],
        ).fetchall()
        found = {row[0]: row[1:] for row in rows}
        noted = entry.get("logins") or {}
        digests = logins.digests(self.request, {})
        for login in self.request.logins:
            can_login, limit, settings = found.get(login.name, (False, -1, None))
            title = f"login {login.name} (slot {login.slot} of the {login.role})"
            if login.state == "closed" or (self.adopted and login.state == "draining"):
                if can_login:
                    yield f"{title} is closed and its sessions end"
            elif login.state == "active" and not can_login:
                yield f"{title} is opened"
            elif login.state == "active":
                if noted and noted.get(login.name) != digests[login.name]:
                    yield f"{title} gets another password and its sessions end"
                # CloudNativePG gives its roles no settings.
                yield from () if self.is_managed else self._settings(title, limit, settings or [])

    def _settings(self, title: str, limit: int, settings: list[str]) -> Iterator[str]:
        provider = self.request.provider
        held = dict(each.split("=", 1) for each in settings).get("statement_timeout")
        yield from _changed(f"{title}: connectionLimit", None if limit == -1 else limit, provider.connection_limit)
        yield from _changed(f"{title}: statementTimeout", held, provider.statement_timeout)

    def _wishes(self, entry: dict[str, Any]) -> Iterator[str]:
        """Says what else of the claim's wishes the ledger would note anew: what reaper and maintenance go by."""
        if not entry:
            return
        if entry.get("closed_at"):
            yield f"the home, whose logins were closed at {entry['closed_at']}, is in use again"
        yield from _changed("deletionPolicy", entry["deletion_policy"], self.request.deletion_policy)
        held, wanted = (entry.get("policy") or {}).get("embeddings") or {}, self.request.embeddings
        if held.get("enabled") and wanted.enabled:
            yield from _changed("embeddings.index.type", held["index"]["type"], wanted.index.type)
            yield from _changed("embeddings.index.minRows", held["index"]["minRows"], wanted.index.min_rows)


def _registry(request: ProvisionRequest, held: dict[str, Any]) -> Iterator[str]:
    """Says what would change in the dataset's row of the registry, nothing where it has none yet."""
    if held:
        yield from _changed("retention.ttlDays", held["ttl_days"], request.retention.ttl_days)
        yield from _changed("legalHold", held["legal_hold"], request.legal_hold)


def _changed(what: str, before: object, after: object) -> Iterator[str]:
    if before != after:
        yield f"{what} {_shown(before)} → {_shown(after)}"


def _shown(value: object) -> str:
    """Gives a value as a manifest has it."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
