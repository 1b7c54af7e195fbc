"""Every condition: type, reason, message.

Messages say what is wrong, the value, and what to do; none holds a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROVIDER_READY = "ProviderReady"
CREDENTIALS_READY = "CredentialsReady"
PROVISIONED = "Provisioned"
BACKEND_READY = "BackendReady"
REAPER_READY = "ReaperReady"
MAINTENANCE_READY = "MaintenanceReady"
INDEX_READY = "IndexReady"
RETENTION_SCHEDULED = "RetentionScheduled"
IN_SYNC = "InSync"

# Not a reason: the delivery of that name.
OBJECT = "Object"

# What the migrations image says by its exit code (provisioning.md); a contract test compares it with the image's table.
REASONS_BY_EXIT_CODE = {
    1: "JobFailed",
    10: "ExtensionMissing",
    11: "DimensionConflict",
    12: "ChecksumMismatch",
    13: "PermissionDenied",
    14: "SchemaConflict",
    15: "AdoptionRequired",
    16: "ModuleUnsupported",
    17: "OnHold",
    20: "BadRequest",
    30: "Unreachable",
    31: "LockBusy",
}
PERMANENT_EXIT_CODES = (10, 11, 12, 13, 14, 15, 16, 17, 20)
TRANSIENT_EXIT_CODES = (30, 31)
# A platform team repairs these on the server, so new capabilities of the server are worth a new attempt.
REPAIRABLE_EXIT_CODES = (10, 13, 16)


@dataclass(frozen=True)
class Condition:
    """A condition of composite and claim."""

    type: str
    status: bool
    reason: str
    message: str = ""


class Blocked(Exception):  # noqa: N818 - not an error of ours: a plan ends here, and the condition says why
    """Something that a plan needs is not there or not right."""

    def __init__(self, condition: Condition) -> None:
        super().__init__(condition.message)
        self.condition = condition


def true(kind: str, reason: str, message: str = "") -> Condition:
    """Give a condition that holds."""
    return Condition(kind, status=True, reason=reason, message=message)


def false(kind: str, reason: str, message: str) -> Condition:
    """Give a condition that does not hold, and what to do about it."""
    return Condition(kind, status=False, reason=reason, message=message)


def provider_available(name: str) -> Condition:
    """Say that the provider is there, admits us, and answers."""
    return true(PROVIDER_READY, "Available", f'provider "{name}" is ready')


def provider_not_found(name: str, places: Iterable[str]) -> Condition:
    """Say where a provider was looked for."""
    looked = ", ".join(places)
    message = f'spec.providerRef.name: there is no provider "{name}" ({looked}): name one that exists, or make it'
    return false(PROVIDER_READY, "NotFound", message)


def provider_not_admitted(name: str, consumer: str, allowed: str) -> Condition:
    """Say whom a provider admits."""
    message = (
        f'provider "{name}" admits {allowed}, not {consumer}: '
        "ask the provider's owner to add it to spec.allowedConsumers.namespaces"
    )
    return false(PROVIDER_READY, "NotAdmitted", message)


def consumer_not_found(name: str, namespace: str) -> Condition:
    """Say that there are no labels to look at."""
    message = (
        f'provider "{name}" admits namespaces by their labels, and there is no Namespace "{namespace}" to look at: '
        "make it"
    )
    return false(PROVIDER_READY, "NotAdmitted", message)


def consumer_not_seen(name: str, namespace: str) -> Condition:
    """Say what Crossplane has not answered."""
    message = (
        f'provider "{name}" admits namespaces by their labels, and Crossplane has not shown those of namespace '
        f'"{namespace}" yet: if this stays, let its service account get, list and watch namespaces'
    )
    return false(PROVIDER_READY, "NotAdmitted", message)


def provider_not_ready(name: str, detail: str) -> Condition:
    """Say what a provider's own condition says."""
    return false(PROVIDER_READY, "NotReady", f'provider "{name}" is not ready: {detail}')


def provider_changed(name: str, differences: Iterable[str]) -> Condition:
    """Say what a pinned provider was and what it is now."""
    message = (
        f'provider "{name}" is not what this Memory was made on ({"; ".join(differences)}): nothing was moved; '
        "put the provider back as it was, or make a new claim for the new backend"
    )
    return false(PROVIDER_READY, "Changed", message)


