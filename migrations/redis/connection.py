"""Connecting as the admin, waiting for a server that is not there yet, and what its refusals mean to us."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from migrations.errors import Code, CommandError
from migrations.redis.request import Provider
from migrations.request import read_file

# Its commands give Any: redis-py's own types leave open whether a client is asynchronous.
Client = Any

CONNECT_SECONDS = 10.0
# ACL SAVE writes a file with every user of the server, and a long XTRIM frees much.
ANSWER_SECONDS = 60.0

# It may pass by itself: a failover, a restart, slots on their way to another node, a disk that is full.
_PASSES = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.AskError,
    redis.exceptions.TryAgainError,
)
_PASSES_WORDS = ("MISCONF", "NOREPLICAS", "LOADING", "BUSY")
# After these words a message may quote what was sent.
_QUOTING = re.compile(r",? with args beginning with.*")


class ConnectionLostError(Exception):
    """The connection broke in the middle, or the lock is not ours any more; everything is idempotent: begin again."""


@dataclass(frozen=True)
class Admin:
    """The provider's admin login and how its server proves itself."""

    provider: Provider
    username: str
    password: str = field(repr=False)
    ca: Path | None

    @classmethod
    def load(cls, provider: Provider, directory: Path) -> "Admin":
        """Reads the admin's Secret from the mounted folder.

        Raises:
            CommandError: BAD_REQUEST when a file is missing.
        """
        ca = directory / "tls" / "ca.crt"
        return cls(
            provider=provider,
            username=read_file(directory / "admin" / "username").strip(),
            password=read_file(directory / "admin" / "password").rstrip("\r\n"),
            ca=ca if ca.exists() else None,
        )

    @property
    def server(self) -> str:
        """The server as a person writes it."""
        return address(self.provider.host, self.provider.port)

    def client(self, host: str, port: int) -> Client:
        """Gives a client of one node, which connects with its first command; nothing is tried twice behind our back."""
        tls: dict[str, Any] = {}
        if self.provider.tls:
            # Without a CA of the provider's it is what this system trusts.
            tls = {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
            tls |= {"ssl_ca_certs": str(self.ca)} if self.ca else {}
        client = redis.Redis(
            host=host,
            port=port,
            username=self.username,
            password=self.password,
            db=self.provider.database,
            client_name="memory-migrations",
            protocol=2,
            decode_responses=True,
            # A key may be any bytes; one that is no text is nobody's of ours.
            encoding_errors="surrogateescape",
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            **tls,
        )
        # Answers as the protocol has them: redis-py gives some in shapes that differ between its releases.
        client.response_callbacks.clear()
        return client


def address(host: str, port: int) -> str:
    """Writes a server as a person does, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def explained(error: redis.RedisError) -> CommandError | ConnectionLostError:
    """Turns the server's refusal into ours. What it quotes of a command is left out: that can be a verifier."""
    words = _QUOTING.sub("", " ".join(str(error).split())) or type(error).__name__
    if isinstance(error, redis.AuthenticationError):
        return CommandError(Code.PERMISSION_DENIED, words)
    if isinstance(error, redis.exceptions.NoPermissionError):
        msg = f"{words}: give the admin what docs/redis.md lists"
        return CommandError(Code.PERMISSION_DENIED, msg)
    if isinstance(error, _PASSES) or words.startswith(_PASSES_WORDS):
        return ConnectionLostError(words)
    return CommandError(Code.JOB_FAILED, f"the server refused a command: {words}")


def ended(error: CommandError | ConnectionLostError) -> CommandError:
    """Gives a broken connection as the end of a run, for commands that run again by themselves."""
    if isinstance(error, CommandError):
        return error
    return CommandError(Code.UNREACHABLE, f"the connection broke, and the next run begins again: {error}")


@contextmanager
def explaining() -> Iterator[None]:
    """Raises what the server refuses as our own errors."""
    try:
        yield
    except redis.RedisError as error:
        raise explained(error) from None
