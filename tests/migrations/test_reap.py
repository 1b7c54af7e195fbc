"""The reaper, on real servers and against an API server that speaks the list protocol over HTTPS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from migrations import apiserver
from migrations.__main__ import main
from tests.migrations.apiserver import ApiServer, Fault, answer, raw, serving
from tests.migrations.documents import Answer, Command, Memory
from tests.migrations.snapshot import snapshot
from tests.postgres import Postgres

PROVIDER = "/xmemoryproviders/pg"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A control plane that has the provider."""
    with serving(tmp_path, monkeypatch) as server:
        server.singles[PROVIDER] = {"kind": "XMemoryProvider", "metadata": {"name": "pg", "uid": "provider-uid"}}
        yield server


@pytest.fixture
def home(memory: Memory, command: Command, api: ApiServer) -> Memory:
    """A provisioned Memory with a reader and a row, and its composite."""
    return made(memory.but(reader_password="reads"), command, api)


def made(memory: Memory, command: Command, api: ApiServer) -> Memory:
    assert command.provision(memory).code == 0
    with memory.connect() as connection:
        connection.execute("SELECT memory_put('notes', 'k', '\"mine\"'), memory_append('notes', 'said', '{}')")
    api.has(memory.identity, memory.uid)
    return memory


def deleting(memory: Memory) -> Memory:
    return memory.but(extra={"deletionPolicy": "Delete"})


def run(command: Command, memory: Memory, **asked: Any) -> Answer:
    """One run; the process ends with 0, for what is wrong stands in its report."""
    admin = memory.database.server.admin
    found = command.run("reap", memory.reap_document(**asked), admin)
    assert found.code == 0
    return found


def refused(memory: Memory) -> bool:
    """Whether the writer's login is closed."""
    try:
        memory.connect().close()
    except psycopg.OperationalError as error:
        return "is not permitted to log in" in str(error)
    return False


def rows(memory: Memory) -> int:
    with memory.database.superuser() as connection:
        found = connection.execute("SELECT count(*) FROM notes.memory_kv").fetchone()
    assert found
    return int(found[0])


def is_there(memory: Memory) -> tuple[bool, bool, bool]:
    """Whether schema, roles and entry of a home exist."""
    with memory.database.superuser() as connection:
        found = connection.execute(
            """
            SELECT to_regnamespace(%(schema)s) IS NOT NULL,
                   EXISTS (SELECT FROM pg_roles WHERE starts_with(rolname, %(prefix)s)),
                   EXISTS (SELECT FROM memory_ledger.homes WHERE identity = %(identity)s)
            """,
            {"schema": memory.schema, "prefix": memory.prefix, "identity": memory.identity},
        ).fetchone()
    assert found
    return found[0], found[1], found[2]


def test_deleted_claims_login_is_refused_within_two_runs_and_its_rows_are_kept(
    home: Memory, command: Command, api: ApiServer
) -> None:
    working = home.connect()
    api.lacks(home.identity, home.uid)
    first = run(command, home)
    assert first.report["homes"] == {"inUse": 1, "missing": 1, "closed": 0}
    assert not refused(home), "one run is not enough: it may have looked at a bad moment"
    second = run(command, home)
    assert second.report["homes"] == {"inUse": 0, "missing": 0, "closed": 1}
    assert second.message == "homes: 0 in use, 1 closed and kept"
    assert refused(home)
    with pytest.raises(psycopg.OperationalError, match="is not permitted to log in"):
        home.database.connect(home.reader)
    with pytest.raises(psycopg.OperationalError):
        working.execute("SELECT 1")  # its sessions have ended
    for _ in range(3):
        run(command, home)
    assert rows(home) == 1


def test_nothing_is_done_while_the_claim_is_there(home: Memory, command: Command) -> None:
    before = snapshot(home)
    for _ in range(3):
        assert run(command, home).message == "homes: 1 in use"
    assert snapshot(home) == before
    assert not refused(home)


