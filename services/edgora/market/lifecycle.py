"""How a task moves from state to state, and what each move does to money, room, credit and reputation (market.md 2, 5).

Rule 1: every change of a task's state is one function here; nobody else writes `state`.
Rule 2: a task holds money from OPEN until one of its two ends, room of a server while ASSIGNED, of auditors while DONE.

    OPEN -> ASSIGNED -> DONE -> FINAL -> CERTIFIED -> SETTLED
    OPEN -> EXPIRED | CANCELLED           ASSIGNED -> OPEN | LATE | FAILED        DONE -> DISPUTED
    CERTIFIED -> FINAL | UNPAYABLE        EXPIRED .. UNPAYABLE -> REFUNDED

Counting as late: the server's reputation gets four times the desired time, its credit halves, never below `probe`.
"""

from msgspec.structs import replace

from edgora.market.core import FORGIVE_MS, U48_MAX, Core
from edgora.market.receipts import lock_lane, maximum, price_of, split
from edgora.market.records import Entry, Server, Task
from edgora.market.rules import pair_ok
from edgora.wire.codec import to_u96
from edgora.wire.market import Offer, Reason, TaskState, VoucherPart
from edgora.wire.market_events import (
    CreditChanged,
    LockChanged,
    PenaltyPart,
    ServerNotLive,
    TaskAssigned,
    TaskEnded,
    TaskFinal,
    TaskForgotten,
    TaskOpened,
    TaskRefunded,
    TaskReopened,
    TaskRequeued,
    TaskSettled,
)
from edgora.wire.settlement import lock_key

__all__ = [
    "another_pair_ok", "assign", "certify", "count_late", "end_unpaid", "finalise", "forget", "free_room",
    "lock_refunded", "lose_dispute", "measured_ms", "not_live", "open_task", "recover_credits", "reopen", "reputation",
    "requeue", "settle",
]  # fmt: skip

_U56_MAX = 2**56 - 1
_U32_MAX = 2**32 - 1


# ---- servers: credit, liveness, reputation -----------------------------------------------------------------------------


def not_live(core: Core, server_id: int, reason: str, subject: str = "") -> None:
    """No new work for this server until it files a new ADVERT."""
    server = core.state.servers[server_id]
    if server.fit:
        core.state.put_server(replace(server, fit=False))
        core.emit(ServerNotLive(server_id, Reason(reason, subject)))


def _set_credit(core: Core, server: Server, reason: str) -> None:
    core.state.put_server(server)
    core.emit(CreditChanged(server.id, server.credit, Reason(reason)))


