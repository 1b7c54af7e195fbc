"""package/monitoring/alerts.yaml, evaluated by promtool: each alert fires when it should, and is silent otherwise."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.package.monitoring import alerts, groups, produced, promtool, queries, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Labels = dict[str, str]
INTERVAL = "5m"
# Samples for two days.
SAMPLES = 600
MEMORY = {"claim_namespace": "team-a", "claim_name": "notes", "composite": "notes-x7k2q", "provider": "pg"}
PROVIDER = {"composite": "pg"}
CRONJOB = {"namespace": "databases", "cronjob": "memory-provider-0123456789ab-maintenance"}
REAPER = {"namespace": "databases", "cronjob": "memory-provider-0123456789ab-reaper"}
# What Prometheus adds; no alert has it, for it changes with every new pod.
TARGET = {"instance": "10.0.0.7:8080", "pod": "kube-state-metrics-0"}
# The series without which the alert for missing metrics fires.
THERE: tuple[tuple[str, Labels, str], ...] = (
    ("memory_provider_condition", {**PROVIDER, "type": "Ready"}, "1"),
    ("function_memory_calls_total", {}, "1"),
)


@dataclass(frozen=True)
class Series:
    """What Prometheus has read: a constant, or promtool's notation for values (a sample each five minutes)."""

    name: str
    labels: Labels
    values: str

    def noted(self) -> dict[str, str]:
        labels = {**self.labels, **TARGET}
        selected = ", ".join(f'{key}="{value}"' for key, value in labels.items())
        values = self.values if re.search("[x ]", self.values) else f"{self.values}+0x{SAMPLES}"
        return {"series": f"{self.name}{{{selected}}}", "values": values}


@dataclass(frozen=True)
class Case:
    """One state of the world: after `at`, the alert fires for `fires`, or for nothing."""

    alert: str
    name: str
    at: str
    series: list[Series]
    fires: list[Labels] = field(default_factory=list)


def condition(kind: str, status: str, reason: str, of: Labels = MEMORY, values: str = "") -> Series:
    """A condition as kube-state-metrics gives it."""
    name = "memory_condition" if of is MEMORY else "memory_provider_condition"
    labels = {**of, "type": kind, "status": status, "reason": reason}
    return Series(name, labels, values or str(int(status == "True")))


def of_memory(name: str, values: str, **labels: str) -> Series:
    return Series(f"memory_{name}", {**MEMORY, **labels}, values)


def cronjob(created: str, scheduled: str, following: str, succeeded: str, of: Labels = CRONJOB) -> list[Series]:
    """A CronJob as kube-state-metrics gives it, in seconds since the beginning; what is empty is not there."""
    names = ("created", "status_last_schedule_time", "next_schedule_time", "status_last_successful_time")
    values = (created, scheduled, following, succeeded)
    pairs = zip(names, values, strict=True)
    return [Series(f"kube_cronjob_{name}", of, value) for name, value in pairs if value]


def failures(failure: str, values: str) -> Series:
    return Series("function_memory_failures_total", {"kind": "XMemory", "failure": failure}, values)


def calls(slow: int) -> list[Series]:
    """A hundred calls in five minutes, of which some take from 0.1 to 0.5 s and the others less than 1 ms."""
    counts = {"0.001": 100 - slow, "0.1": 100 - slow, "0.5": 100, "+Inf": 100}
    return [
        Series("function_memory_call_seconds_bucket", {"kind": "XMemory", "le": bound}, f"0+{count}x{SAMPLES}")
        for bound, count in counts.items()
    ]


