"""What the XRDs take and refuse: each rule at least once, with the sentence that a user reads."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

Patch = dict[str, Any]

API_VERSION = "memory.proompteng.ai/v1alpha1"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
_KEY = "-----BEGIN {0}-----\nMIIB\n-----END {0}-----\n".format("PRIVATE KEY")
CLUSTER: Patch = {"host": None, "clusterRef": {"name": "pg", "namespace": "databases"}}
VALID: dict[str, Patch] = {
    "Memory": {"providerRef": {"name": "shared-pg"}, "dataset": {"name": "notes", "schema": "team_notes"}},
    "MemoryProvider": {
        "type": "postgres",
        "postgres": {
            "host": "db.example.com",
            "connectionSecret": {"name": "memory-admin", "namespace": "databases"},
        },
    },
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One edit of a valid spec, and what the API server says to it.

    Attributes:
        kind: The claim's kind; the composite is asked the same.
        name: What is tried.
        reason: Why the answer is right.
        change: JSON merge patch on the valid spec (None removes).
        path: The field that a refusal names; empty when the edit is taken.
        says: The sentence of a refusal; empty where it is the API server's own (type, enum, bounds, unknown field).
        stored: Merge patch on the valid spec that gives what is stored already; the edit is then an update.
    """

    kind: str
    name: str
    reason: str
    change: Patch
    path: str = ""
    says: str = ""
    stored: Patch | None = None

    @property
    def spec(self) -> dict[str, Any]:
        """The spec that is sent."""
        return merged(VALID[self.kind], self.change)

    @property
    def stored_spec(self) -> dict[str, Any] | None:
        """The spec that is there already."""
        return None if self.stored is None else merged(VALID[self.kind], self.stored)


def merged(base: Any, patch: Patch) -> dict[str, Any]:
    """Applies a JSON merge patch (RFC 7386) to a copy."""
    result: dict[str, Any] = copy.deepcopy(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value) if isinstance(value, dict) else value
    return result


def _memory(
    name: str, reason: str, change: Patch, path: str = "", says: str = "", *, stored: Patch | None = None
) -> Case:
    return Case("Memory", name, reason, change, path, says, stored)


def _provider(name: str, reason: str, change: Patch, path: str = "", says: str = "") -> Case:
    return Case("MemoryProvider", name, reason, change, path, says)


def _postgres(name: str, reason: str, change: Patch, path: str = "", says: str = "") -> Case:
    return _provider(name, reason, {"postgres": change}, f"spec.postgres{path}" if path or says else "", says)


_NAMESPACE = (
    '"{}" is not a namespace: write lower-case letters, digits and "-", beginning and ending with a letter or digit, '
    'for example "team-a"'
).format
_SECRET = (
    '"{}" is not the name of a Secret: write lower-case letters, digits, "-" and ".", beginning and ending with a '
    "letter or digit"
).format
_LABEL_VALUE = (
    '"{}" is not the value of a label: write letters, digits, "-", "_" and ".", beginning and ending with a letter or '
    "digit"
).format
_RESERVED = (
    '"{}" is reserved, like "public", "information_schema" and all names that begin with "pg_", "cnpg_" or "memory_": '
    'write a name of your own, for example "team_notes"'
).format
_ROLE = (
    '"{}" is not the name of a role: write letters, digits, "_", "." or "-", beginning and ending with a letter, digit '
    'or "_", for example "analysts"'
).format
_SCHEMA = (
    '"{}" is not a usable schema: write 1 to 63 lower-case letters, digits or "_", not beginning with a digit, for '
    'example "{}"'
).format

