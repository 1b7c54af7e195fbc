"""Users of Ceph's: one for each login slot, by its admin API and its IAM.

The name of a login is its user's id and its access key. A secret key is known to Ceph itself, as every S3 server must
know it to check a signature.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from migrations import log
from migrations.errors import Code, CommandError
from migrations.s3 import policies
from migrations.s3.buckets import Change
from migrations.s3.connection import CONFLICT, FORBIDDEN, NOT_FOUND, OK, Connection, Keys, is_missing
from migrations.s3.names import POLICY

USER = "/admin/user"
# Ceph's word for: may make no bucket.
NO_BUCKETS = -1


@dataclass(frozen=True)
class User:
    """A user as it is."""

    name: str
    keys: dict[str, str]
    suspended: bool
    max_buckets: int
    caps: bool


def read(connection: Connection, name: str) -> User | None:
    """Looks at a user, None when there is none."""
    raw = _admin(connection, "GET", {"uid": name}, missing=None)
    if raw is None:
        return None
    keys = {str(each["access_key"]): str(each["secret_key"]) for each in raw["keys"]}
    return User(name, keys, bool(raw["suspended"]), int(raw["max_buckets"]), bool(raw["caps"]))


def owner(connection: Connection) -> str:
    """Gives the admin's own id.

    Raises:
        CommandError: PERMISSION_DENIED when the admin API does not let it ask.
    """
    raw = _admin(connection, "GET", {"access-key": connection.admin.keys.access}, missing=None)
    if raw is None:
        msg = f"{connection.admin.server} has no admin API of Ceph's: write users: Shared, or another endpoint"
        raise CommandError(Code.MODULE_UNSUPPORTED, msg)
    return str(raw["user_id"])


def compare(connection: Connection, name: str, secret: str | None) -> Iterator[Change]:
    """Gives what differs of a user who is to log in, with this secret key when it is known."""
    found = read(connection, name)
    if found is None:
        make = None if secret is None else partial(_create, connection, name, secret)
        yield Change(f'user "{name}" is not there', make)
        return
    for each in sorted(found.keys.keys() - {name}):
        yield Change(f'user "{name}" has another access key', partial(_remove_key, connection, name, each))
    if secret is None:
        if name not in found.keys:
            yield Change(f'user "{name}" lacks its key', None)
    elif found.keys.get(name) != secret:
        yield Change(f'user "{name}" has another secret key', partial(_put_key, connection, name, secret))
    yield from _compare_limits(connection, found)


def compare_closed(connection: Connection, name: str) -> Iterator[Change]:
    """Gives what differs of a user who may not log in."""
    found = read(connection, name)
    if found is None:
        return
    if not found.suspended:
        yield Change(f'user "{name}" may log in', partial(suspend, connection, name))
    for each in sorted(found.keys):
        yield Change(f'user "{name}" has a key', partial(_remove_key, connection, name, each))


def compare_policy(
    connection: Connection, name: str, wanted: policies.Document, called: str = POLICY
) -> Iterator[Change]:
    """Gives what differs of what a user may do; with the Memories' own name, other policies go."""
    try:
        names = connection.iam.list_user_policies(UserName=name).get("PolicyNames", [])
    except ClientError as error:
        # Ceph says so of a user without any, and of one who is not there yet.
        if not is_missing(error):
            raise
        names = []
    if called == POLICY:
        for each in sorted(set(names) - {POLICY}):
            yield Change(
                f'user "{name}" has a policy of another\'s, "{each}"',
                partial(connection.iam.delete_user_policy, UserName=name, PolicyName=each),
            )
    found = _policy(connection, name, called) if called in names else None
    if found != wanted:
        put = partial(
            connection.iam.put_user_policy, UserName=name, PolicyName=called, PolicyDocument=policies.text(wanted)
        )
        yield Change(f'the policy of user "{name}" is not what it should be', put)


