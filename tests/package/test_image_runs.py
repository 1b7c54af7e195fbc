"""The images' own Python, libraries and code at work: in a folder as root, as the users that clusters run them as.

The same on a cluster, with a root that is read-only: tests/e2e/test_images.py.
"""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from migrations.errors import Code
from scripts import dockerfile, images
from scripts.project import ROOT
from tests.package.image import can_assemble

pytestmark = pytest.mark.skipif(not can_assemble(), reason="root's, on Debian bookworm; elsewhere make e2e proves it")

SECONDS = 20
# Ours, Crossplane's own for functions, and an app's that nobody foresaw.
USERS = (65532, 2000, 65534)


@pytest.fixture(scope="module", params=images.TARGETS)
def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each image's files in a folder of the test's own."""
    folder: Path = tmp_path_factory.mktemp("root") / request.param
    shutil.copytree(images.rootfs(request.param), folder, symlinks=True)
    folder.parent.chmod(0o755)
    # The one device that gRPC opens; a container runtime gives it.
    os.mknod(folder / "dev" / "urandom", stat.S_IFCHR | 0o666, os.makedev(1, 9))
    (folder / "dev" / "urandom").chmod(0o666)
    return folder


def command(folder: Path, user: int, *arguments: str) -> list[str]:
    """A command in an image's files, as a user."""
    return [shutil.which("chroot") or "/usr/sbin/chroot", f"--userspec={user}:{user}", str(folder), *arguments]


def environment(target: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The image's own, and nothing of this machine's."""
    settings = dockerfile.settings((ROOT / "Dockerfile").read_text(), target, images.labels())
    return dict(entry.split("=", 1) for entry in settings["Env"]) | dict(more or {})


def python(folder: Path, code: str, user: int = USERS[0]) -> str:
    """Run Python in an image, and give what it prints."""
    return subprocess.run(
        command(folder, user, "python", "-c", code),
        env=environment(folder.name),
        check=True,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    ).stdout


def test_every_module_of_ours_loads(unpacked: Path) -> None:
    """With all that it imports: the lock and Debian's libraries are complete."""
    code = (
        f"import pkgutil, importlib, {unpacked.name} as top\n"
        "names = [each.name for each in pkgutil.walk_packages(top.__path__, top.__name__ + '.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(len(names))"
    )
    assert int(python(unpacked, code)) > 10


def test_python_is_the_one_that_it_was_compiled_for(unpacked: Path) -> None:
    """No module is read from source: with no bytecode for it, a read-only root would compile it at every start."""
    code = f"import sys, {unpacked.name}; print(sys.version_info[:2], {unpacked.name}.__cached__)"
    said = python(unpacked, code)
    assert said == f"(3, 11) /app/{unpacked.name}/__pycache__/__init__.cpython-311.pyc\n"


@contextlib.contextmanager
def _served(folder: Path, user: int) -> Iterator[int]:
    words = dockerfile.settings((ROOT / "Dockerfile").read_text(), "function", images.labels())["Entrypoint"]
    options = ["--insecure", "--address=127.0.0.1:0", "--metrics-address=127.0.0.1:0"]
    child = subprocess.Popen(
        command(folder, user, *words, *options), env=environment("function"), stdout=subprocess.PIPE, text=True
    )
    with child:
        try:
            assert child.stdout
            yield json.loads(child.stdout.readline())["port"]
            child.send_signal(signal.SIGTERM)
            child.communicate(timeout=SECONDS)
            assert child.returncode == 0
        finally:
            child.kill()


@pytest.mark.parametrize("unpacked", ["function"], indirect=True)
@pytest.mark.parametrize("user", USERS)
def test_the_function_answers_health(unpacked: Path, user: int) -> None:
    with _served(unpacked, user) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest(service="")
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert not list((unpacked / "tmp").iterdir())


@pytest.mark.parametrize("unpacked", ["migrations"], indirect=True)
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        pytest.param([], Code.USAGE, "usage: python -m migrations", id="no command"),
        pytest.param(["provision"], Code.BAD_REQUEST, "bad request document", id="a bad request"),
    ],
)
def test_the_provisioner_answers_with_its_exit_code(
    unpacked: Path, user: int, words: list[str], code: Code, sentence: str
) -> None:
    request = unpacked / "memory" / "request.json"
    request.parent.mkdir(exist_ok=True)
    request.write_text("[]")
    done = subprocess.run(
        command(unpacked, user, "python", "-m", "migrations", *words),
        env=environment("migrations"),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == code, done.stderr
    assert sentence in done.stdout + done.stderr


@pytest.mark.parametrize("unpacked", ["migrations"], indirect=True)
def test_the_driver_brings_its_own_library(unpacked: Path) -> None:
    """Psycopg falls back to slow Python, or to a library that is not there, without a word."""
    assert python(unpacked, "import psycopg; print(psycopg.pq.__impl__)") == "binary\n"


@pytest.mark.parametrize("unpacked", ["migrations"], indirect=True)
def test_clients_of_other_backends_work_from_the_images_files(unpacked: Path) -> None:
    """They reach for a server on a port where none is: what they read on the way is there, down to the TLS library."""
    code = (
        "import boto3, botocore.exceptions, botocore.config, redis\n"
        "config = botocore.config.Config(retries={'total_max_attempts': 1}, connect_timeout=1)\n"
        "calls = [('s3', 'list_buckets'), ('iam', 'list_users'), ('sts', 'get_caller_identity')]\n"
        "for service, call in calls:\n"
        "    client = boto3.client(service, endpoint_url='https://127.0.0.1:1', region_name='default', config=config,\n"
        "                          aws_access_key_id='a', aws_secret_access_key='b')\n"
        "    try: getattr(client, call)()\n"
        "    except botocore.exceptions.EndpointConnectionError: print(service)\n"
        "try: redis.Redis(host='127.0.0.1', port=1, ssl=True).ping()\n"
        "except redis.exceptions.ConnectionError: print('redis')\n"
    )
    assert python(unpacked, code).split() == ["s3", "iam", "sts", "redis"]


def test_no_shell_starts(unpacked: Path) -> None:
    for shell in ("sh", "/bin/sh", "/bin/bash", "busybox"):
        done = subprocess.run(command(unpacked, 0, shell, "-c", "id"), capture_output=True, text=True, check=False)
        assert (done.returncode, "No such file" in done.stderr) == (127, True)
