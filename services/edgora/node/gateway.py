"""Transactions on their way through this node: signature, admission, receipt, certificate (ledger.md 8).

Rule 1: what enters the pool through here was checked: its sender signed it. Stateless faults are refused before that.
Rule 2: a transaction that was executed already is answered with its receipt, whoever sends the same bytes again.
Rule 3: a wait that runs out is Unknown, never a failure: the identical bytes may be sent again anywhere.
"""

import asyncio
from typing import Literal, NamedTuple

from edgora.crypto.sign import recover
from edgora.node.follower import Follower
from edgora.ports.consensus import Admission, Consensus
from edgora.wire.codec import encode
from edgora.wire.eip712 import Domain
from edgora.wire.errors import (
    BadSignature,
    Conflict,
    EdgoraError,
    Refused,
    RuleRefused,
    TooLarge,
    TooMany,
    Unavailable,
    Unknown,
)  # fmt: skip
from edgora.wire.genesis import Genesis
from edgora.wire.ledger import Kind, Receipt, SignedTx
from edgora.wire.market_codes import code_name, refusal_numbers, refusal_sentence

__all__ = ["TX_OCTETS", "Gateway", "Ordered", "rule_refused"]

TX_OCTETS = 16 * 1024
CERTIFY_POLL_S = 0.05
CATCH_UP_MS = 1_000
"""How far this half may lag behind the consensus half."""
Level = Literal["admitted", "committed", "certified"]


class Ordered(NamedTuple):
    """How far a transaction has come. receipt None: ADMITTED only."""

    tx_hash: bytes
    receipt: Receipt | None
    certified: bool


def rule_refused(receipt: Receipt, *, field: str | None = None) -> RuleRefused:
    """The error for a receipt with a code other than 0: the ledger's own sentence."""
    sentence = refusal_sentence(receipt.code, refusal_numbers(receipt.output[2:]))
    what, _, fix = sentence.partition("; ")
    return RuleRefused(what, rule=code_name(receipt.code), field=field or _FIELDS.get(code_name(receipt.code)), fix=fix)


_FIELDS = {
    "FUEL_LIMIT": "offer.fuel_limit", "FUEL_TOO_LARGE": "offer.fuel_limit", "DESIRED_TIME": "offer.desired_ms",
    "INPUT_SIZE": "offer.input_octets", "OUTPUT_SIZE": "offer.output_octets", "MEMORY": "offer.memory_pages",
    "DEADLINE_TOO_SOON": "offer.deadline_ms", "DEADLINE_TOO_FAR": "offer.deadline_ms", "FLAGS": "offer.flags",
    "SOURCE_UNKNOWN": "offer.source", "STORED_INVALID": "stored", "OFFER_SEEN": "offer.nonce",
    "PRICE_TOO_LOW": "offer.price", "WRONG_UE": "offer.ue", "NOT_AUDITABLE": "offer.flags", "DUPLICATE": "seq",
    "SEQ_GAP": "seq", "UNKNOWN_SENDER": "sender", "TOO_MANY_LANES": "lane", "BAD_PAYLOAD": "payload",
    "DEPOSIT_SHORT": "voucher", "VOUCHER_MISSING": "voucher", "VOUCHER_SIGNATURE": "voucher.signature",
    "VOUCHER_SHORT": "voucher.cap", "VOUCHER_TOO_EARLY": "voucher.valid_until_s",
    "VOUCHER_TOO_LATE": "voucher.valid_until_s", "VOUCHER_UNEXPECTED": "voucher", "LOCK_UNKNOWN": "offer",
    "LOCK_SHORT": "offer", "LOCK_DEADLINE": "offer.deadline_ms",
}  # fmt: skip
"""Which field of the request a rule speaks of."""


