"""package/monitoring/: every metric that is asked for is there, and every field that is read is in the API."""

from __future__ import annotations

import functools
import re
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from tests.package.monitoring import FOLDER, alerts, dashboard, panels, produced, promtool, queries, read, sources
from tests.schemas import ROOT, composite, definition, objects

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Database
    from tests.schemas import Schema

RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
INSTALL = (ROOT / "docs" / "install.md").read_text()
PLURALS = {"XMemory": "xmemories", "XMemoryProvider": "xmemoryproviders"}
CRONJOBS = re.compile(r'cronjob=~"([^"]+)"')
every_source = pytest.mark.parametrize("source", sources(), ids=lambda source: str(source["groupVersionKind"]["kind"]))
every_alert = pytest.mark.parametrize("name", alerts())


def expressions() -> list[str]:
    """All PromQL that there is."""
    return [*(query.expr for query in queries()), *(rule["expr"] for rule in alerts().values())]


# What kube-state-metrics reads.


@functools.cache
def crd(plural: str) -> dict[str, Any]:
    return composite(definition(plural))


def schema(source: dict[str, Any]) -> Schema:
    """The schema of the composites, with what Crossplane adds to it."""
    wanted = source["groupVersionKind"]
    served = crd(PLURALS[wanted["kind"]])["spec"]
    assert (served["group"], served["names"]["kind"]) == (wanted["group"], wanted["kind"])
    (version,) = [each for each in served["versions"] if each["name"] == wanted["version"]]
    body: Schema = version["schema"]["openAPIV3Schema"]
    return {"properties": {**body["properties"], "metadata": {"properties": {"name": {"type": "string"}}}}}


def at(part: Schema, path: list[str]) -> Schema:
    """The field at a path; fails where there is none."""
    for step in path:
        assert step in part.get("properties", {}), f"there is no {'.'.join(path)}"
        part = part["properties"][step]
    return part


def test_a_path_that_is_nowhere_is_found() -> None:
    with pytest.raises(AssertionError, match=r"there is no status\.data\.lines"):
        at(schema(sources()[0]), ["status", "data", "lines"])


@every_source
def test_every_label_is_a_field(source: dict[str, Any]) -> None:
    for path in source["labelsFromPath"].values():
        assert at(schema(source), path)["type"] == "string"


@every_source
def test_every_value_is_a_field_that_is_a_number(source: dict[str, Any]) -> None:
    for metric in source["metrics"]:
        if metric["each"]["type"] != "Gauge" or metric["name"] == "condition":
            continue
        field = at(schema(source), metric["each"]["gauge"]["path"])
        kind = (field["type"], field.get("format") if field["type"] == "string" else None)
        assert kind in {("integer", None), ("boolean", None), ("string", "date-time")}, metric["name"]


@every_source
def test_conditions_are_read_one_by_one(source: dict[str, Any]) -> None:
    (gauge,) = [each["each"]["gauge"] for each in source["metrics"] if each["name"] == "condition"]
    conditions = at(schema(source), gauge["path"])
    assert conditions["type"] == "array"
    for path in (gauge["valueFrom"], *gauge["labelsFromPath"].values()):
        assert at(conditions["items"], path)["type"] == "string"


def test_the_index_has_the_states_of_the_api() -> None:
    (each,) = [each["each"]["stateSet"] for each in sources()[0]["metrics"] if each["name"] == "index_state"]
    assert each["list"] == at(schema(sources()[0]), each["path"])["enum"]


def test_differences_are_sentences() -> None:
    (each,) = [each["each"]["info"] for each in sources()[0]["metrics"] if each["name"] == "drift_info"]
    field = at(schema(sources()[0]), each["path"])
    assert (field["type"], field["items"]["type"]) == ("array", "string")
    assert each["labelsFromPath"] == {"difference": []}


@every_source
def test_what_is_not_there_yet_is_no_line_in_the_log(source: dict[str, Any]) -> None:
    assert source["errorLogV"] == 10
    assert all(metric["help"].endswith(".") for metric in source["metrics"])


