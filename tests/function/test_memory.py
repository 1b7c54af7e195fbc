"""What a Memory's composite is told, and what is composed for it: a rule of api.md or function.md each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.function.harness import (
    ROOT_KEY,
    World,
    complete,
    failed,
    pipeline_input,
    reported,
    run,
    secret_entries,
    settle,
    step,
)
from tests.function.worlds import ADMIN, CA, memory, namespace, provider, world
from tests.schemas import catalog

if TYPE_CHECKING:
    from tests.function.harness import Answer, Object

OWN = {"host": "own.team-a.svc", "sslMode": "require", "connectionSecret": {"name": "own-admin"}}


@dataclass(frozen=True)
class Told:
    """A world, and the condition that must come of it."""

    name: str
    reason: str
    world: World
    condition: tuple[str, str]
    sentence: str


def _without_root_key() -> World:
    return world().but(credentials={})


def _root_key(**keys: bytes) -> World:
    return world().but(credentials={"root-key": keys})


def _settled(**changes: Any) -> World:
    return settle(world())[0].but(**changes)


def _pg(**postgres: Any) -> Object:
    return provider(postgres={"host": "db.example.com", "connectionSecret": ADMIN, **postgres})


def _by_label() -> Object:
    selector = {"matchLabels": {"memory": "yes"}}
    return provider(allowedConsumers={"namespaces": {"from": "Selector", "selector": selector}})


def _down() -> Object:
    body = provider()
    said = {"reason": "Unreachable", "message": "nobody answers at db.example.com:5432"}
    body["status"]["conditions"] = [{"type": "BackendReady", "status": "False", **said}]
    return body


TOLD = [
    Told(
        "provider-missing",
        "a claim may be applied before its provider",
        world().but(providers=()),
        ("ProviderReady", "NotFound"),
        'spec.providerRef.name: there is no provider "pg" (no MemoryProvider claim of that name in namespace "team-a", '
        "no unclaimed XMemoryProvider of that name): name one that exists, or make it",
    ),
    Told(
        "provider-missing-in-namespace",
        "with a namespace only a claim there is meant",
        world(provider(), memory_xr=memory(providerRef={"name": "pg", "namespace": "team-b"})),
        ("ProviderReady", "NotFound"),
        'no MemoryProvider claim of that name in namespace "team-b"',
    ),
    Told(
        "claimed-provider-admits-its-own-namespace",
        "Same is the default of a claimed provider",
        world(
            provider("pg-1", ("team-b", "pg"), postgres=OWN),
            memory_xr=memory(providerRef={"name": "pg", "namespace": "team-b"}),
        ),
        ("ProviderReady", "NotAdmitted"),
        'provider "pg" admits namespace "team-b" only, not namespace "team-a": ask the provider\'s owner to add it',
    ),
    Told(
        "not-on-the-list",
        "Names admits who is named",
        world(provider(allowedConsumers={"namespaces": {"from": "Names", "names": ["team-b"]}})),
        ("ProviderReady", "NotAdmitted"),
        'provider "pg" admits the namespaces of a list, not namespace "team-a"',
    ),
    Told(
        "no-claim-no-name",
        "a composite without a claim is admitted by All only",
        world(
            provider(allowedConsumers={"namespaces": {"from": "Names", "names": ["team-a"]}}),
            memory_xr=memory(claim=None),
        ),
        ("ProviderReady", "NotAdmitted"),
        "not a composite without a claim",
    ),
    Told(
        "not-labelled",
        "Selector admits whose labels match; which labels, or whom else they stand for, is not ours to tell",
        world(_by_label()).but(namespaces=(namespace(memory="no"),)),
        ("ProviderReady", "NotAdmitted"),
        'provider "pg" admits the namespaces whose labels match its selector, not namespace "team-a": '
        "ask the provider's owner to add it to spec.allowedConsumers.namespaces",
    ),
    Told(
        "no-claim-no-labels",
        "a composite without a claim is in no namespace, so Selector never admits it",
        world(_by_label(), memory_xr=memory(claim=None)).but(namespaces=(namespace(memory="yes"),)),
        ("ProviderReady", "NotAdmitted"),
        "admits the namespaces whose labels match its selector, not a composite without a claim",
    ),
    Told(
        "no-such-namespace",
        "on its way out, or never there",
        world(_by_label()).but(namespaces=(namespace("team-b", memory="yes"),)),
        ("ProviderReady", "NotAdmitted"),
        'provider "pg" admits namespaces by their labels, and there is no Namespace "team-a" to look at: make it',
    ),
    Told(
        "labels-not-seen",
        "what Crossplane does not answer is not guessed",
        world(_by_label()).but(namespaces=(namespace(memory="yes"),), unanswered=("consumer-namespace",)),
        ("ProviderReady", "NotAdmitted"),
        'Crossplane has not shown those of namespace "team-a" yet: if this stays, let its service account get, list '
        "and watch namespaces",
    ),
    Told(
        "host-without-login",
        "only CloudNativePG can make roles without an admin",
        world(provider(postgres={"host": "db.example.com"})),
        ("ProviderReady", "InvalidSpec"),
        'provider "pg": spec.postgres.connectionSecret: without it there is no admin login for the Jobs: name a Secret',
    ),
    Told(
        "refs-disagree",
        "a Job mounts Secrets of one namespace",
        world(provider(postgres={"clusterRef": {"name": "db", "namespace": "elsewhere"}, "connectionSecret": ADMIN})),
        ("ProviderReady", "InvalidSpec"),
        'spec.postgres.connectionSecret.namespace: namespace "databases" differs from that of '
        'spec.postgres.clusterRef, "elsewhere"',
    ),
    Told(
        "unclaimed-without-namespace",
        "a provider without a claim has no namespace of its own",
        world(_pg(connectionSecret={"name": "memory-admin"})),
        ("ProviderReady", "InvalidSpec"),
        "spec.postgres.connectionSecret.namespace: a provider without a claim has no namespace of its own: set it",
    ),
    Told(
        "unknown-type",
        "an object that an XRD of another version let through",
        world({**provider(), "spec": {"type": "mongodb"}}),
        ("ProviderReady", "InvalidSpec"),
        "provider \"pg\": spec.type: 'mongodb' is refused",
    ),
    Told(
        "typed-composition",
        "memory-postgres serves one type, whatever the function can",
        world({**provider(), "spec": {"type": "redis"}}).but(settings=pipeline_input("memory-postgres")),
        ("ProviderReady", "InvalidSpec"),
        'provider "pg": it is of type "redis" and this Composition serves "postgres": '
        'name a provider of type "postgres", or use a Composition that serves "redis"',
    ),
    Told(
        "no-server",
        "neither cluster nor host",
        world({**provider(), "spec": {"type": "postgres", "postgres": {"connectionSecret": ADMIN}}}),
        ("ProviderReady", "InvalidSpec"),
        "spec.postgres: clusterRef (a CloudNativePG Cluster) or host (any other PostgreSQL): neither is set: write one",
    ),
    Told(
        "no-block",
        "the block named by type is missing",
        world({**provider(), "spec": {"type": "postgres"}}),
        ("ProviderReady", "InvalidSpec"),
        'spec.postgres: a provider of type "postgres" needs this block: add it',
    ),
    Told(
        "ca-not-published",
        "the function may not read the cluster's CA Secret: the probe publishes it",
        world(provider(postgres={"clusterRef": {"name": "db", "namespace": "databases"}, "connectionSecret": ADMIN})),
        ("ProviderReady", "NotReady"),
        'provider "pg" is not ready: its first probe, which publishes the cluster\'s CA, has not answered yet',
    ),
    Told(
        "provider-not-composed",
        "what Crossplane writes over our conditions when its reconcile failed says nothing to an app team",
        world(
            provider(ready=False)
            | {"status": {"conditions": [{"type": "BackendReady", "status": "Unknown", "message": "A fatal error"}]}}
        ),
        ("ProviderReady", "NotReady"),
        'provider "pg" is not ready: Crossplane could not compose it; see the events of XMemoryProvider "pg"',
    ),
    Told(
        "provider-not-probed",
        "the Job is rendered all the same: it waits for the backend by itself",
        world(provider(ready=False)),
        ("ProviderReady", "NotReady"),
        'provider "pg" is not ready: it has not been probed yet',
    ),
    Told(
        "provider-unreachable",
        "what the probe says is passed on",
        world(_down()),
        ("ProviderReady", "NotReady"),
        'provider "pg" is not ready: nobody answers at db.example.com:5432',
    ),
    Told(
        "no-vectors",
        "enablePgVector: false is the platform team's word",
        world(_pg(enablePgVector=False)),
        ("Provisioned", "ModuleUnsupported"),
        'spec.embeddings.enabled: provider "pg" has no pgvector (postgres.enablePgVector is false): '
        "set embeddings.enabled to false, or choose another provider",
    ),
    Told(
        "no-root-key",
        "the Composition names no credential",
        _without_root_key(),
        ("CredentialsReady", "RootKeyMissing"),
        'the pipeline step has no credential "root-key": add it to the Composition',
    ),
    Told(
        "empty-root-key",
        "the Secret has other keys",
        _root_key(password=ROOT_KEY),
        ("CredentialsReady", "RootKeyMissing"),
        'credential "root-key" key "current": there is no root key in it: add it',
    ),
    Told(
        "short-root-key",
        "31 bytes are not 32",
        _root_key(current=ROOT_KEY[1:]),
        ("CredentialsReady", "RootKeyMissing"),
        'credential "root-key" key "current": the root key has 31 bytes: write at least 32 random ones',
    ),
    Told(
        "root-key-replaced",
        "without previous nothing changes",
        _settled(credentials={"root-key": {"current": bytes(32)}}),
        ("CredentialsReady", "UnknownRootKey"),
        "this Memory's passwords come from root key 630dcd29, which is neither current nor previous any more: "
        "nothing was changed; put that key back under previous",
    ),
    Told(
        "first-answer",
        "the Secret appears when the Job is complete",
        world(),
        ("CredentialsReady", "WaitingForBackend"),
        "the connection Secret appears when the backend is provisioned",
    ),
    Told(
        "switch",
        "data does not move by itself",
        _settled().with_spec(providerRef={"name": "other"}),
        ("ProviderReady", "SwitchRefused"),
        'spec.providerRef: this Memory\'s data is on provider "pg"; switching to "other" would leave it behind: '
        "set providerRef back, or make a new claim",
    ),
    Told(
        "server-moved",
        "a pinned provider is held to what it was",
        _settled(
            providers=(provider(postgres={"host": "new.example.com", "caBundle": CA, "connectionSecret": ADMIN}),)
        ),
        ("ProviderReady", "Changed"),
        'provider "pg" is not what this Memory was made on (host was db.example.com and is new.example.com): '
        "nothing was moved; put the provider back as it was, or make a new claim for the new backend",
    ),
    Told(
        "bad-spec",
        "a spec that the XRD would have refused",
        world().with_spec(dataset__name="UPPER"),
        ("Provisioned", "BadRequest"),
        "spec.dataset.name: 'UPPER' is refused: string should match pattern",
    ),
    Told(
        "long-value",
        "a sentence is read in a terminal",
        world().with_spec(searchConfig="x" * 200),
        ("Provisioned", "BadRequest"),
        f"spec.searchConfig: 'x{'x' * 75}... is refused",
    ),
    Told(
        "no-claim-no-namespace-to-look-in",
        "a composite without a claim looks for shared providers only",
        world(memory_xr=memory(claim=None)).but(providers=()),
        ("ProviderReady", "NotFound"),
        'there is no provider "pg" (no unclaimed XMemoryProvider of that name)',
    ),
    Told(
        "unknown-field",
        "a field of a later version",
        world().with_spec(state="Archived"),
        ("Provisioned", "BadRequest"),
        "spec.state: this field is not known: remove it",
    ),
]


@pytest.mark.parametrize("case", TOLD, ids=lambda case: case.name)
def test_says_what_is_wrong_and_what_to_do(case: Told) -> None:
    answer = run(case.world)
    kind, reason = case.condition
    assert answer.conditions[kind] == (False, reason), case.reason
    assert case.sentence in answer.message(kind), case.reason
    assert not answer.fatal


@pytest.mark.parametrize("case", TOLD, ids=lambda case: case.name)
def test_what_is_wrong_removes_nothing(case: Told) -> None:
    """Of a Memory that works, in the same trouble."""
    settled = settle(world())[0]
    before = set(settled.observed)
    xr = {**case.world.xr, "status": settled.xr["status"]}
    troubled = case.world.but(observed=settled.observed, xr=xr)
    assert before <= set(run(troubled).resources), case.reason


def test_typed_composition_serves_its_type() -> None:
    assert run(world().but(settings=pipeline_input("memory-postgres"))).jobs()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"delivery": "Pigeon"}, "cannot read the Composition's input.delivery: 'Pigeon' is refused"),
        ({"rootkey": "x"}, "cannot read the Composition's input.rootkey: this field is not known: remove it"),
        ({"migrations": {}}, "cannot read the Composition's input.migrations.image: this field is required: set it"),
        ({"jobs": {"nodeselector": {}}}, "input.jobs.nodeselector: this field is not known: remove it"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else None,
)
def test_input_that_can_never_work_is_fatal_once_requirements_are_resolved(change: Object, sentence: str) -> None:
    wrong = world().but(settings={**pipeline_input(), **change})
    assert sentence in run(wrong).fatal
    unresolved = run(wrong.but(resolved=False))
    assert not unresolved.fatal, "a Fatal stops the loop before anything is fetched"
    assert unresolved.ttl == 0


def test_a_claim_becomes_ready_when_its_job_is_complete_and_its_secret_exists() -> None:
    start = world()
    first, answer = step(start)
    assert answer.conditions["Provisioned"] == (False, "Running")
    assert "binding" not in answer.resources
    second, answer = step(first)
    assert "binding" not in answer.resources, "the Job still runs"
    third, answer = step(second)
    assert "binding" in answer.resources
    assert not answer.ready, "the Secret does not exist yet"
    _, answer = step(third)
    assert answer.ready
    assert [kind for kind, (holds, _) in answer.conditions.items() if not holds] == ["InSync"], "nobody has looked yet"
    assert answer.ttl == 600


def test_status_says_what_is_applied() -> None:
    status = settle(world(memory_xr=memory(access={"readOnlySecret": True})))[1].status
    assert status["endpoint"] == "db.example.com:5432"
    assert (status["database"], status["schema"], status["providerType"]) == ("app", "notes", "postgres")
    assert status["connectionSecretRef"] == {"name": "notes-memory", "namespace": "team-a"}
    assert status["binding"] == {"name": "notes-memory"}
    assert status["readerSecretRef"] == {"name": "notes-memory-reader", "namespace": "team-a"}
    assert status["credentials"] == {"epoch": 0, "slot": "a", "keyId": "630dcd29"}
    assert status["delivery"] == "Direct"
    assert {**status["provider"], "uid": "x"} == {
        "name": "pg",
        "type": "postgres",
        "uid": "x",
        "via": "Shared",
        "host": "db.example.com",
        "port": 5432,
        "database": "app",
        "isolation": "Schema",
        "roleManagement": "SQL",
    }


def test_binding_holds_the_promise_and_the_convenience() -> None:
    answer = settle(world())[1]
    entries = secret_entries(answer.resources["binding"])
    assert set(entries) == {
        *("type", "provider", "endpoint", "host", "port", "database", "schema", "username", "password", "uri"),
        *("sslmode", "certificates", "ca.crt", "dataset", "dimension", "metric", "contract"),
    }
    assert entries["uri"] == (
        f"postgresql://{entries['username']}:{entries['password']}@db.example.com:5432/app?sslmode=verify-full"
    )
    assert len(entries["password"]) == 43


def test_public_certificates_are_named_in_the_uri() -> None:
    entries = secret_entries(settle(world(_pg()))[1].resources["binding"])
    assert entries["uri"].endswith("?sslmode=verify-full&sslrootcert=system")
    assert "ca.crt" not in entries


def test_without_embeddings_there_is_no_dimension() -> None:
    entries = secret_entries(settle(world(memory_xr=memory(embeddings={"enabled": False})))[1].resources["binding"])
    assert not {"dimension", "metric"} & set(entries)


def test_an_ipv6_host_stands_in_brackets() -> None:
    entries = secret_entries(settle(world(_pg(host="fd00::7", sslMode="require")))[1].resources["binding"])
    assert entries["endpoint"] == "[fd00::7]:5432"
    assert "@[fd00::7]:5432/" in entries["uri"]


def test_a_composite_without_a_claim_gets_its_secret_where_it_says() -> None:
    plain = memory(claim=None)
    there = settle(world(memory_xr=plain))[1].resources["binding"]["metadata"]
    assert (there["namespace"], there["name"]) == ("databases", "notes-x7k2p-memory")


def test_a_secret_that_a_composite_names_is_written_by_crossplane() -> None:
    """Crossplane writes it on every reconcile under its own type: composed as well, each would undo the other."""
    plain = memory(claim=None, access={"readOnlySecret": True})
    plain["spec"]["writeConnectionSecretToRef"] = {"namespace": "apps", "name": "mine"}
    started, first = step(world(memory_xr=plain))
    assert not first.response.desired.composite.connection_details, "not before the Job is complete"
    settled, answer = settle(started)
    assert answer.ready
    assert "binding" not in answer.resources
    assert answer.status["connectionSecretRef"] == {"namespace": "apps", "name": "mine"}
    details = answer.response.desired.composite.connection_details
    assert set(details) == set(secret_entries(settle(world())[1].resources["binding"]))
    assert answer.resources["binding-reader"]["metadata"]["name"] == "mine-reader"
    for lost in (settled.but(providers=()), settled.but(credentials={}), settled.with_spec(searchConfig="english")):
        assert run(lost).response.desired.composite.connection_details == details


def test_turning_the_reader_off_closes_its_login_and_drops_its_secret() -> None:
    with_reader = settle(world(memory_xr=memory(access={"readOnlySecret": True})))[0]
    assert "binding-reader" in with_reader.observed
    without = with_reader.with_spec(access={"readOnlySecret": False})
    changed, answer = step(without)
    assert "binding-reader" in answer.resources, "not before the Job has closed the login"
    settled, answer = settle(changed)
    assert "binding-reader" not in settled.observed
    assert "readerSecretRef" not in answer.status


def test_the_root_key_may_be_replaced_while_the_previous_one_is_there() -> None:
    settled, before = settle(world())
    ring = {"root-key": {"current": bytes(32), "previous": ROOT_KEY}}
    after = run(settled.but(credentials=ring))
    assert after.resources == before.resources, "logins keep working until their next epoch"


def test_a_made_again_claim_never_brings_an_old_password_back() -> None:
    old = secret_entries(settle(world())[1].resources["binding"])
    again = memory()
    again["metadata"]["uid"] = "another"
    new = secret_entries(settle(world(memory_xr=again))[1].resources["binding"])
    assert old["username"] == new["username"]
    assert old["password"] != new["password"]


def test_events_tell_transitions_only() -> None:
    first, answer = step(world())
    assert {each.reason for each in answer.response.results} == {"Available", "WaitingForBackend", "Running"}
    assert not step(first)[1].response.results
    assert not settle(first)[1].response.results


def test_a_provider_of_ones_own_namespace_comes_before_a_shared_one() -> None:
    mine = provider("pg-x1y2z", ("team-a", "pg"), postgres=OWN)
    answer = run(world(provider(), mine))
    assert answer.status["provider"]["via"] == "Claim"
    assert answer.status["provider"]["namespace"] == "team-a"
    job = answer.resources[answer.jobs()[0]]
    assert job["metadata"]["namespace"] == "team-a"


def test_a_provider_that_is_made_again_as_it_was_is_the_same() -> None:
    settled, before = settle(world())
    again = provider()
    gone = run(settled.but(providers=()))
    assert gone.conditions["ProviderReady"] == (False, "NotFound")
    assert gone.ready, "a Memory that is provisioned stays Ready while its provider is not"
    assert gone.resources == before.resources
    assert run(settled.but(providers=(again,))).resources == before.resources


def test_a_changed_spec_is_not_ready_even_while_the_provider_is_away() -> None:
    settled, _ = settle(world())
    assert not run(settled.but(providers=()).with_spec(searchConfig="english")).ready
    assert not run(settled.but(providers=()).with_spec(access={"readOnlySecret": True})).ready


def test_a_provider_may_be_corrected_before_anything_is_on_it() -> None:
    typo = provider(postgres={"host": "typo.example.com", "caBundle": CA, "connectionSecret": ADMIN})
    stuck, _ = step(world(typo))
    for _ in range(3):
        stuck, _ = step(stuck, code=30)
    corrected, answer = settle(stuck.but(providers=(provider(),)))
    assert answer.ready
    assert answer.status["endpoint"] == "db.example.com:5432"
    other = stuck.but(providers=(provider("other"),)).with_spec(providerRef={"name": "other"})
    assert settle(other)[1].ready, "nor is the claim bound to it"
    assert corrected.observed.keys() != stuck.observed.keys()


def test_a_rotated_ca_reaches_secrets_and_provisions_nobody() -> None:
    settled, before = settle(world())
    rotated = run(
        settled.but(
            providers=(provider(postgres={"host": "db.example.com", "caBundle": CA + CA, "connectionSecret": ADMIN}),)
        )
    )
    assert rotated.jobs() == before.jobs()
    assert secret_entries(rotated.resources["binding"])["ca.crt"] == CA + CA
    assert secret_entries(rotated.resources[rotated.key("request-")])["ca.crt"] == CA + CA


def test_a_rebuilt_image_runs_no_job_again() -> None:
    settled, before = settle(world())
    rebuilt = pipeline_input()
    rebuilt["migrations"] |= {"image": "memory-migrations@sha256:1"}
    assert run(settled.but(settings=rebuilt)).resources == before.resources
    rebuilt["migrations"] |= {"version": rebuilt["migrations"]["version"] + 1}
    assert len(run(settled.but(settings=rebuilt)).jobs()) == 2, "a new contract does"


def test_jobs_run_as_provider_and_composition_say() -> None:
    wishes = {
        "resources": {"limits": {"memory": "1Gi"}},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "db", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "pull"}],
        "activeDeadlineSeconds": 300,
        "serviceAccountName": "memory-jobs",
    }
    answer = run(world(provider(jobs=wishes)))
    spec = answer.resources[answer.jobs()[0]]["spec"]
    pod = spec["template"]["spec"]
    assert spec["activeDeadlineSeconds"] == 300
    assert pod["containers"][0]["env"] == [{"name": "MEMORY_DEADLINE_SECONDS", "value": "300"}]
    assert pod["containers"][0]["resources"] == wishes["resources"]
    assert {key: pod[key] for key in ("nodeSelector", "tolerations", "imagePullSecrets", "serviceAccountName")} == {
        key: wishes[key] for key in ("nodeSelector", "tolerations", "imagePullSecrets", "serviceAccountName")
    }
    settled = settle(world(provider(jobs=wishes)))[1]
    subjects = settled.resources[settled.key("report-binding-")]["subjects"]
    assert subjects == [{"kind": "ServiceAccount", "name": "memory-jobs", "namespace": "databases"}]
    defaults = {**pipeline_input(), "jobs": {"activeDeadlineSeconds": 120}}
    other = run(world().but(settings=defaults))
    assert other.resources[other.jobs()[0]]["spec"]["activeDeadlineSeconds"] == 120


def test_long_names_are_shortened_and_stay_names() -> None:
    long = "a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 61
    answer = settle(world(memory_xr=memory(("team-a", long))))[1]
    for body in answer.resources.values():
        assert catalog().problems(body) == []
    assert len(answer.resources["binding"]["metadata"]["name"]) <= 253 - len("-reader")


def test_v1_answers_requirements_under_their_old_name() -> None:
    old = run(world().but(old_form=True))
    assert old.resources == run(world()).resources
    assert old.response.requirements.resources == old.response.requirements.extra_resources


def test_an_unknown_kind_is_fatal() -> None:
    strange = world()
    assert (
        "this function serves XMemory and XMemoryProvider"
        in run(strange.but(xr={**strange.xr, "kind": "XQueue"})).fatal
    )


def test_job_report_gives_the_detail_of_its_own_hash_only() -> None:
    started, answer = step(world())
    (key,) = answer.jobs()
    report = next(name for name, body in answer.resources.items() if body["kind"] == "ConfigMap")
    wanted = key.split("-")[1]
    seen = {**started.observed, key: failed(started.observed[key], 11)}
    said = {**seen, report: reported(seen[report], "provision", hash=wanted, code=11, message="1536 is not 768")}
    assert run(started.but(observed=said)).message("Provisioned") == "1536 is not 768"
    stale = {**seen, report: reported(seen[report], "provision", hash="0000000000", code=11, message="old news")}
    assert "exit code 11" in run(started.but(observed=stale)).message("Provisioned")
    broken = {**seen, report: {**seen[report], "data": {"provision": "{not json"}}}
    assert "exit code 11" in run(started.but(observed=broken)).message("Provisioned")


def _answer_of_complete(start: World) -> Answer:
    started, answer = step(start)
    (key,) = answer.jobs()
    return run(started.but(observed={**started.observed, key: complete(started.observed[key])}))


def test_the_answer_to_a_complete_job_hands_out_the_binding() -> None:
    assert "binding" in _answer_of_complete(world()).resources
