"""What docs/ says is what the product does: fields, reasons, exit codes, functions, and every SQL example."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from function import conditions
from memoryctl.definitions import ROOT
from memoryctl.objects import Object
from migrations.errors import Code
from tests.memoryctl.conftest import Laptop

DOCS = ROOT / "docs"
API = (DOCS / "api.md").read_text()
DATA_MODEL = (DOCS / "data-model.md").read_text()
REASON = re.compile(r'"([A-Z][A-Za-z]+)"')


def schema(plural: str) -> Any:
    definition = yaml.safe_load((ROOT / "apis" / plural / "definition.yaml").read_text())
    return definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def table(part: Any) -> str:
    """Gives a schema as a table: a row for each field that holds a value."""
    return "\n".join(["| field | type | default | meaning |", "| --- | --- | --- | --- |", *rows(part)])


def rows(part: Any, path: str = "") -> Iterator[str]:
    required = part.get("required", [])
    for name, field in part.get("properties", {}).items():
        inner = field["items"] if field["type"] == "array" else field
        here = f"{path}{name}{'[]' if field['type'] == 'array' else ''}"
        if "properties" in inner:
            yield from rows(inner, f"{here}.")
            continue
        meaning = " ".join(field["description"].split())
        yield f"| `{here}` | {kind(field)}{', required' if name in required else ''} | {default(field)} | {meaning} |"


def kind(field: Any) -> str:
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    limits = [str(field[name]) for name in ("minimum", "maximum") if name in field]
    return " ".join([field["type"], *(["–".join(limits)] if len(limits) == 2 else [])])  # noqa: RUF001  a range


def default(field: Any) -> str:
    value = field.get("default")
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


@pytest.mark.parametrize("plural", ["xmemories", "xmemoryproviders"])
@pytest.mark.parametrize("part", ["spec", "status"])
def test_the_fields_are_those_of_the_xrds(plural: str, part: str) -> None:
    expected = table(schema(plural)["properties"][part])
    assert expected in API, f"docs/api.md needs this table:\n\n{expected}\n"


def test_every_reason_of_a_condition_is_explained() -> None:
    source = (ROOT / "function" / "conditions.py").read_text()
    given = set(REASON.findall(re.sub(r"^[A-Z_]+ = .*$", "", source, flags=re.MULTILINE)))
    reasons = {*given, *conditions.REASONS_BY_EXIT_CODE.values()}
    explained = set(re.findall(r"^\| `[A-Za-z]+` +\| `([A-Za-z]+)`", API, flags=re.MULTILINE))
    assert reasons - {"Available", "Succeeded"} <= explained


def test_the_exit_codes_are_those_of_the_image() -> None:
    explained = {int(code): reason for code, reason in re.findall(r"^\| (\d+) +\| `(\w+)`", API, flags=re.MULTILINE)}
    assert explained == {code.value: code.reason for code in Code}


def functions() -> dict[str, str]:
    """Gives name and arguments of every function that clients call, as the SQL files have them."""
    paths = sorted((ROOT / "migrations" / "postgres" / "sql").glob("*/*.sql"))
    text = "\n".join(path.read_text() for path in paths)
    found = re.findall(r"CREATE FUNCTION @\{schema\}\.(\w+)\(\s*(p_dataset text.*?)\s*\) ?\n?RETURNS", text, re.DOTALL)
    return {name: " ".join(re.sub(r"@\{\w+\}\.", "", arguments).split()) for name, arguments in found}


def test_the_functions_are_those_of_the_data_model() -> None:
    documented = dict(re.findall(r"^### `(\w+)\((.*)\)`$", DATA_MODEL, flags=re.MULTILINE))
    assert len(documented) == 9
    assert documented.items() <= functions().items()


def test_every_example_of_the_data_model_runs(laptop: Laptop, provider: Object, claim: Object, tmp_path: Path) -> None:
    claim["spec"]["embeddings"] = {"dimension": 3}
    assert laptop.up(provider, claim).returncode == 0
    blocks = re.findall(r"^```sql\n(.*?)^```$", DATA_MODEL, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 9
    script = tmp_path / "examples.sql"
    script.write_text("\n".join(blocks))
    with psycopg.connect((laptop.binding / "uri").read_text(), autocommit=True) as connection:
        for statement in script.read_text().split(";"):
            if statement.strip():
                connection.execute(statement.encode())
        row = connection.execute("SELECT key FROM memory_search('notes', p_query => 'tea') LIMIT 1").fetchone()
    assert row == ("likes",)
    keys = {path.name for path in laptop.binding.iterdir() if not path.name.startswith("..")}
    assert keys <= set(re.findall(r"`([a-z.]+)`", API.split("| key | value |")[1].split("###")[0]))
