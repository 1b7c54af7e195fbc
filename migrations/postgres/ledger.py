"""The ledger of homes: whose home is whose. It decides conflict and adoption (api.md, Homes and adoption).

It stands in schema `memory_ledger` of the provider's database, and only the admin may read it. With isolation Schema
and Dataset that is the database which it describes, so that it is restored together with the homes; with isolation
Database the homes are elsewhere, and the ledger is the one place where all of them are seen.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from migrations.errors import Code, CommandError
from migrations.postgres import embeddings
from migrations.postgres.connection import Connection, fetch_value
from migrations.postgres.home import database_conflict, find_database
from migrations.postgres.names import Names
from migrations.postgres.request import ProvisionRequest

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

HOMES = sql.SQL("memory_ledger.homes")

# What came after the first release of the ledger; a ledger of any age gets what it lacks.
# - isolation, database, schema: where the home is; its key alone does not say
# - settings: what all Memories of a shared schema have in common (`_settings`)
# - logins: login to a digest of the verifier that it was given last: who is re-keyed loses its sessions
# - granted: {"reader": role, "writer": role}, the roles of others that we made members of its groups
# - composite: the composite's name
# - policy: what maintenance is to hold the home to (`_policy`); empty until the first run that knew of it
# - gone_since: when the reaper first missed the composite, closed_at: when it closed the logins, closed_logins: which
_ADDED = {
    "isolation": "text NOT NULL DEFAULT 'Schema'",
    "database": "text NOT NULL DEFAULT current_database()",
    "schema": "text NOT NULL DEFAULT ''",
    "settings": "jsonb NOT NULL DEFAULT '{}'",
    "logins": "jsonb NOT NULL DEFAULT '{}'",
    "granted": "jsonb NOT NULL DEFAULT '{}'",
    "composite": "text NOT NULL DEFAULT ''",
    "policy": "jsonb NOT NULL DEFAULT '{}'",
    "gone_since": "timestamptz",
    "closed_at": "timestamptz",
    "closed_logins": "text[] NOT NULL DEFAULT '{}'",
}


@dataclass(frozen=True)
class Entry:
    """One home as the ledger knows it; `schema` and `isolation` say where it is."""

    home: str
    identity: str
    xr_uid: str
    dataset: str
    search_config: str
    logins: Mapping[str, str]
    isolation: str
    schema: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The home as a person finds it, with what sets its kind apart."""
        return {
            "Schema": f'schema "{self.schema}" (isolation Schema)',
            "Database": f"{self.home.replace(':', ' ', 1)} (isolation Database)",
            "Dataset": f'dataset "{self.dataset}" of the shared schema "{self.schema}" (isolation Dataset)',
        }[self.isolation]


@dataclass(frozen=True)
class Found:
    """What stands on the server before anything is done.

    Attributes:
        by_home: The home's entry.
        by_identity: The identity's entry.
        others: Entries of other homes in a schema of the same name in the provider's database.
        exists: Whether the home is there: its schema, its database, or its row of the shared schema's registry.
        stamped: Whether what is there, the schema or the database, was made for this Memory or its shared schema.
        search_config_exists: Whether the server has the text search configuration.
    """

    by_home: Entry | None
    by_identity: Entry | None
    others: tuple[Entry, ...]
    exists: bool
    stamped: bool
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
    if not exists(connection):
        connection.execute(_MAKE)
    extend(connection)
    found = find(connection, request, names)
    adopted = judge(found, request, names)
    if not found.exists:
        _enter(connection, request)
    return Claimed(adopted, found.by_home.logins if found.by_home else {})


def judge(found: Found, request: ProvisionRequest, names: Names) -> bool:
    """Decides who the home belongs to.

    Returns:
        Whether it is taken over from an earlier claim of the same identity.

    Raises:
        CommandError: It cannot be ours; the sentence says what the claim's author can do.
    """
    entry = found.by_home
    _judge_place(found, request)
    if not found.search_config_exists:
        msg = (
            f'searchConfig "{request.dataset.search_config}" is no text search configuration of database '
            f'"{request.provider.database}": choose simple, english, or another of pg_ts_config'
        )
        raise CommandError(Code.BAD_REQUEST, msg)
    if found.exists and (entry is None or not found.stamped):
        raise _not_ours(request, names)
    if request.provider.isolation == "Dataset":
        _judge_shared(found.others, request)
    if entry is None or not found.exists:
        return entry is not None and entry.xr_uid != request.uid
    _judge_contents(entry, request)
    return _judge_claim(entry, request)


