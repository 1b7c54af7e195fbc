"""One Job at a time, one per desired state, again only when that can help."""

from __future__ import annotations

import pytest

from function.conditions import PERMANENT_EXIT_CODES, REASONS_BY_EXIT_CODE
from migrations.errors import Code
from tests.function.harness import Answer, World, complete, failed, run, settle, step
from tests.function.worlds import memory, provider, world

REPAIRABLE = {10, 13, 16}


def _after(code: int | None, reason: str = "PodFailurePolicy", start: World | None = None) -> tuple[World, Answer]:
    """A Memory whose first Job has failed, and the answer to that."""
    started, answer = step(start or world())
    (key,) = answer.jobs()
    ended = started.but(observed={**started.observed, key: failed(started.observed[key], code, reason)})
    return step(ended)


def test_exit_codes_mean_the_same_on_both_sides() -> None:
    """The contract: the function reads what the image says."""
    ends = {int(code): code.reason for code in Code if code not in {Code.SUCCEEDED, Code.USAGE}}
    assert ends == REASONS_BY_EXIT_CODE


@pytest.mark.parametrize("code", PERMANENT_EXIT_CODES)
def test_a_permanent_failure_waits_for_somebody(code: int) -> None:
    stopped, answer = _after(code)
    assert answer.conditions["Provisioned"] == (False, REASONS_BY_EXIT_CODE[code])
    assert answer.jobs() == step(stopped)[1].jobs()
    assert len(answer.jobs()) == 1


@pytest.mark.parametrize("code", PERMANENT_EXIT_CODES)
def test_new_capabilities_repair_what_a_platform_team_repairs(code: int) -> None:
    stopped, _ = _after(code)
    body = provider()
    body["status"]["capabilities"] = ["createrole", "pgvector", "pgvector/0.8.5"]
    answer = run(stopped.but(providers=(body,)))
    again = [key for key in answer.jobs() if key.endswith("-2")]
    assert bool(again) == (code in REPAIRABLE)


def test_a_probe_that_is_missing_for_a_while_is_no_repair() -> None:
    stopped, answer = _after(10)
    unprobed = provider()
    unprobed["status"].pop("capabilities")
    away, meanwhile = step(stopped.but(providers=(unprobed,)))
    back = run(away.but(providers=stopped.providers))
    assert meanwhile.jobs() == back.jobs() == answer.jobs()


@pytest.mark.parametrize("whose", ["claim", "provider"])
def test_a_retry_annotation_asks_again(whose: str) -> None:
    stopped, _ = _after(14)
    target = stopped.xr if whose == "claim" else stopped.providers[0]
    asked = {**target, "metadata": {**target["metadata"], "annotations": {"memory.proompteng.ai/retry": "1"}}}
    changed = stopped.but(xr=asked) if whose == "claim" else stopped.but(providers=(asked,))
    assert settle(changed)[1].ready


def test_a_changed_spec_asks_again() -> None:
    stopped, _ = _after(11)
    assert settle(stopped.with_spec(embeddings__dimension=768))[1].ready


@pytest.mark.parametrize(
    ("code", "reason", "shown"),
    [
        (30, "PodFailurePolicy", "Unreachable"),
        (31, "PodFailurePolicy", "LockBusy"),
        (None, "DeadlineExceeded", "DeadlineExceeded"),
    ],
)
def test_a_transient_failure_is_tried_again_while_the_provider_is_ready(
    code: int | None, reason: str, shown: str
) -> None:
    away = world(provider(ready=False))
    waiting, answer = _after(code, reason, away)
    assert answer.conditions["Provisioned"] == (False, shown)
    assert len(answer.jobs()) == 1
    back, answer = step(waiting.but(providers=(provider(),)))
    assert [key[-2:] for key in answer.jobs()] == ["-1", "-2"], (
        "the finished one is dropped when its successor is there"
    )
    assert answer.status["provision"]["attempt"] == 2
    _, answer = step(back)
    assert [key[-2:] for key in answer.jobs()] == ["-2"]


