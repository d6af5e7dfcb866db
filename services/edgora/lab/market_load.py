"""A market under load: who would send what now, honest or not, given its state (market.md 10).

Rule 1: seeded and deterministic: equal seeds, states and instants give equal orders.
Rule 2: what is due is read off the state (market.duties), never remembered, so lost and refused orders come again.
Rule 3: at most f servers lie. They forge facts, results, Held, proposals and payloads; the market's promises must hold
all the same. Beyond them, UEs cancel, exit, run out of money and offer nonsense.

Whoever drives this (the ledger simulator, a market on its own) signs an `Order` with the next seq of its lane, and
keeps one transaction of a lane in flight; then no answer is needed here.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from msgspec.structs import replace

from edgora.crypto.sign import SigningKey
from edgora.lab.market_actors import Consortium, DevChain, Seller, Ue
from edgora.market import duties
from edgora.market.machine import Market
from edgora.market.receipts import auditable, lock_lane, maximum
from edgora.market.rules import Refusal, check_plan, plan_value
from edgora.wire.codec import encode, to_u96
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Kind, faulty
from edgora.wire.market import (
    Cancel,
    ChainFact,
    Deposited,
    Draw,
    Head,
    HeldPart,
    Offer,
    OfferFlag,
    ResultCode,
    ResultHash,
    SettlementPayload,
    TaskState,
)

__all__ = ["MarketLoad", "Order"]

_PRICES = (40, 61, 103, 150, 401)
_FUELS = (1_000_000, 20_000_000, 300_000_000)
RESULT_LANE = 100


class Order(NamedTuple):
    """A transaction that somebody would send now; seq and validUntil are the sender's ledger's business."""

    key: SigningKey
    kind: Kind
    lane: int
    payload: bytes


class MarketLoad:
    """All actors of one consortium."""

    def __init__(
        self,
        consortium: Consortium,
        seed: int,
        *,
        ues: int = 5,
        tasks_per_s: float = 10.0,
        liars: frozenset[int] | None = None,
    ) -> None:
        self.consortium = consortium
        self.chain = DevChain(consortium)
        self._rng = random.Random(f"market load {seed}")
        self._ues = [consortium.ue(i) for i in range(ues)]
        self._tasks_per_s = tasks_per_s
        n = len(consortium.sellers)
        self.liars = liars if liars is not None else frozenset(self._rng.sample(range(n), faulty(n)))
        self._last_ms: int | None = None
        self._locked: list[tuple[Ue, Offer]] = []
        """Offers whose lock is on the chain and not yet in the state."""
        self.stopped = False
        """Set to True: no new tasks, what is under way comes to its end."""

    def orders(self, market: Market, now_ms: int) -> list[Order]:
        """What everybody sends at this instant."""
        if self._last_ms is None:
            self.chain.register_all()
            for ue in self._ues[1:]:  # the first one stays a stranger until it is given something
                self.chain.deposit(ue.address, self._rng.choice((10**13, 10**15, 10**18)))
        elapsed = now_ms - (self._last_ms if self._last_ms is not None else now_ms)
        self._last_ms = now_ms
        self._move_chain(market, now_ms)
        found = [*self._users(market, now_ms, elapsed)]
        for seller in self.consortium.sellers:
            found += self._facts(market, seller, now_ms)
            found += self._sells(market, seller, now_ms)
            found += self._runs(market, seller, now_ms)
            found += self._proposes(market, seller)
            if seller.id in self.liars:
                found += self._lies(market, seller, now_ms)
        self._rng.shuffle(found)
        return found

    # ---- the chain -----------------------------------------------------------------------------------------------------

    def _move_chain(self, market: Market, now_ms: int) -> None:
        rng, now_s = self._rng, now_ms // 1000
        duty = duties.settlement_duty(market)
        if duty is not None and not duty.certify and rng.random() < 0.3:
            record = duty.batch.record
            self.chain.settle(record.id, record.task_root, record.payload, now_s)
        for lock in duties.refundable_locks(market, now_s):
            self.chain.refund(lock.ue, lock.offer, now_s)
        if rng.random() < 0.01:
            self.chain.deposit(rng.choice(self._ues).address, rng.choice((10**12, 10**16)))
        if rng.random() < 0.002:
            self.chain.request_exit(rng.choice(self._ues).address, now_s)
        for ue in self._ues:
            self.chain.finish_exit(ue.address, now_s)
        if rng.random() < 0.002:
            self.chain.advance_epoch(market.meta.chain_epoch + 1, market.height)

    def _facts(self, market: Market, seller: Seller, now_ms: int) -> Iterator[Order]:
        """A validator attests what it has not yet, in chain order; a liar leaves some out."""
        for fact in self.chain.facts:
            if not market.has_fact(fact, seller.id):
                if seller.id not in self.liars or self._rng.random() < 0.5:
                    yield self._order(seller.key, Kind.CHAIN_FACT, Kind.CHAIN_FACT, fact)
                break
        if duties.head_due(market, seller.id, now_ms, posted_ms=now_ms):
            head = ChainFact(bytes(32), 0, 0, Head(now_ms // 1000, now_ms // 1000))
            yield self._order(seller.key, Kind.CHAIN_FACT, Kind.CHAIN_FACT, head)

    # ---- users -----------------------------------------------------------------------------------------------------------

    def _users(self, market: Market, now_ms: int, elapsed_ms: int) -> Iterator[Order]:
        rng = self._rng
        expected = self._tasks_per_s * elapsed_ms / 1000
        count = 0 if self.stopped else int(expected) + (rng.random() < expected % 1)
        for _ in range(min(count, 50)):
            ue = rng.choice(self._ues)
            offer = self._offer(ue, market, now_ms)
            if lock_lane(offer):
                ends = (market.core.end_ms(offer.deadline_ms) + market.params.margin_ms) // 1000 + rng.choice(
                    (0, 1, 60)
                )
                self.chain.open(ue.address, ue.offer_id(offer), maximum(offer), ends)
                self._locked.append((ue, offer))
            else:
                payload = ue.task(offer, ue.voucher_for(market, offer))
                yield self._order(ue.key, Kind.TASK, rng.randrange(8), payload)
        for ue, offer in list(self._locked):
            if market.lock(ue.address, ue.offer_id(offer)) is not None:
                self._locked.remove((ue, offer))
                yield self._order(ue.key, Kind.TASK, rng.randrange(8), ue.task(offer, None))
        if market.core.state.open and rng.random() < 0.05:
            _, offer_id = rng.choice(market.core.state.open)
            owner = next((u for u in self._ues if market.core.state.tasks[offer_id].offer.ue == u.address), None)
            if owner is not None:
                yield self._order(owner.key, Kind.CANCEL, 8, Cancel(offer_id))

    def _offer(self, ue: Ue, market: Market, now_ms: int) -> Offer:
        rng = self._rng
        flags = (OfferFlag.AUDITABLE if rng.random() < 0.8 else 0) | (OfferFlag.LOCK_LANE if rng.random() < 0.15 else 0)
        ahead = rng.choice((700, 2_000, 10_000, 60_000, 600_000))
        offer = ue.offer(
            deadline_ms=now_ms + ahead, source=rng.randrange(len(self.consortium.sellers)), price=rng.choice(_PRICES),
            fuel_limit=rng.choice(_FUELS), input_octets=rng.choice((1, 5_000, 200_000)), flags=flags,
            desired_ms=rng.choice((10, 1_000, 3_600_000)),
        )  # fmt: skip
        if rng.random() < 0.03:  # nonsense that must be refused
            return replace(offer, **rng.choice((
                {"fuel_limit": 10**12 + 1}, {"desired_ms": 0}, {"source": 60}, {"deadline_ms": market.now_ms},
                {"flags": 9}, {"price": 0},
            )))  # fmt: skip
        return offer

    # ---- servers ---------------------------------------------------------------------------------------------------------

    def _sells(self, market: Market, seller: Seller, now_ms: int) -> Iterator[Order]:
        rng, own = self._rng, market.server(seller.id)
        if own is None:
            return
        if duties.advert_due(market, seller.id, now_ms, 60_000) and rng.random() < 0.3:
            spent = own.tip is not None and not seller.chain.left(own.tip)
            if spent:
                seller.renew_chain()
            advert = seller.advert(
                until_ms=market.now_ms + rng.choice((100_000, 3_000_000)), tip=spent or own.tip is None,
                ask=rng.choice((30, 50, 80)), speed=rng.choice((5 * 10**7, 10**8, 10**9)), slots=rng.choice((1, 2, 4)),
                capacity=rng.choice((5 * 10**8, 10**10)),
            )  # fmt: skip
            yield self._order(seller.key, Kind.ADVERT, Kind.ADVERT, advert)
        if duties.draw_due(market, seller.id) and (seller.id not in self.liars or rng.random() < 0.7):
            draw = seller.draw(market, market.height)
            if draw is not None:
                yield self._order(seller.key, Kind.DRAW, Kind.DRAW, draw)
        duty = duties.settlement_duty(market)
        if duty is not None and duty.certify and rng.random() < 0.5:
            yield self._order(seller.key, Kind.SETTLEMENT, Kind.SETTLEMENT, duty.payload)

    def _runs(self, market: Market, seller: Seller, now_ms: int) -> Iterator[Order]:
        rng = self._rng
        for run in duties.runs_owed(market, seller.id):
            if now_ms >= run.assigned_ms + run.expected_ms * rng.choice((1, 1, 2)) and rng.random() < 0.4:
                yield self._result_order(seller, run.offer_id, self._run(seller, run.offer_id, run.offer, now_ms))
        for audit in duties.audits_owed(market, seller.id):
            if rng.random() < 0.4:
                filing = self._audited(seller, audit.offer_id, audit.offer)
                yield self._result_order(seller, audit.offer_id, filing)

    @staticmethod
    def truth(offer_id: bytes, offer: Offer) -> tuple[ResultCode, int]:
        """What an honest run of this offer gives: follows from the offer."""
        number = int.from_bytes(keccak(b"truth" + offer_id)[:8], "big")
        code = (ResultCode.OK, ResultCode.OK, ResultCode.OK, ResultCode.TRAP, ResultCode.OUT_OF_FUEL)[number % 5]
        return code, offer.fuel_limit if code == ResultCode.OUT_OF_FUEL else 1 + number % offer.fuel_limit

    def _run(self, seller: Seller, offer_id: bytes, offer: Offer, now_ms: int) -> ResultHash:
        rng = self._rng
        code, fuel = self.truth(offer_id, offer)
        others = [s.id for s in self.consortium.sellers if s.id != seller.id]
        needed = faulty(len(self.consortium.sellers)) + 1
        if rng.random() < 0.05:
            failed = rng.choice((ResultCode.WALL, ResultCode.BAD_INPUT, ResultCode.BAD_MODULE, ResultCode.UNAVAILABLE))
            return ResultHash(offer_id, failed, bytes(32), 0)
        seen_ms = now_ms - rng.choice((0, 10, 50))
        filing = seller.result(offer_id, seen_ms=seen_ms, holders=rng.sample(others, needed), code=code, fuel_used=fuel)
        if seller.id not in self.liars or rng.random() < 0.4:
            return filing
        forged = HeldPart(others[0], seen_ms, seller.key.sign(keccak(b"not a Held")))
        lies: tuple[Callable[[], ResultHash], ...] = (
            lambda: seller.result(
                offer_id, seen_ms=0, holders=rng.sample(others, needed), output=b"lie", fuel_used=fuel
            ),
            lambda: replace(filing, fuel_used=offer.fuel_limit),
            lambda: replace(filing, fuel_used=offer.fuel_limit + 1),
            lambda: replace(filing, held=(filing.held[0],) * needed),
            lambda: replace(filing, held=(*filing.held[1:], forged)),
            lambda: replace(filing, code=17),
        )
        return rng.choice(lies)()

    def _audited(self, seller: Seller, offer_id: bytes, offer: Offer) -> ResultHash:
        code, fuel = self.truth(offer_id, offer)
        if seller.id in self.liars and self._rng.random() < 0.6:
            lie = self._rng.choice((ResultCode.NO_KEY, ResultCode.OK, ResultCode.UNAVAILABLE))
            return seller.audit(offer_id, code=lie, fuel_used=min(1, fuel), output=b"lie")
        return seller.audit(offer_id, code=code, fuel_used=fuel)

    def _result_order(self, seller: Seller, offer_id: bytes, filing: ResultHash) -> Order:
        return self._order(seller.key, Kind.RESULT_HASH, RESULT_LANE + offer_id[-1] % 8, filing)

    # ---- allocation ------------------------------------------------------------------------------------------------------

    def _proposes(self, market: Market, seller: Seller) -> Iterator[Order]:
        """Greedy's plan with one random change, if that still fits; liars claim too much or break a rule."""
        rng, book = self._rng, market.book()
        view = market.round_state()
        if book is None or view is None or any(v.server == seller.id and v.pairs is not None for v in view.voters):
            return
        if rng.random() < 0.6:
            return
        table = book.table
        plan = dict(book.greedy.pairs)
        for _ in range(4):
            j, i = rng.randrange(len(table.instance.tasks)), rng.randrange(len(table.ids))
            changed = {**plan, j: table.ids[i]}
            with suppress(Refusal):
                if check_plan(table, sorted(changed.items())) >= plan_value(table, plan.items()):
                    plan = changed
        pairs = sorted(plan.items())
        value = plan_value(table, pairs)
        if seller.id in self.liars:
            lie = rng.randrange(4)
            value += lie == 0
            if lie == 1:
                pairs = [(j, rng.choice(table.ids)) for j in range(len(table.instance.tasks))]
                value = plan_value(table, pairs)
            if lie == 2:  # far below greedy, but honest about it
                pairs, value = pairs[:1], plan_value(table, pairs[:1])
        proposal = seller.proposal(market, pairs, max(value, 0), policy="load")
        yield self._order(seller.key, Kind.ALLOCATION, Kind.ALLOCATION, proposal)

    # ---- lies ------------------------------------------------------------------------------------------------------------

    def _lies(self, market: Market, seller: Seller, now_ms: int) -> Iterator[Order]:
        rng = self._rng
        if rng.random() < 0.1:
            fake = ChainFact(rng.randbytes(32), 0, 0, Deposited(rng.choice(self._ues).address, to_u96(10**20)))
            yield self._order(seller.key, Kind.CHAIN_FACT, 30, fake)
        if self.chain.facts and rng.random() < 0.1:
            true = rng.choice(self.chain.facts)
            yield self._order(
                seller.key, Kind.CHAIN_FACT, 31, replace(true, fact=Deposited(seller.key.address, to_u96(1)))
            )
        if rng.random() < 0.05:
            yield self._order(
                seller.key, Kind.SETTLEMENT, 32, SettlementPayload(market.meta.last_batch, rng.randbytes(32))
            )
        if rng.random() < 0.05:
            yield self._order(seller.key, Kind.DRAW, 33, Draw(rng.randbytes(32), market.height))
        if rng.random() < 0.05:
            tasks = list(market.tasks(TaskState.OPEN, TaskState.ASSIGNED, TaskState.DONE))
            if tasks:
                victim = rng.choice(tasks)
                yield self._order(seller.key, Kind.CANCEL, 34, Cancel(victim.offer_id))
                filing = seller.result(victim.offer_id, seen_ms=now_ms, holders=(), output=b"not mine")
                yield self._order(seller.key, Kind.RESULT_HASH, 35, filing)
                stolen = replace(victim.offer, ue=seller.key.address) if auditable(victim.offer) else victim.offer
                ue = Ue(self.consortium, seller.key)
                yield self._order(seller.key, Kind.TASK, 36, ue.task(stolen, None))
        if rng.random() < 0.05:
            kind = rng.choice(list(Kind))
            yield Order(seller.key, kind, 37, rng.choice((b"", b"\xc1", rng.randbytes(40), encode((1, 2, 3)))))

    @staticmethod
    def _order(key: SigningKey, kind: Kind, lane: int, payload: object) -> Order:
        return Order(key, kind, lane, encode(payload))
