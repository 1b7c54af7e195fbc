"""The roles of one Memory: an owner that nobody logs in as, a writer and a reader group, four login slots.

The owner is the Memory's own, or with isolation Dataset that of the schema which it shares.

Who is a member of what, `INHERIT` and `SET` included, is what keeps a login from becoming another role. A role that
bears the right name is ours only when it also carries our stamp (`COMMENT ON ROLE`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from migrations.errors import Code, CommandError
from migrations.postgres.connection import Connection
from migrations.postgres.names import Names


@dataclass(frozen=True)
class Membership:
    """`member` is in `group`: whether it has the group's rights, and whether it may become it."""

    group: str
    member: str
    inherit: bool
    set: bool

    def granted(self) -> sql.Composed:
        """Gives the statement that makes it so."""
        return sql.SQL("GRANT {} TO {} WITH INHERIT {}, SET {}").format(
            sql.Identifier(self.group), sql.Identifier(self.member), _boolean(self.inherit), _boolean(self.set)
        )


@dataclass(frozen=True)
class Existing:
    """The session's role, and those of the Memory's roles that are there."""

    admin: str
    roles: frozenset[str]


def existing(connection: Connection, names: Names) -> Existing:
    """Reads which of the roles exist.

    Raises:
        CommandError: SCHEMA_CONFLICT when one of them was made for another Memory, by somebody else, or is not the
            admin's; nothing of it may be used then.
    """
    rows = connection.execute(
        """
        SELECT current_user, r.rolname, coalesce(shobj_description(r.oid, 'pg_authid'), ''),
               pg_has_role(r.oid, 'USAGE WITH ADMIN OPTION')
        FROM unnest(%s::text[]) WITH ORDINALITY wanted (name, position)
        LEFT JOIN pg_roles r ON r.rolname = wanted.name
        ORDER BY wanted.position
        """,
        [list(names.roles)],
    ).fetchall()
    for admin, name, stamp, administered in rows:
        if name is not None:
            _check(name, admin, ours=stamp == names.stamp_of(name), administered=administered)
    return Existing(rows[0][0], frozenset(row[1] for row in rows if row[1] is not None))


def _check(name: str, admin: str, *, ours: bool, administered: bool) -> None:
    if not ours:
        msg = (
            f'role "{name}" exists on this server and was not made for this Memory: give the claim another name '
            "(its roles' names are a hash of it), or ask the platform team to drop the role if nobody uses it"
        )
        raise CommandError(Code.SCHEMA_CONFLICT, msg)
    if not administered:
        msg = (
            f'role "{name}" exists and "{admin}" may not administer it: use the admin that made it '
            f'(roles belong to the admin that made them), or as a superuser run: GRANT "{name}" TO "{admin}" '
            "WITH ADMIN OPTION;"
        )
        raise CommandError(Code.SCHEMA_CONFLICT, msg)


def ensure(connection: Connection, names: Names) -> None:
    """Makes the roles and memberships that are missing, in the one transaction that it runs in.

    So no role is ever seen without its stamp, wherever a run is killed.

    Raises:
        CommandError: SCHEMA_CONFLICT, see `existing`; nothing is changed then.
    """
    found = existing(connection, names)
    statements: list[sql.Composable] = [
        sql.SQL("CREATE ROLE {role} NOLOGIN;\nCOMMENT ON ROLE {role} IS {stamp}").format(
            role=sql.Identifier(name), stamp=sql.Literal(names.stamp_of(name))
        )
        for name in names.roles
        if name not in found.roles
    ]
    held = _held(connection, names, found.admin)
    wanted = [*memberships(names), *of_the_admin(names, found.admin)]
    statements += [membership.granted() for membership in wanted if membership not in held]
    if statements:
        connection.execute(sql.SQL(";\n").join(statements))


def memberships(names: Names) -> Iterator[Membership]:
    """Gives who of the Memory's roles is in which."""
    yield Membership(names.reader, names.writer, inherit=True, set=False)
    for login in names.logins:
        group = names.writer if "_rw_" in login else names.reader
        yield Membership(group, login, inherit=True, set=False)


def of_the_admin(names: Names, admin: str) -> Iterator[Membership]:
    """Gives what the admin is in."""
    for login in names.logins:
        # Ending a session takes the rights of its role.
        yield Membership(login, admin, inherit=True, set=False)
    # What the admin does as the owner it does by SET ROLE, never by chance.
    yield Membership(names.owner, admin, inherit=False, set=True)


def _held(connection: Connection, names: Names, admin: str) -> set[Membership]:
    """Reads the memberships that this admin granted; the one that came with CREATE ROLE is the superuser's grant."""
    rows = connection.execute(
        """
        SELECT g.rolname, m.rolname, a.inherit_option, a.set_option
        FROM pg_auth_members a
        JOIN pg_roles g ON g.oid = a.roleid
        JOIN pg_roles m ON m.oid = a.member
        JOIN pg_roles grantor ON grantor.oid = a.grantor
        WHERE g.rolname = ANY(%s) AND grantor.rolname = %s
        """,
        [list(names.roles), admin],
    ).fetchall()
    return {Membership(*row) for row in rows}


def _boolean(value: bool) -> sql.SQL:
    return sql.SQL("TRUE") if value else sql.SQL("FALSE")
