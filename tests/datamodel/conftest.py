from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.datamodel.homes import Dataset, Home, made
from tests.postgres import Database, Postgres


@pytest.fixture(scope="session")
def homes(postgres_servers: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Postgres], Home]]:
    """Gives one home for all tests of a version: each test has its own dataset there."""
    del postgres_servers  # asked for so that the databases go before their servers do
    made_already: dict[int, Home] = {}
    with ExitStack() as stack:

        def home(postgres: Postgres) -> Home:
            if postgres.version not in made_already:
                database = stack.enter_context(postgres.database())
                folder = tmp_path_factory.mktemp("home") / "request"
                made_already[postgres.version] = stack.enter_context(made(database, folder))
            return made_already[postgres.version]

        yield home


@pytest.fixture
def home(postgres: Postgres, homes: Callable[[Postgres], Home]) -> Home:
    """The shared home on each version in turn."""
    return homes(postgres)


@pytest.fixture
def dataset(home: Home) -> Iterator[Dataset]:
    """A fresh dataset among those of other tests, on each version in turn."""
    with home.writer() as writer, home.reader() as reader, home.owner() as owner:
        fresh = Dataset(home, home.new_dataset(), writer, reader, owner)
        yield fresh
        fresh.hold(held=False)


@pytest.fixture
def own_home(any_database: Database, tmp_path: Path) -> Iterator[Dataset]:
    """A home of the test's own on each version in turn, for what would disturb others."""
    with (
        made(any_database, tmp_path / "request") as home,
        home.writer() as writer,
        home.reader() as reader,
        home.owner() as owner,
    ):
        yield Dataset(home, "notes", writer, reader, owner)
