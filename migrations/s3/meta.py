"""meta.json: what an app may know of its Memory, and whether the embeddings there are of the wanted dimension."""

import base64
import binascii
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from migrations.errors import Code, CommandError
from migrations.homes.entry import Entry
from migrations.s3 import objects
from migrations.s3.buckets import Bucket, Change
from migrations.s3.connection import Connection
from migrations.s3.names import Home
from migrations.s3.request import ProvisionRequest

FLOAT_BYTES = 4
Meta = tuple[Home, bytes]


def of(entry: Entry, home: Home, bucket: Bucket, *, conditional_put: bool) -> Meta:
    """Gives where it stands and what it says."""
    embeddings = entry.embeddings
    said = {
        "contract": 1,
        "dataset": entry.dataset,
        "dimension": embeddings.dimension if embeddings.enabled else None,
        "metric": embeddings.metric,
        "ttlDays": entry.ttl_days,
        "legalHold": entry.legal_hold,
        "versioning": bucket.versioning,
        "objectLock": bucket.object_lock,
        "conditionalPut": conditional_put,
    }
    return home, json.dumps(said, indent=1).encode()


def compare(connection: Connection, meta: Meta, bucket: Bucket) -> Iterator[Change]:
    """Gives what differs of it."""
    home, body = meta
    found = objects.read(connection, home.bucket, home.meta)
    if found != body:
        how = "is not there" if found is None else "does not say what it should"
        put = partial(objects.write, connection, home.bucket, home.meta, body, locked=bucket.object_lock)
        yield Change(f"{home.meta} {how}", put)


def check_dimension(connection: Connection, home: Home, request: ProvisionRequest, before: Entry | None) -> None:
    """Refuses embeddings of another dimension than those which are there.

    Raises:
        CommandError: DIMENSION_CONFLICT.
    """
    wanted = request.embeddings
    if not wanted.enabled or (before and before.embeddings.enabled and before.embeddings.dimension == wanted.dimension):
        return
    key = objects.any_under(connection, home.bucket, f"{home.prefix}embeddings/")
    found = _dimension(objects.read(connection, home.bucket, key)) if key else None
    if found in {None, wanted.dimension}:
        return
    msg = (
        f"the embeddings under {home.shown} have {found} dimensions, not {wanted.dimension}: set "
        f"embeddings.dimension back to {found}, or delete them first"
    )
    raise CommandError(Code.DIMENSION_CONFLICT, msg)


def _dimension(body: bytes | None) -> int | None:
    """Counts the numbers of an embedding; what no client of ours wrote has none."""
    try:
        said: Any = json.loads(body or b"")
        return len(base64.b64decode(said["vector"])) // FLOAT_BYTES
    except (ValueError, TypeError, KeyError, binascii.Error):
        return None
