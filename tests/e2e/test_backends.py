"""The other backends on a cluster: the same claim and the same app, with another `providerRef`."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import servers
from tests.e2e.client import App
from tests.e2e.conftest import ready_memory, told
from tests.e2e.kube import COMPOSITE, GROUP, MEMORY, PROVIDER, Kube, memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.kube import Body
    from tests.e2e.times import Measured

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
DIMENSION = 64


@pytest.fixture(scope="module")
def redis_server(platform: Kube) -> servers.Server:
    """Redis with TLS, and the provider `redis`."""
    server, ca = servers.redis(platform)
    server.provide("redis", "redis", {"host": server.host, "caBundle": ca, "adminSecret": server.admin})
    return server


@pytest.fixture(scope="module")
def redis(redis_server: servers.Server) -> Kube:
    """The cluster, with that provider."""
    return redis_server.kube


@pytest.fixture(scope="module")
def ceph(platform: Kube) -> servers.Server:
    """Ceph, with the providers `s3` (users of its own), `s3-buckets` and `s3-shared`."""
    server = servers.ceph(platform)
    block = {"endpoint": f"http://{server.host}:{server.port}", "adminSecret": server.admin}
    server.provide("s3", "s3", {**block, "bucket": "memories", "users": "RGW"})
    server.provide("s3-buckets", "s3", {**block, "bucketPrefix": "memory", "users": "RGW", "versioning": True})
    server.provide("s3-shared", "s3", {**block, "bucket": "shared", "users": "Shared"})
    return server


@pytest.fixture(scope="module")
def demo(platform: Kube, image: str) -> Callable[[str, str], list[str]]:
    """Runs the demo in a pod that mounts a Secret, and gives what it prints."""
    return Demo(platform, image)


class Demo:
    """The client library and the demo as they stand here, in a pod."""

    def __init__(self, kube: Kube, image: str) -> None:
        self._kube = kube
        self._image = image

    def __call__(self, namespace: str, secret: str) -> list[str]:
        """Use the Memory that a Secret leads to; `AssertionError` with the log when that fails."""
        name = f"demo-{secret}-{time.monotonic_ns()}"
        files = _sources()
        keys = {path: f"file-{number}" for number, path in enumerate(sorted(files))}
        data = {key: files[path] for path, key in keys.items()}
        self._kube("create", "-f", "-", body=_configmap(namespace, name, data))
        items = [{"key": key, "path": path} for path, key in keys.items()]
        self._kube("create", "-f", "-", body=_pod(namespace, name, secret, self._image, items))

        def ended() -> str | None:
            phase: str = self._kube.get("pod", name, namespace).get("status", {}).get("phase", "")
            return phase if phase in {"Succeeded", "Failed"} else None

        phase = self._kube.until(f"the demo in {namespace} ends", ended)
        log = self._kube("logs", name, "-n", namespace)
        assert phase == "Succeeded", log
        return log.splitlines()


def _sources() -> dict[str, str]:
    """Give the client and the demo, by their paths."""
    found = {"demo.py": (ROOT / "memoryctl/demo.py").read_text()}
    folder = ROOT / "client/memory_client"
    return found | {str(path.relative_to(folder.parent)): path.read_text() for path in folder.rglob("*.py")}


def _configmap(namespace: str, name: str, data: dict[str, str]) -> Body:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def _pod(namespace: str, name: str, secret: str, image: str, items: list[dict[str, str]]) -> Body:
    restricted = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "app",
        "image": image,
        "command": ["python", "/code/demo.py", "/bindings/memory"],
        "env": [{"name": "PYTHONPATH", "value": "/code"}, {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}],
        "securityContext": restricted,
        "volumeMounts": [
            {"name": "memory", "mountPath": "/bindings/memory", "readOnly": True},
            {"name": "code", "mountPath": "/code", "readOnly": True},
        ],
    }
    security = {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}}
    volumes = [
        {"name": "memory", "secret": {"secretName": secret}},
        {"name": "code", "configMap": {"name": name, "items": items}},
    ]
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": security}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**spec, "containers": [container], "volumes": volumes},
    }


def _claim(team: str, provider: str, **spec: Any) -> Body:
    wanted = {"providerRef": {"name": provider}, "embeddings": {"dimension": DIMENSION}, **spec}
    return memory(team, "notes", **wanted)


def _without_its_own_words(lines: list[str]) -> list[str]:
    """Give what the demo says of data: where it is, and as whom it came, differs."""
    return [line for line in lines if line.startswith(("Appended", "Read", "Set", "Stored"))]


PROVIDERS = ("pg", "redis", "s3", "s3-buckets", "s3-shared")


@pytest.fixture(scope="module", autouse=True)
def tidy(platform: Kube) -> Iterator[None]:
    """Leaves nothing to those who come after: neither servers nor providers."""
    yield
    platform("delete", PROVIDER, *PROVIDERS[1:], "mariadb", "--ignore-not-found", "--timeout=120s")
    platform("delete", "namespace", servers.NAMESPACE, "--ignore-not-found", "--wait=false")


def test_the_demo_runs_unmodified_on_each(
    redis: Kube,
    ceph: servers.Server,
    team: Callable[[], str],
    demo: Callable[[str, str], list[str]],
    measured: Measured,
) -> None:
    """The same claim but for `providerRef`, the same pod but for what it mounts."""
    assert ceph.kube is redis
    said = {}
    for provider in PROVIDERS:
        name = team()
        with measured.seconds(f"claim to Ready on {provider}"):
            redis.apply(_claim(name, provider))
            ready_memory(redis, name, "notes")
        said[provider] = demo(name, "notes-memory")
        assert any("bakery" in line for line in said[provider]), "\n".join(said[provider])
    stories = {provider: _without_its_own_words(lines) for provider, lines in said.items()}
    assert stories["pg"]
    assert stories == dict.fromkeys(PROVIDERS, stories["pg"])


def test_a_typed_composition_serves_its_type(redis: Kube, team: Callable[[], str]) -> None:
    name = team()
    body = _claim(name, "redis")
    body["spec"]["compositionSelector"] = {"matchLabels": {"provider": "redis"}}
    redis.apply(body)
    ready_memory(redis, name, "notes")
    other = memory(name, "other", providerRef={"name": "redis"})
    other["spec"]["compositionSelector"] = {"matchLabels": {"provider": "s3"}}
    redis.apply(other)
    told(redis, name, "other", "ProviderReady", "False/InvalidSpec")


def test_what_redis_cannot_do_is_said_at_once(redis: Kube, team: Callable[[], str]) -> None:
    name = team()
    redis.apply(_claim(name, "redis", embeddings={"dimension": DIMENSION, "metric": "l2"}))
    found = told(redis, name, "notes", "Provisioned", "False/ModuleUnsupported", seconds=30)
    message = next(each["message"] for each in found["status"]["conditions"] if each["type"] == "Provisioned")
    assert "vector sets" in message
    composite = redis.get(COMPOSITE, redis.get(MEMORY, "notes", name)["spec"]["resourceRef"]["name"])
    assert not composite["spec"].get("resourceRefs")


def test_a_rotation_on_redis_and_on_s3(
    redis: Kube, ceph: servers.Server, team: Callable[[], str], demo: Callable[[str, str], list[str]]
) -> None:
    """The app's Secret follows, the old login goes on until it is revoked, and no password stays behind."""
    for provider in ("redis", "s3"):
        name = team()
        redis.apply(_claim(name, provider))
        ready_memory(redis, name, "notes")
        before = redis.get("secret", "notes-memory", name)["data"]
        redis.apply(_claim(name, provider, credentials={"epoch": 1}))

        def rotated(name: str = name, before: Body = before) -> Body | None:
            found = redis.get(MEMORY, "notes", name)
            held: Body = redis.get("secret", "notes-memory", name)["data"]
            applied = found.get("status", {}).get("credentials", {}).get("epoch") == 1
            return held if applied and held["password"] != before["password"] else None

        after = redis.until(f"the Secret on {provider} is the new login's", rotated, 60)
        assert after["username"] != before["username"]
        assert demo(name, "notes-memory")
        left = [
            each["metadata"]["name"]
            for each in redis.list("secrets", servers.NAMESPACE, {f"{GROUP}/claim-namespace": name})
        ]
        assert not [each for each in left if each.endswith("-login")], left
    assert ceph.name


