"""Every example through Crossplane's own reconciler: the goldens' answers, and `validate` takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from tests.function.examples import FOLDERS, Example, probed
from tests.render.cli import Shown, parted

if TYPE_CHECKING:
    from tests.render.cli import Crossplane

CASES = [pytest.param(Example(folder), id=folder.name) for folder in FOLDERS]
NAMES = ("provider", "first", "settled")
pytestmark = [pytest.mark.render, pytest.mark.parametrize("example", CASES)]


def render(crossplane: Crossplane, example: Example, name: str) -> str:
    """Ask Crossplane the question of a golden."""
    if name == "provider":
        seen = probed(example.provider_world)[0].observed
        return crossplane.render(example.provider_composite, example.definitions, seen.values())
    xr = example.read("xr.yaml")
    if name == "first":
        return crossplane.render(xr, example.required)
    secret = example.connection_secret
    return crossplane.render(xr, [*example.required, *([secret] if secret else [])], example.observed().values())


@pytest.mark.parametrize("name", NAMES)
def test_crossplane_renders_the_golden(crossplane: Crossplane, example: Example, name: str) -> None:
    golden = yaml.safe_load((example.folder / "expected" / f"{name}.yaml").read_text())
    assert Shown.rendered(render(crossplane, example, name)) == Shown.golden(golden)


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_rendered_is_valid(crossplane: Crossplane, example: Example, name: str) -> None:
    """Each object by its schema; an object whose kind nobody knows would be counted as such, and fail."""
    composite, composed, _ = parted(render(crossplane, example, name))
    answer = crossplane.validate(composite, *composed)
    assert answer.errors == ()
    assert answer.statuses == {(body["kind"], body["metadata"]["name"]): "valid" for body in (composite, *composed)}
    assert answer.passed


def test_all_that_people_write_is_valid(crossplane: Crossplane, example: Example) -> None:
    answer = crossplane.validate(example.read("provider.yaml"), example.read("claim.yaml"))
    assert answer.errors == ()
    assert list(answer.statuses.values()) == ["valid", "valid"]
    assert answer.passed
