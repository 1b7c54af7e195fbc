"""`memoryctl up` and `down` as a person runs them: real processes, the real function, a real PostgreSQL."""

import contextlib
import os
import re
import signal
import socket
import stat
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import psycopg
import pytest
import yaml

from memoryctl.cluster import locked
from memoryctl.definitions import ROOT
from memoryctl.objects import API_VERSION, Key, Object, is_true, make_secret, secret_data, secret_key
from tests.memoryctl.conftest import Laptop, Ready, environment
from tests.postgres import Database, Postgres

READY = re.compile(r"Ready ([0-9.]+) s after PostgreSQL ran, ([0-9.]+) s in all")
PROMISED = ("endpoint", "database", "schema", "username", "password")
ROOT_KEY = secret_key("crossplane-system", "memory-root-key")


def external(postgres: Database) -> tuple[Object, Object]:
    """Gives a provider at a real server, and the Secret with its admin."""
    server = postgres.server
    spec = {
        "type": "postgres",
        "postgres": {
            "host": server.host,
            "port": server.port,
            "sslMode": "disable",
            "database": postgres.name,
            "connectionSecret": {"name": "admin", "namespace": "databases"},
        },
    }
    login = {"username": server.admin.username.encode(), "password": server.admin.password.encode()}
    provider = {"apiVersion": API_VERSION, "kind": "XMemoryProvider", "metadata": {"name": "pg"}, "spec": spec}
    return provider, make_secret(secret_key("databases", "admin"), login)


def provision_lines(output: str) -> list[str]:
    """Gives "runs" and how it ended of every provision Job, in order of the output."""
    return re.findall(r"Job databases/mem-\S+ (runs|is complete|failed)", output)


def test_up_ends_ready_and_shows_everything_but_secrets(ready: Ready) -> None:
    assert (ready.code, ready.errors) == (0, "")
    found = READY.search(ready.output)
    assert found
    assert float(found[1]) <= 5.0
    assert 'provider "pg": nobody answers at memory-db-rw.databases.svc:5432' in ready.output
    for shown in ("Memory team-a/notes", "└─ XMemory notes-", "├─ Job databases/mem-", "Secret team-a/notes-memory"):
        assert shown in ready.output
    for condition in ("ProviderReady", "CredentialsReady", "Provisioned"):
        assert re.search(rf"^(Memory|  ).* {condition} +True ", ready.output, re.MULTILINE)
    keys = {path.name for path in ready.binding.iterdir() if not path.name.startswith("..")}
    assert set(PROMISED) | {"type", "provider", "uri", "dataset", "dimension", "contract"} <= keys
    shown_keys = ready.output.split("BINDINGS")[1].splitlines()[2].split()
    assert set(shown_keys) == keys
    secrets = [value for secret in ready.cluster.list("v1", "Secret") for value in secret_data(secret).items()]
    passwords = [value.decode() for name, value in secrets if name == "password"]
    assert len(set(passwords)) == 2
    logs = "".join(path.read_text() for path in (ready.state / "logs").iterdir())
    assert not any(password in ready.output + ready.errors + logs for password in passwords)


def test_everything_that_up_leaves_is_private(ready: Ready) -> None:
    for part in ("objects", "bindings"):
        paths = [path for path in (ready.state / part).rglob("*") if not path.is_symlink()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()} == {0o600}
        assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()} == {0o700}
    assert list((ready.state / "run").iterdir()) == []
    assert len(secret_data(ready.cluster.require(ROOT_KEY))["current"]) >= 32


def test_a_second_up_changes_nothing(laptop: Laptop, provider: Object, claim: Object) -> None:
    laptop.up(provider, claim)
    before = laptop.files()
    for manifests in ((provider, claim), ()):
        done = laptop.up(*manifests)
        assert done.returncode == 0, done.stderr
        assert provision_lines(done.stdout) == []
        assert laptop.files() == before


