"""What the groups may do in a home: repaired on every run, for what is there and for what comes later."""

from dataclasses import dataclass

from psycopg import sql

from migrations.postgres.connection import Connection, fetch_value
from migrations.postgres.names import Names

# The engine's own tables. The history is nobody's business; the registry says what is on hold and how long rows live,
# so whoever could write it could lift a hold.
HISTORY = "memory_migrations"
READ_ONLY = ("memory_datasets",)
READ_MARK = "memory: read"


@dataclass(frozen=True)
class _Objects:
    """What the owner has in its home. What others put there is theirs, and `verify` tells what it opens.

    `hidden` are the relations of a shared schema that no policy guards: partitions, which would be read around their
    parent's policies, what has no column dataset, and views, which read as their owner. `registry` is READ_ONLY.
    """

    history: list[str]
    registry: list[str]
    writable: list[str]
    hidden: list[str]
    sequences: list[str]
    called: list[str]
    read: list[str]
    triggers: list[str]

    @property
    def readable(self) -> list[str]:
        """The tables that readers read."""
        return [*self.registry, *self.writable]

    @property
    def tables(self) -> list[str]:
        """All of them but the hidden."""
        return [*self.history, *self.readable]


def repair(connection: Connection, schema: str, names: Names, *, shared: bool = False) -> None:
    """Grants each group its rights and takes away all others, in the one transaction that it runs in, as the owner.

    Of a schema that is `shared`, what comes later is nobody's until a run has put policies on it.
    """
    objects = _objects(connection, schema, names, shared=shared)
    rights = [*_rights(schema, names, objects), *_default_rights(schema, names, shared=shared)]
    connection.execute(sql.SQL(";\n").join(rights))


def withdraw(connection: Connection, schema: str, names: Names) -> None:
    """Takes every right in a shared schema away from one Memory's roles, as the owner, so that they can be dropped."""
    objects = _objects(connection, schema, names, shared=True)
    home, roles = sql.Identifier(schema), sql.SQL(", ").join(map(sql.Identifier, names.own))
    default = "ALTER DEFAULT PRIVILEGES IN SCHEMA {} REVOKE ALL ON {} FROM {}"
    statements = [
        sql.SQL("REVOKE ALL ON SCHEMA {} FROM {}").format(home, roles),
        *_each("REVOKE ALL ON TABLE {} FROM {}", [*objects.tables, *objects.hidden], roles),
        *_each("REVOKE ALL ON SEQUENCE {} FROM {}", objects.sequences, roles),
        *_each("REVOKE ALL ON ROUTINE {} FROM {}", [*objects.called, *objects.read, *objects.triggers], roles),
        *(sql.SQL(default).format(home, sql.SQL(kind), roles) for kind in ("TABLES", "ROUTINES")),
    ]
    connection.execute(sql.SQL(";\n").join(statements))


@dataclass(frozen=True)
class Guest:
    """A role of others with rights in a Memory's own database; pgvector may be in a schema that it must look into."""

    role: str
    writes: bool
    extension_schema: str


def share(connection: Connection, schema: str, names: Names, guest: Guest) -> None:
    """Gives a role of others what the reader or the writer group has in a Memory's own database, as the owner."""
    objects = _objects(connection, schema, names, shared=False)
    home, grantee = sql.Identifier(schema), sql.Identifier(guest.role)
    default = "ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT {} TO {}"
    kinds = (
        ("SELECT, INSERT, UPDATE, DELETE ON TABLES", "EXECUTE ON ROUTINES") if guest.writes else ("SELECT ON TABLES",)
    )
    statements: list[sql.Composable] = [
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(names.database), grantee),
        sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(home, grantee),
        *_each("GRANT SELECT ON TABLE {} TO {}", objects.readable, grantee),
        *_each(
            "GRANT EXECUTE ON ROUTINE {} TO {}", [*objects.read, *(objects.called if guest.writes else [])], grantee
        ),
        *(sql.SQL(default).format(home, sql.SQL(kind), grantee) for kind in kinds),
    ]
    if guest.writes:
        statements += _each("GRANT INSERT, UPDATE, DELETE ON TABLE {} TO {}", objects.writable, grantee)
    if guest.extension_schema:
        statements.append(
            sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(guest.extension_schema), grantee)
        )
    connection.execute(sql.SQL(";\n").join(statements))


def unshare(connection: Connection, schema: str, names: Names, guest: Guest) -> None:
    """Takes from a role of others all that `share` gave."""
    objects = _objects(connection, schema, names, shared=False)
    grantee = sql.Identifier(guest.role)
    schemas = sql.SQL(", ").join(map(sql.Identifier, filter(None, dict.fromkeys((schema, guest.extension_schema)))))
    default = "ALTER DEFAULT PRIVILEGES IN SCHEMA {} REVOKE ALL ON {} FROM {}"
    statements = [
        sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(sql.Identifier(names.database), grantee),
        sql.SQL("REVOKE ALL ON SCHEMA {} FROM {}").format(schemas, grantee),
        *_each("REVOKE ALL ON TABLE {} FROM {}", objects.tables, grantee),
        *_each("REVOKE ALL ON ROUTINE {} FROM {}", [*objects.read, *objects.called], grantee),
        *(sql.SQL(default).format(sql.Identifier(schema), sql.SQL(k), grantee) for k in ("TABLES", "ROUTINES")),
    ]
    connection.execute(sql.SQL(";\n").join(statements))


