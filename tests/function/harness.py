"""Requests out of plain objects, and answers back into them; a control plane in miniature for one composite."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
from base64 import b64encode
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml
from crossplane.function.proto.v1 import run_function_pb2 as fnv1
from google.protobuf import json_format

from function.decode import to_dict
from function.fn import FunctionRunner
from tests.schemas import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT_KEY = bytes(range(32))
TIME = "2026-01-01T00:00:00Z"
Object = dict[str, Any]


def pipeline_input(composition: str = "memory") -> Object:
    """The `input` of a Composition's step."""
    body = yaml.safe_load((ROOT / "compositions" / f"{composition}.yaml").read_text())
    found: Object = body["spec"]["pipeline"][0]["input"]
    return found


@dataclass(frozen=True)
class World:
    """Everything that a call sees.

    Attributes:
        xr: The composite.
        observed: Composed resources by key.
        providers: What a control plane would find; requirements are resolved against these.
        namespaces: And these.
        definitions: And these CustomResourceDefinitions.
        settings: The step's input.
        credentials: Pipeline credentials.
        resolved: False: no requirement is resolved yet.
        unanswered: Requirements that are not resolved, by name.
        old_form: Answer requirements as v1.20 does.
        published: Connection details that the control plane has published for the composite.
        details: Connection details of composed resources, by key.
    """

    xr: Object
    observed: Mapping[str, Object] = field(default_factory=dict)
    providers: tuple[Object, ...] = ()
    namespaces: tuple[Object, ...] = ()
    definitions: tuple[Object, ...] = ()
    settings: Object = field(default_factory=pipeline_input)
    credentials: Mapping[str, Mapping[str, bytes]] = field(default_factory=lambda: {"root-key": {"current": ROOT_KEY}})
    resolved: bool = True
    unanswered: tuple[str, ...] = ()
    old_form: bool = False
    published: Mapping[str, bytes] = field(default_factory=dict)
    details: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)

    def but(self, **changes: Any) -> World:
        """The same with some things else."""
        return replace(self, **changes)

    def with_spec(self, **fields: Any) -> World:
        """The same with fields of the composite's spec replaced (dotted by two underscores), or removed by None."""
        xr = copy.deepcopy(self.xr)
        for path, value in fields.items():
            *parents, last = path.split("__")
            target = xr["spec"]
            for parent in parents:
                target = target.setdefault(parent, {})
            if value is None:
                target.pop(last, None)
            else:
                target[last] = value
        return self.but(xr=xr)


@dataclass(frozen=True)
class Answer:
    """A response as plain objects."""

    response: fnv1.RunFunctionResponse

    @property
    def resources(self) -> dict[str, Object]:
        return {key: to_dict(each.resource) for key, each in sorted(self.response.desired.resources.items())}

    @property
    def status(self) -> Object:
        found: Object = to_dict(self.response.desired.composite.resource).get("status", {})
        return found

    @property
    def conditions(self) -> dict[str, tuple[bool, str]]:
        """Type to whether it holds and the reason."""
        return {
            each.type: (each.status == fnv1.STATUS_CONDITION_TRUE, each.reason) for each in self.response.conditions
        }

    def message(self, kind: str) -> str:
        return next(each.message for each in self.response.conditions if each.type == kind)

    @property
    def ready(self) -> bool:
        return self.response.desired.composite.ready == fnv1.READY_TRUE

    @property
    def fatal(self) -> str:
        return next((each.message for each in self.response.results if each.severity == fnv1.SEVERITY_FATAL), "")

    @property
    def ttl(self) -> int:
        return self.response.meta.ttl.seconds

    def jobs(self) -> list[str]:
        return [key for key in self.resources if key.startswith("provision-")]

    def key(self, prefix: str) -> str:
        """The one key with a prefix."""
        (found,) = [key for key in self.resources if key.startswith(prefix)]
        return found

    def to_yaml(self) -> str:
        """All of it, for a golden file: in a stable order, a person can read it."""
        desired = self.response.desired
        details = {"connectionDetails": sorted(desired.composite.connection_details)}
        body = {
            **(details if details["connectionDetails"] else {}),
            "ttl": self.ttl,
            "ready": fnv1.Ready.Name(desired.composite.ready),
            "conditions": [json_format.MessageToDict(each) for each in self.response.conditions],
            "results": [json_format.MessageToDict(each) for each in self.response.results],
            "requirements": json_format.MessageToDict(self.response.requirements),
            "status": self.status,
            "resources": {
                key: {"ready": fnv1.Ready.Name(desired.resources[key].ready), "resource": body}
                for key, body in self.resources.items()
            },
        }
        return dump(body)


