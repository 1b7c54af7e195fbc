"""The command line: exit codes, the report in a file and in a ConfigMap, and a log without secrets."""

import http.server
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from migrations import report
from migrations.__main__ import main
from tests.httpserver import listening
from tests.migrations.apiserver import become_pod
from tests.migrations.documents import ROOT, Command, Memory


@pytest.mark.parametrize(
    "arguments",
    [[], ["harvest"], ["provision", "--force"]],
    ids=["no command", "an unknown command", "an unknown option"],
)
def test_usage_errors_are_64(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "migrations", *arguments], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 64
    assert "usage: python -m migrations" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        pytest.param("{", "request.json is not JSON (Expecting property name", id="half a file"),
        pytest.param("[]", "bad request document: it is no JSON object", id="not an object"),
    ],
)
def test_unreadable_request_is_20(memory: Memory, command: Command, document: str, sentence: str) -> None:
    answer = command.run("provision", document, memory.database.server.admin)
    assert answer.code == 20
    assert sentence in answer.message


def test_folder_that_is_not_mounted_is_20(tmp_path: Path, command: Command) -> None:
    report_file = str(tmp_path / "report.json")
    answer = command.run_mounted("provision", {"MEMORY_DIR": "/nowhere", "MEMORY_REPORT_FILE": report_file})
    assert answer.code == 20
    assert answer.message.startswith("cannot read /nowhere/request.json (No such file or directory)")


def test_admin_secret_that_is_not_mounted_is_20(memory: Memory, command: Command) -> None:
    answer = command.run("provision", memory.document(), None)
    assert answer.code == 20
    assert "admin/username (No such file or directory)" in answer.message


def test_admin_secret_that_is_not_text_is_20(memory: Memory, command: Command) -> None:
    environment = command.mount(memory.document(), memory.database.server.admin)
    (Path(environment["MEMORY_DIR"]) / "admin" / "password").write_bytes(b"\xff\xfe")
    answer = command.run_mounted("provision", environment)
    assert answer.code == 20
    assert "admin/password (not UTF-8)" in answer.message


def test_deadline_that_is_no_number_is_20(memory: Memory, command: Command) -> None:
    answer = command.provision(memory, deadline="soon")
    assert answer.code == 20
    assert answer.message.startswith('MEMORY_DEADLINE_SECONDS is "soon"')


