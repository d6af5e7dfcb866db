"""What a server or validator owes at the moment, read off the state (market.md 5, 6; contracts.md 9).

Rule 1: pure functions of a market, an own server id and an instant; asking twice gives the same answer, so a node that
restarts owes what it owed before. Nothing here is remembered or promised.
Rule 2: these are duties, not rights: whether the ledger accepts what is filed, checks.py decides.
"""

from typing import NamedTuple

from edgora.market.checks import waiting_for
from edgora.market.machine import BatchView, Market
from edgora.market.records import ENDED_UNPAID, Lock, Task
from edgora.wire.market import PAID_CODES, Offer, SettlementPayload, TaskState

__all__ = [
    "AuditDuty",
    "RunDuty",
    "SettlementDuty",
    "advert_due",
    "audits_owed",
    "draw_due",
    "forwards_owed",
    "head_due",
    "may_fetch_input",
    "may_hold_result",
    "may_serve_result",
    "refundable_locks",
    "reseals_owed",
    "runs_owed",
    "settlement_duty",
]

IDLE_MS = 600_000
"""Heads are filed while a task was posted or unfinished within this time (contracts.md 9)."""


class RunDuty(NamedTuple):
    """A task assigned to this server, nothing filed yet."""

    offer_id: bytes
    offer: Offer
    assigned_ms: int
    expected_ms: int
    file_by_ms: int
    """Later it counts as late or goes to another server."""


class AuditDuty(NamedTuple):
    """A task that this server was drawn to re-run."""

    offer_id: bytes
    offer: Offer
    executor: int
    by_ms: int


class SettlementDuty(NamedTuple):
    """The unsettled batch: certify it if it is not, settle it on the chain if it is."""

    batch: BatchView
    payload: SettlementPayload
    certify: bool
    """A SETTLEMENT is to be filed: not certified yet, or the contract's epoch has moved on."""
    first: int
    """Validator whose turn it is first; the next one follows after max(2 s, 2 chain block times) each."""


# ---- executors, sources, auditors ----------------------------------------------------------------------------------------


def runs_owed(market: Market, server: int) -> list[RunDuty]:
    """Tasks to run, the most urgent deadline first."""
    file_ms = market.params.file_ms
    owed = [
        RunDuty(task.offer_id, task.offer, task.assigned_ms, task.expected_ms,
                min(task.file_by_ms or task.offer.deadline_ms + file_ms, task.offer.deadline_ms + file_ms))
        for task in market.tasks(TaskState.ASSIGNED) if task.executor == server
    ]  # fmt: skip
    return sorted(owed, key=lambda duty: (duty.offer.deadline_ms, duty.offer_id))


def forwards_owed(market: Market, server: int) -> list[tuple[bytes, int]]:
    """(offer id, executor) of tasks whose input this source keeps and another server runs."""
    return [
        (task.offer_id, task.executor)
        for task in market.tasks(TaskState.ASSIGNED)
        if task.offer.source == server and task.executor is not None and task.executor != server
    ]


def audits_owed(market: Market, server: int) -> list[AuditDuty]:
    """Audits to run, the most urgent first."""
    owed = [
        AuditDuty(task.offer_id, task.offer, task.executor, auditor.by_ms)
        for task in market.tasks(TaskState.DONE)
        if task.audit is not None and task.executor is not None
        for auditor in task.audit.auditors
        if auditor.server == server and not auditor.closed
    ]
    return sorted(owed, key=lambda duty: (duty.by_ms, duty.offer_id))


def reseals_owed(market: Market, server: int) -> list[tuple[bytes, int]]:
    """(offer id, auditor) that this executor must give the input's key to; an auditor without it files NO_KEY."""
    return [
        (task.offer_id, auditor.server)
        for task in market.tasks(TaskState.DONE)
        if task.executor == server and task.audit is not None
        for auditor in task.audit.auditors
        if not auditor.closed
    ]


