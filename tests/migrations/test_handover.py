"""A home that the platform team hands over from one Memory to another (`adoptions` of the provider)."""

import json
import random
import time
from typing import Any

import psycopg
import pytest
from psycopg import errors

from tests.migrations.documents import Command, Memory
from tests.migrations.snapshot import snapshot
from tests.postgres import Database, Postgres

GIVER, TAKER = "team-a/notes", "team-b/notes"
READ = "SELECT value FROM memory_get('notes', 'k')"


def giver_of(database: Database, isolation: str = "Schema") -> Memory:
    return Memory(
        database, identity=GIVER, uid="giver", provider={"isolation": isolation}, reader_password="giver-reads"
    )


def taker_of(home: Memory, **changes: Any) -> Memory:
    """The same home, wanted by another identity."""
    wanted = home.but(identity=TAKER, uid="taker", password="taker-writes", reader_password="taker-reads", giver=GIVER)
    return wanted.but(**changes)


def filled(giver: Memory, command: Command) -> Memory:
    assert command.provision(giver).code == 0
    with giver.connect() as connection:
        connection.execute("SELECT memory_put('notes', 'k', '\"theirs\"')")
        connection.execute("SELECT memory_append('notes', 'said', '{}', 'once')")
        connection.execute("SELECT memory_upsert_embedding('notes', 'a', '[1,2,3]', 'words')")
    return giver


@pytest.fixture(params=["Schema", "Dataset"])
def giver(request: pytest.FixtureRequest, any_database: Database, command: Command) -> Memory:
    return filled(giver_of(any_database, request.param), command)


@pytest.fixture
def home(database: Database, command: Command) -> Memory:
    """One on PostgreSQL 18 with a schema of its own."""
    return filled(giver_of(database), command)


def roles_of(memory: Memory) -> list[tuple[str, bool]]:
    with memory.database.superuser() as connection:
        query = "SELECT rolname, rolcanlogin FROM pg_roles WHERE starts_with(rolname, %s) ORDER BY 1"
        return connection.execute(query, [memory.prefix]).fetchall()


def is_whole(taker: Memory) -> None:
    """Every row is there and the taker's to read and write; the registry knows what it knew."""
    with taker.connect() as connection:
        assert connection.execute(READ).fetchone() == ("theirs",)
        assert connection.execute("SELECT event_type FROM memory_read('notes')").fetchall() == [("said",)]
        found = connection.execute("SELECT key FROM memory_search('notes', '[1,2,3]', p_limit => 1)").fetchall()
        assert found == [("a",)]
        row = connection.execute("SELECT duplicate FROM memory_append('notes', 'said', '{}', 'once')").fetchone()
        assert row == (True,), "events are known by their ids as before"
        connection.execute("SELECT memory_put('notes', 'mine', '1')")
        query = "SELECT dataset, embedding_dimension, metric FROM memory_datasets"
        assert connection.execute(query).fetchall() == [("notes", 3, "cosine")]
    with taker.database.connect(taker.reader) as connection:
        assert connection.execute(READ).fetchone() == ("theirs",)
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("SELECT memory_put('notes', 'mine', '2')")


def test_the_taker_has_every_row_and_the_giver_nothing(giver: Memory, command: Command) -> None:
    working = giver.connect()
    taker = taker_of(giver)
    answer = command.provision(taker)
    assert answer.code == 0, answer.message
    is_whole(taker)
    assert roles_of(giver) == []
    with pytest.raises(psycopg.OperationalError):
        working.execute("SELECT 1")  # its sessions have ended
    with pytest.raises(psycopg.OperationalError):
        giver.connect()
    with taker.database.superuser() as connection:
        query = "SELECT identity, xr_uid, closed_at IS NULL FROM memory_ledger.homes"
        assert connection.execute(query).fetchall() == [(TAKER, "taker", True)]
    assert answer.report["verify"] == [one for one in answer.report["verify"] if one.startswith("PUBLIC has")]