def dump(body: Any) -> str:
    """YAML as all files of `examples/` are written."""
    text: str = yaml.safe_dump(body, sort_keys=True, width=120, default_flow_style=False)
    return text


def request(world: World, asked: Mapping[str, fnv1.ResourceSelector] | None = None) -> fnv1.RunFunctionRequest:
    """The request that a control plane sends; `asked` are the requirements of the last answer."""
    req = fnv1.RunFunctionRequest()
    req.meta.tag = hashlib.sha256(json.dumps(world.xr, sort_keys=True).encode()).hexdigest()
    req.observed.composite.resource.update(world.xr)
    req.observed.composite.connection_details.update(world.published)
    req.input.update(world.settings)
    for key, body in world.observed.items():
        req.observed.resources[key].resource.update(body)
        req.observed.resources[key].connection_details.update(world.details.get(key, {}))
    for name, data in world.credentials.items():
        req.credentials[name].credential_data.data.update(data)
    answers = req.extra_resources if world.old_form else req.required_resources
    for name, selector in (asked or {}).items():
        if not world.resolved or name in world.unanswered:
            continue
        answers[name].SetInParent()
        for body in (*world.providers, *world.namespaces, *world.definitions):
            if _matches(selector, body):
                answers[name].items.add().resource.update(body)
    return req


def _matches(selector: fnv1.ResourceSelector, body: Object) -> bool:
    if (selector.api_version, selector.kind) != (body["apiVersion"], body["kind"]):
        return False
    if selector.HasField("match_name"):
        return bool(body["metadata"]["name"] == selector.match_name)
    labels = body["metadata"].get("labels", {})
    return all(labels.get(key) == value for key, value in selector.match_labels.labels.items())


def call(req: fnv1.RunFunctionRequest) -> fnv1.RunFunctionResponse:
    """One call, in this process."""
    return asyncio.run(FunctionRunner().RunFunction(req, None))  # type: ignore[arg-type]  # the context is not used


def run(world: World) -> Answer:
    """Call until two requirements in a row are equal, as Crossplane does (five times at most)."""
    asked: dict[str, fnv1.ResourceSelector] = {}
    for _ in range(5):
        rsp = call(request(world, asked))
        wanted = rsp.requirements.extra_resources if world.old_form else rsp.requirements.resources
        if rsp.results and any(each.severity == fnv1.SEVERITY_FATAL for each in rsp.results):
            return Answer(rsp)
        if dict(wanted) == asked:
            return Answer(rsp)
        asked = dict(wanted)
    msg = "the requirements never became stable"
    raise AssertionError(msg)


def is_wrapped(body: Object) -> bool:
    """Whether an object is an Object of provider-kubernetes."""
    return bool(body["kind"] == "Object")


def inner(body: Object) -> Object:
    """What an Object holds, as its provider saw it last; anything else is what it is."""
    if not is_wrapped(body):
        return body
    found: Object = body.get("status", {}).get("atProvider", {}).get("manifest") or asked(body)
    return found


def asked(body: Object) -> Object:
    """What an Object is to make; anything else is what it is."""
    manifest: Object = body["spec"]["forProvider"]["manifest"] if is_wrapped(body) else body
    return manifest


def unseen(body: Object) -> Object:
    """An Object whose provider has not looked yet; anything else is there as soon as it is made."""
    return {**body, "status": {}} if is_wrapped(body) else body


def showing(body: Object, found: Object) -> Object:
    """An object that is now as `found`, which for an Object is what its provider saw."""
    return {**body, "status": {"atProvider": {"manifest": found}}} if is_wrapped(body) else found


