"""`plan`: says what `provision` would do, and changes nothing."""

import json
from typing import Any

import pytest

from migrations.__main__ import main
from tests.migrations.redis.documents import Command, Memory
from tests.migrations.redis.test_isolation import dump

# Sent by a look, and nothing else is.
READING = {
    *("hello", "auth", "select", "client|setname", "client|setinfo", "info", "command|info", "config|get"),
    *("acl|dryrun", "acl|getuser", "acl|cat", "hget", "hgetall", "vcard", "vdim", "vinfo", "cluster|nodes", "get"),
}


def run(command: Command, memory: Memory) -> tuple[int, dict[str, Any]]:
    """Plans; gives the exit code, and what was printed."""
    for name, value in command.mounted_for(memory, memory.document()).items():
        command.monkeypatch.setenv(name, value)
    command.capsys.readouterr()
    code = main(["plan"])
    return code, json.loads(command.capsys.readouterr().out)


def plan(command: Command, memory: Memory) -> dict[str, Any]:
    """Plans, and asserts that nothing changed and nothing was sent that could change anything."""
    with memory.node.client() as admin:
        before = (dump(memory.node), admin.acl_list())
        admin.config_resetstat()
        code, found = run(command, memory)
        sent = {name.removeprefix("cmdstat_").lower() for name in admin.info("commandstats")}
        assert code == 0
        assert sent - {"config|resetstat"} <= READING
        assert (dump(memory.node), admin.acl_list()) == before
    return found


def test_plan_of_a_new_home(any_memory: Memory, command: Command) -> None:
    found = plan(command, any_memory)
    assert found["home"] == "new"
    assert found["migrations"] == (["core/1", "embeddings/1"] if any_memory.node.kind == "redis8" else ["core/1"])
    server = f"127.0.0.1:{any_memory.node.port}"
    assert f"login {any_memory.name()} is missing on {server}" in found["changes"]
    assert f'{any_memory.prefix}meta: dataset "" becomes "notes"' in found["changes"]
    assert found["message"].startswith("provision would change ")


def test_plan_of_a_home_that_is_as_it_should_be(home: Memory, command: Command) -> None:
    found = plan(command, home)
    assert (found["home"], found["changes"], found["message"]) == ("ours", [], "nothing would change")


def test_plan_of_a_change(home: Memory, command: Command) -> None:
    found = plan(command, home.but(ttl_days=7, hold=True))
    assert f'{home.prefix}meta: ttl_days "0" becomes "7"' in found["changes"]
    assert f'{home.prefix}meta: legal_hold "0" becomes "1"' in found["changes"]
    assert any(each.startswith(f"login {home.name()} has keys") for each in found["changes"])


def test_plan_of_an_adoption(home: Memory, command: Command) -> None:
    again = home.but(uid="uid-2", password="second")
    found = plan(command, again)
    assert (found["home"], found["refused"]["code"]) == ("refused", 15)
    assert found["message"].startswith("provision would be refused (AdoptionRequired): ")
    found = plan(command, again.but(adopt=True))
    assert found["home"] == "adopt"
    assert "sessions of the earlier claim end" in found["changes"]
    assert any(each.startswith(f"login {home.name()} has another password on ") for each in found["changes"])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"embeddings": {"metric": "l2"}}, 16),
        ({"extra": {"modules": ["core", "audit"]}}, 16),
        ({"database": 99}, 20),
        ({"provider": {"port": 1}}, 30),
    ],
)
def test_plan_of_what_cannot_be(memory: Memory, command: Command, changes: dict[str, Any], code: int) -> None:
    ended, found = run(command, memory.but(**changes))
    refused = found.get("refused") or found
    assert (ended, refused["code"]) == (0 if code == 16 else code, code)