NOW = f"0+300x{SAMPLES}"
CASES = [
    Case("MemoryNotReady", "not ready", "15m", [condition("Ready", "False", "Creating")], [MEMORY]),
    Case("MemoryNotReady", "unknown", "15m", [condition("Ready", "Unknown", "Lost")], [MEMORY]),
    Case(
        "MemoryNotReady",
        "a reason that changes",
        "15m",
        [
            condition("Ready", "False", "Creating", values="0 0 stale"),
            condition("Ready", "False", "Unavailable", values="_ _ 0+0x9"),
        ],
        [MEMORY],
    ),
    Case("MemoryNotReady", "only just", "10m", [condition("Ready", "False", "Creating")]),
    Case(
        "MemoryNotReady", "ready", "3h", [condition("Ready", "True", "Available"), condition("InSync", "False", "No")]
    ),
    Case(
        "MemoryIndexInvalid",
        "invalid",
        "5m",
        [condition("IndexReady", "False", "Invalid")],
        [MEMORY],
    ),
    Case("MemoryIndexInvalid", "building", "3h", [condition("IndexReady", "False", "Building")]),
    Case("MemoryIndexInvalid", "too many dimensions", "3h", [condition("IndexReady", "False", "DimensionTooLarge")]),
    Case(
        "MemoryIndexBuilding",
        "for long",
        "6h",
        [condition("IndexReady", "False", "Building")],
        [MEMORY],
    ),
    Case("MemoryIndexBuilding", "for a while", "355m", [condition("IndexReady", "False", "Building")]),
    Case("MemoryIndexBuilding", "ready", "8h", [condition("IndexReady", "True", "Ready")]),
    Case(
        "MemoryRetentionFailing",
        "two runs",
        "2h",
        [condition("RetentionScheduled", "False", "Failing")],
        [MEMORY],
    ),
    Case("MemoryRetentionFailing", "one run", "115m", [condition("RetentionScheduled", "False", "Failing")]),
    Case("MemoryRetentionFailing", "on hold", "5h", [condition("RetentionScheduled", "True", "OnHold")]),
    Case(
        "MemoryDrift",
        "two differences",
        "5m",
        [of_memory("drift_info", "1", difference="one"), of_memory("drift_info", "1", difference="two")],
        [MEMORY],
    ),
    Case("MemoryDrift", "none", "3h", [condition("InSync", "True", "InSync")]),
    Case("MemoryDeadRows", "for a day", "1d", [of_memory("dead_percent", "41"), of_memory("rows", "10000")], [MEMORY]),
    Case("MemoryDeadRows", "for less", "1435m", [of_memory("dead_percent", "41"), of_memory("rows", "10000")]),
    Case("MemoryDeadRows", "no more than that", "1d", [of_memory("dead_percent", "40"), of_memory("rows", "10000")]),
    Case("MemoryDeadRows", "few rows", "1d", [of_memory("dead_percent", "90"), of_memory("rows", "9900")]),
    Case(
        "MemoryProviderNotReady",
        "not ready",
        "10m",
        [condition("Ready", "False", "Creating", PROVIDER)],
        [PROVIDER],
    ),
    Case("MemoryProviderNotReady", "only just", "5m", [condition("Ready", "False", "Creating", PROVIDER)]),
    Case("MemoryProviderNotReady", "a Memory", "3h", [condition("Ready", "False", "Creating")]),
    Case(
        "MemoryMaintenanceFailing",
        "failing",
        "15m",
        [condition("MaintenanceReady", "False", "Stale", PROVIDER)],
        [PROVIDER],
    ),
    Case("MemoryMaintenanceFailing", "working", "3h", [condition("MaintenanceReady", "True", "Available", PROVIDER)]),
    Case("MemoryMaintenanceStale", "three hours", "190m", cronjob("0", "0", "3600", "0"), [CRONJOB]),
    Case("MemoryMaintenanceStale", "less", "185m", cronjob("0", "0", "3600", "0")),
    Case("MemoryMaintenanceStale", "never", "190m", cronjob("0", "", "3600", ""), [CRONJOB]),
    Case("MemoryMaintenanceStale", "just made", "180m", cronjob("0", "", "3600", "")),
    Case("MemoryMaintenanceStale", "every minute", "180m", cronjob("0", "0", "60", "0")),
    Case("MemoryMaintenanceStale", "every day", "40h", cronjob("0", "0", "86400", "0")),
    Case("MemoryMaintenanceStale", "succeeding", "1d", cronjob("0", NOW, "3600+300x600", NOW)),
    Case("MemoryMaintenanceStale", "suspended", "5h", cronjob("0", "0", "", "0")),
    Case("MemoryMaintenanceStale", "another CronJob", "5h", cronjob("0", "0", "3600", "0", REAPER)),
    Case(
        "MemoryReaperOnHold",
        "on hold",
        "0m",
        [condition("ReaperReady", "False", "OnHold", PROVIDER)],
        [PROVIDER],
    ),
    Case("MemoryReaperOnHold", "failing", "3h", [condition("ReaperReady", "False", "Stale", PROVIDER)]),
    Case(
        "MemoryReaperFailing",
        "failing",
        "30m",
        [condition("ReaperReady", "False", "Stale", PROVIDER)],
        [PROVIDER],
    ),
    Case("MemoryReaperFailing", "on hold", "5h", [condition("ReaperReady", "False", "OnHold", PROVIDER)]),
    Case("MemoryReaperFailing", "working", "3h", [condition("ReaperReady", "True", "Available", PROVIDER)]),
    Case(
        "MemoryFunctionErrors",
        "a bug",
        "20m",
        [failures("exception", "0+1x99"), failures("fatal", "7+0x99")],
        [{"kind": "XMemory", "failure": "exception"}],
    ),
    Case("MemoryFunctionErrors", "long ago", "60m", [failures("exception", "0 1+0x99")]),
    Case("MemoryFunctionSlow", "slow", "25m", calls(2), [{"kind": "XMemory"}]),
    Case("MemoryFunctionSlow", "fast", "3h", calls(0)),
    Case("MemoryMetricsMissing", "none", "30m", [], [{}]),
    Case("MemoryMetricsMissing", "no function", "30m", [Series(*THERE[0])], [{}]),
    Case("MemoryMetricsMissing", "no providers", "30m", [Series(*THERE[1])], [{}]),
    Case("MemoryMetricsMissing", "both", "3h", [Series(*each) for each in THERE]),
]
every_alert = pytest.mark.parametrize("name", alerts())


