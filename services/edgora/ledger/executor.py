"""Execution: committed blocks in, receipts and state roots out (ledger.md 3, 8).

Rule 1: every transaction runs at most once. In a lane of a sender seq runs 0, 1, 2 ...; a lower one is DUPLICATE, a
        higher one SEQ_GAP, neither consumes anything. One that ran consumed its seq whatever its code was.
Rule 2: strangers store nothing: a sender that the application does not know is UNKNOWN_SENDER, one with 16 lanes gets
        no further one (validators excepted).
Rule 3: the uint16 kind stands in front of every receipt output, so no kind can produce the bytes of another.
Rule 4: whatever a later header must repeat is itself state. The tree holds, for each executed height whose results no
        header names yet, the root before it and its receipt leaves; a replica that starts from a snapshot can
        therefore check and build the very next header. These book-keeping keys are no results: they ask for no seal.

The ledger's own keys in the tree start with PREFIX; an application that writes there is broken.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from edgora.ledger.config import Params
from edgora.ledger.tree import FrozenState, StateTree
from edgora.wire.application import Application
from edgora.wire.errors import Broken
from edgora.wire.hashing import merkle_root
from edgora.wire.ledger import BlockContext, Header, Kind, LedgerCode, OrderedTx, Receipt, SignedTx
from edgora.wire.units import Digest

__all__ = ["PREFIX", "BlockResult", "Executor", "Lane"]

PREFIX = b"\x00ledger/"
_LANE = PREFIX + b"lane/"
_RESULT = PREFIX + b"result/"

Lane = tuple[bytes, int]
"""(sender, lane number)."""

_OWN_KINDS = {Kind.RECONFIG: LedgerCode.BAD_PAYLOAD, Kind.EVIDENCE: LedgerCode.BAD_PAYLOAD, Kind.NOOP: LedgerCode.OK}
"""Kinds that never reach the application. Membership changes and evidence on the ledger are refused by version 1."""

_NOT_CONSUMING = frozenset({
    LedgerCode.DUPLICATE, LedgerCode.SEQ_GAP, LedgerCode.UNKNOWN_SENDER, LedgerCode.TOO_MANY_LANES,
})  # fmt: skip


class BlockResult(NamedTuple):
    """What executing one block gave."""

    receipts: tuple[Receipt, ...]
    events: tuple[msgspec.Struct, ...]
    state_root: Digest
    substantial: bool
    """Whether anything happened that a seal must certify: receipts, application writes or events."""
    unconsumed: tuple[Lane, ...]
    """Lanes of transactions that consumed no sequence number."""


class _Outcome(NamedTuple):
    """Results of one height that headers name."""

    root: Digest
    leaves: tuple[bytes, ...]


class Executor:
    """Applies blocks to the application and keeps the state tree."""

    def __init__(self, application: Application, validators: Sequence[bytes], params: Params) -> None:
        self._application = application
        self._validators = frozenset(validators)
        self._lanes_per_sender = params.lanes_per_sender
        self._tree = StateTree(application.snapshot())
        self._lanes: dict[bytes, dict[int, int]] = {}
        self._outcomes: dict[int, _Outcome] = {0: _Outcome(self._tree.root, ())}
        self._unnamed: dict[int, None] = {}  # heights with a book-keeping key, ascending
        self.height = 0

    @property
    def state_root(self) -> Digest:
        return self._tree.root

    def next_seq(self, lane: Lane) -> int:
        """The sequence number that runs next in this lane."""
        return self._lanes.get(lane[0], {}).get(lane[1], 0)

    def lanes(self, sender: bytes) -> Sequence[Lane]:
        """Every lane that a sender has, by number."""
        return [(sender, number) for number in sorted(self._lanes.get(sender, ()))]

    def knows(self, sender: bytes) -> bool:
        """Whether a transaction of this sender can have any effect."""
        return sender in self._validators or self._application.knows(sender)

    def lane_open(self, lane: Lane) -> bool:
        """Whether the sender has this lane or may still open it."""
        lanes = self._lanes.get(lane[0])
        return lanes is None or lane[1] in lanes or len(lanes) < self._lanes_per_sender or lane[0] in self._validators

    def value(self, key: bytes) -> bytes | None:
        """A state value as of the executed height."""
        return self._tree.get(key)

    def freeze(self) -> FrozenState:
        return self._tree.freeze()

    # ---- what headers name ------------------------------------------------------------------------------------------

    def root_after(self, height: int) -> Digest | None:
        """State root after a height; None if that is not executed or long past."""
        outcome = self._outcomes.get(height)
        return None if outcome is None else outcome.root

    def latest_receipts(self) -> int:
        """Highest height with receipts that no header up to the executed one names; 0 if there is none."""
        return max((h for h in self._unnamed if self._outcomes[h].leaves), default=0)

    def receipts_between(self, above: int, upto: int) -> tuple[Digest, int] | None:
        """(receiptRoot, receiptCount) of the blocks above + 1 .. upto; None where one of them is not known."""
        leaves: list[bytes] = []
        for height in range(above + 1, upto + 1):
            outcome = self._outcomes.get(height)
            if outcome is None:
                return None
            leaves += outcome.leaves
        return merkle_root(leaves), len(leaves)

    # ---- running ----------------------------------------------------------------------------------------------------

    def execute(
        self, header: Header, block_hash: bytes, txs: Sequence[SignedTx], hashes: Sequence[bytes]
    ) -> BlockResult:
        """Run the block after the executed height. Raises Broken if the application breaks its contract."""
        assert header.height == self.height + 1
        codes, admitted, touched = self._admit(txs, hashes)
        unconsumed = tuple((txs[i].tx.sender, txs[i].tx.lane) for i, code in enumerate(codes) if code in _NOT_CONSUMING)
        context = BlockContext(header.height, header.time_ms, block_hash, header.proposer)
        applied = self._application.apply(context, [OrderedTx(hashes[i], txs[i].tx) for i in admitted])
        if len(applied.outcomes) != len(admitted):
            raise Broken(f"the application answered {len(applied.outcomes)} of {len(admitted)} transactions")
        outputs: dict[int, bytes] = {}
        for i, outcome in zip(admitted, applied.outcomes, strict=True):
            codes[i], outputs[i] = outcome.code, outcome.output
        receipts = tuple(
            Receipt(hashes[i], header.height, i, codes[i], signed.tx.kind.to_bytes(2, "big") + outputs.get(i, b""))
            for i, signed in enumerate(txs)
        )
        if any(key.startswith(PREFIX) for key in applied.writes):
            raise Broken(f"the application wrote under {PREFIX!r}, which is the ledger's")
        leaves = tuple(receipt.struct_hash() for receipt in receipts)
        writes: dict[bytes, bytes | None] = dict(applied.writes)
        for sender, number in touched:
            writes[_lane_key(sender, number)] = self._lanes[sender][number].to_bytes(8, "big")
        for height in [h for h in self._unnamed if h <= header.exec_height]:
            del self._unnamed[height]
            writes[_result_key(height)] = None
        writes[_result_key(header.height)] = self._tree.root + b"".join(leaves)
        self._unnamed[header.height] = None
        self._tree.write(writes)
        self.height = header.height
        root = self._tree.root
        self._outcomes[header.height] = _Outcome(root, leaves)
        substantial = bool(receipts or applied.writes or applied.events)
        return BlockResult(receipts, tuple(applied.events), root, substantial, unconsumed)

    def _admit(self, txs: Sequence[SignedTx], hashes: Sequence[bytes]) -> tuple[list[int], list[int], dict[Lane, None]]:
        """(code of each transaction so far, places of those that the application runs, lanes that moved)."""
        codes = [int(LedgerCode.OK)] * len(hashes)
        admitted: list[int] = []
        touched: dict[Lane, None] = {}
        for i, signed in enumerate(txs):
            tx = signed.tx
            lane = (tx.sender, tx.lane)
            if not self.knows(tx.sender):
                codes[i] = LedgerCode.UNKNOWN_SENDER
            elif not self.lane_open(lane):
                codes[i] = LedgerCode.TOO_MANY_LANES
            elif tx.seq != (due := self.next_seq(lane)):
                codes[i] = LedgerCode.DUPLICATE if tx.seq < due else LedgerCode.SEQ_GAP
            else:
                self._lanes.setdefault(tx.sender, {})[tx.lane] = tx.seq + 1
                touched[lane] = None
                own = _OWN_KINDS.get(Kind(tx.kind))
                if own is None:
                    admitted.append(i)
                else:
                    codes[i] = own
        return codes, admitted, touched

    def forget_below(self, height: int) -> None:
        """Drop results that no header can name any more."""
        for old in [h for h in self._outcomes if h < height]:
            del self._outcomes[old]

    # ---- snapshots --------------------------------------------------------------------------------------------------

    def restore(self, header: Header, state: dict[bytes, bytes], root: bytes) -> None:
        """Become the executor whose state after this header's block is given. Raises Broken if the root differs."""
        tree = StateTree(state)
        if tree.root != root:
            raise Broken(f"the snapshot of height {header.height} has another state root than it claims")
        self._tree = tree
        self._application.restore({key: value for key, value in state.items() if not key.startswith(PREFIX)})
        self._lanes, self._unnamed = {}, {}
        self._outcomes = {header.exec_height: _Outcome(Digest(header.state_root), ())}
        self.height = header.height
        for key, value in sorted(state.items()):
            if key.startswith(_LANE):
                sender, number = key[len(_LANE) : -4], int.from_bytes(key[-4:], "big")
                self._lanes.setdefault(sender, {})[number] = int.from_bytes(value, "big")
        waiting: list[tuple[int, bytes]] = []
        for key, value in sorted(state.items()):
            if key.startswith(_RESULT):
                waiting.append((int.from_bytes(key[-8:], "big"), value))
        roots = [value[:32] for _, value in waiting[1:]] + [root]
        for (height, value), after in zip(waiting, roots, strict=True):
            leaves = tuple(value[i : i + 32] for i in range(32, len(value), 32))
            self._outcomes[height] = _Outcome(Digest(after), leaves)
            self._unnamed[height] = None


def _lane_key(sender: bytes, lane: int) -> bytes:
    return _LANE + sender + lane.to_bytes(4, "big")


def _result_key(height: int) -> bytes:
    return _RESULT + height.to_bytes(8, "big")
