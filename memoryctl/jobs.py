"""Jobs as processes: what the Job controller and the kubelet do, for one container that needs no cluster.

A pod is one run of the container's command, with the Job's own files in a private directory. backoffLimit,
podFailurePolicy (FailJob on exit codes) and activeDeadlineSeconds mean what they mean on a cluster.
"""

import dataclasses
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from memoryctl.cluster import Cluster, private_directory
from memoryctl.definitions import ROOT, python_path
from memoryctl.errors import UserError
from memoryctl.function import stop
from memoryctl.objects import Key, Object, is_true, key_of, now, secret_data, secret_key

MOUNT = "/memory"
# Beside the request, where a Job on a laptop answers: for itself, and for Memories as <namespace>/<name>.json. Keys for
# Secrets it puts there the same way, in base64.
REPORT, REPORTS, SECRETS = "report.json", "reports", "secrets"
MAX_RUNNING = 4
# A cluster waits 10 s before the second pod, and twice as long each time; a person at a laptop is not to.
BACKOFF_SECONDS = 0.25
DEFAULT_BACKOFF_LIMIT = 6
SIGNAL_BASE = 128


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a Job ended. `reason` and `message` are those of its Failed condition, "" when it is complete."""

    pods: int
    reason: str = ""
    message: str = ""

    @property
    def complete(self) -> bool:
        """Whether the Job did its work."""
        return not self.reason


class Stopped(Exception):  # noqa: N818  not an error: nobody wants the Job any more
    """The Job was stopped before it ended."""


class Jobs:
    """Starts the Jobs of a cluster and writes down how they end."""

    def __init__(self, cluster: Cluster, state: Path, images: Mapping[str, Sequence[str]] | None = None) -> None:
        """Makes ready to run Jobs.

        Args:
            cluster: Whose.
            state: Where logs, and files of running Jobs, are kept.
            images: The command that stands for an image which is not ours.
        """
        self._cluster = cluster
        self._images = images or {}
        self._logs = state / "logs"
        self._private = state / "run"
        shutil.rmtree(self._private, ignore_errors=True)  # left by a memoryctl that was killed; it holds passwords
        for directory in (self._logs, self._private):
            private_directory(directory)
        self._pool = futures.ThreadPoolExecutor(MAX_RUNNING)
        self._running: dict[futures.Future[Outcome], _Run] = {}

    def start(self) -> tuple[list[Key], list[str]]:
        """Starts every Job that has not ended, and stops those that are gone.

        Returns:
            The Jobs that were started, and for each that cannot start yet why not.
        """
        unfinished = {key_of(one): one for one in self._cluster.list("batch/v1", "Job") if not _ended(one)}
        for run in self._running.values():
            if run.key not in unfinished:
                run.cancel()
        started, waiting = [], []
        for key in unfinished.keys() - {run.key for run in self._running.values()}:
            directory = Path(tempfile.mkdtemp(dir=self._private))
            command = self._command(unfinished[key])
            problem = self._mount(unfinished[key], directory) if command else self._no_command(unfinished[key])
            if problem:
                shutil.rmtree(directory)
                waiting.append(f"{key} waits: {problem}")
                continue
            lent = self._lend_reports(key.namespace, directory)
            run = _Run(unfinished[key], command, directory, self.log(key), lent)
            self._running[self._pool.submit(run.run)] = run
            self._cluster.replace_status(key, {"active": 1, "startTime": now()})
            started.append(key)
        return sorted(started), sorted(waiting)

    def wait(self, timeout: float) -> list[tuple[Key, Outcome]]:
        """Waits until at least one Job has ended, and feeds back how; gives nothing when the time is over before."""
        done = futures.wait(self._running, timeout, futures.FIRST_COMPLETED).done
        ended = []
        for future in done:
            run = self._running.pop(future)
            try:
                outcome = future.result()
                self._publish(run)
            except Stopped:
                continue
            finally:
                shutil.rmtree(run.directory)
            self._cluster.replace_status(run.key, _status(self._cluster.require(run.key), outcome))
            ended.append((run.key, outcome))
        return ended

    def ask(self, key: Key, command: str) -> Object:
        """Runs a Job's container with another command that answers in JSON on standard output.

        Raises:
            UserError: It cannot, or it has no answer.
        """
        job = self._cluster.require(key)
        with tempfile.TemporaryDirectory(dir=self._private) as name:
            directory = Path(name)
            problem = self._mount(job, directory)
            if problem:
                msg = f"{key} could not start: {problem}"
                raise UserError(msg)
            container = {**_container(job), "args": [command]}
            done = subprocess.run(  # noqa: S603  the command that the function rendered, with another argument
                _rendered(container),
                cwd=ROOT,
                env=_environment(container, directory),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        try:
            answer: Object = json.loads(done.stdout)
        except json.JSONDecodeError as error:
            last = "".join(done.stderr.splitlines()[-1:])
            msg = f"`migrations {command}` for {key} ended with {done.returncode} and no answer: {last}"
            raise UserError(msg) from error
        return answer

    def log(self, key: Key) -> Path:
        """Gives the file with what a Job's pods print."""
        return self._logs / f"{key.namespace}.{key.name}.log"

    @property
    def busy(self) -> bool:
        """Whether a Job is running."""
        return bool(self._running)

    def close(self) -> None:
        """Stops everything that runs; its Jobs stay unfinished, so that the next start runs them again."""
        for run in self._running.values():
            run.cancel()
        self._pool.shutdown()
        for run in self._running.values():
            shutil.rmtree(run.directory, ignore_errors=True)

    def _command(self, job: Object) -> list[str]:
        """Gives what to run: what the Job says, or what stands for its image; nothing when nobody knows."""
        container = _container(job)
        if "command" in container:
            return _rendered(container)
        command = self._images.get(container["image"])
        return [*command, *container.get("args", [])] if command else []

    def _no_command(self, job: Object) -> str:
        image = _container(job)["image"]
        return (
            f'image "{image}" is not ours, and a laptop has no containers: say which command stands for it, '
            f"with up --image '{image}=COMMAND'"
        )

    def _mount(self, job: Object, directory: Path) -> str:
        """Writes the files of the volumes with Secrets; gives what is missing, as the kubelet's event would."""
        namespace, pod = job["metadata"]["namespace"], job["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for mount in _container(job).get("volumeMounts", []):
            target = _place(mount, directory)
            for source in _sources(volumes[mount["name"]]):
                problem = self._project(namespace, source, target)
                if problem:
                    return f'volume "{mount["name"]}": {problem}'
        return ""

    def _project(self, namespace: str, source: Mapping[str, Any], directory: Path) -> str:
        secret = self._cluster.get(secret_key(namespace, source["name"]))
        if secret is None:
            return "" if source.get("optional") else f'Secret "{namespace}/{source["name"]}" not found'
        data = secret_data(secret)
        for item in source.get("items") or [{"key": name, "path": name} for name in data]:
            if item["key"] not in data:
                if source.get("optional"):
                    continue
                return f'Secret "{namespace}/{source["name"]}" has no key "{item["key"]}"'
            path = directory / item["path"]
            private_directory(path.parent)
            path.touch(mode=0o600)
            path.write_bytes(data[item["key"]])
        return ""

    def _lend_reports(self, namespace: str, directory: Path) -> dict[Key, Object]:
        """Writes what reports say to where a process looks for it, and gives it; on a cluster it asks for them."""
        reports = {key_of(one): one.get("data", {}) for one in self._cluster.list("v1", "ConfigMap")}
        lent = {key: data for key, data in reports.items() if key.namespace == namespace and data}
        for key, data in lent.items():
            path = directory / REPORTS / key.namespace / f"{key.name}.json"
            private_directory(path.parent)
            path.write_text(json.dumps(data))
        return lent

    def _publish(self, run: "_Run") -> None:
        """Writes a Job's answers into ConfigMaps and Secrets, as the Job's own token may on a cluster."""
        for key, data in {**run.reports(), **run.secrets()}.items():
            if data and self._cluster.get(key):
                self._cluster.patch(key, {"data": data})


class _Run:
    """One Job at work, in a thread of its own."""

    def __init__(
        self, job: Object, command: Sequence[str], directory: Path, log: Path, lent: Mapping[Key, Object]
    ) -> None:
        self.key = key_of(job)
        self._command = command
        self._lent = lent
        self.directory = directory
        self._spec = job["spec"]
        self._log = log
        self._cancelled = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def run(self) -> Outcome:
        """Runs pods until the Job is complete, has failed, or is not wanted any more."""
        limit = self._spec.get("backoffLimit", DEFAULT_BACKOFF_LIMIT)
        seconds = self._spec.get("activeDeadlineSeconds")
        deadline = time.monotonic() + seconds if seconds else None
        for pods in range(1, limit + 2):
            code = self._pod(deadline)
            if code == 0:
                return Outcome(pods)
            if code is None:
                return Outcome(pods, "DeadlineExceeded", "Job was active longer than specified deadline")
            rule = _matching_rule(self._spec, code)
            if rule is not None:
                return Outcome(pods, "PodFailurePolicy", self._failure(code, rule))
            self._cancelled.wait(BACKOFF_SECONDS * 2 ** (pods - 1) if pods <= limit else 0)
        return Outcome(limit + 1, "BackoffLimitExceeded", "Job has reached the specified backoff limit")

    def cancel(self) -> None:
        """Ends the process; `run` raises Stopped."""
        with self._lock:
            self._cancelled.set()
            if self._child:
                stop(self._child)

    def reports(self) -> dict[Key, dict[str, str]]:
        """Gives what the process reported, as the data of ConfigMaps: its own, and those of other Memories."""
        own = self._report_key()
        found = {own: _read_report(self.directory / REPORT)} if own else {}
        for path in sorted((self.directory / REPORTS).glob("*/*.json")):
            key = Key("v1", "ConfigMap", path.parent.name, path.stem)
            # What was only read may have been written by another Job meanwhile.
            before = self._lent.get(key, {})
            new = {name: text for name, text in _read_report(path).items() if before.get(name) != text}
            found[key] = {**found.get(key, {}), **new}
        return found

    def secrets(self) -> dict[Key, dict[str, str]]:
        """Gives what the process wrote for Secrets, as their data: in the Job's own namespace, where it may."""
        folder = self.directory / SECRETS / self.key.namespace
        return {secret_key(self.key.namespace, path.stem): _read_report(path) for path in sorted(folder.glob("*.json"))}

    def _report_key(self) -> Key | None:
        """Gives the ConfigMap that the request document names."""
        try:
            request = json.loads((self.directory / "request.json").read_text())
        except FileNotFoundError:
            return None
        return Key("v1", "ConfigMap", request["report"]["namespace"], request["report"]["name"])

    def _pod(self, deadline: float | None) -> int | None:
        """Runs the container once; gives its exit code, None when the deadline ended it."""
        container = self._spec["template"]["spec"]["containers"][0]
        # Our own code is found from the repository; what stands for an image, from where the person is.
        place = ROOT if "command" in container else None
        with self._lock, self._log.open("ab") as log:
            if self._cancelled.is_set():
                raise Stopped
            self._child = child = subprocess.Popen(  # noqa: S603  the command that the function rendered
                self._command,
                cwd=place,
                env=_environment(container, self.directory),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            code = child.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            stop(child)
            return None
        if self._cancelled.is_set():
            raise Stopped
        return code if code >= 0 else SIGNAL_BASE - code

    def _failure(self, code: int, rule: int) -> str:
        container = self._spec["template"]["spec"]["containers"][0]["name"]
        pod = f"{self.key.namespace}/{self.key.name}-{secrets.token_hex(3)[:5]}"
        return f"Container {container} for pod {pod} failed with exit code {code} matching FailJob rule at index {rule}"


def _read_report(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return {str(name): str(value) for name, value in content.items()}


def _ended(job: Object) -> bool:
    return is_true(job, "Complete") or is_true(job, "Failed")


def _matching_rule(spec: Mapping[str, Any], code: int) -> int | None:
    """Gives the index of the FailJob rule for an exit code; pod conditions never hold here."""
    for index, rule in enumerate(spec.get("podFailurePolicy", {}).get("rules", [])):
        codes = rule.get("onExitCodes")
        if codes and (code in codes["values"]) == (codes["operator"] == "In"):
            return index if rule["action"] == "FailJob" else None
    return None


def _container(job: Object) -> Object:
    found: Object = job["spec"]["template"]["spec"]["containers"][0]
    return found


def _place(mount: Mapping[str, Any], directory: Path) -> Path:
    """Gives the folder that stands for a mount's: the directory itself, or one in it."""
    path: str = mount["mountPath"]
    return directory if path == MOUNT else directory / path.lstrip("/")


def _sources(volume: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Gives the Secrets of a volume, whichever way it names them."""
    if "secret" in volume:
        return [{**volume["secret"], "name": volume["secret"]["secretName"]}]
    return [source["secret"] for source in volume.get("projected", {}).get("sources", [])]


def _rendered(container: Mapping[str, Any]) -> list[str]:
    """Gives the command that the function rendered; our images' Python is the one that runs."""
    command: list[str] = [*container["command"], *container.get("args", [])]
    return [sys.executable if command[0] == "python" else command[0], *command[1:]]


def _environment(container: Mapping[str, Any], directory: Path) -> dict[str, str]:
    """Gives the container's environment on top of ours, without what would point libpq somewhere else."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "MEMORY_"))}
    # What says where a folder is mounted says here where it is.
    places = {one["mountPath"]: str(_place(one, directory)) for one in container.get("volumeMounts", [])}
    given = {}
    for one in container.get("env", []):
        if "value" not in one:
            msg = f"a Job's variable {one['name']} comes from {one.get('valueFrom')}: memoryctl gives plain values only"
            raise UserError(msg)
        given[one["name"]] = places.get(one["value"], one["value"])
    files = {"MEMORY_DIR": str(directory), "MEMORY_REPORT_FILE": str(directory / REPORT)}
    # What stands for an image is a command of the person's, who may have configured it at home.
    own = {"HOME": str(directory), "PYTHONPATH": python_path()} if "command" in container else {}
    return {**ours, **own, **given, **files}


def _status(job: Object, outcome: Outcome) -> Object:
    """Gives a Job's status as the Job controller would write it."""
    ended = now()
    reached = ("SuccessCriteriaMet", "Complete") if outcome.complete else ("FailureTarget", "Failed")
    detail = {"reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"}
    if not outcome.complete:
        detail = {"reason": outcome.reason, "message": outcome.message}
    conditions = [{"type": one, "status": "True", "lastTransitionTime": ended, **detail} for one in reached]
    status = {"startTime": job["status"]["startTime"], "conditions": conditions}
    failed = outcome.pods - 1 if outcome.complete else outcome.pods
    counts = {"succeeded": 1, "completionTime": ended} if outcome.complete else {}
    return status | counts | ({"failed": failed} if failed else {})
