"""Whose schema is whose: conflict and adoption (api.md, Homes and adoption)."""

import psycopg
import pytest
from psycopg import sql

from migrations.errors import Code, CommandError
from migrations.postgres import home as home_step
from migrations.postgres.names import names_of
from migrations.postgres.request import ProvisionRequest
from migrations.request import parse
from tests.migrations.documents import Command, Memory
from tests.migrations.snapshot import snapshot
from tests.postgres import Postgres


@pytest.fixture
def home(memory: Memory, command: Command) -> Memory:
    """A provisioned Memory with a row."""
    assert command.provision(memory).code == 0
    with memory.connect() as connection:
        connection.execute("SELECT memory_put('notes', 'k', '\"mine\"')")
    return memory


def test_claim_made_again_needs_adopt_and_finds_its_rows_under_a_new_password(home: Memory, command: Command) -> None:
    again = home.but(uid="uid-2", password="second-password")
    before = snapshot(home)
    answer = command.provision(again)
    assert (answer.code, answer.report["reason"]) == (15, "AdoptionRequired")
    assert answer.message == (
        'schema "notes" holds the data of an earlier claim "team-a/notes": '
        "set adopt: true to take it over, or choose another dataset.schema"
    )
    assert snapshot(home) == before

    old = home.connect()
    assert command.provision(again.but(adopt=True)).code == 0
    with again.connect() as connection:
        assert connection.execute("SELECT value FROM memory_get('notes', 'k')").fetchone() == ("mine",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        home.connect()
    with pytest.raises(psycopg.OperationalError):
        old.execute("SELECT 1")  # a session of the earlier claim does not live on
    assert command.provision(again).code == 0, "it is ours now, and needs no adopt any more"


def test_policy_allow_needs_no_adopt(home: Memory, command: Command) -> None:
    assert command.provision(home.but(uid="uid-2", policy="Allow")).code == 0


def test_policy_forbid_refuses_even_with_adopt(home: Memory, command: Command) -> None:
    answer = command.provision(home.but(uid="uid-2", policy="Forbid", adopt=True))
    assert answer.code == 15
    assert 'provider "pg" forbids adoption' in answer.message


@pytest.mark.parametrize("adopt", [False, True])
def test_another_identity_is_a_conflict_and_adopt_does_not_help(home: Memory, command: Command, adopt: bool) -> None:
    thief = home.but(identity="team-b/notes", uid="uid-9", adopt=adopt, policy="Allow", password="theirs")
    before = snapshot(home)
    answer = command.provision(thief)
    assert (answer.code, answer.report["reason"]) == (14, "SchemaConflict")
    assert answer.message == (
        'dataset.schema "notes" is the home of another Memory: choose another schema '
        "(adopt does not help; the platform team can hand a home over)"
    )
    assert snapshot(home) == before
    with home.database.connect() as connection:
        roles = connection.execute("SELECT FROM pg_roles WHERE starts_with(rolname, %s)", [thief.prefix]).fetchall()
        assert roles == []


def test_same_identity_in_another_schema_is_a_conflict(home: Memory, command: Command) -> None:
    answer = command.provision(home.but(schema="elsewhere", uid="uid-2", adopt=True))
    assert answer.code == 14
    assert answer.message == (
        '"team-a/notes" already has its home in schema "notes", not "elsewhere": set dataset.schema: notes '
        "with adopt: true, or give the claim another name"
    )


@pytest.mark.parametrize("adopt", [False, True])
def test_schema_without_our_stamp_is_a_conflict(memory: Memory, command: Command, adopt: bool) -> None:
    with memory.database.superuser() as connection:
        connection.execute("CREATE SCHEMA notes")
        answer = command.provision(memory.but(adopt=adopt, policy="Allow"))
        assert answer.code == 14
        assert "was not made for this Memory" in answer.message
        assert connection.execute("SELECT to_regclass('memory_ledger.homes')").fetchone() == (None,)


def test_schema_made_between_two_steps_is_a_conflict(memory: Memory) -> None:
    names = names_of(parse(memory.document(), ProvisionRequest))
    with memory.database.superuser() as connection:
        connection.execute("CREATE SCHEMA notes")
        with pytest.raises(CommandError, match="was made by somebody else at this moment") as caught:
            home_step.ensure(connection, "notes", names)
    assert caught.value.code is Code.SCHEMA_CONFLICT


def test_schema_made_anew_by_hand_is_a_conflict(home: Memory, command: Command) -> None:
    with home.database.superuser() as connection:
        connection.execute("DROP SCHEMA notes CASCADE; CREATE SCHEMA notes")
    assert command.provision(home).code == 14


def test_home_that_is_gone_is_made_again_for_whoever_has_the_identity(home: Memory, command: Command) -> None:
    with home.database.superuser() as connection:
        connection.execute("DROP SCHEMA notes CASCADE")
    again = home.but(uid="uid-2", search_config="english", password="second-password")
    assert command.provision(again).code == 0
    with again.connect() as connection:
        assert connection.execute("SELECT * FROM memory_get('notes', 'k')").fetchall() == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        pytest.param({"dataset": "diary"}, "dataset.name", id="the dataset's name stands in every row"),
        pytest.param({"search_config": "english"}, "searchConfig", id="the configuration is in a generated column"),
    ],
)
def test_what_the_home_was_made_with_is_fixed(
    home: Memory, command: Command, changes: dict[str, str], what: str
) -> None:
    answer = command.provision(home.but(**changes))
    assert answer.code == 14
    assert f"was made with {what}" in answer.message


