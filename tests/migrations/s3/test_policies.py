"""Policies for any names: no Memory's reach into another's, and what no login may do is denied to each."""

import json
import re
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrations.s3 import logins, policies
from migrations.s3.names import LEDGER, Home, id_of

DATASETS = st.from_regex(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?", fullmatch=True)
IDENTITIES = st.text(min_size=1, max_size=40)
KEYS = st.text(max_size=30)
LEVELS: st.SearchStrategy[Literal["write", "read"]] = st.sampled_from(["write", "read"])


def home(dataset: str, identity: str, *, alone: bool = False) -> Home:
    return Home("bucket", f"{dataset}-{id_of(identity, 'bucket')}/", alone)


HOMES = st.builds(home, DATASETS, IDENTITIES)


def matches(pattern: str, text: str) -> bool:
    """Amazon's rule: * is any text, ? one character."""
    parts = re.split(r"([*?])", pattern)
    expression = "".join({"*": "(?s:.*)", "?": "(?s:.)"}.get(part, re.escape(part)) for part in parts)
    return re.fullmatch(expression, text) is not None


def says(document: dict[str, Any], action: str, resource: str, prefix: str | None = None) -> bool:
    """Whether a document allows: an Allow that matches, and no Deny that does."""
    allowed = False
    for each in document["Statement"]:
        if not any(matches(pattern, action) for pattern in each["Action"]):
            continue
        if "NotResource" in each:
            applies = not any(matches(pattern, resource) for pattern in each["NotResource"])
        else:
            applies = any(matches(pattern, resource) for pattern in each["Resource"])
        wanted = each.get("Condition", {}).get("StringLike", {}).get("s3:prefix")
        if wanted is not None:
            applies = applies and prefix is not None and any(matches(pattern, prefix) for pattern in wanted)
        if applies and each["Effect"] == "Deny":
            return False
        allowed = allowed or applies
    return allowed


@given(HOMES, HOMES, KEYS, LEVELS, st.booleans())
def test_no_key_and_no_listing_of_another_memory_is_within_reach(
    own: Home, theirs: Home, key: str, level: Literal["write", "read"], held: bool
) -> None:
    if own.prefix == theirs.prefix:
        return
    document = policies.of_login(own, level, held=held)
    for action in (*policies.READ, *policies.CHANGES):
        assert not says(document, action, f"arn:aws:s3:::bucket/{theirs.prefix}{key}")
        assert not says(document, action, f"arn:aws:s3:::bucket/{LEDGER}{key}")
    assert not says(document, "s3:ListBucket", "arn:aws:s3:::bucket", theirs.prefix + key)
    assert not says(document, "s3:ListBucket", "arn:aws:s3:::bucket")
    assert not says(document, "s3:ListBucket", "arn:aws:s3:::bucket", own.prefix[:-1])


@given(DATASETS, IDENTITIES, KEYS, st.booleans(), st.booleans())
def test_own_keys_can_be_read_written_and_not_undone(
    dataset: str, identity: str, key: str, held: bool, alone: bool
) -> None:
    own = home(dataset, identity, alone=alone)
    writer, reader = (policies.of_login(own, level, held=held) for level in ("write", "read"))
    resource = f"arn:aws:s3:::bucket/{own.prefix}kv/{key}"
    assert says(writer, "s3:PutObject", resource)
    assert says(writer, "s3:DeleteObject", resource) is not held
    assert says(writer, "s3:PutObjectLegalHold", resource) is not held
    for document in (writer, reader):
        assert says(document, "s3:GetObject", resource)
        assert says(document, "s3:ListBucket", "arn:aws:s3:::bucket", own.prefix)
        assert says(document, "s3:ListBucket", "arn:aws:s3:::bucket") is alone
        assert not says(document, "s3:PutObject", f"arn:aws:s3:::bucket/{own.meta}")
        assert not any(says(document, action, resource) for action in policies.NEVER)
    assert not any(says(reader, action, resource) for action in policies.CHANGES)


@pytest.mark.parametrize(("own", "other"), [("notes", "notes-2"), ("notes-2", "notes"), ("a", "a.b"), ("n", "notes")])
def test_names_that_begin_alike(own: str, other: str) -> None:
    document = policies.of_login(home(own, "x"), "write", held=False)
    assert not says(document, "s3:GetObject", f"arn:aws:s3:::bucket/{home(other, 'x').prefix}kv/a")


def test_document_is_as_small_as_ceph_takes() -> None:
    longest = policies.of_login(home("d" * 63, "x"), "write", held=True)
    assert len(policies.text(longest)) < 2048  # what Amazon takes of a user's own policies, the smallest limit there is
    assert json.loads(policies.text(longest)) == longest


def test_admin_has_one_document_for_all_buckets_of_a_provider() -> None:
    """Ceph lets a user have a hundred, and a provider may have more Memories."""
    first, second = (Home(f"mem-{id_of(name, 'mem')}", "notes/", alone=True) for name in ("a", "b"))
    assert policies.of_admin(first) == policies.of_admin(second)
    assert logins.admin_policy(first) == logins.admin_policy(second) == "memory-mem"
    assert says(policies.of_admin(first), "s3:PutObjectLegalHold", f"arn:aws:s3:::{second.bucket}/notes/x")
    assert not says(policies.of_admin(first), "s3:GetObject", "arn:aws:s3:::memo/x")
    shared = Home("bucket", "notes/", alone=False)
    assert logins.admin_policy(shared) == "memory-bucket"
    assert not says(policies.of_admin(shared), "s3:GetObject", "arn:aws:s3:::bucket-2/x")
