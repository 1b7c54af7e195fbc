"""Ready-made composites and providers for tests."""

from __future__ import annotations

import copy
from typing import Any

from tests.function.harness import TIME, Object, World, pipeline_input
from tests.schemas import catalog

CA = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUTEST\n-----END CERTIFICATE-----\n"
ADMIN = {"name": "memory-admin", "namespace": "databases"}


def xr(kind: str, name: str, spec: Object, claim: tuple[str, str] | None, uid: str | None = None) -> Object:
    """A composite as Crossplane makes it from a claim (namespace, name), defaults filled in."""
    body: Object = {
        "apiVersion": "memory.proompteng.ai/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "uid": uid or f"uid-of-{name}", "creationTimestamp": TIME, "labels": {}},
        "spec": copy.deepcopy(spec),
    }
    if claim:
        ref = {"apiVersion": body["apiVersion"], "kind": kind[1:], "namespace": claim[0], "name": claim[1]}
        body["spec"]["claimRef"] = ref
        body["metadata"]["labels"] = {"crossplane.io/claim-namespace": claim[0], "crossplane.io/claim-name": claim[1]}
    return catalog().defaulted(body)


def memory(claim: tuple[str, str] | None = ("team-a", "notes"), name: str = "notes-x7k2p", **spec: Any) -> Object:
    """An `XMemory`."""
    wanted = {"providerRef": {"name": "pg"}, "dataset": {"name": "notes", "schema": "notes"}, **spec}
    return xr("XMemory", name, wanted, claim)


def provider(
    name: str = "pg",
    claim: tuple[str, str] | None = None,
    *,
    ready: bool = True,
    postgres: Object | None = None,
    **spec: Any,
) -> Object:
    """An `XMemoryProvider` on an external server, probed unless told otherwise."""
    server = postgres or {"host": "db.example.com", "caBundle": CA, "connectionSecret": ADMIN}
    body = xr("XMemoryProvider", name, {"type": "postgres", "postgres": server, **spec}, claim)
    if ready:
        body["status"] = {
            "type": "postgres",
            "version": "18.4",
            "capabilities": ["createrole", "pgvector"],
            "conditions": [{"type": "BackendReady", "status": "True", "reason": "Available"}],
        }
    return body


def namespace(name: str = "team-a", **labels: str) -> Object:
    """A Namespace as an API server keeps it."""
    metadata = {"name": name, "uid": f"uid-of-{name}", "creationTimestamp": TIME}
    labels = {"kubernetes.io/metadata.name": name, **labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {**metadata, "labels": labels}}


def world(*providers: Object, memory_xr: Object | None = None) -> World:
    """A Memory and its providers (one ready shared one by default)."""
    return World(xr=memory_xr or memory(), providers=providers or (provider(),))


CLUSTER = {"clusterRef": {"name": "db", "namespace": "databases"}}
ROLES_CRD: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "databaseroles.postgresql.cnpg.io"},
}


def managed(name: str = "pg", claim: tuple[str, str] | None = None, **postgres: Any) -> Object:
    """A provider without an admin: CloudNativePG makes the roles. Its probe knows no version."""
    body = provider(name, claim, postgres={**CLUSTER, **postgres})
    body["status"] |= {"version": "", "capabilities": [], "caBundle": CA}
    return body


def managed_world(memory_xr: Object | None = None, **postgres: Any) -> World:
    """A Memory on such a provider, with an operator that knows roles."""
    return world(managed(**postgres), memory_xr=memory_xr).but(definitions=(ROLES_CRD,))


ADMIN_ONLY: Object = {"adminSecret": ADMIN}
REDIS: Object = {"host": "redis.example.com", "caBundle": CA, **ADMIN_ONLY}
S3: Object = {"endpoint": "https://s3.example.com", "bucket": "memories", "users": "RGW", **ADMIN_ONLY}
AWS: Object = {"bucketPrefix": "acme-memory", "users": "AWS", "region": "eu-central-1", **ADMIN_ONLY}
CUSTOM: Object = {
    "image": "registry.example.com/memory-mariadb@sha256:" + "0" * 64,
    "endpoint": "db.example.com:3306",
    "database": "memories",
    "configSecret": {"name": "mariadb-admin", "namespace": "databases"},
}
AWS_CRDS: tuple[Object, ...] = tuple(
    {**ROLES_CRD, "metadata": {"name": name}} for name in ("users.iam.aws.upbound.io", "buckets.s3.aws.upbound.io")
)
_CAPABILITIES: dict[str, list[str]] = {"redis": ["redis", "vector-sets"], "s3": ["versioning"], "custom": []}


def of_type(kind: str, block: Object, claim: tuple[str, str] | None = None, **spec: Any) -> Object:
    """A provider of another type, probed."""
    body = xr("XMemoryProvider", "pg", {"type": kind, kind: block, **spec}, claim)
    body["status"] = {
        "type": kind,
        "version": "8.0.2",
        "capabilities": _CAPABILITIES[kind],
        "conditions": [{"type": "BackendReady", "status": "True", "reason": "Available"}],
    }
    return body


def other_world(kind: str, block: Object, memory_xr: Object | None = None) -> World:
    """A Memory on such a provider, in a cluster with the AWS provider."""
    return world(of_type(kind, block), memory_xr=memory_xr).but(definitions=AWS_CRDS)


def provider_world(body: Object) -> World:
    """A provider as the composite."""
    return World(xr=body, settings=pipeline_input("memoryprovider"), credentials={})


def delivered(start: World) -> World:
    """The same, delivered by Objects: by that Composition, which gives the composite a Secret of its own."""
    if start.xr["kind"] != "XMemory":
        return start.but(settings=pipeline_input("memoryprovider-object"))
    ref = {"name": start.xr["metadata"]["uid"], "namespace": "crossplane-system"}
    return start.but(settings=pipeline_input("memory-object")).with_spec(writeConnectionSecretToRef=ref)
