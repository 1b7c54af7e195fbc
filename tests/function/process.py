"""The function as a process, started as its image starts it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import trustme
from prometheus_client.parser import text_string_to_metric_families

from tests.schemas import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 20


@dataclass(frozen=True)
class Process:
    """A function that serves.

    Attributes:
        child: The process; what it logs later is still to be read.
        port: Where it answers gRPC.
        metrics_port: Where it answers HTTP, None when it does not.
    """

    child: subprocess.Popen[str]
    port: int
    metrics_port: int | None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def metrics(self) -> str:
        """What Prometheus reads."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=SECONDS) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            return str(answer.read().decode())

    def samples(self) -> dict[tuple[str, ...], float]:
        """Our metrics: name, kind and failure to the value; without buckets."""
        families = text_string_to_metric_families(self.metrics())
        found = [one for family in families for one in family.samples if one.name.startswith("function_memory")]
        wanted = ("kind", "failure")
        return {
            (one.name, *(one.labels[label] for label in wanted if label in one.labels)): one.value
            for one in found
            if "le" not in one.labels
        }

    def stop(self, number: signal.Signals = signal.SIGTERM) -> list[dict[str, Any]]:
        """End it as a kubelet does; gives what it logged, and fails when it does not end well."""
        self.child.send_signal(number)
        out, err = self.child.communicate(timeout=SECONDS)
        assert (self.child.returncode, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]


def launch(*options: str) -> subprocess.Popen[str]:
    """Start it, whatever comes of it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "function.main", *options]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextlib.contextmanager
def serving(*options: str, metrics: str = "127.0.0.1:0") -> Iterator[Process]:
    """Start it on free ports, and wait until it says that it serves."""
    child = launch("--address", "127.0.0.1:0", "--metrics-address", metrics, *(options or ["--insecure"]))
    with child:
        try:
            assert child.stdout
            said = json.loads(child.stdout.readline())
            assert said["msg"] == "serving"
            yield Process(child, said["port"], said["metrics_port"])
        finally:
            child.kill()


def certificates(folder: Path) -> None:
    """A CA, and a certificate that serves for both ends of a handshake."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "tls.key")
    issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    authority.cert_pem.write_to_path(folder / "ca.crt")


def secure_channel(address: str, folder: Path) -> grpc.Channel:
    """A channel as Crossplane's: each end shows a certificate."""
    ca, key, chain = ((folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, chain))
