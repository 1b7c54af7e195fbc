from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from memory_client import Memory
from tests.client.backends import BACKENDS, Backend, Place
from tests.postgres import Servers

pytest.register_assert_rewrite("tests.client.conformance")


@pytest.fixture(scope="session")
def backends(postgres_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Backend]]:
    """Gives a backend by its name; each is made when first asked for, and once."""
    made: dict[str, Backend] = {}
    with ExitStack() as stack:

        def backend(name: str) -> Backend:
            if name not in made:
                made[name] = BACKENDS[name](postgres_servers, stack, tmp_path_factory.mktemp(name))
            return made[name]

        yield backend


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, backends: Callable[[str], Backend]) -> Backend:
    """Each backend in turn."""
    return backends(request.param)


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
