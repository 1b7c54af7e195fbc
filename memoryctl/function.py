"""The composition function as a process, and the pipeline that calls it as Crossplane does."""

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
from crossplane.function.proto.v1 import run_function_pb2 as fnv1
from crossplane.function.proto.v1 import run_function_pb2_grpc as grpcv1
from google.protobuf import json_format, struct_pb2

from memoryctl.cluster import Cluster, private_directory
from memoryctl.definitions import ROOT, python_path
from memoryctl.errors import UserError
from memoryctl.objects import Key, Object, secret_data, secret_key

NAME = "function-memory"
HOST = "127.0.0.1"
START_SECONDS = 30
CALL_SECONDS = 60
CHECK_SECONDS = 0.2
STOP_SECONDS = 10
CHANNEL = [("grpc.enable_http_proxy", 0), ("grpc.min_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]
MAX_ITERATIONS = 5  # Crossplane's own limit: one call, and at most five more until the requirements are stable
CAPABILITIES = (
    fnv1.CAPABILITY_CAPABILITIES,
    fnv1.CAPABILITY_REQUIRED_RESOURCES,
    fnv1.CAPABILITY_CREDENTIALS,
    fnv1.CAPABILITY_CONDITIONS,
)
STATUS = {
    fnv1.STATUS_CONDITION_TRUE: "True",
    fnv1.STATUS_CONDITION_FALSE: "False",
    fnv1.STATUS_CONDITION_UNKNOWN: "Unknown",
}


class PipelineError(Exception):
    """A pipeline that gave no result; the message goes into the composite's Synced condition."""


@dataclasses.dataclass(frozen=True)
class Desired:
    """A composed resource as the pipeline wants it, and whether it is ready."""

    body: Object
    ready: bool


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that the function reports about a transition."""

    warning: bool
    message: str


@dataclasses.dataclass(frozen=True)
class Result:
    """What a whole pipeline says about one composite.

    Attributes:
        resources: Composed resources by resource key.
        status: The composite's status.
        conditions: Conditions, without times.
        claim_conditions: Types of those that the claim gets too.
        ready: Whether the composite is ready; None leaves it to the resources.
        connection_details: What Crossplane is to write for the composite.
        events: Results that are not fatal.
        fatal: The message of a fatal result, "" without one.
    """

    resources: Mapping[str, Desired]
    status: Object
    conditions: list[Object]
    ready: bool | None
    events: tuple[Event, ...]
    fatal: str = ""
    claim_conditions: frozenset[str] = frozenset()
    connection_details: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


class Pipeline:
    """Calls the function for each step of a Composition."""

    def __init__(self, channel: grpc.Channel, cluster: Cluster) -> None:
        self._stub = grpcv1.FunctionRunnerServiceStub(channel)
        self._cluster = cluster

    def run(
        self, composition: Object, composite: Object, observed: Mapping[str, Object], published: Mapping[str, bytes]
    ) -> Result:
        """Runs the steps of a Composition, each with the desired state of the one before.

        `published` are the connection details that were written for the composite before.

        Raises:
            PipelineError: A step cannot be called.
        """
        request = fnv1.RunFunctionRequest()
        request.meta.capabilities.extend(CAPABILITIES)
        request.observed.composite.resource.update(composite)
        request.observed.composite.connection_details.update(published)
        for key, body in observed.items():
            request.observed.resources[key].resource.update(body)
        responses: list[fnv1.RunFunctionResponse] = []
        for step in composition["spec"]["pipeline"]:
            response = self._step(step, request)
            responses.append(response)
            fatal = [one.message for one in response.results if one.severity == fnv1.SEVERITY_FATAL]
            if fatal:
                return _result(responses, f'pipeline step "{step["step"]}" returned a fatal result: {fatal[0]}')
            request.desired.CopyFrom(response.desired)
            request.context.CopyFrom(response.context)
        return _result(responses)

    def _step(self, step: Mapping[str, Any], request: fnv1.RunFunctionRequest) -> fnv1.RunFunctionResponse:
        """Calls one function until two consecutive requirements are equal, as Crossplane's fetching runner does."""
        if step["functionRef"]["name"] != NAME:
            msg = f'step "{step["step"]}" calls function "{step["functionRef"]["name"]}": memoryctl runs {NAME} only'
            raise PipelineError(msg)
        request.input.Clear()
        request.input.update(step.get("input", {}))
        request.credentials.clear()
        for name, data in self._credentials(step).items():
            request.credentials[name].credential_data.data.update(data)
        request.required_resources.clear()
        request.extra_resources.clear()
        requirements = fnv1.Requirements()
        for iteration in range(MAX_ITERATIONS + 1):
            request.meta.tag = f"{step['step']}-{iteration}"
            response = self._call(request)
            fatal = any(one.severity == fnv1.SEVERITY_FATAL for one in response.results)
            if fatal or response.requirements == requirements:
                return response
            requirements = response.requirements
            self._resolve(requirements, request)
            request.context.CopyFrom(response.context)
        msg = f"requirements didn't stabilize after the maximum number of iterations ({MAX_ITERATIONS})"
        raise PipelineError(msg)

    def _call(self, request: fnv1.RunFunctionRequest) -> fnv1.RunFunctionResponse:
        try:
            response: fnv1.RunFunctionResponse = self._stub.RunFunction(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            msg = f"cannot call function {NAME}: {error.code().name}: {error.details()}"
            raise PipelineError(msg) from error
        if response.meta.tag != request.meta.tag:
            msg = f"function {NAME} answered tag {response.meta.tag!r} to {request.meta.tag!r}"
            raise PipelineError(msg)
        return response

    def _credentials(self, step: Mapping[str, Any]) -> dict[str, dict[str, bytes]]:
        found = {}
        for one in step.get("credentials", []):
            key = secret_key(one["secretRef"]["namespace"], one["secretRef"]["name"])
            secret = self._cluster.get(key)
            if secret is None:
                msg = f'cannot get credential "{one["name"]}": there is no {key}'
                raise PipelineError(msg)
            found[one["name"]] = secret_data(secret)
        return found

    def _resolve(self, requirements: fnv1.Requirements, request: fnv1.RunFunctionRequest) -> None:
        for wanted, target in (
            (requirements.resources, request.required_resources),
            (requirements.extra_resources, request.extra_resources),
        ):
            target.clear()
            for name, selector in wanted.items():
                answer = target[name]  # there even when nothing is found: empty means looked for
                for body in self._select(selector):
                    answer.items.add().resource.update(body)

    def _select(self, selector: fnv1.ResourceSelector) -> list[Object]:
        if selector.WhichOneof("match") == "match_name":
            key = Key(selector.api_version, selector.kind, selector.namespace, selector.match_name)
            found = self._cluster.get(key)
            return [found] if found else []
        labels = dict(selector.match_labels.labels)
        return self._cluster.list(selector.api_version, selector.kind, labels)


@dataclasses.dataclass(frozen=True)
class Process:
    """The running function."""

    child: subprocess.Popen[Any]
    address: str
    channel: grpc.Channel
    log: Path

    def wait_ready(self) -> None:
        """Waits until the function answers.

        Raises:
            UserError: It does not.
        """
        ready = grpc.channel_ready_future(self.channel)
        for _ in range(int(START_SECONDS / CHECK_SECONDS)):
            with contextlib.suppress(grpc.FutureTimeoutError):
                ready.result(timeout=CHECK_SECONDS)
                return
            if self.child.poll() is not None:
                break
        ready.cancel()
        tail = " ".join(self.log.read_text(errors="replace").split("\n")[-2:]).strip()
        msg = f"the function does not start, see {self.log}: {tail or 'it says nothing'}"
        raise UserError(msg)


@contextlib.contextmanager
def process(log: Path) -> Iterator[Process]:
    """Starts the function on a free port of 127.0.0.1, and stops it at the end.

    The caller waits with `wait_ready`, so that other things can start meanwhile.
    """
    private_directory(log.parent)
    with _reserved_port() as port:
        address = f"{HOST}:{port}"
        child = _spawn(address, log)
        try:
            with grpc.insecure_channel(address, options=CHANNEL) as channel:
                yield Process(child, address, channel, log)
        finally:
            stop(child)


@contextlib.contextmanager
def _reserved_port() -> Iterator[int]:
    """Gives a port that nobody else is given meanwhile: bound and never listening, which gRPC's own binding allows."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((HOST, 0))
        yield reserved.getsockname()[1]


def _spawn(address: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("w") as output:
        # Its own session: Ctrl-C at the terminal is ours to handle, and until then the function still answers.
        return subprocess.Popen(  # noqa: S603  our own module
            # No metrics: nobody reads them here, and their port could be somebody else's.
            [sys.executable, "-m", "function.main", "--insecure", "--address", address, "--metrics-address", ""],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": python_path()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def stop(child: subprocess.Popen[Any]) -> None:
    """Ends a process: asked first, then killed."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()


def _result(responses: list[fnv1.RunFunctionResponse], fatal: str = "") -> Result:
    """Gives what the steps say together: the last one's desired state, everybody's conditions and events."""
    desired = fnv1.State() if fatal else responses[-1].desired
    conditions = [one for response in responses for one in response.conditions]
    results = [one for response in responses for one in response.results if one.severity != fnv1.SEVERITY_FATAL]
    return Result(
        resources={
            key: Desired(_plain(one.resource), one.ready == fnv1.READY_TRUE)
            for key, one in sorted(desired.resources.items())
        },
        status=_plain(desired.composite.resource).get("status", {}),
        conditions=[_condition(one) for one in conditions],
        ready={fnv1.READY_TRUE: True, fnv1.READY_FALSE: False}.get(desired.composite.ready),
        events=tuple(Event(one.severity == fnv1.SEVERITY_WARNING, one.message) for one in results),
        fatal=fatal,
        claim_conditions=frozenset(one.type for one in conditions if one.target == fnv1.TARGET_COMPOSITE_AND_CLAIM),
        connection_details=dict(desired.composite.connection_details),
    )


def _condition(one: fnv1.Condition) -> Object:
    made = {"type": one.type, "status": STATUS.get(one.status, "Unknown"), "reason": one.reason}
    return made | ({"message": one.message} if one.message else {})


def _plain(struct: struct_pb2.Struct) -> Object:
    plain: Object = _integers(json_format.MessageToDict(struct))
    return plain


def _integers(value: Any) -> Any:
    """Gives whole numbers back as integers: a Struct knows doubles only, and JSON in Go writes 3.0 as 3."""
    if isinstance(value, dict):
        return {name: _integers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_integers(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
