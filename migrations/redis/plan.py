"""`plan` on Redis: what `provision` would do, foretold by reading alone."""

from dataclasses import dataclass, field
from typing import Literal

from migrations.errors import Code, CommandError
from migrations.homes import entry as entries
from migrations.redis import logins, meta, server
from migrations.redis.connection import Admin, ConnectionLostError, ended, explaining
from migrations.redis.ledger import Ledger
from migrations.redis.names import home_of
from migrations.redis.provision import check, judge, modules_of
from migrations.redis.request import ProvisionRequest
from migrations.redis.server import Server


@dataclass(frozen=True)
class Refusal:
    """Why `provision` would not go on: exit code, reason, sentence."""

    code: int
    reason: str
    message: str
    migration: str = ""


@dataclass
class Plan:
    """What `provision` would do.

    Attributes:
        home: Whether it is made, ours, taken over from an earlier claim, or cannot be ours.
        migrations: Modules that the home would get.
        changes: A sentence for each other thing that would change; nothing after a refusal.
        refused: Why it would end early.
    """

    home: Literal["new", "ours", "adopt", "refused"] = "refused"
    migrations: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    refused: Refusal | None = None

    @property
    def message(self) -> str:
        """The plan in a sentence."""
        if self.refused:
            return f"provision would be refused ({self.refused.reason}): {self.refused.message}"
        count = len(self.migrations) + len(self.changes)
        return f"provision would change {count} thing{'' if count == 1 else 's'}" if count else "nothing would change"


def plan(request: ProvisionRequest, admin: Admin) -> Plan:
    """Foretells what `provision` would do with this request, as the server is now.

    Raises:
        CommandError: Nothing could be looked at: the request is wrong, or the server does not answer or let us in.
    """
    made = Plan()
    try:
        check(request)
        with server.connected(admin) as found, explaining():
            _look(request, found, made)
    except ConnectionLostError as error:
        raise ended(error) from None
    except CommandError as error:
        if error.code in {Code.UNREACHABLE, Code.BAD_REQUEST}:
            raise
        made.refused = Refusal(int(error.code), error.code.reason, error.message)
    return made


def _look(request: ProvisionRequest, server: Server, made: Plan) -> None:
    home = home_of(request)
    server.check()
    meta.check_supported(server, request.embeddings)
    ledger = Ledger(server, request.provider.key_prefix)
    claimed, vectors = judge(request, server, home, ledger.get(entries.key_of(request.identity)))
    before = claimed.before
    made.home = "adopt" if claimed.adopted else "ours" if before else "new"
    if before is None:
        made.migrations = [f"{module['name']}/{module['version']}" for module in modules_of(request)]
    entry = claimed.entry.but(logins=logins.verifiers_after(request, claimed.entry.logins))
    skip = logins.untouched(request, claimed.entry.logins)
    wanted, there = meta.wanted(entry, vectors), meta.read(server, home)
    made.changes += [
        f'{home.meta}: {name} "{there.get(name, "")}" becomes "{wanted[name]}"'
        for name in wanted
        if wanted[name] != there.get(name)
    ]
    made.changes += logins.of_server(server, entry, home, skip)
    if claimed.adopted:
        made.changes.append("sessions of the earlier claim end")
    if before and before.closed_at:
        made.changes.append("the home, which the reaper closed, opens again")
