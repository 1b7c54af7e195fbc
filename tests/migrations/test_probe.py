"""The probe: one look, an exit code of 0 whenever it could answer, and the finding's code in the answer."""

from memoryctl.embedded import Login
from tests.migrations.documents import Command, Memory, verifier
from tests.postgres import Database, Postgres


def test_server_that_is_ready(any_database: Database, command: Command) -> None:
    answer = command.probe(Memory(any_database))
    assert answer.code == 0
    report = answer.report
    assert (report["code"], report["reason"], report["hash"]) == (0, "Succeeded", "0123456789")
    assert report["caBundle"] == ""
    assert report["server"]["version"].split(".")[0] == str(any_database.server.version)
    capabilities = report["server"]["capabilities"]
    assert {"createrole", "create-on-database", "pgvector", "pgvector-schema/public"} < set(capabilities)
    assert [name for name in capabilities if name.startswith("pgvector/0.8.")]
    assert "superuser" not in capabilities


def test_ca_is_published(memory: Memory, command: Command) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    assert command.probe(memory, ca=pem).report["caBundle"] == pem


def test_unreachable(memory: Memory, command: Command) -> None:
    answer = command.probe(memory.but(provider={"port": 1}), ca="PEM")
    assert (answer.code, answer.report["code"], answer.report["reason"]) == (0, 30, "Unreachable")
    assert answer.report["server"] == {"version": "", "capabilities": []}
    assert answer.report["caBundle"] == "PEM", "a CA that was rotated must get through all the same"


def test_wrong_password(memory: Memory, command: Command) -> None:
    answer = command.run("probe", memory.probe_document(), Login("memory_admin", "wrong"))
    assert (answer.code, answer.report["code"], answer.report["reason"]) == (0, 13, "PermissionDenied")


def test_admin_without_rights(database: Database, command: Command) -> None:
    poor = Login(f"poor_probe_{database.name}", "poor-password")
    with database.superuser() as superuser:
        superuser.execute(f"CREATE ROLE {poor.username} LOGIN PASSWORD '{verifier(poor.password)}'".encode())
    answer = command.run("probe", Memory(database).probe_document(), poor)
    assert (answer.code, answer.report["code"]) == (0, 13)
    assert "CREATEROLE; GRANT CREATE ON DATABASE" in answer.message
    assert "pgvector" in answer.report["server"]["capabilities"]
    assert "createrole" not in answer.report["server"]["capabilities"]


def test_extension_missing_and_installed(postgres18: Postgres, command: Command) -> None:
    with postgres18.database(vector=False) as database, database.superuser() as superuser:
        memory = Memory(database)
        answer = command.probe(memory)
        assert (answer.code, answer.report["code"], answer.report["reason"]) == (0, 10, "ExtensionMissing")
        assert answer.report["server"]["capabilities"] == ["create-on-database", "createdb", "createrole"]
        without = command.probe(memory.but(provider={"enablePgVector": False}))
        assert without.report["code"] == 0
        as_superuser = command.run("probe", memory.probe_document(), database.server.superuser)
        assert as_superuser.report["code"] == 0, "it could create the extension"
        rows = superuser.execute("SELECT FROM pg_extension WHERE extname = 'vector'").fetchall()
        assert rows == [], "and did not"
        superuser.execute("CREATE EXTENSION vector WITH SCHEMA public")
        assert command.probe(memory).report["code"] == 0


def test_error_of_the_server_has_a_code(memory: Memory, command: Command) -> None:
    with memory.database.superuser() as superuser:
        superuser.execute("REVOKE SELECT ON pg_catalog.pg_extension FROM PUBLIC")
    answer = command.probe(memory)
    assert (answer.code, answer.report["code"], answer.report["sqlstate"]) == (0, 13, "42501")


def test_bad_request(memory: Memory, command: Command) -> None:
    document = memory.probe_document() | {"identity": "x"}
    answer = command.run("probe", document, memory.database.server.admin)
    assert (answer.code, answer.report["code"], answer.report["reason"]) == (0, 20, "BadRequest")
