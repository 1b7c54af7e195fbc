"""`memoryctl plan`: what a changed manifest would do, without applying it.

The very function renders the change against a copy of the objects, no Job runs, and the image itself foretells the work
on the backend (`migrations plan`), by reading alone.
"""

import contextlib
import copy
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from memoryctl import changes, definitions, embedded, function, images, manifests, provider, show, up
from memoryctl.changes import Change, Composed, Plan
from memoryctl.cluster import Cluster, locked
from memoryctl.crossplane import Crossplane
from memoryctl.definitions import MACHINERY, RESOURCE_KEY, Definition, Package
from memoryctl.errors import UserError
from memoryctl.jobs import Jobs
from memoryctl.kube import Kube
from memoryctl.mirror import Mirror, within
from memoryctl.objects import Key, Object, is_true, key_of
from memoryctl.reader import Laptop, UnreadableError

REQUEST_KEY = "request-"
PROVISION = ["provision"]
NOT_ASKED: Object = {"code": 0, "message": "an image that is not ours cannot be asked what it would do"}
NO_JOB = "what provision would do on the backend is for a Job to find out, with the command plan; none is made"


def plan(paths: Iterable[str], where: Callable[[list[tuple[str, str]]], Laptop | Kube]) -> Plan:
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
    if isinstance(reader, Laptop):
        return _on_laptop(given, reader.state, package)
    return _on_cluster(given, reader, package)


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
        with contextlib.closing(Jobs(after, folder, images.read(state))) as jobs:
            found = [one.change(lambda key: jobs.ask(key, "plan")) for one in _comparisons(before, after, package)]
    return Plan(f"laptop, state in {state}", [one for one in found if not one.is_empty], [])


def _on_cluster(given: list[Object], kube: Kube, package: Package) -> Plan:
    """Plans claims and composites one by one: what else a cluster has is not looked at."""
    found, notes = [], []
    with tempfile.TemporaryDirectory(prefix="memoryctl-plan-") as name:
        folder = Path(name)
        mirror = Mirror(folder, kube)
        wanted = [one for one in given if package.definition(one["apiVersion"], one["kind"])]
        with function.process(folder / "function.log") as process:
            process.wait_ready()
            # Providers first: what becomes of their Memories is seen through those that are given too.
            for manifest in sorted(wanted, key=lambda one: str(one["kind"]), reverse=True):
                live = kube.get(key_of(manifest))
                try:
                    found.append(_foretold(manifest, mirror, package, process))
                except UnreadableError as error:
                    notes.append(f"{key_of(manifest)}: only its own fields are compared: {error}")
                    found.append(Change(str(key_of(manifest)), spec=_spec_changes(live, {**(live or {}), **manifest})))
    notes += [NO_JOB] if any(one.request for one in found) else []
    return Plan(kube.title, [one for one in found if not one.is_empty], notes)


def _foretold(manifest: Object, mirror: Mirror, package: Package, process: function.Process) -> Change:
    """Renders one changed manifest with the Composition that the cluster has, and compares."""
    key = key_of(manifest)
    definition = package.definition(key.api_version, key.kind)
    live = mirror.get(key)
    composite = _composite_of(live, mirror) if live else None
    if composite:
        mirror.fetch(_references(composite))
    mirror.apply(manifest)
    used = replace(package, compositions=(_composition(composite, definition, mirror),), with_objects=True)
    crossplane = Crossplane(mirror, used, function.Pipeline(process.channel, mirror))
    for _ in range(up.MAX_ROUNDS):
        revision = mirror.revision
        done = crossplane.reconcile_one(key)
        if mirror.revision == revision:
            break
    claim_kind = definition.claim_kind if definition else ""
    return _Comparison(mirror.before, mirror, done.composite, claim_kind, is_mirrored=True).change(None)


def _composite_of(obj: Object, mirror: Mirror) -> Object | None:
    """Gives a claim's composite, or what is one itself; None of a claim that has none yet."""
    if "claimRef" in obj["spec"] or obj["kind"].startswith("X"):
        return obj
    reference = obj["spec"].get("resourceRef")
    return mirror.get(Key(reference["apiVersion"], reference["kind"], "", reference["name"])) if reference else None


