"""Start-up of the function's process."""

from __future__ import annotations

import signal
import sys
from typing import Any

if __name__ == "__main__":
    # The imports below take a third of a second. Until a container's first process handles a signal, it ignores it.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: sys.exit(0))

import click
from crossplane.function import cli as sdk

from function import metrics, server
from function.errors import StartError
from function.fn import FunctionRunner


@click.command()
@sdk.standard_options
@click.option(
    "--metrics-address",
    default=metrics.DEFAULT_ADDRESS,
    show_default=True,
    envvar="METRICS_ADDRESS",
    help='Address at which Prometheus finds metrics; "" for no metrics.',
)
def main(**options: Any) -> None:
    """Serve the composition function; exits 1 with a sentence when it cannot start."""
    try:
        server.run(FunctionRunner(), **options)
    except StartError as error:
        click.echo(error, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
