"""The market as a replicated application: one block in, receipts, writes and events out (market.md, house.md 3).

Rule 1: everything follows from the state, the block and its transactions; two replicas, in any process, agree to the
byte. Rule 2: a refused operation changes nothing. Rule 3: whatever happens by time happens at the end of the first block
whose header time has reached it, in this order:

    credits and bans that ran out, the transactions, due tasks by (instant, arrival), close of the round,
    opening of the next, freezing of a batch, tasks that leave the state, the next wake time

Between blocks the object is a read-only view of the state for the API; queries return frozen records.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Self, TypeVar

from msgspec.structs import replace

from edgora.market import audit, checks, facts, lifecycle, rounds, settlement
from edgora.market.core import FORGIVE_MS, Core, ServerKey
from edgora.market.records import Account, BatchRecord, Entry, HeadSeen, Lock, Meta, Server, Task, Voter
from edgora.market.rules import Refusal
from edgora.wire.application import Applied, Outcome
from edgora.wire.codec import decode, encode
from edgora.wire.eip712 import Domain
from edgora.wire.errors import WireError
from edgora.wire.genesis import Genesis
from edgora.wire.ledger import BlockContext, Kind, LedgerCode, OrderedTx
from edgora.wire.market import (
    Advert,
    Allocation,
    Cancel,
    ChainFact,
    Code,
    Draw,
    Instance,
    MarketParams,
    Reason,
    ResultHash,
    SettlementPayload,
    TaskPayload,
    TaskState,
)
from edgora.wire.market_events import AdvertFiled
from edgora.wire.settlement import TaskLeaf, lock_key
from edgora.wire.units import Digest, Millis

__all__ = ["BatchView", "Market", "RoundView"]

P = TypeVar("P")
_DONE = Outcome(LedgerCode.OK)


class RoundView(NamedTuple):
    """The open round."""

    instance: Instance
    digest: Digest
    opened_ms: int
    closes_ms: int
    voters: tuple[Voter, ...]


class BatchView(NamedTuple):
    """The batch that is frozen and not settled, with what a relayer needs for `settle` and people for `verifyTask`."""

    record: BatchRecord
    leaves: tuple[TaskLeaf, ...]


class Market:
    """Implements wire.application.Application."""

    def __init__(
        self, params: MarketParams, servers: Sequence[ServerKey], validators: int, ledger_domain: Domain,
        market_domain: Domain, chain_id: int, market_address: bytes,
    ) -> None:  # fmt: skip
        self.core = Core(params, servers, validators, ledger_domain, market_domain, chain_id, market_address)
        self._book: rounds.Book | None = None
        self._outlook = rounds.Outlook()
        self._speeds_changed = False
        """Whether an advert of this block moves the instants at which OPEN tasks expire."""
        self._kinds: dict[int, Callable[[OrderedTx, bool], bytes]] = {
            Kind.ADVERT: self._decoded(Advert, self._advert),
            Kind.TASK: self._decoded(TaskPayload, self._task),
            Kind.ALLOCATION: self._decoded(Allocation, self._allocation),
            Kind.RESULT_HASH: self._decoded(ResultHash, self._result),
            Kind.SETTLEMENT: self._decoded(SettlementPayload, self._settlement),
            Kind.CHAIN_FACT: self._decoded(ChainFact, self._fact),
            Kind.DRAW: self._decoded(Draw, self._draw),
            Kind.CANCEL: self._decoded(Cancel, self._cancel),
        }

    @classmethod
    def from_genesis(cls, genesis: Genesis) -> Self:
        """The market of a consortium; raises ValueError for parameters that cannot work (market.md 9)."""
        return cls(
            genesis.market, genesis.servers, len(genesis.validators), genesis.ledger_domain(), genesis.market_domain(),
            genesis.chain_id, genesis.market_address,
        )  # fmt: skip

    # ---- the application's shape

    def apply(self, block: BlockContext, txs: Sequence[OrderedTx]) -> Applied:
        """Execute one committed block, then everything that its time makes due."""
        core = self.core
        core.now_ms, core.height, core.block_hash, core.events = block.time_ms, block.height, block.hash, []
        self._recover()
        outcomes = [self._execute(tx) for tx in txs]
        if self._speeds_changed:
            core.state.refresh_open()
            self._speeds_changed = False
        while (offer_id := core.state.timers.pop_due(core.now_ms)) is not None:
            self._pass_time(core.state.tasks[offer_id])
        if self._book is not None and rounds.close_due(core):
            rounds.close_round(core, self._book)
            self._book = None
        self._book = rounds.open_round(core, self._outlook) or self._book
        settlement.freeze(core)
        lifecycle.forget(core)
        return Applied(outcomes, self._writes(), core.events)

    def knows(self, sender: bytes) -> bool:
        """Whether the state names this sender: a server's signer, a depositor, or somebody with a lock."""
        state = self.core.state
        return sender in state.signers or sender in state.accounts or sender in state.lock_ues

    def wake_at(self) -> Millis | None:
        """Header time at which a block is needed although nobody sends anything."""
        wake = self.core.state.meta.wake_ms
        return Millis(wake) if wake else None

    def snapshot(self) -> Mapping[bytes, bytes]:
        """The whole state; equal to the sum of all writes, once a block was applied."""
        return self.core.state.snapshot()

    def restore(self, state: Mapping[bytes, bytes]) -> None:
        """Become the market of this snapshot. Time and height are those of its last change until a block comes."""
        core = self.core
        core.state.restore(state)
        core.now_ms, core.height, core.events = core.state.meta.time_ms, core.state.meta.height, []
        round_ = core.state.round
        self._book = rounds.open_book(round_.instance) if round_ is not None else None

    def precheck(self, tx: OrderedTx) -> Outcome:
        """What executing tx now would answer, from the same checks. Advice: the state may have moved by then."""
        return self._answer(tx, dry=True)

    # ---- one transaction

    def _execute(self, tx: OrderedTx) -> Outcome:
        return self._answer(tx, dry=False)

    def _answer(self, tx: OrderedTx, *, dry: bool) -> Outcome:
        kind = tx.tx.kind
        if kind == Kind.NOOP:
            return _DONE
        operation = self._kinds.get(kind)
        if operation is None:
            return Outcome(Code.KIND_UNSUPPORTED, encode((kind,)))
        try:
            return Outcome(LedgerCode.OK, operation(tx, dry))
        except Refusal as refusal:
            return Outcome(refusal.code, encode(refusal.numbers) if refusal.numbers else b"")
        except WireError:
            return Outcome(LedgerCode.BAD_PAYLOAD)

    @staticmethod
    def _decoded(kind: type[P], run: Callable[[bytes, P, bool], bytes]) -> Callable[[OrderedTx, bool], bytes]:
        return lambda tx, dry: run(tx.tx.sender, decode(tx.tx.payload, kind), dry)

    def _advert(self, sender: bytes, advert: Advert, dry: bool) -> bytes:
        server = checks.advert(self.core, sender, advert)
        if not dry:
            before = server.advert
            self.core.state.put_server(replace(
                server, advert=replace(advert, tip=None), advert_ms=self.core.now_ms, fit=True,
                tip=advert.tip if advert.tip is not None else server.tip,
            ))  # fmt: skip
            self.core.emit(AdvertFiled(server.id, advert))
            if before is None or (before.speed, before.uplink) != (advert.speed, advert.uplink):
                self._speeds_changed = True
        return b""

    def _task(self, sender: bytes, payload: TaskPayload, dry: bool) -> bytes:
        admitted = checks.task(self.core, sender, payload)
        if not dry:
            lifecycle.open_task(self.core, admitted.offer_id, admitted.offer, admitted.voucher)
        return admitted.offer_id

    def _allocation(self, sender: bytes, allocation: Allocation, dry: bool) -> bytes:
        server = checks.sender_validator(self.core, sender)
        if dry:
            rounds.try_proposal(self.core, self._book, server.id, allocation)
        else:
            rounds.propose(self.core, self._book, server.id, allocation)
        return b""

    def _result(self, sender: bytes, filing: ResultHash, dry: bool) -> bytes:
        given = checks.result(self.core, sender, filing)
        if dry:
            return b""
        if isinstance(given, checks.ExecutorFiling):
            audit.file_result(self.core, given)
        else:
            audit.file_audit(self.core, given)
        return b""

    def _settlement(self, sender: bytes, payload: SettlementPayload, dry: bool) -> bytes:
        checks.settlement(self.core, sender, payload)
        return payload.batch_hash if dry else settlement.certify_batch(self.core)

    def _fact(self, sender: bytes, fact: ChainFact, dry: bool) -> bytes:
        server = checks.sender_validator(self.core, sender)
        if dry:
            facts.check_attestation(self.core, server, fact)
        else:
            facts.attest(self.core, server, fact)
        return b""

    def _draw(self, sender: bytes, payload: Draw, dry: bool) -> bytes:
        server = checks.draw(self.core, sender, payload, self.core.height + 1 if dry else self.core.height)
        if not dry:
            audit.draw(self.core, server, payload)
        return b""

    def _cancel(self, sender: bytes, payload: Cancel, dry: bool) -> bytes:
        task = checks.cancel(self.core, sender, payload)
        if not dry:
            lifecycle.end_unpaid(self.core, task, TaskState.CANCELLED, Reason("CANCELLED", task.offer_id.hex()))
        return b""

    # ---- time

    def _recover(self) -> None:
        lifecycle.recover_credits(self.core)
        state = self.core.state
        for pair in state.bans.ordered():
            if state.bans[pair].until_ms <= self.core.now_ms:
                state.delete_ban(pair)

    def _pass_time(self, task: Task) -> None:
        """A task whose instant has come."""
        core, offer, subject = self.core, task.offer, task.offer_id.hex()
        if task.state == TaskState.OPEN:
            reason = Reason("EXPIRED", subject, (offer.deadline_ms, core.now_ms))
            lifecycle.end_unpaid(core, task, TaskState.EXPIRED, reason)
        elif task.state == TaskState.DONE:
            audit.pass_time(core, task)
        elif task.executor is not None:
            if core.now_ms > offer.deadline_ms + core.params.file_ms:
                lifecycle.free_room(core, task.executor, task.weight)
                audit.give_up(core, task, TaskState.LATE, Reason("NOTHING_FILED", subject, (task.executor,)))
            elif lifecycle.another_pair_ok(core, task, task.executor):
                lifecycle.count_late(core, task, task.executor, "LATE")
                lifecycle.reopen(core, task, "OVERDUE")
            else:
                core.state.put_task(replace(task, file_by_ms=0))

    def _next_wake(self) -> int:
        """Least instant at which time alone moves something; 0 if none. All of them are ahead of the block's time."""
        core = self.core
        state = core.state
        instants = [state.timers.next_ms(), settlement.freeze_at_ms(core)]
        if state.round is not None:
            instants.append(state.round.closes_ms)
        elif state.open:
            opening = rounds.next_opening_ms(core, self._outlook)
            instants.append(opening)
            if opening is None:  # what runs out by itself and may make a task placeable
                instants += [state.bans[pair].until_ms for pair in state.bans.ordered()]
                instants += [server.fault_ms + FORGIVE_MS for server in state.servers.values()
                             if server.fault_ms and server.credit < core.params.credit0]  # fmt: skip
        return min((instant for instant in instants if instant is not None), default=0)

    def _writes(self) -> dict[bytes, bytes | None]:
        core = self.core
        wake = self._next_wake()
        if wake != core.state.meta.wake_ms:
            core.state.meta = replace(core.state.meta, wake_ms=wake)
        writes = core.state.drain()
        if writes:
            core.state.meta = replace(core.state.meta, height=core.height, time_ms=core.now_ms)
            writes.update(core.state.drain())
        return dict(sorted(writes.items()))

    # ---- queries

    @property
    def params(self) -> MarketParams:
        return self.core.params

    @property
    def now_ms(self) -> int:
        """Header time of the last block."""
        return self.core.now_ms

    @property
    def height(self) -> int:
        return self.core.height

    @property
    def meta(self) -> Meta:
        return self.core.state.meta

    def task(self, offer_id: bytes) -> Task | None:
        return self.core.state.tasks.get(offer_id)

    def tasks(self, *states: TaskState) -> Iterator[Task]:
        """Tasks in these states (all without any given), by arrival."""
        wanted = states or tuple(TaskState)
        found = (task for task in self.core.state.tasks.values() if task.state in wanted)
        return iter(sorted(found, key=lambda task: task.order))

    def account(self, ue: bytes) -> Account | None:
        return self.core.state.accounts.get(ue)

    def accounts(self) -> Iterator[Account]:
        return self.core.state.accounts.values()

    def lock(self, ue: bytes, offer_id: bytes) -> Lock | None:
        return self.core.state.locks.get(lock_key(ue, offer_id))

    def locks(self) -> Iterator[Lock]:
        return self.core.state.locks.values()

    def server(self, server_id: int) -> Server | None:
        return self.core.state.servers.get(server_id)

    def servers(self) -> Iterator[Server]:
        """By id."""
        return self.core.state.servers.values()

    def server_of(self, signer: bytes) -> Server | None:
        return self.core.server_of(signer)

    def is_live(self, server: Server) -> bool:
        """Whether it gets new work as of the last block."""
        return self.core.is_live(server)

    def round_state(self) -> RoundView | None:
        """The open round, or None between rounds."""
        round_ = self.core.state.round
        if round_ is None or self._book is None:
            return None
        voters = tuple(self.core.state.voters.values())
        return RoundView(round_.instance, self._book.digest, round_.opened_ms, round_.closes_ms, voters)

    def book(self) -> rounds.Book | None:
        """The open round's numbers: table, digest, greedy plan."""
        return self._book

    def batch(self, batch_id: int | None = None) -> BatchView | None:
        """The unsettled batch, if there is one and it has that number."""
        record = self.core.state.batch
        if record is None or batch_id not in {None, record.id}:
            return None
        return BatchView(record, tuple(settlement.batch_leaves(self.core, record)))

    def queue(self) -> Iterator[Entry]:
        """What waits for a batch, in order."""
        return (self.core.state.entries[order] for order in self.core.state.queue)

    def heads(self) -> Mapping[int, HeadSeen]:
        """Newest Head of each validator, by id."""
        heads = self.core.state.heads
        return {server: heads[server] for server in heads.ordered()}

    def chain_seen_ms(self) -> int:
        """Header time at which a quorum had looked at the chain; 0: never."""
        return self.core.chain_seen_ms()

    def chain_seen(self) -> bool:
        return self.core.chain_seen()

    def has_fact(self, fact: ChainFact, server_id: int) -> bool:
        """Whether this fact took effect or that validator's attestation of it waits: nothing to file."""
        record = self.core.state.facts.get(facts.place_of(fact))
        if record is None:
            return False
        return record.applied is not None or any(a.server == server_id for a in record.attestations)