def _composition(composite: Object | None, definition: Definition | None, mirror: Mirror) -> Object:
    """Gives the Composition in use, whose function is ours under whatever name it is installed."""
    chosen = composite["spec"].get("compositionRef", {}).get("name") if composite else None
    name = chosen or (definition.default_composition if definition else "")
    found = mirror.get(Key("apiextensions.crossplane.io/v1", "Composition", "", name))
    if found is None:
        msg = f'there is no Composition "{name}" in the cluster: is function-memory installed there?'
        raise UserError(msg)
    found = copy.deepcopy(found)
    for step in found["spec"]["pipeline"]:
        if step["functionRef"]["name"].endswith(function.NAME):
            step["functionRef"]["name"] = function.NAME
    return found


def _references(composite: Object) -> list[Key]:
    references = composite["spec"].get("resourceRefs", [])
    return [Key(one["apiVersion"], one["kind"], one.get("namespace", ""), one["name"]) for one in references]


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


def _comparisons(before: Cluster, after: Cluster, package: Package) -> Iterator["_Comparison"]:
    """Gives claims and composites without claim to be compared, providers first."""
    for definition in sorted(package.definitions, key=lambda one: one.kind, reverse=True):
        for composite in after.list(definition.api_version, definition.kind):
            yield _Comparison(before, after, composite, definition.claim_kind)


class _Comparison:
    """One composite, with its claim and what is composed for it, before and after.

    `is_mirrored` when the API server has added to composed objects what the function does not say.
    """

    def __init__(
        self, before: Cluster, after: Cluster, composite: Object, claim_kind: str, *, is_mirrored: bool = False
    ) -> None:
        self._is_mirrored = is_mirrored
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

    def change(self, ask: Callable[[Key], Object] | None) -> Change:
        """Gives what would happen; `ask` gives the image's own plan of a Job, where that can be asked for."""
        made = Change(str(self._own), spec=_spec_changes(self._before.get(self._own), self._after.require(self._own)))
        for resource in sorted({*self._old, *self._new}):
            old, new = self._old.get(resource), self._new.get(resource)
            if old is None and new:
                made.added.append(Composed(str(key_of(new)), resource))
            elif new is None and old:
                made.removed.append(Composed(str(key_of(old)), resource))
            elif paths := self._paths(old, new):
                made.changed.append(Composed(str(key_of(new or {})), resource, paths))
        made.conditions = self._conditions()
        self._look_ahead(made, ask)
        return made

    def _paths(self, old: Object | None, new: Object | None) -> list[str]:
        """Gives where an object changes, by what the function says of it."""
        if not self._is_mirrored or old is None or new is None:
            return changes.of_objects(old, new)
        if old == new:
            return []
        said = self._after.applied(key_of(new))
        return changes.of_objects(within(said, old), said)

    def _composed(self, cluster: Cluster) -> dict[str, Object]:
        """Gives what a composite composes, by resource key."""
        composite = cluster.get(self._composite)
        found = [one for key in _references(composite or {"spec": {}}) if (one := cluster.get(key))]
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

    def _look_ahead(self, made: Change, ask: Callable[[Key], Object] | None) -> None:
        """Notes what the backend would be asked, and what it would answer; or why it would not be asked."""
        fresh = [one for name, one in self._new.items() if name not in self._old]
        due = [one for one in self._new.values() if one["kind"] == "Job" and not _has_ended(one)]
        provisions = [one for one in due if _arguments(one) == PROVISION]
        requests = [one for one in fresh if _resource(one).startswith(REQUEST_KEY)]
        if provisions and requests:
            made.request = changes.of_requests(_last(self._old), requests[-1])
        for job in provisions if ask else ():
            made.provision = answer = ask(key_of(job)) if ask and _can_be_asked(job) else dict(NOT_ASKED)
            problem = answer.get("refused") or (answer if answer["code"] else None)
            if problem:
                made.problems.append(f"provision would be refused ({problem['reason']}): {problem['message']}")
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


def _can_be_asked(job: Object) -> bool:
    """Whether the image of a Job is ours: the contract of others has no command `plan`."""
    return "command" in job["spec"]["template"]["spec"]["containers"][0]


def _resource(obj: Object) -> str:
    name: str = obj["metadata"]["annotations"][RESOURCE_KEY]
    return name


def _last(composed: Mapping[str, Object]) -> Object | None:
    """Gives the newest request document of those that were composed."""
    found = [one for name, one in composed.items() if name.startswith(REQUEST_KEY)]
    return max(found, key=lambda one: str(one["metadata"].get("creationTimestamp", "")), default=None)
