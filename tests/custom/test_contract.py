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


HOMES = """
import json, sys
from contextlib import contextmanager
from provisioner import cluster, homes
from provisioner.contract import Code, Failure

case = json.loads(sys.argv[1])
done = []


class Backend:
    def __init__(self):
        self.ledger = {each["home"]: each for each in case["homes"]}

    @contextmanager
    def locked(self, home):
        if home in case.get("busy", []):
            raise Failure(Code.LOCK_BUSY, f"{home} is busy")
        yield

    def entries(self): return list(self.ledger.values())
    def entry(self, home): return self.ledger.get(home)
    def save(self, entry): self.ledger[entry["home"]] = entry
    def close(self, login): done.append(f"close {login}"); return True
    def reopen(self, login): done.append(f"open {login}")
    def drop(self, entry): done.append(f"drop {entry['home']}"); del self.ledger[entry["home"]]


cluster.memories = lambda request: case["memories"]
backend, answers = Backend(), []
for _ in range(case["runs"]):
    answers.append(homes.Reaper(case["request"], backend).run())
print(json.dumps({"done": done, "answers": answers, "ledger": backend.entries()}))
"""


def home(name: str, **changes: Any) -> Object:
    entry = {"home": name, "identity": f"team-a/{name}", "uid": f"uid-of-{name}", "composite": f"composite-of-{name}"}
    stamps = {"goneSince": None, "closedAt": None, "closed": [], "logins": [f"login-of-{name}"]}
    policy = {"deletionPolicy": "Retain", "legalHold": False, "providerUid": "u"}
    return {**entry, **stamps, **policy, **changes}


def reaped(homes: list[Object], present: list[str] | dict[str, str], runs: int = 2, **changes: Any) -> Object:
    """Runs the template's reaper on a ledger; `present` are the homes that have a Memory, or Memories by key."""
    known = present if isinstance(present, dict) else {f"uid-of-{each}": f"team-a/{each}" for each in present}
    request = {**documents()["Reap"], "claim": None, **changes.pop("request", {})}
    case = {"homes": homes, "memories": known, "runs": runs, "request": request, **changes}
    command = [sys.executable, "-c", HOMES, json.dumps(case)]
    found: Object = json.loads(subprocess.run(command, cwd=TEMPLATE, capture_output=True, check=True).stdout)
    return found


def test_the_templates_reaper_closes_what_is_missing_twice_and_drops_what_was_to_go() -> None:
    homes = [
        home("a"),
        home("b"),
        home("c", deletionPolicy="Delete"),
        home("d", deletionPolicy="Delete", legalHold=True),
    ]
    assert reaped(homes, ["a"], runs=1)["done"] == []
    assert reaped(homes, ["a"])["done"] == ["close login-of-b", "close login-of-c", "drop c", "close login-of-d"]
    kept = reaped(homes, ["a"], request={"deletionGraceSeconds": 3600})
    assert kept["done"] == ["close login-of-b", "close login-of-c", "close login-of-d"]
    assert kept["answers"][-1] == [0, "homes: 1 in use, 3 closed", {"inUse": 1, "missing": 0, "closed": 3}]


def test_the_templates_reaper_waits_for_a_person_when_many_are_missing_at_once() -> None:
    homes = [home(f"h{number}") for number in range(9)]
    found = reaped(homes, ["h0", "h1"])
    assert found["done"] == []
    code, message, counts = found["answers"][-1]
    assert (code, counts) == (Code.ON_HOLD, {"inUse": 9, "missing": 7})
    approved = message.rsplit(" ", 1)[-1]
    assert len(reaped(homes, ["h0", "h1"], request={"approved": approved})["done"]) == 7
    assert reaped(homes, ["h0", "h2"], request={"approved": approved})["done"] == []


def test_the_templates_reaper_leaves_others_homes_and_goes_on_after_one_that_is_busy() -> None:
    homes = [home("a"), home("b"), home("other", providerUid="another"), home("far", identity="team-b/far")]
    found = reaped(homes, [], busy=["a"])
    assert found["done"] == ["close login-of-b", "close login-of-far"]
    assert found["answers"][-1][:2] == [Code.LOCK_BUSY, "a is busy"]
    # A tenant's sees the claims of its own namespace, by the composites that they are bound to.
    tenant = {"claim": {"namespace": "team-a", "name": "p"}}
    assert reaped(homes, {"composite-of-a": "team-a/a"}, request=tenant)["done"] == ["close login-of-b"]


def test_the_templates_reaper_keeps_a_home_that_somebody_of_that_name_may_adopt() -> None:
    found = reaped([home("a", deletionPolicy="Delete")], {"uid-of-another": "team-a/a"}, runs=3)
    assert found["done"] == ["close login-of-a"]
    back = reaped(found["ledger"], ["a"], runs=1)
    assert back["done"] == ["open login-of-a"]
    assert [back["ledger"][0][key] for key in ("goneSince", "closedAt", "closed")] == [None, None, []]