MEMORY = (
    _memory("minimal", "ten lines of YAML are enough", {}),
    _memory(
        "everything",
        "each field at a value that is not its default",
        {
            "providerRef": {"namespace": "platform"},
            "embeddings": {"enabled": False, "dimension": 16000, "metric": "ip", "storage": "half"},
            "access": {"readOnlySecret": True, "readerRole": "analysts", "writerRole": "Back-office.1"},
            "searchConfig": "english",
            "credentials": {"epoch": 7, "revokeOld": True},
            "adopt": True,
            "deletionPolicy": "Delete",
        },
    ),
    _memory("no provider", "nobody guesses a provider", {"providerRef": None}, "spec.providerRef"),
    _memory("nameless provider", "a reference needs a name", {"providerRef": {"name": None}}, "spec.providerRef.name"),
    _memory(
        "provider with capitals",
        "no object has such a name",
        {"providerRef": {"name": "Shared PG"}},
        "spec.providerRef.name",
        '"Shared PG" is not the name of a provider: write lower-case letters, digits, "-" and ".", beginning and '
        'ending with a letter or digit, for example "shared-pg"',
    ),
    _memory(
        "provider name of 64 characters",
        "Crossplane bounds the names of its resources",
        {"providerRef": {"name": "p" * 64}},
        "spec.providerRef.name",
    ),
    _memory(
        "provider namespace with a slash",
        "no namespace has such a name",
        {"providerRef": {"namespace": "a/b"}},
        "spec.providerRef.namespace",
        _NAMESPACE("a/b"),
    ),
    _memory("no dataset", "the dataset is what a Memory is", {"dataset": None}, "spec.dataset"),
    _memory("no schema", "nobody guesses a schema", {"dataset": {"schema": None}}, "spec.dataset.schema"),
    _memory(
        "dataset with a capital",
        "it is part of names that are case-insensitive elsewhere",
        {"dataset": {"name": "Notes"}},
        "spec.dataset.name",
        '"Notes" is not a dataset name: write 1 to 63 lower-case letters, digits, "_", "." or "-", beginning and '
        'ending with a letter or digit, for example "notes"',
    ),
    _memory("dataset of 64 characters", "the limit is 63", {"dataset": {"name": "n" * 64}}, "spec.dataset.name"),
    _memory("dataset of 63 characters", "the limit is 63", {"dataset": {"name": "n" * 63}}),
    _memory(
        "dataset changed",
        "rows carry its name",
        {"dataset": {"name": "other"}},
        "spec.dataset.name",
        'dataset.name cannot change from "notes": write "notes" again, or make another Memory for another dataset',
        stored={},
    ),
    _memory(
        "dataset removed",
        "an immutable field must not be freed by removing its parent",
        {"dataset": None},
        "spec.dataset",
        stored={},
    ),
    _memory(
        "schema with a dash",
        "it would need quotes",
        {"dataset": {"schema": "a-b"}},
        "spec.dataset.schema",
        _SCHEMA("a-b", "team_notes"),
    ),
    _memory(
        "schema with a digit first",
        "it needs quotes",
        {"dataset": {"schema": "1a"}},
        "spec.dataset.schema",
        _SCHEMA("1a", "team_notes"),
    ),
    *(
        _memory(
            f"schema {name}",
            "it is somebody else's",
            {"dataset": {"schema": name}},
            "spec.dataset.schema",
            _RESERVED(name),
        )
        for name in ("public", "pg_notes", "information_schema", "cnpg_x", "memory_ledger")
    ),
    _memory("schema publications", "only the exact word is reserved", {"dataset": {"schema": "publications"}}),
    _memory(
        "schema changed",
        "the rows live there",
        {"dataset": {"schema": "other"}},
        "spec.dataset.schema",
        'dataset.schema cannot change from "team_notes": write "team_notes" again, or make another Memory for another '
        "schema",
        stored={},
    ),
    _memory("dimension 0", "a vector has a length", {"embeddings": {"dimension": 0}}, "spec.embeddings.dimension"),
    _memory("dimension 16001", "pgvector's limit", {"embeddings": {"dimension": 16001}}, "spec.embeddings.dimension"),
    _memory("dimension as text", "it is a number", {"embeddings": {"dimension": "768"}}, "spec.embeddings.dimension"),
    _memory(
        "unknown metric", "there is no operator for it", {"embeddings": {"metric": "dot"}}, "spec.embeddings.metric"
    ),
    *(_memory(f"index {kind}", "a choice", {"embeddings": {"index": {"type": kind}}}) for kind in ("none", "ivfflat")),
    _memory(
        "unknown index",
        "pgvector has no such index",
        {"embeddings": {"index": {"type": "flat"}}},
        "spec.embeddings.index.type",
    ),
    _memory("an index early", "small Memories may want one too", {"embeddings": {"index": {"minRows": 1}}}),
    _memory(
        "an index for nothing",
        "an empty table earns none",
        {"embeddings": {"index": {"minRows": 0}}},
        "spec.embeddings.index.minRows",
    ),
    *(_memory(f"ttlDays {days}", "a century at most", {"retention": {"ttlDays": days}}) for days in (0, 1, 36500)),
    *(
        _memory(f"ttlDays {days}", "no such age", {"retention": {"ttlDays": days}}, "spec.retention.ttlDays")
        for days in (-1, 36501, 1.5)
    ),
    _memory("a legal hold", "it may come at any time", {"legalHold": True}, stored={}),
    _memory("a legal hold that is lifted", "whoever may set it may lift it", {}, stored={"legalHold": True}),
    _memory("unknown storage", "there is no such type", {"embeddings": {"storage": "int8"}}, "spec.embeddings.storage"),
    _memory(
        "another dimension",
        "only the database knows whether there are rows; the Job answers",
        {"embeddings": {"dimension": 768}},
        stored={},
    ),
    _memory(
        "qualified search configuration",
        "the home's search path finds it, or it is not there",
        {"searchConfig": "public.german"},
        "spec.searchConfig",
        '"public.german" is not a text search configuration: write its name, without a schema, for example "simple" or '
        '"english"',
    ),
    _memory(
        "search configuration changed",
        "generated columns hold it as a literal",
        {"searchConfig": "german"},
        "spec.searchConfig",
        'searchConfig cannot change from "english": write "english" again, or make another Memory for another text '
        "search configuration",
        stored={"searchConfig": "english"},
    ),
    _memory(
        "search configuration removed",
        "removal is a change to the default",
        {},
        "spec.searchConfig",
        'searchConfig cannot change from "english": write "english" again, or make another Memory for another text '
        "search configuration",
        stored={"searchConfig": "english"},
    ),
    _memory(
        "search configuration written out",
        "the default is the same value",
        {"searchConfig": "simple"},
        stored={},
    ),
    *(
        _memory(
            f"{field} with a space",
            "it would need quotes",
            {"access": {field: "my analysts"}},
            f"spec.access.{field}",
            _ROLE("my analysts"),
        )
        for field in ("readerRole", "writerRole")
    ),
    _memory("next epoch", "a rotation", {"credentials": {"epoch": 1}}, stored={}),
    _memory("epoch -1", "epochs are counted", {"credentials": {"epoch": -1}}, "spec.credentials.epoch"),
    *(
        _memory(
            f"epoch {name}",
            "an old password would come back",
            change,
            "spec.credentials.epoch",
            "credentials.epoch never decreases, for an old password would come back: write the epoch that is there, "
            "or the next one",
            stored={"credentials": {"epoch": 2}},
        )
        for name, change in (
            ("lowered", {"credentials": {"epoch": 1}}),
            ("removed", {"credentials": {}}),
            ("removed with its parent", {}),
        )
    ),
    _memory("unknown deletion policy", "data is kept or dropped", {"deletionPolicy": "Orphan"}, "spec.deletionPolicy"),
    _memory(
        "a field of a later release",
        "what has no effect does not exist",
        {"state": "Archived"},
        "spec.state",
    ),
    _memory(
        "a misspelt field", "a typo is not ignored", {"embeddings": {"dimensions": 3}}, "spec.embeddings.dimensions"
    ),
)


def _by_label(selector: Patch | None) -> Patch:
    return {"allowedConsumers": {"namespaces": {"from": "Selector", "selector": selector}}}


def _by_expression(expression: Patch) -> Patch:
    wanted = {key: value for key, value in {"key": "tier", **expression}.items() if value is not None}
    return _by_label({"matchExpressions": [wanted]})


