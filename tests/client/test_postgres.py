"""What the client does on PostgreSQL besides: many rows at once in every isolation, TLS, connections that break."""

import functools
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import psycopg
import pytest

from memory_client import (
    AccessDenied,
    BindingError,
    DimensionMismatch,
    Embedding,
    Memory,
    MemoryClientError,
    Unavailable,
    VersionConflict,
    binding,
)
from memory_client.stores import pool, postgres
from memory_client.stores.postgres import PostgresStore
from tests.client.backends import entries, mount
from tests.client.conformance import until
from tests.datamodel.homes import provision
from tests.migrations.documents import Memory as Document
from tests.migrations.test_tls import authority
from tests.postgres import Connection, Database, Postgres, Servers

__all__ = ["authority"]  # a fixture


def opened(
    document: Document, folder: Path, values: Mapping[str, str] = MappingProxyType({}), *, by_reader: bool = False
) -> PostgresStore:
    """Opens a store with what is mounted; `values` are put in place of the binding's."""
    login = document.reader if by_reader else document.writer
    directory = mount(folder, entries(document, login, document.dataset) | dict(values))
    return PostgresStore(binding.read(directory), timeout=5, connections=2)


@pytest.fixture(scope="module")
def document(postgres_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Document]:
    """One Memory for all tests that leave it as it is."""
    with postgres_servers.get(18).database() as database:
        made = Document(database, reader_password="reader-password")
        provision(made, tmp_path_factory.mktemp("home") / "request")
        yield made


@pytest.fixture
def store(document: Document, tmp_path: Path) -> Iterator[PostgresStore]:
    with closing(opened(document, tmp_path / "binding")) as store:
        yield store


def sessions(database: Database) -> list[int]:
    """Gives the process ids of the client's sessions."""
    with database.superuser() as superuser:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'memory-client' AND datname = %s"
        return [pid for (pid,) in superuser.execute(query, [database.name])]


class TestMany:
    @pytest.fixture(params=["Schema", "Dataset", "Database", "Schema half", "Dataset half"])
    def memory(self, postgres18: Postgres, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Document]:
        """A Memory in each isolation, or with vectors of 16 bits; of a shared schema with another one beside it."""
        isolation, _, half = request.param.partition(" ")
        with postgres18.database() as database:
            made = Document(database, provider={"isolation": isolation}, embeddings={"storage": half or "full"})
            provision(made, tmp_path / "request")
            if isolation == "Dataset":
                beside = made.but(identity="team-b/notes", dataset="theirs", uid="uid-2")
                provision(beside, tmp_path / "beside")
                with closing(opened(beside, tmp_path / "other")) as store:
                    store.upsert([Embedding(f"key-{n}", [0.5, 0.5, 0.5], "theirs") for n in range(10)])
            yield made
            if isolation == "Database":
                with database.superuser() as superuser:
                    superuser.execute(f'DROP DATABASE "{made.home.name}" WITH (FORCE)')

    def test_new_ones_and_others_in_every_isolation(
        self, memory: Document, postgres18: Postgres, tmp_path: Path
    ) -> None:
        before = len(postgres18.statements())
        with closing(opened(memory, tmp_path / "binding")) as store:
            vectors = np.random.default_rng(17).standard_normal((1500, 3))
            first = [Embedding(f"key-{n}", vector, f"text {n}", {"n": n}) for n, vector in enumerate(vectors[:1000])]
            assert store.upsert(first) == 1000
            assert store.upsert(Embedding(f"key-{n}", v, "new", {"n": n}) for n, v in enumerate(vectors)) == 1500
            assert store.upsert([Embedding(f"more-{n}", vectors[n], ttl=3600) for n in range(100)]) == 100
            assert store.status().embeddings == 1600
            for number in (0, 999, 1499):
                [hit] = store.search(vectors[number], query=None, limit=1, where={"n": number})
                assert (hit.key, hit.content) == (f"key-{number}", "new")
                assert hit.distance == pytest.approx(0, abs=1e-3)
            privilege = "SELECT has_database_privilege(current_database(), 'TEMPORARY')"
            temporary = store._run(lambda connection: connection.execute(privilege).fetchone())
            assert temporary == (memory.isolation != "Database",), "so a staging table would not do"
        copied = "COPY" in postgres18.statements()[before:]
        assert copied is (memory.isolation != "Dataset"), "COPY is refused where row-level security is on"
        with memory.home.superuser() as superuser:
            table = f"{memory.schema}.memory_embeddings"
            rows = superuser.execute(
                f"SELECT key LIKE 'more-%', count(*), count(expires_at), bool_and(created_at < updated_at)"
                f" FROM {table} WHERE dataset = %s AND (key LIKE 'more-%%' OR (metadata -> 'n')::int < 1000)"
                " GROUP BY 1 ORDER BY 1".replace("LIKE 'more-%'", "LIKE 'more-%%'", 1),
                [memory.dataset],
            ).fetchall()
            assert rows == [(False, 1000, 0, True), (True, 100, 100, False)]
            [(least,)] = superuser.execute(
                f"SELECT min(extract(epoch FROM expires_at - created_at)) FROM {table} WHERE dataset = %s",
                [memory.dataset],
            ).fetchall()
            assert float(least) == pytest.approx(3600, abs=5)


