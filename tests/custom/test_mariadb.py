"""The worked example as a third party has it: a MariaDB, its own image, and apps that know their binding only."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from memoryctl.objects import Object, make_secret, secret_data, secret_key
from tests import mariadb
from tests.custom.conftest import EXAMPLE, Server, configured
from tests.mariadb import MariaDB
from tests.memoryctl.conftest import Laptop

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("mariadb")]

# An app: it has a directory and a client library.
APP = """
import json, sys
from pathlib import Path
import pymysql
binding = {path.name: path.read_text() for path in Path(sys.argv[1]).iterdir() if not path.name.startswith("..")}
where = {"host": binding["host"], "port": int(binding["port"]), "database": binding["schema"]}
rows = []
try:
    connection = pymysql.connect(
        user=binding["username"], password=binding["password"], autocommit=True, **where
    )
    cursor = connection.cursor()
    for statement in sys.argv[2:]:
        try:
            cursor.execute(statement, {"dataset": binding["dataset"]})
            rows.append([list(row) for row in cursor.fetchall()])
        except pymysql.Error as error:
            rows.append(error.args[0])
except pymysql.Error as error:
    rows.append(error.args[0])
print(json.dumps(rows, default=str))
"""
PUT = "REPLACE INTO memory_kv (dataset, `key`, value) VALUES (%(dataset)s, 'a', '{\"b\": 1}')"
GET = "SELECT value FROM memory_kv WHERE dataset = %(dataset)s AND `key` = 'a'"
APPEND = "INSERT INTO memory_events (dataset, event_type, payload) VALUES (%(dataset)s, 'said', '{}')"
DELETE = "DELETE FROM memory_events WHERE dataset = %(dataset)s"
NOT_ON_TABLE, NOT_ON_DATABASE, NO_LOGIN = 1142, 1044, 1045


def use(server: MariaDB, binding: Path, *statements: str) -> list[Any]:
    """Gives the rows of each statement, or the number of the error that it ended with."""
    rows: list[Any] = json.loads(server.python(APP, str(binding), *statements))
    return rows


def manifests(server: MariaDB, **changes: Any) -> tuple[Object, Object, Object]:
    """Gives provider and claim of the example, at the real server, and the Secret with its admin's login."""
    provider, claim = (yaml.safe_load((EXAMPLE / name).read_text()) for name in ("provider.yaml", "claim.yaml"))
    provider["spec"]["custom"]["endpoint"] = server.endpoint
    claim["spec"] |= changes
    reference = provider["spec"]["custom"]["configSecret"]
    username, password = mariadb.ADMIN
    login = {"username": username.encode(), "password": password.encode()}
    return provider, claim, make_secret(secret_key(reference["namespace"], reference["name"]), login)


