"""The home: a schema that belongs to the owner role and carries our stamp."""

from psycopg import sql

from migrations.errors import Code, CommandError
from migrations.postgres.connection import Connection, fetch_value
from migrations.postgres.names import Names
from migrations.postgres.server import Facts


def ensure(connection: Connection, schema: str, names: Names) -> None:
    """Makes the schema with its stamp, in the one transaction that it runs in.

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
    make = sql.SQL(
        """
        CREATE SCHEMA {schema} AUTHORIZATION {owner};
        SET LOCAL ROLE {owner};
        COMMENT ON SCHEMA {schema} IS {stamp};
        RESET ROLE
        """
    )
    connection.execute(
        make.format(schema=sql.Identifier(schema), owner=sql.Identifier(names.owner), stamp=sql.Literal(names.stamp))
    )


def check_extension_usable(connection: Connection, facts: Facts, names: Names) -> None:
    """Refuses a server where the Memory's roles cannot see the extension's schema.

    Raises:
        CommandError: PERMISSION_DENIED with the SQL for the platform team.
    """
    query = "SELECT has_schema_privilege(%s, %s, 'USAGE')"
    schema = facts.vector_schema
    for role in (names.owner, names.reader):
        if not fetch_value(connection, query, role, schema):
            msg = (
                f'the roles of Memories may not use schema "{schema}", where pgvector is: as a superuser run '
                f'GRANT USAGE ON SCHEMA "{schema}" TO PUBLIC; (it holds the extension only)'
            )
            raise CommandError(Code.PERMISSION_DENIED, msg)
