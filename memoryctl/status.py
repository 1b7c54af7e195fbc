"""`memoryctl status`: all that objects say about one Memory, read with no more rights than a person has.

Whoever can read the claim's namespace and the job namespace sees everything but the composites, which have none. What
cannot be read is said, and is in the way of nothing else.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from memoryctl.crossplane import ready
from memoryctl.definitions import RESOURCE_KEY
from memoryctl.errors import UserError
from memoryctl.objects import API_VERSION, GROUP, Key, Object, condition, is_true, key_of
from memoryctl.reader import Reader, UnreadableError

MANAGED = {"app.kubernetes.io/managed-by": "function-memory"}
COMPONENT = "app.kubernetes.io/component"
LABEL_PROVIDER = f"{GROUP}/provider"
LABEL_CLAIM = (f"{GROUP}/claim-namespace", f"{GROUP}/claim-name")
# Where composed objects are looked for when the composite that lists them cannot be read.
COMPOSED = (
    *(("v1", "Secret"), ("v1", "ConfigMap"), ("batch/v1", "Job"), ("batch/v1", "CronJob")),
    *(("rbac.authorization.k8s.io/v1", "Role"), ("rbac.authorization.k8s.io/v1", "RoleBinding")),
)
# The Jobs whose last run is shown: a Memory's own, and its provider's.
TASKS = ("provision", "maintain")
MISSING, UNREADABLE = "missing", "unreadable"


@dataclasses.dataclass(frozen=True)
class Part:
    """One object of the tree.

    Attributes:
        resource: Its resource key, "" of claim and composite.
        ready: True or False for what has a condition or a rule, else the word for what it is: Running, missing …
    """

    kind: str
    namespace: str
    name: str
    resource: str
    ready: str


@dataclasses.dataclass(frozen=True)
class Said:
    """A condition; `since` is when its status last changed."""

    of: str
    type: str
    status: str
    reason: str
    message: str
    since: str


@dataclasses.dataclass(frozen=True)
class LastRun:
    """The newest Job of a task.

    Attributes:
        ended: How: Complete, Failed, or Running.
        since: When it ended, or began.
        code: The exit code of its report, None without one.
        message: What the last line of its log says.
    """

    task: str
    namespace: str
    name: str
    ended: str
    since: str
    code: int | None
    message: str


@dataclasses.dataclass(frozen=True)
class Status:
    """Everything that is known.

    Attributes:
        where: Which laptop or cluster.
        composite: None before there is one.
        composed: What it composes, in the order of the resource keys.
        embeddings, retention, data: As in the claim's status.
        wanted: What the claim asks of retention, with `legalHold`.
        drift: Sentences; None when nobody has looked yet.
        unread: A sentence for each thing that could not be read.
    """

    where: str
    ready: bool
    claim: Part
    composite: Part | None
    composed: list[Part]
    conditions: list[Said]
    wanted: Object
    embeddings: Object
    retention: Object
    data: Object
    drift: list[str] | None
    jobs: list[LastRun]
    unread: list[str]

    def to_json(self) -> str:
        """Gives all of it for machines."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)


def read(reader: Reader, claim: Object, job_namespace: str = "") -> Status:
    """Looks at everything that belongs to a claim.

    Args:
        reader: Where.
        claim: As it is there.
        job_namespace: Where its Jobs are, "" when the objects are to tell.
    """
    return _Look(reader, claim, job_namespace).status()


def find_claim(reader: Reader, name: str, namespace: str) -> Object:
    """Gives the claim of a name.

    Args:
        reader: Where.
        name: The claim's.
        namespace: The claim's; "" looks in all of them for the only one.

    Raises:
        UserError: There is none, or more than one.
    """
    if namespace:
        found = reader.get(Key(API_VERSION, "Memory", namespace, name))
        if found:
            return found
        try:
            others = _identities(reader.list(API_VERSION, "Memory", namespace=namespace))
        except UnreadableError:
            others = ""
        there = f" (there are {others})" if others else ""
        msg = f'there is no Memory "{name}" in namespace "{namespace}"{there}: name its namespace with -n'
        raise UserError(msg)
    claims = reader.list(API_VERSION, "Memory")
    named = [one for one in claims if one["metadata"]["name"] == name]
    if len(named) == 1:
        return named[0]
    there = _identities(named or claims) or "none"
    msg = f'there is {"more than one" if named else "no"} Memory "{name}" (there are {there}): name it, and -n'
    raise UserError(msg)


