"""Ledger events and node status as Prometheus metrics.

Each node has a registry of its own, never the library's global one, so several nodes live in one process. Labels come
from closed sets (event types, kinds, codes, states), so their number is bounded whatever users send.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from edgora.ports.consensus import ConsensusStatus
from edgora.ports.store import StoredBlock
from edgora.wire.ledger import Kind
from edgora.wire.market import ResultCode, TaskState, code_name
from edgora.wire.market_events import (
    BatchClosed,
    ProposalRefused,
    ResultFiled,
    RoundClosed,
    TaskAssigned,
    TaskEnded,
    TaskFinal,
    TaskOpened,
    TaskRefunded,
    TaskSettled,
)

__all__ = ["NodeMetrics"]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_WORK_SECONDS = tuple(round(0.001 * 1.25**i, 6) for i in range(45))
"""1 ms to 18 s in steps of a quarter: percentiles read from it are good to a tenth or so."""
_WAITING = (
    "IDLE", "ORDERING", "PREPARING", "COMMITTING", "VIEW_CHANGE", "SYNCING", "OBSERVING", "NO_QUORUM", "ALARM",
)  # fmt: skip
"""What ports.consensus.ConsensusStatus.waiting may be."""
_FOLLOWED = 20_000
"""Tasks whose stages are timed at once; older ones are forgotten."""


class NodeMetrics:
    """Everything that /metrics of one node shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self._events = Counter("edgora_events", "Ledger events by type", ["type"], registry=registry)
        self._receipts = Counter("edgora_receipts", "Receipts by kind and code", ["kind", "code"], registry=registry)
        self._blocks = Counter("edgora_blocks", "Blocks applied by the API half", registry=registry)
        self._results = Counter("edgora_results", "Results filed by executors", ["code"], registry=registry)
        self._ended = Counter("edgora_tasks_ended", "Tasks by how they ended", ["state"], registry=registry)
        self._rounds = Counter("edgora_rounds", "Rounds by the policy that won", ["policy"], registry=registry)
        self._refused = Counter(
            "edgora_proposals_refused", "Refused proposals by reason", ["reason"], registry=registry
        )
        self._paid = Counter("edgora_paid_gwei", "Money moved by settled batches", registry=registry)
        self._stages = Histogram(
            "edgora_task_stage_seconds", "Ledger time from a task's opening to each stage", ["stage"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._work = Histogram(
            "edgora_executor_seconds", "An executor's work on a task: transfer, run, hold", ["stage"], buckets=_WORK_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._gauges = {
            name: Gauge(f"edgora_{name}", text, registry=registry)
            for name, text in (
                ("height", "Height that the API half has applied"),
                ("committed_height", "Height that the consensus half has committed"),
                ("view", "View of the replica"),
                ("view_changes", "View changes since the start"),
                ("pool_txs", "Transactions waiting in the pool"),
                ("connected_validators", "Validators with a link, ourselves included"),
                ("validators", "Validators of the epoch"),
                ("quorum", "Votes that a decision needs"),
                ("consensus_reached", "1 while this node's consensus half answers its API half"),
                ("waiting_seconds", "How long consensus has waited for what edgora_waiting names"),
                ("alarm", "1 if the replica has stopped voting for good"),
                ("running_tasks", "Tasks in this node's hands"),
                ("event_streams", "Open event streams"),
                ("open_tasks", "Tasks that no server has yet"),
                ("round_age_seconds", "Age of the open round; 0 between rounds"),
                ("unsettled_receipts", "Receipts that are final and not paid on the chain yet"),
                ("unsettled_age_seconds", "Age of the oldest of them; 0 if there is none"),
                ("chain_seen", "1 while a quorum of validators sees the chain"),
                ("disk_octets", "Size of the file system that this node writes to"),
                ("disk_free_octets", "What is free of it for this node"),
            )
        }
        self._waiting = Gauge(
            "edgora_waiting",
            "1 at what consensus waits for (ledger.md 18); IDLE: for nothing",
            ["what"],
            registry=registry,
        )
        self._opened_ms: OrderedDict[bytes, int] = OrderedDict()
        self._policies: set[str] = set()

    def work(self, stage: str, elapsed_ms: int) -> None:
        """One stage of an executed task: transfer (module and input fetched), run (paced), hold (result kept by f+1)."""
        self._work.labels(stage).observe(elapsed_ms / 1000)

    def block(self, stored: StoredBlock, events: Sequence[tuple[int, msgspec.Struct]]) -> None:
        """Count a block that was applied. events: (header time in ms, event)."""
        self._blocks.inc()
        self._gauges["height"].set(stored.block.header.height)
        for signed, receipt in zip(stored.block.txs, stored.receipts, strict=True):
            kind = Kind(signed.tx.kind).name if signed.tx.kind in Kind.__members__.values() else "OTHER"
            self._receipts.labels(kind, code_name(receipt.code)).inc()
        for time_ms, event in events:
            self._events.labels(type(event).__name__).inc()
            self._event(time_ms, event)

    def _event(self, time_ms: int, event: msgspec.Struct) -> None:
        match event:
            case TaskOpened():
                self._opened_ms[event.offer_id] = time_ms
                if len(self._opened_ms) > _FOLLOWED:
                    self._opened_ms.popitem(last=False)
            case TaskAssigned():
                self._stage("assigned", event.offer_id, time_ms)
            case ResultFiled():
                self._results.labels(ResultCode(event.code).name).inc()
                self._stage("done", event.offer_id, time_ms)
            case TaskFinal():
                self._stage("final", event.offer_id, time_ms)
            case TaskSettled():
                self._stage("settled", event.offer_id, time_ms)
                self._ended.labels("SETTLED").inc()
                self._opened_ms.pop(event.offer_id, None)
            case TaskEnded():
                self._ended.labels(TaskState(event.state).name).inc()
            case TaskRefunded():
                self._stage("refunded", event.offer_id, time_ms)
                self._opened_ms.pop(event.offer_id, None)
            case RoundClosed():
                self._rounds.labels(self._policy(event.policy)).inc()
            case ProposalRefused():
                self._refused.labels(event.reason.code).inc()
            case BatchClosed():
                self._paid.inc(int.from_bytes(event.paid, "big") // 10**9)
            case _:
                pass

    def _policy(self, name: str) -> str:
        """Policy names are validators' words: keep the first few as labels."""
        if len(self._policies) < 16:
            self._policies.add(name)
        return name if name in self._policies else "OTHER"

    def _stage(self, stage: str, offer_id: bytes, time_ms: int) -> None:
        opened = self._opened_ms.get(offer_id)
        if opened is not None:
            self._stages.labels(stage).observe(max(0, time_ms - opened) / 1000)

    def standing(self, figures: Mapping[str, float]) -> None:
        """Take over what a node knows without asking its consensus half; names are those of gauges."""
        for name, value in figures.items():
            self._gauges[name].set(value)

    def status(self, status: ConsensusStatus, *, running: int, streams: int) -> None:
        """Take over where the node stands; called before each exposition."""
        gauges = self._gauges
        for what in _WAITING:
            self._waiting.labels(what).set(what == status.waiting)
        gauges["consensus_reached"].set(1)
        gauges["validators"].set(status.validators)
        gauges["quorum"].set(status.quorum)
        gauges["waiting_seconds"].set(status.waiting_since_ms / 1000)
        gauges["committed_height"].set(status.committed_height)
        gauges["view"].set(status.view)
        gauges["view_changes"].set(status.view_changes)
        gauges["pool_txs"].set(status.pool_txs)
        gauges["connected_validators"].set(sum(voter.connected for voter in status.voters))
        gauges["alarm"].set(0 if status.alarm is None else 1)
        gauges["running_tasks"].set(running)
        gauges["event_streams"].set(streams)

    def exposition(self) -> bytes:
        """Prometheus text format 0.0.4."""
        text: bytes = generate_latest(self.registry)
        return text
