"""`memoryctl up` for Redis and S3: against the server that the provider names, with nothing in its place."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from memoryctl.definitions import ROOT
from memoryctl.embedded import Login
from memoryctl.objects import Object, make_secret, secret_data, secret_key
from tests.memoryctl.conftest import Laptop
from tests.redisservers import Node
from tests.rgw import Keys, Rgw


def provider_of(name: str, **changes: Any) -> Object:
    """Gives the provider of an example, with fields of its block changed, or left out where they are None."""
    provider: Object = yaml.safe_load((ROOT / "examples" / name / "provider.yaml").read_text())
    kind = provider["spec"]["type"]
    block = {**provider["spec"][kind], **changes}
    provider["spec"][kind] = {key: value for key, value in block.items() if value is not None}
    return provider


def at(claim: Object, provider: Object) -> Object:
    """Gives the quick start's claim with another `providerRef`, in the provider's namespace if that is a tenant's."""
    metadata = {**claim["metadata"], "namespace": provider["metadata"].get("namespace", "team-a")}
    return {
        **claim,
        "metadata": metadata,
        "spec": {**claim["spec"], "providerRef": {"name": provider["metadata"]["name"]}},
    }


def admin_of(provider: Object, username: str, password: str) -> Object:
    """Gives the Secret that a provider's Jobs log in with."""
    reference = provider["spec"][provider["spec"]["type"]]["adminSecret"]
    namespace = reference.get("namespace") or provider["metadata"]["namespace"]
    login = {"username": username.encode(), "password": password.encode()}
    return make_secret(secret_key(namespace, reference["name"]), login)


def run(laptop: Laptop, command: str, *manifests: Object) -> str:
    """Brings up what is given; gives what was said."""
    done = laptop.run(command, "-f", str(laptop.write(*manifests)))
    assert done.returncode == 0, done.stdout + done.stderr
    secrets = [value for one in laptop.cluster.list("v1", "Secret") for value in secret_data(one).items()]
    logs = "".join(path.read_text() for path in (laptop.state / "logs").iterdir())
    for name, value in secrets:
        assert name != "password" or value.decode() not in done.stdout + logs
    # Nothing stands in for anything.
    assert "stands in" not in done.stdout
    assert not (laptop.state / "postgresql").exists()
    return done.stdout


def read(binding: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in binding.iterdir() if not path.name.startswith("..")}


def test_redis_is_the_server_that_the_provider_names(laptop: Laptop, redis_tls: Node, claim: Object) -> None:
    """By TLS, from the admin's Secret that is missing at first to what would change next."""
    provider = provider_of("redis", host=redis_tls.host, port=redis_tls.port, caBundle=redis_tls.ca)
    claim = at(claim, provider)
    waiting = laptop.up(provider, claim)
    assert waiting.returncode == 1
    assert 'waits: volume "memory": Secret "databases/redis-admin" not found' in waiting.stderr

    output = run(
        laptop, "demo", provider, claim, admin_of(provider, redis_tls.admin.username, redis_tls.admin.password)
    )
    assert "XMemoryProvider shared-redis: Redis 8." in output
    assert " s after the start, " in output
    binding = read(laptop.binding)
    with redis_tls.client(Login(binding["username"], binding["password"]), int(binding["database"])) as app:
        assert app.hget(f"{binding['schema']}meta", "contract") == "1"

    maintained = laptop.run("maintain")
    assert maintained.returncode == 0, maintained.stderr
    assert re.search(r"^DATA +[1-9]\d* rows?", maintained.stdout, re.MULTILINE)
    assert "DRIFT      none" in maintained.stdout
    status = laptop.run("status", "notes")
    assert status.returncode == 0, status.stderr
    assert "BackendReady        True    Available" in status.stdout
    claim["spec"]["retention"] = {"ttlDays": 3}
    planned = laptop.run("plan", "-f", str(laptop.write(claim)))
    assert planned.returncode == 0, planned.stderr
    assert "the home is ours: provision would change 1 thing" in planned.stdout
    down = laptop.run("down")
    assert down.stdout.startswith("no server of memoryctl's runs; ")
    assert redis_tls.client().ping(), "what a manifest names is somebody else's"


def test_a_server_that_does_not_answer_is_said_and_not_replaced(laptop: Laptop, redis8: Node) -> None:
    provider = provider_of("redis", host=redis8.host, port=1, tls=False, caBundle=None)
    provider["spec"]["jobs"] = {"activeDeadlineSeconds": 60}
    admin = admin_of(provider, redis8.admin.username, redis8.admin.password)
    done = laptop.up(provider, admin)
    assert done.returncode == 1
    assert re.search(r"XMemoryProvider shared-redis is not Ready: BackendReady=False/Unreachable: .*:1", done.stderr)
    provider["spec"]["redis"]["port"] = redis8.port
    assert laptop.up(provider).returncode == 0


@pytest.mark.long
@pytest.mark.xdist_group("rgw")
def test_s3_with_users_that_ceph_makes(laptop: Laptop, rgw: Rgw, claim: Object) -> None:
    provider = provider_of("s3-rgw", endpoint=rgw.endpoint, region=rgw.region, caBundle=None, bucket=rgw.name())
    claim = at(claim, provider)
    output = run(laptop, "demo", provider, claim, admin_of(provider, rgw.admin.access_key, rgw.admin.secret_key))
    assert "XMemoryProvider ceph: Ceph RGW answers" in output
    binding = read(laptop.binding)
    assert binding["username"] != rgw.admin.access_key
    with rgw.client(Keys(binding["username"], binding["password"])) as app:
        app.put_object(Bucket=binding["database"], Key=f"{binding['schema']}kv/a.json", Body=b"{}")
        meta = app.get_object(Bucket=binding["database"], Key=f"{binding['schema']}meta.json")
        assert json.load(meta["Body"])["contract"] == 1
    maintained = laptop.run("maintain")
    assert maintained.returncode == 0, maintained.stderr
    assert re.search(r"^DATA +[1-9]\d* rows?", maintained.stdout, re.MULTILINE)


@pytest.mark.long
@pytest.mark.xdist_group("rgw")
def test_s3_with_the_admins_keys_handed_out(laptop: Laptop, rgw: Rgw, claim: Object) -> None:
    """The Job writes them into a Secret of the Memory's, as its token may on a cluster."""
    provider = provider_of("s3-shared", endpoint=rgw.endpoint, region=rgw.region, bucketPrefix=None, bucket=rgw.name())
    claim = at(claim, provider)
    output = run(laptop, "demo", provider, claim, admin_of(provider, rgw.admin.access_key, rgw.admin.secret_key))
    binding = read(laptop.state / "bindings" / "team-b" / "notes-memory")
    assert (binding["username"], binding["password"]) == (rgw.admin.access_key, rgw.admin.secret_key)
    assert "has the same keys (s3.users is Shared), so nothing keeps them apart" in output
