"""Transactions that wait to be ordered (ledger.md 6, 8, 16).

Rule 1: what enters is checked once: form, window, limits, and a signature that somebody whom we trust has verified.
Rule 2: what was admitted leaves only by execution, by expiry, or because its sequence number was executed otherwise;
        it is never evicted silently. A full pool refuses at the door.
Rule 3: nothing is re-checked after each block. A block touches the lanes it executed, and expiry is a heap.

A lane is *ready* while its next sequence number is here: only such transactions are a duty that a timer may run for;
those behind a gap are held. `Selection` is the primary's view on the pool: lane heads in order of arrival, one
transaction of a lane after the other, those in flight left out.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum, auto

from edgora.ledger.config import Params
from edgora.ledger.executor import Executor, Lane
from edgora.wire.ledger import Kind, SignedTx

__all__ = ["Admission", "Entry", "Pool", "Selection", "malformed"]


class Admission(StrEnum):
    """What the pool answers; the API words it (ledger.md 8, 16)."""

    ADMITTED = auto()
    KNOWN = auto()
    """The very same transaction is here already: a retry."""
    DUPLICATE = auto()
    """Its sequence number was executed; ask for the receipt."""
    CONFLICT = auto()
    """Another transaction with this sequence number of the lane waits here."""
    GAP = auto()
    """More than 64 ahead of the lane's next sequence number."""
    UNKNOWN_SENDER = auto()
    TOO_MANY_LANES = auto()
    TOO_LARGE = auto()
    BAD_KIND = auto()
    EXPIRED = auto()
    TOO_FAR = auto()
    """valid_until is more than V_max blocks away."""
    SENDER_FULL = auto()
    POOL_FULL = auto()


_KINDS = frozenset(int(kind) for kind in Kind)


def malformed(signed: SignedTx, octets: int, height: int, params: Params) -> Admission | None:
    """The stateless rules of a transaction in a block of this height (ledger.md 3); None if it keeps them."""
    tx = signed.tx
    if octets > params.tx_octets:
        return Admission.TOO_LARGE
    if tx.kind not in _KINDS:
        return Admission.BAD_KIND
    if tx.valid_until < height:
        return Admission.EXPIRED
    if tx.valid_until > height + params.validity_window:
        return Admission.TOO_FAR
    return None


class Entry:
    """One pooled transaction."""

    __slots__ = ("arrival", "gossiped_ms", "hash", "octets", "own", "pooled_ms", "signed")

    def __init__(self, signed: SignedTx, tx_hash: bytes, octets: int, arrival: int, now: int, own: bool) -> None:
        self.signed = signed
        self.hash = tx_hash
        self.octets = octets
        self.arrival = arrival
        """Place in the order of arrival here."""
        self.pooled_ms = now
        self.gossiped_ms = now
        self.own = own
        """It came by our own API, so we owe an answer and the gossip."""

    @property
    def lane(self) -> Lane:
        return (self.signed.tx.sender, self.signed.tx.lane)