def repair_database(connection: Connection, names: Names) -> None:
    """Closes a Memory's own database, which the admin is connected to, to PUBLIC and opens it to its groups."""
    owns = fetch_value(connection, "SELECT pg_has_role(session_user, %s, 'USAGE')", names.owner)
    statements = [
        "SET LOCAL ROLE {owner}",
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        "GRANT CONNECT ON DATABASE {database} TO {groups}",
        # One that has the owner's rights anyway gets none of its own: they would keep the role from being dropped.
        "REVOKE ALL ON DATABASE {database} FROM {admin}" if owns else "GRANT CONNECT ON DATABASE {database} TO {admin}",
    ]
    if fetch_value(connection, "SELECT to_regnamespace('public')"):
        # The groups may look into it, for pgvector is usually there.
        statements += ["REVOKE ALL ON SCHEMA public FROM PUBLIC, {groups}", "GRANT USAGE ON SCHEMA public TO {groups}"]
    values = {
        "owner": sql.Identifier(names.owner),
        "database": sql.Identifier(names.database),
        "groups": sql.SQL(", ").join(map(sql.Identifier, (names.writer, names.reader))),
        "admin": sql.Identifier(connection.info.user),
    }
    connection.execute(sql.SQL(";\n").join(sql.SQL(each).format(**values) for each in [*statements, "RESET ROLE"]))


def _objects(connection: Connection, schema: str, names: Names, *, shared: bool) -> _Objects:
    """Reads the objects, in the form that GRANT takes."""
    rows = connection.execute(
        """
        SELECT CASE WHEN relkind = 'S' THEN 'sequence'
                    WHEN %(shared)s AND NOT (
                        relkind IN ('r', 'p') AND NOT relispartition AND relrowsecurity
                        AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'dataset'
                                    AND NOT a.attisdropped)) THEN 'hidden'
                    WHEN relname = %(history)s THEN 'history' WHEN relname = ANY(%(read_only)s) THEN 'registry'
                    ELSE 'writable' END, c.oid::regclass::text
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
        {
            "schema": schema,
            "owner": f'"{names.owner}"',
            "mark": READ_MARK,
            "shared": shared,
            "history": HISTORY,
            "read_only": list(READ_ONLY),
        },
    ).fetchall()
    kinds = ("history", "registry", "writable", "hidden", "sequence", "called", "read", "trigger")
    return _Objects(*([name for kind, name in rows if kind == each] for each in kinds))


def _rights(schema: str, names: Names, objects: _Objects) -> list[sql.Composable]:
    home, writer, reader = map(sql.Identifier, (schema, names.writer, names.reader))
    both = sql.SQL("{}, {}").format(writer, reader)
    # The logins too: somebody may have granted one of them something by hand.
    others = sql.SQL(", ").join([sql.SQL("PUBLIC"), both, *map(sql.Identifier, names.logins)])
    functions = [*objects.called, *objects.read]
    return [
        sql.SQL("REVOKE ALL ON SCHEMA {} FROM {}").format(home, others),
        sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(home, both),
        *_each("REVOKE ALL ON TABLE {} FROM {}", [*objects.tables, *objects.hidden], others),
        *_each("REVOKE ALL ON SEQUENCE {} FROM {}", objects.sequences, others),
        *_each("REVOKE ALL ON ROUTINE {} FROM {}", [*functions, *objects.triggers], others),
        *_each("GRANT SELECT ON TABLE {} TO {}", objects.readable, both),
        *_each("GRANT INSERT, UPDATE, DELETE ON TABLE {} TO {}", objects.writable, writer),
        *_each("GRANT EXECUTE ON ROUTINE {} TO {}", functions, writer),
        *_each("GRANT EXECUTE ON ROUTINE {} TO {}", objects.read, reader),
    ]


def _each(statement: str, objects: list[str], grantees: sql.Composable) -> list[sql.Composable]:
    """Gives one statement for all objects of a kind, none when there are none."""
    if not objects:
        return []
    # regclass and regprocedure quote what they give.
    return [sql.SQL(statement).format(sql.SQL(", ").join(map(sql.SQL, objects)), grantees)]


def _default_rights(schema: str, names: Names, *, shared: bool) -> list[sql.Composable]:
    home, writer, reader = map(sql.Identifier, (schema, names.writer, names.reader))
    public = [
        # Without IN SCHEMA: with it, taking away what PUBLIC has by default does nothing.
        sql.SQL("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON ROUTINES FROM PUBLIC"),
        sql.SQL("ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC"),
    ]
    if shared:
        roles = sql.SQL(", ").join(map(sql.Identifier, names.own))
        taken = "ALTER DEFAULT PRIVILEGES IN SCHEMA {} REVOKE ALL ON {} FROM PUBLIC, {}"
        kinds = ("TABLES", "SEQUENCES", "ROUTINES", "TYPES")
        return [*public, *(sql.SQL(taken).format(home, sql.SQL(kind), roles) for kind in kinds)]
    return [
        *public,
        sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT SELECT ON TABLES TO {}, {}").format(home, writer, reader),
        sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT INSERT, UPDATE, DELETE ON TABLES TO {}").format(
            home, writer
        ),
        sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT EXECUTE ON ROUTINES TO {}").format(home, writer),
    ]
