"""Rotation: epochs, slots, revokeOld, root keys. The login that an app holds is never taken from under it."""

from __future__ import annotations

import copy
import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from function.credentials import Login, RootKey
from function.plan import rotation
from tests.function.harness import (
    ROOT_KEY,
    Answer,
    Object,
    World,
    complete,
    failed,
    run,
    secret_entries,
    served,
    settle,
    step,
)
from tests.function.worlds import memory, world

SECOND, THIRD = bytes(range(1, 33)), bytes(range(2, 34))
UID = "uid-of-notes-x7k2p"


def _ring(current: bytes, previous: bytes | None = None) -> dict[str, dict[str, bytes]]:
    return {"root-key": {"current": current} | ({"previous": previous} if previous else {})}


def _at(start: World, epoch: int, *, revoke: bool = False) -> World:
    return start.with_spec(credentials={"epoch": epoch, "revokeOld": revoke})


def _new(epoch: int = 0, **spec: Any) -> World:
    return _at(world(memory_xr=memory(**spec)), epoch)


def _without_status(start: World) -> World:
    return start.but(xr={key: value for key, value in start.xr.items() if key != "status"})


def _request(answer: Answer, job: str) -> Object:
    """The request document of a Job, by the Job's key."""
    body = answer.resources[f"request-{job.split('-')[1]}"]
    found: Object = json.loads(secret_entries(body)["request.json"])
    return found


def _states(document: Object) -> dict[str, str]:
    """State by `rw_a` and so on."""
    return {each["name"][-4:]: each["state"] for each in document["logins"]}


def _jobs(start: World) -> tuple[World, list[Object]]:
    """Reconcile until nothing changes; also the request document of each Job, in order."""
    seen: dict[str, Object] = {}
    for hour in range(16):
        after, answer = step(start, time=f"2026-02-01T{hour:02}:00:00Z")
        for key in answer.jobs():
            if key not in start.observed:
                seen[key] = _request(answer, key)
        if after == start:
            return after, list(seen.values())
        start = after
    msg = "the composite never settled"
    raise AssertionError(msg)


def _binding(seen: World, key: str = "binding") -> dict[str, str]:
    return secret_entries(seen.observed[key])


def _password(login: str, epoch: int, key: bytes = ROOT_KEY) -> str:
    return Login("team-a/notes", UID, login, epoch).password(RootKey(key))


def _ready(seen: World) -> bool:
    return run(seen).ready


def test_an_epoch_more_gives_the_other_slot_a_password_and_leaves_the_one_before() -> None:
    settled, _ = settle(_new())
    old = _binding(settled)
    rotated, (document,) = _jobs(_at(settled, 1))
    assert _states(document) == {"rw_a": "draining", "rw_b": "active", "ro_a": "closed", "ro_b": "closed"}
    assert [("verifier" in each) for each in document["logins"]] == [False, True, False, False]
    new = _binding(rotated)
    assert (old["username"][-4:], new["username"][-4:]) == ("rw_a", "rw_b")
    assert new["password"] == _password(new["username"], 1) != old["password"]
    assert rotated.xr["status"]["credentials"] == {"epoch": 1, "slot": "b", "keyId": "630dcd29"}
    assert _ready(rotated)


def test_the_next_rotation_takes_the_slot_of_the_epoch_before_last() -> None:
    now, _ = settle(_new())
    for epoch in range(1, 5):
        now, (document,) = _jobs(_at(now, epoch))
        active, draining = ("rw_b", "rw_a") if epoch % 2 else ("rw_a", "rw_b")
        states = _states(document)
        assert (states[active], states[draining]) == ("active", "draining")
        assert _binding(now)["password"] == _password(_binding(now)["username"], epoch)


def test_the_secret_changes_only_when_the_job_for_its_epoch_is_complete() -> None:
    settled, before = settle(_new(access={"readOnlySecret": True}))
    started, first = step(_at(settled, 1))
    running = run(started)
    for answer in (first, running):
        assert answer.conditions["Provisioned"] == (False, "Running")
        assert answer.status["credentials"]["epoch"] == 0
        for key in ("binding", "binding-reader"):
            assert answer.resources[key] == before.resources[key]
    ended, _ = step(started)
    answer = run(ended)
    assert answer.status["credentials"]["epoch"] == 1
    assert secret_entries(answer.resources["binding"])["username"].endswith("_rw_b")
    assert secret_entries(answer.resources["binding-reader"])["username"].endswith("_ro_b")