@pytest.mark.parametrize("grace", [0, 3600])
def test_with_delete_the_home_is_dropped_after_the_grace(
    memory: Memory, command: Command, api: ApiServer, grace: int
) -> None:
    home = made(deleting(memory), command, api)
    api.lacks(home.identity, home.uid)
    run(command, home, grace=grace)
    assert rows(home) == 1
    run(command, home, grace=grace)
    assert refused(home)
    assert rows(home) == 1, "closed first: the grace begins when nobody has access any more"
    last = run(command, home, grace=grace)
    if grace:
        assert rows(home) == 1
        assert last.message == "homes: 0 in use, 1 closed, to be dropped after the grace unless something is on hold"
        with home.database.superuser() as connection:
            connection.execute("UPDATE memory_ledger.homes SET closed_at = now() - interval '3601 s'")
        run(command, home, grace=grace)
    assert is_there(home) == (False, False, False)
    assert run(command, home, grace=grace).message == "homes: 0 in use"


# What may go wrong with the list.


def status(code: int) -> Fault:
    def fault(_: int, handler: Any) -> bool:
        answer(handler, code, {"kind": "Status", "status": "Failure", "code": code})
        return True

    return fault


def no_such_kind(_: int, handler: Any) -> bool:
    raw(handler, 404, b"404 page not found\n")
    return True


def cut(_: int, handler: Any) -> bool:
    raw(handler, 200, b'{"kind": "XMemoryList", "metadata": {}, "items": [', length=5000)
    handler.close_connection = True
    return True


def broken(_: int, handler: Any) -> bool:
    raw(handler, 200, b'{"kind": "XMemoryList", "items": [{"metadata"')
    return True


def another_kind(_: int, handler: Any) -> bool:
    answer(handler, 200, {"kind": "Status", "status": "Success"})
    return True


def silent(_: int, handler: Any) -> bool:
    handler.rfile.read(1)  # until the client goes away
    return True


FAULTS: dict[str, tuple[Fault, int, str]] = {
    "it is forbidden": (status(403), 13, "answers 403 Forbidden for memory.proompteng.ai/v1alpha1/xmemories: bind the"),
    "the token is old": (status(401), 13, "answers 401 Unauthorized"),
    "the CRD is gone": (no_such_kind, 30, "answers 404 Not Found for memory.proompteng.ai/v1alpha1/xmemories"),
    "it fails": (status(500), 30, "answers 500 Internal Server Error"),
    "it is too busy": (status(429), 30, "answers 429 Too Many Requests"),
    "its answer is cut": (cut, 30, "IncompleteRead"),
    "its answer is no JSON": (broken, 30, "is no JSON object"),
    "its answer is something else": (another_kind, 30, "is not whole: an answer is no XMemoryList"),
    "it does not answer": (silent, 30, "TimeoutError"),
}


def on_lists(fault: Fault) -> Fault:
    """A fault that leaves the look at the provider alone."""
    return lambda number, handler: "/xmemories?" in handler.path and fault(number, handler)


