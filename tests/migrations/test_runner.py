"""Migration files: history, checksums, resuming, and what stands alone outside a transaction."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.postgres import runner, sqlfile
from migrations.postgres.connection import OPTIONS
from tests.postgres import Connection, Database

FIRST = "CREATE TABLE @{schema}.things (a int, b jsonb DEFAULT '{}', c text DEFAULT '%s %(x)s');\n"
SECOND = "INSERT INTO @{schema}.things (a) VALUES (1);\n"
ALONE = "-- memory: no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS things_a_idx ON @{schema}.things (a);\n"

Write = Callable[..., None]
Run = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sql" / "things").mkdir(parents=True)
    return tmp_path / "sql"


@pytest.fixture
def write(folder: Path) -> Write:
    def write(**files: str) -> None:
        for name, text in files.items():
            (folder / "things" / f"{name.lstrip('_')}.sql").write_bytes(text.encode())

    write(_0001_first=FIRST, _0002_second=SECOND)
    return write


@pytest.fixture
def run(database: Database, folder: Path) -> Run:
    """Applies what the folder holds to a schema of the admin's own; gives the titles that were pending."""
    with database.connect() as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS home")

    def run(seconds: float = 20) -> list[str]:
        with psycopg.connect(
            database.conninfo(), autocommit=True, options=" ".join(f"-c {k}={v}" for k, v in OPTIONS.items())
        ) as connection:
            pending = runner.pending(sqlfile.read("things", folder), runner.history(connection, "home"))
            values = {"schema": sql.Identifier("home")}
            runner.apply(connection, "home", pending, values, Deadline(time.monotonic() + seconds))
            return [file.title for file in pending]

    return run


def _value(connection: Connection, query: str) -> object:
    row = connection.execute(query.encode()).fetchone()
    assert row
    return row[0]


def test_each_file_once_in_order(write: Write, run: Run, database: Database) -> None:
    assert run() == ["things/0001_first.sql", "things/0002_second.sql"]
    assert run() == []
    write(_0003_third=SECOND)
    assert run() == ["things/0003_third.sql"]
    with database.connect() as connection:
        assert _value(connection, "SELECT count(*) FROM home.things") == 2
        assert _value(connection, "SELECT b::text || c FROM home.things LIMIT 1") == "{}%s %(x)s"
        history = connection.execute("SELECT module, version, name, duration_ms >= 0 FROM home.memory_migrations")
        assert history.fetchall()[2] == ("things", "0003", "third", True)


def test_line_endings_are_no_change(write: Write, run: Run) -> None:
    run()
    write(_0001_first=FIRST.replace("\n", "\r\n"))
    assert run() == []


def _refused(run: Run) -> tuple[Code, str, str]:
    with pytest.raises(CommandError) as caught:
        run()
    return caught.value.code, caught.value.migration, caught.value.message


def test_edited_file_is_12_and_named(write: Write, run: Run) -> None:
    run()
    write(_0001_first=FIRST + "-- a little more\n")
    code, migration, message = _refused(run)
    assert (code, migration) == (Code.CHECKSUM_MISMATCH, "things/0001_first.sql")
    assert "things/0001_first.sql differs from what was applied here" in message


def test_renamed_file_is_12(write: Write, run: Run, folder: Path) -> None:
    run()
    write(_0002_another=SECOND)
    (folder / "things" / "0002_second.sql").unlink()
    assert _refused(run)[:2] == (Code.CHECKSUM_MISMATCH, "things/0002_another.sql")


def test_file_taken_away_is_12(write: Write, run: Run, folder: Path) -> None:
    write(_0003_third=SECOND)
    run()
    (folder / "things" / "0002_second.sql").unlink()
    code, migration, message = _refused(run)
    assert (code, migration) == (Code.CHECKSUM_MISMATCH, "things/0002_second.sql")
    assert "is missing from this image" in message


def test_file_put_in_between_is_12(write: Write, run: Run) -> None:
    write(_0004_fourth=SECOND)
    run()
    write(_0003_late=SECOND)
    code, migration, message = _refused(run)
    assert (code, migration) == (Code.CHECKSUM_MISMATCH, "things/0003_late.sql")
    assert "give it the next free number" in message


def test_home_of_a_newer_image_is_16(write: Write, run: Run, folder: Path) -> None:
    write(_0003_newer=SECOND)
    run()
    (folder / "things" / "0003_newer.sql").unlink()
    code, migration, message = _refused(run)
    assert (code, migration) == (Code.MODULE_UNSUPPORTED, "things/0003_newer.sql")
    assert "use the newer migrations image" in message


