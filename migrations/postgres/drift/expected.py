"""What a home's schema should be: what its files make of an empty one, on this very server, and undone at once."""

import json
import re
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from psycopg import sql

from migrations.postgres import grants, policies, runner
from migrations.postgres.connection import Connection
from migrations.postgres.drift import catalog
from migrations.postgres.drift.catalog import Item
from migrations.postgres.maintenance import partitions
from migrations.postgres.sqlfile import File
from migrations.postgres.values import Values

# Roles in rights, whatever they are called; "" is PUBLIC.
OWNER, WRITER, READER, PUBLIC = "owner", "writer", "reader", ""

# Words that stand for the names of one home in what is kept. No schema of a home can begin with memory_.
_SCHEMA, _OWNER, _WRITER, _READER, _DATASET = (
    f"memory_drift_{name}" for name in ("schema", "owner", "writer", "reader", "dataset")
)
_CONCURRENTLY = re.compile(r"\bCONCURRENTLY\b", re.IGNORECASE)
_KEPT = 64

_known: dict[tuple[object, ...], str] = {}
_guard = threading.Lock()


@dataclass(frozen=True)
class Wanted:
    """All that the expected state depends on, besides the names in it.

    Attributes:
        values: The home's own.
        files: What was applied, in the order of its modules.
        server: The server's version as a number: it words definitions in its own way.
        shared: Whether Memories share the schema.
        by_owner: Whether it is the owner role that may create a schema in the database, and not the admin.
    """

    values: Values
    files: tuple[File, ...]
    server: int
    shared: bool
    by_owner: bool

    @property
    def key(self) -> tuple[object, ...]:
        """What is the same for all homes that should be the same."""
        values = self.values
        embeddings = values.embeddings.model_dump_json() if values.embeddings else ""
        checksums = tuple(file.sha256 for file in self.files)
        return (self.server, self.shared, values.search_config, values.extension_schema, embeddings, checksums)


def read(connection: Connection, wanted: Wanted, quoted_schema: str) -> list[Item]:
    """Gives what the schema should hold, in its names; grantees of rights are OWNER, WRITER, READER and PUBLIC.

    Args:
        connection: As the admin, with nothing but pg_catalog on the search path.
        wanted: What the state depends on.
        quoted_schema: The schema as the server quotes it where it must be.
    """
    text = _known.get(wanted.key)
    if text is None:
        # Sessions that try out at once must not wait for each other.
        scratch = f"{_SCHEMA}_{connection.info.backend_pid}"
        values = replace(wanted.values, schema=scratch, dataset=_DATASET)
        text = _text(_try_out(connection, replace(wanted, values=values)), values)
        with _guard:
            if len(_known) >= _KEPT:
                _known.clear()
            _known[wanted.key] = text
    values = wanted.values
    for token, name in (
        (f'\\"{_SCHEMA}\\"', f'\\"{values.schema}\\"'),
        (f"'{_SCHEMA}'", f"'{values.schema}'"),
        (_SCHEMA, json.dumps(quoted_schema)[1:-1]),
        (_DATASET, values.dataset),
        (_OWNER, values.names.owner),
        (_WRITER, values.names.writer),
        (_READER, values.names.reader),
    ):
        text = text.replace(token, name)
    return [Item(**item) for item in json.loads(text)]


def _text(items: Sequence[Item], values: Values) -> str:
    """Gives the items as text with the words for names, and only the rights of whom they should be.

    Partitions come and go: DEFAULT shows how they should be.
    """
    names = values.names
    passing = {item.relation for item in items if item.facts.get("parent")} - {partitions.DEFAULT}
    tokens = {names.owner: OWNER, names.writer: WRITER, names.reader: READER, "": PUBLIC}
    kept = []
    for item in items:
        if item.relation in passing:
            continue
        facts = dict(item.facts)
        if "grantee" in facts:
            if facts["grantee"] not in tokens:
                continue
            facts["grantee"] = tokens[facts["grantee"]]
            item = Item(item.kind, item.relation, facts["grantee"], facts)  # noqa: PLW2901  the same one, renamed
        kept.append(asdict(item))
    text = json.dumps(kept)
    for name, token in (
        (values.schema, _SCHEMA),
        (names.owner, _OWNER),
        (names.writer, _WRITER),
        (names.reader, _READER),
    ):
        text = text.replace(name, token)
    return text


def _try_out(connection: Connection, wanted: Wanted) -> list[Item]:
    values, names = wanted.values, wanted.values.names
    scratch, owner = sql.Identifier(values.schema), sql.Identifier(names.owner)
    with connection.transaction(force_rollback=True):
        create = sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(scratch, owner)
        become = sql.SQL("SET LOCAL ROLE {}").format(owner)
        steps: list[sql.Composable] = [become, create] if wanted.by_owner else [create, become]
        path = [sql.Identifier(name) for name in (values.schema, values.extension_schema) if name]
        steps.append(sql.SQL("SET LOCAL search_path = {}").format(sql.SQL(", ").join(path)))
        steps.append(sql.SQL("SET LOCAL client_min_messages = error"))
        connection.execute(sql.SQL(";\n").join(steps))
        _forget_defaults(connection, names.owner)
        runner.history(connection, values.schema)
        for file in wanted.files:
            # Nobody else sees the schema, and inside a transaction an index cannot be built concurrently.
            once = File(file.module, file.version, file.name, _CONCURRENTLY.sub("", file.text)) if file.alone else file
            connection.execute(once.render(values.placeholders()))
        if wanted.shared:
            for statement in policies.repairs(connection, values.schema, names, values.dataset):
                connection.execute(statement)
        grants.repair(connection, values.schema, names, shared=wanted.shared)
        connection.execute("SET LOCAL search_path = pg_catalog")
        return catalog.read(connection, values.schema, names.owner, grants.READ_MARK)


def _forget_defaults(connection: Connection, owner: str) -> None:
    """Takes away, for the moment, the owner's default privileges: what somebody changed there is not expected."""
    kinds = {"r": "TABLES", "S": "SEQUENCES", "f": "ROUTINES", "T": "TYPES"}
    rows = connection.execute(
        """
        SELECT d.defaclobjtype::text, CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END
        FROM pg_default_acl d CROSS JOIN aclexplode(d.defaclacl) a
        WHERE d.defaclrole = %s::regrole AND d.defaclnamespace = 0
        """,
        [f'"{owner}"'],
    ).fetchall()
    for kind, grantee in rows:
        if kind in kinds and grantee != owner:
            statement = sql.SQL("ALTER DEFAULT PRIVILEGES REVOKE ALL ON {} FROM {}")
            who = sql.Identifier(grantee) if grantee else sql.SQL("PUBLIC")
            connection.execute(statement.format(sql.SQL(kinds[kind]), who))
    for kind in kinds.values():
        statement = sql.SQL("ALTER DEFAULT PRIVILEGES GRANT ALL ON {} TO {}")
        connection.execute(statement.format(sql.SQL(kind), sql.Identifier(owner)))
