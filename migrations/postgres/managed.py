"""Where CloudNativePG makes roles and databases: what it leaves to the Job, which acts as the Memory's owner role.

It gives no settings to roles, and their owner may not: so the Memory's own database carries them, for whoever logs in.
"""

from collections.abc import Mapping
from dataclasses import replace

from psycopg import sql

from migrations.errors import Code, CommandError
from migrations.postgres import logins
from migrations.postgres.connection import Connection, fetch_value
from migrations.postgres.names import Names
from migrations.postgres.request import ProvisionRequest
from migrations.postgres.server import Facts


def check(connection: Connection, names: Names) -> None:
    """Refuses a database that is not the owner role's, which the session has to be.

    Raises:
        CommandError: SCHEMA_CONFLICT.
    """
    query = "SELECT pg_get_userbyid(datdba) = %s FROM pg_database WHERE datname = current_database()"
    if not fetch_value(connection, query, names.owner):
        msg = (
            f'database "{names.database}" does not belong to role "{names.owner}": as a superuser give it back: '
            f'ALTER DATABASE "{names.database}" OWNER TO "{names.owner}";'
        )
        raise CommandError(Code.SCHEMA_CONFLICT, msg)


def present(connection: Connection, names: Names) -> Names:
    """Gives the names without the logins that are not there: one that was never wanted has not been made."""
    query = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)"
    found = {row[0] for row in connection.execute(query, [list(names.logins)]).fetchall()}
    return replace(names, logins=tuple(login for login in names.logins if login in found))


def stamp(connection: Connection, names: Names) -> None:
    """Marks the database as this Memory's home; from here on the ledger is asked about it."""
    statement = sql.SQL("COMMENT ON DATABASE {} IS {}")
    connection.execute(statement.format(sql.Identifier(names.database), sql.Literal(names.database_stamp)))


def furnish(connection: Connection, request: ProvisionRequest, names: Names, facts: Facts) -> None:
    """Gives the database the settings of its logins, in the one transaction that it runs in."""
    database = sql.Identifier(names.database)
    statements: list[sql.Composable] = []
    if facts.vector:
        # Loads the library: without it nobody but a superuser may set hnsw.*.
        statements.append(sql.SQL("SELECT '[1]'::{}.vector").format(sql.Identifier(facts.vector_schema)))
    statements.append(sql.SQL("ALTER DATABASE {} RESET ALL").format(database))
    for name, value in logins.settings(request, facts):
        statements.append(sql.SQL("ALTER DATABASE {} SET {} = {}").format(database, name, value))
    connection.execute(sql.SQL(";\n").join(statements))


def open_extension(connection: Connection, names: Names, facts: Facts) -> None:
    """Lets the groups look into the schema that pgvector is in; it is the owner's, or everybody's own `public`."""
    groups = sql.SQL(", ").join(map(sql.Identifier, (names.writer, names.reader)))
    statement = sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(facts.vector_schema), groups)
    connection.execute(statement)


def end_sessions(connection: Connection, request: ProvisionRequest, noted: Mapping[str, str], *, adopted: bool) -> None:
    """As `logins.end_sessions`, by the Job's own role: it is a member of the logins, the owner is not."""
    connection.execute("SET LOCAL ROLE NONE")
    logins.end_sessions(connection, request, noted, adopted=adopted)