def _identities(claims: Iterable[Object]) -> str:
    return ", ".join(f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in claims)


class _Look:
    """One look at one Memory."""

    def __init__(self, reader: Reader, claim: Object, job_namespace: str) -> None:
        self._reader = reader
        self._claim = claim
        self._job_namespace = job_namespace
        self._unread: list[str] = []
        self._objects: list[Object] = []
        # Namespace and name of the provider's claim, when it is a tenant's.
        self._tenant = ("", "")

    def status(self) -> Status:
        claim, found = self._claim, self._claim.get("status", {})
        composite = self._composite()
        composed = self._composed(composite)
        provider = self._provider(composite)
        said = [*_said(claim), *(_said(provider) if provider else ())]
        spec = claim["spec"]
        return Status(
            where=self._reader.title,
            ready=ready(claim),
            claim=_part(key_of(claim), "", str(ready(claim))),
            composite=self._composite_part(composite),
            composed=composed,
            conditions=said,
            wanted={**spec.get("retention", {}), "legalHold": spec.get("legalHold", False)},
            embeddings=found.get("embeddings", {}),
            retention=found.get("retention", {}),
            data=found.get("data", {}),
            drift=_drift(claim),
            jobs=self._jobs(),
            unread=self._unread,
        )

    def _composite(self) -> Object | None:
        reference = self._claim["spec"].get("resourceRef")
        if reference is None:
            return None
        return self._get(_key(reference))

    def _composite_part(self, composite: Object | None) -> Part | None:
        if composite:
            return _part(key_of(composite), "", str(ready(composite)))
        reference = self._claim["spec"].get("resourceRef")
        return _part(_key(reference), "", UNREADABLE if self._unread else MISSING) if reference else None

    def _composed(self, composite: Object | None) -> list[Part]:
        if composite is None:
            self._objects = self._labelled()
            parts = [_part(key_of(one), _resource_key(one), _word(one)) for one in self._objects]
        else:
            references = [one for one in composite["spec"].get("resourceRefs", []) if one.get("name")]
            found = self._reader.get_all(_key(one) for one in references)
            self._objects = [one for one in found.values() if isinstance(one, dict)]
            for key, reason in found.items():
                if isinstance(reason, UnreadableError):
                    self._miss(str(key), reason)
            parts = [_part(key, _resource_key(one), _word(one)) for key, one in found.items()]
        return sorted(parts, key=lambda one: (one.resource, one.kind, one.name))

    def _labelled(self) -> list[Object]:
        """Looks for what is composed by its labels: in the namespaces where that can be, as far as we may."""
        metadata = self._claim["metadata"]
        values = (metadata["namespace"], metadata["name"])
        labels = {**MANAGED, **dict(zip(LABEL_CLAIM, values, strict=True))}
        namespaces = dict.fromkeys(filter(None, (metadata["namespace"], self._job_namespace)))
        return [
            one
            for api_version, kind in COMPOSED
            for namespace in namespaces
            for one in self._list(api_version, kind, labels, namespace)
        ]

    def _provider(self, composite: Object | None) -> Object | None:
        """Gives the provider: a tenant's claim, or the platform's composite."""
        pinned = (composite or self._claim).get("status", {}).get("provider", {})
        wished = self._claim["spec"].get("providerRef", {})
        name = pinned.get("name") or wished.get("name", "")
        own = self._claim["metadata"]["namespace"]
        namespace = pinned.get("namespace") or wished.get("namespace") or own
        if pinned.get("via") != "Shared":
            claimed = self._get(Key(API_VERSION, "MemoryProvider", namespace, name))
            self._tenant = (namespace, name)
            if claimed or pinned:
                return claimed
        return self._get(Key(API_VERSION, "XMemoryProvider", "", name))

    def _jobs(self) -> list[LastRun]:
        """Gives the newest Job of each task: the claim's own, and those of its provider that work for all."""
        own = [inner for one in self._objects if (inner := _delivered(one))["kind"] == "Job"]
        namespace = self._job_namespace or next((one["metadata"]["namespace"] for one in own), "")
        if not namespace:
            if self._unread:
                self._unread.append("Jobs: only the composite says where they run: name it with --job-namespace")
            return []
        provider = next((_label(one, LABEL_PROVIDER) for one in own), "")
        labels = {**MANAGED, **({LABEL_PROVIDER: provider} if provider else {})}
        found = self._list("batch/v1", "Job", labels, namespace)
        runs = []
        for task in TASKS:
            of_task = [one for one in found if _label(one, COMPONENT) == task and self._concerns(one, task)]
            if of_task:
                runs.append(self._run(task, max(of_task, key=lambda one: str(one["metadata"]["creationTimestamp"]))))
        return runs

    def _concerns(self, job: Object, task: str) -> bool:
        """Whether a Job is the claim's own, or does its task for every Memory of the provider."""
        metadata = self._claim["metadata"]
        whose = tuple(_label(job, name) for name in LABEL_CLAIM)
        if whose == (metadata["namespace"], metadata["name"]):
            return True
        return task == "maintain" and whose in {("", ""), self._tenant}

    def _run(self, task: str, job: Object) -> LastRun:
        key = key_of(job)
        try:
            line = self._reader.last_line(key)
        except UnreadableError as error:
            self._miss(f"the log of {key}", error)
            line = ""
        report = _report(line or self._reported(task))
        ended = next((kind for kind in ("Complete", "Failed") if is_true(job, kind)), "Running")
        since = condition(job, ended).get("lastTransitionTime") or job.get("status", {}).get("startTime", "")
        message = str(report.get("message", "")) if report else line
        return LastRun(task, key.namespace, key.name, ended, since, report.get("code"), message)

    def _reported(self, task: str) -> str:
        """Gives what a Job has written to the claim's report: it is there when its pods are gone."""
        texts = [one.get("data", {}).get(task, "") for one in self._objects if one["kind"] == "ConfigMap"]
        return next((str(text) for text in texts if text), "")

    def _get(self, key: Key) -> Object | None:
        try:
            return self._reader.get(key)
        except UnreadableError as error:
            self._miss(str(key), error)
            return None

    def _list(self, api_version: str, kind: str, labels: Mapping[str, str], namespace: str) -> list[Object]:
        try:
            return self._reader.list(api_version, kind, labels, namespace)
        except UnreadableError as error:
            self._miss(f"{kind}s in {namespace}", error)
            return []

    def _miss(self, what: str, error: UnreadableError) -> None:
        sentence = f"{what}: {error}"
        if sentence not in self._unread:
            self._unread.append(sentence)


