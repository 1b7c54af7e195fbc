"""Homes that somebody changes by hand, and what maintenance says of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from psycopg import sql

from memoryctl.embedded import Login
from migrations.deadline import Deadline
from migrations.postgres.connection import Admin
from migrations.postgres.drift import check as drift
from migrations.postgres.drift.differences import Difference
from migrations.postgres.maintenance import places
from migrations.postgres.maintenance.places import Work
from migrations.postgres.names import names_for
from migrations.postgres.request import MaintainRequest
from migrations.request import parse
from tests.migrations.documents import Memory
from tests.migrations.snapshot import snapshot

Catalog = dict[str, list[str]]


def catalog(memory: Memory) -> Catalog:
    """The home without the order of its columns, and what PostgreSQL keeps of those that are gone."""
    return {name: sorted(row for row in rows if "pg.dropped" not in row) for name, rows in snapshot(memory).items()}


@contextmanager
def at_work(memory: Memory, job: Login | None = None) -> Iterator[Work]:
    """Gives a Memory's place to look after, as a run of maintenance does; with a Job's own login under CNPG."""
    only = {"identity": memory.identity, "database": memory.home.name, "schema": memory.schema}
    request = parse(memory.maintain_document(memory=only if job else None), MaintainRequest)
    login = job or memory.database.server.admin
    admin = Admin(request.provider, login.username, login.password, None)
    if job:
        names = names_for(memory.identity, memory.database.name, memory.schema, "Database")
        admin = replace(admin, database=memory.home.name, role=names.owner)
    with admin.connect() as connection:
        [place] = places.read(connection, request)
    with admin.connect(place.database) as connection:
        yield Work(connection, admin, place, request, Deadline.in_seconds(60))


def said(memory: Memory, differences: list[Difference]) -> list[str]:
    return [str(each).replace(memory.prefix, "mem") for each in differences]


def damage(memory: Memory, statements: str) -> None:
    """Changes the home as its owner, or as whoever the statements become (`RESET ROLE` is the superuser)."""
    roles = {part: sql.Identifier(f"{memory.prefix}_{part}") for part in ("owner", "writer", "reader", "rw_a", "ro_a")}
    text = sql.SQL(statements).format(**roles, database=sql.Identifier(memory.home.name))
    with memory.home.superuser() as connection:
        connection.execute(sql.SQL("SET ROLE {}; SET search_path = notes, public").format(roles["owner"]))
        connection.execute(text)


def fill(memory: Memory) -> None:
    with memory.connect() as connection:
        connection.execute("SELECT memory_put('notes', 'k', '{\"a\": 1}')")
        connection.execute("SELECT memory_append('notes', 'said', '1')")
        connection.execute("SELECT memory_upsert_embedding('notes', 'k', '[1,2,3]', 'some words')")


def left(memory: Memory, statements: str) -> list[str]:
    """What stays after a repair of what somebody did."""
    damage(memory, statements)
    with at_work(memory) as work:
        return said(memory, drift.repair(work, drift.find(work)))
