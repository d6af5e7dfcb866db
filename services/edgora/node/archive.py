"""What happened, folded from the ledger's events: tasks, rounds, batches, earnings (market.md 6, 7).

The market's state forgets an ended task an hour after its deadline and a round when it closes; people ask later. The
archive keeps the last of each, in memory, bounded, and is rebuilt from the store's events at start. It decides nothing:
state roots, payments and refusals never depend on it.

Blocks are folded whole and in order; a record then speaks of the height that `Archive.height` names.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal, TypeVar

import msgspec

from edgora.market.machine import Market
from edgora.market.receipts import maximum, price_of
from edgora.market.records import Task
from edgora.ports.store import StoredBlock, StoredEvent
from edgora.wire.codec import decode, from_u96
from edgora.wire.eip712 import Domain
from edgora.wire.errors import WireError
from edgora.wire.ledger import Kind, Receipt, SignedTx, Tx
from edgora.wire.market import (
    PAID_CODES,
    Allocation,
    BatchSettled,
    Code,
    Instance,
    Offer,
    Reason,
    ResultHash,
    SettlementPayload,
    TaskPayload,
    TaskState,
    refusal_numbers,
)
from edgora.wire.market_events import (
    AuditDrawn,
    BatchCertified,
    BatchClosed,
    BatchFrozen,
    Choice,
    Event,
    FactApplied,
    FactConflict,
    ProposalAccepted,
    ProposalRefused,
    ResultFiled,
    RoundClosed,
    RoundOpened,
    TaskAssigned,
    TaskEnded,
    TaskFinal,
    TaskOpened,
    TaskRefunded,
    TaskReopened,
    TaskRequeued,
    TaskSettled,
)
from edgora.wire.settlement import split

__all__ = [
    "BATCHES",
    "Archive",
    "ArchivedEvent",
    "BatchRecord",
    "EvidenceRecord",
    "LateProposal",
    "RoundRecord",
    "TaskRecord",
    "decode_event",
]

K = TypeVar("K")
V = TypeVar("V")
TASKS, ROUNDS, BATCHES, EVIDENCE = 20_000, 4_096, 4_096, 1_024
RECENT_EVENTS = 4_096
LATE_PROPOSALS = 64
_MISSED = frozenset((Code.NO_ROUND, Code.WRONG_ROUND))
_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def decode_event(data: bytes) -> Event:
    return _decoder.decode(data)


@dataclass(slots=True)
class TaskRecord:
    """One task from its opening on. Instants are header times in ms."""

    offer_id: bytes
    offer: Offer
    order: int
    """Counts tasks in ledger order, from 1."""
    opened_ms: int
    maximum: int
    state: TaskState = TaskState.OPEN
    tx_hash: bytes | None = None
    result_tx: bytes | None = None
    executor: int | None = None
    round: int | None = None
    assigned_ms: int | None = None
    expected_ms: int | None = None
    file_by_ms: int | None = None
    done_ms: int | None = None
    reopened: int = 0
    result: ResultFiled | None = None
    audit: AuditDrawn | None = None
    amount: int = 0
    shares: tuple[int, int] = (0, 0)
    """What the source and the executor get, wei."""
    batch: int | None = None
    choice: Choice | None = None
    cause: TaskState | None = None
    """The unpaid end that it was, or is being, REFUNDED from."""
    reason: Reason | None = None
    ended_ms: int | None = None
    """When it became SETTLED or REFUNDED."""
    events: list[int] = field(default_factory=list)
    """Ids of the stored events that name it."""


@dataclass(frozen=True, slots=True)
class LateProposal:
    """An ALLOCATION that was ordered when its round was over. The market has no event for it: it changes nothing."""

    sender: bytes
    policy: str
    reason: Reason


@dataclass(slots=True)
class RoundRecord:
    instance: Instance
    digest: bytes
    opened_height: int
    opened_ms: int
    proposals: list[ProposalAccepted | ProposalRefused] = field(default_factory=list)
    closed: RoundClosed | None = None
    closed_height: int | None = None
    closed_ms: int | None = None
    assigned: list[TaskAssigned] = field(default_factory=list)
    late: list[LateProposal] = field(default_factory=list)


@dataclass(slots=True)
class BatchRecord:
    frozen: BatchFrozen
    frozen_height: int
    frozen_ms: int
    certified: bool = False
    settlement_tx: bytes | None = None
    fact: BatchSettled | None = None
    settled_ms: int | None = None
    payload_hash: bytes | None = None
    """Known if this node saw it frozen."""
    tasks: list[bytes] = field(default_factory=list)
    """Offer ids of its lines; of one that was not seen frozen those that were paid."""


@dataclass(slots=True)
class EvidenceRecord:
    """An EVIDENCE transaction (accused is in its payload), or a validator's two words about one place of the chain."""

    kind: Literal["LEDGER", "CHAIN_FACT"]
    height: int
    accused: int | None
    tx_hash: bytes | None = None
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class ArchivedEvent:
    id: int
    height: int
    time_ms: int
    event: Event


