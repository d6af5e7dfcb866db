"""The slow, independent re-check of committed blocks (ledger.md 19, P2, P6).

It sees each block once, in height order, and shares no code with the ledger room: header arithmetic, Merkle roots,
signatures, lanes and receipts are worked out again from the text of ledger.md 3 and 8, one transaction at a time, on
an application instance of its own. What every replica reported must be what comes out here.
"""

from collections.abc import Callable, Mapping, Sequence

from edgora.lab.sim.violation import Violation
from edgora.wire.application import Application, Applied, Outcome
from edgora.wire.codec import encode
from edgora.wire.eip712 import Domain
from edgora.wire.hashing import keccak, merkle_root
from edgora.wire.ledger import Block, BlockContext, Header, Kind, LedgerCode, OrderedTx, Receipt, Tx

__all__ = ["Reference", "state_root_of"]

BUCKETS = 4096
MAX_LANES = 16
MAX_TX_OCTETS = 16 * 1024
OK = LedgerCode.OK
LANE = b"\x00ledger/lane/"
RESULT = b"\x00ledger/result/"


def _result(height: int) -> bytes:
    return RESULT + height.to_bytes(8, "big")


def _runs(tx: Tx) -> bool:
    """Whether the application gets this kind; the ledger keeps three to itself."""
    return tx.kind not in {Kind.RECONFIG, Kind.EVIDENCE, Kind.NOOP}


def state_root_of(state: Mapping[bytes, bytes]) -> bytes:
    """The state root of ledger.md 3, from nothing but the pairs: no cache, no dirty buckets."""
    buckets: dict[int, list[bytes]] = {}
    for key in sorted(state):
        value = state[key]
        packed = len(key).to_bytes(4, "big") + key + len(value).to_bytes(4, "big") + value
        buckets.setdefault(int.from_bytes(keccak(key)[:2], "big") >> 4, []).append(packed)
    row = {number: bytes(keccak(b"\x02" + b"".join(pairs))) for number, pairs in buckets.items()}
    empty, width = bytes(keccak(b"\x02")), BUCKETS
    while width > 1:
        row = {
            number: bytes(keccak(b"\x01" + row.get(2 * number, empty) + row.get(2 * number + 1, empty)))
            for number in sorted({number >> 1 for number in row})
        }
        empty, width = bytes(keccak(b"\x01" + empty + empty)), width // 2
    return row.get(0, empty)


