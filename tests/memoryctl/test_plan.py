"""`memoryctl plan`: what a changed claim would do, foretold by the function and the image, and nothing done."""

import base64
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from memoryctl import changes, embedded
from memoryctl import provider as providers
from memoryctl.objects import Object, make_secret, secret_data, secret_key
from tests.memoryctl.conftest import Laptop, Ready


def planned(laptop: Laptop, *manifests: Object, code: int = 0) -> list[dict[str, Any]]:
    before = laptop.files()
    done = laptop.run("plan", "-f", str(laptop.write(*manifests)), "-o", "json")
    assert done.returncode == code, done.stderr
    assert laptop.files() == before, "nothing is applied"
    data = [secret_data(one) for one in laptop.cluster.list("v1", "Secret")]
    passwords = [one["password"].decode() for one in data if "password" in one]
    assert passwords
    assert not any(secret in done.stdout + done.stderr for secret in [*passwords, "SCRAM-SHA-256"])
    found: list[dict[str, Any]] = json.loads(done.stdout)["changes"]
    return found


def test_an_unchanged_claim_changes_nothing(ready: Ready, provider: Object, claim: Object) -> None:
    done = ready.run("plan", "-f", str(ready.write(provider, claim)))
    assert (done.returncode, done.stdout) == (0, f"laptop, state in {ready.state}\n\nnothing would change\n")


def test_a_changed_claim_is_foretold_whole(ready: Ready, claim: Object) -> None:
    """Fields, objects, conditions, the next request, and what the image says that it would do with it."""
    claim["spec"] |= {"retention": {"ttlDays": 30}, "legalHold": True, "access": {"readOnlySecret": True}}
    [change] = planned(ready, claim)
    assert change["of"] == "Memory team-a/notes"
    assert change["spec"] == [
        "access.readOnlySecret: false → true",
        "legalHold: false → true",
        "retention.ttlDays: 90 → 30",
    ]
    assert [one["resource"].split("-")[0] for one in change["added"]] == ["provision", "request"]
    assert (change["changed"], change["removed"]) == ([], [])
    said = "\n".join(change["conditions"])
    assert 'Provisioned: True/Succeeded → False/Running, Job "mem-' in said
    assert "RetentionScheduled: True/Scheduled → True/OnHold, " in said
    request = [line.split(".", 1)[-1] if line.startswith("logins") else line for line in change["request"]]
    assert request == [
        "legalHold: false → true",
        "state: closed → active",
        "verifier: (none) → (hidden)",
        "retention.ttlDays: 90 → 30",
    ]
    provision = change["provision"]
    assert (provision["code"], provision["home"], provision["migrations"]) == (0, "ours", [])
    assert provision["changes"][:2] == ["retention.ttlDays 90 → 30", "legalHold false → true"]
    assert provision["changes"][2].endswith("(slot a of the reader) is opened")
    assert change["problems"] == []


def test_what_provision_would_refuse_is_a_problem(ready: Ready, claim: Object) -> None:
    """Asked of a server that is stopped, as it is left again."""
    dimension = int((ready.binding / "dimension").read_text())
    with psycopg.connect((ready.binding / "uri").read_text(), autocommit=True) as connection:
        connection.execute("SELECT memory_upsert_embedding('notes', 'a', %s::vector)", [str([1] * dimension)])
    directory = providers.directory(ready.state)
    embedded.stop(directory)
    claim["spec"]["embeddings"] = {"dimension": 3}
    [change] = planned(ready, claim, code=1)
    [problem] = change["problems"]
    assert problem.startswith("provision would be refused (DimensionConflict): embeddings.dimension 3 differs from")
    assert change["provision"]["home"] == "ours"
    assert not embedded.is_running(directory)


