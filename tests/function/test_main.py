"""The process: how it starts, how it is called, and how it fails to start."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import grpc
import pytest
from crossplane.function.proto.v1 import run_function_pb2 as fnv1
from crossplane.function.proto.v1 import run_function_pb2_grpc as grpcv1
from crossplane.function.proto.v1beta1 import run_function_pb2 as fnv1beta1
from crossplane.function.proto.v1beta1 import run_function_pb2_grpc as grpcv1beta1
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.function.harness import request
from tests.function.process import SECONDS, certificates, launch, secure_channel, serving
from tests.function.worlds import world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_serves_both_versions_of_the_protocol() -> None:
    req = request(world())
    with serving() as process, grpc.insecure_channel(process.address) as channel:
        rsp = grpcv1.FunctionRunnerServiceStub(channel).RunFunction(req)
        old = fnv1beta1.RunFunctionRequest.FromString(req.SerializeToString())
        old_rsp = grpcv1beta1.FunctionRunnerServiceStub(channel).RunFunction(old)
    assert set(rsp.requirements.resources) == {"provider-claimed", "provider-shared"}
    assert fnv1.RunFunctionResponse.FromString(old_rsp.SerializeToString()) == rsp


def test_says_which_services_it_has() -> None:
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with serving() as process, grpc.insecure_channel(process.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=SECONDS)
    assert {each.name for each in answer.list_services_response.service} == {
        "apiextensions.fn.proto.v1.FunctionRunnerService",
        "apiextensions.fn.proto.v1beta1.FunctionRunnerService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_logs_json_lines_without_secrets() -> None:
    with serving() as process:
        with grpc.insecure_channel(process.address) as channel:
            stub = grpcv1.FunctionRunnerServiceStub(channel)
            asked = stub.RunFunction(request(world())).requirements.resources
            stub.RunFunction(request(world(), dict(asked)))
        lines = process.stop()
    told = [line["reason"] for line in lines if line["msg"] == "told"]
    assert set(told) == {"Available", "WaitingForBackend", "Running"}
    assert "SCRAM" not in str(lines)


@pytest.mark.parametrize(
    ("large", "code"), [(5, None), (7, grpc.StatusCode.RESOURCE_EXHAUSTED)], ids=["fits", "too-large"]
)
def test_takes_messages_of_the_size_that_it_is_told(large: int, code: grpc.StatusCode | None) -> None:
    req = request(world())
    req.context.update({"padding": "x" * large * 1024 * 1024})
    got = None
    limits = [("grpc.max_receive_message_length", -1)]
    with (
        serving("--insecure", "--max-recv-message-size", "6") as process,
        grpc.insecure_channel(process.address, limits) as channel,
    ):
        try:
            rsp = grpcv1.FunctionRunnerServiceStub(channel).RunFunction(req)
            assert rsp.context == req.context
        except grpc.RpcError as error:
            got = error.code()
    assert got == code


FREE = ["--address", "127.0.0.1:0", "--metrics-address", ""]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (FREE, "there are no certificates to serve with: name their folder with --tls-server-certs-dir, or serve"),
        (
            [*FREE, "--tls-certs-dir", "/nonexistent"],
            "cannot read /nonexistent/tls.crt: No such file or directory: --tls-server-certs-dir names a folder with",
        ),
        (
            ["--insecure", "--address", "256.0.0.1:9443", "--metrics-address", ""],
            "cannot serve on 256.0.0.1:9443, which gRPC explains above: name a free address of this machine with",
        ),
        (
            ["--insecure", *FREE, "--metrics-address", "8080"],
            '--metrics-address is "8080": write host:port, for example 0.0.0.0:8080',
        ),
        (
            ["--insecure", *FREE, "--metrics-address", "127.0.0.1:65536"],
            '--metrics-address is "127.0.0.1:65536": write host:port',
        ),
        (
            ["--insecure", *FREE, "--metrics-address", "256.0.0.1:8080"],
            "cannot serve metrics on 256.0.0.1:8080 (Name or service not known): name a free address of this machine",
        ),
    ],
    ids=["no-certificates", "no-such-folder", "no-such-address", "no-metrics-host", "no-port", "no-such-metrics-host"],
)
def test_a_failed_start_exits_non_zero_with_a_sentence(options: list[str], sentence: str) -> None:
    _fails(options, sentence)


def test_certificates_that_are_none_are_told(tmp_path: Path) -> None:
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).write_text("no PEM")
    sentence = "cannot serve on 127.0.0.1:0, which gRPC explains above"
    _fails([*FREE, "--tls-certs-dir", str(tmp_path)], f"{sentence}: name a free address of this machine with --address")
    _fails(
        [*FREE, "--tls-certs-dir", str(tmp_path)], "see that tls.crt, tls.key and ca.crt are PEM and belong together"
    )


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--address", "cannot serve on {}, which gRPC explains above: name a free address"),
        (
            "--metrics-address",
            "cannot serve metrics on {} (Address already in use): name a free address",
        ),
    ],
)
def test_a_port_that_is_taken_is_told(flag: str, sentence: str) -> None:
    with _taken() as taken:
        _fails(["--insecure", *FREE, flag, taken], sentence.format(taken))


@contextlib.contextmanager
def _taken() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def _fails(options: list[str], sentence: str) -> None:
    with launch(*options) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert sentence in err
    assert "Traceback" not in out + err


def test_serves_with_tls_to_callers_with_a_certificate(tmp_path: Path) -> None:
    certificates(tmp_path)
    with serving("--tls-certs-dir", str(tmp_path)) as process:
        with secure_channel(process.address, tmp_path) as channel:
            assert grpcv1.FunctionRunnerServiceStub(channel).RunFunction(request(world())).requirements.resources
        with grpc.insecure_channel(process.address) as channel, pytest.raises(grpc.RpcError):
            grpcv1.FunctionRunnerServiceStub(channel).RunFunction(request(world()), timeout=5)


def test_insecure_is_insecure_whatever_crossplane_mounts(tmp_path: Path) -> None:
    """Crossplane always sets TLS_SERVER_CERTS_DIR."""
    with (
        serving("--insecure", "--tls-certs-dir", str(tmp_path / "missing")) as process,
        grpc.insecure_channel(process.address) as channel,
    ):
        assert grpcv1.FunctionRunnerServiceStub(channel).RunFunction(request(world())).requirements.resources
