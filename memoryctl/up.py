"""`up`, `maintain` and `down`: the order in which a laptop's cluster comes, works and goes."""

import contextlib
import dataclasses
import datetime as dt
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from memoryctl import binding, cronjobs, definitions, embedded, function, images, manifests, provider, show, status
from memoryctl.cluster import Cluster, locked
from memoryctl.crossplane import Crossplane, Reconciled, complaint, ready
from memoryctl.definitions import Package
from memoryctl.errors import UserError
from memoryctl.jobs import Jobs
from memoryctl.objects import API_VERSION, Key, Object, key_of, make_secret, secret_key
from memoryctl.reader import Laptop

ROOT_KEY = "root-key"
ROOT_KEY_BYTES = 32
# Reconciles in a row that change something: more means that the function never gives the same answer twice.
MAX_ROUNDS = 25
PARTS = ("objects", "bindings", "logs", "run")


@dataclasses.dataclass(frozen=True)
class Result:
    """How `up` ended.

    Attributes:
        problems: What stands in the way of what was asked, one sentence for each composite and waiting Job.
        bindings: The binding directories of the Memories.
    """

    problems: list[str]
    bindings: list[Path]


@dataclasses.dataclass(frozen=True)
class _Plane:
    """A laptop's control plane at work.

    Attributes:
        since: When what the manifests stand on was there, in seconds of `progress`.
    """

    cluster: Cluster
    crossplane: Crossplane
    jobs: Jobs
    progress: show.Progress
    bindings: Path
    since: float


@contextlib.contextmanager
def _plane(given: list[Object], package: Package, state: Path, progress: show.Progress) -> Iterator[_Plane]:
    """Stores manifests, and starts what a cluster has running: a server, the function, whoever runs Jobs."""
    cluster = Cluster(state / "objects")
    log = state / "logs" / "function.log"
    with function.process(log) as process:
        since = store(given, cluster, package, state, progress)
        process.wait_ready()
        progress.say(f"the function answers, its log is {log}")
        crossplane = Crossplane(cluster, package, function.Pipeline(process.channel, cluster))
        with contextlib.closing(Jobs(cluster, state, images.read(state))) as jobs:
            yield _Plane(cluster, crossplane, jobs, progress, state / "bindings", since)


def up(paths: Iterable[str], state: Path, timeout: float, stand_ins: Iterable[str] = ()) -> Result:
    """Applies manifests and reconciles until every composite is Ready or a condition says why not.

    Args:
        paths: Files with manifests.
        state: The state directory.
        timeout: Seconds to wait for Jobs.
        stand_ins: `IMAGE=COMMAND` for images that are not ours; those of earlier calls are remembered.

    Raises:
        UserError: A manifest is not valid, or something on this machine is in the way.
    """
    progress = show.Progress()
    package = definitions.load()
    given = manifests.read(paths, package)
    commands = images.parse(stand_ins)
    with locked(state):
        images.remember(state, commands)
        with _plane(given, package, state, progress) as plane:
            reconciled, waiting = _converge(plane, progress.seconds + timeout, cronjobs.due(plane.cluster))
        finished = progress.seconds
        written = binding.write_all(plane.cluster, plane.bindings)
    problems = waiting + _complaints(reconciled)
    _summary(reconciled, written)
    if not problems:
        what = "PostgreSQL ran" if embedded.is_running(provider.directory(state)) else "the start"
        progress.say(f"Ready {finished - plane.since:.1f} s after {what}, {finished:.1f} s in all")
    references = [one.composite.get("status", {}).get("connectionSecretRef") for one in reconciled]
    found = [plane.bindings / one["namespace"] / one["name"] for one in references if one]
    return Result(problems, [directory for directory in found if directory in written])


def maintain(state: Path, timeout: float) -> list[str]:
    """Looks after the data now, as a cluster does by its clock, and shows each Memory as it is then.

    Returns:
        What stands in the way, as `up`.

    Raises:
        UserError: There is nothing to look after, or something on this machine is in the way.
    """
    progress = show.Progress()
    package = definitions.load()
    if not (state / "objects").exists():
        msg = f"there is nothing in {state} to maintain: memoryctl up makes it"
        raise UserError(msg)
    with locked(state), _plane([], package, state, progress) as plane:
        until = progress.seconds + timeout
        reconciled, waiting = _converge(plane, until)
        if not waiting and cronjobs.maintain(plane.cluster):
            reconciled, waiting = _converge(plane, until)
    reader = Laptop(state)
    for claim in reader.list(API_VERSION, "Memory"):
        found = show.status(status.read(reader, claim), dt.datetime.now(dt.UTC))
        print("", found, sep="\n", flush=True)
    return waiting + _complaints(reconciled)


def _complaints(reconciled: Iterable[Reconciled]) -> list[str]:
    return [
        f"{show.owner(one.composite)} {'works, but' if ready(one.composite) else 'is not Ready:'} {said}"
        for one in reconciled
        if (said := complaint(one.composite))
    ]


