"""The plot of docs/recall.md as SVG, of what `bench.recall` measured: text, so that a commit shows what changed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTH, HEIGHT = 280, 190
TOP, LEFT, STEP = 80, 55, 370
COLOURS = {"naive": "#c2410c", "ours": "#1d4ed8"}
LABELS = {"naive": "ivfflat on an empty table, DELETE", "ours": "function-memory"}
STYLE = 'font-family="sans-serif" font-size="12" fill="#374151"'
MEGABYTE = 1_000_000


def draw(body: dict[str, Any]) -> str:
    """Gives the SVG: recall and 95th percentile as the table grows, and what retention took."""
    recall = {side: _points(body, side, "recall") for side in COLOURS}
    slowest = {side: _points(body, side, "p95") for side in COLOURS}
    size = (LEFT + 3 * STEP - 30, TOP + HEIGHT + 60)
    sizes = body["sizes"]
    title = f"{sizes['rows']:,} embeddings of {sizes['dimension']} dimensions, {sizes['events']:,} events"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" {STYLE}>',
        f'<rect width="{size[0]}" height="{size[1]}" fill="#ffffff"/>',
        _text(LEFT, 20, title, "start"),
        *_legend(),
        *_lines(0, "recall@10", recall, (0, 0.25, 0.5, 0.75, 0.98), logarithmic=False),
        *_lines(1, "search p95, ms", slowest, _decades(slowest), logarithmic=True),
        *_bars(2, body),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _points(body: dict[str, Any], side: str, figure: str) -> list[tuple[float, float]]:
    return [(stage["rows"], stage[figure]) for stage in body[side]["stages"]]


def _decades(lines: dict[str, list[tuple[float, float]]]) -> tuple[float, ...]:
    values = [value for points in lines.values() for _, value in points]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return tuple(10.0**each for each in range(low, max(high, low + 1) + 1))


def _legend() -> Iterator[str]:
    for number, (side, label) in enumerate(LABELS.items()):
        x = LEFT + 260 * number
        yield f'<rect x="{x}" y="32" width="12" height="12" fill="{COLOURS[side]}"/>'
        yield _text(x + 18, 42, label, "start")


def _lines(
    panel: int, title: str, lines: dict[str, list[tuple[float, float]]], ticks: Sequence[float], *, logarithmic: bool
) -> Iterator[str]:
    left = LEFT + panel * STEP
    most = max(rows for points in lines.values() for rows, _ in points)
    bottom, top = (math.log(ticks[0]), math.log(ticks[-1])) if logarithmic else (0.0, 1.0)

    def y(value: float) -> float:
        share = ((math.log(value) if logarithmic else value) - bottom) / (top - bottom)
        return round(TOP + HEIGHT * (1 - share), 1)

    yield _text(left, TOP - 10, title, "start")
    for tick in ticks:
        yield f'<line x1="{left}" x2="{left + WIDTH}" y1="{y(tick)}" y2="{y(tick)}" stroke="#d1d5db"/>'
        yield _text(left - 6, y(tick) + 4, f"{tick:g}", "end")
    for share in (0, 0.5, 1):
        yield _text(left + share * WIDTH, TOP + HEIGHT + 18, f"{share * most:,.0f}", "middle")
    yield _text(left + WIDTH / 2, TOP + HEIGHT + 36, "rows", "middle")
    for side, points in lines.items():
        along = " ".join(f"{round(left + WIDTH * rows / most, 1)},{y(value)}" for rows, value in points)
        yield f'<polyline points="{along}" fill="none" stroke="{COLOURS[side]}" stroke-width="2"/>'


def _bars(panel: int, body: dict[str, Any]) -> Iterator[str]:
    """Retention: pairs of bars, each pair on a scale of its own."""
    left = LEFT + panel * STEP
    runs = {side: body[side]["retention"] for side in COLOURS}
    pairs = {
        "seconds, with VACUUM": {side: run["seconds"] + run["vacuumSeconds"] for side, run in runs.items()},
        "WAL, MB": {side: run["walBytes"] / MEGABYTE for side, run in runs.items()},
        "search p95 meanwhile, ms": {side: run["meanwhile"]["p95"] or 0 for side, run in runs.items()},
    }
    yield _text(left, TOP - 10, f"retention of {runs['ours']['deleted']:,} events", "start")
    for row, (title, values) in enumerate(pairs.items()):
        y = TOP + 12 + row * 66
        yield _text(left, y, title, "start")
        for number, (side, value) in enumerate(values.items()):
            length = round(max(1, (WIDTH - 70) * value / max(*values.values(), 1e-9)), 1)
            top = y + 6 + number * 20
            yield f'<rect x="{left}" y="{top}" width="{length}" height="16" fill="{COLOURS[side]}"/>'
            yield _text(left + length + 6, top + 12, f"{value:,.1f}", "start")


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{words}</text>'
