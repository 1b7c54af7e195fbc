"""The request document: what the function writes and this image reads. Anything unknown is refused, never ignored."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from migrations.errors import Code, CommandError

RESERVED_SCHEMA = re.compile(r"public|information_schema|(pg|cnpg|memory)_.*")
SHOWN_ERRORS = 3
LONGEST_VALUE = 80

Text = Annotated[str, Field(min_length=1)]
Identifier = Annotated[str, Field(min_length=1, max_length=63)]


class ModelBase(BaseModel):
    """Base of everything in a document: camelCase, immutable, strict, and nothing that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)


class Dataset(ModelBase):
    """The home's schema, and the value of every `dataset` column."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$")]
    # The name goes on to `schema`, which pydantic's own class has as a deprecated method.
    home: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$", alias="schema")]
    search_config: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?$")]

    @field_validator("home")
    @classmethod
    def _not_reserved(cls, home: str) -> str:
        if RESERVED_SCHEMA.fullmatch(home):
            msg = "is reserved: choose a schema that is not public, information_schema, pg_*, cnpg_* or memory_*"
            raise ValueError(msg)
        return home


class Index(ModelBase):
    """The approximate index, and with how many rows it is earned."""

    type: Literal["auto", "none", "hnsw", "ivfflat"]
    min_rows: Annotated[int, Field(ge=1)]


class Embeddings(ModelBase):
    """What the vectors look like; counts only when enabled."""

    enabled: bool
    dimension: Annotated[int, Field(ge=1, le=16000)]
    metric: Literal["cosine", "l2", "ip"]
    storage: Literal["auto", "full", "half"]
    index: Index


class Retention(ModelBase):
    """How many days rows are kept, 0 for ever."""

    ttl_days: Annotated[int, Field(ge=0, le=36500)]


class Login(ModelBase):
    """One login slot; what it gets beside a name is its backend's matter."""

    name: Identifier
    role: Literal["writer", "reader"]
    slot: Literal["a", "b"]
    state: Literal["active", "draining", "closed"]


class VerifiedLogin(Login):
    """A login whose backend takes a verifier. Only an active one carries it; a draining one is left as it is."""

    # What the verifier must look like: a backend may take anything else for a plaintext password.
    form: ClassVar[re.Pattern[str]]
    described: ClassVar[str]

    verifier: SecretStr | None = None

    @field_validator("verifier")
    @classmethod
    def _is_verifier(cls, verifier: SecretStr | None) -> SecretStr | None:
        if verifier and not cls.form.fullmatch(verifier.get_secret_value()):
            msg = f"is no {cls.described}"
            raise ValueError(msg)
        return verifier

    @model_validator(mode="after")
    def _verifier_when_active(self) -> Self:
        if (self.verifier is not None) != (self.state == "active"):
            msg = f'login {self.slot} of the {self.role} is {self.state}: exactly an "active" one carries a verifier'
            raise ValueError(msg)
        return self


class Adoption(ModelBase):
    """Whether a home of the same identity and an earlier claim may be taken over."""

    adopt: bool
    policy: Literal["Require", "Allow", "Forbid"]
    # The identity whose home the platform team hands over to this Memory.
    giver: Annotated[Text | None, Field(alias="from")]


class Access(ModelBase):
    """Existing group roles that receive this Memory's rights too."""

    reader_role: Identifier | None
    writer_role: Identifier | None


class ReportTarget(ModelBase):
    """The ConfigMap that the answer goes to."""

    namespace: Text
    name: Text


class Provider(ModelBase):
    """What a request says of any server; the rest is said by its type."""

    type: str
    name: Text
    uid: str


P = TypeVar("P", bound=Provider)
L = TypeVar("L", bound=Login)


class Probe(ModelBase, Generic[P]):
    """What `probe` reads, of a backend whose provider is a P."""

    version: Literal[1]
    hash: Text
    provider: P
    report: ReportTarget


class Claim(ModelBase):
    """The claim of a provider that is a tenant's."""

    namespace: Text
    name: Text


class Reap(Probe[P], Generic[P]):
    """What `reap` reads."""

    # None for a provider of the platform's: its homes are those of any namespace.
    claim: Claim | None
    # How long after its logins were closed a home is kept whose deletion policy says Delete.
    deletion_grace_seconds: Annotated[int, Field(ge=0)]
    # What a person allows to happen although it is much at once: the mark that the report asks for, "" otherwise.
    approved: str


class Maintain(Probe[P], Generic[P]):
    """What `maintain` reads; which homes there are, and what they want, stands in the ledger."""

    # As of `Reap`.
    claim: Claim | None
    drift_policy: Literal["Report", "Repair"]
    # PostgreSQL's maintenance_work_mem while an index is built.
    work_mem: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}(MB|GB)$")]


class Provision(Probe[P], Generic[P, L]):
    """What `provision` reads."""

    identity: Text
    uid: Text
    # The composite's name: what a tenant's reaper, who does not see composites, knows it by.
    composite: Text
    # Which epoch and root key the passwords come from: nothing is done with them; the function reads them again.
    epoch: Annotated[int, Field(ge=0)]
    key_id: Text
    # Where the home is: a database, a bucket.
    database: Identifier
    dataset: Dataset
    embeddings: Embeddings
    access: Access
    retention: Retention
    modules: Annotated[list[Text], Field(min_length=1)]
    logins: list[L]
    legal_hold: bool
    adoption: Adoption
    deletion_policy: Literal["Retain", "Delete"]


R = TypeVar("R", bound=ModelBase)


def read_document(directory: Path) -> Any:
    """Reads request.json, not validated yet.

    Raises:
        CommandError: BAD_REQUEST when it is not there or not JSON.
    """
    path = directory / "request.json"
    try:
        return json.loads(read_file(path))
    except json.JSONDecodeError as error:
        msg = f"{path} is not JSON ({error.msg}, line {error.lineno}): write one JSON object"
        raise CommandError(Code.BAD_REQUEST, msg) from None


def parse(raw: Any, model: type[R]) -> R:
    """Validates a request document.

    Raises:
        CommandError: BAD_REQUEST with a sentence for each of the first three mistakes.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        sentences = [_sentence(each) for each in found[:SHOWN_ERRORS]]
        more = len(found) - SHOWN_ERRORS
        if more > 0:
            sentences.append(f"and {more} more")
        raise CommandError(Code.BAD_REQUEST, f"bad request document: {'; '.join(sentences)}") from None


def _sentence(error: ErrorDetails) -> str:
    path, value = error["loc"], error["input"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".") or "document"
    problem = error["msg"].removeprefix("Value error, ")
    # What stands under an unknown key may be a secret, a login holds its verifier, and an object is of no use here.
    secret = error["type"] == "extra_forbidden" or path[-1:] == ("verifier",)
    if secret or isinstance(value, dict | list | BaseModel):
        return f"{where}: {problem}"
    shown = json.dumps(value, ensure_ascii=False, default=str)
    if len(shown) > LONGEST_VALUE:
        shown = shown[:LONGEST_VALUE] + "…"
    return f"{where}: {problem} (it is {shown})"


def read_file(path: Path) -> str:
    """Reads a text file of the mounted folder.

    Raises:
        CommandError: BAD_REQUEST when it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        msg = f"cannot read {path} ({why}): mount the request's Secret and the admin's there, or set MEMORY_DIR"
        raise CommandError(Code.BAD_REQUEST, msg) from None
