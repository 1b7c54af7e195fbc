"""A home changes hands: the platform team gives that of one identity to another (`adoptions` of the provider).

Done before the run looks whose home it is: afterwards it is ours, as if it had always been. The earlier Memory's roles
are closed first and gone in the end, so nobody has two masters; killed at any point, the next run goes on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
from psycopg import sql

from migrations import log
from migrations.deadline import Deadline
from migrations.postgres import drop, ledger, roles
from migrations.postgres.connection import Admin, Connection, retrying, words
from migrations.postgres.names import Names, names_for
from migrations.postgres.request import ProvisionRequest


def take(connection: Connection, admin: Admin, request: ProvisionRequest, names: Names, deadline: Deadline) -> bool:
    """Takes the home over when the provider says so and it is still the giver's.

    Args:
        connection: To the provider's database, as the admin, with the home's lock held.
        admin: Who that is.
        request: Whose `adoption` names the giver.
        names: The taker's.
        deadline: Of the run.

    Returns:
        Whether the home has changed hands in this run.

    Raises:
        CommandError: SCHEMA_CONFLICT when it cannot be handed over; nothing is changed then.
    """
    giver = request.adoption.giver
    if giver is None or giver == request.identity or not ledger.exists(connection):
        return False
    ledger.extend(connection)
    with connection.transaction():
        waiting = due(connection, request, ledger.HOMES)
    if waiting is None:
        return False
    theirs, found = waiting
    log.step("hand-over:close")
    home = drop.Home(request.home, giver, request.provider.isolation, request.dataset.home, request.dataset.name)
    drop.close_logins(connection, home, deadline)
    log.step("hand-over:move")
    if request.provider.isolation == "Dataset":
        drop.withdraw(connection, admin, home, deadline)
        retrying(connection, deadline, partial(ledger.hand_over, connection, request))
    else:
        retrying(connection, deadline, partial(_transfer, connection, request, names, theirs, standing=found.exists))
    return True


def due(connection: Connection, request: ProvisionRequest, homes: sql.Composable) -> tuple[Names, ledger.Found] | None:
    """Gives the giver's names and what stands there when `take` has something to take, None when it has not.

    Args:
        connection: As of `take`, in a transaction; nothing is written.
        request: Whose `adoption` names the giver.
        homes: The ledger, as `ledger.extended` gives it.

    Raises:
        CommandError: SCHEMA_CONFLICT when it cannot be handed over.
    """
    giver = request.adoption.giver
    if giver is None or giver == request.identity:
        return None
    theirs = names_for(giver, request.provider.database, request.dataset.home, request.provider.isolation)
    found = ledger.find(connection, request, theirs, homes)
    if found.by_home is None or found.by_home.identity != giver:
        return None
    ledger.judge_handover(found, request, theirs)
    return theirs, found


def _transfer(
    connection: Connection, request: ProvisionRequest, names: Names, theirs: Names, *, standing: bool
) -> None:
    """Makes everything the taker's, drops the giver's roles, and says so in the ledger: all or nothing."""
    roles.ensure(connection, names)
    there = roles.existing(connection, theirs).roles
    earlier = [role for role in reversed(theirs.roles) if role in there]
    with _having(connection, [*earlier, names.owner]):
        if standing:
            schema, owner = sql.Identifier(request.dataset.home), sql.Identifier(names.owner)
            # First: who gets a function must be able to create in its schema.
            connection.execute(sql.SQL("ALTER SCHEMA {} OWNER TO {}").format(schema, owner))
            stamp = sql.SQL("COMMENT ON SCHEMA {} IS {}").format(schema, sql.Literal(names.stamp))
            connection.execute(stamp)
        if earlier:
            listed = sql.SQL(", ").join(map(sql.Identifier, earlier))
            # What owns nothing any more loses its rights by DROP OWNED, and default rights with them.
            connection.execute(
                sql.SQL("REASSIGN OWNED BY {earlier} TO {owner}; DROP OWNED BY {earlier}").format(
                    earlier=listed, owner=sql.Identifier(names.owner)
                )
            )
    for role in earlier:
        _drop(connection, role)
    ledger.hand_over(connection, request)


@contextmanager
def _having(connection: Connection, of: list[str]) -> Iterator[None]:
    """Gives the admin the rights of some roles for a moment, within the transaction that it runs in."""
    listed = sql.SQL(", ").join(map(sql.Identifier, of))
    statement = "GRANT {} TO CURRENT_USER WITH INHERIT {}"
    connection.execute(sql.SQL(statement).format(listed, sql.SQL("TRUE")))
    yield
    connection.execute(sql.SQL(statement).format(listed, sql.SQL("FALSE")))


def _drop(connection: Connection, role: str) -> None:
    """Drops a role, or leaves it without any right here when somebody gave it something in another database."""
    try:
        with connection.transaction():
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    except psycopg.errors.DependentObjectsStillExist as error:
        log.write("a role of the earlier Memory is left: it cannot log in", role=role, why=words(error))
