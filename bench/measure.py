"""Samples, and what is said of them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        name: What was measured.
        unit: ms, calls/s, rows/s, MB (of 1,000,000 bytes), or % of a core.
        p50: Median.
        p99: 99th percentile; the maximum where there are fewer than a hundred samples.
        samples: How many there were.
        aim: What the design asks for, "" where it does not.
    """

    name: str
    unit: str
    p50: float
    p99: float
    samples: int
    aim: str = ""


def milliseconds(name: str, seconds: list[float], aim: str = "") -> Figure:
    """Sum up durations."""
    ordered = sorted(1000 * each for each in seconds)
    worst = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return Figure(name, "ms", statistics.median(ordered), worst, len(ordered), aim)


def rate(name: str, calls: int, seconds: float) -> Figure:
    """Say how many calls there were in a second."""
    return Figure(name, "calls/s", calls / seconds, calls / seconds, calls)


def megabytes(name: str, sizes: list[int], aim: str = "") -> Figure:
    """Sum up sizes in bytes."""
    ordered = sorted(each / 1_000_000 for each in sizes)
    return Figure(name, "MB", statistics.median(ordered), ordered[-1], len(ordered), aim)
