"""Certified results without a ledger: what a quorum would have signed, made from its keys.

Measurements and tests of the contract need headers, receipts and certificates by the hundred. These are real ones, by
the wire's own structures; only the consensus that would have led to them is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edgora.crypto.sign import SigningKey
from edgora.wire.eip712 import Domain
from edgora.wire.hashing import keccak, merkle_path, merkle_root
from edgora.wire.ledger import Certificate, Epoch, Header, Phase, Receipt, ReceiptProof, Vote, quorum, validators_hash
from edgora.wire.settlement import Batch, settlement_output

__all__ = ["Quorum"]


def _filler(label: str, number: int) -> bytes:
    """32 octets that stand for a hash nobody looks behind."""
    return keccak(f"edgora lab {label} {number}".encode())


@dataclass(frozen=True)
class Quorum:
    """The validators of one epoch, all of whose keys we hold."""

    keys: tuple[SigningKey, ...]
    domain: Domain
    """The ledger's."""
    epoch: int = 0

    @property
    def addresses(self) -> tuple[bytes, ...]:
        return tuple(key.address for key in self.keys)

    def vote(self, header: Header, *, view: int = 0, phase: int = Phase.COMMIT) -> Vote:
        return Vote(phase, header.epoch, view, header.height, header.hash)

    def certificate(
        self, header: Header, *, view: int = 0, signers: Sequence[int] | None = None, phase: int = Phase.COMMIT
    ) -> Certificate:
        """Votes of these validators, in ascending order; by default of the first q."""
        chosen = sorted(range(quorum(len(self.keys))) if signers is None else signers)
        vote = self.vote(header, view=view, phase=phase)
        digest = vote.digest(self.domain)
        return Certificate(
            vote, sum(1 << index for index in chosen), tuple(self.keys[index].sign(digest) for index in chosen)
        )

    def header(
        self, height: int, *, parent: bytes | None = None, receipt_root: bytes | None = None, receipt_count: int = 0,
        next_epoch: bytes = bytes(32),
    ) -> Header:  # fmt: skip
        return Header(
            epoch=self.epoch,
            height=height,
            parent=parent if parent is not None else _filler("parent", height),
            tx_root=_filler("txs", height),
            tx_count=256,
            exec_height=height - 1,
            state_root=_filler("state", height),
            receipt_root=receipt_root if receipt_root is not None else _filler("receipts", height),
            receipt_count=receipt_count,
            next_epoch=next_epoch,
            time_ms=1_900_000_000_000 + height,
            proposer=self.keys[height % len(self.keys)].address,
        )

    def receipt_proof(
        self,
        output: bytes,
        *,
        code: int = 0,
        height: int = 1_000,
        receipts: int = 1,
        leaf: int = 0,
        links: int = 0,
        view: int = 0,
        signers: Sequence[int] | None = None,
    ) -> ReceiptProof:
        """Proof of a receipt with that output: leaf `leaf` of `receipts`, under the first of links + 1 headers."""
        receipt = Receipt(_filler("tx", height), height, leaf, code, output)
        hashes = [_filler("receipt", number) for number in range(receipts)]
        hashes[leaf] = receipt.struct_hash()
        headers = [self.header(height + 1, receipt_root=merkle_root(hashes), receipt_count=receipts)]
        for _ in range(links):
            headers.append(self.header(headers[-1].height + 1, parent=headers[-1].hash))
        certificate = self.certificate(headers[-1], view=view, signers=signers)
        return ReceiptProof(receipt, leaf, tuple(merkle_path(hashes, leaf)), tuple(headers), certificate)

    def settlement(
        self, batch: Batch, *, height: int = 1_000, receipts: int = 1, leaf: int = 0, links: int = 0, view: int = 0
    ) -> ReceiptProof:
        """Proof that a SETTLEMENT of this batch was executed with code 0."""
        output = settlement_output(batch.struct_hash())
        return self.receipt_proof(output, height=height, receipts=receipts, leaf=leaf, links=links, view=view)

    def hand_over(self, height: int, following: Sequence[bytes], params_hash: bytes) -> tuple[Header, Certificate]:
        """The last header of this epoch, which names the next validators, and its certificate."""
        announced = Epoch(self.epoch + 1, height + 1, validators_hash(tuple(following)), params_hash)
        header = self.header(height, next_epoch=announced.struct_hash())
        return header, self.certificate(header)