def test_a_changed_claim_is_reconciled_by_one_new_job(laptop: Laptop, provider: Object, claim: Object) -> None:
    laptop.up(provider, claim)
    password, jobs = (laptop.binding / "password").read_text(), laptop.jobs()
    claim["spec"]["access"] = {"readOnlySecret": True}
    done = laptop.up(claim)
    assert done.returncode == 0, done.stderr
    assert provision_lines(done.stdout) == ["runs", "is complete"]
    assert len(set(laptop.jobs()) - set(jobs)) == 1
    assert (laptop.binding / "password").read_text() == password
    reader = laptop.binding.with_name("notes-memory-reader")
    assert (reader / "username").read_text().endswith("_ro_a")


def until_provisioning(laptop: Laptop, *manifests: Object) -> tuple[Popen[str], list[int]]:
    """Starts `up`, and gives it with all its processes at the moment when the provision Job runs."""
    process = laptop.start("up", "-f", str(laptop.write(*manifests)))
    assert process.stdout
    for line in process.stdout:
        if re.search(r"Job databases/mem-\S+ runs", line):
            break
    return process, descendants(process.pid)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_up_leaves_no_process_and_the_next_goes_on(
    laptop: Laptop, provider: Object, claim: Object, number: signal.Signals
) -> None:
    process, children = until_provisioning(laptop, provider, claim)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted: what was started is stopped, up goes on from there\n")
    assert children
    assert not any(alive(child) for child in children)
    claim["spec"]["access"] = {"readOnlySecret": True}
    done = laptop.up(claim)
    assert done.returncode == 0, done.stderr
    # The one that was interrupted, for the spec before the change, and only then the one for the change.
    assert provision_lines(done.stdout) == ["runs", "is complete", "runs", "is complete"]


@pytest.mark.long
def test_the_next_up_goes_on_after_one_that_was_killed(laptop: Laptop, provider: Object, claim: Object) -> None:
    process, children = until_provisioning(laptop, provider, claim)
    process.kill()
    process.communicate(timeout=60)
    done = laptop.up()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    assert done.returncode == 0, done.stderr
    assert provision_lines(done.stdout) == ["runs", "is complete"]
    assert list((laptop.state / "run").iterdir()) == []


def descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [each for child in children for each in descendants(child)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("ttl", 5, 'memoryctl: Memory notes is not valid: spec: unknown field "ttl"; known are'),
        ("searchConfig", 5, "memoryctl: Memory notes is not valid: spec.searchConfig is 5, must be of type string"),
    ],
)
def test_a_claim_without_the_shape_is_a_sentence_and_starts_nothing(
    laptop: Laptop, claim: Object, field: str, value: object, sentence: str
) -> None:
    claim["spec"][field] = value
    done = laptop.up(claim)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1
    assert not laptop.state.exists()


def test_up_without_anything_is_a_sentence(laptop: Laptop) -> None:
    done = laptop.up()
    assert done.returncode == 1
    assert done.stderr == "memoryctl: there is nothing to bring up: name manifests of a provider and a claim with -f\n"


def test_a_claim_that_the_provider_refuses_shows_why(laptop: Laptop, provider: Object, claim: Object) -> None:
    provider["spec"]["allowedConsumers"] = {"namespaces": {"from": "Names", "names": ["team-b"]}}
    done = laptop.up(provider, claim)
    assert done.returncode == 1
    assert "memoryctl: Memory team-a/notes is not Ready: ProviderReady=False/NotAdmitted" in done.stderr
    assert provision_lines(done.stdout) == []
    provider["spec"]["allowedConsumers"]["namespaces"]["names"] = ["team-a"]
    assert laptop.up(provider).returncode == 0


def test_a_provider_that_a_cluster_refuses_is_refused_here(laptop: Laptop, provider: Object) -> None:
    del provider["spec"]["postgres"]["clusterRef"], provider["spec"]["postgres"]["connectionSecret"]
    provider["spec"]["postgres"]["host"] = "db.example.com"
    done = laptop.up(provider)
    assert done.returncode == 1
    assert "XMemoryProvider pg is not Ready: BackendReady=False/InvalidSpec" in done.stderr
    assert "spec.postgres.connectionSecret" in done.stderr


