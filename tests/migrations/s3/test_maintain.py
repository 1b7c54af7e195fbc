"""Maintenance on S3: drift, integrity of locked objects, and how much there is."""

import hashlib
from typing import Any

import pytest

from migrations.s3 import maintain as maintaining
from tests.migrations.s3.memories import Memory, Runner

pytestmark = pytest.mark.xdist_group("rgw")

LOCKING = {"versioning": True, "objectLock": {"mode": "GOVERNANCE", "days": 1}}


def put(memory: Memory, key: str, body: bytes = b"1", noted: bytes | None = None) -> None:
    digest = hashlib.sha256(body if noted is None else noted).hexdigest()
    with memory.client() as client:
        client.put_object(Bucket=memory.home, Key=memory.prefix + key, Body=body, Metadata={"sha256": digest})


@pytest.mark.long
def test_a_sound_memory_is_told_with_what_it_has(memory: Memory, runner: Runner) -> None:
    runner.ready(memory)
    put(memory, "kv/a.json", b"12345")
    put(memory, "embeddings/k/0.json", b"123")
    answer = runner.maintain(memory)
    assert (answer.report["message"], answer.report["homes"]) == ("homes: 1 looked after", {"inUse": 1, "failed": 0})
    told = runner.told(memory)
    oldest = told["data"].pop("oldest")
    assert oldest.endswith("T00:00:00Z")
    assert told["data"] == {"rows": 2, "bytes": 8, "deadPercent": 0, "held": 0}
    assert (told["drift"], told["code"]) == ([], 0)
    assert told["index"] == {
        "state": "exact",
        "reason": "Exact",
        "message": "searches are exact: a client reads all embeddings",
        "rows": 1,
        "bytes": 3,
    }
    assert "integrity" not in told, "without object lock there is nothing to vouch for"


@pytest.mark.long
def test_empty_memory_without_embeddings(memory: Memory, runner: Runner) -> None:
    runner.ready(memory.but(embeddings={"enabled": False}))
    runner.maintain(memory)
    told = runner.told(memory)
    assert told["index"]["reason"] == "Disabled"
    assert (told["data"]["rows"], told["data"]["oldest"]) == (0, None)


def test_locked_object_that_is_not_what_was_written_is_found(memory: Memory, runner: Runner) -> None:
    locked = runner.ready(memory.but(provider=LOCKING))
    put(locked, "kv/good.json")
    put(locked, "kv/bad.json", b"1", noted=b"another")
    with locked.client() as client:
        client.put_object(Bucket=locked.home, Key=f"{locked.prefix}kv/silent.json", Body=b"1")
    runner.maintain(locked)
    told = runner.told(locked)
    at = told["integrity"].pop("at")
    assert at.endswith("T00:00:00Z")
    assert told["integrity"] == {"checked": 2, "failed": 1}, "an object that says nothing of itself is not counted"
    assert told["drift"] == [f"object {locked.prefix}kv/bad.json is not what was written: its sha256 differs"]


