"""The answer of a command: one key of a ConfigMap, or of a file on a laptop, and always the last line of the log."""

import base64
import http.client
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from migrations import apiserver, log
from migrations.errors import Code, CommandError

# The right to write comes from a RoleBinding that is made while the Job starts.
PATIENCE_SECONDS = 20.0
PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Report:
    """What the function reads; `details` are keys that only some answers have."""

    hash: str
    code: Code
    message: str
    migration: str = ""
    sqlstate: str = ""
    details: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> str:
        """Gives the report as the text that stands in the ConfigMap."""
        answer = {
            "hash": self.hash,
            "code": int(self.code),
            "reason": self.code.reason,
            "message": self.message,
            "migration": self.migration,
            "sqlstate": self.sqlstate,
            **self.details,
        }
        return json.dumps(answer, ensure_ascii=False)


def publish(key: str, text: str, target: tuple[str, str] | None) -> bool:
    """Writes the command's own answer where it is read, then as the log's last line.

    Args:
        key: The command: `provision`, `probe`, `reap` or `maintain`.
        text: The report as JSON.
        target: Namespace and name of the ConfigMap, None when the request did not say.

    Returns:
        Whether it was written; a report that cannot be written is logged and is no reason to fail.
    """
    file = os.environ.get("MEMORY_REPORT_FILE")
    try:
        return _write(key, text, target, Path(file) if file else None)
    finally:
        log.line(text)


def write(key: str, text: str, target: tuple[str, str]) -> bool:
    """Writes an answer to the report of somebody else than the command's own, as `publish` otherwise.

    On a laptop that is the file `reports/<namespace>/<name>.json` beside the command's.
    """
    file = _file_of(target)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
    return _write(key, text, target, file)


def write_secret(entries: Mapping[str, str], target: tuple[str, str]) -> bool:
    """Merges entries into a Secret, which is there already.

    On a laptop that is the file `secrets/<namespace>/<name>.json` beside the command's report.

    Args:
        entries: What they say, as text.
        target: Namespace and name.

    Returns:
        Whether it was written; why not is logged, without what they say.
    """
    data = {key: base64.b64encode(text.encode()).decode() for key, text in entries.items()}
    own, (namespace, name) = os.environ.get("MEMORY_REPORT_FILE"), target
    try:
        if own:
            path = Path(own).parent / "secrets" / namespace / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            path.touch(mode=0o600)
            path.write_text(json.dumps({**before, **data}), encoding="utf-8")
        else:
            _patch_patiently("Secret", namespace, name, data)
    except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
        log.write("cannot write a Secret", secret=f"{namespace}/{name}", error=f"{type(error).__name__}: {error}")
        return False
    return True


def read(key: str, namespace: str, name: str) -> str | None:
    """Gives what a report says under a key, "" when it says nothing, None when it cannot be read."""
    file = _file_of((namespace, name))
    try:
        if file:
            return str(json.loads(file.read_text(encoding="utf-8")).get(key, "")) if file.exists() else ""
        found = apiserver.read(_path(namespace, name)).get("data") or {}
    except (CommandError, OSError, ValueError) as error:
        log.write("cannot read a report", error=f"{type(error).__name__}: {error}")
        return None
    return str(found.get(key, ""))


def _file_of(target: tuple[str, str]) -> Path | None:
    own, (namespace, name) = os.environ.get("MEMORY_REPORT_FILE"), target
    return Path(own).parent / "reports" / namespace / f"{name}.json" if own else None


def _write(key: str, text: str, target: tuple[str, str] | None, file: Path | None) -> bool:
    try:
        if file:
            _write_file(file, key, text)
        elif target is None:
            log.write("no report: the request does not say where to")
            return False
        else:
            _patch_patiently("ConfigMap", *target, {key: text})
    except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
        log.write("cannot write the report", error=f"{type(error).__name__}: {error}")
        return False
    return True


def _write_file(path: Path, key: str, text: str) -> None:
    """Merges one key, as the merge patch of a ConfigMap's data would."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**before, key: text}, ensure_ascii=False), encoding="utf-8")


def _patch_patiently(kind: Literal["ConfigMap", "Secret"], namespace: str, name: str, data: Mapping[str, str]) -> None:
    """Patches, again while the API server says that it must not (403) or that nothing is there (404)."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while (status := _patch(_path(namespace, name, kind), data)) != http.client.OK:
        if status not in {http.client.FORBIDDEN, http.client.NOT_FOUND} or time.monotonic() > limit:
            reason = http.client.responses.get(status, "")
            msg = f"the API server answered {status} {reason} for {kind} {namespace}/{name}"
            raise OSError(msg)
        time.sleep(PAUSE_SECONDS)


def _patch(path: str, data: Mapping[str, str]) -> int:
    """Gives the status that the API server answers with."""
    status, _ = apiserver.request("PATCH", path, {"data": data}, "application/merge-patch+json")
    return status


def _path(namespace: str, name: str, kind: Literal["ConfigMap", "Secret"] = "ConfigMap") -> str:
    return f"/api/v1/namespaces/{namespace}/{kind.lower()}s/{name}"