@pytest.mark.parametrize("code", [11, 30, 1])
def test_a_failed_rotation_leaves_secret_and_status_at_what_is_applied(code: int) -> None:
    settled, before = settle(_new())
    started, _ = step(_at(settled, 1))
    broken, _ = step(started, code=code)
    answer = run(broken)
    assert not answer.conditions["Provisioned"][0]
    assert not answer.ready
    assert answer.resources["binding"] == before.resources["binding"]
    assert answer.status["credentials"] == before.status["credentials"]


def test_a_failed_rotation_goes_on_when_it_is_asked_again() -> None:
    settled, _ = settle(_new())
    broken, _ = step(step(_at(settled, 1))[0], code=11)
    metadata = {**broken.xr["metadata"], "annotations": {"memory.proompteng.ai/retry": "1"}}
    rotated, (document,) = _jobs(broken.but(xr={**broken.xr, "metadata": metadata}))
    assert _states(document)["rw_a"] == "draining"
    assert _binding(rotated)["username"].endswith("_rw_b")


def test_a_rotation_is_one_job_and_nothing_else_runs_again() -> None:
    rotated, _ = _jobs(_at(settle(_new())[0], 1))
    job = run(rotated).jobs()
    for unrelated in (
        _at(rotated, 1),
        rotated.but(credentials=_ring(SECOND, ROOT_KEY)),
        _without_status(rotated),
        rotated.but(resolved=False),
    ):
        assert run(unrelated).jobs() == job
    settled, _ = settle(_new())
    assert run(_at(settled, 0, revoke=True)).jobs() == run(settled).jobs(), "there is no old login to revoke"


def test_revoke_old_closes_the_old_login_as_soon_as_the_secret_holds_the_new_one() -> None:
    settled, _ = settle(_new())
    rotated, documents = _jobs(_at(settled, 1, revoke=True))
    assert [_states(each)["rw_a"] for each in documents] == ["draining", "closed"]
    assert [_states(each)["rw_b"] for each in documents] == ["active", "active"]
    assert _ready(rotated)
    assert _binding(rotated)["username"].endswith("_rw_b")


def test_a_memory_whose_old_login_is_still_to_be_closed_is_not_ready() -> None:
    started, _ = step(_at(settle(_new())[0], 1, revoke=True))
    ended, _ = step(started)
    answer = run(ended)
    assert not answer.ready
    assert answer.conditions["Provisioned"] == (False, "Running")
    assert "the Secret holds epoch 1, and the login of the epoch before is closed next" in answer.message("Provisioned")


def test_revoke_old_may_come_later_and_a_closed_login_stays_closed() -> None:
    rotated, _ = _jobs(_at(settle(_new())[0], 1))
    revoked, (document,) = _jobs(_at(rotated, 1, revoke=True))
    assert _states(document) == {"rw_a": "closed", "rw_b": "active", "ro_a": "closed", "ro_b": "closed"}
    assert _binding(revoked) == _binding(rotated)
    assert _jobs(_at(revoked, 1))[1] == [], "taking revokeOld back opens nothing"


@pytest.mark.parametrize("epoch", [2, 4, 10])
def test_epochs_that_were_skipped_do_not_rekey_the_slot_that_apps_hold(epoch: int) -> None:
    settled, _ = settle(_new())
    held = _binding(settled)["username"]
    rotated, documents = _jobs(_at(settled, epoch))
    assert [each["epoch"] for each in documents] == [epoch - 1, epoch]
    assert [_states(each)[held[-4:]] for each in documents] == ["draining", "active"]
    assert _binding(rotated)["password"] == _password(held, epoch)
    assert _ready(rotated)


def test_an_odd_number_of_epochs_is_one_step() -> None:
    rotated, (document,) = _jobs(_at(settle(_new())[0], 3))
    assert document["epoch"] == 3
    assert _states(document)["rw_a"] == "draining"
    assert rotated.xr["status"]["credentials"]["epoch"] == 3


def test_a_memory_between_two_epochs_is_not_ready_and_says_what_follows() -> None:
    started, _ = step(_at(settle(_new())[0], 2))
    ended, _ = step(started)
    answer = run(ended)
    assert secret_entries(answer.resources["binding"])["username"].endswith("_rw_b")
    assert not answer.ready
    assert answer.ttl == 60
    assert "the Secret holds epoch 1, and epoch 2 comes next" in answer.message("Provisioned")


