"""`probe` on PostgreSQL: one look at the server, as the admin."""

import psycopg

from migrations.errors import CommandError, code_of
from migrations.postgres import server
from migrations.postgres.connection import ASKED, Admin, Connection, words
from migrations.postgres.request import ProbeRequest
from migrations.postgres.server import Facts

TEMPLATE = "template1"


def probe(request: ProbeRequest, admin: Admin) -> tuple[Facts | None, CommandError | None]:
    """Asks the server what it is and lets us do.

    Returns:
        What was found, as far as one came, and what stands in the way of Memories.
    """
    facts = None
    try:
        with admin.connect() as connection:
            facts = server.read(connection)
            server.check_admin(admin, facts)
            if request.provider.enable_pg_vector and request.provider.isolation != "Database":
                _check_vector(connection, admin, facts)
        if request.provider.enable_pg_vector and request.provider.isolation == "Database":
            # Where the Memories' databases come from. Only for a moment: while we are here nobody can make one.
            with admin.connect(TEMPLATE) as connection:
                _check_vector(connection, admin, server.read(connection))
    except CommandError as error:
        return facts, error
    except psycopg.Error as error:
        return facts, CommandError(code_of(error.sqlstate or ""), words(error), sqlstate=error.sqlstate or "")
    return facts, None


def _check_vector(connection: Connection, admin: Admin, facts: Facts) -> None:
    usable = facts if facts.vector else server.create_vector(connection, admin, keep=False)
    server.check_vector(admin, usable)


def knock(admin: Admin) -> CommandError | None:
    """Asks the server for its name and no more: it is there when it wants a password.

    libpq hangs up then, which leaves no word in the server's log.

    Returns:
        What stands in the way, None when it answers.
    """
    try:
        # Never further than that: a server that asks for no password is not let off by require_auth.
        admin.connect().close()
    except CommandError as error:
        if error.message != ASKED:
            return error
    return None
