from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from memory_client import Memory
from tests import redisservers
from tests.client.backends import BACKENDS, LONG, WITHOUT_EMBEDDINGS, Backend, Machine, Place
from tests.postgres import Servers

pytest.register_assert_rewrite("tests.client.conformance")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out what needs embeddings where the server has none: that they are `Unsupported` is a test of its own."""
    items[:] = [item for item in items if not _lacks(item)]


def _lacks(item: pytest.Item) -> bool:
    asked = isinstance(item, pytest.Function) and "embedding" in item.fixturenames
    callspec = getattr(item, "callspec", None)
    return asked and callspec is not None and callspec.params.get("backend") in WITHOUT_EMBEDDINGS


@pytest.fixture(scope="session")
def backends(
    tmp_path_factory: pytest.TempPathFactory, postgres_servers: Servers
) -> Iterator[Callable[[str, Machine], Backend]]:
    """Gives a backend by its name; each is made when first asked for, and once."""
    del postgres_servers  # asked for so that the databases go before their servers do
    made: dict[str, Backend] = {}
    with ExitStack() as stack:

        def backend(name: str, machine: Machine) -> Backend:
            if name not in made:
                made[name] = BACKENDS[name](machine, stack, tmp_path_factory.mktemp(name))
            return made[name]

        yield backend


@pytest.fixture
def machine(request: pytest.FixtureRequest, postgres_servers: Servers, redis_servers: redisservers.Servers) -> Machine:
    """The servers of this session."""
    return Machine(postgres_servers, redis_servers, lambda: request.getfixturevalue("rgw"))


def marked(name: str) -> object:
    """A backend as a parameter: one of another server's kin is for `make long`, and one worker starts Ceph."""
    marks = [pytest.mark.xdist_group("rgw")] if name.startswith("s3") else []
    return pytest.param(name, marks=[*marks, *([pytest.mark.long] if name in LONG else [])])


@pytest.fixture(params=[marked(name) for name in BACKENDS])
def backend(request: pytest.FixtureRequest, machine: Machine, backends: Callable[[str, Machine], Backend]) -> Backend:
    """Each backend in turn."""
    return backends(request.param, machine)


@pytest.fixture
def place(backend: Backend, tmp_path: Path) -> Place:
    """A Memory of the test's own."""
    return backend.place(tmp_path / "binding")


@pytest.fixture
def memories(place: Place) -> Iterator[Callable[..., Memory]]:
    """Opens clients of one and the same Memory, as several pods would."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Memory.from_binding(place.binding, **options))


@pytest.fixture
def memory(memories: Callable[..., Memory]) -> Memory:
    """One client of a Memory of the test's own."""
    return memories()