def test_what_cloudnativepg_would_do_the_embedded_servers_admin_does(
    laptop: Laptop, provider: Object, claim: Object
) -> None:
    """A provider without an admin's Secret: as on a cluster, the Memory has a database of its own."""
    del provider["spec"]["postgres"]["connectionSecret"]
    done = laptop.up(provider, claim)
    assert done.returncode == 0, done.stderr
    assert "its admin does CloudNativePG's work" in done.stdout + done.stderr
    secret = laptop.cluster.get(secret_key("team-a", "notes-memory"))
    assert secret
    assert secret_data(secret)["database"].startswith(b"mem_")


def test_a_claim_without_its_provider_shows_why(laptop: Laptop, claim: Object) -> None:
    done = laptop.up(claim)
    assert done.returncode == 1
    assert 'ProviderReady=False/NotFound: spec.providerRef.name: there is no provider "pg"' in done.stderr


@pytest.mark.long
def test_another_root_key_changes_nothing_and_is_a_condition(laptop: Laptop, provider: Object, claim: Object) -> None:
    laptop.up(provider, claim)
    secret = laptop.cluster.get(secret_key("team-a", "notes-memory"))
    laptop.cluster.delete(ROOT_KEY)
    done = laptop.up()
    assert done.returncode == 1
    assert "memoryctl: Memory team-a/notes works, but CredentialsReady=False/UnknownRootKey" in done.stderr
    assert provision_lines(done.stdout) == []
    assert laptop.cluster.get(secret_key("team-a", "notes-memory")) == secret


@pytest.mark.long
def test_a_schema_of_somebody_else_is_refused_with_its_reason(laptop: Laptop, provider: Object, claim: Object) -> None:
    laptop.up(provider, claim)
    other = {**claim, "metadata": {"name": "other", "namespace": "team-b"}}
    done = laptop.up(other)
    assert done.returncode == 1
    assert "memoryctl: Memory team-b/other is not Ready" in done.stderr
    assert "Provisioned=False/SchemaConflict" in done.stderr
    assert not (laptop.state / "bindings" / "team-b").exists()


@pytest.mark.long
def test_two_namespaces_have_a_binding_root_each(laptop: Laptop, provider: Object, claim: Object) -> None:
    other = {**claim, "metadata": {"name": "notes", "namespace": "team-b"}}
    other["spec"] = {**claim["spec"], "dataset": {"name": "notes", "schema": "other"}}
    done = laptop.up(provider, claim, other)
    assert done.returncode == 0, done.stderr
    schemas = [
        (laptop.state / "bindings" / team / "notes-memory" / "schema").read_text() for team in ("team-a", "team-b")
    ]
    assert schemas == ["notes", "other"]


@pytest.mark.long
def test_a_composite_without_a_claim_has_its_secret_written_where_it_says(
    laptop: Laptop, provider: Object, claim: Object
) -> None:
    spec = {**claim["spec"], "writeConnectionSecretToRef": {"namespace": "apps", "name": "mine"}}
    plain = {**claim, "kind": "XMemory", "metadata": {"name": "plain"}, "spec": spec}
    done = laptop.up(provider, plain)
    assert done.returncode == 0, done.stderr
    assert (laptop.state / "bindings" / "apps" / "mine" / "schema").read_text() == "notes"
    before = laptop.files()
    done = laptop.up()
    assert done.returncode == 0, done.stderr
    assert laptop.files() == before


def test_a_provider_of_a_team_s_own(laptop: Laptop, provider: Object, claim: Object) -> None:
    provider["kind"] = "MemoryProvider"
    provider["metadata"]["namespace"] = "team-a"
    provider["spec"]["postgres"] = {"host": "db.invalid", "connectionSecret": {"name": "admin"}}
    done = laptop.up(provider, claim)
    assert done.returncode == 0, done.stderr
    assert "Job team-a/mem-" in done.stdout
    assert "MemoryProvider team-a/pg" in done.stdout