class Archive:
    """Folds blocks and their events. No IO, no clock."""

    def __init__(self, market_domain: Domain) -> None:
        self._domain = market_domain
        self.height = 0
        self.last_event = 0
        self.tasks: OrderedDict[bytes, TaskRecord] = OrderedDict()
        self.rounds: OrderedDict[int, RoundRecord] = OrderedDict()
        self.batches: OrderedDict[int, BatchRecord] = OrderedDict()
        self.evidence: deque[EvidenceRecord] = deque(maxlen=EVIDENCE)
        self.recent: deque[ArchivedEvent] = deque(maxlen=RECENT_EVENTS)
        self.earned: dict[int, int] = {}
        """Wei by server id, over the settled tasks that were folded."""
        self.opened = 0
        self._dropped = 0
        """Id of the newest event that `recent` no longer holds."""

    # ---- folding

    def fold_events(self, stored: Sequence[StoredEvent]) -> list[ArchivedEvent]:
        """Take note of further events. Returns them decoded; those already folded are left out."""
        fresh: list[ArchivedEvent] = []
        for item in stored:
            if item.id <= self.last_event:
                continue
            archived = ArchivedEvent(item.id, item.height, item.time_ms, decode_event(item.data))
            self.last_event = item.id
            self._fold(archived)
            if len(self.recent) == RECENT_EVENTS:
                self._dropped = self.recent[0].id
            self.recent.append(archived)
            fresh.append(archived)
        return fresh

    def fold_block(self, stored: StoredBlock) -> None:
        """Take note of which transaction did what; after the block's events."""
        for signed, receipt in zip(stored.block.txs, stored.receipts, strict=True):
            self._fold_tx(signed, receipt)
        self.height = stored.block.header.height

    def _fold_tx(self, signed: SignedTx, receipt: Receipt) -> None:
        tx = signed.tx
        if tx.kind == Kind.EVIDENCE:
            self.evidence.append(EvidenceRecord("LEDGER", receipt.height, None, receipt.tx_hash, tx.payload))
        if tx.kind == Kind.ALLOCATION and receipt.code in _MISSED:
            self._late(tx, receipt)
        if receipt.code != 0:
            return
        if tx.kind == Kind.TASK:
            offer = msgspec.msgpack.decode(tx.payload, type=TaskPayload).offer
            task = self.tasks.get(offer.digest(self._domain))
            if task is not None:
                task.tx_hash = receipt.tx_hash
        elif tx.kind == Kind.RESULT_HASH:
            filing = msgspec.msgpack.decode(tx.payload, type=ResultHash)
            task = self.tasks.get(filing.offer_id)
            if task is not None and filing.cipher_digest is not None:
                task.result_tx = receipt.tx_hash
        elif tx.kind == Kind.SETTLEMENT:
            batch = self.batches.get(msgspec.msgpack.decode(tx.payload, type=SettlementPayload).batch_id)
            if batch is not None and batch.settlement_tx is None:
                batch.settlement_tx = receipt.tx_hash

    def _late(self, tx: Tx, receipt: Receipt) -> None:
        try:
            allocation = decode(tx.payload, Allocation)
        except WireError:
            return
        record = self.rounds.get(allocation.round)
        if record is not None and len(record.late) < LATE_PROPOSALS:
            reason = Reason(Code(receipt.code).name, allocation.policy, refusal_numbers(receipt.output[2:]))
            record.late.append(LateProposal(tx.sender, allocation.policy, reason))

    def _fold(self, item: ArchivedEvent) -> None:
        event = item.event
        offer_id = getattr(event, "offer_id", None)
        if isinstance(event, TaskOpened):
            self._open(event, item.time_ms)
        task = self.tasks.get(offer_id) if isinstance(offer_id, bytes) else None
        if task is not None:
            task.events.append(item.id)
            self._fold_task(task, item)
            return
        match event:
            case RoundOpened():
                record = RoundRecord(event.instance, event.digest, item.height, item.time_ms)
                _keep(self.rounds, event.instance.round, record, ROUNDS)
            case ProposalAccepted() | ProposalRefused():
                if event.round in self.rounds:
                    self.rounds[event.round].proposals.append(event)
            case RoundClosed():
                self._close_round(event, item)
            case BatchFrozen():
                _keep(self.batches, event.batch_id, BatchRecord(event, item.height, item.time_ms), BATCHES)
            case BatchCertified() if event.batch_id in self.batches:
                self.batches[event.batch_id].certified = True
            case BatchClosed() if event.batch_id in self.batches:
                self.batches[event.batch_id].settled_ms = item.time_ms
            case FactConflict():
                self.evidence.append(EvidenceRecord("CHAIN_FACT", item.height, event.server, None, event.block_hash))
            case FactApplied(fact=BatchSettled() as fact) if fact.batch_id in self.batches:
                self.batches[fact.batch_id].fact = fact
            case _:
                pass

    def _open(self, event: TaskOpened, time_ms: int) -> None:
        self.opened += 1
        record = TaskRecord(event.offer_id, event.offer, self.opened, time_ms, from_u96(event.maximum))
        _keep(self.tasks, event.offer_id, record, TASKS)

    def _close_round(self, event: RoundClosed, item: ArchivedEvent) -> None:
        record = self.rounds.get(event.round)
        if record is not None:
            record.closed, record.closed_height, record.closed_ms = event, item.height, item.time_ms
        for choice in event.choices:
            task = self.tasks.get(choice.offer_id)
            if task is not None:
                task.choice = choice
                task.events.append(item.id)

    def _fold_task(self, task: TaskRecord, item: ArchivedEvent) -> None:
        event = item.event
        match event:
            case TaskAssigned():
                task.state, task.executor, task.round = TaskState.ASSIGNED, event.executor, event.round
                task.assigned_ms, task.expected_ms, task.file_by_ms = item.time_ms, event.expected_ms, event.file_by_ms
                if event.round in self.rounds:
                    self.rounds[event.round].assigned.append(event)
            case TaskReopened():
                task.state, task.executor, task.assigned_ms, task.result = TaskState.OPEN, None, None, None
                task.reopened += 1
                task.reason = event.reason
            case ResultFiled():
                task.result = event
                if event.code in PAID_CODES:
                    task.state, task.done_ms = TaskState.DONE, event.done_ms
            case AuditDrawn():
                task.audit = event
            case TaskFinal():
                task.state, task.amount = TaskState.FINAL, from_u96(event.amount)
                task.shares = (from_u96(event.source_share), from_u96(event.executor_share))
            case TaskEnded():
                task.state = task.cause = TaskState(event.state)
                task.reason = event.reason
                task.amount = 0
            case TaskRefunded():
                task.state, task.ended_ms = TaskState.REFUNDED, item.time_ms
            case TaskSettled():
                task.state, task.batch, task.ended_ms = TaskState.SETTLED, event.batch_id, item.time_ms
                self._earn(task)
                if event.batch_id in self.batches and task.offer_id not in self.batches[event.batch_id].tasks:
                    self.batches[event.batch_id].tasks.append(task.offer_id)
            case TaskRequeued():
                task.state, task.batch = TaskState.FINAL, None
            case _:
                pass

    def _earn(self, task: TaskRecord) -> None:
        fee, rest = task.shares
        self.earned[task.offer.source] = self.earned.get(task.offer.source, 0) + fee
        if task.executor is not None:
            self.earned[task.executor] = self.earned.get(task.executor, 0) + rest

    # ---- after a state transfer

    def adopt(self, market: Market) -> None:
        """Take from a restored state what no stored event told: tasks that moved at heights which the store lacks.

        Their rounds, choices and transactions stay unknown here; what became of them and of the money does not.
        """
        for task in market.tasks():
            record = self.tasks.get(task.offer_id)
            if record is None:
                self.opened += 1
                record = TaskRecord(task.offer_id, task.offer, self.opened, task.opened_ms, maximum(task.offer))
                _keep(self.tasks, task.offer_id, record, TASKS)
            elif (record.state, record.executor) == (task.state, task.executor):
                continue
            record.state, record.executor, record.round = TaskState(task.state), task.executor, task.round or None
            record.assigned_ms, record.expected_ms = task.assigned_ms or None, task.expected_ms or None
            record.file_by_ms, record.reopened = task.file_by_ms or None, max(record.reopened, int(task.reopened))
            record.reason, record.batch = task.reason, task.batch or None
            record.cause = TaskState(task.cause) if task.cause else None
            record.ended_ms = task.ended_ms or None
            record.result = None if task.result is None else _filed(task)
            if task.result is not None and task.code in PAID_CODES:
                record.done_ms = task.result.done_ms
            if record.state in {TaskState.FINAL, TaskState.SETTLED} and task.result is not None:
                record.amount = price_of(task.offer, task.result.filing.fuel_used)
                record.shares = split(record.amount, market.params.lambda_bps)
            if record.state is TaskState.SETTLED:
                self._earn(record)

    # ---- questions

    def since(self, after: int) -> list[ArchivedEvent] | None:
        """Recent events with an id above `after`; None if some of them are no longer in memory."""
        if after < self._dropped:
            return None
        fresh = list(takewhile(lambda item: item.id > after, reversed(self.recent)))
        fresh.reverse()
        return fresh


def _filed(task: Task) -> ResultFiled:
    """The event that the filing of this task's result was."""
    assert task.result is not None
    assert task.executor is not None
    filing, audit = task.result.filing, task.audit
    return ResultFiled(
        task.offer_id, task.executor, filing.code, filing.result_digest, task.result.cipher_digest, filing.fuel_used,
        task.result.done_ms, task.result.holders, audit.witness if audit else None, audit.draw_by_ms if audit else 0,
    )  # fmt: skip


def _keep(table: OrderedDict[K, V], key: K, value: V, limit: int) -> None:
    table[key] = value
    while len(table) > limit:
        table.popitem(last=False)
