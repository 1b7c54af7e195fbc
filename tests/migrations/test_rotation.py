"""What rotations do to logins and their sessions, on real servers: re-keyed, draining, closed."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest
from psycopg import sql

from memoryctl.embedded import Login
from tests.migrations.documents import Answer, Command, Memory, verifier
from tests.postgres import Connection, Database

DRAINING = "draining"
REFUSED = r"password authentication failed|not permitted to log in"
# A verifier has a random salt when it is made anew; the function's are derived, and the same each time.
VERIFIERS = {password: verifier(password) for password in ("first", "second", "third", "fourth")}


def provision(command: Command, memory: Memory, **logins: str) -> Answer:
    """Provisions with logins by `rw_a` and so on: a password (active), or draining; others are closed."""
    return command.run("provision", document(memory, **logins), memory.database.server.admin)


def document(memory: Memory, **logins: str) -> dict[str, Any]:
    made = memory.document()
    for login in made["logins"]:
        asked = logins.get(login["name"][-4:])
        login.pop("verifier", None)
        login["state"] = "closed" if asked is None else "draining" if asked == DRAINING else "active"
        if login["state"] == "active":
            login["verifier"] = VERIFIERS[str(asked)]
    return made


def login(memory: Memory, slot: str, password: str) -> Login:
    return Login(f"{memory.prefix}_{slot}", password)


def connect(memory: Memory, slot: str, password: str) -> Connection:
    return memory.database.connect(login(memory, slot, password))


class Apps:
    """Apps with a session each; all are closed in the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def open(self, memory: Memory, slot: str, password: str) -> Connection:
        return self._stack.enter_context(closing(connect(memory, slot, password)))


@pytest.fixture
def apps() -> Iterator[Apps]:
    with ExitStack() as stack:
        yield Apps(stack)


def refused(memory: Memory, slot: str, password: str) -> bool:
    with pytest.raises(psycopg.OperationalError, match=REFUSED):
        connect(memory, slot, password)
    return True


def works(connection: Connection) -> bool:
    """Whether a session goes on."""
    try:
        return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def noted(memory: Memory) -> set[str]:
    """Slots of which the ledger notes a digest."""
    with memory.database.connect() as connection:
        row = connection.execute("SELECT logins FROM memory_ledger.homes").fetchone()
    assert row
    assert not any(text in json.dumps(row[0]) for text in VERIFIERS.values())
    return {name[-4:] for name in row[0]}


@pytest.fixture
def home(any_database: Database, command: Command) -> Memory:
    """A Memory at its first epoch, on every version of PostgreSQL."""
    memory = Memory(any_database)
    assert provision(command, memory, rw_a="first", ro_a="first").code == 0
    return memory


def test_a_draining_login_keeps_its_password_and_its_sessions(home: Memory, command: Command, apps: Apps) -> None:
    writer, reader = apps.open(home, "rw_a", "first"), apps.open(home, "ro_a", "first")
    assert provision(command, home, rw_a=DRAINING, rw_b="second", ro_a=DRAINING, ro_b="second").code == 0
    assert works(writer)
    assert works(reader)
    for slot, password in (("rw_a", "first"), ("rw_b", "second"), ("ro_a", "first"), ("ro_b", "second")):
        connect(home, slot, password).close()


def test_a_login_that_gets_another_password_loses_the_sessions_of_the_old_one(
    home: Memory, command: Command, apps: Apps
) -> None:
    provision(command, home, rw_a=DRAINING, rw_b="second", ro_a=DRAINING, ro_b="second")
    oldest, current = apps.open(home, "rw_a", "first"), apps.open(home, "rw_b", "second")
    oldest_reader, reader = apps.open(home, "ro_a", "first"), apps.open(home, "ro_b", "second")
    assert provision(command, home, rw_a="third", rw_b=DRAINING, ro_a="third", ro_b=DRAINING).code == 0
    assert [works(each) for each in (oldest, oldest_reader, current, reader)] == [False, False, True, True]
    assert refused(home, "rw_a", "first")
    assert refused(home, "ro_a", "first")
    connect(home, "rw_a", "third").close()


def test_a_closed_login_is_refused_and_its_sessions_end(home: Memory, command: Command, apps: Apps) -> None:
    provision(command, home, rw_a=DRAINING, rw_b="second")
    old, current = apps.open(home, "rw_a", "first"), apps.open(home, "rw_b", "second")
    assert provision(command, home, rw_b="second").code == 0
    assert [works(old), works(current)] == [False, True]
    assert refused(home, "rw_a", "first")
    with home.database.superuser() as connection:
        query = "SELECT rolcanlogin, rolpassword FROM pg_authid WHERE rolname = %s"
        assert connection.execute(query, [login(home, "rw_a", "").username]).fetchone() == (False, None)


def test_the_same_request_again_ends_no_session(home: Memory, command: Command, apps: Apps) -> None:
    provision(command, home, rw_a=DRAINING, rw_b="second")
    old, current = apps.open(home, "rw_a", "first"), apps.open(home, "rw_b", "second")
    for _ in range(2):
        assert provision(command, home, rw_a=DRAINING, rw_b="second").code == 0
    assert [works(old), works(current)] == [True, True]


def test_the_settings_of_a_draining_login_are_repaired(home: Memory, command: Command) -> None:
    with home.database.connect() as admin:
        role = sql.Identifier(login(home, "rw_a", "").username)
        admin.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(role))
        admin.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 3").format(role))
    assert provision(command, home, rw_a=DRAINING, rw_b="second").code == 0
    with connect(home, "rw_a", "first") as old:
        assert old.execute("SHOW search_path").fetchone() == ("notes, public",)
        limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user"
        assert old.execute(limit).fetchone() == (20,)


