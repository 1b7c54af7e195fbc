"""Many at once."""

import threading

import pytest

from tests.migrations.redis.documents import Command, Memory, in_threads
from tests.migrations.redis.test_kill import finish, spawn
from tests.redisservers import Group, Node


@pytest.mark.parametrize("place", ["single", "cluster"])
def test_eight_memories_at_once(redis8: Node, redis_cluster: Group, command: Command, place: str) -> None:
    node = redis8 if place == "single" else redis_cluster.first
    memories = [Memory(node, identity=f"team-{number}/notes", password=f"password-{number}") for number in range(8)]
    assert in_threads(memories) == [[]] * 8
    for memory in memories:
        with memory.connect() as app:
            assert app.acl_whoami() == memory.name()
    assert command.make(memories[0]).report["verify"] == []


def test_eight_runs_of_one_memory_at_once(memory: Memory) -> None:
    assert in_threads([memory] * 8) == [[]] * 8
    with memory.connect() as app, memory.node.client() as admin:
        assert app.ping()
        assert admin.hlen(memory.ledger) == 1
        assert admin.keys(f"{memory.ledger}:*") == [], "no lock is left"


@pytest.mark.long
def test_eight_processes_at_once(redis8: Node, command: Command) -> None:
    memories = [Memory(redis8, identity=f"team-{number % 4}/notes") for number in range(8)]
    processes = [spawn(command, memory) for memory in memories]
    assert [finish(process) for process in processes] == [0] * 8


def test_login_that_stays_is_never_refused(home: Memory, command: Command) -> None:
    """One ACL SETUSER, so there is no moment in between; a session of it goes on as well."""
    done, refused = threading.Event(), []

    def knock() -> None:
        session = home.connect()
        while not done.is_set():
            try:
                session.hgetall(f"{home.prefix}meta")
                with home.connect() as app:
                    app.ping()
            except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
                refused.append(str(error))
        session.close()

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        for hold in (True, False) * 5:
            assert command.make(home.but(hold=hold)).code == 0
    finally:
        done.set()
        thread.join()
    assert refused == []
