"""REST resources under /v1: what a node answers and accepts (README.md 2, ledger.md 18).

Frozen, slotted, keyword-only standard dataclasses: FastAPI builds validation and OpenAPI from them, msgspec decodes
them in the SDK, so one definition serves both ends. Conventions of the JSON:

- octets are lower-case 0x-hex strings, money (wei) is a decimal string, instants and durations are integer
  milliseconds unless the name ends in _s; a task is named by its offer id, a server by its number.
- request bodies refuse unknown fields and wrong types (no coercion); responses may grow fields, readers ignore them.
- lists are pages: `items` and `cursor`; give the cursor back as `?cursor=`, null means that was all.
- every error is a `Problem` (RFC 9457, application/problem+json); `code` is stable, `rule` is a ledger rule's name.

    GET    /v1/info                       Info
    GET    /v1/servers                    ServerList
    GET    /v1/servers/{id}               Server
    GET    /v1/accounts/{address}         Account
    PUT    /v1/inputs/{digest}            InputUpload -> StoredInput (201; 200 if it was there)
    POST   /v1/tasks                      TaskSubmission -> TaskAccepted (202); Idempotency-Key honoured
    GET    /v1/tasks                      TaskPage; ?cursor&limit&ue&state&server&kernel (kernel = module digest)
    GET    /v1/tasks/{id}                 Task
    GET    /v1/tasks/{id}/why             Why
    GET    /v1/tasks/{id}/events          text/event-stream of Event; Last-Event-ID resumes; ends with the task
    GET    /v1/tasks/{id}/result          SealedResult
    GET    /v1/tasks/{id}/proof           TaskProofs
    POST   /v1/tasks/{id}/cancel          CancelOrder -> Task
    PUT    /v1/modules/{digest}           application/wasm -> Module (201; 200 if it was there)
    GET    /v1/modules/{digest}           application/wasm; HEAD too
    POST   /v1/tx?wait=&timeout_ms=       TxOrder, or application/msgpack canonical SignedTx -> TxOutcome
    POST   /v1/txs?wait=&timeout_ms=      TxOrders (<= 256), or msgpack array of SignedTx -> TxOutcomes
    GET    /v1/tx/{hash}                  TxStatus
    GET    /v1/tx/{hash}/proof            Proof (that the transaction is in a certified block)
    GET    /v1/receipt/{hash}/proof       Proof (of the transaction's receipt)
    GET    /v1/blocks                     BlockPage; ?cursor&limit, newest first
    GET    /v1/blocks/{height}            Block
    GET    /v1/headers                    HeaderList; ?from&to (<= 256)
    GET    /v1/epochs/{epoch}             EpochInfo
    GET    /v1/state/{key}                StateValue; ?read=local|certified|linear
    GET    /v1/allocations                AllocationPage; newest first
    GET    /v1/allocations/{round}        Allocation
    GET    /v1/batches                    BatchPage; newest first
    GET    /v1/batches/{id}               Batch
    GET    /v1/evidence                   EvidenceList
    GET    /v1/views                      ViewHistory
    GET    /v1/checkpoints                CheckpointList
    GET    /v1/status                     Status
    GET    /v1/events                     text/event-stream of Event; Last-Event-ID or ?after resumes
    GET    /v1/positions                  PositionList (of UEs; empty but on development chains)
    PUT    /v1/dev/positions              PositionReport -> PositionList (development chains only)
    POST   /v1/dev/faucet                 FaucetOrder -> FaucetReceipt (development chains only)
    GET    /healthz /readyz               Health; /metrics is Prometheus text, /openapi.json this contract
"""

from dataclasses import dataclass
from typing import Any, Literal

