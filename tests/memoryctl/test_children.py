"""Programs are started as another account while gRPC is at work; none of them dies of that."""

import subprocess
import sys

from memoryctl.definitions import ROOT

SCRIPT = """
import memoryctl, grpc, subprocess, sys, threading, time

def connect():
    while True:
        channel = grpc.insecure_channel("127.0.0.1:1")
        asked = grpc.channel_ready_future(channel)
        time.sleep(0.01)
        asked.cancel()
        channel.close()

threading.Thread(target=connect, daemon=True).start()
end = time.monotonic() + 3
codes = set()
while time.monotonic() < end:
    # A process group of its own needs a fork, as another account does; no root is needed for it.
    done = subprocess.run([sys.argv[1]], process_group=0, preexec_fn=int, stdin=subprocess.DEVNULL)
    codes.add(done.returncode)
print(codes, flush=True)
import os
os._exit(0)
"""


def test_a_child_survives_a_grpc_that_is_connecting() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "/bin/true"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "{0}", done.stderr
