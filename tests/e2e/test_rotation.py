"""Rotations under an app that does not stop writing, and on schedule."""

import base64
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import database, guide
from tests.e2e.client import pod
from tests.e2e.conftest import ready_memory
from tests.e2e.kube import MEMORY, SYSTEM, Body, Kube, is_ready, memory
from tests.e2e.times import Measured
from tests.writer import RATE

pytestmark = pytest.mark.e2e

ROTATIONS = 10
# A rotation makes some 55 events, and Crossplane's circuit breaker takes one a second (docs/install.md).
PACE_SECONDS = 60
SECONDS = 300
WRITER = (Path(__file__).parents[1] / "writer.py").read_text()
MOUNT = Path("/bindings/memory")
# Tries [user, password] pairs, and prints which of them the server refuses.
TRY = f"""
import json, pathlib, psycopg, sys
value = lambda key: pathlib.Path("{MOUNT}", key).read_text()

def refused(user, password):
    try:
        psycopg.connect(
            host=value("host"), port=value("port"), dbname=value("database"), user=user, password=password,
            sslmode="verify-full", sslrootcert="{MOUNT}/ca.crt", connect_timeout=10,
        ).close()
    except psycopg.OperationalError as error:
        assert "password authentication failed" in str(error) or "not permitted to log in" in str(error), error
        return True
    return False

print(json.dumps([refused(*pair) for pair in json.loads(sys.argv[1])]))
"""


