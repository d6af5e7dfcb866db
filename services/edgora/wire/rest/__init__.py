"""REST resources under /v1: what a node answers and accepts (README.md 2, ledger.md 18).

Frozen, slotted, keyword-only standard dataclasses: FastAPI builds validation and OpenAPI from them, msgspec decodes
them in the SDK, so one definition serves both ends. Conventions of the JSON:

- octets are lower-case 0x-hex strings, money (wei) is a decimal string, instants and durations are integer
  milliseconds unless the name ends in _s; a task is named by its offer id, a server by its number.
- request bodies refuse unknown fields and wrong types (no coercion); responses may grow fields, readers ignore them.
- lists are pages: `items` and `cursor`; give the cursor back as `?cursor=`, null means that was all.
- every error is a `Problem` (RFC 9457, application/problem+json); `code` is stable, `rule` is a ledger rule's name.

platform.py: what is the platform, who is on it

    GET    /v1/info                       Info
    GET    /v1/servers                    ServerList
    GET    /v1/servers/{id}               Server
    GET    /v1/accounts/{address}         Account

tasks.py: a task from its sealed input to its proofs

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

ledger.py: transactions, blocks, proofs, state, status

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
    GET    /v1/evidence                   EvidenceList
    GET    /v1/views                      ViewHistory
    GET    /v1/checkpoints                CheckpointList
    GET    /v1/status                     Status
    GET    /healthz /readyz               Health; /metrics is Prometheus text, /openapi.json this contract

market.py: rounds, batches, events

    GET    /v1/allocations                AllocationPage; newest first
    GET    /v1/allocations/{round}        Allocation
    GET    /v1/batches                    BatchPage; newest first
    GET    /v1/batches/{id}               Batch
    GET    /v1/events                     text/event-stream of Event; Last-Event-ID or ?after resumes

development.py: what production chains do not have

    GET    /v1/positions                  PositionList (of UEs; empty but on development chains)
    PUT    /v1/dev/positions              PositionReport -> PositionList (development chains only)
    POST   /v1/dev/faucet                 FaucetOrder -> FaucetReceipt (development chains only)

shapes.py has what many of them share: hex, wei, envelopes, offers, problems, reasons.
"""

from edgora.wire.rest.development import FaucetOrder, FaucetReceipt, Position, PositionList, PositionReport
from edgora.wire.rest.ledger import (
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
from edgora.wire.rest.market import (
    Allocation,
    AllocationPage,
    Alternative,
    Batch,
    BatchPage,
    Choice,
    Event,
    Pair,
    Proposal,
    SkippedRound,
)
from edgora.wire.rest.platform import (
    Account,
    Advert,
    ConsensusParams,
    Info,
    KeyDocument,
    Lane,
    Limits,
    MarketParams,
    Reputation,
    Server,
    ServerList,
    Voucher,
)
from edgora.wire.rest.shapes import (
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
from edgora.wire.rest.tasks import (
    CancelOrder,
    InputUpload,
    Module,
    Result,
    SealedResult,
    StoredInput,
    Task,
    TaskAccepted,
    TaskPage,
    TaskProofs,
    TaskSubmission,
    Why,
)

__all__ = [
    "Account", "Advert", "Allocation", "AllocationPage", "Alternative", "Batch", "BatchPage", "Block", "BlockPage",
    "BlockSummary", "CancelOrder", "Checkpoint", "CheckpointList", "Choice", "ConsensusParams", "EpochInfo", "Event",
    "EvidenceItem", "EvidenceList", "FaucetOrder", "FaucetReceipt", "Header", "HeaderList", "Health", "HeldEvidence",
    "Hex", "Hex20", "Hex32", "Hex65", "Info", "InputUpload", "JweEnvelope", "JweRecipient", "JweRecipientHeader",
    "KeyDocument", "Lane", "LedgerLevel", "Limits", "MarketParams", "Module", "OfferBody", "Pair", "Position",
    "PositionList", "PositionReport", "Problem", "Proof", "Proposal", "ReasonBody", "Receipt", "Reputation", "Result",
    "SealedResult", "Server", "ServerList", "SkippedRound", "StateValue", "Status", "StoredInput", "Task",
    "TaskAccepted", "TaskPage", "TaskProofs", "TaskStateName", "TaskSubmission", "Tx", "TxOrder", "TxOrders",
    "TxOutcome", "TxOutcomes", "TxStatus", "ViewHistory", "ViewStep", "Voter", "Voucher", "VoucherBody", "WaitLevel",
    "Wei", "Why",
]  # fmt: skip
