"""Every resource key, object name and label. Nothing else in the code spells one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from function.lazy import cached_property
from function.model import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterable

RETRY_ANNOTATION = f"{GROUP}/retry"
REAP_ANNOTATION = f"{GROUP}/reap"
MANAGER = "function-memory"

LABEL_CLAIM_NAME = "crossplane.io/claim-name"
LABEL_CLAIM_NAMESPACE = "crossplane.io/claim-namespace"

BINDING = "binding"
BINDING_READER = "binding-reader"

# Requirements, always asked for in this order.
PROVIDER_CLAIMED = "provider-claimed"
PROVIDER_SHARED = "provider-shared"
CONSUMER = "consumer-namespace"
CNPG_ROLES = "cnpg-roles"
AWS_USERS = "aws-users"
AWS_BUCKETS = "aws-buckets"

_PROVISION_KEY = re.compile(r"^provision-([0-9a-f]{10})-([1-9][0-9]*)$")
_REQUEST_KEY = re.compile(r"^request-([0-9a-f]{10})$")
_LOGIN_KEY = re.compile(r"^login-[0-9a-f]{10}$")
_KEYS_NAME = re.compile(r"^mem-[0-9a-f]{12}-keys$")
_CNPG_KEY = re.compile(r"^(cnpg-.*|login-[0-9a-f]{6})$")
_JOB_KEY = re.compile(r"^(provision|probe)-([0-9a-f]{10})(?:-[1-9][0-9]*)?$")
_OUR_KEY = re.compile(
    r"^(binding|binding-reader|(request|login)-[0-9a-f]{10}|provision-[0-9a-f]{10}-[1-9][0-9]*|probe-[0-9a-f]{6}([0-9a-f]{4})?"
    r"|(report|report-role|report-binding|keys|keys-role|keys-binding|service-account|reaper|reaper-binding|reaper-cluster-binding|maintenance)-[0-9a-f]{6}"
    r"|(cnpg-database|login|cnpg-(role|secret)-(owner|writer|reader|job|(rw|ro)-[ab]))-[0-9a-f]{6}"
    r"|aws-[a-z]+(-(writer|reader|(rw|ro)-[ab]))?-[0-9a-f]{6})$"
)
_LABEL_MAX = 63
_NAME_MAX = 253


def digest(*parts: str, length: int = 12) -> str:
    """Hash parts that are told apart (a NUL joins them, and no part can hold one)."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]


def bounded(text: str, limit: int = _NAME_MAX) -> str:
    """Shorten a text to a limit; what is cut off goes into a hash, so that two long texts stay two."""
    if len(text) <= limit:
        return text
    return f"{text[: limit - 11].rstrip('-._')}-{digest(text, length=10)}"


@dataclass(frozen=True)
class Identity:
    """Who a Memory is, whatever its uid: `<claim namespace>/<claim name>`, or the composite's name without a claim."""

    text: str

    @cached_property
    def id12(self) -> str:
        """12 hex for the names of Kubernetes objects."""
        return digest(self.text)

    def inside(self, database: str) -> str:
        """12 hex for names inside a backend: they are server-wide, so the database is part of it."""
        return digest(self.text, database)

    def roles(self, database: str) -> str:
        """Prefix of the roles inside a backend."""
        return f"mem_{self.inside(database)}"

    @property
    def keys(self) -> str:
        """Name of the Secret that a Job writes an admin's keys to, where all Memories have these."""
        return f"mem-{self.id12}-keys"


def login(prefix: str, role: str, slot: str) -> str:
    """Name a login role: `role` is `rw` or `ro`, `slot` is `a` or `b`."""
    return f"{prefix}_{role}_{slot}"


def slot_of_login(login: str) -> Literal["a", "b"] | None:
    """Say which slot a login is, None of a name that is not one."""
    return "a" if login.endswith("_a") else "b" if login.endswith("_b") else None


def job_role(prefix: str) -> str:
    """Name the login that a Memory's Jobs have where there is no admin."""
    return f"{prefix}_job"


def request_key(content_hash: str) -> str:
    """Key of the Secret that holds one request document."""
    return f"request-{content_hash}"


def is_keys(name: str) -> bool:
    """Whether a Secret's name is that of one which a Job writes to (`Identity.keys`)."""
    return _KEYS_NAME.match(name) is not None


def login_key(content_hash: str) -> str:
    """Key of the Secret that holds the passwords which the Job of a request is to set."""
    return f"login-{content_hash}"


def parse_login_keys(keys: Iterable[str]) -> list[str]:
    """Give the keys of Secrets with passwords of a request among some keys."""
    return sorted(filter(_LOGIN_KEY.match, keys))


def provision_key(content_hash: str, attempt: int) -> str:
    """Key of a provision Job. Its content is in the key because a key's object keeps its name for ever."""
    return f"provision-{content_hash}-{attempt}"


def parse_request_keys(keys: Iterable[str]) -> list[str]:
    """Give the hashes of the request documents among some keys."""
    return sorted(match[1] for match in map(_REQUEST_KEY.match, keys) if match)


def parse_provision_key(key: str) -> tuple[str, int] | None:
    """Give hash and attempt of a provision Job's key, None for any other key."""
    match = _PROVISION_KEY.match(key)
    return (match[1], int(match[2])) if match else None


