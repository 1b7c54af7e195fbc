"""Roles of others that share a Memory's rights (`access.readerRole`, `access.writerRole`): members of its groups.

Which roles a Memory may name is the provider's to say, and the function's to check. What such a role *is* only the
server knows: a list can be wrong, and a role that could log in, or do more than others, must not come in by mistake.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql
from psycopg.types.json import Jsonb

from migrations.errors import Code, CommandError
from migrations.postgres import grants
from migrations.postgres.connection import Connection
from migrations.postgres.names import Names
from migrations.postgres.request import ProvisionRequest
from migrations.postgres.roles import Membership
from migrations.request import Access

# PostgreSQL's own roles, and those of Memories.
RESERVED = re.compile(r"pg_.*|mem_[0-9a-f]{12}_.*")


@dataclass(frozen=True)
class _Role:
    """A role as the server has it; `powers` are the attributes that no group of readers needs."""

    name: str
    login: bool
    powers: list[str]
    ours: bool
    admin: bool


def check(connection: Connection, access: Access) -> None:
    """Refuses a role that is none, or that is more than a group.

    Raises:
        CommandError: PERMISSION_DENIED for what the platform team can mend on the server, BAD_REQUEST for a name that
            can never be meant.
    """
    for field, name in (("readerRole", access.reader_role), ("writerRole", access.writer_role)):
        if name is not None:
            _check(f"access.{field}", name, _read(connection, name))


def _read(connection: Connection, name: str) -> _Role | None:
    row = connection.execute(
        """
        SELECT r.rolname, r.rolcanlogin,
               ARRAY(SELECT a.name
                     FROM (VALUES ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole),
                                  ('CREATEDB', r.rolcreatedb), ('REPLICATION', r.rolreplication),
                                  ('BYPASSRLS', r.rolbypassrls)) a(name, has)
                     WHERE a.has),
               coalesce(shobj_description(r.oid, 'pg_authid'), '') LIKE 'memory:%%', r.rolname = current_user
        FROM pg_roles r WHERE r.rolname = %s
        """,
        [name],
    ).fetchone()
    return _Role(*row) if row else None


def _check(field: str, name: str, role: _Role | None) -> None:
    if RESERVED.fullmatch(name) or (role and (role.ours or role.admin)):
        owner = "the provider's admin" if role and role.admin else "PostgreSQL's own or that of a Memory"
        msg = f'{field}: role "{name}" is {owner}: name a group of the platform team\'s'
        raise CommandError(Code.BAD_REQUEST, msg)
    if role is None:
        msg = (
            f'{field}: there is no role "{name}" on the server: leave it out, or ask the platform team to run '
            f'CREATE ROLE "{name}" NOLOGIN; and then change the annotation memory.proompteng.ai/retry'
        )
        raise CommandError(Code.PERMISSION_DENIED, msg)
    wrong = [*(["LOGIN"] if role.login else []), *role.powers]
    if wrong:
        msg = (
            f'{field}: role "{name}" is {", ".join(wrong)}, and only a group may share a Memory\'s rights: '
            "name a group that its users are members of, or ask the platform team to run "
            f'ALTER ROLE "{name}" {" ".join(f"NO{each}" for each in wrong)};'
        )
        raise CommandError(Code.PERMISSION_DENIED, msg)


def repair(connection: Connection, request: ProvisionRequest, names: Names) -> None:
    """Makes the named roles members, and takes membership from those that we made members before.

    In the one transaction that it runs in: the ledger notes what was granted, so that what a platform team granted by
    its own hand stays.
    """
    check(connection, request.access)
    joining, leaving = differences(connection, request, names)
    statements: list[sql.Composable] = [each.granted() for each in joining]
    statements += [
        sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(group), sql.Identifier(member)) for group, member in leaving
    ]
    if statements:
        connection.execute(sql.SQL(";\n").join(statements))
    granted = {_key(each.group, names): each.member for each in _wanted(request.access, names)}
    if granted != noted_roles(connection, request.home):
        query = "UPDATE memory_ledger.homes SET granted = %s WHERE home = %s"
        connection.execute(query, [Jsonb(granted), request.home])


def differences(
    connection: Connection, request: ProvisionRequest, names: Names
) -> tuple[list[Membership], list[tuple[str, str]]]:
    """Gives the memberships that are missing, and group and member of those that we granted and nobody wants now."""
    wanted = set(_wanted(request.access, names))
    noted = {(group, member) for group, member in noted_roles(connection, request.home).items() if member}
    held = _held(connection, names)
    unwanted = noted - {(_key(each.group, names), each.member) for each in wanted}
    groups = {"writer": names.writer, "reader": names.reader}
    leaving = [
        (groups[group], member)
        for group, member in sorted(unwanted)
        if any((each.group, each.member) == (groups[group], member) for each in held)
    ]
    return sorted(wanted - held, key=str), leaving


def grant(connection: Connection, request: ProvisionRequest, names: Names, extension_schema: str) -> None:
    """As `repair`, where CloudNativePG makes the roles: it undoes memberships, so they get the rights themselves."""
    check(connection, request.access)
    access, schema = request.access, request.dataset.home
    wanted = {"reader": access.reader_role, "writer": access.writer_role}
    noted = noted_roles(connection, request.home)
    for group, role in noted.items():
        # One that is gone from the server has no rights any more.
        if role != wanted.get(group) and _read(connection, role) is not None:
            grants.unshare(connection, schema, names, grants.Guest(role, group == "writer", extension_schema))
    granted = {group: role for group, role in wanted.items() if role}
    for group, role in granted.items():
        grants.share(connection, schema, names, grants.Guest(role, group == "writer", extension_schema))
    if granted != noted:
        query = "UPDATE memory_ledger.homes SET granted = %s WHERE home = %s"
        connection.execute(query, [Jsonb(granted), request.home])


def _wanted(access: Access, names: Names) -> Iterator[Membership]:
    for group, member in ((names.reader, access.reader_role), (names.writer, access.writer_role)):
        if member:
            # They have the rights and never become the group: what they make is theirs, not the Memory's.
            yield Membership(group, member, inherit=True, set=False)


def _key(group: str, names: Names) -> str:
    return "writer" if group == names.writer else "reader"


def noted_roles(connection: Connection, home: str) -> dict[str, str]:
    """Gives the roles of others that we gave the rights of a group, by `reader` and `writer`."""
    row = connection.execute("SELECT granted FROM memory_ledger.homes WHERE home = %s", [home]).fetchone()
    return dict(row[0]) if row else {}


def _held(connection: Connection, names: Names) -> set[Membership]:
    """Memberships in the groups that this admin granted."""
    rows = connection.execute(
        """
        SELECT g.rolname, m.rolname, a.inherit_option, a.set_option
        FROM pg_auth_members a
        JOIN pg_roles g ON g.oid = a.roleid
        JOIN pg_roles m ON m.oid = a.member
        JOIN pg_roles grantor ON grantor.oid = a.grantor
        WHERE g.rolname = ANY(%s) AND grantor.rolname = current_user
        """,
        [[names.writer, names.reader]],
    ).fetchall()
    return {Membership(*row) for row in rows}