def test_kube_state_metrics_may_see_what_it_reads_and_nothing_else() -> None:
    role, binding = objects(FOLDER / "kube-state-metrics-role.yaml")
    assert [source["groupVersionKind"]["kind"] for source in sources()] == list(PLURALS)
    assert role["rules"] == [
        {
            "apiGroups": ["memory.proompteng.ai"],
            "resources": list(PLURALS.values()),
            "verbs": ["list", "watch"],
        },
        {
            "apiGroups": ["apiextensions.k8s.io"],
            "resources": ["customresourcedefinitions"],
            "verbs": ["list", "watch"],
        },
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


# What is asked of Prometheus.


@pytest.mark.parametrize("expr", expressions())
def test_every_metric_and_label_exists(expr: str) -> None:
    metrics, grouped = read(expr)
    assert metrics
    assert {name for name in metrics if name not in produced()} == set()
    for name, selected in metrics.items():
        assert selected <= produced()[name], name
    assert grouped <= {label for name in metrics for label in produced()[name]}


def test_a_metric_or_a_label_that_is_nowhere_is_found() -> None:
    metrics, grouped = read(
        'sum by (kind, colour) (rate(memory_lines{claim="a-b", claim_name!~"c"}[5m])) > 3 or vector(1)'
    )
    assert metrics == {"memory_lines": {"claim", "claim_name"}}
    assert "memory_lines" not in produced()
    assert grouped == {"kind", "colour"}


def test_what_is_shown_is_there() -> None:
    for query in queries():
        metrics, grouped = read(query.expr)
        there = {label for name in metrics for label in produced()[name]}
        assert query.shown <= (grouped if " by " in query.expr else there), query.panel


def test_every_metric_is_of_use() -> None:
    used = {name for expr in expressions() for name in read(expr)[0]}
    ours = {f"{source['metricNamePrefix']}_{metric['name']}" for source in sources() for metric in source["metrics"]}
    assert ours <= used


def test_cronjobs_of_maintenance_are_found_by_their_names() -> None:
    (pattern,) = {pattern for expr in expressions() for pattern in CRONJOBS.findall(expr)}
    paths = [*ROOT.glob("examples/*/expected/provider.yaml"), *ROOT.glob("examples/cloudnative-pg/expected/*.yaml")]
    rendered = [answer for path in paths for answer in objects(path)]
    bodies = [each["resource"] for answer in rendered for each in answer["resources"].values()]
    composed = [body for body in bodies if body["kind"] == "CronJob"]
    found = {body["metadata"]["name"]: body["metadata"]["labels"]["app.kubernetes.io/component"] for body in composed}
    assert {name for name in found if re.fullmatch(pattern, name)} == {
        name for name, component in found.items() if component == "maintain"
    }
    assert {name.partition("-")[0] for name in found if re.fullmatch(pattern, name)} == {"memory", "mem"}


@every_alert
def test_an_alert_speaks_of_conditions_that_there_are(name: str) -> None:
    known = set(re.findall(r"^\| `(\w+)` +\| `(\w+)`", API, flags=re.MULTILINE))
    for selectors in re.findall(r"condition\{([^}]*)\}", alerts()[name]["expr"]):
        kind, *reasons = re.findall(r'(?:type|reason)!?="(\w+)"', selectors)
        assert kind in {"Ready", *(each for each, _ in known)}
        assert {(kind, reason) for reason in reasons} <= known


# The dashboard.


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert panel["datasource"]["uid"] == "${datasource}"
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        here = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not here & taken, panel["title"]
        taken |= here
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def test_memories_are_chosen_by_namespace_and_name() -> None:
    names = [variable["name"] for variable in dashboard()["templating"]["list"]]
    assert names == ["datasource", "namespace", "claim"]
    filtered = {query.panel for query in queries() if "claim_namespace=~" in query.expr}
    assert len(filtered) > 15
    for variable in dashboard()["templating"]["list"][1:]:
        # Of a composite without a claim there is neither label, and "all" has it too.
        assert variable["allValue"] == ".*"
        ((asked, label),) = re.findall(r"^label_values\((.*), (\w+)\)$", variable["definition"])
        assert variable["query"]["query"] == variable["definition"]
        for metric, selected in read(asked)[0].items():
            assert {label, *selected} <= produced()[metric]


# Runbooks.


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOKS, flags=re.MULTILINE)
    assert sorted(sections) == sorted(alerts())


