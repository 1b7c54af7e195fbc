"""Role management CNPG on real servers. The test is CloudNativePG: as a superuser it makes what its objects say."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from memoryctl.embedded import Login
from migrations.errors import Code
from tests.migrations.documents import Answer, Command, Memory, verifier
from tests.postgres import Connection, Database

CNPG = {"roleManagement": "CNPG", "isolation": "Database"}
JOB_PASSWORD = "the-jobs-own"


@dataclasses.dataclass
class Operator:
    """Makes roles and the database of one Memory, as the operator's own statements do."""

    memory: Memory
    command: Command

    def execute(self, statement: str, database: Database | None = None, **names: str) -> None:
        values = {name: sql.Identifier(value) for name, value in names.items()}
        with (database or self.memory.database).superuser() as connection:
            connection.execute(sql.SQL(statement).format(**values))

    def role(self, part: str, *groups: str, password: str | None = None) -> None:
        """Applies a DatabaseRole: CREATE ROLE … IN ROLE, or ALTER ROLE and GRANT for one that is there."""
        name = f"{self.memory.prefix}_{part}"
        options = (
            "LOGIN PASSWORD " + sql.Literal(verifier(password)).as_string() if password else "NOLOGIN PASSWORD NULL"
        )
        with self.memory.database.superuser() as connection:
            there = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone()
            verb = "CREATE" if there is None else "ALTER"
            statement = sql.SQL(f"{verb} ROLE {{}} NOCREATEROLE NOCREATEDB NOSUPERUSER INHERIT {options}")
            connection.execute(statement.format(sql.Identifier(name)))
            for group in groups:
                grant = sql.SQL("GRANT {} TO {}")
                connection.execute(grant.format(sql.Identifier(f"{self.memory.prefix}_{group}"), sql.Identifier(name)))

    def make(self) -> None:
        """What is there before the first Job."""
        for group in ("owner", "writer", "reader"):
            self.role(group)
        self.execute("CREATE DATABASE {db} OWNER {o}", db=self.memory.prefix, o=f"{self.memory.prefix}_owner")
        self.extend()
        self.role("rw_a", "writer", password=self.memory.password)
        if self.memory.reader_password:
            self.role("ro_a", "reader", password=self.memory.reader_password)
        self.role("job", "owner", password=JOB_PASSWORD)

    def extend(self) -> None:
        self.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public", self.memory.home)

    def provision(self, memory: Memory | None = None) -> Answer:
        return self.run((memory or self.memory).document())

    def run(self, document: dict[str, Any]) -> Answer:
        """Runs a Job; a document has another verifier of the same password each time that it is made."""
        return self.command.run("provision", document, Login(f"{self.memory.prefix}_job", JOB_PASSWORD))

    def remove(self) -> None:
        prefix = self.memory.prefix
        self.execute("DROP DATABASE IF EXISTS {db} WITH (FORCE)", db=prefix)
        with self.memory.database.superuser() as connection:
            for (name,) in connection.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", [prefix]):
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def operator(any_database: Database, command: Command) -> Iterator[Operator]:
    """On every version, with all made and nothing provisioned."""
    operator = Operator(Memory(any_database, provider=CNPG, reader_password="may-read"), command)
    operator.make()
    try:
        yield operator
    finally:
        operator.remove()


def test_a_job_without_an_admin_makes_a_home_that_an_app_uses(operator: Operator) -> None:
    answer = operator.provision()
    assert answer.code == 0, answer.message
    assert answer.report["verify"] == []
    assert operator.provision().code == 0, "again"
    with operator.memory.connect() as connection:
        connection.execute("SELECT memory_append('notes', 'said', '1')")
        connection.execute("SELECT memory_upsert_embedding('notes', 'k', '[1,2,3]', 'text')")
        assert connection.execute("SELECT key FROM memory_search('notes', '[1,2,3]')").fetchone() == ("k",)


