"""What UEs, servers and allocators agree on about the market (market.md 2-6): offers, payloads, facts, codes.

Payloads are the `payload` of a ledger Tx of the kind they are named after. What executing a block made happen is in
`market_events`. Integers wider than 64 bits are fixed-length binary.
"""

from enum import IntEnum, IntFlag

import msgspec

from edgora.wire.codec import B20, B32, B65, U8, U16, U32, U40, U48, U64, U96, U128
from edgora.wire.eip712 import Typed
from edgora.wire.market_codes import Code, code_name, refusal_numbers, refusal_sentence

__all__ = [
    "AUDITOR_CODES", "DETERMINISTIC_CODES", "EXECUTOR_CODES", "MAX_DEADLINE_MS", "MAX_DESIRED_MS", "MAX_FUEL",
    "MAX_INPUT", "MAX_MODULE", "MAX_OPEN", "MAX_OPEN_PER_UE", "MAX_OUTPUT", "MAX_PAGES", "MAX_SERVERS",
    "PAID_CODES", "Advert", "Allocation", "BatchSettled", "Cancel", "ChainFact", "Code", "Deposited", "Draw",
    "EpochAdvanced", "ExitRequested", "Exited", "Fact", "Head", "Held", "HeldPart", "Instance", "LiveServer",
    "MarketParams", "Offer", "OfferFlag", "OfferOpened", "OfferRefunded", "OpenTask", "Reason", "ResultCode",
    "ResultHash", "ServerMetaChanged", "ServerRegistered", "ServerSlashed", "ServerUnbonding", "SettlementPayload",
    "Stored", "TaskPayload", "TaskState", "VoucherPart", "code_name", "refusal_numbers", "refusal_sentence",
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
