"""Whose a home is, and when it is nobody's any more. The rules are those of every backend of function-memory."""

import hashlib
import time
from calendar import timegm
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from provisioner import cluster
from provisioner.contract import Code, Failure, Object, log

# More than this many, and more than one in so many, at once is no ordinary day.
MANY = 5
SHARE = 5
TIME = "%Y-%m-%dT%H:%M:%SZ"

# What the ledger knows of one home: identity, uid, composite, providerUid, home, deletionPolicy, legalHold, ttlDays,
# report, goneSince, closedAt, closed (logins), and what the backend adds.
Entry = dict[str, Any]


class Backend(Protocol):
    """What a backend does. What fails raises `Failure`."""

    def server(self) -> Object:
        """Gives `{"version": text, "capabilities": [text]}` of the server, after logging in as the admin."""
        ...

    def check(self, request: Object) -> None:
        """Refuses what this backend cannot do (MODULE_UNSUPPORTED), before anything is made."""
        ...

    def locked(self, home: str) -> AbstractContextManager[None]:
        """Keeps other provisioners from a home; LOCK_BUSY when the deadline passes before."""
        ...

    def entries(self) -> list[Entry]:
        """Reads the whole ledger, which no login of an app can read."""
        ...

    def entry(self, home: str) -> Entry | None:
        """Reads the entry of one home; SCHEMA_CONFLICT of a home that is there and has none."""
        ...

    def save(self, entry: Entry) -> None:
        """Writes an entry."""
        ...

    def make(self, entry: Entry, request: Object) -> None:
        """Makes the home what the request says, in steps that can be repeated; DIMENSION_CONFLICT and the like."""
        ...

    def open(self, entry: Entry, login: Object, password: str) -> None:
        """Makes a login with a password and the rights of its role on this home, and nothing else."""
        ...

    def close(self, login: str) -> bool:
        """Closes a login and ends its sessions; gives whether it was open."""
        ...

    def reopen(self, login: str) -> None:
        """Opens a login again that was closed, with the password that it had."""
        ...

    def verify(self, entry: Entry, request: Object) -> list[str]:
        """Looks, and gives a sentence for each thing that is not as it should be."""
        ...

    def maintain(self, entry: Entry) -> Object:
        """Removes what is older than the retention, and gives what there is: sections of a report (docs/custom.md)."""
        ...

    def drop(self, entry: Entry) -> None:
        """Removes a home: its data, its logins, and last its entry."""
        ...


def now() -> str:
    """The time as entries have it."""
    return time.strftime(TIME, time.gmtime())


def claimed(found: Entry | None, request: Object) -> Entry:
    """Gives the entry that a home is to have; refuses a home that is somebody else's, or an earlier claim's."""
    identity, home = request["identity"], request["dataset"]["schema"]
    entry: Entry = {
        "home": home,
        "identity": identity,
        "uid": request["uid"],
        "composite": request["composite"],
        "providerUid": request["provider"]["uid"],
        "deletionPolicy": request["deletionPolicy"],
        "legalHold": request["legalHold"],
        "ttlDays": request["retention"]["ttlDays"],
        "report": request["report"],
        "goneSince": None,
        "closedAt": None,
        "closed": [],
    }
    if found is None:
        return entry
    adoption = request["adoption"]
    if found["identity"] not in {identity, adoption["from"]}:
        msg = f'"{home}" belongs to another Memory: choose another dataset.schema'
        raise Failure(Code.SCHEMA_CONFLICT, msg)
    if found["uid"] != request["uid"] and found["identity"] == identity:
        _check_adoption(identity, adoption)
    return {**found, **entry}


def _check_adoption(identity: str, adoption: Object) -> None:
    if adoption["policy"] == "Forbid":
        msg = f'the data of an earlier claim "{identity}" is there, and the provider forbids adoption: use another name'
        raise Failure(Code.ADOPTION_REQUIRED, msg)
    if adoption["policy"] == "Require" and not adoption["adopt"]:
        msg = (
            f'the data of an earlier claim "{identity}" is there: set adopt: true to take it over, or use another name'
        )
        raise Failure(Code.ADOPTION_REQUIRED, msg)


