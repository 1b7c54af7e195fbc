"""An API server for tests: real HTTPS, the list protocol with its pages and selectors, and faults on demand."""

import http.server
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from migrations import apiserver
from tests.httpserver import authority, listening

PREFIX = "/apis/memory.proompteng.ai/v1alpha1"
VERSION = "memory.proompteng.ai/v1alpha1"
Object = dict[str, Any]
Handler = http.server.BaseHTTPRequestHandler
# Is shown each GET (its number, its path) and may answer it in its own way; True when it did.
Fault = Callable[[int, Handler], bool]


class ApiServer:
    """What it has, what it was asked, and what goes wrong."""

    def __init__(self) -> None:
        self.xmemories: dict[str, Object] = {}
        self.memories: dict[str, Object] = {}
        self.singles: dict[str, Object] = {}
        self.page: int | None = None
        self.fault: Fault | None = None
        self.paths: list[str] = []

    def has(self, identity: str, uid: str) -> None:
        """Gives it a Memory: a claim and its composite."""
        namespace, _, name = identity.rpartition("/")
        composite = f"composite-of-{uid}"
        metadata = {"name": composite if namespace else name, "uid": uid, "labels": {}}
        spec: Object = {}
        if namespace:
            spec["claimRef"] = {"namespace": namespace, "name": name}
            metadata["labels"] = {"crossplane.io/claim-namespace": namespace, "crossplane.io/claim-name": name}
            self.memories[identity] = {
                "apiVersion": VERSION,
                "kind": "Memory",
                "metadata": {"name": name, "namespace": namespace, "uid": f"claim-of-{uid}"},
                "spec": {"resourceRef": {"kind": "XMemory", "name": composite}},
            }
        self.xmemories[uid] = {"apiVersion": VERSION, "kind": "XMemory", "metadata": metadata, "spec": spec}

    def lacks(self, identity: str, uid: str) -> None:
        """Takes a Memory away."""
        del self.xmemories[uid]
        self.memories.pop(identity, None)

    def get(self, handler: Handler) -> None:
        """Answers one GET."""
        self.paths.append(handler.path)
        if self.fault and self.fault(len(self.paths), handler):
            return None
        url = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        path = url.path.removeprefix(PREFIX)
        if path == "/xmemories":
            return self._list(handler, "XMemory", list(self.xmemories.values()), query)
        if path.endswith("/memories"):
            namespace = path.split("/")[2]
            own = [each for each in self.memories.values() if each["metadata"]["namespace"] == namespace]
            return self._list(handler, "Memory", own, query)
        if path in self.singles:
            return answer(handler, 200, self.singles[path])
        return answer(handler, 404, {"kind": "Status", "reason": "NotFound"})

    def _list(self, handler: Handler, kind: str, items: list[Object], query: dict[str, str]) -> None:
        for selector in filter(None, query.get("labelSelector", "").split(",")):
            name, value = selector.split("=")
            items = [each for each in items if each["metadata"].get("labels", {}).get(name) == value]
        if "fieldSelector" in query:
            wanted = query["fieldSelector"].removeprefix("metadata.name=")
            items = [each for each in items if each["metadata"]["name"] == wanted]
        start, limit = int(query.get("continue", 0)), self.page or int(query["limit"])
        page, rest = items[start : start + limit], len(items) - start - limit
        metadata: Object = {"resourceVersion": "42"}
        if rest > 0:
            metadata |= {"continue": str(start + limit)}
            if "labelSelector" not in query and "fieldSelector" not in query:
                metadata["remainingItemCount"] = rest
        answer(handler, 200, {"apiVersion": VERSION, "kind": f"{kind}List", "metadata": metadata, "items": page})


def answer(handler: Handler, status: int, body: object) -> None:
    """Answers with an object."""
    raw(handler, status, json.dumps(body).encode())


def raw(handler: Handler, status: int, body: bytes, length: int | None = None) -> None:
    """Answers with bytes, of which there may be less than were announced."""
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def become_pod(folder: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives this process the service account of a pod whose API server listens on 127.0.0.1."""
    account = folder / "serviceaccount"
    account.mkdir()
    authority().cert_pem.write_to_path(account / "ca.crt")
    (account / "token").write_text("pod-token\n")
    monkeypatch.setattr(apiserver, "SERVICE_ACCOUNT", account)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))


@contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Runs one, and gives this process the service account of a pod that knows it."""
    api = ApiServer()

    class Handle(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["Authorization"] == "Bearer pod-token"
            api.get(self)

        def log_message(self, *_: Any) -> None:
            pass

    with listening(Handle, tls="127.0.0.1") as port:
        become_pod(folder, port, monkeypatch)
        yield api