@lru_cache(maxsize=1024)
def placed(key: str, namespace: str, *more: str) -> str:
    """Put a short hash of the provider's job namespace, and of `more`, into a key whose object would move with it.

    Crossplane keeps the observed name *and namespace* of a key: under the same key the object would stay where it was.
    """
    return f"{key}-{digest('namespace', namespace, *more, length=6)}"


def is_ours(key: str) -> bool:
    """Whether a resource key is one that this function writes; labels can be changed by others, keys cannot."""
    return _OUR_KEY.match(key) is not None


def is_cnpg(key: str) -> bool:
    """Whether a resource key is that of an object, or a Secret, for roles that CloudNativePG makes."""
    return is_ours(key) and _CNPG_KEY.match(key) is not None


def is_aws(key: str) -> bool:
    """Whether a resource key is that of a managed resource of the AWS provider."""
    return key.startswith("aws-") and is_ours(key)


def aws_key(kind: str, part: str = "") -> str:
    """Give the stem of a managed resource's key: `aws-bucket`, `aws-user-rw-a`."""
    return f"aws-{kind}-{part}" if part else f"aws-{kind}"


def probe_key(content_hash: str) -> str:
    """Key of the Job that gives a provider's first answer."""
    return f"probe-{content_hash}"


def parse_job_key(key: str) -> tuple[str, str] | None:
    """Give command and hash of a Job's key, None for any other key."""
    match = _JOB_KEY.match(key)
    return (match[1], match[2]) if match else None


def delivered(kind: str, namespace: str, name: str) -> str:
    """Name of the Object that delivers an object: it has no namespace, and kinds share names."""
    return bounded(f"{name}-{digest('object', kind, namespace, name, length=8)}")


def job(id12: str, content_hash: str, attempt: int) -> str:
    """Name of a provision Job."""
    return f"mem-{id12}-{content_hash}-{attempt}"


def request(id12: str, content_hash: str) -> str:
    """Name of the Secret with a Memory's request document."""
    return f"mem-{id12}-{content_hash}"


def passwords(id12: str, content_hash: str) -> str:
    """Name of the Secret with the passwords that go with a request document."""
    return f"mem-{id12}-{content_hash}-login"


def report(id12: str) -> str:
    """Name of the ConfigMap that a Memory's Jobs answer in, of its Role and of its RoleBinding."""
    return f"mem-{id12}-report"


def maintenance(id12: str) -> str:
    """Name of the CronJob that looks after one Memory's data."""
    return f"mem-{id12}-maintenance"


@lru_cache(maxsize=1024)
def hourly(whose: str) -> str:
    """Give a cron schedule of once an hour, at a minute that follows from whose it is: not all begin at once."""
    return f"{int(digest('hourly', whose), 16) % 60} * * * *"


def cnpg_object(role: str) -> str:
    """Name the object of CloudNativePG that stands for a role, or a database, of a Memory."""
    return role.replace("_", "-")


def cnpg_secret(role: str) -> str:
    """Name the Secret with a role's verifier."""
    return f"{cnpg_object(role)}-verifier"


def job_login(role: str, key: str) -> str:
    """Name the Secret that a Memory's Jobs log in with; its key's hash says whose, and which, password it is."""
    return f"{cnpg_object(role)}-{key}"


def aws_secret(stem: str, key: str) -> str:
    """Name an access key, and the Secret that it is written to; its key's hash says which epoch's it is."""
    return f"{stem}-{key.removeprefix('aws-key-')}"


def role_stamp(identity: str, database: str) -> str:
    """Give the comment of a Memory's roles: which Memory's they are, told by a hash that nobody can search for."""
    return f"memory:{digest('roles', identity, database, length=32)}"


def provider_object(provider: str, *suffix: str) -> str:
    """Name of an object that belongs to a provider: ServiceAccount, probe, report, reaper, maintenance."""
    return "-".join([f"memory-provider-{digest('provider', provider)}", *suffix])


def binding(owner: str) -> str:
    """Name of the connection Secret of a claim (or of a composite without one)."""
    return bounded(f"{owner}-memory", _NAME_MAX - len("-reader"))


def binding_reader(secret: str) -> str:
    """Name of the read-only Secret beside a connection Secret."""
    return f"{secret}-reader"


# What makes CloudNativePG take notice of a Secret, and look at one of its objects again.
LABEL_RELOAD = "cnpg.io/reload"
LABEL_ATTEMPT = f"{GROUP}/attempt"

LABEL_KEYS = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app.kubernetes.io/managed-by",
    f"{GROUP}/provider",
    f"{GROUP}/claim-namespace",
    f"{GROUP}/claim-name",
)


def labels(component: str, *, provider: str, claim: tuple[str, str] | None) -> dict[str, str]:
    """Labels of every composed object. `claim` is namespace and name."""
    made = {
        "app.kubernetes.io/name": "memory",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": MANAGER,
        f"{GROUP}/provider": bounded(provider, _LABEL_MAX),
    }
    if claim:
        made[f"{GROUP}/claim-namespace"] = claim[0]
        made[f"{GROUP}/claim-name"] = bounded(claim[1], _LABEL_MAX)
    return made
