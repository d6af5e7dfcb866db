"""What a client believes, and why (README.md 1, Trust anchor).

Rule 1: the anchor is the genesis id. It comes from a setting or, on first use, from the node, and that is said aloud.
Rule 2: everything else follows from it: the genesis document hashes to the id and names the validators; a statement of
the ledger is believed if a quorum of them signed it; a server's RSA key only if its document hashes to the certified
metaHash.
Rule 3: a node is a messenger. One dishonest node can withhold, never convince.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from edgora.crypto.keys import SealingPublicKey
from edgora.crypto.proof import check_receipt_proof, check_tx_proof
from edgora.crypto.sign import recover
from edgora.wire import rest
from edgora.wire.codec import decode
from edgora.wire.errors import BadSignature, Refused, WireError
from edgora.wire.genesis import Genesis
from edgora.wire.ledger import Kind, ReceiptProof, TxProof
from edgora.wire.market import Offer, ResultCode, ResultHash, Stored
from edgora.wire.metadata import ServerMetadata
from edgora.wire.units import OfferId

__all__ = ["CertifiedResult", "StatedProof", "Trust", "Untrusted", "hex0x", "offer_body", "offer_of", "unhex"]

P = TypeVar("P", TxProof, ReceiptProof)


class StatedProof(Protocol):
    """A proof as REST or a saved document states it; octets in 0x-hex."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def tx_hash(self) -> str: ...
    @property
    def proof(self) -> str: ...


class Untrusted(BadSignature):
    """A node said something that its proof does not carry."""

    code = "untrusted"


@dataclass(frozen=True, slots=True)
class CertifiedResult:
    """A RESULT_HASH that a quorum of the consortium executed with code 0."""

    task: OfferId
    code: ResultCode
    result_digest: bytes
    cipher_digest: bytes
    fuel_used: int
    executor: int
    """Server id."""
    height: int
    """Block that holds the transaction."""


class Trust:
    """A genesis document and what follows from it."""

    __slots__ = ("domain", "genesis", "id", "market", "validators")

    def __init__(self, genesis: Genesis) -> None:
        self.genesis = genesis
        self.id = genesis.id
        self.domain = genesis.ledger_domain()
        self.market = genesis.market_domain()
        self.validators = genesis.addresses

    @classmethod
    def from_document(cls, document: bytes, pinned: bytes | None) -> "Trust":
        """Trust in a document whose hash is the pinned genesis id; with no pin, whatever it hashes to (first use)."""
        trust = cls(decode(document, Genesis))
        if pinned is not None and trust.id != pinned:
            raise Untrusted(
                f"the node's genesis id is {hex0x(trust.id)}, pinned is {hex0x(pinned)}",
                field="genesis_id",
                fix="use a node of the pinned consortium, or forget the pin if the deployment was made anew",
            )
        return trust

    def server_key(self, server: rest.Server) -> SealingPublicKey:
        """The RSA key of a server, if its document hashes to the metaHash of the genesis document."""
        if server.keys is None:
            raise Refused(f"server {server.id} has published no key document yet", field="source")
        document = unhex(server.keys.document)
        metadata = decode(document, ServerMetadata)
        known = {s.id: s.meta_hash for s in self.genesis.servers}
        if known.get(server.id) != metadata.hash:
            raise Untrusted(f"the key document of server {server.id} is not the certified one", field="source")
        return SealingPublicKey(metadata.rsa_spki)

    def signer(self, server: int) -> bytes:
        """Address that a server signs Stored and Held with."""
        for known in self.genesis.servers:
            if known.id == server:
                return known.signer
        raise Refused(f"no server {server} in the genesis document", field="server")

    def check_stored(self, offer: Offer, stored: bytes) -> None:
        """Raises Untrusted unless the offer's source signed that it keeps the input."""
        digest = Stored(offer.digest(self.market)).digest(self.domain)
        if recover(digest, stored) != self.signer(offer.source):
            raise Untrusted(f"Stored is not signed by server {offer.source}", field="stored")

    def receipt(self, proof: ReceiptProof) -> None:
        """Raises Untrusted unless a quorum certified the receipt."""
        failure = check_receipt_proof(proof, self.validators, self.domain)
        if failure is not None:
            raise Untrusted(f"receipt proof: {failure}", field="proof")

    def transaction(self, proof: TxProof) -> None:
        """Raises Untrusted unless a quorum certified the block that holds the transaction."""
        failure = check_tx_proof(proof, self.validators, self.domain)
        if failure is not None:
            raise Untrusted(f"transaction proof: {failure}", field="proof")

    def result(self, task: bytes, cipher_digest: bytes, proofs: Sequence[StatedProof]) -> CertifiedResult | None:
        """The certified filing of this task whose sealed result has this digest; None if none is among the proofs.

        A code-0 receipt says that the rule accepted the transaction of that hash; the transaction, proven to stand in
        a certified block, says what was filed. Filings of auditors and of other results of the task do not fit the
        digest.
        """
        transactions = {p.tx_hash: p for p in proofs if p.kind == "tx" and p.name == "RESULT_HASH"}
        for item in proofs:
            if item.kind != "receipt" or item.name != "RESULT_HASH" or item.tx_hash not in transactions:
                continue
            receipt = _proof(item, ReceiptProof)
            held = _proof(transactions[item.tx_hash], TxProof)
            self.receipt(receipt)
            self.transaction(held)
            tx = held.tx.tx
            if tx.digest(self.domain) != receipt.receipt.tx_hash or receipt.receipt.code or tx.kind != Kind.RESULT_HASH:
                continue
            filed = decode(tx.payload, ResultHash)
            if filed.offer_id != task or filed.cipher_digest != cipher_digest:
                continue
            executor = next((s.id for s in self.genesis.servers if s.signer == tx.sender), None)
            if executor is None:
                continue
            return CertifiedResult(
                OfferId(task), ResultCode(filed.code), filed.result_digest, cipher_digest, filed.fuel_used, executor,
                held.headers[0].height,
            )  # fmt: skip
        return None


def _proof(item: StatedProof, kind: type[P]) -> P:
    try:
        return decode(unhex(item.proof), kind)
    except WireError as error:
        raise Untrusted(f"proof of {item.name}: {error.detail}", field="proof") from None


def hex0x(data: bytes) -> str:
    return "0x" + data.hex()


def unhex(text: str) -> bytes:
    """Octets of a 0x-hex string. Raises WireError."""
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise WireError(f"{text[:20]!r} is not 0x-hex") from None


def offer_body(offer: Offer) -> rest.OfferBody:
    """The offer in REST's form."""
    fields: dict[str, Any] = msgspec.structs.asdict(offer)
    json: dict[str, Any] = {k: hex0x(v) if isinstance(v, bytes) else v for k, v in fields.items()}
    return rest.OfferBody(**json)


def offer_of(body: rest.OfferBody) -> Offer:
    """The offer that REST's form stands for."""
    values: dict[str, Any] = {f: getattr(body, f) for f in Offer.__struct_fields__}
    fields: dict[str, Any] = {k: unhex(v) if isinstance(v, str) else v for k, v in values.items()}
    return Offer(**fields)