def test_the_login_goes_with_the_claim(
    redis_server: servers.Server, ceph: servers.Server, team: Callable[[], str]
) -> None:
    """The reaper of each provider closes what has no claim any more: asked for by hand, twice."""
    redis, name = redis_server.kube, team()
    for provider in ("redis", "s3"):
        redis.apply(_claim(name, provider) | {"metadata": {"name": provider, "namespace": name}})
    logins = {}
    for provider in ("redis", "s3"):
        ready_memory(redis, name, provider)
        held = redis.get("secret", f"{provider}-memory", name)["data"]
        logins[provider] = base64.b64decode(held["username"]).decode()
    redis("delete", MEMORY, "--all", "-n", name, "--timeout=60s")
    for provider in ("redis", "s3"):
        _reap(redis, provider)
        _reap(redis, provider)
    users = json.loads(
        ceph.inside("radosgw-admin", "-c", "/data/ceph.conf", "-n", "client.rgw", "user", "info", "--uid", logins["s3"])
    )
    assert users["suspended"] or not users["keys"]
    ask = 'redis-cli --tls --cacert /files/ca.pem --user admin --pass "$PASSWORD" --no-auth-warning ACL GETUSER "$0"'
    assert "off" in redis_server.inside("sh", "-c", ask, logins["redis"]).split()


