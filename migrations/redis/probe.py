"""`probe` on Redis: one look at the server, as the admin."""

from migrations.errors import CommandError
from migrations.redis import server
from migrations.redis.connection import Admin, ConnectionLostError, ended, explaining


def probe(admin: Admin) -> tuple[dict[str, object], list[str], CommandError | None]:
    """Asks the server what it is and lets us do.

    Returns:
        What was found, as far as one came, what the platform team should know, and what stands in the way of Memories.
    """
    described: dict[str, object] = {"version": "", "capabilities": []}
    warnings: list[str] = []
    try:
        with server.connected(admin) as found, explaining():
            described, warnings = found.described(), found.warnings()
            found.check()
    except (CommandError, ConnectionLostError) as error:
        return described, warnings, ended(error)
    return described, warnings, None
