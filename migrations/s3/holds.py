"""Legal holds on objects: while a Memory is on hold each of its versions is, where the bucket has object lock.

A version that has one cannot be removed by anybody, the admin and the server's own lifecycle included.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from botocore.exceptions import ClientError

from migrations.deadline import Deadline
from migrations.homes.entry import Entry
from migrations.s3 import objects
from migrations.s3.connection import Connection, is_missing
from migrations.s3.names import Home

# What the ledger remembers: "on" or "off", whether all is done, and up to when versions were seen to.
SETTING = "hold"
MARGIN = timedelta(minutes=10)


def is_due(entry: Entry, *, locked: bool) -> bool:
    """Whether there may be versions to see to."""
    if not locked:
        return False
    state = entry.settings.get(SETTING) or {}
    if entry.legal_hold:
        return True
    return bool(state) and (state.get("on") is True or not state.get("done"))


def apply(
    connection: Connection, home: Home, entry: Entry, deadline: Deadline, tick: Callable[[], None]
) -> tuple[Entry, int]:
    """Puts a hold on every version, or takes it away, as the entry says; goes on another time where time is short.

    Args:
        connection: The server.
        home: Where the Memory is.
        entry: What the ledger says.
        deadline: Until when.
        tick: Called for each page: it keeps the lock.

    Returns:
        The entry with what was done, and how many versions were seen to.
    """
    state = entry.settings.get(SETTING) or {}
    on = entry.legal_hold
    same = state.get("on") is on and state.get("done")
    since = datetime.fromisoformat(state["until"]) - MARGIN if same and on else datetime.min.replace(tzinfo=UTC)
    _, until = objects.listed(connection, home.bucket, home.meta)
    count, done = 0, True
    for page in objects.versions(connection, home.bucket, home.prefix):
        tick()
        for version in page:
            if version.marker or version.modified < since or version.key == home.meta:
                continue
            if deadline.passed:
                done = False
                break
            count += _put(connection, home.bucket, version, on=on)
        if not done:
            break
    settings = {**entry.settings, SETTING: {"on": on, "done": done, "until": until.isoformat()}}
    return entry.but(settings=settings), count


def _put(connection: Connection, bucket: str, version: objects.Version, *, on: bool) -> int:
    try:
        connection.s3.put_object_legal_hold(
            Bucket=bucket, Key=version.key, VersionId=version.id, LegalHold={"Status": "ON" if on else "OFF"}
        )
    except ClientError as error:
        # Expired since we listed it.
        if is_missing(error):
            return 0
        raise
    return 1