def test_a_reachable_server_is_used_as_it_is(laptop: Laptop, claim: Object, database: Database) -> None:
    done = laptop.up(*external(database), claim)
    assert done.returncode == 0, done.stderr
    assert not (laptop.state / "postgresql").exists()
    assert (laptop.binding / "database").read_text() == database.name


def test_an_admin_secret_that_is_not_there_is_waited_for(laptop: Laptop, claim: Object, database: Database) -> None:
    provider, secret = external(database)
    done = laptop.up(provider, claim)
    assert done.returncode == 1
    assert 'waits: volume "memory": Secret "databases/admin" not found' in done.stderr
    assert laptop.up(secret).returncode == 0


@pytest.mark.long
def test_a_missing_extension_heals_when_the_platform_team_has_installed_it(
    laptop: Laptop, claim: Object, postgres18: Postgres
) -> None:
    with postgres18.database(vector=False) as database:
        done = laptop.up(*external(database), claim)
        assert done.returncode == 1
        assert "ExtensionMissing" in done.stderr
        with database.superuser() as connection:
            connection.execute("CREATE EXTENSION vector WITH SCHEMA public")
        done = laptop.up()
        assert done.returncode == 0, done.stderr
        laptop.run("down", "--purge")


def test_the_server_s_admin_is_no_superuser(ready: Ready) -> None:
    login = secret_data(ready.cluster.require(secret_key("databases", "memory-admin")))
    host, port = (ready.binding / "endpoint").read_text().split(":")
    user, password = login["username"].decode(), login["password"].decode()
    with psycopg.connect(host=host, port=port, dbname="app", user=user, password=password) as connection:
        row = connection.execute("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user").fetchone()
    assert row == (False, True)


def test_down_keeps_the_data_and_up_goes_on(laptop: Laptop, provider: Object, claim: Object) -> None:
    laptop.up(provider, claim)
    before = laptop.files()
    done = laptop.run("down")
    assert (done.returncode, "PostgreSQL is stopped" in done.stdout) == (0, True)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect((laptop.binding / "uri").read_text(), connect_timeout=5)
    done = laptop.up()
    assert done.returncode == 0, done.stderr
    assert provision_lines(done.stdout) == []
    assert laptop.files() == before
    with psycopg.connect((laptop.binding / "uri").read_text()) as connection:
        assert connection.execute("SELECT count(*) FROM memory_events").fetchone() == (0,)


@pytest.mark.long
def test_the_server_comes_back_on_its_port_or_not_at_all(laptop: Laptop, provider: Object, claim: Object) -> None:
    laptop.up(provider, claim)
    port = int((laptop.binding / "port").read_text())
    laptop.run("down")
    with socket.create_server(("127.0.0.1", port)):
        done = laptop.up()
    assert done.returncode == 1
    assert f"port {port}, which the PostgreSQL in " in done.stderr
    assert laptop.up().returncode == 0


def test_purge_removes_everything_of_ours_and_nothing_else(laptop: Laptop, provider: Object, claim: Object) -> None:
    laptop.up(provider, claim)
    mine = laptop.state / "mine.txt"
    mine.touch()
    done = laptop.run("down", "--purge")
    assert (done.returncode, [path.name for path in laptop.state.iterdir()]) == (0, ["mine.txt"])
    mine.unlink()
    laptop.state.rmdir()


def test_a_second_memoryctl_in_the_same_directory_is_refused(laptop: Laptop, provider: Object) -> None:
    with locked(laptop.state):
        for arguments in (("up", "-f", str(laptop.write(provider))), ("down",)):
            done = laptop.run(*arguments)
            assert done.returncode == 1
            assert "another memoryctl is at work in" in done.stderr


