"""A backend of the platform team's own: its image does what ours does elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from function.backends import checks
from function.backends.base import CONTRACT, Place, vectors
from function.errors import InvalidSpec
from function.lazy import cached_property

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.credentials import Login, RootKey
    from function.model import ClaimedProviders, Custom, Memory
    from function.names import Identity
    from function.state import Provider

_PATH = "spec.custom"


@dataclass(frozen=True)
class CustomBackend:
    """A provider of type custom. What its image can do, the image says (docs/custom.md)."""

    provider: Provider

    isolation = "Custom"
    manages_by = "Custom"
    takes_passwords = True
    shares_login = False
    admin_secret = None
    cluster = None
    cloud = None
    operator = None
    searches = "how searches are is up to the backend"
    ca = None
    ca_secret = None

    @cached_property
    def spec(self) -> Custom:
        """The provider's block for this type."""
        if self.provider.spec.custom is None:
            raise InvalidSpec(_PATH, 'a provider of type "custom" needs this block: add it')
        return self.provider.spec.custom

    def check(self, allowed: ClaimedProviders) -> None:
        """Refuse what cannot work (see `Backend.check`)."""
        if self.provider.claim and not allowed.allow_custom_images:
            field = f"{_PATH}.image"
            problem = (
                f'"{self.spec.image}" is refused: only a platform team\'s XMemoryProvider may name an image; ask the '
                "platform team for such a provider"
            )
            raise InvalidSpec(field, problem)
        try:
            host, port = checks.address(self.spec.endpoint)
        except ValueError:
            host, port = "", 0
        if not host or not port:
            field = f"{_PATH}.endpoint"
            problem = f'"{self.spec.endpoint}" names no host and port: write for example db.example.org:3306, or a URL'
            raise InvalidSpec(field, problem)
        checks.service_account(self.provider, allowed)
        checks.references(self.provider, [(f"{_PATH}.configSecret", self.spec.config_secret)], allowed)

    def check_delivery(self, delivery: Literal["Direct", "Object"]) -> None:
        """Refuse Object: the image is given passwords, which would be readable there."""
        if delivery == "Object":
            problem = (
                "a custom backend does not go with delivery Object: its Jobs are given passwords by a Secret, which "
                "would be readable in an Object; use a Composition with delivery Direct"
            )
            raise InvalidSpec(_PATH, problem)

    @property
    def image(self) -> str:
        """The platform team's image."""
        return self.spec.image

    @property
    def config_secret(self) -> str:
        """What the image needs to know, an admin's login for example."""
        return self.spec.config_secret.name

    @cached_property
    def namespace(self) -> str:
        """That of the image's Secret."""
        return checks.namespace_of(self.provider, self.spec.config_secret)

    @cached_property
    def place(self) -> Place:
        """What the spec says."""
        host, port = checks.address(self.spec.endpoint)
        return Place(host, port, self.spec.database, self.spec.endpoint)

    @property
    def entrance(self) -> Place:
        """The server itself."""
        return self.place

    def conflict(self, _memory: Memory) -> None:
        """Only the image knows."""

    def refusal(self, _memory: Memory) -> None:
        """Only the image knows."""

    def denial(self, memory: Memory) -> str | None:
        """No provider of this type lists roles that may be granted."""
        return checks.no_roles_of_others(self.provider, memory)

    def caveat(self, _memory: Memory) -> str:
        """Only the image knows."""
        return ""

    def database_of(self, _identity: Identity) -> str:
        """Name the database as the provider does."""
        return self.spec.database

    def home_of(self, _identity: Identity, memory: Memory) -> str:
        """Name the home as the Memory does."""
        return memory.dataset.schema_

    def verifier(self, _login: Login, _key: RootKey) -> None:
        """Nobody knows what the server would take in a password's place."""

    def request(self) -> dict[str, Any]:
        """Give the `provider` block of the request document."""
        return {
            "type": "custom",
            "name": self.provider.title,
            "uid": self.provider.uid,
            "endpoint": self.place.endpoint,
            "host": self.place.host,
            "port": self.place.port,
            "database": self.spec.database,
        }

    def request_of(self, _identity: Identity, _memory: Memory) -> dict[str, Any]:
        """Nothing beside what every request says."""
        return {}

    def binding(self, identity: Identity, memory: Memory, username: str, password: str) -> Mapping[str, str]:
        """Give the connection Secret's entries."""
        place = self.place
        return {
            "type": "custom",
            "provider": self.provider.title,
            "endpoint": place.endpoint,
            "host": place.host,
            "port": str(place.port),
            "database": place.database,
            "schema": self.home_of(identity, memory),
            "username": username,
            "password": password,
            "dataset": memory.dataset.name,
            "contract": CONTRACT,
            **vectors(memory),
        }
