"""CronJobs on a laptop: each `up` is a tick, for what a laptop can run."""

from pathlib import Path

from memoryctl import cronjobs
from memoryctl.cluster import Cluster
from memoryctl.objects import Object

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


def test_a_tick_probes_a_provider_that_is_not_ready_and_nothing_else(tmp_path: Path) -> None:
    """Here is no API server that a reaper could ask which Memories exist, or that has maintenance's reports."""
    cluster = Cluster(tmp_path)
    provider = cluster.apply({"apiVersion": VERSION, "kind": "XMemoryProvider", "metadata": {"name": "pg"}, "spec": {}})
    for name in ("probe", "reap", "maintain"):
        cluster.apply(cronjob(name, name, provider))
    cronjobs.tick(cluster)
    started = cluster.list("batch/v1", "Job")
    assert [one["spec"]["template"]["spec"]["containers"][0]["args"] for one in started] == [["probe"]]
