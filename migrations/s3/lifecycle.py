"""The lifecycle document of a bucket: the server itself expires what is older than a Memory's ttlDays.

It goes by the time of each object's last change, so nothing younger is ever removed, whoever writes meanwhile. The
document is replaced as a whole, and this is its one writer; rules of others in it are kept.
"""

from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError

from migrations import log
from migrations.homes.entry import Entry
from migrations.s3.connection import Connection, is_missing
from migrations.s3.names import KINDS, LEDGER
from migrations.s3.request import Lifecycle

Rule = dict[str, Any]
MANY_RULES = 1000
OURS = "memory-proompteng-"
# A version that was replaced, deleted or expired is no entry any more; it stays for a day, to be found again.
VERSION_DAYS = 1
UPLOAD_DAYS = 7
LEDGER_DAYS = 30


def rules_of(entry: Entry) -> list[Rule]:
    """Gives the rules of one home: none for what is kept for ever, or is on hold."""
    if not entry.ttl_days or entry.legal_hold:
        return []
    return [
        {
            "ID": f"{OURS}{entry.key}-{kind}",
            "Status": "Enabled",
            "Filter": {"Prefix": f"{entry.home}{kind}/"},
            "Expiration": {"Days": entry.ttl_days},
            "NoncurrentVersionExpiration": {"NoncurrentDays": VERSION_DAYS},
        }
        for kind in KINDS
    ]


def wanted(
    entries: Sequence[Entry], foreign: Sequence[Rule], transition: Lifecycle | None, *, ledger: bool
) -> tuple[list[Rule], list[Entry]]:
    """Gives the rules of a bucket, and the homes for which there is no room in its document.

    Args:
        entries: The homes in this bucket.
        foreign: Rules that others made: they stay, as they are.
        transition: When objects go to a cheaper class.
        ledger: Whether the ledger is in this bucket.
    """
    rules = [*foreign, _uploads()]
    if transition:
        rules.append(_transition(transition))
    if ledger:
        rules.append(_ledger())
    left = []
    for entry in sorted(entries, key=lambda each: each.created_at):
        own = rules_of(entry)
        if len(rules) + len(own) > MANY_RULES:
            left.append(entry)
        else:
            rules += own
    return rules, left


def read(connection: Connection, bucket: str) -> list[Rule]:
    """Gives the rules that a bucket has."""
    try:
        found = connection.s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    except ClientError as error:
        if is_missing(error):
            return []
        raise
    return list(found.get("Rules", []))


def write(
    connection: Connection, bucket: str, entries: Sequence[Entry], transition: Lifecycle | None, *, ledger: bool
) -> tuple[list[Rule], list[Entry]]:
    """Makes the document right, under the lock of the bucket's lifecycle; a request only where it differs.

    Returns:
        What there was, and the homes for which there is no room.
    """
    found = read(connection, bucket)
    foreign = [each for each in found if not is_ours(each)]
    rules, left = wanted(entries, foreign, transition, ledger=ledger)
    if by_id(found) != by_id(rules):
        log.write("writing the lifecycle of a bucket", bucket=bucket, rules=len(rules))
        connection.s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    return found, left


def is_ours(rule: Rule) -> bool:
    """Whether we made a rule."""
    return str(rule.get("ID", "")).startswith(OURS)


def by_id(rules: Sequence[Rule]) -> dict[str, Rule]:
    """Gives rules to be compared: servers give them back in an order, and an empty prefix in a form, of their own."""
    return {str(each.get("ID", "")): _plain(each) for each in rules}


def _plain(rule: Rule) -> Rule:
    empty = rule.get("Filter") in ({}, {"Prefix": ""}) or rule.get("Prefix") == ""
    kept = {key: value for key, value in rule.items() if key not in {"Filter", "Prefix"}}
    return kept if empty else rule


def _uploads() -> Rule:
    return {
        "ID": f"{OURS}uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UPLOAD_DAYS},
    }


def _transition(transition: Lifecycle) -> Rule:
    return {
        "ID": f"{OURS}transition",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "Transitions": [{"Days": transition.transition_days, "StorageClass": transition.storage_class}],
    }


def _ledger() -> Rule:
    return {
        "ID": f"{OURS}ledger",
        "Status": "Enabled",
        "Filter": {"Prefix": LEDGER},
        "NoncurrentVersionExpiration": {"NoncurrentDays": LEDGER_DAYS},
    }
