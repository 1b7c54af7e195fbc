"""What is counted about calls, and where Prometheus reads it."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from crossplane.function import logging
from crossplane.function.proto.v1 import run_function_pb2 as fnv1
from crossplane.function.proto.v1 import run_function_pb2_grpc as grpcv1
from prometheus_client import Counter, Histogram, start_http_server

from function import plan
from function.decode import kind_of
from function.errors import StartError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

DEFAULT_ADDRESS = "0.0.0.0:8080"
LARGEST_PORT = 65535
# A composite may say that it is of any kind; a label that follows it would grow without bound.
OTHER = "other"
# A steady call takes 1 ms, and one that knows nothing yet some 10.
BUCKETS = (0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


@dataclass(frozen=True)
class _Series:
    """The time series of one kind of composite."""

    calls: Counter
    seconds: Histogram
    exceptions: Counter
    fatals: Counter


class Metered(grpcv1.FunctionRunnerServiceServicer):
    """Counts and times the calls of a function, and answers for it when it raises.

    Args:
        runner: The function.
        registry: Where the metrics are read.
    """

    def __init__(self, runner: grpcv1.FunctionRunnerServiceServicer, registry: CollectorRegistry) -> None:
        self._runner = runner
        self._ended = 0.0
        calls = Counter("function_memory_calls", "Calls that came in.", ["kind"], registry=registry)
        seconds = Histogram(
            "function_memory_call_seconds", "How long calls took.", ["kind"], registry=registry, buckets=BUCKETS
        )
        failures = Counter(
            "function_memory_failures",
            "Calls that composed nothing: fatal is a result that names what is wrong, exception a bug.",
            ["kind", "failure"],
            registry=registry,
        )
        # Made here and not when they are first used: a rate needs the zero before the first failure.
        self._series = {
            kind: _Series(
                calls.labels(kind),
                seconds.labels(kind),
                failures.labels(kind, "exception"),
                failures.labels(kind, "fatal"),
            )
            for kind in (*plan.KINDS, OTHER)
        }

    @property
    def quiet_seconds(self) -> float:
        """How long ago the last call ended."""
        return time.perf_counter() - self._ended

    async def RunFunction(  # noqa: N802 - gRPC gives the name
        self,
        req: fnv1.RunFunctionRequest,
        context: grpc.aio.ServicerContext[fnv1.RunFunctionRequest, fnv1.RunFunctionResponse],
    ) -> fnv1.RunFunctionResponse:
        """Pass one request on."""
        kind = kind_of(req)
        series = self._series.get(kind) or self._series[OTHER]
        series.calls.inc()
        before = time.perf_counter()
        try:
            rsp: fnv1.RunFunctionResponse = await self._runner.RunFunction(req, context)
        except Exception as error:  # noqa: BLE001 - whatever it is, Crossplane gets an answer
            series.exceptions.inc()
            _log(error, req)
            said = (
                f"{type(error).__name__} while composing {kind}: a bug; its trace is in this function's log under tag"
            )
            await context.abort(grpc.StatusCode.INTERNAL, f"{said} {req.meta.tag}")
        finally:
            self._ended = time.perf_counter()
            series.seconds.observe(self._ended - before)
        if any(each.severity == fnv1.SEVERITY_FATAL for each in rsp.results):
            series.fatals.inc()
        return rsp


def _log(error: Exception, req: fnv1.RunFunctionRequest) -> None:
    """Log where an error was raised.

    Neither its message nor local variables, which structlog would add: they may hold what the request does, passwords
    and the root key.
    """
    trace = "".join(traceback.format_tb(error.__traceback__))
    logging.get_logger().error("failed", tag=req.meta.tag, error=type(error).__name__, trace=trace)


def serve(registry: CollectorRegistry, address: str) -> int | None:
    """Serve metrics over HTTP, from a thread that ends with the process.

    Returns:
        The port; None when there is no address, and nothing is served.

    Raises:
        StartError: The address is none, or nobody can listen there.
    """
    if not address:
        return None
    host, port = _parsed(address)
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        msg = (
            f"cannot serve metrics on {address} ({error.strerror}): name a free address of this machine with "
            '--metrics-address, or none at all with --metrics-address ""'
        )
        raise StartError(msg) from error
    return server.server_port


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > LARGEST_PORT:
        msg = f'--metrics-address is "{address}": write host:port, for example {DEFAULT_ADDRESS}'
        raise StartError(msg)
    return host.removeprefix("[").removesuffix("]"), int(port)
