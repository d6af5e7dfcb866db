"""Receipt codes of the market and the one sentence that goes with each (market.md 3, 8).

A refused operation is consumed and changes nothing else. Its receipt holds the code, and as output the canonical
MessagePack of the numbers that the sentence names, so that whoever holds the receipt can read what was wrong, with
which value, and what to do. Money in these numbers is whole gwei: what is there rounded down, what is needed up.
"""

from enum import IntEnum, unique

from edgora.wire.codec import decode
from edgora.wire.errors import WireError
from edgora.wire.ledger import LEDGER_CODES, LedgerCode

__all__ = ["Code", "code_name", "refusal_numbers", "refusal_sentence"]


@unique
class Code(IntEnum):
    """Why the market refused an operation; 0..15 are the ledger's (wire.ledger.LedgerCode)."""

    NOT_A_SERVER = 16
    NOT_A_VALIDATOR = 17
    SERVER_UNREGISTERED = 18
    SERVER_UNBONDING = 19
    ADVERT_ZERO = 20
    ADVERT_UNTIL = 21
    ADVERT_TOO_SOON = 22
    TIP_MISSING = 23
    TIP_BUSY = 24

    WRONG_UE = 32
    OFFER_SEEN = 33
    FUEL_LIMIT = 34
    DESIRED_TIME = 35
    INPUT_SIZE = 36
    OUTPUT_SIZE = 37
    MEMORY = 38
    DEADLINE_TOO_SOON = 39
    DEADLINE_TOO_FAR = 40
    FLAGS = 41
    SOURCE_UNKNOWN = 42
    STORED_INVALID = 43
    TASKS_FULL = 44
    UE_TASKS_FULL = 45
    SETTLEMENT_BEHIND = 46
    CHAIN_NOT_SEEN = 47
    EXIT_PENDING = 48
    DEPOSIT_SHORT = 49
    VOUCHER_MISSING = 50
    VOUCHER_SIGNATURE = 51
    VOUCHER_SHORT = 52
    VOUCHER_TOO_EARLY = 53
    VOUCHER_TOO_LATE = 54
    VOUCHER_UNEXPECTED = 55
    LOCK_UNKNOWN = 56
    LOCK_SHORT = 57
    LOCK_DEADLINE = 58
    PRICE_TOO_LOW = 59
    FUEL_TOO_LARGE = 60
    NOT_AUDITABLE = 61
    OVERFLOW = 62

    NO_ROUND = 80
    WRONG_ROUND = 81
    WRONG_DIGEST = 82
    TOO_MANY_TRIES = 83
    ALREADY_ACCEPTED = 84
    POLICY_NAME = 85
    TASK_INDEX = 86
    TASK_TWICE = 87
    PAIRS_UNSORTED = 88
    SERVER_NOT_IN_ROUND = 89
    PAIR_NOT_OK = 90
    ROOM_EXCEEDED = 91
    VALUE_WRONG = 92
    BELOW_FLOOR = 93
    DUPLICATE_PLAN = 94

    TASK_UNKNOWN = 112
    NOT_YOURS = 113
    RESULT_GIVEN = 114
    RESULT_CODE = 115
    FUEL_OVER = 116
    HELD_SHORT = 117
    AUDIT_FORM = 118
    FILING_CLOSED = 119
    AUDIT_CLOSED = 120

    NO_BATCH = 128
    WRONG_BATCH = 129
    BATCH_CERTIFIED = 130

    FACT_GIVEN = 136
    FACT_CONFLICT = 137
    FACT_UNFIT = 138

    BAD_PREIMAGE = 144
    UP_TO = 145

    NOT_YOUR_TASK = 152
    NOT_OPEN = 153

    KIND_UNSUPPORTED = 160