def test_a_home_that_was_handed_over_is_as_one_that_was_made(
    giver: Memory, command: Command, any_database: Database
) -> None:
    """Owners, rights, default rights, policies and stamps: nothing tells of the giver."""
    taker = taker_of(giver)
    assert command.provision(taker).code == 0
    found = snapshot(taker)
    assert command.provision(taker.but(giver=None)).code == 0, "and the entry in adoptions may go"
    assert snapshot(taker) == found
    with any_database.superuser() as connection:
        left = connection.execute(
            """
            SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = 'notes' AND pg_get_userbyid(c.relowner) = %(old)s
            UNION ALL
            SELECT defaclobjtype::text FROM pg_default_acl WHERE pg_get_userbyid(defaclrole) = %(old)s
            """,
            {"old": f"{giver.prefix}_owner"},
        ).fetchall()
    assert left == []


def memberships(memory: Memory) -> list[tuple[object, ...]]:
    """Who is a member of a Memory's roles, and how; without what tells one Memory from another."""
    with memory.database.superuser() as connection:
        return connection.execute(
            """
            SELECT substr(g.rolname, 18), replace(m.rolname, %(prefix)s, ''), o.rolname, admin_option, inherit_option,
                   set_option
            FROM pg_auth_members a JOIN pg_roles g ON g.oid = roleid JOIN pg_roles m ON m.oid = member
            JOIN pg_roles o ON o.oid = grantor
            WHERE starts_with(g.rolname, %(prefix)s) ORDER BY 1, 2, 3
            """,
            {"prefix": memory.prefix},
        ).fetchall()


def test_the_admin_keeps_no_rights_that_it_took_for_a_moment(home: Memory, command: Command) -> None:
    taker, other = taker_of(home), home.but(identity="team-c/other", uid="other", schema="other")
    for memory in (taker, other):
        assert command.provision(memory).code == 0
    assert memberships(taker) == memberships(other)


def test_the_old_claim_gets_a_conflict_and_loses_nothing_more(giver: Memory, command: Command) -> None:
    taker = taker_of(giver)
    assert command.provision(taker).code == 0
    before = snapshot(taker)
    for again in (giver, giver.but(adopt=True, policy="Allow"), giver.but(uid="made-again", adopt=True)):
        answer = command.provision(again)
        assert (answer.code, answer.report["reason"]) == (14, "SchemaConflict")
    assert snapshot(taker) == before
    is_whole(taker)


@pytest.mark.parametrize(
    "changes",
    [{"giver": None}, {"giver": "team-z/somebody"}, {"giver": TAKER}],
    ids=["no entry", "of somebody else", "to itself"],
)
def test_without_an_entry_nothing_changes(giver: Memory, command: Command, changes: dict[str, str | None]) -> None:
    before = snapshot(giver)
    answer = command.provision(taker_of(giver, adopt=True, policy="Allow", **changes))
    assert (answer.code, answer.report["reason"]) == (14, "SchemaConflict")
    assert snapshot(giver) == before
    giver.connect().close()


def test_an_entry_that_nobody_wants_any_more_takes_nothing(home: Memory, command: Command) -> None:
    """The entry stays in the provider after the hand-over: the taker's own home is no giver's."""
    taker = taker_of(home)
    assert command.provision(taker).code == 0
    before = snapshot(taker)
    assert command.provision(taker).code == 0
    assert snapshot(taker) == before


def test_a_fresh_memory_with_an_entry_is_made_as_any_other(database: Database, command: Command) -> None:
    taker = taker_of(giver_of(database))
    assert command.provision(taker).code == 0
    taker.connect().close()


@pytest.mark.parametrize("policy", ["Forbid", "Require"])
def test_an_explicit_hand_over_needs_no_adoption(home: Memory, command: Command, policy: str) -> None:
    assert command.provision(taker_of(home, policy=policy)).code == 0


