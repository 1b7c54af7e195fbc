"""Request documents as the function renders them, and the command that reads them, in this process or in its own."""

import dataclasses
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from memoryctl.embedded import Login
from migrations.__main__ import main
from tests.postgres import Connection, Database

ROOT = Path(__file__).parents[2]
DEADLINE = "20"


def prefix(identity: str, database: str) -> str:
    """What the roles of one Memory begin with; derived here anew, as the function does."""
    return "mem_" + hashlib.sha256(f"{identity}\0{database}".encode()).hexdigest()[:12]


@functools.cache
def verifier(password: str) -> str:
    """A SCRAM verifier, made by libpq; the same one for the same password, as the function gives it."""
    with_any_server = psycopg.pq.PGconn.connect_start(b"host=127.0.0.1 port=1")
    return with_any_server.encrypt_password(password.encode(), b"any", b"scram-sha-256").decode()


@dataclasses.dataclass(frozen=True)
class Memory:
    """One Memory in one database, with what tests vary."""

    database: Database
    identity: str = "team-a/notes"
    uid: str = "uid-1"
    schema: str = "notes"
    dataset: str = "notes"
    search_config: str = "simple"
    password: str = "first-password"
    reader_password: str | None = None
    embeddings: dict[str, Any] = dataclasses.field(default_factory=dict)
    provider: dict[str, Any] = dataclasses.field(default_factory=dict)
    adopt: bool = False
    policy: str = "Require"
    giver: str | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def but(self, **changes: Any) -> "Memory":
        return dataclasses.replace(self, **changes)

    @property
    def prefix(self) -> str:
        return prefix(self.identity, self.database.name)

    @property
    def isolation(self) -> str:
        return str(self.provider.get("isolation", "Schema"))

    @property
    def home(self) -> Database:
        """The database that the home is in."""
        own = self.isolation == "Database"
        return dataclasses.replace(self.database, name=self.prefix) if own else self.database

    @property
    def lock(self) -> str:
        """What the home's lock is named after."""
        return f"database:{self.prefix}" if self.isolation == "Database" else self.schema

    @property
    def writer(self) -> Login:
        return Login(f"{self.prefix}_rw_a", self.password)

    @property
    def reader(self) -> Login:
        assert self.reader_password
        return Login(f"{self.prefix}_ro_a", self.reader_password)

    def connect(self) -> Connection:
        return self.home.connect(self.writer)

    def hold(self) -> Connection:
        """Holds the home's lock as another provisioner would, until the connection is closed."""
        holder = self.database.connect()
        holder.execute(
            "SELECT pg_advisory_lock(('x' || left(encode(sha256(convert_to('memory-home', 'UTF8') || '\\x00'::bytea"
            " || convert_to(%s, 'UTF8')), 'hex'), 16))::bit(64)::bigint)",
            [self.lock],
        )
        return holder

    def login(self, role: str, slot: str, password: str | None) -> dict[str, Any]:
        name = f"{self.prefix}_{'rw' if role == 'writer' else 'ro'}_{slot}"
        if password is None:
            return {"name": name, "role": role, "slot": slot, "state": "closed"}
        return {"name": name, "role": role, "slot": slot, "state": "active", "verifier": verifier(password)}

    def document(self) -> dict[str, Any]:
        server = self.database.server
        return {
            "version": 1,
            "hash": "0123456789",
            "identity": self.identity,
            "uid": self.uid,
            "composite": f"composite-of-{self.uid}",
            "epoch": 0,
            "keyId": "630dcd29",
            "provider": {
                "type": "postgres",
                "name": "pg",
                "uid": "provider-uid",
                "host": server.host,
                "port": server.port,
                "database": self.database.name,
                "sslMode": "disable",
                "enablePgVector": True,
                "extensionSchema": "public",
                "connectionLimit": 20,
                "statementTimeout": "30s",
                "isolation": "Schema",
                "roleManagement": "SQL",
                **self.provider,
            },
            "database": self.home.name,
            "access": {"readerRole": None, "writerRole": None},
            "dataset": {"name": self.dataset, "schema": self.schema, "searchConfig": self.search_config},
            "embeddings": {
                "enabled": True,
                "dimension": 3,
                "metric": "cosine",
                "storage": "auto",
                "index": {"type": "auto", "minRows": 10000},
                **self.embeddings,
            },
            "retention": {"ttlDays": 0},
            "modules": ["core"],
            "logins": [
                self.login("writer", "a", self.password),
                self.login("writer", "b", None),
                self.login("reader", "a", self.reader_password),
                self.login("reader", "b", None),
            ],
            "legalHold": False,
            "adoption": {"adopt": self.adopt, "policy": self.policy, "from": self.giver},
            "deletionPolicy": "Retain",
            "report": {"namespace": "databases", "name": "mem-report"},
            **self.extra,
        }

    def reap_document(self, grace: int = 0, approved: str = "", claim: dict[str, str] | None = None) -> dict[str, Any]:
        more = {"deletionGraceSeconds": grace, "approved": approved, "claim": claim}
        return self.probe_document() | more

    def maintain_document(
        self, *, drift: str = "Report", claim: dict[str, str] | None = None, memory: dict[str, str] | None = None
    ) -> dict[str, Any]:
        more = {"driftPolicy": drift, "workMem": "64MB", "claim": claim, "memory": memory}
        return self.probe_document() | more

    def probe_document(self) -> dict[str, Any]:
        document = self.document()
        return {key: document[key] for key in ("version", "hash", "provider", "report")}


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command said: exit code, report, log lines."""

    code: int
    report: dict[str, Any]
    log: list[dict[str, Any]]

    @property
    def message(self) -> str:
        return str(self.report["message"])

    @property
    def steps(self) -> list[str]:
        return [line["step"] for line in self.log if "step" in line]


class Command:
    """Mounts a request as a Job would and runs the command."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.capsys = capsys
        self.mounted = 0

    def mount(self, document: Any, admin: Login | None) -> dict[str, str]:
        """Writes the folder and gives the environment that points there."""
        self.mounted += 1
        directory = self.folder / str(self.mounted)
        directory.mkdir()
        (directory / "request.json").write_text(document if isinstance(document, str) else json.dumps(document))
        if admin:
            (directory / "admin").mkdir()
            (directory / "admin" / "username").write_text(f"{admin.username}\n")
            (directory / "admin" / "password").write_text(f"{admin.password}\n")
        return {
            "MEMORY_DIR": str(directory),
            "MEMORY_REPORT_FILE": str(self.folder / f"report-{self.mounted}.json"),
            "MEMORY_DEADLINE_SECONDS": DEADLINE,
        }

    def provision(self, memory: Memory, *, deadline: str = DEADLINE) -> Answer:
        """Provisions in this process."""
        return self.run("provision", memory.document(), memory.database.server.admin, deadline=deadline)

    def probe(self, memory: Memory, ca: str | None = None) -> Answer:
        environment = self.mount(memory.probe_document(), memory.database.server.admin)
        if ca is not None:
            tls = Path(environment["MEMORY_DIR"]) / "tls"
            tls.mkdir()
            (tls / "ca.crt").write_text(ca)
        return self.run_mounted("probe", environment)

    def run(self, command: str, document: Any, admin: Login | None, *, deadline: str = DEADLINE) -> Answer:
        environment = self.mount(document, admin) | {"MEMORY_DEADLINE_SECONDS": deadline}
        return self.run_mounted(command, environment)

    def run_mounted(self, command: str, environment: dict[str, str]) -> Answer:
        for name, value in environment.items():
            self.monkeypatch.setenv(name, value)
        self.capsys.readouterr()
        code = main([command])
        log = [json.loads(line) for line in self.capsys.readouterr().err.splitlines()]
        written = json.loads(Path(environment["MEMORY_REPORT_FILE"]).read_text())
        assert json.loads(written[command]) == log[-1], "the report is the last line of the log"
        return Answer(code, log[-1], log[:-1])

    def spawn(self, memory: Memory, admin: Login | None = None) -> subprocess.Popen[str]:
        """Provisions in a process of its own."""
        environment = self.mount(memory.document(), admin or memory.database.server.admin)
        return subprocess.Popen(
            [sys.executable, "-m", "migrations", "provision"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill_at(self, memory: Memory, step: str) -> None:
        """Provisions in a process of its own, which is killed as soon as it says that it is at a step."""
        process = self.spawn(memory)
        assert process.stderr
        for line in process.stderr:
            if json.loads(line).get("step") == step:
                process.kill()
                break
        else:
            pytest.fail(f"the run never came to {step}")
        process.stderr.close()
        assert process.wait() in (-signal.SIGKILL, 0)  # 0: the last step may be quicker than the signal
