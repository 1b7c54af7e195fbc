"""Names inside the backend: they carry a hash and no tenant's name, because every login can read them."""

import hashlib
from dataclasses import dataclass
from typing import Literal

from migrations.errors import Code, CommandError
from migrations.postgres.request import ProvisionRequest

Isolation = Literal["Schema", "Database", "Dataset"]
GROUPS = {"writer": "rw", "reader": "ro"}


@dataclass(frozen=True)
class Names:
    """The roles of one Memory in one database, and the stamps that its roles and its home carry.

    With isolation Dataset the owner is that of the shared schema, and so are its stamp and the schema's. `database` is
    what a database of the Memory's own is called, `database_stamp` what it carries.
    """

    owner: str
    writer: str
    reader: str
    logins: tuple[str, ...]
    owner_stamp: str
    role_stamp: str
    stamp: str
    database: str
    database_stamp: str

    @property
    def own(self) -> tuple[str, ...]:
        """The roles that are this Memory's alone whatever it shares, groups first."""
        return (self.writer, self.reader, *self.logins)

    @property
    def roles(self) -> tuple[str, ...]:
        """All of them, groups first."""
        return (self.owner, *self.own)

    def stamp_of(self, role: str) -> str:
        """What a role must carry to be ours."""
        return self.owner_stamp if role == self.owner else self.role_stamp


def names_for(identity: str, database: str, schema: str, isolation: Isolation) -> Names:
    """Derives the names of a Memory from who it is and where its home is.

    Identity *and* the provider's database are hashed: roles belong to the whole server, and two databases of it (or two
    control planes) may hold the same identity. Names have room for 48 bits of the hash, and who chooses a claim's name
    can search for equal ones; the stamp holds 128 bits of another hash, so an equal name does not make a role ours.
    """
    prefix = f"mem_{_hash(identity, database)[:12]}"
    role_stamp = "memory:" + _hash("roles", identity, database)[:32]
    stamps = {"owner_stamp": role_stamp, "stamp": "memory:" + _hash("home", identity, database, schema)[:32]}
    owner = f"{prefix}_owner"
    if isolation == "Dataset":
        owner = f"mem_{_hash('shared', database, schema)[:12]}_shared"
        stamps = {
            "owner_stamp": "memory:" + _hash("shared roles", database, schema)[:32],
            "stamp": "memory:" + _hash("shared home", database, schema)[:32],
        }
    return Names(
        owner=owner,
        writer=f"{prefix}_writer",
        reader=f"{prefix}_reader",
        logins=tuple(f"{prefix}_{group}_{slot}" for group in GROUPS.values() for slot in ("a", "b")),
        role_stamp=role_stamp,
        database=prefix,
        database_stamp="memory:" + _hash("database", identity, database)[:32],
        **stamps,
    )


def names_of(request: ProvisionRequest) -> Names:
    """Derives a request's names, and holds its logins and its database against them.

    Raises:
        CommandError: BAD_REQUEST when a login is not one of this Memory, one of its four is missing, or the database
            is neither the provider's nor, with isolation Database, the Memory's own.
    """
    provider = request.provider
    names = names_for(request.identity, provider.database, request.dataset.home, provider.isolation)
    slots = [(role, slot) for role in GROUPS for slot in ("a", "b")]
    expected = dict(zip(names.logins, slots, strict=True))
    given = {login.name: (login.role, login.slot) for login in request.logins}
    if given != expected or len(request.logins) != len(expected):
        msg = (
            f"bad request document: logins: {', '.join(given) or 'none'} are not the four of "
            f'"{request.identity}" in database "{provider.database}": write {", ".join(expected)}'
        )
        raise CommandError(Code.BAD_REQUEST, msg)
    database = names.database if provider.isolation == "Database" else provider.database
    if request.database != database:
        msg = (
            f'bad request document: database: "{request.database}" is not that of "{request.identity}" with isolation '
            f'{provider.isolation}: write "{database}"'
        )
        raise CommandError(Code.BAD_REQUEST, msg)
    return names


def lock_name(isolation: Isolation, home: str, schema: str) -> str:
    """Gives what a home's lock is named after: its schema, which Memories may share, or its key in the ledger."""
    return home if isolation == "Database" else schema


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
