"""The API server of the cluster that a pod runs in, asked with the pod's own token."""

import http.client
import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from migrations.errors import Code, CommandError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_SECONDS = 10.0
PAGE = 100

Object = dict[str, Any]


class UnreadableError(CommandError):
    """The API server did not answer what was asked, whole: nothing may be concluded from what it said."""


def request(method: str, path: str, body: object = None, content_type: str = "application/json") -> tuple[int, bytes]:
    """Asks once.

    Returns:
        Status and body, which is whole: a connection that is cut raises.

    Raises:
        OSError: There is no such server, it cannot prove itself, or it takes too long.
        http.client.HTTPException: What it says is no HTTP, or ends too early.
        KeyError: We are in no cluster.
    """
    token = (SERVICE_ACCOUNT / "token").read_text(encoding="utf-8").strip()
    context = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = content_type
    try:
        connection.request(method, path, body=None if body is None else json.dumps(body).encode(), headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def read(path: str) -> Object:
    """Reads one object.

    Raises:
        UnreadableError: It could not be read, for whatever reason; that it is not there is one.
    """
    try:
        status, body = request("GET", path)
    except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
        msg = f"cannot read {_shown(path)} from the API server: {type(error).__name__}: {error}"
        raise UnreadableError(Code.UNREACHABLE, msg) from None
    if status != http.client.OK:
        denied = status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}
        hint = ": bind the ClusterRole memory-reaper to this pod's service account" if denied else ""
        msg = f"the API server answers {status} {http.client.responses.get(status, '')} for {_shown(path)}{hint}"
        raise UnreadableError(Code.PERMISSION_DENIED if denied else Code.UNREACHABLE, msg)
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        msg = f"the API server's answer for {_shown(path)} is no JSON object"
        raise UnreadableError(Code.UNREACHABLE, msg)
    return found


def list_whole(path: str, kind: str, **selectors: str) -> list[Object]:
    """Lists all objects of a collection, page by page.

    The pages of one list are a snapshot: they carry one resource version, and say how many objects follow. What does
    not add up is no list.

    Raises:
        UnreadableError: A page could not be read, or is missing.
    """
    found: list[Object] = []
    for page in _pages(path, kind, selectors):
        found += page
    return found


def _pages(path: str, kind: str, selectors: dict[str, str]) -> Iterator[list[Object]]:
    token, version, expected, count = "", None, None, 0
    while True:
        query = {"limit": str(PAGE), **selectors, **({"continue": token} if token else {})}
        answer = read(f"{path}?{urlencode(query)}")
        items, metadata = answer.get("items"), answer.get("metadata")
        if answer.get("kind") != f"{kind}List" or not isinstance(items, list) or not isinstance(metadata, dict):
            raise _partial(path, f"an answer is no {kind}List")
        if version not in {None, metadata.get("resourceVersion")}:
            raise _partial(path, "its pages are of different times")
        version, token = metadata.get("resourceVersion"), metadata.get("continue") or ""
        remaining, count = metadata.get("remainingItemCount"), count + len(items)
        if remaining is not None:
            expected = count + remaining
        yield items
        if not token:
            break
    if expected not in {None, count}:
        raise _partial(path, f"{count} objects of {expected} came")


def _partial(path: str, why: str) -> UnreadableError:
    return UnreadableError(Code.UNREACHABLE, f"the API server's list of {_shown(path)} is not whole: {why}")


def _shown(path: str) -> str:
    """Names what was asked for as `kubectl` would; the query holds a token, and names of claims."""
    return path.partition("?")[0].rpartition("/apis/")[2]
