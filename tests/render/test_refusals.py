"""What `crossplane resource validate` refuses, so that its consent means something; and what it cannot see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.function.examples import Example
from tests.render.cli import parted
from tests.schemas import ROOT, catalog

if TYPE_CHECKING:
    from tests.function.harness import Object
    from tests.render.cli import Crossplane

pytestmark = pytest.mark.render


@pytest.fixture
def example() -> Example:
    return Example(ROOT / "examples" / "quickstart")


@pytest.fixture
def job(crossplane: Crossplane, example: Example) -> Object:
    """The Job that the example's claim renders."""
    _, composed, _ = parted(crossplane.render(example.read("xr.yaml"), example.required))
    (found,) = (body for body in composed if body["kind"] == "Job")
    return found


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        pytest.param({"embeddings": {"dimension": 0}}, "should be greater than or equal to 1", id="out-of-range"),
        pytest.param({"embeddings": {"metric": "cosin"}}, 'supported values: "cosine", "l2", "ip"', id="not-in-enum"),
        pytest.param({"dataset": {"name": "notes"}}, "spec.dataset.schema: Required value", id="missing"),
        pytest.param({"datasets": {"name": "notes"}}, 'unknown field: "datasets"', id="unknown-field"),
        pytest.param(
            {"dataset": {"name": "notes", "schema": "Notes"}}, '"Notes" is not a usable schema', id="rule-in-cel"
        ),
    ],
)
def test_a_wrong_claim_is_refused(crossplane: Crossplane, example: Example, spec: Object, sentence: str) -> None:
    claim = example.read("claim.yaml")
    claim["spec"] |= spec
    answer = crossplane.validate(claim)
    assert not answer.passed
    assert answer.statuses == {("Memory", "notes"): "invalid"}
    assert sentence in " ".join(answer.errors)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        pytest.param({"backofLimit": 4}, 'unknown field "spec.backofLimit"', id="unknown-field"),
        pytest.param({"backoffLimit": "4"}, "cannot unmarshal string into Go struct field", id="wrong-type"),
    ],
)
def test_a_wrong_object_of_kubernetes_is_refused(
    crossplane: Crossplane, job: Object, spec: Object, sentence: str
) -> None:
    """The CLI knows Kubernetes' own kinds by their Go types."""
    job["spec"] |= spec
    answer = crossplane.validate(job)
    assert not answer.passed
    assert sentence in " ".join(answer.errors)


def test_a_kind_without_a_schema_is_refused(crossplane: Crossplane) -> None:
    body = {"apiVersion": "example.org/v1", "kind": "Cluster", "metadata": {"name": "pg"}, "spec": {}}
    answer = crossplane.validate(body)
    assert not answer.passed
    assert answer.statuses == {("Cluster", "pg"): "missingSchema"}


def test_what_the_cli_cannot_see_the_schemas_of_make_test_do(crossplane: Crossplane, job: Object) -> None:
    """Go types know no required fields and no enumerations; Kubernetes' published schemas do."""
    job["spec"]["template"]["spec"]["restartPolicy"] = "Sometimes"
    del job["spec"]["podFailurePolicy"]["rules"]
    assert crossplane.validate(job).passed
    problems = " ".join(catalog().problems(job))
    assert "restartPolicy" in problems
    assert "rules" in problems
