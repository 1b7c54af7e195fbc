"""The four login slots: verifier, settings, and an end to sessions that may not go on."""

from collections.abc import Iterator

from psycopg import sql

from migrations.postgres.connection import Connection
from migrations.postgres.server import Facts
from migrations.request import Login, ProvisionRequest

IDLE_IN_TRANSACTION = "60s"


def apply(connection: Connection, request: ProvisionRequest, facts: Facts) -> None:
    """Makes each login what its state says, in the one transaction that it runs in, as the admin.

    The server receives verifiers only, so its statement log shows no password.
    """
    statements = [statement for login in request.logins for statement in _statements(request, login, facts)]
    if facts.vector:
        # Loads the library into this session: without it hnsw.* are settings that nobody knows, and only a superuser
        # may set those ("permission denied to set parameter").
        load = sql.SQL("SELECT '[1]'::{}.vector").format(sql.Identifier(facts.vector_schema))
        statements.insert(0, load)
    connection.execute(sql.SQL(";\n").join(statements))


def _statements(request: ProvisionRequest, login: Login, facts: Facts) -> Iterator[sql.Composable]:
    role = sql.Identifier(login.name)
    if login.state == "closed":
        yield sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(role)
        return
    if login.verifier:
        limit = request.provider.connection_limit
        yield sql.SQL("ALTER ROLE {} LOGIN CONNECTION LIMIT {} PASSWORD {}").format(
            role, sql.Literal(-1 if limit is None else limit), sql.Literal(login.verifier.get_secret_value())
        )
    # All, because RESET of one hnsw.* setting is refused where the library is not there.
    yield sql.SQL("ALTER ROLE {} RESET ALL").format(role)
    path = [request.dataset.home, facts.vector_schema] if facts.vector_schema else [request.dataset.home]
    yield sql.SQL("ALTER ROLE {} SET search_path = {}").format(role, sql.SQL(", ").join(map(sql.Identifier, path)))
    settings = {
        "statement_timeout": request.provider.statement_timeout,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION,
        "hnsw.iterative_scan": "relaxed_order" if facts.vector else None,
    }
    for name, value in settings.items():
        if value is not None:
            setting = sql.SQL(".").join(map(sql.Identifier, name.split(".")))
            yield sql.SQL("ALTER ROLE {} SET {} = {}").format(role, setting, sql.Literal(value))


def end_sessions(connection: Connection, request: ProvisionRequest, *, everybody: bool) -> None:
    """Ends the sessions of closed logins; of all of them when the home was adopted, for they were another claim's.

    Runs after `apply` is committed: a login that is not closed yet could come back at once.
    """
    ended = [login.name for login in request.logins if everybody or login.state == "closed"]
    connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY(%s)", [ended])
