"""Real Redis and Valkey servers for tests: single nodes, a cluster, a replica pair; started when first asked for.

Each server has an admin with a password, and no other login: `default` is off.
"""

import hashlib
import os
import shlex
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import redis
import trustme
from redis.backoff import NoBackoff
from redis.retry import Retry

from memoryctl.embedded import Login
from tests.servers import require

Kind = Literal["redis8", "redis7", "valkey"]
# Where a server keeps its users: in a file of their own, in its configuration file, or nowhere.
Keeps = Literal["aclfile", "config", "nothing"]
Client = redis.Redis

KINDS: tuple[Kind, ...] = ("redis8", "redis7", "valkey")
WRAPPERS = {"redis8": "MEMORY_REDIS_8", "redis7": "MEMORY_REDIS_7", "valkey": "MEMORY_VALKEY"}
TITLES = {"redis8": "Redis 8", "redis7": "Redis 7", "valkey": "Valkey"}
ADMIN = Login("platform", "the-platform's-password")
SECONDS = 15.0
ATTEMPTS = 3


@dataclass
class Node:
    """One server on 127.0.0.1."""

    kind: Kind
    directory: Path
    keeps: Keeps
    authority: trustme.CA | None
    options: tuple[str, ...]
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None
    admin: Login = ADMIN
    host: str = "127.0.0.1"

    @property
    def tls(self) -> bool:
        return self.authority is not None

    @property
    def ca(self) -> str | None:
        """The certificate that clients trust, PEM; None without TLS."""
        return self.authority.cert_pem.bytes().decode() if self.authority else None

    def client(self, login: Login | None = None, database: int = 0, **options: Any) -> Client:
        """Connects as a login, as the admin unless told otherwise; answers are text."""
        login = login or self.admin
        if self.tls:
            options |= {"ssl": True, "ssl_ca_data": self.ca, "ssl_cert_reqs": ssl.CERT_REQUIRED}
        return Client(
            host=self.host,
            port=self.port,
            username=login.username,
            password=login.password,
            db=database,
            **{"decode_responses": True, "socket_timeout": SECONDS, "retry": Retry(NoBackoff(), 0), **options},
        )

    def start(self) -> None:
        """Starts it, on the port that it had before if it ran already.

        Raises:
            RuntimeError: It does not come up; with the end of its log.
        """
        for _ in range(ATTEMPTS):
            port = self.port or free_port()
            self.process = subprocess.Popen(
                self._command(port), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if self._comes_up(port):
                self.port = port
                return
        log = self.directory / "server.log"
        shown = log.read_text(errors="replace")[-500:] if log.exists() else "no log"
        msg = f"{TITLES[self.kind]} does not start: {shown}"
        raise RuntimeError(msg)

    def stop(self, *, save: bool = False, kill: bool = False) -> None:
        """Ends the process; with `save` a next start finds the data."""
        if self.process is None:
            return
        if save:
            with self.client() as client:
                client.execute_command("SAVE")
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        self.process.wait(SECONDS)
        self.process = None

    def wipe(self) -> None:
        """Removes all keys and all users but the admin and `default`, and waits for nobody."""
        with self.client() as client:
            client.flushall()
            others = [each for each in client.acl_users() if each not in {self.admin.username, "default"}]
            if others:
                client.acl_deluser(*others)

    def _comes_up(self, port: int) -> bool:
        assert self.process
        self.port, before = port, self.port
        limit = time.monotonic() + SECONDS
        while time.monotonic() < limit and self.process.poll() is None:
            try:
                with self.client() as client:
                    client.ping()
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(0.01)
            else:
                return self.process.poll() is None
        self.process.kill()
        self.process.wait()
        self.process, self.port = None, before
        return False

    def _command(self, port: int) -> list[str]:
        wrapper = require(
            os.environ.get(WRAPPERS[self.kind]),
            f"no {TITLES[self.kind]}: set {WRAPPERS[self.kind]} to the command that runs its server"
            " ({dir}: its folder)",
        )
        self.directory.mkdir(parents=True, exist_ok=True)
        command = shlex.split(wrapper.replace("{dir}", shlex.quote(str(self.directory))))
        settings = self._settings(port)
        if self.keeps == "config":
            file = self.directory / "server.conf"
            if not file.exists():
                file.write_text("".join(f"{line}\n" for line in [*settings, *_users()]))
            return [*command, str(file)]
        if self.keeps == "aclfile":
            users = self.directory / "users.acl"
            if not users.exists():
                users.write_text("".join(f"{line}\n" for line in _users()))
            settings.append(f"aclfile {users}")
        else:
            settings += _users()
        words = [word for line in settings for word in ("--" + line).split(" ")]
        return [*command, *("" if word == '""' else word for word in words)]

    def _settings(self, port: int) -> list[str]:
        listen = [f"port {port}"]
        if self.authority:
            listen = ["port 0", f"tls-port {port}", *self._certificates()]
        return [
            f"bind {self.host}",
            *listen,
            f"dir {self.directory}",
            f"logfile {self.directory / 'server.log'}",
            "daemonize no",
            'save ""',
            "appendonly no",
            *self.options,
        ]

    def _certificates(self) -> list[str]:
        assert self.authority
        made = self.authority.issue_cert(self.host, "localhost")
        files = {name: self.directory / name for name in ("server.crt", "server.key", "ca.crt")}
        made.cert_chain_pems[0].write_to_path(files["server.crt"])
        made.private_key_pem.write_to_path(files["server.key"])
        self.authority.cert_pem.write_to_path(files["ca.crt"])
        return [
            f"tls-cert-file {files['server.crt']}",
            f"tls-key-file {files['server.key']}",
            f"tls-ca-cert-file {files['ca.crt']}",
            "tls-auth-clients no",
            "tls-replication yes",
            "tls-cluster yes",
        ]


@dataclass
class Group:
    """Several nodes; what a client is pointed at first is the first."""

    nodes: list[Node] = field(default_factory=list)

    @property
    def first(self) -> Node:
        return self.nodes[0]

    def wipe(self) -> None:
        for node in self.nodes:
            with node.client() as client:
                if client.info("replication")["role"] == "master":
                    client.flushall()
                others = [each for each in client.acl_users() if each not in {node.admin.username, "default"}]
                if others:
                    client.acl_deluser(*others)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


def launch(
    directory: Path,
    kind: Kind = "redis8",
    *,
    keeps: Keeps = "aclfile",
    tls: bool | trustme.CA = False,
    options: Sequence[str] = (),
) -> Node:
    """Starts a server of one's own; whoever calls this stops it.

    Args:
        directory: For its files; made when it is not there.
        kind: Which server; the test is skipped when this machine has none.
        keeps: Where it keeps its users.
        tls: Whether it speaks TLS, and nothing else; an authority that it shares with others.
        options: Lines of its configuration, `maxmemory 10mb`.
    """
    authority = trustme.CA() if tls is True else tls or None
    node = Node(kind, directory, keeps, authority, tuple(options))
    node.start()
    return node


def launch_cluster(
    directory: Path, kind: Kind = "redis8", *, replicas: int = 0, timeout_ms: int = 3000, tls: bool = False
) -> Group:
    """Starts a cluster of three masters, and replicas of the first one."""
    group, authority = Group(), trustme.CA() if tls else False
    try:
        for number in range(3 + replicas):
            timeout = f"cluster-node-timeout {timeout_ms}"
            options = ("cluster-enabled yes", timeout, f"cluster-port {free_port()}", *_trusted())
            group.nodes.append(launch(directory / str(number), kind, tls=authority, options=options))
        _join(group, replicas)
    except BaseException:
        group.stop()
        raise
    return group


def launch_pair(directory: Path, kind: Kind = "redis8", *, keeps: Keeps = "aclfile") -> Group:
    """Starts a primary and a replica of it."""
    group = Group()
    try:
        primary = launch(directory / "primary", kind, keeps=keeps, options=_trusted())
        group.nodes.append(primary)
        options = (f"replicaof {primary.host} {primary.port}", *_trusted())
        group.nodes.append(launch(directory / "replica", kind, keeps=keeps, options=options))
        with group.nodes[1].client() as client:
            until(lambda: client.info("replication")["master_link_status"] == "up")
    except BaseException:
        group.stop()
        raise
    return group


class Servers:
    """The servers of one test session."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[str, Node | Group] = {}

    def get(self, kind: Kind = "redis8", *, tls: bool = False, keeps: Keeps = "aclfile", name: str = "") -> Node:
        """Gives a single node; the same one for the same arguments."""
        key = f"{kind}-{keeps}{'-tls' if tls else ''}{name}"
        if key not in self._running:
            self._running[key] = launch(self._directory / key, kind, keeps=keeps, tls=tls)
        found = self._running[key]
        assert isinstance(found, Node)
        return found

    def cluster(self, kind: Kind = "redis8", *, replicas: int = 0, name: str = "") -> Group:
        """Gives a cluster of three masters."""
        return self._group(
            f"{kind}-cluster-{replicas}{name}", lambda folder: launch_cluster(folder, kind, replicas=replicas)
        )

    def pair(self, kind: Kind = "redis8", name: str = "") -> Group:
        """Gives a primary and its replica."""
        return self._group(f"{kind}-pair{name}", lambda folder: launch_pair(folder, kind))

    def _group(self, key: str, start: Callable[[Path], Group]) -> Group:
        if key not in self._running:
            self._running[key] = start(self._directory / key)
        found = self._running[key]
        assert isinstance(found, Group)
        return found

    def stop(self) -> None:
        for each in self._running.values():
            each.stop()


def verifier(password: str) -> str:
    """What Redis takes in a password's place."""
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Waits for something that comes by itself."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"nothing came in {seconds} s"
        time.sleep(0.01)


def _users() -> list[str]:
    return ["user default off", f"user {ADMIN.username} on {verifier(ADMIN.password)} ~* &* +@all"]


def _trusted() -> tuple[str, ...]:
    """How a replica logs in to its primary."""
    return (f"masteruser {ADMIN.username}", f"masterauth {ADMIN.password}", "repl-diskless-sync-delay 0")


def _join(group: Group, replicas: int) -> None:
    masters = group.nodes[:3]
    bounds = [0, 5461, 10923, 16384]
    clients = [node.client() for node in group.nodes]
    try:
        for number, client in enumerate(clients[:3]):
            client.execute_command("CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            bus = client.config_get("cluster-port")["cluster-port"]
            clients[0].execute_command("CLUSTER MEET", group.nodes[number].host, group.nodes[number].port, bus)
        until(lambda: all(client.cluster("INFO")["cluster_known_nodes"] == str(len(clients)) for client in clients))
        first = clients[0].execute_command("CLUSTER MYID")
        for client in clients[len(masters) :]:
            client.execute_command("CLUSTER REPLICATE", first)
        until(lambda: all(client.cluster("INFO")["cluster_state"] == "ok" for client in clients))
        until(lambda: all(_masters(client) == len(masters) for client in clients))
        until(lambda: clients[0].info("replication")["connected_slaves"] == replicas)
    finally:
        for client in clients:
            client.close()


def _masters(client: Client) -> int:
    """Counts the masters that a node knows of, itself among them."""
    return sum("master" in each["flags"] for each in client.cluster("NODES").values())
