"""One module a backend type; all of them behind the protocol in `base`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from function.backends.custom import CustomBackend
from function.backends.postgres import PostgresBackend
from function.backends.redis import RedisBackend
from function.backends.s3 import S3Backend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from function.backends.base import Backend
    from function.state import Provider

_TYPES: Mapping[str, Callable[[Provider], Backend]] = {
    "postgres": PostgresBackend,
    "redis": RedisBackend,
    "s3": S3Backend,
    "custom": CustomBackend,
}


def backend_of(provider: Provider) -> Backend:
    """Give the backend that a provider describes."""
    return _TYPES[provider.spec.type](provider)
