"""Why a command ended: one exit code for each reason, and the one place that maps PostgreSQL's SQLSTATEs to them."""

from enum import IntEnum


class Code(IntEnum):
    """Exit codes; a Job's podFailurePolicy and the function's conditions are built on these numbers."""

    SUCCEEDED = 0
    JOB_FAILED = 1
    EXTENSION_MISSING = 10
    DIMENSION_CONFLICT = 11
    CHECKSUM_MISMATCH = 12
    PERMISSION_DENIED = 13
    SCHEMA_CONFLICT = 14
    ADOPTION_REQUIRED = 15
    MODULE_UNSUPPORTED = 16
    ON_HOLD = 17
    BAD_REQUEST = 20
    UNREACHABLE = 30
    LOCK_BUSY = 31
    USAGE = 64

    @property
    def reason(self) -> str:
        """The name that a condition carries: `ExtensionMissing` for EXTENSION_MISSING."""
        return "".join(word.capitalize() for word in self.name.split("_"))


class CommandError(Exception):
    """A command cannot go on; the message is for a person and says what to do.

    Args:
        code: Why.
        message: What is wrong, the value, what to do instead; never a secret, never a row.
        migration: `<module>/<file>` when one is the matter.
        sqlstate: PostgreSQL's own code, when it was PostgreSQL that refused.
    """

    def __init__(self, code: Code, message: str, *, migration: str = "", sqlstate: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.migration = migration
        self.sqlstate = sqlstate


# Raised by races between provisioners, because roles and the catalogs of grants are shared by the whole server and
# advisory locks are not; a second attempt sees what the other one made.
RACES = frozenset(
    {
        "23505",  # unique violation on a catalog: somebody made the same role or schema at this moment
        "40001",  # serialization failure
        "40P01",  # deadlock
        "42P04",  # database exists by now
        "42P06",  # schema exists by now
        "42P07",  # table exists by now
        "42710",  # role, or another object, exists by now
    }
)
TUPLE_CONCURRENTLY_UPDATED = "XX000"
LOCK_NOT_AVAILABLE = "55P03"
# Somebody is connected to the template of a new database, or to one that is to be dropped.
OBJECT_IN_USE = "55006"

_CODES = {
    "42501": Code.PERMISSION_DENIED,
    LOCK_NOT_AVAILABLE: Code.LOCK_BUSY,
    OBJECT_IN_USE: Code.LOCK_BUSY,
    "53300": Code.UNREACHABLE,  # too many connections
    "25006": Code.UNREACHABLE,  # read-only: a standby answered, the primary is moving
}
_CLASSES = {
    "08": Code.UNREACHABLE,  # connection exceptions
    "28": Code.PERMISSION_DENIED,  # invalid authorization
    "57": Code.UNREACHABLE,  # operator intervention: shutdown, crash, starting up
}


def code_of(sqlstate: str) -> Code:
    """Gives the exit code for an error that no step has a sentence of its own for."""
    return _CODES.get(sqlstate) or _CLASSES.get(sqlstate[:2]) or Code.JOB_FAILED
