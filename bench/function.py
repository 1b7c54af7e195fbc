"""The function as a real process: gRPC over loopback, requests of 50 kB as Crossplane sends them.

The client sends bytes that were written before, so that its own work is not measured. Every call differs in the
`resourceVersion` of what is observed, so that no cache of whole requests would be measured.

    start, first call   a new process each time, and its first call of all
    steady call         a Memory at rest; nothing is new but what a server counts up
    spec change         the same Memory with a spec that the process has never seen
    idle memory         resident memory of a process before its first call, and after all of these
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from bench.measure import Figure, megabytes, milliseconds, rate
from tests.function.harness import request, run, settle
from tests.function.worlds import world

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crossplane.function.proto.v1 import run_function_pb2 as fnv1

    from tests.function.harness import World

ROOT = Path(__file__).parents[1]
METHOD = "/apiextensions.fn.proto.v1.FunctionRunnerService/RunFunction"
REQUEST_BYTES = 50_000
# As `python -m`, without a package that the image has not: structlog imports rich where it is installed, for 4 MB.
AS_SHIPPED = (
    "import runpy, sys; sys.modules['rich'] = None; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
# Metrics are on, as in a pod; their usual port may be taken.
FUNCTION = ("function.main", "--metrics-address", "127.0.0.1:0")
WARM_UP, CALLS, CHANGES, STARTS = 300, 3000, 300, 5
IN_FLIGHT = (1, 16, 100)


@dataclasses.dataclass(frozen=True)
class Served:
    """A function that serves.

    Attributes:
        address: Where.
        seconds: How long its start took.
        process: Its process.
    """

    address: str
    seconds: float
    process: subprocess.Popen[bytes]

    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def measure() -> list[Figure]:
    """Start the function and call it."""
    requests = [each.SerializeToString() for each in steady_requests(64)]
    with serving("bench.echo") as echo:
        durations, _ = _one_after_another(echo, _round(requests, CALLS), _round(requests, WARM_UP))
    figures = [milliseconds("gRPC: a function that gives back what it got", durations), *_beginnings(requests[:1])]
    with serving(*FUNCTION) as served:
        for in_flight in IN_FLIGHT:
            figures += _steady(served, requests, in_flight)
        durations, _ = _one_after_another(served, [each.SerializeToString() for each in changed_requests(CHANGES)])
        figures.append(milliseconds("function: spec change", durations))
        figures.append(megabytes("function: idle memory after all these calls", [served.memory()], "≤ 70"))
    return figures


def _beginnings(requests: list[bytes]) -> list[Figure]:
    starts, firsts, sizes = [], [], []
    for _ in range(STARTS):
        with serving(*FUNCTION) as served:
            starts.append(served.seconds)
            sizes.append(served.memory())
            firsts += _one_after_another(served, requests)[0]
    return [
        milliseconds("function: start to serving", starts, "≤ 500"),
        milliseconds("function: first call", firsts),
        megabytes("function: idle memory before its first call", sizes, "≤ 70"),
    ]


def _steady(served: Served, requests: list[bytes], in_flight: int) -> list[Figure]:
    if in_flight == 1:
        durations, seconds = _one_after_another(served, _round(requests, CALLS), _round(requests, WARM_UP))
    else:
        durations, seconds = asyncio.run(_at_once(served.address, requests, in_flight))
    aim = "≤ 1.2, aim 1.0" if in_flight == 1 else ""
    return [
        milliseconds(f"function: steady call, {in_flight} in flight", durations, aim),
        rate(f"function: calls a second, {in_flight} in flight", len(durations), seconds),
    ]


def _round(requests: list[bytes], count: int) -> list[bytes]:
    return [requests[number % len(requests)] for number in range(count)]


def steady_requests(count: int) -> list[fnv1.RunFunctionRequest]:
    """Requests of a Memory at rest, told apart by what a server counts up."""
    settled, _ = settle(world())
    return [
        _padded(settled.but(observed={key: _aged(body, number) for key, body in settled.observed.items()}))
        for number in range(count)
    ]


def changed_requests(count: int) -> list[fnv1.RunFunctionRequest]:
    """Requests of that Memory, each for a spec of its own; what was composed is as it was before the change."""
    settled, _ = settle(world())
    changed = [settled.with_spec(embeddings__dimension=1 + number) for number in range(count)]
    return [_padded(each.but(xr=_aged(each.xr, number))) for number, each in enumerate(changed)]


def _padded(now: World) -> fnv1.RunFunctionRequest:
    """A request with all that is asked for."""
    return padded(now, request(now, dict(run(now).response.requirements.resources)))


def padded(now: World, req: fnv1.RunFunctionRequest) -> fnv1.RunFunctionRequest:
    """The request, with as many managed fields as make REQUEST_BYTES of it."""
    padding = max(0, REQUEST_BYTES - req.ByteSize()) // len(now.observed)
    for key in sorted(req.observed.resources):
        metadata = req.observed.resources[key].resource.fields["metadata"].struct_value
        _pad(metadata.fields["managedFields"].list_value.values[0].struct_value, padding)
    return req


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
def serving(module: str, *options: str) -> Iterator[Served]:
    """Start the function, or what stands for it, and stop it in the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-c", AS_SHIPPED, module, "--insecure", "--address", address, *options]
    before = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    try:
        while not _listens(address):
            if process.poll() is not None:
                msg = f"{module} does not start: it exited with {process.returncode}"
                raise RuntimeError(msg)
            time.sleep(0.002)
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
        yield Served(address, time.perf_counter() - before, process)
    finally:
        process.terminate()
        process.wait()


def _listens(address: str) -> bool:
    """Asked first: gRPC waits for a tenth of a second and more between its tries."""
    host, port = address.split(":")
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))  # from the same address a port can connect to itself
        return probe.connect_ex((host, int(port))) == 0


def _one_after_another(
    served: Served, requests: list[bytes], warm_up: Iterable[bytes] = ()
) -> tuple[list[float], float]:
    """Call without anything else in flight; durations of single calls, and the time of all."""
    durations: list[float] = []
    with grpc.insecure_channel(served.address) as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        for each in warm_up:
            call(each)
        start = time.perf_counter()
        for each in requests:
            before = time.perf_counter()
            call(each)
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
