"""The file of the offline queue: SQLite, so that what a call returned for survives whatever becomes of the process."""

import dataclasses
import fcntl
import json
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memory_client.types import Json

SCHEMA = """
CREATE TABLE IF NOT EXISTS writes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,     -- key, or type of the event
    body TEXT NOT NULL,     -- JSON: payload, value, or embeddings
    source TEXT,            -- events
    event_id TEXT,
    expected INTEGER,       -- puts and deletes: the version that the caller expects
    base INTEGER,           -- puts: the version on which it was sent, so it may have been done
    promised INTEGER,       -- puts: the version that the caller was told
    ttl REAL,
    at REAL NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS writes_event ON writes (source, event_id) WHERE kind = 'append';
CREATE INDEX IF NOT EXISTS writes_name ON writes (name, seq) WHERE kind IN ('put', 'delete');
CREATE TABLE IF NOT EXISTS settled_otherwise (
    seq INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    body TEXT NOT NULL,
    expected INTEGER,
    theirs TEXT,            -- JSON, null when the key had no value
    version INTEGER,        -- null when it was no conflict but refused
    reason TEXT NOT NULL,
    at REAL NOT NULL
);
"""
# A value that is written whatever there is gets a version that nobody knows yet: it is called so, from here on.
PROVISIONAL = 1 << 62
COLUMNS = "seq, kind, name, body, source, event_id, expected, base, promised, ttl, at"
# Seconds that a process waits for another one's transaction on the file.
PATIENCE = 60.0


@dataclass(frozen=True)
class Write:
    """A write that is kept; see the table's columns."""

    seq: int
    kind: str
    name: str
    body: str
    source: str | None = None
    event_id: str | None = None
    expected: int | None = None
    base: int | None = None
    promised: int | None = None
    ttl: float | None = None
    at: float = 0.0

    @property
    def value(self) -> Json:
        """What is to be stored."""
        return json.loads(self.body)

    @property
    def ttl_left(self) -> float | None:
        """How long it still lives: what has passed while it was kept counts."""
        return None if self.ttl is None else max(0.001, self.ttl - (time.time() - self.at))


@dataclass(frozen=True)
class Kept:
    """A write that was not done.

    Attributes:
        seq: Its number in the file.
        kind: "append", "put", "delete", "upsert" or "delete_embedding".
        key: Its key, or the type of the event.
        mine: What it was to store; None for a delete.
        expected_version: What its caller expected, None for any version.
        theirs: The value that the key had instead; None when there was none.
        stored_version: The version of that, 0 when there was none; None when it was no conflict, but refused.
        reason: Why it was not done.
    """

    seq: int
    kind: str
    key: str
    mine: Json
    expected_version: int | None
    theirs: Json
    stored_version: int | None
    reason: str


class Journal:
    """One file, which several threads and processes may have open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        import sqlite3  # noqa: PLC0415  an image that has no SQLite can have no queue, and all else

        self._connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        with self._locked("opening"):  # of two that make the file at once one would find it busy
            self._connection.execute("PRAGMA journal_mode = WAL")
            # FULL: a commit is on the disk before the call that asked for it returns.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(SCHEMA)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def add(self, write: Write) -> Write | None:
        """Keeps a write; None for an event that is kept already."""
        with self._transaction():
            promised = write.promised
            if write.kind == "put" and promised is None:
                last = self.last(write.name)
                promised = last.promised + 1 if last and last.promised else PROVISIONAL
            found = self._connection.execute(
                f"INSERT INTO writes ({COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  our own names
                f" ON CONFLICT DO NOTHING RETURNING {COLUMNS}",
                [*dataclasses.astuple(write)[1:8], promised, write.ttl, write.at],
            ).fetchall()
        return Write(*found[0]) if found else None

    def count(self) -> int:
        """Gives how many are kept."""
        return int(self._rows("SELECT count(*) FROM writes")[0][0])

    def empty(self) -> bool:
        """Whether none is kept."""
        return not self._rows("SELECT 1 FROM writes LIMIT 1")

    def numbers(self, limit: int) -> list[int]:
        """Gives the numbers of the first ones."""
        return [row[0] for row in self._rows("SELECT seq FROM writes ORDER BY seq LIMIT ?", limit)]

    def get(self, seq: int) -> Write:
        """Gives a write as it is now."""
        return Write(*self._rows(f"SELECT {COLUMNS} FROM writes WHERE seq = ?", seq)[0])  # noqa: S608

    def last(self, key: str) -> Write | None:
        """Gives the last write that is kept of a key."""
        rows = self._rows(
            f"SELECT {COLUMNS} FROM writes WHERE kind IN ('put', 'delete') AND name = ? ORDER BY seq DESC LIMIT 1",  # noqa: S608
            key,
        )
        return Write(*rows[0]) if rows else None

    def send(self, seq: int, body: str, *, expected: int | None, base: int) -> None:
        """Notes, before it is sent, on which version a value is to be written."""
        self._rows("UPDATE writes SET body = ?, expected = ?, base = ? WHERE seq = ?", body, expected, base, seq)

    def done(self, sequence: list[int]) -> None:
        """Forgets writes that were done."""
        with self._transaction():
            self._connection.executemany("DELETE FROM writes WHERE seq = ?", [(seq,) for seq in sequence])

    def put_done(self, write: Write, version: int) -> None:
        """Forgets a put that was done, and has those that were to follow it follow what it became."""
        with self._transaction():
            self._rows("DELETE FROM writes WHERE seq = ?", write.seq)
            self._rows(
                "UPDATE writes SET expected = ? WHERE name = ? AND kind IN ('put', 'delete') AND expected = ?"
                " AND base IS NULL",
                version,
                write.name,
                write.promised,
            )

    def put_aside(self, write: Write, reason: str, theirs: Json = None, version: int | None = None) -> None:
        """Keeps a write apart that was not done, for somebody to decide."""
        with self._transaction():
            self._rows(
                "INSERT INTO settled_otherwise VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                write.seq,
                write.kind,
                write.name,
                write.body,
                write.expected,
                json.dumps(theirs) if version else None,
                version,
                reason,
                time.time(),
            )
            self._rows("DELETE FROM writes WHERE seq = ?", write.seq)

    def aside(self, *, conflicts: bool) -> list[Kept]:
        """Gives what was kept apart: conflicts, or what was refused for another reason."""
        rows = self._rows(
            "SELECT seq, kind, name, body, expected, theirs, version, reason FROM settled_otherwise"
            " WHERE (version IS NOT NULL) = ? ORDER BY seq",
            conflicts,
        )
        return [
            Kept(seq, kind, name, json.loads(body), expected, json.loads(theirs or "null"), version, reason)
            for seq, kind, name, body, expected, theirs, version, reason in rows
        ]

    def forget(self, seq: int) -> None:
        """Forgets what was kept apart."""
        self._rows("DELETE FROM settled_otherwise WHERE seq = ?", seq)

    def alone(self, *, wait: bool = True) -> AbstractContextManager[bool]:
        """Lets one thread of one process send; False when another one is at it, and `wait` is not wanted."""
        return self._locked("sending", wait=wait)

    @contextmanager
    def _locked(self, what: str, *, wait: bool = True) -> Iterator[bool]:
        """Holds a lock that ends with the process, however that ends."""
        with self._path.with_name(f"{self._path.name}.{what}").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def _rows(self, statement: str, *parameters: Any) -> list[Any]:
        with self._lock:
            return self._connection.execute(statement, parameters).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