def _part(key: Key, resource: str, word: str) -> Part:
    return Part(key.kind, key.namespace, key.name, resource, word)


def _resource_key(found: Object | UnreadableError | None) -> str:
    if not isinstance(found, dict):
        return ""
    annotations: Mapping[str, str] = found["metadata"].get("annotations", {})
    return annotations.get(RESOURCE_KEY, "")


def _word(found: Object | UnreadableError | None) -> str:
    """Says whether a composed object is ready, by what its kind tells about itself."""
    if found is None:
        return MISSING
    if isinstance(found, UnreadableError):
        return UNREADABLE
    if found["kind"] == "Job":
        return "True" if is_true(found, "Complete") else "Failed" if is_true(found, "Failed") else "Running"
    if condition(found, "Ready"):
        return str(is_true(found, "Ready"))
    if "applied" in found.get("status", {}):  # CloudNativePG's Database and DatabaseRole
        return str(bool(found["status"]["applied"]))
    return "True"


def _said(obj: Object) -> Iterator[Said]:
    of = str(key_of(obj))
    for one in obj.get("status", {}).get("conditions", []):
        texts = (str(one.get(name, "")) for name in ("type", "status", "reason", "message", "lastTransitionTime"))
        yield Said(of, *texts)


def _drift(claim: Object) -> list[str] | None:
    checked = condition(claim, "InSync")
    if not checked or checked.get("reason") == "NeverChecked":
        return None
    return list(claim["status"].get("drift", []))


def _label(obj: Object, name: str) -> str:
    return str(obj["metadata"].get("labels", {}).get(name, ""))


def _delivered(obj: Object) -> Object:
    """Gives the object inside an Object of provider-kubernetes, any other as it is."""
    if obj["kind"] != "Object":
        return obj
    inner: Object = obj["spec"]["forProvider"]["manifest"]
    return inner


def _key(reference: Mapping[str, str]) -> Key:
    return Key(reference["apiVersion"], reference["kind"], reference.get("namespace", ""), reference["name"])


def _report(line: str) -> Mapping[str, Any]:
    """Reads the report that is a log's last line; anything else is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and "message" in found else {}
