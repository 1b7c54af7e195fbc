"""The contract with function-memory: the request, exit codes, the report, the log. Nothing here knows a backend."""

import enum
import http.client
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from provisioner import cluster, schema

# What Kubernetes gives a Job where nothing else is said, and what is kept back of it for the answer.
DEFAULT_SECONDS = 900.0
RESERVE_SHARE = 0.1
RESERVE_SECONDS = 30.0
# The right to write comes from a RoleBinding that is made while the Job starts.
PATIENCE_SECONDS = 20.0
SHOWN_PROBLEMS = 3

Object = dict[str, Any]


class Code(enum.IntEnum):
    """Exit codes. Of 10 to 20 a Job is not tried again, 30 and 31 have waited for the whole deadline by themselves."""

    SUCCEEDED = 0
    JOB_FAILED = 1
    EXTENSION_MISSING = 10
    DIMENSION_CONFLICT = 11
    CHECKSUM_MISMATCH = 12
    PERMISSION_DENIED = 13
    SCHEMA_CONFLICT = 14
    ADOPTION_REQUIRED = 15
    MODULE_UNSUPPORTED = 16
    ON_HOLD = 17
    BAD_REQUEST = 20
    UNREACHABLE = 30
    LOCK_BUSY = 31
    USAGE = 64

    @property
    def reason(self) -> str:
        """The name that a condition carries: `SchemaConflict` of SCHEMA_CONFLICT."""
        return "".join(word.capitalize() for word in self.name.split("_"))


class Failure(Exception):  # noqa: N818  the contract's own word
    """A command cannot go on. The message is for a person: what is wrong, the value, what to do; never a secret."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Deadline:
    """How long to wait for others: until shortly before Kubernetes ends the Job, so that there is an answer."""

    def __init__(self) -> None:
        given = os.environ.get("MEMORY_DEADLINE_SECONDS") or str(DEFAULT_SECONDS)
        try:
            seconds = float(given)
        except ValueError:
            msg = f'MEMORY_DEADLINE_SECONDS is "{given}": write the seconds that the Job has'
            raise Failure(Code.BAD_REQUEST, msg) from None
        self._end = time.monotonic() + seconds - min(RESERVE_SECONDS, seconds * RESERVE_SHARE)

    @property
    def remaining(self) -> float:
        """Seconds that are left, 0 when it has passed."""
        return max(0.0, self._end - time.monotonic())


def log(message: str, **fields: object) -> None:
    """Writes a JSON line. What is passed here holds no password and no row."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    _line(json.dumps({"time": stamp, "message": message, **fields}, ensure_ascii=False))


def _line(text: str) -> None:
    # In one write: a signal between two of them would put two lines into one.
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def read_document() -> Any:
    """Reads request.json as it is: where the answer goes is known even of a document that is refused."""
    path = _directory() / "request.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"cannot read {path} ({type(error).__name__}): mount the request there, or set MEMORY_DIR"
        raise Failure(Code.BAD_REQUEST, msg) from None


def check(command: str, document: Any) -> Object:
    """Gives the request of a command; what is unknown in it is refused, never ignored."""
    whole = json.loads(Path(__file__).with_name("request.schema.json").read_text(encoding="utf-8"))
    problems = schema.problems(document, {"$ref": f"#/$defs/{command.capitalize()}"}, whole)
    if problems:
        more = [f"and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
        shown = "; ".join([*problems[:SHOWN_PROBLEMS], *more])
        raise Failure(Code.BAD_REQUEST, f"bad request document: {shown}")
    found: Object = document
    return found


def config(key: str, default: str | None = None) -> str:
    """Gives an entry of the provider's `configSecret`, without white space around it."""
    path = Path(os.environ.get("MEMORY_CONFIG_DIR", "/config")) / key
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        if default is not None:
            return default
        msg = f'the provider\'s configSecret has no key "{key}": add it'
        raise Failure(Code.BAD_REQUEST, msg) from None


def password(login: str) -> str:
    """Gives the password of an active login."""
    try:
        return (_directory() / "login" / login).read_text(encoding="utf-8")
    except OSError:
        msg = f"there is no file login/{login}: an active login comes with its password"
        raise Failure(Code.BAD_REQUEST, msg) from None


def _directory() -> Path:
    return Path(os.environ.get("MEMORY_DIR", "/memory"))


def answer(document: Any, code: Code, message: str, **details: object) -> Object:
    """Gives a report; `details` are keys that only some answers have."""
    asked = document.get("hash") if isinstance(document, dict) else ""
    head = {"hash": asked if isinstance(asked, str) else "", "code": int(code), "reason": code.reason}
    return {**head, "message": message, "migration": "", "sqlstate": "", **details}


def publish(command: str, document: Any, report: Object) -> bool:
    """Writes the command's own report where it is read, and as the last line of the log; gives whether that worked.

    A report that cannot be written changes no exit code of `provision`.
    """
    text = json.dumps(report, ensure_ascii=False)
    try:
        target = document["report"]["namespace"], document["report"]["name"]
    except (KeyError, TypeError):
        target = None
    try:
        return _write(command, text, target, _own_file())
    finally:
        _line(text)


def tell(target: Object, sections: Object) -> None:
    """Writes what `maintain` found of one Memory: the key `maintenance` of that Memory's report, when it is news."""
    namespace, name = target["namespace"], target["name"]
    own = _own_file()
    file = own.parent / "reports" / namespace / f"{name}.json" if own else None
    text = json.dumps(sections, ensure_ascii=False)
    try:
        before = _read_file(file) if file else cluster.read(_path(namespace, name)).get("data") or {}
    except cluster.UnreadableError as error:
        log("cannot read a Memory's report", error=str(error))
        return
    if before.get("maintenance") == text:
        return
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
    _write("maintenance", text, (namespace, name), file)


def _own_file() -> Path | None:
    given = os.environ.get("MEMORY_REPORT_FILE")
    return Path(given) if given else None


def _write(key: str, text: str, target: tuple[str, str] | None, file: Path | None) -> bool:
    try:
        if file:
            file.write_text(json.dumps({**_read_file(file), key: text}, ensure_ascii=False), encoding="utf-8")
        elif target is None:
            log("no report: the request does not say where to")
            return False
        else:
            _patch(*target, key, text)
    except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
        log("cannot write the report", error=f"{type(error).__name__}: {error}")
        return False
    return True


def _read_file(file: Path) -> Object:
    found: Object = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def _patch(namespace: str, name: str, key: str, text: str) -> None:
    """Merges one key into the ConfigMap; again while the API server says that it must not, or that nothing is there."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while True:
        status, _ = cluster.request("PATCH", _path(namespace, name), {"data": {key: text}})
        if status == http.client.OK:
            return
        if status not in {http.client.FORBIDDEN, http.client.NOT_FOUND} or time.monotonic() > limit:
            msg = f"the API server answered {status} for ConfigMap {namespace}/{name}"
            raise OSError(msg)
        time.sleep(0.5)


def _path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps/{name}"
