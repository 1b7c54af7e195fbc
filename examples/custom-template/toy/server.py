"""A toy database, so that the template has a real server to talk to: JSON lines over TCP, users, one flat key space.

    python3 server.py PORT ADMIN PASSWORD     forgets everything when it ends

Each line is a request, `{"user", "password", "do", ...}`, and is answered by one: `{"ok": ...}` or `{"error": ...}`.
Below its own home an app may `get` and `list` and, as a writer, `put` (with the version that it expects, 0 for a new
key) and `delete`; on hold it may only put new keys.
"""

import hashlib
import hmac
import json
import socketserver
import sys
import threading
import time
from typing import Any, ClassVar

Object = dict[str, Any]
LOCK_SECONDS = 0.2


class Refused(Exception):  # noqa: N818
    """A request that is not granted."""


class Toy:
    """Keys with versions, users with rights on what begins with their home, and named locks."""

    def __init__(self, admin: str, password: str) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._values: dict[str, tuple[Any, int, float]] = {}
        self._users: dict[str, Object] = {}
        self._admin = (admin, hashlib.sha256(password.encode()).hexdigest())

    def answer(self, asked: Object, held: list[threading.Lock]) -> Any:
        """Does what is asked; `held` are the locks of this connection."""
        user = self._login(asked)
        if asked["do"] == "lock" and user is None:
            return self._lock(asked["name"], held)
        with self._guard:
            return getattr(self, f"_do_{asked['do']}")(asked, user)

    def _login(self, asked: Object) -> Object | None:
        """Gives the user, None for the admin."""
        given = hashlib.sha256(asked["password"].encode()).hexdigest()
        if (asked["user"], given) == self._admin:
            return None
        user = self._users.get(asked["user"], {"hash": "", "open": False})
        if not (user["open"] and hmac.compare_digest(user["hash"], given)):
            raise Refused("wrong user name or password")
        return user

    def _lock(self, name: str, held: list[threading.Lock]) -> bool:
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
        if lock.acquire(timeout=LOCK_SECONDS):
            held.append(lock)
            return True
        return False

    def _check(self, user: Object | None, key: str, *, writes: bool) -> None:
        if user and not (key.startswith(user["home"]) and (user["writes"] or not writes)):
            raise Refused(f"no right on {key}")

    def _do_whoami(self, asked: Object, _user: Object | None) -> str:
        return str(asked["user"])

    def _do_get(self, asked: Object, user: Object | None) -> Any:
        self._check(user, asked["key"], writes=False)
        return self._values.get(asked["key"])

    def _do_put(self, asked: Object, user: Object | None) -> int:
        self._check(user, asked["key"], writes=True)
        version = self._values.get(asked["key"], (None, 0, 0.0))[1]
        if user and user["held"] and version:
            raise Refused(f"{asked['key']} is on hold")
        if asked.get("version", version) != version:
            raise Refused(f"{asked['key']} has version {version}")
        self._values[asked["key"]] = (asked["value"], version + 1, time.time())
        return version + 1

    def _do_delete(self, asked: Object, user: Object | None) -> bool:
        self._check(user, asked["key"], writes=True)
        if user and user["held"]:
            raise Refused(f"{asked['key']} is on hold")
        return self._values.pop(asked["key"], None) is not None

    def _do_list(self, asked: Object, user: Object | None) -> list[tuple[str, Any, float]]:
        self._check(user, asked["prefix"], writes=False)
        found = sorted(self._values.items())
        return [(key, value, at) for key, (value, _, at) in found if key.startswith(asked["prefix"])]

    def _do_user(self, asked: Object, user: Object | None) -> bool:
        """Writes fields of a user, or removes it; gives whether it was open before."""
        self._check(user, "", writes=user is not None)
        before = self._users.get(asked["name"], {})
        self._users[asked["name"]] = {"hash": "", "open": False, **before, **asked["fields"]}
        return bool(before.get("open"))


class Handler(socketserver.StreamRequestHandler):
    """One connection: its locks go with it."""

    toy: ClassVar[Toy]

    def handle(self) -> None:
        """Answers line by line."""
        held: list[threading.Lock] = []
        try:
            for line in self.rfile:
                try:
                    answer: Object = {"ok": self.toy.answer(json.loads(line), held)}
                except Refused as error:
                    answer = {"error": str(error)}
                self.wfile.write(json.dumps(answer).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            for lock in held:
                lock.release()


class Server(socketserver.ThreadingTCPServer):
    """The server; a port that was just in use is no matter."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Handler.toy = Toy(sys.argv[2], sys.argv[3])
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        sys.stdout.write(f"listening on {server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()
