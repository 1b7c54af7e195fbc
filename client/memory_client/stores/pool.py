"""Connections to PostgreSQL that are used again.

psycopg_pool connects in a thread of its own and tries again by itself: a caller whose login is refused hears of it only
when its patience ends. Here whoever needs a connection makes it, and sees at once what the server says.
"""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg
from psycopg.pq import TransactionStatus

from memory_client.errors import Unavailable

# An unused connection is one that the server could give to another pod.
MAX_IDLE = 300.0


Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]


class Pool:
    """At most `size` connections; the one that was used last is used next, and what nobody needs is closed."""

    def __init__(self, connect: Callable[[], Connection], *, size: int, timeout: float) -> None:
        self._connect = connect
        self._size = size
        self._timeout = timeout
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._slots = threading.BoundedSemaphore(self._size)
        self._lock = threading.Lock()
        self._idle: deque[tuple[float, Connection]] = deque()
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lends a connection; one that comes back broken, or in the middle of something, is closed.

        Raises:
            Unavailable: All are in use, and stayed so for the pool's timeout.
        """
        if self._process != os.getpid():
            self._inherited = self._idle  # the parent's: to close them here would end them there as well
            self._reset()
        slots = self._slots
        if not slots.acquire(timeout=self._timeout):
            msg = (
                f"all {self._size} connections were in use for {self._timeout:g} s: "
                "make fewer calls at once, or give more `connections`"
            )
            raise Unavailable(msg)
        try:
            connection = self._take() or self._connect()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            slots.release()

    def close(self) -> None:
        """Closes what is not in use now, and what is when it comes back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, deque()
        if self._process == os.getpid():
            for _, connection in idle:
                connection.close()

    def _take(self) -> Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                _, connection = self._idle.pop()
            # An unused connection is sent nothing but its end: whatever there is to read, it is of no more use.
            if not _readable(connection):
                return connection
            connection.close()

    def _give_back(self, connection: Connection) -> None:
        now = time.monotonic()
        stale: list[Connection] = []
        with self._lock:
            if _usable(connection) and not self._closed:
                self._idle.append((now, connection))
            else:
                stale.append(connection)
            while self._idle and now - self._idle[0][0] > MAX_IDLE:
                stale.append(self._idle.popleft()[1])
        for each in stale:
            each.close()


def _usable(connection: Connection) -> bool:
    return not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE


def _readable(connection: Connection) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
