"""PostgreSQL: a schema, a database, or the rows of a shared schema for each Memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from function import names
from function.backends import checks
from function.backends.base import CONTRACT, Cluster, Operator, Place, vectors
from function.errors import InvalidSpec
from function.lazy import cached_property
from function.resources import cnpg

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.credentials import Login, RootKey
    from function.model import ClaimedProviders, Memory, NamespacedRef, Postgres
    from function.names import Identity
    from function.state import Provider

_PATH = "spec.postgres"


@dataclass(frozen=True)
class PostgresBackend:
    """A provider of type postgres; what a Memory has there for itself is its `isolation`."""

    provider: Provider

    @cached_property
    def spec(self) -> Postgres:
        """The provider's block for this type."""
        if self.provider.spec.postgres is None:
            raise InvalidSpec(_PATH, 'a provider of type "postgres" needs this block: add it')
        return self.provider.spec.postgres

    def check(self, allowed: ClaimedProviders) -> None:
        """Refuse what cannot work (see `Backend.check`); one rule a line."""
        self._check_server()
        if self.isolation == "Database":
            checks.no_adoptions(self.provider, "with isolation Database")
        checks.service_account(self.provider, allowed)
        checks.references(self.provider, self._refs(), allowed)
        if self.spec.cluster_ref and self._namespace_of(self.spec.cluster_ref) != self.namespace:
            problem = (
                f'namespace "{self.namespace}" differs from that of {_PATH}.clusterRef, '
                f'"{self._namespace_of(self.spec.cluster_ref)}": Jobs mount Secrets of both, so keep them together'
            )
            field = f"{_PATH}.connectionSecret.namespace"
            raise InvalidSpec(field, problem)

    def check_delivery(self, delivery: Literal["Direct", "Object"]) -> None:
        """Refuse CNPG with Object: the Jobs' own login is a Secret with a plaintext password there."""
        if delivery == "Object" and self.manages_by == "CNPG":
            field = f"{_PATH}.roleManagement"
            problem = (
                "CNPG does not go with delivery Object: its Jobs log in with a password that would be readable in an "
                "Object; name an admin's Secret in connectionSecret and write SQL, or use a Composition with delivery "
                "Direct"
            )
            raise InvalidSpec(field, problem)

    def _check_server(self) -> None:
        spec = self.spec
        if (spec.cluster_ref is None) == (spec.host is None):
            found = "both are set: remove one" if spec.host else "neither is set: write one"
            problem = f"clusterRef (a CloudNativePG Cluster) or host (any other PostgreSQL): {found}"
            raise InvalidSpec(_PATH, problem)
        if self.manages_by == "SQL":
            _ = self._admin
        elif spec.connection_secret or spec.cluster_ref is None:
            field = f"{_PATH}.roleManagement"
            problem = "CNPG goes with a clusterRef and without a connectionSecret: change these, or write SQL"
            raise InvalidSpec(field, problem)

    def _refs(self) -> list[tuple[str, NamespacedRef]]:
        refs = [
            (f"{_PATH}.clusterRef", self.spec.cluster_ref),
            (f"{_PATH}.connectionSecret", self.spec.connection_secret),
        ]
        return [(path, ref) for path, ref in refs if ref]

    def _namespace_of(self, ref: NamespacedRef) -> str:
        return checks.namespace_of(self.provider, ref)

    @cached_property
    def _admin(self) -> NamespacedRef:
        if self.spec.connection_secret is None:
            field = f"{_PATH}.connectionSecret"
            problem = (
                "without it there is no admin login for the Jobs: name a Secret with the keys username and password "
                "of a role that is CREATEROLE, not superuser, and has CREATE on the database"
            )
            raise InvalidSpec(field, problem)
        return self.spec.connection_secret

    @cached_property
    def namespace(self) -> str:
        """That of the admin's Secret; of the Cluster, where there is none."""
        cluster = self.spec.cluster_ref
        if self.manages_by == "CNPG" and cluster:
            return self._namespace_of(cluster)
        return self._namespace_of(self._admin)

    @property
    def admin_secret(self) -> str | None:
        """Name of the admin's Secret."""
        return self._admin.name if self.manages_by == "SQL" else None

    cloud = None
    searches = ""

    @property
    def operator(self) -> Operator | None:
        """CloudNativePG, where it makes roles."""
        advice = (
            "so no CloudNativePG of 1.30 or later that could make roles: upgrade the operator, or name an admin's "
            "Secret in spec.postgres.connectionSecret"
        )
        return Operator({names.CNPG_ROLES: cnpg.ROLES_CRD}, advice) if self.cluster else None

    @property
    def cluster(self) -> Cluster | None:
        """The Cluster whose operator makes roles and databases, None where Jobs do."""
        spec = self.spec
        if self.manages_by == "SQL" or spec.cluster_ref is None:
            return None
        limit = -1 if spec.connection_limit is None else spec.connection_limit
        return Cluster(spec.cluster_ref.name, limit, spec.extension_schema if spec.enable_pg_vector else None)

    @property
    def manages_by(self) -> Literal["SQL", "CNPG"]:
        """Who makes roles and databases; without an admin login only CloudNativePG can."""
        derived: Literal["SQL", "CNPG"] = "CNPG" if self.spec.cluster_ref and not self.spec.connection_secret else "SQL"
        return self.spec.role_management or derived

    @property
    def isolation(self) -> Literal["Schema", "Database", "Dataset"]:
        """What a Memory has for itself."""
        if self.manages_by == "CNPG":
            return "Database"
        return self.spec.isolation or ("Dataset" if self.spec.schema_ else "Schema")

    image = None
    config_secret = None
    takes_passwords = False
    shares_login = False

    def caveat(self, _memory: Memory) -> str:
        """Whatever a Memory may ask for, PostgreSQL does."""
        return ""

    def verifier(self, login: Login, key: RootKey) -> str:
        """Give a SCRAM-SHA-256 verifier."""
        return login.verifier(key)

    def home_of(self, _identity: Identity, memory: Memory) -> str:
        """Name the schema."""
        return memory.dataset.schema_

    def request_of(self, _identity: Identity, _memory: Memory) -> dict[str, Any]:
        """Nothing: schema and dataset are what every request says."""
        return {}

    def database_of(self, identity: Identity) -> str:
        """Name the database that a Memory's home is in: the provider's, or with isolation Database its own."""
        return identity.roles(self.spec.database) if self.isolation == "Database" else self.spec.database

    @cached_property
    def place(self) -> Place:
        """The primary's service for a CloudNativePG cluster, otherwise what the spec says."""
        cluster = self.spec.cluster_ref
        if cluster:
            return Place(f"{cluster.name}-rw.{self._namespace_of(cluster)}.svc", 5432, self.spec.database)
        return Place(self.spec.host or "", self.spec.port, self.spec.database)

    @cached_property
    def entrance(self) -> Place:
        """The pooler where there is one; it serves the same databases."""
        pooler = self.spec.pooler
        return Place(pooler.host, pooler.port, self.place.database) if pooler else self.place

    @cached_property
    def ca(self) -> str | None:
        """The spec's CA, or for a cluster the one that the probe published (see `Backend.ca`)."""
        if self.ca_secret is None:
            return self.spec.ca_bundle
        published = self.provider.status.get("caBundle")
        if not published:
            missing = "its first probe, which publishes the cluster's CA, has not answered yet"
            raise LookupError(missing)
        return str(published)

    @property
    def ca_secret(self) -> str | None:
        """CloudNativePG's own CA Secret."""
        cluster = self.spec.cluster_ref
        if cluster is None or self.spec.ssl_mode == "disable":
            return None
        return f"{cluster.name}-ca"

    def conflict(self, memory: Memory) -> str | None:
        """A shared schema is one, and both sides name it."""
        shared = self.spec.schema_ if self.isolation == "Dataset" else None
        if shared and memory.dataset.schema_ != shared:
            return (
                f'dataset.schema "{memory.dataset.schema_}" differs from provider "{self.provider.title}" schema '
                f'"{shared}": set one of them'
            )
        return None

    def refusal(self, memory: Memory) -> str | None:
        """Embeddings need pgvector."""
        if memory.embeddings.enabled and not self.spec.enable_pg_vector:
            return (
                f'spec.embeddings.enabled: provider "{self.provider.title}" has no pgvector '
                "(postgres.enablePgVector is false): set embeddings.enabled to false, or choose another provider"
            )
        return None

    def denial(self, memory: Memory) -> str | None:
        """Roles of others are the platform team's to give; which ones it gives is not told, others may use them."""
        for field, role in (("readerRole", memory.access.reader_role), ("writerRole", memory.access.writer_role)):
            if role and role not in (self.spec.grantable_roles or ()):
                return (
                    f'spec.access.{field}: "{role}" is not among the postgres.grantableRoles of provider '
                    f'"{self.provider.title}": leave it out, name a role that the provider lists, or ask its owner '
                    f'to add "{role}" there'
                )
        return None

    def request(self) -> dict[str, Any]:
        """Give the `provider` block of the request document."""
        spec, place = self.spec, self.place
        return {
            "type": "postgres",
            "name": self.provider.name,
            "uid": self.provider.uid,
            "host": place.host,
            "port": place.port,
            "database": place.database,
            "sslMode": spec.ssl_mode,
            "enablePgVector": spec.enable_pg_vector,
            "extensionSchema": spec.extension_schema,
            "connectionLimit": spec.connection_limit,
            "statementTimeout": spec.statement_timeout,
            "isolation": self.isolation,
            "roleManagement": self.manages_by,
        }

    def binding(self, identity: Identity, memory: Memory, username: str, password: str) -> Mapping[str, str]:
        """Give the connection Secret's entries; `endpoint, database, schema, username, password` are the promise."""
        place, ca, database = self.entrance, self.ca, self.database_of(identity)
        entries = {
            "type": "postgresql",
            "provider": self.provider.title,
            "endpoint": place.endpoint,
            "host": place.host,
            "port": str(place.port),
            "database": database,
            "schema": memory.dataset.schema_,
            "username": username,
            "password": password,
            "uri": self._uri(database, username, password, has_ca=ca is not None),
            "dataset": memory.dataset.name,
            "contract": CONTRACT,
            **vectors(memory),
        }
        if ca:
            entries |= {"sslmode": self.spec.ssl_mode, "ca.crt": ca, "certificates": ca}
        return entries

    def _uri(self, database: str, username: str, password: str, *, has_ca: bool) -> str:
        mode = self.spec.ssl_mode
        query = f"sslmode={mode}"
        if mode == "verify-full" and not has_ca:
            # Without a file of CAs libpq would refuse to verify; the public ones are meant. It refuses these with
            # verify-ca: anybody can get a certificate from a public CA.
            query += "&sslrootcert=system"
        userinfo = f"{quote(username, safe='')}:{quote(password, safe='')}"
        return f"postgresql://{userinfo}@{self.entrance.endpoint}/{quote(database, safe='')}?{query}"
