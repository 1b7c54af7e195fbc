"""A real S3 server for tests: Ceph RGW, started once a session (and xdist worker); buckets and users are fresh.

Tests that need it carry `pytest.mark.xdist_group("rgw")`, so that one worker starts one server for all of them.
"""

import contextlib
import json
import os
import random
import shlex
import socket
import ssl
import subprocess
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import trustme
from botocore.config import Config

from tests.servers import require

PROGRAM = "MEMORY_RGW"
START_SECONDS = 180
REGION = "us-east-1"
# What the admin of docs/s3.md may do, beyond the caps that the program gives.
CAPS = "users=*;buckets=*;user-policy=*"


@dataclass(frozen=True)
class Keys:
    """A user's key pair."""

    access_key: str
    secret_key: str


@dataclass
class Rgw:
    """A running server. Names of buckets and users that it gives are fresh."""

    program: tuple[str, ...]
    directory: Path
    endpoint: str
    admin: Keys
    region: str = REGION

    def run(self, *arguments: str) -> Any:
        """Runs radosgw-admin; gives what it says as JSON, None where it says nothing."""
        command = [*self.program, "admin", str(self.directory), *arguments]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        return json.loads(said) if said.strip() else None

    def name(self, stem: str = "bucket") -> str:
        """Gives a name that nobody has had."""
        return f"{stem}-{uuid.uuid4().hex[:8]}"

    @contextlib.contextmanager
    def client(
        self, keys: Keys | None = None, service: str = "s3", endpoint: str = "", **settings: Any
    ) -> Iterator[Any]:
        """Gives a boto3 client as a user, as the admin unless told otherwise."""
        who = keys or self.admin
        config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, max_pool_connections=32)
        client = boto3.session.Session().client(
            service,
            endpoint_url=endpoint or self.endpoint,
            region_name=self.region,
            aws_access_key_id=who.access_key,
            aws_secret_access_key=who.secret_key,
            config=config,
            **settings,
        )
        try:
            yield client
        finally:
            client.close()

    def bucket(self, *, lock: bool = False, versioning: bool = False) -> str:
        """Makes a bucket of the admin's; object lock brings versioning with it."""
        name = self.name()
        with self.client() as client:
            client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
            if versioning and not lock:
                client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def user(self, *, caps: str = "") -> Keys:
        """Makes a user who has nothing; with caps, one whom the admin API lets do that."""
        name = self.name("user")
        extra = ["--caps", caps] if caps else []
        key = self.run("user", "create", "--uid", name, "--display-name", name, *extra)["keys"][0]
        return Keys(key["access_key"], key["secret_key"])


def launch(directory: Path) -> Rgw:
    """Starts a server, or skips the test when this machine has none; whoever calls this stops it again (`stop`)."""
    program = require(
        os.environ.get(PROGRAM),
        f"no Ceph RGW: set {PROGRAM} to a program that takes start DIR PORT, stop DIR and admin DIR ARGUMENT…",
    )
    command = tuple(shlex.split(program))
    done = subprocess.run(
        [*command, "start", str(directory), str(free_port())],
        check=True, stdout=subprocess.PIPE, text=True, timeout=START_SECONDS,
    )  # fmt: skip
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    rgw = Rgw(command, directory, said["S3_ENDPOINT"], Keys(said["S3_ACCESS_KEY"], said["S3_SECRET_KEY"]))
    rgw.run("caps", "add", "--uid", "admin", "--caps", CAPS)
    return rgw


def stop(rgw: Rgw) -> None:
    subprocess.run([*rgw.program, "stop", str(rgw.directory)], check=True)


def free_port() -> int:
    """Gives a port that is free, and whose successor is: the monitor takes that, some seconds later.

    Not one of those that connections leave from, which anybody may have in the next moment.
    """
    while True:
        port = random.randrange(10_000, 32_000, 2)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@dataclass(frozen=True)
class Tls:
    """Where a server is reached by https, and the file of the authority that signed for it."""

    endpoint: str
    ca: Path


@contextlib.contextmanager
def tls(rgw: Rgw, directory: Path) -> Iterator[Tls]:
    """Puts TLS in front of a server: connections are taken, decrypted and handed on as they are."""
    authority = trustme.CA()
    ca = directory / "authority.crt"
    authority.cert_pem.write_to_path(str(ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    host, port = rgw.endpoint.removeprefix("http://").split(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, context, (host, int(port))), daemon=True)
        thread.start()
        try:
            yield Tls(f"https://127.0.0.1:{listener.getsockname()[1]}", ca)
        finally:
            # Closing alone does not wake who waits in accept().
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, context: ssl.SSLContext, server: tuple[str, int]) -> None:
    while True:
        try:
            taken, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_connection, args=(taken, context, server), daemon=True).start()


def _connection(taken: socket.socket, context: ssl.SSLContext, server: tuple[str, int]) -> None:
    # A client that does not trust us ends the handshake: that is its right, and no failure of the proxy.
    with (
        contextlib.suppress(OSError),
        taken,
        socket.create_connection(server) as behind,
        context.wrap_socket(taken, server_side=True) as front,
    ):
        back = threading.Thread(target=_pump, args=(behind, front), daemon=True)
        back.start()
        _pump(front, behind)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
