"""The CronJob of examples/rotation: what it may do, and what its script does to an API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest

from tests.httpserver import authority, listening
from tests.schemas import ROOT, catalog, objects

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEDULE = ROOT / "examples" / "rotation" / "schedule.yaml"
PLACE = "/apis/memory.proompteng.ai/v1alpha1/namespaces/team-a/memories/notes"


def one(kind: str) -> dict[str, Any]:
    """The one object of a kind."""
    (found,) = [body for body in objects(SCHEDULE) if body["kind"] == kind]
    return found


def test_a_server_takes_it() -> None:
    for body in objects(SCHEDULE):
        assert catalog().problems(body) == []


def test_it_may_read_and_patch_one_memory_and_nothing_else() -> None:
    assert [body["kind"] for body in objects(SCHEDULE)] == ["CronJob", "ServiceAccount", "Role", "RoleBinding"]
    memory = {"apiGroups": ["memory.proompteng.ai"], "resources": ["memories"]}
    assert one("Role")["rules"] == [{**memory, "resourceNames": ["notes"], "verbs": ["get", "patch"]}]
    account = one("ServiceAccount")["metadata"]
    assert one("RoleBinding")["subjects"] == [{"kind": "ServiceAccount", **account}]
    assert one("RoleBinding")["roleRef"]["name"] == one("Role")["metadata"]["name"]
    assert pod()["serviceAccountName"] == account["name"]


def pod() -> Any:
    return one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_its_pod_is_restricted() -> None:
    (container,) = pod()["containers"]
    assert pod()["securityContext"]["runAsNonRoot"]
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    held = container["securityContext"]
    assert (held["allowPrivilegeEscalation"], held["readOnlyRootFilesystem"]) == (False, True)
    assert held["capabilities"] == {"drop": ["ALL"]}


class ApiServer:
    """Serves one Memory over TLS, as far as the script asks; a JSON patch whose test fails is 422."""

    def __init__(self, folder: Path, spec: int, applied: int | None) -> None:
        self.memory: dict[str, Any] = {"spec": {"credentials": {"epoch": spec}}}
        if applied is not None:
            self.memory["status"] = {"credentials": {"epoch": applied}}
        self.seen: list[tuple[str, str, str | None, str | None]] = []
        self.meanwhile: int | None = None
        authority().cert_pem.write_to_path(folder / "ca.crt")
        (folder / "token").write_text("token-of-the-account")
        (folder / "namespace").write_text("team-a")
        self._folder = folder
        self._port = 0

    @contextmanager
    def listening(self) -> Iterator[ApiServer]:
        with listening(self._handler(), tls="localhost") as self._port:
            yield self

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run the container's command; only the two places that a pod has are others here."""
        (container,) = pod()["containers"]
        *_, script = container["command"]
        for there, here in (
            ("/var/run/secrets/kubernetes.io/serviceaccount", str(self._folder)),
            ("https://kubernetes.default.svc/", f"https://localhost:{self._port}/"),
        ):
            assert there in script
            script = script.replace(there, here)
        given = {each["name"]: each["value"] for each in container["env"]}
        command = [sys.executable, "-c", script]
        env = {**os.environ, **given, "NO_PROXY": "localhost"}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, server.memory)
                if server.meanwhile is not None:
                    server.memory["spec"]["credentials"]["epoch"] = server.meanwhile

            def do_PATCH(self) -> None:
                patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                test, replace = patch
                assert (test["op"], replace["op"]) == ("test", "replace")
                assert test["path"] == replace["path"] == "/spec/credentials/epoch"
                held = server.memory["spec"]["credentials"]
                if held["epoch"] != test["value"]:
                    self._answer(422, {"kind": "Status", "reason": "Invalid"})
                    return
                held["epoch"] = replace["value"]
                self._answer(200, server.memory)

            def _answer(self, code: int, body: object) -> None:
                headers = self.headers
                server.seen.append((self.command, self.path, headers["Authorization"], headers["Content-Type"]))
                text = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Nothing: tests read the answers."""

        return Handler


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    """Starts a server with an epoch that is wanted and one that is applied."""
    with ExitStack() as stack:
        yield lambda spec, applied: stack.enter_context(ApiServer(tmp_path, spec, applied).listening())


def test_it_adds_one_to_the_epoch(serve: Any) -> None:
    server = serve(7, 7)
    done = server.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "epoch 8 is asked for\n", "")
    assert server.memory["spec"]["credentials"]["epoch"] == 8
    sent = ("Bearer token-of-the-account", "application/json-patch+json")
    assert server.seen == [("GET", PLACE, *sent), ("PATCH", PLACE, *sent)]


@pytest.mark.parametrize("applied", [6, None])
def test_it_waits_for_the_rotation_before(serve: Any, applied: int | None) -> None:
    server = serve(7, applied)
    done = server.run()
    assert done.returncode == 1
    assert done.stderr == f"epoch 7 is not applied yet ({applied} is): see the Memory's conditions\n"
    assert [method for method, *_ in server.seen] == ["GET"]


def test_it_changes_nothing_that_somebody_else_has_changed_meanwhile(serve: Any) -> None:
    server = serve(7, 7)
    server.meanwhile = 9
    done = server.run()
    assert done.returncode == 1
    assert "HTTP Error 422" in done.stderr
    assert server.memory["spec"]["credentials"]["epoch"] == 9
