"""A real cluster, read through `kubectl`: with its kubeconfig, as whoever that says. Nothing is ever written."""

import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent import futures
from pathlib import Path

from memoryctl.errors import UserError
from memoryctl.objects import Key, Object, key_of
from memoryctl.reader import UnreadableError

SECONDS = 30
MAX_RUNNING = 4
REFUSALS = ("(Forbidden)",)
MISSING_KIND = "doesn't have a resource type"


class Kube:
    """The objects of a cluster, for those who may read them."""

    def __init__(self, kubeconfig: Path | None, context: str) -> None:
        """Finds kubectl and the context.

        Args:
            kubeconfig: The file, None for what kubectl takes by itself.
            context: Its name, "" for the current one.

        Raises:
            UserError: There is no kubectl, or no such context.
        """
        program = shutil.which("kubectl")
        if program is None:
            msg = "kubectl is not on the PATH: install it to look at a cluster, or use --laptop"
            raise UserError(msg)
        where = [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
        self._command = [program, *where, *([f"--context={context}"] if context else [])]
        self._context = context or self._run("config", "current-context").strip()

    @property
    def title(self) -> str:
        """Which cluster it is, for a person."""
        return f'cluster of context "{self._context}"'

    @property
    def namespace(self) -> str:
        """The namespace that kubectl would take."""
        return self._run("config", "view", "--minify", "--output=jsonpath={..namespace}").strip() or "default"

    def get(self, key: Key) -> Object | None:
        """Gives an object, None when there is none.

        Raises:
            UnreadableError: We may not read it, or the cluster has no such kind.
            UserError: The cluster does not answer.
        """
        found = self._get(_resource(key.api_version, key.kind), key.name, *_place(key.namespace), "--ignore-not-found")
        return found or None

    def get_all(self, keys: Iterable[Key]) -> dict[Key, Object | UnreadableError | None]:
        """Gives many objects, a call for each kind and namespace; what cannot be read is its reason."""
        groups: dict[tuple[str, str, str], list[Key]] = defaultdict(list)
        for key in keys:
            groups[key.api_version, key.kind, key.namespace].append(key)
        with futures.ThreadPoolExecutor(MAX_RUNNING) as pool:
            answers = pool.map(self._get_group, groups.values())
            return {key: value for answer in answers for key, value in answer.items()}

    def list(
        self, api_version: str, kind: str, labels: Mapping[str, str] | None = None, namespace: str = ""
    ) -> list[Object]:
        """Gives the objects of a kind that carry all these labels; of every namespace unless one is named.

        Raises:
            UnreadableError: We may not list them, or the cluster has no such kind.
            UserError: The cluster does not answer.
        """
        selector = ",".join(f"{name}={value}" for name, value in (labels or {}).items())
        place = _place(namespace) or ["--all-namespaces"]
        found = self._get(_resource(api_version, kind), *place, *([f"--selector={selector}"] if selector else []))
        return [dict(one) for one in found.get("items", [])]

    def last_line(self, job: Key) -> str:
        """Gives the last line that the newest pod of a Job has printed, "" when there is none.

        Raises:
            UnreadableError: We may not read pods, or their logs.
        """
        pods = self.list("v1", "Pod", {"batch.kubernetes.io/job-name": job.name}, job.namespace)
        if not pods:
            return ""
        newest = max(pods, key=lambda one: str(one["metadata"].get("creationTimestamp", "")))
        try:
            text = self._run("logs", newest["metadata"]["name"], *_place(job.namespace), "--tail=1")
        except UserError as error:  # the container waits, or its node is gone: the Job is there all the same
            raise UnreadableError(str(error)) from error
        return text.strip()

    def _get_group(self, keys: Sequence[Key]) -> dict[Key, Object | UnreadableError | None]:
        first = keys[0]
        arguments = [_resource(first.api_version, first.kind), *(key.name for key in keys), *_place(first.namespace)]
        try:
            answer = self._get(*arguments, "--ignore-not-found")
        except UnreadableError as error:
            return dict.fromkeys(keys, error)
        # One object comes as itself, several as a List.
        items = answer.get("items", [answer] if answer else [])
        found = {key_of(one): one for one in items}
        return {key: found.get(key) for key in keys}

    def _get(self, *arguments: str) -> Object:
        text = self._run("get", *arguments, "--output=json")
        answer: Object = json.loads(text) if text.strip() else {}
        return answer

    def _run(self, *arguments: str) -> str:
        command = [*self._command, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)  # noqa: S603
        except subprocess.TimeoutExpired as error:
            msg = f"kubectl {arguments[0]} has not answered for {SECONDS} s: look whether the cluster is there"
            raise UserError(msg) from error
        if done.returncode == 0:
            return done.stdout
        said = " ".join(done.stderr.split()).removeprefix("error: ").removeprefix("Error from server ")
        if any(word in said for word in REFUSALS):
            raise UnreadableError(said.replace("(Forbidden): ", "", 1))
        if MISSING_KIND in said:
            msg = f"{said}: is function-memory installed there?"
            raise UnreadableError(msg)
        msg = f"kubectl {arguments[0]} failed: {said}"
        raise UserError(msg)


def _resource(api_version: str, kind: str) -> str:
    """Gives a kind as kubectl takes it without doubt: Kind.version.group."""
    group, _, version = api_version.rpartition("/")
    return f"{kind}.{version}.{group}"


def _place(namespace: str) -> list[str]:
    return [f"--namespace={namespace}"] if namespace else []