class Gateway:
    """Orders transactions and waits for what becomes of them."""

    def __init__(self, genesis: Genesis, follower: Follower, consensus: Consensus) -> None:
        self._domain: Domain = genesis.ledger_domain()
        self._valid_blocks = genesis.consensus.valid_blocks
        self._follower, self._consensus = follower, consensus

    def hash_of(self, signed: SignedTx) -> bytes:
        """Name of the transaction. Raises Refused for a field that is out of its width."""
        try:
            return signed.tx.digest(self._domain)
        except ValueError as error:
            raise Refused(f"the transaction does not hash: {error}", field="tx") from None

    def check(self, signed: SignedTx) -> bytes:
        """Stateless validity. Returns the hash; raises Refused naming the field at fault."""
        tx = signed.tx
        if tx.kind not in Kind.__members__.values():
            raise Refused(f"kind {tx.kind} is unknown", field="kind", fix="use one of 1..11, see ledger.md 3")
        if len(encode(signed)) > TX_OCTETS:
            raise TooLarge(f"the transaction has more than {TX_OCTETS} octets", field="payload", fix="send less")
        digest = self.hash_of(signed)
        if recover(digest, signed.signature) != tx.sender:
            raise BadSignature(
                f"the signature is not by 0x{tx.sender.hex()} over this transaction", field="signature",
                fix="sign the EIP-712 digest of Tx in this consortium's ledger domain, low s, v 27 or 28",
            )  # fmt: skip
        return digest

    def check_window(self, signed: SignedTx) -> None:
        """Whether the transaction may still be ordered. Raises Refused."""
        until, height = signed.tx.valid_until, self._follower.height
        if until <= height:
            raise Refused(
                f"validUntil {until} is over, the ledger is at height {height}", field="valid_until_height",
                fix="sign again with a later height; GET /v1/info has the present one",
            )  # fmt: skip
        if until > height + self._valid_blocks:
            raise Refused(
                f"validUntil {until} is more than {self._valid_blocks} blocks after height {height}",
                field="valid_until_height", fix=f"sign a height of at most {height + self._valid_blocks}",
            )  # fmt: skip

    async def order(self, signed: SignedTx, tx_hash: bytes, level: Level, timeout_ms: int) -> Ordered:
        """Have a checked transaction ordered and wait for the level. Raises what admission says, or Unknown."""
        found = self._follower.receipt(tx_hash)
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        if found is None:
            self.check_window(signed)
            admission = await self._consensus.submit(signed, tx_hash)
            if admission.reason == "DUPLICATE":
                found = await self._earlier(signed, tx_hash, timeout_ms)
            elif not admission.admitted and admission.reason != "KNOWN":
                raise self._refusal(admission, signed)
            elif level == "admitted":
                return Ordered(tx_hash, None, False)
            else:
                found = await self._follower.wait_receipt(tx_hash, timeout_ms)
        if level == "certified":
            await self._certified(found, deadline)
            return Ordered(tx_hash, found, True)
        return Ordered(tx_hash, found, False)

    async def _earlier(self, signed: SignedTx, tx_hash: bytes, timeout_ms: int) -> Receipt:
        """The sequence number is used up: by these very bytes, whose receipt is on its way here, or by others."""
        try:
            return await self._follower.wait_receipt(tx_hash, min(timeout_ms, CATCH_UP_MS))
        except Unknown:
            tx = signed.tx
            raise RuleRefused(
                f"seq {tx.seq} of lane {tx.lane} was used by another transaction", rule="DUPLICATE", field="seq",
                fix=f"sign again with seq {self._follower.next_seq(tx.sender, tx.lane)}",
            ) from None  # fmt: skip

    async def _certified(self, receipt: Receipt, deadline: float) -> None:
        while self._follower.certified_by(receipt.height) is None:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise Unknown(
                    f"executed at height {receipt.height}, but not certified in time",
                    fix="ask GET /v1/receipt/{hash}/proof later",
                )  # fmt: skip
            await asyncio.sleep(min(CERTIFY_POLL_S, left))

    def _refusal(self, admission: Admission, signed: SignedTx) -> EdgoraError:
        tx = signed.tx
        next_seq = self._follower.next_seq(tx.sender, tx.lane)
        match admission.reason:
            case "CONFLICT":
                return Conflict(
                    f"another transaction with lane {tx.lane}, seq {tx.seq} of this sender is waiting", field="seq",
                    fix="wait for its receipt, or use another lane",
                )  # fmt: skip
            case "POOL_FULL" | "SENDER_FULL":
                whose = "this node's pool" if admission.reason == "POOL_FULL" else "this sender's share of the pool"
                return TooMany(f"{whose} is full", retry_after_s=1, fix="send the identical bytes again in a second")
            case "LANE_GAP":
                return Refused(
                    f"seq {tx.seq} is too far above {next_seq}, the next one of lane {tx.lane}", field="seq",
                    fix=f"send seq {next_seq} first",
                )  # fmt: skip
            case "EXPIRED" | "TOO_FAR":
                return Refused(
                    f"validUntil {tx.valid_until} is not within the {self._valid_blocks} blocks after height "
                    f"{self._follower.height}",
                    field="valid_until_height", fix="sign again with a height in between",
                )  # fmt: skip
            case "TOO_LARGE":
                return TooLarge(f"the transaction has more than {TX_OCTETS} octets", field="payload", fix="send less")
            case "BAD_KIND":
                return Refused(f"kind {tx.kind} is not taken", field="kind", fix="see ledger.md 3")
            case "UNKNOWN_SENDER":
                return RuleRefused(
                    f"the ledger knows no server, deposit or lock of 0x{tx.sender.hex()}", rule="UNKNOWN_SENDER",
                    field="sender", fix="deposit first and wait until GET /v1/accounts/{address} shows it",
                )  # fmt: skip
            case "TOO_MANY_LANES":
                return RuleRefused(
                    "this sender has 16 lanes already", rule="TOO_MANY_LANES", field="lane", fix="use one of them"
                )
            case other:
                return Unavailable(f"consensus takes no transactions here: {other}", fix="use another node")