def test_draining_opens_no_login_that_is_closed(home: Memory, command: Command) -> None:
    provision(command, home, rw_b="second")
    assert provision(command, home, rw_a=DRAINING, rw_b="second").code == 0
    assert refused(home, "rw_a", "first")


def test_ten_rotations(home: Memory, command: Command) -> None:
    """Of three passwords in a row, the last two work."""
    passwords = [f"epoch-{epoch}" for epoch in range(11)]
    VERIFIERS.update({password: verifier(password) for password in passwords})
    provision(command, home, rw_a=passwords[0])
    for epoch in range(1, 11):
        now, before = ("rw_b", "rw_a") if epoch % 2 else ("rw_a", "rw_b")
        assert provision(command, home, **{now: passwords[epoch], before: DRAINING}).code == 0
        connect(home, now, passwords[epoch]).close()
        connect(home, before, passwords[epoch - 1]).close()
        assert epoch == 1 or refused(home, now, passwords[epoch - 2])


@pytest.mark.parametrize("step", ["logins", "sessions", "verify", "seal"])
def test_sessions_end_although_the_run_was_killed_after_the_new_password(
    memory: Memory, command: Command, apps: Apps, step: str
) -> None:
    provision(command, memory, rw_a="first")
    provision(command, memory, rw_a=DRAINING, rw_b="second")
    oldest, current = apps.open(memory, "rw_a", "first"), apps.open(memory, "rw_b", "second")
    rotated = document(memory, rw_a="third", rw_b=DRAINING)
    process = command.spawn(memory.but(extra={"logins": rotated["logins"]}))
    assert process.stderr
    for line in process.stderr:
        if json.loads(line).get("step") == step:
            process.kill()
            break
    process.stderr.close()
    process.wait()
    assert provision(command, memory, rw_a="third", rw_b=DRAINING).code == 0
    assert [works(oldest), works(current)] == [False, True]
    assert refused(memory, "rw_a", "first")
    connect(memory, "rw_a", "third").close()


def test_a_run_that_fails_before_its_end_ends_the_sessions_the_next_time(
    memory: Memory, command: Command, apps: Apps
) -> None:
    """Exactly between the two steps: new password, old sessions."""
    provision(command, memory, rw_a="first")
    provision(command, memory, rw_a=DRAINING, rw_b="second")
    oldest = apps.open(memory, "rw_a", "first")
    with memory.database.superuser() as connection:
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_terminate_backend FROM PUBLIC")
        try:
            assert provision(command, memory, rw_a="third", rw_b=DRAINING).code == 13
        finally:
            connection.execute("GRANT EXECUTE ON FUNCTION pg_terminate_backend TO PUBLIC")
    assert works(oldest)
    assert refused(memory, "rw_a", "first")
    assert provision(command, memory, rw_a="third", rw_b=DRAINING).code == 0
    assert not works(oldest)


def test_a_password_that_a_failed_rotation_left_is_replaced_without_ending_others(
    memory: Memory, command: Command, apps: Apps
) -> None:
    """Epoch 1 was applied and never handed out, epoch 3 overtook it."""
    provision(command, memory, rw_a="first")
    app = apps.open(memory, "rw_a", "first")
    provision(command, memory, rw_a=DRAINING, rw_b="second")
    unknown = apps.open(memory, "rw_b", "second")
    provision(command, memory, rw_a=DRAINING, rw_b="fourth")
    assert [works(app), works(unknown)] == [True, False]
    assert refused(memory, "rw_b", "second")


def test_the_ledger_notes_digests_of_the_passwords_that_are_in_force(memory: Memory, command: Command) -> None:
    provision(command, memory, rw_a="first")
    assert noted(memory) == {"rw_a"}
    provision(command, memory, rw_a=DRAINING, rw_b="second", ro_b="second")
    assert noted(memory) == {"rw_a", "rw_b", "ro_b"}


def test_a_home_from_before_there_were_notes_loses_no_session(memory: Memory, command: Command, apps: Apps) -> None:
    provision(command, memory, rw_a="first")
    app = apps.open(memory, "rw_a", "first")
    with memory.database.connect() as admin:
        admin.execute("ALTER TABLE memory_ledger.homes DROP COLUMN logins")
    assert provision(command, memory, rw_a=DRAINING, rw_b="second").code == 0
    assert works(app)
    assert noted(memory) == {"rw_b"}
    assert provision(command, memory, rw_a="third", rw_b=DRAINING).code == 0
    assert not works(app), "its password is another since"


def test_an_adopted_home_keeps_no_login_of_its_earlier_claim(memory: Memory, command: Command, apps: Apps) -> None:
    provision(command, memory, rw_a=DRAINING, rw_b="second", ro_b="second")
    provision(command, memory, rw_a="third", rw_b=DRAINING)
    sessions = [apps.open(memory, "rw_a", "third"), apps.open(memory, "rw_b", "second")]
    mine = memory.but(uid="uid-2", adopt=True)
    assert provision(command, mine, rw_a="fourth", rw_b=DRAINING).code == 0
    assert [works(each) for each in sessions] == [False, False]
    assert refused(memory, "rw_b", "second")
    assert refused(memory, "rw_a", "third")
    connect(memory, "rw_a", "fourth").close()
