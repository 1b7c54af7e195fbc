"""An end to the process that was asked for: SIGTERM, which Kubernetes sends when a pod is evicted or deleted.

A container's first process ignores signals that it has no handler for, so without one the pod would wait out its whole
grace period.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from migrations import log

EXIT_CODE = 128 + signal.SIGTERM
# For rolling back; within it a server that is there has answered, and a name server that is not has not.
PATIENCE_SECONDS = 5.0


class TerminatedError(SystemExit):
    """Unwinds the stack from wherever the program is. psycopg cancels the running statement for a SystemExit."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


def run(main: Callable[[], int]) -> NoReturn:
    """Runs a program that SIGTERM ends at any moment, with its own exit code or with 143."""
    try:
        install()
        code = main()
        # What is done is done: from here on a signal would only hide the exit code.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except TerminatedError:
        log.write("ended by SIGTERM: the next run goes on from here")
        raise
    sys.exit(code)


def install() -> None:
    """Makes SIGTERM raise TerminatedError in the main thread, and end the process if that does not."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # Python runs handlers between two of its own instructions, so not while libpq asks a name server. The byte in this
    # pipe is written at once.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=end_late, args=(reader,), daemon=True).start()
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    # Once: a second one would interrupt the rollback.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Between sending a statement and waiting for it psycopg cannot roll back, and says so in words that are no JSON;
    # then the server rolls back, for the connection is closed.
    logging.disable(logging.WARNING)
    raise TerminatedError


def end_late(reader: int) -> None:
    """Waits for SIGTERM's byte, and some seconds later ends a process that has not ended itself."""
    while os.read(reader, 1) != bytes([signal.SIGTERM]):
        pass
    time.sleep(PATIENCE_SECONDS)
    log.write("ended by SIGTERM, without an answer from the server: the next run goes on from here")
    os._exit(EXIT_CODE)
