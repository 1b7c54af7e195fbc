"""`provision`: what a home is when it is done, and what it costs."""

import json

import pytest
import redis

from tests.migrations.redis.documents import Command, Memory
from tests.redisservers import Kind, Servers, verifier


def test_home_is_made_and_the_logins_work(any_memory: Memory, command: Command) -> None:
    answer = command.make(any_memory)
    assert (answer.code, answer.message) == (0, f'prefix "{any_memory.prefix}" is ready')
    assert answer.report["verify"] == []
    assert answer.report["server"]["capabilities"][:1] == ["acl-file"]
    has = any_memory.node.kind == "redis8"
    names = ["core", "embeddings"] if has else ["core"]
    assert [module["name"] for module in answer.report["modules"]] == names
    with any_memory.connect() as app:
        assert app.hgetall(f"{any_memory.prefix}meta") == {
            "contract": "1",
            "dataset": "notes",
            "dimension": "3" if has else "",
            "metric": "cosine",
            "storage": "full",
            "ttl_days": "0",
            "legal_hold": "0",
        }
        assert app.xadd(f"{any_memory.prefix}events", {"payload": "{}"})
    with any_memory.connect(any_memory.reader) as app:
        assert app.xlen(f"{any_memory.prefix}events") == 1
    for password in ("", "wrong", verifier("first-password")):
        login = any_memory.but(password=password).writer if password else None
        if login:
            with any_memory.connect(login) as app, pytest.raises(redis.AuthenticationError):
                app.ping()


def test_second_run_changes_nothing(any_memory: Memory, command: Command) -> None:
    assert command.make(any_memory).code == 0
    with any_memory.node.client() as admin:
        before = (admin.acl_list(), admin.hgetall(f"{any_memory.prefix}meta"))
        app = any_memory.connect()
        app.ping()
        assert command.make(any_memory).code == 0
        assert (admin.acl_list(), admin.hgetall(f"{any_memory.prefix}meta")) == before
        app.client_id()
    app.close()


def test_nothing_secret_is_said(memory: Memory, command: Command) -> None:
    answer = command.make(memory)
    said = json.dumps([answer.report, answer.log])
    for secret in ("first-password", verifier("first-password")[1:], memory.node.admin.password):
        assert secret not in said


def test_ledger_holds_verifiers_and_no_password(home: Memory) -> None:
    with home.node.client() as admin:
        entry = json.loads(admin.hget(home.ledger, home.key) or "")
    assert entry["logins"] == {
        home.name(): verifier("first-password"),
        home.name("reader"): verifier("reader-password"),
    }
    assert "first-password" not in json.dumps(entry)


@pytest.mark.parametrize("kind", ["redis7", "valkey"])
def test_embeddings_need_vector_sets(redis_servers: Servers, command: Command, kind: Kind) -> None:
    node = redis_servers.get(kind)
    node.wipe()
    answer = command.make(Memory(node, embeddings={"enabled": True}))
    assert (answer.code, answer.report["reason"]) == (16, "ModuleUnsupported")
    assert "has no vector sets, which are in Redis 8 or newer" in answer.message
    with node.client() as admin:
        assert (admin.acl_users(), admin.keys()) == (["default", node.admin.username], []), "nothing is half-made"


def test_every_command_answers(home: Memory, command: Command) -> None:
    probed = command.look(home)
    assert (probed.report["code"], probed.report["server"]["version"][:2]) == (0, "8.")
    assert command.maintain(home).message == "homes: 1 looked after"
    answer = command.do("reap", home, home.reap_document())
    assert (answer.code, answer.report["code"]) == (0, 30), "there is no API server to ask"
