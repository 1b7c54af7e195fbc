"""The function's steady call: a real process, gRPC over loopback, a request of 50 kB as Crossplane sends it.

The client sends bytes that were written before, so that its own work is not measured. Every call differs in the
`resourceVersion` of what is observed, so that no cache of whole requests would be measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from bench.measure import Figure, milliseconds, rate
from tests.function.harness import request, run, settle
from tests.function.worlds import world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crossplane.function.proto.v1 import run_function_pb2 as fnv1

ROOT = Path(__file__).parents[1]
METHOD = "/apiextensions.fn.proto.v1.FunctionRunnerService/RunFunction"
REQUEST_BYTES = 50_000
WARM_UP, CALLS = 300, 3000
IN_FLIGHT = (1, 16, 100)


def measure() -> list[Figure]:
    """Start the function and call it."""
    requests = [each.SerializeToString() for each in steady_requests(64)]
    figures = []
    with _serving("bench.echo") as (address, _):
        durations, _seconds = _one_after_another(address, requests)
        figures.append(milliseconds("gRPC: a function that gives back what it got", durations))
    with _serving("function.main", "--metrics-address", "127.0.0.1:0") as (address, started):
        figures.append(milliseconds("function: start to serving", [started], "≤ 500"))
        for in_flight in IN_FLIGHT:
            if in_flight == 1:
                durations, seconds = _one_after_another(address, requests)
            else:
                durations, seconds = asyncio.run(_at_once(address, requests, in_flight))
            aim = "≤ 1.2, aim 1.0" if in_flight == 1 else ""
            figures.append(milliseconds(f"function: steady call, {in_flight} in flight", durations, aim))
            figures.append(rate(f"function: calls a second, {in_flight} in flight", len(durations), seconds))
    return figures


def steady_requests(count: int) -> list[fnv1.RunFunctionRequest]:
    """Requests of a Memory at rest, of REQUEST_BYTES each, told apart by what a server counts up."""
    settled, _ = settle(world())
    asked = dict(run(settled).response.requirements.resources)
    requests = []
    for number in range(count):
        seen = {key: _aged(body, number) for key, body in settled.observed.items()}
        req = request(settled.but(observed=seen), asked)
        padding = max(0, REQUEST_BYTES - req.ByteSize()) // len(seen)
        for key in sorted(req.observed.resources):
            metadata = req.observed.resources[key].resource.fields["metadata"].struct_value
            _pad(metadata.fields["managedFields"].list_value.values[0].struct_value, padding)
        requests.append(req)
    return requests


def _aged(body: dict[str, Any], number: int) -> dict[str, Any]:
    aged = copy.deepcopy(body)
    aged["metadata"]["resourceVersion"] = str(100_000 + number)
    return aged


def _pad(entry: Any, size: int) -> None:
    """Managed fields are what makes observed objects large: many short keys, each an empty object."""
    fields: dict[str, Any] = {}
    number = 0
    while entry.ByteSize() < size:
        fields = {f"f:field-{number + each}": {} for each in range(20)}
        entry.fields["fieldsV1"].struct_value.update(fields)
        number += 20


@contextlib.contextmanager
def _serving(module: str, *options: str) -> Iterator[tuple[str, float]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", module, "--insecure", "--address", address, *options]
    before = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    try:
        # Without these gRPC waits for a second between its first two tries.
        quick = [(f"grpc.{which}_reconnect_backoff_ms", 20) for which in ("initial", "min", "max")]
        with grpc.insecure_channel(address, options=quick) as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
        yield address, time.perf_counter() - before
    finally:
        process.terminate()
        process.wait()


def _one_after_another(address: str, requests: list[bytes]) -> tuple[list[float], float]:
    """Call without anything else in flight; durations of single calls, and the time of all."""
    durations: list[float] = []
    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        for number in range(WARM_UP):
            call(requests[number % len(requests)])
        start = time.perf_counter()
        for number in range(CALLS):
            before = time.perf_counter()
            call(requests[number % len(requests)])
            durations.append(time.perf_counter() - before)
        return durations, time.perf_counter() - start


async def _at_once(address: str, requests: list[bytes], in_flight: int) -> tuple[list[float], float]:
    """Call from `in_flight` tasks at once."""
    durations: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)

        async def calls(count: int, kept: list[float]) -> None:
            for number in range(count):
                before = time.perf_counter()
                await call(requests[number % len(requests)])
                kept.append(time.perf_counter() - before)

        await asyncio.gather(*(calls(WARM_UP // in_flight + 1, []) for _ in range(in_flight)))
        before = time.perf_counter()
        await asyncio.gather(*(calls(CALLS // in_flight, durations) for _ in range(in_flight)))
        return durations, time.perf_counter() - before
