"""What things are called on a Redis server: keys of a Memory, its logins, and where the ledger is."""

import re
from dataclasses import dataclass

from migrations.errors import Code, CommandError
from migrations.redis.request import ProvisionRequest

_ID = re.compile(r":\{[a-z0-9_.-]{1,63}\.([0-9a-f]{12})\}:$")
_LOGIN = re.compile(r"mem_([0-9a-f]{12})_(rw|ro)_(a|b)")


@dataclass(frozen=True)
class Home:
    """The keys under one prefix, `<keyPrefix>:{<dataset>.<id12>}:`: all of them are in one slot of a cluster."""

    prefix: str

    @property
    def id12(self) -> str:
        """The part of the prefix that no other identity has.

        Raises:
            CommandError: BAD_REQUEST when there is none.
        """
        found = _ID.search(self.prefix)
        if not found:
            msg = f'"{self.prefix}" is no prefix of a Memory: it ends with {{<dataset>.<12 hexadecimal digits>}}:'
            raise CommandError(Code.BAD_REQUEST, msg)
        return found[1]

    @property
    def meta(self) -> str:
        """Hash: what apps may know of their Memory, and only read."""
        return f"{self.prefix}meta"

    @property
    def events(self) -> str:
        """Stream."""
        return f"{self.prefix}events"

    @property
    def event_ids(self) -> str:
        """What the strings begin with that know an event by its sender's id."""
        return f"{self.prefix}event-id:"

    @property
    def kv(self) -> str:
        """What the hashes of key-value entries begin with."""
        return f"{self.prefix}kv:"

    @property
    def kv_times(self) -> str:
        """Sorted set: when each key-value entry was written."""
        return f"{self.prefix}kv-times"

    @property
    def vectors(self) -> str:
        """Vector set."""
        return f"{self.prefix}vectors"

    @property
    def vector_times(self) -> str:
        """Sorted set: when each element of the vector set was written."""
        return f"{self.prefix}vector-times"

    def vector_keys(self, key: str) -> str:
        """Set: the chunks of a key."""
        return f"{self.prefix}vector-keys:{key}"

    @property
    def logins(self) -> list[str]:
        """Every login that this Memory can have."""
        return [f"mem_{self.id12}_{role}_{slot}" for role in ("rw", "ro") for slot in ("a", "b")]


def home_of(request: ProvisionRequest) -> Home:
    """Gives a request's home.

    Raises:
        CommandError: BAD_REQUEST when prefix, logins and provider do not belong together.
    """
    home = Home(request.prefix)
    if not request.prefix.startswith(f"{request.provider.key_prefix}:{{{request.dataset.name}."):
        msg = (
            f'bad request document: prefix: "{request.prefix}" is not of dataset "{request.dataset.name}" under '
            f'keyPrefix "{request.provider.key_prefix}"'
        )
        raise CommandError(Code.BAD_REQUEST, msg)
    for number, login in enumerate(request.logins):
        expected = f"mem_{home.id12}_{'rw' if login.role == 'writer' else 'ro'}_{login.slot}"
        if login.name != expected:
            msg = f'bad request document: logins[{number}].name: write "{expected}" (it is "{login.name}")'
            raise CommandError(Code.BAD_REQUEST, msg)
    return home


def writes(login: str) -> bool:
    """Whether a login is one of a writer."""
    found = _LOGIN.fullmatch(login)
    return bool(found and found[2] == "rw")


def ledger_of(key_prefix: str) -> str:
    """Names the hash with an entry for each home; no app's patterns match it."""
    return f"{key_prefix}-ledger:{{homes}}"


def lock_of(key_prefix: str, key: str) -> str:
    """Names the lock of one home; it is in the ledger's slot, so that both change in one transaction."""
    return f"{ledger_of(key_prefix)}:lock:{key}"
