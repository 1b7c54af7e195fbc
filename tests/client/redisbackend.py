"""Memories on Redis and Valkey for the client's tests, each made by the real `provision`."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memoryctl import binding
from memoryctl.embedded import Login
from migrations.deadline import Deadline
from migrations.redis.commands import provision
from tests.migrations.redis.documents import Memory as Document
from tests.redisservers import Node, until

SECONDS = 30.0


@dataclass
class RedisPlace:
    """A prefix and its logins."""

    document: Document
    folder: Path
    binding: Path
    # What the next run is to have, beyond the document's own.
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        return self.document.prefix

    def provision(self, **changes: Any) -> None:
        """Provisions it, as a changed claim does."""
        self.document = self.document.but(**changes)
        admin = self.folder / "admin"
        admin.mkdir(parents=True, exist_ok=True)
        (admin / "username").write_text(self.document.node.admin.username)
        (admin / "password").write_text(self.document.node.admin.password)
        if ca := self.document.node.ca:
            (self.folder / "tls").mkdir(exist_ok=True)
            (self.folder / "tls" / "ca.crt").write_text(ca)
        provision(self.document.document(), self.folder, Deadline.in_seconds(SECONDS))

    def hold(self, *, held: bool) -> None:
        self.provision(hold=held)

    def bind(self, login: Login, *, node: Node | None = None, prefix: str = "") -> Path:
        """Mounts what the function puts into a connection Secret, less what is for people."""
        node = node or self.document.node
        entries = {
            "type": "redis",
            "endpoint": f"{node.host}:{node.port}",
            "database": str(self.document.database),
            "schema": prefix or self.prefix,
            "username": login.username,
            "password": login.password,
            "uri": f"{'rediss' if node.tls else 'redis'}://{node.host}:{node.port}/{self.document.database}",
            "dataset": self.document.dataset,
            "contract": "1",
        }
        if node.ca:
            entries["ca.crt"] = node.ca
        binding.write(self.binding, {name: value.encode() for name, value in entries.items()})
        return self.binding


class RedisBackend:
    """A server, or the nodes of a cluster or a pair, of which the first is in the bindings."""

    def __init__(self, nodes: list[Node], folder: Path) -> None:
        self.nodes = nodes
        self._folder = folder
        self._numbers = itertools.count(1)

    def place(self, folder: Path, *, embeddings: bool = True, **more: Any) -> RedisPlace:
        number = next(self._numbers)
        document = Document(self.nodes[0], identity=f"team-a/notes-{number}", **more)
        if not embeddings:
            document = document.but(embeddings={"enabled": False})
        place = RedisPlace(document, self._folder / str(number), folder)
        place.provision()
        place.bind(document.writer)
        return place

    def stop(self) -> None:
        for node in self.nodes:
            node.stop(save=True)

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        for node in self.nodes if len(self.nodes) > 1 else ():
            with node.client() as admin:
                until(lambda admin=admin: admin.cluster("INFO")["cluster_state"] == "ok")  # type: ignore[misc]
