"""J1-J8 of market.md 10 as a checker: what must hold after every block, stated again in the plainest way.

Rule 1: nothing of rules.py, receipts.py or lifecycle.py is used here; formulas are written out a second time, so that a
mistake there does not hide itself.
Rule 2: pure: a market and what its last block did go in, sentences about what is wrong come out; none means all is well.

`check(market)` looks at the state alone. `Watch` also remembers the blocks before: transitions, who changed which
account, what rounds were worth, where the money went.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from edgora.market.machine import Market
from edgora.market.records import Account, Server, Task
from edgora.wire.application import Applied
from edgora.wire.codec import decode, from_u96, from_u128
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Kind, OrderedTx, faulty
from edgora.wire.market import (
    PAID_CODES,
    Allocation,
    Instance,
    LiveServer,
    OfferFlag,
    OpenTask,
    ResultCode,
    TaskPayload,
    TaskState,
)
from edgora.wire.market_events import (
    BatchClosed,
    FactApplied,
    RoundClosed,
    RoundOpened,
    TaskAssigned,
    TaskFinal,
    TaskForgotten,
    TaskOpened,
    TaskRefunded,
    TaskSettled,
    Verdict,
)
from edgora.wire.settlement import Batch

__all__ = ["Watch", "check"]

S = TaskState
_NEXT: Mapping[TaskState, frozenset[TaskState]] = {
    S.OPEN: frozenset((S.ASSIGNED, S.EXPIRED, S.CANCELLED)),
    S.ASSIGNED: frozenset((S.OPEN, S.DONE, S.LATE, S.FAILED)),
    S.DONE: frozenset((S.FINAL, S.DISPUTED)),
    S.FINAL: frozenset((S.CERTIFIED,)),
    S.CERTIFIED: frozenset((S.SETTLED, S.FINAL, S.UNPAYABLE)),
    S.EXPIRED: frozenset((S.REFUNDED,)),
    S.CANCELLED: frozenset((S.REFUNDED,)),
    S.LATE: frozenset((S.REFUNDED,)),
    S.FAILED: frozenset((S.REFUNDED,)),
    S.DISPUTED: frozenset((S.REFUNDED,)),
    S.UNPAYABLE: frozenset((S.REFUNDED,)),
    S.SETTLED: frozenset(),
    S.REFUNDED: frozenset(),
}
_ENDS = frozenset((S.SETTLED, S.REFUNDED))
_UNPAID = frozenset((S.EXPIRED, S.CANCELLED, S.LATE, S.FAILED, S.DISPUTED, S.UNPAYABLE))
_PAID_PATH = frozenset((S.FINAL, S.CERTIFIED, S.SETTLED))


def _reachable(start: TaskState) -> frozenset[TaskState]:
    """Everything that one block may make of a task, itself included."""
    seen, todo = {start}, [start]
    while todo:
        for state in _NEXT[todo.pop()] - seen:
            seen.add(state)
            todo.append(state)
    return frozenset(seen)


_REACHABLE = {state: _reachable(state) for state in TaskState}


def _maximum(task: Task) -> int:
    return task.offer.fuel_limit * task.offer.price * 1000


def _is_voucher(task: Task) -> bool:
    return not task.offer.flags & OfferFlag.LOCK_LANE


def _name(task: Task) -> str:
    return f"task {task.offer_id.hex()[:8]} ({TaskState(task.state).name})"


# ---- the state alone ---------------------------------------------------------------------------------------------------


def check(market: Market) -> list[str]:
    """What is wrong with this state; nothing is, if the list is empty."""
    tasks = list(market.tasks())
    servers = {server.id: server for server in market.servers()}
    found = [*_rooms(tasks, servers), *_reserved(market, tasks), *_queue(market, tasks)]
    for task in tasks:
        found += [f"{_name(task)}: {wrong}" for wrong in _task(market, task)]
    return found


def _rooms(tasks: Sequence[Task], servers: Mapping[int, Server]) -> Iterator[str]:
    """J2: used room is what assigned tasks and open audits weigh."""
    used = dict.fromkeys(servers, 0)
    for task in tasks:
        if task.state == S.ASSIGNED and task.executor is not None:
            used[task.executor] += task.weight
        if task.state == S.DONE and task.audit is not None:
            for auditor in task.audit.auditors:
                used[auditor.server] += 0 if auditor.closed else auditor.weight
    for number, server in servers.items():
        if server.used != used[number]:
            yield f"J2: server {number} has {server.used} fuel in use, its tasks and audits weigh {used[number]}"


def _reserved(market: Market, tasks: Sequence[Task]) -> Iterator[str]:
    """J3: what is reserved is the sum of the maxima of unfinished voucher tasks."""
    reserved: dict[bytes, int] = {}
    count: dict[bytes, int] = {}
    for task in tasks:
        if _is_voucher(task) and task.state not in _ENDS:
            reserved[task.offer.ue] = reserved.get(task.offer.ue, 0) + _maximum(task)
            count[task.offer.ue] = count.get(task.offer.ue, 0) + 1
    for account in market.accounts():
        due = reserved.pop(account.ue, 0)
        if account.reserved != due or account.unfinished != count.get(account.ue, 0):
            yield f"J3: account {account.ue.hex()[:8]} reserves {account.reserved}, its unfinished tasks need {due}"
    for ue in reserved:
        yield f"J3: unfinished tasks of {ue.hex()[:8]}, which has no account"


def _task(market: Market, task: Task) -> Iterator[str]:
    """J1, J6: a state fits its fields and its time."""
    p, f, now = market.params, faulty(market.core.validators), market.now_ms
    deadline = task.offer.deadline_ms
    if task.state in {S.OPEN, S.ASSIGNED} and task.result is not None:
        yield "J1: has a result already"
    if (task.state == S.OPEN) == (task.executor is not None) and not task.cause:
        yield "J1: has an executor only from ASSIGNED on"
    if task.state in _ENDS | _UNPAID and not task.cause and task.state != S.SETTLED:
        yield "J1: does not say how it ended"
    if task.cause and task.reason is None:
        yield "J1: does not say why it ended"
    if task.state == S.OPEN and now + p.slack_ms + _least_ms(market, task) > deadline:
        yield f"J1: still open, {deadline} cannot be met at {now}"
    if task.state == S.ASSIGNED and now > deadline + p.file_ms:
        yield f"J1: still assigned, filing closed at {deadline + p.file_ms}"
    if task.state in {S.OPEN, S.ASSIGNED, S.DONE} and now >= deadline + p.file_ms + 2 * (p.draw_ms + p.audit_max_ms):
        yield "J6: neither FINAL nor ended when it could become payable"
    if task.state in _PAID_PATH | {S.DONE}:
        if task.result is None:
            yield "J1: has no result"
            return
        if task.result.filing.code not in PAID_CODES:
            yield f"J1: pays for {ResultCode(task.result.filing.code).name}"
        if task.result.filing.fuel_used > task.offer.fuel_limit:
            yield "J4: pays for more fuel than the offer allows"
        if task.result.done_ms > deadline:
            yield f"J1: paid although done at {task.result.done_ms}, after {deadline}"
        holders = set(task.result.holders) - {task.executor}
        if len(holders) < f + 1:
            yield f"J1: {len(holders)} other servers hold the result, {f + 1} must"
    if task.state in _PAID_PATH and task.audit is not None and task.audit.number and task.result is not None:
        agreeing = sum(a.filing == task.result.filing for a in task.audit.auditors) + 1
        if agreeing < f + 1:
            yield f"J1: paid although {agreeing} of {f + 1} needed filings agree"
    if task.state == S.CERTIFIED and (market.batch(task.batch) is None or not task.batch):
        yield "J1: certified outside of the unsettled batch"


def _least_ms(market: Market, task: Task) -> int:
    """Least T over known adverts, live or not; 0 if there is none."""
    offer = task.offer
    source = market.server(offer.source)
    times = []
    for server in market.servers():
        if server.advert is not None:
            time = -(-1000 * offer.fuel_limit // server.advert.speed) - (
                -1000 * offer.output_octets // server.advert.uplink
            )
            if server.id != offer.source and source is not None and source.advert is not None:
                time -= -1000 * offer.input_octets // source.advert.uplink
            times.append(time)
    return min(times, default=0)


def _queue(market: Market, tasks: Sequence[Task]) -> Iterator[str]:
    """Every FINAL task has one way to the chain, and nothing waits for a batch that could be frozen."""
    waiting = [entry.offer_id for entry in market.queue() if entry.line]
    batch = market.batch()
    frozen = list(batch.record.lines) if batch is not None else []
    ways = sorted(waiting + frozen)
    finals = sorted(task.offer_id for task in tasks if task.state in {S.FINAL, S.CERTIFIED})
    if ways != finals:
        yield f"J1: {len(ways)} lines wait or are frozen for {len(finals)} tasks that are to be paid"
    entries = list(market.queue())
    if batch is None and entries:
        if len(entries) >= 100:
            yield f"J6: {len(entries)} ended tasks wait and no batch is frozen"
        if market.now_ms - entries[0].queued_ms >= market.params.batch_ms:
            yield f"J6: an ended task has waited {market.now_ms - entries[0].queued_ms} ms and no batch is frozen"
        if not any(task.state in {S.OPEN, S.ASSIGNED, S.DONE} for task in tasks):
            yield "J6: nothing is under way, ended tasks wait, and no batch is frozen"
    if batch is not None:
        record = batch.record
        core = market.core
        again = Batch(core.chain_id, core.market_address, record.id, record.task_root, keccak(record.payload))
        if again.struct_hash() != record.hash:
            yield f"J4: batch {record.id} is not what its hash says"


# ---- over time ---------------------------------------------------------------------------------------------------------


class Watch:
    """Follows one market from block to block. Feed it each block's transactions and what came of them."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._states = {task.offer_id: TaskState(task.state) for task in market.tasks()}
        self._accounts = {account.ue: account for account in market.accounts()}
        self._paid: dict[bytes, int] = {t.offer_id: _maximum(t) for t in market.tasks() if t.state in _ENDS}
        """Tasks at their end: what was paid and freed, which must be the maximum, once."""
        view = market.round_state()
        self._instance: Instance | None = view.instance if view is not None else None
        self._accepted: dict[int, int] = {}
        """Values of the open round's accepted proposals, recomputed, by server."""
        self._choices: set[tuple[bytes, int | None]] = set()
        batch = market.batch()
        self._frozen: tuple[int, bytes] | None = (batch.record.id, batch.record.payload) if batch is not None else None
        self._maxima: dict[bytes, int] = {task.offer_id: _maximum(task) for task in market.tasks()}

    def observe(self, txs: Sequence[OrderedTx], applied: Applied) -> list[str]:
        """What is wrong after this block."""
        found = check(self._market)
        found += self._proposals(txs, applied)
        self._choices = set()
        for event in applied.events:
            found += self._event(event)
        found += self._transitions(applied.events)
        found += self._strangers(txs, applied)
        found += self._batch()
        return found

    # ---- J1

    def _transitions(self, events: Iterable[msgspec.Struct]) -> Iterator[str]:
        now = {task.offer_id: TaskState(task.state) for task in self._market.tasks()}
        forgotten = {event.offer_id for event in events if isinstance(event, TaskForgotten)}
        for offer_id, before in self._states.items():
            after = now.get(offer_id)
            if after is None:
                if offer_id not in self._paid or offer_id not in forgotten:
                    yield f"J1: task {offer_id.hex()[:8]} left the state as {before.name}"
            elif after not in _REACHABLE[before] or (before in _ENDS and after != before):
                yield f"J1: task {offer_id.hex()[:8]} went from {before.name} to {after.name}"
        for offer_id, after in now.items():
            if after in _ENDS and offer_id not in self._paid and offer_id not in forgotten:
                yield f"J4: task {offer_id.hex()[:8]} ended as {after.name} and its money did not move"
        for offer_id in forgotten:
            self._paid.pop(offer_id, None)
            self._maxima.pop(offer_id, None)
        self._states = now

    # ---- J4

    def _event(self, event: msgspec.Struct) -> Iterator[str]:
        if isinstance(event, TaskOpened):
            self._maxima[event.offer_id] = event.offer.fuel_limit * event.offer.price * 1000
            if from_u96(event.maximum) != self._maxima[event.offer_id]:
                yield f"J4: task {event.offer_id.hex()[:8]} reserves another sum than its offer's maximum"
        elif isinstance(event, TaskFinal):
            yield from self._final(event)
        elif isinstance(event, TaskSettled):
            yield from self._ended(event.offer_id, from_u96(event.paid) + from_u96(event.free))
        elif isinstance(event, TaskRefunded):
            yield from self._ended(event.offer_id, from_u96(event.wei))
        elif isinstance(event, Verdict):
            yield from self._verdict(event)
        elif isinstance(event, RoundOpened):
            self._instance, self._accepted = event.instance, {}
        elif isinstance(event, RoundClosed):
            yield from self._closed(event)
        elif isinstance(event, TaskAssigned) and (event.offer_id, event.executor) not in self._choices:
            yield f"J5: task {event.offer_id.hex()[:8]} went to server {event.executor}, no close chose that"

    def _final(self, event: TaskFinal) -> Iterator[str]:
        task = self._market.task(event.offer_id)
        if task is None or task.result is None:
            yield f"J4: a receipt for task {event.offer_id.hex()[:8]}, which has no result"
            return
        amount = task.result.filing.fuel_used * task.offer.price * 1000
        source, executor = from_u96(event.source_share), from_u96(event.executor_share)
        if from_u96(event.amount) != amount or amount > _maximum(task):
            yield f"J4: {_name(task)} costs {from_u96(event.amount)} wei, fuel x price is {amount}"
        if source + executor != amount or source != amount * self._market.params.lambda_bps // 10_000:
            yield f"J4: {_name(task)} splits {amount} wei into {source} and {executor}"

    def _ended(self, offer_id: bytes, moved: int) -> Iterator[str]:
        maximum = self._maxima.get(offer_id)
        if offer_id in self._paid:
            yield f"J4: task {offer_id.hex()[:8]} ended twice"
        if moved != maximum:
            yield f"J4: task {offer_id.hex()[:8]} held {maximum} wei and gave back or paid {moved}"
        self._paid[offer_id] = moved

    def _verdict(self, event: Verdict) -> Iterator[str]:
        """Each server against the verdict pays audit_pay, to agreeing auditors in equal parts, and burns the rest."""
        f = faulty(self._market.core.validators)
        if len(set(event.agreeing)) < f + 1:
            yield f"J4: a verdict of {len(event.agreeing)} filings, {f + 1} are needed"
        for server in event.against:
            fines = [from_u96(part.wei) for part in event.penalties if part.server == server]
            if sum(fines) != self._market.params.audit_pay:
                yield f"J4: server {server} is fined {sum(fines)} wei, audit_pay is {self._market.params.audit_pay}"
        task = self._market.task(event.offer_id)
        paid_to = {part.to for part in event.penalties} - {None}
        if not paid_to <= set(event.agreeing) or (task is not None and task.executor in paid_to):
            yield "J4: a fine goes to a server that did not audit or did not agree"
        if {part.server for part in event.penalties} - set(event.against):
            yield "J4: a server is fined that agreed with the verdict"

    # ---- J5 and J2's second half

    def _proposals(self, txs: Sequence[OrderedTx], applied: Applied) -> Iterator[str]:
        """What was accepted is worth what it claims, at least the floor, and fits."""
        for tx, outcome in zip(txs, applied.outcomes, strict=True):
            if tx.tx.kind != Kind.ALLOCATION or outcome.code or self._instance is None:
                continue
            proposal = decode(tx.tx.payload, Allocation)
            server = self._market.server_of(tx.tx.sender)
            wrong, value = _plan(self._instance, proposal.pairs)
            yield from wrong
            if value != from_u128(proposal.value):
                yield f"J5: a proposal that claims {from_u128(proposal.value)} wei was accepted, it is worth {value}"
            floor = self._market.params.floor_bps * _greedy_value(self._instance)
            if value * 10_000 < floor:
                yield f"J5: a proposal worth {value} wei was accepted below the floor of {floor // 10_000}"
            if server is not None:
                self._accepted[server.id] = value

    def _closed(self, event: RoundClosed) -> Iterator[str]:
        instance = self._instance
        self._choices = {(choice.offer_id, choice.server) for choice in event.choices}
        if instance is None:
            yield f"J5: round {event.round} closed and was not open"
            return
        index = {task.offer_id: j for j, task in enumerate(instance.tasks)}
        pairs = [(index[c.offer_id], c.server) for c in event.choices if c.server is not None]
        wrong, value = _plan(instance, pairs)
        yield from wrong
        winner = from_u128(event.value)
        if max(value, 0) != winner:
            yield f"J5: round {event.round} says {winner} wei, its choices are worth {value}"
        prefer = self._market.params.prefer
        if not (prefer and event.policy == prefer):
            best = max([from_u128(event.greedy), *(from_u128(part.value) for part in event.accepted)])
            if winner < best:
                yield f"J5: round {event.round} took {winner} wei and had {best}"
            if not any(part.dropped for part in event.accepted):
                least = max(self._accepted.values(), default=0)
                if winner < least and all(self._accepted.get(p.server) == from_u128(p.value) for p in event.accepted):
                    yield f"J5: round {event.round} took {winner} wei, a proposal was worth {least}"
        self._instance, self._accepted = None, {}

    # ---- J8

    def _strangers(self, txs: Sequence[OrderedTx], applied: Applied) -> Iterator[str]:
        """An account's voucher and reservations follow its own offers, its money only the chain."""
        own = set()
        for tx, outcome in zip(txs, applied.outcomes, strict=True):
            if tx.tx.kind == Kind.TASK and not outcome.code:
                own.add(tx.tx.sender)
                if decode(tx.tx.payload, TaskPayload).offer.ue != tx.tx.sender:
                    yield "J8: somebody opened another one's offer"
        chain = any(isinstance(event, FactApplied | BatchClosed) for event in applied.events)
        now = {account.ue: account for account in self._market.accounts()}
        for ue, after in now.items():
            before = self._accounts.get(ue) or Account(ue)
            if ue not in own and (after.reserved > before.reserved or after.voucher != before.voucher):
                yield f"J8: account {ue.hex()[:8]} was charged without an offer of its own"
            if not chain and (after.balance, after.spent, after.exit_at_s) != (
                before.balance, before.spent, before.exit_at_s,
            ):  # fmt: skip
                yield f"J8: the money of {ue.hex()[:8]} moved without a fact of the chain"
            if after.spent < before.spent:
                yield f"J4: what {ue.hex()[:8]} spent fell"
        self._accounts = now

    # ---- batches

    def _batch(self) -> Iterator[str]:
        """A frozen batch stays as it is until the chain settled it."""
        view = self._market.batch()
        now = (view.record.id, view.record.payload) if view is not None else None
        before, self._frozen = self._frozen, now
        if before is not None and now is not None and now[0] == before[0] and now[1] != before[1]:
            yield f"J4: batch {now[0]} changed after it was frozen"
        if before is not None and now is not None and now[0] not in {before[0], before[0] + 1}:
            yield f"J4: batch {now[0]} follows batch {before[0]}"


