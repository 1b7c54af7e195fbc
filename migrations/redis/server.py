"""The server as the admin sees it: its nodes, what they are, and what is missing for Memories."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import redis
from redis.crc import key_slot

from migrations import log
from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.redis import acl
from migrations.redis.connection import Admin, Client, ConnectionLostError, address, explained
from migrations.redis.names import ledger_of

OLDEST = (7, 0)
VECTOR_COMMANDS = ("vadd", "vsim", "vrem", "vcard", "vdim", "vinfo")

# What the provisioner, the reaper and maintenance send, with arguments to try each with. KEY is a key of a Memory,
# LEDGER one of the ledger. docs/redis.md has the same list, and a test holds both to it.
NEEDED: tuple[str, ...] = (
    "INFO",
    "SELECT 0",
    "TIME",
    "COMMAND INFO get",
    "CLIENT SETNAME memory",
    "CLIENT KILL USER nobody",
    "ACL SETUSER nobody",
    "ACL GETUSER nobody",
    "ACL DELUSER nobody",
    "ACL DRYRUN nobody ping",
    "ACL CAT",
    "ACL SAVE",
    "CONFIG GET aclfile",
    "CONFIG REWRITE",
    "SCAN 0",
    "MEMORY USAGE KEY",
    "EXISTS KEY",
    "UNLINK KEY",
    "PTTL KEY",
    "PERSIST KEY",
    "PEXPIREAT KEY 1",
    "WATCH LEDGER",
    "UNWATCH",
    "MULTI",
    "EXEC",
    "GET LEDGER",
    "SET LEDGER 1",
    "DEL LEDGER",
    "PEXPIRE LEDGER 1",
    "HGET LEDGER f",
    "HGETALL LEDGER",
    "HSET LEDGER f v",
    "HDEL LEDGER f",
    "GET KEY",
    "HMGET KEY f",
    "HGETALL KEY",
    "HSET KEY f v",
    "DEL KEY",
    "XLEN KEY",
    "XRANGE KEY - +",
    "XTRIM KEY MINID 1",
    "ZRANGE KEY 0 1",
    "ZMSCORE KEY m",
    "ZREM KEY m",
    "ZSCAN KEY 0",
    "SREM KEY m",
)
NEEDED_IN_CLUSTER = ("CLUSTER NODES",)
NEEDED_FOR_VECTORS = ("VCARD KEY", "VDIM KEY", "VINFO KEY", "VGETATTR KEY e", "VREM KEY e")


@dataclass
class Node:
    """One server that takes logins.

    Attributes:
        name: `host:port`.
        primary: Whether it takes writes.
        slots: The slots that it has in a cluster.
        info: What INFO says.
        known: The commands of `acl.WRITER`, and more, that it knows.
        keeps: Where it keeps its users: `acl-file`, `config-file`, or nowhere.
    """

    name: str
    client: Client
    primary: bool = True
    slots: Sequence[range] = ()
    info: dict[str, Any] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    keeps: Literal["acl-file", "config-file", ""] = ""
    settings: dict[str, str] = field(default_factory=dict)

    def call(self, *words: str | int) -> Any:
        """Sends one command, and gives the answer as the protocol has it."""
        return self.client.execute_command(*words)

    def each(self, commands: Sequence[Sequence[str | int]]) -> list[Any]:
        """Sends commands at once; an answer that is an error is given as one."""
        if not commands:
            return []
        with self.client.pipeline(transaction=False) as pipe:
            for words in commands:
                pipe.execute_command(*words)
            answers: list[Any] = pipe.execute(raise_on_error=False)
        return answers

    def all(self, commands: Sequence[Sequence[str | int]]) -> list[Any]:
        """Sends commands at once, none of which may fail."""
        answers = self.each(commands)
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                raise answer
        return answers

    def category(self, name: str) -> list[str]:
        """Gives the commands of a category."""
        return [str(each).lower() for each in self.call("ACL", "CAT", name)]


@dataclass
class Server:
    """All nodes."""

    admin: Admin
    nodes: list[Node]
    # Nodes that the server itself knows to be away: they are not waited for.
    away: list[str] = field(default_factory=list)

    @property
    def first(self) -> Node:
        """The node that was asked first, or the first that takes writes."""
        return self.primaries[0]

    @property
    def primaries(self) -> list[Node]:
        """The nodes that take writes; each key is on one of them."""
        return [node for node in self.nodes if node.primary]

    def at(self, key: str) -> Node:
        """Gives the node that has a key.

        Raises:
            ConnectionLostError: None has it at the moment.
        """
        if not self.is_cluster:
            return self.first
        slot = key_slot(key.encode())
        for node in self.primaries:
            if any(slot in part for part in node.slots):
                return node
        msg = f"no node of the cluster has slot {slot}"
        raise ConnectionLostError(msg)

    @property
    def is_cluster(self) -> bool:
        """Whether keys are spread over nodes."""
        return self.first.info.get("cluster_enabled") == "1"

    @property
    def version(self) -> str:
        """Of the first node; Valkey's own, not that of the Redis which it is compatible with."""
        info = self.first.info
        return str(info.get("valkey_version") or info.get("redis_version") or "")

    @property
    def has_vectors(self) -> bool:
        """Whether every node has vector sets."""
        return all(frozenset(VECTOR_COMMANDS) <= node.known for node in self.nodes)

    @property
    def capabilities(self) -> list[str]:
        """What a provider's status lists; a failure that a platform team repairs is tried again when this changes."""
        found = {
            "valkey" if "valkey_version" in self.first.info else "redis",
            *(node.keeps for node in self.nodes if node.keeps),
        }
        if self.has_vectors:
            found.add("vector-sets")
        if self.is_cluster:
            found.add("cluster")
        if any(not node.primary for node in self.nodes):
            found.add("replicas")
        return sorted(found)

    def described(self) -> dict[str, object]:
        """Gives the `server` entry of a report."""
        return {"version": self.version, "capabilities": self.capabilities}

    def warnings(self) -> list[str]:
        """Gives sentences about what a platform team should know."""
        told = [
            f"{name} is away, as the server itself says: it gets its logins from maintenance once it is back"
            for name in self.away
        ]
        told += [
            f"{node.name} keeps its users nowhere: a restart loses them, and maintenance puts them back; set aclfile, "
            "or start it with a configuration file that it can write"
            for node in self.nodes
            if not node.keeps
        ]
        for node in self.primaries:
            policy = node.settings.get("maxmemory-policy", "noeviction")
            if policy != "noeviction":
                told.append(
                    f"{node.name} may remove data when its memory is full (maxmemory-policy {policy}): set noeviction"
                )
            if node.settings.get("appendonly") == "no" and not node.settings.get("save"):
                told.append(
                    f"{node.name} writes nothing to disk (appendonly no, save is empty): a restart loses all data"
                )
        return told

    def check(self) -> None:
        """Refuses a server that cannot have Memories, or whose admin may not do what is needed.

        Raises:
            CommandError: MODULE_UNSUPPORTED or PERMISSION_DENIED.
        """
        for node in self.nodes:
            version = str(node.info.get("redis_version", ""))
            if parsed(version) < OLDEST:
                msg = f"{node.name} is Redis {version}: Memories need Redis 7.0 or newer, or Valkey"
                raise CommandError(Code.MODULE_UNSUPPORTED, msg)
            if lacking := _lacking(self.admin, node, cluster=self.is_cluster):
                msg = (
                    f'the admin "{self.admin.username}" may not do on {node.name} what is needed: '
                    f"{', '.join(lacking)}; give it what docs/redis.md lists"
                )
                raise CommandError(Code.PERMISSION_DENIED, msg)

    def close(self) -> None:
        """Ends the connections."""
        for node in self.nodes:
            node.client.close()


