"""Talks to the one node that has a Memory's keys: the server, the primary of a replica pair, or one of a cluster.

All keys of a Memory are in one slot, so a cluster needs no more than to be asked which node has it. Commands are sent
as they stand in docs/redis.md, several at once where one does not need the other's answer.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, SSLConnection
from redis.crc import key_slot
from redis.retry import Retry

from memory_client.binding import Binding
from memory_client.errors import AccessDenied, MemoryClientError, Unavailable

T = TypeVar("T")
Command: TypeAlias = Sequence[object]
Address: TypeAlias = tuple[str, int]

# The server did nothing, and will once a failover, a start or a move of slots is over.
NOT_NOW = (
    exceptions.MovedError,
    exceptions.AskError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.ReadOnlyError,
    exceptions.BusyLoadingError,
)
BROKEN = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)
# A server that takes no writes: its memory or its disk is full, or too few replicas are there.
FULL = ("MISCONF", "NOREPLICAS")
# How long a server that refuses connections may take to come back under the same name, in seconds.
GONE = 2.0
# Seconds between two tries: doubled each time, up to the longest, which is shorter after a lost race.
PAUSE = 0.0005
LONGEST_PAUSE = 0.5
LONGEST_RACE = 0.02


class Lost(Exception):  # noqa: N818  nobody but this package sees it
    """Another writer was faster: read again and decide anew."""


class _Again(Exception):  # noqa: N818
    """Nothing was done, or nothing that must not be done twice; `promising` when the server itself says: later."""

    def __init__(self, reason: Exception, *, promising: bool) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.promising = promising


class Session:
    """One connection, for as long as a piece of work takes."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._watching = False
        self.sent = False

    def ask(self, *commands: Command) -> list[Any]:
        """Sends commands at once and gives their answers.

        Raises:
            ResponseError: The first of the answers that is one.
        """
        return _without_errors(self.answers(commands))

    def watch(self, key: str, *commands: Command) -> list[Any]:
        """Does the same once the server watches a key for the transaction that follows."""
        self._watching = True
        return self.ask(["WATCH", key], *commands)[1:]

    def transaction(self, *commands: Command) -> list[Any]:
        """Does commands together, unless the key that is watched has changed. Answers may be errors.

        Raises:
            Lost: It has.
        """
        self._watching = False
        *queued, done = self.answers([["MULTI"], *commands, ["EXEC"]])
        _without_errors([*queued, done])
        if done is None:
            raise Lost
        return list(done)

    def answers(self, commands: Sequence[Command]) -> list[Any]:
        """Gives the answers to commands, errors among them."""
        try:
            packed = self._connection.pack_commands(commands)
            self.sent = True
            self._connection.send_packed_command(packed, check_health=False)
            return [self._answer() for _ in commands]
        except BaseException:
            # Answers that nobody has read would be taken for those of the next command.
            self._connection.disconnect()
            raise

    def end(self) -> None:
        """Leaves the connection as the next piece of work expects it."""
        if self._watching and self._connection.is_connected:
            self._watching = False
            try:
                self.answers([["UNWATCH"]])
            except BROKEN:
                return  # and nothing is watched

    def _answer(self) -> Any:
        try:
            return self._connection.read_response(disable_decoding=True)
        except exceptions.ResponseError as error:
            return error