_SENTENCES = {
    Code.NOT_A_SERVER: "only a registered server may send this; use the server's signer key",
    Code.NOT_A_VALIDATOR: "only a validator may send this; use the validator's signer key",
    Code.SERVER_UNREGISTERED:
        "server {0} is not registered on the chain yet; register it and wait until the validators have seen it",
    Code.SERVER_UNBONDING: "server {0} is leaving: its stake is unbonding or was slashed; it cannot sell any more",
    Code.ADVERT_ZERO: "speed, slots, ask and uplink must all be above 0; set capacity 0 to withdraw",
    Code.ADVERT_UNTIL: "until_ms {0} is not within the hour after ledger time {1}; choose an instant in between",
    Code.ADVERT_TOO_SOON: "this server's last advert is {0} ms old; wait until 100 ms have passed",
    Code.TIP_MISSING: "a server's first advert must commit the tip of its audit chain; add tip",
    Code.TIP_BUSY: "{0} results wait for this server's draw; file DRAW first, then renew the tip",
    Code.WRONG_UE: "the offer names another UE than the sender; sign the transaction with the offer's ue key",
    Code.OFFER_SEEN: "this very offer is on the ledger already; use a new nonce for a new task",
    Code.FUEL_LIMIT: "fuelLimit {0} is not within 1..{1}; choose one that is",
    Code.DESIRED_TIME: "desiredMs {0} is not within 1..3,600,000; choose one that is",
    Code.INPUT_SIZE: "inputOctets {0} is not within 1..16,777,216; send a smaller input",
    Code.OUTPUT_SIZE: "outputOctets {0} is above 16,777,216; ask for less output",
    Code.MEMORY: "memoryPages {0} is above 1,024; ask for less memory",
    Code.DEADLINE_TOO_SOON:
        "deadlineMs {0} cannot be met: the fastest known server would be done at {1}; choose a later deadline",
    Code.DEADLINE_TOO_FAR: "deadlineMs {0} is more than an hour after ledger time; choose at most {1}",
    Code.FLAGS: "flags {0} has unknown bits; only 1 (may be audited) and 2 (lock lane) exist",
    Code.SOURCE_UNKNOWN: "no registered server has id {0}; name the server that the input was uploaded to",
    Code.STORED_INVALID: "the Stored signature is not by server {0} for this offer; upload the input there and use its answer",
    Code.TASKS_FULL: "{0} tasks are open, the limit is 10,000; try again later",
    Code.UE_TASKS_FULL: "{0} tasks of this UE are open, the limit is 256; wait for some to be assigned or cancel them",
    Code.SETTLEMENT_BEHIND: "the oldest finished task has waited {0} ms for settlement; try again when the chain has caught up",
    Code.CHAIN_NOT_SEEN: "the validators have not seen the chain for {0} ms; try again when they have",
    Code.EXIT_PENDING: "this account's exit is pending until {0} s; use a lock, or finish the exit and deposit again",
    Code.DEPOSIT_SHORT: "the deposit is {0} gwei, {1} gwei are needed; deposit the difference",
    Code.VOUCHER_MISSING: "an offer of the voucher lane needs a voucher; add it or set flag 2 and open a lock",
    Code.VOUCHER_SIGNATURE: "the voucher is not signed by the offer's UE; sign cap and validUntil in the market domain",
    Code.VOUCHER_SHORT:
        "the voucher covers {0} gwei until {1} s; at least {2} gwei until {3} s are needed; sign a new one",
    Code.VOUCHER_TOO_EARLY: "the voucher ends at {0} s, the task may become payable until {1} s; sign a later validUntil",
    Code.VOUCHER_TOO_LATE: "the voucher ends at {0} s, after an exit could be over; sign a validUntil of at most {1} s",
    Code.VOUCHER_UNEXPECTED: "an offer of the lock lane carries no voucher; leave it out or clear flag 2",
    Code.LOCK_UNKNOWN: "the validators have seen no lock for this offer; open it and wait for the confirmations",
    Code.LOCK_SHORT: "the lock holds {0} gwei, {1} gwei are needed; use a new offer with a larger lock",
    Code.LOCK_DEADLINE: "the lock ends at {0} s, at least {1} s is needed; use a new offer with a later lock",
    Code.PRICE_TOO_LOW: "price {0} is below every server's ask; {1} gwei/Mfuel is the least that can be placed",
    Code.FUEL_TOO_LARGE: "fuelLimit {0} fits no live server; at most {1} fits now",
    Code.NOT_AUDITABLE:
        "{0} servers could re-run this within the audit time, {1} are needed; lower fuelLimit or clear flag 1",
    Code.OVERFLOW: "a sum of this operation leaves its width; use smaller amounts",
    Code.NO_ROUND: "no round is open; wait for the next one",
    Code.WRONG_ROUND: "the proposal is for round {0}, open is round {1}; propose for that one",
    Code.WRONG_DIGEST: "the proposal names another instance than that of the open round; take it from RoundOpened",
    Code.TOO_MANY_TRIES: "this validator has used its {0} tries in this round; wait for the next one",
    Code.ALREADY_ACCEPTED: "this validator has an accepted proposal in this round; wait for the next one",
    Code.POLICY_NAME: "the policy's name has {0} octets; use 1..64",
    Code.TASK_INDEX: "task index {0} is out of range, the instance has {1} tasks",
    Code.TASK_TWICE: "task index {0} is there twice; place every task at most once",
    Code.PAIRS_UNSORTED: "the pairs are not ascending at task index {0}; sort them",
    Code.SERVER_NOT_IN_ROUND: "server {0} is not in the instance",
    Code.PAIR_NOT_OK: "task index {0} may not go to server {1}: price, room, time, source or an exclusion forbids it",
    Code.ROOM_EXCEEDED: "the plan puts weight {1} on server {0}, which has room for {2}",
    Code.VALUE_WRONG: "the claimed value is not the plan's; recompute it in integers",
    Code.BELOW_FLOOR: "the plan's value {0} gwei is below the floor of {1} gwei that greedy sets",
    Code.DUPLICATE_PLAN: "an equal plan was accepted from server {0}; nothing to do",
    Code.TASK_UNKNOWN: "no task of this offer id is on the ledger, or it has left the state",
    Code.NOT_YOURS: "server {0} is neither this task's executor nor drawn to audit it",
    Code.RESULT_GIVEN: "server {0} has filed for this task already; nothing to do",
    Code.RESULT_CODE: "result code {0} is unknown here; executors file 0..8, auditors 0..9",
    Code.FUEL_OVER: "fuel_used {0} is above the offer's limit {1}",
    Code.HELD_SHORT: "{0} valid Held by other servers, {1} are needed; spread the sealed result further",
    Code.AUDIT_FORM: "an auditor's filing carries neither Held nor cipherDigest, an executor's carries both",
    Code.FILING_CLOSED: "filing for this task closed at {0}",
    Code.AUDIT_CLOSED: "the audit of this task is over, or this server's time for it was",
    Code.NO_BATCH: "no batch is frozen; wait for one",
    Code.WRONG_BATCH: "the frozen batch is {0} and has another hash or number; recompute it from the state",
    Code.BATCH_CERTIFIED: "batch {0} is certified in this epoch already; settle it on the chain",
    Code.FACT_GIVEN: "this validator has attested this fact already; nothing to do",
    Code.FACT_CONFLICT: "this validator has attested something else for the same place of the chain; this is evidence against it",
    Code.FACT_UNFIT: "the fact does not fit the state: it names an unknown, closed or out-of-range thing",
    Code.BAD_PREIMAGE: "the preimage does not open this server's audit tip; use the next one of its chain",
    Code.UP_TO: "up_to {0} is not below this block's height {1}; use the executed height",
    Code.NOT_YOUR_TASK: "only the task's UE may cancel it",
    Code.NOT_OPEN: "the task is {0}, only an open one can be cancelled",
    Code.KIND_UNSUPPORTED: "kind {0} is not executed by this version",
}  # fmt: skip


def code_name(code: int) -> str:
    """Stable name of a receipt code, the ledger's or the market's."""
    try:
        return LedgerCode(code).name if code < Code.NOT_A_SERVER else Code(code).name
    except ValueError:
        return f"CODE_{code}"


def refusal_numbers(output: bytes) -> tuple[int, ...]:
    """The numbers in a refused receipt's output (without the uint16 kind that the ledger puts in front)."""
    if not output:
        return ()
    try:
        return decode(output, tuple[int, ...])
    except WireError:
        return ()


def refusal_sentence(code: int, numbers: tuple[int, ...] = ()) -> str:
    """What was wrong, with which value, and what to do: one sentence."""
    try:
        if code < Code.NOT_A_SERVER:
            return LEDGER_CODES[LedgerCode(code)]
        return _SENTENCES[Code(code)].format(*(f"{x:,}" for x in numbers))
    except (ValueError, IndexError):
        return f"refused with code {code}"