def test_an_epoch_that_comes_while_another_is_applied_waits_for_it() -> None:
    started, first = step(_at(settle(_new())[0], 1))
    rotated, documents = _jobs(_at(started, 2))
    assert first.jobs()[-1] in step(_at(started, 2))[1].jobs()
    assert [each["epoch"] for each in documents] == [2]
    assert _binding(rotated)["username"].endswith("_rw_a")


def test_an_epoch_that_is_overtaken_is_never_handed_out() -> None:
    started, _ = step(_at(settle(_new())[0], 1))
    overtaken, documents = _jobs(_at(started, 3))
    assert [(each["epoch"], _states(each)["rw_a"]) for each in documents] == [(3, "draining")]
    assert overtaken.xr["status"]["credentials"]["epoch"] == 3


def test_a_memory_that_begins_with_an_epoch_has_no_old_login() -> None:
    settled, (document,) = _jobs(_new(3))
    assert _states(document) == {"rw_a": "closed", "rw_b": "active", "ro_a": "closed", "ro_b": "closed"}
    assert settled.xr["status"]["credentials"] == {"epoch": 3, "slot": "b", "keyId": "630dcd29"}
    assert _jobs(settled)[1] == [], "and stays so"


def test_a_claim_that_is_made_again_begins_anew_whatever_its_epoch() -> None:
    """As an adopter too: what another claim's logins were is closed."""
    again = memory(adopt=True, credentials={"epoch": 2})
    again["metadata"]["uid"] = "another"
    settled, (document,) = _jobs(world(memory_xr=again))
    assert _states(document) == {"rw_a": "active", "rw_b": "closed", "ro_a": "closed", "ro_b": "closed"}
    assert _binding(settled)["password"] != _password(_binding(settled)["username"], 2)


def test_a_reader_that_is_asked_for_after_a_rotation_has_no_old_login() -> None:
    rotated, _ = _jobs(_at(settle(_new())[0], 1))
    reading, (document,) = _jobs(rotated.with_spec(access={"readOnlySecret": True}))
    assert _states(document) == {"rw_a": "draining", "rw_b": "active", "ro_a": "closed", "ro_b": "active"}
    assert _binding(reading, "binding-reader")["username"].endswith("_ro_b")


def test_a_reader_that_is_asked_for_together_with_a_rotation_has_no_old_login() -> None:
    settled, _ = settle(_new())
    _, (document,) = _jobs(_at(settled, 1).with_spec(access={"readOnlySecret": True}))
    assert _states(document) == {"rw_a": "draining", "rw_b": "active", "ro_a": "closed", "ro_b": "active"}


def test_a_reader_rotates_with_its_writer_and_goes_alone() -> None:
    settled, _ = settle(_new(access={"readOnlySecret": True}))
    rotated, (document,) = _jobs(_at(settled, 1))
    assert _states(document) == {"rw_a": "draining", "rw_b": "active", "ro_a": "draining", "ro_b": "active"}
    gone, (document,) = _jobs(rotated.with_spec(access={"readOnlySecret": False}))
    assert _states(document) == {"rw_a": "draining", "rw_b": "active", "ro_a": "closed", "ro_b": "closed"}
    assert "binding-reader" not in gone.observed


def test_a_lower_epoch_changes_nothing_and_is_a_condition() -> None:
    """The API server refuses one; a backup of the claim that is put back by force does not ask it."""
    rotated, _ = _jobs(_at(settle(_new())[0], 3))
    before = run(rotated)
    answer = run(_at(rotated, 1))
    assert answer.conditions["CredentialsReady"] == (False, "EpochLowered")
    assert (
        "spec.credentials.epoch: 1 is lower than 3, which is applied: nothing was changed; write 3, or more for new "
        "passwords"
    ) in answer.message("CredentialsReady")
    assert answer.resources == before.resources
    assert answer.status["credentials"] == before.status["credentials"]
    assert not answer.ready


def test_a_lost_status_is_no_new_start() -> None:
    rotated, _ = _jobs(_at(settle(_new())[0], 3))
    answer = run(_without_status(rotated))
    assert answer.resources == run(rotated).resources
    assert answer.status["credentials"] == {"epoch": 3, "slot": "b", "keyId": "630dcd29"}
    next_epoch, documents = _jobs(_at(_without_status(rotated), 5))
    assert [each["epoch"] for each in documents] == [4, 5]
    assert _binding(next_epoch)["username"].endswith("_rw_b")


