"""Providers of type redis, s3 and custom: what a backend is told, what an app gets, what is refused in which words."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pytest

from function import names
from tests.function.harness import (
    ADMIN_KEYS,
    Object,
    World,
    encoded,
    pipeline_input,
    reported,
    run,
    secret_entries,
    settle,
    step,
)
from tests.function.worlds import (
    AWS,
    CA,
    CUSTOM,
    REDIS,
    S3,
    delivered,
    memory,
    namespace,
    of_type,
    other_world,
    provider_world,
)
from tests.schemas import catalog

SHARED: Object = {**S3, "users": "Shared"}
BLOCKS: dict[str, tuple[str, Object]] = {
    "redis": ("redis", REDIS),
    "RGW": ("s3", S3),
    "Shared": ("s3", SHARED),
    "custom": ("custom", CUSTOM),
}
TOLD = ("RGW", "custom")


def _world(place: str, block: Object | None = None, **spec: Any) -> World:
    kind, whole = BLOCKS[place]
    return other_world(kind, {**whole, **(block or {})}, memory(**spec))


def _settled(start: World) -> World:
    return settle(start)[0]


def _without(block: Object, *fields: str) -> Object:
    return {key: value for key, value in block.items() if key not in fields}


def _request(seen: World) -> Object:
    (text,) = [
        secret_entries(body)["request.json"] for key, body in seen.observed.items() if key.startswith("request-")
    ]
    found: Object = json.loads(text)
    return found


def _pod(body: Object) -> Object:
    found: Object = body["spec"]["template"]["spec"]
    return found


def _job(seen: World) -> Object:
    (found,) = [body for key, body in seen.observed.items() if key.startswith("provision-")]
    return found


# What an app gets.


@pytest.mark.parametrize("place", sorted(BLOCKS))
def test_the_promise_holds_wherever_a_memory_is(place: str) -> None:
    seen, answer = settle(_world(place))
    entries = secret_entries(seen.observed["binding"])
    assert answer.ready
    assert {"endpoint", "database", "schema", "username", "password"} <= set(entries)
    told = {key: answer.status[key] for key in ("endpoint", "database", "schema")}
    assert told == {key: entries[key] for key in told}
    assert answer.status["providerType"] == BLOCKS[place][0]
    assert (entries["dataset"], entries["contract"], entries["dimension"]) == ("notes", "1", "1536")
    without = secret_entries(_settled(_world(place, embeddings={"enabled": False})).observed["binding"])
    assert set(entries) - set(without) == {"dimension", "metric"}


def test_a_binding_of_redis() -> None:
    inside = names.Identity("team-a/notes").inside("0")
    entries = secret_entries(_settled(_world("redis")).observed["binding"])
    assert entries["schema"] == f"mem:{{notes.{inside}}}:"
    assert entries["username"] == f"mem_{inside}_rw_a"
    assert entries["uri"] == f"rediss://{entries['username']}:{entries['password']}@redis.example.com:6379/0"
    assert entries["ca.crt"] == entries["certificates"] == REDIS["caBundle"]
    block = {"tls": False, "port": 6380, "database": 3, "keyPrefix": "eu1"}
    other = other_world("redis", {**_without(REDIS, "caBundle"), **block})
    entries = secret_entries(_settled(other).observed["binding"])
    assert entries["uri"].startswith("redis://")
    assert entries["uri"].endswith("@redis.example.com:6380/3")
    assert entries["schema"].startswith("eu1:{notes.")
    assert not {"ca.crt", "certificates"} & set(entries)


@pytest.mark.parametrize("field", ["bucket", "bucketPrefix"])
def test_a_binding_of_s3(field: str) -> None:
    inside = names.Identity("team-a/notes").inside("memories")
    start = other_world("s3", {**_without(S3, "bucket"), field: "memories", "region": "default"})
    entries = secret_entries(_settled(start).observed["binding"])
    bucket = "memories" if field == "bucket" else f"memories-{inside}"
    assert (entries["database"], entries["schema"]) == (bucket, f"notes-{inside}/")
    assert entries["uri"] == f"s3://{bucket}/notes-{inside}/"
    assert (entries["endpoint"], entries["host"], entries["port"]) == (
        "https://s3.example.com",
        "s3.example.com",
        "443",
    )
    assert (entries["region"], entries["username"]) == ("default", f"mem_{inside}_rw_a")
    assert not {"login", "ca.crt"} & set(entries)
    trusting = _settled(_world("RGW", {"caBundle": CA})).observed["binding"]
    assert secret_entries(trusting)["ca.crt"] == secret_entries(trusting)["certificates"] == CA


def test_a_binding_of_a_custom_backend() -> None:
    entries = secret_entries(_settled(_world("custom")).observed["binding"])
    assert (entries["endpoint"], entries["host"], entries["port"]) == ("db.example.com:3306", "db.example.com", "3306")
    assert (entries["database"], entries["schema"]) == ("memories", "notes")
    url = _settled(_world("custom", {"endpoint": "https://vectors.example.com"})).observed["binding"]
    assert secret_entries(url)["endpoint"] == "https://vectors.example.com"
    assert secret_entries(url)["port"] == "443"


@pytest.mark.parametrize(("block", "wanted"), [({}, True), ({"forcePathStyle": False}, False)])
def test_where_a_bucket_stands_in_a_url(block: Object, wanted: bool) -> None:
    """In the path where there is a server of one's own, in the host at Amazon's."""
    assert _request(_settled(_world("RGW", block)))["provider"]["forcePathStyle"] is wanted
    amazon = settle(other_world("s3", {**AWS, **block}), steps=14)[0]
    assert _request(amazon)["provider"]["forcePathStyle"] is False


# What a backend is told of passwords.


def test_redis_gets_the_hash_of_a_password() -> None:
    seen = _settled(_world("redis", access={"readOnlySecret": True}))
    given = {each["name"]: each.get("verifier") for each in _request(seen)["logins"]}
    for key in ("binding", "binding-reader"):
        entries = secret_entries(seen.observed[key])
        assert given[entries["username"]] == "#" + hashlib.sha256(entries["password"].encode()).hexdigest()
    assert sorted(verifier is not None for verifier in given.values()) == [False, False, True, True]
    assert not any(key.startswith("login-") for key in seen.observed)


@pytest.mark.parametrize("place", TOLD)
def test_a_password_is_told_by_a_secret_for_as_long_as_the_job_runs(place: str) -> None:
    start = _world(place, access={"readOnlySecret": True})
    began, first = step(start)
    (key,) = [each for each in first.resources if each.startswith("login-")]
    told = secret_entries(first.resources[key])
    assert set(told) == {"rw-a", "ro-a"}
    (volume,) = [each for each in _pod(_job(began))["volumes"] if each["name"] == "memory"]
    (source,) = [each["secret"] for each in volume["projected"]["sources"] if each["secret"]["name"].endswith("-login")]
    prefix = names.Identity("team-a/notes").roles("memories")
    assert source["name"] == first.resources[key]["metadata"]["name"]
    wanted = {(part, f"login/{prefix}_{part.replace('-', '_')}") for part in told}
    assert {(each["key"], each["path"]) for each in source["items"]} == wanted
    seen, last = settle(start)
    assert key not in last.resources
    bound = {secret_entries(seen.observed[each])["password"] for each in ("binding", "binding-reader")}
    assert bound == set(told.values())


@pytest.mark.parametrize("place", TOLD)
def test_no_password_but_in_the_bindings_and_the_named_secret(place: str) -> None:
    start = _world(place, access={"readOnlySecret": True})
    passwords = set(
        secret_entries(next(b for k, b in step(start)[1].resources.items() if k.startswith("login-"))).values()
    )
    assert len(passwords) == 2
    now = start.with_spec(credentials={"epoch": 0})
    for _ in range(6):
        now, answer = step(now)
        for key, body in answer.resources.items():
            text = json.dumps(body)
            is_named = key.startswith(("binding", "login-"))
            assert any(encoded(one) in text for one in passwords) is is_named, key
            assert not any(one in text for one in passwords), key
        assert not any(one in json.dumps(answer.status) + str(answer.response.conditions) for one in passwords)


@pytest.mark.parametrize("place", TOLD)
def test_a_rotation_tells_only_the_new_password(place: str) -> None:
    settled = _settled(_world(place))
    old = secret_entries(settled.observed["binding"])
    _, answer = step(settled.with_spec(credentials={"epoch": 1}))
    told = secret_entries(answer.resources[answer.key("login-")])
    assert set(told) == {"rw-b"}
    assert old["password"] not in told.values()
    after = secret_entries(_settled(settled.with_spec(credentials={"epoch": 1})).observed["binding"])
    assert after["password"] == told["rw-b"]


def test_a_job_that_is_at_work_keeps_its_passwords() -> None:
    """The spec may change meanwhile, and a pod that starts again mounts them again."""
    began, first = step(_world("RGW"))
    (key,) = [each for each in first.resources if each.startswith("login-")]
    assert key in run(began.with_spec(access={"readOnlySecret": True})).resources
    assert key in run(began.but(providers=())).resources
    lost = {name: body for name, body in began.observed.items() if not name.startswith(("request-", "provision-"))}
    assert key in run(began.but(observed=lost)).resources, "it may run all the same"
    broken = step(began, code=1)[0]
    without = {name: body for name, body in broken.observed.items() if not name.startswith("request-")}
    assert set(run(broken.but(observed=without)).resources) >= set(without)


# Users: Shared.


def test_the_admins_keys_are_handed_on_by_a_job() -> None:
    start = _world("Shared")
    _, first = step(start)
    keys = next(body for body in first.resources.values() if body["metadata"]["name"].endswith("-keys"))
    assert "data" not in keys, "with entries they would be the function's, and go with the next answer"
    role = next(body for key, body in first.resources.items() if key.startswith("keys-role"))
    name = names.Identity("team-a/notes").keys
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": ["get", "patch"]}
    assert role["rules"] == [rule]
    seen, answer = settle(start)
    assert _request(seen)["keys"] == {"namespace": "databases", "name": name}
    entries = secret_entries(seen.observed["binding"])
    assert (entries["username"], entries["password"]) == (ADMIN_KEYS["username"], ADMIN_KEYS["password"])
    assert not any("data" in body for key, body in answer.resources.items() if key.startswith("keys-"))
    assert answer.message("CredentialsReady") == (
        'connection Secret "notes-memory" in namespace "team-a"; every Memory of provider "pg" has the same keys '
        "(s3.users is Shared), so nothing keeps them apart, and credentials.epoch changes nothing"
    )


def test_without_keys_there_is_no_binding_and_one_that_is_there_stays() -> None:
    settled, before = settle(_world("Shared"))
    (key,) = [each for each in settled.observed if each.startswith("keys-") and each.count("-") == 1]
    empty = settled.but(observed={**settled.observed, key: _without(settled.observed[key], "data")})
    assert run(empty).resources == before.resources
    new = empty.but(observed={each: body for each, body in empty.observed.items() if each != "binding"})
    answer = run(new)
    assert "binding" not in answer.resources
    assert answer.conditions["CredentialsReady"] == (False, "WaitingForBackend")
    assert answer.message("CredentialsReady") == (
        f'Secret "{names.Identity("team-a/notes").keys}" in namespace "databases", which the Job writes, does not hold '
        "the keys of the backend yet: if it stays so, see the Job's log"
    )


@pytest.mark.parametrize("username", ["ADMIN", "admin_a", "admin_b"])
def test_an_epoch_goes_on_whatever_the_admins_key_is_called(username: str) -> None:
    """It says nothing of a slot; the binding's own entry does."""
    now = _settled(_world("Shared"))
    for epoch in (1, 2):
        now = now.with_spec(credentials={"epoch": epoch})
        for hour in range(8):
            (key,) = [each for each in now.observed if each.startswith("keys-") and each.count("-") == 1]
            body = copy.deepcopy(now.observed[key])
            body["data"]["username"] = encoded(username)
            now, answer = step(now.but(observed={**now.observed, key: body}), time=f"2026-02-0{epoch}T{hour:02}:00:00Z")
        assert answer.status["credentials"]["epoch"] == epoch
        assert answer.ready


