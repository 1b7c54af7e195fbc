"""What a cluster with 1,000 Memories at rest costs the function: CPU time of a reconcile, times their rate.

How often Crossplane reconciles a composite at which nothing happens is its own affair:

    v2      watches what is composed (`--enable-realtime-compositions`, on by default), and looks again by itself when
            an answer is as old as its ttl, 10 minutes from us, and when it lists everything anew (`--sync-interval`,
            1 hour). Once an hour maintenance may write a report; under CloudNativePG each Memory has a CronJob, whose
            status changes four times a run.
    v1.20   watches nothing that is composed, and looks once in `--poll-interval`, a minute unless it is told otherwise.

A reconcile is more than one call: the first has no provider with it, and asks for it. The Memories take turns, and
there are more of them than the caches hold: nothing is remembered from one reconcile of a Memory to its next.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from bench.function import FUNCTION, METHOD, Served, padded, serving
from bench.measure import Figure
from tests.function.harness import call, request, settle
from tests.function.worlds import delivered, managed_world, memory, world

if TYPE_CHECKING:
    from tests.function.harness import Object, World

XRS = 1000
# As many are simulated as make the caches forget; and how often each takes its turn.
MEMORIES, TURNS = 120, 5
TTL_SECONDS, SYNC_SECONDS, POLL_SECONDS = 600, 3600, 60


@dataclass(frozen=True)
class Setup:
    """A way in which Memories are made.

    Attributes:
        reconciles: Of one of them in a second.
    """

    name: str
    reconciles: float


SETUPS = (
    Setup("v2", 1 / TTL_SECONDS + (1 + 1) / SYNC_SECONDS),
    Setup("v2 and CloudNativePG", 1 / TTL_SECONDS + (1 + 5) / SYNC_SECONDS),
    Setup("v1.20", 1 / POLL_SECONDS),
)


def measure() -> list[Figure]:
    """Start the function and let the Memories take turns."""
    figures = []
    for setup in SETUPS:
        reconciles = [_reconcile(_at_rest(setup, number)) for number in range(MEMORIES)]
        with serving(*FUNCTION) as served:
            _turns(served, reconciles, 1)
            before = _cpu_seconds(served)
            _turns(served, reconciles, TURNS)
            seconds = (_cpu_seconds(served) - before) / (MEMORIES * TURNS)
        figures.append(_figure(f"function: CPU time of a reconcile, {setup.name}", "ms", 1000 * seconds))
        rate = XRS * setup.reconciles
        name = f"function: {XRS} Memories at rest, {setup.name}, {rate:.1f} reconciles/s"
        aim = "≤ 5" if setup.name.startswith("v2") else ""
        figures.append(_figure(name, "% core", 100 * seconds * rate, aim))
    return figures


def _at_rest(setup: Setup, number: int) -> World:
    name = f"notes-{number}"
    xr = memory(("team-a", name), f"{name}-x7k2p", dataset={"name": name, "schema": f"notes_{number}"})
    if setup.name == "v2 and CloudNativePG":
        return settle(managed_world(xr), steps=14)[0]
    return settle(delivered(world(memory_xr=xr)) if setup.name == "v1.20" else world(memory_xr=xr), steps=14)[0]


def _reconcile(now: World) -> list[bytes]:
    """The requests of one reconcile: again with what was asked for, until nothing else is."""
    requests = []
    asked: Object = {}
    while True:
        req = padded(now, request(now, asked))
        requests.append(req.SerializeToString())
        wanted = dict(call(req).requirements.resources)
        if wanted == asked:
            return requests
        asked = wanted


def _turns(served: Served, reconciles: list[list[bytes]], turns: int) -> None:
    with grpc.insecure_channel(served.address) as channel:
        calls: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        for each in itertools.chain.from_iterable(reconciles * turns):
            calls(each)


def _cpu_seconds(served: Served) -> float:
    """What the process has used, in its own code and in the kernel."""
    fields = Path(f"/proc/{served.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _figure(name: str, unit: str, value: float, aim: str = "") -> Figure:
    return Figure(name, unit, value, value, MEMORIES * TURNS, aim)
