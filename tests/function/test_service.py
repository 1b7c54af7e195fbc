"""The function in service: what a kubelet, Prometheus and an operator see of it, and how it ends."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from crossplane.function.proto.v1 import run_function_pb2_grpc as grpcv1
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.function.harness import World, request
from tests.function.process import SECONDS, certificates, launch, secure_channel, serving
from tests.function.worlds import memory, provider, provider_world, world

if TYPE_CHECKING:
    import subprocess

SERVICES = (
    "",
    "apiextensions.fn.proto.v1.FunctionRunnerService",
    "apiextensions.fn.proto.v1beta1.FunctionRunnerService",
)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
IN_FLIGHT = 100


def _broken() -> World:
    """What no API server lets through: a reference to a claim without the claim's name."""
    xr = memory()
    xr["spec"]["claimRef"] = {"kind": "Memory"}
    return world(memory_xr=xr)


def _check(channel: grpc.Channel, service: str = "") -> int:
    asked = health_pb2.HealthCheckRequest(service=service)
    status: int = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=SECONDS).status
    return status


def test_is_healthy_as_a_whole_and_by_service() -> None:
    with serving() as process, grpc.insecure_channel(process.address) as channel:
        assert {_check(channel, service) for service in SERVICES} == {SERVING}
        with pytest.raises(grpc.RpcError) as refused:
            _check(channel, "memory")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_health_is_behind_tls_like_everything_else(tmp_path: Path) -> None:
    certificates(tmp_path)
    with serving("--tls-certs-dir", str(tmp_path)) as process:
        with secure_channel(process.address, tmp_path) as channel:
            assert _check(channel) == SERVING
        with grpc.insecure_channel(process.address) as channel, pytest.raises(grpc.RpcError):
            _check(channel)


@pytest.mark.parametrize("service", SERVICES)
def test_who_watches_is_told_that_it_stops(service: str) -> None:
    with serving() as process, grpc.insecure_channel(process.address) as channel:
        asked = health_pb2.HealthCheckRequest(service=service)
        statuses = health_pb2_grpc.HealthStub(channel).Watch(asked, timeout=SECONDS)
        assert next(statuses).status == SERVING
        process.child.send_signal(signal.SIGTERM)
        assert next(statuses).status == NOT_SERVING
        statuses.cancel()
        assert process.child.wait(SECONDS) == 0


def test_counts_and_times_calls_by_kind() -> None:
    strange = world(memory_xr={**memory(), "kind": "XStrange"})
    with serving() as process, grpc.insecure_channel(process.address) as channel:
        before = process.samples()
        stub = grpcv1.FunctionRunnerServiceStub(channel)
        for each in (world(), world(), provider_world(provider()), strange, strange.but(xr={})):
            stub.RunFunction(request(each))
        after = process.samples()
    kinds = ("XMemory", "XMemoryProvider", "other")
    assert {key[1] for key in before} == {key[1] for key in after} == set(kinds), "whatever a composite says it is"
    assert [before["function_memory_calls_total", kind] for kind in kinds] == [0, 0, 0]
    assert [after["function_memory_calls_total", kind] for kind in kinds] == [2, 1, 2]
    assert [after["function_memory_call_seconds_count", kind] for kind in kinds] == [2, 1, 2]
    assert all(0 < after["function_memory_call_seconds_sum", kind] < SECONDS for kind in kinds)
    assert [after["function_memory_failures_total", kind, "fatal"] for kind in kinds] == [0, 0, 2]
    assert [after["function_memory_failures_total", kind, "exception"] for kind in kinds] == [0, 0, 0]


def test_tells_how_large_it_is() -> None:
    with serving() as process:
        sizes = [line for line in process.metrics().splitlines() if line.startswith("process_resident_memory_bytes ")]
    assert len(sizes) == 1


def test_an_exception_is_an_answer_a_metric_and_a_line_in_the_log() -> None:
    req = request(_broken())
    with serving() as process:
        with grpc.insecure_channel(process.address) as channel:
            stub = grpcv1.FunctionRunnerServiceStub(channel)
            asked = stub.RunFunction(request(world())).requirements.resources
            with pytest.raises(grpc.RpcError) as failed:
                stub.RunFunction(req)
            assert stub.RunFunction(request(world(), dict(asked))).conditions, "the next call is none the worse"
        samples, lines = process.samples(), process.stop()
    assert failed.value.code() == grpc.StatusCode.INTERNAL
    assert failed.value.details() == (
        f"KeyError while composing XMemory: a bug; its trace is in this function's log under tag {req.meta.tag}"
    )
    assert samples["function_memory_failures_total", "XMemory", "exception"] == 1
    assert samples["function_memory_call_seconds_count", "XMemory"] == 3
    (line,) = [each for each in lines if each["level"] == "error"]
    assert (line["tag"], line["error"]) == (req.meta.tag, "KeyError")
    assert "subject.py" in line["trace"]
    assert "locals" not in str(line), "they hold passwords"


def test_without_an_address_there_are_no_metrics() -> None:
    with serving(metrics="") as process, grpc.insecure_channel(process.address) as channel:
        assert process.metrics_port is None
        assert _check(channel) == SERVING


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_stops_when_it_is_asked_to(number: signal.Signals) -> None:
    with serving() as process:
        assert [line["msg"] for line in process.stop(number)] == ["stopping"]


def test_calls_in_flight_are_finished() -> None:
    """GRPC cancels what it has not handed over yet, so that a stop has to wait for more than the running call."""
    req = request(world())
    with serving() as process:
        with grpc.insecure_channel(process.address) as channel:
            calls = [grpcv1.FunctionRunnerServiceStub(channel).RunFunction.future(req) for _ in range(IN_FLIGHT)]
            assert calls[0].result(SECONDS)
            process.child.send_signal(signal.SIGTERM)
            assert not all(call.done() for call in calls), "or it would prove nothing"
            assert all(call.result(SECONDS).meta.tag == req.meta.tag for call in calls)
        assert process.child.wait(SECONDS) == 0


def test_may_be_stopped_before_it_serves() -> None:
    """A container's first process ignores a signal until it handles it, so it does so before anything else."""
    with launch("--insecure", "--address", "127.0.0.1:0", "--metrics-address", "") as process:
        while not _handles(process, signal.SIGTERM):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (0, "", "")


def _handles(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)
