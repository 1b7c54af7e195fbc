"""What the suite cannot ask of every backend: what the store on Redis makes of nodes, of races and of a large set."""

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from memory_client import (
    AccessDenied,
    BindingError,
    DimensionMismatch,
    Embedding,
    Memory,
    MemoryClientError,
    OnHold,
    Unavailable,
)
from memory_client.stores.redis import vectors
from memory_client.stores.redis.server import Session
from memory_client.stores.redis.vectors import filter_of
from memoryctl.embedded import Login
from tests.client.backends import Backend, Machine
from tests.client.redisbackend import RedisBackend, RedisPlace
from tests.redisservers import Group, Node, launch, launch_cluster, launch_pair, until

DAY_MS = 86_400_000


@pytest.fixture
def backend(backends: Callable[[str, Machine], Backend], machine: Machine) -> RedisBackend:
    found = backends("redis-8", machine)
    assert isinstance(found, RedisBackend)
    return found


@pytest.fixture
def place(backend: RedisBackend, tmp_path: Path) -> RedisPlace:
    return backend.place(tmp_path / "binding")


@pytest.fixture
def memory(place: RedisPlace) -> Iterator[Memory]:
    with Memory.from_binding(place.binding) as opened:
        yield opened


@pytest.fixture
def admin(place: RedisPlace) -> Iterator[Any]:
    with place.document.node.client() as client:
        yield client


def test_a_client_with_another_memorys_prefix_is_denied(
    backend: RedisBackend, place: RedisPlace, tmp_path: Path
) -> None:
    other = backend.place(tmp_path / "other")
    with Memory.from_binding(other.binding) as owner:
        owner.kv.put("mood", "theirs")
        owner.events.append("message", "theirs")
        owner.embeddings.upsert("key", [1, 0, 0])
    place.bind(place.document.writer, prefix=other.prefix)
    with Memory.from_binding(place.binding) as memory:
        calls: tuple[Callable[[], object], ...] = (
            lambda: memory.capabilities,
            lambda: memory.kv.get("mood"),
            lambda: memory.kv.put("mood", "mine"),
            lambda: memory.kv.delete("mood"),
            memory.events.read,
            lambda: memory.events.append("message", 1),
            lambda: memory.events.append("message", 1, event_id="1"),
            lambda: memory.embeddings.search([1, 0, 0]),
            memory.status,
        )
        for call in calls:
            with pytest.raises(AccessDenied, match=place.document.name()):
                call()


def test_a_reader_reads_and_writes_nothing(place: RedisPlace, memory: Memory) -> None:
    memory.kv.put("mood", "curious")
    memory.embeddings.upsert("key", [1, 0, 0], content="word")
    place.bind(place.document.reader)
    with Memory.from_binding(place.binding) as reader:
        assert reader.kv.get("mood") == memory.kv.get("mood")
        assert reader.embeddings.search([1, 0, 0], query="word") == memory.embeddings.search([1, 0, 0], query="word")
        assert reader.status() == memory.status()
        for call in (
            lambda: reader.kv.put("mood", "calm"),
            lambda: reader.events.append("message", 1),
            lambda: reader.embeddings.upsert("key", [0, 1, 0]),
            lambda: reader.embeddings.delete("key"),
        ):
            with pytest.raises(AccessDenied):
                call()


def test_a_wrong_password_is_denied(place: RedisPlace) -> None:
    place.bind(Login(place.document.name(), "wrong"))
    with Memory.from_binding(place.binding) as memory, pytest.raises(AccessDenied, match="password"):
        memory.kv.get("mood")


def test_a_prefix_without_a_memory_says_so(place: RedisPlace, memory: Memory, admin: Any) -> None:
    admin.hset(f"{place.prefix}meta", "contract", "2")
    with pytest.raises(BindingError, match="contract 2, and this client knows contract 1"):
        memory.status()
    admin.delete(f"{place.prefix}meta")
    with pytest.raises(BindingError, match="no Memory"):
        memory.status()


def test_an_event_whose_sender_died_before_the_stream_had_it_is_stored_by_the_next(
    place: RedisPlace, memory: Memory, admin: Any
) -> None:
    memory.events.append("message", "newer than what the key names")
    first = memory.events.append("message", "first", event_id="1")
    [remembered] = admin.keys(f"{place.prefix}event-id:*")
    entry = admin.get(remembered)
    admin.xdel(f"{place.prefix}events", entry)
    again = memory.events.append("message", "again", event_id="1")
    assert not again.duplicate
    assert again.id == first.id
    assert memory.events.append("message", "and again", event_id="1").duplicate
    assert [event.payload for event in memory.events.read(1)] == ["again"]


