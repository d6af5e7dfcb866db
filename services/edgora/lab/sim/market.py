"""The market as the simulated ledger's application: its own load, and its invariants after every block (market.md 10).

`lab.market_load` says who would send what, given the state; this signs it with the next sequence number of its lane,
keeps one transaction of a lane in flight, asks again elsewhere, and signs a sequence number anew once the old
transaction can no longer be ordered. J1 to J6 and J8 are `market.invariants` on the reference's market; J7, equal
blocks give equal roots, is the world's own comparison of state roots.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgora.lab.market_actors import Consortium
from edgora.lab.market_load import MarketLoad, Order
from edgora.lab.sim.history import Operation
from edgora.lab.sim.load import RETRY_MS
from edgora.lab.sim.options import Options
from edgora.lab.sim.registry import Registry
from edgora.lab.sim.violation import Violation
from edgora.lab.sim.world import LEDGER_DOMAIN
from edgora.market.invariants import Watch
from edgora.market.machine import Market
from edgora.wire.application import Application, Applied
from edgora.wire.ledger import LedgerCode, OrderedTx, Receipt, SignedTx, Tx
from edgora.wire.market import MarketParams

if TYPE_CHECKING:
    from edgora.lab.sim.host import Host
    from edgora.lab.sim.world import World

__all__ = ["MarketWorldLoad"]

TICK_MS = 100
"""How often the actors look at the state."""

TASKS_PER_S = 4.0

NOT_CONSUMED = frozenset({LedgerCode.UNKNOWN_SENDER, LedgerCode.TOO_MANY_LANES, LedgerCode.SEQ_GAP})

Lane = tuple[bytes, int]


def params(n: int) -> MarketParams:
    """Short periods and many audits: whatever the market does by time happens within a schedule."""
    f = (n - 1) // 3
    return MarketParams(
        batch_ms=2_000, audit_bps=3_000, audit_max_ms=3_000, draw_ms=1_000, file_ms=10_000 * (f + 1), margin_ms=20_000,
        auditors=2 * f,
    )  # fmt: skip


class MarketWorldLoad:
    """All actors of a consortium on a simulated ledger."""

    def __init__(self, options: Options, registry: Registry) -> None:
        self.operations: list[Operation] = []
        self._registry = registry
        self._rng = random.Random(f"market world:{options.seed}")
        self._consortium = Consortium(
            f"sim {options.n}", servers=options.n, params=params(options.n), ledger_domain=LEDGER_DOMAIN
        )
        self.validators = [registry.wrap(key) for key in self._consortium.keys]
        liars = None if options.byzantine is None else frozenset({options.byzantine})
        self._actors = MarketLoad(self._consortium, options.seed, ues=4, tasks_per_s=TASKS_PER_S, liars=liars)
        self._flying: dict[Lane, Operation] = {}
        self._by_hash: dict[bytes, Lane] = {}
        self._asked: dict[bytes, set[str]] = {}
        self._next: dict[Lane, int] = {}
        self._stopped = False

    def application(self) -> Application:
        return self._consortium.market()

    def start(self, world: "World") -> None:
        self._world = world
        market = world.reference.application
        assert isinstance(market, Market)
        self._market = market
        self._watch = Watch(market)
        world.at(world.now + TICK_MS, self._tick)

    def stop(self) -> None:
        self._stopped = True

    def _tick(self) -> None:
        world = self._world
        world.at(world.now + TICK_MS, self._tick)
        if not self._stopped:
            for order in self._actors.orders(self._market, world.epoch_ms + world.now):
                self._take(order)
        for lane, operation in list(self._flying.items()):
            if world.now - operation.sent_ms < RETRY_MS:
                continue
            expired = world.height > operation.tx.tx.valid_until
            if expired and operation.hash not in world.reference.first_receipt:
                operation.given_up = True
                self._land(lane, operation)  # what is still due comes again as another order
            else:
                self._send(operation)

    def _take(self, order: Order) -> None:
        """Sign and send an order, unless its lane has one in flight."""
        world, lane = self._world, (bytes(order.key.address), order.lane)
        if lane in self._flying:
            return
        until = world.height + self._rng.choice((60, 150, 250))
        tx = Tx(order.kind, order.key.address, order.lane, self._next.get(lane, 0), until, order.payload)
        digest = bytes(tx.digest(world.domain))
        signed = SignedTx(tx, self._registry.wrap(order.key).sign(digest))
        operation = Operation(signed, digest, world.now, honest=self._market.knows(order.key.address))
        self.operations.append(operation)
        self._flying[lane] = operation
        self._by_hash[digest] = lane
        self._asked[digest] = set()
        self._send(operation)

    def _send(self, operation: Operation) -> None:
        world = self._world
        host = self._rng.choice(world.doors)
        operation.sent_ms = world.now
        if not host.up:
            return
        self._asked[operation.hash].add(host.name)
        receipt = world.reference.first_receipt.get(operation.hash)
        if receipt is not None and receipt.height <= host.height:
            self._answer(operation, receipt)
            return
        host.submit(operation.tx, operation.hash)

    def published(self, host: "Host", receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            lane = self._by_hash.get(receipt.tx_hash)
            if lane is not None and host.name in self._asked[receipt.tx_hash]:
                self._answer(self._flying[lane], receipt)

    def _answer(self, operation: Operation, receipt: Receipt) -> None:
        operation.answered_ms, operation.receipt = self._world.now, receipt
        lane = self._by_hash[operation.hash]
        if receipt.code not in NOT_CONSUMED:
            self._next[lane] = operation.tx.tx.seq + 1
        self._land(lane, operation)

    def _land(self, lane: Lane, operation: Operation) -> None:
        del self._flying[lane], self._by_hash[operation.hash], self._asked[operation.hash]

    def refused(self, host: "Host", tx_hash: bytes, reason: str) -> None:
        """Nothing to do: the sender asks elsewhere when its patience ends."""

    def unfinished(self) -> list[Operation]:
        return [operation for operation in self._flying.values() if operation.honest]

    def check(self, txs: Sequence[OrderedTx], applied: Applied) -> None:
        found = self._watch.observe(txs, applied)
        if found:
            raise Violation("J", "; ".join(found))
