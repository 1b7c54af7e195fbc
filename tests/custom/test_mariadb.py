"""The worked example as a third party has it: a MariaDB, its own image, and apps that know their binding only."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from memoryctl.objects import Object, make_secret, secret_data, secret_key
from tests import mariadb
from tests.custom.conftest import EXAMPLE, Server
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
