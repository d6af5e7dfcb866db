"""A node's own transactions: numbered, sent again, signed anew, executed once (ledger.md 8, market.md 3)."""

import asyncio

import pytest

from edgora.crypto.sign import SigningKey, recover
from edgora.node.lanes import Lanes, lane_of
from edgora.ports.consensus import Admission
from edgora.wire.eip712 import Domain
from edgora.wire.ledger import Kind, LedgerCode, Receipt, SignedTx

KEY = SigningKey.derived("lanes")
DOMAIN = Domain.ledger(7, bytes(32))


class Ledger:
    """What lanes see of the ledger, and a consensus that only notes what it is given."""

    def __init__(self) -> None:
        self.height = 10
        self.next: dict[int, int] = {}
        self.given: list[SignedTx] = []
        self.arrived = asyncio.Event()

    def next_seq(self, sender: bytes, lane: int) -> int:
        assert sender == KEY.address
        return self.next.get(lane, 0)

    async def submit(self, tx: SignedTx, tx_hash: bytes) -> Admission:
        assert recover(tx_hash, tx.signature) == KEY.address
        assert tx.tx.digest(DOMAIN) == tx_hash
        self.given.append(tx)
        self.arrived.set()
        return Admission(True)

    async def until(self, count: int) -> SignedTx:
        """The count-th transaction that was submitted."""
        async with asyncio.timeout(10):
            while len(self.given) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.given[count - 1]


def receipt(tx: SignedTx, height: int, code: int = 0) -> Receipt:
    return Receipt(tx.tx.digest(DOMAIN), height, 0, code, b"\0\6")


def lanes_over(ledger: Ledger, **how: int) -> Lanes:
    return Lanes(KEY, DOMAIN, ledger, ledger, **how)  # type: ignore[arg-type]


async def started(lanes: Lanes, *payloads: bytes, kind: Kind = Kind.CHAIN_FACT) -> list[asyncio.Task[Receipt]]:
    tasks = [asyncio.ensure_future(lanes.send(kind, payload)) for payload in payloads]
    await asyncio.sleep(0)
    return tasks


def test_each_kind_has_its_lane_and_results_have_eight() -> None:
    assert lane_of(Kind.DRAW) == 10
    assert {lane_of(Kind.RESULT_HASH, bytes([0] * 31 + [i])) for i in range(20)} == set(range(100, 108))


async def test_several_are_in_flight_in_order_and_end_with_their_own_receipt() -> None:
    ledger = Ledger()
    lanes = lanes_over(ledger)
    first, second, third = await started(lanes, b"a", b"b", b"c")
    await ledger.until(3)
    assert [(tx.tx.lane, tx.tx.seq, tx.tx.payload) for tx in ledger.given] == [(6, 0, b"a"), (6, 1, b"b"), (6, 2, b"c")]
    lanes.executed(11, [receipt(ledger.given[1], 11, code=136), receipt(ledger.given[0], 11)])
    assert (await first).code == 0
    assert (await second).code == 136, "a rule's refusal is an answer, not a reason to try again"
    assert lanes.pending() == 1
    assert not third.done()
    third.cancel()


async def test_what_expired_is_signed_anew_with_the_same_number() -> None:
    ledger = Ledger()
    lanes = lanes_over(ledger, valid_blocks=5)
    running = asyncio.ensure_future(lanes.run())
    (task,) = await started(lanes, b"a")
    old = await ledger.until(1)
    assert old.tx.valid_until == 15
    ledger.height = 16
    lanes.executed(16, [])
    async with asyncio.timeout(10):
        while ledger.given[-1].tx.valid_until == 15:
            ledger.arrived.clear()
            await ledger.arrived.wait()
    new = ledger.given[-1]
    assert (new.tx.seq, new.tx.payload, new.tx.valid_until) == (0, b"a", 21)
    lanes.executed(17, [receipt(old, 17)])  # the old one made it after all: it is the same order
    assert (await task).code == 0
    lanes.executed(18, [receipt(new, 18, LedgerCode.DUPLICATE)])
    assert lanes.pending() == 0
    running.cancel()


async def test_a_used_number_is_replaced_by_the_next_free_one() -> None:
    ledger = Ledger()
    lanes = lanes_over(ledger)
    running = asyncio.ensure_future(lanes.run())
    tasks = await started(lanes, b"a", b"b")
    await ledger.until(2)
    ledger.next[6] = 1  # something from before a restart took 0
    lanes.executed(11, [receipt(ledger.given[0], 11, LedgerCode.DUPLICATE)])
    async with asyncio.timeout(10):
        while not any(tx.tx.payload == b"a" and tx.tx.seq == 2 for tx in ledger.given):
            ledger.arrived.clear()
            await ledger.arrived.wait()
    moved = next(tx for tx in ledger.given if tx.tx.payload == b"a" and tx.tx.seq == 2)
    lanes.executed(12, [receipt(ledger.given[1], 12), receipt(moved, 12)])
    assert [r.code for r in await asyncio.gather(*tasks)] == [0, 0]
    running.cancel()


async def test_a_gap_is_signed_anew_and_lost_bytes_are_offered_again() -> None:
    ledger = Ledger()
    lanes = lanes_over(ledger)
    running = asyncio.ensure_future(lanes.run())
    (task,) = await started(lanes, b"a")
    first = await ledger.until(1)
    lanes.executed(11, [receipt(first, 11, LedgerCode.SEQ_GAP)])
    async with asyncio.timeout(10):
        while ledger.given[-1].tx.valid_until == first.tx.valid_until:
            ledger.arrived.clear()
            await ledger.arrived.wait()
    again = ledger.given[-1]
    assert (again.tx.seq, again.tx.valid_until) == (0, first.tx.valid_until + 1)
    count = len(ledger.given)
    repeated = await ledger.until(count + 1)  # nothing happens for a second: the identical bytes go out again
    assert repeated == again
    lanes.executed(12, [receipt(again, 12)])
    assert (await task).height == 12
    running.cancel()


async def test_giving_up_the_wait_keeps_the_number() -> None:
    ledger = Ledger()
    lanes = lanes_over(ledger)
    (task,) = await started(lanes, b"a")
    await ledger.until(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    second = asyncio.ensure_future(lanes.send(Kind.CHAIN_FACT, b"b"))
    assert (await ledger.until(2)).tx.seq == 1, "what was offered may still be executed"
    second.cancel()