from edgora.wire.rest_ledger import (
    Block,
    BlockPage,
    BlockSummary,
    Checkpoint,
    CheckpointList,
    EpochInfo,
    EvidenceItem,
    EvidenceList,
    Header,
    HeaderList,
    Health,
    HeldEvidence,
    Proof,
    Receipt,
    StateValue,
    Status,
    Tx,
    TxOrder,
    TxOrders,
    TxOutcome,
    TxOutcomes,
    TxStatus,
    ViewHistory,
    ViewStep,
    Voter,
)
from edgora.wire.rest_places import Position, PositionList, PositionReport
from edgora.wire.rest_shapes import (
    STRICT,
    U32,
    U64,
    Hex,
    Hex20,
    Hex32,
    Hex65,
    JweEnvelope,
    JweRecipient,
    JweRecipientHeader,
    LedgerLevel,
    OfferBody,
    Problem,
    ReasonBody,
    TaskStateName,
    VoucherBody,
    WaitLevel,
    Wei,
)

__all__ = [
    "Account", "Advert", "Allocation", "AllocationPage", "Alternative", "Batch", "BatchPage", "Block", "BlockPage",
    "BlockSummary", "CancelOrder", "Checkpoint", "CheckpointList", "Choice", "ConsensusParams", "EpochInfo", "Event", "EvidenceItem", "EvidenceList",
    "FaucetOrder", "FaucetReceipt", "Header", "HeaderList", "Health", "HeldEvidence", "Hex", "Hex20", "Hex32", "Hex65", "Info",
    "InputUpload", "JweEnvelope", "JweRecipient", "JweRecipientHeader", "KeyDocument", "Lane", "LedgerLevel", "Limits",
    "MarketParams", "Module", "OfferBody", "Pair", "Position", "PositionList", "PositionReport", "Problem", "Proof",
    "Proposal", "ReasonBody", "Receipt",
    "Reputation", "Result", "SealedResult", "Server", "ServerList", "SkippedRound", "StateValue", "Status",
    "StoredInput", "Task", "TaskAccepted", "TaskPage", "TaskProofs", "TaskStateName", "TaskSubmission", "Tx",
    "TxOrder", "TxOrders", "TxOutcome", "TxOutcomes", "TxStatus", "ViewHistory", "ViewStep", "Voter", "Voucher",
    "VoucherBody", "WaitLevel", "Wei", "Why",
]  # fmt: skip


# ---- what the platform is --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketParams:
    """wire.market.MarketParams; audit_pay in wei."""

    round_ms: int
    proposal_ms: int
    solve_ms: int
    slack_ms: int
    file_ms: int
    batch_ms: int
    floor_bps: int
    prefer: str
    credit0: int
    probe: int
    audit_bps: int
    auditors: int
    audit_max_ms: int
    draw_ms: int
    audit_pay: Wei
    keep_ms: int
    lambda_bps: int
    margin_ms: int
    exit_delay_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusParams:
    """wire.genesis.ConsensusParams."""

    window: int
    block_txs: int
    block_octets: int
    block_gap_ms: int
    first_tx_delay_ms: int
    seal_delay_ms: int
    timeout_ms: int
    timeout_cap_ms: int
    checkpoint_every: int
    valid_blocks: int
    clock_skew_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """market.md 8 and ledger.md 16, so that a client need not guess."""

    fuel: int
    desired_ms: int
    input_octets: int
    output_octets: int
    memory_pages: int
    module_octets: int
    deadline_ms: int
    tasks_per_ue: int
    tx_octets: int
    txs_per_request: int
    requests_per_s: int
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What a client needs before its first offer. Compute deadlines from time_ms, not from your own clock."""

    version: str
    time_ms: int
    """This node's clock now."""
    height: int
    header_time_ms: int
    """Ledger time: header time of `height`."""
    epoch: int
    server: int
    """Which server answers."""
    consortium_id: int
    genesis_id: Hex32
    genesis: Hex
    """The genesis document, canonical MessagePack; keccak of it is genesis_id."""
    chain_id: int
    market_address: Hex20
    validators: list[Hex20]
    quorum: int
    chain_seen: bool
    """Whether voucher tasks are admitted now (contracts.md 9)."""
    development: bool
    """Whether POST /v1/dev/faucet is there."""
    params: MarketParams
    consensus: ConsensusParams
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDocument:
    """A server's metadata document. document is its canonical form: keccak of it is the certified meta_hash."""

    document: Hex
    meta_hash: Hex32
    signer: Hex20
    rsa_spki: Hex
    """RSA public key, SubjectPublicKeyInfo DER: seal inputs to it."""
    link_key: Hex
    public_url: str
    """Where clients reach the server's REST."""
    network_url: str
    """Where it is reached inside the deployment's own network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advert:
    speed: int
    """fuel per second and slot"""
    capacity: int
    slots: int
    ask: int
    """gwei per Mfuel"""
    uplink: int
    """octets per second"""
    forward: Wei
    """wei per KiB forwarded"""
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reputation:
    desired_ms: int
    actual_ms: int
    done: int
    late: int
    failed: int
    disputed: int
    score: float | None
    """desired_ms / actual_ms; 1 is exactly as desired; null before the first task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    id: int
    signer: Hex20
    meta_hash: Hex32
    live: bool
    bonded: bool
    """Registered on the contract and not unbonding."""
    advert: Advert | None
    credit: int
    used: int
    tasks: int
    """Assigned to it now."""
    earned: Wei
    """Over the settled tasks that this node has seen."""
    reputation: Reputation
    keys: KeyDocument | None
    """Null while this node has not obtained a document that fits meta_hash."""
    position_m: list[float] | None
    """Where it stands, x and y, as it says itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerList:
    items: list[Server]
    height: int
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    lane: int
    next_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher:
    cap: Wei
    valid_until_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the ledger knows of an address. known false: no deposit, lock or server, a stranger (UNKNOWN_SENDER)."""

    address: Hex20
    known: bool
    balance: Wei
    spent: Wei
    reserved: Wei
    free: Wei
    """balance - reserved: the largest maximum price that a next voucher task may have."""
    voucher: Voucher | None
    exit_at_ms: int | None
    """Null: no exit pending."""
    unfinished: int
    lanes: list[Lane]
    height: int
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A pair of one task and one server in a round, and what made it worse than the chosen one."""

    server: int
    value: Wei
    reason: ReasonBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Why this server: from the close of the round that assigned the task."""

    task: Hex32
    server: int | None
    alternatives: list[Alternative]