def parsed(version: str) -> tuple[int, ...]:
    """Gives a version's numbers, `8.0.2-rc1` as (8, 0, 2)."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("-")[0])[:3])


def wait(admin: Admin, deadline: Deadline) -> Server:
    """Connects as soon as the server takes us.

    Raises:
        CommandError: PERMISSION_DENIED or BAD_REQUEST at once, UNREACHABLE at the deadline, with the last answer.
    """
    attempt = 0
    while True:
        try:
            return connect(admin)
        except CommandError as error:
            if error.code is not Code.UNREACHABLE or deadline.passed:
                raise
            log.write("waiting for the backend", attempt=attempt, why=error.message)
        deadline.pause(attempt)
        attempt += 1


@contextmanager
def connected(admin: Admin) -> Iterator[Server]:
    """Connects once, for commands that run again by themselves.

    Raises:
        CommandError: As `connect`.
    """
    server = connect(admin)
    try:
        yield server
    finally:
        server.close()


def connect(admin: Admin) -> Server:
    """Connects once to every node.

    Raises:
        CommandError: PERMISSION_DENIED, BAD_REQUEST or UNREACHABLE.
    """
    provider = admin.provider
    entrance = Node(admin.server, admin.client(provider.host, provider.port))
    server = Server(admin, [entrance])
    try:
        with _reaching(admin, entrance, "it is the provider's host"):
            _look(entrance)
            others = _members(server, entrance) if entrance.info.get("cluster_enabled") == "1" else _replicas(server)
        for node in others:
            server.nodes.append(node)
            with _reaching(admin, node, f"{entrance.name} names it, and it takes logins"):
                _look(node)
        _check_primaries(server)
    except BaseException:
        server.close()
        raise
    return server


def _check_primaries(server: Server) -> None:
    if not server.primaries:
        msg = f"{server.nodes[0].name} names no node that takes writes: {', '.join(server.away)} are away"
        raise CommandError(Code.UNREACHABLE, msg)


@contextmanager
def _reaching(admin: Admin, node: Node, why: str) -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        found = explained(error)
        if isinstance(found, ConnectionLostError):
            msg = f"cannot reach {node.name} ({why}): {found}"
            raise CommandError(Code.UNREACHABLE, msg) from None
        if isinstance(error, redis.AuthenticationError):
            msg = (
                f'{node.name} refuses the admin login "{admin.username}" of provider "{admin.provider.name}" '
                f"({found.message}): check the username and password in its adminSecret"
            )
            raise CommandError(Code.PERMISSION_DENIED, msg) from None
        if "DB index is out of range" in str(error) or "SELECT is not allowed" in str(error):
            msg = (
                f"{node.name} has no logical database {admin.provider.database} ({error}): write another one in the "
                "provider's redis.database; a cluster has only 0"
            )
            raise CommandError(Code.BAD_REQUEST, msg) from None
        raise CommandError(found.code, f"{node.name}: {found.message}") from None


def _look(node: Node) -> None:
    """Reads what a node is, in two round trips."""
    node.info = _lines(node.call("INFO"))
    names = sorted({*acl.WRITER, *VECTOR_COMMANDS})
    answers = node.each(
        [
            ["COMMAND", "INFO", *names],
            *(["CONFIG", "GET", name] for name in ("aclfile", "maxmemory-policy", "appendonly", "save")),
        ]
    )
    if isinstance(answers[0], redis.RedisError):
        raise answers[0]
    node.known = frozenset(str(each[0]).lower() for each in answers[0] if each)
    # An admin who may not ask has nothing here, and hears so from `check`.
    node.settings = {each[0]: each[1] for each in answers[1:] if isinstance(each, list) and each}
    if node.settings.get("aclfile"):
        node.keeps = "acl-file"
    elif node.settings and node.info.get("config_file"):
        node.keeps = "config-file"


def _lines(text: str) -> dict[str, Any]:
    """Reads what INFO gives, `name:value` a line."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))


