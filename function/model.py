"""What users write: `Memory`, `MemoryProvider`, and the Composition's `MemoryInput`.

The XRDs in `apis/` say the same to the API server, and a test compares the two, field by field.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from function.cache import ContentCache, content_of
from function.errors import InvalidSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUP = "memory.proompteng.ai"
API_VERSION = f"{GROUP}/v1alpha1"

# Crossplane keeps its own fields beside ours in the spec of a composite with a claim. They are none of our business.
_MACHINERY = frozenset(
    {
        "claimRef",
        "compositeDeletePolicy",
        "compositionRef",
        "compositionRevisionRef",
        "compositionRevisionSelector",
        "compositionSelector",
        "compositionUpdatePolicy",
        "crossplane",
        "publishConnectionDetailsTo",
        "resourceRefs",
        "writeConnectionSecretToRef",
    }
)

# Somebody may have pasted a password into these.
_WITHHELD = {"host", "caBundle"}

# An exact search of 10,000 vectors of 1536 dimensions takes about 40 ms on one core.
_ROWS_TIMES_DIMENSIONS = 10_000 * 1536

Name = Annotated[str, Field(min_length=1, max_length=253)]
Namespace = Annotated[str, Field(min_length=1, max_length=63)]
LabelValue = Annotated[str, Field(max_length=63)]
RoleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9_])?$", max_length=63)]
SchemaName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$", max_length=63)]
ProviderType = Literal["postgres", "redis", "s3", "custom"]
# Structured Kubernetes types that we pass on and never read.
Passed = dict[str, Any]

# The same spec comes with every call; a read one takes 5 kB.
_read: ContentCache[Any] = ContentCache(64_000)


class Model(BaseModel):
    """Base of every model here: camelCase outside, immutable, and no field that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    @classmethod
    def read(cls, raw: Mapping[str, Any], path: str = "spec") -> Self:
        """Validate one object.

        Raises:
            InvalidSpec: With the path and value of every field that is wrong, at most three of them.
        """
        known: Self = _read.get(content_of({cls.__name__: dict(raw)}), lambda: cls._validated(raw, path))
        return known

    @cached_property
    def written(self) -> dict[str, Any]:
        """All fields as a user writes them, defaults too; read once for all calls, so nobody may change it."""
        return self.model_dump(by_alias=True)

    @classmethod
    def _validated(cls, raw: Mapping[str, Any], path: str) -> Self:
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise _sentence(error, path) from None


def _sentence(error: ValidationError, root: str) -> InvalidSpec:
    """Pydantic's findings as one sentence; values of our specs hold no secrets, so they may be shown."""
    findings = error.errors(include_url=False, include_context=False)
    parts = [_finding(finding, root) for finding in findings[:3]]
    if len(findings) > len(parts):
        parts.append(f"and {len(findings) - len(parts)} more")
    path, problem = parts[0].split(": ", 1)
    return InvalidSpec(path, "; ".join([problem, *parts[1:]]))


