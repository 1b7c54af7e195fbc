"""Every example is rendered, compared with its goldens, and accepted by the API servers that would get it."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import pytest

from migrations.postgres import request as postgres
from migrations.redis import request as redis
from migrations.s3 import request as s3
from scripts import contract
from tests.function.examples import FOLDERS, UPDATE, Example
from tests.function.harness import Answer, asked, secret_entries
from tests.schemas import ROOT, catalog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrations import request

CASES = [pytest.param(Example(folder), id=folder.name) for folder in FOLDERS]
NAMES = ("provider", "first", "settled")
pytestmark = pytest.mark.parametrize("example", CASES)


@pytest.fixture(autouse=True)
def _updated(example: Example) -> None:
    if UPDATE:
        example.write()


def test_says_what_it_shows(example: Example) -> None:
    heading, _, text = (example.folder / "README.md").read_text().partition("\n\n")
    assert heading.startswith("# ")
    assert len(text) > 80, "what the example shows, in a few sentences"
    assert f"`{example.folder.name}`" in (ROOT / "examples" / "README.md").read_text()


def test_composites_are_what_crossplane_makes_of_the_manifests(example: Example) -> None:
    assert example.read("xr.yaml") == example.composite
    provider, *others = example.required
    assert {key: value for key, value in provider.items() if key != "status"} == example.provider_composite
    assert tuple(others) == (*example.namespaces, *example.definitions)


@pytest.mark.parametrize("name", NAMES)
def test_answer_is_the_golden_one(example: Example, name: str) -> None:
    golden = (example.folder / "expected" / f"{name}.yaml").read_text()
    assert example.answers()[name].to_yaml() == golden, "review, then MEMORY_UPDATE_GOLDENS=1 pytest tests/function"


def test_a_settled_memory_serves(example: Example) -> None:
    """A golden that says otherwise would be compared with itself for ever."""
    settled = example.answers()["settled"]
    wanted = example.folder.name != "refused"
    serving = ("ProviderReady", "CredentialsReady", "Provisioned")
    assert (settled.ready, all(settled.conditions.get(kind, (False,))[0] for kind in serving)) == (wanted, wanted)


def test_manifests_are_accepted_by_the_xrds(example: Example) -> None:
    known = catalog()
    for body in (*map(example.read, ("provider.yaml", "claim.yaml", "xr.yaml")), example.required[0]):
        body.pop("status", None)
        assert known.problems(body) == [], body["kind"]


@pytest.mark.parametrize("name", NAMES)
def test_rendered_objects_are_accepted_by_the_api_server(example: Example, name: str) -> None:
    known = catalog("crossplane", "cloudnative-pg", "provider-kubernetes", "provider-aws")
    answer = example.answers()[name]
    for key, body in answer.resources.items():
        assert known.problems(body) == [], key
    composite = example.required[0] if name == "provider" else example.read("xr.yaml")
    assert known.problems({**composite, "status": answer.status}) == []


@pytest.mark.parametrize("name", NAMES)
def test_only_connection_secrets_hold_a_password(example: Example, name: str) -> None:
    """The policy: no plaintext password anywhere else, in any encoding that a Secret uses."""
    answers = example.answers()
    settled = answers["settled"]
    passwords = {secret_entries(body)["password"] for body in settled.resources.values() if _is_binding(body)}
    handed_over = settled.response.desired.composite.connection_details.get("password")
    if handed_over:
        passwords.add(handed_over.decode())
    assert passwords or example.folder.name == "refused"
    for text in _texts_outside_bindings(answers[name]):
        for password in passwords:
            assert password not in text


def _is_binding(body: dict[str, Any]) -> bool:
    """Also the one other place: what a Job logs in with where there is no admin."""
    component = body["metadata"]["labels"]["app.kubernetes.io/component"]
    return body.get("type") == "servicebinding.io/memory" or component == "login"


def _texts_outside_bindings(answer: Answer) -> Iterator[str]:
    yield str(answer.response.conditions) + str(answer.response.results) + json.dumps(answer.status)
    for body in answer.resources.values():
        if not _is_binding(body):
            yield json.dumps(body)
            yield from (b64decode(value).decode() for value in asked(body).get("data", {}).values())


def test_request_document_is_what_the_image_reads(example: Example) -> None:
    """The contract: the image refuses what it does not know, so it must know all that is rendered."""
    answers = example.answers()
    for body in (
        *answers["first"].resources.values(),
        *answers["provider"].resources.values(),
        *example.observed().values(),
    ):
        text = secret_entries(asked(body)).get("request.json") if asked(body)["kind"] == "Secret" else None
        if text:
            _document(text).model_validate_json(text)


class Custom:
    """What the image of a custom backend is given: what its schema is made of."""

    ProvisionRequest = contract.Provision
    MaintainRequest = contract.Maintain
    ReapRequest = contract.Reap
    ProbeRequest = contract.Probe


IMAGES: dict[str, Any] = {"postgres": postgres, "redis": redis, "s3": s3, "custom": Custom}


def _document(text: str) -> type[request.ModelBase]:
    """What reads a document; each has something that no other has."""
    document = json.loads(text)
    image = IMAGES[document["provider"]["type"]]
    names = {"driftPolicy": "MaintainRequest", "deletionGraceSeconds": "ReapRequest", "dataset": "ProvisionRequest"}
    found = next((name for key, name in names.items() if key in document), "ProbeRequest")
    model: type[request.ModelBase] = getattr(image, found)
    return model
