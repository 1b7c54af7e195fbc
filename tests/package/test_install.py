"""package/install gives what is needed and nothing else, and docs/install.md says so."""

from __future__ import annotations

import copy
import re
import subprocess
from typing import TYPE_CHECKING, Any

import cel
import pytest
import yaml
from cel import stdlib

from function.resources import projection
from tests.function.examples import FOLDERS, Example, probed, provisioned
from tests.function.harness import asked, is_managed, is_wrapped, run
from tests.function.worlds import delivered, memory, provider, provider_world, world
from tests.schemas import ROOT, catalog, definition, objects

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INSTALL = ROOT / "package" / "install"
GUIDE = (ROOT / "docs" / "install.md").read_text()
CROSSPLANE = "system:serviceaccount:crossplane-system:crossplane"
Object = dict[str, Any]


def installed() -> list[Object]:
    """Everything that the kustomization lists."""
    (kustomization,) = objects(INSTALL / "kustomization.yaml")
    return [body for name in kustomization["resources"] for body in objects(INSTALL / name)]


def one(kind: str, name: str) -> Object:
    """The one object of a kind and name."""
    (found,) = [body for body in installed() if (body["kind"], body["metadata"]["name"]) == (kind, name)]
    return found


def test_every_file_is_listed() -> None:
    (kustomization,) = objects(INSTALL / "kustomization.yaml")
    assert {path.name for path in INSTALL.iterdir()} == {"kustomization.yaml", *kustomization["resources"]}


# What Crossplane may do.


def composed() -> Iterator[Object]:
    """What the function composes that is of no provider's kind: Crossplane gives itself the right to those.

    Its RBAC manager adds to its rights the kinds of each provider package (provider-kubernetes, those for AWS).
    """
    yield from (body for body in rendered() if not is_managed(body))


def rendered() -> Iterator[Object]:
    """What the function composes: for every example, and for a provider and a Memory with all that can be had."""
    for folder in FOLDERS:
        for answer in Example(folder).answers().values():
            yield from (body for body in answer.resources.values() if not is_wrapped(body))
    yield from probed(provider_world(provider(ready=False)))[1].resources.values()
    yield from provisioned(world(memory_xr=memory(access={"readOnlySecret": True}))).observed.values()


def resource(body: Object) -> tuple[str, str]:
    """API group and plural, as a rule names them."""
    group, _, _ = body["apiVersion"].rpartition("/")
    return group, f"{body['kind'].lower()}s"


