"""Command line: `memoryctl up` and `memoryctl down`."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import click

from memoryctl import demo as client
from memoryctl import up as laptop
from memoryctl.embedded import EmbeddedError
from memoryctl.errors import UserError

STATE = Path(".memoryctl")
SECONDS = 300.0
INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=STATE,
    show_default=True,
    help="Directory that holds objects, data, bindings and logs.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Memory on a laptop: the function and the migrations that a cluster runs, against an embedded PostgreSQL."""


files_option = click.option(
    "-f", "files", multiple=True, metavar="FILE", help="Manifests of provider, claim, Secret; - is stdin."
)
timeout_option = click.option("--timeout", default=SECONDS, show_default=True, help="Seconds to wait for Jobs.")


@cli.command()
@files_option
@timeout_option
@state_option
def up(files: tuple[str, ...], timeout: float, state: Path) -> None:
    """Apply manifests, and reconcile until every Memory is Ready or a condition says why not.

    Manifests are checked against the schema of the XRDs. The XRDs' rules in CEL are the API server's: here they are not
    evaluated, and the function says what it says on a cluster. Without -f, goes on with what is there.
    """
    _run(lambda: laptop.up(files, state.resolve(), timeout).problems)


@cli.command()
@files_option
@timeout_option
@state_option
def demo(files: tuple[str, ...], timeout: float, state: Path) -> None:
    """Do what up does, and then use each Memory with a client that reads only its binding directory."""

    def use() -> list[str]:
        result = laptop.up(files, state.resolve(), timeout)
        if not result.problems:
            for binding in result.bindings:
                click.echo()
                client.run(binding)
        return result.problems

    _run(use)


@cli.command()
@click.option("--purge", is_flag=True, help="Remove the data, the passwords and the bindings too.")
@state_option
def down(purge: bool, state: Path) -> None:
    """Stop the embedded PostgreSQL; the data stays unless --purge is given."""

    def stop() -> list[str]:
        click.echo(laptop.down(state.resolve(), purge=purge))
        return []

    _run(stop)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Stops what was started, and is not stopped at that by a second Ctrl-C: each process is given a limited time."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run(command: Callable[[], list[str]]) -> None:
    """Runs a command; problems go to standard error as sentences, and the exit code is 1."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    try:
        problems = command()
    except (UserError, EmbeddedError, client.ClientError) as error:
        problems = [str(error)]
    except KeyboardInterrupt:
        click.echo("interrupted: what was started is stopped, up goes on from there", err=True)
        sys.exit(INTERRUPTED)
    for problem in problems:
        click.echo(f"memoryctl: {problem}", err=True)
    sys.exit(1 if problems else 0)


def main() -> None:
    """Runs the command line."""
    cli(prog_name="memoryctl")


if __name__ == "__main__":
    main()
