"""What the server is and lets the admin do: read in one query, judged with a sentence for the platform team."""

from dataclasses import dataclass

import psycopg
from psycopg import sql

from migrations.errors import RACES, Code, CommandError
from migrations.postgres.connection import Admin, Connection

OLDEST_SERVER = 160000
OLDEST_VECTOR = (0, 8, 0)
# Earlier releases work, with defects mended since: a warning and no refusal.
ADVISED_VECTOR = (0, 8, 4)

_TEMPLATE = ", and in template1 for the databases of Memories to come"


@dataclass(frozen=True)
class Facts:
    """The server as the admin sees it; `vector` is "" where the extension is not installed in this database."""

    database: str
    number: int
    version: str
    superuser: bool
    createrole: bool
    createdb: bool
    create_on_database: bool
    vector: str
    vector_schema: str

    @property
    def capabilities(self) -> list[str]:
        """What a provider's status lists; a failure that a platform team repairs is tried again when this changes."""
        found = {
            "superuser": self.superuser,
            "createrole": self.createrole,
            "createdb": self.createdb,
            "create-on-database": self.create_on_database,
            "pgvector": bool(self.vector),
            f"pgvector/{self.vector}": bool(self.vector),
            f"pgvector-schema/{self.vector_schema}": bool(self.vector),
        }
        return sorted(name for name, holds in found.items() if holds)

    def described(self) -> dict[str, object]:
        """Gives the `server` entry of a report."""
        return {"version": self.version, "capabilities": self.capabilities}


def read(connection: Connection) -> Facts:
    """Asks the server, in one round trip."""
    [row] = connection.execute(
        """
        SELECT current_database(), current_setting('server_version_num')::int,
               split_part(current_setting('server_version'), ' ', 1), r.rolsuper,
               r.rolcreaterole OR r.rolsuper, r.rolcreatedb OR r.rolsuper,
               has_database_privilege(current_database(), 'CREATE'),
               coalesce(e.extversion, ''), coalesce(n.nspname, '')
        FROM pg_roles r
        LEFT JOIN pg_extension e ON e.extname = 'vector'
        LEFT JOIN pg_namespace n ON n.oid = e.extnamespace
        WHERE r.rolname = current_user
        """
    ).fetchall()
    return Facts(*row)


def check_admin(admin: Admin, facts: Facts) -> None:
    """Refuses a server or an admin that cannot hold homes.

    Raises:
        CommandError: MODULE_UNSUPPORTED for an old server, PERMISSION_DENIED with the SQL that a superuser runs.
    """
    if facts.number < OLDEST_SERVER:
        msg = f"{admin.server} is PostgreSQL {facts.version}: 16 or later is needed (SET without INHERIT)"
        raise CommandError(Code.MODULE_UNSUPPORTED, msg)
    missing = []
    if not facts.createrole:
        missing.append(f"ALTER ROLE {_quoted(admin.username)} CREATEROLE")
    if admin.provider.isolation == "Database" and not facts.createdb:
        missing.append(f"ALTER ROLE {_quoted(admin.username)} CREATEDB")
    if not facts.create_on_database:
        missing.append(f"GRANT CREATE ON DATABASE {_quoted(admin.provider.database)} TO {_quoted(admin.username)}")
    if missing:
        msg = (
            f'the admin "{admin.username}" of provider "{admin.provider.name}" lacks rights on {admin.server}: '
            f"as a superuser run: {'; '.join(missing)};"
        )
        raise CommandError(Code.PERMISSION_DENIED, msg)


def check_vector(admin: Admin, facts: Facts) -> None:
    """Refuses a pgvector that cannot be used.

    Raises:
        CommandError: EXTENSION_MISSING with the SQL for the platform team.
    """
    if numbers(facts.vector) < OLDEST_VECTOR:
        msg = (
            f'pgvector {facts.vector} in database "{facts.database}" on {admin.server} is older than 0.8.0: '
            "install a newer one on the server, then as a superuser run in that database: "
            "ALTER EXTENSION vector UPDATE;"
        )
        raise CommandError(Code.EXTENSION_MISSING, msg)