def _judge_place(found: Found, request: ProvisionRequest) -> None:
    """Holds the place that is asked for against the homes that others have, and that the identity has."""
    home, schema, isolation = request.home, request.dataset.home, request.provider.isolation
    if found.by_home and found.by_home.identity != request.identity:
        what, other = {"Dataset": ("dataset.name", "name")}.get(isolation, ("dataset.schema", "schema"))
        value = request.dataset.name if isolation == "Dataset" else schema
        inside = f' in the shared schema "{schema}"' if isolation == "Dataset" else ""
        msg = (
            f'{what} "{value}"{inside} is the home of another Memory: choose another {other} '
            "(adopt does not help; the platform team can hand a home over)"
        )
        raise CommandError(Code.SCHEMA_CONFLICT, msg)
    if found.by_identity and found.by_identity.home != home:
        raise _elsewhere(found.by_identity, request)
    other_kind = next((entry for entry in found.others if entry.isolation != isolation), None)
    if other_kind:
        msg = (
            f'dataset.schema "{schema}" is in use with isolation {other_kind.isolation}, and provider '
            f'"{request.provider.name}" has isolation {isolation}: choose another schema'
        )
        raise CommandError(Code.SCHEMA_CONFLICT, msg)


def _elsewhere(old: Entry, request: ProvisionRequest) -> CommandError:
    """Says that the identity has its home in another place, or in another kind of place."""
    isolation = request.provider.isolation
    if old.isolation == isolation == "Schema":
        msg = (
            f'"{request.identity}" already has its home in schema "{old.home}", not "{request.home}": set '
            f"dataset.schema: {old.home} with adopt: true, or give the claim another name"
        )
    else:
        msg = (
            f'"{request.identity}" already has its home in {old.where}, not in {request.where} (isolation '
            f"{isolation}): put provider and dataset back, with adopt: true for a claim that was made again, or give "
            "the claim another name"
        )
    return CommandError(Code.SCHEMA_CONFLICT, msg)


def _not_ours(request: ProvisionRequest, names: Names) -> CommandError:
    """Says that something without our stamp, or without an entry, stands where the home should be."""
    schema, database = request.dataset.home, request.provider.database
    if request.provider.isolation == "Database":
        return database_conflict(names)
    msg = (
        f'schema "{schema}" exists in database "{database}" and was not made for this Memory: '
        "choose another dataset.schema, or rename the existing one"
    )
    if request.provider.isolation == "Dataset":
        msg = (
            f'schema "{schema}" in database "{database}", or its dataset "{request.dataset.name}", was not made for '
            f'Memories of provider "{request.provider.name}": choose another dataset.name, or ask the platform team '
            "for another postgres.schema"
        )
    return CommandError(Code.SCHEMA_CONFLICT, msg)


def _settings(request: ProvisionRequest) -> dict[str, Any]:
    """Gives what all Memories of a shared schema must agree on, as the ledger keeps it."""
    wanted = request.embeddings
    modules = sorted({*request.modules, "core", *(["embeddings"] if wanted.enabled else [])})
    vectors = {
        "embeddings.dimension": wanted.dimension,
        "embeddings.metric": wanted.metric,
        "embeddings.storage": embeddings.storage_of(wanted),
    }
    return {
        "modules": ", ".join(modules),
        "searchConfig": request.dataset.search_config,
        **(vectors if wanted.enabled else {}),
    }


def _policy(request: ProvisionRequest) -> dict[str, Any]:
    """Gives what maintenance needs of a request, as `maintenance.places` reads it."""
    return {
        "embeddings": request.embeddings.model_dump(by_alias=True),
        "modules": request.modules,
        "access": request.access.model_dump(by_alias=True),
        "report": request.report.model_dump(by_alias=True),
    }


def _judge_shared(others: tuple[Entry, ...], request: ProvisionRequest) -> None:
    """Holds the request against the Memories that are in the shared schema: tables and functions are one for all."""
    wanted = _settings(request)
    held = next((entry.settings for entry in others if entry.settings), wanted)
    differing = next((what for what in wanted if held.get(what) != wanted[what]), None)
    if differing is None:
        return
    code = Code.DIMENSION_CONFLICT if differing.startswith("embeddings.") else Code.SCHEMA_CONFLICT
    where = f'the shared schema "{request.dataset.home}"'
    if differing == "modules":
        hint = "set embeddings.enabled and modules as the others have them"
    else:
        hint = f"set {differing}: {held[differing]}"
    msg = (
        f'{differing} "{wanted[differing]}" differs from "{held[differing]}", which all Memories of {where} have: '
        f"{hint}, or choose another provider; nothing was changed"
    )
    raise CommandError(code, msg)


