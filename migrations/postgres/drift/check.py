"""What is not as this version makes it, found without changing anything; and, when it is wanted, put back."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psycopg
from psycopg import sql

from migrations import log
from migrations.errors import Code, CommandError
from migrations.postgres import policies, runner, sqlfile
from migrations.postgres.connection import words
from migrations.postgres.drift import catalog, expected, mending, surroundings
from migrations.postgres.drift.comparison import Comparison, Schema
from migrations.postgres.drift.differences import GIVEN, OWNERS, Difference, Files
from migrations.postgres.drift.expected import Wanted
from migrations.postgres.drift.mending import Fix, NotMendedError
from migrations.postgres.drift.rights import Rights
from migrations.postgres.drift.surroundings import Surroundings
from migrations.postgres.grants import READ_MARK
from migrations.postgres.maintenance.places import Work
from migrations.postgres.managed import present
from migrations.postgres.runner import Applied
from migrations.postgres.sqlfile import File
from migrations.postgres.values import Values
from migrations.request import Embeddings

# What is put back may show what stood in its way until then: a function its rights, a column its index.
ROUNDS = 4


def find(work: Work, folder: Path = sqlfile.FOLDER) -> list[Difference]:
    """Gives all differences of a place, sorted by their sentences; it changes nothing.

    Args:
        work: The place.
        folder: The migration files.

    Raises:
        psycopg.Error: The server refused, or the connection broke.
    """
    found = surroundings.read(work)
    differences = [difference for home in work.place.homes for difference in surroundings.of_roles(work, home)]
    if work.place.isolation == "Database":
        differences += surroundings.of_database(work, work.place.homes[0])
    if not found.exists:
        differences.append(Difference(f"schema {work.place.schema} is missing: restore it from a backup"))
    elif found.may_act and (work.place.isolation != "Database" or found.database_owner == work.place.owner):
        # Who owns a database of the Memory's own comes first: nothing can be tried out in another's.
        homes = tuple(home for home in work.place.homes if surroundings.has_groups(work, home))
        if homes:
            differences += _in_the_schema(replace(work, place=replace(work.place, homes=homes)), found, folder)
    return sorted(set(differences), key=lambda difference: (str(difference), difference.home))


def _in_the_schema(work: Work, found: Surroundings, folder: Path) -> Iterator[Difference]:
    try:
        applied = _history(work)
    except psycopg.errors.InsufficientPrivilege:
        # The rest is found as soon as the owner may look.
        yield from surroundings.of_history(work)
        return
    if applied is None:
        yield Difference("table memory_migrations is missing: restore it from a backup")
        return
    files = {module: sqlfile.read(module, folder) for module in sqlfile.modules(folder)}
    mismatches = list(_mismatches(applied, files))
    if any(row.module == "embeddings" for row in applied):
        yield from surroundings.of_extension(work, found)
    if mismatches:
        # What the schema should be is not known then.
        yield from mismatches
        return
    yield from _compare(work, found, applied, [file for module in files.values() for file in module])
    if work.place.isolation == "Dataset":
        yield from _policies(work)


def _history(work: Work) -> list[Applied] | None:
    query = sql.SQL("SELECT module, version, name, sha256 FROM {} ORDER BY module <> 'core', module, version")
    try:
        with work.as_owner() as connection:
            rows = connection.execute(query.format(work.table("memory_migrations"))).fetchall()
    except psycopg.errors.UndefinedTable:
        return None
    return [Applied(*row) for row in rows]


def _mismatches(applied: Sequence[Applied], files: dict[str, list[File]]) -> Iterator[Difference]:
    """Gives what of the history does not belong to this image's files; files that are still to come are no drift."""
    for module in dict.fromkeys(row.module for row in applied):
        try:
            runner.pending(files.get(module, []), [row for row in applied if row.module == module])
        except CommandError as error:
            yield Difference(error.message)


