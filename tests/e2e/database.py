"""The guide's database, asked as its superuser: what no Memory's login may see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.kube import CNPG

if TYPE_CHECKING:
    from tests.e2e.kube import Kube

NAME, NAMESPACE = "memory-db", "databases"


def psql(kube: Kube, *arguments: str) -> list[str]:
    """Give the kubectl arguments that run `psql` beside the server, in the database of the Memories."""
    primary: str = kube.get(CNPG, NAME, NAMESPACE)["status"]["currentPrimary"]
    where = ["exec", "-i", "-n", NAMESPACE, primary, "-c", "postgres"]
    return [*where, "--", "psql", "-Atq", "-d", "app", *arguments]


def ask(kube: Kube, query: str) -> str:
    """Give what a query answers, in psql's bare form."""
    return kube(*psql(kube, "-c", query)).strip()
