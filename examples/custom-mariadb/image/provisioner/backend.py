"""MariaDB: a database for each Memory, a user for each login, and a ledger that only the admin may read.

`spec.custom.database` names the database of the ledger; a Memory's own is named by its `dataset.schema`. The
configSecret holds `username` and `password` of the admin and, for TLS, `ca.crt`.
"""

import datetime as dt
import hashlib
import json
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql

from provisioner import contract
from provisioner.contract import Code, Deadline, Failure, Object
from provisioner.homes import Entry, now

PAUSE_SECONDS = 0.5
BATCH = 1000
# https://mariadb.com/kb/en/mariadb-error-codes/; those of 2000 and more are the client's.
DENIED = {1044, 1045, 1142, 1227, 1410}
AWAY = {1040, 1053, 1927, 2002, 2003, 2006, 2013}
TABLES = {
    "memory_datasets": """
        dataset VARCHAR(63) NOT NULL PRIMARY KEY,
        ttl_days INT NOT NULL,
        legal_hold BOOLEAN NOT NULL,
        created_at DATETIME(6) NOT NULL DEFAULT UTC_TIMESTAMP(6)""",
    "memory_events": """
        dataset VARCHAR(63) NOT NULL,
        id UUID NOT NULL DEFAULT UUID(),
        event_type VARCHAR(255) NOT NULL,
        payload JSON NOT NULL,
        source VARCHAR(255) NOT NULL DEFAULT '',
        event_id VARCHAR(255),
        created_at DATETIME(6) NOT NULL DEFAULT UTC_TIMESTAMP(6),
        PRIMARY KEY (dataset, id),
        UNIQUE KEY memory_events_once (dataset, source, event_id),
        KEY memory_events_time (dataset, created_at)""",
    "memory_kv": """
        dataset VARCHAR(63) NOT NULL,
        `key` VARCHAR(512) NOT NULL,
        value JSON NOT NULL,
        version BIGINT NOT NULL DEFAULT 1,
        updated_at DATETIME(6) NOT NULL DEFAULT UTC_TIMESTAMP(6),
        expires_at DATETIME(6),
        PRIMARY KEY (dataset, `key`)""",
}
READ = frozenset({"SELECT"})
ADD = READ | {"INSERT"}
WRITE = ADD | {"UPDATE", "DELETE"}


@contextmanager
def connect(request: Object, deadline: Deadline) -> Iterator["MariaDB"]:
    """Connects as the admin, and waits for a server that does not answer until the deadline."""
    provider = request["provider"]
    secret = contract.config("password")
    settings: Object = {
        "host": provider["host"],
        "port": provider["port"],
        "user": contract.config("username"),
        "password": secret,
        "autocommit": True,
        "charset": "utf8mb4",
        "connect_timeout": 5,
        "init_command": "SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES'",
        "ssl": _tls(),
    }
    while True:
        try:
            connection = pymysql.connect(**settings)
            break
        except pymysql.err.OperationalError as error:
            where = f"{provider['host']}:{provider['port']}"
            if isinstance(getattr(error, "original_exception", None), ssl.SSLCertVerificationError):
                # It would not be another one in a minute.
                msg = f"{where} cannot prove that it is the server: the configSecret's ca.crt did not sign for it"
                raise Failure(Code.UNREACHABLE, msg) from None
            failure = _explained(error, where)
            if failure.code is not Code.UNREACHABLE or not deadline.remaining:
                raise failure from None
            time.sleep(min(PAUSE_SECONDS, deadline.remaining))
    try:
        yield MariaDB(connection, provider["database"], secret, deadline, has_tls=bool(settings["ssl"]))
    finally:
        connection.close()


def _tls() -> ssl.SSLContext | None:
    file = Path(os.environ.get("MEMORY_CONFIG_DIR", "/config")) / "ca.crt"
    return ssl.create_default_context(cafile=str(file)) if file.exists() else None