def test_a_lost_request_of_a_rotated_memory_closes_nothing() -> None:
    """Which login worked beside the active one is forgotten then: it is left as it is."""
    rotated, _ = _jobs(_at(settle(_new())[0], 1))
    left = {key: body for key, body in rotated.observed.items() if not key.startswith("request-")}
    assert _jobs(rotated.but(observed=left))[1] == []
    begun, _ = _jobs(_new(1))
    left = {key: body for key, body in begun.observed.items() if not key.startswith("request-")}
    assert [_states(each)["rw_a"] for each in _jobs(begun.but(observed=left))[1]] == ["draining"]


def test_a_broken_request_is_a_lost_one() -> None:
    rotated, _ = _jobs(_at(settle(_new())[0], 1))
    for text in ('{"logins": 1, "epoch": "x"}', '{"logins": [1, {"name": "x", "state": "odd"}]}', "[]"):
        observed = copy.deepcopy(dict(rotated.observed))
        key = run(rotated).key("request-")
        observed[key]["data"]["request.json"] = b64encode(text.encode()).decode()
        assert _jobs(rotated.but(observed=observed))[1] == []


def test_a_secret_that_is_ahead_of_the_status_is_not_rekeyed() -> None:
    """Crossplane writes the Secret first; before it writes the status, somebody may want the epoch after next."""
    settled, _ = settle(_new())
    rotated, _ = _jobs(_at(settled, 1))
    behind = {**rotated.xr, "status": {**rotated.xr["status"], "credentials": settled.xr["status"]["credentials"]}}
    _, documents = _jobs(_at(rotated.but(xr=behind), 3))
    assert [each["epoch"] for each in documents] == [2, 3]


@pytest.mark.parametrize("late", ["binding", "binding-reader"])
def test_a_secret_that_is_behind_the_status_follows_before_the_next_epoch(late: str) -> None:
    """Crossplane could not write it (an admission webhook was away, say), and told so on the composite."""
    settled, _ = settle(_new(access={"readOnlySecret": True}))
    rotated, _ = _jobs(_at(settled, 1))
    behind = rotated.but(observed={**rotated.observed, late: settled.observed[late]})
    first, answer = step(_at(behind, 2))
    assert answer.jobs() == run(rotated).jobs(), "no Job yet"
    assert secret_entries(answer.resources[late])["username"].endswith("_b")
    _, documents = _jobs(first)
    assert [each["epoch"] for each in documents] == [2]
    closing = run(_at(behind, 1, revoke=True))
    assert closing.jobs() == run(rotated).jobs(), "nor is the login closed that it holds"
    assert not closing.ready


def test_a_secret_that_is_ahead_of_all_that_is_known_keeps_its_login() -> None:
    """The composite was put back as it was before the rotation, from a backup, and the Job is gone."""
    settled, _ = settle(_new())
    rotated, _ = _jobs(_at(settled, 1))
    ahead = settled.but(observed={**settled.observed, "binding": rotated.observed["binding"]})
    again, documents = _jobs(_at(ahead, 1))
    assert "closed" not in {_states(each)["rw_b"] for each in documents}
    assert again.xr["status"]["credentials"]["epoch"] == 1
    assert _binding(again) == _binding(rotated)


def test_a_secret_that_nobody_can_read_says_nothing() -> None:
    rotated, _ = _jobs(_at(settle(_new())[0], 1))
    observed = copy.deepcopy(dict(rotated.observed))
    observed["binding"]["data"]["username"] = "!"
    assert run(rotated.but(observed=observed)).resources == run(rotated).resources


def test_a_composite_without_a_claim_rotates_in_the_secret_that_it_names() -> None:
    plain = memory(claim=None)
    plain["spec"]["writeConnectionSecretToRef"] = {"namespace": "apps", "name": "mine"}
    settled, _ = settle(world(memory_xr=plain))
    rotated, documents = _jobs(_at(settled, 2))
    assert [each["epoch"] for each in documents] == [1, 2]
    assert settled.published["username"] == rotated.published["username"]
    assert settled.published["password"] != rotated.published["password"]


def test_with_previous_logins_keep_their_key_until_their_next_epoch() -> None:
    settled, before = settle(_new())
    moved = settled.but(credentials=_ring(SECOND, ROOT_KEY))
    assert run(moved).resources == before.resources
    assert run(moved).status == before.status
    rotated, (document,) = _jobs(_at(moved, 1))
    key_id = RootKey(SECOND).key_id
    assert document["keyId"] == key_id
    assert rotated.xr["status"]["credentials"] == {"epoch": 1, "slot": "b", "keyId": key_id}
    assert _binding(rotated)["password"] == _password(_binding(rotated)["username"], 1, SECOND)