def down(state: Path, *, purge: bool) -> str:
    """Stops the embedded server; with `purge` removes its data and everything else in the state directory."""
    if not state.exists():
        return f"there is nothing in {state}"
    with locked(state):
        # Servers that manifests name are others': nothing is stopped or removed there.
        stopped = "PostgreSQL is stopped" if provider.directory(state).exists() else "no server of memoryctl's runs"
        if not purge:
            embedded.stop(provider.directory(state))
            return f"{stopped}; {state} keeps the data, and up goes on from there"
        embedded.remove(provider.directory(state))
        for part in (*PARTS, provider.directory(state).name):
            shutil.rmtree(state / part, ignore_errors=True)
        for left in state.glob("plan-*"):  # by a memoryctl that was killed
            shutil.rmtree(left)
        images.forget(state)
        (state / "lock").unlink()
    with contextlib.suppress(OSError):  # somebody else's files are in it
        state.rmdir()
    return f"{stopped}; data, passwords and bindings in {state} are removed"


def store(given: list[Object], cluster: Cluster, package: Package, state: Path, progress: show.Progress) -> float:
    """Stores the manifests, and makes sure of what they stand on: the embedded server where it is needed, the root key.

    Returns:
        When that was there.
    """
    kinds = {(one.api_version, kind) for one in package.definitions for kind in (one.kind, one.claim_kind)}
    stored = {key_of(one): one for version, kind in sorted(kinds) for one in cluster.list(version, kind)}
    if not given and not stored:
        msg = "there is nothing to bring up: name manifests of a provider and a claim with -f"
        raise UserError(msg)
    # A stored provider on the embedded server is given again: the server may have another port since.
    before = {key: cluster.applied(key) for key, one in stored.items() if provider.was_replaced(one)}
    wanted = {**before, **{key_of(one): one for one in given}}
    replaced = {key for key, one in wanted.items() if provider.needs_embedded(one)}
    if replaced:
        server = embedded.start(provider.directory(state))
        progress.say(f"PostgreSQL {server.version} runs at {server.host}:{server.port}")
    for key, manifest in wanted.items():
        if key not in replaced:
            cluster.apply(manifest)
            continue
        on_embedded, login = provider.on_embedded(manifest, server)
        if not provider.was_replaced(manifest):
            progress.say(provider.notice(manifest, on_embedded, server))
        cluster.apply(on_embedded)
        cluster.apply(login)
    _make_root_keys(cluster, package)
    return progress.seconds


def _make_root_keys(cluster: Cluster, package: Package) -> None:
    """Makes the Secret behind the pipeline credential `root-key`, once: what a platform team does at installation."""
    steps = [step for one in package.compositions for step in one["spec"]["pipeline"]]
    for credential in [one for step in steps for one in step.get("credentials", [])]:
        reference = credential["secretRef"]
        key = secret_key(reference["namespace"], reference["name"])
        if credential["name"] == ROOT_KEY and cluster.get(key) is None:
            cluster.apply(make_secret(key, {"current": secrets.token_bytes(ROOT_KEY_BYTES)}))


def _converge(plane: _Plane, until: float, due: Iterable[Key] = ()) -> tuple[list[Reconciled], list[str]]:
    """Reconciles and runs Jobs until nothing changes any more; bindings that are there follow their Secrets at once.

    Args:
        plane: What is at work.
        until: When to stop waiting, in seconds of `progress`.
        due: CronJobs that run too, once they are what the manifests say.

    Returns:
        The last reconcile of each composite, and why a Job or the whole did not end.
    """
    cluster, jobs, progress = plane.cluster, plane.jobs, plane.progress
    rounds = 0
    while True:
        revision = cluster.revision
        reconciled = plane.crossplane.reconcile()
        cronjobs.tick(cluster, due)
        due = ()
        for name, event in [(show.owner(one.composite), event) for one in reconciled for event in one.events]:
            progress.say(f"{name}: {event.message}")
        # Before the next Job: it may take the login away that an app still reads there.
        binding.write_all(cluster, plane.bindings)
        started, waiting = jobs.start()
        for key in started:
            progress.say(f"{key} runs")
        rounds += 1
        if cluster.revision != revision:
            if rounds > MAX_ROUNDS:
                return reconciled, [f"after {MAX_ROUNDS} reconciles the function still changes its answer"]
            continue
        if not jobs.busy:
            return reconciled, waiting
        ended = jobs.wait(until - progress.seconds)
        cronjobs.settle(cluster)
        rounds = 0
        for key, outcome in ended:
            progress.say(
                f"{key} is complete" if outcome.complete else f"{key} failed: {outcome.message}; log: {jobs.log(key)}"
            )
        if progress.seconds >= until:
            return reconciled, [*waiting, "the time of --timeout is over while Jobs still run: up goes on from there"]


def _summary(reconciled: list[Reconciled], written: dict[Path, list[str]]) -> None:
    parts = [show.tree(reconciled), show.conditions(reconciled)]
    if written:
        parts.append(f"BINDINGS (a directory each, a file a key)\n{show.bindings(written)}")
    print("", "\n\n".join(parts), "", sep="\n", flush=True)