def granted(role: Object) -> dict[tuple[str, str], list[str]]:
    """Verbs by API group and plural; nothing is granted twice."""
    pairs = [
        ((group, plural), rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for plural in rule["resources"]
    ]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_crossplane_may_do_what_is_composed_and_nothing_else() -> None:
    role = one("ClusterRole", "crossplane-memory")
    assert role["metadata"]["labels"] == {"rbac.crossplane.io/aggregate-to-crossplane": "true"}
    named = [rule for rule in role["rules"] if "resourceNames" in rule]
    assert named == [
        {
            "apiGroups": ["rbac.authorization.k8s.io"],
            "resources": ["clusterroles"],
            "resourceNames": ["memory-reaper"],
            "verbs": ["bind"],
        }
    ]
    assert {key for rule in role["rules"] if rule not in named for key in rule} == {"apiGroups", "resources", "verbs"}
    rights = granted(role)
    assert rights.pop(("rbac.authorization.k8s.io", "clusterroles")) == ["bind"]
    assert rights.pop(("", "namespaces")) == ["get", "list", "watch"]
    assert rights.pop(("apiextensions.k8s.io", "customresourcedefinitions")) == ["get", "list", "watch"]
    assert set(rights) == {resource(body) for body in composed()}
    assert {tuple(verbs) for verbs in rights.values()} == {
        ("get", "list", "watch", "create", "update", "patch", "delete")
    }


def test_every_kind_that_can_be_composed_is_in_the_examples() -> None:
    """Otherwise the comparison above would say nothing about it."""
    assert {body["kind"] for body in rendered()} == set(projection._MASKS)


def test_crossplane_has_what_it_grants() -> None:
    """Kubernetes lets nobody make a Role that gives more than he has."""
    rights = granted(one("ClusterRole", "crossplane-memory"))
    roles = [body for body in composed() if body["kind"] == "Role"]
    assert roles
    for rule in (rule for role in roles for rule in role["rules"]):
        for group in rule["apiGroups"]:
            for plural in rule["resources"]:
                assert set(rule["verbs"]) <= set(rights[group, plural])


def test_crossplane_binds_a_role_that_is_there_and_no_other() -> None:
    """Bound by `bind`, of that name: what is in the role is this repository's to say, not a claim's."""
    bindings = [body for body in composed() if body["kind"] in {"ClusterRoleBinding", "RoleBinding"}]
    bound = {body["roleRef"]["name"] for body in bindings if body["roleRef"]["kind"] == "ClusterRole"}
    assert bound == {"memory-reaper"}
    assert one("ClusterRole", "memory-reaper")
    assert {body["kind"] for body in bindings} == {"ClusterRoleBinding", "RoleBinding"}


def test_the_reaper_sees_which_memories_exist_and_changes_nothing() -> None:
    assert granted(one("ClusterRole", "memory-reaper")) == {
        ("memory.proompteng.ai", "xmemories"): ["get", "list"],
        ("memory.proompteng.ai", "memories"): ["get", "list"],
        ("memory.proompteng.ai", "xmemoryproviders"): ["get"],
        ("memory.proompteng.ai", "memoryproviders"): ["get"],
    }


def test_the_guide_shows_the_same_rights() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ((?:get, [a-z, ]+)|bind) \| .+ \|$", GUIDE, re.MULTILINE)
    rights = granted(one("ClusterRole", "crossplane-memory"))
    assert dict(rows) == {plural: ", ".join(verbs) for (_, plural), verbs in rights.items()}


PROVIDER = {
    body["kind"]: body
    for name in ("runtime.yaml", "role.yaml")
    for body in objects(ROOT / "package" / "provider-kubernetes" / name)
}


def test_the_provider_of_objects_may_do_what_they_wrap_and_nothing_else() -> None:
    """What Crossplane itself composes with delivery Direct, and no look at Namespaces, which is Crossplane's."""
    direct = granted(one("ClusterRole", "crossplane-memory"))
    for only in (("", "namespaces"), ("apiextensions.k8s.io", "customresourcedefinitions")):
        del direct[only]
    for refused in ("databaseroles", "databases"):
        del direct["postgresql.cnpg.io", refused]
    assert granted(PROVIDER["ClusterRole"]) == direct
    wrapped = run(delivered(world())), run(delivered(provider_world(provider(ready=False))))
    for body in (each for answer in wrapped for each in answer.resources.values()):
        assert resource(asked(body)) in direct


def test_the_rights_are_the_providers() -> None:
    (subject,) = PROVIDER["ClusterRoleBinding"]["subjects"]
    account = PROVIDER["DeploymentRuntimeConfig"]["spec"]["serviceAccountTemplate"]["metadata"]["name"]
    assert subject == {"kind": "ServiceAccount", "name": account, "namespace": "crossplane-system"}
    assert PROVIDER["ClusterRoleBinding"]["roleRef"]["name"] == PROVIDER["ClusterRole"]["metadata"]["name"]
    assert catalog("crossplane").problems(PROVIDER["DeploymentRuntimeConfig"]) == []


# What people may do.


@pytest.mark.parametrize(
    ("name", "to", "verbs"),
    [
        ("memory-view", "view", ["get", "list", "watch"]),
        ("memory-edit", "edit", ["create", "update", "patch", "delete", "deletecollection"]),
    ],
)
def test_people_have_claims_and_no_composites(name: str, to: str, verbs: list[str]) -> None:
    role = one("ClusterRole", name)
    assert role["metadata"]["labels"] == {f"rbac.authorization.k8s.io/aggregate-to-{to}": "true"}
    assert granted(role) == {("memory.proompteng.ai", plural): verbs for plural in claims()}


def claims() -> list[str]:
    """Plurals of the claims."""
    return [definition(plural)["spec"]["claimNames"]["plural"] for plural in ("xmemories", "xmemoryproviders")]


# How the function runs.


def pod() -> Object:
    """The function's pod template."""
    template: Object = one("DeploymentRuntimeConfig", "function-memory")["spec"]["deploymentTemplate"]["spec"]
    return template


def test_crossplane_takes_the_runtime_config() -> None:
    assert catalog("crossplane").problems(one("DeploymentRuntimeConfig", "function-memory")) == []


def test_the_function_runs_under_pod_security_restricted_and_without_a_token() -> None:
    spec = pod()["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["name"] == "package-runtime"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {kind: sorted(held) for kind, held in container["resources"].items()} == {
        kind: ["cpu", "memory"] for kind in ("requests", "limits")
    }


def test_two_pods_that_are_spread_and_never_leave_together() -> None:
    assert pod()["replicas"] == 2
    labels = pod()["template"]["metadata"]["labels"]
    (spread,) = pod()["template"]["spec"]["topologySpreadConstraints"]
    budget, network = one("PodDisruptionBudget", "function-memory"), one("NetworkPolicy", "function-memory")
    assert spread["labelSelector"] == budget["spec"]["selector"] == network["spec"]["podSelector"]
    assert budget["spec"]["selector"] == {"matchLabels": labels}
    assert budget["spec"]["minAvailable"] == 1


# What the admission policy says, evaluated as an API server does (which `make e2e` asks itself).


def reference(name: str) -> Object:
    return {"apiVersion": "memory.proompteng.ai/v1alpha1", "kind": "XMemoryProvider", "name": name}


def claim(name: str | None) -> Object:
    """A claim that refers to a composite."""
    return {"spec": {"type": "postgres"} | ({"resourceRef": reference(name)} if name else {})}


def refusal(before: Object | None, after: Object, username: str = "jane") -> str | None:
    """The policy's sentence, None when it lets a request pass."""
    spec = one("ValidatingAdmissionPolicy", "memory-resource-ref")["spec"]
    values: Object = {"request": {"userInfo": {"username": username}}, "object": after, "oldObject": before}
    variables: Object = {}
    for variable in spec["variables"]:
        variables[variable["name"]] = evaluated(variable["expression"], values | {"variables": variables})
    (validation,) = spec["validations"]
    if evaluated(validation["expression"], values | {"variables": variables}):
        return None
    return str(evaluated(validation["messageExpression"], values | {"variables": variables}))


def evaluated(expression: str, values: Object) -> Any:
    context = cel.Context(copy.deepcopy(values))
    stdlib.add_stdlib_to_context(context)
    return cel.evaluate(expression, context)


ONLY = (
    ", but only Crossplane sets it, to the composite that it makes for this claim (any other one would be taken over): "
)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        pytest.param(
            None, claim("pg"), f'is XMemoryProvider "pg"{ONLY}remove spec.resourceRef', id="a new claim captures"
        ),
        pytest.param(
            claim(None), claim("pg"), f'is XMemoryProvider "pg"{ONLY}remove spec.resourceRef', id="a claim captures"
        ),
        pytest.param(
            claim("pg-1"), claim("pg"), f'is XMemoryProvider "pg"{ONLY}put "pg-1" back', id="a claim turns to another"
        ),
        pytest.param(claim("pg-1"), claim(None), f'is removed{ONLY}put "pg-1" back', id="a claim lets go"),
    ],
)
def test_only_crossplane_sets_resource_ref(before: Object | None, after: Object, sentence: str) -> None:
    assert refusal(before, after) == f"spec.resourceRef {sentence}"
    assert refusal(before, after, CROSSPLANE) is None


