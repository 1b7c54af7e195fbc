"""What is looked after: places, each a schema with one home, or with those of all Memories that share it.

Tables, indexes and partitions are a schema's, holds and retention a dataset's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from psycopg import sql

from migrations.deadline import Deadline
from migrations.postgres.connection import Admin, Connection, fetch_value
from migrations.postgres.names import Isolation, Names, names_for
from migrations.postgres.request import MaintainRequest
from migrations.request import Access, Embeddings, ReportTarget


@dataclass(frozen=True)
class Home:
    """One Memory's home, and what its claim wants, as its last complete Job noted it.

    Attributes:
        key: Its key in the ledger.
        names: Its roles; with isolation Dataset the owner is that of the shared schema.
        ttl_days: Days that its rows are kept, 0 for ever.
        legal_hold: Whether nothing of it may be deleted.
    """

    key: str
    identity: str
    dataset: str
    names: Names
    search_config: str
    ttl_days: int
    legal_hold: bool
    embeddings: Embeddings
    modules: tuple[str, ...]
    access: Access
    report: ReportTarget


@dataclass(frozen=True)
class Place:
    """A schema with the homes in it, at least one; all agree on everything but dataset, retention and hold.

    Attributes:
        database: Where the schema is.
    """

    isolation: Isolation
    database: str
    schema: str
    homes: tuple[Home, ...]

    @property
    def owner(self) -> str:
        """The role that everything in the schema belongs to."""
        return self.homes[0].names.owner

    @property
    def embeddings(self) -> Embeddings:
        """What the vectors look like."""
        return self.homes[0].embeddings

    @property
    def title(self) -> str:
        """The place as a person finds it, and what its lock is named after."""
        return f"{self.database}/{self.schema}"


@dataclass(frozen=True)
class Work:
    """A place that is being worked on.

    Attributes:
        connection: To the place's database, in autocommit, as the admin.
        admin: Who that is, for steps that need a connection of their own.
        request: What the provider says about maintenance.
    """

    connection: Connection
    admin: Admin
    place: Place
    request: MaintainRequest
    deadline: Deadline

    @contextmanager
    def as_owner(self) -> Iterator[Connection]:
        """Makes the session the owner's for a while. Names resolve in pg_catalog alone: qualify all others."""
        self.connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(self.place.owner)))
        try:
            yield self.connection
        finally:
            if not self.connection.broken:
                self.connection.execute("RESET ROLE")

    def table(self, name: str) -> sql.Identifier:
        """Names a table of the place's schema."""
        return sql.Identifier(self.place.schema, name)

    def has(self, table: str) -> bool:
        """Whether the schema has such a table."""
        return bool(fetch_value(self.connection, "SELECT to_regclass(%s)", self.table(table).as_string()))

    @property
    def extension_schema(self) -> str:
        """The schema that pgvector is in, "" without it."""
        query = "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = %s"
        return fetch_value(self.connection, query, "vector") or ""


def read(connection: Connection, request: MaintainRequest) -> list[Place]:
    """Reads the places of this very provider from the ledger; a tenant's has homes of its own namespace only.

    Left out are homes whose Memory is gone, those whose first Job has not come to its end (it notes the logins then),
    and those that no Job of a version with maintenance has been at.
    """
    rows = connection.execute(
        """
        SELECT isolation, database, coalesce(nullif(schema, ''), home), home, identity, dataset, search_config,
               ttl_days, legal_hold, policy
        FROM memory_ledger.homes
        WHERE provider_uid = %(provider)s AND closed_at IS NULL AND policy <> '{}' AND logins <> '{}'
          AND (NOT %(tenant)s OR starts_with(identity, %(prefix)s))
        ORDER BY isolation, database, 3, home
        """,
        {
            "provider": request.provider.uid,
            "tenant": request.claim is not None,
            "prefix": f"{request.claim.namespace}/" if request.claim else "",
        },
    ).fetchall()
    places = []
    for (isolation, database, schema), found in groupby(rows, key=lambda row: row[:3]):
        homes = tuple(_home(row[3:], request.provider.database, schema, isolation) for row in found)
        places.append(Place(isolation, database, schema, homes))
    return places


def _home(row: tuple[Any, ...], database: str, schema: str, isolation: Isolation) -> Home:
    key, identity, dataset, search_config, ttl_days, legal_hold, policy = row
    return Home(
        key=key,
        identity=identity,
        dataset=dataset,
        names=names_for(identity, database, schema, isolation),
        search_config=search_config,
        ttl_days=ttl_days,
        legal_hold=legal_hold,
        embeddings=Embeddings.model_validate(policy["embeddings"]),
        modules=tuple(policy["modules"]),
        access=Access.model_validate(policy["access"]),
        report=ReportTarget.model_validate(policy["report"]),
    )
