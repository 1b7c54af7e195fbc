"""The servers of these tests are what a platform team gives us: no rights that would hide a mistake."""

import psycopg
import pytest

from tests.postgres import Database, Postgres


def test_admin_makes_roles_schemas_and_databases_and_is_not_superuser(any_database: Database) -> None:
    with any_database.connect() as connection:
        row = connection.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication,"
            " has_database_privilege(current_database(), 'CREATE') FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert row == (False, True, True, False, False, True)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT pg_read_file('postgresql.conf')")


def test_server_asks_for_scram_and_no_password_is_no_entry(postgres: Postgres) -> None:
    login = postgres.server.admin
    wrong = type(login)(login.username, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.server.conninfo(wrong))
    with psycopg.connect(postgres.server.conninfo() + " require_auth=scram-sha-256") as connection:
        assert connection.info.server_version // 10000 == postgres.version


def test_passwords_of_the_server_are_in_no_statement(postgres: Postgres) -> None:
    log = postgres.statements()
    assert "CREATE ROLE" in log
    assert "SCRAM-SHA-256$" in log
    assert postgres.server.superuser.password not in log
    assert postgres.server.admin.password not in log