def _explained(error: pymysql.Error, what: str) -> Failure:
    """Gives the exit code of an error, and a sentence without the statement: that may hold a hash."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    if number in DENIED:
        return Failure(
            Code.PERMISSION_DENIED, f"{what}: MariaDB refuses the admin ({number}): see its rights in README.md"
        )
    if number in AWAY:
        return Failure(Code.UNREACHABLE, f"{what} does not answer ({number})")
    return Failure(Code.JOB_FAILED, f"{what}: MariaDB error {number}")


class MariaDB:
    """One connection of the admin's."""

    def __init__(self, connection: Any, ledger: str, secret: str, deadline: Deadline, *, has_tls: bool) -> None:
        self._connection = connection
        self._ledger = ledger
        self._secret = secret
        self._deadline = deadline
        self._has_tls = has_tls
        self._homes = f"{_name(ledger)}.homes"

    def server(self) -> Object:
        """Gives its version."""
        [[version]] = self._run("SELECT VERSION()")
        return {"version": version, "capabilities": ["mariadb", *(["tls"] if self._has_tls else [])]}

    def check(self, request: Object) -> None:
        """Refuses embeddings, and a home where the ledger is."""
        if request["embeddings"]["enabled"]:
            msg = "this provider keeps no embeddings: set embeddings.enabled to false, or choose another provider"
            raise Failure(Code.MODULE_UNSUPPORTED, msg)
        if request["dataset"]["schema"] == self._ledger:
            msg = f'"{self._ledger}" is the database of the ledger: choose another dataset.schema'
            raise Failure(Code.SCHEMA_CONFLICT, msg)
        self._run(f"CREATE DATABASE IF NOT EXISTS {_name(self._ledger)}")
        self._run(f"CREATE TABLE IF NOT EXISTS {self._homes} (home VARCHAR(63) PRIMARY KEY, entry JSON NOT NULL)")

    @contextmanager
    def locked(self, home: str) -> Iterator[None]:
        """Holds a lock of this connection's: a killed run holds nothing.

        Any user may take a lock of any name, so this name is one that only the admin can know.
        """
        lock = hashlib.sha256(f"{self._secret} {home}".encode()).hexdigest()
        while self._run("SELECT GET_LOCK(%s, 1)", lock) != ((1,),):
            if not self._deadline.remaining:
                msg = f'another provisioner is at work on "{home}": it is tried again later'
                raise Failure(Code.LOCK_BUSY, msg)
        try:
            yield
        finally:
            self._run("SELECT RELEASE_LOCK(%s)", lock)

    def entries(self) -> list[Entry]:
        """Reads the ledger, which is empty before the first Memory."""
        if not self._run("SELECT 1 FROM information_schema.tables WHERE table_schema = %s", self._ledger):
            return []
        return [json.loads(entry) for (entry,) in self._run(f"SELECT entry FROM {self._homes} ORDER BY home")]  # noqa: S608

    def entry(self, home: str) -> Entry | None:
        """Reads one entry."""
        found = self._run(f"SELECT entry FROM {self._homes} WHERE home = %s", home)  # noqa: S608
        if found:
            entry: Entry = json.loads(found[0][0])
            return entry
        if self._run("SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", home):
            msg = f'there is a database "{home}" that is no Memory\'s: choose another dataset.schema'
            raise Failure(Code.SCHEMA_CONFLICT, msg)
        return None

    def save(self, entry: Entry) -> None:
        """Writes an entry."""
        self._run(f"REPLACE INTO {self._homes} VALUES (%s, %s)", entry["home"], json.dumps(entry))  # noqa: S608

    def make(self, entry: Entry, request: Object) -> None:
        """Makes database and tables, and gives the logins that stay as they are the rights of today."""
        home = _name(entry["home"])
        self._run(f"CREATE DATABASE IF NOT EXISTS {home} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        for table, columns in TABLES.items():
            self._run(f"CREATE TABLE IF NOT EXISTS {home}.{table} ({columns})")
        self._run(
            f"INSERT INTO {home}.memory_datasets (dataset, ttl_days, legal_hold) VALUES (%s, %s, %s) "  # noqa: S608
            "ON DUPLICATE KEY UPDATE ttl_days = VALUES(ttl_days), legal_hold = VALUES(legal_hold)",
            request["dataset"]["name"],
            entry["ttlDays"],
            entry["legalHold"],
        )
        for login in request["logins"]:
            if login["state"] == "draining" and self._account(login["name"]) is not None:
                self._grant(entry, login["name"])

    def open(self, entry: Entry, login: Object, password: str) -> None:
        """Makes a user. The server is told the hash that it would keep itself, so no log of its can hold more."""
        name, digest = login["name"], native_hash(password)
        before = self._account(name)
        demand = "SSL" if self._has_tls else "NONE"
        self._run(f"CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED BY PASSWORD %s REQUIRE {demand}", name, digest)
        self._grant(entry, name)
        self._run(f"ALTER USER %s@'%%' IDENTIFIED BY PASSWORD %s REQUIRE {demand} ACCOUNT UNLOCK", name, digest)
        if before and before["authentication_string"] != digest:
            # Whoever knew the password before knows it no more.
            self._end_sessions(name)

    def close(self, login: str) -> bool:
        """Locks a user and ends its sessions."""
        account = self._account(login)
        if account is None:
            return False
        self._run("ALTER USER %s@'%%' ACCOUNT LOCK", login)
        self._end_sessions(login)
        return not account.get("account_locked")

    def reopen(self, login: str) -> None:
        """Unlocks a user."""
        self._run("ALTER USER IF EXISTS %s@'%%' ACCOUNT UNLOCK", login)

    def verify(self, entry: Entry, request: Object) -> list[str]:
        """Looks at what each login may do, and whether it is open."""
        found = self._differences(entry)
        for login in request["logins"]:
            account = self._account(login["name"])
            is_open = account is not None and not account.get("account_locked")
            if login["state"] != "draining" and is_open != (login["state"] == "active"):
                found.append(f"login {login['name']} is {'open' if is_open else 'closed'}")
        return found

    def maintain(self, entry: Entry) -> Object:
        """Removes what is older than the retention, a batch at a time, and measures."""
        home = _name(entry["home"])
        removed = 0
        if not entry["legalHold"]:
            removed += self._remove(f"{home}.memory_kv", "expires_at < UTC_TIMESTAMP(6)")
        if not entry["legalHold"] and entry["ttlDays"]:
            # Of the server's clock, as the time of each row.
            age = f"< UTC_TIMESTAMP(6) - INTERVAL {int(entry['ttlDays'])} DAY"
            removed += self._remove(f"{home}.memory_events", f"created_at {age}")
            removed += self._remove(f"{home}.memory_kv", f"updated_at {age}")
        return {
            "index": {"state": "exact", "reason": "Disabled", "message": "this provider keeps no embeddings"},
            "retention": {"lastRun": now() if removed else None, "deleted": removed, "message": ""},
            "drift": self._differences(entry),
            "data": self._measure(entry),
        }

    def drop(self, entry: Entry) -> None:
        """Removes the logins, the database, and last the entry."""
        for login in entry["logins"]:
            self.close(login)
            self._run("DROP USER IF EXISTS %s@'%%'", login)
        self._run(f"DROP DATABASE IF EXISTS {_name(entry['home'])}")
        self._run(f"DELETE FROM {self._homes} WHERE home = %s", entry["home"])  # noqa: S608

    def _account(self, login: str) -> Object | None:
        """Gives what the server knows of a user, None when there is no such user."""
        found = self._run("SELECT priv FROM mysql.global_priv WHERE user = %s AND host = '%%'", login)
        account: Object | None = json.loads(found[0][0]) if found else None
        return account

    def _grant(self, entry: Entry, login: str) -> None:
        """Gives a login what it may, and takes what it may not, without a moment in which it may nothing."""
        wanted, home = _rights(entry, login), _pattern(entry["home"])
        for target, held in self._grants(login).items():
            extra = held - wanted if target == home else held
            if extra:
                self._run(f"REVOKE {', '.join(sorted(extra))} ON {_name(target)}.* FROM %s@'%%'", login)
        self._run(f"GRANT {', '.join(sorted(wanted))} ON {_name(home)}.* TO %s@'%%'", login)

    def _grants(self, login: str) -> dict[str, frozenset[str]]:
        """Gives the rights of a login on databases, as the server has them: by pattern of names."""
        found = self._run(
            "SELECT table_schema, privilege_type FROM information_schema.schema_privileges WHERE grantee = %s",
            f"'{login}'@'%'",
        )
        return {target: frozenset(right for other, right in found if other == target) for target, _ in found}

    def _differences(self, entry: Entry) -> list[str]:
        """Gives a sentence for each thing that is not as `make` and `open` leave it."""
        found = self._run("SELECT table_name FROM information_schema.tables WHERE table_schema = %s", entry["home"])
        said = [f"table {each} is missing" for each in TABLES if (each,) not in found]
        for login in entry["logins"]:
            account = self._account(login)
            if account is None or account.get("account_locked"):
                continue
            held, wanted = self._grants(login), {_pattern(entry["home"]): _rights(entry, login)}
            said += [f"login {login} has {_listed(held)}, not {_listed(wanted)}"] if held != wanted else []
        return said

    def _remove(self, table: str, condition: str) -> int:
        removed = 0
        while not removed % BATCH:
            count = self._count(f"DELETE FROM {table} WHERE {condition} LIMIT {BATCH}")  # noqa: S608
            removed += count
            if not count:
                break
        return removed

    def _measure(self, entry: Entry) -> Object:
        home = _name(entry["home"])
        [[events, oldest]] = self._run(f"SELECT COUNT(*), MIN(created_at) FROM {home}.memory_events")  # noqa: S608
        [[keys]] = self._run(f"SELECT COUNT(*) FROM {home}.memory_kv")  # noqa: S608
        [[size]] = self._run(
            "SELECT COALESCE(SUM(data_length + index_length), 0) FROM information_schema.tables "
            "WHERE table_schema = %s",
            entry["home"],
        )
        rows = events + keys
        return {
            "rows": rows,
            "bytes": int(size),
            "deadPercent": 0,
            "oldest": f"{oldest:%Y-%m-%d}T00:00:00Z" if isinstance(oldest, dt.datetime) else None,
            "held": rows if entry["legalHold"] else 0,
        }

    def _end_sessions(self, login: str) -> None:
        self._run("KILL CONNECTION USER %s", login)

    def _run(self, statement: str, *values: object) -> Any:
        with self._connection.cursor() as cursor:
            self._execute(cursor, statement, values)
            return cursor.fetchall()

    def _count(self, statement: str) -> int:
        with self._connection.cursor() as cursor:
            self._execute(cursor, statement, ())
            return int(cursor.rowcount)

    def _execute(self, cursor: Any, statement: str, values: tuple[object, ...]) -> None:
        try:
            cursor.execute(statement, values or None)
        except pymysql.Error as error:
            raise _explained(error, " ".join(statement.split()[:2])) from None


def native_hash(password: str) -> str:
    """Gives what the server keeps of a password with mysql_native_password, which every client knows.

    It has no salt; the passwords that it is made of are 256 random bits, so nobody can guess them.
    """
    inner = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(inner, usedforsecurity=False).hexdigest().upper()


def _rights(entry: Entry, login: str) -> frozenset[str]:
    """On hold nothing that is there can be changed or removed."""
    if "_ro_" in login:
        return READ
    return ADD if entry["legalHold"] else WRITE


def _listed(rights: dict[str, frozenset[str]]) -> str:
    return "; ".join(f"{', '.join(sorted(held))} on {target}" for target, held in sorted(rights.items())) or "nothing"


def _name(text: str) -> str:
    """Gives an identifier, quoted."""
    return "`" + text.replace("`", "``") + "`"


def _pattern(database: str) -> str:
    """Gives a database's name as GRANT takes it: there _ and % stand for anything, so a_b would be axb too."""
    return database.replace("_", "\\_").replace("%", "\\%")
