"""Drift: each kind is found and named, nothing is changed but by repair, and that changes nothing else."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from psycopg import sql

from migrations.deadline import Deadline
from migrations.postgres.connection import Admin
from migrations.postgres.maintenance import drift, places
from migrations.postgres.maintenance.differences import Difference
from migrations.postgres.maintenance.places import Work
from migrations.request import MaintainRequest, parse
from tests.datamodel.homes import provision
from tests.migrations.documents import Memory
from tests.migrations.snapshot import snapshot
from tests.postgres import Postgres


@contextmanager
def at_work(memory: Memory) -> Iterator[Work]:
    """Gives a Memory's place to look after, as a run of maintenance does."""
    request = parse(memory.maintain_document(), MaintainRequest)
    login = memory.database.server.admin
    admin = Admin(request.provider, login.username, login.password, None)
    with admin.connect() as connection:
        [place] = places.read(connection, request)
    with admin.connect(place.database) as connection:
        yield Work(connection, admin, place, request, Deadline.in_seconds(60))


def found(memory: Memory) -> list[str]:
    """What a run would report, with the hash of the Memory's roles left out."""
    with at_work(memory) as work:
        return said(memory, drift.find(work))


def said(memory: Memory, differences: list[Difference]) -> list[str]:
    return [str(each).replace(memory.prefix, "mem") for each in differences]


def repaired(memory: Memory) -> list[str]:
    """What is left after a repair."""
    with at_work(memory) as work:
        return said(memory, drift.repair(work, drift.find(work)))


def damage(memory: Memory, statements: str) -> None:
    """Changes the home as its owner, or as whoever the statements become (`RESET ROLE` is the superuser)."""
    roles = {part: sql.Identifier(f"{memory.prefix}_{part}") for part in ("owner", "writer", "reader", "rw_a", "ro_a")}
    text = sql.SQL(statements).format(**roles, database=sql.Identifier(memory.home.name))
    with memory.home.superuser() as connection:
        connection.execute(sql.SQL("SET ROLE {}; SET search_path = notes, public").format(roles["owner"]))
        connection.execute(text)


@pytest.fixture(scope="session")
def homes(postgres_servers: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Postgres], Memory]]:
    """Gives one home with some rows for all tests of a version: each leaves it as it was."""
    del postgres_servers
    made: dict[int, Memory] = {}
    with ExitStack() as stack:

        def home(postgres: Postgres) -> Memory:
            if postgres.version not in made:
                database = stack.enter_context(postgres.database())
                memory = Memory(database, reader_password="may-read")
                provision(memory, tmp_path_factory.mktemp("drift") / "request")
                with memory.connect() as connection:
                    connection.execute("SELECT memory_put('notes', 'k', '{\"a\": 1}')")
                    connection.execute("SELECT memory_append('notes', 'said', '1')")
                    connection.execute("SELECT memory_upsert_embedding('notes', 'k', '[1,2,3]', 'some words')")
                made[postgres.version] = memory
            return made[postgres.version]

        yield home


@pytest.fixture
def any_home(postgres: Postgres, homes: Callable[[Postgres], Memory]) -> Memory:
    return homes(postgres)


@pytest.fixture
def home(postgres18: Postgres, homes: Callable[[Postgres], Memory]) -> Memory:
    return homes(postgres18)


@dataclasses.dataclass(frozen=True)
class Case:
    """Somebody's statements, and what is said of them."""

    statements: str
    sentences: tuple[str, ...]

    def __init__(self, statements: str, *sentences: str) -> None:
        object.__setattr__(self, "statements", statements)
        object.__setattr__(self, "sentences", sentences)


# As the issue names them.
KINDS = {
    "dropped index": Case("DROP INDEX memory_embeddings_tsv_idx", "index memory_embeddings_tsv_idx is missing"),
    "added column": Case("ALTER TABLE memory_kv ADD extra int", "column memory_kv.extra is not of this version"),
    "changed grant": Case("REVOKE INSERT ON memory_kv FROM {writer}", "writer group lacks INSERT on memory_kv"),
    "disabled trigger": Case(
        "ALTER TABLE memory_kv DISABLE TRIGGER memory_kv_hold", "trigger memory_kv_hold on memory_kv is disabled"
    ),
    "altered type": Case(
        "ALTER TABLE memory_kv ALTER value TYPE text", "column memory_kv.value is text instead of jsonb"
    ),
    "edited function": Case(
        "CREATE OR REPLACE FUNCTION memory_delete_embedding(p_dataset text, p_key text) RETURNS int LANGUAGE sql"
        " AS 'SELECT 1'",
        "function memory_delete_embedding(text,text) was edited",
    ),
    "wrong owner": Case(
        "RESET ROLE; ALTER TABLE notes.memory_kv OWNER TO memory_admin",
        'table memory_kv belongs to "memory_admin" instead of "mem_owner"',
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_and_named_and_nothing_is_changed_but_by_repair(any_home: Memory, kind: str) -> None:
    check(any_home, KINDS[kind])


def catalog(memory: Memory) -> dict[str, list[str]]:
    """The home without what PostgreSQL keeps of columns that are gone."""
    return {name: [row for row in rows if "pg.dropped" not in row] for name, rows in snapshot(memory).items()}


def check(memory: Memory, case: Case) -> None:
    before = catalog(memory)
    assert found(memory) == []
    damage(memory, case.statements)
    damaged = catalog(memory)
    assert found(memory) == sorted(case.sentences)
    assert found(memory) == sorted(case.sentences), "the same words again"
    assert catalog(memory) == damaged, "a look changes nothing"
    assert repaired(memory) == []
    assert catalog(memory) == before, "and nothing else was changed"
