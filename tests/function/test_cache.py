"""What stays in memory between calls, and what does not."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import TYPE_CHECKING

import pytest

from function.cache import ContentCache
from function.decode import decode
from function.plan import compose
from tests.function.harness import World, request, run, settle
from tests.function.worlds import provider, provider_world, world

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("case", ["first", "settled", "changed", "without provider", "provider"])
def test_a_request_goes_with_its_call(case: str) -> None:
    """A cycle would keep each, 50 kB on the wire and 300 in memory, until the garbage collector runs."""
    settled, _ = settle(world())
    cases: dict[str, World] = {
        "first": world(),
        "settled": settled,
        "changed": settled.with_spec(searchConfig="english"),
        "without provider": settled.but(providers=()),
        "provider": provider_world(provider()),
    }
    now = cases[case]
    inputs = decode(request(now, dict(run(now).response.requirements.resources)))
    plan, seen = compose(inputs), weakref.ref(inputs)
    del inputs
    assert plan.conditions
    assert seen() is None


def test_a_cache_holds_so_many_bytes_of_content_and_forgets_the_oldest() -> None:
    cache, numbers = ContentCache[int](100), itertools.count(1)

    def value(content: bytes) -> int:
        return cache.get(content, lambda: next(numbers))

    first, second, third = b"1" * 40, b"2" * 40, b"3" * 40
    assert [value(each) for each in (first, second, first, second)] == [1, 2, 1, 2]
    assert value(third) == 3, "there is no room for the first any more"
    assert [value(second), value(third), value(first)] == [2, 3, 4]
    assert value(b"4" * 101) == 5, "larger than all of it"
    assert value(b"4" * 101) == 6
