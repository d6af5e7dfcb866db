"""What replicas say to each other and what they write down (ledger.md 4, 5, 12).

Rule 1: a message is a tagged MessagePack array of fixed arity; the first element is its kind, the second its epoch.
Rule 2: one wire form per value. `decode_message` re-encodes and refuses any byte difference, anything over 4 MiB, any
        field out of its width or bound.
Rule 3: a vote travels without its signer: the authenticated link says who sent it. What must stay checkable after a
        relay (view changes, checkpoints in a certificate, evidence) carries its signer's index.
Rule 4: certificates are part of no hash; two replicas may hold different, equally valid ones for one block.

Nothing here knows what a message means; the ledger room does.
"""

from enum import IntEnum
from typing import Annotated, TypeVar

import msgspec

from edgora.wire.codec import B32, B65, U8, U16, U32, U64
from edgora.wire.eip712 import Domain, Typed
from edgora.wire.errors import WireError
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Block, Certificate, CheckpointBody, Header, Phase, SignedTx, Vote
from edgora.wire.units import Digest

__all__ = [
    "BUCKETS", "MAX_ANSWER", "MAX_BLOCK_TXS", "MAX_FRAME", "CheckpointCertificate", "CheckpointVote", "Commit", "Evidence",
    "GetBlocks", "GetBody", "GetChunk", "Lane", "Message", "NewView", "NewViewBody", "Offence",
    "PrePrepare", "Prepare", "PutBlocks", "PutBody", "PutCertificate", "PutChunk", "SignedCheckpoint", "SignedItem",
    "SignedViewChange", "SignedVote", "SnapshotOffer", "Status", "TxGossip", "ViewChange", "ViewChangeBody",
    "WalAccepted", "WalBlock", "WalCheckpoint", "WalCommit", "WalEvidence", "WalLinks", "WalNewView", "WalRecord", "WalStable",
    "WalTip", "WalView", "decode_message", "decode_record", "encode_message", "encode_record", "lane_of",
    "view_changes_hash",
]  # fmt: skip

MAX_FRAME = 4 * 2**20
"""Octets of an encoded message, its frame header not counted (ledger.md 16)."""

MAX_BLOCK_TXS = 500
"""Transactions of a block (ledger.md 7)."""

BUCKETS = 4096
"""Buckets of the state tree (ledger.md 3)."""

_MAX_VALIDATORS = 64  # a certificate's bitmap has 64 bits
_MAX_LINKS = 64  # headers from a commit to a tip: W_buf = 3 W, W <= 16, and room
MAX_ANSWER = 256
"""Blocks of one PutBlocks; also the headers that may lie between its last block and a certificate."""
_BUCKET_HASHES = BUCKETS * 32

Uncommitted = Annotated[tuple[Header, ...], msgspec.Meta(max_length=_MAX_LINKS)]
Links = Annotated[tuple[Header, ...], msgspec.Meta(max_length=MAX_ANSWER)]
Txs = Annotated[tuple[SignedTx, ...], msgspec.Meta(max_length=MAX_BLOCK_TXS)]
Signatures = Annotated[tuple[B65, ...], msgspec.Meta(max_length=_MAX_VALIDATORS)]


class Lane(IntEnum):
    """Priority class of a message; each has its own queue on a link, lower numbers first (ledger.md 16)."""

    CONSENSUS = 0
    SYNC = 1
    GOSSIP = 2


# ---- signed bodies ---------------------------------------------------------------------------------------------------


