"""What a login may do with its own prefix, and that it may do nothing anywhere else; with real signatures.

Each operation is tried, and what came of all of them is compared with what should have.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from migrations.s3.names import LEDGER
from tests.migrations.s3.memories import Memory, Runner, provisioned
from tests.rgw import Rgw

pytestmark = pytest.mark.xdist_group("rgw")

Operation = Callable[[Any], Any]
LOCK = {"mode": "GOVERNANCE", "days": 1}
OTHER = "team-b/notes"


def outcomes(operations: Mapping[str, Operation], client: Any) -> dict[str, str]:
    """Tries each; gives "" for what went well, else the server's code."""
    found = {}
    for name, operation in operations.items():
        try:
            operation(client)
            found[name] = ""
        except ClientError as error:
            found[name] = str(
                error.response.get("Error", {}).get("Code") or error.response["ResponseMetadata"]["HTTPStatusCode"]
            )
    return found


def _call(client: Any, method: str, **parameters: Any) -> Any:
    return getattr(client, method)(**parameters)


def _get(client: Any, bucket: str, key: str) -> Any:
    return client.get_object(Bucket=bucket, Key=key)


def refused(operations: Mapping[str, Operation], client: Any) -> list[str]:
    """Gives the operations that did not end in a refusal."""
    return [name for name, code in outcomes(operations, client).items() if code not in {"AccessDenied", "403"}]


def allowed(operations: Mapping[str, Operation], client: Any) -> dict[str, str]:
    """Gives the operations that did not go well, and why."""
    return {name: code for name, code in outcomes(operations, client).items() if code}


@pytest.fixture(scope="module")
def pair(rgw: Rgw, tmp_path_factory: pytest.TempPathFactory) -> tuple[Memory, Memory]:
    """Two Memories of the same dataset name in one bucket with object lock, each with an object."""
    provider = {"versioning": True, "objectLock": LOCK}
    folder = tmp_path_factory.mktemp("pair")
    memory = Memory(rgw, rgw.name("shared"), provider=provider)
    first = provisioned(memory, folder / "a")
    other = memory.but(identity=OTHER, uid="uid-2", secrets={"rw_a": "b", "ro_a": "c"})
    provisioned(other, folder / "b")
    for each in (first, other):
        with each.client() as client:
            client.put_object(Bucket=each.home, Key=f"{each.prefix}kv/known.json", Body=each.identity.encode())
    return first, other


def on_others(own: Memory, other: Memory, version: str) -> dict[str, Operation]:
    """What must not be possible with another Memory's objects, with the ledger, or with the bucket itself."""
    bucket, key = own.home, f"{other.prefix}kv/known.json"
    source = {"Bucket": bucket, "Key": key}
    versioned = {**source, "VersionId": version}
    ledger = {"Bucket": bucket, "Key": f"{LEDGER}any.json"}
    until = datetime.now(UTC) + timedelta(days=1)
    return {
        "get": lambda c: c.get_object(**source),
        "get a version": lambda c: c.get_object(**versioned),
        "get what is not there": lambda c: c.get_object(Bucket=bucket, Key=f"{other.prefix}kv/nothing.json"),
        "head": lambda c: c.head_object(**source),
        "attributes": lambda c: c.get_object_acl(**source),
        "tags": lambda c: c.get_object_tagging(**source),
        "retention": lambda c: c.get_object_retention(**source),
        "put": lambda c: c.put_object(**source, Body=b"x"),
        "put beside": lambda c: c.put_object(Bucket=bucket, Key=f"{other.prefix}kv/new.json", Body=b"x"),
        "put at the root": lambda c: c.put_object(Bucket=bucket, Key="new.json", Body=b"x"),
        "put under a prefix that begins alike": lambda c: c.put_object(
            Bucket=bucket, Key=f"{own.prefix[:-1]}2/x.json", Body=b"x"
        ),
        "upload in parts": lambda c: c.create_multipart_upload(**source),
        "copy from": lambda c: c.copy_object(Bucket=bucket, Key=f"{own.prefix}kv/stolen.json", CopySource=source),
        "copy to": lambda c: c.copy_object(
            **source, CopySource={"Bucket": bucket, "Key": f"{own.prefix}kv/known.json"}
        ),
        "delete": lambda c: c.delete_object(**source),
        "delete a version": lambda c: c.delete_object(**versioned),
        "delete many": lambda c: c.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}]}),
        "list": lambda c: c.list_objects_v2(Bucket=bucket, Prefix=other.prefix),
        "list, as of old": lambda c: c.list_objects(Bucket=bucket, Prefix=other.prefix),
        "list by what both begin with": lambda c: c.list_objects_v2(Bucket=bucket, Prefix=f"{own.dataset}-"),
        "list by delimiter": lambda c: c.list_objects_v2(Bucket=bucket, Delimiter="/"),
        "list all": lambda c: c.list_objects_v2(Bucket=bucket),
        "list versions": lambda c: c.list_object_versions(Bucket=bucket, Prefix=other.prefix),
        "list all versions": lambda c: c.list_object_versions(Bucket=bucket),
        "list uploads": lambda c: c.list_multipart_uploads(Bucket=bucket),
        "hold": lambda c: c.put_object_legal_hold(**source, LegalHold={"Status": "ON"}),
        "retain": lambda c: c.put_object_retention(
            **source, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until}
        ),
        "grant": lambda c: c.put_object_acl(**source, ACL="public-read"),
        "read the ledger": lambda c: c.get_object(**ledger),
        "write the ledger": lambda c: c.put_object(**ledger, Body=b"{}"),
        "list the ledger": lambda c: c.list_objects_v2(Bucket=bucket, Prefix=LEDGER),
        "delete the ledger": lambda c: c.delete_object(**ledger),
        **on_bucket(bucket),
    }