def test_fault_of_ours_is_1_and_tells_no_secret(
    memory: Memory, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        msg = "secret-in-the-exception"
        raise RuntimeError(msg)

    monkeypatch.setattr("migrations.postgres.provision.provision", broken)
    answer = command.provision(memory)
    assert (answer.code, answer.report["reason"]) == (1, "JobFailed")
    assert answer.message.startswith("unexpected RuntimeError: ")
    assert "in broken" in str(answer.log)
    assert "secret-in-the-exception" not in str(answer)


def test_report_file_keeps_the_other_keys(memory: Memory, command: Command) -> None:
    environment = command.mount(memory.document(), memory.database.server.admin)
    Path(environment["MEMORY_REPORT_FILE"]).write_text('{"probe": "{}"}')
    command.run_mounted("provision", environment)
    written = json.loads(Path(environment["MEMORY_REPORT_FILE"]).read_text())
    assert written["probe"] == "{}"
    assert json.loads(written["provision"])["hash"] == "0123456789"


def test_provision_writes_nothing_but_its_report(memory: Memory, command: Command, tmp_path: Path) -> None:
    environment = command.mount(memory.document(), memory.database.server.admin)
    before = sorted(path for path in tmp_path.rglob("*"))
    command.run_mounted("provision", environment)
    new = sorted(set(tmp_path.rglob("*")) - set(before))
    assert new == [Path(environment["MEMORY_REPORT_FILE"])]


class _ApiServer(http.server.BaseHTTPRequestHandler):
    """Takes requests as the API server does, and answers as told: at first `before`, then `status`."""

    before: ClassVar[list[int]] = []
    status: ClassVar[int] = 200
    seen: ClassVar[list[dict[str, Any]]] = []

    def do_PATCH(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append({"path": self.path, "headers": dict(self.headers), "body": json.loads(body)})
        self.send_response(self.before.pop(0) if self.before else self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        """Gives the ConfigMap that the patches so far have made of an empty one."""
        data: dict[str, str] = {}
        for patch in self.seen:
            data |= patch["body"]["data"] if patch["path"] == self.path else {}
        body = json.dumps({"kind": "ConfigMap", "data": data}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def api_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_ApiServer]]:
    """An HTTPS server with a certificate of its own, and the service account of a pod that knows it."""
    _ApiServer.seen.clear()
    _ApiServer.before = []
    _ApiServer.status = 200
    monkeypatch.setattr(report, "PAUSE_SECONDS", 0.01)
    with listening(_ApiServer, tls="127.0.0.1") as port:
        become_pod(tmp_path, port, monkeypatch)
        yield _ApiServer


def _without_file(command: Command, memory: Memory, monkeypatch: pytest.MonkeyPatch, name: str) -> int:
    documents = {"provision": memory.document, "maintain": memory.maintain_document}
    document = documents.get(name, memory.probe_document)()
    environment = command.mount(document, memory.database.server.admin)
    monkeypatch.delenv("MEMORY_REPORT_FILE", raising=False)
    for key in ("MEMORY_DIR", "MEMORY_DEADLINE_SECONDS"):
        monkeypatch.setenv(key, environment[key])
    return main([name])


def test_report_is_a_merge_patch_with_the_pods_token(
    memory: Memory, command: Command, monkeypatch: pytest.MonkeyPatch, api_server: type[_ApiServer]
) -> None:
    assert _without_file(command, memory, monkeypatch, "provision") == 0
    [request] = api_server.seen
    assert request["path"] == "/api/v1/namespaces/databases/configmaps/mem-report"
    assert request["headers"]["Content-Type"] == "application/merge-patch+json"
    assert request["headers"]["Authorization"] == "Bearer pod-token"
    assert list(request["body"]) == ["data"]
    assert list(request["body"]["data"]) == ["provision"]
    assert json.loads(request["body"]["data"]["provision"])["code"] == 0


def test_report_waits_for_the_right_to_write_it(
    memory: Memory, command: Command, monkeypatch: pytest.MonkeyPatch, api_server: type[_ApiServer]
) -> None:
    """The RoleBinding is made while the Job starts."""
    api_server.before = [404, 403, 403]
    assert _without_file(command, memory, monkeypatch, "provision") == 0
    assert len(api_server.seen) == 4
    assert "cannot write the report" not in command.capsys.readouterr().err


def test_report_does_not_wait_for_what_will_not_change(
    memory: Memory, command: Command, monkeypatch: pytest.MonkeyPatch, api_server: type[_ApiServer]
) -> None:
    api_server.status = 422
    assert _without_file(command, memory, monkeypatch, "provision") == 0
    assert len(api_server.seen) == 1


def test_report_of_maintenance_is_written_only_when_it_says_something_new(
    memory: Memory, command: Command, api_server: type[_ApiServer]
) -> None:
    command.provision(memory)

    assert _without_file(command, memory, command.monkeypatch, "maintain") == 0
    assert [key for request in api_server.seen for key in request["body"]["data"]] == ["maintenance", "maintain"]
    first = list(api_server.seen)
    assert _without_file(command, memory, command.monkeypatch, "maintain") == 0
    assert [key for request in api_server.seen[len(first) :] for key in request["body"]["data"]] == ["maintain"]


def test_report_that_cannot_be_read_is_not_written_over(
    memory: Memory, command: Command, api_server: type[_ApiServer]
) -> None:
    """It says when rows were last removed, which this run does not know."""
    command.provision(memory)
    command.monkeypatch.setattr(report, "PATIENCE_SECONDS", 0.1)
    api_server.status = 500
    assert _without_file(command, memory, command.monkeypatch, "maintain") == 1
    assert [key for request in api_server.seen for key in request["body"]["data"]] == ["maintain"]
    assert "cannot read a report" in command.capsys.readouterr().err


@pytest.mark.parametrize(("name", "code"), [("provision", 0), ("probe", 1)])
def test_report_that_is_refused_is_logged(
    memory: Memory, command: Command, api_server: type[_ApiServer], name: str, code: int
) -> None:
    """It changes no exit code of provision; probe has nothing but its answer, so it fails and is run again."""
    command.monkeypatch.setattr(report, "PATIENCE_SECONDS", 0.1)
    api_server.status = 403
    assert _without_file(command, memory, command.monkeypatch, name) == code
    *lines, last = command.capsys.readouterr().err.splitlines()
    assert "answered 403 Forbidden for ConfigMap databases/mem-report" in lines[-1]
    assert "pod-token" not in "".join(lines)
    assert json.loads(last)["code"] == 0


def test_report_without_a_cluster_or_a_file_is_logged(
    memory: Memory, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert _without_file(command, memory, monkeypatch, "provision") == 0
    assert "cannot write the report" in capsys.readouterr().err


def test_request_without_a_target_is_logged(
    memory: Memory, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MEMORY_REPORT_FILE", raising=False)
    environment = command.mount("{}", memory.database.server.admin)
    monkeypatch.setenv("MEMORY_DIR", environment["MEMORY_DIR"])
    assert main(["provision"]) == 20
    assert "no report: the request does not say where to" in capsys.readouterr().err


def test_password_is_not_in_the_process_list(memory: Memory, command: Command) -> None:
    process = command.spawn(memory)
    environment = Path(f"/proc/{process.pid}/environ")
    text = environment.read_bytes() if os.access(environment, os.R_OK) else b""
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert memory.database.server.admin.password.encode() not in text


def test_secret_is_merged_and_its_patch_says_no_more_than_the_keys(
    monkeypatch: pytest.MonkeyPatch, api_server: type[_ApiServer]
) -> None:
    monkeypatch.delenv("MEMORY_REPORT_FILE", raising=False)
    assert report.write_secret({"username": "a", "password": "b"}, ("databases", "mem-keys"))
    [request] = api_server.seen
    assert request["path"] == "/api/v1/namespaces/databases/secrets/mem-keys"
    assert request["body"] == {"data": {"username": "YQ==", "password": "Yg=="}}
    assert request["headers"]["Content-Type"] == "application/merge-patch+json"


def test_secret_that_cannot_be_written_is_logged_without_what_it_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], api_server: type[_ApiServer]
) -> None:
    monkeypatch.delenv("MEMORY_REPORT_FILE", raising=False)
    monkeypatch.setattr(report, "PATIENCE_SECONDS", 0.1)
    api_server.status = 403
    assert not report.write_secret({"password": "very-secret"}, ("databases", "mem-keys"))
    said = capsys.readouterr().err
    assert "answered 403 Forbidden for Secret databases/mem-keys" in said
    assert "very-secret" not in said


def test_secret_on_a_laptop_is_a_file_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_REPORT_FILE", str(tmp_path / "report.json"))
    assert report.write_secret({"username": "a"}, ("databases", "mem-keys"))
    assert report.write_secret({"password": "b"}, ("databases", "mem-keys"))
    written = tmp_path / "secrets" / "databases" / "mem-keys.json"
    assert json.loads(written.read_text()) == {"username": "YQ==", "password": "Yg=="}
    assert written.stat().st_mode & 0o077 == 0
