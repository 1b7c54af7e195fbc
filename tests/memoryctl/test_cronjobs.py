"""CronJobs on a laptop: each `up` is a tick, for what a laptop can run."""

from pathlib import Path

import pytest

from memoryctl import cronjobs
from memoryctl.cluster import Cluster
from memoryctl.objects import Key, Object, key_of

VERSION = "memory.proompteng.ai/v1alpha1"


def cronjob(name: str, command: str, owner: Object) -> Object:
    container = {"name": "migrations", "image": "memory-migrations", "args": [command]}
    pod = {"containers": [container], "restartPolicy": "Never"}
    reference = {"apiVersion": VERSION, "kind": "XMemoryProvider", "name": "pg", "uid": owner["metadata"]["uid"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "namespace": "databases", "ownerReferences": [reference]},
        "spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}},
    }


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A provider that is not Ready, with all its CronJobs."""
    cluster = Cluster(tmp_path)
    provider = cluster.apply({"apiVersion": VERSION, "kind": "XMemoryProvider", "metadata": {"name": "pg"}, "spec": {}})
    for name in ("probe", "reap", "maintain"):
        cluster.apply(cronjob(name, name, provider))
    return cluster


def started(cluster: Cluster) -> list[list[str]]:
    jobs = cluster.list("batch/v1", "Job")
    return [one["spec"]["template"]["spec"]["containers"][0]["args"] for one in jobs]


def test_a_tick_probes_a_provider_that_is_not_ready_and_nothing_else(cluster: Cluster) -> None:
    """Here is no API server that a reaper could ask which Memories exist, and maintenance waits to be asked for."""
    cronjobs.tick(cluster, cronjobs.due(cluster))
    assert started(cluster) == [["probe"]]


def test_what_was_due_and_is_gone_or_changed_by_now_runs_as_it_is(cluster: Cluster) -> None:
    """A changed manifest changes the request; a Job that mounts the one before would wait for ever."""
    due = cronjobs.due(cluster)
    [key] = due
    changed = cluster.applied(key)
    changed["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"] = ["probe", "anew"]
    cluster.apply(changed)
    cronjobs.tick(cluster, due)
    assert started(cluster) == [["probe", "anew"]]
    cluster.delete(key)
    cronjobs.tick(cluster, due)
    assert len(started(cluster)) == 1


def test_maintenance_runs_when_it_is_asked_for(cluster: Cluster) -> None:
    assert cronjobs.maintain(cluster) == 1
    assert started(cluster) == [["maintain"]]


def test_the_last_job_of_a_cronjob_stays_until_the_next_one(cluster: Cluster) -> None:
    """As a history limit of one keeps it on a cluster."""
    for _ in range(3):
        cronjobs.maintain(cluster)
        [job] = cluster.list("batch/v1", "Job")
        ended = {"conditions": [{"type": "Complete", "status": "True"}], "completionTime": "2026-05-03T00:00:00Z"}
        cluster.replace_status(key_of(job), ended)
        cronjobs.settle(cluster)
        assert cluster.list("batch/v1", "Job") != []
        status = cluster.require(Key("batch/v1", "CronJob", "databases", "maintain"))["status"]
        assert status["lastSuccessfulTime"] == "2026-05-03T00:00:00Z"
        assert "active" not in status