def served(key: str, body: Object, composite: Object | None = None) -> Object:
    """An object of a composite as a server gives it back: with all that servers and controllers add."""
    if is_wrapped(body):
        return _made(key, body, composite)
    return _served(key, body, composite)


def _made(key: str, body: Object, composite: Object | None) -> Object:
    """An Object whose provider has made what it holds."""
    wrapper = _served(key, body, composite)
    wrapper["metadata"]["annotations"] |= {"crossplane.io/external-name": wrapper["metadata"]["name"]}
    wrapper["metadata"]["finalizers"] = ["finalizer.managedresource.crossplane.io"]
    wrapper["spec"] = {
        "deletionPolicy": "Delete",
        "managementPolicies": ["*"],
        "readiness": {"policy": "SuccessfulCreate"},
        "watch": False,
        **wrapper["spec"],
    }
    # It is nobody's in its cluster, and the provider notes there what it applied last.
    found = _served(key, asked(body), composite)
    del found["metadata"]["ownerReferences"], found["metadata"]["labels"]["crossplane.io/composite"]
    applied = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(asked(body))}
    found["metadata"]["annotations"] = applied
    return showing(wrapper, found)


def _served(key: str, body: Object, composite: Object | None) -> Object:
    body = copy.deepcopy(body)
    uid = _uid(key + body["metadata"]["name"])
    body["metadata"] |= {
        "uid": uid,
        "resourceVersion": "4711",
        "generation": 1,
        "creationTimestamp": TIME,
        "managedFields": [{"manager": "apiextensions.crossplane.io/composed", "operation": "Apply", "time": TIME}],
        "annotations": {"crossplane.io/composition-resource-name": key},
        "ownerReferences": [_owner(composite or {"kind": "XMemory", "metadata": {"name": "xr", "uid": uid}})],
    }
    body["metadata"]["labels"]["crossplane.io/composite"] = body["metadata"]["ownerReferences"][0]["name"]
    if body["kind"] == "Job":
        _job_defaults(body, uid)
        _fields_without_a_value(body["spec"])
    if body["kind"] == "CronJob":
        body["spec"] |= {"suspend": False}
        _fields_without_a_value(body["spec"]["jobTemplate"]["spec"])
        _pod_defaults(body["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    if body["kind"] == "ServiceAccount":
        body["secrets"] = [{"name": "token"}]
    if is_managed(body):
        _managed_defaults(body)
    if body["kind"] == "DatabaseRole":
        body["spec"] |= {"ensure": "present", "inherit": True}
    return body


def is_managed(body: Object) -> bool:
    """Whether an object is a managed resource of the AWS provider."""
    return ".aws.upbound.io/" in body["apiVersion"]


def _managed_defaults(body: Object) -> None:
    """What its provider writes into an object besides its status: tags, and what references lead to."""
    wanted, name = body["spec"]["forProvider"], body["metadata"]["name"]
    body["metadata"]["annotations"]["crossplane.io/external-name"] = name
    for reference in [each for each in wanted if each.endswith("Ref")]:
        wanted[reference.removesuffix("Ref")] = wanted[reference]["name"]
    if body["kind"] in {"User", "Policy", "Bucket"}:
        wanted["tags"] = {"crossplane-kind": body["kind"].lower(), "crossplane-name": name}


def access_keys(observed: Mapping[str, Object]) -> dict[str, dict[str, bytes]]:
    """What the AWS provider has written to the Secrets of the access keys that it has made."""
    made = {key: body for key, body in observed.items() if body["kind"] == "AccessKey" and body.get("status")}
    return {key: _access_key(body["metadata"]["uid"]) for key, body in made.items()}


# What an admin's Secret holds, where every Memory gets it.
ADMIN_KEYS = {"username": "ADMIN0000000000000000", "password": "not-a-real-secret-key-0000000000000000000"}


def handed_out(observed: Mapping[str, Object]) -> dict[str, Object]:
    """The Secret that a Job has written the admin's keys to, where nobody makes users and one is complete."""
    bodies = [inner(body) for body in observed.values() if inner(body)["kind"] == "Job"]
    if not any(body.get("status", {}).get("succeeded") for body in bodies):
        return {}
    data = {key: b64encode(value.encode()).decode() for key, value in ADMIN_KEYS.items()}
    found = {key: body for key, body in observed.items() if key.startswith("keys-") and body["kind"] == "Secret"}
    return {key: {**body, "data": data} for key, body in found.items()}


def _access_key(uid: str) -> dict[str, bytes]:
    digest = hashlib.sha256(uid.encode()).hexdigest()
    return {"username": f"AKIA{digest[:16].upper()}".encode(), "password": f"secret-{digest[16:50]}".encode()}


def _owner(composite: Object) -> Object:
    metadata = composite["metadata"]
    owner = {"apiVersion": "memory.proompteng.ai/v1alpha1", "kind": composite["kind"], "controller": True}
    return {**owner, "name": metadata["name"], "uid": metadata["uid"], "blockOwnerDeletion": True}


def _fields_without_a_value(spec: Object) -> None:
    """Its Go type has no omitempty for these, so a server may write them out."""
    for rule in spec["podFailurePolicy"]["rules"]:
        rule.setdefault("onExitCodes", None)
        rule.setdefault("onPodConditions", None)
    spec["template"]["metadata"]["creationTimestamp"] = None


def _job_defaults(body: Object, uid: str) -> None:
    added = {
        "controller-uid": uid,
        "job-name": body["metadata"]["name"],
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": body["metadata"]["name"],
    }
    body["metadata"]["labels"] |= added
    body["spec"]["template"]["metadata"]["labels"] |= added
    body["spec"] |= {
        "completionMode": "NonIndexed",
        "completions": 1,
        "parallelism": 1,
        "suspend": False,
        "manualSelector": False,
        "podReplacementPolicy": "Failed",
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}},
    }
    _pod_defaults(body["spec"]["template"]["spec"])
    body["status"] = {"active": 1, "startTime": TIME}