@pytest.fixture
def vanished(memory: Memory, command: Command, api: ApiServer) -> Memory:
    """A Memory with Delete that was missing in one run already: the next one would close it, and the third drop it."""
    home = made(deleting(memory), command, api)
    api.lacks(home.identity, home.uid)
    run(command, home)
    return home


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_happens_when_the_list_cannot_be_read(
    vanished: Memory, command: Command, api: ApiServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fault, code, sentence = FAULTS[name]
    monkeypatch.setattr(apiserver, "TIMEOUT_SECONDS", 0.5)
    before = snapshot(vanished)
    api.fault = on_lists(fault)
    for _ in range(3):
        found = run(command, vanished)
        assert found.report["code"] == code
        assert sentence in found.message
    assert snapshot(vanished) == before
    assert not refused(vanished)
    api.fault = None
    run(command, vanished)
    assert refused(vanished), "and when the list is there again, it goes on"


def without_the_second_page(_: int, handler: Any) -> bool:
    """The first page says how many follow; then the list ends."""
    if "continue=" not in handler.path:
        return False
    answer(handler, 200, {"kind": "XMemoryList", "metadata": {"resourceVersion": "42"}, "items": []})
    return True


def of_another_time(_: int, handler: Any) -> bool:
    if "continue=" not in handler.path:
        return False
    answer(handler, 200, {"kind": "XMemoryList", "metadata": {"resourceVersion": "43"}, "items": []})
    return True


def expired(_: int, handler: Any) -> bool:
    return "continue=" in handler.path and status(410)(0, handler)


def unknown(_: int, handler: Any) -> bool:
    item = {"metadata": {"name": "x"}, "spec": {}}
    answer(handler, 200, {"kind": "XMemoryList", "metadata": {"resourceVersion": "42"}, "items": [item]})
    return True


def of_a_number(_: int, handler: Any) -> bool:
    item = {"metadata": {"name": "x", "uid": 4}, "spec": {}}
    answer(handler, 200, {"kind": "XMemoryList", "metadata": {"resourceVersion": "42"}, "items": [item]})
    return True


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        pytest.param(without_the_second_page, "is not whole: 1 objects of 3 came", id="it is not there"),
        pytest.param(of_another_time, "is not whole: its pages are of different times", id="of another time"),
        pytest.param(expired, "answers 410 Gone", id="expired"),
        pytest.param(unknown, "holds one that is none: KeyError", id="an object without a uid"),
        pytest.param(of_a_number, "holds one that is none: TypeError", id="a uid that is no text"),
    ],
)
def test_nothing_happens_when_a_page_is_missing(
    vanished: Memory, command: Command, api: ApiServer, fault: Fault, sentence: str
) -> None:
    for number in range(3):
        api.has(f"team-z/other-{number}", f"other-{number}")
    api.page = 1
    api.fault = on_lists(fault)
    before = snapshot(vanished)
    found = run(command, vanished)
    assert found.report["code"] == 30
    assert sentence in found.message
    assert snapshot(vanished) == before
    assert not refused(vanished)


def test_a_list_of_many_pages_is_read_to_its_end(home: Memory, command: Command, api: ApiServer) -> None:
    for number in range(250):
        api.has(f"team-z/other-{number}", f"other-{number}")
    api.xmemories[home.uid] = api.xmemories.pop(home.uid)  # the last of all
    for _ in range(3):
        assert run(command, home).message == "homes: 1 in use"
    assert len([path for path in api.paths if "/xmemories?" in path]) == 9
    assert not refused(home)


def test_without_a_service_account_nothing_is_done(
    vanished: Memory, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert run(command, vanished).report["code"] == 30
    assert not refused(vanished)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param({"metadata": {"name": "pg", "uid": "of-another-cluster"}}, id="of the same name"),
        pytest.param(
            {"metadata": {"name": "pg", "uid": "provider-uid", "deletionTimestamp": "now"}}, id="on its way out"
        ),
        pytest.param(None, id="none"),
    ],
)
def test_in_a_cluster_that_has_not_its_provider_nothing_is_done(
    vanished: Memory, command: Command, api: ApiServer, found: Any
) -> None:
    """Jobs may run in another cluster than Crossplane, and there are no Memories, or others."""
    if found is None:
        del api.singles[PROVIDER]
    else:
        api.singles[PROVIDER] = found
    for _ in range(3):
        assert run(command, vanished).report["code"] == 30
    assert not refused(vanished)


# Whose homes.


def test_homes_of_another_clusters_provider_are_left_alone(home: Memory, command: Command, api: ApiServer) -> None:
    """Two control planes share a server and a database: each has a provider of its own there."""
    theirs = home.but(
        identity="team-b/theirs",
        uid="theirs",
        schema="theirs",
        provider={"uid": "of-another-cluster"},
        password="theirs",
    )
    assert command.provision(theirs).code == 0
    api.lacks(home.identity, home.uid)
    before = snapshot(theirs)
    for _ in range(4):
        run(command, home)
    assert refused(home)
    theirs.connect().close()
    assert snapshot(theirs) == before


