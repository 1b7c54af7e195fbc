"""The process: how it starts, how it is called, and how it fails to start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc
import pytest
import trustme
from crossplane.function.proto.v1 import run_function_pb2 as fnv1
from crossplane.function.proto.v1 import run_function_pb2_grpc as grpcv1
from crossplane.function.proto.v1beta1 import run_function_pb2 as fnv1beta1
from crossplane.function.proto.v1beta1 import run_function_pb2_grpc as grpcv1beta1

from tests.function.harness import request
from tests.function.worlds import world
from tests.schemas import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(*options: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "function.main", *options]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _end(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGTERM)
    return process.communicate(timeout=20)


@pytest.fixture
def address() -> Iterator[str]:
    address = f"127.0.0.1:{_free_port()}"
    process = _start("--insecure", "--address", address)
    yield address
    _end(process)


def _wait(channel: grpc.Channel) -> None:
    grpc.channel_ready_future(channel).result(timeout=20)


def test_serves_both_versions_of_the_protocol(address: str) -> None:
    req = request(world())
    with grpc.insecure_channel(address) as channel:
        _wait(channel)
        rsp = grpcv1.FunctionRunnerServiceStub(channel).RunFunction(req)
        old = fnv1beta1.RunFunctionRequest.FromString(req.SerializeToString())
        old_rsp = grpcv1beta1.FunctionRunnerServiceStub(channel).RunFunction(old)
    assert set(rsp.requirements.resources) == {"provider-claimed", "provider-shared"}
    assert fnv1.RunFunctionResponse.FromString(old_rsp.SerializeToString()) == rsp


def test_logs_json_lines_without_secrets() -> None:
    address = f"127.0.0.1:{_free_port()}"
    process = _start("--insecure", "--address", address)
    with grpc.insecure_channel(address) as channel:
        _wait(channel)
        stub = grpcv1.FunctionRunnerServiceStub(channel)
        asked = stub.RunFunction(request(world())).requirements.resources
        stub.RunFunction(request(world(), dict(asked)))
    out, err = _end(process)
    lines = [json.loads(line) for line in (out + err).splitlines() if line]
    assert {line["reason"] for line in lines} == {"Available", "WaitingForBackend", "Running"}
    assert "SCRAM" not in out + err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--address", "127.0.0.1:1"], "no credentials were provided"),
        (["--tls-certs-dir", "/nonexistent"], "No such file or directory"),
        (["--insecure", "--address", "256.0.0.1:9443"], "cannot serve on 256.0.0.1:9443"),
    ],
    ids=["no-certificates", "no-such-folder", "no-such-address"],
)
def test_a_failed_start_exits_non_zero_with_a_sentence(options: list[str], sentence: str) -> None:
    process = _start(*options)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert sentence in err
    assert "Traceback" not in out + err


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = _start("--insecure", "--address", f"127.0.0.1:{taken.getsockname()[1]}")
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "cannot serve on 127.0.0.1" in err


def test_serves_with_tls_to_callers_with_a_certificate(tmp_path: Path) -> None:
    _certificates(tmp_path)
    address = f"127.0.0.1:{_free_port()}"
    process = _start("--tls-certs-dir", str(tmp_path), "--address", address)
    files = [(tmp_path / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
    known = grpc.ssl_channel_credentials(files[0], files[1], files[2])
    try:
        with grpc.secure_channel(address, known) as channel:
            _wait(channel)
            assert grpcv1.FunctionRunnerServiceStub(channel).RunFunction(request(world())).requirements.resources
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
            grpcv1.FunctionRunnerServiceStub(channel).RunFunction(request(world()), timeout=5)
    finally:
        _end(process)


def _certificates(folder: Path) -> None:
    """A CA, and a certificate that serves for both ends of a handshake."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "tls.key")
    issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    authority.cert_pem.write_to_path(folder / "ca.crt")
