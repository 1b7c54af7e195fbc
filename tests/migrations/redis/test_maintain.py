"""`maintain`: what goes, what stays, what is put back, and what each Memory is told."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.migrations.redis.documents import DAY_MS, Command, Memory
from tests.migrations.redis.test_nodes import opens
from tests.redisservers import Client, Keeps, Node, launch


def report_of(command: Command, memory: Memory) -> dict[str, Any]:
    file = command.folder / "reports" / "databases" / f"mem-{memory.id12}.json"
    found: dict[str, Any] = json.loads(json.loads(file.read_text())["maintenance"])
    return found


def now_ms() -> int:
    return int(time.time() * 1000)


def put(app: Client, memory: Memory, key: str, age_ms: int, expires_at: int | None = None) -> None:
    """Writes an entry as a client does, some time ago."""
    written = now_ms() - age_ms
    values: dict[Any, Any] = {
        "value": "1",
        "version": "1",
        "updated_at": str(written),
        "expires_at": str(expires_at or ""),
    }
    app.hset(f"{memory.prefix}kv:{key}", mapping=values)
    app.zadd(f"{memory.prefix}kv-times", {key: written})


def append(app: Client, memory: Memory, number: int, age_ms: int) -> None:
    entry = app.execute_command("XADD", f"{memory.prefix}events", f"{now_ms() - age_ms}-{number}", "id", number)
    app.set(f"{memory.prefix}event-id:{number}", entry)


def upsert(app: Client, memory: Memory, key: str, age_ms: int, expires_at: int | None = None) -> None:
    prefix, attributes = memory.prefix, json.dumps({"key": key, "expires_at": expires_at})
    with app.pipeline() as pipe:
        pipe.execute_command(
            "VADD", f"{prefix}vectors", "VALUES", 3, 1, 2, 3, f"0:{key}", "NOQUANT", "SETATTR", attributes
        )
        pipe.zadd(f"{prefix}vector-times", {f"0:{key}": now_ms() - age_ms})
        pipe.sadd(f"{prefix}vector-keys:{key}", "0")
        pipe.execute()


@pytest.fixture
def aged(any_memory: Memory, command: Command) -> Memory:
    """A Memory that keeps data for a week, with some that is older and some that is not."""
    memory = any_memory.but(ttl_days=7)
    assert command.make(memory).code == 0
    with memory.connect() as app:
        for number, days in enumerate((30, 8, 6, 0)):
            append(app, memory, number, days * DAY_MS)
            put(app, memory, f"k{days}", days * DAY_MS)
            if memory.node.kind == "redis8":
                upsert(app, memory, f"v{days}", days * DAY_MS)
    return memory


def names(memory: Memory) -> set[str]:
    with memory.node.client() as admin:
        return {key.removeprefix(memory.prefix) for key in admin.keys(f"{memory.prefix}*")}


def test_what_is_older_than_ttl_days_goes(aged: Memory, command: Command) -> None:
    assert command.maintain(aged).message == "homes: 1 looked after"
    with aged.connect() as app:
        assert [fields["id"] for _, fields in app.xrange(f"{aged.prefix}events")] == ["2", "3"]
        assert app.zrange(f"{aged.prefix}kv-times", 0, -1) == ["k6", "k0"]
    kept = {"kv:k6", "kv:k0", "event-id:2", "event-id:3"}
    vectors = aged.node.kind == "redis8"
    kept |= {"vectors", "vector-times", "vector-keys:v6", "vector-keys:v0"} if vectors else set()
    assert names(aged) - {"meta", "events", "kv-times"} == kept
    report = report_of(command, aged)
    assert (report["code"], report["retention"]["deleted"]) == (0, 6 if vectors else 4)
    assert report["data"]["rows"] == (6 if vectors else 4)
    assert report["data"]["bytes"] > 0
    assert report["index"]["reason"] == ("Ready" if vectors else "Disabled")
    assert report["drift"] == []
    assert command.maintain(aged).code == 0
    assert report_of(command, aged) == report, "a run that finds nothing to do says nothing new"


def test_for_ever_means_for_ever(aged: Memory, command: Command) -> None:
    assert command.make(aged.but(ttl_days=0)).code == 0
    before = names(aged)
    assert command.maintain(aged).code == 0
    assert names(aged) == before


def test_hold_keeps_everything(aged: Memory, command: Command) -> None:
    with aged.connect() as app:
        put(app, aged, "ended", 0, expires_at=now_ms() - 1000)
    assert command.make(aged.but(hold=True)).code == 0
    before = names(aged)
    with aged.node.client() as admin:
        # As a provisioner that was killed before it came to this.
        admin.pexpire(f"{aged.prefix}kv:k0", 10_000)
    assert command.maintain(aged).code == 0
    assert names(aged) == before
    report = report_of(command, aged)
    assert report["retention"]["deleted"] == 0
    assert report["data"]["held"] == report["data"]["rows"]
    with aged.node.client() as admin:
        assert {admin.ttl(f"{aged.prefix}{name}") for name in before} == {-1}, "and nothing expires by itself"


def test_what_is_past_its_own_end_goes(home: Memory, command: Command) -> None:
    with home.connect() as app:
        put(app, home, "ended", 0, expires_at=now_ms() - 1)
        put(app, home, "lives", 0, expires_at=now_ms() + DAY_MS)
        upsert(app, home, "ended", 0, expires_at=now_ms() - 1)
        upsert(app, home, "lives", 0, expires_at=now_ms() + DAY_MS)
        assert command.maintain(home).code == 0
        assert app.execute_command("VCARD", f"{home.prefix}vectors") == 1
        assert app.zrange(f"{home.prefix}vector-times", 0, -1) == ["0:lives"]
    assert {name for name in names(home) if "ended" in name} == set()
    assert {"kv:lives", "vector-keys:lives"} < names(home)


def test_time_of_a_key_that_expired_by_itself_is_forgotten(home: Memory, command: Command) -> None:
    with home.connect() as app:
        put(app, home, "stays", 0)
        app.zadd(f"{home.prefix}kv-times", {"gone": 1})
        assert command.maintain(home).code == 0
        assert app.zrange(f"{home.prefix}kv-times", 0, -1) == ["stays"]


def test_what_no_client_of_ours_wrote_stays(home: Memory, command: Command) -> None:
    assert command.make(home.but(ttl_days=1)).code == 0
    with home.connect() as app:
        app.set(f"{home.prefix}kv:text", "x")
        app.hset(f"{home.prefix}kv:half", "value", "x")
        app.hset(f"{home.prefix}kv:odd", mapping={"updated_at": "yesterday", "expires_at": "soon"})
        app.set(f"{home.prefix}event-id:odd", "x")
        app.hset(f"{home.prefix}event-id:hash", "a", "b")
        app.zadd(f"{home.prefix}vector-times", {"0:none": now_ms()})
        app.execute_command("VADD", f"{home.prefix}vectors", "VALUES", 3, 1, 2, 3, "0:bare")
        app.execute_command("VADD", f"{home.prefix}vectors", "VALUES", 3, 1, 2, 3, "0:list", "SETATTR", "[]")
        app.zadd(f"{home.prefix}vector-times", {"0:list": now_ms()})
        before = names(home)
        assert command.maintain(home).report["code"] == 0
        assert names(home) == before
        assert app.execute_command("VCARD", f"{home.prefix}vectors") == 2


def test_event_ids_follow_a_raised_and_a_lowered_ttl(home: Memory, command: Command) -> None:
    def left(number: int) -> float:
        with home.node.client() as admin:
            return float(admin.pttl(f"{home.prefix}event-id:{number}")) / DAY_MS

    assert command.make(home.but(ttl_days=7)).code == 0
    with home.connect() as app:
        append(app, home, 1, 2 * DAY_MS)
        app.pexpire(f"{home.prefix}event-id:1", 5 * DAY_MS)
    for days, expected in ((30, 28), (3, 1), (0, 0), (7, 5)):
        assert command.make(home.but(ttl_days=days)).code == 0
        assert command.maintain(home).code == 0
        assert left(1) == pytest.approx(expected, abs=0.01), f"ttlDays {days}"


def test_writer_that_never_pauses_loses_nothing_young(home: Memory, command: Command) -> None:
    """Old entries are written anew while maintenance removes them: whatever the writer saw accepted is there."""
    memory = home.but(ttl_days=1)
    assert command.make(memory).code == 0
    with memory.connect() as app:
        for number in range(300):
            put(app, memory, str(number), 2 * DAY_MS)
            upsert(app, memory, str(number), 2 * DAY_MS)
            append(app, memory, number, 2 * DAY_MS)
    written: list[int] = []
    done = threading.Event()

    def write() -> None:
        with memory.connect() as app:
            for number in range(0, 300, 2):
                put(app, memory, str(number), 0)
                upsert(app, memory, str(number), 0)
                append(app, memory, 1000 + number, 0)
                written.append(number)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert command.maintain(memory).report["code"] == 0
    writer.join()
    assert command.maintain(memory).report["code"] == 0
    assert len(written) == 150
    even = {str(number) for number in written}
    found = names(memory)
    assert {name.removeprefix("kv:") for name in found if name.startswith("kv:")} == even
    assert {name.removeprefix("vector-keys:") for name in found if name.startswith("vector-keys:")} == even
    with memory.connect() as app:
        assert set(app.zrange(f"{memory.prefix}vector-times", 0, -1)) == {f"0:{number}" for number in even}
        assert app.execute_command("VCARD", f"{memory.prefix}vectors") == 150
        assert app.xlen(f"{memory.prefix}events") == 150


@pytest.mark.parametrize("keeps", ["nothing", "config", "aclfile"])
def test_restart(tmp_path: Path, command: Command, keeps: Keeps) -> None:
    """Without a file of its own for users a restart loses them: said at once, and mended by maintenance."""
    node = launch(tmp_path / "server", keeps=keeps)
    try:
        memory = Memory(node)
        answer = command.make(memory)
        warned = [each for each in answer.report["warnings"] if "keeps its users nowhere" in each]
        assert len(warned) == (1 if keeps == "nothing" else 0)
        named = {"nothing": set(), "config": {"config-file"}, "aclfile": {"acl-file"}}[keeps]
        assert set(answer.report["server"]["capabilities"]) & {"acl-file", "config-file"} == named
        node.stop(save=True)
        node.start()
        assert opens(node, memory.writer) == (keeps != "nothing")
        assert command.maintain(memory).report["code"] == 0
        assert opens(node, memory.writer)
        assert opens(node, memory.reader)
        drift = report_of(command, memory)["drift"]
        server = f"127.0.0.1:{node.port}"
        expected = [
            f"login {memory.name('reader')} is missing on {server}: put back",
            f"login {memory.name()} is missing on {server}: put back",
        ]
        assert drift == (expected if keeps == "nothing" else [])
        assert command.maintain(memory).report["code"] == 0
        assert report_of(command, memory)["drift"] == []
    finally:
        node.stop()


def test_users_file_that_cannot_be_written_is_told(tmp_path: Path, command: Command) -> None:
    node = launch(tmp_path / "server")
    try:
        (node.directory / "users.acl").unlink()
        (node.directory / "users.acl").mkdir()
        answer = command.make(Memory(node))
        assert answer.code == 0
        assert any("cannot write its users (ACL SAVE" in each for each in answer.report["warnings"])
        with node.client() as admin:
            admin.acl_deluser(Memory(node).name())
        assert command.maintain(Memory(node)).report["code"] == 0
    finally:
        node.stop()


def test_rights_that_somebody_changed_are_told_and_on_repair_mended(home: Memory, command: Command) -> None:
    server = f"127.0.0.1:{home.node.port}"
    with home.node.client() as admin:
        admin.execute_command("ACL SETUSER", home.name(), "+keys", "~*", "-xadd")
        admin.execute_command("ACL SETUSER", home.name("reader"), "(+get ~x)")
        admin.hset(f"{home.prefix}meta", "ttl_days", "9")
        assert command.maintain(home).code == 0
        reader, writer, meta = report_of(command, home)["drift"]
        assert writer.startswith(
            f"login {home.name()} has keys ~*, lacks keys %R~{home.prefix}meta ~{home.prefix}event-id:*"
        )
        assert writer.endswith(f"and 5 more, has commands keys, lacks commands xadd on {server}")
        assert reader == f"login {home.name('reader')} has (-@all +get ~x) on {server}"
        assert meta == f"{home.prefix}meta: ttl_days is not as provisioned"
        assert "~*" in str(admin.acl_getuser(home.name())["keys"]), "Report changes nothing"
        assert command.maintain(home, "Repair").code == 0
        assert report_of(command, home)["drift"] == []
        assert admin.hget(f"{home.prefix}meta", "ttl_days") == "0"
        assert command.maintain(home).code == 0
        assert report_of(command, home)["drift"] == []
    with home.connect() as app, pytest.raises(redis.exceptions.NoPermissionError):
        app.keys()


@pytest.mark.parametrize("rule", ["+@all", "allkeys", "allchannels", "+@read", "off", "resetpass", "-command|docs"])
def test_every_change_of_rights_is_seen(any_memory: Memory, command: Command, rule: str) -> None:
    assert command.make(any_memory).code == 0
    with any_memory.node.client() as admin:
        admin.execute_command("ACL SETUSER", any_memory.name(), rule)
    assert command.maintain(any_memory).code == 0
    [told] = report_of(command, any_memory)["drift"]
    assert told.startswith(f"login {any_memory.name()} ")


def test_login_that_somebody_opened_is_closed_whatever_the_policy(home: Memory, command: Command) -> None:
    name = home.name(slot="b")
    with home.node.client() as admin:
        admin.execute_command("ACL SETUSER", name, "on", "nopass", "+@all", "~*")
        with home.connect(type(home.writer)(name, "any")) as session:
            session.ping()
            assert command.maintain(home).code == 0
            with pytest.raises(redis.ConnectionError):
                session.execute_command("PING")
        assert report_of(command, home)["drift"] == [f"login {name} is open on 127.0.0.1:{home.node.port}: closed"]


@pytest.mark.parametrize("rule", [">another", "off", "nopass"])
def test_who_comes_in_is_mended_whatever_the_policy(home: Memory, command: Command, rule: str) -> None:
    """As after a restart from an old file: a password that was changed must not be good again."""
    with home.node.client() as admin:
        before = admin.acl_list()
        admin.execute_command("ACL SETUSER", home.name(), rule)
        assert command.maintain(home).code == 0
        [told] = report_of(command, home)["drift"]
        assert told.endswith(": set right")
        assert admin.acl_list() == before


def test_held_home_gets_its_rights_back_whatever_the_policy(home: Memory, command: Command) -> None:
    assert command.make(home.but(hold=True)).code == 0
    with home.node.client() as admin:
        admin.execute_command("ACL SETUSER", home.name(), f"~{home.prefix}events", "+xadd")
        assert command.maintain(home).code == 0
    with home.connect() as app, pytest.raises(redis.exceptions.NoPermissionError):
        app.xadd(f"{home.prefix}events", {"a": "b"})


def test_one_home_that_fails_stops_no_other(home: Memory, command: Command) -> None:
    other = home.but(identity="team-b/notes", ttl_days=1)
    assert command.make(other).code == 0
    with home.node.client() as admin, other.connect() as app:
        admin.set(f"{home.prefix}events", "no stream")
        assert command.make(home.but(ttl_days=1)).code == 0
        put(app, other, "old", 2 * DAY_MS)
        answer = command.maintain(home)
        assert (answer.code, answer.report["reason"]) == (0, "JobFailed")
        assert answer.message.startswith(f"homes: 2, and in 1 of them a step failed: {home.prefix} ")
        assert "WRONGTYPE" in answer.message
    assert not {name for name in names(other) if name.startswith("kv:")}
    assert "WRONGTYPE" in report_of(command, home)["retention"]["message"]


def test_home_that_is_being_provisioned_is_left_to_the_next_run(home: Memory, command: Command) -> None:
    with home.node.client() as admin:
        admin.set(f"{home.ledger}:lock:{home.key}", "somebody", px=60_000)
        answer = command.maintain(home, deadline="1")
        assert answer.report["code"] == 0
        assert any("a provisioner is at work" in line["message"] for line in answer.log)
        admin.delete(f"{home.ledger}:lock:{home.key}")
        entry = json.loads(admin.hget(home.ledger, home.key) or "")
        entry["settings"]["sealed"] = False
        admin.hset(home.ledger, home.key, json.dumps(entry))
        admin.acl_deluser(home.name())
        assert command.maintain(home).report["code"] == 0
        assert home.name() not in admin.acl_users(), "nobody knows yet what it is to be"


def test_each_provider_looks_after_its_own(home: Memory, command: Command) -> None:
    assert command.maintain(home.but(provider={"uid": "another"})).message == "homes: 0 looked after"
    for namespace, count in (("team-a", 1), ("team", 0)):
        document = home.maintain_document(claim={"namespace": namespace, "name": "redis"})
        assert command.do("maintain", home, document).message == f"homes: {count} looked after"


def test_deadline_leaves_the_rest_to_the_next_run(home: Memory, command: Command) -> None:
    answer = command.maintain(home, deadline="0")
    assert answer.report["code"] in {0, 30}
    assert command.maintain(home).report["code"] == 0


def test_ledger_that_a_newer_image_wrote_is_left_alone(home: Memory, command: Command) -> None:
    with home.node.client() as admin:
        admin.hset(home.ledger, home.key, '{"version": 2}')
        for answer in (command.maintain(home), command.make(home)):
            assert (answer.report["code"], answer.report["reason"]) == (12, "ChecksumMismatch")
        assert admin.hget(home.ledger, home.key) == '{"version": 2}'


def test_walk_is_one_for_all_homes(redis8: Node, command: Command) -> None:
    memories = [Memory(redis8, identity=f"team/{number}") for number in range(5)]
    for memory in memories:
        assert command.make(memory).code == 0
    with redis8.client() as admin:
        before = (
            admin.info("commandstats")["cmdstat_scan"]["calls"] if "cmdstat_scan" in admin.info("commandstats") else 0
        )
        assert command.maintain(memories[0]).message == "homes: 5 looked after"
        assert admin.info("commandstats")["cmdstat_scan"]["calls"] - before == 1
