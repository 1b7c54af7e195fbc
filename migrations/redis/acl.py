"""What a login may do: explicit commands, for categories differ between versions, on the keys of one Memory.

Never a command that sees or touches what is not under the prefix: KEYS, SCAN, RANDOMKEY, DBSIZE, CONFIG, scripting and
functions (a script sees the server's state), FT.* (an index reads every prefix), PUBSUB, MONITOR, CLIENT LIST and
TRACKING (they name keys of others), CLUSTER GETKEYSINSLOT, SORT and MIGRATE.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from migrations.redis.names import Home

CONNECTION = (
    *("ping", "echo", "hello", "auth", "quit", "reset", "select", "time", "command"),
    *("client|setname", "client|getname", "client|setinfo", "client|id", "acl|whoami"),
    *("readonly", "readwrite", "asking"),
    *("cluster|slots", "cluster|shards", "cluster|nodes", "cluster|info", "cluster|myid", "cluster|keyslot"),
    *("multi", "exec", "discard", "watch", "unwatch"),
    *("subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe"),
)
READING = (
    *("exists", "type", "ttl", "pttl", "expiretime", "pexpiretime", "get", "mget"),
    *("hget", "hmget", "hgetall", "hexists", "hlen"),
    *("xrange", "xrevrange", "xread", "xlen", "xinfo|stream"),
    *("zscore", "zmscore", "zcard", "zcount", "zrange", "zrangebyscore"),
    *("smembers", "sismember", "smismember", "scard"),
    *("vsim", "vcard", "vdim", "vinfo", "vemb", "vgetattr", "vismember", "vlinks", "vrandmember", "vrange"),
)
WRITING = (
    *("publish", "spublish"),
    *("set", "del", "unlink", "expire", "pexpire", "expireat", "pexpireat", "persist"),
    *("hset", "hsetnx", "hdel", "hincrby", "xadd", "xdel"),
    *("zadd", "zrem", "sadd", "srem", "vadd", "vrem", "vsetattr"),
)
# How the words begin of a login that is another home's.
TAKEN = "is that of the home"
_PREFIX = re.compile(r"^(?:%R)?~([^{}*?\[\]]+:\{[^{}*?\[\]]+\}:)")
# What a sentence names of keys or commands that differ.
SHOWN = 3
READER = (*CONNECTION, *READING)
WRITER = (*CONNECTION, *READING, *WRITING)


@dataclass(frozen=True)
class Rights:
    """What a login can do; `verifiers` are SHA-256 in hexadecimal."""

    enabled: bool
    verifiers: frozenset[str]
    keys: frozenset[str]
    channels: frozenset[str]
    commands: frozenset[str]
    # Whatever else there is: nopass, selectors, commands that are taken in by a category that has all.
    more: frozenset[str] = frozenset()

    def rules(self) -> list[str]:
        """Gives the arguments of ACL SETUSER: one command, so that there is no moment with other rights."""
        state = "on" if self.enabled else "off"
        passwords = sorted(f"#{verifier}" for verifier in self.verifiers)
        # Where acl-pubsub-default is allchannels, `reset` alone opens every channel.
        return [
            *("reset", "resetchannels", state, *passwords),
            *sorted(self.keys),
            *sorted(self.channels),
            *sorted(f"+{command}" for command in self.commands),
        ]


CLOSED = Rights(enabled=False, verifiers=frozenset(), keys=frozenset(), channels=frozenset(), commands=frozenset())


def rights(home: Home, verifier: str, known: Iterable[str], *, writer: bool) -> Rights:
    """Gives what a login is to be able to do.

    Args:
        home: Where.
        verifier: `#` and 64 hexadecimal digits.
        known: The commands that the node knows, as `server.Node.known`.
        writer: Whether it may write; one of a Memory on legal hold may not.
    """
    access = "~" if writer else "%R~"
    entries = (home.events, f"{home.event_ids}*", f"{home.kv}*", home.kv_times)
    patterns = (*entries, home.vector_times, home.vector_keys("*"))
    return Rights(
        enabled=True,
        verifiers=frozenset({verifier.removeprefix("#")}),
        # Redis takes every command of vector sets for one that writes: a reader's keys cannot say otherwise, so it is
        # the commands alone that keep it from writing.
        keys=frozenset({*(access + pattern for pattern in patterns), f"~{home.vectors}", f"%R~{home.meta}"}),
        channels=frozenset({f"&{home.prefix}*"}),
        commands=frozenset(WRITER if writer else READER) & frozenset(known),
    )


def parse(answer: Any, category: Callable[[str], Sequence[str]]) -> Rights | None:
    """Reads what ACL GETUSER says.

    Args:
        answer: As the server gave it: names and values in turn, None of a user that is not there.
        category: Gives the commands of a category: Redis 7.0 writes `+@transaction -unwatch` for what was said one by
            one.
    """
    if not answer:
        return None
    said = dict(zip(answer[::2], answer[1::2], strict=True))
    commands, more = _commands(said["commands"].split(), category)
    # Payloads are sanitized for everybody who is not exempt, so it says nothing of a user.
    more |= {flag for flag in said["flags"] if flag not in {"on", "off", "sanitize-payload"}}
    more |= {f"({' '.join(selector[1::2]).strip()})" for selector in said.get("selectors", [])}
    return Rights(
        enabled="on" in said["flags"],
        verifiers=frozenset(said["passwords"]),
        keys=frozenset(said["keys"].split()),
        channels=frozenset(said["channels"].split()),
        commands=frozenset(commands),
        more=frozenset(more),
    )


def _commands(rules: Sequence[str], category: Callable[[str], Sequence[str]]) -> tuple[set[str], set[str]]:
    """Gives the commands that rules come to, and the rules that make it more than a list of commands."""
    commands: set[str] = set()
    more: set[str] = set()
    for rule in rules:
        sign, name = rule[0], rule[1:]
        if name == "@all":
            commands, more = set(), {rule} if sign == "+" else set()
            continue
        named = category(name[1:]) if name.startswith("@") else [name]
        if sign == "-" and name.partition("|")[0] in commands - {name}:
            more.add(rule)
        commands = commands | set(named) if sign == "+" else commands - set(named)
    # Who has a command has its subcommands, which a category names one by one.
    return {each for each in commands if "|" not in each or each.partition("|")[0] not in commands}, more


def owner_of(found: Rights | None) -> str:
    """Gives the prefix that a user's keys are under, "" when they are not those of one Memory."""
    prefixes = {each[0] if (each := _PREFIX.findall(key)) else "" for key in found.keys} if found else set()
    return prefixes.pop() if len(prefixes) == 1 else ""