def test_another_event_under_the_entry_that_a_sender_chose_is_not_taken_for_its_own(
    place: RedisPlace, memory: Memory, admin: Any
) -> None:
    memory.events.append("message", "theirs", event_id="1")
    [theirs] = admin.keys(f"{place.prefix}event-id:*")
    memory.events.append("message", "mine", event_id="2")
    [mine] = set(admin.keys(f"{place.prefix}event-id:*")) - {theirs}
    admin.xdel(f"{place.prefix}events", admin.get(mine))
    admin.set(mine, admin.get(theirs))
    assert not memory.events.append("message", "mine", event_id="2").duplicate
    assert [event.payload for event in memory.events.read()] == ["mine", "theirs"]


def test_an_event_that_retention_removed_stays_a_duplicate(place: RedisPlace, admin: Any) -> None:
    place.provision(ttl_days=7)
    with Memory.from_binding(place.binding) as memory:
        first = memory.events.append("message", "first", event_id="1")
        [remembered] = admin.keys(f"{place.prefix}event-id:*")
        assert 6.9 * DAY_MS < admin.pttl(remembered) <= 7 * DAY_MS
        old = int(admin.get(remembered).split("-")[0]) - 8 * DAY_MS
        admin.delete(f"{place.prefix}events")
        admin.set(remembered, f"{old}-0")
        again = memory.events.append("message", "again", event_id="1")
        assert (again.duplicate, again.id) == (True, first.id)
        assert memory.events.read() == []


def test_events_go_on_where_the_stream_is_ahead_of_the_clock(place: RedisPlace, memory: Memory, admin: Any) -> None:
    ahead = (admin.time()[0] + 3600) * 1000
    admin.xadd(f"{place.prefix}events", {"id": "x", "type": "message", "payload": "0"}, id=f"{ahead}-5")
    assert not memory.events.append("message", 1, event_id="1").duplicate
    assert not memory.events.append("message", 2).duplicate
    assert memory.events.append("message", 1, event_id="1").duplicate
    events = memory.events.read()
    assert [event.payload for event in events] == [2, 1, 0]
    assert events[1].cursor == f"{ahead}-6"


def test_writers_of_many_ids_at_once_lose_and_double_nothing(memory: Memory) -> None:
    """Each event is sent by two writers at about the same time, among others that need no id."""

    def send(writer: int) -> int:
        stored = 0
        for number in range(40):
            stored += not memory.events.append("numbered", number, event_id=str(number), source="s").duplicate
            memory.events.append("other", writer)
        return stored

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(send, range(4))) == 40
    assert sorted(event.payload for event in memory.events.iterate(event_type="numbered")) == list(range(40))
    assert memory.status().events == 40 + 4 * 40


def test_a_value_with_a_ttl_leaves_the_server_a_day_later(place: RedisPlace, memory: Memory, admin: Any) -> None:
    key = f"{place.prefix}kv:mood"
    memory.kv.put("mood", "brief", ttl=60)
    assert DAY_MS < admin.pttl(key) <= DAY_MS + 60_000
    memory.kv.put("mood", "for good")
    assert admin.pttl(key) == -1
    assert admin.zscore(f"{place.prefix}kv-times", "mood") == float(admin.hget(key, "updated_at"))
    memory.kv.delete("mood")
    assert admin.exists(key, f"{place.prefix}kv-times") == 0


