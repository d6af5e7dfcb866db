"""Offline checks of certificates and proofs (ledger.md 8, 15). All that is trusted is a validator list."""

from collections.abc import Callable, Sequence

from edgora.crypto.sign import recover
from edgora.wire.eip712 import Domain
from edgora.wire.hashing import merkle_verify
from edgora.wire.ledger import Certificate, Phase, ReceiptProof, TxProof, quorum
from edgora.wire.state_proof import StateProof
from edgora.wire.units import NOBODY

Recover = Callable[[bytes, bytes], bytes]
"""(digest, signature) -> signer's address; simulations pass the one of their registry."""

__all__ = ["check_certificate", "check_receipt_proof", "check_state_proof", "check_tx_proof"]


def check_certificate(
    certificate: Certificate, validators: Sequence[bytes], domain: Domain, recover: Recover = recover
) -> str | None:
    """None if at least a quorum of validators signed this very vote; else one sentence that says what fails."""
    signers = certificate.signers()
    if certificate.bitmap.bit_length() > len(validators):
        return f"the certificate names signer {signers[-1]}, the epoch has {len(validators)} validators"
    if len(signers) != len(certificate.signatures):
        return f"{len(certificate.signatures)} signatures for {len(signers)} signers"
    if len(signers) < quorum(len(validators)):
        return f"{len(signers)} of {quorum(len(validators))} needed signatures"
    digest = certificate.vote.digest(domain)
    for index, signature in zip(signers, certificate.signatures, strict=True):
        signer = recover(digest, signature)
        if signer == NOBODY or signer != validators[index]:
            return f"signature of validator {index} is not by {validators[index].hex()}"
    return None


def _check_chain(
    proof: TxProof | ReceiptProof | StateProof,
    validators: Sequence[bytes],
    domain: Domain,
    epoch: int,
    recover: Recover,
) -> str | None:
    if not proof.headers:
        return "the proof holds no header"
    for parent, child in zip(proof.headers, proof.headers[1:], strict=False):
        if child.parent != parent.hash or child.height != parent.height + 1:
            return f"header {child.height} is not a child of header {parent.height}"
    last, vote = proof.headers[-1], proof.certificate.vote
    if vote.phase != Phase.COMMIT or vote.epoch != epoch or last.epoch != epoch:
        return f"the certificate is phase {vote.phase} of epoch {vote.epoch}; a commit of epoch {epoch} is needed"
    if vote.height != last.height or vote.block_hash != last.hash:
        return "the certificate signs another block than the proof's last header"
    return check_certificate(proof.certificate, validators, domain, recover)


def check_receipt_proof(
    proof: ReceiptProof, validators: Sequence[bytes], domain: Domain, epoch: int = 0, recover: Recover = recover
) -> str | None:
    """None if the receipt is certified by a quorum of that epoch; else the reason why not."""
    failure = _check_chain(proof, validators, domain, epoch, recover)
    if failure is None and not proof.included():
        return "the receipt is not under the first header's receipt root"
    return failure


def check_tx_proof(
    proof: TxProof, validators: Sequence[bytes], domain: Domain, epoch: int = 0, recover: Recover = recover
) -> str | None:
    """None if the transaction, with that very signature, stands in a certified block; else the reason why not."""
    failure = _check_chain(proof, validators, domain, epoch, recover)
    if failure is not None:
        return failure
    head = proof.headers[0]
    leaf = proof.tx.tx.digest(domain) + proof.tx.signature
    if not merkle_verify(leaf, proof.index, head.tx_count, proof.path, head.tx_root):
        return "the transaction is not under the first header's transaction root"
    return None


def check_state_proof(
    proof: StateProof, validators: Sequence[bytes], domain: Domain, epoch: int = 0, recover: Recover = recover
) -> str | None:
    """None if `proof.value` is what the certified state after `proof.height` says of the key; else the reason."""
    failure = _check_chain(proof, validators, domain, epoch, recover)
    if failure is None and not proof.included():
        return "bucket and path do not add up to the first header's state root"
    return failure
