"""What `Home` wants of objects by which somebody else makes logins, and what they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from function.conditions import Condition
    from function.state import Resource


class Managed(Protocol):
    """The objects of one Memory, as they should be now."""

    @property
    def is_frozen(self) -> bool:
        """Whether all stays as it is, for a Job with another request is at work."""
        ...

    @property
    def is_begun(self) -> bool:
        """Whether the first of them are there; what can wait does until then."""
        ...

    @property
    def is_applied(self) -> bool:
        """Whether a Job that starts now finds everything."""
        ...

    @property
    def has_failed(self) -> bool:
        """Whether one of them cannot be made, however often it is asked for."""
        ...

    @property
    def login_secret(self) -> str | None:
        """Name of the Secret that Jobs log in with, None where they have the admin's."""
        ...

    def resources(self) -> dict[str, Resource]:
        """Every object whose turn it is, and every one that is there."""
        ...

    def waiting(self) -> Condition:
        """Say what is not there yet, and why not."""
        ...
