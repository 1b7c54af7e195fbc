"""The request document: the one thing that the function and the migrations image share (provisioning.md)."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from function import names
from function.cache import ContentCache, content_of
from function.resources.secret import REQUEST_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.backends.base import Backend, State
    from function.model import Memory
    from function.state import Provider

VERSION = 1
_texts: ContentCache[str] = ContentCache(256_000)
# Every call asks what is applied.
_read: ContentCache[Mapping[str, Any]] = ContentCache(128_000)


@dataclass(frozen=True)
class Document:
    """A request document and its content hash."""

    hash: str
    text: str


def wishes(memory: Memory) -> dict[str, Any]:
    """The part that follows from the claim's spec alone."""
    written = memory.written
    index = {"type": memory.embeddings.index.type, "minRows": memory.embeddings.rows_for_index}
    return {
        "dataset": {**written["dataset"], "searchConfig": memory.search_config},
        "embeddings": {**written["embeddings"], "index": index},
        "retention": written["retention"],
        "modules": ["core"],
        "legalHold": memory.legal_hold,
        "deletionPolicy": memory.deletion_policy,
        "access": {"readerRole": memory.access.reader_role, "writerRole": memory.access.writer_role},
    }


def finish(body: Mapping[str, Any], contract: int, retries: Mapping[str, str]) -> Document:
    """Hash a document: its content, the version of the provisioning contract, and the retry annotations.

    The image's digest is no part of it: a rebuilt base image must not run every Job again.
    """
    asked_again = (f"{whose}={value}" for whose, value in retries.items() if value)
    content = _texts.get(content_of(body), lambda: _canonical(body))
    hashed = names.digest(content, str(contract), *asked_again, length=10)
    # Spliced: writing 1.5 kB of JSON twice would be a tenth of a call.
    return Document(hashed, f'{{"version":{VERSION},"hash":"{hashed}",{content[1:]}')


def read(observed: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Read the document in an observed request Secret; one that somebody has broken says nothing."""
    text = ((observed or {}).get("data") or {}).get(REQUEST_FILE)
    return _read.get(text.encode(), lambda: _decoded(text)) if isinstance(text, str) else {}


def _decoded(text: str) -> Mapping[str, Any]:
    try:
        decoded = json.loads(b64decode(text))
    except (ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def states(document: Mapping[str, Any]) -> dict[str, State]:
    """Give the state of each login, by name, that a document asked for; one that somebody has broken says nothing."""
    logins = document.get("logins")
    if not isinstance(logins, list):
        return {}
    said = {str(each.get("name")): each.get("state") for each in logins if isinstance(each, dict)}
    return {name: state for name, state in said.items() if state in {"active", "draining", "closed"}}


def probe(backend: Backend, report: str) -> dict[str, Any]:
    """What a probe needs to know."""
    return {"provider": backend.request(), "report": {"namespace": backend.namespace, "name": report}}


def reap(backend: Backend, provider: Provider, report: str) -> dict[str, Any]:
    """What a reaper needs to know: who it is, where it may look, and how long it waits."""
    return {
        **probe(backend, report),
        "claim": _claim(provider),
        "deletionGraceSeconds": provider.spec.deletion_grace_seconds,
        "approved": provider.approved,
    }


def maintain(backend: Backend, provider: Provider, report: str, memory: Mapping[str, str] | None) -> dict[str, Any]:
    """What maintenance needs to know.

    `memory` is the only one that it looks after, None where it does after all; only PostgreSQL has logins for one.
    """
    wanted = provider.spec.maintenance
    return {
        **probe(backend, report),
        "claim": _claim(provider),
        "driftPolicy": wanted.drift_policy,
        "workMem": wanted.work_mem,
        **({"memory": memory} if provider.spec.type == "postgres" else {}),
    }


def _claim(provider: Provider) -> dict[str, str] | None:
    return {"namespace": provider.claim[0], "name": provider.claim[1]} if provider.claim else None


def _canonical(body: Mapping[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
