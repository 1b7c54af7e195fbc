"""Names inside the backend: they carry a hash and no tenant's name, because every login can read them."""

import hashlib
from dataclasses import dataclass

from migrations.errors import Code, CommandError
from migrations.request import ProvisionRequest

GROUPS = {"writer": "rw", "reader": "ro"}


@dataclass(frozen=True)
class Names:
    """The roles of one Memory in one database, and the stamps that its roles and its home carry."""

    owner: str
    writer: str
    reader: str
    logins: tuple[str, ...]
    role_stamp: str
    stamp: str

    @property
    def roles(self) -> tuple[str, ...]:
        """All of them, groups first."""
        return (self.owner, self.writer, self.reader, *self.logins)


def names_of(request: ProvisionRequest) -> Names:
    """Derives the names, and holds the request's logins against them.

    Identity *and* database are hashed: roles belong to the whole server, and two databases of it (or two control
    planes) may hold the same identity. Names have room for 48 bits of the hash, and who chooses a claim's name can
    search for equal ones; the stamp holds 128 bits of another hash, so an equal name does not make a role ours.

    Raises:
        CommandError: BAD_REQUEST when a login is not one of this Memory, or one of its four is missing.
    """
    prefix = f"mem_{_hash(request.identity, request.provider.database)[:12]}"
    expected = {f"{prefix}_{GROUPS[role]}_{slot}": (role, slot) for role in GROUPS for slot in ("a", "b")}
    given = {login.name: (login.role, login.slot) for login in request.logins}
    if given != expected or len(request.logins) != len(expected):
        msg = (
            f"bad request document: logins: {', '.join(given) or 'none'} are not the four of "
            f'"{request.identity}" in database "{request.provider.database}": write {", ".join(expected)}'
        )
        raise CommandError(Code.BAD_REQUEST, msg)
    return Names(
        owner=f"{prefix}_owner",
        writer=f"{prefix}_writer",
        reader=f"{prefix}_reader",
        logins=tuple(expected),
        role_stamp="memory:" + _hash("roles", request.identity, request.provider.database)[:32],
        stamp="memory:" + _hash("home", request.identity, request.provider.database, request.dataset.home)[:32],
    )


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