def _reap(kube: Kube, provider: str) -> None:
    [cronjob] = kube.list(
        "cronjobs", servers.NAMESPACE, {f"{GROUP}/provider": provider, "app.kubernetes.io/component": "reap"}
    )
    job = f"reap-{time.monotonic_ns()}"
    kube("create", "job", job, f"--from=cronjob/{cronjob['metadata']['name']}", "-n", servers.NAMESPACE)
    kube("wait", "--for=condition=complete", f"job/{job}", "-n", servers.NAMESPACE, "--timeout=90s")


USE_MARIADB = """
import json, pathlib, pymysql
binding = {path.name: path.read_text() for path in pathlib.Path("/bindings/memory").iterdir() if path.is_file()}
connection = pymysql.connect(
    host=binding["host"], port=int(binding["port"]), user=binding["username"], password=binding["password"],
    database=binding["schema"], autocommit=True,
)
with connection.cursor() as cursor:
    cursor.execute("SHOW TABLES")
    print(json.dumps(sorted(row[0] for row in cursor.fetchall())))
"""


def test_a_backend_of_ones_own_is_a_memory_like_any_other(
    platform: Kube, team: Callable[[], str], measured: Measured
) -> None:
    """The worked example: the platform team's image, its Secret, and an app that knows the binding alone."""
    image, server = servers.image("MEMORY_MARIADB_PROVISIONER"), servers.mariadb(platform)
    block = {"image": image, "endpoint": f"{server.host}:{server.port}", "database": "memory_ledger"}
    server.provide("mariadb", "custom", {**block, "configSecret": server.admin})
    name = team()
    with measured.seconds("claim to Ready on mariadb, a custom backend"):
        platform.apply(_claim(name, "mariadb", embeddings={"enabled": False}))
        ready_memory(platform, name, "notes")
    code, log = App(platform, image, prelude="").outcome(name, "notes-memory", USE_MARIADB)
    assert code == 0, log
    assert {"events", "kv"} <= {table.removeprefix("memory_") for table in json.loads(log.splitlines()[-1])}
    platform.apply(_claim(name, "mariadb") | {"metadata": {"name": "vectors", "namespace": name}})
    told(platform, name, "vectors", "Provisioned", "False/ModuleUnsupported", seconds=60)
