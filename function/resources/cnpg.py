"""CloudNativePG's own kinds: a role and a database as objects, which its operator makes on the server.

A built object and an observed one are compared, so a field is written when it is not empty (the operator writes the
object again without those that are), and then also when it says what is the default (the API server writes these).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from function import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.resources.metadata import Owner

API_VERSION = "postgresql.cnpg.io/v1"
# The cluster-scoped object whose presence says that the operator knows these kinds (1.30 and later).
ROLES_CRD = "databaseroles.postgresql.cnpg.io"
Reclaim = Literal["delete", "retain"]


@dataclass(frozen=True)
class Role:
    """A role as it should be on the server.

    Attributes:
        name: Its name there.
        member_of: Roles whose rights it has.
        reclaim: What becomes of it when its object goes.
        secret: Secret with its verifier, None for a role that nobody logs in as.
        connection_limit: How many connections it may have at once, -1 for no limit.
    """

    name: str
    member_of: tuple[str, ...] = ()
    reclaim: Reclaim = "retain"
    secret: str | None = None
    connection_limit: int = -1


def role(owner: Owner, cluster: str, wanted: Role, comment: str) -> dict[str, Any]:
    """Give a DatabaseRole; one that nobody logs in as has no password either."""
    access: dict[str, Any] = {"disablePassword": True}
    if wanted.secret:
        access = {"login": True, "passwordSecret": {"name": wanted.secret}}
    if wanted.member_of:
        access["inRoles"] = list(wanted.member_of)
    return {
        "apiVersion": API_VERSION,
        "kind": "DatabaseRole",
        "metadata": owner.metadata(names.cnpg_object(wanted.name), "role"),
        "spec": {
            "cluster": {"name": cluster},
            "name": wanted.name,
            "comment": comment,
            "connectionLimit": wanted.connection_limit,
            "databaseRoleReclaimPolicy": wanted.reclaim,
            **access,
        },
    }


@dataclass(frozen=True)
class Database:
    """A database as it should be on the server.

    Attributes:
        name: Its name there.
        owner: The role that it belongs to.
        vector_schema: The schema that pgvector is in, None for a database without it.
        reclaim: What becomes of it when its object goes.
    """

    name: str
    owner: str
    vector_schema: str | None
    reclaim: Reclaim


def database(owner: Owner, cluster: str, wanted: Database) -> dict[str, Any]:
    """Give a Database. A schema that every database has is not the owner's to be given."""
    spec: dict[str, Any] = {
        "cluster": {"name": cluster},
        "name": wanted.name,
        "owner": wanted.owner,
        "databaseReclaimPolicy": wanted.reclaim,
    }
    if wanted.vector_schema:
        spec["extensions"] = [{"name": "vector", "schema": wanted.vector_schema}]
        if wanted.vector_schema != "public":
            spec["schemas"] = [{"name": wanted.vector_schema, "owner": wanted.owner}]
    return {
        "apiVersion": API_VERSION,
        "kind": "Database",
        "metadata": owner.metadata(names.cnpg_object(wanted.name), "database"),
        "spec": spec,
    }


def attempted(body: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Give an object with another label, which makes the operator look at it now and not in half a minute."""
    if not number:
        return dict(body)
    metadata = body["metadata"]
    labels = {**metadata["labels"], names.LABEL_ATTEMPT: str(number)}
    return {**body, "metadata": {**metadata, "labels": labels}}


def attempts(observed: Mapping[str, Any]) -> int:
    """Read how often the operator was asked to look again."""
    number = (observed["metadata"].get("labels") or {}).get(names.LABEL_ATTEMPT, "")
    return int(number) if number.isdecimal() else 0