def test_unknown_search_config_is_a_bad_request(memory: Memory, command: Command) -> None:
    answer = command.provision(memory.but(search_config="klingon"))
    assert answer.code == 20
    assert answer.message.startswith('searchConfig "klingon" is no text search configuration of database')


@pytest.mark.parametrize("config", ["english", "pg_catalog.german"])
def test_search_config_counts(memory: Memory, command: Command, config: str) -> None:
    assert command.provision(memory.but(search_config=config)).code == 0
    with memory.connect() as connection:
        connection.execute("SELECT memory_upsert_embedding('notes', 'a', '[1,2,3]', 'Hunde running')")
        word = "runs" if config == "english" else "Hund"
        found = connection.execute("SELECT key FROM memory_search('notes', p_query => %s)", [word]).fetchall()
        assert found == [("a",)]


def test_same_identity_in_two_databases_of_one_server(home: Memory, postgres18: Postgres, command: Command) -> None:
    with postgres18.database() as second:
        twin = home.but(database=second, uid="uid-2", password="second-password")
        assert command.provision(twin).code == 0
        assert twin.prefix != home.prefix
        home.connect().close()
        with twin.connect() as connection:
            assert connection.execute("SELECT * FROM memory_get('notes', 'k')").fetchall() == []
        for login, database in ((home.writer, second), (twin.writer, home.database)):
            with database.connect(login) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT * FROM notes.memory_kv")


def test_ledger_of_another_admin_is_said(memory: Memory, command: Command) -> None:
    with memory.database.superuser() as connection:
        connection.execute("CREATE SCHEMA memory_ledger")
    answer = command.provision(memory)
    assert answer.code == 13
    assert "schema memory_ledger belongs to another admin" in answer.message


def test_role_of_another_admin_is_said(home: Memory, command: Command) -> None:
    role = f"{home.prefix}_owner"
    with home.database.superuser() as connection:
        stamp = connection.execute("SELECT shobj_description(to_regrole(%s), 'pg_authid')", [role]).fetchone()
        assert stamp
        # What is left when the roles were made by another admin, as in a server whose admin was exchanged.
        connection.execute(
            sql.SQL("DROP SCHEMA notes CASCADE; DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role))
        )
        connection.execute(
            sql.SQL("CREATE ROLE {0}; COMMENT ON ROLE {0} IS {1}").format(sql.Identifier(role), sql.Literal(stamp[0]))
        )
        answer = command.provision(home)
        assert (answer.code, answer.report["reason"]) == (14, "SchemaConflict")
        assert f'role "{role}" exists and "memory_admin" may not administer it' in answer.message
        assert answer.message.endswith(f'run: GRANT "{role}" TO "memory_admin" WITH ADMIN OPTION;')
        connection.execute(answer.message.rpartition("run: ")[2].encode())
    assert command.provision(home).code == 0
