"""`provision` on PostgreSQL: the order of the steps. Each is idempotent, and a killed run is resumed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import psycopg
from psycopg import sql

from migrations import log
from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.postgres import (
    access,
    embeddings,
    grants,
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
from migrations.postgres.connection import (
    Admin,
    Connection,
    ConnectionLostError,
    explained,
    home_lock,
    retrying,
    retrying_alone,
)
from migrations.postgres.maintenance import partitions
from migrations.postgres.names import Isolation, Names, lock_name, names_of
from migrations.postgres.request import ProvisionRequest
from migrations.postgres.server import Facts
from migrations.postgres.values import Values

T = TypeVar("T")


@dataclass(frozen=True)
class Done:
    """What a successful run reports."""

    server: dict[str, object]
    modules: list[dict[str, str]]
    warnings: list[str]
    verify: list[str]


def load_admin(request: ProvisionRequest, directory: Path) -> Admin:
    """Gives the login that works on a request's home: the provider's admin, or under CNPG the Memory's own.

    Raises:
        CommandError: BAD_REQUEST when a file is missing, or the request cannot be right.
    """
    if request.provider.role_management == "SQL":
        return Admin.load(request.provider, directory)
    return Admin.load(request.provider, directory, request.database, names_of(request).owner)


def provision(request: ProvisionRequest, admin: Admin, deadline: Deadline, folder: Path = sqlfile.FOLDER) -> Done:
    """Makes the database hold what the request says, as soon as the server is there.

    Raises:
        CommandError: With the reason.
    """
    names = names_of(request)
    wanted = wanted_modules(request, folder)
    attempt = 0
    while True:
        connection = admin.wait(deadline)
        try:
            with connection:
                return _Run(request, admin, names, wanted, deadline, connection).go()
        except ConnectionLostError as error:
            lost = str(error)
        if deadline.passed:
            msg = f"the connection to {admin.server} broke and the deadline is near: {lost}"
            raise CommandError(Code.UNREACHABLE, msg)
        log.write("the connection broke, beginning again", why=lost)
        deadline.pause(attempt)
        attempt += 1


def wanted_modules(request: ProvisionRequest, folder: Path = sqlfile.FOLDER) -> dict[str, list[sqlfile.File]]:
    """Reads the files of the modules that the request wants, core first.

    Raises:
        CommandError: MODULE_UNSUPPORTED when this image, or the provider, has not all of them.
    """
    known = sqlfile.modules(folder)
    missing = [module for module in request.modules if module not in known]
    if missing:
        msg = f'modules: "{missing[0]}" is not in this migrations image, which has {", ".join(known)}: leave it out'
        raise CommandError(Code.MODULE_UNSUPPORTED, msg)
    if request.embeddings.enabled and not request.provider.enable_pg_vector:
        msg = (
            f'embeddings.enabled: provider "{request.provider.name}" has no pgvector (postgres.enablePgVector is '
            "false): set embeddings.enabled to false, or choose another provider"
        )
        raise CommandError(Code.MODULE_UNSUPPORTED, msg)
    names = ["core", *(["embeddings"] if request.embeddings.enabled else [])]
    names += [module for module in request.modules if module not in names]
    return {name: sqlfile.read(name, folder) for name in names}


@dataclass
class _Run:
    """One attempt on one connection."""

    request: ProvisionRequest
    admin: Admin
    names: Names
    modules: dict[str, list[sqlfile.File]]
    deadline: Deadline
    connection: Connection
    # To the database that the home is in: with isolation Database another one than the provider's.
    home: Connection | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def schema(self) -> str:
        return self.request.dataset.home

    @property
    def isolation(self) -> Isolation:
        return self.request.provider.isolation

    @property
    def is_managed(self) -> bool:
        """Whether CloudNativePG has made roles and database, and the session is the owner role's."""
        return self.request.provider.role_management == "CNPG"

    def go(self) -> Done:
        """Takes the steps.

        Raises:
            CommandError: One of them cannot be taken.
            ConnectionLostError: The connection broke.
        """
        try:
            return self._steps()
        except psycopg.Error as error:  # between the steps, where nothing is tried again
            lost = self.home if self.home and self.home.broken else self.connection
            raise explained(lost, error) from None

    def _steps(self) -> Done:
        if self.is_managed:
            return self._managed_steps()
        connection, request, names = self.connection, self.request, self.names
        connection.add_notice_handler(self._note_warning)
        log.step("lock")
        with home_lock(connection, lock_name(self.isolation, request.home, self.schema), self.deadline):
            facts = server.read(connection)
            server.check_admin(self.admin, facts)
            self._take_over()
            claimed = self._step("ledger", self._claim)
            self._step("roles", lambda: roles.ensure(connection, names))
            with self._at_home() as at_home:
                done = self._home_steps(at_home, facts, claimed)
            digests = logins.digests(request, claimed.logins)
            self._step("seal", lambda: ledger.seal(connection, request, digests))
        return done

    def _managed_steps(self) -> Done:
        connection, request = self.connection, self.request
        connection.add_notice_handler(self._note_warning)
        log.step("lock")
        with home_lock(connection, request.home, self.deadline):
            managed.check(connection, self.names)
            self.names = managed.present(connection, self.names)
            claimed = self._step("ledger", self._claim)
            self._step("stamp", lambda: managed.stamp(connection, self.names))
            done = self._home_steps(connection, server.read(connection), claimed)
            digests = logins.digests(request, claimed.logins)
            self._step("seal", lambda: ledger.seal(connection, request, digests))
        return done

    @contextmanager
    def _at_home(self) -> Iterator[Connection]:
        """Gives the connection to the home's database, which is made when the Memory has one of its own."""
        if self.isolation != "Database":
            yield self.connection
            return
        log.step("database")
        retrying_alone(self.connection, self.deadline, lambda: home.ensure_database(self.connection, self.names))
        with self.admin.wait(self.deadline, self.names.database) as self.home:
            self.home.add_notice_handler(self._note_warning)
            # A run that lost the provider's database may still be at work in this one.
            with home_lock(self.home, self.request.home, self.deadline):
                yield self.home

    def _home_steps(self, connection: Connection, facts: Facts, claimed: ledger.Claimed) -> Done:
        """Takes the steps that need nothing but the home's database and the roles, which are the server's."""
        request, names, own_database = self.request, self.names, self.isolation == "Database"
        if own_database:
            facts = server.read(connection)
            self._step("closed", lambda: grants.repair_database(connection, names), connection)
        work = partial(home.ensure, connection, self.schema, names, by_owner=own_database)
        self._step("home", work, connection)
        if request.embeddings.enabled:
            facts = self._extension(connection, facts)
        log.step("migrations")
        with runner.acting_as(connection, names.owner, self.schema, facts.vector_schema):
            versions = self._migrate(connection, facts)
            self._step("registry", lambda: embeddings.register(connection, request), connection)
            log.step("partitions")
            partitions.ensure(connection, self.schema, self.deadline)
            shared = self.isolation == "Dataset"
            if shared:
                self._guard(connection)
            self._step("grants", lambda: grants.repair(connection, self.schema, names, shared=shared), connection)
        self._admit(connection, facts, claimed)
        return Done(
            server=facts.described(),
            modules=versions,
            warnings=[*server.warnings(facts), *self.warnings],
            verify=self._step("verify", lambda: self._verify(connection), connection),
        )

    def _admit(self, connection: Connection, facts: Facts, claimed: ledger.Claimed) -> None:
        """Takes the steps that decide who comes in, and how."""
        request, names, adopted, noted = self.request, self.names, claimed.adopted, claimed.logins
        if self.is_managed:
            self._step("access", lambda: access.grant(connection, request, names, facts.vector_schema))
            self._step("settings", lambda: managed.furnish(connection, request, names, facts))
            self._step("sessions", lambda: managed.end_sessions(connection, request, noted, adopted=adopted))
            return
        self._step("access", lambda: access.repair(self.connection, request, names))
        self._step("logins", lambda: logins.apply(connection, request, facts, adopted=adopted), connection)
        self._step("sessions", lambda: logins.end_sessions(connection, request, noted, adopted=adopted), connection)

    def _guard(self, connection: Connection) -> None:
        """Puts the policies on, a table at a time: nobody's statements wait for more than one of them."""
        log.step("policies")
        for repair in policies.repairs(connection, self.schema, self.names, self.request.dataset.name):
            retrying(connection, self.deadline, partial(connection.execute, repair))

    def _verify(self, connection: Connection) -> list[str]:
        names, shared = self.names, self.isolation == "Dataset"
        found = verify.differences(connection, self.schema, names, shared=shared, managed=self.is_managed)
        if shared:
            found += policies.differences(connection, self.schema, names, self.request.dataset.name)
        return sorted(found)

    def _step(self, name: str, work: Callable[[], T], connection: Connection | None = None) -> T:
        log.step(name)
        return retrying(connection or self.connection, self.deadline, work)

    def _take_over(self) -> None:
        """Takes what the platform team hands over to this Memory, which has not been anybody's but the giver's."""
        if self.request.adoption.giver:
            log.step("hand-over")
            self._check_roles()
            handover.take(self.connection, self.admin, self.request, self.names, self.deadline)

    def _check_roles(self) -> None:
        # Before anything is entered: a Memory whose names are taken must not keep the schema from others.
        if not self.is_managed:
            roles.existing(self.connection, self.names)
        access.check(self.connection, self.request.access)

    def _claim(self) -> ledger.Claimed:
        self._check_roles()
        return ledger.claim(self.connection, self.request, self.names)

    def _note_warning(self, notice: psycopg.errors.Diagnostic) -> None:
        # client_min_messages lets nothing less than warnings through.
        self.warnings.append(notice.message_primary or "")

    def _extension(self, connection: Connection, facts: Facts) -> Facts:
        log.step("extension")
        if not facts.vector:
            owner = self.names.owner if self.isolation == "Database" else ""
            create = partial(server.create_vector, connection, self.admin, owner=owner)
            facts = retrying(connection, self.deadline, create)
        server.check_vector(self.admin, facts)
        if self.is_managed:
            self._step("opened", lambda: managed.open_extension(connection, self.names, facts))
        home.check_extension_usable(connection, facts, (self.names.owner, self.names.reader))
        return facts

    def _migrate(self, connection: Connection, facts: Facts) -> list[dict[str, str]]:
        """Brings every module up to date; nothing is applied when one of them cannot be."""
        applied = retrying(connection, self.deadline, lambda: runner.history(connection, self.schema))
        pending = runner.outstanding(self.modules, applied)
        if self.request.embeddings.enabled:
            adjust = partial(embeddings.adjust, connection, self.request, facts.vector_schema)
            self._step("dimension", adjust, connection)
        runner.apply(connection, self.schema, pending, self._values(facts), self.deadline)
        return [{"name": name, "version": files[-1].version} for name, files in self.modules.items() if files]

    def _values(self, facts: Facts) -> dict[str, sql.Composable]:
        request = self.request
        return Values(
            schema=self.schema,
            dataset=request.dataset.name,
            search_config=request.dataset.search_config,
            names=self.names,
            ttl_days=request.retention.ttl_days,
            legal_hold=request.legal_hold,
            embeddings=request.embeddings if request.embeddings.enabled else None,
            extension_schema=facts.vector_schema,
        ).placeholders()
