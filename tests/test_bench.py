"""The measurements measure; what they find is nobody's failure."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest
from crossplane.function.proto.v1 import run_function_pb2 as fnv1

from bench import client, function, idle, plot, provisioning
from bench.measure import megabytes, milliseconds, rate
from tests.function.harness import Answer, call


def test_steady_requests_are_as_large_as_those_of_a_cluster() -> None:
    sizes = [each.ByteSize() for each in function.steady_requests(3)]
    assert all(45_000 <= size <= 60_000 for size in sizes)


def test_steady_requests_differ_by_what_a_server_counts_up() -> None:
    one, two = function.steady_requests(2)
    assert one.SerializeToString(deterministic=True) != two.SerializeToString(deterministic=True)


@pytest.mark.long
def test_a_short_run_gives_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (function, "CALLS", 20),
        (function, "WARM_UP", 2),
        (function, "IN_FLIGHT", (1, 2)),
        (function, "CHANGES", 2),
        (function, "STARTS", 2),
        (provisioning, "ROUNDS", 2),
        (provisioning, "TOGETHER", 2),
        (provisioning, "MAINTENANCE_RUNS", 1),
    ):
        monkeypatch.setattr(module, name, value)
    figures = [*function.measure(), *provisioning.measure()]
    assert [each.name for each in figures if each.name.startswith("function")] == [
        "function: start to serving",
        "function: first call",
        "function: idle memory before its first call",
        "function: steady call, 1 in flight",
        "function: calls a second, 1 in flight",
        "function: steady call, 2 in flight",
        "function: calls a second, 2 in flight",
        "function: spec change",
        "function: idle memory after all these calls",
    ]
    assert len(figures) == 1 + 9 + 7
    assert all(each.p99 >= each.p50 > 0 for each in figures if each.name.startswith("function"))
    assert all(10 < each.p50 < 1000 for each in figures if each.unit == "MB")


def test_a_short_run_of_the_client_gives_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ROWS", 300), ("ROUNDS", 2), ("CALLS", 3)):
        monkeypatch.setattr(client, name, value)
    figures = client.measure()
    assert [(each.name, each.unit, each.samples) for each in figures] == [
        ("client: 300 embeddings of 768 dimensions, new", "rows/s", 2),
        ("client: 300 embeddings of 768 dimensions, replaced", "rows/s", 1),
        ("client: append an event", "ms", 3),
    ]
    assert all(each.p50 > 0 for each in figures)


def test_calls_are_measured_one_at_a_time_and_many_at_once() -> None:
    assert function.IN_FLIGHT == (1, 16, 100)


def test_changed_requests_ask_for_what_no_call_has_asked_for() -> None:
    requests = function.changed_requests(2)
    assert all(45_000 <= each.ByteSize() <= 60_000 for each in requests)
    new = [set(call(each).desired.resources) - set(each.observed.resources) for each in requests]
    assert all(any(key.startswith("provision-") for key in keys) for keys in new)
    assert not new[0] & new[1]


def test_figures_are_what_they_say() -> None:
    figure = milliseconds("x", [0.001 * each for each in range(1, 101)])
    assert (round(figure.p50, 3), round(figure.p99, 3), figure.samples) == (50.5, 100, 100)
    assert rate("x", 100, 4).p50 == 25
    size = megabytes("x", [60_000_000, 70_000_000, 61_000_000])
    assert (size.p50, size.p99, size.unit) == (61, 70, "MB")


def side(recall: list[float], seconds: float) -> dict[str, Any]:
    stages = [{"rows": 10**each, "recall": value, "p95": 3.0 * 10**each} for each, value in enumerate(recall)]
    retention = {
        "deleted": 1000,
        "seconds": seconds,
        "vacuumSeconds": 0.5,
        "walBytes": 5_000_000,
        "meanwhile": {"p95": None},
    }
    return {"stages": stages, "retention": retention}


def test_the_plot_shows_both_sides() -> None:
    sizes = {"rows": 100, "dimension": 8, "events": 3000}
    drawn = plot.draw({"sizes": sizes, "naive": side([1, 0.5, 0], 2), "ours": side([1, 1, 1], 0.2)})
    picture = ET.fromstring(drawn)
    lines = [each.get("points", "") for each in picture.iter() if each.tag.endswith("polyline")]
    assert [len(each.split()) for each in lines] == [3, 3, 3, 3], "recall and time, of both"
    heights = [[float(point.split(",")[1]) for point in each.split()] for each in lines]
    assert heights[0] == sorted(set(heights[0])), "what falls goes down"
    assert len(set(heights[1])) == 1, "what stays is level"
    words = {each.text for each in picture.iter() if each.tag.endswith("text")}
    assert {"100 embeddings of 8 dimensions, 3,000 events", "retention of 1,000 events", "2.5", "0.7"} <= words


def test_memories_at_rest_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "MEMORIES", 2)
    monkeypatch.setattr(idle, "TURNS", 3)
    figures = idle.measure()
    assert [each.name.split(", ")[1] for each in figures if each.unit == "% core"] == [one.name for one in idle.SETUPS]
    assert all(each.samples == 6 for each in figures)


def test_those_at_rest_are_ready_and_their_reconcile_ends() -> None:
    for setup in idle.SETUPS:
        now = idle._at_rest(setup, 1)
        last = fnv1.RunFunctionRequest.FromString(idle._reconcile(now)[-1])
        answer = Answer(call(last))
        assert answer.ready
        assert all(len(each) >= 45_000 for each in idle._reconcile(now))
