"""What a tenant cannot do."""

from __future__ import annotations

import pytest

from tests.function.harness import pipeline_input, run, settle
from tests.function.worlds import ADMIN, memory, provider, world

OWN = {"host": "evil.team-x.svc", "sslMode": "require", "connectionSecret": {"name": "admin"}}


def test_a_claimed_provider_named_like_a_shared_one_captures_nobody_elses_memory() -> None:
    evil = provider("pg-e5v1l", ("team-x", "pg"), postgres=OWN, allowedConsumers={"namespaces": {"from": "All"}})
    answer = settle(world(evil, provider()))[1]
    assert answer.status["provider"]["via"] == "Shared"
    assert answer.status["endpoint"] == "db.example.com:5432"


def test_nor_does_it_block_one() -> None:
    evil = provider("pg-e5v1l", ("team-x", "pg"), postgres=OWN)
    assert settle(world(evil, provider()))[1].ready


def test_labels_of_a_claim_do_not_make_a_provider_that_of_a_namespace() -> None:
    forged = provider("pg-e5v1l", ("team-x", "pg"), postgres=OWN)
    forged["metadata"]["labels"] = {"crossplane.io/claim-namespace": "team-a", "crossplane.io/claim-name": "pg"}
    assert run(world(forged, provider())).status["provider"]["via"] == "Shared"


def test_a_shared_provider_that_somebody_claims_is_no_longer_found() -> None:
    taken = provider("pg", ("team-x", "pg"), postgres=OWN)
    answer = run(world(taken))
    assert answer.conditions["ProviderReady"] == (False, "NotFound")


def test_a_pinned_shared_provider_that_is_claimed_moves_nothing() -> None:
    settled, before = settle(world())
    taken = provider("pg", ("team-x", "pg"), postgres=OWN)
    answer = run(settled.but(providers=(taken,)))
    assert answer.conditions["ProviderReady"] == (False, "Changed")
    assert "it was nobody's claim and now belongs to the claim team-x/pg" in answer.message("ProviderReady")
    assert answer.resources == before.resources


def test_a_new_provider_of_the_same_name_does_not_take_a_memory_over() -> None:
    settled, before = settle(world())
    mine = provider("pg-x1y2z", ("team-a", "pg"), postgres=OWN)
    answer = run(settled.but(providers=(provider(), mine)))
    assert answer.conditions["ProviderReady"] == (False, "Changed")
    assert "via was Shared and is Claim" in answer.message("ProviderReady")
    assert answer.resources == before.resources


def test_an_admission_that_is_taken_back_removes_nothing() -> None:
    settled, before = settle(world())
    closed = provider(allowedConsumers={"namespaces": {"from": "Names", "names": ["team-b"]}})
    answer = run(settled.but(providers=(closed,)))
    assert answer.conditions["ProviderReady"] == (False, "NotAdmitted")
    assert answer.resources == before.resources


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"postgres": {**OWN, "connectionSecret": ADMIN}}, "spec.postgres.connectionSecret.namespace"),
        (
            {"postgres": {"clusterRef": {"name": "db", "namespace": "databases"}, "connectionSecret": ADMIN}},
            "spec.postgres.clusterRef.namespace",
        ),
        ({"postgres": OWN, "jobs": {"serviceAccountName": "cluster-admin"}}, "spec.jobs.serviceAccountName"),
    ],
    ids=["mount-a-foreign-secret", "run-in-a-foreign-namespace", "run-as-somebody-else"],
)
def test_jobs_of_a_claimed_provider_stay_in_its_namespace(spec: dict[str, object], path: str) -> None:
    reaching = provider("pg-x1y2z", ("team-a", "pg"), **spec)  # type: ignore[arg-type]
    answer = run(world(reaching))
    assert answer.conditions["ProviderReady"] == (False, "InvalidSpec")
    assert path in answer.message("ProviderReady")
    assert answer.resources == {}


def test_the_composition_may_allow_it() -> None:
    allowed = {**pipeline_input(), "claimedProviders": {"allowServiceAccounts": True, "allowOtherNamespaces": True}}
    reaching = provider(
        "pg-x1y2z",
        ("team-a", "pg"),
        postgres={**OWN, "connectionSecret": ADMIN},
        jobs={"serviceAccountName": "memory-jobs"},
    )
    answer = run(world(reaching).but(settings=allowed))
    job = answer.resources[answer.jobs()[0]]
    assert job["metadata"]["namespace"] == "databases"


def test_memories_of_two_namespaces_have_nothing_in_common() -> None:
    one = settle(world())[1].resources
    two = settle(world(memory_xr=memory(("team-b", "notes"), "notes-q1w2e")))[1].resources
    names = [{(body["kind"], body["metadata"]["name"]) for body in each.values()} for each in (one, two)]
    shared = names[0] & names[1]
    assert shared == {("Secret", "notes-memory")}, "each in its own namespace"
    assert one["binding"]["metadata"]["namespace"] != two["binding"]["metadata"]["namespace"]
    assert one["binding"]["data"]["username"] != two["binding"]["data"]["username"]


def test_two_databases_of_one_server_hold_the_same_identity_under_other_logins() -> None:
    first = settle(world())[1].resources["binding"]["data"]
    there = {"host": "db.example.com", "database": "other", "connectionSecret": ADMIN}
    second = settle(world(provider(postgres=there)))[1].resources["binding"]["data"]
    assert first["username"] != second["username"]
