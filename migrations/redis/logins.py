"""Logins: ACL users on every node, for ACLs are not replicated, and where a restart finds them again."""

from collections.abc import Iterable, Mapping

import redis

from migrations.errors import Code, CommandError
from migrations.homes.entry import Entry
from migrations.redis import acl
from migrations.redis.acl import CLOSED, Rights
from migrations.redis.connection import explained
from migrations.redis.names import Home, writes
from migrations.redis.request import ProvisionRequest
from migrations.redis.server import Node, Server


def verifiers_after(request: ProvisionRequest, before: Mapping[str, str]) -> dict[str, str]:
    """Gives what each open login's password is once a request is done, by name; a draining one keeps what it has."""
    found = {}
    for login in request.logins:
        if login.verifier:
            found[login.name] = login.verifier.get_secret_value()
        elif login.state == "draining" and login.name in before:
            found[login.name] = before[login.name]
    return found


def untouched(request: ProvisionRequest, before: Mapping[str, str]) -> set[str]:
    """Names draining logins of which the ledger knows nothing: nobody can say what they should be."""
    return {login.name for login in request.logins if login.state == "draining" and login.name not in before}


def wanted(node: Node, entry: Entry, home: Home, skip: Iterable[str] = ()) -> dict[str, Rights]:
    """Gives what each login of a home is to be on a node, as its entry says.

    On hold nobody may write, and where the reaper closed the home nobody comes in.
    """
    found = {}
    for login in home.logins:
        if login in skip:
            continue
        verifier = None if entry.closed_at else entry.logins.get(login)
        writer = writes(login) and not entry.legal_hold
        found[login] = acl.rights(home, verifier, node.known, writer=writer) if verifier else CLOSED
    return found


def read(node: Node, logins: Iterable[str]) -> dict[str, Rights | None]:
    """Reads logins, all in one round trip."""
    names = list(logins)
    answers = node.all([["ACL", "GETUSER", name] for name in names])
    return {name: acl.parse(answer, node.category) for name, answer in zip(names, answers, strict=True)}


def differences(node: Node, home: Home, wanted: Mapping[str, Rights]) -> dict[str, str]:
    """Says of each login that is not as it should be on a node what differs."""
    return acl.differences(home, wanted, read(node, wanted))


def check_free(server: Server, home: Home) -> None:
    """Refuses a home whose logins are another one's.

    Raises:
        CommandError: SCHEMA_CONFLICT.
    """
    for node in server.nodes:
        for login, found in read(node, home.logins).items():
            owner = acl.owner_of(found)
            if owner not in {"", home.prefix}:
                msg = (
                    f'login {login} on {node.name} is that of the home "{owner}": a claim of this name has it through '
                    "another provider with the same logical database; give the claim another name, or one of the "
                    "providers another redis.database"
                )
                raise CommandError(Code.SCHEMA_CONFLICT, msg)


def apply(node: Node, wanted: Mapping[str, Rights], differing: Iterable[str]) -> None:
    """Makes logins what they should be; what a closed one was doing ends."""
    for login in differing:
        node.call("ACL", "SETUSER", login, *wanted[login].rules())
        if not wanted[login].enabled:
            end_sessions(node, [login])


def end_sessions(node: Node, logins: Iterable[str]) -> None:
    """Ends what logins are doing."""
    for answer in node.each([["CLIENT", "KILL", "USER", login] for login in logins]):
        # A user that is not there has no sessions: they end with it.
        if isinstance(answer, redis.RedisError) and "No such user" not in str(answer):
            raise answer


def own(node: Node, home: Home) -> list[str]:
    """Names the logins of a home that are not another one's by now."""
    return [login for login, found in read(node, home.logins).items() if acl.owner_of(found) in {"", home.prefix}]


def remove(node: Node, home: Home) -> None:
    """Removes a home's users, and with them their sessions."""
    if logins := own(node, home):
        node.call("ACL", "DELUSER", *logins)


def persist(node: Node) -> str:
    """Writes the users where a restart finds them.

    Returns:
        Why that was not possible, "" when it was; a server that keeps them nowhere has been told of already.
    """
    if not node.keeps:
        return ""
    command = ("ACL", "SAVE") if node.keeps == "acl-file" else ("CONFIG", "REWRITE")
    try:
        node.call(*command)
    except redis.ResponseError as error:
        return (
            f"{node.name} cannot write its users ({' '.join(command)}: {explained(error)}): a restart loses them, and "
            "maintenance puts them back"
        )
    return ""


def ended(request: ProvisionRequest, before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Names the logins whose sessions have to end: whose password is another one, and all that are closed."""
    changed = [name for name in before if before[name] != after.get(name)]
    closed = [login.name for login in request.logins if login.state == "closed"]
    return sorted({*changed, *closed})


def of_server(server: Server, entry: Entry, home: Home, skip: Iterable[str] = ()) -> list[str]:
    """Says what differs on all nodes, a sentence for each login of a node."""
    told = []
    for node in server.nodes:
        found = differences(node, home, wanted(node, entry, home, skip))
        told += [f"login {login} {words} on {node.name}" for login, words in found.items()]
    return sorted(told)
