"""Holds a provisioner to the contract of custom backends (docs/custom.md), against the server that it provisions.

COMMAND is run with one of provision, probe, maintain, reap, as a Job runs the image (run-image runs one). TRY is run
with a binding directory, and exits 0 when the login in it may write. What the kit makes on the server it removes again,
by the provisioner itself. Each line says ok or FAILED; the exit code is 1 when something failed.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import http.server
import json
import os
import secrets
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

Object = dict[str, Any]
GROUP = "/apis/memory.proompteng.ai/v1alpha1"
SECONDS = 60
AT_ONCE = 8
KILLS = 6
# Until a process, or a container, has begun.
START_SECONDS = 2
FEW = 5
USAGE, CONFLICT, ADOPTION, BAD_REQUEST, UNREACHABLE = 64, 14, 15, 20, 30
PERIODIC = ("probe", "maintain", "reap")


class BrokenError(AssertionError):
    """The contract is not kept; the message says where."""


def expect(holds: object, message: str) -> None:
    """Fails a check."""
    if not holds:
        raise BrokenError(message)


@dataclasses.dataclass(frozen=True)
class Run:
    """How a command ended: exit code, its key of the report, all keys of others' reports, what it printed."""

    command: str
    code: int
    report: Object
    others: dict[str, Object]
    log: str


@dataclasses.dataclass(frozen=True)
class Memory:
    """One Memory as a control plane would ask for it. A login's password is a word that is found in any log."""

    identity: str
    home: str
    uid: str
    epoch: int = 0
    states: tuple[str, str] = ("active", "closed")
    adopt: bool = False
    deletion_policy: str = "Retain"
    hold: bool = False

    def but(self, **changes: Any) -> "Memory":
        """Gives it with other values."""
        return dataclasses.replace(self, **changes)

    def login(self, slot: str, database: str) -> str:
        """Names a login of the writer, as the function does."""
        whose = "\0".join([self.identity, database])
        return f"mem_{hashlib.sha256(whose.encode()).hexdigest()[:12]}_rw_{slot}"

    def password(self, slot: str) -> str:
        """Gives a login's password, of the epoch that last used its slot."""
        epoch = self.epoch - (self.epoch % 2 != "ab".index(slot))
        return hashlib.sha256(f"{self.identity} {self.uid} {epoch}".encode()).hexdigest()[:43]


