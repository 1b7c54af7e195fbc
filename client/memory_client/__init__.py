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
from memory_client.types import Appended, Capabilities, Embedding, Event, Hit, Status, Value

__all__ = [
    "AccessDenied",
    "Appended",
    "AsyncMemory",
    "BindingError",
    "Capabilities",
    "DimensionMismatch",
    "Embedding",
    "Event",
    "Hit",
    "Memory",
    "MemoryClientError",
    "OnHold",
    "Status",
    "Unavailable",
    "Unsupported",
    "Value",
    "VersionConflict",
]
