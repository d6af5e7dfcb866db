"""docs/observing.md and deploy/prometheus speak of what is there: alerts, series, stages."""

import re
from pathlib import Path

import yaml

from edgora.allocator.allocd.app import Metrics
from edgora.node import why
from edgora.ports.consensus import ConsensusStatus
from edgora.ports.tracing import PARENT, Stage
from edgora.telemetry.metrics import NodeMetrics

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "observing.md").read_text()
RULES = ROOT / "deploy" / "prometheus"


def series() -> set[str]:
    """Names that nodes and allocators expose, those without a sample yet too."""
    text = NodeMetrics().exposition() + Metrics("p", 0).exposition(ready=True)
    described = re.findall(r"^# TYPE (\w+) (\w+)$", text.decode(), re.MULTILINE)
    names = {name for name, _ in described}
    return names | {
        f"{name}_{part}" for name, kind in described if kind == "histogram" for part in ("bucket", "sum", "count")
    }


def test_rules_and_page_name_series_that_exist() -> None:
    known = series()
    for file in ("rules.yml", "alerts.yml", "tests.yml"):
        text = (RULES / file).read_text()
        used = set(re.findall(r"\bedgora_\w+", text))
        assert used, file
        assert used <= known, f"{file}: {sorted(used - known)}"
    assert set(re.findall(r"`(edgora_\w+)", PAGE)) <= known


def test_every_alert_has_a_test_that_fires_it_and_a_heading_that_says_what_to_do() -> None:
    rules = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"][0]["rules"]
    tests = yaml.safe_load((RULES / "tests.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", ()) if case["exp_alerts"]}
    quiet = {case["alertname"] for test in tests for case in test.get("alert_rule_test", ()) if not case["exp_alerts"]}
    headings = set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE))
    names = {rule["alert"] for rule in rules}
    assert names == fired == quiet == headings
    for rule in rules:
        assert rule["annotations"]["runbook"] == f"docs/observing.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_every_stage_of_a_trace_is_drawn_under_its_parent() -> None:
    tree = PAGE.partition("## Traces")[2].partition("\n```\ntask")[2].partition("\n```")[0]
    above: list[Stage] = [Stage.TASK]
    seen = {Stage.TASK}
    for line in tree.splitlines()[1:]:
        found = re.match(r"((?:\|   |    )*)[|`]-- ([\w.]+)", line)
        assert found, line
        depth, stage = len(found[1]) // 4 + 1, Stage(found[2])
        del above[depth:]
        parent = PARENT[stage]
        assert parent is not None
        assert parent[0] is above[-1], line
        above.append(stage)
        seen.add(stage)
    assert seen == set(Stage)


def test_what_consensus_waits_for_has_a_series() -> None:
    """The closed set of the metric is that of the sentences."""
    metrics = NodeMetrics()
    status = dict.fromkeys(ConsensusStatus.__struct_fields__, 0) | {"voters": (), "waiting": "IDLE", "alarm": None}
    metrics.status(ConsensusStatus(**status), running=0, streams=0)
    shown = set(re.findall(r'edgora_waiting\{what="(\w+)"', metrics.exposition().decode()))
    assert shown == set(why._WAITING)
