"""What the market's state is made of (market.md 2): frozen records, each under its own key of the ledger's state tree.

Rule 1: records are replaced, never changed; money is int here and fixed-length binary in the stored form.
Rule 2: a record holds what cannot be computed from others. Indexes, counts and timers are derived (state.py).

Instants are header time in Unix ms unless the name says seconds. `order` numbers are drawn from one counter of the
state, so they sort events of different kinds by ledger order.
"""

from typing import NamedTuple

import msgspec

from edgora.wire.codec import B20, B32, U8, U16, U32, U40, U48, U56, U64, U96, U128, from_u96, to_u96
from edgora.wire.market import Advert, Instance, Offer, Reason, ResultCode, TaskState, VoucherPart
from edgora.wire.market_events import PenaltyPart, RefusedPart

__all__ = [
    "ENDED_UNPAID", "FINISHED", "UNFINISHED", "Account", "Attestation", "Audit", "Auditor", "Ban", "BatchRecord",
    "Entry", "FactRecord", "Filing", "HeadSeen", "Lock", "Meta", "Result", "RoundRecord", "Server", "Task", "Voter",
]  # fmt: skip

FINISHED = frozenset((TaskState.SETTLED, TaskState.REFUNDED))
"""The two ends of every task."""
UNFINISHED = frozenset(TaskState) - FINISHED
ENDED_UNPAID = frozenset((
    TaskState.EXPIRED, TaskState.CANCELLED, TaskState.LATE, TaskState.FAILED, TaskState.DISPUTED, TaskState.UNPAYABLE,
))  # fmt: skip
"""On the way to REFUNDED; the voucher lane passes through at once, the lock lane waits for the chain's refund."""


class _Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


# ---- servers ---------------------------------------------------------------------------------------------------------


class Server(_Record, frozen=True):
    """A seller. Live = registered, not leaving, fit, with an unexpired advert of capacity > 0 (market.md 2)."""

    id: U16
    signer: B20
    meta_hash: B32
    registered: bool = False
    """The chain's registration was attested; before that no batch may name it (the contract would revert)."""
    leaving: bool = False
    """Unbonding or slashed."""
    tip: B32 | None = None
    """Audit chain: the next preimage p of this server has H(p) = tip."""
    advert: Advert | None = None
    """The newest one, expired or not."""
    advert_ms: U48 = 0
    fit: bool = False
    """No task went LATE or back to OPEN and no DRAW or audit was missed since the newest advert."""
    credit: U48 = 0
    fault_ms: U48 = 0
    """When its credit was halved last; 0: never, or forgiven."""
    used: U64 = 0
    """Sum of the weights of its assigned tasks and audits."""
    desired_ms: U56 = 0
    actual_ms: U56 = 0
    done: U32 = 0
    late: U32 = 0
    failed: U32 = 0
    disputed: U32 = 0


class Ban(_Record, frozen=True):
    """A (source, executor) pair that is not ok until then: the executor could not fetch from the source."""

    until_ms: U48


# ---- money -----------------------------------------------------------------------------------------------------------


class Account(NamedTuple):
    """A UE's deposit as the validators have seen it, and what its tasks hold of it. Wei."""

    ue: bytes
    balance: int = 0
    spent: int = 0
    """Paid from the deposit ever: vouchers are caps on this sum."""
    reserved: int = 0
    """Sum of the maxima of its unfinished voucher tasks."""
    unfinished: int = 0
    """How many these are."""
    shortfall: int = 0
    """Debits that were attested before the deposit they came from; the next deposit fills this first."""
    voucher: VoucherPart | None = None
    exit_at_s: int = 0

    @property
    def cap(self) -> int:
        return from_u96(self.voucher.cap) if self.voucher else 0

    def to_wire(self) -> "_AccountWire":
        return _AccountWire(
            self.ue, to_u96(self.balance), to_u96(self.spent), to_u96(self.reserved), self.unfinished,
            to_u96(self.shortfall), self.voucher, self.exit_at_s,
        )  # fmt: skip


class _AccountWire(_Record, frozen=True):
    ue: B20
    balance: U96
    spent: U96
    reserved: U96
    unfinished: U32
    shortfall: U96
    voucher: VoucherPart | None
    exit_at_s: U40

    def to_record(self) -> Account:
        return Account(
            self.ue, from_u96(self.balance), from_u96(self.spent), from_u96(self.reserved), self.unfinished,
            from_u96(self.shortfall), self.voucher, self.exit_at_s,
        )  # fmt: skip


class Lock(NamedTuple):
    """A lock of the chain. deadline_s 0: a remainder, refundable at once and not payable again."""

    ue: bytes
    offer: bytes
    wei: int
    deadline_s: int

    def to_wire(self) -> "_LockWire":
        return _LockWire(self.ue, self.offer, to_u96(self.wei), self.deadline_s)


class _LockWire(_Record, frozen=True):
    ue: B20
    offer: B32
    wei: U96
    deadline_s: U40

    def to_record(self) -> Lock:
        return Lock(self.ue, self.offer, from_u96(self.wei), self.deadline_s)