def _finding(finding: Any, root: str) -> str:
    path = root
    for step in finding["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    if finding["type"] == "extra_forbidden":
        return f"{path}: this field is not known: remove it"
    if finding["type"] == "missing":
        return f"{path}: this field is required: set it"
    shown = "this value" if set(finding["loc"]) & _WITHHELD else repr(finding["input"])
    if len(shown) > 80:  # noqa: PLR2004 - a condition is read in a terminal
        shown = shown[:77] + "..."
    message = finding["msg"]
    return f"{path}: {shown} is refused: {message[0].lower()}{message[1:]}"


def spec_of(composite: Mapping[str, Any]) -> dict[str, Any]:
    """Give what the user wrote in a composite's spec, without what Crossplane keeps there."""
    return {key: value for key, value in composite.get("spec", {}).items() if key not in _MACHINERY}


class ProviderRef(Model):
    """Which provider a Memory wants."""

    name: Name
    namespace: Namespace | None = None


class Dataset(Model):
    """Where a Memory's rows live."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$", max_length=63)]
    schema_: Annotated[SchemaName, Field(alias="schema")]


class Index(Model):
    """The approximate index of the vectors, and when it is earned."""

    type: Literal["auto", "none", "hnsw", "ivfflat"] = "auto"
    # No default: it follows from the dimension (`Embeddings.rows_for_index`).
    min_rows: Annotated[int | None, Field(ge=1, le=1000000000)] = None


class Embeddings(Model):
    """The vector part of a Memory."""

    enabled: bool = True
    dimension: Annotated[int, Field(ge=1, le=16000)] = 1536
    metric: Literal["cosine", "l2", "ip"] = "cosine"
    storage: Literal["auto", "full", "half"] = "auto"
    index: Index = Index()

    @property
    def rows_for_index(self) -> int:
        """With how many rows the index is earned: where an exact search of them takes about 40 ms."""
        return self.index.min_rows or max(1, _ROWS_TIMES_DIMENSIONS // self.dimension)


class Retention(Model):
    """How long data is kept."""

    ttl_days: Annotated[int, Field(ge=0, le=36500)] = 90


class Access(Model):
    """Who else may read or write."""

    read_only_secret: bool = False
    reader_role: RoleName | None = None
    writer_role: RoleName | None = None


class Credentials(Model):
    """Which passwords are in force."""

    epoch: Annotated[int, Field(ge=0, le=1000000000)] = 0
    revoke_old: bool = False


class Memory(Model):
    """The spec of a `Memory` claim (and its `XMemory`)."""

    provider_ref: ProviderRef
    dataset: Dataset
    embeddings: Embeddings = Embeddings()
    retention: Retention = Retention()
    legal_hold: bool = False
    access: Access = Access()
    search_config: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$", max_length=63)] = "simple"
    credentials: Credentials = Credentials()
    adopt: bool = False
    deletion_policy: Literal["Retain", "Delete"] = "Retain"


class LabelCondition(Model):
    """One of a selector's `matchExpressions`."""

    key: Annotated[str, Field(min_length=1, max_length=317)]
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[tuple[LabelValue, ...] | None, Field(max_length=64)] = None

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds of an object's labels; as in Kubernetes, NotIn does where there is no such label."""
        there, among = self.key in labels, labels.get(self.key) in (self.values or ())
        return {"In": among, "NotIn": not among, "Exists": there, "DoesNotExist": not there}[self.operator]


class LabelSelector(Model):
    """A LabelSelector of Kubernetes."""

    match_labels: Annotated[dict[str, LabelValue] | None, Field(max_length=32)] = None
    match_expressions: Annotated[tuple[LabelCondition, ...] | None, Field(max_length=32)] = None

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant; without a condition nobody is, and the XRD refuses that."""
        exact, conditions = self.match_labels or {}, self.match_expressions or ()
        matches = exact.items() <= labels.items() and all(each.holds(labels) for each in conditions)
        return matches and bool(exact or conditions)


class Consumers(Model):
    """Namespaces whose Memories may use a provider."""

    # No default: it differs between a claimed provider (Same) and an unclaimed one (All).
    from_: Annotated[Literal["Same", "All", "Names", "Selector"] | None, Field(alias="from")] = None
    names: Annotated[tuple[Namespace, ...], Field(max_length=256)] = ()
    selector: LabelSelector | None = None


class AllowedConsumers(Model):
    """Who may use a provider."""

    namespaces: Consumers = Consumers()


class LocalRef(Model):
    """A name in the namespace that the context gives."""

    name: Name


class Jobs(Model):
    """How a provider's Jobs run."""

    resources: Passed | None = None
    node_selector: Annotated[dict[str, str] | None, Field(max_length=32)] = None
    tolerations: Annotated[tuple[Passed, ...] | None, Field(max_length=32)] = None
    image_pull_secrets: Annotated[tuple[LocalRef, ...] | None, Field(max_length=8)] = None
    active_deadline_seconds: Annotated[int | None, Field(ge=60, le=86400)] = None
    service_account_name: Name | None = None


class NamespacedRef(Model):
    """An object; without a namespace, in that of the claim."""

    name: Name
    namespace: Namespace | None = None


class Pooler(Model):
    """Where apps connect to instead of the server; Jobs never do."""

    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Annotated[int, Field(ge=1, le=65535)] = 5432


class Adoption(Model):
    """A home that is handed over from one Memory to another, by their identities (`<namespace>/<name>`)."""

    schema_: Annotated[SchemaName, Field(alias="schema")]
    from_: Annotated[str, Field(alias="from", min_length=1, max_length=317)]
    to: Annotated[str, Field(min_length=1, max_length=317)]


class Postgres(Model):
    """A PostgreSQL backend."""

    cluster_ref: NamespacedRef | None = None
    host: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    ssl_mode: Literal["disable", "require", "verify-ca", "verify-full"] = "verify-full"
    ca_bundle: Annotated[str | None, Field(max_length=65536)] = None
    database: Annotated[str, Field(min_length=1, max_length=63)] = "app"
    enable_pg_vector: bool = True
    extension_schema: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$", max_length=63)] = "public"
    connection_secret: NamespacedRef | None = None
    # No defaults: they follow from the other fields (`PostgresBackend.manages_by`, `PostgresBackend.isolation`).
    role_management: Literal["SQL", "CNPG"] | None = None
    isolation: Literal["Schema", "Database", "Dataset"] | None = None
    schema_: Annotated[SchemaName | None, Field(alias="schema")] = None
    grantable_roles: Annotated[tuple[RoleName, ...] | None, Field(max_length=64)] = None
    pooler: Pooler | None = None
    connection_limit: Annotated[int | None, Field(ge=1, le=10000)] = None
    # 2^31-1 ms is PostgreSQL's own limit, hence the digits.
    statement_timeout: Annotated[
        str | None,
        Field(pattern=r"^([1-9][0-9]{0,8}ms|[1-9][0-9]{0,5}s|[1-9][0-9]{0,3}min|[1-9][0-9]?h)$", max_length=12),
    ] = None


class Maintenance(Model):
    """When and how data is looked after."""

    # No default: it follows from the provider's name, so that not all begin at the same minute.
    schedule: Annotated[
        str | None, Field(pattern=r"^[0-9*/,-]+( [0-9A-Za-z*/,?-]+){4}$", min_length=9, max_length=100)
    ] = None
    drift_policy: Literal["Report", "Repair"] = "Report"
    work_mem: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}(MB|GB)$", min_length=3, max_length=8)] = "256MB"


