"""Consumers by label: when a Namespace is looked at, whom its labels admit, and what losing one does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function.model import LabelSelector
from tests.function.harness import Answer, Object, World, run, settle, step
from tests.function.worlds import memory, namespace, provider, world

REQUIREMENTS = ["consumer-namespace", "provider-claimed", "provider-shared"]
LABELLED, BARE = namespace(memory="yes"), namespace()


def _consumers(**namespaces: Any) -> Object:
    return provider(allowedConsumers={"namespaces": namespaces})


BY_LABEL = _consumers(**{"from": "Selector"}, selector={"matchLabels": {"memory": "yes"}})
BY_NAME = _consumers(**{"from": "Names"}, names=["team-a"])


def _world(*namespaces: Object, **changes: Any) -> World:
    return world(BY_LABEL).but(namespaces=namespaces, **changes)


def _asked(answer: Answer) -> tuple[list[str], list[str]]:
    requirements = answer.response.requirements
    return sorted(requirements.resources), sorted(requirements.extra_resources)


@pytest.mark.parametrize("old_form", [False, True], ids=["v2", "v1.20"])
def test_the_claims_namespace_is_required_by_name(*, old_form: bool) -> None:
    settled, answer = settle(_world(LABELLED, namespace("team-b"), old_form=old_form))
    assert answer.ready
    assert _asked(answer) == (REQUIREMENTS, REQUIREMENTS)
    for form in (answer.response.requirements.resources, answer.response.requirements.extra_resources):
        selector = form["consumer-namespace"]
        assert (selector.api_version, selector.kind, selector.match_name) == ("v1", "Namespace", "team-a")
    without_key = run(settled.but(credentials={}))
    assert _asked(without_key) == (REQUIREMENTS, REQUIREMENTS), "whatever else is wrong"


@pytest.mark.parametrize(
    "start",
    [world(), world(BY_NAME), world(_consumers(**{"from": "Same"})), world(BY_LABEL, memory_xr=memory(claim=None))],
    ids=["All", "Names", "Same", "no claim"],
)
def test_no_namespace_is_required_without_need(start: World) -> None:
    """A kind that Crossplane may not list blocks the whole reconcile."""
    resources, extra = _asked(run(start))
    assert "consumer-namespace" not in resources + extra


def test_what_is_not_seen_yet_starts_nothing() -> None:
    answer = run(_world(LABELLED, unanswered=("consumer-namespace",)))
    assert answer.resources == {}
    assert answer.ttl == 0
    assert _asked(answer) == (REQUIREMENTS, REQUIREMENTS)


def test_what_is_not_seen_any_more_stops_nothing() -> None:
    settled, before = settle(_world(LABELLED))
    answer = run(settled.but(unanswered=("consumer-namespace",)))
    assert answer.resources == before.resources
    assert answer.status == before.status
    assert answer.ready
    assert answer.ttl == 0


@pytest.mark.parametrize("namespaces", [(BARE,), ()], ids=["label removed", "namespace gone"])
def test_a_label_that_is_taken_away_does_what_a_removed_name_does(namespaces: tuple[Object, ...]) -> None:
    settled, before = settle(_world(LABELLED))
    answer = run(settled.but(namespaces=namespaces))
    named = run(settle(world(BY_NAME))[0].but(providers=(_consumers(**{"from": "Names"}, names=["team-b"]),)))
    assert answer.conditions == named.conditions == {"ProviderReady": (False, "NotAdmitted")}
    assert answer.resources == named.resources == before.resources
    assert (answer.ready, answer.ttl) == (named.ready, named.ttl)
    changed = run(settled.but(namespaces=namespaces).with_spec(searchConfig="english"))
    assert changed.jobs() == before.jobs(), "a new wish is not fulfilled"


def test_a_label_that_comes_back_changes_nothing() -> None:
    settled, before = settle(_world(LABELLED))
    lost, _ = step(settled.but(namespaces=(BARE,)))
    answer = settle(lost.but(namespaces=(LABELLED,)))[1]
    assert (answer.resources, answer.conditions, answer.ready) == (before.resources, before.conditions, True)


def test_a_namespace_without_any_label_is_not_admitted() -> None:
    bare = {**BARE, "metadata": {"name": "team-a"}}
    assert run(_world(bare)).conditions["ProviderReady"] == (False, "NotAdmitted")


def _condition(operator: str, *values: str) -> Object:
    return {"key": "tier", "operator": operator, **({"values": list(values)} if values else {})}


@pytest.mark.parametrize(
    ("conditions", "gold", "other", "without"),
    [
        ([_condition("In", "gold", "silver")], True, False, False),
        ([_condition("NotIn", "gold")], False, True, True),
        ([_condition("Exists")], True, True, False),
        ([_condition("DoesNotExist")], False, False, True),
        ([_condition("Exists"), _condition("NotIn", "gold")], False, True, False),
    ],
    ids=["In", "NotIn", "Exists", "DoesNotExist", "both must hold"],
)
def test_labels_are_compared_as_kubernetes_does(
    conditions: list[Object], *, gold: bool, other: bool, without: bool
) -> None:
    start = world(_consumers(**{"from": "Selector"}, selector={"matchExpressions": conditions}))
    namespaces = (namespace(tier="gold"), namespace(tier="other"), namespace())
    admitted = [bool(run(start.but(namespaces=(each,))).jobs()) for each in namespaces]
    assert admitted == [gold, other, without]


LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "x", "y"]))
CONDITIONS = st.one_of(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from("abc"),
            "operator": st.sampled_from(["In", "NotIn"]),
            "values": st.lists(st.sampled_from(["", "x", "y"]), min_size=1, unique=True),
        }
    ),
    st.fixed_dictionaries({"key": st.sampled_from("abc"), "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
)
SELECTORS = st.fixed_dictionaries({"matchLabels": LABELS, "matchExpressions": st.lists(CONDITIONS, max_size=3)})


@given(SELECTORS, CONDITIONS, LABELS)
def test_a_condition_more_admits_nobody_more(selector: Object, condition: Object, labels: dict[str, str]) -> None:
    stricter = {**selector, "matchExpressions": [*selector["matchExpressions"], condition]}
    if selector["matchLabels"] or selector["matchExpressions"]:
        assert _selects(selector, labels) >= _selects(stricter, labels)
    assert not _selects({}, labels)


@given(CONDITIONS, LABELS)
def test_a_condition_or_its_opposite_holds(condition: Object, labels: dict[str, str]) -> None:
    pairs = {"In": "NotIn", "NotIn": "In", "Exists": "DoesNotExist", "DoesNotExist": "Exists"}
    opposite = {**condition, "operator": pairs[condition["operator"]]}
    assert _selects({"matchExpressions": [condition]}, labels) != _selects({"matchExpressions": [opposite]}, labels)


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    return LabelSelector.read(selector).selects(labels)
