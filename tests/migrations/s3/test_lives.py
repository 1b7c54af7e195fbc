"""What happens to a Memory on S3 over time: rotation, adoption, conflicts, the end of its claim."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from migrations.s3.names import LEDGER
from tests.migrations.apiserver import ApiServer, serving
from tests.migrations.documents import Answer
from tests.migrations.s3.memories import Memory, Runner

pytestmark = pytest.mark.xdist_group("rgw")


def works(memory: Memory, slot: str = "rw_a") -> bool:
    """Whether a login may list its own prefix."""
    with memory.client(slot) as client:
        try:
            client.list_objects_v2(Bucket=memory.home, Prefix=memory.prefix)
        except ClientError:
            return False
    return True


def put(memory: Memory, key: str, body: bytes = b"1", **more: Any) -> None:
    with memory.client() as client:
        client.put_object(Bucket=memory.home, Key=memory.prefix + key, Body=body, **more)


def get(memory: Memory, key: str) -> bytes:
    with memory.client() as client:
        found: bytes = client.get_object(Bucket=memory.home, Key=memory.prefix + key)["Body"].read()
    return found


@pytest.mark.long
def test_rotation_overlaps_and_ends_with_the_old_key_closed(memory: Memory, runner: Runner) -> None:
    old = runner.ready(memory)
    put(old, "kv/a.json", b"mine")
    both = runner.ready(old.but(secrets={"rw_b": "second", "ro_a": "read-secret"}, draining=("rw_a",)))
    assert works(old), "the draining login goes on"
    assert works(both, "rw_b")
    after = runner.ready(both.but(draining=()))
    assert not works(old)
    with after.client("rw_b") as client:
        found = client.get_object(Bucket=after.home, Key=f"{after.prefix}kv/a.json")["Body"].read()
    assert found == b"mine", "what the old login wrote is the Memory's"
    back = runner.ready(after.but(secrets={"rw_a": "third", "ro_a": "read-secret"}, draining=("rw_b",)))
    assert works(back)
    assert not works(old), "a slot that is used again has another key"


@pytest.mark.long
def test_closing_a_login_that_never_was_makes_none(memory: Memory, runner: Runner) -> None:
    runner.ready(memory)
    users = memory.rgw.run("user", "list")
    assert memory.name("rw_a") in users
    assert memory.name("rw_b") not in users


@pytest.mark.long
def test_claim_made_again_needs_adopt_and_finds_its_objects(memory: Memory, runner: Runner) -> None:
    runner.ready(memory)
    put(memory, "kv/a.json", b"mine")
    again = memory.but(uid="uid-2", secrets={"rw_a": "new", "ro_a": "new-too"})
    answer = runner.provision(again)
    assert (answer.code, answer.report["reason"]) == (15, "AdoptionRequired")
    assert works(memory), "nothing has changed"
    assert runner.provision(again.but(policy="Forbid", adopt=True)).code == 15
    runner.ready(again.but(adopt=True))
    assert get(again, "kv/a.json") == b"mine"
    assert not works(memory), "the earlier claim's key is no more"
    runner.ready(again)


@pytest.mark.long
def test_policy_allow_needs_no_adopt(memory: Memory, runner: Runner) -> None:
    runner.ready(memory)
    runner.ready(memory.but(uid="uid-2", policy="Allow"))


@pytest.mark.long
def test_identity_that_moves_to_another_dataset_is_refused(memory: Memory, runner: Runner) -> None:
    runner.ready(memory)
    answer = runner.provision(memory.but(dataset="other"))
    assert (answer.code, answer.report["reason"]) == (14, "SchemaConflict")
    assert works(memory)


@pytest.mark.parametrize("change", [{"prefix": "notes-0123456789ab/"}, {"database": "another"}])
def test_names_that_do_not_follow_from_the_identity_are_refused(
    memory: Memory, runner: Runner, change: dict[str, str]
) -> None:
    answer = runner.provision(memory.but(extra=change))
    assert answer.code == 20
    assert "and the identity's is \"" in answer.message


def test_login_of_another_identity_is_refused(memory: Memory, runner: Runner) -> None:
    document = memory.document()
    document["logins"][0]["name"] = "admin"
    answer = runner.run("provision", memory, document)
    assert (answer.code, answer.message) == (
        20,
        f'bad request document: login "admin" is none of this identity: they begin with mem_{memory.id}_',
    )


@pytest.mark.long
def test_embeddings_of_another_dimension_are_refused(memory: Memory, runner: Runner) -> None:
    runner.ready(memory)
    changed = memory.but(embeddings={"dimension": 4})
    runner.ready(changed)
    vector = "AACAPwAAAEAAAEBAAACAQA=="
    put(changed, "embeddings/k/0.json", json.dumps({"id": "k", "vector": vector}).encode())
    answer = runner.provision(memory)
    assert (answer.code, answer.report["reason"]) == (11, "DimensionConflict")
    assert answer.message == (
        f"the embeddings under s3://{memory.home}/{memory.prefix} have 4 dimensions, not 3: set embeddings.dimension "
        "back to 4, or delete them first"
    )
    runner.ready(memory.but(embeddings={"enabled": False}))
    assert runner.provision(memory).code == 11, "who switches them off and on again meets the old ones"
    runner.ready(changed.but(embeddings={"dimension": 4, "metric": "l2"}))


@pytest.mark.long
def test_object_that_is_no_embedding_has_no_dimension(memory: Memory, runner: Runner) -> None:
    runner.ready(memory)
    put(memory, "embeddings/k/0.json", b"[]")
    runner.ready(memory.but(embeddings={"dimension": 4}))


@pytest.mark.long
def test_entry_of_the_ledger_that_nobody_can_read_is_said(memory: Memory, runner: Runner) -> None:
    runner.ready(memory)
    with memory.rgw.client() as admin:
        found = admin.list_objects_v2(Bucket=memory.home, Prefix=LEDGER)["Contents"]
        [key] = [each["Key"] for each in found if each["Key"].endswith(".json")]
        admin.put_object(Bucket=memory.home, Key=key, Body=b"{}")
    assert runner.provision(memory).code == 12


class Life:
    """A Memory in a cluster, and the reaper that looks after it."""

    def __init__(self, api: ApiServer, runner: Runner) -> None:
        self.api = api
        self.runner = runner
        api.singles["/xmemoryproviders/objects"] = {
            "kind": "XMemoryProvider",
            "metadata": {"name": "objects", "uid": "provider-uid"},
        }

    def ready(self, memory: Memory) -> Memory:
        self.api.has(memory.identity, memory.uid)
        return self.runner.ready(memory)

    def reap(self, memory: Memory) -> Answer:
        return self.runner.run("reap", memory, memory.reap_document())


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: Runner) -> Iterator[Life]:
    with serving(tmp_path, monkeypatch) as api:
        yield Life(api, runner)


def keys_of(memory: Memory) -> list[str]:
    with memory.rgw.client() as admin:
        found = admin.list_object_versions(Bucket=memory.home, Prefix=memory.prefix)
    return [each["Key"] for each in [*found.get("Versions", []), *found.get("DeleteMarkers", [])]]


def users_of(memory: Memory) -> list[str]:
    return [each for each in memory.rgw.run("user", "list") if memory.id in each]


def entries_of(memory: Memory, bucket: str | None = None) -> list[str]:
    with memory.rgw.client() as admin:
        found = admin.list_objects_v2(Bucket=bucket or memory.home, Prefix=LEDGER).get("Contents", [])
    return [each["Key"] for each in found if each["Key"].endswith(".json")]


def test_memory_that_is_gone_loses_access_then_data_and_others_keep_theirs(memory: Memory, life: Life) -> None:
    gone = life.ready(memory.but(deletion="Delete"))
    other = life.ready(memory.but(identity="team-b/notes", uid="uid-2", secrets={"rw_a": "b", "ro_a": "c"}))
    put(gone, "kv/a.json")
    put(other, "kv/a.json")
    life.api.lacks(gone.identity, gone.uid)
    assert life.reap(gone).report["homes"] == {"inUse": 2, "missing": 1, "closed": 0}
    assert works(gone)
    life.reap(gone)
    assert not works(gone), "two runs missed it"
    assert not works(gone, "ro_a")
    assert "kv/a.json" in "".join(keys_of(gone)), "a run that closes drops nothing"
    answer = life.reap(gone)
    assert answer.code == 0
    assert answer.message == "homes: 1 in use"
    assert (keys_of(gone), users_of(gone), len(entries_of(gone))) == ([], [], 1)
    assert works(other)
    assert get(other, "kv/a.json") == b"1"


@pytest.mark.long
def test_memory_that_comes_back_finds_its_keys_as_they_were(memory: Memory, life: Life) -> None:
    life.ready(memory)
    life.api.lacks(memory.identity, memory.uid)
    life.reap(memory)
    life.reap(memory)
    assert not works(memory)
    life.api.has(memory.identity, memory.uid)
    assert life.reap(memory).report["homes"]["closed"] == 0
    assert works(memory)
    assert works(memory, "ro_a")


@pytest.mark.long
def test_provisioner_opens_what_the_reaper_closed_the_draining_login_too(memory: Memory, life: Life) -> None:
    life.ready(memory)
    rotating = memory.but(secrets={"rw_b": "second", "ro_a": "read-secret"}, draining=("rw_a",))
    life.runner.ready(rotating)
    life.api.lacks(memory.identity, memory.uid)
    life.reap(memory)
    life.reap(memory)
    assert not works(memory)
    life.runner.ready(rotating)
    assert works(memory)
    assert works(rotating, "rw_b")


@pytest.mark.long
def test_policy_retain_keeps_objects_for_ever(memory: Memory, life: Life) -> None:
    life.ready(memory)
    put(memory, "kv/a.json")
    life.api.lacks(memory.identity, memory.uid)
    for _ in range(4):
        life.reap(memory)
    assert not works(memory)
    assert f"{memory.prefix}kv/a.json" in keys_of(memory)


@pytest.mark.long
def test_bucket_of_its_own_goes_with_the_memory(memory: Memory, life: Life) -> None:
    own = memory.but(bucket=None, bucket_prefix=memory.rgw.name("own"), deletion="Delete")
    life.ready(own)
    put(own, "kv/a.json")
    with own.client() as client:
        client.create_multipart_upload(Bucket=own.home, Key=f"{own.prefix}kv/large.json")
    life.api.lacks(own.identity, own.uid)
    for _ in range(3):
        assert life.reap(own).code == 0
    with own.rgw.client() as admin:
        names = [each["Name"] for each in admin.list_buckets()["Buckets"]]
    assert own.home not in names
    assert (users_of(own), entries_of(own, f"{own.bucket_prefix}-ledger")) == ([], [])


@pytest.mark.long
def test_locked_versions_are_kept_and_the_home_with_them(memory: Memory, life: Life) -> None:
    locked = memory.but(
        deletion="Delete", provider={"versioning": True, "objectLock": {"mode": "GOVERNANCE", "days": 1}}
    )
    life.ready(locked)
    put(locked, "kv/a.json")
    life.api.lacks(locked.identity, locked.uid)
    for _ in range(3):
        answer = life.reap(locked)
        assert answer.code == 0, answer.message
    assert f"{locked.prefix}kv/a.json" in keys_of(locked)
    assert len(entries_of(locked)) == 1
    assert any("are locked" in line.get("why", "") for line in answer.log)


def test_reaper_finds_nothing_where_nothing_was_made(memory: Memory, life: Life) -> None:
    answer = life.reap(memory)
    assert (answer.code, answer.message) == (0, "homes: 0 in use")
