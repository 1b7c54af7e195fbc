"""A legal hold on S3: nothing of a held Memory goes, whoever asks; what cannot be promised is refused, or read-only."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from migrations.deadline import Deadline
from migrations.s3 import holds, objects
from tests.migrations.s3.memories import Memory, Runner

pytestmark = pytest.mark.xdist_group("rgw")

LOCKING = {"versioning": True, "objectLock": {"mode": "GOVERNANCE", "days": 1}}
VERSIONS = {"versioning": True}


def put(memory: Memory, key: str, **more: Any) -> str:
    with memory.client() as client:
        answer = client.put_object(Bucket=memory.home, Key=memory.prefix + key, Body=b"1", **more)
    return str(answer.get("VersionId", ""))


def delete(memory: Memory, key: str) -> None:
    with memory.client() as client:
        client.delete_object(Bucket=memory.home, Key=memory.prefix + key)


def hold_of(memory: Memory, key: str, version: str) -> str:
    with memory.rgw.client() as admin:
        found = admin.head_object(Bucket=memory.home, Key=memory.prefix + key, VersionId=version)
    return str(found.get("ObjectLockLegalHoldStatus", "OFF"))


def admin_removes(memory: Memory, key: str, version: str) -> bool:
    """Whether the admin can remove a version, with all the rights that there are."""
    with memory.rgw.client() as admin:
        where = {"Bucket": memory.home, "Key": memory.prefix + key, "VersionId": version}
        try:
            admin.delete_object(**where, BypassGovernanceRetention=True)
        except admin.exceptions.ClientError as error:
            return str(error.response["Error"]["Code"]) != "AccessDenied"
    return True


def test_hold_is_on_every_version_until_it_is_lifted(memory: Memory, runner: Runner) -> None:
    free = runner.ready(memory.but(provider=LOCKING))
    before = put(free, "kv/a.json")
    held = free.but(hold=True)
    assert runner.provision(held).report["warnings"] == []
    assert hold_of(held, "kv/a.json", before) == "ON", "what was there has it at once"
    after = put(held, "kv/a.json")
    given = put(held, "kv/b.json", ObjectLockLegalHoldStatus="ON")
    with pytest.raises(ClientError, match="AccessDenied"):
        delete(held, "kv/a.json")
    with held.client() as client, pytest.raises(ClientError, match="AccessDenied"):
        client.put_object_legal_hold(
            Bucket=held.home, Key=f"{held.prefix}kv/b.json", VersionId=given, LegalHold={"Status": "OFF"}
        )
    assert runner.maintain(held).report["message"] == "homes: 1 looked after"
    assert hold_of(held, "kv/a.json", after) == "ON", "maintenance puts it on what a client left without"
    assert not admin_removes(held, "kv/a.json", before)
    assert not admin_removes(held, "kv/b.json", given)
    assert runner.told(held)["data"]["held"] == 2

    runner.ready(free)
    assert hold_of(free, "kv/a.json", before) == hold_of(free, "kv/b.json", given) == "OFF"
    delete(free, "kv/a.json")
    assert admin_removes(free, "kv/a.json", before)


@pytest.mark.long
def test_hold_that_takes_longer_than_a_run_is_told_and_maintenance_goes_on(
    memory: Memory, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = runner.ready(memory.but(provider=LOCKING))
    versions = [put(free, f"kv/{number}.json") for number in range(3)]
    held = free.but(hold=True)
    with monkeypatch.context() as patch:
        patch.setattr("migrations.s3.provision.HOLDS_SHARE", 0.0)
        answer = runner.provision(held)
    assert answer.report["warnings"] == ["not every object has its legal hold yet: maintenance goes on with it"]
    assert hold_of(held, "kv/0.json", versions[0]) == "OFF"
    runner.maintain(held)
    assert [hold_of(held, f"kv/{number}.json", version) for number, version in enumerate(versions)] == ["ON"] * 3
    assert runner.provision(held).report["warnings"] == []


@pytest.mark.long
def test_hold_goes_on_where_the_last_run_ended(memory: Memory, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    free = runner.ready(memory.but(provider=LOCKING))
    keys = [f"kv/{number}.json" for number in range(6)]
    versions = [put(free, key) for key in keys]
    monkeypatch.setattr(objects, "PAGE", 2)
    held = free.but(hold=True)
    seen: list[str] = []
    real = holds._put

    def counting(connection: Any, bucket: str, version: objects.Version, *, on: bool) -> int:
        seen.append(version.key.removeprefix(held.prefix))
        return real(connection, bucket, version, on=on)

    with monkeypatch.context() as patch:
        patch.setattr("migrations.s3.holds._put", counting)
        # The clock of the first run stands after its second page.
        patch.setattr(Deadline, "passed", property(lambda _: len(seen) >= 4))
        assert runner.provision(held).code == 0
        assert seen == keys[:4]
        seen.clear()
        patch.setattr(Deadline, "passed", property(lambda _: False))
        runner.maintain(held)
        assert seen[0] > keys[0], "what was done is not done again from the start"
    assert [hold_of(held, key, version) for key, version in zip(keys, versions, strict=True)] == ["ON"] * 6


@pytest.mark.long
def test_with_versions_alone_logins_delete_nothing_and_the_answer_says_what_that_is_worth(
    memory: Memory, runner: Runner
) -> None:
    held = memory.but(provider=VERSIONS, hold=True)
    [warning] = runner.provision(held).report["warnings"]
    assert warning == (
        f'bucket "{memory.bucket}" has no object lock: while the Memory is on hold its logins delete nothing, and '
        "nothing expires; but the server lets its admin delete"
    )
    first = put(held, "kv/a.json")
    put(held, "kv/a.json")
    with pytest.raises(ClientError, match="AccessDenied"):
        delete(held, "kv/a.json")
    with held.client("ro_a") as client:
        assert client.get_object(Bucket=held.home, Key=f"{held.prefix}kv/a.json", VersionId=first)["Body"].read()


@pytest.mark.long
def test_without_versions_a_held_memory_is_read_only(memory: Memory, runner: Runner) -> None:
    free = runner.ready(memory)
    put(free, "kv/a.json")
    [warning] = runner.provision(memory.but(hold=True)).report["warnings"]
    assert warning.endswith("keeps no versions: while the Memory is on hold its logins may only read")
    for operation in (lambda: put(memory, "kv/a.json"), lambda: delete(memory, "kv/a.json")):
        with pytest.raises(ClientError, match="AccessDenied"):
            operation()
    runner.ready(free)
    put(free, "kv/a.json")


@pytest.mark.long
def test_hold_reaches_the_draining_login(memory: Memory, runner: Runner) -> None:
    runner.ready(memory)
    runner.ready(memory.but(secrets={"rw_b": "b"}, draining=("rw_a", "ro_a"), hold=True))
    with pytest.raises(ClientError, match="AccessDenied"):
        put(memory, "kv/a.json")


@pytest.mark.long
def test_hold_with_one_login_for_all_is_refused_and_nothing_expires_meanwhile(memory: Memory, runner: Runner) -> None:
    shared = memory.but(provider={"users": "Shared"}, secrets={}, ttl=1)
    runner.ready(shared)
    runner.maintain(shared)
    assert len(rules_of(shared)) > 2
    answer = runner.provision(shared.but(hold=True))
    assert (answer.code, answer.report["reason"]) == (16, "ModuleUnsupported")
    assert "all its Memories have the admin's own keys (s3.users is Shared)" in answer.message
    assert {each["ID"] for each in rules_of(shared)} == {"memory-proompteng-uploads", "memory-proompteng-ledger"}
    runner.maintain(shared)
    assert len(rules_of(shared)) == 2
    runner.ready(shared)


@pytest.mark.long
def test_hold_with_managed_users_needs_versions(memory: Memory, runner: Runner) -> None:
    with memory.rgw.client() as admin:
        admin.create_bucket(Bucket=memory.home)
    answer = runner.provision(memory.but(provider={"users": "AWS"}, secrets={}, hold=True))
    assert answer.code == 16
    assert "its bucket keeps no versions" in answer.message


def rules_of(memory: Memory) -> list[dict[str, Any]]:
    with memory.rgw.client() as admin:
        found: list[dict[str, Any]] = admin.get_bucket_lifecycle_configuration(Bucket=memory.home)["Rules"]
    return found
