from collections.abc import Iterator

import pytest

from scripts import images
from tests.package.image import Image, load

# An image is put together once, by one worker: that takes as long as twenty tests.
_TARGETS = [pytest.param(each, marks=pytest.mark.xdist_group(f"image-{each}")) for each in images.TARGETS]


@pytest.fixture(scope="session", params=_TARGETS)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Each image in turn."""
    with load(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found