def suspend(connection: Connection, name: str, *, suspended: bool = True) -> None:
    """Shuts a user out, or lets it in again with the keys that it had."""
    _admin(connection, "POST", {"uid": name, "suspended": str(suspended).lower()})


def remove(connection: Connection, name: str) -> None:
    """Removes a user; its objects stay."""
    _admin(connection, "DELETE", {"uid": name}, missing=None)


def check_login(connection: Connection, keys: Keys, bucket: str, prefix: str, *, alone: bool) -> Iterator[str]:
    """Logs in and looks: gives what a login cannot do and should, or can and should not."""
    status, _, _ = connection.call("GET", f"/{bucket}", {"list-type": "2", "prefix": prefix, "max-keys": "1"}, keys)
    if status != OK:
        yield f'login "{keys.access}" cannot list its own prefix (the server answers {status})'
    if not alone:
        status, _, _ = connection.call("GET", f"/{bucket}", {"list-type": "2", "max-keys": "1"}, keys)
        if status == OK:
            yield f'login "{keys.access}" can list the whole bucket'


def _compare_limits(connection: Connection, found: User) -> Iterator[Change]:
    name = found.name
    if found.suspended:
        yield Change(f'user "{name}" is suspended', partial(suspend, connection, name, suspended=False))
    if found.max_buckets != NO_BUCKETS:
        limit = {"uid": name, "max-buckets": str(NO_BUCKETS)}
        yield Change(f'user "{name}" may make buckets', partial(_admin, connection, "POST", limit))
    if found.caps:
        msg = f'user "{name}" has caps of the admin API'
        yield Change(msg, partial(_drop_caps, connection, name))


def _create(connection: Connection, name: str, secret: str) -> None:
    log.write("making a user", login=name)
    user = {
        "uid": name,
        "display-name": name,
        "access-key": name,
        "secret-key": secret,
        "max-buckets": str(NO_BUCKETS),
    }
    _admin(connection, "PUT", user)


def _put_key(connection: Connection, name: str, secret: str) -> None:
    key = {"key": "", "uid": name, "access-key": name, "secret-key": secret, "generate-key": "false"}
    _admin(connection, "PUT", key)


def _remove_key(connection: Connection, name: str, access: str) -> None:
    _admin(connection, "DELETE", {"key": "", "uid": name, "access-key": access}, missing=None)


def _drop_caps(connection: Connection, name: str) -> None:
    raw = _admin(connection, "GET", {"uid": name})
    caps = ";".join(f"{each['type']}={each['perm']}" for each in raw["caps"])
    _admin(connection, "DELETE", {"caps": "", "uid": name, "user-caps": caps})


def _policy(connection: Connection, name: str, called: str) -> Any:
    try:
        return connection.iam.get_user_policy(UserName=name, PolicyName=called)["PolicyDocument"]
    except ResponseParserError:
        # Gone since we listed it: Ceph puts its answer for that inside of the one for a policy, which is no XML.
        return None


_RAISE = object()


def _admin(connection: Connection, method: str, parameters: dict[str, str], missing: Any = _RAISE) -> Any:
    """Asks the admin API; where nothing is there it gives `missing`, when that is given.

    Raises:
        CommandError: PERMISSION_DENIED, UNREACHABLE when somebody else makes the same user, JOB_FAILED.
    """
    status, said, code = connection.call(method, USER, {**parameters, "format": "json"})
    if status == OK:
        return said
    server = connection.admin.server
    if status == NOT_FOUND and missing is not _RAISE:
        return missing
    if status == FORBIDDEN:
        msg = f"{server} refuses the admin its admin API ({code}): give it the caps users=*;buckets=*;user-policy=*"
        raise CommandError(Code.PERMISSION_DENIED, msg)
    if status == CONFLICT:
        msg = f"{server} says {code} to {method} of user {parameters.get('uid')}: somebody else makes it at this moment"
        raise CommandError(Code.UNREACHABLE, msg)
    raise CommandError(Code.JOB_FAILED, f"{server} answers {status} {code} to {method} of {USER}")
