"""Request documents for Redis as the function renders them."""

import dataclasses
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from memoryctl.embedded import Login
from migrations.deadline import Deadline
from migrations.redis.connection import Admin
from migrations.redis.provision import provision
from migrations.redis.request import ProvisionRequest
from migrations.request import parse
from tests.migrations import documents
from tests.migrations.documents import DEADLINE, Answer
from tests.redisservers import Client, Group, Node, verifier

DAY_MS = 86_400_000


@dataclasses.dataclass(frozen=True)
class Memory:
    """One Memory on one server, with what tests vary."""

    node: Node
    identity: str = "team-a/notes"
    uid: str = "uid-1"
    dataset: str = "notes"
    password: str | None = "first-password"
    reader_password: str | None = "reader-password"
    # Instead of those above: what each login slot is, `("writer", "b"): ("active", "second")`.
    slots: dict[tuple[str, str], tuple[str, str]] = dataclasses.field(default_factory=dict)
    embeddings: dict[str, Any] = dataclasses.field(default_factory=dict)
    provider: dict[str, Any] = dataclasses.field(default_factory=dict)
    ttl_days: int = 0
    hold: bool = False
    adopt: bool = False
    policy: str = "Require"
    database: int = 0
    key_prefix: str = "mem"
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def but(self, **changes: Any) -> "Memory":
        return dataclasses.replace(self, **changes)

    @property
    def id12(self) -> str:
        return hashlib.sha256(f"{self.identity}\0{self.database}".encode()).hexdigest()[:12]

    @property
    def prefix(self) -> str:
        """What its keys begin with; derived here anew, as the function does."""
        return f"{self.key_prefix}:{{{self.dataset}.{self.id12}}}:"

    @property
    def key(self) -> str:
        """Its field in the ledger."""
        return hashlib.sha256(self.identity.encode()).hexdigest()[:32]

    @property
    def ledger(self) -> str:
        return f"{self.key_prefix}-ledger:{{homes}}"

    def name(self, role: str = "writer", slot: str = "a") -> str:
        return f"mem_{self.id12}_{'rw' if role == 'writer' else 'ro'}_{slot}"

    @property
    def writer(self) -> Login:
        assert self.password
        return Login(self.name(), self.password)

    @property
    def reader(self) -> Login:
        assert self.reader_password
        return Login(self.name("reader"), self.reader_password)

    def connect(self, login: Login | None = None, node: Node | None = None) -> Client:
        """Connects as the writer, unless told otherwise."""
        return (node or self.node).client(login or self.writer, self.database)

    def login(self, role: str, slot: str) -> dict[str, Any]:
        password = {"writer": self.password, "reader": self.reader_password}[role] if slot == "a" else None
        state, password = self.slots.get((role, slot), ("active" if password else "closed", password))
        described = {"name": self.name(role, slot), "role": role, "slot": slot, "state": state}
        return described | ({"verifier": verifier(password)} if state == "active" and password else {})

    def probe_document(self) -> dict[str, Any]:
        return {
            "version": 1,
            "hash": "0123456789",
            "provider": {
                "type": "redis",
                "name": "redis",
                "uid": "provider-uid",
                "host": self.node.host,
                "port": self.node.port,
                "tls": self.node.tls,
                "database": self.database,
                "keyPrefix": self.key_prefix,
                **self.provider,
            },
            "report": {"namespace": "databases", "name": f"mem-{self.id12}"},
        }

    def document(self) -> dict[str, Any]:
        return self.probe_document() | {
            "identity": self.identity,
            "uid": self.uid,
            "composite": f"composite-of-{self.uid}",
            "epoch": 0,
            "keyId": "630dcd29",
            "database": str(self.database),
            "prefix": self.prefix,
            "access": {"readerRole": None, "writerRole": None},
            "dataset": {"name": self.dataset, "schema": "notes", "searchConfig": "simple"},
            "embeddings": {
                "enabled": self.node.kind == "redis8",
                "dimension": 3,
                "metric": "cosine",
                "storage": "auto",
                "index": {"type": "auto", "minRows": 10000},
                **self.embeddings,
            },
            "retention": {"ttlDays": self.ttl_days},
            "modules": ["core"],
            "logins": [self.login(role, slot) for role in ("writer", "reader") for slot in ("a", "b")],
            "legalHold": self.hold,
            "adoption": {"adopt": self.adopt, "policy": self.policy, "from": None},
            "deletionPolicy": "Retain",
            **self.extra,
        }

    def maintain_document(self, drift: str = "Report", claim: dict[str, str] | None = None) -> dict[str, Any]:
        return self.probe_document() | {"driftPolicy": drift, "workMem": "64MB", "claim": claim}

    def reap_document(self, grace: int = 0, claim: dict[str, str] | None = None) -> dict[str, Any]:
        return self.probe_document() | {"deletionGraceSeconds": grace, "approved": "", "claim": claim}


class Command(documents.Command):
    """Runs a command on a Memory as its provider's admin."""

    def do(self, command: str, memory: Memory, document: dict[str, Any], **options: Any) -> Answer:
        """Runs it in this process, with the CA beside the request when the server speaks TLS."""
        return self.run_mounted(command, self.mounted_for(memory, document, **options))

    def mounted_for(
        self, memory: Memory, document: dict[str, Any], *, admin: Login | None = None, deadline: str = DEADLINE
    ) -> dict[str, str]:
        environment = self.mount(document, admin or memory.node.admin)
        if memory.node.ca:
            tls = Path(environment["MEMORY_DIR"]) / "tls"
            tls.mkdir()
            (tls / "ca.crt").write_text(memory.node.ca)
        return environment | {"MEMORY_DEADLINE_SECONDS": deadline}

    def make(self, memory: Memory, **options: Any) -> Answer:
        return self.do("provision", memory, memory.document(), **options)

    def look(self, memory: Memory, **options: Any) -> Answer:
        return self.do("probe", memory, memory.probe_document(), **options)

    def maintain(self, memory: Memory, drift: str = "Report", **options: Any) -> Answer:
        return self.do("maintain", memory, memory.maintain_document(drift), **options)


def in_threads(memories: Sequence[Memory]) -> list[list[str]]:
    """Provisions Memories at the same time, each on connections of its own; gives what `verify` says of each."""

    def one(memory: Memory) -> list[str]:
        request = parse(memory.document(), ProvisionRequest)
        admin = Admin(request.provider, memory.node.admin.username, memory.node.admin.password, ca=None)
        return provision(request, admin, Deadline.in_seconds(float(DEADLINE))).verify

    with ThreadPoolExecutor(len(memories)) as pool:
        return list(pool.map(one, memories))


__all__ = ["DAY_MS", "Answer", "Command", "Group", "Memory"]