def test_those_who_store_the_same_do_not_wait_crosswise(store: PostgresStore) -> None:
    keys = [f"same-{number}" for number in range(300)]

    def load(number: int) -> int:
        ordered = keys if number % 2 else keys[::-1]
        return store.upsert([Embedding(key, [1, 1, number]) for key in ordered])

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(load, range(12))) == [300] * 12


def test_batches_grow_while_they_are_quick(store: PostgresStore) -> None:
    first = store._batch
    store._pace(postgres.QUICK / 2)
    assert store._batch == 2 * first
    store._pace((postgres.QUICK + postgres.SLOW) / 2)
    assert store._batch == 2 * first
    store._pace(postgres.SLOW * 2)
    assert store._batch == first
    for _ in range(50):
        store._pace(postgres.SLOW * 2)
    assert store._batch == 1


def test_what_was_in_the_way_is_tried_again(store: PostgresStore) -> None:
    raised: list[str] = []

    def work(connection: Connection, times: int, state: str) -> int:
        if len(raised) < times:
            raised.append(state)
            connection.execute(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")
        return len(raised)

    for state in postgres.TRANSIENT:
        raised.clear()
        assert store._run(functools.partial(work, times=3, state=state)) == 3
        raised.clear()
        with pytest.raises(MemoryClientError, match=state):
            store._run(functools.partial(work, times=100, state=state))
        assert len(raised) == postgres.TRIES


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT 1 / 0", ValueError),
        ("SELECT * FROM nothing", MemoryClientError),
        ("SET statement_timeout = 10; SELECT pg_sleep(10)", Unavailable),
        ("DELETE FROM notes.memory_datasets", AccessDenied),
    ],
)
def test_errors_have_types(store: PostgresStore, statement: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        store._run(lambda connection: connection.execute(statement))


def test_a_reader_reads(document: Document, store: PostgresStore, tmp_path: Path) -> None:
    store.put("read", "me", expected_version=None, ttl=None)
    with closing(opened(document, tmp_path / "reader", by_reader=True)) as reader:
        found = reader.get("read")
        assert found is not None
        assert found.value == "me"
        assert reader.capabilities == store.capabilities
        with pytest.raises(AccessDenied, match=f"{document.prefix}_ro_a is refused: permission denied"):
            reader.put("read", "you", expected_version=None, ttl=None)
        with pytest.raises(AccessDenied):
            reader.upsert([Embedding("key", [1, 0, 0])])


def test_the_dataset_is_asked_for_where_the_binding_does_not_tell(document: Document, tmp_path: Path) -> None:
    with closing(opened(document, tmp_path / "without", {"dataset": ""})) as store:
        assert store.append("message", 1, event_id=None, source="").id
    with closing(opened(document, tmp_path / "wrong", {"dataset": "theirs"})) as store:
        with pytest.raises(AccessDenied, match="'theirs' is not one of this Memory"):
            store.get("key")
        with pytest.raises(BindingError, match='should have dataset "theirs", and has none that this login sees'):
            store.upsert([Embedding("key", [1, 0, 0])])


@pytest.mark.parametrize(
    "values",
    [{"password": "wrong"}, {"username": "nobody"}, {"database": "nothing"}],
    ids=lambda each: next(iter(each)),
)
def test_a_login_that_is_refused_is_told_at_once(document: Document, tmp_path: Path, values: dict[str, str]) -> None:
    begin = time.monotonic()
    with closing(opened(document, tmp_path / "wrong", values)) as store, pytest.raises(AccessDenied, match="refuses"):
        store.get("key")
    assert time.monotonic() - begin < 3


class TestDimension:
    @pytest.fixture
    def changed(self, database: Database, tmp_path: Path) -> Iterator[PostgresStore]:
        """A store that knew the Memory with 3 dimensions, and now it has 4, which is possible while it is empty."""
        before = Document(database)
        provision(before, tmp_path / "request")
        with closing(opened(before, tmp_path / "binding")) as store:
            assert store.search([1, 0, 0], query=None, limit=1, where=None) == []
            provision(before.but(embeddings={"dimension": 4}), tmp_path / "again")
            yield store

    def test_the_client_goes_on_with_the_new_one(self, changed: PostgresStore) -> None:
        assert changed.upsert([Embedding("key", [1, 0, 0, 0])]) == 1
        assert len(changed.search([1, 0, 0, 0], query=None, limit=1, where=None)) == 1

    def test_a_search_goes_on_with_the_new_one(self, changed: PostgresStore) -> None:
        assert changed.search([1, 0, 0, 0], query=None, limit=1, where=None) == []

    def test_the_old_one_is_refused_by_name(self, changed: PostgresStore) -> None:
        for call in (
            lambda: changed.upsert([Embedding("key", [1, 0, 0])]),
            lambda: changed.search([1, 0, 0], query=None, limit=1, where=None),
        ):
            changed._known = None
            with pytest.raises(DimensionMismatch) as mismatch:
                call()
            assert (mismatch.value.expected, mismatch.value.given) == (4, 3)

    def test_the_server_may_be_the_first_to_know(self, changed: PostgresStore) -> None:
        with pytest.raises(DimensionMismatch) as mismatch:
            changed.upsert([Embedding("key", [1, 0, 0])])
        assert (mismatch.value.expected, mismatch.value.given) == (4, 3)


class TestConnections:
    def test_an_unused_one_that_the_server_ended_is_not_used(self, store: PostgresStore, document: Document) -> None:
        store.put("key", 1, expected_version=None, ttl=None)
        for pid in sessions(document.database):
            with document.database.superuser() as superuser:
                superuser.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        assert store.put("key", 2, expected_version=1, ttl=None) == 2

    def test_one_that_breaks_in_the_middle_is_unavailable_and_not_kept(
        self, store: PostgresStore, document: Document
    ) -> None:
        def work(connection: Connection) -> None:
            with document.database.superuser() as superuser:
                superuser.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
            connection.execute("SELECT 1")

        with pytest.raises(Unavailable):
            store._run(work)
        assert store.get("nothing") is None

    def test_a_server_that_says_nothing_is_unavailable_in_time(self, document: Document, tmp_path: Path) -> None:
        directory = mount(tmp_path / "binding", entries(document, document.writer, document.dataset))
        with closing(PostgresStore(binding.read(directory), timeout=1, connections=2)) as store:
            store.get("nothing")
            [pid] = sessions(document.database)
            os.kill(pid, signal.SIGSTOP)
            try:
                begin = time.monotonic()
                with pytest.raises(Unavailable, match="no answer within 1 s"):
                    store.get("nothing")
                assert time.monotonic() - begin < 3
                assert store.get("nothing") is None, "on another connection"
            finally:
                os.kill(pid, signal.SIGCONT)

    def test_one_is_enough_for_everything(self, document: Document, tmp_path: Path) -> None:
        directory = mount(tmp_path / "binding", entries(document, document.writer, document.dataset) | {"dataset": ""})
        with Memory.from_binding(directory, timeout=5, connections=1) as memory:
            assert memory.embeddings.upsert(Embedding(f"enough-{n}", [1, 1, n]) for n in range(10)) == 10
            with pytest.raises(VersionConflict):
                memory.kv.put("enough", 1, expected_version=7)
            with pytest.raises(DimensionMismatch):
                memory.embeddings.upsert("enough", [1, 1])
            assert memory.embeddings.search([1, 1, 0], query="nothing")
            assert memory.status().embeddings
            assert len(sessions(document.database)) == 1

    def test_who_finds_all_in_use_waits_and_is_told(self, document: Document, tmp_path: Path) -> None:
        directory = mount(tmp_path / "binding", entries(document, document.writer, document.dataset))
        with closing(PostgresStore(binding.read(directory), timeout=0.3, connections=1)) as store:
            with store._pool.connection(), pytest.raises(Unavailable, match=r"1 connections were in use for 0.3 s"):
                store.get("nothing")
            with ThreadPoolExecutor(4) as threads:
                assert list(threads.map(store.get, ["nothing"] * 20)) == [None] * 20
            assert len(sessions(document.database)) == 1

    def test_one_that_nobody_uses_is_closed(
        self, store: PostgresStore, document: Document, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both = threading.Barrier(2)

        def work(connection: Connection) -> None:
            both.wait(10)
            connection.execute("SELECT 1")

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(store._run, [work, work]))
        assert len(sessions(document.database)) == 2
        monkeypatch.setattr(pool, "MAX_IDLE", -1.0)
        store.get("key")
        until(lambda: sessions(document.database) == [])

    def test_one_that_is_in_use_when_the_store_is_closed_is_closed_after_it(
        self, store: PostgresStore, document: Document
    ) -> None:
        def work(connection: Connection) -> Any:
            store.close()
            return connection.execute("SELECT 1").fetchone()

        assert store._run(work) == (1,)
        until(lambda: sessions(document.database) == [])

    def test_a_child_process_makes_its_own(self, store: PostgresStore, document: Document) -> None:
        store.put("forked", 1, expected_version=None, ttl=None)
        child = os.fork()
        if child == 0:
            there = store.get("forked")
            store.close()
            os._exit(0 if there and there.value == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert store.get("forked") is not None
        assert len(sessions(document.database)) == 1


class TestTls:
    @pytest.fixture
    def secured(self, postgres_servers: Servers, authority: Path, tmp_path: Path) -> Iterator[Document]:
        """A Memory on a server that proves itself; PostgreSQL 17, for the wheels' servers speak no TLS."""
        postgres17 = postgres_servers.get(17)
        data = postgres17.server.data
        for name in ("server.crt", "server.key"):
            shutil.copy(authority / name, data / name)
            os.chown(data / name, data.stat().st_uid, data.stat().st_gid)
            (data / name).chmod(0o600)
        with postgres17.database() as database, database.superuser() as connection:
            connection.execute("ALTER SYSTEM SET ssl = on")
            connection.execute("SELECT pg_reload_conf(), pg_sleep(0.2)")
            made = Document(database)
            provision(made, tmp_path / "request")
            yield made
            connection.execute("ALTER SYSTEM RESET ssl")
            connection.execute("SELECT pg_reload_conf()")

    def test_the_server_is_verified_by_the_bindings_ca(
        self, secured: Document, authority: Path, tmp_path: Path
    ) -> None:
        values = {"sslmode": "verify-full", "ca.crt": (authority / "ca.crt").read_text(), "uri": ""}
        with closing(opened(secured, tmp_path / "binding", values)) as store:

            def ssl(connection: psycopg.Connection[Any]) -> Any:
                return connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()

            assert store._run(ssl) == (True,)
        values["ca.crt"] = (Path(__file__).parents[1] / "function" / "ca.pem").read_text()
        verifying = pytest.raises(Unavailable, match="certificate verify failed")
        with closing(opened(secured, tmp_path / "other", values)) as store, verifying:
            store.get("key")

    def test_without_a_ca_the_uri_says_how(self, document: Document, tmp_path: Path) -> None:
        uri = "postgresql://user:password@host/db?sslmode=verify-full&sslrootcert=system"
        mount(tmp_path / "binding", entries(document, document.writer, "notes") | {"uri": uri})
        tls = postgres._tls(binding.read(tmp_path / "binding"))
        assert tls == {"sslmode": "verify-full", "sslrootcert": "system"}


def test_a_cursor_of_something_else_gets_a_sentence(store: PostgresStore) -> None:
    for wrong in ("", "2026-01-01", "yesterday/17", "2026-01-01T00:00:00+00:00/17"):
        with pytest.raises(ValueError, match="give the cursor of an event"):
            store.read(limit=1, before=wrong, event_type=None)


def test_an_index_is_told_of(database: Database, tmp_path: Path) -> None:
    document = Document(database)
    provision(document, tmp_path / "request")
    directory = mount(tmp_path / "binding", entries(document, document.writer, "notes"))
    with Memory.from_binding(directory) as memory:
        assert memory.capabilities.vector_search == "exact"
        with database.superuser() as superuser:
            superuser.execute("UPDATE notes.memory_datasets SET index_state = 'ready'")
        assert memory.capabilities.vector_search == "exact", "as it was when it was first asked for"
        assert memory.status().index == "ready"
    with Memory.from_binding(directory) as memory:
        assert memory.capabilities.vector_search == "indexed"