def test_where_a_filter_leaves_too_few_more_are_asked_for(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a set that is searched by its graph, too."""
    numbers = random.Random(5)
    many = [
        Embedding(f"key-{n}", [1, numbers.random() / 100, n / 1000], metadata={"rare": {"deep": n % 50 == 0}})
        for n in range(400)
    ]
    memory.embeddings.upsert(many)
    for most in (vectors.EXACT, 0):
        monkeypatch.setattr(vectors, "EXACT", most)
        assert memory.status().index == ("exact" if most else "ready")
        hits = memory.embeddings.search([1, 0, 0], limit=8, where={"rare": {"deep": True}})
        assert {hit.key for hit in hits} == {f"key-{n}" for n in range(0, 400, 50)}
        assert [hit.distance for hit in hits] == sorted(hit.distance or 0 for hit in hits)
        assert memory.embeddings.search([1, 0, 0], where={"rare": {"deep": 3}}) == []


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"n": 1, "who": "anna"}, '.m_n == 1 and .m_who == "anna"'),
        ({"yes": True, "no": False}, ".m_no == 0 and .m_yes == 1"),
        ({"part": 0.5}, ".m_part == 0.5"),
        ({"quote": 'a"b', "deep": {"a": 1}, "list": [1], "none": None, "größe": 1, "n": 2**60}, ""),
        (None, ""),
    ],
)
def test_what_a_filter_can_say(where: Any, said: str) -> None:
    assert filter_of(where) == said


def test_half_storage_keeps_what_is_near_near(backend: RedisBackend, tmp_path: Path) -> None:
    place = backend.place(tmp_path / "half")
    place.provision(embeddings={"storage": "half"})
    with Memory.from_binding(place.binding) as memory, place.document.node.client() as admin:
        memory.embeddings.upsert("east", [1, 0, 0])
        memory.embeddings.upsert("north", [0, 1, 0])
        hits = memory.embeddings.search([1, 0.1, 0])
        assert [hit.key for hit in hits] == ["east", "north"]
        info = admin.execute_command("VINFO", f"{place.prefix}vectors")
        assert "int8" in str(info)


def test_a_dimension_that_changed_while_it_was_empty_is_taken_up(place: RedisPlace, memory: Memory) -> None:
    with pytest.raises(DimensionMismatch):
        memory.embeddings.upsert("key", [1, 0, 0, 0])
    place.provision(embeddings={"dimension": 4})
    assert memory.embeddings.upsert("key", [1, 0, 0, 0]) == 1
    assert [hit.key for hit in memory.embeddings.search([1, 0, 0, 0])] == ["key"]


def test_over_tls_the_server_must_be_the_bindings(
    machine: Machine, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    node = machine.redis.get("redis8", tls=True, name="-client")
    place = RedisBackend([node], tmp_path / "homes").place(tmp_path / "binding")
    with Memory.from_binding(place.binding) as memory:
        assert memory.kv.put("mood", "curious") == 1
    other = launch(tmp_path_factory.mktemp("impostor"), tls=True)
    try:
        place.bind(place.document.writer, node=other)
        (place.binding / "..data" / "ca.crt").write_text(node.ca or "")
        with Memory.from_binding(place.binding, timeout=0.5) as memory, pytest.raises(Unavailable, match="certificate"):
            memory.kv.get("mood")
    finally:
        other.stop()


def test_a_full_server_is_unavailable_for_writes(tmp_path: Path) -> None:
    node = launch(tmp_path / "full")
    try:
        place = RedisBackend([node], tmp_path / "homes").place(tmp_path / "binding")
        with Memory.from_binding(place.binding) as memory, node.client() as admin:
            memory.kv.put("mood", "curious")
            admin.config_set("maxmemory", "1mb")
            for call in (lambda: memory.kv.put("mood", "calm"), lambda: memory.events.append("message", 1)):
                with pytest.raises(Unavailable, match="takes no writes now"):
                    call()
            assert memory.kv.get("mood") is not None
            # Whatever else is wrong is said as the server says it.
            admin.config_set("maxmemory", "0")
            admin.set(f"{place.prefix}kv:broken", "no hash")
            with pytest.raises(MemoryClientError, match="WRONGTYPE"):
                memory.kv.get("broken")
    finally:
        node.stop()


def test_more_calls_than_connections_wait_no_longer_than_the_timeout(place: RedisPlace) -> None:
    with Memory.from_binding(place.binding, connections=1, timeout=0.2) as memory:
        busy, done = threading.Event(), threading.Event()
        store: Any = memory._store

        def work(_: Session) -> None:
            busy.set()
            done.wait(20)

        thread = threading.Thread(target=lambda: store._lease.store._server.run(work, repeatable=True))
        thread.start()
        busy.wait(20)
        with pytest.raises(Unavailable, match="all 1 connections were in use"):
            memory.kv.get("mood")
        done.set()
        thread.join()
        assert memory.kv.get("mood") is None


def keep_writing(memory: Memory, stop: threading.Event) -> tuple[list[int], list[int]]:
    """Appends numbered events; gives which were stored for sure and which may be."""
    stored: list[int] = []
    unknown: list[int] = []
    for number in itertools.count():
        if stop.is_set():
            return stored, unknown
        try:
            memory.events.append("number", number, event_id=str(number))
            stored.append(number)
        except Unavailable:
            unknown.append(number)
    raise AssertionError


@pytest.mark.long
def test_a_cluster_fails_over_and_writers_go_on(tmp_path: Path) -> None:
    group = launch_cluster(tmp_path / "cluster", replicas=1)
    try:
        backend = RedisBackend(group.nodes, tmp_path / "homes")
        # A Memory whose slot the first node has: that is the one with a replica.
        for number in range(100):
            place = backend.place(tmp_path / f"binding-{number}")
            with group.first.client() as admin:
                if admin.cluster("KEYSLOT", place.prefix) <= 5460:
                    break
        # The binding names a node that stays.
        place.bind(place.document.writer, node=group.nodes[1])
        with Memory.from_binding(place.binding, timeout=20) as memory:
            _survives(memory, lambda: group.first.stop(kill=True), group.nodes[3])
    finally:
        group.stop()


@pytest.mark.long
def test_slots_move_and_writers_follow(tmp_path: Path) -> None:
    group = launch_cluster(tmp_path / "cluster")
    try:
        place = RedisBackend(group.nodes, tmp_path / "homes").place(tmp_path / "binding")
        with Memory.from_binding(place.binding) as memory:
            memory.kv.put("mood", "curious")
            _move(group, place.prefix)
            value = memory.kv.get("mood")
            assert value is not None
            assert memory.kv.put("mood", "calm", expected_version=value.version) == 2
            memory.events.append("message", 1)
    finally:
        group.stop()


def _move(group: Group, prefix: str) -> None:
    clients = [node.client() for node in group.nodes]
    slot = clients[0].execute_command("CLUSTER KEYSLOT", prefix)
    ids = [client.execute_command("CLUSTER MYID") for client in clients]
    source = next(at for at, client in enumerate(clients) if client.execute_command("CLUSTER COUNTKEYSINSLOT", slot))
    target = (source + 1) % 3
    clients[target].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
    clients[source].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
    keys = clients[source].execute_command("CLUSTER GETKEYSINSLOT", slot, 100)
    to, admin = group.nodes[target], group.nodes[target].admin
    clients[source].execute_command(
        *("MIGRATE", to.host, to.port, "", 0, 5000, "AUTH2", admin.username, admin.password, "KEYS", *keys)
    )
    for at in (target, source, 3 - target - source):
        clients[at].execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target])
    for client in clients:
        client.close()


@pytest.mark.long
def test_a_replica_takes_over_under_the_same_name(tmp_path: Path) -> None:
    """As behind a Service: the port that the binding names leads to the other node from some moment on."""
    group = launch_pair(tmp_path / "pair")
    try:
        primary, replica = group.nodes
        place = RedisBackend(group.nodes, tmp_path / "homes").place(tmp_path / "binding")
        with Memory.from_binding(place.binding, timeout=20) as memory:

            def take_over() -> None:
                for before, after in ((primary, replica), (replica, primary)):
                    with before.client() as admin:
                        until(lambda admin=admin: admin.info("replication")["connected_slaves"] == 1)  # type: ignore[misc]
                        admin.execute_command("FAILOVER")
                    until(lambda after=after: not _is_replica(after))  # type: ignore[misc]
                    # While the name leads to a replica, which takes no writes, nothing is done.
                    until(lambda before=before: _is_replica(before))  # type: ignore[misc]

            _survives(memory, take_over, primary)
    finally:
        group.stop()


def _is_replica(node: Node) -> bool:
    with node.client() as admin:
        return bool(admin.info("replication")["role"] == "slave")


def _survives(memory: Memory, happen: Callable[[], None], after: Node) -> None:
    """Writes while something happens, until the node is a primary that takes writes again."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(keep_writing, memory, stop)
        try:
            until(lambda: memory.status().events > 20)
            happen()
            until(lambda: not _is_replica(after))
            memory.events.append("after", "it")
        finally:
            stop.set()
        stored, unknown = writing.result(60)
    there = [event.payload for event in memory.events.iterate(event_type="number")]
    assert len(there) == len(set(there))
    # Replication is asynchronous: what the dead primary had alone is gone, and no client can help that.
    assert len(set(stored) - set(there)) <= 5
    assert set(there) <= set(stored) | set(unknown)
    assert unknown == [] or len(unknown) <= 2


def test_a_hold_that_came_meanwhile_is_told_from_a_refusal(place: RedisPlace, memory: Memory) -> None:
    memory.kv.put("mood", "curious")
    place.hold(held=True)
    with pytest.raises(OnHold, match="legal hold"):
        memory.kv.put("mood", "calm")
    place.hold(held=False)
    assert memory.kv.put("mood", "calm") == 2