# A custom image.


def test_a_custom_image_runs_by_its_own_entrypoint_with_its_own_secret() -> None:
    seen = _settled(_world("custom"))
    pod = _pod(_job(seen))
    (container,) = pod["containers"]
    assert (container["image"], container["args"]) == (CUSTOM["image"], ["provision"])
    assert "command" not in container
    assert {"name": "MEMORY_CONFIG_DIR", "value": "/config"} in container["env"]
    assert {"name": "config", "mountPath": "/config", "readOnly": True} in container["volumeMounts"]
    config = {"name": "config", "secret": {"secretName": "mariadb-admin", "defaultMode": 0o440}}
    assert config in pod["volumes"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["securityContext"]["runAsNonRoot"]
    sources = next(each for each in pod["volumes"] if each["name"] == "memory")["projected"]["sources"]
    assert "admin/username" not in json.dumps(sources)


def test_our_image_runs_for_all_others() -> None:
    (container,) = _pod(_job(_settled(_world("redis"))))["containers"]
    assert container["command"] == ["python", "-m", "migrations"]
    assert container["image"] == pipeline_input()["migrations"]["image"]


@pytest.mark.parametrize("place", sorted(BLOCKS))
def test_a_provider_is_probed_and_looked_after(place: str) -> None:
    kind, block = BLOCKS[place]
    body = of_type(kind, block)
    del body["status"]
    answer = run(provider_world(body))
    assert answer.conditions["BackendReady"] == (False, "Probing")
    (probe,) = [each for key, each in answer.resources.items() if key.startswith("probe-") and each["kind"] == "Job"]
    (container,) = _pod(probe)["containers"]
    assert container["args"] == ["probe"]
    assert container["image"] == (CUSTOM["image"] if kind == "custom" else pipeline_input()["migrations"]["image"])


# What is refused, and in which words.


@dataclass(frozen=True)
class Told:
    """A world and the sentence about it."""

    name: str
    world: World
    condition: tuple[str, str]
    says: str


def _provider(place: str, block: Object, *gone: str, claim: tuple[str, str] | None = None, **spec: Any) -> World:
    kind, whole = BLOCKS[place]
    body = of_type(kind, _without({**whole, **block}, *gone), claim, **spec)
    return other_world(kind, whole).but(providers=(body,), namespaces=(namespace(),))


INVALID = ("ProviderReady", "InvalidSpec")
_MINE = {"adminSecret": {"name": "a"}}
ADOPTIONS = [{"schema": "notes", "from": "team-a/x", "to": "team-a/notes"}]
LOCK = {"objectLock": {"mode": "GOVERNANCE", "days": 1}}
REFUSED = [
    Told(
        "redis compares by cosine",
        _world("redis", embeddings={"metric": "l2"}),
        ("Provisioned", "ModuleUnsupported"),
        'spec.embeddings.metric: "l2" is not what Redis can do, whose vector sets compare by cosine only: write '
        "cosine, "
        "set embeddings.enabled to false, or choose another provider",
    ),
    *(
        Told(
            f"{place} knows no {field}",
            _world(place, access={field: "analysts"}),
            ("Provisioned", "PermissionDenied"),
            f'spec.access.{field}: provider "pg" is of type "{BLOCKS[place][0]}", which knows no roles of others, so '
            '"analysts" cannot receive rights: leave it out',
        )
        for place, field in (("redis", "readerRole"), ("RGW", "writerRole"), ("custom", "readerRole"))
    ),
    Told(
        "no reader where all have one login",
        _world("Shared", access={"readOnlySecret": True}),
        ("Provisioned", "ModuleUnsupported"),
        'spec.access.readOnlySecret: provider "pg" hands out one login that may do everything (s3.users is '
        "Shared): set "
        "it to false, or choose a provider that makes users",
    ),
    *(
        Told(
            f"no hand-over {where}",
            _provider(place, {}, adoptions=ADOPTIONS),
            INVALID,
            f"spec.adoptions: a home cannot be handed over {where}, for each is named after its Memory: leave it out, "
            "and "
            "let the new Memory copy what it needs",
        )
        for place, where in (("redis", "on Redis"), ("RGW", "on S3"))
    ),
    Told(
        "a CA without TLS",
        _provider("redis", {"tls": False}),
        INVALID,
        "spec.redis.caBundle: it has no effect with tls false: remove it, or set tls to true",
    ),
    *(
        Told(
            name,
            _provider("RGW", block, *gone),
            INVALID,
            f"spec.s3: bucket (one for all Memories) or bucketPrefix (a bucket for each): {found}",
        )
        for name, block, gone, found in (
            ("two places", {"bucketPrefix": "a"}, (), "both are set: remove one"),
            ("no place", {}, ("bucket",), "neither is set: write one"),
        )
    ),
    Told(
        "a port that is none",
        _provider("RGW", {"endpoint": "https://s3.example.com:99999"}),
        INVALID,
        "spec.s3.endpoint: its port is none: write a URL such as https://s3.example.org:443",
    ),
    Told(
        "no server",
        _provider("RGW", {}, "endpoint"),
        INVALID,
        "spec.s3.endpoint: users RGW needs a server of its own: write its URL, such as https://s3.example.org",
    ),
    Told(
        "a ProviderConfig that nobody uses",
        _provider("RGW", {"providerConfigRef": {"name": "x"}}),
        INVALID,
        "spec.s3.providerConfigRef: it has no effect with users RGW: remove it, or write users: AWS",
    ),
    *(
        Told(
            f"{field} without versions",
            _provider("RGW", block),
            INVALID,
            f"spec.s3.{field}: S3 has it for buckets with versions only: set versioning to true",
        )
        for field, block in (
            ("objectLock", LOCK),
            ("replication", {"replication": {"role": "arn:" + "x" * 20, "destination": "arn:" + "x" * 20}}),
        )
    ),
    Told(
        "a key that nobody uses",
        _provider("RGW", {"encryption": {"algorithm": "AES256", "kmsKeyId": "x"}}),
        INVALID,
        'spec.s3.encryption.kmsKeyId: it has no effect with algorithm AES256: write "aws:kms", or remove it',
    ),
    Told(
        "an image of a tenant's",
        _provider("custom", {"configSecret": {"name": "a"}}, claim=("team-a", "pg")),
        INVALID,
        f'spec.custom.image: "{CUSTOM["image"]}" is refused: only a platform team\'s XMemoryProvider may name an '
        "image; "
        "ask the platform team for such a provider",
    ),
    Told(
        "an endpoint without a port",
        _provider("custom", {"endpoint": "db.example.com"}),
        INVALID,
        'spec.custom.endpoint: "db.example.com" names no host and port: write for example db.example.org:3306, or '
        "a URL",
    ),
    *(
        Told(
            f"a tenant's {place} in another namespace",
            _provider(place, {}, claim=("team-a", "pg")),
            INVALID,
            f'spec.{BLOCKS[place][0]}.adminSecret.namespace: "databases" is refused: a claimed provider reaches its '
            "own "
            'namespace only; write "team-a" or leave it out',
        )
        for place in ("redis", "RGW")
    ),
    *(
        Told(
            f"{place} without a namespace",
            _provider(place, {field: {"name": "a"}}),
            INVALID,
            f"spec.{BLOCKS[place][0]}.{field}.namespace: a provider without a claim has no namespace of its own: set "
            "it",
        )
        for place, field in (("redis", "adminSecret"), ("RGW", "adminSecret"), ("custom", "configSecret"))
    ),
    *(
        Told(
            f"a tenant's {place} as another account",
            _provider(place, _MINE, claim=("team-a", "pg"), jobs={"serviceAccountName": "root"}),
            INVALID,
            'spec.jobs.serviceAccountName: "root" is refused: only a platform team\'s XMemoryProvider may name one; '
            "leave "
            "it out",
        )
        for place in ("redis", "RGW")
    ),
    *(
        Told(
            f"{kind} without its block",
            _world(place).but(providers=({**of_type(kind, BLOCKS[place][1]), "spec": {"type": kind}},)),
            INVALID,
            f'spec.{kind}: a provider of type "{kind}" needs this block: add it',
        )
        for place, kind in (("redis", "redis"), ("RGW", "s3"), ("custom", "custom"))
    ),
    *(
        Told(
            f"{users} in an Object",
            delivered(_world(users)),
            INVALID,
            f"spec.s3.users: {users} does not go with delivery Object: its Jobs are given keys by a Secret, which "
            "would "
            "be readable in an Object; use a Composition with delivery Direct",
        )
        for users in ("RGW", "Shared")
    ),
    Told(
        "custom in an Object",
        delivered(_world("custom")),
        INVALID,
        "spec.custom: a custom backend does not go with delivery Object: its Jobs are given passwords by a "
        "Secret, which "
        "would be readable in an Object; use a Composition with delivery Direct",
    ),
    *(
        Told(
            f"{kind} where {wanted} is wanted",
            _world(place).but(settings=pipeline_input(f"memory-{wanted}")),
            INVALID,
            f'it is of type "{kind}" and this Composition serves "{wanted}": name a provider of type "{wanted}", or '
            "use a "
            f'Composition that serves "{kind}"',
        )
        for place, kind, wanted in (("redis", "redis", "s3"), ("RGW", "s3", "custom"), ("custom", "custom", "redis"))
    ),
]


@pytest.mark.parametrize("told", REFUSED, ids=lambda told: told.name)
def test_what_cannot_work_is_a_sentence_and_renders_nothing(told: Told) -> None:
    answer = run(told.world)
    kind, reason = told.condition
    assert answer.conditions[kind] == (False, reason)
    assert told.says in answer.message(kind)
    assert not answer.resources


@pytest.mark.parametrize(
    "told",
    [each for each in REFUSED if each.condition == INVALID and "serves" not in each.says],
    ids=lambda told: told.name,
)
def test_the_provider_says_the_same_of_itself(told: Told) -> None:
    (body,) = told.world.providers
    settings = "memoryprovider-object" if told.world.settings["delivery"] == "Object" else "memoryprovider"
    answer = run(provider_world(body).but(settings=pipeline_input(settings)))
    assert answer.conditions["BackendReady"] == (False, "InvalidSpec")
    assert told.says in answer.message("BackendReady")
    assert not answer.resources


def test_a_refusal_takes_nothing_from_a_memory_that_runs() -> None:
    settled, before = settle(_world("redis"))
    answer = run(settled.with_spec(embeddings={"metric": "ip", "enabled": True, "dimension": 1536, "storage": "auto"}))
    assert answer.conditions["Provisioned"] == (False, "ModuleUnsupported")
    assert set(answer.resources) == set(before.resources)


@pytest.mark.parametrize("place", ["redis", "RGW", "custom"])
def test_its_own_composition_serves_a_type(place: str) -> None:
    settings = pipeline_input(f"memory-{BLOCKS[place][0]}")
    assert settle(_world(place).but(settings=settings))[1].ready


def test_a_tenant_may_have_an_image_where_the_platform_allows_it() -> None:
    mine = of_type("custom", {**CUSTOM, "configSecret": {"name": "a"}}, ("team-a", "pg"))
    settings = {**pipeline_input(), "claimedProviders": {"allowCustomImages": True}}
    seen, answer = settle(_world("custom").but(providers=(mine,), namespaces=(namespace(),), settings=settings))
    assert answer.ready
    assert _job(seen)["metadata"]["namespace"] == "team-a"


def test_redis_says_what_a_hold_means_there() -> None:
    answer = settle(_world("redis", legalHold=True))[1]
    assert answer.message("CredentialsReady").endswith("; Redis lets a Memory with a legal hold be read only")
    assert "legal hold" not in settle(_world("redis"))[1].message("CredentialsReady")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("redis", "embeddings are a vector set, which is an index by itself"),
        ("RGW", "searches are exact: a client reads all embeddings"),
        ("custom", "how searches are is up to the backend"),
    ],
)
def test_no_index_is_promised_where_none_is_built(place: str, says: str) -> None:
    settled, answer = settle(_world(place))
    assert answer.conditions["IndexReady"] == (True, "Exact")
    assert answer.message("IndexReady") == says
    (report,) = [key for key, body in settled.observed.items() if body["kind"] == "ConfigMap"]
    ready = {"state": "ready", "reason": "Ready", "message": "searched by the vector set itself"}
    found = reported(settled.observed[report], "maintenance", index=ready)
    told = run(settled.but(observed={**settled.observed, report: found}))
    assert (told.conditions["IndexReady"], told.message("IndexReady")) == ((True, "Ready"), ready["message"])


