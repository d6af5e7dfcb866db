"""REST resources of a task's life: /v1/inputs, /v1/tasks and /v1/modules (wire.rest has the table).

In the order of that life: the sealed input goes to its source (InputUpload -> StoredInput), the signed offer onto the
ledger (TaskSubmission -> TaskAccepted), then whoever asks sees the task, why it is where it is, its sealed result and
what is provable about it. Bodies of requests are strict; what is signed in them is never the JSON but the canonical
bytes that their fields make up.
"""

from dataclasses import dataclass
from typing import Literal

from edgora.wire.rest.ledger import Proof
from edgora.wire.rest.market import Choice
from edgora.wire.rest.shapes import (
    STRICT,
    U32,
    U64,
    Hex,
    Hex20,
    Hex32,
    Hex65,
    JweEnvelope,
    OfferBody,
    ReasonBody,
    TaskStateName,
    VoucherBody,
    Wei,
)

__all__ = [
    "CancelOrder", "InputUpload", "Module", "Result", "SealedResult", "StoredInput", "Task", "TaskAccepted",
    "TaskPage", "TaskProofs", "TaskSubmission", "Why",
]  # fmt: skip


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
