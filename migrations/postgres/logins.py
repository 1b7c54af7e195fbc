"""The four login slots: verifier, settings, and an end to sessions that may not go on."""

import hashlib
from collections.abc import Iterator, Mapping

from psycopg import sql

from migrations.postgres.connection import Connection
from migrations.postgres.request import Login, ProvisionRequest
from migrations.postgres.server import Facts

IDLE_IN_TRANSACTION = "60s"


def apply(connection: Connection, request: ProvisionRequest, facts: Facts, *, adopted: bool) -> None:
    """Makes each login what its state says, in the one transaction that it runs in, as the admin.

    A draining login keeps its password and its sessions, unless the home was adopted: then both are another claim's.
    The server receives verifiers only, so its statement log shows no password.
    """
    statements = [
        statement for login in request.logins for statement in _statements(request, login, facts, adopted=adopted)
    ]
    if facts.vector:
        # Loads the library into this session: without it hnsw.* are settings that nobody knows, and only a superuser
        # may set those ("permission denied to set parameter").
        load = sql.SQL("SELECT '[1]'::{}.vector").format(sql.Identifier(facts.vector_schema))
        statements.insert(0, load)
    connection.execute(sql.SQL(";\n").join(statements))


def _statements(request: ProvisionRequest, login: Login, facts: Facts, *, adopted: bool) -> Iterator[sql.Composable]:
    role = sql.Identifier(login.name)
    if login.state == "closed" or (adopted and login.state == "draining"):
        yield sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(role)
        return
    if login.verifier:
        yield sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(login.verifier.get_secret_value()))
    limit = request.provider.connection_limit
    yield sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(role, sql.Literal(-1 if limit is None else limit))
    # All, because RESET of one hnsw.* setting is refused where the library is not there.
    yield sql.SQL("ALTER ROLE {} RESET ALL").format(role)
    for name, value in settings(request, facts):
        yield sql.SQL("ALTER ROLE {} SET {} = {}").format(role, name, value)


def settings(request: ProvisionRequest, facts: Facts) -> Iterator[tuple[sql.Composable, sql.Composable]]:
    """Gives what a login's sessions begin with: names and values as SET takes them."""
    path = [request.dataset.home, facts.vector_schema] if facts.vector_schema else [request.dataset.home]
    yield sql.Identifier("search_path"), sql.SQL(", ").join(map(sql.Identifier, path))
    values = {
        "statement_timeout": request.provider.statement_timeout,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION,
        "hnsw.iterative_scan": "relaxed_order" if facts.vector else None,
    }
    for name, value in values.items():
        if value is not None:
            yield sql.SQL(".").join(map(sql.Identifier, name.split("."))), sql.Literal(value)


def digests(request: ProvisionRequest, noted: Mapping[str, str]) -> dict[str, str]:
    """Gives what the ledger is to note of each login: a digest of its verifier.

    Args:
        request: Says what the logins are now.
        noted: What the ledger noted before; a request has the verifiers of active logins only.
    """
    found = {login.name: _digest(login) or noted.get(login.name, "") for login in request.logins}
    return {name: found[name] for name in sorted(found) if found[name]}


def end_sessions(connection: Connection, request: ProvisionRequest, noted: Mapping[str, str], *, adopted: bool) -> None:
    """Ends the sessions of closed logins and of those whose password is another than the ledger noted.

    All of them when the home was adopted, for they were another claim's. Runs after `apply` is committed: a login that
    is not closed yet could come back at once. The ledger notes the new passwords only at the end, so a run that was
    killed in between is made up for.
    """
    ended = [login.name for login in request.logins if adopted or login.state == "closed" or _rekeyed(login, noted)]
    connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY(%s)", [ended])


def _rekeyed(login: Login, noted: Mapping[str, str]) -> bool:
    # Nothing is noted of a home that is new, or from before there were notes: nobody has another password then.
    return login.state == "active" and bool(noted) and noted.get(login.name) != _digest(login)


def _digest(login: Login) -> str:
    return hashlib.sha256(login.verifier.get_secret_value().encode()).hexdigest() if login.verifier else ""
