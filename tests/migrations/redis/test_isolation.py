"""What a login may do, command by command: by ACL DRYRUN, and for real, with the same dataset name on both sides."""

from typing import Any

import pytest
import redis

from memoryctl.embedded import Login
from migrations.redis import acl
from tests.migrations.redis.documents import Command, Memory
from tests.redisservers import Client, Node, until, verifier

# {A}: the prefix of the Memory whose login tries, {B}: another Memory's, {L}: the ledger.
REFUSED = """
GET {B}event-id:1 | MGET {A}event-id:1 {B}event-id:1 | GETRANGE {B}event-id:1 0 1 | STRLEN {B}event-id:1
SET {B}event-id:1 x | SET {B}event-id:1 x GET | GETSET {B}event-id:1 x | APPEND {B}event-id:1 x | INCR {B}event-id:1
HGETALL {B}kv:k | HGET {B}kv:k value | HMGET {B}kv:k value | HKEYS {B}kv:k | HVALS {B}kv:k | HRANDFIELD {B}kv:k
HSET {B}kv:k value x | HDEL {B}kv:k value | HSETNX {B}kv:k value x | HINCRBY {B}kv:k version 1
XRANGE {B}events - + | XREVRANGE {B}events + - | XREAD STREAMS {B}events 0 | XLEN {B}events
XREAD STREAMS {A}events {B}events 0 0 | XINFO STREAM {B}events | XADD {B}events * a b | XDEL {B}events 1-1
XTRIM {B}events MAXLEN 0 | XGROUP CREATE {B}events g 0 | XREADGROUP GROUP g c STREAMS {B}events > | XSETID {B}events 9-9
ZRANGE {B}vector-times 0 -1 | ZSCORE {B}vector-times e | ZADD {B}vector-times 1 e | ZREM {B}vector-times e
ZUNIONSTORE {A}vector-times 1 {B}vector-times | ZRANGESTORE {A}vector-times {B}vector-times 0 -1
ZSCAN {B}vector-times 0
SMEMBERS {B}vector-keys:k | SISMEMBER {B}vector-keys:k 0 | SADD {B}vector-keys:k 1 | SREM {B}vector-keys:k 0
SMOVE {B}vector-keys:k {A}vector-keys:k 0 | SUNIONSTORE {A}vector-keys:k {B}vector-keys:k | SSCAN {B}vector-keys:k 0
HGETALL {B}meta | HSET {B}meta legal_hold 0 | HSET {A}meta legal_hold 0 | DEL {A}meta | EXPIRE {A}meta 1
EXISTS {B}meta | TYPE {B}meta | TTL {B}meta | DEL {B}meta | UNLINK {B}meta | EXPIRE {B}meta 1 | PERSIST {B}meta
WATCH {B}meta | TOUCH {B}meta | OBJECT ENCODING {B}meta | MEMORY USAGE {B}meta | DUMP {B}meta | DUMP {A}kv:k
RESTORE {A}kv:new 0 x | COPY {B}kv:k {A}kv:k | RENAME {B}kv:k {A}kv:k | RENAME {A}kv:k {B}kv:k | MOVE {A}kv:k 1
SORT {A}vector-keys:k BY {B}kv:* | SORT_RO {A}vector-keys:k BY {B}kv:* | MIGRATE 127.0.0.1 1 {A}kv:k 0 1
HGETALL {L} | HSET {L} a b | DEL {L} | GET {L}:lock:x | SET {L}:lock:x y
GET other | SET other x | SET {A}elsewhere x | GET {A}elsewhere
KEYS * | KEYS {A}* | SCAN 0 | RANDOMKEY | DBSIZE | FLUSHALL | FLUSHDB | SWAPDB 0 1
CONFIG GET * | CONFIG SET maxmemory 1 | CONFIG REWRITE | CONFIG RESETSTAT | INFO | ROLE | LASTSAVE
ACL LIST | ACL USERS | ACL GETUSER default | ACL SETUSER x on nopass | ACL DELUSER x | ACL CAT | ACL LOG | ACL SAVE
ACL LOAD | ACL GENPASS | ACL DRYRUN default ping
CLIENT LIST | CLIENT INFO | CLIENT KILL TYPE normal | CLIENT TRACKING on BCAST | CLIENT PAUSE 1 | CLIENT NO-EVICT on
CLIENT UNBLOCK 1 | CLIENT CACHING yes | CLIENT TRACKINGINFO
EVAL 'return 1' 0 | EVALSHA x 0 | EVAL_RO 'return 1' 0 | SCRIPT LOAD x | SCRIPT FLUSH | FUNCTION LIST | FUNCTION LOAD x
FCALL x 0 | FCALL_RO x 0
PUBLISH {B}changes x | PUBLISH changes x | SPUBLISH {B}changes x | SUBSCRIBE {B}changes | SUBSCRIBE __keyspace@0__:x
PSUBSCRIBE {B}* | PSUBSCRIBE * | PSUBSCRIBE {A}x* | SSUBSCRIBE {B}changes | PUBSUB CHANNELS | PUBSUB NUMSUB {B}changes
MONITOR | SLOWLOG GET | LATENCY LATEST | DEBUG SLEEP 0 | SHUTDOWN NOSAVE | SAVE | BGSAVE | BGREWRITEAOF
REPLICAOF NO ONE | PSYNC ? -1 | SYNC | FAILOVER | WAIT 0 0 | REPLCONF x y | MODULE LIST | MODULE LOAD x
CLUSTER RESET | CLUSTER GETKEYSINSLOT 0 10 | CLUSTER COUNTKEYSINSLOT 0 | CLUSTER MEET 127.0.0.1 1 | CLUSTER FAILOVER
MEMORY STATS | MEMORY DOCTOR | LOLWUT
"""
REFUSED_VECTORS = """
VSIM {B}vectors ELE 0:k | VCARD {B}vectors | VDIM {B}vectors | VINFO {B}vectors | VEMB {B}vectors 0:k
VGETATTR {B}vectors 0:k | VRANDMEMBER {B}vectors | VLINKS {B}vectors 0:k
VADD {B}vectors VALUES 3 1 2 3 1:k | VREM {B}vectors 0:k | VSETATTR {B}vectors 0:k {}
"""
READS = """
PING | ECHO x | SELECT 0 | TIME | COMMAND COUNT | CLIENT SETNAME app | CLIENT GETNAME | CLIENT ID | ACL WHOAMI
HGETALL {A}meta | EXISTS {A}events | TYPE {A}kv:k | TTL {A}kv:k | PTTL {A}kv:k | GET {A}event-id:1 | MGET {A}event-id:1
HGET {A}kv:k value | HMGET {A}kv:k value version | HGETALL {A}kv:k
XRANGE {A}events - + | XREVRANGE {A}events + - COUNT 1 | XREAD STREAMS {A}events 0 | XLEN {A}events
XINFO STREAM {A}events | ZRANGE {A}vector-times 0 -1 | ZSCORE {A}vector-times 0:k | ZCARD {A}vector-times
SMEMBERS {A}vector-keys:k | SCARD {A}vector-keys:k | WATCH {A}kv:k | UNWATCH
"""
READS_VECTORS = """
VSIM {A}vectors ELE 0:k WITHSCORES COUNT 3 | VCARD {A}vectors | VDIM {A}vectors | VINFO {A}vectors
VEMB {A}vectors 0:k | VGETATTR {A}vectors 0:k
"""
WRITES = """
XADD {A}events * id x type note payload {} | XDEL {A}events 9-9 | SET {A}event-id:2 1-1 PX 100000 | DEL {A}event-id:2
HSET {A}kv:k value 1 version 2 updated_at 3 | HDEL {A}kv:k expires_at | PEXPIREAT {A}kv:k 99999999999999
PERSIST {A}kv:k | DEL {A}kv:gone | UNLINK {A}kv:gone | ZADD {A}vector-times 1 0:k | ZREM {A}vector-times 9:k
SADD {A}vector-keys:k 0 | SREM {A}vector-keys:k 9 | PUBLISH {A}changes x | SPUBLISH {A}changes x
"""
WRITES_VECTORS = "VADD {A}vectors VALUES 3 1 2 4 0:k | VSETATTR {A}vectors 0:k {} | VREM {A}vectors 9:k"


