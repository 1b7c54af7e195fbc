"""Redis and Valkey: the keys of one prefix, and ACL users, for each Memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from function.backends import checks
from function.backends.base import CONTRACT, Place, vectors
from function.errors import InvalidSpec
from function.lazy import cached_property

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.credentials import Login, RootKey
    from function.model import ClaimedProviders, Memory, Redis
    from function.names import Identity
    from function.state import Provider

_PATH = "spec.redis"


@dataclass(frozen=True)
class RedisBackend:
    """A provider of type redis."""

    provider: Provider

    isolation = "Prefix"
    manages_by = "ACL"
    image = None
    config_secret = None
    takes_passwords = False
    shares_login = False
    cluster = None
    cloud = None
    operator = None
    searches = "embeddings are a vector set, which is an index by itself"
    ca_secret = None

    @cached_property
    def spec(self) -> Redis:
        """The provider's block for this type."""
        if self.provider.spec.redis is None:
            raise InvalidSpec(_PATH, 'a provider of type "redis" needs this block: add it')
        return self.provider.spec.redis

    def check(self, allowed: ClaimedProviders) -> None:
        """Refuse what cannot work (see `Backend.check`)."""
        spec = self.spec
        if spec.ca_bundle and not spec.tls:
            field = f"{_PATH}.caBundle"
            raise InvalidSpec(field, "it has no effect with tls false: remove it, or set tls to true")
        checks.no_adoptions(self.provider, "on Redis")
        checks.service_account(self.provider, allowed)
        checks.references(self.provider, [(f"{_PATH}.adminSecret", spec.admin_secret)], allowed)

    def check_delivery(self, _delivery: Literal["Direct", "Object"]) -> None:
        """Either goes: Redis gets hashes."""

    @cached_property
    def namespace(self) -> str:
        """That of the admin's Secret."""
        return checks.namespace_of(self.provider, self.spec.admin_secret)

    @property
    def admin_secret(self) -> str:
        """Name of the admin's Secret."""
        return self.spec.admin_secret.name

    @cached_property
    def place(self) -> Place:
        """What the spec says; `database` is the number of the logical one."""
        return Place(self.spec.host, self.spec.port, str(self.spec.database), prefix=self.spec.key_prefix)

    @property
    def entrance(self) -> Place:
        """The server itself."""
        return self.place

    @property
    def ca(self) -> str | None:
        """The spec's CA."""
        return self.spec.ca_bundle

    def conflict(self, _memory: Memory) -> None:
        """Whatever they say goes together."""

    def refusal(self, memory: Memory) -> str | None:
        """Vector sets compare by cosine, and by nothing else."""
        if memory.embeddings.enabled and memory.embeddings.metric != "cosine":
            return (
                f'spec.embeddings.metric: "{memory.embeddings.metric}" is not what Redis can do, whose vector sets '
                "compare by cosine only: write cosine, set embeddings.enabled to false, or choose another provider"
            )
        return None

    def denial(self, memory: Memory) -> str | None:
        """Redis has no groups."""
        return checks.no_roles_of_others(self.provider, memory)

    def caveat(self, memory: Memory) -> str:
        """Every command that adds can also overwrite or trim."""
        return "Redis lets a Memory with a legal hold be read only" if memory.legal_hold else ""

    def database_of(self, _identity: Identity) -> str:
        """Name the logical database."""
        return self.place.database

    def home_of(self, identity: Identity, memory: Memory) -> str:
        """Name the prefix of every key: the braces keep them in one slot of a cluster."""
        return f"{self.spec.key_prefix}:{{{memory.dataset.name}.{identity.inside(self.place.database)}}}:"

    def verifier(self, login: Login, key: RootKey) -> str:
        """Give the SHA-256 of the password, as ACL SETUSER takes it."""
        return f"#{login.digest(key)}"

    def request(self) -> dict[str, Any]:
        """Give the `provider` block of the request document."""
        return {
            "type": "redis",
            "name": self.provider.title,
            "uid": self.provider.uid,
            "host": self.place.host,
            "port": self.place.port,
            "tls": self.spec.tls,
            "database": self.spec.database,
            "keyPrefix": self.spec.key_prefix,
        }

    def request_of(self, identity: Identity, memory: Memory) -> dict[str, Any]:
        """Give the prefix."""
        return {"prefix": self.home_of(identity, memory)}

    def binding(self, identity: Identity, memory: Memory, username: str, password: str) -> Mapping[str, str]:
        """Give the connection Secret's entries."""
        place, scheme = self.place, "rediss" if self.spec.tls else "redis"
        userinfo = f"{quote(username, safe='')}:{quote(password, safe='')}"
        entries = {
            "type": "redis",
            "provider": self.provider.title,
            "endpoint": place.endpoint,
            "host": place.host,
            "port": str(place.port),
            "database": place.database,
            "schema": self.home_of(identity, memory),
            "username": username,
            "password": password,
            "uri": f"{scheme}://{userinfo}@{place.endpoint}/{place.database}",
            "dataset": memory.dataset.name,
            "contract": CONTRACT,
            **vectors(memory),
        }
        if self.ca:
            entries |= {"ca.crt": self.ca, "certificates": self.ca}
        return entries