_CONSUMERS: tuple[Case, ...] = (
    *(
        _provider(f"consumers {name}", "one of four ways", {"allowedConsumers": {"namespaces": {"from": name}}})
        for name in ("Same", "All")
    ),
    _provider(
        "consumers by name",
        "one of four ways",
        {"allowedConsumers": {"namespaces": {"from": "Names", "names": ["team-a"]}}},
    ),
    *(
        _provider(
            f"consumers by {label}",
            "it would serve nobody",
            {"allowedConsumers": {"namespaces": namespaces}},
            "spec.allowedConsumers.namespaces",
            'from "Names" needs names: list the namespaces, for example names: [team-a]',
        )
        for label, namespaces in (
            ("no names", {"from": "Names"}),
            ("an empty list of names", {"from": "Names", "names": []}),
        )
    ),
    _provider(
        "names that nobody reads",
        "somebody believes that only team-a is served",
        {"allowedConsumers": {"namespaces": {"from": "All", "names": ["team-a"]}}},
        "spec.allowedConsumers.namespaces",
        'names has no effect with from "All": write from: Names, or remove names',
    ),
    _provider(
        "consumers with a wildcard",
        "names are names",
        {"allowedConsumers": {"namespaces": {"from": "Names", "names": ["team-*"]}}},
        "spec.allowedConsumers.namespaces.names[0]",
        _NAMESPACE("team-*"),
    ),
    _provider(
        "consumers twice",
        "a set has each once",
        {"allowedConsumers": {"namespaces": {"from": "Names", "names": ["a", "a"]}}},
        "spec.allowedConsumers.namespaces.names[1]",
    ),
    *(
        _provider(f"consumers by {label}", "as Kubernetes selects", _by_label(selector))
        for label, selector in (
            ("label", {"matchLabels": {"example.org/team": "a", "memory": ""}}),
            (
                "every operator",
                {
                    "matchExpressions": [
                        {"key": "tier", "operator": "In", "values": ["gold", "Silver_2"]},
                        {"key": "env", "operator": "NotIn", "values": ["dev"]},
                        {"key": "example.org/memory", "operator": "Exists"},
                        {"key": "closed", "operator": "DoesNotExist"},
                    ]
                },
            ),
        )
    ),
    *(
        _provider(
            f"consumers by {label}",
            "in Kubernetes it would serve everybody",
            _by_label(selector),
            "spec.allowedConsumers.namespaces",
            'from "Selector" needs a selector with a label in it: write for example selector: {matchLabels: '
            "{memory: allowed}}, or from: All for every namespace",
        )
        for label, selector in (
            ("no selector", None),
            ("an empty selector", {}),
            ("a selector of nothing", {"matchLabels": {}, "matchExpressions": []}),
        )
    ),
    _provider(
        "a selector that nobody reads",
        "somebody believes that only labelled namespaces are served",
        {"allowedConsumers": {"namespaces": {"from": "All", "selector": {"matchLabels": {"memory": "allowed"}}}}},
        "spec.allowedConsumers.namespaces",
        'selector has no effect with from "All": write from: Selector, or remove selector',
    ),
    _provider(
        "consumers by a label's key with a space",
        "no namespace has such a label",
        _by_label({"matchLabels": {"my team": "a"}}),
        "spec.allowedConsumers.namespaces.selector.matchLabels",
        'a key is not that of a label: write letters, digits, "-", "_" and ".", beginning and ending with a letter or '
        'digit, for example "team" or "example.org/team"',
    ),
    _provider(
        "consumers by a label's value with a space",
        "no namespace has such a label",
        _by_label({"matchLabels": {"team": "team a"}}),
        "spec.allowedConsumers.namespaces.selector.matchLabels",
        _LABEL_VALUE("team a"),
    ),
    _provider(
        "a condition without a key",
        "it says nothing",
        _by_expression({"key": None, "operator": "Exists"}),
        "spec.allowedConsumers.namespaces.selector.matchExpressions[0].key",
    ),
    _provider(
        "a condition on a key with a space",
        "no namespace has such a label",
        _by_expression({"key": "my team", "operator": "Exists"}),
        "spec.allowedConsumers.namespaces.selector.matchExpressions[0].key",
        '"my team" is not the key of a label: write letters, digits, "-", "_" and ".", beginning and ending with a '
        'letter or digit, for example "team" or "example.org/team"',
    ),
    _provider(
        "a condition with an operator of node selectors",
        "labels of namespaces are compared in four ways",
        _by_expression({"operator": "Gt", "values": ["1"]}),
        "spec.allowedConsumers.namespaces.selector.matchExpressions[0].operator",
    ),
    *(
        _provider(
            f"a condition {expression['operator']} {label}",
            "Kubernetes refuses such a selector",
            _by_expression(expression),
            "spec.allowedConsumers.namespaces.selector.matchExpressions[0]",
            f'operator "{expression["operator"]}" needs values: write for example values: [gold]',
        )
        for label, expression in (
            ("nothing", {"operator": "In"}),
            ("nothing", {"operator": "NotIn"}),
            ("an empty list", {"operator": "In", "values": []}),
        )
    ),
    *(
        _provider(
            f"a condition {operator} with values",
            "Kubernetes refuses such a selector",
            _by_expression({"operator": operator, "values": ["gold"]}),
            "spec.allowedConsumers.namespaces.selector.matchExpressions[0]",
            f'values have no effect with operator "{operator}": write operator: In, or remove values',
        )
        for operator in ("Exists", "DoesNotExist")
    ),
    _provider(
        "a condition on a value with a slash",
        "no label has such a value",
        _by_expression({"operator": "In", "values": ["gold/silver"]}),
        "spec.allowedConsumers.namespaces.selector.matchExpressions[0].values[0]",
        _LABEL_VALUE("gold/silver"),
    ),
    _provider("empty consumers", "it says nothing", {"allowedConsumers": {}}, "spec.allowedConsumers.namespaces"),
)