def _halved(core: Core, server: Server) -> Server:
    return replace(server, credit=max(server.credit // 2, core.params.probe), fault_ms=core.now_ms)


def recover_credits(core: Core) -> None:
    """Credits that a fault had pushed below credit0 and that ten minutes without another fault bring back."""
    for server in core.state.servers.values():
        if server.fault_ms and server.fault_ms + FORGIVE_MS <= core.now_ms:
            forgiven = replace(server, fault_ms=0)
            if server.credit < core.params.credit0:
                _set_credit(core, replace(forgiven, credit=core.params.credit0), "RECOVERED")
            else:
                core.state.put_server(forgiven)


def reputation(
    core: Core, task: Task, server_id: int, actual_ms: int, *, line: bool = False,
    penalties: tuple[PenaltyPart, ...] = (),
) -> None:  # fmt: skip
    """Adds to a server's sums, here now and by a batch on the chain; `line`: the batch pays the task, too."""
    server, desired = core.state.servers[server_id], task.offer.desired_ms
    core.state.put_server(replace(
        server, desired_ms=min(server.desired_ms + desired, _U56_MAX),
        actual_ms=min(server.actual_ms + actual_ms, _U56_MAX),
    ))  # fmt: skip
    entry = Entry(task.offer_id, server_id, desired, min(actual_ms, _U32_MAX), line, core.now_ms, penalties)
    core.state.put_entry(core.state.next_order(), entry)


def count_late(core: Core, task: Task, server_id: int, reason: str) -> None:
    """LATE and WALL: half the credit, and four times the desired time."""
    server = core.state.servers[server_id]
    _set_credit(core, _halved(core, replace(server, late=server.late + 1)), reason)
    reputation(core, task, server_id, 4 * task.offer.desired_ms)


def lose_dispute(core: Core, server_id: int) -> None:
    """A verdict stands against what this server filed, as executor or as auditor: half the credit."""
    server = core.state.servers[server_id]
    _set_credit(core, _halved(core, replace(server, disputed=server.disputed + 1)), "LOST_DISPUTE")


def free_room(core: Core, server_id: int, weight: int) -> None:
    server = core.state.servers[server_id]
    core.state.put_server(replace(server, used=server.used - weight))


# ---- money -----------------------------------------------------------------------------------------------------------


def _reserve(core: Core, offer: Offer, voucher: VoucherPart) -> None:
    account = core.state.accounts[offer.ue]
    core.put_account(account._replace(
        reserved=account.reserved + maximum(offer), unfinished=account.unfinished + 1, voucher=voucher,
    ))  # fmt: skip


def _release(core: Core, offer: Offer, paid: int = 0) -> None:
    """A voucher task is over: nothing is reserved for it any more, `paid` of the deposit went to servers."""
    account = core.state.accounts[offer.ue]
    balance = account.balance - paid
    core.put_account(account._replace(
        balance=max(balance, 0), shortfall=account.shortfall + max(-balance, 0), spent=account.spent + paid,
        reserved=account.reserved - maximum(offer), unfinished=account.unfinished - 1,
    ))  # fmt: skip


def _pay_from_lock(core: Core, task: Task, paid: int) -> None:
    """The chain took a line from its lock: the remainder stays, refundable at once."""
    key = lock_key(task.offer.ue, task.offer_id)
    lock = core.state.locks.get(key)
    if lock is None:
        return
    left = max(lock.wei - paid, 0)
    if left:
        core.state.put_lock(key, lock._replace(wei=left, deadline_s=0))
    else:
        core.state.delete_lock(key)
    core.emit(LockChanged(task.offer_id, lock.ue, to_u96(left), 0))


# ---- opening and placing -----------------------------------------------------------------------------------------------


def open_task(core: Core, offer_id: bytes, offer: Offer, voucher: VoucherPart | None) -> None:
    """An admitted offer becomes a task; its maximum is reserved in the voucher lane."""
    if voucher is not None:
        _reserve(core, offer, voucher)
    core.state.put_task(Task(offer_id, offer, core.state.next_order(), core.now_ms))
    core.state.meta = replace(core.state.meta, last_task_ms=core.now_ms)
    core.emit(TaskOpened(offer_id, offer, to_u96(maximum(offer))))


def assign(core: Core, task: Task, executor: int, round_: int, weight: int, expected_ms: int) -> None:
    """The close of a round gives the task to a server."""
    p = core.params
    file_by = 0 if task.reopened else core.now_ms + expected_ms + p.slack_ms + p.file_ms
    server = core.state.servers[executor]
    core.state.put_server(replace(server, used=server.used + weight))
    core.state.put_task(replace(
        task, state=TaskState.ASSIGNED, executor=executor, round=round_, assigned_ms=core.now_ms,
        expected_ms=expected_ms, file_by_ms=file_by, weight=weight,
    ))  # fmt: skip
    last = task.offer.deadline_ms + p.file_ms
    core.emit(TaskAssigned(task.offer_id, executor, round_, expected_ms, min(file_by or last, last), weight))


def another_pair_ok(core: Core, task: Task, without: int) -> bool:
    """Whether some live server other than that one could take the task in the round that comes next."""
    view = core.as_open(replace(task, excluded=(*task.excluded, without)))
    sellers = {seller.id: seller for seller in core.sellers()}
    now = core.now_ms + core.params.proposal_ms
    return any(
        pair_ok(view, seller, sellers.get(view.source), now_ms=now, slack_ms=core.params.slack_ms,
                room=min(seller.capacity, seller.credit) - seller.used)
        for seller in sellers.values()
    )  # fmt: skip


def reopen(core: Core, task: Task, reason: str, *, accused: bool = False) -> None:
    """ASSIGNED -> OPEN, once, without the server that had it."""
    executor = task.executor
    assert executor is not None
    free_room(core, executor, task.weight)
    core.state.put_task(replace(
        task, state=TaskState.OPEN, executor=None, assigned_ms=0, file_by_ms=0, expected_ms=0, weight=0, reopened=True,
        excluded=tuple(sorted((*task.excluded, executor))), accused=executor if accused else None,
    ))  # fmt: skip
    core.emit(TaskReopened(task.offer_id, executor, Reason(reason, task.offer_id.hex(), (executor,))))
    not_live(core, executor, "REOPENED", task.offer_id.hex())


# ---- ends ------------------------------------------------------------------------------------------------------------


def end_unpaid(core: Core, task: Task, state: TaskState, reason: Reason) -> None:
    """The task ends without pay: refunded at once in the voucher lane, by the chain's refund in the lock lane."""
    offer = task.offer
    core.emit(TaskEnded(task.offer_id, state, reason))
    if lock_lane(offer):
        refunded = lock_key(offer.ue, task.offer_id) not in core.state.locks
    else:
        _release(core, offer)
        refunded = True
    if refunded:
        core.emit(TaskRefunded(task.offer_id, to_u96(maximum(offer))))
    core.state.put_task(replace(
        task, state=TaskState.REFUNDED if refunded else state, cause=state, reason=reason, ended_ms=core.now_ms,
    ))  # fmt: skip


def finalise(core: Core, task: Task, penalties: tuple[PenaltyPart, ...] = ()) -> None:
    """DONE -> FINAL: the receipt stands; it queues for a batch, and the executor has done a task in time."""
    result, executor = task.result, task.executor
    assert result is not None
    assert executor is not None
    server = core.state.servers[executor]
    credit = min(server.credit + result.filing.fuel_used, U48_MAX)
    server = replace(server, done=server.done + 1)
    if credit != server.credit:
        _set_credit(core, replace(server, credit=credit), "DONE")
    else:
        core.state.put_server(server)
    reputation(core, task, executor, measured_ms(task), line=True, penalties=penalties)
    core.state.put_task(replace(task, state=TaskState.FINAL, ended_ms=core.now_ms))
    amount = price_of(task.offer, result.filing.fuel_used)
    source, rest = split(amount, core.params.lambda_bps)
    core.emit(TaskFinal(task.offer_id, to_u96(amount), to_u96(source), to_u96(rest)))


def measured_ms(task: Task) -> int:
    """How long the executor took: from the assignment to done_ms, at least 1."""
    assert task.result is not None
    return max(1, task.result.done_ms - task.assigned_ms)


def certify(core: Core, task: Task) -> None:
    """FINAL -> CERTIFIED: the batch that holds its line has a code-0 receipt."""
    core.state.put_task(replace(task, state=TaskState.CERTIFIED))


def settle(core: Core, task: Task, batch_id: int) -> None:
    """CERTIFIED -> SETTLED: the chain paid the line."""
    assert task.result is not None
    paid = price_of(task.offer, task.result.filing.fuel_used)
    if lock_lane(task.offer):
        _pay_from_lock(core, task, paid)
    else:
        _release(core, task.offer, paid)
    core.state.put_task(replace(task, state=TaskState.SETTLED))
    core.emit(TaskSettled(task.offer_id, batch_id, to_u96(paid), to_u96(maximum(task.offer) - paid)))


def requeue(core: Core, task: Task, batch_id: int) -> None:
    """CERTIFIED -> FINAL: skipped by the chain, still payable. Its reputation is on the chain already."""
    assert task.executor is not None
    entry = Entry(task.offer_id, task.executor, 0, 0, line=True, queued_ms=core.now_ms)
    core.state.put_entry(core.state.next_order(), entry)
    core.state.put_task(replace(task, state=TaskState.FINAL, ended_ms=core.now_ms, batch=0))
    core.emit(TaskRequeued(task.offer_id, batch_id))


def lock_refunded(core: Core, task: Task) -> None:
    """The chain gave a lock back: an unpaid task of the lock lane has reached its end."""
    core.state.put_task(replace(task, state=TaskState.REFUNDED))
    core.emit(TaskRefunded(task.offer_id, to_u96(maximum(task.offer))))


def forget(core: Core) -> None:
    """Finished tasks leave the state keep_ms after their deadline; a later copy is refused by that deadline."""
    while (offer_id := core.state.ends.pop_due(core.now_ms - core.params.keep_ms - 1)) is not None:
        core.state.delete_task(offer_id)
        core.emit(TaskForgotten(offer_id))
