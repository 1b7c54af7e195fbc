"""ttlDays on S3: the server's own lifecycle, from one document for all Memories of a bucket.

The test server's day has five seconds.
"""

import threading
import time
from typing import Any

import pytest

from migrations.s3 import lifecycle
from tests.migrations.s3.memories import Memory, Runner
from tests.rgw import Rgw

pytestmark = pytest.mark.xdist_group("rgw")

LIMIT = 90.0
DAY = 5.0
FOREIGN = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}


def rules_of(memory: Memory) -> dict[str, dict[str, Any]]:
    with memory.rgw.client() as admin:
        found = admin.get_bucket_lifecycle_configuration(Bucket=memory.home)["Rules"]
    return {each["ID"]: each for each in found}


def prefixes(memory: Memory) -> set[str]:
    return {each["Filter"]["Prefix"] for each in rules_of(memory).values() if "Expiration" in each}


def of(memory: Memory) -> set[str]:
    return {f"{memory.prefix}{kind}/" for kind in ("events", "event-ids", "kv", "embeddings")}


def other_of(memory: Memory, **changes: Any) -> Memory:
    return memory.but(identity="team-b/notes", uid="uid-2", secrets={"rw_a": "b", "ro_a": "c"}, **changes)


@pytest.mark.long
def test_document_holds_each_memorys_rules_and_those_of_others(memory: Memory, runner: Runner) -> None:
    first = runner.ready(memory.but(ttl=7, provider={"lifecycle": {"transitionDays": 30, "storageClass": "STANDARD"}}))
    forever = runner.ready(other_of(memory))
    with memory.rgw.client() as admin:
        admin.put_bucket_lifecycle_configuration(Bucket=memory.home, LifecycleConfiguration={"Rules": [FOREIGN]})
    answer = runner.maintain(first)
    assert answer.report["message"] == "homes: 2 looked after"
    rules = rules_of(first)
    assert rules["theirs"] == FOREIGN
    assert prefixes(first) == of(first) | {"tmp/"}
    assert {each["Expiration"]["Days"] for key, each in rules.items() if "Expiration" in each and key != "theirs"} == {
        7
    }
    assert rules["memory-proompteng-transition"]["Transitions"] == [{"Days": 30, "StorageClass": "STANDARD"}]
    assert "AbortIncompleteMultipartUpload" in rules["memory-proompteng-uploads"]
    for each in (first, forever):
        assert runner.told(each)["retention"] == {"lastRun": None, "deleted": 0, "message": ""}
    again = runner.maintain(first)
    assert not [line for line in again.log if "rules" in line], "what is right is not written again"


@pytest.mark.long
def test_hold_and_longer_time_take_effect_at_once(memory: Memory, runner: Runner) -> None:
    runner.ready(memory.but(ttl=7))
    runner.maintain(memory)
    runner.ready(memory.but(ttl=30))
    assert {each["Expiration"]["Days"] for each in rules_of(memory).values() if "Expiration" in each} == {30}
    assert runner.provision(memory.but(ttl=30, hold=True)).code == 0
    assert prefixes(memory) == set()
    runner.ready(memory.but(ttl=30))
    runner.maintain(memory)
    assert prefixes(memory) == of(memory)
    runner.ready(memory)
    assert prefixes(memory) == set()


@pytest.mark.long
def test_hold_takes_effect_though_the_first_run_was_killed(
    memory: Memory, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.ready(memory.but(ttl=7))
    runner.maintain(memory)
    assert prefixes(memory) == of(memory)
    with monkeypatch.context() as patch:
        patch.setattr("migrations.s3.provision.lifecycle.write", _die)
        assert runner.provision(memory.but(ttl=7, hold=True)).code == 1
    assert prefixes(memory) == of(memory)
    assert runner.provision(memory.but(ttl=7, hold=True)).code == 0
    assert prefixes(memory) == set()


def _die(*_: Any, **__: Any) -> None:
    raise SystemError


@pytest.mark.long
def test_rules_that_find_no_room_are_told(memory: Memory, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    first = runner.ready(memory.but(ttl=7))
    time.sleep(1.1)  # the entries' times have seconds, and the older home has its rules first
    second = runner.ready(other_of(memory, ttl=7))
    monkeypatch.setattr(lifecycle, "MANY_RULES", 8)
    answer = runner.maintain(memory)
    assert answer.code == 0
    assert prefixes(memory) == of(first)
    assert runner.told(first)["retention"]["message"] == ""
    assert runner.told(second)["retention"]["message"] == (
        f'bucket "{memory.home}" has 8 lifecycle rules, as many as S3 takes: nothing of this Memory expires; give it a '
        "provider with another bucket"
    )


@pytest.mark.long
def test_retention_that_a_lock_makes_longer_is_said(memory: Memory, runner: Runner) -> None:
    locking = {"versioning": True, "objectLock": {"mode": "GOVERNANCE", "days": 30}}
    assert runner.provision(memory.but(ttl=7, provider=locking)).report["warnings"] == [
        f'bucket "{memory.home}" locks new objects for 30 days, so their versions stay that long although ttlDays is 7'
    ]


class Writer(threading.Thread):
    """An app that writes all the time: events that are new each, and one value again and again."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory
        self.stopped = threading.Event()
        self.written: dict[str, float] = {}

    def run(self) -> None:
        with self.memory.client() as client:
            number = 0
            while not self.stopped.wait(0.2):
                for key in (f"events/{number:06}.json", "kv/busy.json"):
                    # Its age counts from some moment of the call, which may take long.
                    began = time.time()
                    client.put_object(Bucket=self.memory.home, Key=self.memory.prefix + key, Body=b"1")
                    self.written[key] = began
                number += 1


def keys_of(memory: Memory, rgw: Rgw) -> set[str]:
    found: set[str] = set()
    with rgw.client() as admin:
        for page in admin.get_paginator("list_objects_v2").paginate(Bucket=memory.home, Prefix=memory.prefix):
            found |= {each["Key"].removeprefix(memory.prefix) for each in page.get("Contents", [])}
    return found


@pytest.mark.long
@pytest.mark.parametrize("provider", [{}, {"versioning": True}], ids=["plain", "versions"])
def test_what_is_older_goes_and_nothing_younger_while_a_writer_runs(
    memory: Memory, runner: Runner, provider: dict[str, Any]
) -> None:
    days = 3
    short = runner.ready(memory.but(ttl=days, provider=provider))
    forever = runner.ready(other_of(memory, provider=provider))
    with forever.client() as client:
        client.put_object(Bucket=forever.home, Key=f"{forever.prefix}kv/old.json", Body=b"1")
    runner.maintain(short)
    writer = Writer(short)
    writer.start()
    try:
        limit = time.monotonic() + LIMIT
        gone = False
        while not gone and time.monotonic() < limit:
            time.sleep(0.5)
            written = dict(writer.written)
            there = keys_of(short, short.rgw)
            # Ceph counts an object's age from the whole second in which it was written.
            young = {key for key, when in written.items() if time.time() - when < days * DAY - 1}
            assert young <= there, "something younger than ttlDays is gone"
            gone = "events/000000.json" in written and "events/000000.json" not in there
        assert gone, "nothing expired"
    finally:
        writer.stopped.set()
        writer.join()
    assert "kv/busy.json" in there
    assert {"meta.json"} < keys_of(short, short.rgw)
    assert "kv/old.json" in keys_of(forever, forever.rgw)
