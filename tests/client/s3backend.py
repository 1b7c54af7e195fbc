"""Memories on S3 for the client's tests, each made by the real `provision`."""

import contextlib
import itertools
import json
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memoryctl import binding
from migrations.deadline import Deadline
from migrations.s3.commands import provision
from tests.migrations.s3.memories import Memory as Document
from tests.rgw import Rgw

SECONDS = 30.0


@dataclass
class S3Home:
    """A provisioned Memory."""

    document: Document
    folder: Path

    def provision(self, **changes: Any) -> None:
        """Provisions it, as a changed claim does."""
        self.document = self.document.but(**changes)
        admin = self.document.rgw.admin
        files = {"admin/username": admin.access_key, "admin/password": admin.secret_key}
        files |= {f"login/{self.document.name(slot)}": secret for slot, secret in self.document.secrets.items()}
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        provision(self.document.document(), self.folder, Deadline.in_seconds(SECONDS))


@dataclass
class S3Place:
    """A part of a home that is used as if it were one: to make users for each test would take too long."""

    home: S3Home
    prefix: str
    binding: Path
    endpoint: str

    def hold(self, *, held: bool) -> None:
        self.home.provision(hold=held)
        self.describe()

    def describe(self, **changes: Any) -> None:
        """Says of the part what the provisioner says of the home."""
        document = self.home.document
        with document.rgw.client() as admin:
            said = admin.get_object(Bucket=document.home, Key=f"{document.prefix}meta.json")["Body"].read()
            body = json.dumps(json.loads(said) | changes).encode()
            admin.put_object(Bucket=document.home, Key=f"{self.prefix}meta.json", Body=body)

    def bind(self, slot: str = "rw_a", **changes: str) -> Path:
        """Mounts what the function puts into a connection Secret, less what is for people."""
        document = self.home.document
        keys = document.keys(slot)
        entries = {
            "type": "s3",
            "endpoint": self.endpoint,
            "database": document.home,
            "schema": self.prefix,
            "username": keys.access_key,
            "password": keys.secret_key,
            "uri": f"s3://{document.home}/{self.prefix}",
            "region": document.rgw.region,
            "dataset": document.dataset,
            "contract": "1",
            **changes,
        }
        binding.write(self.binding, {name: value.encode() for name, value in entries.items()})
        return self.binding


class S3Backend:
    """One home with embeddings and one without, in one bucket or each in its own."""

    def __init__(self, rgw: Rgw, folder: Path, gate: "Gate", *, own: bool, **provider: Any) -> None:
        self._rgw = rgw
        self._folder = folder
        self._gate = gate
        self._provider = provider
        self._numbers = itertools.count(1)
        self._bucket = None if own else rgw.bucket()
        self._bucket_prefix = rgw.name("memories") if own else None
        self._homes: dict[bool, S3Home] = {}

    def place(self, folder: Path, *, embeddings: bool = True) -> S3Place:
        if embeddings not in self._homes:
            identity = f"team-a/notes-{embeddings}"
            document = Document(self._rgw, self._bucket, self._bucket_prefix, identity, provider=self._provider)
            home = S3Home(document.but(embeddings={"enabled": embeddings}), self._folder / str(embeddings))
            home.provision()
            self._homes[embeddings] = home
        home = self._homes[embeddings]
        place = S3Place(home, f"{home.document.prefix}{next(self._numbers)}/", folder, self._gate.endpoint)
        place.describe()
        place.bind()
        return place

    def stop(self) -> None:
        """Cuts the way to the server, which keeps all in memory and would forget it."""
        self._gate.close()

    def start(self) -> None:
        self._gate.open()


class Gate:
    """The way to a server: open, or not there."""

    def __init__(self, endpoint: str) -> None:
        host, port = endpoint.removeprefix("http://").split(":")
        self._server = (host, int(port))
        self._port = 0
        self._listener: socket.socket | None = None
        self._passing: list[socket.socket] = []
        self.open()
        self.endpoint = f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._let_in, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        assert self._listener
        # Closing alone does not wake who waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._passing:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._passing.clear()

    def _let_in(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = listener.accept()
                behind = socket.create_connection(self._server)
                self._passing += [taken, behind]
                threading.Thread(target=_pass, args=(taken, behind), daemon=True).start()


def _pass(taken: socket.socket, behind: socket.socket) -> None:
    with taken, behind:
        back = threading.Thread(target=_pump, args=(behind, taken), daemon=True)
        back.start()
        _pump(taken, behind)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