_JOBS: tuple[Case, ...] = (
    _provider(
        "jobs in full",
        "how Jobs run is the platform team's choice",
        {
            "jobs": {
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": 1, "memory": "1.5Gi"}},
                "nodeSelector": {"kubernetes.io/arch": "amd64"},
                "tolerations": [
                    {"operator": "Exists"},
                    {"key": "db", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60},
                ],
                "imagePullSecrets": [{"name": "registry"}],
                "activeDeadlineSeconds": 60,
                "serviceAccountName": "migrations",
            }
        },
    ),
    _provider(
        "a quantity with a typo",
        "the Job would be refused later, where nobody looks",
        {"jobs": {"resources": {"limits": {"memory": "64 MB"}}}},
        "spec.jobs.resources.limits",
    ),
    _provider(
        "toleration of nothing",
        "Kubernetes refuses the Job",
        {"jobs": {"tolerations": [{"effect": "NoSchedule"}]}},
        "spec.jobs.tolerations[0]",
        "without a key a toleration matches every taint: write operator: Exists, or a key",
    ),
    _provider(
        "toleration with a value that is not compared",
        "Kubernetes refuses the Job",
        {"jobs": {"tolerations": [{"key": "db", "operator": "Exists", "value": "yes"}]}},
        "spec.jobs.tolerations[0]",
        'value has no effect with operator "Exists": remove value, or write operator: Equal',
    ),
    _provider(
        "toleration for a while of an effect that does not evict",
        "Kubernetes refuses the Job",
        {"jobs": {"tolerations": [{"key": "db", "effect": "NoSchedule", "tolerationSeconds": 1}]}},
        "spec.jobs.tolerations[0]",
        "tolerationSeconds has no effect here: write effect: NoExecute, or remove tolerationSeconds",
    ),
    _provider(
        "pull secret with a capital",
        "no Secret has such a name",
        {"jobs": {"imagePullSecrets": [{"name": "Registry"}]}},
        "spec.jobs.imagePullSecrets[0].name",
        _SECRET("Registry"),
    ),
    _provider(
        "service account with a capital",
        "no ServiceAccount has such a name",
        {"jobs": {"serviceAccountName": "Migrations"}},
        "spec.jobs.serviceAccountName",
        '"Migrations" is not the name of a ServiceAccount: write lower-case letters, digits, "-" and ".", beginning '
        "and ending with a letter or digit",
    ),
    _provider(
        "a deadline of a second",
        "no Job can finish",
        {"jobs": {"activeDeadlineSeconds": 1}},
        "spec.jobs.activeDeadlineSeconds",
    ),
)

_ALONE = CLUSTER | {"connectionSecret": None}
_MANAGED: tuple[Case, ...] = (
    _postgres("a CloudNativePG Cluster without a login", "the operator makes roles and databases", _ALONE),
    _postgres("roles by CloudNativePG", "said aloud", _ALONE | {"roleManagement": "CNPG", "isolation": "Database"}),
    _postgres("roles by SQL in a Cluster", "with a login both can", CLUSTER | {"roleManagement": "SQL"}),
    _postgres(
        "roles by CloudNativePG elsewhere",
        "no operator is there",
        {"roleManagement": "CNPG", "connectionSecret": None},
        says='roleManagement "CNPG" needs a CloudNativePG Cluster: write clusterRef, or roleManagement: SQL',
    ),
    _postgres(
        "roles by CloudNativePG with a login",
        "somebody believes that it is used",
        CLUSTER | {"roleManagement": "CNPG"},
        says='connectionSecret has no effect with roleManagement "CNPG", which needs no admin login: remove '
        "connectionSecret, or write roleManagement: SQL",
    ),
    _postgres(
        "roles by SQL without a login",
        "somebody must make roles",
        _ALONE | {"roleManagement": "SQL"},
        says='roleManagement "SQL" needs a login for the Jobs: write connectionSecret, a Secret with username and '
        "password",
    ),
    *(
        _postgres(
            f"isolation {name} by CloudNativePG",
            "there is no login that works in a shared database",
            _ALONE | {"isolation": name, "schema": "shared"},
            says=f'isolation "{name}" needs an admin login (CloudNativePG alone gives each Memory a database): write '
            "connectionSecret, or isolation: Database",
        )
        for name in ("Schema", "Dataset")
    ),
    _postgres(
        "a shared schema by CloudNativePG",
        "there is no login that works in a shared database",
        _ALONE | {"schema": "shared"},
        says='schema "shared" needs an admin login (CloudNativePG alone gives each Memory a database): write '
        "connectionSecret, or remove schema",
    ),
)
_ISOLATION: tuple[Case, ...] = (
    *(_postgres(f"isolation {name}", "a way to live apart", {"isolation": name}) for name in ("Schema", "Database")),
    _postgres("a shared schema", "it means isolation Dataset", {"schema": "memories"}),
    _postgres("isolation Dataset", "said aloud", {"schema": "memories", "isolation": "Dataset"}),
    _postgres(
        "isolation Dataset without a schema",
        "nobody guesses a schema",
        {"isolation": "Dataset"},
        says='isolation "Dataset" needs the schema that Memories share: write schema, or isolation: Schema',
    ),
    *(
        _postgres(
            f"a shared schema with isolation {name}",
            "somebody believes that it is shared",
            {"schema": "memories", "isolation": name},
            says=f'schema has no effect with isolation "{name}": remove schema, or write isolation: Dataset',
        )
        for name in ("Schema", "Database")
    ),
    _postgres(
        "a shared schema with a dash",
        "it would need quotes",
        {"schema": "my-memories"},
        ".schema",
        _SCHEMA("my-memories", "memories"),
    ),
    _postgres(
        "a shared schema that is reserved",
        "it is somebody else's",
        {"schema": "public"},
        ".schema",
        _RESERVED("public").replace("team_notes", "memories"),
    ),
    _postgres("grantable roles", "groups that are there", {"grantableRoles": ["analysts", "Back-office.1"]}),
    _postgres(
        "a grantable role with a space",
        "it would need quotes",
        {"grantableRoles": ["my analysts"]},
        ".grantableRoles[0]",
        _ROLE("my analysts"),
    ),
    _postgres("a pooler", "apps connect to it", {"pooler": {"host": "pooler.databases.svc", "port": 6432}}),
    _postgres("a pooler without a host", "nobody guesses a host", {"pooler": {"port": 6432}}, ".pooler.host"),
    _postgres("a pooler's port 0", "nothing listens there", {"pooler": {"host": "p", "port": 0}}, ".pooler.port"),
    _postgres(
        "a pooler with its port",
        "the port has a field of its own",
        {"pooler": {"host": "pooler:6432"}},
        ".pooler.host",
        "write a DNS name or an IPv4 address alone, without scheme or port (pooler.port has the port), for example "
        '"pg-pooler.databases.svc"',
    ),
)

