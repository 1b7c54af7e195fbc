"""Row-level security of a shared schema: each Memory's groups see the rows of its dataset, by a literal.

A literal and never a setting: anyone can SET a setting, and one would keep the planner from pruning partitions. Never
FORCE: maintenance and pg_dump work as the owner. What has no policy denies: the history, partitions, what came since.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from psycopg import sql

from migrations.postgres.connection import Connection
from migrations.postgres.grants import READ_ONLY
from migrations.postgres.names import Names

# Readers and writers ask for locks that these wait behind, so not for long; the step is tried again.
LOCK_TIMEOUT = "1s"
SELECT, ALL = "r", "*"
_COMMANDS = {SELECT: "SELECT", ALL: "ALL"}


@dataclass(frozen=True)
class Policy:
    """One policy as the catalog shows it: `check` is None where the command writes nothing."""

    name: str
    command: str
    roles: tuple[str, ...]
    permissive: bool
    using: str | None
    check: str | None

    @property
    def is_another_memorys(self) -> bool:
        """Whether it has the form of ours: another Memory's policy is repaired by that Memory's own run."""
        return self.permissive and self.roles == (self.name,) and self.name.startswith("mem_")


@dataclass(frozen=True)
class Table:
    """A table of the shared schema; `holds_rows` of datasets, and is no partition, which is read by its parent."""

    name: str
    enabled: bool
    forced: bool
    holds_rows: bool
    policies: tuple[Policy, ...]


def tables(connection: Connection, schema: str, owner: str) -> list[Table]:
    """Reads what the owner has in the schema."""
    rows = connection.execute(
        """
        SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
               NOT c.relispartition AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid
                                                AND a.attname = 'dataset' AND NOT a.attisdropped),
               p.polname, p.polcmd::text, ARRAY(SELECT coalesce(r.rolname, 'public') FROM unnest(p.polroles) each (oid)
                                          LEFT JOIN pg_roles r ON r.oid = each.oid ORDER BY 1),
               p.polpermissive, pg_get_expr(p.polqual, c.oid), pg_get_expr(p.polwithcheck, c.oid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_policy p ON p.polrelid = c.oid
        WHERE n.nspname = %s AND c.relowner = %s::regrole AND c.relkind IN ('r', 'p')
        ORDER BY c.relname, p.polname
        """,
        [schema, f'"{owner}"'],
    ).fetchall()
    found: dict[str, Table] = {}
    for name, enabled, forced, holds_rows, policy, command, roles, *rest in rows:
        before = found[name].policies if name in found else ()
        added = () if policy is None else (Policy(policy, command, tuple(roles), *rest),)
        found[name] = Table(name, enabled, forced, holds_rows, (*before, *added))
    return list(found.values())


def wanted(table: Table, names: Names, dataset: str) -> tuple[Policy, ...]:
    """Gives the policies that a Memory has on a table; its groups do not write the registry."""
    if not table.holds_rows:
        return ()
    own = f"(dataset = '{dataset}'::text)"
    reading = Policy(names.reader, SELECT, (names.reader,), permissive=True, using=own, check=None)
    writing = Policy(names.writer, ALL, (names.writer,), permissive=True, using=own, check=own)
    return (reading,) if table.name in READ_ONLY else (reading, writing)


def repairs(connection: Connection, schema: str, names: Names, dataset: str) -> Iterator[sql.Composed]:
    """Gives, for each table whose policies differ from what they should be, what the owner executes in a transaction.

    Where nothing differs there is nothing, so nobody waits.
    """
    for table in tables(connection, schema, names.owner):
        statements = list(_statements(schema, table, names, dataset))
        if statements:
            timeout = sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT))
            yield sql.SQL(";\n").join([timeout, *statements])


def _statements(schema: str, table: Table, names: Names, dataset: str) -> Iterator[sql.Composable]:
    at = sql.Identifier(schema, table.name)
    if not table.enabled:
        yield sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(at)
    if table.forced:
        yield sql.SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(at)
    own = wanted(table, names, dataset)
    for policy in _surplus(table, own, names):
        yield sql.SQL("DROP POLICY {} ON {}").format(sql.Identifier(policy.name), at)
    for policy in own:
        if policy not in table.policies:
            yield _create(policy, at, dataset)


def _create(policy: Policy, at: sql.Identifier, dataset: str) -> sql.Composable:
    check = sql.SQL(" WITH CHECK (dataset = {})").format(sql.Literal(dataset)) if policy.check else sql.SQL("")
    return sql.SQL("CREATE POLICY {name} ON {at} FOR {command} TO {name} USING (dataset = {dataset}){check}").format(
        name=sql.Identifier(policy.name),
        at=at,
        command=sql.SQL(_COMMANDS[policy.command]),
        dataset=sql.Literal(dataset),
        check=check,
    )


def _surplus(table: Table, own: tuple[Policy, ...], names: Names) -> list[Policy]:
    """Gives the policies that open more than they should: none of ours, and none of another Memory's form."""
    return [
        policy
        for policy in table.policies
        if policy not in own and not (table.holds_rows and policy.is_another_memorys and policy.name not in names.roles)
    ]


def withdraw(connection: Connection, schema: str, table: Table, names: Names) -> None:
    """Drops a Memory's policies on a table, in the one transaction that it runs in, as the owner."""
    at = sql.Identifier(schema, table.name)
    drops = [
        sql.SQL("DROP POLICY {} ON {}").format(sql.Identifier(policy.name), at)
        for policy in table.policies
        if set(policy.roles) & set(names.own)
    ]
    if drops:
        connection.execute(sql.SQL(";\n").join(drops))


def differences(connection: Connection, schema: str, names: Names, dataset: str) -> list[str]:
    """Gives a sentence for each policy that is missing or too much, and each table without row-level security."""
    memories = {"": (names, dataset)}
    return [sentence for _, sentence in differences_of(tables(connection, schema, names.owner), memories)]


def differences_of(tables: Iterable[Table], memories: Mapping[str, tuple[Names, str]]) -> Iterator[tuple[str, str]]:
    """As `differences`, for many Memories, in tables that have been read.

    Args:
        tables: Those of the shared schema.
        memories: Names and dataset of each, by any key.

    Yields:
        The key of the Memory whose policy it is, "" when it is none's, and the sentence.
    """
    whose = {role: key for key, (names, _) in memories.items() for role in names.own}
    for table in tables:
        if not table.enabled:
            yield "", f"row-level security is off on {table.name}"
        if table.forced:
            yield "", f"row-level security is forced on {table.name}: maintenance by its owner would see nothing"
        own = {policy: key for key, memory in memories.items() for policy in wanted(table, *memory)}
        there = set(table.policies)
        for policy, key in own.items():
            if policy not in there:
                yield key, f"policy {policy.name} is missing on {table.name}"
        for policy in table.policies:
            others = table.holds_rows and policy.is_another_memorys and policy.name not in whose
            if policy not in own and not others:
                yield whose.get(policy.name, ""), f"policy {policy.name} on {table.name} is not ours"
