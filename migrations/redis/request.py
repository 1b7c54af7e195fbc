"""The request document for Redis and Valkey."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from migrations import request
from migrations.request import Maintain, Probe, Provision, Reap, Text, VerifiedLogin

# Such a text holds nothing that means something in a pattern of keys.
KeyPrefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,63}$")]


class Provider(request.Provider):
    """The server, one node of a cluster, or the primary of a replica pair.

    Attributes:
        database: The logical database; a cluster has only 0.
        key_prefix: What every key of ours begins with.
    """

    type: Literal["redis"]
    host: Text
    port: Annotated[int, Field(ge=1, le=65535)]
    tls: bool
    database: Annotated[int, Field(ge=0, le=65535)]
    key_prefix: KeyPrefix


class Login(VerifiedLogin):
    """An ACL user. Redis takes the SHA-256 of a password in its place."""

    form: ClassVar[re.Pattern[str]] = re.compile(r"#[0-9a-f]{64}")
    described: ClassVar[str] = "SHA-256 verifier: write # and 64 lower-case hexadecimal digits"


class ProbeRequest(Probe[Provider]):
    """What `probe` reads."""


class ReapRequest(Reap[Provider]):
    """What `reap` reads."""


class MaintainRequest(Maintain[Provider]):
    """What `maintain` reads."""


class ProvisionRequest(Provision[Provider, Login]):
    """What `provision` reads.

    Attributes:
        prefix: What the keys of this Memory begin with, `<keyPrefix>:{<dataset>.<id12>}:`. The braces keep all of them
            in one slot of a cluster.
    """

    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,63}:\{[a-z0-9_.-]{1,63}\.[0-9a-f]{12}\}:$")]
