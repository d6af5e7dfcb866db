"""This node's own transactions: numbered in lanes, sent again until they are executed (ledger.md 8, market.md 3).

A validator uses lane = kind, and for RESULT_HASH lane 100 + offerId mod 8, so that one lost transaction holds nothing
else up. Within a lane several may be in flight. `send` returns the receipt, whatever its code says.

    pending --(receipt of any of its signatures)--> done
       |  not executed and its height window is over: the same seq is signed anew with a later validUntil
       |  SEQ_GAP: signed anew, because a lower one was missing when its block was made
       `- DUPLICATE: something else took the seq (an order from before a restart): it moves to the next free one

Identical bytes are offered again every second while they wait, so a pool that lost them does no harm.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from edgora.crypto.sign import SigningKey
from edgora.ports.consensus import Consensus
from edgora.wire.eip712 import Domain
from edgora.wire.ledger import Kind, LedgerCode, Receipt, SignedTx, Tx

__all__ = ["RESULT_LANES", "Lanes", "Sequences", "lane_of"]

RESULT_LANES = 100
"""First of the eight lanes of RESULT_HASH."""
VALID_BLOCKS = 1_000
OFFER_AGAIN_S = 1.0


def lane_of(kind: Kind, offer_id: bytes = b"") -> int:
    """The validator's lane for a transaction."""
    if kind is Kind.RESULT_HASH:
        return RESULT_LANES + int.from_bytes(offer_id, "big") % 8
    return int(kind)


class Sequences(Protocol):
    """What lanes need to know of the ledger."""

    @property
    def height(self) -> int: ...

    def next_seq(self, sender: bytes, lane: int) -> int:
        """First sequence number of the lane that was not executed."""
        ...


class _Pending:
    __slots__ = ("done", "hash", "hashes", "kind", "lane", "payload", "seq", "tx")

    def __init__(self, kind: Kind, lane: int, payload: bytes) -> None:
        self.kind, self.lane, self.payload = kind, lane, payload
        self.seq = -1
        self.hash = b""
        self.hashes: list[bytes] = []
        """Every signature of this order; at most one of them is executed, since they share sender, lane and seq."""
        self.tx: SignedTx | None = None
        self.done: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()


class Lanes:
    """All orders of one key that are on their way. One event loop."""

    def __init__(
        self,
        key: SigningKey,
        domain: Domain,
        ledger: Sequences,
        consensus: Consensus,
        *,
        valid_blocks: int = VALID_BLOCKS,
    ) -> None:
        self._key, self._domain, self._ledger, self._consensus = key, domain, ledger, consensus
        self._valid_blocks = valid_blocks
        self._waiting: dict[bytes, _Pending] = {}
        self._lanes: dict[int, list[_Pending]] = {}
        self._signed_anew = asyncio.Event()

    async def send(self, kind: Kind, payload: bytes, *, offer_id: bytes = b"") -> Receipt:
        """Order a payload and wait for its receipt. Waits as long as the ledger does; cancel to give up waiting."""
        order = _Pending(kind, lane_of(kind, offer_id), payload)
        self._lanes.setdefault(order.lane, []).append(order)
        self._number(order)
        await self._offer(order)
        # Shielded: what was offered may still be executed, so its number stays taken though nobody waits any more.
        return await asyncio.shield(order.done)

    def pending(self) -> int:
        return sum(map(len, self._lanes.values()))

    def _number(self, order: _Pending) -> None:
        """Give the order the lane's next free number and sign it."""
        taken = [other.seq for other in self._lanes[order.lane] if other is not order]
        order.seq = max([self._ledger.next_seq(self._key.address, order.lane), *(seq + 1 for seq in taken)])
        self._sign(order)

    def _sign(self, order: _Pending) -> None:
        until = self._ledger.height + self._valid_blocks
        if order.tx is not None and order.tx.tx.seq == order.seq:
            until = max(until, order.tx.tx.valid_until + 1)
        tx = Tx(int(order.kind), self._key.address, order.lane, order.seq, until, order.payload)
        order.hash = tx.digest(self._domain)
        order.hashes.append(order.hash)
        order.tx = SignedTx(tx, self._key.sign(order.hash))
        self._waiting[order.hash] = order
        self._signed_anew.set()

    async def _offer(self, order: _Pending) -> None:
        assert order.tx is not None
        await self._consensus.submit(order.tx, order.hash)

    def executed(self, height: int, receipts: Sequence[Receipt]) -> None:
        """Take note of a block's receipts; to be called for every block in order."""
        again: list[_Pending] = []
        for receipt in receipts:
            order = self._waiting.get(receipt.tx_hash)
            if order is None or order.done.done():
                continue
            if receipt.code == LedgerCode.DUPLICATE:
                order.seq = -1
                again.append(order)
            elif receipt.code == LedgerCode.SEQ_GAP:
                self._sign(order)
            else:
                self._finish(order, receipt)
        for order in again:
            self._number(order)
        for lane in self._lanes.values():
            for order in lane:
                if order.tx is not None and order.tx.tx.valid_until < height:
                    self._sign(order)

    def _finish(self, order: _Pending, receipt: Receipt) -> None:
        self._lanes[order.lane].remove(order)
        for digest in order.hashes:
            self._waiting.pop(digest, None)
        order.done.set_result(receipt)

    async def run(self) -> None:
        """Offer what waits again: at once when it was signed anew, else each second."""
        offered: set[bytes] = set()
        while True:
            orders = [order for lane in self._lanes.values() for order in lane]
            offered &= {order.hash for order in orders}
            for order in orders:
                if order.hash not in offered:
                    await self._offer(order)
                    offered.add(order.hash)
            try:
                async with asyncio.timeout(OFFER_AGAIN_S):
                    await self._signed_anew.wait()
            except TimeoutError:
                offered.clear()
            self._signed_anew.clear()