# ---- a task ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class InputUpload:
    """Body of PUT /v1/inputs/{digest}; the source checks everything before it signs Stored."""

    __pydantic_config__ = STRICT
    offer: OfferBody
    envelope: JweEnvelope
    result_key: Hex
    """SPKI DER of the RSA key whose hash the offer names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInput:
    """The source's signature over Stored(offerId), ledger domain, given after the ciphertext is on disk."""

    task: Hex32
    server: int
    stored: Hex65
    keep_until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSubmission:
    """A signed ledger Tx of kind TASK, taken apart: payload = canonical TaskPayload(offer, stored, voucher)."""

    __pydantic_config__ = STRICT
    offer: OfferBody
    stored: Hex65
    voucher: VoucherBody | None = None
    lane: U32
    seq: U64
    valid_until_height: U64
    signature: Hex65
    """Of Tx(2, ue, lane, seq, validUntil, payload), ledger domain."""
    result_key: Hex


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrder:
    """A signed ledger Tx of kind CANCEL, taken apart: payload = canonical Cancel(offer id)."""

    __pydantic_config__ = STRICT
    lane: U32
    seq: U64
    valid_until_height: U64
    signature: Hex65


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the executor filed. cipher_digest null: a code that has no result to fetch."""

    code: str
    result_digest: Hex32
    cipher_digest: Hex32 | None
    fuel_used: int
    holders: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    id: Hex32
    offer: OfferBody
    state: TaskStateName
    executor: int | None
    round: int | None
    opened_ms: int
    assigned_ms: int | None
    done_ms: int | None
    reopened: int
    maximum: Wei
    """fuel limit x price: what was reserved."""
    amount: Wei
    """fuel used x price: what it costs, 0 until FINAL and for tasks that end without pay."""
    result: Result | None
    batch: int | None
    reason: ReasonBody | None
    """Why it ended as it did."""
    why: str
    """What it waits for now, or how it ended, in one sentence."""
    tx_hash: Hex32 | None
    trace_id: str
    """W3C trace id: the first 16 octets of the task's id."""
    height: int
    """Ledger height that this answer speaks of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAccepted:
    """The TASK receipt has code 0. The same bytes again get the same answer."""

    task: Task
    tx_hash: Hex32
    height: int
    location: str
    """/v1/tasks/{id}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPage:
    items: list[Task]
    cursor: str | None
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why the task waits, or ended so. sentence combines reasons, the most telling first."""

    task: Hex32
    state: TaskStateName | Literal["UNORDERED"]
    """UNORDERED: this node has it in hand, the ledger has not ordered it yet."""
    sentence: str
    reasons: list[ReasonBody]
    choice: Choice | None
    since_ms: int | None
    height: int
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedResult:
    task: Hex32
    code: str
    result_digest: Hex32
    cipher_digest: Hex32
    fuel_used: int
    envelope: JweEnvelope
    holders: list[int]
    server: int
    """From whose store it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProofs:
    """What is provable now, in the order of the task's life; missing ones are not certified yet.

    Of TASK, RESULT_HASH and SETTLEMENT each a proof of kind receipt (its rule accepted it) and one of kind tx (what it
    said), so that nothing a node says beside them need be believed.
    """

    task: Hex32
    validators: list[Hex20]
    items: list[Proof]


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    digest: Hex32
    octets: int
    imports: list[str]
    exports: list[str]