_POSTGRES: tuple[Case, ...] = (
    _postgres("a CloudNativePG Cluster", "one of two ways to name a server", CLUSTER),
    _postgres(
        "a CloudNativePG Cluster in the claim's namespace",
        "a claimed provider names no namespace",
        CLUSTER | {"clusterRef": {"name": "pg", "namespace": None}, "connectionSecret": {"namespace": None}},
    ),
    _postgres(
        "another server in full",
        "each field at a value that is not its default",
        {
            "port": 6432,
            "sslMode": "verify-ca",
            "caBundle": PEM,
            "database": "Notes-db",
            "enablePgVector": False,
            "extensionSchema": "extensions",
            "connectionLimit": 20,
            "statementTimeout": "5min",
        },
    ),
    *(
        _postgres(
            name,
            "there is one server",
            change,
            says="exactly one of clusterRef and host says where PostgreSQL is: write clusterRef for a CloudNativePG "
            "Cluster, or host for any other server",
        )
        for name, change in (("no server", {"host": None}), ("two servers", {"clusterRef": {"name": "pg"}}))
    ),
    _postgres(
        "a host without a login",
        "somebody must make roles",
        {"connectionSecret": None},
        says='host "db.example.com" needs a login for the Jobs: write connectionSecret, a Secret with username and '
        "password",
    ),
    _postgres(
        "a Cluster's port",
        "the operator decides it",
        CLUSTER | {"port": 6432},
        says="port has no effect with clusterRef (CloudNativePG listens on 5432): remove port",
    ),
    _postgres(
        "a Cluster's CA",
        "the operator makes it, and rotates it",
        CLUSTER | {"caBundle": PEM},
        says="caBundle has no effect with clusterRef (the CA is the Cluster's own): remove caBundle",
    ),
    *(
        _postgres(
            f"a CA with sslMode {mode}",
            "somebody believes that the server is verified",
            {"caBundle": PEM, "sslMode": mode},
            says=f'caBundle has no effect with sslMode "{mode}": write sslMode: verify-full, or remove caBundle',
        )
        for mode in ("disable", "require")
    ),
    _postgres(
        "a Cluster and a login in two namespaces",
        "a Job mounts from its own namespace only",
        CLUSTER | {"connectionSecret": {"name": "admin", "namespace": "other"}},
        says='connectionSecret.namespace "other" differs from clusterRef.namespace "databases": Jobs mount both, write '
        "the same namespace twice",
    ),
    _postgres(
        "a Cluster with a dot",
        "its Services could not be named",
        CLUSTER | {"clusterRef": {"name": "pg.main", "namespace": "databases"}},
        ".clusterRef.name",
        '"pg.main" is not the name of a Cluster: write at most 50 lower-case letters, digits and "-", beginning with a '
        'letter, for example "pg"',
    ),
    _postgres(
        "a Cluster's namespace with a capital",
        "no namespace has such a name",
        CLUSTER | {"clusterRef": {"name": "pg", "namespace": "DB"}, "connectionSecret": {"namespace": None}},
        ".clusterRef.namespace",
        _NAMESPACE("DB"),
    ),
    *(
        _postgres(
            name,
            "port and login have fields of their own",
            {"host": host},
            ".host",
            "write a DNS name or an IPv4 address alone, without scheme or port (postgres.port has the port), for "
            'example "db.example.com"',
        )
        for name, host in (
            ("a host with its port", "db.example.com:5432"),
            ("a URI as host", "postgresql://admin@db.example.com/app"),
        )
    ),
    _postgres("port 0", "no server listens there", {"port": 0}, ".port"),
    _postgres("port 65536", "no server listens there", {"port": 65536}, ".port"),
    _postgres("sslMode prefer", "it falls back to plain text in silence", {"sslMode": "prefer"}, ".sslMode"),
    _postgres(
        "a CA in base64",
        "libpq reads PEM",
        {"caBundle": "LS0tLS1CRUdJTg=="},
        ".caBundle",
        "write PEM text, not base64 of it or a file's name: it begins with -----BEGIN CERTIFICATE-----",
    ),
    _postgres(
        "a CA with its key",
        "everybody who may read the provider could read it",
        {"caBundle": PEM + _KEY},
        ".caBundle",
        "holds a private key, which everybody could read here: remove the key, write only the certificates, and "
        "replace that key",
    ),
    _postgres(
        "a database with a space",
        "connection strings would need quotes",
        {"database": "my app"},
        ".database",
        '"my app" is not the name of a database: write letters, digits, "_", "." or "-", beginning and ending with a '
        'letter, digit or "_", for example "app"',
    ),
    _postgres(
        "a template as database",
        "each new database would be a copy",
        {"database": "template1"},
        ".database",
        '"template1" is a template of new databases: write a database of your own, for example "app"',
    ),
    _postgres(
        "an extension schema with a capital",
        "it would need quotes",
        {"extensionSchema": "Extensions"},
        ".extensionSchema",
        _SCHEMA("Extensions", "public"),
    ),
    _postgres(
        "a login Secret with a capital",
        "no Secret has such a name",
        {"connectionSecret": {"name": "Admin"}},
        ".connectionSecret.name",
        _SECRET("Admin"),
    ),
    _postgres(
        "a login Secret's namespace with a dot",
        "no namespace has such a name",
        {"connectionSecret": {"namespace": "a.b"}},
        ".connectionSecret.namespace",
        _NAMESPACE("a.b"),
    ),
    _postgres("no connections", "nobody could log in", {"connectionLimit": 0}, ".connectionLimit"),
    *(
        _postgres(
            f"statementTimeout {value}",
            "PostgreSQL would refuse it, or take it for milliseconds",
            {"statementTimeout": value},
            ".statementTimeout",
            f'"{value}" is not a timeout: write a number and its unit, ms, s, min or h, at most 99h, for example "30s" '
            'or "5min"',
        )
        for value in ("30", "0s", "1000h", "5 min", "1d")
    ),
    *(
        _postgres(f"statementTimeout {value}", "PostgreSQL takes it", {"statementTimeout": value})
        for value in ("250ms", "30s", "5min", "1h")
    ),
)

