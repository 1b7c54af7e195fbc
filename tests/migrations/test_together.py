"""Many provisioners at once on one empty server: all succeed."""

import pytest

from memoryctl.embedded import Login
from tests.migrations.documents import Command, Memory
from tests.migrations.snapshot import snapshot
from tests.postgres import Database, Postgres

EIGHT = 8


def _provision_together(command: Command, memories: list[Memory], admin: Login | None = None) -> None:
    processes = [command.spawn(memory, admin) for memory in memories]
    logs = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(memories), "\n".join(logs)


def test_eight_memories(database: Database, command: Command) -> None:
    memories = [
        Memory(database, identity=f"team-{number}/notes", schema=f"notes_{number}", password=f"password-{number}")
        for number in range(EIGHT)
    ]
    _provision_together(command, memories)
    for memory in memories:
        with memory.connect() as connection:
            connection.execute("SELECT memory_put('notes', 'k', '1')")


def test_eight_memories_where_the_admin_may_create_the_extension(postgres18: Postgres, command: Command) -> None:
    with postgres18.database(vector=False) as database:
        memories = [
            Memory(database, identity=f"team-{number}/notes", schema=f"notes_{number}") for number in range(EIGHT)
        ]
        _provision_together(command, memories, database.server.superuser)


def test_the_same_memory_eight_times(memory: Memory, command: Command) -> None:
    _provision_together(command, [memory] * EIGHT)
    together = snapshot(memory)
    assert command.provision(memory).code == 0
    assert snapshot(memory) == together


@pytest.mark.parametrize("schemas", [("notes", "notes"), ("one", "two")], ids=["one schema", "two schemas"])
def test_two_that_exclude_each_other(database: Database, command: Command, schemas: tuple[str, str]) -> None:
    """Of two identities that want one schema, or one identity that wants two, one gets it and the other hears why."""
    one_identity = schemas[0] != schemas[1]
    memories = [
        Memory(database, identity="team-a/notes" if one_identity else f"team-{number}/notes", schema=schema)
        for number, schema in enumerate(schemas)
    ]
    processes = [command.spawn(memory) for memory in memories]
    logs = [process.communicate()[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 14], "\n".join(logs)
