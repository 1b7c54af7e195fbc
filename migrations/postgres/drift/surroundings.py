"""What a place stands on besides its schema: server, extension, database, roles; and what differs there."""

from collections.abc import Iterator
from dataclasses import dataclass

from migrations.postgres import verify
from migrations.postgres.connection import Connection
from migrations.postgres.drift import mending
from migrations.postgres.drift.catalog import Item
from migrations.postgres.drift.differences import GIVEN, OWNERS, Difference, owned_by
from migrations.postgres.drift.mending import Fix
from migrations.postgres.maintenance.places import Home, Work
from migrations.postgres.roles import Membership, memberships, of_the_admin
from migrations.postgres.server import OLDEST_VECTOR, numbers

_QUERY = """
SELECT current_setting('server_version_num')::int, to_regnamespace(quote_ident(%(schema)s)) IS NOT NULL,
       quote_ident(%(schema)s), coalesce(e.extversion, ''), coalesce(n.nspname, ''),
       -- What the functions were made with stands in their settings, behind the home's own schema.
       coalesce((SELECT split_part(setting, ', ', 2) FROM pg_proc p JOIN pg_namespace h ON h.oid = p.pronamespace
                 CROSS JOIN unnest(p.proconfig) setting
                 WHERE h.nspname = %(schema)s AND p.proname = 'memory_nearest' AND starts_with(setting, 'search_path=')
                 LIMIT 1), ''),
       coalesce((SELECT t.typname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                 JOIN pg_namespace h ON h.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid
                 WHERE h.nspname = %(schema)s AND c.relname = 'memory_embeddings' AND a.attname = 'embedding'), ''),
       coalesce((SELECT has_schema_privilege(r.oid, n.oid, 'USAGE') FROM pg_roles r WHERE r.rolname = %(owner)s),
                false),
       (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()),
       coalesce((SELECT pg_has_role(r.oid, 'SET') FROM pg_roles r WHERE r.rolname = %(owner)s), false)
FROM (SELECT) one LEFT JOIN pg_extension e ON e.extname = 'vector' LEFT JOIN pg_namespace n ON n.oid = e.extnamespace
"""


@dataclass(frozen=True)
class Surroundings:
    """What a place stands on.

    Attributes:
        number: The server's version.
        exists: Whether the schema is there.
        quoted: The schema as the server quotes it where it must be.
        vector: Version of pgvector, "" without it; `vector_schema` where it is.
        vector_was: The schema that functions look for pgvector in, "" when there are none.
        vector_type: What embeddings are stored as, "" when there are none.
        vector_usable: Whether the owner can look into the schema that pgvector is in.
        may_act: Whether the session may become the owner.
    """

    number: int
    exists: bool
    quoted: str
    vector: str
    vector_schema: str
    vector_was: str
    vector_type: str
    vector_usable: bool
    database_owner: str
    may_act: bool


def read(work: Work) -> Surroundings:
    """Asks the server, in one round trip."""
    [row] = work.connection.execute(_QUERY, {"schema": work.place.schema, "owner": work.place.owner}).fetchall()
    return Surroundings(*row)


def of_extension(work: Work, found: Surroundings) -> Iterator[Difference]:
    """Gives what is wrong with pgvector, which the home has embeddings for."""
    if not found.vector:
        yield Difference("extension vector is missing")
        return
    if numbers(found.vector) < OLDEST_VECTOR:
        oldest = ".".join(map(str, OLDEST_VECTOR[1:]))
        yield Difference(f"extension vector is {found.vector}, older than 0.{oldest}")
    was = found.vector_was.strip('"')
    if was and was != found.vector_schema:
        yield Difference(f'extension vector is in schema "{found.vector_schema}" instead of "{was}"')
    yield from _looks(work, found)


_HISTORY = """
SELECT quote_ident(n.nspname), pg_get_userbyid(n.nspowner), pg_get_userbyid(c.relowner)
FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'memory_migrations'
WHERE n.nspname = %s
"""


def of_history(work: Work) -> Iterator[Difference]:
    """Says why the owner cannot read the history."""
    schema, owner = work.place.schema, work.place.owner
    [(quoted, of_schema, of_table)] = work.connection.execute(_HISTORY, [schema]).fetchall()
    found = (
        (f"schema {schema}", f"SCHEMA {quoted}", of_schema),
        ("table memory_migrations", f"TABLE {quoted}.memory_migrations", of_table),
    )
    for title, statement, actual in found:
        if actual != owner:
            yield owned_by(title, Item("", "", "", {"owner": actual, "statement": statement}), owner)
    if of_schema == of_table == owner:
        give = tuple(f'GRANT ALL ON {statement} TO "{owner}"' for _, statement, _ in found)
        fix = Fix(OWNERS, mending.execute, give)
        yield Difference(f"owner lacks rights on schema {schema} or its table memory_migrations", fixes=(fix,))


def has_groups(work: Work, home: Home) -> bool:
    """Whether a home's owner and groups are there: without one of them its rights cannot be compared."""
    groups = (home.names.owner, home.names.writer, home.names.reader)
    return _roles(work.connection, groups).keys() == set(groups)


