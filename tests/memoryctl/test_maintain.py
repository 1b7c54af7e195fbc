"""`memoryctl maintain`: what a cluster's CronJob does every hour, on a laptop, and what it found on the claim."""

import psycopg

from memoryctl.objects import Object, condition
from tests.memoryctl.conftest import Laptop


def test_maintenance_on_a_laptop_removes_what_is_old_and_says_so_on_the_claim(
    laptop: Laptop, provider: Object, claim: Object
) -> None:
    claim["spec"]["retention"] = {"ttlDays": 1}
    assert laptop.up(provider, claim).returncode == 0
    provision = laptop.jobs()
    with psycopg.connect((laptop.binding / "uri").read_text(), autocommit=True) as connection:
        for key in ("old", "young"):
            connection.execute("SELECT memory_put('notes', %s, '1')", [key])
        connection.execute("UPDATE memory_kv SET updated_at = now() - interval '9 days' WHERE key = 'old'")
    done = laptop.run("maintain")
    assert done.returncode == 0, done.stderr
    status = laptop.claim()["status"]
    assert status["embeddings"]["index"] == "exact"
    assert status["data"]["rows"] == 1
    assert status["retention"]["deleted"] == 1
    assert condition(laptop.claim(), "RetentionScheduled")["reason"] == "Scheduled"
    [line] = [line for line in done.stdout.splitlines() if line.startswith("maintain ")]
    assert line.endswith("homes: 1 looked after")
    assert "INDEX      exact, " in done.stdout
    assert "RETENTION  1 day, last removed 1 row " in done.stdout
    before = laptop.files()
    again = laptop.run("maintain")
    assert again.returncode == 0, again.stderr
    changed = {path for path, content in laptop.files().items() if before.get(path) != content}
    assert {path.split("/")[1].split(".")[0] for path in changed} <= {"Job", "CronJob"}, "a report that says the same"
    assert len(laptop.jobs()) == len(provision) + 1
    assert set(provision) <= set(laptop.jobs())


def test_nothing_to_maintain_is_said(laptop: Laptop) -> None:
    done = laptop.run("maintain")
    assert done.returncode == 1
    assert done.stderr == f"memoryctl: there is nothing in {laptop.state} to maintain: memoryctl up makes it\n"
