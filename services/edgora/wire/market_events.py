"""What executing a block made happen on the market, in order (market.md 2-7); the API turns it into SSE and timelines.

The tag is the class name. Times are header times unless said otherwise; the block's own height and time stand beside
each event in the store (ports.store.StoredEvent). Integers wider than 64 bits are fixed-length binary.
"""

import msgspec

from edgora.wire.codec import B20, B32, U8, U16, U32, U40, U48, U64, U96, U128
from edgora.wire.market import Advert, Fact, Instance, Offer, Reason

__all__ = [
    "AccountChanged", "AdvertFiled", "Alternative", "AuditDrawn", "AuditFiled", "AuditMissed", "AuditorDrawn",
    "BatchCertified", "BatchClosed", "BatchFrozen", "Choice", "CreditChanged", "DrawMissed", "Event", "FactApplied",
    "FactConflict", "LockChanged", "PenaltyPart", "ProposalAccepted", "ProposalPart", "ProposalRefused",
    "RefusedPart", "ResultFiled", "RoundClosed", "RoundOpened", "ServerNotLive", "TaskAssigned", "TaskEnded",
    "TaskFinal", "TaskForgotten", "TaskOpened", "TaskRefunded", "TaskReopened", "TaskRequeued", "TaskSettled",
    "Verdict",
]  # fmt: skip


class _Event(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=True):
    pass


class AdvertFiled(_Event, frozen=True):
    server: U16
    advert: Advert


class ServerNotLive(_Event, frozen=True):
    """The server gets no new work until it files an ADVERT. reason: LATE, REOPENED, DRAW_MISSED, AUDIT_MISSED."""

    server: U16
    reason: Reason


class CreditChanged(_Event, frozen=True):
    """How much a server may hold at once. reason: DONE, LATE, WALL, LOST_DISPUTE, RECOVERED."""

    server: U16
    credit: U48
    reason: Reason


class AccountChanged(_Event, frozen=True):
    """An account after a change. cap 0 and valid_until_s 0: no voucher kept; exit_at_s 0: no exit pending."""

    ue: B20
    balance: U96
    spent: U96
    reserved: U96
    cap: U96
    valid_until_s: U40
    exit_at_s: U40


class LockChanged(_Event, frozen=True):
    """A lock after a change. wei 0: gone. deadline_s 0: a remainder that is refundable at once."""

    offer: B32
    ue: B20
    wei: U96
    deadline_s: U40


class FactApplied(_Event, frozen=True):
    """A quorum attested a fact of the chain, and it took effect."""

    block_hash: B32
    tx_index: U32
    log_index: U32
    fact: Fact


class FactConflict(_Event, frozen=True):
    """Evidence: one validator attested two things for one place of the chain."""

    server: U16
    block_hash: B32
    tx_index: U32
    log_index: U32


class TaskOpened(_Event, frozen=True):
    offer_id: B32
    offer: Offer
    maximum: U96


class RoundOpened(_Event, frozen=True):
    """A round of allocation; proposals name the digest, until closes_ms."""

    instance: Instance
    digest: B32
    closes_ms: U48


class ProposalAccepted(_Event, frozen=True):
    round: U64
    server: U16
    policy: str
    value: U128
    bound: U128 | None
    placed: U16
    solver_ms: U32


class ProposalRefused(_Event, frozen=True):
    round: U64
    server: U16
    policy: str
    reason: Reason


class ProposalPart(msgspec.Struct, frozen=True, array_like=True):
    """An accepted proposal as the close sees it, after pairs that no longer hold were dropped."""

    server: U16
    policy: str
    value: U128
    placed: U16
    dropped: U16
    bound: U128 | None
    solver_ms: U32


class RefusedPart(msgspec.Struct, frozen=True, array_like=True):
    server: U16
    policy: str
    reason: Reason


class Alternative(msgspec.Struct, frozen=True, array_like=True):
    """A server that a task did not go to. value: W of the pair in wei, 0 where W is negative."""

    server: U16
    value: U128
    reason: Reason
    """EXCLUDED, ASK_ABOVE_PRICE, NO_ROOM, TOO_SLOW, SOURCE_NOT_LIVE, LESS_VALUE, ROOM_TAKEN or NOT_CHOSEN."""


class Choice(msgspec.Struct, frozen=True, array_like=True):
    """Where a task of the round went (None: nowhere) and its three best alternatives."""

    offer_id: B32
    server: U16 | None
    alternatives: tuple[Alternative, ...]