def test_previous_may_be_dropped_when_the_epoch_moved_the_key() -> None:
    rotated, _ = _jobs(_at(settle(_new())[0].but(credentials=_ring(SECOND, ROOT_KEY)), 1))
    dropped = rotated.but(credentials=_ring(SECOND))
    answer = run(dropped)
    assert answer.ready
    assert answer.resources == run(rotated).resources, "the draining login needs no key"
    revoked, (document,) = _jobs(_at(dropped, 1, revoke=True))
    assert _states(document)["rw_a"] == "closed"
    assert _ready(revoked)


@pytest.mark.parametrize("ring", [_ring(SECOND), _ring(SECOND, THIRD)], ids=["no previous", "another previous"])
@pytest.mark.parametrize("epoch", [1, 2, 7])
def test_a_root_key_that_nobody_knows_changes_nothing_whatever_the_epoch(
    ring: dict[str, dict[str, bytes]], epoch: int
) -> None:
    rotated, _ = _jobs(_at(settle(_new())[0], 1))
    lost = _at(rotated, epoch).but(credentials=ring)
    answer = run(lost)
    assert answer.conditions["CredentialsReady"] == (False, "UnknownRootKey")
    assert answer.resources == run(rotated).resources
    assert answer.status["credentials"] == rotated.xr["status"]["credentials"]
    assert answer.ready == (epoch == 1), "a Memory that works stays Ready"
    found, _ = _jobs(lost.but(credentials=_ring(SECOND, ROOT_KEY)))
    assert found.xr["status"]["credentials"]["epoch"] == epoch


def test_a_changed_epoch_is_not_ready_even_while_the_provider_is_away() -> None:
    rotated, _ = _jobs(_at(settle(_new())[0], 1))
    away = rotated.but(providers=())
    assert run(away).ready
    assert not run(_at(away, 2)).ready
    assert not run(_at(away, 1, revoke=True)).ready
    ended, _ = step(step(_at(rotated, 2))[0])
    assert not run(ended.but(providers=())).ready, "the Job is complete, and the Secret does not hold its epoch"


def test_a_slot_is_told_by_the_name_of_its_login() -> None:
    assert [rotation.slot_of(epoch) for epoch in range(4)] == ["a", "b", "a", "b"]


# The rule of rotations as a property: whatever happens, in whatever order, the login in a Secret works.


class Backend:
    """What the request documents make of a server's logins, as soon as their Jobs may have done anything."""

    def __init__(self) -> None:
        self.logins: dict[str, str | None] = {}

    def work(self, observed: Any) -> None:
        """Let every Job that is not over do its work, and those that have just ended."""
        for key, body in observed.items():
            if key.startswith("provision-") and not body.get("done"):
                body["done"] = bool(body["status"].get("conditions"))
                request = observed.get(f"request-{key.split('-')[1]}")
                self._apply(json.loads(secret_entries(request)["request.json"]) if request else {"logins": []})

    def _apply(self, document: Object) -> None:
        for login in document["logins"]:
            if login["state"] == "closed":
                self.logins[login["name"]] = None
            elif login["state"] == "active":
                self.logins[login["name"]] = login["verifier"]

    def accepts(self, secret: Object, keys: list[bytes]) -> bool:
        """Whether a Secret's password is that of its login's verifier (by whichever key and epoch both come from)."""
        entries = secret_entries(secret)
        verifiers = [
            login.verifier(RootKey(key))
            for key in keys
            for epoch in range(30)
            if (login := Login("team-a/notes", UID, entries["username"], epoch)).password(RootKey(key))
            == entries["password"]
        ]
        return self.logins.get(entries["username"]) in verifiers


KEYS = [ROOT_KEY, SECOND, THIRD]
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("epoch"), st.integers(1, 3)),
        st.tuples(st.just("revoke"), st.booleans()),
        st.tuples(st.just("reader"), st.booleans()),
        st.tuples(st.just("key"), st.sampled_from(["next", "drop", "lose", "find"])),
        st.tuples(st.just("end"), st.sampled_from([0, 0, 0, 1, 11, 30])),
        st.tuples(st.just("lose"), st.sampled_from(["status", "provider", "root key"])),
        st.tuples(st.just("late"), st.sampled_from(["binding", "binding-reader", "status"])),
        st.tuples(st.just("reconcile"), st.none()),
    ),
    max_size=20,
)


