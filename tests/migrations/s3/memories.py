"""Memories on a real S3 server: their requests as the function renders them, and their logins as apps use them."""

import dataclasses
import hashlib
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from memoryctl.embedded import Login
from migrations.deadline import Deadline
from migrations.s3 import commands
from tests.migrations.documents import Answer, Command
from tests.rgw import Keys, Rgw


@dataclasses.dataclass(frozen=True)
class Memory:
    """One Memory in a bucket, with what tests vary. `secrets` are the secret keys by role and slot."""

    rgw: Rgw
    bucket: str | None
    bucket_prefix: str | None = None
    identity: str = "team-a/notes"
    uid: str = "uid-1"
    dataset: str = "notes"
    secrets: dict[str, str] = dataclasses.field(default_factory=lambda: {"rw_a": "first-secret", "ro_a": "read-secret"})
    draining: tuple[str, ...] = ()
    provider: dict[str, Any] = dataclasses.field(default_factory=dict)
    embeddings: dict[str, Any] = dataclasses.field(default_factory=dict)
    ttl: int = 0
    hold: bool = False
    adopt: bool = False
    policy: str = "Require"
    deletion: str = "Retain"
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def but(self, **changes: Any) -> "Memory":
        return dataclasses.replace(self, **changes)

    @property
    def id(self) -> str:
        place = self.bucket or self.bucket_prefix or ""
        return hashlib.sha256(f"{self.identity}\0{place}".encode()).hexdigest()[:12]

    @property
    def home(self) -> str:
        """The bucket that it is in."""
        return self.bucket or f"{self.bucket_prefix}-{self.id}"

    @property
    def prefix(self) -> str:
        return f"{self.dataset}-{self.id}/"

    def name(self, slot: str) -> str:
        return f"mem_{self.id}_{slot}"

    def keys(self, slot: str = "rw_a") -> Keys:
        return Keys(self.name(slot), self.secrets[slot])

    def client(self, slot: str = "rw_a") -> AbstractContextManager[Any]:
        """A client as a login."""
        return self.rgw.client(self.keys(slot))

    def login(self, slot: str) -> dict[str, Any]:
        state = "active" if slot in self.secrets else "draining" if slot in self.draining else "closed"
        role = "writer" if slot.startswith("rw") else "reader"
        return {"name": self.name(slot), "role": role, "slot": slot[-1], "state": state}

    def provider_document(self) -> dict[str, Any]:
        return {
            "type": "s3",
            "name": "objects",
            "uid": "provider-uid",
            "endpoint": self.rgw.endpoint,
            "region": self.rgw.region,
            "forcePathStyle": True,
            "bucket": self.bucket,
            "bucketPrefix": self.bucket_prefix,
            "users": "RGW",
            "versioning": False,
            "objectLock": None,
            "lifecycle": None,
            "encryption": None,
            "replication": None,
            **self.provider,
        }

    def document(self) -> dict[str, Any]:
        return {
            **self.probe_document(),
            "identity": self.identity,
            "uid": self.uid,
            "composite": f"composite-of-{self.uid}",
            "epoch": 0,
            "keyId": "630dcd29",
            "database": self.home,
            "prefix": self.prefix,
            "keys": {"namespace": "databases", "name": "mem-keys"} if self.users == "Shared" else None,
            "access": {"readerRole": None, "writerRole": None},
            "dataset": {"name": self.dataset, "schema": "notes", "searchConfig": "simple"},
            "embeddings": {
                "enabled": True,
                "dimension": 3,
                "metric": "cosine",
                "storage": "auto",
                "index": {"type": "auto", "minRows": 10000},
                **self.embeddings,
            },
            "retention": {"ttlDays": self.ttl},
            "modules": ["core"],
            "logins": [self.login(slot) for slot in ("rw_a", "rw_b", "ro_a", "ro_b")],
            "legalHold": self.hold,
            "adoption": {"adopt": self.adopt, "policy": self.policy, "from": None},
            "deletionPolicy": self.deletion,
            **self.extra,
        }

    def probe_document(self) -> dict[str, Any]:
        report = {"namespace": "databases", "name": f"{self.id}-report"}
        return {"version": 1, "hash": "0123456789", "provider": self.provider_document(), "report": report}

    def reap_document(self, grace: int = 0) -> dict[str, Any]:
        return self.probe_document() | {"deletionGraceSeconds": grace, "approved": "", "claim": None}

    def maintain_document(self, drift: str = "Report") -> dict[str, Any]:
        return self.probe_document() | {"driftPolicy": drift, "workMem": "64MB", "claim": None}

    @property
    def users(self) -> str:
        return str(self.provider.get("users", "RGW"))


def keys_under(memory: Memory, prefix: str) -> list[str]:
    with memory.rgw.client() as admin:
        found = admin.list_objects_v2(Bucket=memory.home, Prefix=prefix).get("Contents", [])
    return [each["Key"] for each in found]


def provisioned(memory: Memory, folder: Path) -> Memory:
    """Provisions with no process around it, for what tests share."""
    (folder / "admin").mkdir(parents=True)
    (folder / "admin" / "username").write_text(memory.rgw.admin.access_key)
    (folder / "admin" / "password").write_text(memory.rgw.admin.secret_key)
    write_logins(memory, folder)
    done = commands.provision(memory.document(), folder, Deadline.in_seconds(30))
    assert done.details["verify"] == []
    return memory


def write_logins(memory: Memory, folder: Path) -> None:
    """Writes the files that Ceph's users are made from."""
    (folder / "login").mkdir()
    for slot, secret in memory.secrets.items():
        (folder / "login" / memory.name(slot)).write_text(secret)


class Runner:
    """Runs commands on Memories, as Jobs do."""

    def __init__(self, command: Command) -> None:
        self.command = command

    def mount(self, memory: Memory, document: dict[str, Any], ca: Path | None = None) -> dict[str, str]:
        admin = memory.rgw.admin
        environment = self.command.mount(document, Login(admin.access_key, admin.secret_key))
        directory = Path(environment["MEMORY_DIR"])
        write_logins(memory, directory)
        if ca:
            (directory / "tls").mkdir()
            (directory / "tls" / "ca.crt").write_bytes(ca.read_bytes())
        return environment

    def run(self, name: str, memory: Memory, document: dict[str, Any], ca: Path | None = None) -> Answer:
        return self.command.run_mounted(name, self.mount(memory, document, ca))

    def provision(self, memory: Memory, ca: Path | None = None) -> Answer:
        return self.run("provision", memory, memory.document(), ca)

    def ready(self, memory: Memory) -> Memory:
        """Provisions, and expects that all is well."""
        answer = self.provision(memory)
        assert (answer.code, answer.report.get("verify")) == (0, []), answer.message
        return memory

    def maintain(self, memory: Memory, drift: str = "Report") -> Answer:
        return self.run("maintain", memory, memory.maintain_document(drift))

    def told(self, memory: Memory) -> dict[str, Any]:
        """What the last run of maintenance said of a Memory."""
        path = self.command.folder / "reports" / "databases" / f"{memory.id}-report.json"
        found: dict[str, Any] = json.loads(json.loads(path.read_text())["maintenance"])
        return found
