"""REST resources of the market: /v1/allocations, /v1/batches and the events (wire.rest has the table).

A round: what was proposed, what won and why each task got its server. A batch: which receipts are paid together, what
that costs and what came of it. An event: one fact of the ledger, as the event streams of a node and of a task tell it.
"""

from dataclasses import dataclass
from typing import Any, Literal

from edgora.wire.rest.shapes import Hex20, Hex32, ReasonBody, Wei

__all__ = [
    "Allocation", "AllocationPage", "Alternative", "Batch", "BatchPage", "Choice", "Event", "Pair", "Proposal",
    "SkippedRound",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A pair of one task and one server in a round, and what made it worse than the chosen one."""

    server: int
    value: Wei
    reason: ReasonBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Why this server: from the close of the round that assigned the task."""

    task: Hex32
    server: int | None
    alternatives: list[Alternative]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    task: Hex32
    server: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    validator: int
    policy: str
    accepted: bool
    value: Wei
    bound: Wei | None
    solver_ms: int
    reason: ReasonBody | None
    """Why it was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedRound:
    """An allocator of the answering node that made no proposal."""

    policy: str
    reason: ReasonBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """One round: what it was about, who proposed, what won and why."""

    round: int
    opened_height: int
    opened_ms: int
    closed_height: int | None
    closed_ms: int | None
    digest: Hex32
    tasks: int
    servers: int
    instance: dict[str, Any] | None
    """wire.market.Instance as JSON; in /v1/allocations/{round} only."""
    winner: str | None
    """Policy name; "greedy" is the built-in."""
    winner_validator: int | None
    """Null when the built-in won."""
    value: Wei | None
    greedy_value: Wei | None
    bound: Wei | None
    verdict: ReasonBody | None
    """Why this plan won; null while the round is open."""
    pairs: list[Pair]
    proposals: list[Proposal]
    """All that were ordered, those that came too late last."""
    skipped: list[SkippedRound]
    """Allocators of the answering node that made no proposal, and why; those of others are shown by their nodes."""
    choices: list[Choice]


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationPage:
    items: list[Allocation]
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    id: int
    state: Literal["FROZEN", "CERTIFIED", "SETTLED"]
    frozen_height: int
    frozen_ms: int
    batch_hash: Hex32
    task_root: Hex32
    payload_hash: Hex32 | None
    payload_octets: int
    lines: int
    gas: int
    """What settling it costs by the model of contracts.md 10."""
    gas_used: int | None
    """What settling it did cost, by the chain's receipt; known to the node that settled it since its start."""
    reason: ReasonBody
    """What triggered the freezing."""
    tasks: list[Hex32]
    """Tasks of its lines; of a batch that this node did not see frozen those that were paid."""
    paid: Wei | None
    """By the contract's event; null before."""
    skipped_ues: list[Hex20]
    skipped_locks: list[Hex32]
    settlement_tx: Hex32 | None
    """Hash of the SETTLEMENT ledger transaction."""
    settled_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPage:
    items: list[Batch]
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of the ledger; `id` is the SSE id. data holds the event's own fields (bytes as hex, wei as decimal)."""

    id: int
    height: int
    time_ms: int
    type: str
    """Name of the event's class in wire.market_events, e.g. TaskOpened, RoundOpened, TaskAssigned."""
    task: Hex32 | None
    server: int | None
    data: dict[str, Any]
