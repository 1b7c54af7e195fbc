"""The API server, asked with the pod's own token: where reports go, and which Memories exist."""

import http.client
import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

GROUP = "/apis/memory.proompteng.ai/v1alpha1"
LABELS = ("crossplane.io/claim-namespace", "crossplane.io/claim-name")
TIMEOUT_SECONDS = 10.0
PAGE = "100"

Object = dict[str, Any]


class UnreadableError(Exception):
    """The API server did not answer what was asked, whole: nothing may be concluded from what it said."""


def request(method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """Asks once; gives status and body.

    Raises:
        OSError: There is no such server, it cannot prove itself, or it takes too long.
        http.client.HTTPException: What it says is no HTTP, or ends too early.
        KeyError: This is no pod.
    """
    account = Path(os.environ.get("MEMORY_SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
    headers = {"Authorization": f"Bearer {(account / 'token').read_text().strip()}", "Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = "application/merge-patch+json"
    context = ssl.create_default_context(cafile=str(account / "ca.crt"))
    # From Python 3.13 on a CA must say what its key is for, and that of many a cluster does not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
    try:
        connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def read(path: str) -> Object:
    """Reads one object.

    Raises:
        UnreadableError: It could not be read, for whatever reason; that it is not there is one.
    """
    shown = path.partition("?")[0]
    try:
        status, body = request("GET", path)
        found = json.loads(body) if status == http.client.OK else None
    except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
        msg = f"cannot read {shown} from the API server: {type(error).__name__}: {error}"
        raise UnreadableError(msg) from None
    if not isinstance(found, dict):
        msg = f"the API server answers {status} for {shown}: may this pod's account (memory-reaper) read it?"
        raise UnreadableError(msg)
    return found


def memories(asked: Object) -> dict[str, str]:
    """Gives which Memories exist: the identity of each, by what a claim that is made again does not have.

    That is the composite's uid. A tenant's provider may not see composites; for it, it is the composite's name, as
    the claims of the tenant's own namespace know it.

    Raises:
        UnreadableError: It cannot be told; so nobody is gone.
    """
    claim, provider = asked["claim"], asked["provider"]
    namespaced = f"{GROUP}/namespaces/{claim['namespace']}" if claim else ""
    # Where Jobs run in another cluster than claims, no Memory is there, and none is gone.
    own = read(
        f"{namespaced}/memoryproviders/{claim['name']}" if claim else f"{GROUP}/xmemoryproviders/{provider['name']}"
    )
    ours = (
        own["spec"].get("resourceRef", {}).get("name") == provider["name"]
        if claim
        else own["metadata"]["uid"] == provider["uid"]
    )
    if not ours or "deletionTimestamp" in own["metadata"]:
        msg = f'provider "{provider["name"]}" of this cluster is not the one whose homes these are, or is being deleted'
        raise UnreadableError(msg)
    path, kind = (f"{namespaced}/memories", "Memory") if claim else (f"{GROUP}/xmemories", "XMemory")
    try:
        return {_key(each, claim): _identity(each) for each in _listed(path, kind)}
    except (KeyError, TypeError) as error:
        msg = f"the API server's list of {kind} objects holds one that is none: {error}"
        raise UnreadableError(msg) from None


def _key(memory: Object, claim: object) -> str:
    return str((memory["spec"].get("resourceRef") or {}).get("name", "") if claim else memory["metadata"]["uid"])


def _identity(memory: Object) -> str:
    """`<namespace>/<name>` of the claim, the name of a composite without one."""
    metadata = memory["metadata"]
    if metadata.get("namespace"):
        return f"{metadata['namespace']}/{metadata['name']}"
    claim = memory["spec"].get("claimRef")
    return f"{claim['namespace']}/{claim['name']}" if claim else str(metadata["name"])


def _listed(path: str, kind: str) -> Iterator[Object]:
    """Lists a collection page by page; the pages of one list are of one version."""
    token, versions = "", set()
    while True:
        query = {"limit": PAGE, **({"continue": token} if token else {})}
        answer = read(f"{path}?{urlencode(query)}")
        metadata, items = answer.get("metadata") or {}, answer.get("items")
        versions.add(metadata.get("resourceVersion"))
        if answer.get("kind") != f"{kind}List" or not isinstance(items, list) or len(versions) > 1:
            msg = f"the API server's list of {kind} objects is not whole"
            raise UnreadableError(msg)
        yield from items
        token = metadata.get("continue") or ""
        if not token:
            return