def test_failing_file_leaves_nothing_and_those_before_stay(write: Write, run: Run, database: Database) -> None:
    write(_0003_broken="INSERT INTO @{schema}.things (a) VALUES (7); SELECT 1/0;")
    code, migration, message = _refused(run)
    assert (code, migration) == (Code.JOB_FAILED, "things/0003_broken.sql")
    assert message == "migration things/0003_broken.sql: division by zero"
    with database.connect() as connection:
        assert _value(connection, "SELECT count(*) FROM home.things WHERE a = 7") == 0
        assert _value(connection, "SELECT max(version) FROM home.memory_migrations") == "0002"


def test_row_in_the_way_is_not_quoted(write: Write, run: Run) -> None:
    insert = "INSERT INTO @{schema}.things (c) VALUES ('%s %(x)s')"
    write(_0003_unique=f"ALTER TABLE @{{schema}}.things ADD UNIQUE (c); {insert}")
    message = _refused(run)[2]
    assert "duplicate key" in message
    assert "%(x)s" not in message


def test_index_is_built_concurrently(write: Write, run: Run, database: Database) -> None:
    write(_0003_index=ALONE)
    assert run()[-1] == "things/0003_index.sql"
    assert run() == []
    with database.connect() as connection:
        assert _value(connection, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'home.things_a_idx'::regclass")


def test_invalid_left_over_is_dropped_first(write: Write, run: Run, database: Database) -> None:
    run()
    write(_0003_index=ALONE)
    with database.connect() as connection:
        connection.execute("INSERT INTO home.things (a) SELECT 1 FROM generate_series(1, 10)")
        with pytest.raises(psycopg.errors.UniqueViolation):  # the way to an invalid index that needs no timing
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY things_a_idx ON home.things (a)")
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'home.things_a_idx'::regclass"
        assert _value(connection, valid) is False
        run()
        assert _value(connection, valid) is True
        assert _value(connection, valid.replace("indisvalid", "indisunique")) is False


def test_index_that_was_built_but_not_noted(write: Write, run: Run, database: Database) -> None:
    write(_0003_index=ALONE)
    run()
    with database.connect() as connection:
        connection.execute("DELETE FROM home.memory_migrations WHERE version = '0003'")
    assert run() == ["things/0003_index.sql"]


def test_busy_lock_is_waited_for(write: Write, run: Run, database: Database) -> None:
    run()
    write(_0003_alter="SET LOCAL lock_timeout = '50ms'; ALTER TABLE @{schema}.things ADD COLUMN d int;")
    holder = database.connect()
    holder.execute("BEGIN; LOCK TABLE home.things")
    timer = threading.Timer(0.4, holder.close)
    timer.start()
    assert run() == ["things/0003_alter.sql"]
    timer.join()


def test_lock_that_stays_busy_is_31(write: Write, run: Run, database: Database) -> None:
    run()
    write(_0003_alter="SET LOCAL lock_timeout = '20ms'; ALTER TABLE @{schema}.things ADD COLUMN d int;")
    with database.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE home.things")
        with pytest.raises(CommandError) as caught:
            run(seconds=0.3)
    assert caught.value.code is Code.LOCK_BUSY
    assert caught.value.migration == "things/0003_alter.sql"


def test_placeholder_that_nobody_fills(write: Write, run: Run) -> None:
    write(_0003_typo="SELECT @{shcema}")
    with pytest.raises(ValueError, match=r"things/0003_typo.sql has placeholders that nobody fills: shcema"):
        run()


@pytest.mark.parametrize("name", ["third", "03_third", "0003-third", "0002_twice"])
def test_file_name_is_a_number_of_its_own_and_words(write: Write, folder: Path, name: str) -> None:
    write(**{name: SECOND})
    with pytest.raises(ValueError, match=r"name it NNNN_<name>\.sql"):
        sqlfile.read("things", folder)


def test_files_of_this_image_render(folder: Path) -> None:
    assert sqlfile.modules() == ("core", "embeddings")
    for module in sqlfile.modules():
        files = sqlfile.read(module)
        assert [file.version for file in files] == [f"{number:04}" for number in range(1, len(files) + 1)]
    assert sqlfile.modules(folder) == ("things",)