def test_homes_of_another_database_are_left_alone(
    home: Memory, command: Command, api: ApiServer, postgres18: Postgres
) -> None:
    with postgres18.database() as database:
        there = home.but(database=database, uid="there")
        assert command.provision(there).code == 0
        api.lacks(home.identity, home.uid)
        for _ in range(3):
            run(command, home)
        assert refused(home)
        there.connect().close()


def test_a_server_without_homes_is_fine(memory: Memory, command: Command, api: ApiServer) -> None:
    found = run(command, memory)
    assert (found.report["code"], found.message) == (0, "homes: 0 in use")
    assert api.paths == []


# Who comes back.


def test_a_claim_that_is_back_in_the_next_run_was_never_gone(home: Memory, command: Command, api: ApiServer) -> None:
    before = snapshot(home)
    for _ in range(3):
        api.lacks(home.identity, home.uid)
        assert run(command, home).report["homes"]["missing"] == 1
        api.has(home.identity, home.uid)
        assert run(command, home).report["homes"] == {"inUse": 1, "missing": 0, "closed": 0}
    assert not refused(home)
    assert snapshot(home) == before


@pytest.mark.parametrize("uid", ["uid-1", "uid-2"], ids=["as it was", "made again"])
@pytest.mark.parametrize("closed", [False, True], ids=["about to be closed", "about to be dropped"])
def test_a_claim_that_came_back_between_list_and_lock_is_left_alone(
    vanished: Memory, command: Command, api: ApiServer, uid: str, closed: bool
) -> None:
    """The whole list is read, and without it; when the reaper has the lock and looks again, the Memory is there."""
    again = vanished.but(uid=uid, adopt=True, password="second" if uid == "uid-2" else vanished.password)
    came: list[str] = []

    def come_back(_: int, handler: Any) -> bool:
        if "labelSelector" in handler.path and not came:
            came.append(uid)
            api.has(vanished.identity, uid)
        return False

    if closed:
        run(command, vanished)
        assert refused(vanished)
    api.fault = come_back
    run(command, vanished)
    assert came
    assert rows(vanished) == 1
    assert is_there(vanished) == (True, True, True)
    if uid == "uid-1":
        assert refused(vanished) == closed, "the next run opens it again"
        run(command, vanished)
        assert not refused(vanished)
    else:
        assert command.provision(again).code == 0
        again.connect().close()
        for _ in range(3):
            run(command, again)
        again.connect().close()
        assert rows(again) == 1


def test_a_claim_that_was_made_again_and_provisioned_is_in_use(
    vanished: Memory, command: Command, api: ApiServer
) -> None:
    """Provisioned after the reaper has read the ledger, before it has the lock."""
    again = vanished.but(uid="uid-2", adopt=True, password="second")
    done: list[int] = []

    def provision(_: int, handler: Any) -> bool:
        if "/xmemories?limit" in handler.path and not done:
            done.append(0)
            _provision_apart(command, again)
        return False

    api.fault = provision
    run(command, vanished)
    assert done
    again.connect().close()
    api.has(again.identity, again.uid)
    run(command, again)
    assert run(command, again).report["homes"] == {"inUse": 1, "missing": 0, "closed": 0}
    again.connect().close()


