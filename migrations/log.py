"""JSON lines on stderr. What is passed here must hold no password, no verifier and no row."""

import json
import sys
import time


def write(message: str, **fields: object) -> None:
    """Writes one line: time, message, and the fields that are not empty."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    present = {name: value for name, value in fields.items() if value not in ("", None)}
    line(json.dumps({"time": stamp, "message": message, **present}, ensure_ascii=False, default=str))


def step(name: str) -> None:
    """Says what comes next, before it begins: the last such line of a killed run tells where it stood."""
    write(f"step {name}", step=name)


def line(text: str) -> None:
    """Writes one line as it is."""
    # One write: print makes two, and SIGTERM between them would put two lines into one.
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
