"""Where objects are looked at: the state of a laptop, or (`memoryctl.kube`) a cluster."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from memoryctl.cluster import Cluster
from memoryctl.errors import UserError
from memoryctl.objects import Key, Object


class UnreadableError(UserError):
    """Something is there, or may be, and we may not read it."""


class Reader(Protocol):
    """Objects, and what Jobs have printed. Methods other than `get_all` raise UnreadableError for what is not ours."""

    @property
    def title(self) -> str:
        """Where this is, for a person."""

    def get(self, key: Key) -> Object | None:
        """Gives an object, None when there is none."""

    def get_all(self, keys: Iterable[Key]) -> dict[Key, Object | UnreadableError | None]:
        """Gives many objects; what cannot be read is its reason."""

    def list(
        self, api_version: str, kind: str, labels: Mapping[str, str] | None = None, namespace: str = ""
    ) -> list[Object]:
        """Gives the objects of a kind that carry all these labels; of every namespace unless one is named."""

    def last_line(self, job: Key) -> str:
        """Gives the last line that a Job has printed, "" when there is none."""


class Laptop:
    """What `memoryctl up` left in a state directory."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._cluster = Cluster(state / "objects")

    @property
    def title(self) -> str:
        """Which laptop's state it is."""
        return f"laptop, state in {self.state}"

    def get(self, key: Key) -> Object | None:
        """Gives an object, None when there is none."""
        return self._cluster.get(key)

    def get_all(self, keys: Iterable[Key]) -> dict[Key, Object | UnreadableError | None]:
        """Gives many objects."""
        return {key: self._cluster.get(key) for key in keys}

    def list(
        self, api_version: str, kind: str, labels: Mapping[str, str] | None = None, namespace: str = ""
    ) -> list[Object]:
        """Gives the objects of a kind that carry all these labels; of every namespace unless one is named."""
        found = self._cluster.list(api_version, kind, labels)
        return [one for one in found if namespace in ("", one["metadata"].get("namespace", ""))]

    def last_line(self, job: Key) -> str:
        """Gives the last line of a Job's log, "" when there is none."""
        try:
            lines = (self.state / "logs" / f"{job.namespace}.{job.name}.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return lines[-1] if lines else ""