def provider_captured(name: str, claimant: str) -> Condition:
    """Say that a shared provider has got an owner."""
    return provider_changed(name, [f"it was nobody's claim and now belongs to the claim {claimant}"])


def provider_switch_refused(pinned: str, wanted: str) -> Condition:
    """Say that data does not move by itself."""
    message = (
        f"spec.providerRef: this Memory's data is on provider {pinned}; switching to {wanted} would leave it behind: "
        "set providerRef back, or make a new claim"
    )
    return false(PROVIDER_READY, "SwitchRefused", message)


def provider_invalid(name: str, problem: str) -> Condition:
    """Say what is wrong in the provider's spec."""
    return false(PROVIDER_READY, "InvalidSpec", f'provider "{name}": {problem}')


def operator_too_old(name: str, problem: str) -> Condition:
    """Say what the provider needs of the cluster."""
    return false(PROVIDER_READY, "OperatorTooOld", f'provider "{name}": {problem}')


def root_key_missing(problem: str) -> Condition:
    """Say what the pipeline step lacks."""
    return false(CREDENTIALS_READY, "RootKeyMissing", problem)


def no_root_key(credential: str) -> str:
    """Say where the root key belongs."""
    return (
        f'the pipeline step has no credential "{credential}": add it to the Composition, with a Secret '
        'that holds at least 32 random bytes under the key "current"'
    )


def unknown_root_key(key_id: str) -> Condition:
    """Say which root key is gone."""
    message = (
        f"this Memory's passwords come from root key {key_id}, which is neither current nor previous any more: "
        "nothing was changed; put that key back under previous"
    )
    return false(CREDENTIALS_READY, "UnknownRootKey", message)


def epoch_lowered(wanted: int, applied: int) -> Condition:
    """Say that passwords which were given up do not come back."""
    message = (
        f"spec.credentials.epoch: {wanted} is lower than {applied}, which is applied: nothing was changed; "
        f"write {applied}, or more for new passwords"
    )
    return false(CREDENTIALS_READY, "EpochLowered", message)


def waiting_for_backend() -> Condition:
    """Say why there is no Secret yet."""
    return false(
        CREDENTIALS_READY, "WaitingForBackend", "the connection Secret appears when the backend is provisioned"
    )


def credentials_ready(secret: str, namespace: str, *, is_copied: bool = False, caveat: str = "") -> Condition:
    """Say where the connection Secret is (a copy of it is where only the claim says), and what it does not give."""
    copied = "; Crossplane copies it to the Secret that spec.writeConnectionSecretToRef of the claim names"
    message = f'connection Secret "{secret}" in namespace "{namespace}"{copied if is_copied else ""}'
    message += f"; {caveat}" if caveat else ""
    return true(CREDENTIALS_READY, "Available", message)


def no_secret_ref(composite: str) -> Condition:
    """Say where delivery Object wants a Secret to be named."""
    message = (
        f'delivery Object hands the password to Crossplane, and XMemory "{composite}" names no Secret for it: set '
        "writeConnectionSecretsToNamespace in the Composition, and spec.writeConnectionSecretToRef on the claim (on "
        "the XMemory itself, where there is no claim)"
    )
    return false(CREDENTIALS_READY, "NoSecretRef", message)


def no_reader_ref() -> Condition:
    """Say why there can be no second Secret."""
    message = (
        "spec.access.readOnlySecret: delivery Object hands one password to Crossplane, and there is no Secret for the "
        "reader's (in an Object everybody could read it): set it to false, or use a Composition with delivery Direct"
    )
    return false(CREDENTIALS_READY, "NoSecretRef", message)


def waiting_for_secret(secret: str, namespace: str) -> Condition:
    """Say which Secret should be there in a moment."""
    message = (
        f'waiting for Secret "{secret}" in namespace "{namespace}"; if it does not come, another object of that name '
        "is in the way: delete or rename it"
    )
    return false(CREDENTIALS_READY, "WaitingForBackend", message)