def lines(memory: Memory, text: str) -> list[list[str]]:
    """Gives the commands of a table, with A's and B's prefixes."""
    places = {"{A}": memory.prefix, "{B}": other(memory).prefix, "{L}": memory.ledger}
    for name, value in places.items():
        text = text.replace(name, value)
    found = [command.split() for command in text.replace("'return 1'", "return-1").replace("\n", " | ").split(" | ")]
    return [words for words in found if words]


def table(memory: Memory, text: str, vectors: str) -> list[list[str]]:
    return lines(memory, text + (vectors if memory.node.kind == "redis8" else ""))


def other(memory: Memory) -> Memory:
    """Another team's Memory of the same dataset name."""
    return memory.but(identity="team-b/notes", uid="uid-2", password="theirs", reader_password="theirs-too")


def fill(admin: Client, memory: Memory) -> None:
    prefix = memory.prefix
    admin.execute_command("XADD", f"{prefix}events", "*", "id", "1")
    admin.set(f"{prefix}event-id:1", "1-1")
    admin.hset(f"{prefix}kv:k", mapping={"value": "1", "version": "1", "updated_at": "1", "expires_at": ""})
    admin.zadd(f"{prefix}vector-times", {"0:k": 1})
    admin.sadd(f"{prefix}vector-keys:k", "0")
    if memory.node.kind == "redis8":
        admin.execute_command("VADD", f"{prefix}vectors", "VALUES", 3, 1, 2, 3, "0:k", "SETATTR", "{}")


