"""What a person sees: progress, the tree of objects, the conditions, the bindings, the whole of a Memory."""

import datetime as dt
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memoryctl.changes import Change, Composed, Plan
from memoryctl.crossplane import Reconciled, ready
from memoryctl.objects import Key, key_of
from memoryctl.status import Part, Status

MINUTE, HOUR, DAY = 60, 3600, 86400
UNITS = ("B", "kB", "MB", "GB", "TB")
UNIT = 1000


class Progress:
    """Short lines with the seconds since the beginning; none when it is `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._start = time.monotonic()
        self._quiet = quiet

    @property
    def seconds(self) -> float:
        """How long it has been."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """Prints a line at once."""
        if self._quiet:
            return
        sys.stdout.write(f"{self.seconds:5.1f} s  {text}\n")
        sys.stdout.flush()


def tree(reconciled: Iterable[Reconciled]) -> str:
    """Gives the composed objects below their composites, and these below their claims."""
    rows = [("OBJECT", "RESOURCE", "READY")]
    for one in reconciled:
        composite = key_of(one.composite)
        state = _word(ready(one.composite))
        claim = one.composite["spec"].get("claimRef")
        indent = ""
        if claim:
            rows.append((f"{claim['kind']} {claim['namespace']}/{claim['name']}", "", state))
            indent = "   "
        rows.append((f"{'└─ ' if claim else ''}{composite}", "", state))
        children = sorted(one.resources.items())
        for name, child in children:
            branch = "└─" if name == children[-1][0] else "├─"
            rows.append((f"{indent}{branch} {key_of(child.body)}", name, _word(child.ready)))
    return _table(rows)


def conditions(reconciled: Iterable[Reconciled]) -> str:
    """Gives every condition of claims (of composites, where there is no claim)."""
    rows = [("OF", "CONDITION", "STATUS", "REASON", "MESSAGE")]
    for one in reconciled:
        name = owner(one.composite)
        for found in one.composite.get("status", {}).get("conditions", []):
            rows.append((name, found["type"], found["status"], found["reason"], found.get("message", "")))
            name = ""
    return _table(rows)


def bindings(written: Mapping[Path, list[str]]) -> str:
    """Gives the directories and their keys; never a value."""
    return "\n".join(f"{_relative(directory)}\n   {'  '.join(keys)}" for directory, keys in sorted(written.items()))


def status(found: Status, now: dt.datetime) -> str:
    """Gives all that is known of one Memory, a paragraph for each thing."""
    parts = [found.where, _parts(found), _said(found, now), _facts(found, now)]
    if found.jobs:
        rows = [("TASK", "LAST JOB", "ENDED", "AGE", "MESSAGE")]
        rows += [
            (one.task, f"{one.namespace}/{one.name}", one.ended, _age(one.since, now), one.message)
            for one in found.jobs
        ]
        parts.append(_table(rows))
    parts += ["\n".join([title, *(f"- {one}" for one in lines)]) for title, lines in _lists(found) if lines]
    return "\n\n".join(parts)


def plan(found: Plan) -> str:
    """Gives what would happen, a paragraph for each claim."""
    parts = [found.where, *(_change(one) for one in found.changes)]
    if not found.changes:
        parts.append("nothing would change")
    if found.notes:
        parts.append("\n".join(["NOTES", *(f"- {one}" for one in found.notes)]))
    return "\n\n".join(parts)


def _change(one: Change) -> str:
    objects = [f"+ {_composed(each)}" for each in one.added] + [f"- {_composed(each)}" for each in one.removed]
    for each in one.changed:
        objects += [f"~ {_composed(each)}", *(f"    {path}" for path in each.paths)]
    sections = [("SPEC", one.spec), ("OBJECTS", objects), ("CONDITIONS", one.conditions), ("REQUEST", one.request)]
    if one.provision is not None:
        told = [f"the home is {one.provision.get('home', 'not looked at')}: {one.provision['message']}"]
        told += [f"migration {each}" for each in one.provision.get("migrations", [])]
        sections.append(("PROVISION", told + one.provision.get("changes", [])))
    lines = [one.of]
    for title, said in sections:
        lines += [f"  {title}", *(f"    {each}" for each in said)] if said else []
    return "\n".join(lines)


def _composed(one: Composed) -> str:
    return f"{one.name} ({one.resource})"


def _lists(found: Status) -> Sequence[tuple[str, Sequence[str]]]:
    return ("DRIFT", found.drift or ()), ("NOT READ", found.unread)


def _parts(found: Status) -> str:
    rows = [("OBJECT", "RESOURCE", "READY"), (_name(found.claim), "", found.claim.ready)]
    if found.composite:
        rows.append((f"└─ {_name(found.composite)}", "", found.composite.ready))
    for one in found.composed:
        branch = "└─" if one is found.composed[-1] else "├─"
        rows.append((f"   {branch} {_name(one)}", one.resource, one.ready))
    return _table(rows)


def _name(part: Part) -> str:
    return str(Key("", part.kind, part.namespace, part.name))


def _said(found: Status, now: dt.datetime) -> str:
    rows = [("OF", "CONDITION", "STATUS", "REASON", "AGE", "MESSAGE")]
    of = ""
    for one in found.conditions:
        whose = "" if one.of == of else one.of
        rows.append((whose, one.type, one.status, one.reason, _age(one.since, now), one.message))
        of = one.of
    return _table(rows)


def _facts(found: Status, now: dt.datetime) -> str:
    """Gives what maintenance found, a line each; what nobody has looked at yet is a dash."""
    embeddings, retention, data = found.embeddings, found.retention, found.data
    days = found.wanted.get("ttlDays", 0)
    ttl = _counted(days, "day") if days else "rows stay"
    kept = [ttl, *(["on legal hold"] if found.wanted.get("legalHold") else [])]
    if "lastRun" in retention:
        kept += [f"last removed {_counted(retention.get('deleted', 0), 'row')} {_age(retention['lastRun'], now)} ago"]
    else:
        kept += ["nothing removed yet"]
    index = [str(embeddings["index"])] if "index" in embeddings else []
    sizes = [f"{data['deadPercent']} % dead"] if "deadPercent" in data else []
    sizes += [f"oldest {data['oldest'][:10]}"] if "oldest" in data else []
    sizes += [f"{_counted(data['held'], 'row')} held"] if data.get("held") else []
    drift = (
        "never checked" if found.drift is None else _counted(len(found.drift), "difference") if found.drift else "none"
    )
    rows = [
        ("INDEX", ", ".join([*index, *_size(embeddings)]) or "-"),
        ("RETENTION", ", ".join(kept)),
        ("DATA", ", ".join([*_size(data), *sizes]) or "-"),
        ("DRIFT", drift),
    ]
    return _table(rows)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _size(part: Mapping[str, Any]) -> list[str]:
    rows = [_counted(part["rows"], "row")] if "rows" in part else []
    return rows + ([_bytes(part["bytes"])] if "bytes" in part else [])


def _bytes(count: float) -> str:
    unit = 0
    while count >= UNIT and unit < len(UNITS) - 1:
        count, unit = count / UNIT, unit + 1
    return f"{count:.3g} {UNITS[unit]}"


def _age(since: str, now: dt.datetime) -> str:
    """Gives how long ago that was, in its two largest units; "-" of no time."""
    try:
        seconds = int((now - dt.datetime.fromisoformat(since)).total_seconds())
    except ValueError:
        return "-"
    days, rest = divmod(max(0, seconds), DAY)
    hours, rest = divmod(rest, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    given = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    first = next((at for at, (count, _) in enumerate(given) if count), len(given) - 1)
    return "".join(f"{count}{unit}" for count, unit in given[first : first + 2] if count or first == len(given) - 1)


def owner(composite: Mapping[str, Any]) -> str:
    """Names what a person wrote: the claim, or the composite without one."""
    claim = composite["spec"].get("claimRef")
    return f"{claim['kind']} {claim['namespace']}/{claim['name']}" if claim else str(key_of(composite))


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _word(is_ready: bool) -> str:
    return "True" if is_ready else "False"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
