"""`plan` foretells what `provision` does, and PostgreSQL itself keeps it from doing it."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import errors, sql

from memoryctl.embedded import Login
from migrations.__main__ import main
from migrations.postgres import sqlfile
from migrations.postgres.connection import Admin, Connection
from migrations.postgres.names import names_for
from tests.migrations.documents import Command, Memory
from tests.migrations.snapshot import snapshot
from tests.migrations.test_cnpg import CNPG, JOB_PASSWORD, Operator
from tests.postgres import Database, Postgres

FILES = [file.title for module in ("core", "embeddings") for file in sqlfile.read(module, sqlfile.FOLDER)]
ALL_HOMES = "SELECT to_jsonb(h) FROM memory_ledger.homes h ORDER BY home"


@dataclasses.dataclass
class Planner:
    """Runs `plan` in this process, and notes what its sessions may do."""

    command: Command
    sessions: list[str] = dataclasses.field(default_factory=list)

    def __call__(self, memory: Memory, admin: Login | None = None) -> dict[str, Any]:
        code, said = self.run(memory.document(), admin or memory.database.server.admin)
        assert code == 0, said
        assert (said["code"], said["reason"], said["hash"]) == (0, "Succeeded", "0123456789")
        return said

    def run(self, document: Any, admin: Login) -> tuple[int, dict[str, Any]]:
        environment = self.command.mount(document, admin)
        for name, value in environment.items():
            self.command.monkeypatch.setenv(name, value)
        self.command.capsys.readouterr()
        code = main(["plan"])
        [line] = self.command.capsys.readouterr().out.splitlines()
        assert not Path(environment["MEMORY_REPORT_FILE"]).exists()
        said: dict[str, Any] = json.loads(line)
        assert "SCRAM" not in line
        return code, said


@pytest.fixture
def plan(command: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planner]:
    """Each session that `plan` opens tries to write, and must be refused by the server."""
    planner = Planner(command)
    connect = Admin.connect

    def checked(self: Admin, database: str | None = None) -> Connection:
        connection = connect(self, database)
        if self.read_only:
            with pytest.raises(errors.ReadOnlySqlTransaction):
                connection.execute("CREATE SCHEMA written")
            planner.sessions.append(connection.info.dbname)
        return connection

    monkeypatch.setattr(Admin, "connect", checked)
    yield planner
    assert planner.sessions, "every plan looks at a server"


def changes(said: dict[str, Any]) -> list[str]:
    assert said["refused"] is None
    found: list[str] = said["changes"]
    return found


def test_the_plan_of_a_new_home_says_everything_and_makes_nothing(memory: Memory, plan: Planner) -> None:
    said = plan(memory)
    assert (said["home"], said["refused"]) == ("new", None)
    assert said["migrations"] == FILES
    [ledger, home, roles, opened] = said["changes"]
    assert ledger.startswith("schema memory_ledger, the ledger of homes, is made")
    assert home == 'schema "notes" is made'
    assert roles.startswith(f"roles are made: {memory.prefix}_owner, {memory.prefix}_writer")
    assert opened == f"login {memory.prefix}_rw_a (slot a of the writer) is opened"
    assert said["message"] == f"provision would change {len(FILES) + 4} things"
    with memory.database.superuser() as connection:
        query = "SELECT to_regnamespace('notes'), to_regnamespace('memory_ledger'), to_regrole(%s)"
        assert connection.execute(query, [f"{memory.prefix}_owner"]).fetchone() == (None, None, None)


@pytest.mark.parametrize("isolation", ["Schema", "Database", "Dataset"])
def test_after_provisioning_nothing_is_left_to_do_and_looking_changes_nothing(
    any_database: Database, command: Command, plan: Planner, isolation: str
) -> None:
    memory = Memory(any_database, provider={"isolation": isolation}, reader_password="reads")
    assert plan(memory)["home"] == "new"
    assert command.provision(memory).code == 0
    before = snapshot(dataclasses.replace(memory, database=memory.home)) if isolation == "Schema" else {}
    said = plan(memory)
    assert (said["home"], said["migrations"], changes(said)) == ("ours", [], [])
    assert said["message"] == "nothing would change"
    assert before == (snapshot(memory) if isolation == "Schema" else {})
    assert set(plan.sessions) == {any_database.name, memory.home.name}


def test_changed_wishes_are_told_with_both_values(memory: Memory, command: Command, plan: Planner) -> None:
    assert command.provision(memory).code == 0
    changed = memory.but(
        embeddings={"dimension": 4, "index": {"type": "none", "minRows": 500}},
        provider={"connectionLimit": None, "statementTimeout": "60s"},
        reader_password="reads",
        extra={"retention": {"ttlDays": 90}, "legalHold": True, "deletionPolicy": "Delete"},
    )
    said = plan(changed)
    login = f"login {memory.prefix}_rw_a (slot a of the writer)"
    assert (said["home"], said["migrations"]) == ("ours", [])
    assert changes(said) == [
        "embeddings.dimension 3 → 4: there are no embeddings yet",
        "retention.ttlDays 0 → 90",
        "legalHold false → true",
        f"{login}: connectionLimit 20 → none",
        f"{login}: statementTimeout 30s → 60s",
        f"login {memory.prefix}_ro_a (slot a of the reader) is opened",
        "deletionPolicy Retain → Delete",
        "embeddings.index.type auto → none",
        "embeddings.index.minRows 10000 → 500",
    ]
    assert plan(memory)["message"] == "nothing would change"
    assert command.provision(changed).code == 0
    assert plan(changed)["message"] == "nothing would change"


def test_logins_that_are_closed_or_re_keyed_are_told(memory: Memory, command: Command, plan: Planner) -> None:
    assert command.provision(memory.but(reader_password="reads")).code == 0
    assert changes(plan(memory.but(password="second"))) == [
        f"login {memory.prefix}_rw_a (slot a of the writer) gets another password and its sessions end",
        f"login {memory.prefix}_ro_a (slot a of the reader) is closed and its sessions end",
    ]


def test_rights_that_would_be_repaired_are_told_and_no_others(memory: Memory, command: Command, plan: Planner) -> None:
    assert command.provision(memory).code == 0
    with memory.database.superuser() as connection:
        groups = f"{memory.prefix}_writer, {memory.prefix}_reader"
        connection.execute(f"REVOKE SELECT ON notes.memory_kv FROM {groups}".encode())
        connection.execute("GRANT SELECT ON notes.memory_events TO PUBLIC")
        connection.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO PUBLIC").format(sql.Identifier(memory.database.name))
        )
        connection.execute(f"ALTER ROLE {memory.prefix}_writer CREATEDB".encode())
    found = changes(plan(memory))
    assert f"repaired: login {memory.prefix}_rw_a cannot read memory_kv" in found
    assert "repaired: PUBLIC has SELECT on memory_events" in found
    assert not any("database" in each or "CREATEDB" in each for each in found)
    left = command.provision(memory).report["verify"]
    assert changes(plan(memory)) == []
    assert any("CREATEDB" in each for each in left)


def test_policies_that_would_be_repaired_are_told(database: Database, command: Command, plan: Planner) -> None:
    memory = Memory(database, provider={"isolation": "Dataset"})
    assert command.provision(memory).code == 0
    with database.superuser() as connection:
        connection.execute("ALTER TABLE notes.memory_kv DISABLE ROW LEVEL SECURITY")
    assert "repaired: row-level security is off on memory_kv" in changes(plan(memory))
    other = memory.but(identity="team-b/other", dataset="other", uid="uid-2")
    said = plan(other)
    assert (said["home"], said["migrations"]) == ("new", [])
    assert 'dataset "other" of the shared schema "notes" is made' in changes(said)


def _other_identity(memory: Memory) -> Memory:
    return memory.but(identity="team-b/notes")


def _made_again(memory: Memory) -> Memory:
    return memory.but(uid="uid-2")


def _another_dimension(memory: Memory) -> Memory:
    return memory.but(embeddings={"dimension": 4})


def _another_metric(memory: Memory) -> Memory:
    return memory.but(embeddings={"metric": "l2"})


def _unknown_role(memory: Memory) -> Memory:
    return memory.but(extra={"access": {"readerRole": "nobody_made_it", "writerRole": None}})


def _unknown_module(memory: Memory) -> Memory:
    return memory.but(extra={"modules": ["core", "graph"]})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_other_identity, ("refused", 14)),
        (_made_again, ("refused", 15)),
        (_another_dimension, ("ours", 11)),
        (_another_metric, ("ours", 11)),
        (_unknown_role, ("refused", 13)),
        (_unknown_module, ("refused", 16)),
    ],
)
def test_what_provision_would_refuse_is_told_in_its_own_words(
    memory: Memory, command: Command, plan: Planner, change: Callable[[Memory], Memory], expected: tuple[str, int]
) -> None:
    assert command.provision(memory).code == 0
    with memory.connect() as connection:
        connection.execute("SELECT memory_upsert_embedding('notes', 'a', '[1,2,3]')")
    changed, (home, code) = change(memory), expected
    said = plan(changed)
    assert (said["home"], said["migrations"]) == (home, [])
    done = command.provision(changed)
    assert said["refused"] == {
        "code": code,
        "reason": done.report["reason"],
        "message": done.message,
        "migration": done.report["migration"],
    }
    assert done.code == code
    assert said["message"] == f"provision would be refused ({done.report['reason']}): {done.message}"


def test_an_edited_migration_is_told_with_its_name(memory: Memory, command: Command, plan: Planner) -> None:
    assert command.provision(memory).code == 0
    with memory.database.superuser() as connection:
        connection.execute("UPDATE notes.memory_migrations SET sha256 = 'x' WHERE version = '0001' AND module = 'core'")
    refused = plan(memory)["refused"]
    assert (refused["code"], refused["reason"], refused["migration"]) == (12, "ChecksumMismatch", FILES[0])


def test_a_migration_that_is_still_to_come_is_told(memory: Memory, command: Command, plan: Planner) -> None:
    assert command.provision(memory).code == 0
    last = FILES[-1].removeprefix("embeddings/")[:4]
    with memory.database.superuser() as connection:
        query = "DELETE FROM notes.memory_migrations WHERE module = 'embeddings' AND version = %s"
        connection.execute(query, [last])
    assert plan(memory)["migrations"] == [FILES[-1]]


def test_a_claim_made_again_would_adopt(memory: Memory, command: Command, plan: Planner) -> None:
    assert command.provision(memory).code == 0
    said = plan(memory.but(uid="uid-2", adopt=True))
    assert said["home"] == "adopt"
    [taken] = changes(said)
    assert taken == 'schema "notes" is taken over from an earlier claim, and the sessions of its logins end'


def test_a_login_that_was_draining_for_an_earlier_claim_would_be_closed(
    memory: Memory, command: Command, plan: Planner
) -> None:
    assert command.provision(memory).code == 0
    again = memory.but(uid="uid-2", adopt=True)
    before = memory.login("writer", "a", None) | {"state": "draining"}
    readers = [memory.login("reader", slot, None) for slot in ("a", "b")]
    [_, closed, opened] = changes(
        plan(again.but(extra={"logins": [before, memory.login("writer", "b", "x"), *readers]}))
    )
    assert closed == f"login {memory.prefix}_rw_a (slot a of the writer) is closed and its sessions end"
    assert opened == f"login {memory.prefix}_rw_b (slot b of the writer) is opened"


def test_a_home_that_is_handed_over_is_told(memory: Memory, command: Command, plan: Planner) -> None:
    assert command.provision(memory).code == 0
    taker = memory.but(identity="team-b/notes", uid="taker", giver=memory.identity)
    said = plan(taker)
    assert (said["home"], said["migrations"]) == ("adopt", [])
    assert changes(said)[0] == (
        'schema "notes" is handed over from "team-a/notes", whose logins are closed and whose roles go'
    )
    assert command.provision(taker).code == 0
    assert plan(taker)["message"] == "nothing would change"


def test_roles_of_others_that_come_and_go_are_told(memory: Memory, command: Command, plan: Planner) -> None:
    role = f"analysts_{memory.prefix}"
    wanted = memory.but(extra={"access": {"readerRole": role, "writerRole": None}})
    with memory.database.superuser() as connection:
        connection.execute(f"CREATE ROLE {role} NOLOGIN".encode())
        try:
            assert f"role {role} gets the reader's rights" in changes(plan(wanted))
            assert command.provision(memory).code == 0
            assert changes(plan(wanted)) == [f"role {role} gets the rights of {memory.prefix}_reader"]
            assert command.provision(wanted).code == 0
            assert changes(plan(wanted)) == []
            assert changes(plan(memory)) == [f"role {role} loses the rights of {memory.prefix}_reader"]
        finally:
            connection.execute(f"DROP ROLE {role}".encode())


def test_a_ledger_of_an_earlier_version_is_read_as_it_is(memory: Memory, command: Command, plan: Planner) -> None:
    assert command.provision(memory).code == 0
    columns = ("policy", "isolation", "closed_at", "logins")
    with memory.database.connect() as connection:
        for column in columns:
            connection.execute(f"ALTER TABLE memory_ledger.homes DROP COLUMN {column}".encode())
        before = connection.execute(ALL_HOMES).fetchall()
        said = plan(memory)
        assert connection.execute(ALL_HOMES).fetchall() == before
    assert (said["home"], changes(said)) == (
        "ours",
        ["the ledger of homes gets the columns isolation, logins, policy, closed_at"],
    )


def test_a_home_whose_logins_were_closed_comes_back(memory: Memory, command: Command, plan: Planner) -> None:
    assert command.provision(memory).code == 0
    with memory.database.connect() as connection:
        connection.execute("UPDATE memory_ledger.homes SET closed_at = now()")
        connection.execute(f"ALTER ROLE {memory.prefix}_rw_a NOLOGIN".encode())
    opened, again = changes(plan(memory))
    assert opened == f"login {memory.prefix}_rw_a (slot a of the writer) is opened"
    assert again.startswith("the home, whose logins were closed at ")


def test_a_missing_extension_is_told_as_provision_tells_it(postgres18: Postgres, plan: Planner) -> None:
    with postgres18.database(vector=False) as database:
        memory = Memory(database)
        refused = plan(memory)["refused"]
        assert (refused["code"], refused["reason"]) == (10, "ExtensionMissing")
        assert refused["message"].startswith(f'the extension vector is not installed in database "{database.name}"')
        assert refused["message"].endswith('CREATE EXTENSION vector WITH SCHEMA "public";')
        elsewhere = plan(memory.but(provider={"extensionSchema": "ext"}))["refused"]["message"]
        assert 'cannot create it (schema "ext" does not exist)' in elsewhere
        made = changes(plan(memory, database.server.superuser))
        assert 'the extension vector is made in schema "public"' in made


def test_a_database_of_its_own_that_is_still_to_be_made(database: Database, plan: Planner) -> None:
    memory = Memory(database, provider={"isolation": "Database"})
    said = plan(memory)
    assert said["migrations"] == FILES
    assert f'schema "notes" of database "{memory.prefix}" is made' in changes(said)
    assert "the extension vector is made in the new database, unless template1 has it" in changes(said)
    without = plan(memory.but(embeddings={"enabled": False}))
    assert not any("extension" in each for each in changes(without))


def test_where_cloudnativepg_makes_roles_the_plan_tells_the_rest(
    database: Database, command: Command, plan: Planner
) -> None:
    operator = Operator(Memory(database, provider=CNPG, reader_password="reads"), command)
    memory = operator.memory
    job = Login(f"{memory.prefix}_job", JOB_PASSWORD)
    guests = {"access": {"readerRole": f"guests_{memory.prefix}", "writerRole": None}}
    operator.make()
    operator.execute("CREATE ROLE {role} NOLOGIN", role=guests["access"]["readerRole"] or "")
    try:
        first = plan(memory, job)
        assert (first["home"], first["migrations"]) == ("new", FILES)
        assert not any("login" in each or "roles" in each for each in changes(first))
        assert operator.provision().code == 0
        assert plan(memory, job)["message"] == "nothing would change"
        invited = memory.but(extra=guests, password="second")
        assert changes(plan(invited, job)) == [
            f"role guests_{memory.prefix} gets the reader's rights",
            f"login {memory.prefix}_rw_a (slot a of the writer) gets another password and its sessions end",
        ]
        assert operator.provision(memory.but(extra=guests)).code == 0
        assert changes(plan(memory, job)) == [f"role guests_{memory.prefix} loses the reader's rights"]
    finally:
        operator.remove()
        operator.execute("DROP ROLE {role}", role=guests["access"]["readerRole"] or "")


def test_what_keeps_it_from_looking_is_its_exit_code(memory: Memory, plan: Planner) -> None:
    plan(memory)
    admin = memory.database.server.admin
    code, said = plan.run(memory.but(identity="").document(), admin)
    assert (code, said["reason"]) == (20, "BadRequest")
    code, said = plan.run(memory.but(provider={"port": 1}).document(), admin)
    assert (code, said["reason"]) == (30, "Unreachable")
    code, said = plan.run(memory.document(), Login(admin.username, "wrong"))
    assert (code, said["reason"]) == (13, "PermissionDenied")
    assert "home" not in said


def test_a_session_that_is_ended_in_between_is_unreachable(
    memory: Memory, plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = names_for(memory.identity, memory.database.name, memory.schema, "Schema")

    def ended(connection: Connection, *_: Any) -> None:
        with memory.database.superuser() as superuser:
            superuser.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        connection.execute("SELECT 1")

    monkeypatch.setattr("migrations.postgres.plan.access.check", ended)
    code, said = plan.run(memory.document(), memory.database.server.admin)
    assert (code, said["reason"]) == (30, "Unreachable")
    assert names.owner not in said["message"]


def test_a_statement_that_is_refused_is_no_plan(memory: Memory, plan: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(connection: Connection, *_: Any) -> None:
        connection.execute("SELECT rolpassword FROM pg_authid")

    monkeypatch.setattr("migrations.postgres.plan.access.check", refused)
    code, said = plan.run(memory.document(), memory.database.server.admin)
    assert (code, said["reason"], said["sqlstate"]) == (13, "PermissionDenied", "42501")
