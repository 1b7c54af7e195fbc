"""A provisioner on S3 that is killed at any step leaves nothing that the next does not put right."""

import os
import signal
import subprocess
import sys

import pytest

from migrations.s3.ledger import LOCKS
from tests.migrations.documents import ROOT
from tests.migrations.s3.memories import Memory, Runner, keys_under

pytestmark = pytest.mark.xdist_group("rgw")

KILLER = """
import os, signal, sys
from botocore.httpsession import URLLib3Session
from migrations.__main__ import main
limit, count, send = int(sys.argv[1]), 0, URLLib3Session.send
def counting(self, request):
    global count
    if count == limit:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    return send(self, request)
URLLib3Session.send = counting
sys.exit(main(["provision"]))
"""


def forget_locks(memory: Memory) -> None:
    """Does at once what the next run would after the lease of the dead one."""
    with memory.rgw.client() as admin:
        for key in keys_under(memory, LOCKS) if steps_made(memory) else []:
            admin.delete_object(Bucket=memory.home, Key=key)


def steps_made(memory: Memory) -> bool:
    with memory.rgw.client() as admin:
        return memory.home in [each["Name"] for each in admin.list_buckets()["Buckets"]]


@pytest.mark.long
def test_run_that_is_killed_before_any_of_its_requests_is_finished_by_the_next(memory: Memory, runner: Runner) -> None:
    before, steps = memory, 0
    while True:
        # Each time a rotation, an adoption and a hold together, so that every step has something to do.
        after = before.but(
            uid=f"uid-{steps}", secrets={"rw_a": f"s{steps}", "ro_a": f"r{steps}"}, adopt=True, hold=steps % 2 == 0
        )
        environment = runner.mount(after, after.document())
        process = subprocess.run(
            [sys.executable, "-c", KILLER, str(steps)], cwd=ROOT, env={**os.environ, **environment}, check=False,
            capture_output=True,
        )  # fmt: skip
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        forget_locks(memory)
        answer = runner.provision(after)
        assert (answer.code, answer.report["verify"]) == (0, []), answer.message
        before, steps = after, steps + 1
    assert steps > 25
    assert keys_under(memory, LOCKS) == []
