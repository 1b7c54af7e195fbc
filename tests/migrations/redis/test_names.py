"""Whatever things are called: rights are those of one prefix, and what goes is what was meant."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migrations.deadline import Deadline
from migrations.redis import acl, logins
from migrations.redis.connection import Admin
from migrations.redis.maintenance import maintain
from migrations.redis.names import Home, home_of
from migrations.redis.provision import provision
from migrations.redis.request import MaintainRequest, ProvisionRequest
from migrations.redis.server import connected
from migrations.request import parse
from tests.migrations.redis.documents import DAY_MS, Memory
from tests.migrations.redis.test_maintain import now_ms
from tests.redisservers import Node

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9_.-]{0,20}[a-z0-9])?", fullmatch=True)
PREFIXES = st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True)
# Any bytes may be a key's name; what means something in a pattern comes often.
KEYS = st.one_of(
    st.text(alphabet="ab:*?[]^\\{}'\" \n%é", max_size=8).map(str.encode),
    st.text(max_size=8).map(lambda text: text.encode(errors="surrogatepass")),
    st.binary(max_size=8),
)
ON_ONE_SERVER = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def admin_of(memory: Memory, request: Any) -> Admin:
    return Admin(request.provider, memory.node.admin.username, memory.node.admin.password, ca=None)


def made(memory: Memory) -> ProvisionRequest:
    memory.node.wipe()
    request = parse(memory.document(), ProvisionRequest)
    assert provision(request, admin_of(memory, request), Deadline.in_seconds(20)).verify == []
    return request


@ON_ONE_SERVER
@given(prefix=PREFIXES, dataset=NAMES, other=NAMES)
def test_rights_are_read_as_they_were_given(redis8: Node, prefix: str, dataset: str, other: str) -> None:
    memory = Memory(redis8, key_prefix=prefix, dataset=dataset)
    request = made(memory)
    with connected(admin_of(memory, request)) as server:
        node, home = server.first, home_of(request)
        found = logins.read(node, home.logins)
        wanted = acl.rights(home, memory.login("writer", "a")["verifier"], node.known, writer=True)
        assert found[memory.name()] == wanted
        assert acl.owner_of(found[memory.name()]) == memory.prefix
        beside = memory.but(identity="team-b/notes", dataset=other)
        for key in (beside.prefix, memory.prefix[:-1], f"x{memory.prefix}", memory.ledger):
            said = node.call("ACL", "DRYRUN", memory.name(), "GET", f"{key}kv:k")
            assert "no permissions" in said


@ON_ONE_SERVER
@given(entries=st.dictionaries(KEYS, st.booleans(), min_size=1, max_size=20))
def test_what_goes_is_what_is_old_whatever_it_is_called(redis8: Node, entries: dict[bytes, bool]) -> None:
    memory = Memory(redis8, ttl_days=7)
    made(memory)
    home = Home(memory.prefix)
    with memory.node.client(decode_responses=False) as app:
        for key, old in entries.items():
            written = now_ms() - (8 if old else 6) * DAY_MS
            app.hset(home.kv.encode() + key, mapping={b"updated_at": written, b"expires_at": b""})
            app.zadd(home.kv_times, {key: written})
            with app.pipeline() as pipe:
                vector = [home.vectors, "VALUES", 3, 1, 2, 3, b"0:" + key, "NOQUANT"]
                pipe.execute_command("VADD", *vector)
                pipe.zadd(home.vector_times, {b"0:" + key: written})
                pipe.sadd(home.vector_keys("").encode() + key, "0")
                pipe.execute()
        request = parse(memory.maintain_document(), MaintainRequest)
        done = maintain(request, admin_of(memory, request), Deadline.in_seconds(20))
        assert done.message == "homes: 1 looked after"
        young = {key for key, old in entries.items() if not old}
        beginning = home.kv.encode()
        assert {key.removeprefix(beginning) for key in app.keys(beginning + b"*")} == young
        assert set(app.zrange(home.kv_times, 0, -1)) == young
        assert {element[2:] for element in app.zrange(home.vector_times, 0, -1)} == young
        assert app.execute_command("VCARD", home.vectors) == len(young)
        chunks = home.vector_keys("").encode()
        assert {key.removeprefix(chunks) for key in app.keys(chunks + b"*")} == young