def test_the_claim_says_what_the_secret_says(ready: Ready) -> None:
    told = ready.claim()
    assert is_true(told, "Ready")
    assert told["status"]["binding"] == {"name": "notes-memory"}
    for key in ("endpoint", "database", "schema"):
        assert told["status"][key] == (ready.binding / key).read_text()


@pytest.mark.long
def test_the_time_limit_ends_the_wait_and_the_next_up_goes_on(laptop: Laptop, provider: Object, claim: Object) -> None:
    done = laptop.run("up", "-f", str(laptop.write(provider, claim)), "--timeout", "0")
    assert done.returncode == 1
    assert "the time of --timeout is over while Jobs still run" in done.stderr
    assert laptop.up().returncode == 0


def demo(binding: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "memoryctl.demo", str(binding)]
    with Popen(command, cwd=ROOT, stdout=PIPE, stderr=PIPE, text=True, env=environment()) as process:
        output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def test_the_client_needs_only_the_five_promised_keys(ready: Ready, tmp_path: Path) -> None:
    five = tmp_path / "five"
    five.mkdir()
    for key in PROMISED:
        (five / key).write_bytes((ready.binding / key).read_bytes())
    for _ in range(2):  # a second run finds what the first left: nothing is stored twice
        code, output, errors = demo(five)
        assert (code, errors) == (0, "")
        assert "event 2 again: recognised, not stored twice" in output
        assert "Read      2 events back" in output
        by_vector, by_words, by_both = (part.splitlines()[1] for part in output.split("Search by ")[1:])
        assert "invoice of the bakery" in by_vector
        assert "Dentist appointment" in by_words
        assert "lentil soup" in by_both
        assert (five / "password").read_text() not in output


def test_the_client_of_a_memory_without_embeddings(laptop: Laptop, provider: Object, claim: Object) -> None:
    claim["spec"]["embeddings"] = {"enabled": False}
    laptop.up(provider, claim)
    code, output, _ = demo(laptop.binding)
    assert (code, "This Memory has no embeddings" in output) == (0, True)


def test_the_client_without_a_binding_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "endpoint").write_text("127.0.0.1:1")
    code, _, errors = demo(tmp_path)
    assert code == 1
    assert errors == (
        f"demo: {tmp_path} is not the binding of a Memory: it has no database, schema, username, password\n"
    )


def test_the_client_without_a_server_is_a_sentence(tmp_path: Path) -> None:
    for key in PROMISED:
        (tmp_path / key).write_text("127.0.0.1:1" if key == "endpoint" else "x")
    code, _, errors = demo(tmp_path)
    assert code == 1
    assert errors.startswith("demo: 127.0.0.1:1 does not answer: connection failed")
    assert "Traceback" not in errors


def test_help_says_what_is_not_checked_here() -> None:
    with Popen([sys.executable, "-m", "memoryctl", "up", "--help"], cwd=ROOT, stdout=PIPE, text=True) as process:
        output, _ = process.communicate(timeout=60)
    assert "CEL" in output


def test_the_provider_object_is_the_embedded_one(ready: Ready) -> None:
    postgres = ready.cluster.require(Key(API_VERSION, "XMemoryProvider", "", "pg"))["spec"]["postgres"]
    assert "clusterRef" not in postgres
    assert f"{postgres['host']}:{postgres['port']}" == (ready.binding / "endpoint").read_text()


@pytest.mark.parametrize("name", ["database-isolation", "shared-schema"])
def test_every_isolation_works_on_a_laptop(laptop: Laptop, name: str) -> None:
    provider, claim = (
        yaml.safe_load((ROOT / "examples" / name / f"{each}.yaml").read_text()) for each in ("provider", "claim")
    )
    done = laptop.up(provider, claim)
    assert done.returncode == 0, done.stdout + done.stderr
    binding = laptop.state / "bindings" / "team-a" / f"{claim['metadata']['name']}-memory"
    assert ((binding / "database").read_text() == "app") == (name == "shared-schema")
    code, output, errors = demo(binding)
    assert (code, errors) == (0, "")
    assert "Search by " in output
