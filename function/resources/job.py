"""Jobs and CronJobs that run the migrations image, under Pod Security *restricted*."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from function.conditions import PERMANENT_EXIT_CODES, TRANSIENT_EXIT_CODES
from function.resources.secret import CA_FILE, REQUEST_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.model import Jobs
    from function.resources.metadata import Owner

CONTAINER = "migrations"
MOUNT = "/memory"
# Not below the other: what is mounted there is read-only, so nothing else can be mounted into it.
CONFIG_MOUNT = "/config"
EVERY_FIVE_MINUTES = "*/5 * * * *"
# What comes again has one attempt each time, and ends before the next one is due.
_PERIODIC_DEADLINES = {"probe": 120, "reap": 240, "maintain": 3300}
# A run that could not start in time (the one before went on, the controller was away) is made up for. What comes every
# five minutes comes again soon enough; what comes once a day does not.
_STARTING_DEADLINES = {"maintain": 3600}
_DEFAULT_STARTING_DEADLINE_SECONDS = 200
_DEFAULT_DEADLINE_SECONDS = 900
_DEFAULT_RESOURCES = {
    "requests": {"cpu": "50m", "memory": "96Mi"},
    "limits": {"cpu": "1", "memory": "256Mi"},
}
_UID = 65532


@dataclass(frozen=True)
class Task:
    """One run of the migrations image.

    Attributes:
        command: Its command: `provision`, `probe`, `reap` or `maintain`.
        image: The image.
        jobs: The provider's wishes, over the Composition's.
        service_account: Whose token writes the report.
        request: Name of the Secret with the request document.
        admin: Name of the Secret that the task logs in with; None when it does not.
        config: Name of a Secret that is mounted whole at CONFIG_MOUNT; None when there is none.
        logins: Name of the Secret with the passwords that the task sets, and which of its entries is whose.
        is_ours: Whether the image is ours; another one's entrypoint says what to run.
        ca: Secret with the backend's CA when it is not the request's own; None otherwise.
    """

    command: str
    image: str
    jobs: Jobs
    service_account: str
    request: str
    admin: str | None
    ca: str | None = None
    config: str | None = None
    logins: tuple[str, Mapping[str, str]] | None = None
    is_ours: bool = True

    @property
    def deadline(self) -> int:
        """Seconds that a run may take; to build an index takes long, so there a wish can only be for more."""
        periodic, wanted = _PERIODIC_DEADLINES.get(self.command), self.jobs.active_deadline_seconds
        if periodic and self.command == "maintain":
            return max(periodic, wanted or 0)
        return periodic or wanted or _DEFAULT_DEADLINE_SECONDS


def job(owner: Owner, name: str, task: Task) -> dict[str, Any]:
    """Give a Job that runs a task once. It has no TTL: Crossplane would make it again for ever."""
    metadata = owner.metadata(name, task.command)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": _job_spec(owner, task)}


def cronjob(owner: Owner, name: str, task: Task, schedule: str) -> dict[str, Any]:
    """Give a CronJob that runs a task again and again, never two at once."""
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": owner.metadata(name, task.command),
        "spec": {
            "schedule": schedule,
            "concurrencyPolicy": "Forbid",
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "startingDeadlineSeconds": _STARTING_DEADLINES.get(task.command, _DEFAULT_STARTING_DEADLINE_SECONDS),
            "jobTemplate": {"metadata": {"labels": owner.labels(task.command)}, "spec": _job_spec(owner, task)},
        },
    }


def _job_spec(owner: Owner, task: Task) -> dict[str, Any]:
    once = task.command in _PERIODIC_DEADLINES
    return {
        "backoffLimit": 0 if once else 4,
        "activeDeadlineSeconds": task.deadline,
        "podFailurePolicy": {"rules": _failure_rules()},
        "template": {"metadata": {"labels": owner.labels(task.command)}, "spec": _pod_spec(task)},
    }


def _failure_rules() -> list[dict[str, Any]]:
    # An evicted pod says nothing about the spec. The other codes do, or (30, 31) have waited for the whole deadline
    # inside the process: another pod of the same Job would not get the time to do better, and the code would be lost.
    codes = [*PERMANENT_EXIT_CODES, *TRANSIENT_EXIT_CODES]
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": codes}},
    ]


def _pod_spec(task: Task) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": task.service_account,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _UID,
            "runAsGroup": _UID,
            "fsGroup": _UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(task)],
        "volumes": _volumes(task),
    }
    jobs = task.jobs
    if jobs.node_selector:
        spec["nodeSelector"] = dict(jobs.node_selector)
    if jobs.tolerations:
        spec["tolerations"] = list(jobs.tolerations)
    if jobs.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": ref.name} for ref in jobs.image_pull_secrets]
    return spec


def _volumes(task: Task) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [{"name": "memory", "projected": {"defaultMode": 0o440, "sources": _sources(task)}}]
    if task.config:
        volumes.append({"name": "config", "secret": {"secretName": task.config, "defaultMode": 0o440}})
    return volumes


def _container(task: Task) -> dict[str, Any]:
    mounts = [{"name": "memory", "mountPath": MOUNT, "readOnly": True}]
    env = [{"name": "MEMORY_DEADLINE_SECONDS", "value": str(task.deadline)}]
    if task.config:
        mounts.append({"name": "config", "mountPath": CONFIG_MOUNT, "readOnly": True})
        env.append({"name": "MEMORY_CONFIG_DIR", "value": CONFIG_MOUNT})
    return {
        "name": CONTAINER,
        "image": task.image,
        **({"command": ["python", "-m", "migrations"]} if task.is_ours else {}),
        "args": [task.command],
        "env": env,
        "resources": task.jobs.resources or _DEFAULT_RESOURCES,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _sources(task: Task) -> list[dict[str, Any]]:
    """Files under /memory. Keys are mounted by name: a CA Secret of CloudNativePG holds the CA's private key too."""
    request = [{"key": REQUEST_FILE, "path": REQUEST_FILE}]
    sources = [_source(task.request, request)]
    if task.admin:
        admin = [{"key": key, "path": f"admin/{key}"} for key in ("username", "password")]
        sources.append(_source(task.admin, admin))
    if task.logins:
        name, entries = task.logins
        logins = [{"key": key, "path": f"login/{login}"} for key, login in entries.items()]
        sources.append(_source(name, logins))
    if task.ca:
        sources.append(_source(task.ca, [{"key": CA_FILE, "path": f"tls/{CA_FILE}"}]))
    return sources


def _source(secret: str, items: list[dict[str, str]]) -> dict[str, Any]:
    return {"secret": {"name": secret, "items": items}}
