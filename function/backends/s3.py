"""S3: a prefix of a shared bucket, or a bucket, and users for each Memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from function import names
from function.backends import checks
from function.backends.base import CONTRACT, Operator, Place, vectors
from function.errors import InvalidSpec
from function.lazy import cached_property
from function.resources import aws

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.credentials import Login, RootKey
    from function.model import S3, ClaimedProviders, Memory, Model
    from function.names import Identity
    from function.state import Provider

_PATH = "spec.s3"


@dataclass(frozen=True)
class S3Backend:
    """A provider of type s3."""

    provider: Provider

    image = None
    config_secret = None
    cluster = None
    ca_secret = None
    searches = "searches are exact: a client reads all embeddings"

    @cached_property
    def spec(self) -> S3:
        """The provider's block for this type."""
        if self.provider.spec.s3 is None:
            raise InvalidSpec(_PATH, 'a provider of type "s3" needs this block: add it')
        return self.provider.spec.s3

    def check(self, allowed: ClaimedProviders) -> None:
        """Refuse what cannot work (see `Backend.check`); one rule a line."""
        self._check_place()
        self._check_users()
        self._check_versions()
        self._check_cloud()
        checks.no_adoptions(self.provider, "on S3")
        checks.service_account(self.provider, allowed)
        checks.references(self.provider, [(f"{_PATH}.adminSecret", self.spec.admin_secret)], allowed)

    def _check_place(self) -> None:
        spec = self.spec
        if (spec.bucket is None) == (spec.bucket_prefix is None):
            found = "both are set: remove one" if spec.bucket else "neither is set: write one"
            problem = f"bucket (one for all Memories) or bucketPrefix (a bucket for each): {found}"
            raise InvalidSpec(_PATH, problem)
        try:
            checks.address(self.url)
        except ValueError:
            field = f"{_PATH}.endpoint"
            raise InvalidSpec(field, "its port is none: write a URL such as https://s3.example.org:443") from None

    def _check_users(self) -> None:
        spec = self.spec
        if spec.endpoint is None and spec.users != "AWS":
            field = f"{_PATH}.endpoint"
            problem = f"users {spec.users} needs a server of its own: write its URL, such as https://s3.example.org"
            raise InvalidSpec(field, problem)
        if spec.provider_config_ref and spec.users != "AWS":
            field = f"{_PATH}.providerConfigRef"
            problem = f"it has no effect with users {spec.users}: remove it, or write users: AWS"
            raise InvalidSpec(field, problem)

    def _check_versions(self) -> None:
        spec = self.spec
        for name, value in (("objectLock", spec.object_lock), ("replication", spec.replication)):
            if value and not spec.versioning:
                field = f"{_PATH}.{name}"
                raise InvalidSpec(field, "S3 has it for buckets with versions only: set versioning to true")
        if spec.encryption and spec.encryption.kms_key_id and spec.encryption.algorithm != "aws:kms":
            field = f"{_PATH}.encryption.kmsKeyId"
            raise InvalidSpec(field, 'it has no effect with algorithm AES256: write "aws:kms", or remove it')

    def _check_cloud(self) -> None:
        """A tenant who chose a bucket here would get rights on it from whoever has the cluster's own credentials."""
        if self.cloud and self.provider.claim:
            field = f"{_PATH}.users"
            problem = (
                '"AWS" is refused: users are made with credentials of the cluster, so only a platform team\'s '
                "XMemoryProvider may ask for that; ask the platform team for such a provider, or write RGW or Shared"
            )
            raise InvalidSpec(field, problem)

    def check_delivery(self, delivery: Literal["Direct", "Object"]) -> None:
        """Refuse Object where somebody other than the app must see a key: it would be readable there."""
        if delivery == "Object" and (self.takes_passwords or self.shares_login):
            field = f"{_PATH}.users"
            problem = (
                f"{self.spec.users} does not go with delivery Object: its Jobs are given keys by a Secret, which would "
                "be readable in an Object; use a Composition with delivery Direct"
            )
            raise InvalidSpec(field, problem)

    @property
    def isolation(self) -> str:
        """What a Memory has for itself."""
        return "Prefix" if self.spec.bucket else "Bucket"

    @property
    def manages_by(self) -> str:
        """Who makes users."""
        return self.spec.users

    @property
    def takes_passwords(self) -> bool:
        """Signatures are made with the secret key itself, so Ceph must know it."""
        return self.spec.users == "RGW"

    @property
    def shares_login(self) -> bool:
        """Whether nobody makes users."""
        return self.spec.users == "Shared"

    @cached_property
    def namespace(self) -> str:
        """That of the admin's Secret."""
        return checks.namespace_of(self.provider, self.spec.admin_secret)

    @property
    def admin_secret(self) -> str:
        """Name of the admin's Secret; its keys are access key and secret key."""
        return self.spec.admin_secret.name

    @property
    def cloud(self) -> S3 | None:
        """The spec, where the AWS provider makes users."""
        return self.spec if self.spec.users == "AWS" else None

    @property
    def operator(self) -> Operator | None:
        """The AWS provider, of which each service is a package."""
        if self.cloud is None:
            return None
        buckets = {} if self.spec.bucket else {names.AWS_BUCKETS: aws.BUCKETS_CRD}
        advice = (
            "so no upbound AWS provider that could make users or buckets: install its packages for IAM and S3, or "
            "write another spec.s3.users"
        )
        return Operator({names.AWS_USERS: aws.USERS_CRD, **buckets}, advice)

    @property
    def url(self) -> str:
        """The server's URL; Amazon's, where the spec names none."""
        return self.spec.endpoint or f"https://s3.{self.spec.region}.amazonaws.com"

    @cached_property
    def place(self) -> Place:
        """The server, and the bucket or the prefix of buckets."""
        host, port = checks.address(self.url)
        return Place(host, port, self.spec.bucket or self.spec.bucket_prefix or "", self.url)

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
        """One login for all is no read-only one, and cannot be taken from one Memory alone."""
        if self.shares_login and memory.access.read_only_secret:
            return (
                f'spec.access.readOnlySecret: provider "{self.provider.title}" hands out one login that may do '
                "everything (s3.users is Shared): set it to false, or choose a provider that makes users"
            )
        return None

    def denial(self, memory: Memory) -> str | None:
        """S3 has no groups here."""
        return checks.no_roles_of_others(self.provider, memory)

    def caveat(self, _memory: Memory) -> str:
        """One login for all isolates nobody."""
        if not self.shares_login:
            return ""
        return (
            f'every Memory of provider "{self.provider.title}" has the same keys (s3.users is Shared), so nothing '
            "keeps them apart, and credentials.epoch changes nothing"
        )

    def database_of(self, identity: Identity) -> str:
        """Name the bucket."""
        return self.spec.bucket or f"{self.spec.bucket_prefix}-{identity.inside(self.place.database)}"

    def home_of(self, identity: Identity, memory: Memory) -> str:
        """Name the prefix of every key, also in a bucket of its own: clients need not tell the two apart."""
        return f"{memory.dataset.name}-{identity.inside(self.place.database)}/"

    def verifier(self, _login: Login, _key: RootKey) -> None:
        """S3 takes nothing in a secret key's place."""

    def request(self) -> dict[str, Any]:
        """Give the `provider` block of the request document."""
        spec = self.spec
        options: dict[str, Model | None] = {
            "objectLock": spec.object_lock,
            "lifecycle": spec.lifecycle,
            "encryption": spec.encryption,
            "replication": spec.replication,
        }
        return {
            "type": "s3",
            "name": self.provider.title,
            "uid": self.provider.uid,
            "endpoint": self.url,
            "region": spec.region,
            "forcePathStyle": bool(spec.endpoint) if spec.force_path_style is None else spec.force_path_style,
            "bucket": spec.bucket,
            "bucketPrefix": spec.bucket_prefix,
            "users": spec.users,
            "versioning": spec.versioning,
            **{name: option.written if option else None for name, option in options.items()},
        }

    def request_of(self, identity: Identity, memory: Memory) -> dict[str, Any]:
        """Give the prefix, and where the admin's keys go."""
        keys = {"namespace": self.namespace, "name": identity.keys} if self.shares_login else None
        return {"prefix": self.home_of(identity, memory), "keys": keys}

    def binding(self, identity: Identity, memory: Memory, username: str, password: str) -> Mapping[str, str]:
        """Give the connection Secret's entries: access key and secret key are user name and password."""
        place, bucket, prefix = self.place, self.database_of(identity), self.home_of(identity, memory)
        entries = {
            "type": "s3",
            "provider": self.provider.title,
            "endpoint": place.endpoint,
            "host": place.host,
            "port": str(place.port),
            "database": bucket,
            "schema": prefix,
            "region": self.spec.region,
            "username": username,
            "password": password,
            "uri": f"s3://{bucket}/{prefix}",
            "dataset": memory.dataset.name,
            "contract": CONTRACT,
            **vectors(memory),
        }
        if self.ca:
            entries |= {"ca.crt": self.ca, "certificates": self.ca}
        return entries