def judge_handover(found: Found, request: ProvisionRequest, theirs: Names) -> None:
    """Decides whether a home that is another identity's can be handed over to this one.

    Raises:
        CommandError: SCHEMA_CONFLICT.
    """
    if found.by_identity:
        raise _elsewhere(found.by_identity, request)
    if found.by_home and found.exists:
        if not found.stamped:
            raise _not_ours(request, theirs)
        _judge_contents(found.by_home, request)


def hand_over(connection: Connection, request: ProvisionRequest) -> None:
    """Makes an entry the requesting Memory's; what was noted of the earlier one's logins is void."""
    connection.execute(
        """
        UPDATE memory_ledger.homes
        SET identity = %s, xr_uid = %s, composite = %s, logins = '{}', granted = '{}', gone_since = NULL,
            closed_at = NULL, closed_logins = '{}'
        WHERE home = %s
        """,
        [request.identity, request.uid, request.composite, request.home],
    )


def _judge_contents(entry: Entry, request: ProvisionRequest) -> None:
    for what, held, wanted in (
        ("dataset.schema", entry.schema, request.dataset.home),
        ("dataset.name", entry.dataset, request.dataset.name),
        ("searchConfig", entry.search_config, request.dataset.search_config),
    ):
        if held != wanted:
            msg = (
                f'the home in {request.where} was made with {what} "{held}", not "{wanted}", and that is fixed: '
                f"set {what}: {held}, or choose another dataset.schema"
            )
            raise CommandError(Code.SCHEMA_CONFLICT, msg)


def _judge_claim(entry: Entry, request: ProvisionRequest) -> bool:
    if entry.xr_uid == request.uid:
        return False
    adoption = request.adoption
    if adoption.policy == "Forbid":
        msg = (
            f'{request.where} holds the data of an earlier claim "{request.identity}", and provider '
            f'"{request.provider.name}" forbids adoption: choose another dataset.schema, or ask the platform team'
        )
        raise CommandError(Code.ADOPTION_REQUIRED, msg)
    if adoption.policy == "Require" and not adoption.adopt:
        msg = (
            f'{request.where} holds the data of an earlier claim "{request.identity}": '
            "set adopt: true to take it over, or choose another dataset.schema"
        )
        raise CommandError(Code.ADOPTION_REQUIRED, msg)
    return True


def exists(connection: Connection) -> bool:
    """Whether this database has a ledger.

    Raises:
        CommandError: PERMISSION_DENIED when it has another admin's.
    """
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


def extend(connection: Connection) -> None:
    """Adds the columns that an earlier version did not have; asking first takes no lock."""
    missing = lacking(connection)
    if missing:
        additions = ", ".join(f"ADD COLUMN IF NOT EXISTS {name} {_ADDED[name]}" for name in missing)
        connection.execute(sql.SQL("ALTER TABLE memory_ledger.homes ") + sql.SQL(additions))


def lacking(connection: Connection) -> list[str]:
    """Gives the columns that an earlier version did not have."""
    rows = connection.execute(
        """
        SELECT attname FROM pg_attribute
        WHERE attrelid = 'memory_ledger.homes'::regclass AND attnum > 0 AND NOT attisdropped
        """
    ).fetchall()
    return [name for name in _ADDED if (name,) not in rows]


def extended(connection: Connection) -> sql.Composable:
    """Gives the ledger as `extend` would make it, to read from: what it lacks has its default."""
    lacks = [(name, *_ADDED[name].partition(" NOT NULL DEFAULT ")) for name in lacking(connection)]
    defaults = ", ".join(f"CAST({value or 'NULL'} AS {kind}) AS {name}" for name, kind, _, value in lacks)
    if not defaults:
        return HOMES
    return sql.SQL("(SELECT h.*, {} FROM memory_ledger.homes h) homes").format(sql.SQL(defaults))


def find(
    connection: Connection, request: ProvisionRequest, names: Names, homes: sql.Composable | None = HOMES
) -> Found:
    """Looks at the ledger, and whether the home stands and bears the stamp of these names.

    Args:
        connection: To the provider's database, in a transaction.
        request: Whose home it is about.
        names: Whose stamp it should bear.
        homes: What to read, None where there is no ledger.
    """
    schema, isolation = request.dataset.home, request.provider.isolation
    known = _entries(connection, request, homes) if homes else []
    exists, stamped = _standing(connection, request, names)
    return Found(
        by_home=next((entry for entry in known if entry.home == request.home), None),
        by_identity=next((entry for entry in known if entry.identity == request.identity), None),
        others=tuple(
            entry
            for entry in known
            if entry.schema == schema and entry.home != request.home and "Database" not in (entry.isolation, isolation)
        ),
        exists=exists,
        stamped=stamped,
        search_config_exists=_has_search_config(connection, request.dataset.search_config),
    )