_ADMIN: Patch = {"adminSecret": {"name": "memory-admin", "namespace": "databases"}}
_OTHERS: dict[str, Patch] = {
    "redis": {"host": "redis.example.com", **_ADMIN},
    "s3": {"endpoint": "https://s3.example.com", "bucket": "memories", "users": "RGW", **_ADMIN},
    "custom": {
        "image": "registry.example.com/memory-mariadb@sha256:" + "0" * 64,
        "endpoint": "db.example.com:3306",
        "database": "memories",
        "configSecret": {"name": "mariadb-admin", "namespace": "databases"},
    },
}
_AWS: Patch = {"endpoint": None, "bucket": None, "bucketPrefix": "acme-memory", "users": "AWS"}
_ARN_ROLE, _ARN_BUCKET = "arn:aws:iam::123456789012:role/replication", "arn:aws:s3:::memories-copy"


def _block(kind: str) -> Callable[..., Case]:
    """Gives what makes edits of a valid block that is not postgres'."""

    def edit(name: str, reason: str, change: Patch, path: str = "", says: str = "") -> Case:
        spec = {"type": kind, "postgres": None, kind: merged(_OTHERS[kind], change)}
        return _provider(f"{kind}, {name}", reason, spec, f"spec.{kind}{path}" if path or says else "", says)

    return edit


_redis, _s3, _custom = (_block(kind) for kind in _OTHERS)
_PEM_ONLY = "write PEM text, not base64 of it or a file's name: it begins with -----BEGIN CERTIFICATE-----"
_NO_KEY = (
    "holds a private key, which everybody could read here: remove the key, write only the certificates, and replace "
    "that key"
)
_NEEDS = {
    "redis": 'type "redis" needs its block: write redis with a host and an adminSecret',
    "s3": 'type "s3" needs its block: write s3 with a bucket or a bucketPrefix, users, and an adminSecret',
    "custom": 'type "custom" needs its block: write custom with an image, an endpoint, a database and a configSecret',
}

_BLOCKS: tuple[Case, ...] = (
    *(
        _provider(f"{kind} without its block", "it says where the backend is", {"type": kind}, "spec", says)
        for kind, says in _NEEDS.items()
    ),
    *(
        _provider(
            f"{kind} beside postgres",
            "somebody believes that it counts",
            {kind: block},
            "spec",
            f'{kind} has no effect with type "postgres": remove {kind}, or write type: {kind}',
        )
        for kind, block in _OTHERS.items()
    ),
    _provider(
        "postgres beside redis",
        "somebody believes that it counts",
        {"type": "redis", "redis": _OTHERS["redis"]},
        "spec",
        'postgres has no effect with type "redis": remove postgres, or write type: postgres',
    ),
    *(
        _provider(
            f"a home handed over on {kind}",
            "its prefix has the hash of who made it",
            {
                "type": kind,
                "postgres": None,
                kind: _OTHERS[kind],
                "adoptions": [{"schema": "notes", "from": "team-a/notes", "to": "team-b/notes"}],
            },
            "spec",
            f'adoptions have no effect with type "{kind}", where what a Memory has is named after it: remove adoptions',
        )
        for kind in ("redis", "s3")
    ),
    *(_block(kind)("minimal", "where it is and a Secret are enough", {}) for kind in _OTHERS),
    *(
        _block(kind)(f"{ref} with a capital", "no Secret has such a name", {ref: {"name": "Admin"}}, at, says)
        for kind, ref in (("redis", "adminSecret"), ("s3", "adminSecret"), ("custom", "configSecret"))
        for at, says in ((f".{ref}.name", _SECRET("Admin")),)
    ),
    *(
        _block(kind)(f"{ref} in no namespace", "a dot is in no name", {ref: {"namespace": "a.b"}}, at, says)
        for kind, ref in (("redis", "adminSecret"), ("s3", "adminSecret"), ("custom", "configSecret"))
        for at, says in ((f".{ref}.namespace", _NAMESPACE("a.b")),)
    ),
    *(
        _block(kind)(f"without {field}", "nobody guesses it", {field: None}, f".{field}")
        for kind, fields in (
            ("redis", ("host", "adminSecret")),
            ("s3", ("users", "adminSecret")),
            ("custom", ("image", "endpoint", "database", "configSecret")),
        )
        for field in fields
    ),
)

_REDIS: tuple[Case, ...] = (
    _redis(
        "everything",
        "each field at a value that is not its default",
        {"port": 6380, "caBundle": PEM, "database": 3, "keyPrefix": "acme.memory"},
    ),
    _redis("without TLS", "inside a cluster's network some do", {"tls": False}),
    *(
        _redis(
            name,
            "the port has a field of its own, and a password none",
            {"host": host},
            ".host",
            "write a DNS name or an IPv4 address alone, without scheme or port (redis.port has the port), for example "
            '"redis.example.com"',
        )
        for name, host in (("a host with its port", "r:6379"), ("a URI as host", "rediss://:geheim@redis.example.com"))
    ),
    _redis("port 0", "no server listens there", {"port": 0}, ".port"),
    _redis("database -1", "they are counted from 0", {"database": -1}, ".database"),
    _redis("database 1024", "no server has so many", {"database": 1024}, ".database"),
    _redis(
        "a CA without TLS",
        "somebody believes that the server is verified",
        {"caBundle": PEM, "tls": False},
        says="caBundle has no effect with tls: false: write tls: true, or remove caBundle",
    ),
    _redis("a CA in base64", "clients read PEM", {"caBundle": "LS0tLS1CRUdJTg=="}, ".caBundle", _PEM_ONLY),
    _redis("a CA with its key", "everybody could read it", {"caBundle": PEM + _KEY}, ".caBundle", _NO_KEY),
    *(
        _redis(
            f"keyPrefix {value}",
            "it means something in a pattern of keys, or between its parts",
            {"keyPrefix": value},
            ".keyPrefix",
            f'"{value}" is not a prefix of keys: write 1 to 32 lower-case letters, digits, "_", "." or "-", beginning '
            'and ending with a letter or digit, for example "mem"',
        )
        for value in ("mem:", "m*", "Mem", "{mem}")
    ),
)

