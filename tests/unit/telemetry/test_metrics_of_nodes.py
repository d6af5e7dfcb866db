"""What alerts are made of: where consensus waits, and the ages that a node knows."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from edgora.node.standing import Standing
from edgora.ports.consensus import ConsensusStatus
from edgora.telemetry.metrics import NodeMetrics
from edgora.wire.market import TaskState

STATUS = ConsensusStatus(
    epoch=0, view=3, view_active=True, primary=3, own_index=0, validators=4, quorum=3, committed_height=9,
    committed_hash=bytes(32), executed_height=9, header_time_ms=1, stable_checkpoint=0, pool_txs=2, waiting="NO_QUORUM",
    waiting_since_ms=2_500, next_height=10, votes=1, timeout_ms=1_000, view_changes=0, alarm=None, voters=(),
)  # fmt: skip


def lines(metrics: NodeMetrics) -> dict[str, float]:
    found = (line.rpartition(" ") for line in metrics.exposition().decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in found}


def test_waiting_is_one_of_a_closed_set() -> None:
    metrics = NodeMetrics()
    metrics.status(STATUS, running=0, streams=0)
    seen = lines(metrics)
    waiting = {name: value for name, value in seen.items() if name.startswith("edgora_waiting{")}
    assert waiting['edgora_waiting{what="NO_QUORUM"}'] == 1
    assert sum(waiting.values()) == 1
    assert len(waiting) == 9
    assert (seen["edgora_quorum"], seen["edgora_validators"], seen["edgora_waiting_seconds"]) == (3, 4, 2.5)
    assert seen["edgora_consensus_reached"] == 1
    metrics.status(msgspec.structs.replace(STATUS, waiting="IDLE"), running=0, streams=0)
    assert lines(metrics)['edgora_waiting{what="NO_QUORUM"}'] == 0


def test_figures_are_gauges_by_name() -> None:
    metrics = NodeMetrics()
    metrics.standing({"round_age_seconds": 1.5, "disk_free_octets": 7})
    assert (lines(metrics)["edgora_round_age_seconds"], lines(metrics)["edgora_disk_free_octets"]) == (1.5, 7)
    with pytest.raises(KeyError):
        metrics.standing({"nothing_of_the_kind": 1})


def standing(now_ms: int, **market: Any) -> Standing:
    """A standing over a market of the test's own; only figures are asked."""
    tasks = market.get("tasks", [])
    followed = SimpleNamespace(
        core=SimpleNamespace(state=SimpleNamespace(open=market.get("open", ()))),
        round_state=lambda: market.get("round"),
        tasks=lambda *states: iter([task for task in tasks if task.state in states]),
    )
    follower = SimpleNamespace(market=followed, header_time_ms=5_000, chain_seen=lambda at: at == now_ms)
    clock = SimpleNamespace(now_ms=lambda: now_ms)
    return Standing(None, 0, clock, follower, None, (), None)  # type: ignore[arg-type]


def test_ages_run_by_the_nodes_clock_from_the_oldest() -> None:
    tasks = [SimpleNamespace(state=TaskState.FINAL, ended_ms=7_000), SimpleNamespace(state=TaskState.CERTIFIED, ended_ms=6_000),
             SimpleNamespace(state=TaskState.SETTLED, ended_ms=1_000)]  # fmt: skip
    found = standing(10_000, tasks=tasks, round=SimpleNamespace(opened_ms=9_250), open=(1, 2)).figures()
    assert found == {
        "open_tasks": 2, "round_age_seconds": 0.75, "unsettled_receipts": 2, "unsettled_age_seconds": 4.0, "chain_seen": 1.0,
    }  # fmt: skip


def test_nothing_waiting_has_no_age_and_a_clock_behind_the_ledger_is_not_believed() -> None:
    found = standing(4_000, round=SimpleNamespace(opened_ms=4_900)).figures()
    assert (found["unsettled_age_seconds"], found["unsettled_receipts"]) == (0, 0)
    assert found["round_age_seconds"] == 0.1, "ledger time is 5,000"
