"""Events: a stream, and a key for each event that may be sent again."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from redis.exceptions import ResponseError

from memory_client.encoding import to_json
from memory_client.stores.matching import positive
from memory_client.stores.redis.layout import DAY, Keys, derived, digest, fields, milliseconds, moment
from memory_client.stores.redis.server import Lost, Server, Session
from memory_client.types import Appended, Event, Json

ENTRY = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
# How many entries are read at once at most when only some are of the type that is asked for.
PAGE = 1000
TOO_SMALL = "equal or smaller"


@dataclass(frozen=True)
class Sent:
    """An event that its sender, `source`, may send again under the same event id."""

    type: str
    payload: Json
    event_id: str
    source: str


class Events:
    """The events of one Memory."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self._server = server
        self._keys = keys

    def append(self, event_type: str, payload: Json, source: str) -> Appended:
        """Stores an event that nobody will send again."""
        event = {"id": str(uuid4()), "type": event_type, "payload": to_json(payload), "source": source}
        add = _add(self._keys, "*", event)
        [entry] = self._server.run(lambda session: session.ask(add), repeatable=False)
        return _appended(event["id"], entry.decode(), duplicate=False)

    def append_once(self, event: Sent, ttl_days: int) -> Appended:
        """Stores an event unless its source has sent it before.

        The key that remembers it names its entry, so the entry's id is chosen here. Should another writer's entry be
        newer by then, the stream refuses it although the key is set; whoever finds a key without an entry stores the
        event anew.
        """
        keys = self._keys
        named = digest(event.source, event.event_id)
        remembered = keys.event_id(named)
        stored = {
            "id": derived(f"{keys.prefix}{named}"),
            "type": event.type,
            "payload": to_json(event.payload),
            "event_id": event.event_id,
            "source": event.source,
        }
        ahead = False

        def once(session: Session) -> Appended:
            nonlocal ahead
            known, time = session.watch(remembered, ["GET", remembered], ["TIME"])
            if known is not None:
                first = _first(session, keys, known.decode(), stored)
                if first or _is_over(known.decode(), time, ttl_days):
                    return _appended(first or stored["id"], known.decode(), duplicate=True)
            entry = _next(session, keys, time, ahead=ahead)
            lasts = ["PX", ttl_days * DAY] if ttl_days else []
            added, _ = session.transaction(_add(keys, entry, stored), ["SET", remembered, entry, *lasts])
            if isinstance(added, ResponseError):
                if TOO_SMALL not in str(added):
                    raise added
                ahead = True
                raise Lost
            return _appended(stored["id"], entry, duplicate=False)

        return self._server.run(once, repeatable=True)

    def read(self, *, limit: int, before: str | None, event_type: str | None) -> list[Event]:
        """Reads the stream backwards."""
        positive(limit)
        if before is not None and not ENTRY.fullmatch(before):
            msg = f'before is "{before}": give the cursor of an event that was read'
            raise ValueError(msg)
        keys = self._keys
        return self._server.run(
            lambda session: list(_backwards(session, keys, limit, before, event_type)), repeatable=True
        )


def _backwards(session: Session, keys: Keys, limit: int, before: str | None, event_type: str | None) -> Iterator[Event]:
    left, page = limit, min(limit, PAGE)
    while left:
        [entries] = session.ask(["XREVRANGE", keys.events, f"({before}" if before else "+", "-", "COUNT", page])
        for entry, flat in entries:
            event = fields(flat)
            if left and event_type in (None, event["type"]):
                left -= 1
                yield _event(entry.decode(), event)
        if len(entries) < page:
            return
        before = entries[-1][0].decode()
        page = min(2 * page, PAGE)


def _add(keys: Keys, entry: str, event: dict[str, str]) -> list[str]:
    return ["XADD", keys.events, entry, *(text for pair in event.items() for text in pair)]


def _first(session: Session, keys: Keys, entry: str, sent: dict[str, str]) -> str | None:
    """Gives the id of the event under an entry, if it is the one that was sent.

    Two writers may have chosen the same entry: the stream has taken one, and the other's key names an event that is not
    its own.
    """
    [entries] = session.ask(["XRANGE", keys.events, entry, entry])
    there = fields(entries[0][1]) if entries else {}
    same = all(there.get(name) == sent[name] for name in ("event_id", "source"))
    return there["id"] if same else None


def _is_over(entry: str, time: list[bytes], ttl_days: int) -> bool:
    """Whether retention may have taken an entry out of the stream."""
    return bool(ttl_days) and milliseconds(time) - int(entry.partition("-")[0]) >= ttl_days * DAY


def _next(session: Session, keys: Keys, time: list[bytes], *, ahead: bool) -> str:
    """Chooses the id of an entry: the server's time, unless the stream is ahead of that."""
    chosen = (milliseconds(time), int(time[1]) % 1000)
    if ahead:
        [info] = session.ask(["XINFO", "STREAM", keys.events])
        ms, _, sequence = dict(zip(info[::2], info[1::2], strict=True))[b"last-generated-id"].decode().partition("-")
        chosen = max(chosen, (int(ms), int(sequence) + 1))
    return f"{chosen[0]}-{chosen[1]}"


def _appended(event_id: str, entry: str, *, duplicate: bool) -> Appended:
    return Appended(event_id, moment(int(entry.partition("-")[0])), duplicate)


def _event(entry: str, event: dict[str, Any]) -> Event:
    created_at = moment(int(entry.partition("-")[0]))
    return Event(event["id"], event["type"], json.loads(event["payload"]), created_at, entry)