def _pod_defaults(spec: Object) -> None:
    spec |= {
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30,
        "serviceAccount": spec["serviceAccountName"],
    }
    for container in spec["containers"]:
        container |= {
            "imagePullPolicy": "IfNotPresent",
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
        }


def _uid(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"


def complete(job: Object, time: str = TIME) -> Object:
    """A Job that has succeeded."""
    condition = {"type": "Complete", "status": "True", "lastTransitionTime": time, "reason": "CompletionsReached"}
    return {**job, "status": {"succeeded": 1, "conditions": [condition]}}


def failed(job: Object, code: int | None, reason: str = "PodFailurePolicy", time: str = TIME) -> Object:
    """A Job that has failed, by an exit code or for another reason."""
    name = job["metadata"]["name"]
    message = (
        f"Container migrations for pod databases/{name}-x failed with exit code {code} matching FailJob rule at index 1"
    )
    if code is None:
        message = f"Job has failed: {reason}"
    condition = {"type": "Failed", "status": "True", "reason": reason, "message": message, "lastTransitionTime": time}
    return {**job, "status": {"failed": 1, "conditions": [condition]}}


def reported(configmap: Object, key: str, **answer: Any) -> Object:
    """A report ConfigMap that a Job has written to."""
    return {**configmap, "data": {**configmap.get("data", {}), key: json.dumps(answer)}}


def secret_entries(body: Object) -> dict[str, str]:
    """Decoded entries of a Secret."""
    from base64 import b64decode  # noqa: PLC0415 - the one place that decodes

    return {key: b64decode(value).decode() for key, value in body.get("data", {}).items()}


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def step(world: World, **jobs_end: Any) -> tuple[World, Answer]:
    """One reconcile: call, apply, and let every Job that runs end (`code`, `reason`, `time`; complete by default).

    Jobs that are rendered in this step only start; they end in the next.
    """
    answer = run(world)
    observed: dict[str, Object] = {}
    for key, body in answer.resources.items():
        before = world.observed.get(key)
        if before is None:
            observed[key] = served(key, body, world.xr)
            continue
        observed[key] = _applied(before, body)
        job = inner(observed[key])
        if job["kind"] == "Job" and not job["status"].get("conditions"):
            observed[key] = showing(observed[key], _ended(job, **jobs_end))
    observed = operated(observed)
    observed |= handed_out(observed)
    xr = {**world.xr, "status": {**answer.status, "conditions": _conditions(answer)}}
    published = dict(answer.response.desired.composite.connection_details) or world.published
    return world.but(xr=xr, observed=observed, published=published, details=access_keys(observed)), answer


def _applied(before: Object, body: Object) -> Object:
    """Server-side apply of what we own: data and spec are ours, the rest stays."""
    after = copy.deepcopy(before)
    if is_wrapped(body):
        after["spec"] |= copy.deepcopy(body["spec"])
        return showing(after, _applied(inner(after), asked(after)))
    if body["kind"] in {"Secret", "Role", "RoleBinding"}:
        after |= {key: value for key, value in body.items() if key != "metadata"}
    if after != before and body["kind"] == "Secret":
        after["metadata"]["resourceVersion"] = str(int(before["metadata"]["resourceVersion"]) + 1)
    if body["kind"] in {"DatabaseRole", "Database"} or is_managed(body):
        after = {**_served(_key_of(before), body, None), "status": before.get("status", {})}
        after["metadata"]["ownerReferences"] = before["metadata"]["ownerReferences"]
        changed = after["spec"] != before["spec"]
        after["metadata"]["generation"] = before["metadata"]["generation"] + int(changed)
    return after


def _key_of(body: Object) -> str:
    key: str = body["metadata"]["annotations"]["crossplane.io/composition-resource-name"]
    return key


def operated(observed: Mapping[str, Object]) -> dict[str, Object]:
    """The objects after their operators have looked at them once, all at the same time.

    What CloudNativePG needs must be there; the AWS provider waits by itself.
    """
    return {key: _operated(body, observed) for key, body in observed.items()}


def _operated(body: Object, observed: Mapping[str, Object]) -> Object:
    if is_managed(body):
        generation = body["metadata"]["generation"]
        said = {"status": "True", "reason": "Available", "lastTransitionTime": TIME, "observedGeneration": generation}
        return {**body, "status": {"conditions": [{"type": kind, **said} for kind in ("Ready", "Synced")]}}
    if body["kind"] in {"DatabaseRole", "Database"}:
        return {**body, "status": _looked_at(body, observed)}
    return body


def _looked_at(body: Object, observed: Mapping[str, Object]) -> Object:
    spec, status = body["spec"], {"observedGeneration": body["metadata"]["generation"], "applied": True}
    roles = {each["spec"]["name"] for each in observed.values() if each.get("status", {}).get("applied")}
    needed = [spec["owner"]] if body["kind"] == "Database" else spec.get("inRoles", [])
    missing = [role for role in needed if role not in roles]
    if missing:
        return {"applied": False, "message": f'role "{missing[0]}" does not exist'}
    if "passwordSecret" not in spec:
        return status
    held = [each for each in observed.values() if each["metadata"]["name"] == spec["passwordSecret"]["name"]]
    if not held or secret_entries(held[0])["username"] != spec["name"]:
        return {"applied": False, "message": f"no Secret {spec['passwordSecret']['name']} of this role"}
    return {**status, "secretResourceVersion": held[0]["metadata"]["resourceVersion"]}


def _ended(job: Object, code: int | None = 0, reason: str = "PodFailurePolicy", time: str = TIME) -> Object:
    return complete(job, time) if code == 0 else failed(job, code, reason, time)


def _conditions(answer: Answer) -> list[Object]:
    found = [
        {"type": kind, "status": str(holds), "reason": reason, "message": answer.message(kind)}
        for kind, (holds, reason) in answer.conditions.items()
    ]
    return [
        *found,
        {"type": "Ready", "status": str(answer.ready), "reason": "Available" if answer.ready else "Creating"},
    ]


def settle(world: World, steps: int = 8) -> tuple[World, Answer]:
    """Reconcile until nothing changes."""
    for _ in range(steps):
        after, answer = step(world)
        if after == world:
            return after, answer
        world = after
    msg = "the composite never settled"
    raise AssertionError(msg)
