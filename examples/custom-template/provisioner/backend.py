"""What you write: your server, behind the methods of `provisioner.homes.Backend`. This one talks to toy/server.py."""

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from provisioner import contract
from provisioner.contract import Code, Deadline, Failure, Object
from provisioner.homes import Entry, now

LEDGER = "ledger/"
PAUSE_SECONDS = 0.2
DAY = 86400


@contextmanager
def connect(request: Object, deadline: Deadline) -> Iterator["ToyBackend"]:
    """Connects as the admin, and waits for a server that does not answer until the deadline."""
    provider = request["provider"]
    admin = {"user": contract.config("username"), "password": contract.config("password")}
    while True:
        try:
            connection = socket.create_connection((provider["host"], provider["port"]), timeout=10)
            break
        except OSError as error:
            if not deadline.remaining:
                msg = f"{provider['host']}:{provider['port']} does not answer: {error.strerror or error}"
                raise Failure(Code.UNREACHABLE, msg) from None
            time.sleep(min(PAUSE_SECONDS, deadline.remaining))
    with connection:
        yield ToyBackend(connection, admin, deadline)


class ToyBackend:
    """One connection of the admin's."""

    def __init__(self, connection: socket.socket, admin: Object, deadline: Deadline) -> None:
        self._file = connection.makefile("rwb")
        self._admin = admin
        self._deadline = deadline

    def server(self) -> Object:
        """Says what it is, after logging in."""
        self._ask("whoami")
        return {"version": "1", "capabilities": ["toy"]}

    def check(self, request: Object) -> None:
        """Refuses embeddings."""
        if request["embeddings"]["enabled"]:
            msg = "the toy server has no embeddings: set embeddings.enabled to false"
            raise Failure(Code.MODULE_UNSUPPORTED, msg)

    @contextmanager
    def locked(self, home: str) -> Iterator[None]:
        """Holds the home's lock for as long as this connection lives: a killed run holds nothing."""
        while not self._ask("lock", name=home):
            if not self._deadline.remaining:
                msg = f'another provisioner is at work on "{home}": try again later'
                raise Failure(Code.LOCK_BUSY, msg)
        yield

    def entries(self) -> list[Entry]:
        """Reads the ledger."""
        return [value for _, value, _ in self._ask("list", prefix=LEDGER)]

    def entry(self, home: str) -> Entry | None:
        """Reads one entry; nobody else makes homes on this server."""
        found = self._ask("get", key=f"{LEDGER}{home}")
        return found[0] if found else None

    def save(self, entry: Entry) -> None:
        """Writes an entry."""
        self._ask("put", key=f"{LEDGER}{entry['home']}", value=entry)

    def make(self, entry: Entry, _request: Object) -> None:
        """Notes that the home is there; a hold is for those too who stay as they are."""
        self._ask("put", key=f"home/{entry['home']}/", value={"contract": 1})
        for login in entry["logins"]:
            self._ask("user", name=login, fields={"held": entry["legalHold"]})

    def open(self, entry: Entry, login: Object, password: str) -> None:
        """Makes a user; the server is told a hash of its password."""
        fields = {
            "hash": hashlib.sha256(password.encode()).hexdigest(),
            "open": True,
            "home": f"home/{entry['home']}/",
            "writes": login["role"] == "writer",
            "held": entry["legalHold"],
        }
        self._ask("user", name=login["name"], fields=fields)

    def close(self, login: str) -> bool:
        """Closes a user; sessions end with their next request, for each is checked."""
        return bool(self._ask("user", name=login, fields={"open": False}))

    def reopen(self, login: str) -> None:
        """Opens a user again."""
        self._ask("user", name=login, fields={"open": True})

    def verify(self, entry: Entry, _request: Object) -> list[str]:
        """Looks whether the home is there."""
        return [] if self._ask("get", key=f"home/{entry['home']}/") else [f'"{entry["home"]}" is not there']

    def maintain(self, entry: Entry) -> Object:
        """Removes what is older than the retention."""
        home = f"home/{entry['home']}/"
        found = [(key, at) for key, _, at in self._ask("list", prefix=home) if key != home]
        limit = time.time() - entry["ttlDays"] * DAY
        old = [key for key, at in found if at < limit] if entry["ttlDays"] and not entry["legalHold"] else []
        for key in old:
            self._ask("delete", key=key)
        return {
            "index": {"state": "exact", "reason": "Disabled", "message": "there are no embeddings"},
            "retention": {"lastRun": now() if old else None, "deleted": len(old), "message": ""},
            "drift": self.verify(entry, {}),
            "data": {"rows": len(found) - len(old), "bytes": 0, "deadPercent": 0, "oldest": None, "held": 0},
        }

    def drop(self, entry: Entry) -> None:
        """Removes data, then users, then the entry."""
        for key, _, _ in self._ask("list", prefix=f"home/{entry['home']}/"):
            self._ask("delete", key=key)
        for login in entry["logins"]:
            self.close(login)
        self._ask("delete", key=f"{LEDGER}{entry['home']}")

    def _ask(self, what: str, **more: Any) -> Any:
        try:
            self._file.write(json.dumps({**self._admin, "do": what, **more}).encode() + b"\n")
            self._file.flush()
            answer = json.loads(self._file.readline())
        except (OSError, ValueError) as error:
            msg = f"the server went away: {type(error).__name__}"
            raise Failure(Code.UNREACHABLE, msg) from None
        if "error" in answer:
            raise Failure(Code.PERMISSION_DENIED, f"the server refuses {what}: {answer['error']}")
        return answer["ok"]
