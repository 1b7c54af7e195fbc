"""Whose home is whose: adoption and conflict; what Redis refuses; a dimension that cannot change."""

import json
from typing import Any

import pytest
import redis

from tests.migrations.redis.documents import Command, Memory


def test_claim_made_again_needs_adopt_and_finds_its_data_under_a_new_password(home: Memory, command: Command) -> None:
    with home.connect() as app:
        app.hset(f"{home.prefix}kv:k", mapping={"value": "1", "updated_at": "1"})
    again = home.but(uid="uid-2", password="second-password")
    answer = command.make(again)
    assert (answer.code, answer.report["reason"]) == (15, "AdoptionRequired")
    with home.connect() as app:
        assert app.ping(), "what was refused has changed nothing"
    old = home.connect()
    assert old.ping()
    assert command.make(again.but(adopt=True)).code == 0
    with pytest.raises(redis.ConnectionError):
        old.execute_command("PING")
    with again.connect() as app:
        assert app.hget(f"{home.prefix}kv:k", "value") == "1"
    assert command.make(again).code == 0, "it is ours now, and needs no adopt any more"


def test_sessions_of_the_earlier_claim_end_though_the_password_is_the_same(home: Memory, command: Command) -> None:
    with home.connect() as session:
        before = session.client_id()
        assert command.make(home.but(uid="uid-2", adopt=True)).code == 0
        assert session.client_id() != before, "it has had to log in again"


@pytest.mark.parametrize(("policy", "adopt", "code"), [("Allow", False, 0), ("Forbid", True, 15), ("Require", True, 0)])
def test_policy_of_adoption(home: Memory, command: Command, policy: str, adopt: bool, code: int) -> None:
    assert command.make(home.but(uid="uid-2", policy=policy, adopt=adopt)).code == code


def test_identity_has_one_home_on_a_server(home: Memory, command: Command) -> None:
    moved = home.but(dataset="other")
    answer = command.make(moved)
    assert (answer.code, answer.report["reason"]) == (14, "SchemaConflict")
    assert f'already has its home in "0" under "{home.prefix}"' in answer.message
    with home.node.client() as admin:
        assert admin.keys(f"{moved.prefix}*") == []


def test_same_dataset_of_two_teams_are_two_homes(home: Memory, command: Command) -> None:
    other = home.but(identity="team-b/notes", uid="uid-2")
    assert command.make(other).code == 0
    assert other.prefix != home.prefix
    with home.connect() as app, pytest.raises(redis.exceptions.NoPermissionError):
        app.hgetall(f"{other.prefix}meta")


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"embeddings": {"metric": "l2"}}, 16, 'embeddings.metric: "l2" is not what Redis can do'),
    ({"embeddings": {"metric": "ip"}}, 16, 'embeddings.metric: "ip" is not what Redis can do'),
    ({"extra": {"modules": ["core", "audit"]}}, 16, 'modules: "audit" is not in this migrations image for Redis'),
    ({"extra": {"access": {"readerRole": "r", "writerRole": None}}}, 16, "access.readerRole: Redis has no groups"),
    ({"extra": {"access": {"readerRole": None, "writerRole": "w"}}}, 16, "access.writerRole: Redis has no groups"),
    (
        {"extra": {"adoption": {"adopt": False, "policy": "Require", "from": "a/b"}}},
        16,
        'adoption: the keys of "a/b" bear its own prefix',
    ),
    ({"extra": {"prefix": "mem:{other.0123456789ab}:"}}, 20, 'prefix: "mem:{other.0123456789ab}:" is not of dataset'),
    ({"extra": {"prefix": "mem:{notes.0123456789ab}:"}}, 20, 'logins[0].name: write "mem_0123456789ab_rw_a"'),
    ({"extra": {"prefix": "mem:*"}}, 20, "prefix: String should match pattern"),
    ({"provider": {"keyPrefix": "m*m"}}, 20, "provider.keyPrefix: String should match pattern"),
]


@pytest.mark.parametrize(("changes", "code", "sentence"), REFUSED)
def test_what_cannot_be_is_refused_and_nothing_is_made(
    memory: Memory, command: Command, changes: dict[str, Any], code: int, sentence: str
) -> None:
    answer = command.make(memory.but(**changes))
    assert (answer.code, sentence in answer.message) == (code, True), answer.message
    with memory.node.client() as admin:
        assert admin.keys() == []
        assert admin.acl_users() == ["default", memory.node.admin.username]


def test_another_dimension_than_the_stored_one_is_refused(home: Memory, command: Command) -> None:
    wanted = home.but(embeddings={"dimension": 4})
    assert command.make(wanted).code == 0, "nothing is stored yet"
    assert command.make(home).code == 0
    with home.connect() as app:
        app.execute_command("VADD", f"{home.prefix}vectors", "VALUES", 3, 1, 2, 3, "0:k", "NOQUANT")
        answer = command.make(wanted)
        assert (answer.code, answer.report["reason"]) == (11, "DimensionConflict")
        assert "1 embeddings of dimension 3 are stored, and dimension 4 is wanted" in answer.message
        assert app.hget(f"{home.prefix}meta", "dimension") == "3"
        assert command.make(home.but(embeddings={"enabled": False})).code == 0
        assert app.hget(f"{home.prefix}meta", "dimension") == ""


def test_storage_is_that_of_the_stored_vectors_until_there_are_none(home: Memory, command: Command) -> None:
    half = home.but(embeddings={"storage": "half"})
    with home.connect() as app:
        app.execute_command("VADD", f"{home.prefix}vectors", "VALUES", 3, 1, 2, 3, "0:k", "NOQUANT")
        answer = command.make(half)
        assert answer.code == 0
        assert any('1 embeddings are stored as "full" and stay so' in each for each in answer.report["warnings"])
        assert app.hget(f"{home.prefix}meta", "storage") == "full"
        app.execute_command("VREM", f"{home.prefix}vectors", "0:k")
        assert command.make(half).code == 0
        assert app.hget(f"{home.prefix}meta", "storage") == "half"
        app.execute_command("VADD", f"{home.prefix}vectors", "VALUES", 3, 1, 2, 3, "0:k", "Q8")
        assert not any("stay so" in each for each in command.make(half).report["warnings"])


def test_ledger_says_what_maintenance_holds_a_home_to(home: Memory, command: Command) -> None:
    assert command.make(home.but(ttl_days=7, hold=True)).code == 0
    with home.node.client() as admin:
        entry = json.loads(admin.hget(home.ledger, home.key) or "")
    assert (entry["ttlDays"], entry["legalHold"], entry["home"], entry["place"]) == (7, True, home.prefix, "0")
    assert entry["settings"] == {"sealed": True, "untouched": [], "adopting": False}
