"""`python -m bench`: all measurements, as a table and as `bench/results/<time>.json`."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import io
import json
import os
import platform
from pathlib import Path

import click
from crossplane.function import logging

from bench import client, function, idle, provisioning

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, print, write."""
    logging.configure(logging.Level.DISABLED)
    # What is measured logs each step; a table is asked for here.
    with contextlib.redirect_stderr(io.StringIO()):
        figures = [*function.measure(), *idle.measure(), *provisioning.measure(), *client.measure()]
    width = max(len(each.name) for each in figures)
    click.echo(f"{'':{width}}  {'p50':>8}  {'p99':>8}  {'unit':8}{'n':>5}  design")
    for each in figures:
        click.echo(f"{each.name:{width}}  {each.p50:8.2f}  {each.p99:8.2f}  {each.unit:8}{each.samples:5}  {each.aim}")
    now = dt.datetime.now(dt.UTC)
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg()}
    body = {"at": now.isoformat(), "machine": machine, "figures": [dataclasses.asdict(each) for each in figures]}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(body, indent=2))
    click.echo(f"written to {path}")


if __name__ == "__main__":
    main()
