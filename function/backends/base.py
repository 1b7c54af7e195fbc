"""What `plan` wants of a backend, whatever its type."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, Protocol

from function import names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from function.credentials import Login, RootKey
    from function.model import S3, ClaimedProviders, Memory
    from function.names import Identity

# Version of what apps find behind a binding (modules.md): tables, keys and signatures are frozen within one.
CONTRACT = "1"

Slot = Literal["a", "b"]
State = Literal["active", "draining", "closed"]


@dataclass(frozen=True)
class Place:
    """Where a backend is: what a Memory is pinned to.

    Attributes:
        database: What its Memories share there: a database, a bucket, or the prefix of their buckets.
        url: What a client is told instead of host and port, "" for these.
        prefix: What all keys begin with there, "" where they have no prefix in common.
    """

    host: str
    port: int
    database: str
    url: str = ""
    prefix: str = ""

    @property
    def endpoint(self) -> str:
        """The URL, or `host:port`, an IPv6 address in brackets."""
        if self.url:
            return self.url
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


@dataclass(frozen=True)
class Operator:
    """Software of others that must be in the cluster.

    Attributes:
        definitions: Cluster-scoped definitions whose presence says that it is, by the name that they are required by.
        advice: What to say where one is missing, as the second half of a sentence.
    """

    definitions: Mapping[str, str]
    advice: str


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
    def manages_by(self) -> str:
        """Who makes logins, and how; what a Memory has stays made that way."""
        ...

    @property
    def image(self) -> str | None:
        """The image that Jobs run, None for ours."""
        ...

    @property
    def config_secret(self) -> str | None:
        """Name of a Secret in `namespace` that Jobs find whole in `/config`; None where there is none."""
        ...

    @property
    def takes_passwords(self) -> bool:
        """Whether the backend must be told passwords, for it takes nothing in their place."""
        ...

    @property
    def shares_login(self) -> bool:
        """Whether every Memory has the admin's own login, which a Job hands on."""
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
    def cloud(self) -> S3 | None:
        """What is said of the cloud where managed resources make users, and perhaps buckets; None where Jobs do."""
        ...

    @property
    def operator(self) -> Operator | None:
        """Whose objects a Memory is made of; None where Jobs do everything."""
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

    @property
    def searches(self) -> str:
        """Say how searches are where no index is built as embeddings grow, "" where one is."""
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

    def caveat(self, memory: Memory) -> str:
        """Say what a Memory does not get here although others would, "" when there is no such thing."""
        ...

    def database_of(self, identity: Identity) -> str:
        """Name the database, or bucket, that a Memory's home is in."""
        ...

    def home_of(self, identity: Identity, memory: Memory) -> str:
        """Name the home inside it: a schema, or the prefix of keys."""
        ...

    def verifier(self, login: Login, key: RootKey) -> str | None:
        """Give what the backend gets in place of a password, None where it takes nothing in its place."""
        ...

    def request(self) -> dict[str, Any]:
        """Give the `provider` block of the request document."""
        ...

    def request_of(self, identity: Identity, memory: Memory) -> dict[str, Any]:
        """Give what else the request document of a Memory says here."""
        ...

    def binding(self, identity: Identity, memory: Memory, username: str, password: str) -> Mapping[str, str]:
        """Give the entries of a connection Secret."""
        ...


def logins(prefix: str, memory: Memory, state: Callable[[str, Slot], State]) -> tuple[LoginSlot, ...]:
    """Give every login that a Memory may have: two slots for the writer and two for the reader.

    `state` says what becomes of a login, by name and slot, whose role the Memory wants; one that should not be is
    closed, not forgotten.
    """
    wanted: dict[Literal["writer", "reader"], bool] = {"writer": True, "reader": memory.access.read_only_secret}
    slots: tuple[Slot, ...] = ("a", "b")
    made = []
    for role, slot in product(wanted, slots):
        name = names.login(prefix, "rw" if role == "writer" else "ro", slot)
        made.append(LoginSlot(name, role, slot, state(name, slot) if wanted[role] else "closed"))
    return tuple(made)


def vectors(memory: Memory) -> dict[str, str]:
    """Give the entries of a connection Secret that say what the embeddings are like; none without embeddings."""
    if not memory.embeddings.enabled:
        return {}
    return {"dimension": str(memory.embeddings.dimension), "metric": memory.embeddings.metric}
