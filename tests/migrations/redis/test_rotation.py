"""Logins change hands with overlap: the new one opens, the old one goes on, and is closed for good."""

import pytest
import redis

from memoryctl.embedded import Login
from tests.migrations.redis.documents import Command, Memory


def works(memory: Memory, login: Login) -> bool:
    try:
        with memory.connect(login) as app:
            return bool(app.ping())
    except redis.AuthenticationError:
        return False


def test_rotation_with_overlap(any_memory: Memory, command: Command) -> None:
    memory = any_memory
    old, new = memory.writer, Login(memory.name(slot="b"), "second")
    assert command.make(memory).code == 0
    session = memory.connect(old)
    session.ping()
    assert not works(memory, new)
    overlap = memory.but(slots={("writer", "a"): ("draining", ""), ("writer", "b"): ("active", "second")})
    assert command.make(overlap).code == 0
    assert works(memory, old)
    assert works(memory, new)
    session.ping()
    assert (
        command.make(memory.but(slots={("writer", "a"): ("closed", ""), ("writer", "b"): ("active", "second")})).code
        == 0
    )
    assert not works(memory, old)
    assert works(memory, new)
    with pytest.raises(redis.ConnectionError):
        session.execute_command("PING")
    with memory.node.client() as admin:
        [user] = [line for line in admin.acl_list() if f" {old.username} " in line]
        assert " off " in user
        assert "nopass" not in user
        assert "#" not in user


def test_draining_login_keeps_its_password_and_gets_no_more_than_the_hold_lets_it(
    home: Memory, command: Command
) -> None:
    slots = {("writer", "a"): ("draining", ""), ("writer", "b"): ("active", "second")}
    assert command.make(home.but(slots=slots, hold=True)).code == 0
    with home.connect() as app, pytest.raises(redis.exceptions.NoPermissionError):
        app.xadd(f"{home.prefix}events", {"a": "b"})


def test_draining_login_that_the_ledger_does_not_know_is_left_alone(home: Memory, command: Command) -> None:
    with home.node.client() as admin:
        before = [line for line in admin.acl_list() if f" {home.name()} " in line]
        admin.delete(home.ledger)
        slots = {("writer", "a"): ("draining", ""), ("writer", "b"): ("active", "second")}
        assert command.make(home.but(slots=slots)).code == 0
        assert [line for line in admin.acl_list() if f" {home.name()} " in line] == before
        assert command.maintain(home, "Repair").report["code"] == 0
        assert [line for line in admin.acl_list() if f" {home.name()} " in line] == before


def test_another_password_in_the_same_slot_ends_sessions(home: Memory, command: Command) -> None:
    session = home.connect()
    session.ping()
    assert command.make(home.but(password="second")).code == 0
    with pytest.raises(redis.ConnectionError):
        session.execute_command("PING")
    assert not works(home, home.writer)


def test_subscriber_of_a_closed_login_hears_no_more(home: Memory, command: Command) -> None:
    with home.connect(home.reader) as app, app.pubsub() as heard:
        heard.subscribe(f"{home.prefix}changes")
        assert heard.get_message(timeout=5)
        assert command.make(home.but(reader_password=None)).code == 0
        with pytest.raises(redis.ConnectionError):
            heard.get_message(timeout=5)
