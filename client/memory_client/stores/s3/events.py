"""Events: an object each, whose name puts the newest first, and one for each that may be sent again."""

import json
import threading
from collections import OrderedDict
from datetime import timedelta
from uuid import uuid4

from memory_client.encoding import to_json
from memory_client.stores.matching import positive
from memory_client.stores.s3.bucket import Bucket
from memory_client.stores.s3.layout import Clock, Meta, Names, event_name, event_of, now
from memory_client.stores.s3.register import Register
from memory_client.types import Appended, Event, Json

# Objects that are listed, and read, at once.
PAGE = 1000
FIRST_PAGE = 64
# Events that are remembered, and how many bytes such a one has at most.
REMEMBERED = 1000
SMALL = 16_384


class Events:
    """The events of one Memory."""

    def __init__(self, bucket: Bucket, names: Names, register: Register) -> None:
        self._bucket = bucket
        self._names = names
        self._register = register
        self._clock = Clock()
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, bytes] = OrderedDict()

    def append(self, event_type: str, payload: Json, *, source: str, held: bool) -> Appended:
        """Stores an event that nobody will send again."""
        name = event_name(self._clock.next(), str(uuid4()))
        self._store(name, {"type": event_type, "payload": payload, "eventId": None, "source": source}, held=held)
        return Appended(*event_of(name), duplicate=False)

    def append_once(self, event: dict[str, Json], meta: Meta, *, held: bool) -> Appended:
        """Stores an event unless its source has sent it before.

        What remembers it is written first, and names it: whoever finds no event under that name stores it there.
        """
        remembered = self._names.event_id(event["source"], event["eventId"])
        name = event_name(self._clock.next(), str(uuid4()))
        if self._register.write(remembered, name.encode(), None):
            self._store(name, event, held=held)
            return Appended(*event_of(name), duplicate=False)
        entry = self._register.read(remembered)
        if entry is None:
            # Its time has come in between.
            return self.append_once(event, meta, held=held)
        first = entry.body.decode()
        event_id, created_at = event_of(first)
        late = meta.ttl_days and created_at < now() - timedelta(days=meta.ttl_days)
        if not late and self._bucket.get(f"{self._names.events}{first}") is None:
            self._store(first, event, held=held)
        return Appended(event_id, created_at, duplicate=True)

    def read(self, *, limit: int, before: str | None, event_type: str | None) -> list[Event]:
        """Lists events, and reads them."""
        positive(limit)
        after = ""
        if before is not None:
            event_of(before)
            after = f"{self._names.events}{before}"
        page = min(PAGE, limit if event_type is None else max(limit, FIRST_PAGE))
        events: list[Event] = []
        for listed in self._bucket.names(self._names.events, after=after, page=page):
            found = self._bucket.each(self._read, [each.name for each in listed])
            events += [each for each in found if each is not None and event_type in (None, each.type)]
            if len(events) >= limit:
                break
        return events[:limit]

    def count(self) -> tuple[int, int]:
        """Gives how many there are, and their bytes."""
        found = [each.size for page in self._bucket.names(self._names.events) for each in page]
        return len(found), sum(found)

    def _store(self, name: str, event: dict[str, Json], *, held: bool) -> None:
        event_id, created_at = event_of(name)
        body = to_json({"id": event_id, **event, "createdAt": created_at.isoformat()}).encode()
        self._bucket.put(f"{self._names.events}{name}", body, held=held)

    def _read(self, name: str) -> Event | None:
        body = self._body(name)
        if body is None:
            return None
        cursor = name.removeprefix(self._names.events)
        said = json.loads(body)
        event_id, created_at = event_of(cursor)
        return Event(event_id, said["type"], said["payload"], created_at, cursor)

    def _body(self, name: str) -> bytes | None:
        """Gives an event's body; it never changes, so who asks for the newest again and again reads few of them."""
        with self._lock:
            if name in self._recent:
                self._recent.move_to_end(name)
                return self._recent[name]
        found = self._bucket.get(name)
        if found is None:
            return None
        if len(found.body) <= SMALL:
            with self._lock:
                self._recent[name] = found.body
                while len(self._recent) > REMEMBERED:
                    self._recent.popitem(last=False)
        return found.body