def waiting_for_keys(secret: str, namespace: str) -> Condition:
    """Say what a Job should have left behind."""
    message = (
        f'Secret "{secret}" in namespace "{namespace}", which the Job writes, does not hold the keys of the backend '
        "yet: if it stays so, see the Job's log"
    )
    return false(CREDENTIALS_READY, "WaitingForBackend", message)


def waiting_for_access_key(name: str) -> Condition:
    """Say whose key is not to be seen."""
    message = (
        f'AccessKey "{name}" shows no username and password: wait for the AWS provider to write them, or delete the '
        "AccessKey if its Secret is lost, and it is made anew"
    )
    return false(CREDENTIALS_READY, "WaitingForBackend", message)


def provisioned(job: str, namespace: str) -> Condition:
    """Say which Job did it."""
    return true(PROVISIONED, "Succeeded", f'Job "{job}" in namespace "{namespace}" is complete')


def provisioning(job: str, namespace: str, *, current: bool) -> Condition:
    """Say which Job is at work."""
    tail = "" if current else "; it works on an earlier spec, and the Job for this one starts when it has ended"
    return false(PROVISIONED, "Running", f'Job "{job}" in namespace "{namespace}" is running{tail}')


def rotating(job: str, namespace: str, epoch: int, wanted: int) -> Condition:
    """Say that one Job more is needed than the one that is complete."""
    rest = f"epoch {wanted} comes next" if epoch != wanted else "the login of the epoch before is closed next"
    message = f'Job "{job}" in namespace "{namespace}" is complete: the Secret holds epoch {epoch}, and {rest}'
    return false(PROVISIONED, "Running", message)


def applying(namespace: str) -> Condition:
    """Say what CloudNativePG is about to make; not which one, for each change of a status is work for many."""
    message = f'waiting for CloudNativePG to make this Memory\'s roles and database in namespace "{namespace}"'
    return false(PROVISIONED, "Running", message)


def not_applied(reason: str, what: str, namespace: str, said: str) -> Condition:
    """Say what CloudNativePG could not make, in its own words."""
    message = (
        f'CloudNativePG cannot apply {what} in namespace "{namespace}": {said}; it tries again every half minute, '
        "and the Memory goes on by itself"
    )
    return false(PROVISIONED, reason, message)


def managing(*, alone: bool) -> Condition:
    """Say what the AWS provider is about to make; not which one, for each change of a status is work for many."""
    what = "bucket and users" if alone else "users"
    return false(PROVISIONED, "Running", f"waiting for the AWS provider to make this Memory's {what}")


def not_managed(what: str, said: str) -> Condition:
    """Say what the AWS provider could not make, in its own words."""
    message = (
        f"the AWS provider cannot apply {what}: {said}; it tries again by itself, and the Memory goes on by itself"
    )
    return false(PROVISIONED, "NotApplied", message)


def job_failed(reason: str, said: str, job: str, namespace: str) -> str:
    """Explain a failed Job that left no report of its own."""
    where = f'Job "{job}" in namespace "{namespace}"'
    if reason == "DeadlineExceeded":
        return (
            f"{where} did not end in time: look at its pod's events (image, admin Secret, node); "
            "it is tried again while the provider is ready"
        )
    if reason == "JobFailed":
        return (
            f"{where} failed ({said}): read the log of its last pod, then change the spec or the annotation "
            "memory.proompteng.ai/retry"
        )
    return f"{where} ended with {reason} and its report could not be read ({said}): see the last line of its log"


def not_provisioned(reason: str, message: str) -> Condition:
    """Say why the backend is not as the spec wants it."""
    return false(PROVISIONED, reason, message)


def delivery_changed(wanted: str) -> str:
    """Explain why objects that were delivered the other way stay as they are."""
    there, here = (
        ("Objects of provider-kubernetes", OBJECT) if wanted == "Direct" else ("objects of their own", "Direct")
    )
    return (
        f"what is composed are {there}, and the Composition says delivery {wanted}: nothing was moved; set "
        f"spec.compositionRef back to a Composition with delivery {here}, or make a new claim"
    )


