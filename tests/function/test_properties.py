"""What holds for any spec, any order of events, and any process."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf import struct_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from function import emit, names
from function.decode import to_dict
from function.resources.projection import project
from tests.function.harness import (
    ROOT_KEY,
    Answer,
    Object,
    World,
    access_keys,
    asked,
    call,
    complete,
    encoded,
    failed,
    handed_out,
    inner,
    operated,
    request,
    run,
    secret_entries,
    served,
    settle,
    showing,
    step,
    unseen,
)
from tests.function.worlds import (
    AWS,
    AWS_CRDS,
    CUSTOM,
    REDIS,
    S3,
    delivered,
    memory,
    namespace,
    of_type,
    provider,
    world,
)
from tests.schemas import ROOT, catalog

if TYPE_CHECKING:
    from collections.abc import Iterator

slow = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

NAME = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
SPECS = st.fixed_dictionaries(
    {
        "dataset": st.fixed_dictionaries(
            {
                "name": st.from_regex(r"[a-z0-9]([a-z0-9_.-]{0,20}[a-z0-9])?", fullmatch=True),
                "schema": st.from_regex(r"[a-l][a-z0-9_]{0,20}", fullmatch=True),
            }
        ),
        "embeddings": st.fixed_dictionaries(
            {
                "enabled": st.booleans(),
                "dimension": st.integers(1, 16000),
                "metric": st.sampled_from(["cosine", "l2", "ip"]),
                "storage": st.sampled_from(["auto", "full", "half"]),
                "index": st.fixed_dictionaries(
                    {"type": st.sampled_from(["auto", "none", "hnsw", "ivfflat"])},
                    optional={"minRows": st.integers(1, 10**9)},
                ),
            }
        ),
        "access": st.fixed_dictionaries({"readOnlySecret": st.booleans()}),
        "retention": st.fixed_dictionaries({"ttlDays": st.integers(0, 36500)}),
        "legalHold": st.booleans(),
        "adopt": st.booleans(),
    }
)
# A Memory of theirs depends on the most: its provider looks at the labels of its namespace.
SELECTED = {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"memory": "yes"}}}}
HERE = namespace(memory="yes")
IN_BUCKET = {**{key: value for key, value in AWS.items() if key != "bucketPrefix"}, "bucket": "memories"}
BLOCKS: dict[str, tuple[str, Object]] = {
    "postgres": ("postgres", {}),
    "redis": ("redis", REDIS),
    "RGW": ("s3", S3),
    "Shared": ("s3", {**S3, "users": "Shared"}),
    "AWS": ("s3", AWS),
    "AWS in a bucket": ("s3", IN_BUCKET),
    "custom": ("custom", CUSTOM),
}
PLACES = st.sampled_from(sorted(BLOCKS))
# Where somebody other than the app must be told a password: it has no place in an Object.
ONLY_DIRECT = {"RGW", "Shared", "custom"}


def _provider(place: str, **spec: Any) -> Object:
    kind, block = BLOCKS[place]
    return provider(**spec) if kind == "postgres" else of_type(kind, block, **spec)


def _asked(place: str, spec: Object) -> Object:
    """What a place of this kind does not refuse."""
    if place == "redis":
        return {**spec, "embeddings": {**spec["embeddings"], "metric": "cosine"}}
    return {**spec, "access": {"readOnlySecret": False}} if place == "Shared" else spec


def _start(place: str, spec: Object, delivery: str, claim: tuple[str, str] | None, **more: Any) -> World:
    made = world(_provider(place, **more), memory_xr=memory(claim, **_asked(place, spec)))
    start = made.but(namespaces=(HERE,), definitions=AWS_CRDS)
    return start if place in ONLY_DIRECT else _delivered(start, delivery)


CLAIMS = st.one_of(st.none(), st.tuples(NAME, NAME))
# How objects are delivered; a provider that delivers them may be slow to look at what it made.
DELIVERIES = st.sampled_from(["Direct", "Object", "slow Object"])


@dataclass(frozen=True)
class Event:
    """Something that happens between two reconciles."""

    kind: str
    value: Any = None


RINGS: list[dict[str, bytes]] = [
    {"current": ROOT_KEY},
    {"current": bytes(32), "previous": ROOT_KEY},
    {"current": bytes(32)},
]
INPUTS: list[dict[str, Any]] = [
    *({"providers": each} for each in ((_provider("postgres"),), ())),
    *({"namespaces": each} for each in ((HERE,), (namespace(),), ())),
    *({"credentials": {"root-key": each}} for each in RINGS),
    {"credentials": {}},
]
EVENTS = st.lists(
    st.one_of(
        st.builds(Event, st.just("spec"), st.sampled_from(["simple", "english", "german"])),
        st.builds(Event, st.just("reader"), st.booleans()),
        st.builds(Event, st.just("epoch"), st.integers(0, 3)),
        st.builds(Event, st.just("revoke"), st.booleans()),
        st.builds(Event, st.just("end"), st.sampled_from([0, 1, 10, 11, 30, None])),
        st.builds(Event, st.just("inputs"), st.sampled_from(INPUTS)),
        st.builds(Event, st.just("reconcile")),
    ),
    max_size=14,
)


def _happen(now: World, event: Event, tick: int) -> World:
    if event.kind == "spec":
        return now.with_spec(searchConfig=event.value)
    if event.kind == "reader":
        is_shared = now.providers and now.providers[0]["spec"].get("s3", {}).get("users") == "Shared"
        return now.with_spec(access={"readOnlySecret": event.value and not is_shared})
    if event.kind in {"epoch", "revoke"}:
        asked = now.xr["spec"]["credentials"]
        revoke = asked["revokeOld"] if event.kind == "epoch" else event.value
        return now.with_spec(credentials={"epoch": asked["epoch"] + int(event.value), "revokeOld": revoke})
    if event.kind == "inputs":
        return now.but(**event.value)
    if event.kind == "end":
        return _end_jobs(now, event.value, f"2026-01-01T{tick:02}:00:00Z")
    return now


def _end_jobs(now: World, code: int | None, time: str) -> World:
    observed = dict(now.observed)
    for key, body in observed.items():
        if asked(body)["kind"] == "Job" and key in _running(observed):
            reason = "PodFailurePolicy" if code else "DeadlineExceeded"
            seen = served(key, body)  # by now its provider has looked
            ended = complete(inner(seen), time) if code == 0 else failed(inner(seen), code, reason, time)
            observed[key] = showing(seen, ended)
    return now.but(observed={**observed, **handed_out(observed)})


def _reconciled(now: World, delivery: str) -> World:
    """Apply an answer; unlike `step`, Jobs go on until an event ends them."""
    answer = run(now)
    observed = dict(now.observed)
    for key, body in answer.resources.items():
        if key not in observed:
            made = served(key, body)
            observed[key] = unseen(made) if delivery == "slow Object" else made
    observed = operated({key: body for key, body in observed.items() if key in answer.resources})
    published = dict(answer.response.desired.composite.connection_details) or now.published
    xr = {**now.xr, "status": answer.status}
    return now.but(observed=observed, xr=xr, published=published, details=access_keys(observed))


def _running(observed: Any) -> list[str]:
    return [
        key
        for key, body in observed.items()
        if key.startswith("provision-") and not inner(body).get("status", {}).get("conditions")
    ]


@slow
@given(PLACES, SPECS, CLAIMS, DELIVERIES)
def test_the_result_fed_back_changes_nothing(
    place: str, spec: Object, claim: tuple[str, str] | None, delivery: str
) -> None:
    settled, answer = settle(_start(place, spec, delivery, claim))
    assert answer.ready
    again = run(settled)
    assert again.resources == answer.resources
    assert again.status == answer.status
    assert again.response.SerializeToString(deterministic=True) == answer.response.SerializeToString(deterministic=True)


def _delivered(start: World, delivery: str) -> World:
    if delivery == "Direct":
        return start
    return delivered(start).with_spec(access={"readOnlySecret": False})  # the reader's has no place there


def _selected(place: str, spec: Object, delivery: str) -> World:
    return _start(place, spec, delivery, ("team-a", "notes"), allowedConsumers=SELECTED)


def _after(now: World, events: list[Event], delivery: str) -> Iterator[World]:
    """The world after each event."""
    own = now.providers
    for tick, event in enumerate(events):
        seen = _happen(now, event, tick)
        now = _reconciled(seen.but(providers=own) if seen.providers else seen, delivery)
        yield now


@slow
@given(PLACES, SPECS, EVENTS, DELIVERIES)
def test_never_two_jobs_side_by_side(place: str, spec: Object, events: list[Event], delivery: str) -> None:
    for now in _after(_selected(place, spec, delivery), events, delivery):
        assert len(_running(now.observed)) <= 1


@slow
@given(PLACES, SPECS, EVENTS, DELIVERIES, st.data())
def test_taking_something_out_of_the_request_removes_no_resource(
    place: str, spec: Object, events: list[Event], delivery: str, data: st.DataObject
) -> None:
    start = _selected(place, spec, delivery)
    now = [start, *_after(start, events, delivery)][-1]
    now = now.but(providers=start.providers, namespaces=(HERE,), credentials=world().credentials)
    whole = run(now).resources
    inputs = (
        *("provider", "namespace", "label", "unresolved", "namespace unresolved", "root key", "input", "all status"),
        *("looks", "delivery", "connection details", "definitions"),
    )
    lost = data.draw(st.sampled_from([*sorted(now.observed), *inputs]))
    less = _without(now, lost)
    answer = run(less)
    if answer.fatal:
        return  # Crossplane applies nothing of a call that ends so
    assert set(less.observed) & set(whole) <= set(answer.resources), lost


def _without(now: World, lost: str) -> World:
    changes: dict[str, dict[str, Any]] = {
        "provider": {"providers": ()},
        "namespace": {"namespaces": ()},
        "label": {"namespaces": (namespace(),)},
        "unresolved": {"resolved": False},
        "namespace unresolved": {"unanswered": ("consumer-namespace",)},
        "root key": {"credentials": {}},
        "input": {"settings": {}},
        "looks": {"observed": {key: unseen(body) for key, body in now.observed.items()}},
        "connection details": {"details": {}},
        "definitions": {"definitions": ()},
        "delivery": {"settings": {**now.settings, "delivery": "Direct"}},
        "all status": {"xr": {key: value for key, value in now.xr.items() if key != "status"}},
    }
    observed = {key: body for key, body in now.observed.items() if key != lost}
    return now.but(**changes.get(lost, {"observed": observed}))


@slow
@given(PLACES, SPECS, CLAIMS, DELIVERIES)
def test_a_projection_carries_nothing_that_a_server_added(
    place: str, spec: Object, claim: tuple[str, str] | None, delivery: str
) -> None:
    jobs = {
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "p"}],
    }
    start = _start(place, spec, delivery, claim, jobs=jobs)
    settled, last = settle(start)
    for answer in (run(start), last):
        for key, body in answer.resources.items():
            assert project(inner(served(key, copy.deepcopy(body)))) == asked(body)
    assert run(settled.but(credentials={})).resources == last.resources


@slow
@given(PLACES, SPECS, CLAIMS, DELIVERIES)
def test_no_password_leaves_the_connection_secret(
    place: str, spec: Object, claim: tuple[str, str] | None, delivery: str
) -> None:
    answer = settle(_start(place, spec, delivery, claim))[1]
    bindings = {key: body for key, body in answer.resources.items() if body.get("type") == "servicebinding.io/memory"}
    rest = str({key: body for key, body in answer.resources.items() if key not in bindings}) + str(answer.status)
    passwords = {secret_entries(body)["password"] for body in bindings.values()}
    handed_over = answer.response.desired.composite.connection_details.get("password")
    passwords |= {handed_over.decode()} if handed_over else set()
    assert passwords
    for password in passwords:
        assert password not in rest
        assert encoded(password) not in rest


# What a report may hold: nearly an answer, anything that is JSON, anything at all.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8), below, max_size=4),
    max_leaves=8,
)
NUMBER = st.integers(0, 10**6) | ANYTHING
MOMENT = st.sampled_from(["2026-02-03T04:05:06Z", "2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "now"]) | ANYTHING
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "message": st.text(max_size=3000) | ANYTHING,
        "index": ANYTHING
        | st.fixed_dictionaries(
            {
                "state": st.sampled_from(["exact", "building", "ready"]) | ANYTHING,
                "reason": st.sampled_from(["Exact", "Building", "Ready", "Disabled", "Invalid"]) | ANYTHING,
            },
            optional={"message": st.text(max_size=3000), "rows": NUMBER, "bytes": NUMBER},
        ),
        "retention": ANYTHING
        | st.fixed_dictionaries({"lastRun": MOMENT, "deleted": NUMBER, "message": st.text(max_size=3000)}),
        "drift": ANYTHING | st.lists(st.text(max_size=400), max_size=30),
        "data": ANYTHING
        | st.fixed_dictionaries(
            {"rows": NUMBER, "bytes": NUMBER, "deadPercent": NUMBER, "oldest": MOMENT, "held": NUMBER}
        ),
    },
)
REPORTS = st.text() | st.builds(json.dumps, ANYTHING) | st.builds(json.dumps, NEARLY)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8), below, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=5))
def test_plain_data_becomes_the_struct_that_protobuf_makes_of_it_and_plain_data_again(body: Object) -> None:
    theirs, ours = struct_pb2.Struct(), struct_pb2.Struct()
    theirs.update(body)
    ours.ParseFromString(emit._convert(body))
    assert ours == theirs
    assert to_dict(ours) == body


@settings(slow, max_examples=80)
@given(REPORTS, st.sampled_from(["provision", "maintenance"]))
def test_whatever_a_report_says_the_memory_serves_and_its_status_is_one(text: str, key: str) -> None:
    """Whoever may write to a ConfigMap of the job namespace can break nothing by that."""
    now, before = _served()
    (report,) = [name for name, body in now.observed.items() if body["kind"] == "ConfigMap"]
    body = {**now.observed[report], "data": {key: text}}
    answer = run(now.but(observed={**now.observed, report: body}))
    assert (answer.ready, answer.resources) == (before.ready, before.resources)
    assert catalog().problems({**now.xr, "status": answer.status}) == []
    assert all(len(answer.message(kind)) < 2000 for kind in answer.conditions)
    assert {"conditions", "claimConditionTypes"}.isdisjoint(answer.status)


@cache
def _served() -> tuple[World, Answer]:
    return settle(world())


@given(st.text(min_size=1, max_size=300), st.integers(12, 253))
def test_shortened_names_stay_apart(text: str, limit: int) -> None:
    short = names.bounded(text, limit)
    assert len(short) <= limit
    assert names.bounded(text + "x", limit) != short or len(text) >= limit


@given(
    st.lists(
        st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=2, max_size=4
    )
)
def test_digests_tell_parts_apart(parts: list[str]) -> None:
    assert names.digest(*parts) != names.digest("".join(parts))


@given(st.from_regex(r"[0-9a-f]{10}", fullmatch=True), st.integers(1, 10**6))
def test_provision_keys_are_read_as_they_are_written(content: str, number: int) -> None:
    assert names.parse_provision_key(names.provision_key(content, number)) == (content, number)


@given(st.text())
def test_other_keys_are_no_provision_keys(key: str) -> None:
    assert names.parse_provision_key(f"x{key}") is None


_DIGEST = """
import hashlib
from crossplane.function import logging
logging.configure(logging.Level.DISABLED)
from tests.function.harness import run, settle, step
from tests.function.worlds import delivered, memory, provider, provider_world, world
seen = hashlib.sha256()
start = world(memory_xr=memory(access={"readOnlySecret": True}))
probing = step(provider_world(provider(ready=False)))[1]
wrapped = delivered(world())
answers = (run(start), settle(start)[1], probing, run(start.but(resolved=False)), run(wrapped), settle(wrapped)[1])
for answer in answers:
    seen.update(answer.response.SerializeToString(deterministic=True))
