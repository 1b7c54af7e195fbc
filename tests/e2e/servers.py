"""Other backends' servers in the cluster, as a platform team would run them for a trial, and the providers on them.

Images come from the environment, so that any cluster will do:

- `MEMORY_REDIS_IMAGE`: Redis 8 with `redis-server`
- `MEMORY_CEPH_IMAGE`: Ceph's `ceph-mon`, `ceph-osd`, `radosgw` and tools, with bash and Python
- `MEMORY_MARIADB_IMAGE`: MariaDB with `mariadbd` and `mariadb-install-db`
- `MEMORY_MARIADB_PROVISIONER`: the image of `examples/custom-mariadb/image`
"""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme

from tests.e2e.kube import GROUP, PROVIDER, is_ready, says
from tests.servers import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.e2e.kube import Body, Kube

NAMESPACE = "backends"
ADMIN = "admin"
HERE = Path(__file__).parent
REDIS_PORT, S3_PORT, MARIADB_PORT = 6379, 7480, 3306


@dataclass(frozen=True)
class Server:
    """A server that runs as a pod behind a Service of its name."""

    kube: Kube
    name: str
    port: int
    image: str
    script: str
    files: Mapping[str, str] = field(default_factory=dict)
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def host(self) -> str:
        """Its name inside the cluster."""
        return f"{self.name}.{NAMESPACE}.svc"

    def run(self) -> Server:
        """Start it, with its admin's Secret beside it, and wait until it takes connections.

        Returns:
            The server: one that an earlier run left is used as it is.
        """
        files = self.kube.find("secret", f"{self.name}-files", NAMESPACE)
        if files and self._is_running():
            admin = self.kube.get("secret", f"{self.name}-{ADMIN}", NAMESPACE)
            return replace(self, password=_entries(admin)["password"], files=_entries(files))
        labels = {"app": self.name}
        self.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self.kube.apply(_secret(f"{self.name}-{ADMIN}", {"username": ADMIN, "password": self.password}))
        self.kube.apply(_secret(f"{self.name}-files", {"start.sh": self.script, **self.files}))
        ports = [{"port": self.port, "targetPort": self.port}]
        service = {"selector": labels, "ports": ports}
        self.kube.apply(_object("v1", "Service", self.name, service))
        self.kube.apply(_object("v1", "Pod", self.name, self._pod(), labels))
        self.kube.until(f"{self.name} takes connections", lambda: self._is_running() or None, 180)
        return self

    def _pod(self) -> Body:
        probe = {"tcpSocket": {"port": self.port}, "periodSeconds": 1}
        container = {
            "name": "server",
            "image": self.image,
            "command": ["bash", "/files/start.sh"],
            "env": [{"name": "PASSWORD", "value": self.password}],
            "readinessProbe": probe,
            "volumeMounts": [{"name": "files", "mountPath": "/files"}, {"name": "data", "mountPath": "/data"}],
            "securityContext": {"runAsUser": 0},
        }
        volumes = [{"name": "files", "secret": {"secretName": f"{self.name}-files"}}, {"name": "data", "emptyDir": {}}]
        return {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 1}

    def _is_running(self) -> bool:
        found = self.kube.find("pod", self.name, NAMESPACE) or {}
        conditions = found.get("status", {}).get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def inside(self, *command: str) -> str:
        """Run a command beside the server and give what it prints."""
        return self.kube("exec", "-n", NAMESPACE, self.name, "--", *command)

    def provide(self, name: str, kind: str, block: Body, **more: Any) -> Body:
        """Apply a platform team's provider on it, wait until it is Ready, and give it."""
        spec = {"type": kind, kind: block, **more}
        body = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "XMemoryProvider", "metadata": {"name": name}, "spec": spec}
        self.kube.apply(body)

        def look() -> Body | None:
            found = self.kube.get(PROVIDER, name)
            return found if is_ready(found) else None

        try:
            return self.kube.until(f"provider {name} is Ready", look, 120)
        except AssertionError as error:
            told = says(self.kube.get(PROVIDER, name), "BackendReady")
            raise AssertionError(told) from error

    @property
    def admin(self) -> Body:
        """A reference to its admin's Secret."""
        return {"name": f"{self.name}-{ADMIN}", "namespace": NAMESPACE}


def _object(version: str, kind: str, name: str, spec: Body, labels: Mapping[str, str] | None = None) -> Body:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": dict(labels or {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _secret(name: str, entries: Mapping[str, str]) -> Body:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in entries.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "data": data}


def _entries(secret: Body) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def image(variable: str) -> str:
    """Give an image of the environment, or skip the test that needs it."""
    return require(os.environ.get(variable), f"{variable} names no image")


REDIS = f"""
sed "s/HASH/$(printf %s "$PASSWORD" | sha256sum | cut -d' ' -f1)/" /files/users.acl > /data/users.acl
exec redis-server --dir /data --aclfile /data/users.acl --port 0 --tls-port {REDIS_PORT} --tls-auth-clients no \\
  --tls-cert-file /files/server.pem --tls-key-file /files/server.key --tls-ca-cert-file /files/ca.pem
"""


def redis(kube: Kube) -> tuple[Server, str]:
    """Give a Redis server with TLS and an ACL file, started, and its CA."""
    authority = trustme.CA()
    certificate = authority.issue_cert(f"redis.{NAMESPACE}.svc")
    files = {
        "users.acl": f"user default off\nuser {ADMIN} on #HASH ~* &* +@all\n",
        "server.pem": certificate.cert_chain_pems[0].bytes().decode(),
        "server.key": certificate.private_key_pem.bytes().decode(),
        "ca.pem": authority.cert_pem.bytes().decode(),
    }
    server = Server(kube, "redis", REDIS_PORT, image("MEMORY_REDIS_IMAGE"), REDIS, files).run()
    return server, server.files["ca.pem"]


def ceph(kube: Kube) -> Server:
    """Give Ceph's S3 server on one in-memory disk, started, whose admin may use the admin API."""
    script = (HERE / "ceph.sh").read_text()
    return Server(kube, "s3", S3_PORT, image("MEMORY_CEPH_IMAGE"), script).run()


MARIADB = f"""
rm -rf /data/*
mkdir -p /data/mysql
mariadb-install-db --no-defaults --user=root --datadir=/data/mysql --auth-root-authentication-method=normal >/dev/null
cat >/data/init.sql <<SQL
CREATE USER IF NOT EXISTS '{ADMIN}'@'%' IDENTIFIED BY '$PASSWORD';
GRANT ALL PRIVILEGES ON *.* TO '{ADMIN}'@'%' WITH GRANT OPTION;
SQL
exec mariadbd --no-defaults --user=root --datadir=/data/mysql --port={MARIADB_PORT} --bind-address=0.0.0.0 \\
  --socket=/data/socket --init-file=/data/init.sql --max-connect-errors=1000000000
"""


def mariadb(kube: Kube) -> Server:
    """Give a MariaDB server, started."""
    return Server(kube, "mariadb", MARIADB_PORT, image("MEMORY_MARIADB_IMAGE"), MARIADB).run()
