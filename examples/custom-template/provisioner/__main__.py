"""`provisioner provision|probe|maintain|reap`: reads the request, does the work, answers with exit code and report."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The folder may be run as it is: `python3 provisioner provision`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from provisioner import cluster, contract
from provisioner.backend import connect
from provisioner.contract import Code, Failure, Object
from provisioner.homes import Backend, Reaper, claimed

TERMINATED = 128 + signal.SIGTERM
STATES = ("active", "draining", "closed")


def provision(request: Object, backend: Backend) -> Object:
    """Makes the home of one Memory what its request says."""
    backend.check(request)
    home = request["dataset"]["schema"]
    with backend.locked(home):
        before = backend.entry(home)
        entry = claimed(before, request)
        entry["logins"] = [each["name"] for each in request["logins"]]
        # Before anything is made: what a killed run leaves behind must be known for ours.
        backend.save(entry)
        backend.make(entry, request)
        for stranger in sorted({*(before or entry)["logins"]} - {*entry["logins"]}):
            # Of the Memory that handed its home over to this one.
            backend.close(stranger)
        for login in request["logins"]:
            # A draining one stays as it is.
            if login["state"] == "active":
                backend.open(entry, login, contract.password(login["name"]))
            elif login["state"] == "closed":
                backend.close(login["name"])
        problems = backend.verify(entry, request)
        if problems:
            raise Failure(Code.JOB_FAILED, "; ".join(problems))
    return contract.answer(request, Code.SUCCEEDED, f'"{home}" is ready', server=backend.server(), modules=_core())


def _core() -> list[Object]:
    return [{"name": "core", "version": "1"}]


def probe(request: Object, backend: Backend) -> Object:
    """Says what the server is, and who signs for it."""
    said = {"server": backend.server(), "caBundle": contract.config("ca.crt", "")}
    return contract.answer(request, Code.SUCCEEDED, "the server is ready for Memories", **said)


def reap(request: Object, backend: Backend) -> Object:
    """Closes the logins of Memories that are gone, and drops what may be dropped."""
    try:
        code, message, counts = Reaper(request, backend).run()
    except cluster.UnreadableError as error:
        raise Failure(Code.UNREACHABLE, str(error)) from None
    return contract.answer(request, code, message, homes=counts)


def maintain(request: Object, backend: Backend) -> Object:
    """Looks after every home of the provider; one that fails does not stop the others."""
    failed: Failure | None = None
    homes = [each for each in backend.entries() if each["providerUid"] == request["provider"]["uid"]]
    for entry in homes:
        try:
            with backend.locked(entry["home"]):
                sections = backend.maintain(entry)
            said = contract.answer({}, Code.SUCCEEDED, "", **sections)
        except Failure as error:
            failed = failed or error
            said = contract.answer({}, error.code, error.message)
        contract.tell(entry["report"], said)
    if failed:
        return contract.answer(request, failed.code, failed.message, homes={"lookedAfter": len(homes)})
    return contract.answer(request, Code.SUCCEEDED, "homes are looked after", homes={"lookedAfter": len(homes)})


COMMANDS: dict[str, Callable[[Object, Backend], Object]] = {
    "provision": provision,
    "probe": probe,
    "maintain": maintain,
    "reap": reap,
}


def main(arguments: list[str]) -> int:
    """Runs one command; gives the exit code."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        sys.stderr.write(f"usage: provisioner {'|'.join(COMMANDS)}\n")
        return Code.USAGE
    [command] = arguments
    document: Any = None
    try:
        document = contract.read_document()
        request = contract.check(command, document)
        with connect(request, contract.Deadline()) as backend:
            report = COMMANDS[command](request, backend)
    except Failure as error:
        report = contract.answer(document, error.code, error.message)
    except Exception as error:  # noqa: BLE001  whatever it is, the function must hear of it
        # Without the exception's own text, which may quote a statement or a row.
        message = f"unexpected {type(error).__name__}: this is a fault of the provisioner"
        report = contract.answer(document, Code.JOB_FAILED, message)
    written = contract.publish(command, document, report)
    if command == "provision":
        return int(report["code"])
    # What comes again by itself: its answer says what is wrong.
    return Code.SUCCEEDED if written else Code.JOB_FAILED


def _terminate(_number: int, _frame: object) -> None:
    # Kubernetes asks before it kills; the next run goes on from here.
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main(sys.argv[1:]))