def up(laptop: Laptop, example: Server, *given: Object) -> str:
    """Brings up what is given, with the command that stands for the image; gives what was said."""
    image = manifests_image()
    done = laptop.run("up", "-f", str(laptop.write(*given)), "--image", f"{image}={example.command}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def manifests_image() -> str:
    image: str = yaml.safe_load((EXAMPLE / "provider.yaml").read_text())["spec"]["custom"]["image"]
    return image


def test_a_claim_becomes_a_database_that_an_app_uses_by_its_binding_alone(
    laptop: Laptop, maria: MariaDB, example: Server
) -> None:
    provider, claim, admin = manifests(maria)
    output = up(laptop, example, provider, claim, admin)
    assert "nobody answers" not in output
    assert not (laptop.state / "postgresql").exists()
    binding = laptop.binding
    assert use(maria, binding, PUT, GET, APPEND) == [[], [['{"b": 1}']], []]
    assert not re.search(r"Job databases/mem-\S+ runs", up(laptop, example)), "a second run has nothing to do"
    # Nothing that was said, logged or sent to the server holds a password.
    passwords = [(binding / "password").read_text(), mariadb.ADMIN[1]]
    logs = "".join(path.read_text() for path in (laptop.state / "logs").iterdir())
    assert not any(each in text for each in passwords for text in (output, logs))
    assert passwords[0] not in maria.query_log()
    status = laptop.run("status", "notes", "-n", "team-a")
    assert status.returncode == 0
    assert "XMemoryProvider mariadb" in status.stdout

    rotated = {**claim, "spec": {**claim["spec"], "credentials": {"epoch": 1}, "legalHold": True}}
    before = laptop.directory / "before"
    before.mkdir()
    for path in binding.iterdir():
        if not path.name.startswith(".."):
            (before / path.name).write_text(path.read_text())
    up(laptop, example, rotated)
    assert (binding / "username").read_text().endswith("_rw_b")
    # Both work, the old one too until the next rotation; neither can remove anything while there is a hold.
    for each in (binding, before):
        assert use(maria, each, GET, APPEND, DELETE) == [[['{"b": 1}']], [], NOT_ON_TABLE]
    up(laptop, example, {**rotated, "spec": {**rotated["spec"], "credentials": {"epoch": 1, "revokeOld": True}}})
    assert use(maria, before, GET) == [4151]
    assert use(maria, binding, GET) == [[['{"b": 1}']]]

    maintained = laptop.run("maintain")
    assert maintained.returncode == 0, maintained.stderr
    assert "4 rows" in maintained.stdout
    assert "DRIFT      none" in maintained.stdout

    wanted = {**claim, "spec": {**rotated["spec"], "embeddings": {"enabled": True}, "credentials": {"epoch": 1}}}
    planned = laptop.run("plan", "-f", str(laptop.write(wanted)))
    assert "an image that is not ours cannot be asked what it would do" in planned.stdout
    refused = laptop.run("up", "-f", str(laptop.write(wanted)))
    assert refused.returncode == 1
    assert "Provisioned=False/ModuleUnsupported: this provider keeps no embeddings" in refused.stderr
    assert laptop.run("down").stdout.startswith("no server of memoryctl's runs; ")


def test_without_a_command_for_the_image_up_says_what_is_missing(laptop: Laptop, maria: MariaDB) -> None:
    done = laptop.up(*manifests(maria))
    assert done.returncode == 1
    assert f'image "{manifests_image()}" is not ours, and a laptop has no containers' in done.stderr
    assert secret_data(laptop.cluster.require(secret_key("databases", "mariadb-admin")))


def test_names_that_are_patterns_do_not_open_other_databases(example: Server, maria: MariaDB) -> None:
    """To GRANT, _ stands for any letter: rights on a_b would be rights on axb."""
    assert example.kit("isolation")[0] == 0
    [home, *_] = ast.literal_eval(maria.sql("SHOW DATABASES LIKE 'kit%_one'"))
    other = home[0].replace("_", "X")
    pattern = home[0].replace("_", "\\\\_")
    login = ast.literal_eval(
        maria.sql(f"SELECT grantee FROM information_schema.schema_privileges WHERE table_schema = '{pattern}'")
    )
    maria.sql(
        f"CREATE DATABASE {other}",
        f"CREATE TABLE {other}.t (a INT)",
        f"SET PASSWORD FOR {login[0][0]} = PASSWORD('app')",
    )
    user = login[0][0].split("'")[1]
    assert maria.sql(f"SELECT * FROM {other}.t", user=user, password="app") == f"error {NOT_ON_TABLE}"
    assert maria.sql(f"SELECT * FROM {home[0]}.memory_kv WHERE 0", user=user, password="app") == "()"
    for statement in ("SELECT * FROM memory_ledger.homes", "CREATE TABLE t (a INT)", "SELECT * FROM mysql.global_priv"):
        assert maria.sql(statement, user=user, password="app", database=home[0]) == f"error {NOT_ON_TABLE}"


def test_the_example_keeps_the_whole_contract_and_leaves_nothing_behind(example: Server, maria: MariaDB) -> None:
    made = "SELECT user FROM mysql.global_priv UNION SELECT schema_name FROM information_schema.schemata ORDER BY 1"
    assert example.kit("probe", "provision", more=())[0] == 0, "the ledger is there from now on"
    before = maria.sql(made)
    code, output = example.kit(more=())
    assert code == 0, output
    assert maria.sql(made) == before


def test_retention_is_by_the_servers_clock_and_spares_what_is_younger(
    laptop: Laptop, maria: MariaDB, example: Server
) -> None:
    provider, claim, admin = manifests(maria, dataset={"name": "kept", "schema": "kept"})
    claim["metadata"]["name"] = "kept"
    up(laptop, example, provider, claim, admin)
    home = laptop.state / "bindings" / "team-a" / "kept-memory"
    use(maria, home, *[APPEND] * 5, PUT)
    maria.sql("UPDATE kept.memory_events SET created_at = UTC_TIMESTAMP(6) - INTERVAL 90 DAY + INTERVAL 1 HOUR")
    maria.sql("UPDATE kept.memory_events SET created_at = created_at - INTERVAL 2 HOUR LIMIT 3")
    maintained = laptop.run("maintain")
    assert maintained.returncode == 0, maintained.stderr
    assert "90 days, last removed 3 rows" in maintained.stdout
    assert "3 rows" in maintained.stdout.split("DATA")[1]
    assert use(maria, home, "SELECT COUNT(*) FROM memory_events", GET) == [[[2]], [['{"b": 1}']]]
    # Somebody gives a login more than it should have: maintenance says so, and the next run takes it back.
    login = (home / "username").read_text()
    maria.sql(f"GRANT DROP ON kept.* TO `{login}`@`%`")
    drifted = laptop.run("maintain")
    assert f"login {login} has DELETE, DROP, INSERT, SELECT, UPDATE on kept, not " in drifted.stdout
    claim["spec"]["retention"] = {"ttlDays": 30}
    up(laptop, example, claim)
    assert "DRIFT      none" in laptop.run("maintain").stdout


def run_probe(server: Server, folder: Path) -> Object:
    """Runs a probe, and gives its report file."""
    host, port = server.endpoint.split(":")
    known = {"type": "custom", "name": "p", "uid": "u", "database": server.database}
    provider = {**known, "endpoint": server.endpoint, "host": host, "port": int(port)}
    request = {"version": 1, "hash": "h", "provider": provider, "report": {"namespace": "n", "name": "r"}}
    (folder / "request.json").write_text(json.dumps(request))
    places = {"MEMORY_DIR": folder, "MEMORY_CONFIG_DIR": server.config, "MEMORY_REPORT_FILE": folder / "report.json"}
    environment = {**os.environ, **{name: str(path) for name, path in places.items()}}
    subprocess.run([*shlex.split(server.command), "probe"], env=environment, check=True, capture_output=True)
    report: Object = json.loads((folder / "report.json").read_text())
    return report


def test_with_a_ca_every_connection_is_checked_and_every_login_comes_by_tls(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    tmp_path.chmod(0o755)
    with mariadb.running(tmp_path, authority) as server:
        shutil.copytree(EXAMPLE / "image" / "provisioner", tmp_path / "provisioner")
        configured(tmp_path, *mariadb.ADMIN)
        authority.cert_pem.write_to_path(tmp_path / "config" / "ca.crt")
        command = shlex.join(server.command("python3", str(tmp_path / "provisioner")))
        shutil.copy(EXAMPLE / "kit" / "try_login.py", tmp_path)
        tries = shlex.join(server.command("python3", str(tmp_path / "try_login.py")))
        with_ca = Server(tmp_path, server.endpoint, "memory_ledger", command, tries)
        code, output = with_ca.kit("probe", "report")
        assert code == 0, output
        found = json.loads(run_probe(with_ca, tmp_path)["probe"])
        assert found["caBundle"] == authority.cert_pem.bytes().decode().strip()
        assert found["server"]["capabilities"] == ["mariadb", "tls"]
        code, output = with_ca.kit("provision")
        assert (code, "the active login does not work" in output) == (1, True), "a login without TLS"
        other.cert_pem.write_to_path(tmp_path / "config" / "ca.crt")
        code, output = with_ca.kit("probe")
        assert code == 1
        assert "127.0.0.1:" in output
        assert "cannot prove that it is the server: the configSecret's ca.crt did not sign for it" in output
