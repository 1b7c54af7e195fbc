"""Start-up of the function's process."""

from __future__ import annotations

import sys
from typing import Any

import click
from crossplane.function import cli as sdk

from function.fn import FunctionRunner


@click.command()
@sdk.standard_options
def main(**options: Any) -> None:
    """Serve the composition function; exits 1 with a sentence when it cannot start."""
    try:
        sdk.run(FunctionRunner(), **options)
    except (OSError, RuntimeError, ValueError) as error:
        click.echo(f"cannot serve on {options['address']}: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