class Kit:
    """The checks, in their order; each one's docstring is what it proves."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._numbers = iter(range(10**6))
        self._passwords: set[str] = set()
        self._printed: list[str] = []
        self._tag = secrets.token_hex(3)
        self._made: list[Memory] = []
        self._provider = f"provider-{self._tag}"
        self._account: dict[str, str] = {}

    def memory(self, name: str, **changes: Any) -> Memory:
        """Gives a Memory of this run of the kit."""
        made = Memory(f"kit-{self._tag}/{name}", f"kit_{self._tag}_{name}", f"uid-of-{name}", **changes)
        self._made.append(made)
        return made

    def document(self, command: str, memory: Memory | None = None) -> Object:
        """Gives the request document of a command."""
        host, _, port = self._options.endpoint.removeprefix("//").rpartition(":")
        asked: Object = {
            "version": 1,
            "hash": secrets.token_hex(5),
            "provider": {
                "type": "custom",
                "name": "kit",
                "uid": self._provider,
                "endpoint": self._options.endpoint,
                "host": host,
                "port": int(port),
                "database": self._options.database,
            },
            "report": {"namespace": "kit", "name": f"report-{memory.home}" if memory else "report"},
        }
        if command == "reap":
            asked |= {"claim": None, "deletionGraceSeconds": 0, "approved": ""}
        if command == "maintain":
            asked |= {"claim": None, "driftPolicy": "Report", "workMem": "64MB"}
        return {**asked, **self._wishes(memory)} if memory else asked

    def _wishes(self, memory: Memory) -> Object:
        database = self._options.database
        logins = [
            {"name": memory.login(slot, database), "role": "writer", "slot": slot, "state": state}
            for slot, state in zip("ab", memory.states, strict=True)
        ]
        readers = [{**each, "name": each["name"].replace("_rw_", "_ro_"), "role": "reader"} for each in logins]
        return {
            "identity": memory.identity,
            "uid": memory.uid,
            "composite": f"composite-of-{memory.uid}",
            "epoch": memory.epoch,
            "keyId": "00000000",
            "database": database,
            "dataset": {"name": "notes", "schema": memory.home, "searchConfig": "simple"},
            "embeddings": {
                "enabled": False,
                "dimension": 3,
                "metric": "cosine",
                "storage": "auto",
                "index": {"type": "auto", "minRows": 1000},
            },
            "access": {"readerRole": None, "writerRole": None},
            "retention": {"ttlDays": 30},
            "modules": ["core"],
            "logins": [*logins, *({**each, "state": "closed"} for each in readers)],
            "legalHold": memory.hold,
            "adoption": {"adopt": memory.adopt, "policy": "Require", "from": None},
            "deletionPolicy": memory.deletion_policy,
        }

    def run(self, command: str, memory: Memory | None = None, **changes: Any) -> Run:
        """Runs a command with a request that is changed as told; `seconds` is its deadline."""
        with self.started(command, memory, **changes) as (process, folder):
            try:
                printed, _ = process.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                printed = "did not end"
        self._printed.append(printed)
        reports = [(path, json.loads(path.read_text())) for path in (folder / "reports").glob("*/*.json")]
        file = folder / "report.json"
        own = json.loads(file.read_text()) if file.exists() else {}
        expect(set(own) <= {command}, f"{command} wrote the keys {sorted(own)}: it writes its own, {command}")
        shutil.rmtree(folder)
        others = {path.stem: data for path, data in reports}
        return Run(command, process.returncode, json.loads(own.get(command, "{}")), others, printed)

    @contextlib.contextmanager
    def started(
        self, command: str, memory: Memory | None = None, *, seconds: int = SECONDS, **changes: Any
    ) -> Iterator[tuple[subprocess.Popen[str], Path]]:
        """Starts a command, with its files in a folder of its own."""
        folder = self._folder / f"run-{next(self._numbers)}"
        (folder / "login").mkdir(parents=True)
        asked = {**self.document(command, memory), **changes}
        (folder / "request.json").write_text(json.dumps(asked))
        for slot, state in zip("ab", memory.states if memory else (), strict=False):
            if memory and state == "active":
                self._passwords.add(memory.password(slot))
                (folder / "login" / memory.login(slot, self._options.database)).write_text(memory.password(slot))
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KUBERNETES_")},
            **self._account,
            "MEMORY_DIR": str(folder),
            "MEMORY_CONFIG_DIR": str(self._options.config),
            "MEMORY_REPORT_FILE": str(folder / "report.json"),
            "MEMORY_DEADLINE_SECONDS": str(seconds),
        }
        words = [*shlex.split(self._options.command), command]
        pipe, joined = subprocess.PIPE, subprocess.STDOUT
        with subprocess.Popen(words, env=environment, stdout=pipe, stderr=joined, text=True) as process:  # noqa: S603
            yield process, folder

    def provisioned(self, memory: Memory) -> Run:
        """Provisions a Memory; it must succeed."""
        return self.succeeded(self.run("provision", memory))

    def succeeded(self, run: Run) -> Run:
        """Holds a run to success, and to what a report is."""
        expect(run.code == 0, f"{run.command} exits {run.code}: {run.log[-300:]}")
        expect(run.report.get("code") == 0, f"{run.command} reports {run.report}: its code is 0")
        return run

    def opens(self, memory: Memory, slot: str) -> bool:
        """Whether a login may write."""
        host, _, port = self._options.endpoint.rpartition(":")
        binding = {
            "type": "custom",
            "provider": "kit",
            "endpoint": self._options.endpoint,
            "host": host,
            "port": port,
            "database": self._options.database,
            "schema": memory.home,
            "username": memory.login(slot, self._options.database),
            "password": memory.password(slot),
            "dataset": "notes",
            "contract": "1",
        }
        folder = self._folder / f"binding-{next(self._numbers)}"
        folder.mkdir()
        for name, value in binding.items():
            (folder / name).write_text(value)
        words = [*shlex.split(self._options.try_command), str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)  # noqa: S603
        return done.returncode == 0

    def check_usage(self) -> None:
        """A command that does not exist is a mistake of usage: exit 64."""
        words = shlex.split(self._options.command)
        for more in ([], ["dance"]):
            done = subprocess.run([*words, *more], capture_output=True, check=False, timeout=SECONDS)  # noqa: S603
            expect(done.returncode == USAGE, f"{more or 'no command'} exits {done.returncode}, not {USAGE}")

    def check_probe(self) -> None:
        """Probe says what the server is."""
        found = self.succeeded(self.run("probe"))
        server = found.report.get("server", {})
        expect(isinstance(server.get("version"), str), f"the report's server is {server}: it has a version, a text")
        expect(isinstance(server.get("capabilities"), list), f"the report's server is {server}: it has capabilities")

    def check_report(self) -> None:
        """The report is of the request's hash, and is the last line of the log."""
        memory = self.memory("report")
        for command, whose in (("provision", memory), ("probe", None)):
            found = self.succeeded(self.run(command, whose, hash="abcdef0123"))
            expect(found.report["hash"] == "abcdef0123", f"{command} reports the hash {found.report['hash']}")
            missing = {"hash", "code", "reason", "message", "migration", "sqlstate"} - set(found.report)
            expect(not missing, f"{command} reports without {sorted(missing)}")
            lines = found.log.splitlines()
            expect(lines and json.loads(lines[-1]) == found.report, f"the last line of {command} is {lines[-1:]}")

    def check_bad_request(self) -> None:
        """What is unknown in a request is refused: exit 20, for another contract, and for a key that nobody knows."""
        memory = self.memory("bad")
        for changes in ({"version": 2}, {"surprise": True}, {"logins": "none"}):
            found = self.run("provision", memory, **changes)
            expect(found.code == BAD_REQUEST, f"{changes} exits {found.code}, not {BAD_REQUEST}")
            expect(found.report.get("reason") == "BadRequest", f"{changes} reports {found.report}")
        expect(not self.opens(memory, "a"), "a refused request made a login")

    def check_provision(self) -> None:
        """A new Memory's login works, a closed one does not, and a second run changes nothing."""
        memory = self.memory("plain")
        for _ in range(2):
            self.provisioned(memory)
            expect(self.opens(memory, "a"), "the active login does not work")
            expect(not self.opens(memory, "b"), "a closed login works")

    def check_isolation(self) -> None:
        """A login does not work on another Memory's home."""
        one, other = self.memory("one"), self.memory("other")
        self.provisioned(one)
        self.provisioned(other)
        expect(not self.opens(one.but(home=other.home), "a"), "a login writes into another Memory's home")

    def check_rotation(self) -> None:
        """Both logins work while the old one drains; a closed one does not, nor its old password."""
        memory = self.memory("rotated")
        self.provisioned(memory)
        rotated = memory.but(epoch=1, states=("draining", "active"))
        self.provisioned(rotated)
        expect(self.opens(rotated, "b"), "the new login does not work")
        expect(self.opens(memory, "a"), "the draining login does not work any more")
        self.provisioned(rotated.but(states=("closed", "active")))
        expect(self.opens(rotated, "b"), "the new login does not work after the old one was closed")
        expect(not self.opens(memory, "a"), "the closed login works")
        again = rotated.but(epoch=2, states=("active", "draining"))
        self.provisioned(again)
        expect(self.opens(again, "a"), "a slot that is used again does not have its new password")
        expect(not self.opens(memory, "a"), "a slot that is used again keeps its first password")

    def check_conflict(self) -> None:
        """A home is one Memory's: exit 14 for another; 15 for the same one made again, unless it adopts."""
        memory = self.memory("whose")
        self.provisioned(memory)
        found = self.run("provision", memory.but(identity=f"{memory.identity}-else"))
        expect(found.code == CONFLICT, f"somebody else's home: provision exits {found.code}, not {CONFLICT}")
        again = memory.but(uid="uid-of-another")
        found = self.run("provision", again)
        expect(found.code == ADOPTION, f"the home of an earlier claim: provision exits {found.code}, not {ADOPTION}")
        expect(self.opens(memory, "a"), "a refused request broke the login")
        self.provisioned(again.but(adopt=True))
        expect(self.opens(again, "a"), "the login does not work after the adoption")
        expect(not self.opens(memory, "a"), "the earlier claim's password works after the adoption")

    def check_at_once(self) -> None:
        """Eight provisioners at once succeed, of eight Memories and of one."""
        several = [self.memory(f"at_once_{number}") for number in range(AT_ONCE)]
        with futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for group in (several, [self.memory("same")] * AT_ONCE):
                list(pool.map(self.provisioned, group))
                expect(all(self.opens(each, "a") for each in group), "a login does not work")

    def check_kill(self) -> None:
        """A run that was killed at any moment is made good by the next."""
        began = time.monotonic()
        self.provisioned(self.memory("timed"))
        took = time.monotonic() - began
        for number in range(KILLS):
            memory = self.memory(f"killed_{number}")
            with self.started("provision", memory) as (process, _):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(took * (number + 1) / (KILLS + 1))
                process.kill()
                process.communicate()
            self.provisioned(memory)
            expect(self.opens(memory, "a"), "the login does not work after a run that was killed")

    def check_unreachable(self) -> None:
        """Without a server provision exits 30 before its deadline, and what comes again reports that and exits 0."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        provider = {**self.document("probe")["provider"], "endpoint": f"127.0.0.1:{port}", "host": "127.0.0.1"}
        memory, seconds = self.memory("nowhere"), 3
        for command in ("provision", "probe"):
            began = time.monotonic()
            whose = memory if command == "provision" else None
            found = self.run(command, whose, seconds=seconds, provider={**provider, "port": port})
            took = time.monotonic() - began
            expect(took < seconds + START_SECONDS, f"{command} takes {took:.1f} s, longer than its deadline")
            code = UNREACHABLE if command == "provision" else 0
            expect(found.code == code, f"{command} exits {found.code}, not {code}: {found.log[-300:]}")
            expect(found.report.get("code") == UNREACHABLE, f"{command} reports {found.report}")

    def check_maintain(self) -> None:
        """Maintain succeeds, and what it says of a Memory stands in that Memory's report."""
        memory = self.memory("kept")
        self.provisioned(memory)
        found = self.succeeded(self.run("maintain"))
        for name, data in found.others.items():
            said = json.loads(data.get("maintenance", "{}"))
            expect({"code", "message"} <= set(said), f"the key maintenance of {name} is {said}")
        expect(self.opens(memory, "a"), "the login does not work after maintenance")

    def check_reap_unread(self) -> None:
        """A reaper that cannot read which Memories exist changes nothing, and says so."""
        memory = self.memory("unread")
        self.provisioned(memory)
        for _ in range(3):
            found = self.run("reap")
            expect(found.code == 0, f"reap exits {found.code}, not 0: {found.log[-300:]}")
            expect(found.report.get("code"), f"reap reports {found.report}: it could not read")
        expect(self.opens(memory, "a"), "the login is closed although nobody knows whether its Memory is gone")

    def check_reap(self) -> None:
        """A Memory that is missing twice has no access; it has again when it is back; gone for good, it is dropped."""
        memory = self.memory("reaped", deletion_policy="Delete")
        kept = self.memory("staying")
        with self._control_plane() as present:
            if present is None:
                sys.stdout.write("     (without openssl: not looked at)\n")
                return
            present |= {each.uid: each for each in self._made}
            self.provisioned(memory.but(deletion_policy="Retain"))
            self.provisioned(kept)
            del present[memory.uid]
            for run, works in ((1, True), (2, False)):
                self.succeeded(self.run("reap"))
                expect(
                    self.opens(memory, "a") == works,
                    f"missing in run {run}: the login is {'closed' if works else 'open'}",
                )
            present[memory.uid] = memory
            self.succeeded(self.run("reap"))
            expect(self.opens(memory, "a"), "the login of a Memory that is back does not work")
            self.provisioned(memory)
            del present[memory.uid]
            for _ in range(3):
                self.succeeded(self.run("reap"))
            expect(not self.opens(memory, "a"), "the login of a dropped home works")
            heir = memory.but(identity=f"{memory.identity}-heir", uid="uid-of-heir")
            self._made[self._made.index(memory)] = present[heir.uid] = heir
            self.provisioned(heir)
            expect(self.opens(kept, "a"), "the login of a Memory that is there is closed")

    def check_hold(self) -> None:
        """What is on hold is not dropped, whatever was said before, and is there again with its Memory."""
        memory = self.memory("held", deletion_policy="Delete", hold=True)
        with self._control_plane() as present:
            if present is None:
                sys.stdout.write("     (without openssl: not looked at)\n")
                return
            present |= {each.uid: each for each in self._made}
            self.provisioned(memory.but(hold=False))
            expect(self.opens(memory, "a"), "the login does not work")
            self.provisioned(memory)
            del present[memory.uid]
            for _ in range(3):
                self.succeeded(self.run("reap"))
            found = self.run("provision", memory.but(identity=f"{memory.identity}-else", uid="uid-of-else"))
            expect(found.code == CONFLICT, f"a home on hold was given away: provision exits {found.code}")
            present[memory.uid] = memory
            self.succeeded(self.run("reap"))
            self.provisioned(memory.but(hold=False))
            expect(self.opens(memory, "a"), "the login does not work when the hold is over")

    def check_secrets(self) -> None:
        """Nothing that was printed in all this holds a password."""
        text = "\n".join(self._printed)
        expect(not any(password in text for password in self._passwords), "a login's password was printed")
        for path in self._options.config.iterdir():
            if "password" in path.name:
                expect(path.read_text().strip() not in text, f"the admin's {path.name} was printed")

    @contextlib.contextmanager
    def _control_plane(self) -> Iterator[dict[str, Memory] | None]:
        """Runs an API server that has these Memories, by uid; None where openssl is missing, for its certificate."""
        openssl = shutil.which("openssl")
        if openssl is None:
            yield None
            return
        account = self._folder / "account"
        account.mkdir(exist_ok=True)
        words = "req -x509 -newkey rsa:2048 -nodes -subj /CN=api -days 2 -addext subjectAltName=IP:127.0.0.1"
        files = ["-keyout", str(self._folder / "key"), "-out", str(account / "ca.crt")]
        subprocess.run([openssl, *words.split(), *files], check=True, capture_output=True)  # noqa: S603
        (account / "token").write_text("token")
        Handler.present, Handler.provider = {}, self._provider
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(account / "ca.crt", self._folder / "key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self._account = {
            "MEMORY_SERVICE_ACCOUNT": str(account),
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(server.server_port),
        }
        try:
            yield Handler.present
        finally:
            self._account = {}
            server.shutdown()
            thread.join()
            server.server_close()

    def clean(self) -> None:
        """Has all that was made removed, as if its claims were gone: few at a time, for many are not believed."""
        with self._control_plane() as present:
            if present is None:
                return
            present |= {each.uid: each for each in self._made}
            for start in range(0, len(self._made), FEW):
                for each in self._made[start : start + FEW]:
                    self.run("provision", each.but(adopt=True, deletion_policy="Delete", hold=False))
                    del present[each.uid]
                for _ in range(3):
                    self.run("reap")