class Redis(Model):
    """A Redis or Valkey backend: a single server, a cluster by one of its nodes, or the primary of a replica pair."""

    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Annotated[int, Field(ge=1, le=65535)] = 6379
    tls: bool = True
    ca_bundle: Annotated[str | None, Field(max_length=65536)] = None
    database: Annotated[int, Field(ge=0, le=1023)] = 0
    admin_secret: NamespacedRef
    key_prefix: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_.-]{0,30}[a-z0-9])?$", max_length=32)] = "mem"


class ObjectLock(Model):
    """How long a version of an object cannot be deleted."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"
    days: Annotated[int, Field(ge=1, le=36500)]


class Lifecycle(Model):
    """When objects go to a cheaper class of storage."""

    transition_days: Annotated[int, Field(ge=1, le=36500)]
    storage_class: Annotated[str, Field(pattern=r"^[A-Z0-9_]{1,64}$", max_length=64)] = "STANDARD_IA"


class Encryption(Model):
    """How the server encrypts objects."""

    algorithm: Literal["AES256", "aws:kms"] = "AES256"
    kms_key_id: Annotated[str | None, Field(min_length=1, max_length=2048)] = None


class Replication(Model):
    """Where copies of objects go: the ARN of a bucket, and of the role that writes them."""

    role: Annotated[str, Field(pattern=r"^arn:", min_length=20, max_length=2048)]
    destination: Annotated[str, Field(pattern=r"^arn:", min_length=14, max_length=2048)]


class S3(Model):
    """An S3 backend: one bucket with a prefix for each Memory, or a bucket for each."""

    # Without it, Amazon's of the region.
    endpoint: Annotated[
        str | None, Field(pattern=r"^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$", max_length=253)
    ] = None
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$", max_length=63)] = "us-east-1"
    # No default: Amazon wants names of hosts, and other servers mostly paths (`S3Backend`).
    force_path_style: bool | None = None
    ca_bundle: Annotated[str | None, Field(max_length=65536)] = None
    bucket: Annotated[str | None, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", max_length=63)] = None
    bucket_prefix: Annotated[str | None, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$", max_length=50)] = None
    admin_secret: NamespacedRef
    users: Literal["AWS", "RGW", "Shared"]
    provider_config_ref: LocalRef | None = None
    versioning: bool = False
    object_lock: ObjectLock | None = None
    lifecycle: Lifecycle | None = None
    encryption: Encryption | None = None
    replication: Replication | None = None


class Custom(Model):
    """A backend of the platform team's own: its image prepares it."""

    image: Annotated[str, Field(min_length=1, max_length=1024)]
    endpoint: Annotated[str, Field(min_length=1, max_length=253)]
    database: Annotated[str, Field(min_length=1, max_length=63)]
    config_secret: NamespacedRef


class MemoryProvider(Model):
    """The spec of a `MemoryProvider` claim (and its `XMemoryProvider`)."""

    type: ProviderType
    allowed_consumers: AllowedConsumers = AllowedConsumers()
    jobs: Jobs = Jobs()
    adoption: Literal["Require", "Allow", "Forbid"] = "Require"
    adoptions: Annotated[tuple[Adoption, ...] | None, Field(max_length=64)] = None
    deletion_grace: Annotated[str, Field(pattern=r"^[0-9]{1,6}[smh]$", max_length=7)] = "72h"
    maintenance: Maintenance = Maintenance()
    postgres: Postgres | None = None
    redis: Redis | None = None
    s3: S3 | None = None
    custom: Custom | None = None

    @property
    def deletion_grace_seconds(self) -> int:
        """`deletionGrace` in seconds."""
        return int(self.deletion_grace[:-1]) * {"s": 1, "m": 60, "h": 3600}[self.deletion_grace[-1]]


class Migrations(Model):
    """Which image the Jobs run, and which provisioning contract it fulfils."""

    image: Annotated[str, Field(min_length=1)]
    version: Annotated[int, Field(ge=1)] = 1


class ClaimedProviders(Model):
    """What a tenant's own provider may do beyond its namespace."""

    allow_service_accounts: bool = False
    allow_custom_images: bool = False
    allow_other_namespaces: bool = False


class ObjectDelivery(Model):
    """How provider-kubernetes reaches the cluster that objects are made in."""

    provider_config_ref: LocalRef = LocalRef(name="default")


class MemoryInput(Model):
    """The `input` of the Composition's pipeline step."""

    api_version: Literal["memory.fn.proompteng.ai/v1beta1"]
    kind: Literal["MemoryInput"]
    metadata: Passed = {}
    delivery: Literal["Direct", "Object"] = "Direct"
    object: ObjectDelivery = ObjectDelivery()
    migrations: Migrations
    root_key: str = "root-key"
    jobs: Jobs = Jobs()
    provider_type: ProviderType | None = None
    claimed_providers: ClaimedProviders = ClaimedProviders()