@pytest.mark.long
def test_sample_is_bounded(memory: Memory, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = runner.ready(memory.but(provider=LOCKING))
    for number in range(5):
        put(locked, f"kv/{number}.json")
    monkeypatch.setattr(maintaining, "SAMPLE", 2)
    runner.maintain(locked)
    assert runner.told(locked)["integrity"]["checked"] == 2


def break_all(memory: Memory) -> None:
    """Changes by hand what provisioning made."""
    rgw = memory.rgw
    with rgw.client(service="iam") as iam, rgw.client() as s3:
        document = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
        iam.put_user_policy(UserName=memory.name("rw_a"), PolicyName="memory", PolicyDocument=document)
        iam.put_user_policy(UserName=memory.name("rw_a"), PolicyName="more", PolicyDocument=document)
        s3.put_object(Bucket=memory.home, Key=f"{memory.prefix}meta.json", Body=b"{}")
        s3.put_bucket_versioning(Bucket=memory.home, VersioningConfiguration={"Status": "Suspended"})
        s3.delete_public_access_block(Bucket=memory.home)
    rgw.run("user", "modify", "--uid", memory.name("ro_a"), "--max-buckets", "5")
    rgw.run("user", "suspend", "--uid", memory.name("ro_a"))
    rgw.run("caps", "add", "--uid", memory.name("rw_a"), "--caps", "users=read")
    rgw.run("key", "create", "--uid", memory.name("rw_a"), "--access-key", f"{memory.id}extra", "--secret-key", "x")


@pytest.fixture
def versioned(memory: Memory, runner: Runner) -> Memory:
    return runner.ready(memory.but(provider={"versioning": True}))


def differences(memory: Memory) -> list[str]:
    rw, ro, bucket = memory.name("rw_a"), memory.name("ro_a"), memory.home
    return [
        f'bucket "{bucket}" keeps no versions',
        f'bucket "{bucket}" lets ACLs make objects public',
        f"{memory.prefix}meta.json does not say what it should",
        f'user "{rw}" has another access key',
        f'user "{rw}" has caps of the admin API',
        f'user "{rw}" has a policy of another\'s, "more"',
        f'the policy of user "{rw}" is not what it should be',
        f'user "{ro}" is suspended',
        f'user "{ro}" may make buckets',
    ]


@pytest.mark.long
def test_drift_is_told_and_left(versioned: Memory, runner: Runner) -> None:
    break_all(versioned)
    runner.maintain(versioned)
    assert sorted(runner.told(versioned)["drift"]) == sorted(differences(versioned))
    runner.maintain(versioned)
    assert sorted(runner.told(versioned)["drift"]) == sorted(differences(versioned))


@pytest.mark.long
def test_drift_is_put_right_where_that_is_asked_for(versioned: Memory, runner: Runner) -> None:
    break_all(versioned)
    runner.maintain(versioned, "Repair")
    runner.maintain(versioned)
    assert runner.told(versioned)["drift"] == []
    put(versioned, "kv/a.json")


@pytest.mark.long
def test_user_that_is_gone_is_told_and_made_by_the_next_provisioning(versioned: Memory, runner: Runner) -> None:
    versioned.rgw.run("user", "rm", "--uid", versioned.name("ro_a"))
    versioned.rgw.run("key", "rm", "--uid", versioned.name("rw_a"), "--access-key", versioned.name("rw_a"))
    runner.maintain(versioned, "Repair")
    told = runner.told(versioned)["drift"]
    assert f'user "{versioned.name("ro_a")}" is not there' in told
    assert f'user "{versioned.name("rw_a")}" lacks its key' in told
    runner.ready(versioned)
    runner.maintain(versioned)
    assert runner.told(versioned)["drift"] == []
    put(versioned, "kv/a.json")


@pytest.mark.long
def test_closed_login_that_somebody_opened_is_drift(versioned: Memory, runner: Runner) -> None:
    after = runner.ready(versioned.but(secrets={"rw_b": "b"}))
    name = versioned.name("rw_a")
    after.rgw.run("user", "enable", "--uid", name)
    after.rgw.run("key", "create", "--uid", name, "--access-key", f"{after.id}again", "--secret-key", "x")
    runner.maintain(after, "Repair")
    assert runner.told(after)["drift"] == [f'user "{name}" may log in', f'user "{name}" has a key']
    runner.maintain(after)
    assert runner.told(after)["drift"] == []


@pytest.mark.long
def test_bucket_that_is_gone_fails_its_homes_and_no_others(memory: Memory, runner: Runner) -> None:
    base = memory.but(bucket=None, bucket_prefix=memory.rgw.name("own"))
    lost = runner.ready(base)
    sound = runner.ready(base.but(identity="team-b/notes", uid="uid-2"))
    with lost.rgw.client() as admin:
        admin.delete_object(Bucket=lost.home, Key=f"{lost.prefix}meta.json")
        admin.delete_bucket(Bucket=lost.home)
    answer = runner.maintain(base)
    assert (answer.report["code"], answer.report["homes"]) == (30, {"inUse": 2, "failed": 1})
    assert f'bucket: bucket "{lost.home}" is gone' in answer.message
    assert runner.told(lost)["message"] == f'bucket: bucket "{lost.home}" is gone'
    assert runner.told(sound)["drift"] == []


def test_nothing_to_look_after(memory: Memory, runner: Runner) -> None:
    answer = runner.maintain(memory)
    assert (answer.code, answer.message) == (0, "homes: 0 looked after")


@pytest.mark.long
def test_other_providers_homes_in_the_bucket_keep_their_rules(memory: Memory, runner: Runner) -> None:
    runner.ready(memory.but(ttl=7))
    other = memory.but(provider={"uid": "provider-2"})
    answer = runner.maintain(other)
    assert answer.report["homes"] == {"inUse": 0, "failed": 0}
    claimed = memory.maintain_document() | {"claim": {"namespace": "team-z", "name": "objects"}}
    assert runner.run("maintain", memory, claimed).report["homes"] == {"inUse": 0, "failed": 0}


@pytest.mark.long
def test_step_that_breaks_in_one_home_does_not_stop_the_others(
    memory: Memory, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = runner.ready(memory)
    sound = runner.ready(memory.but(identity="team-b/notes", uid="uid-2", secrets={"rw_a": "b"}))
    measure = maintaining._Run._measure

    def failing(self: Any, home: Any, entry: Any, bucket: Any, answer: Any) -> None:
        if entry.identity == broken.identity:
            raise ZeroDivisionError
        measure(self, home, entry, bucket, answer)

    monkeypatch.setattr(maintaining._Run, "_measure", failing)
    answer = runner.maintain(memory)
    assert answer.report["homes"] == {"inUse": 2, "failed": 1}
    assert runner.told(broken)["message"] == "measure: unexpected ZeroDivisionError: see the log"
    assert runner.told(sound)["message"] == ""
