"""What the ledger hashes, signs and proves (ledger.md 2, 3, 8). The type strings are normative.

PBFT messages, which wrap these on their way between replicas, are in `wire.pbft`.
"""

from enum import IntEnum

import msgspec

from edgora.wire.codec import B20, B32, B65, U8, U16, U32, U64
from edgora.wire.eip712 import Domain, Typed
from edgora.wire.hashing import keccak, merkle_verify
from edgora.wire.units import Digest

__all__ = [
    "LEDGER_CODES",
    "Block",
    "BlockContext",
    "Certificate",
    "CheckpointBody",
    "Epoch",
    "Header",
    "Kind",
    "LedgerCode",
    "OrderedTx",
    "Phase",
    "Receipt",
    "ReceiptProof",
    "SignedTx",
    "Tx",
    "TxProof",
    "Vote",
    "faulty",
    "quorum",
    "tx_hash",
    "validators_hash",
]  # fmt: skip


class Kind(IntEnum):
    """Transaction kinds, version 1 (ledger.md 3)."""

    ADVERT = 1
    TASK = 2
    ALLOCATION = 3
    RESULT_HASH = 4
    SETTLEMENT = 5
    CHAIN_FACT = 6
    RECONFIG = 7
    EVIDENCE = 8
    NOOP = 9
    DRAW = 10
    CANCEL = 11


class Phase(IntEnum):
    PREPARE = 1
    COMMIT = 2


class LedgerCode(IntEnum):
    """Receipt codes that the ledger itself gives, 0..15; the application's start at 16 (wire.market.Code)."""

    OK = 0
    DUPLICATE = 1
    SEQ_GAP = 2
    UNKNOWN_SENDER = 3
    TOO_MANY_LANES = 4
    BAD_PAYLOAD = 5


LEDGER_CODES = {
    LedgerCode.OK: "done",
    LedgerCode.DUPLICATE: "this sequence number of the lane was executed already; nothing to do",
    LedgerCode.SEQ_GAP: "a lower sequence number of the lane is missing; send that one first",
    LedgerCode.UNKNOWN_SENDER: "the ledger knows no server, deposit or lock of this address; deposit or register first",
    LedgerCode.TOO_MANY_LANES: "this sender has 16 lanes; use one of them",
    LedgerCode.BAD_PAYLOAD: "the payload does not decode as its kind demands; build it with the SDK",
}


def faulty(n: int) -> int:
    """f: how many of n replicas may be Byzantine."""
    return (n - 1) // 3


def quorum(n: int) -> int:
    """q: votes that certify. Any two quorums share a correct replica; never written as 2f+1 (n=5 needs 4)."""
    return (n + faulty(n)) // 2 + 1


