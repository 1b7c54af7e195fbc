"""S3 with users AWS: users and buckets are managed resources, keys come from them, and none goes that an app has."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from function import model, names
from function.resources import aws
from function.resources.projection import project
from migrations.homes.entry import Entry
from migrations.s3 import lifecycle, policies
from migrations.s3.names import Home
from tests.function.harness import Answer, Object, World, is_managed, run, secret_entries, settle, step
from tests.function.worlds import (
    AWS,
    AWS_CRDS,
    S3,
    delivered,
    memory,
    namespace,
    of_type,
    other_world,
    provider_world,
)
from tests.schemas import catalog

ID = names.Identity("team-a/notes").inside("acme-memory")
BUCKET, PREFIX, STEM = f"acme-memory-{ID}", f"notes-{ID}/", f"mem-{ID}"
IN_BUCKET: Object = {**{key: value for key, value in AWS.items() if key != "bucketPrefix"}, "bucket": "memories"}
FULL: Object = {
    **AWS,
    "versioning": True,
    "objectLock": {"days": 30},
    "lifecycle": {"transitionDays": 60},
    "encryption": {"algorithm": "aws:kms", "kmsKeyId": "alias/memories"},
    "replication": {"role": "arn:aws:iam::123456789012:role/copy", "destination": "arn:aws:s3:::copies"},
}
slow = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _world(block: Object = AWS, **spec: Any) -> World:
    return other_world("s3", block, memory(**spec))


def _settled(start: World) -> World:
    return settle(start, steps=14)[0]


def _made(seen: World | Answer) -> dict[str, Object]:
    """Managed resources by what they are: `Bucket`, `User rw-a`."""
    bodies = seen.observed if isinstance(seen, World) else seen.resources
    found = {}
    for body in bodies.values():
        if is_managed(body):
            name = body["metadata"]["name"].removeprefix(BUCKET).removeprefix(STEM).strip("-")
            part = name[:4] if body["kind"] == "AccessKey" else name
            found[f"{body['kind']} {part}".strip()] = body
    return found


def _key(seen: World, part: str) -> str:
    wanted = _made(seen)[part]
    (found,) = [key for key, body in seen.observed.items() if body is wanted]
    return found


def _with(seen: World, part: str, *conditions: Object) -> World:
    """The same with other conditions of one object."""
    key = _key(seen, part)
    body = {**seen.observed[key], "status": {"conditions": list(conditions)}}
    return seen.but(observed={**seen.observed, key: body})


def _keys(seen: World | Answer) -> set[str]:
    bodies = seen.observed if isinstance(seen, World) else seen.resources
    return {key for key in bodies if key.startswith("aws-key-")}


def _policy(seen: World | Answer, role: str = "writer") -> Object:
    found: Object = json.loads(_made(seen)[f"Policy {role}"]["spec"]["forProvider"]["policy"])
    return found


def _rules(seen: World | Answer) -> dict[str, Object]:
    rules = _made(seen)["BucketLifecycleConfiguration"]["spec"]["forProvider"]["rule"]
    return {rule["id"]: rule for rule in rules}


USERS = {"User rw-a", "Policy writer", "UserPolicyAttachment rw-a", "AccessKey rw-a"}
ALWAYS = {*USERS, "Bucket", "BucketOwnershipControls", "BucketPublicAccessBlock", "BucketLifecycleConfiguration"}
ASKED_FOR = {
    "BucketVersioning",
    "BucketObjectLockConfiguration",
    "BucketServerSideEncryptionConfiguration",
    "BucketReplicationConfiguration",
}


@pytest.mark.parametrize(
    ("block", "wanted"), [(AWS, ALWAYS), (FULL, ALWAYS | ASKED_FOR), (IN_BUCKET, None)], ids=["bucket", "all", "users"]
)
def test_what_is_made_is_what_the_spec_says(block: Object, wanted: set[str] | None) -> None:
    seen = _settled(_world(block))
    made = _made(seen)
    if wanted is None:
        assert {body["kind"] for body in made.values()} == {each.split()[0] for each in USERS}
    else:
        assert set(made) == wanted
    known = catalog("provider-aws")
    assert [known.problems(project(body)) for body in made.values()] == [[]] * len(made)


def test_the_bucket_outlives_its_object_and_users_go_with_the_claim() -> None:
    for part, body in _made(_settled(_world(FULL))).items():
        stays = part.startswith("Bucket")
        assert body["spec"]["deletionPolicy"] == ("Orphan" if stays else "Delete"), part
        assert ("Delete" in body["spec"]["managementPolicies"]) is not stays, part


def test_every_object_says_which_credentials_it_is_made_with() -> None:
    configs = {body["spec"]["providerConfigRef"]["name"] for body in _made(_settled(_world())).values()}
    assert configs == {"default"}
    named = _world({**AWS, "providerConfigRef": {"name": "acme"}})
    assert {body["spec"]["providerConfigRef"]["name"] for body in _made(_settled(named)).values()} == {"acme"}


@pytest.mark.parametrize("part", sorted(ALWAYS - {"BucketLifecycleConfiguration"}))
def test_the_job_waits_until_every_object_is_ready(part: str) -> None:
    seen, answer = step(_world())
    assert not answer.jobs()
    assert answer.message("Provisioned") == "waiting for the AWS provider to make this Memory's bucket and users"
    answer = run(_with(seen, part))
    assert not answer.jobs()
    assert answer.conditions["Provisioned"] == (False, "Running")
    assert run(seen).jobs()


def test_in_a_bucket_that_is_there_it_waits_for_users() -> None:
    answer = run(_world(IN_BUCKET))
    assert answer.message("Provisioned") == "waiting for the AWS provider to make this Memory's users"


def _said(kind: str, status: str, message: str = "", generation: int = 1) -> Object:
    time = "2026-01-01T00:00:00Z"
    return {
        "type": kind,
        "status": status,
        "reason": "X",
        "message": message,
        "lastTransitionTime": time,
        "observedGeneration": generation,
    }


def test_what_the_provider_cannot_make_is_said_in_its_words() -> None:
    seen, _ = step(_world())
    answer = run(_with(seen, "Bucket", _said("Synced", "False", "create failed: BucketAlreadyExists")))
    assert answer.conditions["Provisioned"] == (False, "NotApplied")
    assert answer.message("Provisioned") == (
        f'the AWS provider cannot apply Bucket "{BUCKET}": create failed: BucketAlreadyExists; it tries again by '
        "itself, and the Memory goes on by itself"
    )
    assert answer.ttl == 60


def test_an_object_that_waits_for_another_has_not_failed() -> None:
    seen, _ = step(_world())
    answer = run(
        _with(seen, "AccessKey rw-a", _said("Synced", "False", "cannot resolve references: User is not there"))
    )
    assert answer.conditions["Provisioned"] == (False, "Running")
    assert answer.ttl == 2


def test_what_was_said_of_an_earlier_spec_does_not_count() -> None:
    seen, _ = step(_world())
    key = _key(seen, "Policy writer")
    body = copy.deepcopy(seen.observed[key])
    body["metadata"]["generation"] = 2
    assert run(seen).jobs()
    assert not run(seen.but(observed={**seen.observed, key: body})).jobs()
    foreign = copy.deepcopy(seen.observed[key])
    foreign["spec"]["forProvider"]["policy"] = "{}"
    assert not run(seen.but(observed={**seen.observed, key: foreign})).jobs()


def test_the_app_gets_the_key_that_the_provider_made() -> None:
    seen = _settled(_world(access={"readOnlySecret": True}))
    entries = secret_entries(seen.observed["binding"])
    given = seen.details[_key(seen, "AccessKey rw-a")]
    assert (entries["username"], entries["password"]) == tuple(given[key].decode() for key in ("username", "password"))
    assert entries["login"] == f"mem_{ID}_rw_a"
    assert (entries["endpoint"], entries["region"]) == ("https://s3.eu-central-1.amazonaws.com", "eu-central-1")
    assert entries["uri"] == f"s3://{BUCKET}/{PREFIX}"
    reading = secret_entries(seen.observed["binding-reader"])
    assert reading["login"] == f"mem_{ID}_ro_a"
    assert reading["username"] != entries["username"]


def test_there_is_no_binding_before_there_is_a_key() -> None:
    now = _world()
    for _ in range(5):
        now, answer = step(now)
        now = now.but(details={})
    assert answer.conditions["Provisioned"] == (True, "Succeeded")
    assert answer.conditions["CredentialsReady"] == (False, "WaitingForBackend")
    name = _made(now)["AccessKey rw-a"]["metadata"]["name"]
    assert answer.message("CredentialsReady") == (
        f'AccessKey "{name}" shows no username and password: wait for the AWS provider to write them, or delete the '
        "AccessKey if its Secret is lost, and it is made anew"
    )
    assert "binding" not in answer.resources
    assert not answer.ready


@pytest.mark.parametrize("lost", [{}, {"username": b"AKIA"}, {"username": b"", "password": b""}])
def test_a_binding_stays_while_its_key_is_not_seen(lost: dict[str, bytes]) -> None:
    seen, before = settle(_world(), steps=14)
    answer = run(seen.but(details=dict.fromkeys(seen.details, lost)))
    assert answer.resources == before.resources
    assert answer.ready


def test_rotation_makes_another_key_and_leaves_the_one_that_apps_have() -> None:
    settled = _settled(_world())
    old, (first,) = secret_entries(settled.observed["binding"]), _keys(settled)
    now, started = settled.with_spec(credentials={"epoch": 1}), False
    for hour in range(10):
        now, answer = step(now, time=f"2026-02-01T{hour:02}:00:00Z")
        started = started or len(answer.jobs()) == 2
        assert first in answer.resources
        assert answer.resources[first] == project(settled.observed[first])
        if secret_entries(answer.resources["binding"]) != old:
            break
    assert started, "the Secret changes only after the Job for it"
    entries = secret_entries(now.observed["binding"])
    assert entries["login"] == f"mem_{ID}_rw_b"
    assert entries["password"] != old["password"]
    assert {"User rw-a", "User rw-b"} <= set(_made(_settled(now)))


def test_two_epochs_later_the_first_key_is_no_more() -> None:
    now, seen = _settled(_world()), []
    for epoch in (0, 1, 2):
        now = _settled(now.with_spec(credentials={"epoch": epoch}))
        entries = secret_entries(now.observed["binding"])
        seen.append((entries["login"][-1], entries["username"], _keys(now)))
    assert [slot for slot, *_ in seen] == ["a", "b", "a"]
    assert len({username for _, username, _ in seen}) == 3
    (first,) = seen[0][2]
    assert first in seen[1][2]
    assert first not in seen[2][2]
    assert len(seen[2][2]) == 2


def test_a_slot_that_is_closed_has_neither_user_nor_key() -> None:
    rotated = _settled(_settled(_world()).with_spec(credentials={"epoch": 1}))
    closed = _settled(rotated.with_spec(credentials={"epoch": 1, "revokeOld": True}))
    assert set(_made(closed)) == {each.replace("rw-a", "rw-b") for each in ALWAYS}


def test_a_reader_that_is_not_wanted_any_more_is_closed() -> None:
    seen = _settled(_world(access={"readOnlySecret": True}))
    assert {"User ro-a", "Policy reader", "UserPolicyAttachment ro-a", "AccessKey ro-a"} <= set(_made(seen))
    after = _settled(seen.with_spec(access={"readOnlySecret": False}))
    assert set(_made(after)) == ALWAYS
    assert "binding-reader" not in after.observed


def test_while_a_job_for_another_wish_runs_nothing_is_changed_under_it() -> None:
    now, _ = step(_settled(_world()).with_spec(searchConfig="english"))
    answer = run(now.with_spec(searchConfig="english", credentials={"epoch": 1}, access={"readOnlySecret": True}))
    assert set(_made(answer)) == set(_made(now))
    assert answer.ttl in {2, 60}


def test_a_hold_takes_expiry_and_deletion_away_at_once() -> None:
    settled = _settled(_world({**FULL, "lifecycle": {"transitionDays": 60}}))
    assert set(_rules(settled)) == {"uploads", "events", "event-ids", "kv", "embeddings", "move"}
    held = run(settled.with_spec(legalHold=True))
    assert set(_rules(held)) == {"uploads", "move"}
    denied = next(each for each in _policy(held)["Statement"] if each["Sid"] == "Never")["Action"]
    assert {"s3:DeleteObject", "s3:DeleteObjectVersion"} <= set(denied)
    assert "Hold" in {each["Sid"] for each in _policy(held)["Statement"]}
    # Also under a Job that is at work for something else.
    now, _ = step(settled.with_spec(searchConfig="english"))
    assert set(_rules(run(now.with_spec(legalHold=True, searchConfig="german")))) == {"uploads", "move"}


def test_nothing_expires_before_the_bucket_was_found_to_be_this_memorys() -> None:
    """An earlier claim may have left it, with data that nobody gave to this one."""
    now = _world()
    for _ in range(8):
        now, answer = step(now, code=15)
        assert "BucketLifecycleConfiguration" not in _made(answer)
    assert answer.conditions["Provisioned"] == (False, "AdoptionRequired")
    assert "binding" not in answer.resources


@pytest.mark.parametrize(
    ("days", "block", "wanted"),
    [
        (0, AWS, {"uploads"}),
        (7, AWS, {"uploads", "events", "event-ids", "kv", "embeddings"}),
        (0, FULL, {"uploads", "move"}),
        (60, FULL, {"uploads", "events", "event-ids", "kv", "embeddings"}),
    ],
    ids=["for ever", "a week", "moved and kept", "gone before it would move"],
)
def test_what_the_lifecycle_does(days: int, block: Object, wanted: set[str]) -> None:
    rules = _rules(_settled(_world(block, retention={"ttlDays": days})))
    assert set(rules) == wanted
    assert not any(
        "meta.json".startswith(rule["filter"][0]["prefix"].removeprefix(PREFIX))
        for name, rule in rules.items()
        if "days" in str(rule.get("expiration"))
    ), "what a Memory is does not age"
    for name in wanted & {"events", "kv"}:
        assert rules[name]["expiration"] == [{"days": days}]
        assert rules[name]["filter"] == [{"prefix": f"{PREFIX}{name}/"}]
        assert ("noncurrentVersionExpiration" in rules[name]) is (block is FULL)


def test_what_expires_is_what_jobs_let_expire_elsewhere() -> None:
    """The contract: ttlDays means the same wherever a lifecycle comes from."""
    rules = _rules(_settled(_world(FULL, retention={"ttlDays": 7})))
    facts: dict[str, Any] = {"home": PREFIX, "identity": "team-a/notes", "ttl_days": 7, "legal_hold": False}
    entry = Entry.model_construct(**facts)
    theirs = {each["Filter"]["Prefix"]: each for each in lifecycle.rules_of(entry)}
    ours = {each["filter"][0]["prefix"]: each for each in rules.values() if "expiration" in each}
    assert set(ours) == set(theirs)
    for prefix, rule in ours.items():
        assert rule["expiration"] == [{"days": theirs[prefix]["Expiration"]["Days"]}]
        versions = theirs[prefix]["NoncurrentVersionExpiration"]["NoncurrentDays"]
        assert rule["noncurrentVersionExpiration"] == [{"noncurrentDays": versions}]
    assert rules["uploads"]["abortIncompleteMultipartUpload"] == [{"daysAfterInitiation": lifecycle.UPLOAD_DAYS}]


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(("role", "level"), [("writer", "write"), ("reader", "read")])
def test_rights_are_those_that_jobs_give_on_ceph(role: Any, level: Any, alone: bool, held: bool) -> None:
    """The contract: an app meets the same rights wherever its users come from."""
    ours = aws.document(aws.Place("b", "notes-0/", alone), role, held=held, encryption=None)
    theirs = policies.of_login(Home("b", "notes-0/", alone), level, held=held)
    if held and level == "write":
        # Amazon asks for this right when an object is written on hold; Ceph does not.
        hold = "s3:PutObjectLegalHold"
        lifts = next(each for each in ours["Statement"] if each["Sid"] == "Hold")
        assert (lifts["Effect"], lifts["Action"], lifts["Resource"]) == ("Deny", [hold], ["arn:aws:s3:::b/notes-0/*"])
        assert lifts["Condition"] == {"StringEquals": {"s3:object-lock-legal-hold": ["OFF"]}}
        ours["Statement"].remove(lifts)
        given, denied = (theirs["Statement"][number]["Action"] for number in (1, 2))
        denied.remove(hold)
        given[:] = sorted([*given, hold])
    assert ours == theirs


@pytest.mark.parametrize(
    ("block", "wanted"),
    [
        ({"algorithm": "AES256"}, {"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}),
        (
            {"algorithm": "aws:kms"},
            {"applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms"}, "bucketKeyEnabled": True},
        ),
    ],
)
def test_how_objects_are_encrypted(block: Object, wanted: Object) -> None:
    seen = _settled(_world({**AWS, "encryption": block}))
    assert _made(seen)["BucketServerSideEncryptionConfiguration"]["spec"]["forProvider"]["rule"] == [wanted]
    assert "Key" not in {each["Sid"] for each in _policy(seen)["Statement"]}, "the store's own key is for everybody"


def test_a_key_of_ones_own_may_be_used() -> None:
    statement = next(each for each in _policy(_settled(_world(FULL)))["Statement"] if each["Sid"] == "Key")
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert statement["Resource"] == ["*"], "an alias is no ARN"
    assert statement["Condition"] == {"StringLike": {"kms:ViaService": ["s3.*.amazonaws.com"]}}
    arn = "arn:aws:kms:eu-central-1:123456789012:key/1"
    encryption = model.Encryption(algorithm="aws:kms", kms_key_id=arn)
    reader = aws.document(aws.Place("b", "p/", alone=True), "reader", held=False, encryption=encryption)
    assert (reader["Statement"][-1]["Action"], reader["Statement"][-1]["Resource"]) == (["kms:Decrypt"], [arn])


def test_no_password_but_in_the_bindings() -> None:
    seen, answer = settle(_world(access={"readOnlySecret": True}), steps=14)
    passwords = {key: made["password"].decode() for key, made in seen.details.items()}
    assert len(set(passwords.values())) == 2
    for key, body in answer.resources.items():
        text = json.dumps(body) + "".join(secret_entries(body).values() if body["kind"] == "Secret" else ())
        assert any(one in text for one in passwords.values()) is key.startswith("binding"), key
    assert not any(each in json.dumps(seen.xr) for each in passwords.values())


@pytest.mark.parametrize("block", [AWS, IN_BUCKET], ids=["bucket each", "one bucket"])
def test_delivery_by_objects_leaves_managed_resources_as_they_are(block: Object) -> None:
    """They have no namespace, and their provider runs where Crossplane does."""
    seen, answer = settle(delivered(_world(block)), steps=14)
    assert answer.ready
    for key, body in answer.resources.items():
        assert is_managed(body) is key.startswith("aws-")
        assert (body["kind"] == "Object") is not is_managed(body)
    (key,) = _keys(seen)
    secret = answer.resources[key]["spec"]["writeConnectionSecretToRef"]
    assert secret["namespace"] == "crossplane-system", "a job namespace of another cluster need not be here"
    details = answer.response.desired.composite.connection_details
    assert details["password"] == seen.details[key]["password"]
    again = settle(seen.with_spec(credentials={"epoch": 1}), steps=14)[1]
    assert again.response.desired.composite.connection_details["login"].endswith(b"_rw_b")


def test_a_cluster_without_the_aws_provider_is_a_condition() -> None:
    settled, before = settle(_world(), steps=14)
    for crds, lacking in ((AWS_CRDS[:1], "buckets.s3.aws.upbound.io"), (AWS_CRDS[1:], "users.iam.aws.upbound.io")):
        answer = run(_world().but(definitions=crds))
        assert answer.conditions["ProviderReady"] == (False, "OperatorTooOld")
        assert answer.message("ProviderReady") == (
            f'provider "pg": there is no CustomResourceDefinition {lacking} in this cluster, so no upbound AWS '
            "provider that could make users or buckets: install its packages for IAM and S3, or write another "
            "spec.s3.users"
        )
        assert not answer.resources
        assert set(run(settled.but(definitions=crds)).resources) == set(before.resources)
    assert run(_world(IN_BUCKET).but(definitions=AWS_CRDS[:1])).conditions["ProviderReady"][0]
    probing = run(provider_world(of_type("s3", AWS)))
    assert probing.conditions["BackendReady"] == (False, "OperatorTooOld")


def test_only_users_aws_asks_for_the_definitions() -> None:
    """To ask for a kind that Crossplane may not list would hold up the whole reconcile."""
    asked = {"aws-users", "aws-buckets"}
    assert asked <= set(run(_world()).response.requirements.resources)
    assert asked.isdisjoint(run(other_world("s3", S3)).response.requirements.resources)


def test_a_tenant_may_not_have_users_made_with_the_clusters_credentials() -> None:
    """Or a claim that names somebody's bucket would get rights on it."""
    theirs = of_type("s3", {**IN_BUCKET, "adminSecret": {"name": "a"}}, claim=("team-a", "pg"))
    answer = run(_world().but(providers=(theirs,), namespaces=(namespace(),)))
    assert answer.conditions["ProviderReady"] == (False, "InvalidSpec")
    assert answer.message("ProviderReady").startswith('provider "pg": spec.s3.users: "AWS" is refused: users are made')


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("epoch"), st.integers(0, 2)),
        st.tuples(st.just("revoke"), st.booleans()),
        st.tuples(st.just("reader"), st.booleans()),
        st.tuples(st.just("hold"), st.booleans()),
        st.tuples(st.just("details"), st.booleans()),
        st.tuples(st.just("job"), st.sampled_from([0, 11, 30])),
    ),
    max_size=12,
)


