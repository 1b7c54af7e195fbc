"""Rotations on a laptop: the real function, real Jobs and a real server, under an app that does not stop writing."""

import contextlib
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from memoryctl import binding, definitions, function
from memoryctl.cluster import Cluster, locked
from memoryctl.crossplane import Crossplane
from memoryctl.jobs import Jobs
from memoryctl.objects import API_VERSION, Key, Object, is_true, make_secret, secret_data, secret_key
from tests.memoryctl.conftest import Laptop, environment
from tests.writer import RATE

CLAIM = Key(API_VERSION, "Memory", "team-a", "notes")
ROOT_KEY = secret_key("crossplane-system", "memory-root-key")
WRITER = definitions.ROOT / "tests" / "writer.py"
ROTATIONS = 10
SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Plane:
    """The control plane of a laptop, driven step by step."""

    laptop: Laptop
    cluster: Cluster
    crossplane: Crossplane
    jobs: Jobs

    def rotate(self, **credentials: Any) -> str:
        """Changes `credentials` of the claim, reconciles until it is Ready, and gives the uri of its binding."""
        self.cluster.patch(CLAIM, {"spec": {"credentials": credentials}})
        self.converge()
        told = self.cluster.require(CLAIM)
        assert is_true(told, "Ready"), told["status"]
        assert told["status"]["credentials"]["epoch"] == told["spec"]["credentials"]["epoch"]
        return (self.laptop.binding / "uri").read_text()

    def converge(self) -> None:
        """Reconciles and runs Jobs until nothing changes; bindings follow at once."""
        while True:
            revision = self.cluster.revision
            self.crossplane.reconcile()
            binding.write_all(self.cluster, self.laptop.state / "bindings")
            self.jobs.start()
            if self.cluster.revision == revision:
                if not self.jobs.busy:
                    return
                assert self.jobs.wait(SECONDS), "a Job did not end"

    def replace_root_key(self) -> None:
        """As docs/install.md says it."""
        held = secret_data(self.cluster.require(ROOT_KEY))["current"]
        self.cluster.delete(ROOT_KEY)
        self.cluster.apply(make_secret(ROOT_KEY, {"current": bytes(reversed(held)), "previous": held}))


@pytest.fixture
def plane(laptop: Laptop, provider: Object, claim: Object) -> Iterator[Plane]:
    done = laptop.up(provider, claim)
    assert done.returncode == 0, done.stderr
    with locked(laptop.state), function.process(laptop.state / "logs" / "function.log") as process:
        process.wait_ready()
        cluster = laptop.cluster
        crossplane = Crossplane(cluster, definitions.load(), function.Pipeline(process.channel, cluster))
        with contextlib.closing(Jobs(cluster, laptop.state)) as jobs:
            yield Plane(laptop, cluster, crossplane, jobs)


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """An app at work."""
    command = [sys.executable, str(WRITER), str(directory)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment()) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "writing\n", process.stderr and process.stderr.read()
            yield process
        finally:
            process.kill()


def stop(process: subprocess.Popen[str]) -> Any:
    """Gives what an app saw."""
    process.terminate()
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def refused(uri: str) -> bool:
    """Whether the server knows this login and password no more."""
    try:
        psycopg.connect(uri).close()
    except psycopg.OperationalError as error:
        return re.search(r"password authentication failed|not permitted to log in", str(error)) is not None
    return False


@pytest.mark.long
def test_an_app_writes_through_ten_rotations_and_a_new_root_key(plane: Plane) -> None:
    uris = [(plane.laptop.binding / "uri").read_text()]
    key_id = plane.cluster.require(CLAIM)["status"]["credentials"]["keyId"]
    with writing(plane.laptop.binding) as process:
        for epoch in range(1, ROTATIONS + 1):
            if epoch == ROTATIONS // 2:
                plane.replace_root_key()
                plane.converge()
                assert (plane.laptop.binding / "uri").read_text() == uris[-1], "no password changes by that"
            uris.append(plane.rotate(epoch=epoch))
            # The login that is in the Secret, and the one before; of all others, nobody knows a password that works.
            assert [refused(uri) for uri in uris] == [True] * (epoch - 1) + [False, False]
        seen = stop(process)
    with psycopg.connect(uris[-1]) as connection:
        query = "SELECT (payload->>'number')::int FROM memory_events WHERE event_type = 'tick' ORDER BY 1"
        rows = [row[0] for row in connection.execute(query).fetchall()]
    assert rows == list(range(seen["written"])), "none lost, none twice"
    assert seen["written"] > RATE * ROTATIONS / 10
    # It stays on its connection until the slot is taken, every second epoch of a login.
    assert len(seen["logins"]) >= ROTATIONS / 2
    assert plane.cluster.require(CLAIM)["status"]["credentials"]["keyId"] != key_id
    print(seen)