def on_bucket(bucket: str) -> dict[str, Operation]:
    rule = {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
    policy = {
        "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket}/*"}]
    }
    everything = {"Version": "2012-10-17", **policy}
    off = {
        "BlockPublicAcls": False,
        "IgnorePublicAcls": False,
        "BlockPublicPolicy": False,
        "RestrictPublicBuckets": False,
    }
    lock = {"ObjectLockEnabled": "Enabled"}
    return {
        "head the bucket": lambda c: c.head_bucket(Bucket=bucket),
        "read the policy": lambda c: c.get_bucket_policy(Bucket=bucket),
        "set a policy": lambda c: c.put_bucket_policy(Bucket=bucket, Policy=json.dumps(everything)),
        "drop the policy": lambda c: c.delete_bucket_policy(Bucket=bucket),
        "read the lifecycle": lambda c: c.get_bucket_lifecycle_configuration(Bucket=bucket),
        "set a lifecycle": lambda c: c.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}
        ),
        "drop the lifecycle": lambda c: c.delete_bucket_lifecycle(Bucket=bucket),
        "stop versions": lambda c: c.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}
        ),
        "change the lock": lambda c: c.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=lock),
        "change the ACL": lambda c: c.put_bucket_acl(Bucket=bucket, ACL="public-read"),
        "read the ACL": lambda c: c.get_bucket_acl(Bucket=bucket),
        "open it": lambda c: c.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=off),
        "drop the bucket": lambda c: c.delete_bucket(Bucket=bucket),
        "make a bucket": lambda c: c.create_bucket(Bucket=f"{bucket}-mine"),
    }


def on_own(own: Memory, version: str) -> dict[str, Operation]:
    """What must not be possible with one's own objects."""
    source = {"Bucket": own.home, "Key": f"{own.prefix}kv/known.json"}
    meta = {"Bucket": own.home, "Key": f"{own.prefix}meta.json"}
    soon = datetime.now(UTC) + timedelta(minutes=1)
    return {
        "delete a version": lambda c: c.delete_object(**source, VersionId=version),
        "delete a locked version": lambda c: c.delete_object(
            **source, VersionId=version, BypassGovernanceRetention=True
        ),
        "delete versions": lambda c: c.delete_objects(
            Bucket=own.home, Delete={"Objects": [{"Key": source["Key"], "VersionId": version}]}
        ),
        "shorten a lock": lambda c: c.put_object_retention(
            **source, BypassGovernanceRetention=True, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": soon}
        ),
        "set an ACL": lambda c: c.put_object_acl(**source, ACL="public-read"),
        "set an ACL of a version": lambda c: c.put_object_acl(**source, VersionId=version, ACL="public-read"),
        "tag": lambda c: c.put_object_tagging(**source, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}),
        "write meta.json": lambda c: c.put_object(**meta, Body=b"{}"),
        "delete meta.json": lambda c: c.delete_object(**meta),
    }


def reading(own: Memory, version: str) -> dict[str, Operation]:
    """What a reader is for."""
    source = {"Bucket": own.home, "Key": f"{own.prefix}kv/known.json"}
    return {
        "get": lambda c: c.get_object(**source),
        "get a version": lambda c: c.get_object(**source, VersionId=version),
        "head": lambda c: c.head_object(**source),
        "meta.json": lambda c: c.get_object(Bucket=own.home, Key=f"{own.prefix}meta.json"),
        "retention": lambda c: c.get_object_retention(**source),
        "list": lambda c: c.list_objects_v2(Bucket=own.home, Prefix=f"{own.prefix}events/"),
        "list versions": lambda c: c.list_object_versions(Bucket=own.home, Prefix=own.prefix),
        "look for what is not there": lambda c: c.list_objects_v2(
            Bucket=own.home, Prefix=f"{own.prefix}kv/nothing.json"
        ),
    }