def test_what_the_function_refuses_is_a_problem_and_asks_nobody(ready: Ready, claim: Object) -> None:
    claim["spec"]["access"] = {"readerRole": "bob"}
    [change] = planned(ready, claim, code=1)
    [problem] = change["problems"]
    assert problem.startswith('Provisioned=False/PermissionDenied: spec.access.readerRole: "bob" is not among')
    assert (change["added"], change["provision"]) == ([], None)


def test_a_changed_provider_tells_what_becomes_of_its_memories(ready: Ready, provider: Object) -> None:
    provider["spec"]["maintenance"] = {"schedule": "0 3 * * *"}
    done = ready.run("plan", "-f", str(ready.write(provider)))
    assert done.returncode == 0, done.stderr
    [_, pg, notes] = done.stdout.split("\n\n")
    lines = pg.splitlines()
    assert lines[:4] == ["XMemoryProvider pg", "  SPEC", "    maintenance.schedule: (none) → 0 3 * * *", "  OBJECTS"]
    assert lines[4].startswith("    ~ CronJob databases/memory-provider-")
    assert lines[5].endswith("* * * * → 0 3 * * *")
    assert "RetentionScheduled stays True/Scheduled, rows are removed after 90 days" in notes


def test_a_new_claim_of_a_provider_that_is_there_is_all_new(ready: Ready, claim: Object) -> None:
    claim["metadata"]["name"] = "diary"
    claim["spec"]["dataset"] = {"name": "diary", "schema": "diary"}
    [change] = planned(ready, claim)
    assert (change["of"], change["removed"], change["changed"]) == ("Memory team-a/diary", [], [])
    assert "dataset.schema: (none) → diary" in change["spec"]
    assert {one["name"].split()[0] for one in change["added"]} >= {"Job", "Secret", "ConfigMap"}
    assert change["provision"]["home"] == "new"
    assert 'schema "diary" is made' in change["provision"]["changes"]


@pytest.mark.parametrize(
    ("given", "code", "sentence"),
    [
        ("", 64, "Missing option '-f'"),
        ("secret", 1, "there is nothing to plan: name a manifest of a Memory or a provider with -f"),
        ("claim", 1, "to compare with: memoryctl up makes it"),
    ],
    ids=["no file", "no claim", "no state"],
)
def test_a_plan_of_nothing_is_answered_by_a_sentence(
    tmp_path: Path, claim: Object, given: str, code: int, sentence: str
) -> None:
    laptop, files = Laptop(tmp_path), {"claim": claim, "secret": make_secret(secret_key("a", "b"), {})}
    done = laptop.run("plan", "--laptop", *(["-f", str(laptop.write(files[given]))] if given else []))
    assert done.returncode == code
    assert sentence in done.stderr


def test_no_difference_ever_shows_a_secret() -> None:
    before = make_secret(secret_key("a", "b"), {"password": b"old", "stays": b"same"})
    after = make_secret(secret_key("a", "b"), {"password": b"new", "stays": b"same", "more": b"added"})
    assert changes.of_objects(before, after) == ["data.more: (none) → (hidden)", "data.password: (hidden) → (hidden)"]
    documents = [{"hash": text, "deep": [{"name": "x", "verifier": text}], "text": text * 90} for text in ("1", "2")]
    requests = [{"data": {"request.json": base64.b64encode(json.dumps(one).encode()).decode()}} for one in documents]
    assert changes.of_requests(*requests) == [
        "deep[x].verifier: (hidden) → (hidden)",
        f"text: {'1' * 80}… → {'2' * 80}…",
    ]


def test_lists_are_compared_by_name_or_by_place() -> None:
    before = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "args": ["x"], "kind": {"a": 1}}
    after = {"env": [{"name": "B", "value": "3"}, {"name": "A", "value": "1"}], "args": ["y", "z"], "kind": [1]}
    assert list(changes.of_values(before, after)) == [
        "args[0]: x → y",
        "args[1]: (none) → z",
        "env[B].value: 2 → 3",
        'kind: {"a": 1} → [1]',
    ]
