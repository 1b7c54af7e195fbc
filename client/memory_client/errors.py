"""What can go wrong, as types: an app decides by these what to do."""


class MemoryClientError(Exception):
    """Base of all errors of this library; the message is for a person and holds no password."""


class BindingError(MemoryClientError):
    """The binding directory is not there, or is not that of a Memory."""


class Unavailable(MemoryClientError):  # noqa: N818  named after what is the matter, as the others
    """The backend did not answer: the same call may succeed later. Whether it was done is not known."""


class AccessDenied(MemoryClientError):  # noqa: N818
    """The backend refuses the login, or what it asks for."""


class VersionConflict(MemoryClientError):  # noqa: N818
    """A key does not have the expected version.

    Attributes:
        key: Which.
        expected: The version that the caller thought it had, 0 for none.
        stored: The version that it has, 0 when there is no value; None when the backend does not say.
    """

    def __init__(self, key: str, expected: int, stored: int | None) -> None:
        there = {None: "another version", 0: "no value"}.get(stored, f"version {stored}")
        super().__init__(f'key "{key}" has {there}, not version {expected}: read it again and decide anew')
        self.key = key
        self.expected = expected
        self.stored = stored


class OnHold(MemoryClientError):  # noqa: N818
    """A legal hold keeps the data as it is."""


class Unsupported(MemoryClientError):  # noqa: N818
    """This backend, or this Memory, does not have what is asked for; see `capabilities`."""


class DimensionMismatch(MemoryClientError):  # noqa: N818
    """A vector has another number of dimensions than the Memory.

    Attributes:
        expected: What the Memory has.
        given: What the vector has.
    """

    def __init__(self, expected: int, given: int) -> None:
        super().__init__(
            f"the vector has {given} dimensions and this Memory {expected}: use the model that it was made for"
        )
        self.expected = expected
        self.given = given
