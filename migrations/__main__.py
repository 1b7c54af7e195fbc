"""`python -m migrations <command>`: reads the request, does the work, answers with exit code and report."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from migrations import log, report, termination
from migrations.deadline import DEFAULT_SECONDS, Deadline
from migrations.errors import Code, CommandError
from migrations.report import Report
from migrations.request import read_document

# A module each; it has a function for each command: `(raw, directory, deadline) -> Report`.
BACKENDS = {
    "postgres": "migrations.postgres.commands",
    "redis": "migrations.redis.commands",
    "s3": "migrations.s3.commands",
}


class _Parser(argparse.ArgumentParser):
    """argparse exits 2, which is Python's own code as well: a Job could not tell one from the other."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(Code.USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code, see `migrations.errors.Code`; `probe`, `maintain` and `reap` give 0 whenever they could write
        their answer: the next run comes by itself, and the answer says what is wrong. `plan` gives 0 when it could
        look, whatever `provision` would do then.
    """
    parser = _Parser(prog="python -m migrations", description="Prepares a backend for one Memory.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("provision", help="make the home of a Memory what its request says")
    commands.add_parser("plan", help="say what provision would do, as JSON on standard output, and change nothing")
    commands.add_parser("probe", help="say what the backend is and what it lets us do")
    commands.add_parser("maintain", help="retention, indexes, dead rows and drift of every home of a provider")
    commands.add_parser("reap", help="close the logins of Memories that are gone, and drop what may be dropped")
    command = parser.parse_args(arguments).command
    raw: Any = None
    try:
        directory = Path(os.environ.get("MEMORY_DIR", "/memory"))
        raw = read_document(directory)
        answer = _run(command, raw, directory)
    except CommandError as error:
        answer = _failed(raw, error)
    except Exception as error:  # noqa: BLE001  whatever it is, the function must hear of it
        # Without the exception's own text, which may quote a statement or a row.
        log.write("unexpected error", error=type(error).__name__, where=traceback.format_tb(error.__traceback__))
        message = f"unexpected {type(error).__name__}: this is a fault of the migrations image, see the Job's log"
        answer = _failed(raw, CommandError(Code.JOB_FAILED, message))
    if command == "plan":
        sys.stdout.write(f"{answer.to_json()}\n")
        return answer.code
    written = report.publish(command, answer.to_json(), _target(raw))
    if command in {"probe", "maintain", "reap"}:
        return Code.SUCCEEDED if written else Code.JOB_FAILED
    return answer.code


def _run(command: str, raw: Any, directory: Path) -> Report:
    """Runs a command with the code of its backend; only that one's client library is loaded."""
    if not isinstance(raw, dict):
        raise CommandError(Code.BAD_REQUEST, "bad request document: it is no JSON object: write one")
    kind = _text(raw.get("provider"), "type")
    if kind not in BACKENDS:
        msg = (
            f'bad request document: provider.type: "{kind}" is no backend of this migrations image: write one of '
            f"{', '.join(BACKENDS)}"
        )
        raise CommandError(Code.BAD_REQUEST, msg)
    work: Callable[[Any, Path, Deadline], Report] = getattr(import_module(BACKENDS[kind]), command)
    return work(raw, directory, _deadline())


def _failed(raw: Any, error: CommandError) -> Report:
    return Report(_text(raw, "hash"), error.code, error.message, error.migration, error.sqlstate)


def _target(raw: Any) -> tuple[str, str] | None:
    """Reads where the report goes, whatever else is wrong with the request."""
    target = raw.get("report") if isinstance(raw, dict) else None
    namespace, name = _text(target, "namespace"), _text(target, "name")
    return (namespace, name) if namespace and name else None


def _text(raw: Any, key: str) -> str:
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, str) else ""


def _deadline() -> Deadline:
    given = os.environ.get("MEMORY_DEADLINE_SECONDS") or str(DEFAULT_SECONDS)
    try:
        return Deadline.of_job(float(given))
    except ValueError:
        msg = f'MEMORY_DEADLINE_SECONDS is "{given}": write the Job\'s activeDeadlineSeconds, a number'
        raise CommandError(Code.BAD_REQUEST, msg) from None


if __name__ == "__main__":
    termination.run(main)