@pytest.fixture
def two(any_memory: Memory, command: Command) -> Memory:
    """A Memory with data, beside another one with data."""
    for each in (any_memory, other(any_memory)):
        assert command.make(each).code == 0
        with each.node.client() as admin:
            fill(admin, each)
    return any_memory


def dry(node: Node, login: Login, commands: list[list[str]]) -> list[tuple[list[str], str]]:
    """What ACL DRYRUN says of each command; of one that this server does not know, that."""
    with node.client() as admin, admin.pipeline(transaction=False) as pipe:
        for words in commands:
            pipe.execute_command("ACL", "DRYRUN", login.username, *words)
        answers = pipe.execute(raise_on_error=False)
    said = ["unknown" if "not found" in str(each) else str(each) for each in answers]
    return list(zip(commands, said, strict=True))


def try_it(app: Client, words: list[str]) -> Exception | None:
    app.response_callbacks.clear()
    try:
        app.execute_command(*words)
    except redis.ResponseError as error:
        return error
    return None


def dump(node: Node) -> dict[bytes, Any]:
    with node.client(decode_responses=False) as admin:
        return {key: admin.dump(key) for key in sorted(admin.keys())}


@pytest.mark.parametrize("role", ["writer", "reader"])
def test_nothing_outside_the_prefix_and_nothing_of_the_server(two: Memory, role: str) -> None:
    login = two.writer if role == "writer" else two.reader
    before = dump(two.node)
    with two.connect(login) as app:
        for words, said in dry(two.node, login, table(two, REFUSED, REFUSED_VECTORS)):
            assert "no permissions" in said or said == "unknown", (words, said)
            error = try_it(app, words)
            # Some a server refuses to everybody before it asks who it is.
            gone = any(text in str(error) for text in ("unknown command", "command not allowed"))
            refused = gone or isinstance(error, redis.exceptions.NoPermissionError)
            assert refused, (words, error)
        assert app.execute_command("PING")
    assert dump(two.node) == before


@pytest.mark.parametrize("role", ["writer", "reader"])
def test_what_a_client_sends_is_allowed(two: Memory, role: str) -> None:
    login = two.writer if role == "writer" else two.reader
    tables = [(READS, READS_VECTORS), *([(WRITES, WRITES_VECTORS)] if role == "writer" else [])]
    with two.connect(login) as app:
        for text, vectors in tables:
            for words, said in dry(two.node, login, table(two, text, vectors)):
                assert said == "OK", words
                assert try_it(app, words) is None, words


def test_reader_writes_nothing(two: Memory) -> None:
    before = dump(two.node)
    with two.connect(two.reader) as app:
        for words, said in dry(two.node, two.reader, table(two, WRITES, WRITES_VECTORS)):
            assert "no permissions" in said, words
            assert isinstance(try_it(app, words), redis.exceptions.NoPermissionError), words
    assert dump(two.node) == before


