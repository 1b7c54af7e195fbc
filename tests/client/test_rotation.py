"""After a rotation the client reads its binding again and goes on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from memory_client import AccessDenied, Embedding, Memory, Unavailable, binding
from memory_client.rotation import RotatingStore
from memory_client.stores.postgres import PostgresStore
from tests.client.backends import entries, mount
from tests.client.conformance import until
from tests.client.line import Line
from tests.migrations.conftest import command
from tests.migrations.documents import Command
from tests.migrations.documents import Memory as Document
from tests.migrations.test_rotation import DRAINING, login, provision
from tests.postgres import Database

__all__ = ["command"]  # a fixture


@pytest.fixture
def document(database: Database, command: Command) -> Document:
    made = Document(database, password="first")
    assert provision(command, made, rw_a="first").code == 0
    return made


def show(document: Document, directory: Path, slot: str, password: str) -> Path:
    """Puts a login into the binding, as the function and the kubelet do."""
    return mount(directory, entries(document, login(document, slot, password), document.dataset))


class Apps:
    """Threads that use one client all the time."""

    def __init__(self, memory: Memory, stack: ExitStack) -> None:
        self.memory = memory
        self.done = [0, 0]
        self.errors: list[Exception] = []
        self._ended = threading.Event()
        threads = [threading.Thread(target=self._use, args=[number]) for number in range(len(self.done))]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(self._ended.set)

    def _use(self, app: int) -> None:
        while not self._ended.is_set():
            number = self.done[app]
            try:
                self.memory.events.append(f"app-{app}", number, event_id=str(number), source=str(app))
                self.memory.events.read(1)
                self.memory.embeddings.upsert(f"key-{app}", [1, 0, number])
            except Exception as error:  # noqa: BLE001  whatever it was: the test looks at it
                self.errors.append(error)
            self.done[app] += 1

    def go_on(self) -> None:
        """Waits until each has been through some calls more."""
        before = list(self.done)
        until(lambda: all(now >= then + 20 for now, then in zip(self.done, before, strict=True)))


def test_nobody_notices_a_rotation(document: Document, command: Command, tmp_path: Path) -> None:
    """As migrations do it: the new login beside the old one, then the old one is closed and its sessions are ended."""
    directory = show(document, tmp_path / "binding", "rw_a", "first")
    with ExitStack() as stack:
        memory = stack.enter_context(Memory.from_binding(directory))
        apps = Apps(memory, stack)
        for old, new, password in (("rw_a", "rw_b", "second"), ("rw_b", "rw_a", "third"), ("rw_a", "rw_b", "fourth")):
            apps.go_on()
            assert provision(command, document, **{old: DRAINING, new: password}).code == 0
            show(document, directory, new, password)
            apps.go_on()
            assert provision(command, document, **{new: password}).code == 0
            apps.go_on()
    assert apps.errors == []
    with Memory.from_binding(directory) as memory:
        for app, done in enumerate(apps.done):
            events = memory.events.iterate(event_type=f"app-{app}")
            assert [event.payload for event in events] == list(reversed(range(done)))
    with document.database.superuser() as superuser:
        query = (
            "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'memory-client' AND datname = %s"
        )
        assert superuser.execute(query, [document.database.name]).fetchall() == []


def test_a_login_that_is_closed_before_the_binding_changes_is_refused_until_then(
    document: Document, command: Command, tmp_path: Path
) -> None:
    directory = show(document, tmp_path / "binding", "rw_a", "first")
    with Memory.from_binding(directory) as memory:
        memory.kv.put("mood", "curious")
        assert provision(command, document, rw_b="second").code == 0
        for _ in range(2):
            with pytest.raises(AccessDenied, match=f"refuses {document.prefix}_rw_a"):
                memory.kv.get("mood")
        show(document, directory, "rw_b", "second")
        assert memory.kv.put("mood", "calm", expected_version=1) == 2


def test_a_binding_that_is_gone_tells_less_than_the_backend(
    document: Document, command: Command, tmp_path: Path
) -> None:
    directory = show(document, tmp_path / "binding", "rw_a", "first")
    with Memory.from_binding(directory) as memory:
        assert provision(command, document, rw_b="second").code == 0
        (directory / "..data").unlink()
        with pytest.raises(AccessDenied):
            memory.kv.get("mood")


class TestBroken:
    """A connection that broke, when the binding says something else by then."""

    @pytest.fixture
    def directory(self, document: Document, tmp_path: Path) -> Path:
        return show(document, tmp_path / "binding", "rw_a", "first")

    @pytest.fixture
    def lines(self) -> list[Line]:
        return []

    @pytest.fixture
    def memory(self, directory: Path, lines: list[Line]) -> Iterator[Memory]:
        def opened(found: binding.Binding) -> Any:
            lines.append(Line(PostgresStore(found, timeout=5, connections=2)))
            return lines[-1]

        with closing(RotatingStore(lambda: binding.read(directory), opened)) as store:
            yield Memory(store)

    @pytest.fixture
    def cut(
        self, document: Document, command: Command, directory: Path, lines: list[Line], memory: Memory
    ) -> Callable[[], None]:
        """Loses the next answer of a write, which was done, while the login is exchanged."""
        assert provision(command, document, rw_a="first", rw_b="second").code == 0
        slots = iter([("rw_b", "second"), ("rw_a", "first")] * 3)

        def cut() -> None:
            memory.status()
            lines[-1].lost = 1
            show(document, directory, *next(slots))

        return cut

    def test_what_may_be_done_twice_is_done_again(self, memory: Memory, cut: Callable[[], None]) -> None:
        cut()
        assert memory.events.append("message", 1, event_id="17").duplicate
        cut()
        assert memory.embeddings.upsert(Embedding(f"key-{n}", [1, 0, n]) for n in range(5)) == 5
        assert (memory.status().events, memory.status().embeddings) == (1, 5)

    def test_what_may_not_is_left_to_the_caller(
        self, memory: Memory, lines: list[Line], cut: Callable[[], None]
    ) -> None:
        for call in (
            lambda: memory.events.append("message", 1),
            lambda: memory.kv.put("mood", "curious"),
            lambda: memory.kv.put("mood", "calm", expected_version=1),
            lambda: memory.kv.delete("mood"),
            lambda: memory.embeddings.delete("key"),
        ):
            cut()
            before = len(lines)
            with pytest.raises(Unavailable):
                call()
            assert len(lines) == before + 1, "the next call has the new login"
        assert memory.status().events == 1
        assert memory.kv.get("mood") is None

    def test_with_the_same_binding_it_is_the_callers_as_well(self, memory: Memory, lines: list[Line]) -> None:
        memory.status()
        lines[-1].lost = 1
        with pytest.raises(Unavailable):
            memory.events.append("message", 1, event_id="17")
        assert len(lines) == 1

    def test_calls_that_are_under_way_end_with_the_old_login(
        self, memory: Memory, lines: list[Line], document: Document, command: Command, directory: Path
    ) -> None:
        assert provision(command, document, rw_a="first", rw_b="second").code == 0
        memory.status()
        old, entered, leave = lines[-1], threading.Event(), threading.Event()

        def hold() -> None:
            entered.set()
            assert leave.wait(20)

        old.before = hold
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(memory.kv.put("slow", 1)))
        thread.start()
        assert entered.wait(20)
        show(document, directory, "rw_b", "second")
        old.lost = 1
        with pytest.raises(Unavailable):
            memory.kv.put("quick", 1)
        assert memory.kv.put("quick", 2) == 2
        assert len(lines) == 2
        leave.set()
        thread.join()
        assert answers == [1]
