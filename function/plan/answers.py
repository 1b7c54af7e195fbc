"""What Jobs answer: one key of the report ConfigMap, as observed.

Whoever may write that ConfigMap may write anything, so only what the composite's status can hold is believed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_MESSAGE = 2000


class Said(BaseModel):
    """Base of what is read from a report: a later image may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class Module(Said):
    """An installed module and its newest migration."""

    name: Annotated[str, Field(max_length=63)]
    version: Annotated[str, Field(max_length=63, coerce_numbers_to_str=True)]


class Server(Said):
    """What a backend is."""

    version: Annotated[str, Field(max_length=253)] = ""
    capabilities: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=64)] = ()


class Answer(Said):
    """An answer, or the empty one when there is none for the hash in question.

    Attributes:
        code: Exit code, None without an answer.
        message: A sentence for the user.
        modules: Installed modules.
        server: What the backend is.
        ca_bundle: The backend's CA as PEM text, "" without one.
    """

    hash: str = ""
    code: Annotated[int | None, Field(ge=0, le=255, strict=True)] = None
    message: str = ""
    modules: Annotated[tuple[Module, ...], Field(max_length=64)] = ()
    server: Server | None = None
    ca_bundle: Annotated[str, Field(max_length=65536)] = ""

    @field_validator("message")
    @classmethod
    def _short(cls, message: str) -> str:
        return message[:_LONGEST_MESSAGE]

    @field_validator("modules")
    @classmethod
    def _once_each(cls, modules: tuple[Module, ...]) -> tuple[Module, ...]:
        return tuple({each.name: each for each in modules}.values())

    @classmethod
    def read(
        cls,
        observed: Mapping[str, Any] | None,
        key: Literal["provision", "probe", "reap", "maintain"],
        content_hash: str,
    ) -> Self:
        """Read the answer to one request; another request's answer, or one that cannot be read, is none."""
        text = ((observed or {}).get("data") or {}).get(key)
        try:
            answer = cls.model_validate_json(text) if text else cls()
        except ValidationError:
            return cls()
        return answer if answer.hash == content_hash else cls()