class Tx(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An order of one sender. Executes at most once: in a lane, seq runs 0, 1, 2 without gaps.

    valid_until is a height (`valid_until_height` in REST).
    """

    TYPE = "Tx(uint16 kind,address sender,uint32 lane,uint64 seq,uint64 validUntil,bytes payload)"
    kind: U16
    sender: B20
    lane: U32
    seq: U64
    valid_until: U64
    payload: bytes


class SignedTx(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A transaction as it travels: canonical(Tx) beside its 65-byte signature r || s || v."""

    tx: Tx
    signature: B65


class Header(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Header of a block; blockHash = hashStruct(Header). The view is not in it: a re-proposed block keeps its hash."""

    TYPE = (
        "Header(uint64 epoch,uint64 height,bytes32 parent,bytes32 txRoot,uint32 txCount,uint64 execHeight,"
        "bytes32 stateRoot,bytes32 receiptRoot,uint32 receiptCount,bytes32 nextEpoch,uint64 timeMs,address proposer)"
    )
    epoch: U64
    height: U64
    parent: B32
    tx_root: B32
    tx_count: U32
    exec_height: U64
    state_root: B32
    receipt_root: B32
    receipt_count: U32
    next_epoch: B32
    time_ms: U64
    proposer: B20

    @property
    def hash(self) -> Digest:
        return self.struct_hash()

    def packed(self) -> bytes:
        """220 octets, fields in type order at their width: the form that the contract reads (contracts.md 7)."""
        return b"".join((
            self.epoch.to_bytes(8, "big"), self.height.to_bytes(8, "big"), self.parent, self.tx_root,
            self.tx_count.to_bytes(4, "big"), self.exec_height.to_bytes(8, "big"), self.state_root, self.receipt_root,
            self.receipt_count.to_bytes(4, "big"), self.next_epoch, self.time_ms.to_bytes(8, "big"), self.proposer,
        ))  # fmt: skip


class Block(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    header: Header
    txs: tuple[SignedTx, ...]


class Vote(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    TYPE = "Vote(uint8 phase,uint64 epoch,uint64 view,uint64 height,bytes32 blockHash)"
    phase: U8
    epoch: U64
    view: U64
    height: U64
    block_hash: B32


class CheckpointBody(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    TYPE = "Checkpoint(uint64 epoch,uint64 height,bytes32 blockHash,bytes32 stateRoot)"
    epoch: U64
    height: U64
    block_hash: B32
    state_root: B32


class Receipt(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What execution made of a transaction. output starts with the uint16 kind of the transaction, big endian."""

    TYPE = "Receipt(bytes32 txHash,uint64 height,uint32 index,uint16 code,bytes output)"
    tx_hash: B32
    height: U64
    index: U32
    code: U16
    output: bytes


class Epoch(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    TYPE = "Epoch(uint64 epoch,uint64 firstHeight,bytes32 validatorsHash,bytes32 paramsHash)"
    epoch: U64
    first_height: U64
    validators_hash: B32
    params_hash: B32


def validators_hash(validators: tuple[bytes, ...]) -> Digest:
    """keccak of the concatenated 20-octet addresses in index order."""
    return keccak(b"".join(validators))


class Certificate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A quorum certificate: q distinct validators signed the same Vote. Part of no hash."""

    vote: Vote
    bitmap: U64
    signatures: tuple[B65, ...]
    """In ascending signer index, one for each set bit."""

    def signers(self) -> list[int]:
        return [i for i in range(self.bitmap.bit_length()) if self.bitmap >> i & 1]


class TxProof(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A transaction stands in a certified block. headers[0] holds it, each next one is a child, the QC signs the last."""

    tx: SignedTx
    index: U32
    path: tuple[B32, ...]
    headers: tuple[Header, ...]
    certificate: Certificate


class ReceiptProof(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A receipt stands under a certified header (whose receiptRoot covers blocks parent.execHeight+1 .. execHeight).

    leaf is the receipt's place among those receipts. Needs the epoch's validator list only: `crypto.proof.check`.
    """

    receipt: Receipt
    leaf: U32
    path: tuple[B32, ...]
    headers: tuple[Header, ...]
    certificate: Certificate

    def included(self) -> bool:
        """The hash part of the check: path and header links. The certificate's signatures are crypto's."""
        first = self.headers[0]
        if not merkle_verify(self.receipt.struct_hash(), self.leaf, first.receipt_count, self.path, first.receipt_root):
            return False
        links = zip(self.headers, self.headers[1:], strict=False)
        return all(child.parent == parent.hash and child.height == parent.height + 1 for parent, child in links)


class BlockContext(msgspec.Struct, frozen=True, array_like=True):
    """What execution may know of the block it runs in. All of it is certified."""

    height: int
    time_ms: int
    hash: bytes
    proposer: bytes


class OrderedTx(msgspec.Struct, frozen=True, array_like=True):
    """A transaction that the ledger hands to the application: signature, lane and sequence are right."""

    hash: bytes
    tx: Tx


def tx_hash(tx: Tx, domain: Domain) -> Digest:
    """Name of a transaction: the digest that its sender signed."""
    return tx.digest(domain)