_S3: tuple[Case, ...] = (
    _s3(
        "everything",
        "each field at a value that is not its default",
        {
            "region": "eu-central-1",
            "forcePathStyle": True,
            "caBundle": PEM,
            "versioning": True,
            "objectLock": {"mode": "COMPLIANCE", "days": 365},
            "lifecycle": {"transitionDays": 7, "storageClass": "COLD"},
            "encryption": {"algorithm": "aws:kms", "kmsKeyId": "alias/memories"},
            "replication": {"role": _ARN_ROLE, "destination": _ARN_BUCKET},
        },
    ),
    _s3("a bucket each", "the other way to live apart", {"bucket": None, "bucketPrefix": "acme-memory"}),
    _s3("the admin's keys for all", "where nobody can make users", {"users": "Shared"}),
    _s3("Amazon's own", "the provider of managed resources knows where that is", _AWS),
    _s3(
        "Amazon's own in full",
        "a platform team's choice",
        _AWS
        | {
            "providerConfigRef": {"name": "acme"},
            "versioning": True,
            "lifecycle": {"transitionDays": 30},
            "encryption": {},
        },
    ),
    *(
        _s3(
            name,
            "there is one place",
            change,
            says="exactly one of bucket and bucketPrefix says where Memories live: write bucket for one that they "
            "share, or bucketPrefix for a bucket each",
        )
        for name, change in (("no bucket", {"bucket": None}), ("bucket and bucketPrefix", {"bucketPrefix": "acme"}))
    ),
    *(
        _s3(
            f"no endpoint with users {users}",
            "only Amazon's own follows from the region",
            {"endpoint": None, "users": users},
            says=f'users "{users}" needs the URL of the server: write endpoint, for example https://s3.example.com',
        )
        for users in ("RGW", "Shared")
    ),
    *(
        _s3(
            f"endpoint {name}",
            "scheme, host and port are what a client needs, and a password has no place",
            {"endpoint": endpoint},
            ".endpoint",
            'write a URL of scheme, host and perhaps a port, without user, path or "/" at its end, for example '
            '"https://s3.example.com"',
        )
        for name, endpoint in (
            ("without a scheme", "s3.example.com"),
            ("with a path", "https://s3.example.com/memories"),
            ("with a user", "https://key:secret@s3.example.com"),
            ("with a blank", "https://s3.example .com"),
        )
    ),
    *(
        _s3(
            f"a CA with {name}",
            "somebody believes that the server is verified",
            change | {"caBundle": PEM},
            says="caBundle has no effect without an endpoint that begins with https://: write one, or remove caBundle",
        )
        for name, change in (("http", {"endpoint": "http://s3.example.com"}), ("Amazon's own", _AWS))
    ),
    _s3("a CA in base64", "clients read PEM", {"caBundle": "LS0tLS1CRUdJTg=="}, ".caBundle", _PEM_ONLY),
    _s3("a CA with its key", "everybody could read it", {"caBundle": PEM + _KEY}, ".caBundle", _NO_KEY),
    _s3(
        "a region with a capital",
        "no region has such a name",
        {"region": "EU-central"},
        ".region",
        '"EU-central" is not a region: write lower-case letters, digits and "-", for example "us-east-1"',
    ),
    _s3(
        "a bucket with a capital",
        "no bucket has such a name",
        {"bucket": "Memories"},
        ".bucket",
        '"Memories" is not the name of a bucket: write 3 to 63 lower-case letters, digits, "." or "-", beginning and '
        'ending with a letter or digit, for example "memories"',
    ),
    *(
        _s3(
            f"bucketPrefix {value}",
            "the name goes on with a dash, and stands in names of hosts",
            {"bucket": None, "bucketPrefix": value},
            ".bucketPrefix",
            f'"{value}" is not the beginning of a bucket name: write 1 to 50 lower-case letters, digits or "-", '
            'beginning and ending with a letter or digit, for example "acme-memory"',
        )
        for value in ("acme-", "acme.memory")
    ),
    _s3(
        "a bucketPrefix of 51 characters",
        "a bucket's name has 63 at most",
        {"bucket": None, "bucketPrefix": "a" * 51},
        ".bucketPrefix",
    ),
    _s3("users by somebody else", "one of three ways", {"users": "MinIO"}, ".users"),
    *(
        _s3(
            f"providerConfigRef with users {users}",
            "there are no managed resources",
            {"users": users, "providerConfigRef": {"name": "acme"}},
            says=f'providerConfigRef has no effect with users "{users}": remove providerConfigRef, or write users: AWS',
        )
        for users in ("RGW", "Shared")
    ),
    _s3(
        "a ProviderConfig with a capital",
        "no object has such a name",
        _AWS | {"providerConfigRef": {"name": "Acme"}},
        ".providerConfigRef.name",
        '"Acme" is not the name of a ProviderConfig: write lower-case letters, digits, "-" and ".", beginning and '
        "ending with a letter or digit",
    ),
    _s3(
        "object lock without versions",
        "the store refuses it",
        {"objectLock": {"days": 30}},
        says="objectLock keeps versions, and there are none: write versioning: true, or remove objectLock",
    ),
    _s3(
        "object lock without days",
        "nobody guesses how long",
        {"versioning": True, "objectLock": {"mode": "GOVERNANCE"}},
        ".objectLock.days",
    ),
    _s3(
        "replication without versions",
        "the store refuses it",
        {"replication": {"role": _ARN_ROLE, "destination": _ARN_BUCKET}},
        says="replication copies versions, and there are none: write versioning: true, or remove replication",
    ),
    *(
        _s3(
            f"replication, {field} by its name",
            "the store wants an ARN",
            {"versioning": True, "replication": {"role": _ARN_ROLE, "destination": _ARN_BUCKET} | {field: "x" * 20}},
            f".replication.{field}",
            f'"{"x" * 20}" is not an ARN: write for example "{example}"',
        )
        for field, example in (("role", _ARN_ROLE), ("destination", _ARN_BUCKET))
    ),
    *(
        _s3(
            f"kmsKeyId {name}",
            "the store's own key is used",
            {"encryption": {"kmsKeyId": "alias/memories"} | algorithm},
            ".encryption",
            'kmsKeyId has no effect with algorithm "AES256": write algorithm: aws:kms, or remove kmsKeyId',
        )
        for name, algorithm in (("alone", {}), ("with AES256", {"algorithm": "AES256"}))
    ),
    _s3(
        "a class of storage in lower case",
        "no class has such a name",
        {"lifecycle": {"transitionDays": 30, "storageClass": "cold"}},
        ".lifecycle.storageClass",
        '"cold" is not a class of storage: write upper-case letters, digits and "_", for example "STANDARD_IA"',
    ),
    *(
        _s3(
            f"a class of storage {name}",
            reason,
            _AWS | {"lifecycle": {"transitionDays": 30, "storageClass": value}},
            says=f'lifecycle.storageClass "{value}" is none of Amazon that objects move to and can be read from at '
            "once: write STANDARD_IA, ONEZONE_IA, INTELLIGENT_TIERING or GLACIER_IR",
        )
        for name, reason, value in (
            ("that Amazon has not", "Amazon refuses it, where nobody looks", "COLD"),
            ("that is an archive", "apps could not read what they wrote", "DEEP_ARCHIVE"),
        )
    ),
    _s3(
        "a class of storage too early for Amazon",
        "Amazon refuses it, where nobody looks",
        _AWS | {"lifecycle": {"transitionDays": 29}},
        says="lifecycle.transitionDays must be 30 or more for STANDARD_IA (Amazon takes no younger objects there): "
        "write 30, or another storageClass",
    ),
    _s3(
        "an archive at once",
        "Amazon takes objects of any age there",
        _AWS | {"lifecycle": {"transitionDays": 1, "storageClass": "GLACIER_IR"}},
    ),
    _s3("a lifecycle without days", "nobody guesses when", {"lifecycle": {}}, ".lifecycle.transitionDays"),
)

