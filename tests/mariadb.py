"""A real MariaDB for tests, and programs that speak to it by Debian's client library: both by MEMORY_MARIADB."""

import dataclasses
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.servers import require

VARIABLE = "MEMORY_MARIADB"
ADMIN = ("memory_admin", "admin-password-of-mariadb")
# What the example's README tells a platform team to grant.
RIGHTS = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, CREATE USER, PROCESS, CONNECTION ADMIN "
    "ON *.* TO {user} WITH GRANT OPTION"
)
SECONDS = 60


@dataclasses.dataclass(frozen=True)
class MariaDB:
    """One server; whatever runs with `command` may read and write `folder`."""

    folder: Path
    port: int
    prefix: tuple[str, ...]
    process: subprocess.Popen[bytes]

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self, *words: str) -> list[str]:
        """Gives a command where the client library is."""
        return [*self.prefix, *words]

    def python(self, code: str, *words: str) -> str:
        """Runs Python there, and gives what it prints."""
        done = subprocess.run(
            self.command("python3", "-c", code, *words), capture_output=True, text=True, check=False, timeout=SECONDS
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sql(self, *statements: str, user: str = ADMIN[0], password: str = ADMIN[1], database: str = "") -> str:
        """Runs statements as a client would, and gives the rows of the last one as Python prints them."""
        return self.python(CLIENT, str(self.port), user, password, database, *statements).strip()

    def query_log(self) -> str:
        """Gives every statement that the server was sent."""
        return (self.folder / "queries.log").read_text(errors="replace")


CLIENT = """
import sys, pymysql
port, user, password, database, *statements = sys.argv[1:]
try:
    connection = pymysql.connect(
        host="127.0.0.1", port=int(port), user=user, password=password, database=database or None, autocommit=True
    )
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        print(cursor.fetchall())
except pymysql.Error as error:
    print("error", error.args[0])
"""


@contextmanager
def running(folder: Path, authority: trustme.CA | None = None) -> Iterator[MariaDB]:
    """Runs a server in a folder, with an admin who is not root; with an authority, by TLS if a client wants it."""
    wrapper = require(
        os.environ.get(VARIABLE),
        f"no MariaDB: set {VARIABLE} to the command that runs its programs, and python3 with PyMySQL",
    )
    prefix = tuple(word.replace("{dir}", str(folder)) for word in shlex.split(wrapper))
    data, account = folder / "data", ["--user=root"] if os.geteuid() == 0 else []
    install = ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run([*prefix, *install, *account, f"--datadir={data}"], check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    account_name = f"{ADMIN[0]}@'127.0.0.1'"
    (folder / "init.sql").write_text(
        f"CREATE USER {account_name} IDENTIFIED BY '{ADMIN[1]}';\nGRANT {RIGHTS.format(user=account_name)};\n"
    )
    options = [
        *(f"--datadir={data}", f"--socket={folder / 'socket'}", f"--pid-file={folder / 'pid'}"),
        *("--bind-address=127.0.0.1", f"--port={port}", f"--init-file={folder / 'init.sql'}"),
        *("--general-log", f"--general-log-file={folder / 'queries.log'}"),
        *("--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve", "--performance-schema=off"),
    ]
    if authority:
        made = authority.issue_cert("127.0.0.1")
        made.cert_chain_pems[0].write_to_path(folder / "server.crt")
        made.private_key_pem.write_to_path(folder / "server.key")
        options += [f"--ssl-cert={folder / 'server.crt'}", f"--ssl-key={folder / 'server.key'}"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*prefix, "mariadbd", "--no-defaults", *account, *options], stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(process, port, folder)
        yield MariaDB(folder, port, prefix, process)
    finally:
        # The whole group: a wrapper may stand between us and the server.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    limit = time.monotonic() + SECONDS
    while time.monotonic() < limit:
        assert process.poll() is None, (folder / "server.log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError((folder / "server.log").read_text())
