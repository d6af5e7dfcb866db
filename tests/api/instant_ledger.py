"""A ledger that orders at once, in memory: real market, real executor, real certificates, no agreement.

`InstantLedger` makes a block as soon as something is submitted or due and keeps it in a `MemoryStore`; each node sees
it through a `FakeConsensus`, which can be told to refuse or to be away. Calls between nodes go through the ledger,
too, which can cut nodes off. `FastClock` runs `SCALE` times faster than real time, so periods of seconds pass in
tenths.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from edgora.crypto.sign import SigningKey
from edgora.ledger.config import Params, genesis_header
from edgora.ledger.effects import SnapshotImage
from edgora.ledger.executor import Executor
from edgora.market.machine import Market
from edgora.ports.consensus import (
    Admission,
    CheckpointView,
    ConsensusStatus,
    EvidenceView,
    PeerHandler,
    ViewStep,
    VoterView,
)
from edgora.ports.store import StoredBlock, StoredEvent
from edgora.wire.codec import encode
from edgora.wire.errors import Unavailable
from edgora.wire.genesis import Genesis
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Block, Certificate, Header, Phase, SignedTx, Vote
from edgora.wire.units import Millis

__all__ = ["FakeConsensus", "FastClock", "InstantLedger", "MemoryStore"]

SCALE = 10


class FastClock:
    """Wall time from now on, ten times as fast."""

    def __init__(self) -> None:
        self._start_ms, self._began = time.time_ns() // 1_000_000, time.monotonic()

    def now_ms(self) -> Millis:
        return Millis(self._start_ms + int((time.monotonic() - self._began) * 1000 * SCALE))

    def call_at(self, deadline_ms: int, call: Callable[[], None]) -> asyncio.TimerHandle:
        delay = max(0, deadline_ms - self.now_ms() + 1) / 1000 / SCALE
        return asyncio.get_running_loop().call_later(delay, call)


class MemoryStore:
    """ports.store.BlockStore in lists."""

    def __init__(self) -> None:
        self.blocks: dict[int, StoredBlock] = {}
        self.places: dict[bytes, tuple[int, int]] = {}
        self.stored_events: list[StoredEvent] = []
        self.image: SnapshotImage | None = None

    def height(self) -> int:
        return max(self.blocks, default=0)

    def block(self, height: int) -> StoredBlock | None:
        return self.blocks.get(height)

    def headers(self, first: int, last: int) -> Sequence[Header]:
        return [self.blocks[h].block.header for h in range(first, min(last, self.height()) + 1) if h in self.blocks]

    def certificate_from(self, height: int) -> tuple[int, Certificate] | None:
        for h in range(height, self.height() + 1):
            stored = self.blocks.get(h)
            if stored is not None and stored.certificate is not None:
                return h, stored.certificate
        return None

    def place_of(self, tx_hash: bytes) -> tuple[int, int] | None:
        return self.places.get(tx_hash)

    def events(self, after: int, limit: int) -> Sequence[StoredEvent]:
        return [event for event in self.stored_events if event.id > after][:limit]

    def snapshot(self) -> tuple[int, Mapping[bytes, bytes]] | None:
        return None if self.image is None else (self.image.header.height, self.image.state)

    def newest_snapshot(self) -> SnapshotImage | None:
        return self.image

    def append(self, stored: StoredBlock, events: Sequence[bytes]) -> None:
        header = stored.block.header
        self.blocks[header.height] = stored
        for receipt in stored.receipts:
            if receipt.code not in (1, 2, 3, 4) or receipt.tx_hash not in self.places:
                self.places[receipt.tx_hash] = (header.height, receipt.index)
        for place, data in enumerate(events):
            self.stored_events.append(StoredEvent(header.height * 65_536 + place, header.height, header.time_ms, data))


class InstantLedger:
    """One executor for all nodes; a block for whatever is there, at once."""

    def __init__(self, genesis: Genesis, keys: Sequence[SigningKey], clock: FastClock) -> None:
        self.genesis, self.keys, self.clock = genesis, keys, clock
        self.domain = genesis.ledger_domain()
        self.market = Market.from_genesis(genesis)
        self.executor = Executor(self.market, genesis.addresses, Params())
        self.store = MemoryStore()
        self.head = genesis_header(genesis.id, genesis.time_ms)
        self.pending: dict[bytes, SignedTx] = {}
        self.handlers: dict[int, PeerHandler] = {}
        self.cut: set[int] = set()
        """Nodes whose peer calls fail."""
        self.frozen = False
        """Nothing is ordered while this is set; submissions wait in the pool."""
        self.changed = asyncio.Event()
        self._due = False
        self._wake: asyncio.TimerHandle | None = None

    def submit(self, tx: SignedTx, tx_hash: bytes) -> Admission:
        if self.store.place_of(tx_hash) is not None or tx.tx.seq < self.executor.next_seq((tx.tx.sender, tx.tx.lane)):
            return Admission(False, "DUPLICATE")
        if not self.executor.knows(tx.tx.sender):
            return Admission(False, "UNKNOWN_SENDER")
        if tx.tx.seq > self.executor.next_seq((tx.tx.sender, tx.tx.lane)) + 64:
            return Admission(False, "LANE_GAP")
        self.pending[tx_hash] = tx
        self._schedule()
        return Admission(True)

    def _schedule(self) -> None:
        if not self._due and not self.frozen:
            self._due = True
            asyncio.get_running_loop().call_soon(self._block)

    def thaw(self) -> None:
        self.frozen = False
        self._schedule()

    def _block(self) -> None:
        self._due = False
        txs: list[tuple[bytes, SignedTx]] = []
        ahead: dict[tuple[bytes, int], int] = {}
        for name, signed in sorted(self.pending.items(), key=lambda item: (item[1].tx.lane, item[1].tx.seq)):
            lane = (signed.tx.sender, signed.tx.lane)
            due = ahead.get(lane, self.executor.next_seq(lane))
            if signed.tx.seq == due:
                txs.append((name, signed))
                ahead[lane] = due + 1
            elif signed.tx.seq < due:
                del self.pending[name]
        for name, _ in txs:
            del self.pending[name]
        self.make([signed for _, signed in txs], [name for name, _ in txs])

    def make(self, txs: Sequence[SignedTx], hashes: Sequence[bytes]) -> None:
        """The next block: built, executed, certified and stored."""
        parent, height = self.head, self.head.height + 1
        named = self.executor.receipts_between(parent.exec_height, height - 1)
        root = self.executor.root_after(height - 1)
        assert named is not None
        assert root is not None
        header = Header(
            0, height, parent.hash, keccak(b"".join(hashes)), len(txs), height - 1, root, named[0], named[1], bytes(32),
            max(parent.time_ms + 1, self.clock.now_ms()), self.keys[0].address,
        )  # fmt: skip
        result = self.executor.execute(header, header.hash, txs, hashes)
        vote = Vote(Phase.COMMIT, 0, 0, height, header.hash)
        signatures = tuple(key.sign(vote.digest(self.domain)) for key in self.keys[:3])
        stored = StoredBlock(
            Block(header, tuple(txs)), Certificate(vote, 0b111, signatures), result.receipts, result.state_root
        )
        self.store.append(stored, [encode(event) for event in result.events])
        self.head = header
        self.changed.set()
        self.changed = asyncio.Event()
        if result.substantial:
            asyncio.get_running_loop().call_later(0.002, self._schedule)  # a seal: the results need a header
        if self._wake is not None:
            self._wake.cancel()
        wake = self.market.wake_at()
        self._wake = self.clock.call_at(wake, self._schedule) if wake else None

    def stop(self) -> None:
        self.frozen = True
        if self._wake is not None:
            self._wake.cancel()


class FakeConsensus:
    """ports.consensus.Consensus of one node of an InstantLedger."""

    def __init__(self, ledger: InstantLedger, index: int) -> None:
        self._ledger, self._index = ledger, index
        self.refuse: str | None = None
        """Admission's reason for whatever is submitted here, while set."""
        self.away = False
        self.steps: tuple[ViewStep, ...] = ()
        self.checkpoints: tuple[CheckpointView, ...] = ()
        self.evidence: tuple[EvidenceView, ...] = ()

    async def submit(self, tx: SignedTx, tx_hash: bytes) -> Admission:
        return self._ledger.submit(tx, tx_hash) if self.refuse is None else Admission(False, self.refuse)

    async def status(self) -> ConsensusStatus:
        if self.away:
            raise Unavailable("the consensus half is away")
        ledger, height = self._ledger, self._ledger.head.height
        voters = tuple(
            VoterView(i, address, True, 5, height, 0, False) for i, address in enumerate(ledger.genesis.addresses)
        )
        waiting = "PREPARING" if ledger.frozen else "IDLE"
        return ConsensusStatus(
            0, 0, True, 0, self._index, len(voters), 3, height, ledger.head.hash, height, ledger.head.time_ms, 0,
            len(ledger.pending), waiting, 7, height + 1, 2, 1_000, 0, None, voters,
            self.steps, self.checkpoints, self.evidence,
        )  # fmt: skip

    async def heights(self) -> AsyncIterator[int]:
        seen = -1
        while True:
            changed = self._ledger.changed
            if self._ledger.head.height > seen:
                seen = self._ledger.head.height
                yield seen
            else:
                await changed.wait()

    async def call(self, server: int, request: bytes, timeout_ms: int) -> bytes:
        handler = self._ledger.handlers.get(server)
        if handler is None or server in self._ledger.cut or self._index in self._ledger.cut:
            raise Unavailable(f"server {server} is not reached")
        return await handler(self._index, request)

    def serve(self, handler: PeerHandler) -> None:
        self._ledger.handlers[self._index] = handler

    async def close(self) -> None:
        pass
