"""A task's proof as a document: saved once, checked for ever, offline, with nothing but a genesis id to trust.

It holds the genesis document, the offer, the filed result's numbers and the ledger's proofs: no plaintext, no key. With
the salt (which only the UE has) an output file can be compared with the certified digest too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from edgora.client.flow import Delivery, Ticket
from edgora.client.trust import Trust, Untrusted, hex0x, offer_body, offer_of, unhex
from edgora.crypto.sign import recover
from edgora.wire import rest
from edgora.wire.codec import decode, encode
from edgora.wire.errors import EdgoraError, Refused
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Kind, Receipt, ReceiptProof, Tx, TxProof
from edgora.wire.market import SettlementPayload, TaskPayload

__all__ = ["Check", "ProofDocument", "ProofItem", "check_document", "document_of", "read_document"]


class ProofItem(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One proof of the ledger, without the words that REST puts beside it: nothing in a document goes unchecked."""

    name: Literal["TASK", "RESULT_HASH", "SETTLEMENT"]
    kind: Literal["receipt", "tx"]
    tx_hash: str
    proof: str


class ProofDocument(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """All octets in 0x-hex."""

    version: Literal[1]
    genesis: str
    task: str
    offer: rest.OfferBody
    cipher_digest: str
    salt: str | None
    proofs: list[ProofItem]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the document claims, and whether it holds."""

    name: str
    ok: bool
    sentence: str


def document_of(trust: Trust, ticket: Ticket, delivery: Delivery, *, with_salt: bool) -> ProofDocument:
    """The document of a delivered task. With the salt whoever holds it can test guesses of small outputs."""
    return ProofDocument(
        version=1, genesis=hex0x(encode(trust.genesis)), task=hex0x(ticket.task), offer=offer_body(ticket.offer),
        cipher_digest=hex0x(delivery.certified.cipher_digest), salt=hex0x(ticket.salt) if with_salt else None,
        proofs=[
            ProofItem(name=p.name, kind=p.kind, tx_hash=p.tx_hash, proof=p.proof)
            for p in delivery.proofs.items
            if p.name != "TX" and p.name != "RECEIPT"  # noqa: PLR1714 - mypy narrows the literal by comparisons only
        ],
    )  # fmt: skip


def read_document(data: bytes) -> ProofDocument:
    """Raises Refused naming the first field that is not as it should be."""
    try:
        return msgspec.json.decode(data, type=ProofDocument)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"not a proof document: {error}", field="proof") from None


def check_document(document: ProofDocument, pinned: bytes | None, output: bytes | None = None) -> Sequence[Check]:
    """Every check in order; the document is good if all are ok. Never raises for what is in the document."""
    checks: list[Check] = []
    try:
        trust = Trust.from_document(unhex(document.genesis), pinned)
    except EdgoraError as error:
        return [Check("genesis", ok=False, sentence=error.detail)]
    anchor = "as pinned" if pinned is not None else "not pinned: compare it with one that you know"
    checks.append(
        Check(
            "genesis",
            ok=True,
            sentence=f"consortium {hex0x(trust.id)} of {len(trust.validators)} validators ({anchor})",
        )
    )
    checks.append(_offer(trust, document))
    try:
        certified = _certified(trust, document)
        checks += [_task(trust, document, certified), *_payment(certified)]
        result = trust.result(unhex(document.task), unhex(document.cipher_digest), document.proofs)
    except (EdgoraError, IndexError) as error:
        checks.append(Check("result", ok=False, sentence=str(error)))
        return checks
    if result is None:
        checks.append(
            Check("result", ok=False, sentence="no certified RESULT_HASH of this sealed result is among the proofs")
        )
        return checks
    sentence = f"{result.code.name}, {result.fuel_used} fuel, run by server {result.executor}, certified at height {result.height}"
    checks.append(Check("result", ok=True, sentence=sentence))
    if output is not None:
        checks.append(_output(document, output, int(result.code), result.result_digest))
    return checks


def _offer(trust: Trust, document: ProofDocument) -> Check:
    same = hex0x(offer_of(document.offer).digest(trust.market)) == document.task
    sentence = f"the offer's digest is {document.task}" if same else "the offer's digest is not the task's id"
    return Check("offer", ok=same, sentence=sentence)


def _certified(trust: Trust, document: ProofDocument) -> dict[str, tuple[Receipt, Tx]]:
    """By name: what was executed, and with which answer. Raises Untrusted for the first proof that does not hold."""
    receipts: dict[tuple[str, str], Receipt] = {}
    txs: dict[tuple[str, str], Tx] = {}
    for item in document.proofs:
        place = (item.name, item.tx_hash)
        if item.kind == "receipt":
            told = decode(unhex(item.proof), ReceiptProof)
            trust.receipt(told)
            receipts[place] = told.receipt
            named = told.receipt.tx_hash
        else:
            held = decode(unhex(item.proof), TxProof)
            trust.transaction(held)
            if recover(held.tx.tx.digest(trust.domain), held.tx.signature) != held.tx.tx.sender:
                raise Untrusted(f"the {item.name} transaction is not signed by its sender", field="proof")
            txs[place] = held.tx.tx
            named = held.tx.tx.digest(trust.domain)
            if held.tx.tx.kind != Kind[item.name]:
                raise Untrusted(f"a transaction of kind {held.tx.tx.kind} is presented as {item.name}", field="proof")
        if hex0x(named) != item.tx_hash:
            raise Untrusted(f"the proof of {item.name} is about transaction {hex0x(named)}", field="proof")
    if receipts.keys() != txs.keys():
        raise Untrusted("receipts and transactions do not come in pairs", field="proof")
    found = {}
    for (name, tx_hash), receipt in receipts.items():
        if receipt.code:
            raise Untrusted(f"the {name} receipt has code {receipt.code}", field="proof")
        if name in found:
            raise Untrusted(f"there are two proofs of {name}", field="proof")
        found[name] = (receipt, txs[name, tx_hash])
    return found


def _task(trust: Trust, document: ProofDocument, certified: Mapping[str, tuple[Receipt, Tx]]) -> Check:
    """The UE's own transaction was executed with code 0 and carried this very offer."""
    if "TASK" not in certified:
        return Check("task", ok=False, sentence="no certified TASK receipt is among the proofs")
    receipt, tx = certified["TASK"]
    offer = decode(tx.payload, TaskPayload).offer
    if hex0x(offer.digest(trust.market)) != document.task or offer.ue != tx.sender:
        return Check("task", ok=False, sentence="the TASK transaction carries another offer")
    return Check("task", ok=True, sentence=f"admitted at height {receipt.height}, signed by {hex0x(tx.sender)}")


def _payment(certified: Mapping[str, tuple[Receipt, Tx]]) -> Sequence[Check]:
    """Only there if the task's batch was settled when the document was made."""
    if "SETTLEMENT" not in certified:
        return ()
    receipt, tx = certified["SETTLEMENT"]
    batch = decode(tx.payload, SettlementPayload).batch_id
    return (Check("payment", ok=True, sentence=f"batch {batch} was certified for payment at height {receipt.height}"),)


def _output(document: ProofDocument, output: bytes, code: int, digest: bytes) -> Check:
    if document.salt is None:
        return Check("output", ok=False, sentence="the document carries no salt, so the output cannot be compared")
    same = keccak(unhex(document.salt) + code.to_bytes(2, "big") + output) == digest
    return Check(
        "output", ok=same, sentence="the output is the certified one" if same else "the output is NOT the certified one"
    )
