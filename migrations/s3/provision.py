"""`provision` and `plan` on S3.

All is judged before anything is made, and each step begins with a look at what is there: a run that was killed is
finished by the next, and one with nothing to do writes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from migrations import log, report
from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.homes import entry as entries
from migrations.homes.entry import Claimed, Entry
from migrations.request import read_file
from migrations.s3 import buckets, holds, lifecycle, logins, meta, server, users
from migrations.s3.buckets import Bucket, Change
from migrations.s3.connection import Admin, Connection, Keys
from migrations.s3.ledger import Ledger, Ticket
from migrations.s3.names import Home, home_of, is_managed, ledger_bucket
from migrations.s3.request import ProvisionRequest

CONTRACT = "1"
# What the ledger remembers of a bucket, so that it is tried once.
CONDITIONS = "conditionalPut"
# Set while the bucket's lifecycle may still remove what is to stay.
EXPIRY = "expiry"
# So much of the time left goes into holds on objects; what remains is maintenance's.
HOLDS_SHARE = 0.5


@dataclass(frozen=True)
class Done:
    """What a successful run reports."""

    server: dict[str, object]
    modules: list[dict[str, str]]
    warnings: list[str]
    verify: list[str]


@dataclass
class Plan:
    """What `provision` would do, as on PostgreSQL; there are no migrations here."""

    home: Literal["new", "ours", "adopt", "refused"] = "refused"
    migrations: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    refused: dict[str, object] | None = None

    @property
    def message(self) -> str:
        """The plan in a sentence."""
        if self.refused:
            return f"provision would be refused ({self.refused['reason']}): {self.refused['message']}"
        count = len(self.changes)
        return f"provision would change {count} thing{'' if count == 1 else 's'}" if count else "nothing would change"


def provision(request: ProvisionRequest, admin: Admin, directory: Path, deadline: Deadline) -> Done:
    """Makes the home what the request says, as soon as the server is there.

    Raises:
        CommandError: With the reason.
    """
    home_of(request)  # names that are wrong must not become paths
    secrets = secrets_of(request, directory)
    attempt = 0
    while True:
        try:
            with admin.connect(deadline) as connection:
                return _Run(request, connection, secrets, deadline).go()
        except CommandError as error:
            if error.code is not Code.UNREACHABLE or deadline.passed:
                raise
            log.write("waiting for the server", why=error.message)
        deadline.pause(attempt)
        attempt += 1


def plan(request: ProvisionRequest, admin: Admin, directory: Path, deadline: Deadline) -> Plan:
    """Foretells what `provision` would do with this request, as the server is now, by reading alone.

    Raises:
        CommandError: The request is wrong, or the server does not answer or let us in.
    """
    home_of(request)
    secrets = secrets_of(request, directory)
    made = Plan()
    with admin.connect(deadline) as connection:
        run = _Run(request, connection, secrets, deadline)
        try:
            run.foretell(made)
        except CommandError as error:
            if error.code in {Code.UNREACHABLE, Code.PERMISSION_DENIED}:
                raise
            made.refused = {"code": int(error.code), "reason": error.code.reason, "message": error.message}
    return made


def secrets_of(request: ProvisionRequest, directory: Path) -> dict[str, str]:
    """Reads the secret keys of the active logins, where we make users.

    Raises:
        CommandError: BAD_REQUEST when one is missing or empty.
    """
    if request.provider.users != "RGW":
        return {}
    found = {}
    for login in request.logins:
        if login.state == "active":
            found[login.name] = read_file(directory / "login" / login.name).strip()
            if not found[login.name]:
                msg = f"the file login/{login.name} is empty: it holds the login's secret key"
                raise CommandError(Code.BAD_REQUEST, msg)
    return found


@dataclass
class _Run:
    """One attempt on one connection."""

    request: ProvisionRequest
    connection: Connection
    secrets: dict[str, str]
    deadline: Deadline

    def __post_init__(self) -> None:
        self.home: Home = home_of(self.request)
        self.provider = self.request.provider

    def go(self) -> Done:
        """Does it."""
        self._step("ledger")
        place = self._ledger_bucket(make=True)
        server.try_encryption(self.connection, place.name, self.provider, locked=place.object_lock)
        ledger = Ledger(self.connection, place.name, place.object_lock)
        with ledger.lock(entries.key_of(self.request.identity), self.deadline) as ticket:
            claimed = self._claimed(ledger)
            bucket = self._own_bucket(place)
            judged = bucket or buckets.fresh(self.home.bucket, self.provider)
            self._judge(judged, claimed, ledger, exists=bucket is not None)
            return self._make(ledger, ticket, claimed, bucket)

    def foretell(self, made: Plan) -> None:
        """Looks at all of it."""
        place = self._ledger_bucket(make=False)
        found = None
        if place:
            ledger = Ledger(self.connection, place.name, place.object_lock)
            found = ledger.find(self.request.identity)
        claimed = entries.claim(found, self.request, self.home.prefix, self.home.bucket)
        bucket = place if not self.home.alone else buckets.read(self.connection, self.home.bucket, self.provider)
        judged = bucket or buckets.fresh(self.home.bucket, self.provider)
        self._judge(judged, claimed, None, exists=bucket is not None)
        made.home = "new" if claimed.before is None else "adopt" if claimed.adopted else "ours"
        if bucket is None:
            made.changes.append(f'bucket "{self.home.bucket}" is not there')
        made.changes += [each.what for each in self._bucket_changes(judged)]
        conditions = bool(claimed.entry.settings.get(CONDITIONS, {}).get("works"))
        if bucket is None:
            made.changes.append(f"{self.home.meta} is not there")
        else:
            wanted = self._meta(claimed.entry, judged, conditions)
            made.changes += [each.what for each in meta.compare(self.connection, wanted, judged)]
        made.changes += [each.what for each in self._user_changes(judged, claimed.before)]

    def _make(self, ledger: Ledger, ticket: Ticket, claimed: Claimed, found: Bucket | None) -> Done:
        entry = self._begun(claimed)
        ticket.renew()
        # Before anything is made: the reaper knows of it then, whatever becomes of this run.
        ledger.save(entry)
        saved = entry
        self._step("bucket")
        bucket = self._bucket(found)
        ticket.renew()
        if entry.settings.get(EXPIRY):
            self._step("lifecycle")
            self._write_lifecycle(ledger)
        entry = self._tried(entry, bucket)
        works = bool(entry.settings[CONDITIONS]["works"])
        self._step("meta")
        self._apply(meta.compare(self.connection, self._meta(entry, bucket, works), bucket), ticket)
        self._step("logins")
        self._apply(self._user_changes(bucket, claimed.before), ticket)
        if holds.is_due(entry, locked=bucket.object_lock):
            self._step("holds")
            limit = Deadline.in_seconds(self.deadline.remaining * HOLDS_SHARE)
            entry, _ = holds.apply(self.connection, self.home, entry, limit, ticket.renew)
        entry = entry.but(
            closed_logins=[], settings={key: value for key, value in entry.settings.items() if key != EXPIRY}
        )
        if entry != saved:
            ticket.renew()
            ledger.save(entry)
        self._step("verify")
        facts = server.Facts(
            server.version_of(self.connection, bucket.name), bucket, works, self.provider.users == "RGW"
        )
        modules = [{"name": name, "version": CONTRACT} for name in self.request.modules]
        return Done(facts.described(), modules, list(self._warnings(bucket, entry)), list(self._verified()))

    def _begun(self, claimed: Claimed) -> Entry:
        """Gives the entry as it stands until all is done: it says what a run that is killed leaves to the next."""
        before = claimed.before
        entry = claimed.entry.but(
            logins={each.name: each.state for each in self.request.logins},
            closed_logins=before.closed_logins if before else [],
        )
        return entry.but(settings={**entry.settings, EXPIRY: True}) if _loosens(before, entry) else entry

    def _step(self, name: str) -> None:
        log.write("step", step=name)

    def _ledger_bucket(self, *, make: bool) -> Any:
        """Gives the bucket of the ledger, which is the Memory's own where Memories share one."""
        name = ledger_bucket(self.provider)
        found = buckets.read(self.connection, name, self._ledger_provider())
        if found is None and make:
            if self.provider.users == "AWS" and not self.home.alone:
                raise self._not_there(name)
            buckets.create(self.connection, name, self._ledger_provider())
            found = buckets.read(self.connection, name, self._ledger_provider())
            if found is None:
                raise self._not_there(name)
        if found and not self.home.alone:
            buckets.check(found, self.provider)
        return found

    def _ledger_provider(self) -> Any:
        """Where each Memory has its bucket, the ledger's is a plain one."""
        if not self.home.alone:
            return self.provider
        plain = {"object_lock": None, "versioning": False, "encryption": None, "replication": None}
        return self.provider.model_copy(update=plain)

    def _own_bucket(self, place: Bucket) -> Bucket | None:
        if not self.home.alone:
            return place
        return buckets.read(self.connection, self.home.bucket, self.provider)

    def _claimed(self, ledger: Ledger) -> Claimed:
        found = ledger.find(self.request.identity)
        return entries.claim(found, self.request, self.home.prefix, self.home.bucket)

    def _judge(self, bucket: Bucket, claimed: Claimed, ledger: Ledger | None, *, exists: bool = True) -> None:
        """Refuses what cannot be, before anything is made."""
        buckets.check(bucket, self.provider)
        if exists:
            meta.check_dimension(self.connection, self.home, self.request, claimed.before)
        if self.request.legal_hold:
            self._check_hold(bucket, claimed, ledger)

    def _check_hold(self, bucket: Bucket, claimed: Claimed, ledger: Ledger | None) -> None:
        """Refuses a hold that nobody would keep.

        What can be done is done all the same for a Memory that is there: neither lifecycle nor reaper touch it.
        """
        if self.provider.users == "RGW" or (self.provider.users == "AWS" and _keeps(bucket, self.provider)):
            return
        if ledger and claimed.before and not claimed.before.legal_hold:
            ledger.save(claimed.before.but(legal_hold=True))
            self._write_lifecycle(ledger)
        if self.provider.users == "Shared":
            why = "all its Memories have the admin's own keys (s3.users is Shared), which may delete anything"
        else:
            why = "its bucket keeps no versions, so every PUT replaces what was there"
        msg = (
            f'a legal hold cannot be kept on provider "{self.provider.name}": {why}. Nothing expires meanwhile, and '
            "the reaper drops nothing; set legalHold to false, or move to a provider with versioning, objectLock and "
            "users of its own"
        )
        raise CommandError(Code.MODULE_UNSUPPORTED, msg)

    def _bucket(self, found: Bucket | None) -> Bucket:
        """Makes the Memory's bucket what it should be."""
        name = self.home.bucket
        if found is None:
            if self.provider.users == "AWS":
                raise self._not_there(name)
            log.write("making a bucket", bucket=name)
            buckets.create(self.connection, name, self.provider)
            found = buckets.read(self.connection, name, self.provider)
            if found is None:
                raise self._not_there(name)
            buckets.check(found, self.provider)
        changes = list(self._bucket_changes(found))
        for change in changes:
            change.make()
        again = buckets.read(self.connection, name, self.provider) if changes else found
        return again or found

    def _bucket_changes(self, bucket: Bucket) -> Iterator[Change]:
        # With users AWS the bucket is a managed resource: its provider puts right what differs.
        if self.provider.users != "AWS":
            yield from buckets.compare(self.connection, bucket, self.provider)

    def _user_changes(self, bucket: Bucket, before: Entry | None) -> Iterator[Change]:
        provider = self.provider
        if provider.users == "RGW":
            states = {each.name: each.state for each in self.request.logins}
            wanted = logins.Wanted(states, self.secrets, self.request.legal_hold)
            yield from logins.compare(self.connection, self.home, bucket, wanted)
            yield from logins.reopened(self.connection, states, before.closed_logins if before else [])
        if provider.users == "Shared" and self.request.keys:
            yield Change(
                "the admin's keys are handed out",
                partial(hand_out, self.request, self.connection.admin.keys),
            )

    def _apply(self, changes: Iterator[Change], ticket: Ticket) -> None:
        for change in changes:
            ticket.renew()
            change.make()

    def _meta(self, entry: Entry, bucket: Bucket, works: bool) -> meta.Meta:
        return meta.of(entry, self.home, bucket, conditional_put=works)

    def _tried(self, entry: Entry, bucket: Bucket) -> Entry:
        """Tries conditional PUT in the bucket as it is, once."""
        state = {"versioning": bucket.versioning}
        known = entry.settings.get(CONDITIONS) or {}
        if known.get("versioning") is bucket.versioning:
            return entry
        works = server.try_conditions(self.connection, bucket.name, locked=bucket.object_lock)
        return entry.but(settings={**entry.settings, CONDITIONS: {**state, "works": works}})

    def _write_lifecycle(self, ledger: Ledger) -> None:
        """Writes the bucket's lifecycle at once where waiting for maintenance would remove what must stay."""
        if is_managed(self.provider):
            return
        with ledger.lock(f"lifecycle-{self.home.bucket}", self.deadline):
            here = [each for each in ledger.entries() if each.place == self.home.bucket]
            shared = self.home.bucket == ledger.bucket
            lifecycle.write(self.connection, self.home.bucket, here, self.provider.lifecycle, ledger=shared)

    def _warnings(self, bucket: Bucket, entry: Entry) -> Iterator[str]:
        provider = self.provider
        if provider.users != "AWS":
            yield from buckets.remarks(bucket, provider)
        else:
            yield from (each.what for each in buckets.compare(self.connection, bucket, provider))
        if provider.users == "Shared":
            yield (
                f'all Memories of provider "{provider.name}" have one login, the admin\'s (s3.users is Shared): '
                "nothing keeps them apart"
            )
        if entry.legal_hold and not bucket.versioning:
            yield f'bucket "{bucket.name}" keeps no versions: while the Memory is on hold its logins may only read'
        elif entry.legal_hold and not bucket.object_lock:
            yield (
                f'bucket "{bucket.name}" has no object lock: while the Memory is on hold its logins delete nothing, '
                "and nothing expires; but the server lets its admin delete"
            )
        retention = bucket.retention
        if retention and 0 < entry.ttl_days < retention[1]:
            yield (
                f'bucket "{bucket.name}" locks new objects for {retention[1]} days, so their versions stay that long '
                f"although ttlDays is {entry.ttl_days}"
            )
        if entry.legal_hold and bucket.object_lock and not entry.settings.get(holds.SETTING, {}).get("done"):
            yield "not every object has its legal hold yet: maintenance goes on with it"

    def _verified(self) -> Iterator[str]:
        for login in self.request.logins:
            if login.name in self.secrets:
                keys = Keys(login.name, self.secrets[login.name])
                yield from users.check_login(
                    self.connection, keys, self.home.bucket, self.home.prefix, alone=self.home.alone
                )

    def _not_there(self, name: str) -> CommandError:
        if self.provider.users == "AWS":
            msg = f'bucket "{name}" is not there yet: a managed resource makes it'
        else:
            msg = f'bucket "{name}" is gone as soon as it was made'
        return CommandError(Code.UNREACHABLE, msg)


def hand_out(request: ProvisionRequest, keys: Keys) -> None:
    """Writes the admin's keys into the Secret that the function reads.

    Raises:
        CommandError: UNREACHABLE when that cannot be written: there is no login without it.
    """
    if request.keys is None:
        return
    target = (request.keys.namespace, request.keys.name)
    if not report.write_secret({"username": keys.access, "password": keys.secret}, target):
        msg = f"cannot write the keys into Secret {target[0]}/{target[1]}: see the Job's log"
        raise CommandError(Code.UNREACHABLE, msg)


def _keeps(bucket: Bucket, provider: Any) -> bool:
    """Whether a PUT leaves what was there before."""
    return bucket.versioning or provider.versioning or provider.object_lock is not None


def _loosens(before: Entry | None, entry: Entry) -> bool:
    """Whether objects are to stay that the lifecycle's last document would remove."""
    if before is None:
        return False
    held = entry.legal_hold and not before.legal_hold
    return held or (before.ttl_days > 0 and not 0 < entry.ttl_days <= before.ttl_days)