def _entries(connection: Connection, request: ProvisionRequest, homes: sql.Composable) -> list[Entry]:
    query = sql.SQL(
        """
        SELECT home, identity, xr_uid, dataset, search_config, logins, isolation,
               coalesce(nullif(schema, ''), home), settings
        FROM {}
        WHERE home = %(home)s OR identity = %(identity)s OR coalesce(nullif(schema, ''), home) = %(schema)s
        ORDER BY created_at, home
        """
    ).format(homes)
    values = {"home": request.home, "identity": request.identity, "schema": request.dataset.home}
    return [Entry(*row) for row in connection.execute(query, values).fetchall()]


def _standing(connection: Connection, request: ProvisionRequest, names: Names) -> tuple[bool, bool]:
    """Looks whether the home is there, and whether what is there is ours."""
    if request.provider.isolation == "Database":
        found = find_database(connection, names)
        # CloudNativePG makes the database, before anybody has asked the ledger: it is a home when it has our stamp.
        is_made = request.provider.role_management == "SQL" or (found is not None and found.stamped)
        return found is not None and is_made, found is not None and found.ours
    query = "SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = %s"
    stamp = fetch_value(connection, query, request.dataset.home)
    if request.provider.isolation == "Schema" or stamp != names.stamp:
        return stamp is not None, stamp == names.stamp
    return _is_registered(connection, request, names), True


def _is_registered(connection: Connection, request: ProvisionRequest, names: Names) -> bool:
    """Asks the shared schema's registry, which only its owner sees whole."""
    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(names.owner)))
    registry = sql.Identifier(request.dataset.home, "memory_datasets").as_string()
    found = False
    # The first Memory's run may have been killed before there was one.
    if fetch_value(connection, "SELECT to_regclass(%s)", registry):
        query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE dataset = %s)").format(sql.SQL(registry))
        found = bool(fetch_value(connection, query.as_string(), request.dataset.name))
    connection.execute("RESET ROLE")
    return found


def _has_search_config(connection: Connection, name: str) -> bool:
    query = """
        SELECT EXISTS (SELECT FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace
                       WHERE %s::text IN (n.nspname || '.' || c.cfgname,
                                          CASE n.nspname WHEN 'pg_catalog' THEN c.cfgname END))
    """
    return bool(fetch_value(connection, query, name))


def _enter(connection: Connection, request: ProvisionRequest) -> None:
    """Enters a home that is not there yet.

    An entry whose home was never made, or is gone, keeps its claim until `seal`; its contents are void.
    """
    statement = sql.SQL(
        """
        INSERT INTO memory_ledger.homes ({columns}) VALUES ({values}) ON CONFLICT (home)
        DO UPDATE SET dataset = excluded.dataset, search_config = excluded.search_config, settings = excluded.settings
        """
    )
    _write(connection, request, statement)


def seal(connection: Connection, request: ProvisionRequest, logins: Mapping[str, str]) -> None:
    """Notes, when all is done, whose the home is now, what the claim says of it, and the digests of its logins."""
    statement = sql.SQL(
        """
        UPDATE memory_ledger.homes
        SET ({columns}, logins, last_seen, gone_since, closed_at, closed_logins)
            = ROW({values}, {logins}, now(), NULL, NULL, '{{}}')
        WHERE home = {home}
        """
    )
    _write(connection, request, statement, logins=sql.Literal(json.dumps(logins)))


def _write(connection: Connection, request: ProvisionRequest, statement: sql.SQL, **more: sql.Composable) -> None:
    values = {
        "home": request.home,
        "identity": request.identity,
        "xr_uid": request.uid,
        "composite": request.composite,
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
        "settings": json.dumps(_settings(request)),
        "policy": json.dumps(_policy(request)),
    }
    columns = sql.SQL(", ").join(map(sql.Identifier, values))
    literals = sql.SQL(", ").join(map(sql.Literal, values.values()))
    home = sql.Literal(request.home)
    connection.execute(statement.format(columns=columns, values=literals, home=home, **more))


def forget(connection: Connection, home: str) -> None:
    """Takes a home that was dropped out of the ledger."""
    connection.execute("DELETE FROM memory_ledger.homes WHERE home = %s", [home])
