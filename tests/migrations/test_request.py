"""The request document: what is refused, and the sentence that says what to write instead."""

import copy
import json
from typing import Any

import pytest

from migrations.errors import Code, CommandError
from migrations.postgres.names import names_of
from migrations.postgres.request import ProbeRequest, ProvisionRequest
from migrations.request import parse
from tests.migrations.documents import Command, Memory


def _changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(document)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target: Any = document
    for part in parents:
        target = target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return document


BAD = [
    pytest.param("version", 2, "version: Input should be 1 (it is 2)", id="another contract"),
    pytest.param("surprise", 1, "surprise: Extra inputs are not permitted", id="a key that nobody knows"),
    pytest.param(
        "provider.password",
        "plaintext",
        "provider.password: Extra inputs are not permitted",
        id="an unknown key may hold a secret, so its value is not shown",
    ),
    pytest.param("uid", ..., "uid: Field required", id="a key is missing"),
    pytest.param("identity", "", 'identity: String should have at least 1 character (it is "")', id="nobody's"),
    pytest.param(
        "provider.port",
        "5432",
        'provider.port: Input should be a valid integer (it is "5432")',
        id="a number as text is a mistake in the renderer",
    ),
    pytest.param(
        "provider.sslMode",
        "prefer",
        "provider.sslMode: Input should be 'disable', 'require', 'verify-ca' or 'verify-full' (it is \"prefer\")",
        id="an sslMode that a man in the middle could switch off",
    ),
    pytest.param(
        "embeddings.dimension",
        16001,
        "embeddings.dimension: Input should be less than or equal to 16000 (it is 16001)",
        id="more dimensions than pgvector has",
    ),
    pytest.param(
        "embeddings.index.type",
        "flat",
        "embeddings.index.type: Input should be 'auto', 'none', 'hnsw' or 'ivfflat' (it is \"flat\")",
        id="an index that pgvector has not",
    ),
    pytest.param(
        "embeddings.index.minRows",
        0,
        "embeddings.index.minRows: Input should be greater than or equal to 1 (it is 0)",
        id="an index that nothing earns",
    ),
    pytest.param("embeddings.index", ..., "embeddings.index: Field required", id="a renderer of before maintenance"),
    pytest.param(
        "dataset.schema",
        "memory_ledger",
        "dataset.schema: is reserved: choose a schema that is not public, information_schema, pg_*, cnpg_* or "
        'memory_* (it is "memory_ledger")',
        id="a schema of ours",
    ),
    pytest.param(
        "dataset.schema",
        "Notes",
        "dataset.schema: String should match pattern '^[a-z_][a-z0-9_]{0,62}$' (it is \"Notes\")",
        id="a schema that needs quotes",
    ),
    pytest.param("dataset.name", "x" * 200, f'it is "{"x" * 79}…', id="a long value is shortened"),
    pytest.param(
        "logins.0.verifier",
        "plaintext-password",
        "logins[0].verifier: is no SCRAM-SHA-256 verifier: write SCRAM-SHA-256$",
        id="a plaintext password would stand in the server's statement log",
    ),
    pytest.param(
        "logins.0.state",
        "closed",
        'logins[0]: login a of the writer is closed: exactly an "active" one carries a verifier',
        id="a verifier for a closed login",
    ),
    pytest.param(
        "logins.1.state",
        "active",
        'logins[1]: login b of the writer is active: exactly an "active" one carries a verifier',
        id="an active login without a verifier",
    ),
    pytest.param(
        "provider.statementTimeout",
        "30s'; DROP",
        "provider.statementTimeout: String should match pattern",
        id="a timeout is a number and a unit",
    ),
    pytest.param("modules", [], "modules: List should have at least 1 item", id="core is always there"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), BAD)
def test_bad_request_is_20_with_a_sentence(
    memory: Memory, command: Command, path: str, value: Any, sentence: str
) -> None:
    document = _changed(memory.document(), path, value)
    answer = command.run("provision", document, memory.database.server.admin)
    assert (answer.code, answer.report["reason"]) == (20, "BadRequest")
    assert answer.message.startswith("bad request document: ")
    assert sentence in answer.message
    assert "plaintext" not in str(answer)


def test_three_mistakes_are_told_and_the_others_counted(memory: Memory) -> None:
    document = memory.document()
    for key in ("uid", "hash", "modules", "logins", "report"):
        del document[key]
    with pytest.raises(CommandError) as caught:
        parse(document, ProvisionRequest)
    assert caught.value.message.count("Field required") == 3
    assert caught.value.message.endswith("; and 2 more")


def test_not_an_object(memory: Memory) -> None:
    assert memory
    with pytest.raises(CommandError, match=r"^bad request document: document: Input should be"):
        parse(["a", "list"], ProbeRequest)


@pytest.mark.parametrize(
    "logins",
    [
        pytest.param(lambda logins: logins[:3], id="one is missing"),
        pytest.param(lambda logins: [*logins, logins[1]], id="one is there twice"),
        pytest.param(lambda _: [], id="none"),
        pytest.param(lambda logins: [{**logins[0], "name": "postgres"}, *logins[1:]], id="somebody else's login"),
        pytest.param(
            lambda logins: [{**logins[0], "name": logins[0]["name"].replace("mem_", "mem_0")}, *logins[1:]],
            id="another Memory's login",
        ),
        pytest.param(
            lambda logins: [*logins[:2], {**logins[2], "role": "writer"}, logins[3]],
            id="a reader's name with a writer's rights",
        ),
    ],
)
def test_logins_are_the_four_of_this_memory(memory: Memory, command: Command, logins: Any) -> None:
    document = memory.document()
    document["logins"] = logins(document["logins"])
    answer = command.run("provision", document, memory.database.server.admin)
    assert answer.code == 20
    assert f'are not the four of "team-a/notes" in database "{memory.database.name}"' in answer.message
    assert f"{memory.prefix}_rw_a, {memory.prefix}_rw_b, {memory.prefix}_ro_a, {memory.prefix}_ro_b" in answer.message


def test_names_are_derived_as_the_function_derives_them(memory: Memory) -> None:
    names = names_of(parse(memory.document(), ProvisionRequest))
    assert names.owner == f"{memory.prefix}_owner"
    assert all(len(name) <= 63 for name in names.roles)
    assert memory.identity not in json.dumps([names.roles, names.stamp])


def test_code_names_are_the_conditions_reasons() -> None:
    assert {code.value: code.reason for code in Code} == {
        0: "Succeeded",
        1: "JobFailed",
        10: "ExtensionMissing",
        11: "DimensionConflict",
        12: "ChecksumMismatch",
        13: "PermissionDenied",
        14: "SchemaConflict",
        15: "AdoptionRequired",
        16: "ModuleUnsupported",
        17: "OnHold",
        20: "BadRequest",
        30: "Unreachable",
        31: "LockBusy",
        64: "Usage",
    }
