"""The API half's own copy of the ledger: executes what the consensus half stored (ledger.md 1, 8).

Rule 1: blocks are applied in height order through the same executor as on the other side, and every state root is
        compared; a difference is a fault of this machine and stops the node, it is never repaired in silence.
Rule 2: listeners hear of each block once, after the state has it, synchronously; they must not wait.
Rule 3: reads need no lock: everything runs in one event loop, and a block is applied between two awaits.

A follower starts from the newest snapshot and the events before it. After a state transfer the store lacks heights;
the follower then starts anew from the snapshot that the transfer left (`restored` counts how often).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgora.ledger.config import Params
from edgora.ledger.executor import Executor
from edgora.ledger.tree import FrozenState, bucket_of
from edgora.market.machine import Market
from edgora.market.records import Server
from edgora.node.archive import Archive, ArchivedEvent
from edgora.ports.consensus import Consensus
from edgora.ports.store import BlockReader, StoredBlock
from edgora.wire.application import Outcome
from edgora.wire.errors import Broken, Unknown
from edgora.wire.genesis import Genesis
from edgora.wire.ledger import Certificate, Header, LedgerCode, OrderedTx, Receipt
from edgora.wire.market_events import BatchCertified, ResultFiled, TaskOpened
from edgora.wire.settlement import payload_hash

__all__ = ["CertifiedState", "Follower", "Step"]

_log = logging.getLogger("edgora.follower")
EVENT_PAGE = 1_024
CHUNK_BLOCKS = 32
"""Blocks applied before other work of the event loop gets a turn."""
RECENT_RECEIPTS = 16_384
FROZEN = 24
"""States kept for certified reads: more than a header can lag behind execution."""
_NOT_RUN = (LedgerCode.DUPLICATE, LedgerCode.SEQ_GAP, LedgerCode.UNKNOWN_SENDER, LedgerCode.TOO_MANY_LANES)
"""Receipts of transactions that were ordered but not executed."""


class Step(NamedTuple):
    """A block that the follower has just applied."""

    stored: StoredBlock
    events: Sequence[ArchivedEvent]


class CertifiedState(NamedTuple):
    """A state that a quorum has signed: headers[0] names its root, the certificate is over the last header."""

    height: int
    state: FrozenState
    headers: tuple[Header, ...]
    certificate: Certificate


class Follower:
    """State, archive and receipts of one node's API half."""

    def __init__(self, genesis: Genesis, store: BlockReader) -> None:
        self._genesis, self.store = genesis, store
        self.market = Market.from_genesis(genesis)
        self.executor = Executor(self.market, genesis.addresses, Params())
        self.archive = Archive(genesis.market_domain())
        self.header_time_ms = genesis.time_ms
        self.restored = 0
        self._listeners: list[Callable[[Step], None]] = []
        self._receipts: OrderedDict[bytes, Receipt] = OrderedDict()
        self._waiting: dict[bytes, list[asyncio.Future[Receipt]]] = {}
        self._frozen: OrderedDict[int, FrozenState] = OrderedDict()
        self._moved = asyncio.Event()
        self._start()

    @property
    def height(self) -> int:
        """The height that all reads speak of."""
        return self.executor.height

    def next_seq(self, sender: bytes, lane: int) -> int:
        return self.executor.next_seq((sender, lane))

    def advise(self, tx: OrderedTx, now_ms: int) -> Outcome:
        """What executing tx would answer, if the next block's time were now_ms (an idle ledger's clock stands still)."""
        core = self.market.core
        before, core.now_ms = core.now_ms, max(core.now_ms, now_ms)
        try:
            return self.market.precheck(tx)
        finally:
            core.now_ms = before

    def lanes_of(self, sender: bytes) -> list[tuple[int, int]]:
        """(lane, next sequence number) of every lane that a sender has."""
        return [(lane[1], self.executor.next_seq(lane)) for lane in self.executor.lanes(sender)]

    def chain_seen(self, now_ms: int) -> bool:
        """Whether a quorum has looked at the chain lately, by our clock (contracts.md 9)."""
        seen = self.market.chain_seen_ms()
        return seen > 0 and max(now_ms, self.header_time_ms) - seen <= self._genesis.market.margin_ms // 2

    def is_live(self, server: Server, now_ms: int) -> bool:
        """Whether a server gets new work, by our clock: the ledger's stands still while it is idle."""
        advert = server.advert
        return self.market.is_live(server) and advert is not None and advert.until_ms > now_ms

    def listen(self, listener: Callable[[Step], None]) -> None:
        self._listeners.append(listener)

    # ---- following

    def _start(self) -> None:
        """Become the newest snapshot, and remember what the stored events before it tell."""
        snapshot = self.store.newest_snapshot()
        if snapshot is None:
            return
        height = snapshot.header.height
        self.market = Market.from_genesis(self._genesis)
        self.executor = Executor(self.market, self._genesis.addresses, Params())
        self.executor.restore(snapshot.header, dict(snapshot.state), snapshot.state_root)
        self.header_time_ms = snapshot.header.time_ms
        while page := self.store.events(self.archive.last_event, EVENT_PAGE):
            known = [event for event in page if event.height <= height]
            heights = {
                item.height
                for item in self.archive.fold_events(known)
                if isinstance(item.event, (TaskOpened, ResultFiled, BatchCertified))
            }
            for told in sorted(heights):
                stored = self.store.block(told)
                if stored is not None:
                    self.archive.fold_block(stored)
            if len(known) < len(page):
                break
        self.archive.adopt(self.market)
        self.archive.height = height
        self._keep_batch()
        self._frozen.clear()
        _log.info("following from a snapshot", extra={"height": height})

    async def run(self, consensus: Consensus) -> None:
        """Follow until cancelled. Raises Broken on a divergence."""
        async for _ in consensus.heights():
            while self.catch_up(CHUNK_BLOCKS):  # noqa: ASYNC110 - others get a turn between chunks; nothing is polled
                await asyncio.sleep(0)

    def catch_up(self, limit: int | None = None) -> int:
        """Apply stored blocks, at most `limit`. Returns how many there were."""
        applied = 0
        while limit is None or applied < limit:
            stored = self.store.block(self.height + 1)
            if stored is None:
                snapshot = self.store.newest_snapshot() if self.store.height() > self.height else None
                if snapshot is None or snapshot.header.height <= self.height:
                    break
                self.restored += 1
                self._start()
                continue
            self._apply(stored)
            applied += 1
        if applied:
            self._moved.set()
            self._moved = asyncio.Event()
        return applied

    def _apply(self, stored: StoredBlock) -> None:
        header = stored.block.header
        hashes = [receipt.tx_hash for receipt in stored.receipts]
        result = self.executor.execute(header, header.hash, stored.block.txs, hashes)
        if result.state_root != stored.state_root:
            raise Broken(
                f"height {header.height}: this half's state root {result.state_root.hex()} is not the stored one "
                f"{stored.state_root.hex()}; stop the node and keep its data for inspection"
            )
        self.executor.forget_below(header.exec_height)
        self._frozen[header.height] = self.executor.freeze()
        if len(self._frozen) > FROZEN:
            self._frozen.popitem(last=False)
        self.header_time_ms = header.time_ms
        events = self._events_of(header.height)
        self.archive.fold_block(stored)
        self._keep_batch()
        for receipt in result.receipts:
            self._note(receipt)
        step = Step(stored, events)
        for listener in self._listeners:
            listener(step)

    def _keep_batch(self) -> None:
        """What the state forgets once the chain has settled the batch."""
        batch = self.market.batch()
        record = None if batch is None else self.archive.batches.get(batch.record.id)
        if batch is not None and record is not None and record.payload_hash is None:
            record.payload_hash = payload_hash(batch.record.payload)
            record.tasks = list(batch.record.lines)

    def _events_of(self, height: int) -> list[ArchivedEvent]:
        fresh: list[ArchivedEvent] = []
        while True:
            page = self.store.events(self.archive.last_event, EVENT_PAGE)
            mine = [event for event in page if event.height <= height]
            fresh += self.archive.fold_events(mine)
            if len(mine) < EVENT_PAGE:
                return fresh

    # ---- receipts

    def _note(self, receipt: Receipt) -> None:
        if receipt.code in _NOT_RUN:
            known = self.receipt(receipt.tx_hash)
            if known is not None and known.code not in _NOT_RUN:
                return  # the same bytes again: what they did the first time is the answer
        self._receipts[receipt.tx_hash] = receipt
        if len(self._receipts) > RECENT_RECEIPTS:
            self._receipts.popitem(last=False)
        for future in self._waiting.pop(receipt.tx_hash, ()):
            if not future.done():
                future.set_result(receipt)

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        """Of a transaction that is in a block at or below `height`; from the archive of blocks if it is an old one."""
        found = self._receipts.get(tx_hash)
        if found is not None:
            return found
        place = self.store.place_of(tx_hash)
        stored = None if place is None or place[0] > self.height else self.store.block(place[0])
        return None if place is None or stored is None else stored.receipts[place[1]]

    async def wait_receipt(self, tx_hash: bytes, timeout_ms: int) -> Receipt:
        """The receipt, once there is one. Raises Unknown when the time is over."""
        found = self.receipt(tx_hash)
        if found is not None:
            return found
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        waiters = self._waiting.setdefault(tx_hash, [])
        waiters.append(future)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await future
        except TimeoutError:
            raise Unknown(
                f"no receipt within {timeout_ms} ms; the transaction may still be executed",
                fix="send the identical bytes again, here or to another node",
            ) from None
        finally:
            if future in waiters:
                waiters.remove(future)
            if not waiters:
                self._waiting.pop(tx_hash, None)

    async def reach(self, height: int, timeout_ms: int) -> None:
        """Return once this height is applied. Raises Unknown when the time is over."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while self.height < height:
                    await self.moved()
        except TimeoutError:
            raise Unknown(f"height {height} was not reached in {timeout_ms} ms", fix="try again") from None

    async def moved(self) -> None:
        """Return once further blocks were applied."""
        await self._moved.wait()

    # ---- what a quorum has signed

    def certified_by(self, height: int) -> tuple[tuple[Header, ...], Certificate] | None:
        """What certifies the results of a height: headers from the one that names them to the one that is signed."""
        naming = next((h for h in self.store.headers(height + 1, height + FROZEN) if h.exec_height >= height), None)
        found = None if naming is None else self.store.certificate_from(naming.height)
        if naming is None or found is None:
            return None
        headers = tuple(self.store.headers(naming.height, found[0]))
        complete = len(headers) == found[0] - naming.height + 1
        return (headers, found[1]) if complete else None

    def certified_state(self) -> CertifiedState | None:
        """The newest state whose root stands under a commit certificate; None shortly after a start."""
        for header in reversed(self.store.headers(max(1, self.height - FROZEN), self.height)):
            state = self._frozen.get(header.exec_height)
            found = self.store.certificate_from(header.height)
            if state is not None and found is not None and state.root == header.state_root:
                headers = tuple(self.store.headers(header.height, found[0]))
                return CertifiedState(header.exec_height, state, headers, found[1])
        return None

    def value(self, key: bytes) -> bytes | None:
        """A state value as of `height`."""
        return dict(self.executor.freeze().pairs(bucket_of(key))).get(key)
