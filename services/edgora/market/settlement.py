"""From finished tasks to the chain: the queue, frozen batches, their certification, what the chain made of them
(market.md 6, contracts.md 6, 9).

Rule 1: the state machine freezes a batch, nobody proposes one; a SETTLEMENT only names it, so every validator checks by
equality and any validator may file it.
Rule 2: there is at most one batch that is not settled; what it holds stays as it was frozen.
Rule 3: what the chain skipped is not lost: it queues again while the UE's money can still reach it.

A batch is frozen once 100 tasks wait (FULL), batch_ms passed since the oldest (AGE), half the margin is left before the
earliest expiry (EXPIRY), or nothing is under way any more (IDLE). It takes the longest prefix of the queue that fits
the payload's limits: octets, gas, 255 lines a UE, 255 servers and penalties, latency sums below 2^31.
"""

from typing import NamedTuple

from msgspec.structs import replace

from edgora.market.core import Core
from edgora.market.lifecycle import certify, end_unpaid, requeue, settle
from edgora.market.receipts import lock_lane, price_of
from edgora.market.records import BatchRecord, Entry, Task
from edgora.market.rules import Refusal
from edgora.wire.codec import from_u96
from edgora.wire.market import BatchSettled, Code, Reason, TaskState
from edgora.wire.market_events import BatchCertified, BatchClosed, BatchFrozen, PenaltyPart
from edgora.wire.settlement import (
    BURN,
    MAX_LINES,
    MAX_PENALTIES,
    MAX_SERVERS,
    Batch,
    Line,
    LockLine,
    Payload,
    Penalty,
    Section,
    ServerRow,
    TaskLeaf,
    encode_payload,
    fits,
    lock_key,
    payload_gas,
    payload_hash,
    task_root,
)  # fmt: skip

__all__ = ["FULL_QUEUE", "batch_leaves", "certify_batch", "close_batch", "freeze", "freeze_at_ms", "task_leaf"]

FULL_QUEUE = 100
_LATENCY_LIMIT = 2**31
_MOST_ENTRIES = 10_240
"""No payload holds more lines than this: 120 KiB at 12 octets each."""


# ---- what a batch holds ------------------------------------------------------------------------------------------------


class Draft(NamedTuple):
    payload: Payload
    lines: tuple[Task, ...]
    """In queue order, which is the order of the leaves."""


def _measured_ms(task: Task) -> int:
    assert task.result is not None
    return max(1, task.result.done_ms - task.assigned_ms)


def task_leaf(task: Task) -> TaskLeaf:
    """A finished task as it stands under taskRoot."""
    assert task.result is not None
    assert task.executor is not None
    offer, filing = task.offer, task.result.filing
    return TaskLeaf(
        task.offer_id, offer.ue, offer.source, task.executor, filing.fuel_used, offer.price, offer.desired_ms,
        _measured_ms(task), filing.result_digest,
    )  # fmt: skip


def batch_leaves(core: Core, batch: BatchRecord) -> list[TaskLeaf]:
    """The leaves of the unsettled batch; its tasks are all in the state."""
    return [task_leaf(core.state.tasks[offer_id]) for offer_id in batch.lines]


def _entries(core: Core, count: int) -> list[Entry]:
    return [core.state.entries[order] for order in core.state.queue[:count]]