def backend_ready(title: str, version: str) -> Condition:
    """Say which server answers; of some only one of the two is known."""
    server = " ".join(filter(None, (title, version))) or "the server"
    return true(BACKEND_READY, "Available", f"{server} answers")


def backend_not_ready(reason: str, message: str) -> Condition:
    """Say what the probe found."""
    return false(BACKEND_READY, reason, message)


def not_run_yet(kind: str, part: str, schedule: str) -> Condition:
    """Say that a CronJob has not run since its request changed, which is no failure."""
    return true(kind, "Waiting", f'the {part} has not run yet with this spec: its schedule is "{schedule}"')


def index_disabled(why: str) -> Condition:
    """Say why there is to be no index."""
    return true(INDEX_READY, "Disabled", why)


def index_not_earned(rows: int, there: int | None) -> Condition:
    """Say with how many embeddings an index is built."""
    now = "" if there is None else f" (about {there} now)"
    message = f"searches are exact; an index is built when there are {rows} embeddings{now}"
    return true(INDEX_READY, "Exact", message)


def index_not_built(said: str) -> Condition:
    """Say how searches are where no index is built."""
    return true(INDEX_READY, "Exact", said)


def index_ready(said: str) -> Condition:
    """Say that searches use the index."""
    return true(INDEX_READY, "Ready", said or "searches use the index")


def index_not_ready(reason: str, said: str) -> Condition:
    """Say why searches are exact although they should not be."""
    return false(INDEX_READY, reason, said or "searches are exact: the index cannot be used")


def retention_on_hold() -> Condition:
    """Say that nothing goes."""
    return true(RETENTION_SCHEDULED, "OnHold", "spec.legalHold is true: nothing is removed, whatever its age")


def retention_disabled() -> Condition:
    """Say that nothing is ever removed."""
    return true(RETENTION_SCHEDULED, "Disabled", "spec.retention.ttlDays is 0: rows are kept for ever")


def retention_scheduled(days: int, schedule: str, deleted: int, when: str | None) -> Condition:
    """Say what is removed when, and what was."""
    last = f"; {deleted} went on {when}" if when else ""
    message = f'what is older than {_counted(days, "day")} goes when maintenance runs ("{schedule}"){last}'
    return true(RETENTION_SCHEDULED, "Scheduled", message)


def retention_fails(said: str) -> Condition:
    """Say why what should go stays."""
    return false(RETENTION_SCHEDULED, "Failing", said)


def never_checked(schedule: str, problem: str) -> Condition:
    """Say that nobody has compared the backend with what it should be."""
    why = f"maintenance has not come to it: {problem}" if problem else "maintenance has not run yet"
    return false(IN_SYNC, "NeverChecked", f'{why}; it runs at "{schedule}"')


def in_sync() -> Condition:
    """Say that nobody has changed the backend."""
    return true(IN_SYNC, "InSync", "what the backend has is as this version makes it")


def drifted(differences: Iterable[str], more: int, *, repairs: bool) -> Condition:
    """Say how the backend differs, and what to do."""
    rest = f"; and {more} more" if more else ""
    remedy = (
        "the provider's driftPolicy Repair could not put this back without a risk for data: do it by hand"
        if repairs
        else "put it back by hand, or set spec.maintenance.driftPolicy of the provider to Repair"
    )
    return false(IN_SYNC, "Drift", f"{'; '.join(differences)}{rest}: {remedy}")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def cronjob_failed(cronjob: str, namespace: str) -> str:
    """Say which CronJob's last run did not succeed."""
    return f'the last run of CronJob "{cronjob}" in namespace "{namespace}" did not succeed: look at its pods'


def observed(composite: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """Give a condition that an object carries, None when it does not."""
    found = composite.get("status", {}).get("conditions", ())
    return next((condition for condition in found if condition.get("type") == kind), None)


def carried(composite: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Give the conditions that an object carries, by type."""
    return {condition.get("type", ""): condition for condition in composite.get("status", {}).get("conditions", ())}


def has_changed(condition: Condition, before: Mapping[str, Any] | None) -> bool:
    """Whether a condition says something that an object, which carries `before` of its type, does not say yet."""
    if before is None:
        return True
    return bool(before.get("status") != str(condition.status) or before.get("reason") != condition.reason)
