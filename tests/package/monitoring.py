"""What package/monitoring/ holds, and what its PromQL speaks of."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from prometheus_client import CollectorRegistry

from function.fn import FunctionRunner
from function.metrics import Metered
from tests.schemas import ROOT, objects
from tests.servers import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = ROOT / "package" / "monitoring"
# Of kube-state-metrics' own (docs/metrics/workload/cronjob-metrics.md): what is read of CronJobs.
CRONJOB = {
    f"kube_cronjob_{name}": {"namespace", "cronjob"}
    for name in ("created", "next_schedule_time", "status_last_schedule_time", "status_last_successful_time")
}
# What Grafana puts in the place of its variables.
VARIABLES = {"$namespace": ".*", "$claim": ".*", "$__rate_interval": "5m"}
_WORDS = {"or", "and", "unless", "bool", "by", "without", "on", "ignoring", "group_left", "group_right", "offset"}
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_METRIC = re.compile(r"\b([a-z_:][a-z0-9_:]*)\b(?!\s*\()(?:\{([^}]*)\})?")


@dataclass(frozen=True)
class Query:
    """PromQL of a panel, variables replaced.

    Attributes:
        panel: The panel's title.
        expr: The expression.
        shown: Labels that the panel shows.
    """

    panel: str
    expr: str
    shown: frozenset[str]


@functools.cache
def sources() -> list[dict[str, Any]]:
    """What kube-state-metrics reads: one entry a kind."""
    (config,) = objects(FOLDER / "kube-state-metrics.yaml")
    found: list[dict[str, Any]] = config["spec"]["resources"]
    return found


@functools.cache
def produced() -> dict[str, set[str]]:
    """Labels of every metric that there is, by its name."""
    found = dict(CRONJOB)
    for source in sources():
        for metric in source["metrics"]:
            name = f"{source['metricNamePrefix']}_{metric['name']}"
            found[name] = set(source["labelsFromPath"]) | _labels(metric["each"])
    registry = CollectorRegistry()
    Metered(FunctionRunner(), registry)
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def _labels(each: dict[str, Any]) -> set[str]:
    (body,) = (value for key, value in each.items() if key != "type")
    return {*body.get("labelsFromPath", {}), *([body["labelName"]] if "labelName" in body else [])}


@functools.cache
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """Panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """Every query of every panel."""
    for panel in panels():
        columns = [step["options"]["renameByName"] for step in panel.get("transformations", [])]
        named = {label for names in columns for label in names} - {"Value"}
        for target in panel["targets"]:
            expr = target["expr"]
            for variable, value in VARIABLES.items():
                expr = expr.replace(variable, value)
            legend = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            yield Query(panel["title"], expr, frozenset({*named, *legend}))


@functools.cache
def groups() -> list[dict[str, Any]]:
    """The groups of rules, as Prometheus reads them."""
    (rule,) = objects(FOLDER / "alerts.yaml")
    found: list[dict[str, Any]] = rule["spec"]["groups"]
    return found


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert by its name."""
    rules = [rule for group in groups() for rule in group["rules"]]
    found = {rule["alert"]: rule for rule in rules}
    assert len(found) == len(rules)
    return found


def read(expr: str) -> tuple[dict[str, set[str]], set[str]]:
    """Give the metrics of an expression with the labels that it selects by, and the labels that it groups by."""
    bare = re.sub(r"\[[^\]]*\]", "", re.sub(r'"[^"]*"', '""', expr))
    grouped = {label.strip() for listed in _GROUPING.findall(bare) for label in listed.split(",")}
    metrics: dict[str, set[str]] = {}
    for name, selectors in _METRIC.findall(_GROUPING.sub("", bare)):
        if name not in _WORDS:
            metrics.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors))
    return metrics, grouped


def promtool(folder: Path, *command: str, **files: Any) -> subprocess.CompletedProcess[str]:
    """Run promtool beside files, which are written as YAML; skipped where there is none."""
    tool = require(
        os.environ.get("MEMORY_PROMTOOL") or shutil.which("promtool"),
        "no promtool: set MEMORY_PROMTOOL, or put Prometheus' on the PATH",
    )
    for name, body in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(body))
    return subprocess.run([tool, *command], cwd=folder, check=False, capture_output=True, text=True, timeout=60)
