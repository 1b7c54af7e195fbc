"""What every provider's spec is held to, whatever its type."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from function.errors import InvalidSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from function.model import ClaimedProviders, Memory, NamespacedRef
    from function.state import Provider

_HTTPS, _HTTP = 443, 80


def namespace_of(provider: Provider, ref: NamespacedRef) -> str:
    """Give the namespace of what a provider refers to, "" where nobody says."""
    return ref.namespace or (provider.claim[0] if provider.claim else "")


def service_account(provider: Provider, allowed: ClaimedProviders) -> None:
    """Refuse an account that a tenant may not run as.

    Raises:
        InvalidSpec: With the path of the field.
    """
    account = provider.spec.jobs.service_account_name
    if account and provider.claim and not allowed.allow_service_accounts:
        problem = f'"{account}" is refused: only a platform team\'s XMemoryProvider may name one; leave it out'
        field = "spec.jobs.serviceAccountName"
        raise InvalidSpec(field, problem)


def references(provider: Provider, refs: Iterable[tuple[str, NamespacedRef]], allowed: ClaimedProviders) -> None:
    """Refuse references, each with its path, that nobody can follow, or that reach further than a tenant may.

    Raises:
        InvalidSpec: With the path of the field.
    """
    claim = provider.claim
    for path, ref in refs:
        if claim is None and ref.namespace is None:
            field = f"{path}.namespace"
            raise InvalidSpec(field, "a provider without a claim has no namespace of its own: set it")
        if claim and ref.namespace not in {None, claim[0]} and not allowed.allow_other_namespaces:
            problem = (
                f'"{ref.namespace}" is refused: a claimed provider reaches its own namespace only; '
                f'write "{claim[0]}" or leave it out'
            )
            field = f"{path}.namespace"
            raise InvalidSpec(field, problem)


def no_adoptions(provider: Provider, named: str) -> None:
    """Refuse to hand over homes that are named after their Memories.

    Raises:
        InvalidSpec: There is one to hand over.
    """
    if provider.spec.adoptions:
        field = "spec.adoptions"
        problem = (
            f"a home cannot be handed over {named}, for each is named after its Memory: "
            "leave it out, and let the new Memory copy what it needs"
        )
        raise InvalidSpec(field, problem)


def no_roles_of_others(provider: Provider, memory: Memory) -> str | None:
    """Say that a backend has no groups that could receive a Memory's rights, None when none are asked for."""
    for field, role in (("readerRole", memory.access.reader_role), ("writerRole", memory.access.writer_role)):
        if role:
            return (
                f'spec.access.{field}: provider "{provider.title}" is of type "{provider.spec.type}", which knows no '
                f'roles of others, so "{role}" cannot receive rights: leave it out'
            )
    return None


def address(endpoint: str) -> tuple[str, int]:
    """Give host and port of a URL or of `host:port`; a port that is not said is that of the scheme, 0 without one.

    Raises:
        ValueError: The port is none.
    """
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    return parts.hostname or "", parts.port or {"https": _HTTPS, "http": _HTTP}.get(parts.scheme, 0)