print(seen.hexdigest())
"""


def test_same_request_same_bytes_across_processes_and_hash_seeds() -> None:
    found = set()
    for seed in ("0", "1", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", _DIGEST], env=env, check=True, capture_output=True, text=True)
        found.add(done.stdout.strip())
    assert len(found) == 1


def test_the_order_in_a_request_does_not_matter() -> None:
    settled, _ = settle(world())
    asked = dict(run(settled).response.requirements.resources)
    forward = request(settled, asked)
    backward = request(settled.but(observed=dict(reversed(list(settled.observed.items())))), asked)
    answers = [call(each).SerializeToString(deterministic=True) for each in (forward, backward)]
    assert answers[0] == answers[1]


def test_a_call_changes_nothing_that_the_next_one_sees() -> None:
    """Decoded objects are shared between calls."""
    settled, answer = settle(world())
    for changed in (settled.but(providers=()), settled.with_spec(searchConfig="english"), settled.but(credentials={})):
        step(changed)
    assert run(settled).resources == answer.resources


def test_desired_state_of_earlier_steps_passes_through() -> None:
    settled, answer = settle(world())
    req = request(settled, dict(answer.response.requirements.resources))
    req.desired.resources["theirs"].resource.update({"kind": "Bucket", "spec": {"a": 1}})
    req.desired.composite.resource.update({"status": {"theirs": "stays"}})
    req.context.update({"key": "value"})
    rsp = call(req)
    assert rsp.desired.resources["theirs"] == req.desired.resources["theirs"]
    status = Answer(rsp).status
    assert (status["theirs"], status["schema"]) == ("stays", "notes")
    assert rsp.context == req.context
    assert rsp.meta.tag == req.meta.tag


def test_objects_of_another_step_are_left_to_it() -> None:
    settled, _ = settle(world())
    theirs: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs", "labels": {}}}
    answer = run(settled.but(observed={**settled.observed, "theirs": theirs}, providers=()))
    assert "theirs" not in answer.resources


def test_everything_about_a_resource_is_for_claim_and_composite() -> None:
    answer = run(world())
    assert {each.target for each in answer.response.conditions} == {2}
    assert {each.target for each in answer.response.results} == {2}
    assert not any("status" in body for body in answer.resources.values())