def secret(kube: Kube, team: str, name: str) -> dict[str, str]:
    """Entries of a connection Secret."""
    data = kube.get("secret", name, team)["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


@dataclass
class Writing:
    """A pod that writes 200 times a second, and whoever looks at it."""

    kube: Kube
    team: str
    name: str = "writer"

    def python(self, script: str, *arguments: str) -> str:
        """Run a script beside it, with the same Secret."""
        return self.kube("exec", "-n", self.team, self.name, "--", "python", "-c", script, *arguments)

    def refused(self, pairs: list[tuple[str, str]]) -> list[bool]:
        """Say which of some logins and passwords the server refuses."""
        found: list[bool] = json.loads(self.python(TRY, json.dumps(pairs)))
        return found

    def sees(self, username: str) -> bool:
        """Whether the mounted Secret holds this login."""
        return self.python(f"print(open('{MOUNT}/username').read())").strip() == username

    def refresh(self, username: str) -> None:
        """Wait until the mounted Secret holds this login.

        The kubelet looks at its pods once a minute or so; at one that is changed it looks at once, and that is all that
        the annotation is for.
        """
        for number in itertools.count():
            self.kube("annotate", "pod", self.name, "-n", self.team, f"looked=at-{username}-{number}", "--overwrite")
            if self.sees(username):
                return
            assert number < SECONDS

    def stop(self) -> Any:
        """End it, and give what it saw."""
        self.python("import os, signal; os.kill(1, signal.SIGTERM)")

        def ended() -> bool | None:
            phase = self.kube.get("pod", self.name, self.team)["status"]["phase"]
            assert phase != "Failed", self.kube("logs", self.name, "-n", self.team)
            return phase == "Succeeded" or None

        self.kube.until("the writer has ended", ended)
        return json.loads(self.kube("logs", self.name, "-n", self.team).splitlines()[-1])


@pytest.fixture
def writing(platform: Kube, team: Callable[[], str], image: str) -> Writing:
    """An app at work on a Memory `spins`."""
    name = team()
    platform.apply(memory(name, "spins"))
    ready_memory(platform, name, "spins")
    body = pod(name, "writer", "spins-memory", image, "")
    body["spec"]["containers"][0]["command"] = ["python", "-c", WRITER, str(MOUNT)]
    platform("create", "-f", "-", body=body)
    made = Writing(platform, name)
    platform.until("it writes", lambda: "writing" in platform.run("logs", "writer", "-n", name).stdout or None)
    return made


def rotate(kube: Kube, team: str, name: str, **credentials: Any) -> Body:
    """Ask for credentials, and wait until the Memory is Ready with them."""
    kube("patch", MEMORY, name, "-n", team, "--type=merge", "-p", json.dumps({"spec": {"credentials": credentials}}))
    return applied(kube, team, name, credentials["epoch"])


def applied(kube: Kube, team: str, name: str, epoch: int) -> Body:
    """Wait until a Memory is Ready with an epoch, and nothing of its composite is still to be done."""

    def look() -> Body | None:
        found = kube.get(MEMORY, name, team)
        there = found.get("status", {}).get("credentials", {}).get("epoch") == epoch
        return found if there and is_ready(found) else None

    return kube.until(f"Memory {team}/{name} is Ready with epoch {epoch}", look, SECONDS)


def pace(kube: Kube) -> None:
    """Go no faster than Crossplane takes the events of one composite."""
    begin = time.monotonic()
    kube.until("the circuit breaker has room", lambda: time.monotonic() - begin >= PACE_SECONDS or None)


def replace_root_key(kube: Kube, environment: Mapping[str, str]) -> None:
    """Make another key the current one; the Memories of other scenarios go on with the one under `previous`.

    A key that is under `previous` already (of an earlier run on this cluster) takes its turn: none is ever forgotten.
    """
    held = kube.get("secret", "memory-root-key", SYSTEM)["data"]
    if "previous" not in held:
        guide.follow("Replacing the root key", environment)
        return
    turned = {"data": {"current": held["previous"], "previous": held["current"]}}
    kube("patch", "secret", "memory-root-key", "-n", SYSTEM, "--type=merge", "-p", json.dumps(turned))


def pids(kube: Kube, login: str) -> set[str]:
    """Processes of the server that serve a login."""
    return set(database.ask(kube, f"SELECT pid FROM pg_stat_activity WHERE usename = '{login}'").split())


def test_an_app_writes_through_ten_rotations_and_a_new_root_key(
    platform: Kube, writing: Writing, environment: Mapping[str, str], measured: Measured
) -> None:
    """No write is lost, and each that was refused goes through when the Secret is read again."""
    team = writing.team
    first = secret(platform, team, "spins-memory")
    keys = {platform.get(MEMORY, "spins", team)["status"]["credentials"]["keyId"]}
    pairs = [(first["username"], first["password"])]
    with measured.seconds(f"{ROTATIONS} rotations and a new root key under {RATE} writes a second"):
        for epoch in range(1, ROTATIONS + 1):
            pace(platform)
            if epoch == ROTATIONS // 2:
                replace_root_key(platform, environment)
            taken = pairs[-2][0] if epoch > 1 else ""
            before = pids(platform, taken)
            claim = rotate(platform, team, "spins", epoch=epoch)
            keys.add(claim["status"]["credentials"]["keyId"])
            now = secret(platform, team, "spins-memory")
            pairs.append((now["username"], now["password"]))
            assert not before & pids(platform, taken), "the sessions of the login that was taken have ended"
            # Of all passwords so far, those of this epoch and of the one before work.
            assert writing.refused(pairs) == [True] * (epoch - 1) + [False, False]
            writing.refresh(now["username"])
    assert len(keys) == 2
    pace(platform)
    rotate(platform, team, "spins", epoch=ROTATIONS, revokeOld=True)
    platform.until("the login of the epoch before is closed", lambda: writing.refused(pairs[-2:-1])[0] or None)
    assert writing.refused(pairs) == [True] * ROTATIONS + [False]
    platform.until("its sessions have ended", lambda: not pids(platform, pairs[-2][0]) or None)
    seen = writing.stop()
    schema = first["schema"]
    assert re.fullmatch(r"\w+", schema)
    rows = database.ask(
        platform,
        "SELECT count(*), count(DISTINCT payload->>'number'), min((payload->>'number')::int),"
        f" max((payload->>'number')::int) FROM {schema}.memory_events WHERE event_type = 'tick'",
    )
    written = seen["written"]
    assert rows == f"{written}|{written}|0|{written - 1}", "none lost, none twice"
    assert written > RATE * seen["seconds"] / 2
    assert set(seen["logins"]) == {user for user, _ in pairs}
    tried = sum(seen["refused"].values())
    measured.note(f"writes through them, {tried} tried again, none lost", str(written))
    measured.note("the longest that a write took", f"{seen['slowest']:.2f} s")


@pytest.fixture
def scheduled(platform: Kube, environment: Mapping[str, str]) -> Iterator[Kube]:
    """The guide's first Memory; the schedule goes in the end."""
    guide.follow("First Memory", environment)
    yield platform
    platform("delete", "-f", str(guide.ROOT / "examples/rotation/schedule.yaml"), "--ignore-not-found")
    platform.delete("job", "notes-rotation-now", "team-a")


def test_the_schedule_of_the_guide_rotates(scheduled: Kube, environment: Mapping[str, str]) -> None:
    """The CronJob exactly as it is written there, started once by hand."""
    epoch = scheduled.get(MEMORY, "notes", "team-a")["spec"]["credentials"]["epoch"]
    before = secret(scheduled, "team-a", "notes-memory")
    said = guide.follow("Rotation on schedule", environment)
    assert f"epoch {epoch + 1} is asked for" in said
    applied(scheduled, "team-a", "notes", epoch + 1)
    after = secret(scheduled, "team-a", "notes-memory")
    assert {key for key in before if before[key] != after[key]} == {"username", "password", "uri"}
    assert scheduled.get(MEMORY, "notes", "team-a")["spec"]["credentials"]["epoch"] == epoch + 1