class Story:
    """A Memory through events; a reconcile after each."""

    def __init__(self) -> None:
        self.now = settle(_new())[0]
        self.given = self.now
        self.keys = [ROOT_KEY]
        self.dropped = False
        # A reader that somebody turned off is closed, and back only when the Memory is Ready with it.
        self.reads = False
        self.tick = 0
        self.backend = Backend()
        self.backend.work(self.now.observed)

    def happen(self, kind: str, value: Any) -> None:
        """One event, one reconcile; every Job does its work as soon as it can."""
        self.tick += 1
        late: str | None = None
        if kind == "epoch":
            self.now = _at(self.now, self._asked["epoch"] + value, revoke=self._asked["revokeOld"])
        elif kind == "revoke":
            self.now = _at(self.now, self._asked["epoch"], revoke=value)
        elif kind == "reader":
            self.now = self.now.with_spec(access={"readOnlySecret": value})
            self.reads = self.reads and value
        elif kind == "key":
            self._turn(value)
        elif kind == "end":
            self._end(value)
        elif kind == "late":
            late = value
        less = self.now
        if kind == "lose":
            less = {
                "status": _without_status(self.now),
                "provider": self.now.but(providers=()),
                "root key": self.now.but(credentials={}),
            }[value]
        self._reconcile(less, late)
        self.now = self.now.but(providers=self.given.providers, credentials=self._credentials())

    @property
    def _asked(self) -> Object:
        found: Object = self.now.xr["spec"]["credentials"]
        return found

    def _turn(self, how: str) -> None:
        if how == "next" and len(self.keys) < len(KEYS):
            self.keys.append(KEYS[len(self.keys)])
        self.dropped = how in {"drop", "lose"}
        self.now = self.now.but(credentials=self._credentials())

    def _credentials(self) -> dict[str, dict[str, bytes]]:
        previous = self.keys[-2] if len(self.keys) > 1 and not self.dropped else None
        return _ring(self.keys[-1], previous)

    def _end(self, code: int) -> None:
        observed = dict(self.now.observed)
        for key, body in observed.items():
            if body["kind"] == "Job" and not body["status"].get("conditions"):
                time = f"2026-01-01T{self.tick:02}:00:00Z"
                observed[key] = complete(body, time) if code == 0 else failed(body, code, time=time)
        self.now = self.now.but(observed=observed)

    def _reconcile(self, seen: World, late: str | None) -> None:
        """Apply an answer; what is `late` could not be written this time."""
        answer = run(seen)
        observed = {}
        for key, body in answer.resources.items():
            before = seen.observed.get(key)
            if before and (body["kind"] != "Secret" or key == late):
                observed[key] = before
            else:
                observed[key] = served(key, body, seen.xr)
        self.backend.work(observed)
        status = seen.xr.get("status", {}) if late == "status" else answer.status
        self.now = self.now.but(observed=observed, xr={**self.now.xr, "status": status})
        self.reads = self.reads or (answer.ready and self.now.xr["spec"]["access"]["readOnlySecret"])

    def works(self) -> bool:
        """Whether the logins in the Secrets that the spec asks for are those that the server knows."""
        asked = ["binding", *(["binding-reader"] if self.reads else [])]
        return all(self.backend.accepts(self.now.observed[key], KEYS) for key in asked if key in self.now.observed)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS)
def test_whatever_happens_the_login_in_a_secret_works(events: list[tuple[str, Any]]) -> None:
    story = Story()
    for kind, value in events:
        story.happen(kind, value)
        assert story.works(), (kind, value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS)
def test_whatever_happened_the_wanted_epoch_is_reached(events: list[tuple[str, Any]]) -> None:
    story = Story()
    for kind, value in events:
        story.happen(*((kind, value) if kind != "key" else ("reconcile", None)))
    metadata = {**story.now.xr["metadata"], "annotations": {"memory.proompteng.ai/retry": "now"}}
    settled, documents = _jobs(story.now.but(xr={**story.now.xr, "metadata": metadata}))
    asked = settled.xr["spec"]["credentials"]
    assert _ready(settled)
    assert settled.xr["status"]["credentials"]["epoch"] == asked["epoch"]
    assert _binding(settled)["password"] == _password(_binding(settled)["username"], asked["epoch"])
    assert len(documents) <= 4, "the one that ran, an epoch between, the epoch, the revocation"
    if asked["revokeOld"]:
        assert "draining" not in _states(_request(run(settled), run(settled).jobs()[0])).values()