@pytest.mark.parametrize("before", [None, claim(None), claim("pg-1")], ids=["new", "not bound", "bound"])
def test_everything_else_is_everybodys(before: Object | None) -> None:
    after = copy.deepcopy(before or claim(None))
    after["spec"]["type"] = "redis"
    assert refusal(before, after) is None


def test_the_policy_covers_both_claims_and_every_way_to_write_them() -> None:
    policy, binding = (one(f"ValidatingAdmissionPolicy{kind}", "memory-resource-ref") for kind in ("", "Binding"))
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert policy["spec"]["matchConstraints"] == {
        "resourceRules": [
            {
                "apiGroups": ["memory.proompteng.ai"],
                "apiVersions": ["*"],
                "operations": ["CREATE", "UPDATE"],
                "resources": claims(),
            }
        ]
    }
    assert binding["spec"] == {"policyName": "memory-resource-ref", "validationActions": ["Deny"]}


# What the guide says of all this.


def test_names_in_the_guide_are_those_of_the_manifests() -> None:
    for body in installed():
        assert body["metadata"]["name"] in GUIDE


def test_the_guides_overlay_moves_crossplane() -> None:
    """What is said of Crossplane's namespace and account stands in the fields that the overlay replaces."""
    (overlay,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    moved = installed()
    for patch in yaml.safe_load(overlay)["patches"]:
        target = patch["target"]
        found = [body for body in moved if re.fullmatch(target["kind"], body["kind"])]
        assert found
        for body in found:
            assert body["metadata"]["name"] == target["name"]
            for operation in yaml.safe_load(patch["patch"]):
                replace(body, **operation)
    assert not [body for body in moved if "crossplane-system" in yaml.safe_dump(body)]
    (policy,) = [body for body in moved if body["kind"] == "ValidatingAdmissionPolicy"]
    assert policy["spec"]["variables"][0] == {
        "name": "crossplane",
        "expression": "'system:serviceaccount:platform:xp'",
    }


def replace(body: Any, op: str, path: str, value: str) -> None:
    """RFC 6902, as far as the overlay needs it: what is replaced has to be there."""
    assert op == "replace"
    *parents, last = [int(step) if step.isdigit() else step for step in path.removeprefix("/").split("/")]
    for step in parents:
        body = body[step]
    assert isinstance(body[last], str)
    body[last] = value


def test_the_guides_commands_are_shell() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    assert blocks
    for block in blocks:
        subprocess.run(["bash", "-n"], input=block, check=True, text=True)


def test_the_quick_starts_server_is_what_its_provider_needs() -> None:
    """The cluster and its admin under the names of provider.yaml, pgvector made once, and nobody a superuser."""
    (cluster,) = objects(ROOT / "examples" / "quickstart" / "cloudnativepg.yaml")
    assert catalog("cloudnative-pg").problems(cluster) == []
    postgres = Example(ROOT / "examples" / "quickstart").read("provider.yaml")["spec"]["postgres"]
    assert {key: cluster["metadata"][key] for key in ("name", "namespace")} == postgres["clusterRef"]
    initdb, (admin,) = cluster["spec"]["bootstrap"]["initdb"], cluster["spec"]["managed"]["roles"]
    assert initdb["secret"] == admin["passwordSecret"] == {"name": postgres["connectionSecret"]["name"]}
    assert initdb["owner"] == admin["name"]
    assert initdb["database"] == postgres.get("database", "app")
    assert initdb["postInitApplicationSQL"] == ["CREATE EXTENSION vector"]
    assert admin["createrole"] is True
    assert not admin.get("superuser", False)


def test_each_cannot_of_the_threat_model_names_its_tests() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text()
    (section,) = re.findall(r"^## What a tenant cannot do\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    rows = [line for line in section.splitlines() if re.match(r"\| (?!who |a tenant cannot |---)", line)]
    assert len(rows) > 20
    for row in rows:
        proofs = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert proofs, row
        for path, name in proofs:
            assert f"\ndef {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_links_lead_somewhere() -> None:
    for page in ("install.md", "threat-model.md"):
        text = (ROOT / "docs" / page).read_text()
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text):
            path = ROOT / "docs" / (target or page)
            assert path.exists(), target
            assert not anchor or anchor in headings(path), f"{target}#{anchor}"


def headings(path: Path) -> set[str]:
    """Anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("name", ["redis", "redis-cluster"])
def test_the_server_of_a_redis_example_is_one_that_its_operator_takes(name: str) -> None:
    (server,) = objects(ROOT / "examples" / name / "redis.yaml")
    assert catalog("redis-operator").problems(server) == []
    redis = Example(ROOT / "examples" / name).read("provider.yaml")["spec"]["redis"]
    assert redis["host"].split(".")[1] == server["metadata"]["namespace"] == redis["adminSecret"]["namespace"]
    assert server["spec"]["kubernetesConfig"]["redisSecret"]["name"] == redis["adminSecret"]["name"]
    assert ("TLS" in server["spec"]) == redis.get("tls", True)