AccountWire = _AccountWire
LockWire = _LockWire


# ---- tasks -----------------------------------------------------------------------------------------------------------


class Filing(_Record, frozen=True):
    """What a server says a task came to. Two agree if all three are equal."""

    code: U8
    result_digest: B32
    fuel_used: U48


class Result(_Record, frozen=True):
    """The executor's filing and what the ledger knows beside it."""

    filing: Filing
    cipher_digest: B32 | None
    done_ms: U48
    """min(header time, the largest seenMs of its Held)."""
    holders: tuple[U16, ...]
    filed_ms: U48
    height: U64
    block_hash: B32
    order: U64


class Auditor(_Record, frozen=True):
    server: U16
    number: U8
    """Which draw named it, 1 or 2."""
    by_ms: U48
    weight: U48
    filing: Filing | None = None
    closed: bool = False
    """Filed, missed its time, or no longer needed: its room is free again."""


class Audit(_Record, frozen=True):
    """Whether and by whom a DONE task is re-run."""

    witness: U16 | None
    """Whose DRAW decides; None: nobody was there, a block hash will."""
    draw_by_ms: U48
    number: U8 = 0
    """0: waiting for the draw; 1, 2: by the auditors of that draw."""
    seed: B32 = bytes(32)
    ends_ms: U48 = 0
    auditors: tuple[Auditor, ...] = ()


class Task(_Record, frozen=True):
    offer_id: B32
    offer: Offer
    order: U64
    """Arrival; a task that returns to OPEN keeps its place."""
    opened_ms: U48
    state: U8 = TaskState.OPEN
    executor: U16 | None = None
    round: U64 = 0
    assigned_ms: U48 = 0
    file_by_ms: U64 = 0
    """When the executor is given up on; 0: never before the deadline's end."""
    expected_ms: U64 = 0
    weight: U48 = 0
    reopened: bool = False
    excluded: tuple[U16, ...] = ()
    accused: U16 | None = None
    """The first executor, if it filed BAD_INPUT or BAD_MODULE: late if the second one files a paid code."""
    result: Result | None = None
    audit: Audit | None = None
    ended_ms: U48 = 0
    """When it became FINAL (again) or ended without pay."""
    cause: U8 = 0
    """The unpaid state that it is or was REFUNDED from; 0 for others."""
    reason: Reason | None = None
    batch: U64 = 0

    @property
    def code(self) -> ResultCode | None:
        return ResultCode(self.result.filing.code) if self.result else None


# ---- the queue to the chain --------------------------------------------------------------------------------------------


class Entry(_Record, frozen=True):
    """Something that the next batches carry: a line, a server's reputation, penalties; in ledger order."""

    offer_id: B32
    server: U16
    desired_ms: U32
    actual_ms: U32
    line: bool
    """The task is FINAL and is to be paid; else only the server table gets something."""
    queued_ms: U48
    penalties: tuple[PenaltyPart, ...] = ()


class BatchRecord(_Record, frozen=True):
    """The one batch that is frozen and not settled."""

    id: U64
    payload: bytes
    task_root: B32
    hash: B32
    lines: tuple[B32, ...]
    """Offer ids in the order of the leaves under task_root."""
    frozen_ms: U48
    certified_epoch: U64 | None = None
    """The contract's epoch when it was certified last; None: not certified yet."""


# ---- rounds ----------------------------------------------------------------------------------------------------------


class RoundRecord(_Record, frozen=True):
    """The open round; what its proposals are is in the voters' records."""

    instance: Instance
    opened_ms: U48
    closes_ms: U48


class Voter(_Record, frozen=True):
    """A validator's tries in the open round."""

    server: U16
    tries: U8 = 0
    order: U64 = 0
    """Ledger order of its accepted proposal."""
    pairs: tuple[tuple[U16, U16], ...] | None = None
    value: U128 = bytes(16)
    bound: U128 | None = None
    policy: str = ""
    solver_ms: U32 = 0
    refused: tuple[RefusedPart, ...] = ()


# ---- the chain as the validators see it ----------------------------------------------------------------------------------


class Attestation(_Record, frozen=True):
    server: U16
    content: B32
    order: U64


class FactRecord(_Record, frozen=True):
    """A place of the chain: what took effect there, or who says what about it."""

    applied: B32 | None = None
    attestations: tuple[Attestation, ...] = ()


class HeadSeen(_Record, frozen=True):
    """A validator's newest Head."""

    number: U64
    time_s: U40
    filed_ms: U48


class Meta(_Record, frozen=True):
    """Counters and instants of the market as a whole."""

    order: U64 = 0
    round: U64 = 0
    last_close_ms: U48 = 0
    last_task_ms: U48 = 0
    last_batch: U64 = 0
    chain_epoch: U64 = 0
    height: U64 = 0
    """Block of the last change, and its time: a block that changes nothing leaves no trace."""
    time_ms: U48 = 0
    wake_ms: U48 = 0
    """0: nothing happens by time alone."""
