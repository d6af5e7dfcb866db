"""A task's proof as a document: saved once, checked for ever, offline, with nothing but a genesis id to trust.

It holds the genesis document, the offer, the filed result's numbers and the ledger's proofs: no plaintext, no key. With
the salt (which only the UE has) an output file can be compared with the certified digest too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from edgora.client.flow import Delivery, Ticket
from edgora.client.trust import Trust, hex0x, offer_body, offer_of, unhex
from edgora.wire import rest
from edgora.wire.codec import decode, encode
from edgora.wire.errors import EdgoraError, Refused
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Kind, ReceiptProof, TxProof
from edgora.wire.market import TaskPayload

__all__ = ["Check", "ProofDocument", "check_document", "document_of", "read_document"]


class ProofDocument(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """version 1. All octets in 0x-hex."""

    version: int
    genesis: str
    task: str
    offer: rest.OfferBody
    cipher_digest: str
    salt: str | None
    proofs: list[rest.Proof]


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
        proofs=list(delivery.proofs.items),
    )  # fmt: skip


def read_document(data: bytes) -> ProofDocument:
    """Raises Refused naming the first field that is not as it should be."""
    try:
        return msgspec.json.decode(data, type=ProofDocument)
    except msgspec.DecodeError as error:
        raise Refused(f"not a proof document: {error}", field="proof") from None


def check_document(document: ProofDocument, pinned: bytes | None, output: bytes | None = None) -> Sequence[Check]:
    """Every check in order; the document is good if all are ok. Never raises for what is in the document."""
    checks: list[Check] = []
    try:
        trust = Trust.from_document(unhex(document.genesis), pinned)
    except EdgoraError as error:
        return [Check("genesis", ok=False, sentence=error.detail)]
    anchor = "as pinned" if pinned is not None else "not pinned: compare it with one that you know"
    checks.append(Check("genesis", ok=True, sentence=f"consortium {hex0x(trust.id)} of {len(trust.validators)} validators ({anchor})"))
    checks.append(_offer(trust, document))
    checks.append(_task(trust, document))
    try:
        result = trust.result(unhex(document.task), unhex(document.cipher_digest), document.proofs)
    except (EdgoraError, IndexError) as error:
        checks.append(Check("result", ok=False, sentence=str(error)))
        return checks
    if result is None:
        checks.append(Check("result", ok=False, sentence="no certified RESULT_HASH of this sealed result is among the proofs"))
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


def _task(trust: Trust, document: ProofDocument) -> Check:
    """The UE's own transaction was executed with code 0 and carried this very offer."""
    try:
        for item in document.proofs:
            if item.name != "TASK":
                continue
            if item.kind == "receipt":
                receipt = decode(unhex(item.proof), ReceiptProof)
                trust.receipt(receipt)
                if receipt.receipt.code:
                    return Check("task", ok=False, sentence=f"the TASK receipt has code {receipt.receipt.code}")
                if receipt.receipt.output[:2] == int(Kind.TASK).to_bytes(2, "big"):
                    return Check("task", ok=True, sentence=f"admitted at height {receipt.receipt.height}")
            else:
                held = decode(unhex(item.proof), TxProof)
                trust.transaction(held)
                if hex0x(decode(held.tx.tx.payload, TaskPayload).offer.digest(trust.market)) != document.task:
                    return Check("task", ok=False, sentence="the TASK transaction carries another offer")
    except (EdgoraError, IndexError) as error:
        return Check("task", ok=False, sentence=str(error))
    return Check("task", ok=False, sentence="no certified TASK receipt is among the proofs")


def _output(document: ProofDocument, output: bytes, code: int, digest: bytes) -> Check:
    if document.salt is None:
        return Check("output", ok=False, sentence="the document carries no salt, so the output cannot be compared")
    same = keccak(unhex(document.salt) + code.to_bytes(2, "big") + output) == digest
    return Check("output", ok=same, sentence="the output is the certified one" if same else "the output is NOT the certified one")