def of_roles(work: Work, home: Home) -> Iterator[Difference]:
    """Gives what is wrong with a home's roles and their memberships."""
    connection, names, by_operator = work.connection, home.names, is_managed(work)
    there = _roles(connection, names.roles)
    for role in names.roles:
        if role not in there and not (by_operator and role in names.logins):
            yield Difference(f"role {role} is missing", home.key)
        elif not by_operator and there.get(role) != names.stamp_of(role):
            # It says whose a role is, so nobody but a person may say that it is ours.
            yield Difference(f"role {role} does not carry its mark", home.key)
    for sentence, statements in verify.of_roles(connection, names, managed=by_operator).items():
        yield Difference(sentence, home.key, (Fix(OWNERS, mending.execute_as_admin, tuple(statements)),))
    held = _held(connection, home)
    for each in _memberships(work, home):
        there_too = {each.group, each.member} - set(names.roles) | there.keys()
        has = any(
            (group, member) == (each.group, each.member) and inherit >= each.inherit and becomes >= each.set
            for group, member, inherit, becomes in held
        )
        if not has and {each.group, each.member} <= there_too:
            fix = Fix(OWNERS, mending.execute_as_admin, (each.granted().as_string(),))
            sentence = f"role {each.member} {'cannot become' if each.set else 'is not in'} role {each.group}"
            yield Difference(sentence, home.key, () if by_operator else (fix,))


def _memberships(work: Work, home: Home) -> Iterator[Membership]:
    """Gives those that should be. The operator puts logins into groups, and others get rights instead of membership."""
    names = home.names
    if is_managed(work):
        yield from (each for each in memberships(names) if each.member in names.logins)
        return
    yield from memberships(names)
    yield from of_the_admin(names, work.admin.username)
    for group, role in ((names.reader, home.access.reader_role), (names.writer, home.access.writer_role)):
        if role:
            yield Membership(group, role, inherit=True, set=False)


def is_managed(work: Work) -> bool:
    """Whether CloudNativePG makes roles and memberships."""
    return work.request.provider.role_management == "CNPG"


def _roles(connection: Connection, names: tuple[str, ...]) -> dict[str, str]:
    """Reads which roles there are, with the marks that they carry."""
    query = "SELECT rolname, coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles WHERE rolname = ANY(%s)"
    return dict(connection.execute(query, [list(names)]).fetchall())


def _held(connection: Connection, home: Home) -> list[tuple[str, str, bool, bool]]:
    """Reads who is in the home's roles: whether with their rights, and whether it may become them."""
    rows = connection.execute(
        """
        SELECT g.rolname, m.rolname, bool_or(a.inherit_option), bool_or(a.set_option) FROM pg_auth_members a
        JOIN pg_roles g ON g.oid = a.roleid JOIN pg_roles m ON m.oid = a.member
        WHERE g.rolname = ANY(%s) GROUP BY 1, 2
        """,
        [list(home.names.roles)],
    )
    return [(group, member, inherit, becomes) for group, member, inherit, becomes in rows.fetchall()]


_DATABASE = """
SELECT pg_get_userbyid(d.datdba), coalesce(shobj_description(d.oid, 'pg_database'), ''),
       ARRAY(SELECT a.privilege_type FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
             WHERE a.grantee = 0 ORDER BY 1),
       ARRAY(SELECT a.privilege_type FROM pg_namespace n
             CROSS JOIN aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
             WHERE n.nspname = 'public' AND a.grantee = 0 ORDER BY 1)
FROM pg_database d WHERE d.datname = current_database()
"""


def of_database(work: Work, home: Home) -> Iterator[Difference]:
    """Gives what is wrong with a Memory's own database; others that the platform team lets in are its matter."""
    names = home.names
    [(owner, stamp, on_database, on_public)] = work.connection.execute(_DATABASE).fetchall()
    close = Fix(GIVEN, mending.close_database, (home,))
    if owner != names.owner:
        give = f'ALTER DATABASE "{names.database}" OWNER TO "{names.owner}"'
        fix = Fix(OWNERS, mending.execute_as_admin, (give,))
        yield Difference(f'database {names.database} belongs to "{owner}" instead of "{names.owner}"', fixes=(fix,))
    if stamp != names.database_stamp:
        comment = f"COMMENT ON DATABASE \"{names.database}\" IS '{names.database_stamp}'"
        fix = Fix(GIVEN, mending.execute, (comment,))
        yield Difference(f"database {names.database} does not carry its mark", fixes=(fix,))
    for rights, what in ((on_database, f"database {names.database}"), (on_public, "schema public")):
        if rights:
            yield Difference(f"PUBLIC has {', '.join(rights)} on {what}", fixes=(close,))
    yield from _groups_locked_out(work, home, close)


def _groups_locked_out(work: Work, home: Home, close: Fix) -> Iterator[Difference]:
    for role, who in ((home.names.writer, "writer group"), (home.names.reader, "reader group")):
        if role in _roles(work.connection, (role,)):
            query = "SELECT has_database_privilege(%s, current_database(), 'CONNECT')"
            row = work.connection.execute(query, [role]).fetchone()
            if row and not row[0]:
                yield Difference(f"{who} lacks CONNECT on database {home.names.database}", fixes=(close,))


def _looks(work: Work, found: Surroundings) -> Iterator[Difference]:
    """Says who cannot look into the schema that pgvector is in; in a Memory's own database its owner may let them."""
    schema, homes = found.vector_schema, work.place.homes
    if not found.vector_usable:
        yield Difference(f"owner lacks USAGE on schema {schema}")
    who = {home.names.writer: ("writer group", home) for home in homes}
    who |= {home.names.reader: ("reader group", home) for home in homes}
    query = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND NOT has_schema_privilege(oid, %s, 'USAGE')"
    for (role,) in work.connection.execute(query, [list(who), schema]).fetchall():
        group, home = who[role]
        fixes = (Fix(GIVEN, mending.open_extension, (home, schema)),) if work.place.isolation == "Database" else ()
        yield Difference(f"{group} lacks USAGE on schema {schema}", home.key, fixes)