class RoundClosed(_Event, frozen=True):
    """winner: the server whose proposal took effect, or None for the built-in greedy."""

    round: U64
    winner: U16 | None
    policy: str
    value: U128
    greedy: U128
    """What greedy is worth at the close; the floor was greedy's value at the opening."""
    bound: U128 | None
    """The least proven bound that is not below the winner's value."""
    bounds_dropped: U16
    accepted: tuple[ProposalPart, ...]
    refused: tuple[RefusedPart, ...]
    choices: tuple[Choice, ...]


class TaskAssigned(_Event, frozen=True):
    offer_id: B32
    executor: U16
    round: U64
    expected_ms: U64
    """T of the pair: input transfer, run and output transfer."""
    file_by_ms: U64
    weight: U48


class TaskReopened(_Event, frozen=True):
    """Back to OPEN, without that server."""

    offer_id: B32
    server: U16
    reason: Reason


class ResultFiled(_Event, frozen=True):
    """By the executor. witness: who draws whether it is audited; None if it is not auditable or nobody is there."""

    offer_id: B32
    executor: U16
    code: U8
    result_digest: B32
    cipher_digest: B32 | None
    fuel_used: U48
    done_ms: U48
    holders: tuple[U16, ...]
    witness: U16 | None
    draw_by_ms: U48


class AuditorDrawn(msgspec.Struct, frozen=True, array_like=True):
    server: U16
    by_ms: U48


class AuditDrawn(_Event, frozen=True):
    """The draw for a result. number 1 or 2; without auditors at number 1 the task is not audited."""

    offer_id: B32
    number: U8
    witness: U16 | None
    """Whose preimage decided; None: a block hash did."""
    audited: bool
    auditors: tuple[AuditorDrawn, ...]


class DrawMissed(_Event, frozen=True):
    offer_id: B32
    witness: U16


class AuditFiled(_Event, frozen=True):
    offer_id: B32
    auditor: U16
    code: U8
    result_digest: B32
    fuel_used: U48


class AuditMissed(_Event, frozen=True):
    offer_id: B32
    auditor: U16


class PenaltyPart(msgspec.Struct, frozen=True, array_like=True):
    """A fine of a lost dispute. to None: burnt."""

    server: U16
    to: U16 | None
    wei: U96


class Verdict(_Event, frozen=True):
    """f+1 equal filings. upheld: they agree with the executor's."""

    offer_id: B32
    upheld: bool
    code: U8
    result_digest: B32
    fuel_used: U48
    agreeing: tuple[U16, ...]
    against: tuple[U16, ...]
    penalties: tuple[PenaltyPart, ...]


class TaskFinal(_Event, frozen=True):
    """The receipt stands and waits for a batch."""

    offer_id: B32
    amount: U96
    source_share: U96
    executor_share: U96


class TaskEnded(_Event, frozen=True):
    """Ended without pay. state: EXPIRED, CANCELLED, LATE, FAILED, DISPUTED or UNPAYABLE."""

    offer_id: B32
    state: U8
    reason: Reason


class TaskRefunded(_Event, frozen=True):
    """What was reserved or locked for a task that ended without pay is free again."""

    offer_id: B32
    wei: U96


class TaskSettled(_Event, frozen=True):
    """Paid on the chain; `free` of what was reserved or locked was not needed."""

    offer_id: B32
    batch_id: U64
    paid: U96
    free: U96


class TaskRequeued(_Event, frozen=True):
    """CERTIFIED back to FINAL: the chain skipped its line, it is still payable."""

    offer_id: B32
    batch_id: U64


class TaskForgotten(_Event, frozen=True):
    """An ended task left the state."""

    offer_id: B32


class BatchFrozen(_Event, frozen=True):
    batch_id: U64
    batch_hash: B32
    task_root: B32
    lines: U16
    octets: U32
    gas: U32
    reason: Reason
    """What triggered it: FULL, AGE, EXPIRY or IDLE."""


class BatchCertified(_Event, frozen=True):
    batch_id: U64


class BatchClosed(_Event, frozen=True):
    """The chain settled it: `paid` wei moved, `skipped` lines were not paid."""

    batch_id: U64
    paid: U96
    skipped: U16


Event = (
    AdvertFiled | ServerNotLive | CreditChanged | AccountChanged | LockChanged | FactApplied | FactConflict | TaskOpened
    | RoundOpened | ProposalAccepted | ProposalRefused | RoundClosed | TaskAssigned | TaskReopened | ResultFiled
    | AuditDrawn | DrawMissed | AuditFiled | AuditMissed | Verdict | TaskFinal | TaskEnded | TaskRefunded | TaskSettled
    | TaskRequeued | TaskForgotten | BatchFrozen | BatchCertified | BatchClosed
)  # fmt: skip