_CUSTOM: tuple[Case, ...] = (
    _custom("a URL as endpoint", "where the backend speaks HTTP", {"endpoint": "https://vectors.example.com:6333"}),
    _custom(
        "an image with a blank",
        "no registry has it",
        {"image": "memory mariadb"},
        ".image",
        '"memory mariadb" is not the reference of an image: write for example '
        '"registry.example.com/memory-mariadb@sha256:<digest>"',
    ),
    *(
        _custom(
            f"endpoint {name}",
            "a password has no place here",
            {"endpoint": endpoint},
            ".endpoint",
            "write host and port, or a URL of scheme, host and port, without user or path, for example "
            '"db.example.com:3306"',
        )
        for name, endpoint in (("with a user", "mysql://root:geheim@db"), ("with a path", "https://db/x"))
    ),
    _custom(
        "endpoint without a port",
        "nobody guesses it",
        {"endpoint": "mysql://db.example.com"},
        ".endpoint",
        'its port is missing: write host and port, for example "db.example.com:3306" (only http and https have a port '
        "of their own)",
    ),
    _custom(
        "a database with a blank",
        "it would need quotes",
        {"database": "my app"},
        ".database",
        '"my app" is not the name of a database: write letters, digits, "_", "." or "-", beginning and ending with a '
        'letter, digit or "_", for example "memories"',
    ),
)

PROVIDER = (
    _provider("minimal", "a host and a login are enough", {}),
    _provider("no type", "the type says which block counts", {"type": None}, "spec.type"),
    _provider("a type that is not there", "what has no effect does not exist", {"type": "mysql"}, "spec.type"),
    _provider(
        "no block",
        "the type's block says where the backend is",
        {"postgres": None},
        "spec",
        'type "postgres" needs its block: write postgres with a clusterRef or a host',
    ),
    *(
        _provider(f"adoption {name}", "one of three answers", {"adoption": name})
        for name in ("Allow", "Forbid", "Require")
    ),
    _provider(
        "a home handed over",
        "the platform team may",
        {"adoptions": [{"schema": "notes", "from": "team-a/notes", "to": "team-b/notes"}]},
    ),
    *(
        _provider(
            f"a home handed over without {missing}",
            "half a sentence",
            {"adoptions": [{key: "x" for key in ("schema", "from", "to") if key != missing}]},
            f"spec.adoptions[0].{missing}",
        )
        for missing in ("schema", "from", "to")
    ),
    _provider(
        "a schema with a dash handed over",
        "no home is called so",
        {"adoptions": [{"schema": "my-notes", "from": "a/b", "to": "c/d"}]},
        "spec.adoptions[0].schema",
        _SCHEMA("my-notes", "team_notes"),
    ),
    *(_provider(f"deletionGrace {value}", "a duration", {"deletionGrace": value}) for value in ("0s", "90m", "720h")),
    *(
        _provider(
            f"deletionGrace {value}",
            "nobody knows how long that is",
            {"deletionGrace": value},
            "spec.deletionGrace",
            f'"{value}" is not a duration: write a number and its unit, s, m or h, for example "72h"',
        )
        for value in ("72", "3d", "1h30m")
    ),
    *(
        _provider(f"maintenance at {value}", "a cron schedule", {"maintenance": {"schedule": value}})
        for value in ("17 * * * *", "*/15 2-5 * * 1,3", "0 3 * * SUN")
    ),
    *(
        _provider(
            f"maintenance at {value}",
            "no CronJob could be made of it",
            {"maintenance": {"schedule": value}},
            "spec.maintenance.schedule",
            f'"{value}" is not a cron schedule: write minute, hour, day of month, month and day of week, for example '
            '"17 * * * *"',
        )
        for value in ("every hour", "17 * * *x", "17 * * * * *")
    ),
    _provider("drift that is repaired", "a choice", {"maintenance": {"driftPolicy": "Repair"}}),
    _provider(
        "drift policy Ignore",
        "drift is said at least",
        {"maintenance": {"driftPolicy": "Ignore"}},
        "spec.maintenance.driftPolicy",
    ),
    _provider("two gigabytes to build with", "an amount of memory", {"maintenance": {"workMem": "2GB"}}),
    *(
        _provider(
            f"{value} to build with",
            "PostgreSQL would take it for kilobytes, or refuse it",
            {"maintenance": {"workMem": value}},
            "spec.maintenance.workMem",
            f'"{value}" is not an amount of memory: write a number and MB or GB, for example "256MB"',
        )
        for value in ("256", "1 GB", "0MB")
    ),
    _provider("adoption Never", "there is no such answer", {"adoption": "Never"}, "spec.adoption"),
    _provider("a block that is not there", "what has no effect does not exist", {"mysql": {"host": "m"}}, "spec.mysql"),
    *_CONSUMERS,
    *_JOBS,
    *_POSTGRES,
    *_MANAGED,
    *_ISOLATION,
    *_BLOCKS,
    *_REDIS,
    *_S3,
    *_CUSTOM,
)

CASES = MEMORY + PROVIDER
