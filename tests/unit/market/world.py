"""A market without a ledger: blocks are made by hand, with time as the test wants it. No pytest in here.

    world = World()                        # 4 servers, registered, the chain just seen, nobody advertises yet
    ue = world.funded_ue(wei=10**18)
    world.advertise()                      # all servers live
    offer_id = world.submit(ue, source=0)  # admitted, or AssertionError with the refusal's sentence
    world.run_until(lambda: world.task(offer_id).state == TaskState.ASSIGNED)

`World.watch` checks J1-J8 after every block; `World.block` raises AssertionError with what it found.
"""

from collections.abc import Callable, Sequence

from edgora.lab.market_actors import Consortium, DevChain, Seller, Ue, ordered
from edgora.market.invariants import Watch
from edgora.market.machine import Market
from edgora.market.receipts import maximum
from edgora.market.records import Server, Task
from edgora.wire.application import Applied, Outcome
from edgora.wire.hashing import keccak
from edgora.wire.ledger import BlockContext, Kind, OrderedTx
from edgora.wire.market import (
    ChainFact,
    Head,
    MarketParams,
    Offer,
    OfferFlag,
    ResultCode,
    SettlementPayload,
    TaskState,
    refusal_numbers,
    refusal_sentence,
)

START_MS = 1_700_000_000_000
TEST_PARAMS = MarketParams(file_ms=20_000, batch_ms=3_000, audit_max_ms=5_000, margin_ms=20_000, auditors=2)