def mark(homes: Iterable[Entry]) -> str:
    """Names a set of homes in eight characters: what a person allows is these, and no others."""
    text = "\n".join(sorted(f"{each['home']} {each['uid']}" for each in homes))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class Reaper:
    """One look: access ends with the claim, and data when its last word was Delete.

    What is missing in two runs in a row is gone; whatever is doubtful, nothing is done.
    """

    def __init__(self, request: Object, backend: Backend) -> None:
        self._request = request
        self._backend = backend
        # Homes first: one that is entered after a look at the Memories would seem to have none.
        self._homes = self._own()
        self._memories = cluster.memories(request)
        self._failed: Failure | None = None

    def run(self) -> tuple[Code, str, dict[str, int]]:
        """Does nothing, or all of it; gives code and sentence of the answer, and how many homes stand how."""
        missing = [each for each in self._homes if not self._is_there(each)]
        vanished = [each for each in missing if not each["closedAt"]]
        in_use = [each for each in self._homes if not each["closedAt"]]
        if len(vanished) > MANY and len(vanished) * SHARE > len(in_use) and self._request["approved"] != mark(vanished):
            message = (
                f"{len(vanished)} of {len(in_use)} homes in use have no Memory any more, too many at once to believe: "
                "nothing was done. Restore the claims, or set the provider's annotation memory.proompteng.ai/reap to "
                f"{mark(vanished)}"
            )
            return Code.ON_HOLD, message, {"inUse": len(in_use), "missing": len(vanished)}
        for each in self._homes:
            if each in missing:
                self._each(each, self._close if each["goneSince"] else self._note)
            elif each["goneSince"] or each["closedAt"]:
                self._each(each, self._welcome)
        return self._told()

    def _own(self) -> list[Entry]:
        """The homes of this very provider; a tenant's answers for those of its own namespace only."""
        claim = self._request["claim"]
        own = [each for each in self._backend.entries() if each["providerUid"] == self._request["provider"]["uid"]]
        return [each for each in own if not claim or each["identity"].startswith(f"{claim['namespace']}/")]

    def _is_there(self, entry: Entry) -> bool:
        return (entry["composite"] if self._request["claim"] else entry["uid"]) in self._memories

    def _each(self, entry: Entry, work: Callable[[Entry], None]) -> None:
        """Works on one home; one that fails does not stop the others, and a server that is gone stops all."""
        try:
            with self._backend.locked(entry["home"]):
                # Somebody who has been at it meanwhile is a sign of life.
                if self._backend.entry(entry["home"]) == entry:
                    work(entry)
        except Failure as error:
            if error.code is Code.UNREACHABLE:
                raise
            log("a home failed", home=entry["home"], why=error.message)
            self._failed = self._failed or error

    def _note(self, entry: Entry) -> None:
        log("a Memory is missing: the next run closes its logins", home=entry["home"])
        self._backend.save({**entry, "goneSince": now()})

    def _close(self, entry: Entry) -> None:
        if not entry["closedAt"]:
            log("closing the logins of a Memory that is gone", home=entry["home"])
            closed = [login for login in entry["logins"] if self._backend.close(login)]
            entry = {**entry, "closedAt": now(), "closed": sorted({*entry["closed"], *closed})}
            self._backend.save(entry)
        grace = self._request["deletionGraceSeconds"]
        is_due = timegm(time.strptime(entry["closedAt"], TIME)) + grace <= time.time()
        # Somebody of the same identity may be about to say `adopt`.
        is_wanted = entry["identity"] in self._memories.values()
        if is_due and not is_wanted and entry["deletionPolicy"] == "Delete" and not entry["legalHold"]:
            log("dropping a home whose Memory is gone", home=entry["home"])
            self._backend.drop(entry)

    def _welcome(self, entry: Entry) -> None:
        """Opens again what was closed: the very same Memory is back, so its passwords are what they were."""
        log("a Memory is back", home=entry["home"])
        for login in entry["closed"]:
            self._backend.reopen(login)
        self._backend.save({**entry, "goneSince": None, "closedAt": None, "closed": []})

    def _told(self) -> tuple[Code, str, dict[str, int]]:
        homes = self._own()
        closed = sum(bool(each["closedAt"]) for each in homes)
        missing = sum(bool(each["goneSince"] and not each["closedAt"]) for each in homes)
        counts = {"inUse": len(homes) - closed, "missing": missing, "closed": closed}
        if self._failed:
            return self._failed.code, self._failed.message, counts
        return Code.SUCCEEDED, f"homes: {len(homes) - closed} in use, {closed} closed", counts