@pytest.mark.long
def test_previous_may_go_when_the_epoch_has_moved_on(plane: Plane) -> None:
    plane.replace_root_key()
    old = (plane.laptop.binding / "uri").read_text()
    new = plane.rotate(epoch=1)
    current = secret_data(plane.cluster.require(ROOT_KEY))["current"]
    plane.cluster.delete(ROOT_KEY)
    plane.cluster.apply(make_secret(ROOT_KEY, {"current": current}))
    plane.converge()
    assert is_true(plane.cluster.require(CLAIM), "Ready")
    assert [refused(old), refused(new)] == [False, False]
    plane.rotate(epoch=1, revokeOld=True)
    assert [refused(old), refused(new)] == [True, False]


@pytest.mark.long
def test_a_revoked_login_is_refused_and_its_open_connections_end(plane: Plane) -> None:
    old = (plane.laptop.binding / "uri").read_text()
    with writing(plane.laptop.binding) as process, contextlib.closing(psycopg.connect(old)) as idle:
        new = plane.rotate(epoch=1, revokeOld=True)
        with pytest.raises(psycopg.OperationalError):
            idle.execute("SELECT 1")
        assert [refused(old), refused(new)] == [True, False]
        seen = stop(process)
    with psycopg.connect(new) as connection:
        row = connection.execute("SELECT count(*) FROM memory_events WHERE event_type = 'tick'").fetchone()
        assert row == (seen["written"],)
        sessions = "SELECT DISTINCT usename FROM pg_stat_activity WHERE usename LIKE 'mem\\_%\\_rw\\__'"
        assert [name for (name,) in connection.execute(sessions)] == [connection.info.user]


@pytest.mark.long
def test_epochs_that_were_skipped_leave_no_app_outside(plane: Plane) -> None:
    """Slot a is taken again at once, and only after the Secret held slot b."""
    old = (plane.laptop.binding / "uri").read_text()
    with writing(plane.laptop.binding) as process:
        new = plane.rotate(epoch=4)
        seen = stop(process)
    assert old.split(":")[1] == new.split(":")[1], "the same login, another password"
    assert [refused(old), refused(new)] == [True, False]
    with psycopg.connect(new) as connection:
        row = connection.execute("SELECT count(*) FROM memory_events WHERE event_type = 'tick'").fetchone()
    assert row == (seen["written"],)


def test_up_rotates_a_claim_whose_epoch_grew(laptop: Laptop, provider: Object, claim: Object) -> None:
    laptop.up(provider, claim)
    old = (laptop.binding / "uri").read_text()
    claim["spec"]["credentials"] = {"epoch": 1}
    done = laptop.up(claim)
    assert done.returncode == 0, done.stderr
    new = (laptop.binding / "uri").read_text()
    assert "_rw_a:" in old
    assert "_rw_b:" in new
    assert [refused(old), refused(new)] == [False, False]
    claim["spec"]["credentials"] = {"epoch": 2, "revokeOld": True}
    assert laptop.up(claim).returncode == 0
    assert [refused(old), refused(new)] == [True, True]
    claim["spec"]["credentials"] = {"epoch": 1}
    done = laptop.up(claim)
    assert done.returncode == 1
    assert "CredentialsReady=False/EpochLowered: spec.credentials.epoch: 1 is lower than 2" in done.stderr
    assert (laptop.binding / "uri").read_text() not in {old, new}