def _compare(
    work: Work, found: Surroundings, applied: Sequence[Applied], files: Sequence[File]
) -> Iterator[Difference]:
    place = work.place
    titles = {row.title for row in applied}
    # Without pgvector nothing can be made that needs it.
    unknown = [] if found.vector_usable else [file for file in files if file.module == "embeddings"]
    by_title = {file.title: file for file in files}
    known = tuple(by_title[row.title] for row in applied if by_title[row.title] not in unknown)
    values = Values(
        schema=place.schema,
        dataset=place.homes[0].dataset,
        search_config=place.homes[0].search_config,
        names=present(work.connection, place.homes[0].names),
        ttl_days=0,
        legal_hold=False,
        embeddings=_embeddings(work, found) if any(file.module == "embeddings" for file in known) else None,
        extension_schema=found.vector_schema,
    )
    wanted = Wanted(
        values, known, found.number, shared=place.isolation == "Dataset", by_owner=place.isolation == "Database"
    )
    comparison = Comparison(
        place=place,
        wanted=Schema.of(expected.read(work.connection, wanted, found.quoted)),
        actual=Schema.of(catalog.read(work.connection, place.schema, place.owner, READ_MARK)),
        rights=Rights.of(place, managed=surroundings.is_managed(work)),
        files=Files([file for file in files if file.title not in titles], unknown),
    )
    yield from comparison.differences()


def _embeddings(work: Work, found: Surroundings) -> Embeddings:
    """Gives what the vectors should look like; where the claim has none any more, as its registry has it."""
    wanted = work.place.embeddings
    if wanted.enabled:
        return wanted
    query = sql.SQL("SELECT embedding_dimension, metric FROM {} WHERE dataset = %s")
    with work.as_owner() as connection:
        registry = work.table("memory_datasets")
        row = connection.execute(query.format(registry), [work.place.homes[0].dataset]).fetchone()
    if row is None or row[0] is None:
        return wanted
    storage = "half" if found.vector_type == "halfvec" else "full"
    return wanted.model_copy(update={"dimension": row[0], "metric": row[1], "storage": storage})


def _policies(work: Work) -> Iterator[Difference]:
    """Compares the row-level security of a shared schema, which is read once for all its Memories."""
    tables = policies.tables(work.connection, work.place.schema, work.place.owner)
    homes = {home.key: home for home in work.place.homes}
    memories = {key: (home.names, home.dataset) for key, home in homes.items()}
    for key, sentence in policies.differences_of(tables, memories):
        home = homes.get(key, work.place.homes[0])
        yield Difference(sentence, key, (Fix(GIVEN, mending.guard, (home,)),))


def repair(work: Work, differences: Iterable[Difference], folder: Path = sqlfile.FOLDER) -> list[Difference]:
    """Puts back what can be put back without losing a value, and gives what is left, each with why.

    Args:
        work: The place.
        differences: What `find` gave.
        folder: The migration files.
    """
    left = list(differences)
    refused: dict[Fix, str] = {}
    for _ in range(ROUNDS):
        fixes = dict.fromkeys(fix for difference in left for fix in difference.fixes if fix not in refused)
        if not fixes:
            break
        for fix in sorted(fixes, key=lambda fix: fix.order):
            why = _apply(work, fix)
            if why:
                refused[fix] = why
            elif fix.order == OWNERS:
                refused.clear()  # what was refused may be allowed now
        left = find(work, folder)
    return [_explained(difference, refused) for difference in left]


def _apply(work: Work, fix: Fix) -> str:
    """Gives why a fix could not be applied, "" when it was."""
    try:
        fix.apply(work)
    except NotMendedError as error:
        return str(error)
    except CommandError as error:
        log.write("a difference stays", sqlstate=error.sqlstate, way=fix.way.__name__)
        return "it is locked, the next run tries again" if error.code is Code.LOCK_BUSY else error.message
    except psycopg.Error as error:
        # Before the change began: the session could not become the owner.
        if work.connection.broken:
            raise
        return words(error)
    return ""


def _explained(difference: Difference, refused: dict[Fix, str]) -> Difference:
    why = next((refused[fix] for fix in difference.fixes if fix in refused), "")
    return replace(difference, why=why) if why else difference
