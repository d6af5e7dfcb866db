"""What UEs, servers and allocators agree on about the market (market.md 2-6): offers, payloads, facts, events, codes.

Payloads are the `payload` of a ledger Tx of the kind they are named after. Events are what executing a block made
happen, in order; the API turns them into SSE and timelines. Integers wider than 64 bits are fixed-length binary.
"""

from enum import IntEnum, IntFlag

import msgspec

from edgora.wire.codec import B20, B32, B65, U8, U16, U32, U40, U48, U64, U96, U128
from edgora.wire.eip712 import Typed
from edgora.wire.market_codes import Code, code_name, refusal_numbers, refusal_sentence

__all__ = [
    "AUDITOR_CODES", "DETERMINISTIC_CODES", "EXECUTOR_CODES", "MAX_DEADLINE_MS", "MAX_DESIRED_MS", "MAX_FUEL", "MAX_INPUT", "MAX_MODULE",
    "MAX_OPEN", "MAX_OPEN_PER_UE", "MAX_OUTPUT", "MAX_PAGES", "MAX_SERVERS", "PAID_CODES", "AccountChanged", "Advert",
    "AdvertFiled", "Allocation", "Alternative", "AuditDrawn", "AuditFiled", "AuditMissed", "AuditorDrawn",
    "BatchCertified", "BatchClosed", "BatchFrozen", "BatchSettled", "Cancel", "ChainFact", "Choice", "Code",
    "CreditChanged", "Deposited", "Draw", "DrawMissed", "EpochAdvanced", "Event", "ExitRequested", "Exited", "Fact",
    "FactApplied", "FactConflict", "Head", "Held", "HeldPart", "Instance", "LiveServer", "LockChanged", "MarketParams",
    "Offer", "OfferFlag", "OfferOpened", "OfferRefunded", "OpenTask", "PenaltyPart", "ProposalAccepted",
    "ProposalPart", "ProposalRefused", "Reason", "RefusedPart", "ResultCode", "ResultFiled", "ResultHash",
    "RoundClosed", "RoundOpened", "ServerMetaChanged", "ServerNotLive", "ServerRegistered", "ServerSlashed",
    "ServerUnbonding", "SettlementPayload", "Stored", "TaskAssigned", "TaskEnded", "TaskFinal", "TaskForgotten",
    "TaskOpened", "TaskPayload", "TaskRefunded", "TaskReopened", "TaskRequeued", "TaskSettled", "TaskState", "Verdict",
    "VoucherPart", "code_name", "refusal_numbers", "refusal_sentence",
]  # fmt: skip

# ---- limits (market.md 8) ----------------------------------------------------------------------------------------------

MAX_FUEL = 10**12
MAX_DESIRED_MS = 3_600_000
MAX_INPUT = 16 * 1024 * 1024
MAX_OUTPUT = 16 * 1024 * 1024
MAX_PAGES = 1024
MAX_MODULE = 4 * 1024 * 1024
MAX_DEADLINE_MS = 3_600_000
"""How far ahead of ledger time a deadline, or the end of an advert, may be."""
MAX_OPEN = 10_000
MAX_OPEN_PER_UE = 256
MAX_SERVERS = 64

# ---- enumerations ----------------------------------------------------------------------------------------------------


class ResultCode(IntEnum):
    """How a run ended. The first five are deterministic: they pay fuel_used and can be audited (market.md 5)."""

    OK = 0
    TRAP = 1
    OUT_OF_FUEL = 2
    MEMORY = 3
    OUTPUT = 4
    WALL = 5
    BAD_INPUT = 6
    BAD_MODULE = 7
    UNAVAILABLE = 8
    NO_KEY = 9
    """Auditors only: the executor gave no fitting key."""


PAID_CODES = frozenset((ResultCode.OK, ResultCode.TRAP, ResultCode.OUT_OF_FUEL, ResultCode.MEMORY, ResultCode.OUTPUT))
"""What an executor is paid for: equal inputs give equal filings, so it can be audited."""

DETERMINISTIC_CODES = PAID_CODES | {ResultCode.BAD_INPUT, ResultCode.BAD_MODULE}
"""What an auditor can state about a task as such; its other codes say only that it could not look."""

AUDITOR_CODES = frozenset(ResultCode)
EXECUTOR_CODES = AUDITOR_CODES - {ResultCode.NO_KEY}