class ViewChangeBody(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the sender holds when it leaves for new_view: its highest commit, its tip (all zero if none above it)."""

    TYPE = (
        "ViewChange(uint64 epoch,uint64 newView,uint64 commitView,uint64 commitHeight,bytes32 commitHash,"
        "uint64 tipView,uint64 tipHeight,bytes32 tipHash)"
    )
    epoch: U64
    new_view: U64
    commit_view: U64
    commit_height: U64
    commit_hash: B32
    tip_view: U64
    tip_height: U64
    tip_hash: B32


class NewViewBody(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    TYPE = "NewView(uint64 epoch,uint64 view,bytes32 viewChangesHash)"
    epoch: U64
    view: U64
    view_changes_hash: B32


# ---- consensus messages ----------------------------------------------------------------------------------------------


class TxGossip(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """New transactions of clients, each under its sender's signature."""

    epoch: U64
    txs: Txs


class PrePrepare(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """The primary's proposal; its Vote(1) counts as its PREPARE.

    Either txs is the body, or (compact) hashes names the transactions and txs is empty.
    """

    epoch: U64
    view: U64
    header: Header
    txs: Txs
    hashes: Annotated[tuple[B32, ...], msgspec.Meta(max_length=MAX_BLOCK_TXS)]
    signature: B65
    """Of the primary, under Vote(PREPARE, epoch, view, height, blockHash)."""
    executed: Certificate | None
    """A commit certificate at or above header.exec_height; None only where that is the genesis."""

    def vote(self, block_hash: bytes) -> Vote:
        return Vote(Phase.PREPARE, self.epoch, self.view, self.header.height, block_hash)


class Prepare(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """The link peer accepted this block and all its ancestors in this view."""

    epoch: U64
    view: U64
    height: U64
    block_hash: B32
    signature: B65

    def vote(self) -> Vote:
        return Vote(Phase.PREPARE, self.epoch, self.view, self.height, self.block_hash)


class Commit(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """The link peer holds a prepare certificate of this block as its tip."""

    epoch: U64
    view: U64
    height: U64
    block_hash: B32
    signature: B65

    def vote(self) -> Vote:
        return Vote(Phase.COMMIT, self.epoch, self.view, self.height, self.block_hash)


class ViewChange(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    epoch: U64
    signer: U8
    body: ViewChangeBody
    commit: Certificate | None
    """Commit certificate of body.commit_hash; None for the genesis."""
    tip: Certificate | None
    """Prepare certificate of body.tip_hash; None if the body names no tip."""
    headers: Uncommitted
    """commit_height + 1 .. tip_height, linked by hash."""
    signature: B65


class NewView(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6):
    epoch: U64
    view: U64
    view_changes: Annotated[tuple[ViewChange, ...], msgspec.Meta(max_length=_MAX_VALIDATORS)]
    """Exactly q, by ascending signer."""
    signature: B65
    """Of the primary of view, under NewViewBody(epoch, view, view_changes_hash(...))."""


class CheckpointVote(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7):
    epoch: U64
    body: CheckpointBody
    signature: B65


class Status(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=8):
    """Where the sender stands; also the heartbeat of an active view's primary."""

    epoch: U64
    view: U64
    active: bool
    accepted: U64
    """Height of the last block that the sender accepted in this view (its base before the first)."""
    height: U64
    block_hash: B32
    """Height and hash of the committed and executed head."""
    checkpoint: U64
    """Height of its last stable checkpoint."""
    pool: U32
    """Transactions waiting in its pool."""
    nonce: U64
    """Drawn by the driver at each boot; two values from one identity at a time mean a copied key."""
    suspects: bool
    """Whether the sender's patience with this view's primary is at its end. It has not left: it still votes."""


# ---- evidence --------------------------------------------------------------------------------------------------------


class Offence(IntEnum):
    """What no correct replica does (ledger.md 14)."""

    DOUBLE_VOTE = 1
    FORGOTTEN_TIP = 2
    DOUBLE_CHECKPOINT = 3


class SignedVote(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    vote: Vote
    signature: B65


class SignedViewChange(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    body: ViewChangeBody
    signature: B65


class SignedCheckpoint(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    body: CheckpointBody
    signature: B65


SignedItem = SignedVote | SignedViewChange | SignedCheckpoint


class Evidence(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=9):
    """Two signed items that no correct replica can both sign. Proves itself with the epoch's keys."""

    epoch: U64
    offence: U8
    accused: U8
    first: SignedItem
    second: SignedItem


# ---- state transfer --------------------------------------------------------------------------------------------------


class GetBlocks(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=10):
    """Committed blocks from this height on. Answered by PutBlocks, or SnapshotOffer where they are pruned."""

    epoch: U64
    first: U64


class PutBlocks(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=11):
    """Consecutive committed blocks; links are the headers after the last one up to the one the certificate signs."""

    epoch: U64
    blocks: Annotated[tuple[Block, ...], msgspec.Meta(max_length=MAX_ANSWER)]
    links: Links
    certificate: Certificate | None
    """None only in an empty answer: the sender has nothing from that height on."""


class GetBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=12):
    """A block by its hash, committed or not."""

    epoch: U64
    block_hash: B32


class PutBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=13):
    epoch: U64
    block: Block


class PutCertificate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=14):
    """The sender's highest commit certificate, pushed to a peer whose STATUS is behind it."""

    epoch: U64
    certificate: Certificate


class CheckpointCertificate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """q validators signed the same CheckpointBody: it is stable."""

    body: CheckpointBody
    bitmap: U64
    signatures: Signatures

    def signers(self) -> list[int]:
        return [i for i in range(self.bitmap.bit_length()) if self.bitmap >> i & 1]


class SnapshotOffer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=15):
    """A stable checkpoint and all that is needed to fetch and check its state bucket by bucket."""

    epoch: U64
    checkpoint: CheckpointCertificate
    header: Header
    """Of the checkpoint's block."""
    links: Links
    """Headers after it up to the one that the commit certificate signs."""
    certificate: Certificate
    bucket_hashes: Annotated[bytes, msgspec.Meta(min_length=_BUCKET_HASHES, max_length=_BUCKET_HASHES)]


class GetChunk(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=16):
    """Buckets `first` and following of the snapshot at a height."""

    epoch: U64
    height: U64
    first: U16


class PutChunk(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=17):
    epoch: U64
    height: U64
    first: U16
    buckets: Annotated[tuple[tuple[tuple[bytes, bytes], ...], ...], msgspec.Meta(max_length=BUCKETS)]
    """Each bucket's (key, value) pairs by ascending key."""


Message = (
    TxGossip | PrePrepare | Prepare | Commit | ViewChange | NewView | CheckpointVote | Status | Evidence | GetBlocks
    | PutBlocks | GetBody | PutBody | PutCertificate | SnapshotOffer | GetChunk | PutChunk
)  # fmt: skip

_LANES: dict[type, Lane] = {
    TxGossip: Lane.GOSSIP, Evidence: Lane.GOSSIP, GetBlocks: Lane.SYNC, PutBlocks: Lane.SYNC, GetBody: Lane.SYNC,
    PutBody: Lane.SYNC, GetChunk: Lane.SYNC, PutChunk: Lane.SYNC, SnapshotOffer: Lane.SYNC,
}  # fmt: skip


def lane_of(message: Message) -> Lane:
    """The queue that a message travels in."""
    return _LANES.get(type(message), Lane.CONSENSUS)


def view_changes_hash(view_changes: tuple[ViewChange, ...], domain: Domain) -> Digest:
    """Digest over (signer as one octet || digest of its ViewChange) in the order given.

    The certificates inside are left out, as from every hash: the bodies name what they certify.
    """
    return keccak(b"".join(bytes((vc.signer,)) + vc.body.digest(domain) for vc in view_changes))


# ---- what the log holds ----------------------------------------------------------------------------------------------


class WalBlock(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """A block body that a later record names."""

    epoch: U64
    block: Block


class WalAccepted(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """We accepted this block at (view, height) and signed Vote(1) for it: never another one there."""

    epoch: U64
    view: U64
    height: U64
    block_hash: B32
    signature: B65


class WalTip(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """A prepare certificate that we hold as tip, with our Vote(2) for it (None where that view is past)."""

    epoch: U64
    certificate: Certificate
    signature: B65 | None


class WalView(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """We left for view_change.body.new_view and signed this."""

    epoch: U64
    view_change: ViewChange


class WalNewView(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """We entered this view; its base follows from the message."""

    epoch: U64
    new_view: NewView


class WalCommit(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6):
    """This block and all its ancestors are committed."""

    epoch: U64
    certificate: Certificate


class WalLinks(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=10):
    """Headers without bodies, from a block that we hold up to one that a WalCommit certifies."""

    epoch: U64
    headers: Links


class WalCheckpoint(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7):
    """We signed this checkpoint; its snapshot is durable."""

    epoch: U64
    body: CheckpointBody
    signature: B65


class WalStable(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=8):
    """This checkpoint is stable."""

    epoch: U64
    certificate: CheckpointCertificate


class WalEvidence(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=9):
    epoch: U64
    evidence: Evidence


WalRecord = (
    WalBlock | WalAccepted | WalTip | WalView | WalNewView | WalCommit | WalLinks | WalCheckpoint | WalStable
    | WalEvidence
)  # fmt: skip


# ---- bytes -----------------------------------------------------------------------------------------------------------

_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()
_messages: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_records: msgspec.msgpack.Decoder[WalRecord] = msgspec.msgpack.Decoder(WalRecord)


def _decode(decoder: msgspec.msgpack.Decoder[_T], data: bytes, what: str) -> _T:
    try:
        value = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"{what}: {error}") from None
    if _encoder.encode(value) != data:
        raise WireError(f"{what}: not in canonical form")
    return value


def encode_message(message: Message) -> bytes:
    """Canonical bytes of a message, to be put into a frame."""
    return _encoder.encode(message)


def decode_message(data: bytes) -> Message:
    """The message in data. Raises WireError for anything but the one canonical form of a known, bounded message."""
    if len(data) > MAX_FRAME:
        raise WireError(f"message of {len(data)} octets; at most {MAX_FRAME} are read")
    return _decode(_messages, data, "message")


def encode_record(record: WalRecord) -> bytes:
    """Payload of a log record."""
    return _encoder.encode(record)


def decode_record(data: bytes) -> WalRecord:
    """The log record in data; WireError if it is none."""
    return _decode(_records, data, "log record")