def _happen(now: World, event: tuple[str, Any]) -> World:
    kind, value = event
    asked = now.xr["spec"]["credentials"]
    if kind in {"epoch", "revoke"}:
        epoch, revoke = (asked["epoch"] + value, asked["revokeOld"]) if kind == "epoch" else (asked["epoch"], value)
        return now.with_spec(credentials={"epoch": epoch, "revokeOld": revoke})
    if kind == "reader":
        return now.with_spec(access={"readOnlySecret": value})
    return now.with_spec(legalHold=value) if kind == "hold" else now


@slow
@given(STEPS, st.sampled_from([AWS, IN_BUCKET]))
def test_the_key_in_a_binding_is_there_whatever_happens(events: list[tuple[str, Any]], block: Object) -> None:
    """The key that an app holds is never let go before its Secret holds another one."""
    now = _settled(_world(block))
    for hour, event in enumerate(events):
        code = event[1] if event[0] == "job" else 0
        seen = _happen(now, event)
        seen = seen.but(details={}) if event == ("details", False) else seen
        held = secret_entries(now.observed["binding"])
        (key,) = [each for each, made in now.details.items() if made["username"].decode() == held["username"]]
        now, answer = step(seen, code=code, time=f"2026-02-01T{hour:02}:00:00Z")
        assert "binding" in answer.resources
        assert key in answer.resources or secret_entries(answer.resources["binding"]) != held
        assert {part for part in _made(seen) if part.startswith("Bucket")} <= set(_made(answer))
