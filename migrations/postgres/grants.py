"""What the groups may do in a home: repaired on every run, for what is there and for what comes later."""

from dataclasses import dataclass

from psycopg import sql

from migrations.postgres.connection import Connection
from migrations.postgres.names import Names

# The engine's own tables. The history is nobody's business; the registry says what is on hold and how long rows live,
# so whoever could write it could lift a hold.
HISTORY = "memory_migrations"
READ_ONLY = ("memory_datasets",)
READ_MARK = "memory: read"


@dataclass(frozen=True)
class _Objects:
    """What the owner has in its home. What others put there is theirs, and `verify` tells what it opens."""

    tables: list[str]
    sequences: list[str]
    called: list[str]
    read: list[str]
    triggers: list[str]


def repair(connection: Connection, schema: str, names: Names) -> None:
    """Grants each group its rights and takes away all others, in the one transaction that it runs in, as the owner."""
    objects = _objects(connection, schema, names)
    statement = sql.SQL(";\n").join([*_rights(schema, names, objects), *_default_rights(schema, names)])
    connection.execute(statement)


def _objects(connection: Connection, schema: str, names: Names) -> _Objects:
    """Reads the objects, in the form that GRANT takes."""
    rows = connection.execute(
        """
        SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, c.oid::regclass::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %(schema)s AND c.relowner = %(owner)s::regrole AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT CASE WHEN p.prorettype = 'pg_catalog.trigger'::regtype THEN 'trigger'
                    WHEN obj_description(p.oid, 'pg_proc') = %(mark)s THEN 'read' ELSE 'called' END,
               p.oid::regprocedure::text
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = %(schema)s AND p.proowner = %(owner)s::regrole
        ORDER BY 1, 2
        """,
        {"schema": schema, "owner": names.owner, "mark": READ_MARK},
    ).fetchall()
    kinds: dict[str, list[str]] = {"table": [], "sequence": [], "trigger": [], "read": [], "called": []}
    for kind, name in rows:
        kinds[kind].append(name)
    return _Objects(kinds["table"], kinds["sequence"], kinds["called"], kinds["read"], kinds["trigger"])


def _rights(schema: str, names: Names, objects: _Objects) -> list[sql.Composable]:
    home, writer, reader = map(sql.Identifier, (schema, names.writer, names.reader))
    both = sql.SQL("{}, {}").format(writer, reader)
    # The logins too: somebody may have granted one of them something by hand.
    others = sql.SQL(", ").join([sql.SQL("PUBLIC"), both, *map(sql.Identifier, names.logins)])
    functions = [*objects.called, *objects.read]
    readable = [name for name in objects.tables if name != HISTORY]
    writable = [name for name in readable if name not in READ_ONLY]
    return [
        sql.SQL("REVOKE ALL ON SCHEMA {} FROM {}").format(home, others),
        sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(home, both),
        *_each("REVOKE ALL ON TABLE {} FROM {}", objects.tables, others),
        *_each("REVOKE ALL ON SEQUENCE {} FROM {}", objects.sequences, others),
        *_each("REVOKE ALL ON ROUTINE {} FROM {}", [*functions, *objects.triggers], others),
        *_each("GRANT SELECT ON TABLE {} TO {}", readable, both),
        *_each("GRANT INSERT, UPDATE, DELETE ON TABLE {} TO {}", writable, writer),
        *_each("GRANT EXECUTE ON ROUTINE {} TO {}", functions, writer),
        *_each("GRANT EXECUTE ON ROUTINE {} TO {}", objects.read, reader),
    ]


def _each(statement: str, objects: list[str], grantees: sql.Composable) -> list[sql.Composable]:
    """Gives one statement for all objects of a kind, none when there are none."""
    if not objects:
        return []
    # regclass and regprocedure quote what they give.
    return [sql.SQL(statement).format(sql.SQL(", ").join(map(sql.SQL, objects)), grantees)]


def _default_rights(schema: str, names: Names) -> list[sql.Composable]:
    home, writer, reader = map(sql.Identifier, (schema, names.writer, names.reader))
    return [
        # Without IN SCHEMA: with it, taking away what PUBLIC has by default does nothing.
        sql.SQL("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON ROUTINES FROM PUBLIC"),
        sql.SQL("ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC"),
        sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT SELECT ON TABLES TO {}, {}").format(home, writer, reader),
        sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT INSERT, UPDATE, DELETE ON TABLES TO {}").format(
            home, writer
        ),
        sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT EXECUTE ON ROUTINES TO {}").format(home, writer),
    ]
