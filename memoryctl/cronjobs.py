"""CronJobs without a clock: each `up` is the next tick for those whose owner is not Ready.

On a cluster a provider is probed every five minutes, so a repaired server is noticed by itself. Here nothing runs
between two calls of `up`, and a provider that answers need not be asked again. Its reaper asks an API server which
Memories exist, and here is none: it stays as it is. Maintenance runs when a person says so, by `memoryctl maintain`.
"""

import copy
import secrets
from collections.abc import Iterable, Iterator

from memoryctl.cluster import Cluster
from memoryctl.crossplane import ready
from memoryctl.objects import Key, Object, is_true, key_of, now

MAINTAIN = "maintain"
NOT_BY_ITSELF = {"reap", MAINTAIN}


def due(cluster: Cluster) -> list[Key]:
    """Gives every CronJob whose composite is not Ready."""
    found = []
    for cronjob in cluster.list("batch/v1", "CronJob"):
        if _commands(cronjob) & NOT_BY_ITSELF:
            continue
        owner = cronjob["metadata"]["ownerReferences"][0]
        composites = cluster.list(owner["apiVersion"], owner["kind"])
        if any(one["metadata"]["uid"] == owner["uid"] and not ready(one) for one in composites):
            found.append(key_of(cronjob))
    return found


def tick(cluster: Cluster, keys: Iterable[Key]) -> None:
    """Makes a Job of CronJobs, as they are by now: what was due may ask something else since, or be gone."""
    for key in keys:
        if cronjob := cluster.get(key):
            _start(cluster, cronjob)


def maintain(cluster: Cluster) -> int:
    """Makes a Job of every CronJob that looks after data, and gives how many."""
    found = [one for one in cluster.list("batch/v1", "CronJob") if MAINTAIN in _commands(one)]
    for cronjob in found:
        _start(cluster, cronjob)
    return len(found)


def _start(cluster: Cluster, cronjob: Object) -> None:
    """Makes a Job, in whose place those before it go: the last one is kept to be looked at."""
    for job in _ended(cluster, cronjob):
        cluster.delete(key_of(job))
    job = cluster.apply(_job(cronjob))
    cluster.patch(key_of(cronjob), {"status": {"lastScheduleTime": now(), "active": [_reference(job)]}})


def _commands(cronjob: Object) -> set[str]:
    pod = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return {argument for container in pod["containers"] for argument in container.get("args", [])}


def settle(cluster: Cluster) -> None:
    """Writes down how the Jobs of CronJobs ended."""
    for cronjob in cluster.list("batch/v1", "CronJob"):
        for job in _ended(cluster, cronjob):
            done = {"lastSuccessfulTime": job["status"]["completionTime"]} if is_true(job, "Complete") else {}
            cluster.patch(key_of(cronjob), {"status": {"active": None, **done}})


def _ended(cluster: Cluster, cronjob: Object) -> Iterator[Object]:
    for job in cluster.list("batch/v1", "Job"):
        mine = job["metadata"]["ownerReferences"][0]["uid"] == cronjob["metadata"]["uid"]
        if mine and (is_true(job, "Complete") or is_true(job, "Failed")):
            yield job


def _job(cronjob: Object) -> Object:
    key = key_of(cronjob)
    template = copy.deepcopy(cronjob["spec"]["jobTemplate"])
    owner = {"apiVersion": key.api_version, "kind": key.kind, "name": key.name, "uid": cronjob["metadata"]["uid"]}
    metadata = {
        **template.get("metadata", {}),
        "name": f"{key.name}-{secrets.token_hex(4)}",
        "namespace": key.namespace,
        "ownerReferences": [owner | {"controller": True}],
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}


def _reference(job: Object) -> Object:
    key = key_of(job)
    return {"apiVersion": key.api_version, "kind": key.kind, "namespace": key.namespace, "name": key.name}