class TaskState(IntEnum):
    """Life of a task (market.md 2). SETTLED and REFUNDED are the two ends."""

    OPEN = 0
    ASSIGNED = 1
    DONE = 2
    FINAL = 3
    CERTIFIED = 4
    SETTLED = 5
    EXPIRED = 6
    CANCELLED = 7
    LATE = 8
    FAILED = 9
    DISPUTED = 10
    UNPAYABLE = 11
    REFUNDED = 12


class OfferFlag(IntFlag):
    AUDITABLE = 1
    LOCK_LANE = 2


# ---- signed structures -----------------------------------------------------------------------------------------------


class Offer(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a UE wants computed and what it pays. offerId = digest in the market domain."""

    TYPE = (
        "Offer(address ue,uint64 nonce,bytes32 moduleDigest,bytes32 inputDigest,uint32 inputOctets,uint32 outputOctets,"
        "uint16 memoryPages,uint48 fuelLimit,uint32 price,uint32 desiredMs,uint48 deadlineMs,bytes32 resultKey,"
        "bytes32 keyCommit,uint16 source,uint8 flags)"
    )
    ue: B20
    nonce: U64
    module_digest: B32
    input_digest: B32
    """H(iv || ciphertext || tag) of the sealed input."""
    input_octets: U32
    output_octets: U32
    memory_pages: U16
    fuel_limit: U48
    price: U32
    """gwei per Mfuel."""
    desired_ms: U32
    deadline_ms: U48
    """Unix instant."""
    result_key: B32
    """H(SPKI DER) of the RSA key that the result is sealed to."""
    key_commit: B32
    source: U16
    flags: U8


class Stored(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The source's word that it keeps the sealed input; ledger domain."""

    TYPE = "Stored(bytes32 offerId)"
    offer_id: B32


class Held(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Another server's word that it keeps the sealed result; ledger domain."""

    TYPE = "Held(bytes32 offerId,bytes32 resultDigest,bytes32 cipherDigest,uint64 seenMs)"
    offer_id: B32
    result_digest: B32
    cipher_digest: B32
    seen_ms: U64


# ---- payloads of transactions ----------------------------------------------------------------------------------------


class Advert(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Kind 1. What a server sells until when; capacity 0 withdraws."""

    speed: U48
    """fuel per second, for each of the slots."""
    capacity: U48
    slots: U16
    ask: U32
    uplink: U40
    """octets per second."""
    forward: U64
    """wei per KiB forwarded."""
    until_ms: U48
    tip: B32 | None = None
    """First advert, or a renewal: the audit chain's tip H^N(seed)."""


class TaskPayload(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Kind 2. The voucher is null in the lock lane."""

    offer: Offer
    stored: B65
    voucher: "VoucherPart | None" = None


class VoucherPart(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    cap: U96
    valid_until_s: U40
    signature: B65


class Allocation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Kind 3. A proposal for the open round."""

    round: U64
    digest: B32
    pairs: tuple[tuple[U16, U16], ...]
    """(task index in the instance, server id), ascending."""
    value: U128
    bound: U128 | None
    policy: str
    solver_ms: U32


class ResultHash(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Kind 4. From the executor with cipher digest and f+1 Held; from an auditor with neither."""

    offer_id: B32
    code: U8
    result_digest: B32
    fuel_used: U48
    cipher_digest: B32 | None = None
    held: tuple["HeldPart", ...] = ()


class HeldPart(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    server: U16
    seen_ms: U64
    signature: B65


class SettlementPayload(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Kind 5. Names the frozen batch by hashStruct(Batch); every validator checks by equality."""

    batch_id: U64
    batch_hash: B32


class Draw(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Kind 10. The witness opens the next preimage of its audit chain, for results of blocks <= up_to."""

    preimage: B32
    up_to: U64


class Cancel(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Kind 11."""

    offer_id: B32


# ---- facts of the chain (kind 6) ---------------------------------------------------------------------------------------


class Head(msgspec.Struct, frozen=True, array_like=True, tag=0, forbid_unknown_fields=True):
    number: U64
    time_s: U40


class ServerRegistered(msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    id: U16
    owner: B20
    signer: B20
    meta_hash: B32
    stake: U96


class ServerMetaChanged(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    id: U16
    meta_hash: B32


class ServerUnbonding(msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    id: U16
    when_s: U40


class ServerSlashed(msgspec.Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    id: U16
    stake: U96


class EpochAdvanced(msgspec.Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    epoch: U64
    first_height: U64


class Deposited(msgspec.Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True):
    ue: B20
    wei: U96


class OfferOpened(msgspec.Struct, frozen=True, array_like=True, tag=7, forbid_unknown_fields=True):
    offer: B32
    ue: B20
    wei: U96
    deadline_s: U40


class OfferRefunded(msgspec.Struct, frozen=True, array_like=True, tag=8, forbid_unknown_fields=True):
    offer: B32
    ue: B20
    wei: U96


class ExitRequested(msgspec.Struct, frozen=True, array_like=True, tag=9, forbid_unknown_fields=True):
    ue: B20
    when_s: U40


class Exited(msgspec.Struct, frozen=True, array_like=True, tag=10, forbid_unknown_fields=True):
    ue: B20
    wei: U96


class BatchSettled(msgspec.Struct, frozen=True, array_like=True, tag=11, forbid_unknown_fields=True):
    """With what the same transaction skipped: UEs whose section, and lock keys whose line, was not paid."""

    batch_id: U64
    task_root: B32
    paid: U96
    skipped_ues: tuple[B20, ...]
    skipped_locks: tuple[B32, ...]


Fact = (
    Head | ServerRegistered | ServerMetaChanged | ServerUnbonding | ServerSlashed | EpochAdvanced | Deposited
    | OfferOpened | OfferRefunded | ExitRequested | Exited | BatchSettled
)  # fmt: skip


class ChainFact(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Kind 6. One validator's attestation; takes effect when q equal ones are there. Head needs no place."""

    block_hash: B32
    tx_index: U32
    log_index: U32
    fact: Fact


# ---- rounds ----------------------------------------------------------------------------------------------------------


class OpenTask(msgspec.Struct, frozen=True, array_like=True):
    """A task as a round's instance holds it: what the formulas of market.md 4 need, in arrival order."""

    offer_id: B32
    ue: B20
    source: U16
    fuel_limit: U48
    price: U32
    input_octets: U32
    output_octets: U32
    desired_ms: U32
    deadline_ms: U48
    excluded: tuple[U16, ...]
    """Servers that may not get it (they failed it before, or cannot fetch from its source)."""


class LiveServer(msgspec.Struct, frozen=True, array_like=True):
    """A server as a round's instance holds it, by id."""

    id: U16
    speed: U48
    capacity: U48
    slots: U16
    ask: U32
    uplink: U40
    forward: U64
    credit: U48
    used: U64


class Instance(msgspec.Struct, frozen=True, array_like=True):
    """A round's instance; digest = keccak of its canonical MessagePack."""

    round: U64
    now_ms: U48
    """opening + proposal_ms"""
    slack_ms: U32
    tasks: tuple[OpenTask, ...]
    servers: tuple[LiveServer, ...]


class MarketParams(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Consortium parameters (market.md 9); part of the genesis document."""

    round_ms: int = 200
    proposal_ms: int = 150
    solve_ms: int = 60
    slack_ms: int = 500
    file_ms: int = 20_000
    batch_ms: int = 60_000
    floor_bps: int = 10_000
    prefer: str = ""
    credit0: int = 2_000_000_000
    probe: int = 100_000_000
    audit_bps: int = 500
    auditors: int = 2
    audit_max_ms: int = 60_000
    draw_ms: int = 2_000
    audit_pay: int = 10**15
    keep_ms: int = 3_600_000
    lambda_bps: int = 1_000
    margin_ms: int = 600_000
    """Safety between ledger time and chain time (contracts.md 9); 20 s on anvil."""
    exit_delay_s: int = 7_200


class Reason(msgspec.Struct, frozen=True, array_like=True):
    """A refusal, a wait or a choice as a value (market.md 7); `market.reasons.sentence` renders it, in one place."""

    code: str
    subject: str = ""
    numbers: tuple[int, ...] = ()
    """Money in whole gwei; every number fits 64 bits."""


# ---- events ----------------------------------------------------------------------------------------------------------
#
# What executing a block made happen, in order. The tag is the class name. Times are header times unless said otherwise;
# the block's own height and time stand beside each event in the store (ports.store.StoredEvent).


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