def _draft(core: Core, count: int) -> Draft | None:
    """The payload of the queue's first entries; None if that many do not fit."""
    entries = _entries(core, count)
    sums: dict[int, list[int]] = {}
    of_ue: dict[bytes, list[Task]] = {}
    of_locks: list[Task] = []
    lines: list[Task] = []
    penalties: list[PenaltyPart] = []
    for entry in entries:
        row = sums.setdefault(entry.server, [0, 0])
        row[0] += entry.desired_ms
        row[1] += entry.actual_ms
        penalties += entry.penalties
        for part in entry.penalties:
            if part.to is not None:
                sums.setdefault(part.to, [0, 0])
        if entry.line:
            task = core.state.tasks[entry.offer_id]
            sums.setdefault(task.offer.source, [0, 0])
            (of_locks if lock_lane(task.offer) else of_ue.setdefault(task.offer.ue, [])).append(task)
            lines.append(task)
    if len(sums) > MAX_SERVERS or len(penalties) > MAX_PENALTIES or max(len(of_ue), len(of_locks)) > 0xFFFF:
        return None
    if any(max(row) >= _LATENCY_LIMIT for row in sums.values()) or any(len(x) > MAX_LINES for x in of_ue.values()):
        return None
    place = {server: i for i, server in enumerate(sorted(sums))}
    payload = Payload(
        tuple(ServerRow(server, *sums[server]) for server in sorted(sums)),
        tuple(_section(core, ue, tasks, place) for ue, tasks in of_ue.items()),
        tuple(LockLine(lock_key(task.offer.ue, task.offer_id), _line(task, place)) for task in of_locks),
        tuple(Penalty(x.server, BURN if x.to is None else place[x.to], from_u96(x.wei)) for x in penalties),
    )
    return Draft(payload, tuple(lines)) if fits(payload, core.validators) else None


def _line(task: Task, place: dict[int, int]) -> Line:
    assert task.result is not None
    assert task.executor is not None
    return Line(place[task.offer.source], place[task.executor], task.result.filing.fuel_used, task.offer.price)


def _section(core: Core, ue: bytes, tasks: list[Task], place: dict[int, int]) -> Section:
    voucher = core.state.accounts[ue].voucher
    assert voucher is not None  # a voucher task is only admitted with one, and it is kept
    lines = tuple(_line(task, place) for task in tasks)
    return Section(voucher.signature, from_u96(voucher.cap), voucher.valid_until_s, lines)


# ---- freezing ----------------------------------------------------------------------------------------------------------


def _expiry_ms(core: Core, task: Task) -> int:
    """When the money behind a line is out of reach."""
    if lock_lane(task.offer):
        lock = core.state.locks.get(lock_key(task.offer.ue, task.offer_id))
        return lock.deadline_s * 1000 if lock is not None else 0
    voucher = core.state.accounts[task.offer.ue].voucher
    return voucher.valid_until_s * 1000 if voucher is not None else 0