class Pool:
    """All waiting transactions."""

    def __init__(self, params: Params, executor: Executor) -> None:
        self._params = params
        self._executor = executor
        self._by_hash: dict[bytes, Entry] = {}
        self._by_signature: dict[bytes, Entry] = {}
        self._lanes: dict[Lane, dict[int, Entry]] = {}
        self._per_sender: dict[bytes, int] = {}
        self._expiry: list[tuple[int, int, bytes]] = []
        self._arrivals = 0
        self.octets = 0
        self.ready: dict[Lane, int] = {}
        """Ready lanes, longest waiting first, with the time since when their head could run."""
        self.last_executed_arrival = -1
        """Arrival number of the latest-pooled transaction that was executed (inclusion timer)."""
        self.on_ready: Callable[[Entry], None] | None = None
        """Told of each transaction that arrives; set by the primary's selection."""

    def __len__(self) -> int:
        return len(self._by_hash)

    def get(self, tx_hash: bytes) -> Entry | None:
        return self._by_hash.get(tx_hash)

    def same(self, signed: SignedTx) -> Entry | None:
        """The entry that is this transaction under this very signature: its hash is known and its signature checked."""
        entry = self._by_signature.get(signed.signature)
        return entry if entry is not None and entry.signed.tx == signed.tx else None

    def at(self, lane: Lane, seq: int) -> Entry | None:
        return self._lanes.get(lane, {}).get(seq)

    def entries(self) -> Iterable[Entry]:
        """All entries in order of arrival."""
        return self._by_hash.values()

    def oldest_ready(self) -> tuple[Entry, int] | None:
        """(head, ready since) of the lane that has been ready the longest."""
        for lane, since in self.ready.items():
            return self._lanes[lane][self._executor.next_seq(lane)], since
        return None

    def refusal(self, signed: SignedTx, octets: int, next_height: int) -> Admission | None:
        """Why this transaction cannot enter now, its signature aside; None if it can."""
        tx = signed.tx
        bad = malformed(signed, octets, next_height, self._params)
        if bad is not None:
            return bad
        if not self._executor.knows(tx.sender):
            return Admission.UNKNOWN_SENDER
        lane = (tx.sender, tx.lane)
        if not self._executor.lane_open(lane):
            return Admission.TOO_MANY_LANES
        due = self._executor.next_seq(lane)
        if tx.seq < due:
            return Admission.DUPLICATE
        if tx.seq > due + self._params.lane_gap:
            return Admission.GAP
        other = self.at(lane, tx.seq)
        if other is not None:
            return Admission.KNOWN if other.signed.tx == tx else Admission.CONFLICT
        if self._per_sender.get(tx.sender, 0) >= self._params.pool_per_sender:
            return Admission.SENDER_FULL
        if len(self._by_hash) >= self._params.pool_txs or self.octets + octets > self._params.pool_octets:
            return Admission.POOL_FULL
        return None

    def add(
        self, signed: SignedTx, tx_hash: bytes, octets: int, now: int, next_height: int, *, own: bool = False
    ) -> Admission:
        """Take a transaction whose signature was verified; octets is its encoded length. ADMITTED, or why not."""
        if tx_hash in self._by_hash:
            return Admission.KNOWN
        refusal = self.refusal(signed, octets, next_height)
        if refusal is not None:
            return refusal
        entry = Entry(signed, tx_hash, octets, self._arrivals, now, own)
        self._arrivals += 1
        tx, lane = signed.tx, entry.lane
        self._by_hash[tx_hash] = entry
        self._by_signature[signed.signature] = entry
        self._lanes.setdefault(lane, {})[tx.seq] = entry
        self._per_sender[tx.sender] = self._per_sender.get(tx.sender, 0) + 1
        self.octets += octets
        heapq.heappush(self._expiry, (tx.valid_until, entry.arrival, tx_hash))
        if tx.seq == self._executor.next_seq(lane):
            self.ready[lane] = now
        if self.on_ready is not None:
            self.on_ready(entry)
        return Admission.ADMITTED

    def _remove(self, entry: Entry) -> None:
        del self._by_hash[entry.hash]
        if self._by_signature.get(entry.signed.signature) is entry:
            del self._by_signature[entry.signed.signature]
        self.octets -= entry.octets
        sender, lane, seq = entry.signed.tx.sender, entry.lane, entry.signed.tx.seq
        self._per_sender[sender] -= 1
        if not self._per_sender[sender]:
            del self._per_sender[sender]
        waiting = self._lanes[lane]
        del waiting[seq]
        if not waiting:
            del self._lanes[lane]

    def executed(
        self, txs: Sequence[SignedTx], hashes: Sequence[bytes], now: int, height: int
    ) -> list[tuple[Entry, Admission]]:
        """Settle accounts after a block was executed at a height: drop what it ran and what can run no more.

        Returns entries that left without being in the block, with EXPIRED or DUPLICATE.
        """
        dropped: list[tuple[Entry, Admission]] = []
        lanes: dict[Lane, None] = {}
        for signed, tx_hash in zip(txs, hashes, strict=True):
            entry = self._by_hash.get(tx_hash)
            if entry is not None:
                self.last_executed_arrival = max(self.last_executed_arrival, entry.arrival)
                self._remove(entry)
            lane = (signed.tx.sender, signed.tx.lane)
            other = self.at(lane, signed.tx.seq)
            if other is not None and signed.tx.seq < self._executor.next_seq(lane):
                self._remove(other)
                dropped.append((other, Admission.DUPLICATE))
            lanes[lane] = None
        while self._expiry and self._expiry[0][0] <= height:
            _, _, tx_hash = heapq.heappop(self._expiry)
            entry = self._by_hash.get(tx_hash)
            if entry is not None and entry.signed.tx.valid_until <= height:
                self._remove(entry)
                dropped.append((entry, Admission.EXPIRED))
                lanes[entry.lane] = None
        for lane in lanes:
            self.ready.pop(lane, None)
            if self.at(lane, self._executor.next_seq(lane)) is not None:
                self.ready[lane] = now
        return dropped

    def resettle(self, now: int, height: int) -> list[tuple[Entry, Admission]]:
        """Settle accounts after the state changed as a whole (state transfer)."""
        dropped = []
        for entry in list(self._by_hash.values()):
            if entry.signed.tx.seq < self._executor.next_seq(entry.lane):
                self._remove(entry)
                dropped.append((entry, Admission.DUPLICATE))
            elif entry.signed.tx.valid_until <= height:
                self._remove(entry)
                dropped.append((entry, Admission.EXPIRED))
        ready = [lane for lane in self._lanes if self.at(lane, self._executor.next_seq(lane)) is not None]
        self.ready = {lane: self.ready.get(lane, now) for lane in ready}
        return dropped