def draw_due(market: Market, server: int) -> list[Task]:
    """Results that wait for this witness, in ledger order; one DRAW with up_to = executed height serves them all."""
    return [
        task
        for task in waiting_for(market.core, server)
        if task.audit is not None and task.result is not None and task.audit.draw_by_ms >= market.now_ms
    ]


# ---- who may have what (ledger.md 17) --------------------------------------------------------------------------------------


def may_fetch_input(market: Market, offer_id: bytes, server: int) -> bool:
    """Whether the ledger gives this server a reason to have the input: it is to run or to audit the task."""
    task = market.task(offer_id)
    if task is None:
        return False
    if task.state == TaskState.ASSIGNED:
        return task.executor == server
    auditors = task.audit.auditors if task.audit is not None else ()
    return task.state == TaskState.DONE and any(a.server == server and not a.closed for a in auditors)


def may_hold_result(market: Market, offer_id: bytes, executor: int) -> bool:
    """Whether this server may ask others to keep a result of the task."""
    task = market.task(offer_id)
    return task is not None and task.state == TaskState.ASSIGNED and task.executor == executor


def may_serve_result(market: Market, offer_id: bytes) -> bool:
    """Whether the stored result may be handed out: filed with a paid code, neither LATE nor DISPUTED."""
    task = market.task(offer_id)
    if task is None or task.result is None or task.code not in PAID_CODES:
        return False
    return {task.state, task.cause}.isdisjoint({TaskState.LATE, TaskState.DISPUTED})


# ---- adverts and heads -----------------------------------------------------------------------------------------------------


def advert_due(market: Market, server: int, now_ms: int, lead_ms: int) -> bool:
    """Whether this server must file an ADVERT to get work: it has none, it ends within lead_ms, or it is not live."""
    own = market.server(server)
    if own is None or not own.registered or own.leaving:
        return False
    return own.advert is None or own.advert.until_ms <= now_ms + lead_ms or not own.fit


def head_due(market: Market, server: int, now_ms: int, *, posted_ms: int = 0) -> bool:
    """Whether this validator should file a Head now. posted_ms: when a POST came in last, known to the node alone.

    Every margin/4 while something is under way, and at once when another validator's Head is that much newer than the
    own one: so that one POST after an idle time makes all look, and no two Heads call forth each other for ever.
    """
    heads = market.heads()
    own = heads[server].filed_ms if server in heads else 0
    newest = max((head.filed_ms for number, head in heads.items() if number != server), default=0)
    busy = max(market.meta.last_task_ms, posted_ms) + IDLE_MS > now_ms or _unfinished(market)
    every = market.params.margin_ms // 4
    return newest - own > every // 2 or (busy and now_ms - own >= every)


def _unfinished(market: Market) -> bool:
    state = market.core.state
    return bool(state.open or state.assigned or state.done or state.queue or state.batch is not None)


# ---- the chain -------------------------------------------------------------------------------------------------------------


def settlement_duty(market: Market) -> SettlementDuty | None:
    """The batch that must go to the chain next; None if there is none."""
    view = market.batch()
    if view is None:
        return None
    record = view.record
    certify = record.certified_epoch is None or record.certified_epoch < market.meta.chain_epoch
    first = record.id % market.core.validators
    return SettlementDuty(view, SettlementPayload(record.id, record.hash), certify, first)


def refundable_locks(market: Market, chain_now_s: int) -> list[Lock]:
    """Locks whose `refund` would pay now: past their deadline, or remainders of settled lines.

    Not those whose task still waits for a batch: the chain decides which of the two comes first.
    """
    found = []
    for lock in market.locks():
        task = market.task(lock.offer)
        over = task is None or task.offer.ue != lock.ue or task.state in ENDED_UNPAID or task.state == TaskState.SETTLED
        if over and chain_now_s > lock.deadline_s:
            found.append(lock)
    return found