def test_who_has_a_home_already_gets_no_second_one(home: Memory, command: Command) -> None:
    own = taker_of(home, giver=None, schema="own", dataset="own")
    assert command.provision(own).code == 0
    before = snapshot(home)
    answer = command.provision(taker_of(home))
    assert answer.code == 14
    assert f'"{TAKER}" already has its home in schema "own", not "notes"' in answer.message
    assert snapshot(home) == before
    home.connect().close()


def test_contents_that_are_fixed_are_not_changed_by_it(home: Memory, command: Command) -> None:
    answer = command.provision(taker_of(home, dataset="other"))
    assert answer.code == 14
    assert 'was made with dataset.name "notes", not "other", and that is fixed' in answer.message
    home.connect().close()


def test_a_schema_that_is_not_the_givers_any_more_is_nobodys_to_give(home: Memory, command: Command) -> None:
    with home.database.superuser() as connection:
        connection.execute("COMMENT ON SCHEMA notes IS 'mine'")
    answer = command.provision(taker_of(home))
    assert answer.code == 14
    assert "was not made for this Memory" in answer.message
    home.connect().close()


def test_a_home_that_is_gone_is_made_anew_for_the_taker(home: Memory, command: Command) -> None:
    with home.database.superuser() as connection:
        connection.execute("DROP SCHEMA notes CASCADE")
    taker = taker_of(home)
    assert command.provision(taker).code == 0
    with taker.connect() as connection:
        assert connection.execute(READ).fetchall() == []
    assert roles_of(home) == []


def test_a_role_that_somebody_gave_something_is_left_without_any_right(
    home: Memory, command: Command, postgres18: Postgres
) -> None:
    """In another database, where we are not: it cannot log in, and has nothing here."""
    with postgres18.database() as other:
        with other.superuser() as connection:
            connection.execute(f"CREATE TABLE theirs (a int); GRANT SELECT ON theirs TO {home.prefix}_reader")
        taker = taker_of(home)
        assert command.provision(taker).code == 0
        is_whole(taker)
        assert roles_of(home) == [(f"{home.prefix}_reader", False)]
        with home.database.superuser() as connection:
            query = "SELECT has_schema_privilege(%s, 'notes', 'USAGE')"
            assert connection.execute(query, [f"{home.prefix}_reader"]).fetchone() == (False,)


def test_roles_of_others_that_the_giver_named_have_nothing_any_more(home: Memory, command: Command) -> None:
    with home.database.superuser() as connection:
        connection.execute("CREATE ROLE successors")
        try:
            asked = {"access": {"readerRole": "successors", "writerRole": None}}
            assert command.provision(home.but(extra=asked)).code == 0
            assert command.provision(taker_of(home)).code == 0
            query = "SELECT FROM pg_auth_members WHERE member = 'successors'::regrole"
            assert connection.execute(query).fetchall() == []
        finally:
            connection.execute("DROP ROLE successors")


STEPS = ["hand-over", "hand-over:close", "hand-over:move", "ledger", "roles", "grants", "logins", "seal"]


@pytest.mark.long
@pytest.mark.parametrize("isolation", ["Schema", "Dataset"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_it_converges(database: Database, command: Command, step: str, isolation: str) -> None:
    giver = filled(giver_of(database, isolation), command)
    taker = taker_of(giver)
    command.kill_at(taker, step)
    assert command.provision(taker).code == 0
    is_whole(taker)
    assert roles_of(giver) == []


@pytest.mark.long
@pytest.mark.parametrize("moment", range(4))
def test_killed_at_a_random_moment_it_converges(database: Database, command: Command, moment: int) -> None:
    giver = filled(giver_of(database), command)
    taker = taker_of(giver)
    process = command.spawn(taker)
    assert process.stderr
    for line in process.stderr:
        if json.loads(line).get("step") == "hand-over:close":
            break
    delay = random.uniform(moment * 0.025, (moment + 1) * 0.025)
    time.sleep(delay)
    process.kill()
    process.stderr.close()
    process.wait()
    assert command.provision(taker).code == 0, f"killed after {delay:.4f} s"
    is_whole(taker)
    assert roles_of(giver) == []
