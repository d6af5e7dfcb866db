"""REST resources of the ledger itself: transactions, blocks, receipts, proofs, state, status (wire.rest has the table)."""

from dataclasses import dataclass
from typing import Literal

from edgora.wire.rest.shapes import STRICT, U16, U32, U64, Hex, Hex20, Hex32, Hex65, LedgerLevel, Problem

__all__ = [
    "Block", "BlockPage", "BlockSummary", "Checkpoint", "CheckpointList", "EpochInfo", "EvidenceItem", "EvidenceList",
    "Header", "HeaderList", "Health", "HeldEvidence", "Proof", "Receipt", "StateValue", "Status", "Tx", "TxOrder",
    "TxOrders", "TxOutcome", "TxOutcomes", "TxStatus", "ViewHistory", "ViewStep", "Voter",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    tx_hash: Hex32
    height: int
    index: int
    code: int
    rule: str
    """The code's name, OK for 0."""
    sentence: str
    output: Hex


@dataclass(frozen=True, slots=True, kw_only=True)
class TxOrder:
    __pydantic_config__ = STRICT
    kind: U16
    sender: Hex20
    lane: U32
    seq: U64
    valid_until_height: U64
    payload: Hex
    signature: Hex65


@dataclass(frozen=True, slots=True, kw_only=True)
class TxOrders:
    __pydantic_config__ = STRICT
    txs: list[TxOrder]


@dataclass(frozen=True, slots=True, kw_only=True)
class TxOutcome:
    """How far a transaction came within the wait. receipt.code says whether its rule accepted it."""

    tx_hash: Hex32
    level: LedgerLevel
    height: int | None
    receipt: Receipt | None
    problem: Problem | None = None
    """In /v1/txs: why this item was not admitted, or that its wait ran out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TxOutcomes:
    items: list[TxOutcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tx:
    hash: Hex32
    kind: int
    kind_name: str
    sender: Hex20
    lane: int
    seq: int
    valid_until_height: int
    payload: Hex
    signature: Hex65


@dataclass(frozen=True, slots=True, kw_only=True)
class TxStatus:
    tx_hash: Hex32
    level: LedgerLevel
    height: int | None
    index: int | None
    tx: Tx | None
    receipt: Receipt | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    hash: Hex32
    epoch: int
    height: int
    parent: Hex32
    tx_root: Hex32
    tx_count: int
    exec_height: int
    state_root: Hex32
    receipt_root: Hex32
    receipt_count: int
    next_epoch: Hex32
    time_ms: int
    proposer: Hex20


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderList:
    items: list[Header]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    header: Header
    txs: list[Tx]
    receipts: list[Receipt]
    state_root: Hex32
    """After this block."""
    certified: bool
    signers: list[int]
    """Validators whose votes make the certificate; empty where a later block's covers this one."""
    view: int | None
    certificate: Hex | None
    """Canonical MessagePack of wire.ledger.Certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSummary:
    height: int
    hash: Hex32
    time_ms: int
    proposer: int
    """Validator index."""
    kinds: dict[str, int]
    """How many transactions of each kind."""
    refused: int
    """Receipts with a code other than 0."""
    certified: bool
    signers: list[int]
    """Validators whose votes make its certificate (the first q that came); empty where a later block's covers it."""
    view: int | None
    """View of that certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPage:
    items: list[BlockSummary]
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochInfo:
    epoch: int
    first_height: int
    validators: list[Hex20]
    validators_hash: Hex32
    params_hash: Hex32
    quorum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StateValue:
    """value null: the key is not in the state. proof (certified reads): bucket content and path under a QC'd root."""

    key: Hex
    value: Hex | None
    read: Literal["local", "certified", "linear"]
    height: int
    age_ms: int
    state_root: Hex32
    proof: Hex | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceItem:
    """LEDGER: an EVIDENCE transaction. CHAIN_FACT: a validator attested two things for one place of the chain."""

    kind: Literal["LEDGER", "CHAIN_FACT"]
    height: int
    accused: int | None
    """Validator index, where the event names it."""
    tx_hash: Hex32 | None
    payload: Hex


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldEvidence:
    """Two items signed by one validator that no correct one signs both, held by the answering node (ledger.md 14)."""

    offence: Literal["DOUBLE_VOTE", "FORGOTTEN_TIP", "DOUBLE_CHECKPOINT"]
    accused: int
    """Validator index."""
    sentence: str
    proof: Hex
    """Canonical MessagePack of wire.pbft.Evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceList:
    items: list[EvidenceItem]
    """What the ledger has ordered."""
    held: list[HeldEvidence]
    """What the answering node's replica holds; empty while its consensus half is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewStep:
    """The answering validator left a view, or entered one, as it saw it."""

    at_ms: int
    step: Literal["LEFT", "ENTERED"]
    view: int
    """Asked for, or entered."""
    primary: int
    """Of that view."""
    left: int | None
    reason: str
    """Why it left; empty for an entry."""
    asked: list[int]
    """Of an entry: validators whose VIEW_CHANGEs founded the view."""
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewHistory:
    """The last steps between views of the answering validator since its consensus half started, newest first."""

    server: int
    view: int
    view_active: bool
    primary: int
    view_changes: int
    items: list[ViewStep]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A state that q validators signed: what a replica that was away too long starts from (ledger.md 9)."""

    height: int
    block_hash: Hex32
    state_root: Hex32
    signers: list[int]
    stable_ms: int
    """When it became stable at the answering node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointList:
    """The last ones since the answering node's consensus half started, newest first."""

    server: int
    every: int
    """Blocks between two of them."""
    stable: int
    """Height of the stable one; 0 before the first."""
    next: int
    items: list[Checkpoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class Voter:
    index: int
    address: Hex20
    connected: bool
    last_heard_ms: int | None
    committed_height: int
    view: int
    voted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Why consensus waits, in words and numbers."""

    sentence: str
    waiting: str
    waiting_since_ms: int
    server: int
    epoch: int
    view: int
    view_active: bool
    primary: int
    quorum: int
    committed_height: int
    committed_hash: Hex32
    executed_height: int
    follower_height: int
    """How far this API half has followed; reads speak of this height."""
    header_time_ms: int
    stable_checkpoint: int
    pool_txs: int
    next_height: int
    votes: int
    timeout_ms: int
    view_changes: int
    alarm: str | None
    chain_seen: bool
    chain_sentence: str
    open_tasks: int
    running: int
    """Tasks that this node's runner holds now."""
    round: int | None
    duties: dict[str, str]
    """Each duty of this node and what it last did or waits for."""
    voters: list[Voter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """proof is canonical MessagePack of wire.ledger.ReceiptProof or TxProof: check it offline with crypto.proof."""

    name: Literal["TASK", "RESULT_HASH", "SETTLEMENT", "TX", "RECEIPT"]
    tx_hash: Hex32
    kind: Literal["receipt", "tx"]
    height: int
    certified_height: int
    epoch: int
    proof: Hex
    receipt: Receipt | None
