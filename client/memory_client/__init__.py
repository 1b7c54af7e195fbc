"""Memory for AI agents: one client for every backend that a binding may lead to."""

from memory_client.aio import AsyncMemory
from memory_client.errors import (
    AccessDenied,
    BindingError,
    DimensionMismatch,
    MemoryClientError,
    OnHold,
    Unavailable,
    Unsupported,
    VersionConflict,
)
from memory_client.memory import Memory
from memory_client.queue import Conflict, Merged, OfflineQueue
from memory_client.types import Appended, Capabilities, Embedding, Event, Hit, Status, Value

__all__ = [
    "AccessDenied",
    "Appended",
    "AsyncMemory",
    "BindingError",
    "Capabilities",
    "Conflict",
    "DimensionMismatch",
    "Embedding",
    "Event",
    "Hit",
    "Memory",
    "MemoryClientError",
    "Merged",
    "OfflineQueue",
    "OnHold",
    "Status",
    "Unavailable",
    "Unsupported",
    "Value",
    "VersionConflict",
]