def writing(own: Memory) -> dict[str, Operation]:
    """What a writer is for; what a reader must not."""
    bucket, key = own.home, f"{own.prefix}kv/mine%2Fown.json"
    later = datetime.now(UTC) + timedelta(days=2)
    return {
        "put": lambda c: c.put_object(Bucket=bucket, Key=key, Body=b"1", Metadata={"sha256": "x"}),
        "copy": lambda c: c.copy_object(
            Bucket=bucket,
            Key=f"{own.prefix}kv/copy.json",
            CopySource={"Bucket": bucket, "Key": f"{own.prefix}kv/known.json"},
        ),
        "put with a hold": lambda c: c.put_object(
            Bucket=bucket, Key=f"{own.prefix}kv/held.json", Body=b"1", ObjectLockLegalHoldStatus="ON"
        ),
        "lift its hold": lambda c: c.put_object_legal_hold(
            Bucket=bucket, Key=f"{own.prefix}kv/held.json", LegalHold={"Status": "OFF"}
        ),
        "retain for longer": lambda c: c.put_object_retention(
            Bucket=bucket, Key=f"{own.prefix}kv/held.json", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": later}
        ),
        "upload in parts": lambda c: c.create_multipart_upload(Bucket=bucket, Key=f"{own.prefix}kv/large.json"),
        "delete": lambda c: c.delete_object(Bucket=bucket, Key=f"{own.prefix}kv/held.json"),
    }


def version_of(memory: Memory) -> str:
    with memory.client() as client:
        found = client.head_object(Bucket=memory.home, Key=f"{memory.prefix}kv/known.json")
    return str(found["VersionId"])


def test_login_of_one_memory_can_do_nothing_to_another_of_the_same_dataset_name(pair: tuple[Memory, Memory]) -> None:
    own, other = pair
    operations = on_others(own, other, version_of(other))
    for slot in ("rw_a", "ro_a"):
        with own.client(slot) as client:
            assert refused(operations, client) == []
    with other.client() as client:
        body = client.get_object(Bucket=other.home, Key=f"{other.prefix}kv/known.json")["Body"].read()
    assert body == OTHER.encode()


def test_login_can_neither_remove_versions_nor_publish_what_is_its_own(pair: tuple[Memory, Memory]) -> None:
    own, _ = pair
    operations = on_own(own, version_of(own))
    for slot in ("rw_a", "ro_a"):
        with own.client(slot) as client:
            assert refused(operations, client) == []


def test_writer_and_reader_can_do_what_they_are_for(pair: tuple[Memory, Memory]) -> None:
    own, _ = pair
    version = version_of(own)
    with own.client("ro_a") as reader:
        assert allowed(reading(own, version), reader) == {}
        assert refused(writing(own), reader) == []
    with own.client() as writer:
        assert allowed(reading(own, version) | writing(own), writer) == {}


def test_what_an_app_makes_public_or_gives_to_another_stays_its_own(pair: tuple[Memory, Memory]) -> None:
    own, other = pair
    public, given = f"{other.prefix}kv/public.json", f"{other.prefix}kv/given.json"
    with other.client() as client:
        client.put_object(Bucket=other.home, Key=public, Body=b"1", ACL="public-read")
        client.put_object(Bucket=other.home, Key=given, Body=b"1", GrantRead=f'id="{own.name("rw_a")}"')
    with own.client() as client:
        reads = {key: partial(_get, bucket=other.home, key=key) for key in (public, given)}
        assert refused(reads, client) == []
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{own.rgw.endpoint}/{other.home}/{public}")


def test_login_cannot_change_what_users_may_do(pair: tuple[Memory, Memory]) -> None:
    own, other = pair
    policy = json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    )
    operations: dict[str, Operation] = {}
    for name in (own.name("rw_a"), other.name("rw_a")):
        where = {"UserName": name, "PolicyName": "memory"}
        operations |= {
            f"read {name}": partial(_call, method="list_user_policies", UserName=name),
            f"set {name}": partial(_call, method="put_user_policy", **where, PolicyDocument=policy),
            f"drop {name}": partial(_call, method="delete_user_policy", **where),
        }
    with own.rgw.client(own.keys(), "iam") as client:
        assert refused(operations, client) == []


def test_bucket_of_its_own_is_closed_to_others_and_says_what_is_not_there(memory: Memory, runner: Runner) -> None:
    base = memory.but(bucket=None, bucket_prefix=memory.rgw.name("own"))
    first = runner.ready(base)
    other = runner.ready(base.but(identity=OTHER, uid="uid-2"))
    assert first.home != other.home
    with first.client() as client:
        client.put_object(Bucket=first.home, Key=f"{first.prefix}kv/a.json", Body=b"1")
        assert outcomes({"": lambda c: c.get_object(Bucket=first.home, Key=f"{first.prefix}kv/b.json")}, client) == {
            "": "NoSuchKey"
        }
        operations: dict[str, Operation] = {
            "list": lambda c: c.list_objects_v2(Bucket=other.home),
            "put": lambda c: c.put_object(Bucket=other.home, Key="x", Body=b""),
            "put outside of the prefix": lambda c: c.put_object(Bucket=first.home, Key="x", Body=b""),
            "list the ledger": lambda c: c.list_objects_v2(Bucket=f"{base.bucket_prefix}-ledger"),
            "read the ledger": lambda c: c.get_object(Bucket=f"{base.bucket_prefix}-ledger", Key=f"{LEDGER}x.json"),
            **on_bucket(other.home),
        }
        assert refused(operations, client) == []
