"""What `plan` wants of a backend, whatever its type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from function.model import ClaimedProviders, Memory
    from function.names import Identity

Slot = Literal["a", "b"]
State = Literal["active", "draining", "closed"]


@dataclass(frozen=True)
class Place:
    """Where a backend is: what a Memory is pinned to."""

    host: str
    port: int
    database: str

    @property
    def endpoint(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class LoginSlot:
    """One of a Memory's logins inside a backend."""

    name: str
    role: Literal["writer", "reader"]
    slot: Slot
    state: State


@dataclass(frozen=True)
class Cluster:
    """A CloudNativePG Cluster whose operator makes roles and databases.

    Attributes:
        name: Its name.
        connection_limit: How many connections a login may have at once, -1 for no limit.
        vector_schema: The schema that pgvector belongs in, None where nobody may have it.
    """

    name: str
    connection_limit: int
    vector_schema: str | None


class Backend(Protocol):
    """One provider's backend."""

    def check(self, allowed: ClaimedProviders) -> None:
        """Refuse a provider's spec that cannot work, or that reaches further than a tenant may.

        Raises:
            InvalidSpec: With the path of the field.
        """
        ...

    def check_delivery(self, delivery: Literal["Direct", "Object"]) -> None:
        """Refuse a delivery that would show a password of this backend's.

        Raises:
            InvalidSpec: With the path of the field.
        """
        ...

    @property
    def manages_by(self) -> Literal["SQL", "CNPG"]:
        """Who makes roles and databases: our Jobs, or an operator, whose objects go with the Memory that has them."""
        ...

    @property
    def namespace(self) -> str:
        """Where Jobs run: with the Secrets that they mount."""
        ...

    @property
    def place(self) -> Place:
        """Where the server is."""
        ...

    @property
    def entrance(self) -> Place:
        """Where apps connect to: the server, or what stands in front of it. Nothing is pinned to it."""
        ...

    @property
    def admin_secret(self) -> str | None:
        """Name of the Secret with the admin's login, in `namespace`; None where there is no such login."""
        ...

    @property
    def cluster(self) -> Cluster | None:
        """The Cluster, in `namespace`, whose operator makes roles and databases; None where Jobs do."""
        ...

    @property
    def ca(self) -> str | None:
        """The CA as PEM text, None where the system's CAs (or none) are meant.

        Raises:
            LookupError: It is not known yet; the message says what brings it.
        """
        ...

    @property
    def ca_secret(self) -> str | None:
        """Secret in `namespace` from whose `ca.crt` the probe learns the CA; None when the provider's spec says it."""
        ...

    @property
    def isolation(self) -> str:
        """What a Memory has for itself; its data stays in what it was made in."""
        ...

    def conflict(self, memory: Memory) -> str | None:
        """Say where the spec of a Memory and that of its provider exclude each other, None when they do not."""
        ...

    def refusal(self, memory: Memory) -> str | None:
        """Say why this backend cannot do what a Memory wants, None when it can."""
        ...

    def denial(self, memory: Memory) -> str | None:
        """Say what a Memory wants and its provider's owner has not granted, None when there is no such thing."""
        ...

    def database_of(self, identity: Identity) -> str:
        """Name the database that a Memory's home is in."""
        ...

    def request(self) -> dict[str, Any]:
        """Give the `provider` block of the request document."""
        ...

    def logins(self, prefix: str, memory: Memory, state: Callable[[str, Slot], State]) -> tuple[LoginSlot, ...]:
        """Give every login that a Memory may have, with the state that each should be in.

        `state` says it of a login, by name and slot, whose role the Memory wants.
        """
        ...

    def binding(self, memory: Memory, database: str, username: str, password: str) -> Mapping[str, str]:
        """Give the entries of a connection Secret; `database` is `database_of` the Memory."""
        ...