# ---- rounds, batches, events -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    task: Hex32
    server: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    validator: int
    policy: str
    accepted: bool
    value: Wei
    bound: Wei | None
    solver_ms: int
    reason: ReasonBody | None
    """Why it was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedRound:
    """An allocator of the answering node that made no proposal."""

    policy: str
    reason: ReasonBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """One round: what it was about, who proposed, what won and why."""

    round: int
    opened_height: int
    opened_ms: int
    closed_height: int | None
    closed_ms: int | None
    digest: Hex32
    tasks: int
    servers: int
    instance: dict[str, Any] | None
    """wire.market.Instance as JSON; in /v1/allocations/{round} only."""
    winner: str | None
    """Policy name; "greedy" is the built-in."""
    winner_validator: int | None
    """Null when the built-in won."""
    value: Wei | None
    greedy_value: Wei | None
    bound: Wei | None
    verdict: ReasonBody | None
    """Why this plan won; null while the round is open."""
    pairs: list[Pair]
    proposals: list[Proposal]
    """All that were ordered, those that came too late last."""
    skipped: list[SkippedRound]
    """Allocators of the answering node that made no proposal, and why; those of others are shown by their nodes."""
    choices: list[Choice]


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationPage:
    items: list[Allocation]
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    id: int
    state: Literal["FROZEN", "CERTIFIED", "SETTLED"]
    frozen_height: int
    frozen_ms: int
    batch_hash: Hex32
    task_root: Hex32
    payload_hash: Hex32 | None
    payload_octets: int
    lines: int
    gas: int
    """What settling it costs by the model of contracts.md 10."""
    gas_used: int | None
    """What settling it did cost, by the chain's receipt; known to the node that settled it since its start."""
    reason: ReasonBody
    """What triggered the freezing."""
    tasks: list[Hex32]
    """Tasks of its lines; of a batch that this node did not see frozen those that were paid."""
    paid: Wei | None
    """By the contract's event; null before."""
    skipped_ues: list[Hex20]
    skipped_locks: list[Hex32]
    settlement_tx: Hex32 | None
    """Hash of the SETTLEMENT ledger transaction."""
    settled_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPage:
    items: list[Batch]
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of the ledger; `id` is the SSE id. data holds the event's own fields (bytes as hex, wei as decimal)."""

    id: int
    height: int
    time_ms: int
    type: str
    """Name of the event's class in wire.market_events, e.g. TaskOpened, RoundOpened, TaskAssigned."""
    task: Hex32 | None
    server: int | None
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaucetOrder:
    __pydantic_config__ = STRICT
    address: Hex20
    wei: Wei = "1000000000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaucetReceipt:
    """The deposit was mined on the chain; the ledger knows it once q validators have attested it."""

    address: Hex20
    wei: Wei
    chain_tx: Hex32
