"""The home: a schema, and with isolation Database a database, that belongs to the owner role and carries our stamp."""

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from migrations.errors import Code, CommandError
from migrations.postgres.connection import Connection, fetch_value
from migrations.postgres.names import Names
from migrations.postgres.server import Facts


def ensure(connection: Connection, schema: str, names: Names, *, by_owner: bool = False) -> None:
    """Makes the schema with its stamp, in the one transaction that it runs in.

    Args:
        connection: To the database that the home is in, as the admin.
        schema: The home.
        names: Whose it is.
        by_owner: Whether it is the owner role that may create in the database, and not the admin.

    Raises:
        CommandError: SCHEMA_CONFLICT when somebody made it since the ledger was asked.
    """
    query = """
        SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = %s
    """
    stamp = fetch_value(connection, query, schema)
    if stamp == names.stamp:
        return
    if stamp is not None:
        msg = f'schema "{schema}" was made by somebody else at this moment: choose another dataset.schema'
        raise CommandError(Code.SCHEMA_CONFLICT, msg)
    home, owner = sql.Identifier(schema), sql.Identifier(names.owner)
    create = sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(home, owner)
    become = sql.SQL("SET LOCAL ROLE {}").format(owner)
    stamp_it = sql.SQL("COMMENT ON SCHEMA {} IS {};\nRESET ROLE").format(home, sql.Literal(names.stamp))
    steps = [become, create, stamp_it] if by_owner else [create, become, stamp_it]
    connection.execute(sql.SQL(";\n").join(steps))


@dataclass(frozen=True)
class OwnDatabase:
    """A database of the name that a Memory's own would have: whether it is the Memory's, and can be connected to."""

    ours: bool
    stamped: bool
    open: bool


def find_database(connection: Connection, names: Names) -> OwnDatabase | None:
    """Looks for the Memory's own database; its owner is proof, since that role carries our stamp."""
    row = connection.execute(
        """
        SELECT pg_get_userbyid(datdba) = %s, coalesce(shobj_description(oid, 'pg_database'), ''), datallowconn
        FROM pg_database WHERE datname = %s
        """,
        [names.owner, names.database],
    ).fetchone()
    if row is None:
        return None
    owned, stamp, is_open = row
    return OwnDatabase(owned and stamp in ("", names.database_stamp), stamp == names.database_stamp, is_open)


def ensure_database(connection: Connection, names: Names) -> None:
    """Makes the Memory's own database; outside a transaction, on a connection to the provider's database.

    CREATE DATABASE and the rest are several statements: a run that is killed in between is gone on with.

    Raises:
        CommandError: SCHEMA_CONFLICT when a database of that name is not ours.
        psycopg.Error: It raced with another one; tried again, it sees what that one made.
    """
    found = find_database(connection, names)
    values = {
        "database": sql.Identifier(names.database),
        "owner": sql.Identifier(names.owner),
        "stamp": sql.Literal(names.database_stamp),
        "admin": sql.Identifier(connection.info.user),
        "groups": sql.SQL(", ").join(map(sql.Identifier, (names.writer, names.reader))),
    }
    if found is None:
        connection.execute(sql.SQL("CREATE DATABASE {database} OWNER {owner}").format(**values))
    elif not found.ours:
        raise database_conflict(names)
    elif found.stamped and found.open:
        return
    with connection.transaction():
        statement = sql.SQL(
            """
            SET LOCAL ROLE {owner};
            REVOKE ALL ON DATABASE {database} FROM PUBLIC;
            GRANT CONNECT ON DATABASE {database} TO {admin}, {groups};
            ALTER DATABASE {database} ALLOW_CONNECTIONS true;
            COMMENT ON DATABASE {database} IS {stamp}
            """
        )
        connection.execute(statement.format(**values))


def database_conflict(names: Names) -> CommandError:
    """Says that the name of a Memory's own database is taken."""
    msg = (
        f'database "{names.database}" exists on this server and was not made for this Memory: give the claim another '
        "name (the database's name is a hash of it), or ask the platform team to rename the database"
    )
    return CommandError(Code.SCHEMA_CONFLICT, msg)


def check_extension_usable(connection: Connection, facts: Facts, roles: Iterable[str]) -> None:
    """Refuses a server where the Memory's roles cannot see the extension's schema.

    Args:
        connection: To the database that the home is in.
        facts: What is there.
        roles: Whom to ask for; "public" for those that are still to be made.

    Raises:
        CommandError: PERMISSION_DENIED with the SQL for the platform team.
    """
    query = "SELECT has_schema_privilege(%s, %s, 'USAGE')"
    schema = facts.vector_schema
    for role in roles:
        if not fetch_value(connection, query, role, schema):
            msg = (
                f'the roles of Memories may not use schema "{schema}", where pgvector is: as a superuser run '
                f'GRANT USAGE ON SCHEMA "{schema}" TO PUBLIC; (it holds the extension only)'
            )
            raise CommandError(Code.PERMISSION_DENIED, msg)