def test_a_sample_that_was_read_again_is_in_the_status() -> None:
    settled, _ = settle(_world("RGW"))
    (report,) = [key for key, body in settled.observed.items() if body["kind"] == "ConfigMap"]
    wrong = ["object events/1.json is not what was written: its sha256 differs"]
    sample = {"checked": 20, "failed": 1, "at": "2026-02-03T00:00:00Z"}
    found = reported(settled.observed[report], "maintenance", integrity=sample, drift=wrong)
    now = settled.but(observed={**settled.observed, report: found})
    status = run(now).status
    assert status["integrity"] == {"checked": 20, "failed": 1, "lastRun": "2026-02-03T00:00:00Z"}
    assert run(now).conditions["InSync"] == (False, "Drift")
    assert catalog().problems({**now.xr, "status": status}) == []
    assert run(now.but(providers=())).status.get("integrity") is None, "not noted yet"
    noted = now.but(xr={**now.xr, "status": status}, providers=())
    assert run(noted).status["integrity"] == status["integrity"]
    odd = reported(settled.observed[report], "maintenance", integrity={**sample, "at": "today"})
    assert "integrity" not in run(settled.but(observed={**settled.observed, report: odd})).status


# What a Memory with data is held to.


@pytest.mark.parametrize(
    ("place", "block", "says"),
    [
        ("redis", {"host": "other.example.com"}, "host was redis.example.com and is other.example.com"),
        ("redis", {"database": 1}, "database was 0 and is 1"),
        ("redis", {"keyPrefix": "eu1"}, "keyPrefix was mem and is eu1"),
        ("RGW", {"bucket": "others"}, "database was memories and is others"),
        ("RGW", {"endpoint": "https://other.example.com"}, "host was s3.example.com and is other.example.com"),
        ("RGW", {"users": "Shared"}, "roleManagement was RGW and is Shared"),
        ("custom", {"database": "others"}, "database was memories and is others"),
    ],
)
def test_a_provider_that_leads_elsewhere_moves_nothing(place: str, block: Object, says: str) -> None:
    settled, before = settle(_world(place))
    kind, whole = BLOCKS[place]
    answer = run(settled.but(providers=(of_type(kind, {**whole, **block}),)))
    assert answer.conditions["ProviderReady"] == (False, "Changed")
    assert says in answer.message("ProviderReady")
    assert set(answer.resources) == set(before.resources)


@pytest.mark.parametrize("place", sorted(BLOCKS))
def test_a_lost_status_is_no_new_start(place: str) -> None:
    settled, before = settle(_world(place))
    lost = settled.but(xr=_without(settled.xr, "status"))
    answer = run(lost)
    assert answer.conditions["ProviderReady"] == (True, "Available")
    assert answer.resources == before.resources
    kind, whole = BLOCKS[place]
    host = {"host": "x.example.com"} if kind == "redis" else {"endpoint": "https://x.example.com:1"}
    moved = run(lost.but(providers=(of_type(kind, {**whole, **host}),)))
    assert moved.conditions["ProviderReady"] == (False, "Changed")
