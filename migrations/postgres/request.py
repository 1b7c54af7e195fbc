"""The request document for PostgreSQL."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from migrations import request
from migrations.request import Identifier, Maintain, ModelBase, Probe, Provision, Reap, Text, VerifiedLogin


class Provider(request.Provider):
    """The server, and what the platform team decided about it. Seconds and counts are None when nothing is limited."""

    type: Literal["postgres"]
    host: Text
    port: Annotated[int, Field(ge=1, le=65535)]
    database: Identifier
    ssl_mode: Literal["disable", "require", "verify-ca", "verify-full"]
    enable_pg_vector: bool
    extension_schema: Identifier
    connection_limit: Annotated[int, Field(ge=1)] | None
    statement_timeout: Annotated[str, Field(pattern=r"^[0-9]+(us|ms|s|min|h|d)?$")] | None
    isolation: Literal["Schema", "Database", "Dataset"]
    role_management: Literal["SQL", "CNPG"]


class Login(VerifiedLogin):
    """A login role. PostgreSQL takes what is no verifier for a plaintext password, and its statement log shows it."""

    form: ClassVar[re.Pattern[str]] = re.compile(
        r"SCRAM-SHA-256\$\d{4,7}:[A-Za-z0-9+/]+={0,2}\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}="
    )
    described: ClassVar[str] = (
        "SCRAM-SHA-256 verifier: write SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>"
    )


class ManagedMemory(ModelBase):
    """The one Memory that a run looks after where CloudNativePG manages roles: no login may work on all."""

    identity: Text
    database: Identifier
    home: Annotated[Identifier, Field(alias="schema")]


class ProbeRequest(Probe[Provider]):
    """What `probe` reads."""


class ReapRequest(Reap[Provider]):
    """What `reap` reads."""


class MaintainRequest(Maintain[Provider]):
    """What `maintain` reads."""

    memory: ManagedMemory | None


class ProvisionRequest(Provision[Provider, Login]):
    """What `provision` reads. `database` is the provider's, or with isolation Database the Memory's own."""

    @property
    def home(self) -> str:
        """The home's key in the ledger; neither schema nor dataset can hold a colon or a slash."""
        return {
            "Schema": self.dataset.home,
            "Database": f"database:{self.database}",
            "Dataset": f"{self.dataset.home}/{self.dataset.name}",
        }[self.provider.isolation]

    @property
    def where(self) -> str:
        """The home as a person finds it."""
        return {
            "Schema": f'schema "{self.dataset.home}"',
            "Database": f'schema "{self.dataset.home}" of database "{self.database}"',
            "Dataset": f'dataset "{self.dataset.name}" of the shared schema "{self.dataset.home}"',
        }[self.provider.isolation]
