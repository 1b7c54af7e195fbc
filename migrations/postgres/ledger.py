"""The ledger of homes: whose schema is whose. It decides conflict and adoption (api.md, Homes and adoption).

It stands in schema `memory_ledger` of the database that it describes, so that it is restored together with the homes,
and only the admin may read it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from migrations.errors import Code, CommandError
from migrations.postgres.connection import Connection
from migrations.postgres.names import Names
from migrations.request import ProvisionRequest

_MAKE = """
CREATE SCHEMA memory_ledger;
CREATE TABLE memory_ledger.homes (
    home text PRIMARY KEY,
    identity text NOT NULL UNIQUE,
    xr_uid text NOT NULL,
    provider text NOT NULL,
    provider_uid text NOT NULL,
    dataset text NOT NULL,
    search_config text NOT NULL,
    dimension integer,
    deletion_policy text NOT NULL,
    legal_hold boolean NOT NULL,
    ttl_days integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_seen timestamptz NOT NULL DEFAULT now()
);
"""

# What came after the first release of the ledger; a ledger of any age gets what it lacks.
# - isolation, database, schema: where the home is; its key alone does not say
# - logins: login to a digest of the verifier that it was given last: who is re-keyed loses its sessions
# - granted: {"reader": role, "writer": role}, the roles of others that we made members of its groups
# - gone_since: when the reaper first missed the composite, closed_at: when it closed the logins
_ADDED = {
    "isolation": "text NOT NULL DEFAULT 'Schema'",
    "database": "text NOT NULL DEFAULT current_database()",
    "schema": "text NOT NULL DEFAULT ''",
    "logins": "jsonb NOT NULL DEFAULT '{}'",
    "granted": "jsonb NOT NULL DEFAULT '{}'",
    "gone_since": "timestamptz",
    "closed_at": "timestamptz",
}


@dataclass(frozen=True)
class Entry:
    """One home as the ledger knows it."""

    home: str
    identity: str
    xr_uid: str
    dataset: str
    search_config: str
    logins: Mapping[str, str]


@dataclass(frozen=True)
class Found:
    """What stands in the database before anything is done."""

    by_home: Entry | None
    by_identity: Entry | None
    schema_exists: bool
    stamp: str
    search_config_exists: bool


@dataclass(frozen=True)
class Claimed:
    """How a home became ours.

    Attributes:
        adopted: Whether it was an earlier claim's, whose sessions are ended.
        logins: Login to a digest of the verifier that it was given last; empty when nobody noted any.
    """

    adopted: bool
    logins: Mapping[str, str]


def claim(connection: Connection, request: ProvisionRequest, names: Names) -> Claimed:
    """Makes sure that the home may be ours, and enters it when nobody has it.

    The entry of an adopted home changes hands in `seal`, at the end: a run that is killed in between adopts again, with
    all that follows from it.

    Raises:
        CommandError: SCHEMA_CONFLICT, ADOPTION_REQUIRED or BAD_REQUEST; nothing is changed then.
    """
    if not _exists(connection):
        connection.execute(_MAKE)
    _extend(connection)
    found = _find(connection, request)
    adopted = judge(found, request, names)
    if not found.schema_exists:
        _enter(connection, request)
    return Claimed(adopted, found.by_home.logins if found.by_home else {})


def judge(found: Found, request: ProvisionRequest, names: Names) -> bool:
    """Decides who the home belongs to.

    Returns:
        Whether it is taken over from an earlier claim of the same identity.

    Raises:
        CommandError: It cannot be ours; the sentence says what the claim's author can do.
    """
    home = request.dataset.home
    entry = found.by_home
    if entry and entry.identity != request.identity:
        msg = (
            f'dataset.schema "{home}" is the home of another Memory: choose another schema '
            "(adopt does not help; the platform team can hand a home over)"
        )
        raise CommandError(Code.SCHEMA_CONFLICT, msg)
    if found.by_identity and found.by_identity.home != home:
        old = found.by_identity.home
        msg = (
            f'"{request.identity}" already has its home in schema "{old}", not "{home}": set dataset.schema: {old} '
            "with adopt: true, or give the claim another name"
        )
        raise CommandError(Code.SCHEMA_CONFLICT, msg)
    if not found.search_config_exists:
        msg = (
            f'searchConfig "{request.dataset.search_config}" is no text search configuration of database '
            f'"{request.provider.database}": choose simple, english, or another of pg_ts_config'
        )
        raise CommandError(Code.BAD_REQUEST, msg)
    if not found.schema_exists:
        return entry is not None and entry.xr_uid != request.uid
    if entry is None or found.stamp != names.stamp:
        msg = (
            f'schema "{home}" exists in database "{request.provider.database}" and was not made for this Memory: '
            "choose another dataset.schema, or rename the existing one"
        )
        raise CommandError(Code.SCHEMA_CONFLICT, msg)
    _judge_contents(entry, request)
    return _judge_claim(entry, request)


def _judge_contents(entry: Entry, request: ProvisionRequest) -> None:
    for what, held, wanted in (
        ("dataset.name", entry.dataset, request.dataset.name),
        ("searchConfig", entry.search_config, request.dataset.search_config),
    ):
        if held != wanted:
            msg = (
                f'the home in schema "{entry.home}" was made with {what} "{held}", not "{wanted}", and that is fixed: '
                f"set {what}: {held}, or choose another dataset.schema"
            )
            raise CommandError(Code.SCHEMA_CONFLICT, msg)


def _judge_claim(entry: Entry, request: ProvisionRequest) -> bool:
    if entry.xr_uid == request.uid:
        return False
    adoption = request.adoption
    if adoption.policy == "Forbid":
        msg = (
            f'schema "{entry.home}" holds the data of an earlier claim "{request.identity}", and provider '
            f'"{request.provider.name}" forbids adoption: choose another dataset.schema, or ask the platform team'
        )
        raise CommandError(Code.ADOPTION_REQUIRED, msg)
    if adoption.policy == "Require" and not adoption.adopt:
        msg = (
            f'schema "{entry.home}" holds the data of an earlier claim "{request.identity}": '
            "set adopt: true to take it over, or choose another dataset.schema"
        )
        raise CommandError(Code.ADOPTION_REQUIRED, msg)
    return True


def _exists(connection: Connection) -> bool:
    query = """
        SELECT has_schema_privilege(n.oid, 'USAGE') FROM pg_namespace n WHERE n.nspname = 'memory_ledger'
    """
    row = connection.execute(query).fetchone()
    if row is not None and not row[0]:
        msg = (
            "schema memory_ledger belongs to another admin: use the login that made the homes of this database "
            "(roles belong to the admin that made them), or hand it over with REASSIGN OWNED"
        )
        raise CommandError(Code.PERMISSION_DENIED, msg)
    return row is not None


def _extend(connection: Connection) -> None:
    """Adds the columns that an earlier version did not have; asking first takes no lock."""
    rows = connection.execute(
        """
        SELECT attname FROM pg_attribute
        WHERE attrelid = 'memory_ledger.homes'::regclass AND attnum > 0 AND NOT attisdropped
        """
    ).fetchall()
    missing = [name for name in _ADDED if (name,) not in rows]
    if missing:
        additions = ", ".join(f"ADD COLUMN IF NOT EXISTS {name} {_ADDED[name]}" for name in missing)
        connection.execute(sql.SQL("ALTER TABLE memory_ledger.homes ") + sql.SQL(additions))


def _find(connection: Connection, request: ProvisionRequest) -> Found:
    entries = connection.execute(
        """
        SELECT home, identity, xr_uid, dataset, search_config, logins FROM memory_ledger.homes
        WHERE home = %s OR identity = %s
        """,
        [request.dataset.home, request.identity],
    ).fetchall()
    known = [Entry(*row) for row in entries]
    row = connection.execute(
        """
        SELECT n.oid IS NOT NULL, coalesce(obj_description(n.oid, 'pg_namespace'), ''),
               EXISTS (SELECT FROM pg_ts_config c JOIN pg_namespace cn ON cn.oid = c.cfgnamespace
                       WHERE %(config)s::text IN (cn.nspname || '.' || c.cfgname,
                                            CASE cn.nspname WHEN 'pg_catalog' THEN c.cfgname END))
        FROM (SELECT) one LEFT JOIN pg_namespace n ON n.nspname = %(home)s::text
        """,
        {"home": request.dataset.home, "config": request.dataset.search_config},
    ).fetchone()
    exists, stamp, config = row or (False, "", False)
    return Found(
        by_home=next((entry for entry in known if entry.home == request.dataset.home), None),
        by_identity=next((entry for entry in known if entry.identity == request.identity), None),
        schema_exists=exists,
        stamp=stamp,
        search_config_exists=config,
    )


def _enter(connection: Connection, request: ProvisionRequest) -> None:
    """Enters a home that has no schema yet.

    An entry whose schema was never made, or is gone, keeps its claim until `seal`; its contents are void.
    """
    statement = sql.SQL(
        """
        INSERT INTO memory_ledger.homes ({columns}) VALUES ({values}) ON CONFLICT (home)
        DO UPDATE SET dataset = excluded.dataset, search_config = excluded.search_config
        """
    )
    _write(connection, request, statement)


def seal(connection: Connection, request: ProvisionRequest, logins: Mapping[str, str]) -> None:
    """Notes, when all is done, whose the home is now, what the claim says of it, and the digests of its logins."""
    statement = sql.SQL(
        "UPDATE memory_ledger.homes SET ({columns}, logins, last_seen) = ROW({values}, {logins}, now())"
        " WHERE home = {home}"
    )
    _write(connection, request, statement, logins=sql.Literal(json.dumps(logins)))


def _write(connection: Connection, request: ProvisionRequest, statement: sql.SQL, **more: sql.Composable) -> None:
    values = {
        "home": request.dataset.home,
        "identity": request.identity,
        "xr_uid": request.uid,
        "provider": request.provider.name,
        "provider_uid": request.provider.uid,
        "dataset": request.dataset.name,
        "search_config": request.dataset.search_config,
        "dimension": request.embeddings.dimension if request.embeddings.enabled else None,
        "deletion_policy": request.deletion_policy,
        "legal_hold": request.legal_hold,
        "ttl_days": request.retention.ttl_days,
        "isolation": request.provider.isolation,
        "database": request.database,
        "schema": request.dataset.home,
    }
    columns = sql.SQL(", ").join(map(sql.Identifier, values))
    literals = sql.SQL(", ").join(map(sql.Literal, values.values()))
    home = sql.Literal(request.dataset.home)
    connection.execute(statement.format(columns=columns, values=literals, home=home, **more))