def differences(home: Home, wanted: Mapping[str, Rights], found: Mapping[str, Rights | None]) -> dict[str, str]:
    """Says in words, for each login that is not as it should be, what differs."""
    told = {}
    for login, right in wanted.items():
        there = found.get(login)
        owner = owner_of(there)
        # Names are those of an identity in a logical database: a server with two key prefixes can have it twice.
        ours = owner in {"", home.prefix}
        if words := _difference(right, there) if ours else f"{TAKEN} {owner}" * right.enabled:
            told[login] = words
    return told


def _difference(wanted: Rights, found: Rights | None) -> str:
    if found is None:
        return "is missing" if wanted.enabled else ""
    if not wanted.enabled:
        return "is open" if found.enabled or found.more - {"+@all"} else ""
    parts = []
    if not found.enabled:
        parts.append("is off")
    if found.verifiers != wanted.verifiers:
        parts.append("has another password")
    for field, shown in (("keys", "keys "), ("channels", "channels "), ("commands", "commands "), ("more", "")):
        has, wants = getattr(found, field), getattr(wanted, field)
        parts += [f"has {shown}{_some(has - wants)}"] if has - wants else []
        parts += [f"lacks {shown}{_some(wants - has)}"] if wants - has else []
    return ", ".join(parts)


def _some(names: Iterable[str]) -> str:
    """Names a few, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return " ".join(ordered[:SHOWN]) + more
