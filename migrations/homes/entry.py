"""What the ledger knows of one home: who has it, what maintenance holds it to, and how its logins stand."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from migrations.errors import Code, CommandError
from migrations.request import Embeddings, L, ModelBase, P, Provision, ReportTarget

KEY_HEX = 32


class Entry(ModelBase):
    """One home, as its document in the ledger has it. A later version may add fields that have a default.

    Attributes:
        home: The prefix (or bucket) that its data is under.
        place: Where that is, in the backend's own words: a logical database, a bucket.
        logins: What each login was given last, in the backend's own form; admin-only, for it may hold verifiers.
        closed_logins: Which the reaper closed: the same Memory that comes back finds these open again.
        gone_since: When the reaper first missed the composite; None while it is there. Times are RFC 3339, UTC.
        closed_at: When the reaper closed the logins.
        settings: What the backend itself wants to remember.
    """

    # Made here by the names of its fields, and read by those of the document.
    model_config = ConfigDict(populate_by_name=True)

    version: Literal[1] = 1
    home: str
    place: str
    identity: str
    uid: str
    composite: str
    provider_uid: str
    dataset: str
    deletion_policy: Literal["Retain", "Delete"]
    legal_hold: bool
    ttl_days: int
    embeddings: Embeddings
    report: ReportTarget
    logins: dict[str, str] = Field(default_factory=dict)
    closed_logins: list[str] = Field(default_factory=list)
    gone_since: str | None = None
    closed_at: str | None = None
    created_at: str
    last_seen: str
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """Where it stands in the ledger."""
        return key_of(self.identity)

    def but(self, **changes: Any) -> "Entry":
        """Gives the entry with other values."""
        return self.model_copy(update=changes)

    def to_json(self) -> str:
        """Gives the document."""
        return self.model_dump_json(by_alias=True)


@dataclass(frozen=True)
class Claimed:
    """How a home became a request's.

    Attributes:
        entry: What the ledger is to say of it when all is done.
        adopted: Whether it was an earlier claim's, whose sessions are ended.
        before: What the ledger said, None when nobody had it.
    """

    entry: Entry
    adopted: bool
    before: Entry | None


def key_of(identity: str) -> str:
    """Names an identity's entry: a hash, so that no tenant's name stands in the ledger's keys."""
    return hashlib.sha256(identity.encode()).hexdigest()[:KEY_HEX]


def read(text: str | bytes, where: str) -> Entry:
    """Reads an entry.

    Raises:
        CommandError: CHECKSUM_MISMATCH when it is none that this version can read.
    """
    try:
        return Entry.model_validate_json(text)
    except ValidationError:
        msg = (
            f"the ledger's entry {where} cannot be read: a newer migrations image wrote it, or somebody else; use that "
            "image, or restore the entry"
        )
        raise CommandError(Code.CHECKSUM_MISMATCH, msg) from None


def now() -> str:
    """The time as entries have it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def claim(found: Entry | None, request: Provision[P, L], home: str, place: str) -> Claimed:
    """Decides whether a home may be a request's, and changes nothing.

    Args:
        found: What the ledger says of the request's identity.
        request: Who wants it.
        home: The prefix that the request wants.
        place: Where, as `Entry.place`.

    Raises:
        CommandError: SCHEMA_CONFLICT or ADOPTION_REQUIRED; the sentence says what the claim's author can do.
    """
    moment = now()
    wanted = Entry(
        home=home,
        place=place,
        identity=request.identity,
        uid=request.uid,
        composite=request.composite,
        provider_uid=request.provider.uid,
        dataset=request.dataset.name,
        deletion_policy=request.deletion_policy,
        legal_hold=request.legal_hold,
        ttl_days=request.retention.ttl_days,
        embeddings=request.embeddings,
        report=request.report,
        created_at=moment,
        last_seen=moment,
    )
    if found is None:
        return Claimed(wanted, adopted=False, before=None)
    if (found.home, found.place) != (home, place):
        msg = (
            f'"{request.identity}" already has its home in "{found.place}" under "{found.home}", not in "{place}" '
            f'under "{home}": put provider and dataset.name back ({found.dataset}), with adopt: true for a claim that '
            "was made again, or give the claim another name"
        )
        raise CommandError(Code.SCHEMA_CONFLICT, msg)
    adopted = found.uid != request.uid
    if adopted:
        _check_adoption(request)
    kept = wanted.but(created_at=found.created_at, logins=found.logins, settings=found.settings)
    return Claimed(kept, adopted, found)


def _check_adoption(request: Provision[P, L]) -> None:
    adoption = request.adoption
    if adoption.policy == "Forbid":
        msg = (
            f'the data of an earlier claim "{request.identity}" is there, and provider "{request.provider.name}" '
            "forbids adoption: give the claim another name, or ask the platform team"
        )
        raise CommandError(Code.ADOPTION_REQUIRED, msg)
    if adoption.policy == "Require" and not adoption.adopt:
        msg = (
            f'the data of an earlier claim "{request.identity}" is there: set adopt: true to take it over, or give the '
            "claim another name"
        )
        raise CommandError(Code.ADOPTION_REQUIRED, msg)