def create_vector(connection: Connection, admin: Admin, *, keep: bool = True, owner: str = "") -> Facts:
    """Installs pgvector where the admin may (a superuser, or a server that trusts the extension).

    Args:
        connection: As the admin.
        admin: Whose provider says which schema.
        keep: False only tries whether it could be done.
        owner: In a Memory's own database, the role that may do what the admin may elsewhere.

    Returns:
        The facts with the extension.

    Raises:
        CommandError: EXTENSION_MISSING with the SQL for the platform team.
        psycopg.Error: It raced with another provisioner.
    """
    # Never IF NOT EXISTS and never without a schema: under a tenant's search path it would land in the tenant's schema.
    facts = read(connection)
    if facts.vector:  # somebody made it since we looked
        return facts
    schema = admin.provider.extension_schema
    statement = sql.SQL("CREATE EXTENSION vector WITH SCHEMA {}").format(sql.Identifier(schema))
    if owner and not facts.superuser:
        statement = sql.SQL("SET LOCAL ROLE {}; {}; RESET ROLE").format(sql.Identifier(owner), statement)
    try:
        with connection.transaction(force_rollback=not keep):
            connection.execute(statement)
            return read(connection)
    except psycopg.Error as error:
        if error.sqlstate in RACES:
            raise
        why = error.diag.message_primary or ""
        raise _vector_missing(admin, facts, why, owner=owner, sqlstate=error.sqlstate or "") from None


def check_creatable(connection: Connection, admin: Admin, facts: Facts, *, owner: str = "") -> None:
    """Foretells by reading alone whether `create_vector` could do it.

    Raises:
        CommandError: EXTENSION_MISSING as `create_vector` says it.
    """
    row = connection.execute(
        """
        SELECT v.trusted, to_regnamespace(%s) IS NOT NULL
        FROM pg_available_extensions e
        JOIN pg_available_extension_versions v ON v.name = e.name AND v.version = e.default_version
        WHERE e.name = 'vector'
        """,
        [_quoted(admin.provider.extension_schema)],
    ).fetchone()
    if row is None:
        raise _vector_missing(admin, facts, "the server does not have its files", owner=owner)
    trusted, has_schema = row
    if not has_schema:
        why = f'schema "{admin.provider.extension_schema}" does not exist'
        raise _vector_missing(admin, facts, why, owner=owner)
    if not (facts.superuser or (trusted and (owner or facts.create_on_database))):
        raise _vector_missing(admin, facts, "only a superuser may", owner=owner)


def _vector_missing(admin: Admin, facts: Facts, why: str, *, owner: str, sqlstate: str = "") -> CommandError:
    schema = admin.provider.extension_schema
    make_schema = "" if schema == "public" else f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}; "
    msg = (
        f'the extension vector is not installed in database "{facts.database}" on {admin.server}, and '
        f'"{admin.username}" cannot create it ({why}): install pgvector 0.8 or later on the '
        f"server, then as a superuser run in that database{_TEMPLATE if owner else ''}: "
        f"{make_schema}CREATE EXTENSION vector WITH SCHEMA {_quoted(schema)};"
    )
    return CommandError(Code.EXTENSION_MISSING, msg, sqlstate=sqlstate)


def warnings(facts: Facts) -> list[str]:
    """Says what works but should not stay."""
    found = []
    if facts.superuser:
        found.append("the admin is a superuser: CREATEROLE and CREATE on the database are enough, take the rest away")
    if facts.vector and numbers(facts.vector) < ADVISED_VECTOR:
        found.append(f"pgvector {facts.vector} has known faults that 0.8.4 mends: update it")
    return found


def numbers(version: str) -> tuple[int, ...]:
    """Gives a version in a form that compares."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
