"""The logins of one Memory on Ceph: users, what they may do, and the admin's own right to what they write."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from migrations.s3 import policies, users
from migrations.s3.buckets import Bucket, Change
from migrations.s3.connection import Connection
from migrations.s3.names import SHORT, Home


@dataclass(frozen=True)
class Wanted:
    """How the logins of a Memory should be.

    Attributes:
        states: Each login's name, and whether it is active, draining (whose keys are left alone) or closed.
        secrets: The active ones' secret keys, as far as they are known.
        held: Whether the Memory is on hold.
    """

    states: Mapping[str, str]
    secrets: Mapping[str, str]
    held: bool


def compare(connection: Connection, home: Home, bucket: Bucket, wanted: Wanted) -> Iterator[Change]:
    """Gives what differs; in a bucket without versions a hold leaves the right to read alone."""
    own = policies.of_admin(home)
    yield from users.compare_policy(connection, users.owner(connection), own, admin_policy(home))
    for name, state in wanted.states.items():
        if state == "closed":
            yield from users.compare_closed(connection, name)
            continue
        if state == "active":
            yield from users.compare(connection, name, wanted.secrets.get(name))
        # One that is not there, and that we cannot make, has no policy either.
        if name not in wanted.secrets and users.read(connection, name) is None:
            continue
        level = level_of(name, bucket, held=wanted.held)
        yield from users.compare_policy(connection, name, policies.of_login(home, level, held=wanted.held))


def reopened(connection: Connection, states: Mapping[str, str], closed: Sequence[str]) -> Iterator[Change]:
    """Lets those in again that the reaper shut out, and that are to drain."""
    for name in closed:
        if states.get(name) == "draining":
            what = f'user "{name}" was closed with its Memory'
            yield Change(what, partial(users.suspend, connection, name, suspended=False))


def level_of(name: str, bucket: Bucket, *, held: bool) -> policies.Level:
    """Gives what a login's role comes to: without versions every PUT replaces what was there, which a hold forbids."""
    return "read" if "_ro_" in name or (held and not bucket.versioning) else "write"


def admin_policy(home: Home) -> str:
    """Names the policy that lets the admin look after what apps wrote in a provider's buckets."""
    return f"memory-{home.bucket[: -SHORT - 1] if home.alone else home.bucket}"
