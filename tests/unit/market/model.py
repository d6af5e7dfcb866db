"""A slow plain model of the market beside the real one: the same blocks go in, the books must come out equal.

It knows nothing of the product's rules. It reads each accepted transaction and each event, keeps its own plain books -
who holds which money, which room, which credit, which reputation, what waits for the chain - by the words of market.md,
and compares all of them with the records after every block. Choices (who won a round, who was drawn) it takes from the
events; everything that follows from a choice it works out itself. No pytest in here.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from edgora.market.machine import Market
from edgora.wire.codec import decode, from_u96
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Kind
from edgora.wire.market import Offer, OfferFlag, ResultCode, TaskPayload, TaskState
from edgora.wire.market_events import (
    AdvertFiled,
    AuditDrawn,
    AuditFiled,
    AuditMissed,
    BatchClosed,
    BatchFrozen,
    CreditChanged,
    FactApplied,
    ResultFiled,
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
    Verdict,
)
from edgora.wire.settlement import decode_payload

S = TaskState
TEN_MINUTES = 600_000


@dataclass
class ModelTask:
    offer: Offer
    state: TaskState = S.OPEN
    executor: int | None = None
    assigned_ms: int = 0
    weight: int = 0
    code: int | None = None
    fuel: int = 0
    done_ms: int = 0
    reopened: int = 0
    audits: dict[int, int] = field(default_factory=dict)
    """Open audits: server -> weight."""

    @property
    def maximum(self) -> int:
        return self.offer.fuel_limit * self.offer.price * 1000

    @property
    def cost(self) -> int:
        return self.fuel * self.offer.price * 1000

    @property
    def lock_lane(self) -> bool:
        return bool(self.offer.flags & OfferFlag.LOCK_LANE)


@dataclass
class ModelServer:
    credit: int
    fault_ms: int = 0
    done: int = 0
    late: int = 0
    disputed: int = 0
    desired_ms: int = 0
    actual_ms: int = 0
    fit: bool = False
    weight_of_slot: int = 0


class Model:
    def __init__(self, market: Market) -> None:
        self.market = market
        p = market.params
        self.tasks: dict[bytes, ModelTask] = {}
        self.servers = {s.id: ModelServer(p.credit0) for s in market.servers()}
        self.balance: dict[bytes, int] = defaultdict(int)
        self.spent: dict[bytes, int] = defaultdict(int)
        self.caps: dict[bytes, int] = {}
        self.fines: dict[bytes, list[int]] = defaultdict(list)
        self.unbatched: list[tuple[int, int, int]] = []
        """(server, desired, actual) that no batch has carried to the chain yet, in order."""
        self.in_batch: list[tuple[int, int, int]] = []

    # ---- what happens ----------------------------------------------------------------------------------------------------

    def observe(self, txs, applied) -> list[str]:
        now, p = self.market.now_ms, self.market.params
        for server in self.servers.values():
            if server.fault_ms and now - server.fault_ms >= TEN_MINUTES:
                server.credit, server.fault_ms = max(server.credit, p.credit0), 0
        for tx, outcome in zip(txs, applied.outcomes, strict=True):
            if tx.tx.kind == Kind.TASK and not outcome.code:
                payload = decode(tx.tx.payload, TaskPayload)
                if payload.voucher is not None:
                    self.caps[tx.tx.sender] = from_u96(payload.voucher.cap)
        for event in applied.events:
            getattr(self, f"on_{type(event).__name__}", self._ignore)(event, now)
        return list(self.differences())

    def _ignore(self, event, now) -> None:
        pass

    def on_FactApplied(self, event: FactApplied, now) -> None:
        fact, name = event.fact, type(event.fact).__name__
        if name == "Deposited":
            self.balance[fact.ue] += from_u96(fact.wei)
        elif name == "Exited":
            self.balance[fact.ue] -= from_u96(fact.wei)
        elif name == "ServerRegistered":
            self.servers.setdefault(fact.id, ModelServer(self.market.params.credit0))

    def on_AdvertFiled(self, event: AdvertFiled, now) -> None:
        self.servers[event.server].fit = True

    def on_TaskOpened(self, event: TaskOpened, now) -> None:
        self.tasks[event.offer_id] = ModelTask(event.offer)

    def on_TaskAssigned(self, event: TaskAssigned, now) -> None:
        task = self.tasks[event.offer_id]
        assert task.state == S.OPEN
        task.state, task.executor, task.assigned_ms, task.weight = S.ASSIGNED, event.executor, now, event.weight
        server = self.market.server(event.executor)
        assert server is not None
        assert server.advert is not None
        assert event.weight >= task.offer.fuel_limit

    def on_TaskReopened(self, event: TaskReopened, now) -> None:
        task = self.tasks[event.offer_id]
        assert task.state == S.ASSIGNED
        task.reopened += 1
        task.first_code = task.code if event.reason.code != "OVERDUE" else None
        task.first = event.server
        if event.reason.code == "OVERDUE":
            self._late(event.server, task, now)
        task.state, task.executor, task.code = S.OPEN, None, None

    def _late(self, number: int, task: ModelTask, now: int) -> None:
        server = self.servers[number]
        server.late += 1
        self._halve(server, now)
        self._counts(number, task.offer.desired_ms, 4 * task.offer.desired_ms)

    def _halve(self, server: ModelServer, now: int) -> None:
        server.credit = max(self.market.params.probe, server.credit // 2)
        server.fault_ms = now

    def _counts(self, number: int, desired: int, actual: int) -> None:
        self.servers[number].desired_ms += desired
        self.servers[number].actual_ms += actual
        self.unbatched.append((number, desired, actual))

    def on_ResultFiled(self, event: ResultFiled, now) -> None:
        task = self.tasks[event.offer_id]
        assert task.state == S.ASSIGNED
        assert task.executor == event.executor
        task.code, task.fuel, task.done_ms = event.code, event.fuel_used, event.done_ms
        if event.code == ResultCode.WALL:
            self._late(event.executor, task, now)
        if event.code <= ResultCode.OUTPUT:
            if task.reopened and task.first_code in {ResultCode.BAD_INPUT, ResultCode.BAD_MODULE}:
                self._late(task.first, task, now)
            if event.done_ms <= task.offer.deadline_ms:
                task.state = S.DONE

    def on_AuditDrawn(self, event: AuditDrawn, now) -> None:
        task = self.tasks[event.offer_id]
        assert task.state == S.DONE
        assert task.offer.flags & OfferFlag.AUDITABLE
        for auditor in event.auditors:
            assert auditor.server != task.executor
            record = next(
                a for a in self._auditors(event.offer_id) if a.server == auditor.server and a.number == event.number
            )
            assert record.weight >= task.offer.fuel_limit
            task.audits[auditor.server] = record.weight

    def _auditors(self, offer_id: bytes):
        task = self.market.task(offer_id)
        return task.audit.auditors if task is not None and task.audit is not None else ()

    def on_AuditFiled(self, event: AuditFiled, now) -> None:
        del self.tasks[event.offer_id].audits[event.auditor]

    def on_AuditMissed(self, event: AuditMissed, now) -> None:
        del self.tasks[event.offer_id].audits[event.auditor]

    def on_Verdict(self, event: Verdict, now) -> None:
        for number in event.against:
            self.servers[number].disputed += 1
            self._halve(self.servers[number], now)
        self.fines[event.offer_id] += [from_u96(part.wei) for part in event.penalties]

    def on_ServerNotLive(self, event: ServerNotLive, now) -> None:
        self.servers[event.server].fit = False

    def on_CreditChanged(self, event: CreditChanged, now) -> None:
        # the last change of a block is compared in `differences`; the direction is checked here
        assert 0 < event.credit < 2**48

    def on_TaskFinal(self, event: TaskFinal, now) -> None:
        task = self.tasks[event.offer_id]
        assert task.state == S.DONE
        assert task.executor is not None
        task.state, task.audits = S.FINAL, {}
        server = self.servers[task.executor]
        server.done += 1
        server.credit += task.fuel
        self._counts(task.executor, task.offer.desired_ms, max(1, task.done_ms - task.assigned_ms))

    def on_TaskEnded(self, event: TaskEnded, now) -> None:
        task, cause = self.tasks[event.offer_id], event.reason.code
        legal = {
            S.EXPIRED: S.OPEN, S.CANCELLED: S.OPEN, S.LATE: S.ASSIGNED, S.FAILED: S.ASSIGNED, S.DISPUTED: S.DONE,
            S.UNPAYABLE: S.CERTIFIED,
        }[event.state]  # fmt: skip
        assert task.state == legal, f"{task.state.name} -> {S(event.state).name}"
        desired, measured = task.offer.desired_ms, max(1, task.done_ms - task.assigned_ms)
        if event.state == S.LATE:
            self._late(task.executor, task, now)
        elif cause in {"BAD_INPUT", "BAD_MODULE", "NO_VERDICT"}:
            self._counts(task.executor, desired, measured)
        elif cause == "LOST_DISPUTE":
            self._counts(task.executor, desired, 4 * desired)
        elif cause == "NO_KEY":
            self.servers[task.executor].disputed += 1
            self._halve(self.servers[task.executor], now)
            self._counts(task.executor, desired, 4 * desired)
        task.state, task.audits = S(event.state), {}

    def on_TaskRefunded(self, event: TaskRefunded, now) -> None:
        self.tasks[event.offer_id].state = S.REFUNDED

    def on_TaskRequeued(self, event: TaskRequeued, now) -> None:
        self.tasks[event.offer_id].state = S.FINAL
        self.unbatched.append((self.tasks[event.offer_id].executor, 0, 0))

    def on_BatchFrozen(self, event: BatchFrozen, now) -> None:
        count = len(self.unbatched) - len(list(self.market.queue()))
        self.in_batch, self.unbatched = self.unbatched[:count], self.unbatched[count:]

    def on_BatchCertified(self, event, now) -> None:
        batch = self.market.batch()
        for offer_id, task in self.tasks.items():
            record = self.market.task(offer_id)
            if task.state == S.FINAL and record is not None and record.batch == event.batch_id:
                task.state = S.CERTIFIED
        if batch is not None:
            assert batch.record.id == event.batch_id

    def on_TaskSettled(self, event: TaskSettled, now) -> None:
        task = self.tasks[event.offer_id]
        assert task.state == S.CERTIFIED
        assert from_u96(event.paid) == task.cost
        task.state = S.SETTLED
        if not task.lock_lane:
            self.balance[task.offer.ue] -= task.cost
            self.spent[task.offer.ue] += task.cost

    def on_BatchClosed(self, event: BatchClosed, now) -> None:
        self.in_batch = []

    def on_TaskForgotten(self, event: TaskForgotten, now) -> None:
        assert self.tasks.pop(event.offer_id).state in {S.SETTLED, S.REFUNDED}

    # ---- what must be equal ------------------------------------------------------------------------------------------------

    def differences(self):
        real = {task.offer_id: task for task in self.market.tasks()}
        if set(real) != set(self.tasks):
            yield f"tasks: {len(real)} there, {len(self.tasks)} in the model"
            return
        used = dict.fromkeys(self.servers, 0)
        reserved: dict[bytes, int] = defaultdict(int)
        for offer_id, task in self.tasks.items():
            if real[offer_id].state != task.state:
                yield f"{offer_id.hex()[:8]}: {S(real[offer_id].state).name} there, {task.state.name} in the model"
            if task.state == S.ASSIGNED:
                used[task.executor] += task.weight
            for number, weight in task.audits.items():
                used[number] += weight
            if task.state not in {S.SETTLED, S.REFUNDED} and not task.lock_lane:
                reserved[task.offer.ue] += task.maximum
        for server in self.market.servers():
            mine = self.servers[server.id]
            there = (server.used, server.credit, server.done, server.late, server.disputed, server.desired_ms,
                     server.actual_ms, server.fit)  # fmt: skip
            here = (used[server.id], mine.credit, mine.done, mine.late, mine.disputed, mine.desired_ms, mine.actual_ms,
                    mine.fit)  # fmt: skip
            if there != here:
                yield f"server {server.id}: {there} there, {here} in the model"
        for account in self.market.accounts():
            there_money = (account.balance - account.shortfall, account.spent, account.reserved, account.cap)
            here_money = (
                self.balance[account.ue],
                self.spent[account.ue],
                reserved[account.ue],
                self.caps.get(account.ue, 0),
            )
            if there_money != here_money:
                yield f"account {account.ue.hex()[:8]}: {there_money} there, {here_money} in the model"
        yield from self._chain()

    def _chain(self):
        waiting = [(entry.server, entry.desired_ms, entry.actual_ms) for entry in self.market.queue()]
        if waiting != self.unbatched:
            yield f"queue: {waiting} there, {self.unbatched} in the model"
        view = self.market.batch()
        if view is None:
            return
        payload = decode_payload(view.record.payload, len(self.servers))
        sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        for number, desired, actual in self.in_batch:
            sums[number][0] += desired
            sums[number][1] += actual
        table = {row.id: [row.desired_ms, row.actual_ms] for row in payload.servers}
        if {k: v for k, v in table.items() if v != [0, 0]} != {k: v for k, v in sums.items() if v != [0, 0]}:
            yield f"batch {view.record.id}: {table} in its server table, {dict(sums)} in the model"
        ids = [row.id for row in payload.servers]
        due = sorted(
            (self.tasks[x].offer.source, self.tasks[x].executor, self.tasks[x].cost) for x in view.record.lines
        )
        lines = [line for section in payload.sections for line in section.lines] + [lock.line for lock in payload.locks]
        paid = sorted((ids[x.receiver], ids[x.executor], x.fuel * x.price * 1000) for x in lines)
        if due != paid:
            yield f"batch {view.record.id}: pays {paid}, due is {due}"
        if keccak(view.record.payload) == keccak(b""):
            yield f"batch {view.record.id} is empty"
