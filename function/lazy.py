"""`cached_property` as Python 3.12 has it: that of 3.11 takes a lock, which costs more than much of what is kept by it.

Models of pydantic take the one of `functools` only.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property
else:

    class cached_property:  # noqa: N801 - stands in for one of that name
        """Calls its method once for each object, whose dictionary keeps the value and is asked first from then on."""

        def __init__(self, method: Any) -> None:
            self._method = method
            self.__doc__ = method.__doc__

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            """Make the value and keep it."""
            value = instance.__dict__[self._method.__name__] = self._method(instance)
            return value


__all__ = ["cached_property"]
