"""An API server for the real kubectl: it serves the objects of a laptop, and refuses what a user may not read."""

import http.server
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from memoryctl.cluster import Cluster
from memoryctl.objects import API_VERSION, Key, Object
from tests.httpserver import listening

# What has a namespace, and what has none, by API version.
NAMESPACED = {
    "v1": ("Secret", "ConfigMap", "Pod", "ServiceAccount"),
    "batch/v1": ("Job", "CronJob"),
    "rbac.authorization.k8s.io/v1": ("Role", "RoleBinding"),
    "apiextensions.crossplane.io/v1": (),
    API_VERSION: ("Memory", "MemoryProvider"),
}
CLUSTER_SCOPED = {
    "v1": ("Namespace",),
    "rbac.authorization.k8s.io/v1": ("ClusterRoleBinding",),
    "apiextensions.crossplane.io/v1": ("Composition",),
    API_VERSION: ("XMemory", "XMemoryProvider"),
}


class ApiServer:
    """A laptop's objects as an API server has them.

    Attributes:
        forbidden: Kinds that the user may not read.
        logs: What a pod has printed, by its name.
    """

    def __init__(self, cluster: Cluster, kubeconfig: Path) -> None:
        self.cluster = cluster
        self.kubeconfig = kubeconfig
        self.forbidden: set[str] = set()
        self.logs: dict[str, str] = {}
        self.methods: set[str] = set()

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        """Gives status and body; a body of text is a log."""
        parts = path.strip("/").split("/")
        if path == "/api":
            return 200, {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = [_group(version) for version in NAMESPACED if "/" in version]
            return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        size = 2 if parts[0] == "api" else 3
        version = "/".join(parts[1:size])
        if version not in NAMESPACED:
            return _status(404, "NotFound", "the server could not find the requested resource")
        if len(parts) == size:
            return 200, _resources(version)
        return self._objects(version, parts[size:], query)

    def _objects(self, version: str, parts: list[str], query: dict[str, str]) -> tuple[int, Any]:
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2:
            _, namespace, *parts = parts
        plural, *name = parts
        kind = next(kind for kind in _kinds(version) if _plural(kind) == plural)
        if kind in self.forbidden or (name[1:] == ["log"] and "log" in self.forbidden):
            what = f'{plural} is forbidden: User "ann" cannot read resource "{plural}"'
            return _status(403, "Forbidden", what)
        if name[1:] == ["log"]:
            return 200, self.logs[name[0]]
        if name:
            found = self.cluster.get(Key(version, kind, namespace, name[0]))
            return (200, found) if found else _status(404, "NotFound", f'{plural} "{name[0]}" not found')
        labels = dict(one.split("=") for one in filter(None, query.get("labelSelector", "").split(",")))
        items = self.cluster.list(version, kind, labels)
        items = [one for one in items if namespace in ("", one["metadata"].get("namespace"))]
        return 200, {"kind": f"{kind}List", "apiVersion": version, "metadata": {}, "items": items}


def _group(version: str) -> Object:
    one = {"groupVersion": version, "version": version.split("/")[1]}
    return {"name": version.split("/", maxsplit=1)[0], "versions": [one], "preferredVersion": one}


def _kinds(version: str) -> tuple[str, ...]:
    return NAMESPACED[version] + CLUSTER_SCOPED.get(version, ())


def _plural(kind: str) -> str:
    return f"{kind.lower()[:-1]}ies" if kind.endswith("Memory") else f"{kind.lower()}s"


def _resources(version: str) -> Object:
    verbs = ["get", "list"]
    resources = [
        {"name": _plural(kind), "singularName": kind.lower(), "namespaced": kind in NAMESPACED[version], "kind": kind}
        | {"verbs": verbs}
        for kind in _kinds(version)
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


def _status(code: int, reason: str, message: str) -> tuple[int, Object]:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
    return code, {**body, "code": code}


@contextmanager
def serving(cluster: Cluster, folder: Path) -> Iterator[ApiServer]:
    """Runs one, and writes the kubeconfig of a user who works in `team-a`."""
    api = ApiServer(cluster, folder / "kubeconfig")

    class Handle(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            api.methods.add("GET")
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            code, body = api.answer(url.path, query)
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
            api.methods.add(self.command)  # a method that is none of ours
            super().send_error(code, message, explain)

        def log_message(self, *_: Any) -> None:
            pass

    with listening(Handle) as port:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "ann", "namespace": "team-a"}}],
            "users": [{"name": "ann", "user": {}}],
        }
        api.kubeconfig.write_text(yaml.safe_dump(config))
        yield api