def test_an_unexpected_failure_stops_with_the_last_message() -> None:
    """`backoffLimit: 4` is five attempts."""
    stopped, answer = _after(None, "BackoffLimitExceeded")
    assert answer.conditions["Provisioned"] == (False, "JobFailed")
    assert answer.resources[answer.jobs()[0]]["spec"]["backoffLimit"] == 4
    assert step(stopped)[1].jobs() == answer.jobs()


def test_an_exit_code_that_nobody_knows_is_a_failed_job() -> None:
    assert _after(77)[1].conditions["Provisioned"] == (False, "JobFailed")


def test_a_spec_change_waits_for_the_running_job() -> None:
    started, first = step(world())
    changed = started.with_spec(searchConfig="english")
    answer = run(changed)
    assert answer.jobs() == first.jobs()
    assert "it works on an earlier spec" in answer.message("Provisioned")
    assert answer.status["provision"] == first.status["provision"]
    ended, _ = step(changed)
    _, answer = step(ended)
    assert len(answer.jobs()) == 2, "then it starts, and the finished one stays until it is there"


def test_the_last_complete_job_stays_as_evidence() -> None:
    settled, before = settle(world())
    changed, answer = step(settled.with_spec(searchConfig="english"))
    assert set(before.jobs()) < set(answer.jobs())
    assert answer.resources["binding"] == before.resources["binding"], "the Secret changes after its Job only"
    new = (set(answer.jobs()) - set(before.jobs())).pop()
    broken = {**changed.observed, new: failed(changed.observed[new], 11)}
    answer = run(changed.but(observed=broken))
    assert set(before.jobs()) < set(answer.jobs())
    assert answer.resources["binding"] == before.resources["binding"]
    assert not answer.ready


def test_going_back_to_an_earlier_spec_is_done_again() -> None:
    """What was tried meanwhile may have changed half of it."""
    settled, before = settle(world())
    changed, answer = step(settled.with_spec(searchConfig="english"))
    new = (set(answer.jobs()) - set(before.jobs())).pop()
    broken = {**changed.observed, new: failed(changed.observed[new], 11, time="2026-01-02T00:00:00Z")}
    back, answer = step(changed.but(observed=broken).with_spec(searchConfig="simple"))
    old_hash = before.jobs()[0].rsplit("-", 1)[0]
    assert f"{old_hash}-2" in answer.jobs()
    assert not answer.ready
    assert settle(back)[1].ready


def test_a_job_on_its_way_out_proves_nothing() -> None:
    settled, answer = settle(world())
    (key,) = answer.jobs()
    going = settled.observed[key]
    going = {**going, "metadata": {**going["metadata"], "deletionTimestamp": "2026-01-02T00:00:00Z"}}
    answer = run(settled.but(observed={**settled.observed, key: going}))
    assert any(each.endswith("-2") for each in answer.jobs())
    assert not answer.ready


def test_a_job_that_somebody_deleted_comes_back_under_its_number() -> None:
    settled, answer = settle(world())
    (key,) = answer.jobs()
    rest = {name: body for name, body in settled.observed.items() if name != key}
    answer = run(settled.but(observed=rest))
    assert answer.jobs() == [key]
    assert "binding" in answer.resources
    assert not answer.ready


def test_a_running_job_that_is_not_observed_yet_is_not_overtaken() -> None:
    started, answer = step(world())
    (key,) = answer.jobs()
    unseen = {name: body for name, body in started.observed.items() if name != key}
    answer = run(started.but(observed=unseen).with_spec(searchConfig="english"))
    assert answer.jobs() == [key], "it is rendered again, not the next one beside it"
    assert "it works on an earlier spec" in answer.message("Provisioned")


def test_what_is_only_about_to_be_complete_still_runs() -> None:
    started, answer = step(world())
    (key,) = answer.jobs()
    early = [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "False"}]
    job = {**started.observed[key], "status": {"conditions": early}}
    answer = run(started.but(observed={**started.observed, key: job}))
    assert answer.conditions["Provisioned"] == (False, "Running")


def test_a_complete_job_of_another_attempt_counts_once() -> None:
    started, answer = step(world(memory_xr=memory()))
    (key,) = answer.jobs()
    observed = {**started.observed, key: complete(started.observed[key])}
    answer = run(started.but(observed=observed))
    assert answer.jobs() == [key]