class Selection:
    """The next batch of a primary: filled as transactions arrive, emptied by a proposal.

    Made when a primary starts to propose on a chain; `in_flight` are the transactions of that chain's uncommitted
    blocks.
    """

    def __init__(
        self, pool: Pool, executor: Executor, params: Params, in_flight: Iterable[tuple[bytes, SignedTx]]
    ) -> None:
        self._pool = pool
        self._executor = executor
        self._params = params
        self._frontier: dict[Lane, int] = {}
        self._taken: set[bytes] = set()
        self._heap: list[tuple[int, bytes]] = []
        self.batch: list[Entry] = []
        self.octets = 0
        for tx_hash, signed in in_flight:
            lane = (signed.tx.sender, signed.tx.lane)
            self._taken.add(tx_hash)
            self._frontier[lane] = max(self._frontier.get(lane, 0), signed.tx.seq + 1)
        pool.on_ready = self._arrived
        for entry in pool.entries():
            self._arrived(entry)

    def _due(self, lane: Lane) -> int:
        return max(self._frontier.get(lane, 0), self._executor.next_seq(lane))

    def _arrived(self, entry: Entry) -> None:
        if entry.signed.tx.seq == self._due(entry.lane) and entry.hash not in self._taken:
            heapq.heappush(self._heap, (entry.arrival, entry.hash))

    @property
    def full(self) -> bool:
        """Whether the batch closes without any delay."""
        if len(self.batch) >= self._params.block_txs:
            return True
        return bool(self._heap) and self.octets + self._params.tx_octets > self._params.block_octets

    def fill(self, height: int) -> None:
        """Take what is ready into the batch, up to the limits of a block."""
        while self._heap and not self.full:
            _, tx_hash = heapq.heappop(self._heap)
            entry = self._pool.get(tx_hash)
            if entry is None or tx_hash in self._taken or entry.signed.tx.valid_until < height:
                continue
            lane = entry.lane
            if entry.signed.tx.seq != self._due(lane):
                continue
            self._taken.add(tx_hash)
            self._frontier[lane] = entry.signed.tx.seq + 1
            self.batch.append(entry)
            self.octets += entry.octets
            following = self._pool.at(lane, entry.signed.tx.seq + 1)
            if following is not None:
                self._arrived(following)

    def close(self, height: int) -> list[Entry]:
        """The batch as a block's content; what expired meanwhile is left out, and what it leaves behind a gap."""
        closed: list[Entry] = []
        broken: set[Lane] = set()
        for entry in self.batch:
            live = self._pool.get(entry.hash) is entry and entry.signed.tx.valid_until >= height
            if live and entry.lane not in broken:
                closed.append(entry)
                continue
            self._taken.discard(entry.hash)
            if entry.lane not in broken:
                broken.add(entry.lane)
                self._frontier[entry.lane] = entry.signed.tx.seq
        self.batch, self.octets = [], 0
        return closed

    def committed(self, hashes: Sequence[bytes], unconsumed: Iterable[Lane]) -> None:
        """Forget what is executed; look at lanes again whose transactions consumed nothing."""
        self._taken.difference_update(hashes)
        for lane in unconsumed:
            self._frontier.pop(lane, None)
            entry = self._pool.at(lane, self._due(lane))
            if entry is not None:
                self._arrived(entry)
