"""`memoryctl plan`: what a changed manifest would do, without applying it.

The very function renders the change against a copy of the objects, no Job runs, and the image itself foretells the work
on the backend (`migrations plan`), by reading alone.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from memoryctl import changes, definitions, embedded, function, manifests, provider, show, up
from memoryctl.changes import Change, Composed, Plan
from memoryctl.cluster import Cluster, locked
from memoryctl.crossplane import RESOURCE_KEY, Crossplane
from memoryctl.definitions import MACHINERY, Package
from memoryctl.errors import UserError
from memoryctl.jobs import Jobs
from memoryctl.objects import Key, Object, is_true, key_of
from memoryctl.reader import Laptop, Reader

REQUEST_KEY = "request-"
PROVISION = ["provision"]


def plan(paths: Iterable[str], where: Callable[[list[tuple[str, str]]], Reader]) -> Plan:
    """Plans manifests against the objects of a laptop or a cluster, which stay as they are.

    Args:
        paths: Files with manifests.
        where: Gives the place, for the namespaces and names that they hold.

    Raises:
        UserError: A manifest is not valid, nothing is there to compare with, or something is in the way.
    """
    package = definitions.load()
    given = manifests.read(paths, package)
    wanted = [one for one in given if package.definition(one["apiVersion"], one["kind"])]
    if not wanted:
        msg = "there is nothing to plan: name a manifest of a Memory or a provider with -f"
        raise UserError(msg)
    named = [(one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in wanted]
    # A claim that is new is planned where its provider is.
    providers = [one["spec"]["providerRef"]["name"] for one in wanted if "providerRef" in one["spec"]]
    reader = where([*named, *(("", name) for name in providers)])
    if not isinstance(reader, Laptop):
        msg = "plan looks at a laptop only: use --laptop"
        raise UserError(msg)
    return _on_laptop(given, reader.state, package)


def _on_laptop(given: list[Object], state: Path, package: Package) -> Plan:
    if not (state / "objects").exists():
        msg = f"there is nothing in {state} to compare with: memoryctl up makes it"
        raise UserError(msg)
    with locked(state), _server(state), tempfile.TemporaryDirectory(prefix="plan-", dir=state) as name:
        folder = Path(name)
        shutil.copytree(state / "objects", folder / "objects")
        before, after = Cluster(state / "objects"), Cluster(folder / "objects")
        with function.process(folder / "function.log") as process:
            up.store(given, after, package, state, show.Progress(quiet=True))
            process.wait_ready()
            _settle(Crossplane(after, package, function.Pipeline(process.channel, after)), after)
        with contextlib.closing(Jobs(after, folder)) as jobs:
            found = [one for one in _changes(before, after, package, jobs) if not one.is_empty]
    return Plan(f"laptop, state in {state}", found, [])


@contextlib.contextmanager
def _server(state: Path) -> Iterator[None]:
    """Stops the embedded server afterwards when it did not run before: planning may start it to look."""
    directory = provider.directory(state)
    was_running = embedded.is_running(directory)
    try:
        yield
    finally:
        if not was_running:
            embedded.stop(directory)


def _settle(crossplane: Crossplane, cluster: Cluster) -> None:
    """Reconciles until the function says the same again; no Job runs meanwhile."""
    for _ in range(up.MAX_ROUNDS):
        revision = cluster.revision
        crossplane.reconcile()
        if cluster.revision == revision:
            return


def _changes(before: Cluster, after: Cluster, package: Package, jobs: Jobs) -> Iterator[Change]:
    """Compares claims and composites, providers first."""
    for definition in sorted(package.definitions, key=lambda one: one.kind, reverse=True):
        for composite in after.list(definition.api_version, definition.kind):
            yield _Comparison(before, after, composite, definition.claim_kind).change(jobs)


class _Comparison:
    """One composite, with its claim and what is composed for it, before and after."""

    def __init__(self, before: Cluster, after: Cluster, composite: Object, claim_kind: str) -> None:
        self._before, self._after = before, after
        self._composite = key_of(composite)
        reference = composite["spec"].get("claimRef")
        # What a person wrote.
        self._own = self._composite
        if reference:
            version = self._composite.api_version
            self._own = Key(version, claim_kind, reference["namespace"], reference["name"])
        self._old, self._new = self._composed(before), self._composed(after)
        self._had, self._said = _conditions_of(before.get(self._own)), _conditions_of(after.require(self._own))

    def change(self, jobs: Jobs) -> Change:
        """Gives what would happen; `jobs` run where the objects are as they would be."""
        made = Change(str(self._own), spec=_spec_changes(self._before.get(self._own), self._after.require(self._own)))
        for resource in sorted({*self._old, *self._new}):
            old, new = self._old.get(resource), self._new.get(resource)
            if old is None and new:
                made.added.append(Composed(str(key_of(new)), resource))
            elif new is None and old:
                made.removed.append(Composed(str(key_of(old)), resource))
            elif paths := changes.of_objects(old, new):
                made.changed.append(Composed(str(key_of(new or {})), resource, paths))
        made.conditions = self._conditions()
        self._look_ahead(made, jobs)
        return made

    def _composed(self, cluster: Cluster) -> dict[str, Object]:
        """Gives what a composite composes, by resource key."""
        composite = cluster.get(self._composite)
        references = composite["spec"].get("resourceRefs", []) if composite else []
        keys = [Key(one["apiVersion"], one["kind"], one.get("namespace", ""), one["name"]) for one in references]
        found = [one for key in keys if (one := cluster.get(key))]
        return {one["metadata"]["annotations"][RESOURCE_KEY]: one for one in found}

    def _conditions(self) -> list[str]:
        """Gives each condition that says something else, with what it was."""
        found = []
        for kind, (said, message) in self._said.items():
            before, words = self._had.get(kind, ("(none)", ""))
            if (said, message) != (before, words):
                went = f"{kind}: {before} → {said}" if said != before else f"{kind} stays {said}"
                found.append(f"{went}{', ' if message else ''}{message}")
        return found

    def _look_ahead(self, made: Change, jobs: Jobs) -> None:
        """Notes what the backend would be asked, and what it would answer; or why it would not be asked."""
        fresh = [one for name, one in self._new.items() if name not in self._old]
        due = [one for one in self._new.values() if one["kind"] == "Job" and not _has_ended(one)]
        provisions = [one for one in due if _arguments(one) == PROVISION]
        requests = [one for one in fresh if _resource(one).startswith(REQUEST_KEY)]
        if provisions and requests:
            made.request = changes.of_requests(_last(self._old), requests[-1])
        for job in provisions:
            made.provision = jobs.ask(key_of(job), "plan")
            problem = made.provision.get("refused") or (made.provision if made.provision["code"] else None)
            made.problems += (
                [f"provision would be refused ({problem['reason']}): {problem['message']}"] if problem else []
            )
        if not due:
            made.problems += [
                f"{kind}={said}: {message}"
                for kind, (said, message) in self._said.items()
                if kind != "Ready" and said.startswith("False") and said != self._had.get(kind, ("",))[0]
            ]


def _spec_changes(before: Object | None, after: Object) -> list[str]:
    old, new = (_wishes((one or {}).get("spec", {})) for one in (before, after))
    return list(changes.of_values(old, new))


def _wishes(spec: Mapping[str, object]) -> Mapping[str, object]:
    return {name: value for name, value in spec.items() if name not in MACHINERY}


def _conditions_of(obj: Object | None) -> dict[str, tuple[str, str]]:
    """Gives status with reason, and message, of each condition."""
    found = (obj or {}).get("status", {}).get("conditions", [])
    return {one["type"]: (f"{one['status']}/{one['reason']}", str(one.get("message", ""))) for one in found}


def _has_ended(job: Object) -> bool:
    return is_true(job, "Complete") or is_true(job, "Failed")


def _arguments(job: Object) -> list[str]:
    found: list[str] = job["spec"]["template"]["spec"]["containers"][0].get("args", [])
    return found


def _resource(obj: Object) -> str:
    name: str = obj["metadata"]["annotations"][RESOURCE_KEY]
    return name


def _last(composed: Mapping[str, Object]) -> Object | None:
    """Gives the newest request document of those that were composed."""
    found = [one for name, one in composed.items() if name.startswith(REQUEST_KEY)]
    return max(found, key=lambda one: str(one["metadata"].get("creationTimestamp", "")), default=None)