def test_each_alert_fires_once_and_is_silent_once() -> None:
    assert {case.alert for case in CASES if case.fires} == set(alerts())
    assert {case.alert for case in CASES if not case.fires} == set(alerts())


def test_what_fires_them_is_what_there_is() -> None:
    for series in (series for case in CASES for series in case.series):
        assert set(series.labels) <= produced()[series.name], series.name


def test_promtool_understands_the_rules(tmp_path: Path) -> None:
    done = promtool(tmp_path, "check", "rules", "rules.yaml", rules={"groups": groups()})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(alerts())} rules found" in done.stdout


def written(case: Case) -> dict[str, Any]:
    """A case as promtool reads it: ALERTS is what Prometheus itself keeps of alerts."""
    severity = alerts()[case.alert]["labels"]["severity"]
    common = {"alertname": case.alert, "alertstate": "firing", "severity": severity}
    samples = [{"labels": f"ALERTS{_braces({**common, **labels})}", "value": 1} for labels in case.fires]
    expr = f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}'
    return {
        "name": f"{case.alert}: {case.name}",
        "interval": INTERVAL,
        "input_series": [series.noted() for series in case.series],
        "promql_expr_test": [{"expr": expr, "eval_time": case.at, "exp_samples": samples}],
    }


def _braces(labels: Labels) -> str:
    return "{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def evaluated(folder: Path, tests: list[dict[str, Any]], rules: list[dict[str, Any]]) -> str:
    """What promtool finds wrong."""
    body = {"rule_files": ["rules.yaml"], "evaluation_interval": INTERVAL, "tests": tests}
    given = {"groups": [{"name": "these", "rules": rules}]}
    done = promtool(folder, "test", "rules", "tests.yaml", rules=given, tests=body)
    assert (done.returncode == 0) == ("SUCCESS" in done.stdout)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@every_alert
def test_it_fires_when_it_should_and_not_otherwise(name: str, tmp_path: Path) -> None:
    assert evaluated(tmp_path, [written(case) for case in CASES if case.alert == name], [alerts()[name]]) == ""


def test_promtool_would_say_so(tmp_path: Path) -> None:
    """A case that expects the wrong thing fails."""
    assert "FAILED" in evaluated(tmp_path, [{**written(CASES[0]), "input_series": []}], [alerts()[CASES[0].alert]])


@every_alert
def test_sentences_speak_of_labels_that_an_alert_has(name: str) -> None:
    said = alerts()[name]["annotations"]
    named = set(re.findall(r"\$labels\.(\w+)", said["summary"] + said["description"]))
    # A composite need not have a claim.
    optional = {"claim_namespace", "claim_name"}
    for labels in (labels for case in CASES if case.alert == name for labels in case.fires):
        assert named - optional <= set(labels)
        assert not named & optional or "composite" in named


def whole() -> Iterator[dict[str, str]]:
    """A series for every metric that a panel asks for, growing."""
    values = {"le": "+Inf", "type": "Ready", "state": "building", **CRONJOB}
    for name in sorted({name for query in queries() for name in read(query.expr)[0]}):
        labels = {label: values.get(label, label) for label in produced()[name]}
        yield Series(name, labels, f"0+0x{SAMPLES}" if name.endswith("condition") else f"1+1x{SAMPLES}").noted()
    yield Series("memory_index_state", {label: label for label in MEMORY} | {"state": "ready"}, "1").noted()


def test_each_panel_shows_something(tmp_path: Path) -> None:
    asked = [
        {"expr": f"count({query.expr}) > bool 0", "eval_time": "1h", "exp_samples": [{"labels": "{}", "value": 1}]}
        for query in queries()
    ]
    tests = [{"interval": "1m", "input_series": list(whole()), "promql_expr_test": asked}]
    assert evaluated(tmp_path, tests, []) == ""