# ---- market.md 4, written out again --------------------------------------------------------------------------------------


def _up(a: int, b: int) -> int:
    return (a + b - 1) // b


def _numbers(instance: Instance, task: OpenTask, server: LiveServer) -> tuple[int, int, bool]:
    """(weight, W, ok) of a pair."""
    holds = min(server.capacity, server.credit)
    weight = max(task.fuel_limit, _up(holds, server.slots))
    time = _up(1000 * task.fuel_limit, server.speed) + _up(1000 * task.output_octets, server.uplink)
    worth = 1000 * task.fuel_limit * task.price - 1000 * task.fuel_limit * server.ask
    source = next((s for s in instance.servers if s.id == task.source), None)
    ok = server.id not in task.excluded
    if server.id != task.source:
        if source is None:
            ok = False
        else:
            time += _up(1000 * task.input_octets, source.uplink)
            worth -= source.forward * _up(task.input_octets, 1024)
    ok = ok and task.price >= server.ask and weight <= holds - server.used
    return weight, worth, ok and instance.now_ms + time + instance.slack_ms <= task.deadline_ms


def _plan(instance: Instance, pairs: Iterable[tuple[int, int]]) -> tuple[list[str], int]:
    """(what is wrong with a plan, what it is worth)."""
    by_id = {server.id: server for server in instance.servers}
    load = dict.fromkeys(by_id, 0)
    seen: set[int] = set()
    wrong: list[str] = []
    value = 0
    for j, number in pairs:
        if j >= len(instance.tasks) or number not in by_id or j in seen:
            return [*wrong, f"J5: a plan names task index {j} and server {number}"], value
        seen.add(j)
        weight, worth, ok = _numbers(instance, instance.tasks[j], by_id[number])
        load[number] += weight
        value += worth
        if not ok:
            wrong.append(f"J5: a plan gives task index {j} to server {number}, which is not ok")
    for number, server in by_id.items():
        room = min(server.capacity, server.credit) - server.used
        if load[number] > max(room, 0):
            wrong.append(f"J2: a plan puts {load[number]} fuel on server {number}, which has room for {room}")
    return wrong, value


def _greedy_value(instance: Instance) -> int:
    """What the built-in greedy makes of an instance: repeatedly the best pair that still fits."""
    pairs = []
    for j, task in enumerate(instance.tasks):
        for server in instance.servers:
            weight, worth, ok = _numbers(instance, task, server)
            if ok and worth >= 0:
                pairs.append((worth, j, server.id, weight))
    room = {server.id: min(server.capacity, server.credit) - server.used for server in instance.servers}
    total, placed = 0, set()
    for worth, j, number, weight in sorted(pairs, key=lambda p: (-p[0], p[1], p[2])):
        if j not in placed and weight <= room[number]:
            placed.add(j)
            room[number] -= weight
            total += worth
    return total
