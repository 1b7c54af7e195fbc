"""What is called how on S3; docs/s3.md has the layout."""

import hashlib
import re
from dataclasses import dataclass

from migrations.errors import Code, CommandError
from migrations.s3.request import Provider, ProvisionRequest

# In the shared bucket no Memory's prefix looks like this: those end in -<12 hexadecimal digits>/.
LEDGER = "memory-ledger/"
POLICY = "memory"
KINDS = ("events", "event-ids", "kv", "embeddings")
SHORT = 12


@dataclass(frozen=True)
class Home:
    """Where a Memory's objects are; `alone` when the bucket is its own."""

    bucket: str
    prefix: str
    alone: bool

    @property
    def meta(self) -> str:
        """The key of what apps may know of their Memory."""
        return f"{self.prefix}meta.json"

    @property
    def shown(self) -> str:
        """What sentences call it."""
        return f"s3://{self.bucket}/{self.prefix}"


def place_of(provider: Provider) -> str:
    """Gives what makes names of one provider's differ from another's: the bucket, or the prefix of buckets."""
    return provider.bucket or provider.bucket_prefix or ""


def is_managed(provider: Provider) -> bool:
    """Whether the Memories' buckets, and their lifecycles, are managed resources: each document has one writer."""
    return provider.users == "AWS" and provider.bucket is None


def ledger_bucket(provider: Provider) -> str:
    """Names the bucket that the ledger is in."""
    return provider.bucket or f"{provider.bucket_prefix}-ledger"


def id_of(identity: str, place: str) -> str:
    """Gives <id12>."""
    return hashlib.sha256(f"{identity}\0{place}".encode()).hexdigest()[:SHORT]


def home_of(request: ProvisionRequest) -> Home:
    """Gives a request's home.

    Raises:
        CommandError: BAD_REQUEST when names are not those that follow from the identity: they might be somebody else's.
    """
    provider = request.provider
    short = id_of(request.identity, place_of(provider))
    bucket = provider.bucket or f"{provider.bucket_prefix}-{short}"
    wanted = {
        "prefix": (request.prefix, f"{request.dataset.name}-{short}/"),
        "database": (request.database, bucket),
    }
    for name, (found, right) in wanted.items():
        if found != right:
            msg = f'bad request document: {name} is "{found}", and the identity\'s is "{right}"'
            raise CommandError(Code.BAD_REQUEST, msg)
    for login in request.logins:
        if not re.fullmatch(rf"mem_{short}_(rw|ro)_[ab]", login.name):
            msg = f'bad request document: login "{login.name}" is none of this identity: they begin with mem_{short}_'
            raise CommandError(Code.BAD_REQUEST, msg)
    return Home(bucket, request.prefix, provider.bucket is None)