def test_a_job_touches_no_role(operator: Operator) -> None:
    """Not even to look who may be made: all roles are CloudNativePG's."""
    query = "SELECT rolname, rolconfig, rolcanlogin, rolconnlimit FROM pg_roles ORDER BY 1"
    with operator.memory.database.superuser() as connection:
        before = connection.execute(query).fetchall()
        assert operator.provision().code == 0
        assert connection.execute(query).fetchall() == before


def test_the_database_carries_the_settings_of_its_logins(operator: Operator) -> None:
    assert operator.provision().code == 0
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "hnsw.iterative_scan", "search_path")
    with operator.memory.connect() as connection:
        found = [connection.execute(f"SHOW {name}".encode()).fetchone() for name in names]
    assert found == [("30s",), ("1min",), ("relaxed_order",), ("notes, public",)]


def test_a_limit_that_is_taken_back_is_gone(operator: Operator) -> None:
    assert operator.provision().code == 0
    assert operator.provision(operator.memory.but(provider={**CNPG, "statementTimeout": None})).code == 0
    with operator.memory.connect() as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_public_has_nothing_there(operator: Operator) -> None:
    assert operator.provision().code == 0
    other = f"{operator.memory.prefix}_x"
    operator.execute("CREATE ROLE {role} LOGIN PASSWORD 'x'", role=other)
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        operator.memory.home.connect(Login(other, "x"))
    with operator.memory.connect() as connection:
        for refused in ("CREATE TEMPORARY TABLE t (a int)", "CREATE TABLE public.t (a int)", "CREATE TABLE t (a int)"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(refused.encode())


def test_logins_have_their_groups_rights_and_no_more(operator: Operator) -> None:
    assert operator.provision().code == 0
    with operator.memory.connect() as connection:
        connection.execute("SELECT memory_put('notes', 'k', '1')")
        for refused in (
            "TRUNCATE memory_events",
            "SELECT * FROM memory_ledger.homes",
            f"SET ROLE {operator.memory.prefix}_owner",
            "UPDATE memory_datasets SET legal_hold = false",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(refused.encode())
    with operator.memory.home.connect(operator.memory.reader) as connection:
        assert connection.execute("SELECT value FROM memory_get('notes', 'k')").fetchone() == (1,)
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("SELECT memory_put('notes', 'k', '2')")


def test_the_ledger_stands_in_the_database_and_is_the_owners(operator: Operator) -> None:
    assert operator.provision().code == 0
    with operator.memory.home.superuser() as connection:
        [row] = connection.execute(
            "SELECT home, identity, xr_uid, isolation, tableowner FROM memory_ledger.homes, pg_tables"
            " WHERE schemaname = 'memory_ledger' AND tablename = 'homes'"
        ).fetchall()
    prefix = operator.memory.prefix
    assert row == (f"database:{prefix}", "team-a/notes", "uid-1", "Database", f"{prefix}_owner")


def test_a_claim_that_was_made_again_has_to_ask_for_the_rows(operator: Operator) -> None:
    assert operator.provision().code == 0
    with operator.memory.connect() as connection:
        connection.execute("SELECT memory_append('notes', 'said', '1')")
    again = operator.memory.but(uid="uid-2", password="second")
    operator.role("rw_a", "writer", password="second")
    assert operator.provision(again).code == Code.ADOPTION_REQUIRED
    assert operator.provision(again.but(policy="Forbid", adopt=True)).code == Code.ADOPTION_REQUIRED
    assert operator.provision(again.but(adopt=True)).code == 0
    with again.connect() as connection:
        assert connection.execute("SELECT count(*) FROM memory_read('notes')").fetchone() == (1,)


def test_another_identitys_database_is_a_conflict(operator: Operator) -> None:
    """Names have 48 bits of a hash; the ledger knows who is who."""
    assert operator.provision().code == 0
    with operator.memory.home.superuser() as connection:
        connection.execute("UPDATE memory_ledger.homes SET identity = 'team-b/notes'")
    answer = operator.provision(operator.memory.but(adopt=True))
    assert answer.code == Code.SCHEMA_CONFLICT


def test_a_database_of_another_owner_is_a_conflict(operator: Operator) -> None:
    operator.execute("ALTER DATABASE {db} OWNER TO postgres", db=operator.memory.prefix)
    answer = operator.provision()
    assert answer.code == Code.SCHEMA_CONFLICT
    assert f'OWNER TO "{operator.memory.prefix}_owner"' in answer.message


def test_sessions_of_a_closed_and_of_a_rekeyed_login_end(operator: Operator) -> None:
    memory = operator.memory
    assert operator.provision().code == 0
    rekeyed, closed = memory.connect(), memory.home.connect(memory.reader)
    # What CloudNativePG has applied before the next Job starts: the Job's role is in the logins by now.
    operator.role("rw_a", "writer", password="second")
    operator.role("ro_a", "reader")
    operator.role("job", "owner", "rw_a", "ro_a", password=JOB_PASSWORD)
    assert operator.provision(memory.but(password="second", reader_password=None)).code == 0
    for connection in (rekeyed, closed):
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        memory.connect()
    with memory.but(password="second").connect() as connection:
        connection.execute("SELECT memory_append('notes', 'said', '1')")


def test_sessions_that_go_on_are_left_alone(operator: Operator) -> None:
    document = operator.memory.document()
    assert operator.run(document).code == 0
    operator.role("job", "owner", "rw_a", "ro_a", password=JOB_PASSWORD)
    with operator.memory.connect() as connection:
        assert operator.run(document).code == 0
        connection.execute("SELECT memory_append('notes', 'said', '1')")


def test_a_dropped_logins_open_session_has_no_rights(operator: Operator) -> None:
    """What deleting a claim does to it: the role goes, and the session that it has open reads nothing more."""
    assert operator.provision().code == 0
    with operator.memory.connect() as connection:
        assert connection.execute("SELECT count(*) FROM memory_read('notes')").fetchone() == (0,)
        operator.execute("DROP ROLE {role}", role=f"{operator.memory.prefix}_rw_a")
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT count(*) FROM memory_read('notes')")


def test_a_missing_extension_is_said(operator: Operator) -> None:
    operator.execute("DROP EXTENSION vector", operator.memory.home)
    answer = operator.provision()
    assert answer.code == Code.EXTENSION_MISSING
    assert operator.memory.prefix in answer.message
    operator.extend()
    assert operator.provision().code == 0


def test_a_memory_without_embeddings_needs_no_extension(operator: Operator) -> None:
    operator.execute("DROP EXTENSION vector", operator.memory.home)
    memory = operator.memory.but(embeddings={"enabled": False})
    answer = operator.provision(memory)
    assert answer.code == 0, answer.message
    with memory.connect() as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("notes",)


def test_pgvector_in_a_schema_of_its_own(operator: Operator) -> None:
    operator.execute("DROP EXTENSION vector", operator.memory.home)
    operator.execute("CREATE SCHEMA ext AUTHORIZATION {o}", operator.memory.home, o=f"{operator.memory.prefix}_owner")
    operator.execute("CREATE EXTENSION vector SCHEMA ext", operator.memory.home)
    memory = operator.memory.but(provider={**CNPG, "extensionSchema": "ext"})
    answer = operator.provision(memory)
    assert answer.code == 0, answer.message
    with memory.connect() as connection:
        connection.execute("SELECT memory_upsert_embedding('notes', 'k', '[1,2,3]', 'text')")
        assert connection.execute("SHOW search_path").fetchone() == ("notes, ext",)


def test_the_server_sees_no_password_and_no_verifier_of_a_job(operator: Operator) -> None:
    assert operator.provision().code == 0
    log = (operator.memory.database.server.data.parent / "postgresql.log").read_text(errors="replace")
    assert JOB_PASSWORD not in log


@pytest.fixture
def group(operator: Operator) -> Iterator[str]:
    """A platform team's group with one user."""
    operator.execute("CREATE ROLE inspectors NOLOGIN; CREATE ROLE inspector LOGIN PASSWORD 'theirs' IN ROLE inspectors")
    try:
        yield "inspectors"
    finally:
        operator.execute("DROP OWNED BY inspectors", operator.memory.home)
        operator.execute("DROP ROLE inspector; DROP ROLE inspectors")


def asking(operator: Operator, reader: str | None = None, writer: str | None = None) -> Memory:
    return operator.memory.but(extra={"access": {"readerRole": reader, "writerRole": writer}})


def inspector(operator: Operator) -> Connection:
    return operator.memory.home.connect(Login("inspector", "theirs"))


def test_others_get_the_rights_themselves(operator: Operator, group: str) -> None:
    """CloudNativePG would take memberships back that it does not know of."""
    put, get = "SELECT notes.memory_put('notes', 'k', '2')", "SELECT value FROM notes.memory_get('notes', 'k')"
    assert operator.provision(asking(operator, writer=group)).code == 0
    with inspector(operator) as connection:
        connection.execute(put.encode())
        for refused in ("UPDATE notes.memory_datasets SET legal_hold = false", "SELECT * FROM notes.memory_migrations"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(refused.encode())
    assert operator.provision(asking(operator, reader=group)).code == 0
    with inspector(operator) as connection:
        assert connection.execute(get.encode()).fetchone() == (2,)
        for refused in (put, "DELETE FROM notes.memory_kv", "SELECT * FROM memory_ledger.homes"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(refused.encode())
    with operator.memory.database.superuser() as connection:
        query = "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = %s"
        assert connection.execute(query, [group]).fetchone() == (0,)
    assert operator.provision().code == 0
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        inspector(operator)


def test_a_group_that_is_gone_stops_nothing(operator: Operator) -> None:
    operator.execute("CREATE ROLE passing NOLOGIN")
    assert operator.provision(asking(operator, reader="passing")).code == 0
    operator.execute("DROP OWNED BY passing", operator.memory.home)
    operator.execute("DROP ROLE passing")
    assert operator.provision().code == 0


def test_a_role_that_is_no_group_is_refused(operator: Operator) -> None:
    assert operator.provision(asking(operator, reader="nobody_knows")).code == Code.PERMISSION_DENIED
    assert operator.provision(asking(operator, reader=f"{operator.memory.prefix}_owner")).code == Code.BAD_REQUEST


# The probe.


def probe(command: Command, memory: Memory) -> Answer:
    environment = command.mount(memory.probe_document(), None)
    assert not (Path(environment["MEMORY_DIR"]) / "admin").exists()
    return command.run_mounted("probe", environment)


def test_a_probe_needs_no_login(any_database: Database, command: Command) -> None:
    answer = probe(command, Memory(any_database, provider=CNPG))
    assert answer.code == 0
    assert answer.report["code"] == 0
    assert answer.report["server"] == {"version": "", "capabilities": []}


def test_a_probe_leaves_no_word_in_the_servers_log(any_database: Database, command: Command) -> None:
    log = any_database.server.data.parent / "postgresql.log"
    before = log.stat().st_size
    assert probe(command, Memory(any_database, provider=CNPG)).report["code"] == 0
    with log.open("rb") as file:
        file.seek(before)
        assert b"memory_probe" not in file.read()


def test_a_probe_says_that_nobody_answers(database: Database, command: Command) -> None:
    away = Memory(database, provider={**CNPG, "port": 1})
    assert probe(command, away).report["code"] == Code.UNREACHABLE


def test_a_probe_publishes_the_ca(database: Database, command: Command) -> None:
    memory = Memory(database, provider=CNPG)
    environment = command.mount(memory.probe_document(), None)
    tls = Path(environment["MEMORY_DIR"]) / "tls"
    tls.mkdir()
    (tls / "ca.crt").write_text("the CA")
    assert json.loads(json.dumps(command.run_mounted("probe", environment).report["caBundle"])) == "the CA"