class Server:
    """A server and one login, for many threads."""

    def __init__(self, binding: Binding, *, timeout: float, connections: int) -> None:
        self._binding = binding
        self._timeout = timeout
        self._connections = connections
        self._seed: Address = (binding.host, binding.port)
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(connections)
        self._pools: dict[Address, ConnectionPool] = {}
        self._owner: Address | None = None
        self._others: list[Address] = []

    def run(self, work: Callable[[Session], T], *, repeatable: bool) -> T:
        """Does a piece of work, again when nothing of it was done or when doing it twice does no harm.

        Raises:
            Unavailable: It was not done within the timeout.
            AccessDenied: The server refuses the login, or a command.
        """
        started = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            waited = time.monotonic() - started
            try:
                return self._once(work, repeatable=repeatable)
            except _Again as again:
                # A cluster whose node is gone elects another one; a single server has to come back itself.
                if waited >= (self._timeout if again.promising or self._others else min(GONE, self._timeout)):
                    raise self._away(again.reason) from again.reason
                longest = LONGEST_PAUSE
            except Lost:
                if waited >= self._timeout:
                    msg = f"{self._binding.endpoint}: other writers were always faster, for {self._timeout:g} s"
                    raise Unavailable(msg) from None
                longest = LONGEST_RACE
            # At random, so that those who lost a race do not all meet again.
            time.sleep(random.uniform(0, min(PAUSE * 2 ** min(attempt, 12), longest)))  # noqa: S311

    def close(self) -> None:
        """Closes all connections."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.disconnect()

    def _once(self, work: Callable[[Session], T], *, repeatable: bool) -> T:
        sent = False
        try:
            with self._session(self._owner or self._find()) as session:
                try:
                    return work(session)
                finally:
                    sent = session.sent
        except NOT_NOW as error:
            self._lose(error)
            raise _Again(error, promising=True) from error
        except (exceptions.AuthenticationError, exceptions.NoPermissionError) as error:
            msg = f"{self._binding.endpoint} refuses {self._binding.username}: {error}"
            raise AccessDenied(msg) from error
        except BROKEN as error:
            self._lose(error)
            if sent and not repeatable:
                raise self._away(error) from error
            raise _Again(error, promising=False) from error
        except exceptions.ResponseError as error:
            raise self._translated(error) from error

    @contextmanager
    def _session(self, address: Address) -> Iterator[Session]:
        """Lends a connection to a node."""
        if not self._slots.acquire(timeout=self._timeout):
            msg = (
                f"all {self._connections} connections were in use for {self._timeout:g} s: "
                "make fewer calls at once, or give more `connections`"
            )
            raise Unavailable(msg)
        try:
            pool = self._pool(address)
            connection: Any = pool.get_connection()
            session = Session(connection)
            try:
                yield session
            finally:
                session.end()
                pool.release(connection)
        finally:
            self._slots.release()

    def _find(self) -> Address:
        """Asks any node of a cluster which one has our slot; a server that is none has all keys itself."""
        problem: Exception = exceptions.ConnectionError("no node answers")
        for address in [*self._others, self._seed]:
            try:
                with self._session(address) as session:
                    [slots] = session.answers([["CLUSTER", "SLOTS"]])
            except (*NOT_NOW, exceptions.AuthenticationError):
                raise
            except BROKEN as error:
                problem = error
                continue
            if isinstance(slots, list):
                return self._settle(slots, address)
            self._owner, self._others = address, []
            return address
        raise problem

    def _settle(self, slots: list[Any], asked: Address) -> Address:
        wanted = key_slot(self._binding.schema.encode())
        nodes: list[Address] = []
        owner: Address | None = None
        for first, last, *owners in slots:
            there = [(host.decode() if host else asked[0], int(port)) for host, port, *_ in owners]
            nodes.extend(there)
            if first <= wanted <= last:
                owner = there[0]
        if owner is None:
            msg = f"no node has slot {wanted}"
            raise exceptions.ClusterDownError(msg)
        self._owner, self._others = owner, list(dict.fromkeys(nodes))
        return owner

    def _lose(self, error: Exception) -> None:
        """Forgets which node has our slot; one that has lost it says itself which has it."""
        moved = isinstance(error, exceptions.MovedError)
        with self._lock:
            lost, self._owner = self._owner, None
            if isinstance(error, exceptions.MovedError):
                self._owner = (error.host or self._seed[0], error.port)
            elif lost in self._others:
                # Asked last, because it may go on not to answer for a while.
                self._others = [*(each for each in self._others if each != lost), lost]
            pool = None if moved or lost is None else self._pools.pop(lost, None)
        if pool is not None:
            # A name may lead elsewhere by now: every connection is made anew.
            pool.disconnect(inuse_connections=False)

    def _pool(self, address: Address) -> ConnectionPool:
        with self._lock:
            if address not in self._pools:
                self._pools[address] = self._new_pool(address)
            return self._pools[address]

    def _new_pool(self, address: Address) -> ConnectionPool:
        binding = self._binding
        secure: dict[str, Any] = {"connection_class": Connection}
        if binding.uri.startswith("rediss:") or binding.ca:
            secure = {
                "connection_class": SSLConnection,
                "ssl_ca_data": binding.ca,
                "ssl_cert_reqs": "required",
                "ssl_check_hostname": True,
            }
        host, port = address
        return ConnectionPool(
            host=host,
            port=port,
            db=int(binding.database),
            username=binding.username,
            password=binding.password,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            socket_keepalive=True,
            protocol=2,
            # A command that was sent may have been done: whether it is sent again is decided above, by who knows.
            retry=Retry(NoBackoff(), 0),
            **secure,
        )

    def _away(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self._binding.endpoint} does not answer: {error}")

    def _translated(self, error: exceptions.ResponseError) -> MemoryClientError:
        text = str(error)
        if isinstance(error, exceptions.OutOfMemoryError) or text.startswith(FULL):
            return Unavailable(f"{self._binding.endpoint} takes no writes now: {text}")
        return MemoryClientError(f"{self._binding.endpoint} answered: {text}")


def _without_errors(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
