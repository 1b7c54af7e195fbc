"""Which backend a binding leads to."""

from importlib import import_module

from memory_client.binding import Binding
from memory_client.errors import MemoryClientError, Unsupported
from memory_client.stores.base import Store

# A binding's `type`: module, class, and the extra of this distribution that brings what it imports.
BACKENDS = {
    "postgresql": ("postgres", "PostgresStore", "postgres"),
    "redis": ("redis", "RedisStore", "redis"),
    "s3": ("s3", "S3Store", "s3"),
}


def open_store(binding: Binding, *, timeout: float, connections: int) -> Store:
    """Makes a store, which need not connect before it is asked for something.

    Args:
        binding: Where to, and as whom.
        timeout: Seconds that a call waits for a connection, and for an answer.
        connections: How many calls may be under way at once.

    Raises:
        Unsupported: There is no client for this type.
        MemoryClientError: What the client imports is not installed.
    """
    if binding.type not in BACKENDS:
        msg = f'there is no client for a backend of type "{binding.type}": this one knows {", ".join(BACKENDS)}'
        raise Unsupported(msg)
    module, name, extra = BACKENDS[binding.type]
    try:
        found = import_module(f"memory_client.stores.{module}")
    except ImportError as error:
        msg = f'{error}: to use a backend of type {binding.type}, pip install "memory-client[{extra}]"'
        raise MemoryClientError(msg) from error
    store: Store = getattr(found, name)(binding, timeout=timeout, connections=connections)
    return store