def _provision_apart(command: Command, memory: Memory) -> None:
    process = command.spawn(memory)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def test_a_home_whose_provisioner_is_at_work_is_left_for_the_next_run(
    vanished: Memory, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrations.postgres.reap.LOCK_SECONDS", 0.2)
    with vanished.hold():
        found = run(command, vanished)
    assert found.report["code"] == 0
    assert not refused(vanished)
    run(command, vanished)
    assert refused(vanished)


def test_the_same_memory_that_comes_back_gets_its_logins_opened_with_their_passwords(
    home: Memory, command: Command, api: ApiServer
) -> None:
    """After a restore of etcd: uids are what they were, and no Job runs again."""
    before = snapshot(home)
    api.lacks(home.identity, home.uid)
    run(command, home)
    run(command, home)
    assert refused(home)
    api.has(home.identity, home.uid)
    assert run(command, home).report["homes"] == {"inUse": 1, "missing": 0, "closed": 0}
    home.connect().close()
    home.database.connect(home.reader).close()
    assert snapshot(home) == before, "and what was closed before is closed"


def test_logins_that_were_closed_before_stay_so(memory: Memory, command: Command, api: ApiServer) -> None:
    home = made(memory, command, api)  # without a reader
    api.lacks(home.identity, home.uid)
    run(command, home)
    run(command, home)
    api.has(home.identity, home.uid)
    run(command, home)
    home.connect().close()
    with home.database.superuser() as connection:
        open_ones = connection.execute(
            "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s) AND rolcanlogin", [home.prefix]
        ).fetchall()
    assert open_ones == [(home.writer.username,)]


def test_a_claim_made_again_opens_its_logins_by_its_job(vanished: Memory, command: Command, api: ApiServer) -> None:
    run(command, vanished)
    assert refused(vanished)
    again = vanished.but(uid="uid-2", adopt=True, password="second-password")
    api.has(again.identity, again.uid)
    assert command.provision(again).code == 0
    again.connect().close()
    for _ in range(3):
        assert run(command, again).report["homes"] == {"inUse": 1, "missing": 0, "closed": 0}
    again.connect().close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        vanished.connect()


def test_while_somebody_of_the_same_name_is_there_nothing_is_dropped(
    vanished: Memory, command: Command, api: ApiServer
) -> None:
    """He may be about to say `adopt`. The earlier claim's logins are closed all the same."""
    api.has(vanished.identity, "uid-2")
    for _ in range(4):
        run(command, vanished)
    assert refused(vanished)
    assert rows(vanished) == 1
    api.lacks(vanished.identity, "uid-2")
    run(command, vanished)
    assert is_there(vanished) == (False, False, False)


# Many at once.


@pytest.fixture
def many(memory: Memory, command: Command, api: ApiServer) -> list[Memory]:
    """Eight Memories in one database, entered without their tables: the ledger and the logins are what counts."""
    made(deleting(memory), command, api)
    with memory.database.connect() as admin:
        for number in range(1, 8):
            admin.execute(
                """
                INSERT INTO memory_ledger.homes
                SELECT (jsonb_populate_record(h, jsonb_build_object(
                    'home', %(name)s::text, 'schema', %(name)s::text,
                    'identity', 'team-a/' || %(name)s::text, 'xr_uid', %(name)s::text))).*
                FROM memory_ledger.homes h WHERE home = 'notes'
                """,
                {"name": f"home_{number}"},
            )
            api.has(f"team-a/home_{number}", f"home_{number}")
    return [memory]


def standing(memory: Memory) -> tuple[int, int]:
    """How many homes are noted as missing, and how many are closed."""
    with memory.database.superuser() as connection:
        found = connection.execute("SELECT count(gone_since), count(closed_at) FROM memory_ledger.homes").fetchone()
    assert found
    return found[0], found[1]


def vanish(api: ApiServer, count: int) -> None:
    for identity, uid in [("team-a/notes", "uid-1"), *((f"team-a/home_{n}", f"home_{n}") for n in range(1, 8))][:count]:
        api.lacks(identity, uid)


def test_nothing_happens_when_a_fifth_of_the_claims_vanish_at_once(
    many: list[Memory], command: Command, api: ApiServer
) -> None:
    [memory] = many
    before = snapshot(memory)
    vanish(api, 6)
    for _ in range(4):
        found = run(command, memory)
        assert found.report["code"] == 17
        assert found.message.startswith("6 of 8 homes in use have no Memory any more, too many at once to believe")
        assert found.report["homes"] == {"inUse": 8, "missing": 6}
    assert standing(memory) == (0, 0)
    assert snapshot(memory) == before
    assert not refused(memory)
    [line] = [line for line in found.log if "identities" in line]
    assert line["identities"][:2] == ["team-a/home_1", "team-a/home_2"]


def test_nor_when_they_vanish_between_two_runs(many: list[Memory], command: Command, api: ApiServer) -> None:
    """Three that are missing already and three more are six."""
    [memory] = many
    vanish(api, 3)
    assert run(command, memory).report["code"] == 0
    for identity, uid in [(f"team-a/home_{n}", f"home_{n}") for n in (4, 5, 6)]:
        api.lacks(identity, uid)
    assert run(command, memory).report["code"] == 17
    assert standing(memory) == (3, 0)


def test_five_may_vanish(many: list[Memory], command: Command, api: ApiServer) -> None:
    [memory] = many
    vanish(api, 5)
    run(command, memory)
    assert run(command, memory).report["code"] == 0
    assert standing(memory) == (5, 5)
    assert refused(memory)


def test_closed_homes_do_not_count_as_in_use(many: list[Memory], command: Command, api: ApiServer) -> None:
    """Else a thousand homes that are kept would hide that all those in use have vanished."""
    [memory] = many
    with memory.database.connect() as admin:
        admin.execute(
            """
            INSERT INTO memory_ledger.homes
            SELECT (jsonb_populate_record(h, jsonb_build_object(
                'home', 'old_' || n, 'identity', 'team-o/' || n, 'xr_uid', 'old-' || n, 'deletion_policy', 'Retain',
                'gone_since', now(), 'closed_at', now()))).*
            FROM memory_ledger.homes h, generate_series(1, 100) n WHERE home = 'notes'
            """
        )
    vanish(api, 6)
    assert run(command, memory).report["code"] == 17


def test_a_person_lets_it_go_on_for_these_and_no_others(many: list[Memory], command: Command, api: ApiServer) -> None:
    [memory] = many
    vanish(api, 6)
    word = run(command, memory).message.rpartition("memory.proompteng.ai/reap to ")[2]
    assert run(command, memory, approved="00000000").report["code"] == 17
    assert standing(memory) == (0, 0)
    assert run(command, memory, approved=word).report["code"] == 0
    assert standing(memory) == (6, 0), "in two runs all the same"
    api.lacks("team-a/home_6", "home_6")
    assert run(command, memory, approved=word).report["code"] == 17, "seven are not the six that were meant"
    api.has("team-a/home_6", "home_6")
    run(command, memory, approved=word)
    assert standing(memory) == (6, 6)
    assert refused(memory)


# Holds.


@pytest.mark.parametrize(
    "hold",
    [
        "UPDATE memory_ledger.homes SET legal_hold = true",
        "UPDATE notes.memory_datasets SET legal_hold = true",
        "UPDATE notes.memory_events SET hold = true",
    ],
    ids=["the Memory", "a dataset", "a row"],
)
def test_what_is_on_hold_is_not_dropped(vanished: Memory, command: Command, hold: str) -> None:
    with vanished.database.superuser() as connection:
        connection.execute(hold)
    for _ in range(4):
        run(command, vanished)
    assert refused(vanished)
    assert rows(vanished) == 1
    with vanished.database.superuser() as connection:
        connection.execute(hold.replace("true", "false"))
    run(command, vanished)
    assert is_there(vanished) == (False, False, False)


def test_the_claims_last_word_counts(vanished: Memory, command: Command, api: ApiServer) -> None:
    api.has(vanished.identity, vanished.uid)
    assert command.provision(vanished.but(extra={"deletionPolicy": "Retain"})).code == 0
    api.lacks(vanished.identity, vanished.uid)
    for _ in range(4):
        run(command, vanished)
    assert rows(vanished) == 1


# What goes wrong with homes.


def test_a_home_that_fails_does_not_stop_the_others(vanished: Memory, command: Command, api: ApiServer) -> None:
    other = made(vanished.but(identity="team-b/other", schema="other", uid="uid-9"), command, api)
    api.lacks(other.identity, other.uid)
    run(command, vanished)  # closes the first, misses the other
    with vanished.database.superuser() as connection:
        # Somebody has put a role of his own in the place of one of ours.
        connection.execute(f"COMMENT ON ROLE {other.prefix}_rw_b IS 'mine'")
    found = run(command, vanished)
    assert found.report["code"] == 14
    assert found.message.startswith(f'home "other": role "{other.prefix}_rw_b" exists on this server')
    assert is_there(vanished) == (False, False, False)
    other.connect().close()


def test_a_killed_run_is_finished_by_the_next(
    vanished: Memory, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the logins are closed and before their sessions have ended."""
    working = vanished.connect()
    with monkeypatch.context() as patch:
        patch.setattr("migrations.postgres.drop.ENDING_MILLISECONDS", "no number")
        assert run(command, vanished).report["code"] == 1
    assert refused(vanished)
    assert working.execute("SELECT 1").fetchone() == (1,)
    assert standing(vanished) == (1, 0)
    run(command, vanished)
    assert standing(vanished) == (1, 1)
    with pytest.raises(psycopg.OperationalError):
        working.execute("SELECT 1")


def test_a_server_that_is_away_is_told(memory: Memory, command: Command, api: ApiServer) -> None:
    document = memory.reap_document()
    document["provider"]["port"] = 1
    found = command.run("reap", document, memory.database.server.admin)
    assert (found.code, found.report["code"]) == (0, 30)
    assert api.paths == []


def test_a_report_that_cannot_be_written_is_a_failed_run(
    memory: Memory, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = command.mount(memory.reap_document(), memory.database.server.admin)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MEMORY_REPORT_FILE", "/nowhere/report.json")
    assert main(["reap"]) == 1


# A tenant's provider.

TENANT = {"namespace": "team-a", "name": "pg"}


@pytest.fixture
def tenants(memory: Memory, command: Command, api: ApiServer) -> Memory:
    """A Memory on a tenant's provider, which sees claims and no composites."""
    body = {"kind": "MemoryProvider", "metadata": {"name": "pg"}, "spec": {"resourceRef": {"name": "pg"}}}
    api.singles["/namespaces/team-a/memoryproviders/pg"] = body
    api.fault = lambda _, handler: "/x" in handler.path and status(403)(0, handler)
    return made(deleting(memory), command, api)


def test_a_tenants_reaper_reads_the_claims_of_its_namespace(tenants: Memory, command: Command, api: ApiServer) -> None:
    for _ in range(3):
        assert run(command, tenants, claim=TENANT).message == "homes: 1 in use"
    api.lacks(tenants.identity, tenants.uid)
    run(command, tenants, claim=TENANT)
    run(command, tenants, claim=TENANT)
    assert refused(tenants)
    run(command, tenants, claim=TENANT)
    assert is_there(tenants) == (False, False, False)


def test_a_claim_that_was_made_again_is_another_one(tenants: Memory, command: Command, api: ApiServer) -> None:
    """Its composite has another name; uids of composites are not the tenant's to see."""
    api.lacks(tenants.identity, tenants.uid)
    api.has(tenants.identity, "uid-2")
    for _ in range(4):
        run(command, tenants, claim=TENANT)
    assert refused(tenants)
    assert rows(tenants) == 1


def test_homes_of_other_namespaces_are_not_a_tenants_to_judge(tenants: Memory, command: Command) -> None:
    other = tenants.but(identity="team-b/guest", schema="guest", uid="guest")
    assert command.provision(other).code == 0
    for _ in range(4):
        assert run(command, tenants, claim=TENANT).message == "homes: 1 in use"
    other.connect().close()


def test_a_tenants_provider_that_is_another_one_does_nothing(tenants: Memory, command: Command, api: ApiServer) -> None:
    api.lacks(tenants.identity, tenants.uid)
    api.singles["/namespaces/team-a/memoryproviders/pg"]["spec"]["resourceRef"]["name"] = "pg-of-a-later-claim"
    for _ in range(3):
        assert run(command, tenants, claim=TENANT).report["code"] == 30
    assert not refused(tenants)


# What happens in the middle of a run.


def on_looks(fault: Fault) -> Fault:
    """A fault at the second look, under a home's lock."""
    return lambda number, handler: "labelSelector" in handler.path and fault(number, handler)


@pytest.mark.parametrize("closed", [False, True], ids=["about to be closed", "about to be dropped"])
def test_an_api_server_that_fails_at_the_second_look_stops_the_run(
    vanished: Memory, command: Command, api: ApiServer, closed: bool
) -> None:
    if closed:
        run(command, vanished)
    api.fault = on_looks(status(500))
    before = snapshot(vanished)
    assert run(command, vanished).report["code"] == 30
    assert snapshot(vanished) == before
    assert refused(vanished) == closed


def test_a_memory_that_was_only_there_for_the_list_is_not_welcomed(
    vanished: Memory, command: Command, api: ApiServer
) -> None:
    run(command, vanished)
    assert refused(vanished)
    api.has(vanished.identity, vanished.uid)

    def leave(_: int, handler: Any) -> bool:
        if "labelSelector" in handler.path and api.xmemories:
            api.lacks(vanished.identity, vanished.uid)
        return False

    api.fault = leave
    run(command, vanished)
    assert refused(vanished)


def test_a_run_whose_time_is_over_leaves_the_rest_to_the_next(vanished: Memory, command: Command) -> None:
    admin = vanished.database.server.admin
    found = command.run("reap", vanished.reap_document(), admin, deadline="0")
    assert (found.code, found.report["code"]) == (0, 0)
    assert not refused(vanished)
    run(command, vanished)
    assert refused(vanished)


def test_a_connection_that_breaks_in_the_middle_is_told(vanished: Memory, command: Command, api: ApiServer) -> None:
    def break_it(_: int, handler: Any) -> bool:
        if "/xmemories?limit" in handler.path:
            with vanished.database.superuser() as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE application_name = 'memory-migrations' AND datname = current_database()"
                )
        return False

    api.fault = break_it
    found = run(command, vanished, grace=1)
    assert found.report["code"] == 30
    assert "the connection broke, and the next run begins again" in found.message


def test_a_home_that_cannot_be_dropped_is_told_and_kept(vanished: Memory, command: Command) -> None:
    run(command, vanished)
    with vanished.database.superuser() as connection:
        connection.execute(f"COMMENT ON ROLE {vanished.prefix}_owner IS 'mine'")
    found = run(command, vanished)
    assert found.report["code"] == 14
    assert rows(vanished) == 1


# Isolations.


@pytest.mark.parametrize("isolation", ["Schema", "Database", "Dataset"])
def test_a_home_of_each_isolation_is_closed_and_dropped_and_its_neighbour_is_not(
    memory: Memory, command: Command, api: ApiServer, isolation: str
) -> None:
    mine = made(deleting(memory.but(provider={"isolation": isolation})), command, api)
    shared = isolation == "Dataset"
    theirs = mine.but(
        identity="team-b/theirs",
        uid="theirs",
        dataset="theirs",
        schema="notes" if shared else "theirs",
        password="theirs",
    )
    assert command.provision(theirs).code == 0
    api.has(theirs.identity, theirs.uid)
    with theirs.connect() as connection:
        connection.execute("SELECT memory_put('theirs', 'k', '1')")
    api.lacks(mine.identity, mine.uid)
    for _ in range(2):
        run(command, mine)
    assert refused(mine)
    api.has(mine.identity, mine.uid)
    run(command, mine)
    mine.connect().close()  # it was only closed
    api.lacks(mine.identity, mine.uid)
    for _ in range(3):
        assert run(command, mine).report["code"] == 0
    with memory.database.superuser() as connection:
        left = connection.execute(
            "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)"
            " UNION ALL SELECT datname FROM pg_database WHERE datname = %s"
            " UNION ALL SELECT home FROM memory_ledger.homes WHERE identity = %s",
            [f"{mine.prefix}_", mine.prefix, mine.identity],
        ).fetchall()
    assert left == []
    with theirs.connect() as connection:
        assert connection.execute("SELECT value FROM memory_get('theirs', 'k')").fetchone() == (1,)
        if shared:
            assert connection.execute("SELECT count(*) FROM memory_kv").fetchone() == (1,)
