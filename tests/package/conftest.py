from collections.abc import Iterator

import pytest

from scripts import images
from tests.package.image import Image, load


@pytest.fixture(scope="session", params=images.TARGETS)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Each image in turn."""
    with load(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found