class World:
    def __init__(
        self,
        *,
        servers: int = 4,
        params: MarketParams = TEST_PARAMS,
        ready: bool = True,
        watched: bool = True,
        market: Callable[[Consortium], Market] | None = None,
    ):
        self.consortium = Consortium(servers=servers, params=params)
        self.genesis = self.consortium.genesis
        self.market = market(self.consortium) if market else self.consortium.market()
        self.chain = DevChain(self.consortium)
        self.height = 0
        self.now_ms = START_MS
        self.watch = Watch(self.market) if watched else None
        self.events: list[object] = []
        self.applied: Applied | None = None
        self._ues = 0
        if ready:
            for fact in self.chain.register_all():
                self.attest(fact)
            self.see_chain()

    # ---- blocks

    def tx(self, key, kind: Kind, payload: object) -> OrderedTx:
        return ordered(self.consortium.ledger_domain, key, kind, payload, seq=self.height)

    def block(self, *txs: OrderedTx, after_ms: int = 50) -> list[Outcome]:
        """One block, that much later; its outcomes. Checks the invariants."""
        self.height += 1
        self.now_ms += after_ms
        context = BlockContext(
            self.height, self.now_ms, keccak(b"block %d" % self.height), self.consortium.keys[0].address
        )
        self.applied = self.market.apply(context, txs)
        self.events += self.applied.events
        if self.watch is not None:
            found = self.watch.observe(txs, self.applied)
            assert not found, "\n".join(found)
        return list(self.applied.outcomes)

    def send(self, key, kind: Kind, payload: object, after_ms: int = 50) -> Outcome:
        """One transaction in a block of its own."""
        return self.block(self.tx(key, kind, payload), after_ms=after_ms)[0]

    def accepted(self, key, kind: Kind, payload: object, after_ms: int = 50) -> bytes:
        """As send; AssertionError with the refusal's sentence unless it is accepted."""
        outcome = self.send(key, kind, payload, after_ms)
        assert outcome.code == 0, (
            f"{Kind(kind).name}: {refusal_sentence(outcome.code, refusal_numbers(outcome.output))}"
        )
        return outcome.output

    def run(self, ms: int) -> None:
        """Time passes: a block whenever the market asks for one, and one at the end."""
        end = self.now_ms + ms
        while (wake := self.market.wake_at()) is not None and wake < end:
            assert wake > self.now_ms, "the market asks for a block that it has had"
            self.block(after_ms=wake - self.now_ms)
        if self.now_ms < end:
            self.block(after_ms=end - self.now_ms)

    def run_until(self, holds: Callable[[], bool], most_ms: int = 600_000) -> None:
        """Blocks as the market asks for them, until it holds."""
        end = self.now_ms + most_ms
        while not holds():
            wake = self.market.wake_at()
            assert wake is not None, "the market waits for somebody"
            assert self.now_ms < wake <= end, f"not within {most_ms} ms"
            self.block(after_ms=wake - self.now_ms)

    # ---- the chain

    def attest(self, fact: ChainFact, by: Sequence[int] | None = None) -> list[Outcome]:
        """Validators attest a fact, a quorum unless said otherwise; one block."""
        signers = range(self.market.core.q) if by is None else by
        return self.block(*(self.tx(self.consortium.keys[i], Kind.CHAIN_FACT, fact) for i in signers))

    def see_chain(self) -> None:
        """Every validator files a Head."""
        head = ChainFact(bytes(32), 0, 0, Head(self.height + 1, self.now_ms // 1000))
        self.block(*(self.tx(key, Kind.CHAIN_FACT, head) for key in self.consortium.keys))

    def now_s(self) -> int:
        return self.now_ms // 1000

    # ---- people

    def server(self, number: int) -> Server:
        found = self.market.server(number)
        assert found is not None
        return found

    def seller(self, number: int) -> Seller:
        return self.consortium.sellers[number]

    def advertise(self, *numbers: int, **fields: object) -> None:
        """These servers (all without any) file an advert in one block, with a tip if they have none yet."""
        txs = [self.advert_tx(number, **fields) for number in numbers or range(len(self.consortium.sellers))]
        assert all(outcome.code == 0 for outcome in self.block(*txs, after_ms=100))

    def advert_tx(self, number: int, **fields: object) -> OrderedTx:
        seller = self.seller(number)
        fields.setdefault("until_ms", self.now_ms + 3_000_000)
        advert = seller.advert(tip=self.server(number).tip is None, **fields)
        return self.tx(seller.key, Kind.ADVERT, advert)

    def new_ue(self) -> Ue:
        self._ues += 1
        return self.consortium.ue(self._ues)

    def funded_ue(self, wei: int = 10**18) -> Ue:
        ue = self.new_ue()
        self.attest(self.chain.deposit(ue.address, wei))
        return ue

    # ---- tasks

    def task(self, offer_id: bytes) -> Task:
        found = self.market.task(offer_id)
        assert found is not None
        return found

    def offer(self, ue: Ue, *, deadline_ms: int | None = None, **fields: object) -> Offer:
        return ue.offer(deadline_ms=deadline_ms or self.now_ms + 60_000, **fields)

    def submit(self, ue: Ue, **fields: object) -> bytes:
        """An admitted voucher task."""
        if self.now_ms - self.market.chain_seen_ms() > self.market.params.margin_ms // 4:
            self.see_chain()
        offer = self.offer(ue, **fields)
        return self.accepted(ue.key, Kind.TASK, ue.task(offer, ue.voucher_for(self.market, offer)))

    def submit_locked(self, ue: Ue, *, wei: int | None = None, **fields: object) -> bytes:
        """An admitted task of the lock lane, with its lock opened and attested."""
        fields.setdefault("flags", OfferFlag.AUDITABLE | OfferFlag.LOCK_LANE)
        offer = self.offer(ue, **fields)
        deadline_s = (self.market.core.end_ms(offer.deadline_ms) + self.market.params.margin_ms) // 1000 + 1
        self.attest(self.chain.open(ue.address, ue.offer_id(offer), wei or maximum(offer), deadline_s))
        return self.accepted(ue.key, Kind.TASK, ue.task(offer, None))

    def until_state(self, offer_id: bytes, state: TaskState) -> Task:
        self.run_until(lambda: self.task(offer_id).state == state)
        return self.task(offer_id)

    def assigned(self, ue: Ue, **fields: object) -> bytes:
        """A task that a round has placed."""
        offer_id = self.submit(ue, **fields)
        self.until_state(offer_id, TaskState.ASSIGNED)
        return offer_id

    def others(self, number: int, count: int) -> list[int]:
        return [i for i in range(len(self.consortium.sellers)) if i != number][:count]

    def file(self, offer_id: bytes, **fields: object) -> Outcome:
        """The executor files its result, held by f+1 others."""
        executor = self.task(offer_id).executor
        assert executor is not None
        fields.setdefault("seen_ms", self.now_ms)
        fields.setdefault("holders", self.others(executor, self.market.core.f + 1))
        seller = self.seller(executor)
        return self.send(seller.key, Kind.RESULT_HASH, seller.result(offer_id, **fields))

    def file_audit(self, offer_id: bytes, auditor: int, **fields: object) -> Outcome:
        seller = self.seller(auditor)
        return self.send(seller.key, Kind.RESULT_HASH, seller.audit(offer_id, **fields))

    def draw(self, offer_id: bytes) -> Outcome:
        """The witness of a result draws."""
        audit = self.task(offer_id).audit
        assert audit is not None
        assert audit.witness is not None
        seller = self.seller(audit.witness)
        return self.send(seller.key, Kind.DRAW, seller.draw(self.market, self.height))

    def auditors(self, offer_id: bytes) -> list[int]:
        """Who still has to file."""
        audit = self.task(offer_id).audit
        return [a.server for a in audit.auditors if not a.closed] if audit else []

    def finish(self, offer_id: bytes, **fields: object) -> Task:
        """From ASSIGNED to FINAL: filed, drawn, audited by honest servers if the draw says so."""
        outcome = self.file(offer_id, **fields)
        assert outcome.code == 0, refusal_sentence(outcome.code, refusal_numbers(outcome.output))
        if self.task(offer_id).state == TaskState.DONE:
            self.draw(offer_id)
        for auditor in self.auditors(offer_id):
            if self.task(offer_id).state == TaskState.DONE:
                same = {k: v for k, v in fields.items() if k in {"code", "fuel_used", "output"}}
                self.file_audit(offer_id, auditor, **same)
        return self.task(offer_id)

    # ---- settlement

    def certify(self, by: int = 0) -> Outcome:
        batch = self.market.batch()
        assert batch is not None, "no batch is frozen"
        payload = SettlementPayload(batch.record.id, batch.record.hash)
        return self.send(self.consortium.keys[by], Kind.SETTLEMENT, payload)

    def settle(self) -> ChainFact:
        """The frozen batch goes through: certified, settled on the chain, attested."""
        batch = self.market.batch()
        assert batch is not None, "no batch is frozen"
        assert self.certify().code == 0
        fact = self.chain.settle(batch.record.id, batch.record.task_root, batch.record.payload, self.now_s())
        assert fact is not None
        assert all(outcome.code == 0 for outcome in self.attest(fact))
        return fact


PAID = (ResultCode.OK, ResultCode.TRAP, ResultCode.OUT_OF_FUEL, ResultCode.MEMORY, ResultCode.OUTPUT)
UNPAID = (ResultCode.WALL, ResultCode.BAD_INPUT, ResultCode.BAD_MODULE, ResultCode.UNAVAILABLE)
