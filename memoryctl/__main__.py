"""Command line: a laptop's `up`, `down` and `demo`, and the eyes on a laptop or a cluster."""

import dataclasses
import datetime as dt
import functools
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import click

from memoryctl import demo as client
from memoryctl import plan as ahead
from memoryctl import show
from memoryctl import status as eyes
from memoryctl import up as laptop
from memoryctl.embedded import EmbeddedError
from memoryctl.errors import UserError
from memoryctl.kube import Kube
from memoryctl.objects import API_VERSION
from memoryctl.reader import Laptop

STATE = Path(".memoryctl")
SECONDS = 300.0
INTERRUPTED = 130
# click's own code for a wrong command line is 2, which is Python's as well.
click.UsageError.exit_code = 64
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
    """Memory on a laptop: the function and the migrations that a cluster runs.

    PostgreSQL is embedded where nobody answers; Redis, S3 and other backends are the servers that manifests name.
    """


files_option = click.option(
    "-f", "files", multiple=True, metavar="FILE", help="Manifests of provider, claim, Secret; - is stdin."
)
timeout_option = click.option("--timeout", default=SECONDS, show_default=True, help="Seconds to wait for Jobs.")


image_option = click.option(
    "--image",
    "images",
    multiple=True,
    metavar="IMAGE=COMMAND",
    help="The command that stands for a provider's own image (spec.custom.image); it is remembered.",
)


@cli.command()
@files_option
@image_option
@timeout_option
@state_option
def up(files: tuple[str, ...], images: tuple[str, ...], timeout: float, state: Path) -> None:
    """Apply manifests, and reconcile until every Memory is Ready or a condition says why not.

    Manifests are checked against the schema of the XRDs. The XRDs' rules in CEL are the API server's: here they are not
    evaluated, and the function says what it says on a cluster. Without -f, goes on with what is there.
    """
    _run(lambda: laptop.up(files, state.resolve(), timeout, images).problems)


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
@timeout_option
@state_option
def maintain(timeout: float, state: Path) -> None:
    """Look after the data now, as a cluster does every hour: retention, index, dead rows, drift; then show each Memory.

    What up left is brought up first, if it does not run. Exits as up does.
    """
    _run(lambda: laptop.maintain(state.resolve(), timeout))


@cli.command()
@click.option("--purge", is_flag=True, help="Remove the data, the passwords and the bindings too.")
@state_option
def down(purge: bool, state: Path) -> None:
    """Stop the embedded PostgreSQL; the data stays unless --purge is given.

    A server that a manifest names is left as it is.
    """

    def stop() -> list[str]:
        click.echo(laptop.down(state.resolve(), purge=purge))
        return []

    _run(stop)


@dataclasses.dataclass(frozen=True)
class Where:
    """What the command line says about the laptop or cluster that is meant."""

    is_laptop: bool
    state: Path
    kubeconfig: Path | None
    context: str

    def reader(self, names: Iterable[tuple[str, str]]) -> Laptop | Kube:
        """Gives the laptop when it is asked for, or has such a Memory or provider and no cluster is named.

        Args:
            names: Of what is meant, each with its namespace, which may be "".

        Raises:
            UserError: It is neither, and there is no cluster that could be asked.
        """
        there = Laptop(self.state.resolve())
        if self.is_laptop:
            return there
        if self.kubeconfig or self.context:
            return Kube(self.kubeconfig, self.context)
        kinds = ("Memory", "MemoryProvider", "XMemory", "XMemoryProvider")
        metadata = [one["metadata"] for kind in kinds for one in there.list(API_VERSION, kind)]
        held = {(namespace, one["name"]) for one in metadata for namespace in ("", one.get("namespace", ""))}
        if held & set(names):
            return there
        try:
            return Kube(None, "")
        except UserError as error:
            wanted = ", ".join(name for _, name in names)
            msg = f'{self.state} holds no "{wanted}", and there is no cluster to ask: {error}'
            raise UserError(msg) from error


def where_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that say which laptop or cluster is meant, and gives them to the command as one `Where`."""

    @functools.wraps(command)
    def wrapped(*, is_laptop: bool, state: Path, kubeconfig: Path | None, context: str, **others: Any) -> None:
        if is_laptop and (kubeconfig or context):
            msg = "--laptop names no cluster: leave out --kubeconfig and --context, or --laptop"
            raise click.UsageError(msg)
        command(where=Where(is_laptop, state, kubeconfig, context), **others)

    for option in (
        state_option,
        click.option("--context", default="", help="Context of the kubeconfig, instead of the current one."),
        click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), help="Says which cluster."),
        click.option(
            "--laptop",
            "is_laptop",
            is_flag=True,
            help="The laptop; also meant when it has the claim and no cluster is named.",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print it."
)


@cli.command()
@click.argument("claim")
@click.option("-n", "--namespace", default="", help="The claim's namespace.")
@click.option("--job-namespace", default="", help="Where its Jobs run; only needed by who may not read composites.")
@output_option
@where_options
def status(claim: str, namespace: str, job_namespace: str, output: str, where: Where) -> None:
    """Show all that is known of a Memory; exits 0 when it is Ready, 1 when it is not.

    Objects, conditions, index, retention, data, drift, and how the last Jobs ended. Looks at the laptop when that has
    such a claim, and at the cluster of --kubeconfig, of --context, or the current one, otherwise.
    """

    def look() -> list[str]:
        reader = where.reader([(namespace, claim)])
        inside = namespace or (reader.namespace if isinstance(reader, Kube) else "")
        found = eyes.read(reader, eyes.find_claim(reader, claim, inside), job_namespace)
        click.echo(found.to_json() if output == "json" else show.status(found, dt.datetime.now(dt.UTC)))
        return [] if found.ready else [f"{found.claim.kind} {found.claim.namespace}/{found.claim.name} is not Ready"]

    _run(look)


@cli.command()
@click.option("-f", "files", multiple=True, required=True, metavar="FILE", help="Changed manifests; - is stdin.")
@output_option
@where_options
def plan(files: tuple[str, ...], output: str, where: Where) -> None:
    """Say what changed manifests would do, and do nothing; exits 1 when something stands in the way.

    Fields of the claim, composed objects, conditions, the next request to the backend and, on a laptop, what it would
    do there. Looks where status does.
    """

    def foretell() -> list[str]:
        found = ahead.plan(files, where.reader)
        click.echo(found.to_json() if output == "json" else show.plan(found))
        return found.problems

    _run(foretell)


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
