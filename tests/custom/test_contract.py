"""The contract of custom backends: its schema, the template that keeps it, and the kit that finds who does not."""

import copy
import json
import runpy
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from migrations.errors import Code
from scripts import contract
from tests.custom.conftest import EXAMPLE, TEMPLATE, Server
from tests.schemas import ROOT

Object = dict[str, Any]
SCHEMA = json.loads((TEMPLATE / "provisioner" / "request.schema.json").read_text())


def documents() -> dict[str, Object]:
    """Gives a request of each command, as the function renders them: the schema's own words are tried with these."""
    provider = {"type": "custom", "name": "p", "uid": "u", "endpoint": "h:1", "host": "h", "port": 1, "database": "d"}
    base = {"version": 1, "hash": "0123456789", "provider": provider, "report": {"namespace": "n", "name": "r"}}
    claim = {"namespace": "team-a", "name": "p"}
    index = {"type": "auto", "minRows": 1}
    login = {"name": "mem_1_rw_a", "role": "writer", "slot": "a", "state": "active"}
    provision = {
        "identity": "team-a/notes",
        "uid": "u",
        "composite": "c",
        "epoch": 0,
        "keyId": "k",
        "database": "d",
        "dataset": {"name": "notes", "schema": "notes", "searchConfig": "simple"},
        "embeddings": {"enabled": False, "dimension": 3, "metric": "cosine", "storage": "auto", "index": index},
        "access": {"readerRole": None, "writerRole": "auditors"},
        "retention": {"ttlDays": 1},
        "modules": ["core"],
        "logins": [login],
        "legalHold": False,
        "adoption": {"adopt": False, "policy": "Require", "from": None},
        "deletionPolicy": "Retain",
    }
    return {
        "Probe": base,
        "Provision": {**base, **provision},
        "Reap": {**base, "claim": claim, "deletionGraceSeconds": 0, "approved": ""},
        "Maintain": {**base, "claim": None, "driftPolicy": "Report", "workMem": "64MB"},
    }


def changed(document: Object, path: str, value: object) -> Object:
    document = copy.deepcopy(document)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target: Any = document
    for part in parents:
        target = target[part]
    target[last] = value
    return document


BAD = [
    ("Provision", "version", 2, "version is not 1"),
    ("Provision", "surprise", "hunter2", "surprise is unknown"),
    ("Provision", "provider.password", "hunter2", "provider.password is unknown"),
    ("Provision", "provider.port", "3306", "provider.port is not of type integer"),
    ("Provision", "provider.port", True, "provider.port is not of type integer"),
    ("Provision", "provider.port", 65536, "provider.port is more than 65535"),
    ("Provision", "epoch", -1, "epoch is less than 0"),
    ("Provision", "identity", "", "identity is shorter than 1"),
    ("Provision", "database", "d" * 64, "database is longer than 63"),
    ("Provision", "modules", [], "modules has fewer than 1 items"),
    ("Provision", "logins.0.state", "open", "logins[0].state is none of"),
    ("Provision", "logins.0", None, "logins[0] is not of type object"),
    ("Provision", "dataset.schema", "Notes", "dataset.schema does not match"),
    ("Provision", "adoption.from", 5, "adoption.from is not of type string"),
    ("Reap", "claim", {"namespace": "team-a"}, "claim.name is missing"),
    ("Maintain", "workMem", "much", "workMem does not match"),
    ("Probe", "report", [], "report is not of type object"),
]


@pytest.fixture(scope="module")
def problems() -> Callable[..., list[str]]:
    """The template's own reader of schemas."""
    found: Callable[..., list[str]] = runpy.run_path(str(TEMPLATE / "provisioner" / "schema.py"))["problems"]
    return found


def test_the_schema_is_that_of_our_own_models() -> None:
    for file in contract.FILES:
        assert file.read_text() == contract.text(), "python -m scripts.contract writes it anew"


def test_the_example_is_the_template_but_for_its_backend() -> None:
    ours = {path.name: path.read_bytes() for path in (TEMPLATE / "provisioner").glob("*.*")}
    theirs = {path.name: path.read_bytes() for path in (EXAMPLE / "image" / "provisioner").glob("*.*")}
    assert ours.pop("backend.py") != theirs.pop("backend.py")
    assert ours == theirs