def _triggers(core: Core) -> list[tuple[int, str]]:
    """(instant, reason) at which waiting entries freeze by time; empty if none waits or a batch is unsettled."""
    if not core.state.queue or core.state.batch is not None:
        return []
    oldest = core.state.entries[core.state.queue[0]].queued_ms
    triggers = [(oldest + core.params.batch_ms, "AGE")]
    expiries = [_expiry_ms(core, core.state.tasks[e.offer_id]) for e in _entries(core, FULL_QUEUE) if e.line]
    if expiries:
        triggers.append((min(expiries) - core.params.margin_ms // 2, "EXPIRY"))
    return triggers


def freeze_at_ms(core: Core) -> int | None:
    """When the next batch freezes by time alone."""
    return min((instant for instant, _ in _triggers(core)), default=None)


def _reason(core: Core) -> Reason | None:
    state = core.state
    triggers = _triggers(core)
    if not triggers:
        return None
    waiting = len(state.queue)
    if waiting >= FULL_QUEUE:
        return Reason("FULL", "", (waiting,))
    for instant, reason in triggers:
        if instant <= core.now_ms:
            return Reason(reason, "", (waiting,))
    return None if state.open or state.assigned or state.done else Reason("IDLE", "", (waiting,))


def freeze(core: Core) -> None:
    """At the end of a block: a new batch, if it is time for one."""
    reason = _reason(core)
    if reason is None:
        return
    count, draft = _longest(core)
    root = task_root([task_leaf(task) for task in draft.lines])
    data = encode_payload(draft.payload)
    number = core.state.meta.last_batch + 1
    digest = Batch(core.chain_id, core.market_address, number, root, payload_hash(data)).struct_hash()
    core.state.drop_entries(count)
    for task in draft.lines:
        core.state.put_task(replace(task, batch=number))
    offer_ids = tuple(task.offer_id for task in draft.lines)
    core.state.batch = BatchRecord(number, data, root, digest, offer_ids, core.now_ms)
    core.state.meta = replace(core.state.meta, last_batch=number)
    gas = payload_gas(draft.payload, core.validators)
    core.emit(BatchFrozen(number, digest, root, len(draft.lines), len(data), gas, reason))


def _longest(core: Core) -> tuple[int, Draft]:
    """The longest prefix that fits, by bisection: a prefix of what fits, fits."""
    most = min(len(core.state.queue), _MOST_ENTRIES)
    draft = _draft(core, most)
    if draft is not None:
        return most, draft
    good, bad, best = 0, most, None
    while bad - good > 1:
        middle = (good + bad) // 2
        draft = _draft(core, middle)
        if draft is None:
            bad = middle
        else:
            good, best = middle, draft
    assert best is not None, "a single entry fits any batch"
    return good, best


# ---- certification and settlement --------------------------------------------------------------------------------------


def certify_batch(core: Core) -> bytes:
    """SETTLEMENT of the frozen batch: its digest is the receipt's output; lines become CERTIFIED the first time."""
    batch = core.state.batch
    assert batch is not None
    if batch.certified_epoch is None:
        for offer_id in batch.lines:
            certify(core, core.state.tasks[offer_id])
        core.emit(BatchCertified(batch.id))
    core.state.batch = replace(batch, certified_epoch=core.state.meta.chain_epoch)
    return batch.hash


def close_batch(core: Core, fact: BatchSettled) -> None:
    """The chain settled the batch. Raises Refusal if it is not the one that is certified here."""
    batch = core.state.batch
    if batch is None or batch.id != fact.batch_id or batch.certified_epoch is None or fact.task_root != batch.task_root:
        raise Refusal(Code.FACT_UNFIT)
    skipped_ues, skipped_locks = frozenset(fact.skipped_ues), frozenset(fact.skipped_locks)
    core.state.batch = None
    skipped = []
    for offer_id in batch.lines:
        task = core.state.tasks[offer_id]
        ue = task.offer.ue
        if (lock_key(ue, offer_id) in skipped_locks) if lock_lane(task.offer) else (ue in skipped_ues):
            skipped.append(task)
        else:
            settle(core, task, batch.id)
    for task in _payable(core, skipped):
        requeue(core, task, batch.id)
    for task in skipped:
        if core.state.tasks[task.offer_id].state == TaskState.CERTIFIED:
            end_unpaid(core, task, TaskState.UNPAYABLE, Reason("UNPAYABLE", task.offer_id.hex(), (batch.id,)))
    core.emit(BatchClosed(batch.id, fact.paid, len(skipped)))


def _payable(core: Core, skipped: list[Task]) -> list[Task]:
    """Skipped tasks that another batch can still pay: in time, and within what voucher, deposit or lock hold."""
    soonest = core.now_ms + core.params.margin_ms // 2
    needed: dict[bytes, int] = {}
    payable = []
    for task in skipped:
        assert task.result is not None
        cost = price_of(task.offer, task.result.filing.fuel_used)
        if _expiry_ms(core, task) < soonest:
            continue
        if lock_lane(task.offer):
            lock = core.state.locks.get(lock_key(task.offer.ue, task.offer_id))
            if lock is not None and lock.wei >= cost:
                payable.append(task)
            continue
        account = core.state.accounts[task.offer.ue]
        total = needed.get(account.ue, 0) + cost
        if account.spent + total <= account.cap and total <= account.balance:
            needed[account.ue] = total
            payable.append(task)
    return payable
