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
        tick: Called for each version: it keeps the lock.

    Returns:
        The entry with what was done, and how many versions were seen to.
    """
    state = entry.settings.get(SETTING) or {}
    on = entry.legal_hold
    same = state.get("on") is on
    known = same and on and state.get("until")
    since = datetime.fromisoformat(state["until"]) - MARGIN if known else datetime.min.replace(tzinfo=UTC)
    after = str(state.get("after") or "") if same else ""
    # What comes later than this is for another run; a run that goes on began when the first of them did.
    began = str(state["began"]) if after else objects.listed(connection, home.bucket, home.meta)[1].isoformat()
    count = 0
    for page in objects.versions(connection, home.bucket, home.prefix, after):
        for version in page:
            tick()
            if deadline.passed:
                left = {"on": on, "done": False, "until": state.get("until") if known else None, "began": began}
                return entry.but(settings={**entry.settings, SETTING: {**left, "after": after}}), count
            if not version.marker and version.modified >= since and version.key != home.meta:
                count += _put(connection, home.bucket, version, on=on)
        # Of the last key there may be further versions on the next page: it is seen to again.
        keys = sorted({each.key for each in page})
        after = keys[-2] if len(keys) > 1 else after
    done = {"on": on, "done": True, "until": began}
    return entry.but(settings={**entry.settings, SETTING: done}), count


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
