"""The ledger: a hash with a document for each home, and a lock for each, in one slot, out of every app's reach."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import redis

from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.homes import entry as entries
from migrations.homes.entry import Entry
from migrations.redis.connection import Client, ConnectionLostError
from migrations.redis.names import ledger_of, lock_of
from migrations.redis.server import Server

# A killed run's lock frees itself after this long; one that lives renews it in time.
LOCK_SECONDS = 3.0
RENEW_SECONDS = 0.5
POLL_SECONDS = 0.05


@dataclass
class Held:
    """The lock of one home while we have it.

    Attributes:
        name: Its key.
        token: What only this run knows.
        ended: Set when we are done with it.
        lost: Set when somebody else may have it.
    """

    client: Client
    name: str
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    ended: threading.Event = field(default_factory=threading.Event)
    lost: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Ends a run that was stopped for so long that others are at work by now.

        Raises:
            ConnectionLostError: The lock is not ours any more.
        """
        if self.lost.is_set():
            raise ConnectionLostError(_LOST)

    def take(self) -> bool:
        """Takes the lock, or gives False when somebody has it."""
        return bool(self.client.set(self.name, self.token, nx=True, px=int(LOCK_SECONDS * 1000)))

    def renew(self) -> None:
        """Keeps it, from a thread of its own, until we are done or have lost it."""
        while not self.ended.wait(RENEW_SECONDS):
            try:
                self.change([("PEXPIRE", self.name, int(LOCK_SECONDS * 1000))])
            except (redis.RedisError, ConnectionLostError):
                self.lost.set()
                return

    def release(self) -> None:
        """Frees it; where that fails it frees itself."""
        self.ended.set()
        with suppress(redis.RedisError, ConnectionLostError):
            self.change([("DEL", self.name)])

    def change(self, commands: list[tuple[str | int, ...]]) -> None:
        """Sends commands to the ledger's slot in one transaction, which does nothing unless the lock is ours.

        Raises:
            ConnectionLostError: It is not.
        """
        while True:
            with self.client.pipeline() as pipe:
                pipe.watch(self.name)
                if pipe.execute_command("GET", self.name) != self.token:
                    raise ConnectionLostError(_LOST)
                pipe.multi()
                for words in commands:
                    pipe.execute_command(*words)
                try:
                    pipe.execute()
                except redis.WatchError:
                    continue  # A renewal counts as a change of the lock: look again whose it is.
                return


_LOST = "the lock of the home is not ours any more"


@dataclass
class Ledger:
    """The ledger of one server and key prefix."""

    server: Server
    key_prefix: str

    @property
    def name(self) -> str:
        """Its key."""
        return ledger_of(self.key_prefix)

    @property
    def _client(self) -> Client:
        return self.server.at(self.name).client

    def get(self, key: str) -> Entry | None:
        """Reads one entry.

        Raises:
            CommandError: CHECKSUM_MISMATCH when it cannot be read.
        """
        text = self._client.execute_command("HGET", self.name, key)
        return entries.read(text, f"{self.name} {key}") if text else None

    def all(self) -> list[Entry]:
        """Reads all of it.

        Raises:
            CommandError: CHECKSUM_MISMATCH when one cannot be read.
        """
        pairs = self._client.execute_command("HGETALL", self.name)
        found = dict(zip(pairs[::2], pairs[1::2], strict=True))
        return [entries.read(found[key], f"{self.name} {key}") for key in sorted(found)]

    def save(self, entry: Entry, held: Held) -> None:
        """Writes an entry, as long as its lock is ours."""
        held.change([("HSET", self.name, entry.key, entry.to_json())])

    def remove(self, entry: Entry, held: Held) -> None:
        """Removes an entry, as long as its lock is ours."""
        held.change([("HDEL", self.name, entry.key)])

    @contextmanager
    def locked(self, key: str, deadline: Deadline) -> Iterator[Held]:
        """Keeps others from a home.

        Raises:
            CommandError: LOCK_BUSY when somebody else has it until the deadline.
        """
        held = Held(self._client, lock_of(self.key_prefix, key))
        attempt = 0
        while not held.take():
            if deadline.passed:
                msg = (
                    f"another run holds {held.name} for the whole wait: look for a client named memory-migrations in "
                    "CLIENT LIST, and end it if nobody waits for it"
                )
                raise CommandError(Code.LOCK_BUSY, msg)
            deadline.pause(min(attempt, 3), POLL_SECONDS)
            attempt += 1
        keeper = threading.Thread(target=held.renew, daemon=True)
        keeper.start()
        try:
            yield held
        finally:
            held.release()
            keeper.join()