@pytest.mark.parametrize("name", documents())
def test_a_request_is_valid_by_the_template_and_by_any_other_reader(
    name: str, problems: Callable[..., list[str]]
) -> None:
    wanted = {"$ref": f"#/$defs/{name}"}
    assert problems(documents()[name], wanted, SCHEMA) == []
    jsonschema.validate(documents()[name], {**SCHEMA, **wanted})


@pytest.mark.parametrize(("name", "path", "value", "sentence"), BAD)
def test_what_the_schema_refuses_is_a_sentence_without_the_value(
    name: str, path: str, value: object, sentence: str, problems: Callable[..., list[str]]
) -> None:
    """And so says the reference implementation: the template's reader is neither more nor less strict."""
    document, wanted = changed(documents()[name], path, value), {"$ref": f"#/$defs/{name}"}
    [problem] = problems(document, wanted, SCHEMA)
    assert problem.startswith(sentence)
    assert "hunter2" not in problem
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, {**SCHEMA, **wanted})


def test_codes_and_reasons_are_those_of_our_own_image() -> None:
    code = "import json; from provisioner.contract import Code; print(json.dumps({each.reason: each for each in Code}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=TEMPLATE, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {each.reason: each.value for each in Code}


def test_every_code_and_file_of_the_contract_is_documented() -> None:
    text = (ROOT / "docs" / "custom.md").read_text()
    for each in Code:
        assert each is Code.USAGE or each.reason in text
    for name in ("MEMORY_DEADLINE_SECONDS", "MEMORY_CONFIG_DIR", "MEMORY_REPORT_FILE", "login/<login name>", "65532"):
        assert name in text


def test_the_example_in_the_documentation_is_a_request() -> None:
    text = (ROOT / "docs" / "custom.md").read_text().split("`provision` reads\n\n```json\n")[1].split("```")[0]
    document = json.loads(text)
    document["logins"] = [each for each in document["logins"] if each != "…"]
    jsonschema.validate(document, {**SCHEMA, "$ref": "#/$defs/Provision"})


QUICK = ("usage", "probe", "report", "bad_request", "provision", "rotation", "conflict", "maintain", "reap", "secrets")


def test_the_template_keeps_the_contract(toy: Server) -> None:
    code, output = toy.kit(*QUICK)
    assert code == 0, output
    assert [line.split()[0] for line in output.splitlines()] == ["ok"] * len(QUICK), output


@pytest.mark.long
def test_the_template_keeps_the_whole_contract(toy: Server) -> None:
    """With provisioners that are killed, eight at once, a server that is away; and all is removed again."""
    code, output = toy.kit(more=())
    assert code == 0, output


# What each does instead of, or beside, what the template does.
BROKEN = [
    ("provision", "it logs a password", 'cat "$MEMORY_DIR"/login/* >&2 2>/dev/null; {run}', "secrets"),
    ("bad_request", "it takes any request", "{run} || true", "bad_request"),
    ("report", "its last line is no report", "{run}; code=$?; echo done >&2; exit $code", "report"),
    ("report", "it writes no report", "MEMORY_REPORT_FILE=/nowhere/report {run}", "report"),
    ("conflict", "it takes what is somebody else's", "{run}; test $? = 0 -o $? = 20", "conflict"),
    ("usage", "it does not know its commands", "{run}; exit 0", "usage"),
]


@pytest.mark.parametrize(
    ("check", "script", "failed"), [(a, c, d) for a, _, c, d in BROKEN], ids=[b for _, b, _, _ in BROKEN]
)
def test_the_kit_finds_who_breaks_the_contract(
    toy: Server, tmp_path: Path, check: str, script: str, failed: str
) -> None:
    program = tmp_path / "provisioner"
    program.write_text("#!/bin/sh\n" + script.replace("{run}", f'{toy.command} "$@"') + "\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    code, output = toy.kit(check, "secrets", command=shlex.quote(str(program)))
    assert code == 1, output
    assert f"FAILED {failed}: " in output