def _replicas(server: Server) -> list[Node]:
    """Gives the replicas that the primary has, and notes those that are not with it.

    Raises:
        CommandError: UNREACHABLE when we are not at the primary.
    """
    info = server.nodes[0].info
    if info.get("role") != "master":
        primary = address(info.get("master_host", "?"), info.get("master_port", 0))
        msg = (
            f"{server.nodes[0].name} is a replica of {primary}: "
            "the provider's redis.host must name the primary, or a name that follows it"
        )
        raise CommandError(Code.UNREACHABLE, msg)
    found = []
    for name, value in info.items():
        if re.fullmatch(r"slave\d+", name):
            said = dict(part.split("=", 1) for part in value.split(","))
            where = address(said["ip"], int(said["port"]))
            if said["state"] != "online":
                server.away.append(where)
            else:
                found.append(Node(where, server.admin.client(said["ip"], int(said["port"])), primary=False))
    return found


def _members(server: Server, entrance: Node) -> list[Node]:
    """Gives the other nodes of a cluster, and sets what the entrance itself is."""
    found = []
    for line in entrance.call("CLUSTER", "NODES").splitlines():
        member = _Member.read(line)
        if member.is_self:
            entrance.primary, entrance.slots = member.primary, member.slots
        elif member.is_away:
            server.away.append(member.name)
        else:
            client = server.admin.client(member.host, member.port)
            found.append(Node(member.name, client, primary=member.primary, slots=member.slots))
    return found


@dataclass(frozen=True)
class _Member:
    """A line of CLUSTER NODES."""

    host: str
    port: int
    flags: frozenset[str]
    slots: tuple[range, ...]

    @classmethod
    def read(cls, line: str) -> "_Member":
        _, where, flags, *rest = line.split()
        # ip:port@busport[,hostname[,name=value…]]; with a hostname it is that which a certificate has.
        place, *named = where.split(",")
        ip, _, port = place.partition("@")[0].rpartition(":")
        hostname = named[0] if named and "=" not in named[0] else ""
        bounds = [part.split("-") for part in rest[5:] if not part.startswith("[")]
        slots = tuple(range(int(bound[0]), int(bound[-1]) + 1) for bound in bounds)
        return cls(hostname or ip, int(port), frozenset(flags.split(",")), slots)

    @property
    def name(self) -> str:
        return address(self.host, self.port)

    @property
    def is_self(self) -> bool:
        return "myself" in self.flags

    @property
    def primary(self) -> bool:
        return "master" in self.flags

    @property
    def is_away(self) -> bool:
        """Whether the cluster has given it up; one that is only suspected (`fail?`) must be reached."""
        return bool(self.flags & {"fail", "handshake", "noaddr"})


def _lacking(admin: Admin, node: Node, *, cluster: bool) -> list[str]:
    """Names the commands that the admin may not run on a node."""
    key, ledger = f"{admin.provider.key_prefix}:{{probe.000000000000}}:meta", ledger_of(admin.provider.key_prefix)
    wanted = [*NEEDED, *(NEEDED_IN_CLUSTER if cluster else ())]
    if frozenset(VECTOR_COMMANDS) <= node.known:
        wanted += NEEDED_FOR_VECTORS
    tried = [line.replace("KEY", key).replace("LEDGER", ledger).split() for line in wanted]
    answers = node.each([["ACL", "DRYRUN", admin.username, *words] for words in tried])
    # A user who may not ask may have been given all the rest, and nobody would know.
    return [line for line, answer in zip(wanted, answers, strict=True) if answer != "OK"]