class Reference:
    """The chain as it should be."""

    def __init__(
        self,
        genesis: Header,
        validators: Sequence[bytes],
        domain: Domain,
        recover: Callable[[bytes, bytes], bytes],
        application: Application,
        *,
        window: int,
        valid_blocks: int,
        block_txs: int,
    ) -> None:
        self.headers = [genesis]
        self.receipts: list[tuple[Receipt, ...]] = [()]
        self.first_receipt: dict[bytes, Receipt] = {}
        """By transaction hash: the receipt of its first stand in the chain."""
        self.ran: tuple[list[OrderedTx], Applied] = [], Applied((), {}, ())
        """What the application got of the last block, and what came of it."""
        self.application = application
        self._validators = frozenset(validators)
        self._domain = domain
        self._recover = recover
        self._window = window
        self._valid_blocks = valid_blocks
        self._block_txs = block_txs
        self._next: dict[bytes, dict[int, int]] = {}
        self._state: dict[bytes, bytes] = dict(application.snapshot())
        self.roots = [state_root_of(self._state)]
        """As reported, by height."""

    @property
    def height(self) -> int:
        return len(self.headers) - 1

    def commit(self, block: Block, reported_root: bytes) -> None:
        """Check and execute the block at the next height. Raises Violation.

        The root that a replica reported enters later blocks' book-keeping; `check_root` proves it from scratch.
        """
        hashes = self._check(block)
        receipts = self._execute(block, hashes)
        self.headers.append(block.header)
        self.receipts.append(receipts)
        self.roots.append(reported_root)
        for receipt in receipts:
            self.first_receipt.setdefault(receipt.tx_hash, receipt)

    def due(self, tx: Tx) -> int:
        """The sequence number that the transaction's lane runs next."""
        return self._next.get(tx.sender, {}).get(tx.lane, 0)

    def check_root(self) -> None:
        """The reported root of the highest block, worked out from scratch: thousands of hashes, so now and then only."""
        if state_root_of(self._state) != self.roots[-1]:
            raise Violation("P2", f"the state root after block {self.height} is not that of its pairs")

    # ---- validity ----------------------------------------------------------------------------------------------------

    def _check(self, block: Block) -> list[bytes]:
        header, parent = block.header, self.headers[-1]
        hashes = [bytes(signed.tx.digest(self._domain)) for signed in block.txs]
        leaves = [digest + signed.signature for digest, signed in zip(hashes, block.txs, strict=True)]
        certified = [r for h in range(parent.exec_height + 1, header.exec_height + 1) for r in self.receipts[h]]
        octets = sum(len(encode(signed)) for signed in block.txs)
        rules: list[tuple[bool, str]] = [
            (header.height == parent.height + 1, f"height {header.height} after {parent.height}"),
            (header.parent == parent.struct_hash(), "parent hash is not that of the block below"),
            (header.epoch == parent.epoch, f"epoch {header.epoch} inside epoch {parent.epoch}"),
            (header.time_ms > parent.time_ms, f"time {header.time_ms} is not above its parent's {parent.time_ms}"),
            (header.proposer in self._validators, "proposer is no validator"),
            (header.next_epoch == bytes(32), "names a next epoch that nobody asked for"),
            (parent.exec_height <= header.exec_height < header.height, f"execHeight {header.exec_height}"),
            (header.height - header.exec_height <= self._window + 1, "certifies results too late"),
            (header.tx_count == len(block.txs) <= self._block_txs, f"{len(block.txs)} transactions"),
            (octets <= 512 * 1024, f"{octets} octets of transactions"),
            (header.tx_root == merkle_root(leaves), "txRoot"),
            (len(set(hashes)) == len(hashes), "holds one transaction twice"),
            (header.receipt_count == len(certified), f"receiptCount {header.receipt_count}, not {len(certified)}"),
            (header.exec_height < header.height and header.state_root == self.roots[header.exec_height], "stateRoot"),
            (header.receipt_root == merkle_root([r.struct_hash() for r in certified]), "receiptRoot"),
        ]
        for holds, what in rules:
            if not holds:
                raise Violation("P2", f"committed block {header.height}: {what}")
        for digest, signed in zip(hashes, block.txs, strict=True):
            self._check_tx(header.height, digest, signed.tx, signed.signature)
        return hashes

    def _check_tx(self, height: int, digest: bytes, tx: Tx, signature: bytes) -> None:
        what = f"committed block {height}, transaction {digest.hex()[:12]}"
        if self._recover(digest, signature) != tx.sender:
            raise Violation("P2", f"{what}: not signed by its sender")
        if not height <= tx.valid_until <= height + self._valid_blocks:
            raise Violation("P2", f"{what}: valid until {tx.valid_until}")
        if tx.kind not in set(Kind):
            raise Violation("P2", f"{what}: unknown kind {tx.kind}")
        if len(encode(tx)) > MAX_TX_OCTETS:
            raise Violation("P2", f"{what}: {len(encode(tx))} octets")

    # ---- execution ---------------------------------------------------------------------------------------------------

    def _execute(self, block: Block, hashes: Sequence[bytes]) -> tuple[Receipt, ...]:
        header = block.header
        codes = [self._lane_code(signed.tx) for signed in block.txs]
        runs = [
            i for i, (signed, code) in enumerate(zip(block.txs, codes, strict=True)) if code == OK and _runs(signed.tx)
        ]
        context = BlockContext(header.height, header.time_ms, header.struct_hash(), header.proposer)
        ordered = [OrderedTx(hashes[i], block.txs[i].tx) for i in runs]
        applied = self.application.apply(context, ordered)
        self.ran = ordered, applied
        outcomes = dict(zip(runs, applied.outcomes, strict=True))
        receipts = []
        for index, (digest, signed, code) in enumerate(zip(hashes, block.txs, codes, strict=True)):
            outcome = outcomes.get(index)
            if outcome is None:
                outcome = Outcome(LedgerCode.BAD_PAYLOAD if code == OK and signed.tx.kind != Kind.NOOP else code)
            output = signed.tx.kind.to_bytes(2, "big") + outcome.output
            receipts.append(Receipt(digest, header.height, index, outcome.code, output))
        self._write(applied.writes)
        self._write({
            LANE + signed.tx.sender + signed.tx.lane.to_bytes(4, "big"): (signed.tx.seq + 1).to_bytes(8, "big")
            for signed, code in zip(block.txs, codes, strict=True)
            if code == OK
        })  # fmt: skip
        self._write({_result(h): None for h in range(header.exec_height + 1)})
        leaves = b"".join(receipt.struct_hash() for receipt in receipts)
        self._write({_result(header.height): self.roots[-1] + leaves})
        return tuple(receipts)

    def _write(self, writes: Mapping[bytes, bytes | None]) -> None:
        for key, value in writes.items():
            if value is None:
                self._state.pop(key, None)
            else:
                self._state[key] = value

    def _lane_code(self, tx: Tx) -> int:
        if not self.application.knows(tx.sender) and tx.sender not in self._validators:
            return LedgerCode.UNKNOWN_SENDER
        lanes = self._next.get(tx.sender, {})
        if tx.lane not in lanes and len(lanes) >= MAX_LANES and tx.sender not in self._validators:
            return LedgerCode.TOO_MANY_LANES
        due = lanes.get(tx.lane, 0)
        if tx.seq != due:
            return LedgerCode.DUPLICATE if tx.seq < due else LedgerCode.SEQ_GAP
        self._next.setdefault(tx.sender, {})[tx.lane] = due + 1
        return LedgerCode.OK