class Handler(http.server.BaseHTTPRequestHandler):
    """What a reaper asks an API server."""

    present: ClassVar[dict[str, Memory]] = {}
    provider: ClassVar[str] = ""

    def do_GET(self) -> None:
        """Answers with the provider, or with the list of Memories."""
        path = urlsplit(self.path).path
        body: Object | None = None
        if path == f"{GROUP}/xmemories":
            items = [self._composite(each) for each in self.present.values()]
            body = {"kind": "XMemoryList", "metadata": {"resourceVersion": "1"}, "items": items}
        elif path == f"{GROUP}/xmemoryproviders/kit":
            body = {"kind": "XMemoryProvider", "metadata": {"name": "kit", "uid": self.provider}, "spec": {}}
        text = json.dumps(body or {"kind": "Status"}).encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _composite(self, memory: Memory) -> Object:
        namespace, _, name = memory.identity.partition("/")
        metadata = {"name": f"composite-of-{memory.uid}", "uid": memory.uid}
        return {"metadata": metadata, "spec": {"claimRef": {"namespace": namespace, "name": name}}}

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def checks() -> list[tuple[str, Callable[[Kit], None]]]:
    """Gives the checks by name, in the order in which they are written."""
    found = [(name.removeprefix("check_"), each) for name, each in vars(Kit).items() if name.startswith("check_")]
    return [(name, each) for name, each in found if callable(each)]


def main() -> int:
    """Runs the checks; gives the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--command", required=True, help="the provisioner, before the name of a command")
    parser.add_argument("--try", required=True, dest="try_command", help="exits 0 for a binding that may write")
    parser.add_argument("--endpoint", required=True, help="host:port of the server")
    parser.add_argument("--database", required=True, help="as spec.custom.database")
    parser.add_argument("--config", required=True, type=Path, help="folder with the entries of the configSecret")
    parser.add_argument("--keep", action="store_true", help="leave on the server what was made")
    parser.add_argument("--only", action="append", help="a check, as in provision; may be repeated")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="contract-kit-") as name:
        kit = Kit(options, Path(name))
        for title, check in checks():
            if options.only and title not in options.only:
                continue
            sentence = " ".join(str(check.__doc__).split())
            try:
                check(kit)
            except Exception as error:  # noqa: BLE001  the next check is worth running too
                failed += 1
                sys.stdout.write(f"FAILED {title}: {sentence} {type(error).__name__}: {error}\n")
            else:
                sys.stdout.write(f"ok     {title}: {sentence}\n")
            sys.stdout.flush()
        if not options.keep:
            kit.clean()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