@pytest.mark.parametrize("role", ["writer", "reader"])
def test_every_command_of_the_server_is_refused_or_listed(two: Memory, role: str) -> None:
    """With keys of B's for all arguments: what a later server brings is refused until somebody lists it."""
    login = two.writer if role == "writer" else two.reader
    listed = set(acl.WRITER if role == "writer" else acl.READER)
    # These are answered before anybody is logged in.
    open_to_all = {"auth", "hello", "quit", "reset"}
    with two.node.client() as admin:
        admin.response_callbacks.clear()
        described = admin.execute_command("COMMAND")
    commands = [each for entry in described for each in (entry[9] or [entry])]
    assert len(commands) > 300
    # Their keys are wherever a word says; the table above has them.
    commands = [each for each in commands if each[0] not in {"xread", "command|getkeys", "command|getkeysandflags"}]
    tried = []
    for name, arity, _, first_key, *_ in commands:
        parts = name.split("|")
        length = max(first_key + 1, abs(arity))
        tried.append([*parts, *[f"{other(two).prefix}meta"] * (length - len(parts))])
    for (name, _, _, first_key, *_), (words, said) in zip(commands, dry(two.node, login, tried), strict=True):
        allowed = bool({name.lower(), name.partition("|")[0].lower()} & listed)
        free = allowed and first_key == 0 and "publish" not in name and "subscribe" not in name
        if free or name in open_to_all:
            assert said == "OK", (words, said)
        elif "unsubscribe" in name:
            assert said == "OK" or not allowed, (words, said)
        else:
            assert "no permissions" in said, (words, said)


def test_transaction_with_a_key_of_others_does_nothing(two: Memory) -> None:
    with two.connect() as app, app.pipeline() as pipe:
        pipe.set(f"{two.prefix}event-id:9", "1")
        pipe.hset(f"{other(two).prefix}kv:k", "value", "x")
        with pytest.raises(redis.RedisError):
            pipe.execute()
        assert not app.exists(f"{two.prefix}event-id:9")


def test_messages_stay_in_the_prefix(two: Memory) -> None:
    with two.connect(two.reader) as app, app.pubsub() as heard, two.connect() as sender:
        heard.psubscribe(f"{two.prefix}*")
        until(lambda: heard.get_message() is not None)
        with other(two).connect() as theirs:
            theirs.publish(f"{other(two).prefix}changes", "theirs")
        sender.publish(f"{two.prefix}changes", "ours")
        message = heard.get_message(ignore_subscribe_messages=True, timeout=5)
        assert message
        assert message["data"] == "ours"


def test_server_that_opens_all_channels_to_new_users(redis8: Node, command: Command) -> None:
    memory = Memory(redis8)
    with redis8.client() as admin:
        admin.config_set("acl-pubsub-default", "allchannels")
        try:
            assert command.make(memory).report["verify"] == []
        finally:
            admin.config_set("acl-pubsub-default", "resetchannels")
    [(_, said)] = dry(redis8, memory.writer, [["PSUBSCRIBE", "*"]])
    assert "no permissions" in said


def test_legal_hold_lets_nobody_write(two: Memory, command: Command) -> None:
    before = dump(two.node)
    assert command.make(two.but(hold=True)).code == 0
    with two.connect() as app:
        for words, said in dry(two.node, two.writer, table(two, WRITES, WRITES_VECTORS)):
            assert "no permissions" in said, words
            assert isinstance(try_it(app, words), redis.exceptions.NoPermissionError), words
        for words in table(two, READS, READS_VECTORS):
            assert try_it(app, words) is None, words
        assert app.execute_command("HGET", f"{two.prefix}meta", "legal_hold") == "1"
    after = dump(two.node)
    changed = {key.decode() for key in after if after[key] != before[key]}
    assert changed == {f"{two.prefix}meta", two.ledger}
    assert command.make(two).code == 0
    with two.connect() as app:
        assert app.hset(f"{two.prefix}kv:k", "value", "2") == 0


def test_hold_takes_the_expiry_off_what_would_go_by_itself(home: Memory, command: Command) -> None:
    with home.connect() as app:
        app.hset(f"{home.prefix}kv:k", "updated_at", "1")
        app.pexpire(f"{home.prefix}kv:k", 100_000)
        app.set(f"{home.prefix}event-id:1", "1-1", px=100_000)
        assert command.make(home.but(hold=True)).code == 0
        assert (app.ttl(f"{home.prefix}kv:k"), app.ttl(f"{home.prefix}event-id:1")) == (-1, -1)


def test_no_password_but_its_own_opens_a_login(home: Memory) -> None:
    for password in ("wrong", verifier("first-password"), verifier("first-password")[1:], ""):
        with home.connect(Login(home.name(), password)) as app, pytest.raises(redis.RedisError):
            app.ping()
