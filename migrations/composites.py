"""Which Memories exist: what the reaper reads from the API server, whole or not at all.

A provider of the platform's reads composites (`XMemory`), which have no namespace. A tenant's may not: it would see who
else is there. It reads the claims of its own namespace instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from migrations import apiserver
from migrations.apiserver import Object, UnreadableError
from migrations.errors import Code
from migrations.request import Provider, Reap

P = TypeVar("P", bound=Provider)

GROUP = "/apis/memory.proompteng.ai/v1alpha1"
LABEL_CLAIM_NAME = "crossplane.io/claim-name"
LABEL_CLAIM_NAMESPACE = "crossplane.io/claim-namespace"


@dataclass(frozen=True)
class Composite:
    """A Memory as the cluster has it. `key` is what a claim that is made again does not have: its composite."""

    key: str
    identity: str


@dataclass(frozen=True)
class Present:
    """The Memories that exist."""

    composites: tuple[Composite, ...]

    def has(self, key: str) -> bool:
        """Whether this very composite exists."""
        return any(each.key == key for each in self.composites)

    def names(self, identity: str) -> bool:
        """Whether somebody of this identity exists, be it another claim than the one before."""
        return any(each.identity == identity for each in self.composites)


class Cluster:
    """The control plane that a provider lives in."""

    def __init__(self, request: Reap[P]) -> None:
        self._provider = request.provider
        self._claim = request.claim

    def read(self) -> Present:
        """Lists the Memories, after making sure that this is the cluster which would have them.

        Raises:
            UnreadableError: It is not, or the list could not be read whole.
        """
        self._check_home()
        return self._listed()

    def find(self, identity: str) -> Present:
        """Lists the Memories of one identity.

        Raises:
            UnreadableError: The list could not be read whole.
        """
        namespace, _, name = identity.rpartition("/")
        if self._claim is None and namespace:
            labels = f"{LABEL_CLAIM_NAMESPACE}={namespace},{LABEL_CLAIM_NAME}={name}"
            return self._listed(labelSelector=labels)
        return self._listed(fieldSelector=f"metadata.name={name}")

    def _listed(self, **selectors: str) -> Present:
        path, kind = f"{GROUP}/xmemories", "XMemory"
        if self._claim:
            path, kind = f"{GROUP}/namespaces/{self._claim.namespace}/memories", "Memory"
        try:
            found = tuple(self._composites(apiserver.list_whole(path, kind, **selectors)))
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"the API server's list of {kind} objects holds one that is none: {type(error).__name__}"
            raise UnreadableError(Code.UNREACHABLE, msg) from None
        return Present(found)

    def _composites(self, items: list[Object]) -> Iterator[Composite]:
        for item in items:
            metadata, spec = item["metadata"], item["spec"]
            if self._claim:
                reference = spec.get("resourceRef") or {}
                yield Composite(reference.get("name", ""), f"{metadata['namespace']}/{metadata['name']}")
                continue
            claim = spec.get("claimRef")
            identity = f"{claim['namespace']}/{claim['name']}" if claim else metadata["name"]
            yield Composite(_text(metadata["uid"]), identity)

    def _check_home(self) -> None:
        """Makes sure that our provider is here: where Jobs run in another cluster, it has no Memory of ours."""
        provider, claim = self._provider, self._claim
        if claim:
            found = apiserver.read(f"{GROUP}/namespaces/{claim.namespace}/memoryproviders/{claim.name}")
            ours = (found.get("spec", {}).get("resourceRef") or {}).get("name") == provider.name
        else:
            found = apiserver.read(f"{GROUP}/xmemoryproviders/{provider.name}")
            ours = found.get("metadata", {}).get("uid") == provider.uid
        if not ours or "deletionTimestamp" in found.get("metadata", {}):
            msg = (
                f'provider "{provider.name}" of this cluster is not the one whose homes these are, or is being '
                "deleted: nothing is done for it here"
            )
            raise UnreadableError(Code.UNREACHABLE, msg)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value
