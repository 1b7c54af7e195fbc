"""A Memory on S3 becomes what its request says, from whatever state, and whoever else is at it."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from migrations.deadline import Deadline
from migrations.errors import CommandError
from migrations.s3 import ledger as ledgers
from migrations.s3.connection import Admin, Keys
from migrations.s3.ledger import LOCKS, Ledger
from tests.migrations.s3.memories import Memory, Runner, keys_under, provisioned
from tests.rgw import Rgw, tls

pytestmark = pytest.mark.xdist_group("rgw")

LOCKING = {"versioning": True, "objectLock": {"mode": "GOVERNANCE", "days": 1}}


def meta_of(memory: Memory) -> dict[str, Any]:
    with memory.rgw.client() as admin:
        body = admin.get_object(Bucket=memory.home, Key=f"{memory.prefix}meta.json")["Body"].read()
    found: dict[str, Any] = json.loads(body)
    return found


def test_a_memory_on_an_empty_server_serves_its_writer_and_its_reader(memory: Memory, runner: Runner) -> None:
    answer = runner.provision(memory)
    assert answer.code == 0, answer.message
    assert answer.message == f"s3://{memory.bucket}/{memory.prefix} is ready"
    assert answer.report["server"] == {"version": "Ceph RGW", "capabilities": ["admin-api", "conditional-put", "rgw"]}
    assert answer.report["modules"] == [{"name": "core", "version": "1"}]
    assert (answer.report["warnings"], answer.report["verify"]) == ([], [])
    with memory.client() as writer, memory.client("ro_a") as reader:
        writer.put_object(Bucket=memory.home, Key=f"{memory.prefix}kv/a.json", Body=b"1")
        assert reader.get_object(Bucket=memory.home, Key=f"{memory.prefix}kv/a.json")["Body"].read() == b"1"
    assert meta_of(memory) == {
        "contract": 1,
        "dataset": "notes",
        "dimension": 3,
        "metric": "cosine",
        "ttlDays": 0,
        "legalHold": False,
        "versioning": False,
        "objectLock": False,
        "conditionalPut": True,
    }
    assert keys_under(memory, LOCKS) == []


def test_run_with_nothing_to_do_changes_nothing(memory: Memory, runner: Runner) -> None:
    runner.ready(memory)
    answer = runner.provision(memory)
    assert answer.code == 0
    assert [line for line in answer.log if "what" in line] == []


def test_bucket_with_versions_and_lock_is_made_so_and_apps_are_told_that_conditions_do_nothing(
    memory: Memory, runner: Runner
) -> None:
    answer = runner.provision(memory.but(provider=LOCKING))
    assert answer.report["server"]["capabilities"] == ["admin-api", "object-lock", "rgw", "versioning"]
    meta = meta_of(memory)
    assert (meta["versioning"], meta["objectLock"], meta["conditionalPut"]) == (True, True, False)
    with memory.rgw.client() as admin:
        found = admin.get_object_lock_configuration(Bucket=memory.home)["ObjectLockConfiguration"]
    assert found["Rule"]["DefaultRetention"] == {"Mode": "GOVERNANCE", "Days": 1}


@pytest.mark.long
def test_retention_is_made_longer_and_never_shorter(memory: Memory, runner: Runner) -> None:
    def retention() -> tuple[str, int]:
        with memory.rgw.client() as admin:
            found = admin.get_object_lock_configuration(Bucket=memory.home)["ObjectLockConfiguration"]
        rule = found["Rule"]["DefaultRetention"]
        return rule["Mode"], rule["Days"]

    def lock(mode: str, days: int) -> Memory:
        return memory.but(provider={"versioning": True, "objectLock": {"mode": mode, "days": days}})

    runner.ready(lock("GOVERNANCE", 2))
    runner.ready(lock("GOVERNANCE", 3))
    assert retention() == ("GOVERNANCE", 3)
    [warning] = runner.provision(lock("GOVERNANCE", 1)).report["warnings"]
    assert (
        warning == f'bucket "{memory.home}" locks new objects for 3 days (GOVERNANCE), more than 1 days (GOVERNANCE): '
        "it stays so"
    )
    assert retention() == ("GOVERNANCE", 3)
    runner.ready(lock("COMPLIANCE", 3))
    assert retention() == ("COMPLIANCE", 3)
    runner.ready(lock("GOVERNANCE", 5))
    assert retention() == ("COMPLIANCE", 5), "a stricter mode stays"
    warnings = runner.provision(memory).report["warnings"]
    assert [each.partition("although")[0] for each in warnings] == [
        f'bucket "{memory.home}" keeps versions ',
        f'bucket "{memory.home}" has object lock ',
    ]


def test_bucket_made_without_lock_is_refused_before_anything_is_made(memory: Memory, runner: Runner) -> None:
    with memory.rgw.client() as admin:
        admin.create_bucket(Bucket=memory.home)
    answer = runner.provision(memory.but(provider=LOCKING))
    assert (answer.code, answer.report["reason"]) == (14, "SchemaConflict")
    assert answer.message.startswith(f'bucket "{memory.home}" was made without object lock, which cannot be added')
    assert keys_under(memory, "") == []
    assert memory.name("rw_a") not in memory.rgw.run("user", "list")


@pytest.mark.long
def test_bucket_of_somebody_else_is_refused(memory: Memory, runner: Runner) -> None:
    with memory.rgw.client(memory.rgw.user()) as other:
        other.create_bucket(Bucket=memory.home)
    answer = runner.provision(memory)
    assert answer.code in {13, 14}, answer.message
    assert memory.name("rw_a") not in memory.rgw.run("user", "list")


def test_encryption_that_the_server_lacks_is_refused_before_anything_is_made(memory: Memory, runner: Runner) -> None:
    answer = runner.provision(memory.but(provider={"encryption": {"algorithm": "AES256", "kmsKeyId": None}}))
    assert (answer.code, answer.report["reason"]) == (16, "ModuleUnsupported")
    assert "does not encrypt with AES256" in answer.message
    assert keys_under(memory, "") == []


@pytest.mark.long
@pytest.mark.parametrize("users", ["RGW", "Shared"])
def test_replication_that_the_server_lacks_is_refused(memory: Memory, runner: Runner, users: str) -> None:
    replication = {"role": "arn:aws:iam::1:role/r", "destination": "arn:aws:s3:::copy"}
    answer = runner.provision(memory.but(provider={"versioning": True, "replication": replication, "users": users}))
    assert answer.code == 16
    assert "replicates between zones" in answer.message
    assert memory.name("rw_a") not in memory.rgw.run("user", "list")


@pytest.mark.long
def test_keys_that_the_server_does_not_know(memory: Memory, runner: Runner) -> None:
    wrong = memory.but(rgw=_as(memory.rgw, Keys(memory.rgw.admin.access_key, "wrong")))
    answer = runner.provision(wrong)
    assert (answer.code, answer.report["reason"]) == (13, "PermissionDenied")
    assert "does not know the admin's keys (SignatureDoesNotMatch)" in answer.message


def test_admin_without_caps_is_told_which(memory: Memory, runner: Runner) -> None:
    plain = memory.rgw.user()
    answer = runner.provision(memory.but(rgw=_as(memory.rgw, Keys(plain.access_key, plain.secret_key))))
    assert answer.code == 13
    assert "give it the caps users=*;buckets=*;user-policy=*" in answer.message


def _as(rgw: Rgw, keys: Keys) -> Rgw:
    from tests.rgw import Keys as Pair  # noqa: PLC0415  the harness's own kind of keys

    return Rgw(rgw.program, rgw.directory, rgw.endpoint, Pair(keys.access, keys.secret))


@pytest.mark.long
def test_server_that_is_not_there_is_waited_for(memory: Memory, runner: Runner) -> None:
    environment = runner.mount(memory.but(provider={"endpoint": "http://127.0.0.1:1"}), memory.document())
    request = Path(environment["MEMORY_DIR"]) / "request.json"
    document = json.loads(request.read_text())
    document["provider"]["endpoint"] = "http://127.0.0.1:1"
    request.write_text(json.dumps(document))
    answer = runner.command.run_mounted("provision", environment | {"MEMORY_DEADLINE_SECONDS": "2"})
    assert (answer.code, answer.report["reason"]) == (30, "Unreachable")
    assert "S3 at http://127.0.0.1:1 does not answer" in answer.message


@pytest.mark.long
@pytest.mark.parametrize("users", ["RGW", "Shared"])
def test_what_stands_in_files_and_variables_of_aws_is_looked_at_nowhere(
    memory: Memory, runner: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, users: str
) -> None:
    garbage = tmp_path / "config"
    garbage.write_text("[profile\nbroken")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(garbage))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "nothing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    runner.ready(memory.but(provider={"users": users}))


def test_https_needs_the_authority_that_signed(memory: Memory, runner: Runner, tmp_path: Path) -> None:
    with tls(memory.rgw, tmp_path) as front:
        safe = memory.but(provider={"endpoint": front.endpoint})
        answer = runner.provision(safe, front.ca)
        assert (answer.code, answer.report["verify"]) == (0, []), answer.message
        probed = runner.run("probe", safe, safe.probe_document(), front.ca)
        assert probed.report["caBundle"] == front.ca.read_text()
        answer = runner.run("probe", safe, safe.probe_document())
    assert answer.report["code"] == 30
    assert "give the CA that signed for it as caBundle" in answer.message


def test_shared_users_hand_out_the_admins_keys_and_say_so(memory: Memory, runner: Runner) -> None:
    shared = memory.but(provider={"users": "Shared"}, secrets={})
    answer = runner.provision(shared)
    assert answer.code == 0, answer.message
    [warning] = answer.report["warnings"]
    assert warning == (
        'all Memories of provider "objects" have one login, the admin\'s (s3.users is Shared): nothing keeps them apart'
    )
    written = json.loads((runner.command.folder / "secrets" / "databases" / "mem-keys.json").read_text())
    keys = {key: base64.b64decode(text).decode() for key, text in written.items()}
    assert keys == {"username": memory.rgw.admin.access_key, "password": memory.rgw.admin.secret_key}
    assert memory.rgw.admin.secret_key not in json.dumps([answer.report, answer.log])
    assert "admin-api" not in answer.report["server"]["capabilities"]
    assert memory.name("rw_a") not in memory.rgw.run("user", "list")


def test_managed_resources_make_the_bucket_and_the_job_waits_for_it(memory: Memory, runner: Runner) -> None:
    managed = memory.but(provider={"users": "AWS", "versioning": True}, secrets={})
    environment = runner.mount(managed, managed.document()) | {"MEMORY_DEADLINE_SECONDS": "1"}
    answer = runner.command.run_mounted("provision", environment)
    assert (answer.code, answer.message) == (
        30,
        f'bucket "{memory.home}" is not there yet: a managed resource makes it',
    )
    with memory.rgw.client() as admin:
        admin.create_bucket(Bucket=memory.home)
    answer = runner.provision(managed)
    assert answer.code == 0
    assert answer.report["warnings"] == [f'bucket "{memory.home}" keeps no versions']
    assert meta_of(managed)["versioning"] is False
    runner.maintain(managed, "Repair")
    assert runner.told(managed)["drift"] == [f'bucket "{memory.home}" keeps no versions'], "not ours to repair"


@pytest.mark.long
def test_managed_bucket_of_its_own(memory: Memory, runner: Runner) -> None:
    managed = memory.but(bucket=None, bucket_prefix=memory.rgw.name("own"), provider={"users": "AWS"}, secrets={})
    environment = runner.mount(managed, managed.document()) | {"MEMORY_DEADLINE_SECONDS": "1"}
    assert runner.command.run_mounted("provision", environment).code == 30
    with memory.rgw.client() as admin:
        admin.create_bucket(Bucket=managed.home)
    runner.ready(managed)


@pytest.mark.long
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
def test_plan_says_what_provision_does_and_changes_nothing(
    memory: Memory, runner: Runner, capsys: pytest.CaptureFixture[str], own: bool
) -> None:
    wanted = memory.but(bucket=None, bucket_prefix=memory.rgw.name("own")) if own else memory
    first = plan(runner, wanted, capsys)
    assert first["home"] == "new"
    assert f'user "{wanted.name("rw_a")}" is not there' in first["changes"]
    with memory.rgw.client() as admin:
        assert wanted.home not in [each["Name"] for each in admin.list_buckets()["Buckets"]]
    runner.ready(wanted)
    again = plan(runner, wanted, capsys)
    assert (again["home"], again["changes"], again["message"]) == ("ours", [], "nothing would change")
    rotated = plan(runner, wanted.but(secrets={"rw_a": "other", "ro_a": "read-secret"}), capsys)
    assert rotated["changes"] == [f'user "{wanted.name("rw_a")}" has another secret key']
    refused = plan(runner, wanted.but(uid="uid-2"), capsys)
    assert (refused["home"], refused["refused"]["code"]) == ("refused", 15)
    assert plan(runner, wanted.but(uid="uid-2", adopt=True), capsys)["home"] == "adopt"


def plan(runner: Runner, memory: Memory, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    from migrations.__main__ import main  # noqa: PLC0415

    for name, value in runner.mount(memory, memory.document()).items():
        runner.command.monkeypatch.setenv(name, value)
    capsys.readouterr()
    main(["plan"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_probe_says_what_the_server_is(memory: Memory, runner: Runner) -> None:
    def probe(asked: Memory) -> dict[str, Any]:
        return runner.run("probe", asked, asked.probe_document()).report

    before = probe(memory)
    assert (before["code"], before["server"]) == (0, {"version": "Ceph RGW", "capabilities": ["admin-api", "rgw"]})
    runner.ready(memory)
    assert probe(memory)["server"]["capabilities"] == ["admin-api", "conditional-put", "rgw"]
    assert keys_under(memory, "memory-ledger/scratch/") == []
    assert probe(memory.but(provider=LOCKING))["code"] == 14
    encrypted = memory.but(provider={"encryption": {"algorithm": "AES256", "kmsKeyId": None}})
    assert probe(encrypted)["code"] == 16
    plain = memory.rgw.user()
    denied = probe(memory.but(rgw=_as(memory.rgw, Keys(plain.access_key, plain.secret_key))))
    assert (denied["code"], denied["reason"]) == (13, "PermissionDenied")


@pytest.mark.long
@pytest.mark.parametrize("same", [False, True], ids=["of eight", "of one"])
def test_eight_provisioners_at_once_succeed(rgw: Rgw, tmp_path: Path, same: bool) -> None:
    base = Memory(rgw, rgw.name("shared"))
    memories = [base if same else base.but(identity=f"team-{number}/notes", uid=f"uid-{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        folders = [tmp_path / str(number) for number in range(8)]
        list(pool.map(provisioned, memories, folders))
    for each in memories:
        with each.client() as client:
            client.put_object(Bucket=each.home, Key=f"{each.prefix}kv/a.json", Body=b"1")


def connect(memory: Memory) -> Any:
    admin = memory.rgw.admin
    return Admin(memory.rgw.endpoint, memory.rgw.region, True, Keys(admin.access_key, admin.secret_key), None)


@pytest.mark.long
@pytest.mark.parametrize("locked", [False, True], ids=["plain", "locked"])
def test_lock_is_held_by_one_and_waited_for_and_a_dead_one_is_not(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    bucket = memory.rgw.bucket(lock=locked)
    with connect(memory).connect(Deadline.in_seconds(30)) as connection:
        ledger = Ledger(connection, bucket, locked)
        with ledger.lock("home", Deadline.in_seconds(5)) as held:
            with (
                pytest.raises(CommandError, match="did not finish in time"),
                ledger.lock("home", Deadline.in_seconds(0.3)),
            ):
                pass
            with ledger.lock("another", Deadline.in_seconds(5)):
                pass
            held.since = held.since - ledgers.LEASE_SECONDS / 2 if held.since else None
            held.renew()
            assert len(held.versions) == 2
            held.since = held.since - 2 * ledgers.LEASE_SECONDS if held.since else None
            with pytest.raises(CommandError, match="our lock has lapsed"):
                held.renew()
        with ledger.lock("home", Deadline.in_seconds(5)):
            pass
        dead = ledgers.Ticket(ledger, f"{LOCKS}home/0")
        dead.renew()
        monkeypatch.setattr(ledgers, "LEASE_SECONDS", 0.0)
        with ledger.lock("home", Deadline.in_seconds(20)):
            pass
