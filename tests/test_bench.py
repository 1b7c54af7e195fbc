"""The measurements measure; what they find is nobody's failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import function, provisioning
from bench.measure import milliseconds, rate

if TYPE_CHECKING:
    import pytest


def test_steady_requests_are_as_large_as_those_of_a_cluster() -> None:
    sizes = [each.ByteSize() for each in function.steady_requests(3)]
    assert all(45_000 <= size <= 60_000 for size in sizes)


def test_steady_requests_differ_by_what_a_server_counts_up() -> None:
    one, two = function.steady_requests(2)
    assert one.SerializeToString(deterministic=True) != two.SerializeToString(deterministic=True)


def test_a_short_run_gives_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (function, "CALLS", 20),
        (function, "WARM_UP", 2),
        (function, "IN_FLIGHT", (1, 2)),
        (provisioning, "ROUNDS", 2),
        (provisioning, "TOGETHER", 2),
    ):
        monkeypatch.setattr(module, name, value)
    figures = [*function.measure(), *provisioning.measure()]
    assert len(figures) == 2 + 2 * 2 + 4
    assert all(each.p99 >= each.p50 for each in figures)


def test_figures_are_what_they_say() -> None:
    figure = milliseconds("x", [0.001 * each for each in range(1, 101)])
    assert (round(figure.p50, 3), round(figure.p99, 3), figure.samples) == (50.5, 100, 100)
    assert rate("x", 100, 4).p50 == 25
