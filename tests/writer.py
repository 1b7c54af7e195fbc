"""An app that writes 200 times a second and does what docs/api.md asks of apps: refused, it reads its Secret again.

Run with the directory of a binding, as a process of its own or in a pod that has nothing but Python, psycopg and this
text. It says `writing` with its first row, ends on SIGTERM, and then prints what it saw as one line of JSON:

    written     how many events it appended: numbers 0 to written - 1, each under an id of its own
    seconds     how long that took
    slowest     seconds that a write took at worst, from its first try to its last
    refused     how often a connection was refused, ended sessions by SQLSTATE, writes that were tried again
    logins      user names in the order in which it connected
"""

import json
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psycopg

RATE = 200
PAUSE = 0.05


class Writer:
    """One connection at a time, and a counter."""

    def __init__(self, binding: Path) -> None:
        self._binding = binding
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        self._stopped = threading.Event()
        self.refused: Counter[str] = Counter()
        self.logins: list[str] = []
        signal.signal(signal.SIGTERM, lambda *_: self._stopped.set())

    def run(self) -> None:
        """Write until told to stop, then say what was seen."""
        begin, number, slowest = time.monotonic(), 0, 0.0
        while not self._stopped.is_set():
            due = begin + number / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            begun = time.monotonic()
            self._append(number)
            slowest = max(slowest, time.monotonic() - begun)
            if number == 0:
                print("writing", flush=True)
            number += 1
        seen = {"written": number, "seconds": time.monotonic() - begin, "slowest": slowest}
        print(json.dumps({**seen, "refused": self.refused, "logins": self.logins}), flush=True)

    def _append(self, number: int) -> None:
        """Append one event; its id makes a second try harmless, when nobody knows what became of the first."""
        while True:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                self._connection.execute(
                    "SELECT memory_append(%s, 'tick', %s::text::jsonb, %s)",
                    [self._value("dataset"), json.dumps({"number": number}), f"tick-{number}"],
                )
            except psycopg.OperationalError as error:
                refused = self._connection is None
                self.refused["connecting" if refused else error.sqlstate or "connection lost"] += 1
                self._connection = None
                time.sleep(PAUSE if refused else 0)
            else:
                return

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        host, port = self._value("endpoint").rsplit(":", 1)
        ca = self._binding / "ca.crt"
        user, password = self._value("username"), self._value("password")
        made = psycopg.connect(
            host=host.strip("[]"),
            port=port,
            dbname=self._value("database"),
            user=user,
            password=password,
            sslmode="verify-full" if ca.exists() else None,
            sslrootcert=str(ca) if ca.exists() else None,
            connect_timeout=10,
            autocommit=True,
        )
        self.logins.append(user)
        return made

    def _value(self, key: str) -> str:
        return (self._binding / key).read_text()


if __name__ == "__main__":
    Writer(Path(sys.argv[1])).run()