@every_alert
def test_an_alert_says_what_is_wrong_and_where_to_read_on(name: str) -> None:
    rule = alerts()[name]
    (source,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"].values()
    said = rule["annotations"]
    assert said["runbook_url"] == f"{source}/blob/main/docs/runbooks.md#{name.lower()}"
    assert said["summary"]
    assert said["description"].endswith(".")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert re.fullmatch(r"\d+[mhd]", rule["for"])


@every_alert
def test_a_runbook_says_what_to_look_at_and_what_to_do(name: str) -> None:
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", RUNBOOKS, flags=re.MULTILINE | re.DOTALL)
    assert "**It means.**" in section
    assert "**To see.**" in section
    assert "**To do.**" in section


def test_fields_that_runbooks_and_alerts_name_are_in_the_api() -> None:
    said = RUNBOOKS + "".join(rule["annotations"]["description"] for rule in alerts().values())
    named = {
        *(tuple(path.split(".")) for path in re.findall(r"\b((?:spec|status)\.[\w.]*\w)", said)),
        *(("spec", *path.split(".")) for path in re.findall(r"(?<!\.)\b((?:maintenance|jobs)\.[a-z]\w+)", said)),
    }
    assert {("spec", "maintenance", "workMem"), ("spec", "retention", "ttlDays"), ("status", "drift")} <= named
    for path in named:
        assert any(is_there(schema(source), path) for source in sources()), ".".join(path)


def is_there(part: Schema, path: tuple[str, ...]) -> bool:
    """Whether a schema has a field at a path."""
    for step in path:
        part = part.get("properties", {}).get(step, {})
    return bool(part)


def test_words_that_are_looked_for_in_our_logs_are_logged() -> None:
    code = "".join(path.read_text() for part in ("function", "migrations") for path in (ROOT / part).rglob("*.py"))
    words = re.findall(r"'\"?([a-z ]+)\"?'", "".join(re.findall(r"\| grep .*", RUNBOOKS)))
    assert {"a step failed", "identities", "failed", "told"} == set(words)
    for word in words:
        assert f'"{word}"' in code or f"{word}=" in code, word


def test_links_of_the_runbooks_lead_somewhere() -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", RUNBOOKS):
        path = ROOT / "docs" / (target or "runbooks.md")
        titles = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, f"{target}#{anchor}"


# The files together.


def test_the_guide_names_what_the_kustomization_makes() -> None:
    (kustomization,) = objects(FOLDER / "kustomization.yaml")
    generated = [name for each in kustomization["configMapGenerator"] for name in each["files"]]
    assert {path.name for path in FOLDER.iterdir()} == {"kustomization.yaml", *kustomization["resources"], *generated}
    for each in kustomization["configMapGenerator"]:
        assert each["name"] in INSTALL
    assert "package/monitoring" in INSTALL
    assert "runbooks.md" in INSTALL


def test_the_functions_pods_are_found() -> None:
    (monitor,) = objects(FOLDER / "pod-monitor.yaml")
    runtime, *_ = objects(ROOT / "package" / "install" / "runtime.yaml")
    pod = runtime["spec"]["deploymentTemplate"]["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
    assert {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]} == ports


def test_promtool_understands_every_panel(tmp_path: Path) -> None:
    rules = [{"record": "panel", "labels": {"panel": str(n)}, "expr": q.expr} for n, q in enumerate(queries())]
    done = promtool(tmp_path, "check", "rules", "rules.yaml", rules={"groups": [{"name": "panels", "rules": rules}]})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(rules)} rules found" in done.stdout


def test_the_runbooks_sql_runs(database: Database) -> None:
    blocks = re.findall(r"```sql\n(.*?)```", RUNBOOKS, flags=re.DOTALL)
    assert blocks
    with database.connect() as connection:
        for statement in ";".join(blocks).split(";"):
            connection.execute(statement)


def test_the_runbooks_commands_are_shell() -> None:
    for block in re.findall(r"```shell\n(.*?)```", RUNBOOKS, flags=re.DOTALL):
        subprocess.run(["bash", "-n"], input=block, check=True, text=True)
