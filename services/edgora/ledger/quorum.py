"""Votes and certificates (ledger.md 2, 6, 16).

Rule 1: a signer has one vote for each (phase, view, height); a second, different one is not counted but is evidence.
Rule 2: votes are verified lazily: only when q of them name one block, and only until q are good.
Rule 3: a certificate holds exactly q signatures over one Vote, so votes of different views never mix.
Rule 4: a certificate is checked against the validator set of its own epoch, never against a later one.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgora.ledger.config import Recover
from edgora.wire.eip712 import Domain
from edgora.wire.ledger import Certificate, CheckpointBody, Phase, Vote, quorum
from edgora.wire.pbft import CheckpointCertificate
from edgora.wire.units import NOBODY

__all__ = ["Cast", "CertificateCheck", "Slot", "VoteBook", "certify", "certify_checkpoint"]

_CACHE = 1_024
"""Certificates known to be good; the same one arrives in proposals, view changes and status answers."""


def certify(vote: Vote, signatures: Sequence[tuple[int, bytes]], need: int) -> Certificate:
    """A certificate of the `need` lowest signers."""
    chosen = sorted(signatures)[:need]
    return Certificate(vote, sum(1 << signer for signer, _ in chosen), tuple(signature for _, signature in chosen))


def certify_checkpoint(
    body: CheckpointBody, signatures: Sequence[tuple[int, bytes]], need: int
) -> CheckpointCertificate:
    chosen = sorted(signatures)[:need]
    bitmap = sum(1 << signer for signer, _ in chosen)
    return CheckpointCertificate(body, bitmap, tuple(signature for _, signature in chosen))


class CertificateCheck:
    """Tells good certificates from bad ones, each at most once."""

    def __init__(self, domain: Domain, epochs: dict[int, tuple[bytes, ...]], recover: Recover) -> None:
        self._domain = domain
        self._epochs = epochs
        self._recover = recover
        self._good: dict[Certificate | CheckpointCertificate, None] = {}

    def trust(self, certificate: Certificate | CheckpointCertificate) -> None:
        """Remember one that we built ourselves from verified signatures."""
        self._good[certificate] = None
        if len(self._good) > _CACHE:
            del self._good[next(iter(self._good))]

    def good(self, certificate: Certificate, phase: Phase) -> bool:
        """Whether a quorum of its epoch signed exactly this vote in this phase."""
        return certificate.vote.phase == phase and self._good_signatures(
            certificate, certificate.vote.epoch, lambda: certificate.vote.digest(self._domain)
        )

    def good_checkpoint(self, certificate: CheckpointCertificate) -> bool:
        return self._good_signatures(certificate, certificate.body.epoch, lambda: certificate.body.digest(self._domain))

    def _good_signatures(
        self, certificate: Certificate | CheckpointCertificate, epoch: int, digest: Callable[[], bytes]
    ) -> bool:
        if certificate in self._good:
            return True
        validators = self._epochs.get(epoch)
        if validators is None or certificate.bitmap.bit_length() > len(validators):
            return False
        signers = certificate.signers()
        if len(signers) != len(certificate.signatures) or len(signers) < quorum(len(validators)):
            return False
        signed = digest()
        for index, signature in zip(signers, certificate.signatures, strict=True):
            who = self._recover(signed, signature)
            if who == NOBODY or who != validators[index]:
                return False
        self.trust(certificate)
        return True


class Cast(NamedTuple):
    """One signer's vote as it came."""

    block_hash: bytes
    signature: bytes


Slot = tuple[Phase, int, int]
"""(phase, view, height)."""


class VoteBook:
    """All votes that may still form a certificate, one a signer and slot."""

    def __init__(
        self, epoch: int, validators: Sequence[bytes], domain: Domain, recover: Recover, check: CertificateCheck
    ) -> None:
        self._epoch = epoch
        self._validators = validators
        self._domain = domain
        self._recover = recover
        self._check = check
        self._need = quorum(len(validators))
        self._slots: dict[Slot, dict[int, Cast]] = {}
        self._verified: dict[Slot, set[int]] = {}
        self._certificates: dict[Slot, Certificate] = {}
        self.ripe: dict[Slot, bytes] = {}
        """Slots with q votes for one block that nobody has turned into a certificate yet, with that block."""

    def cast(self, signer: int, slot: Slot, block_hash: bytes, signature: bytes, verified: bool = False) -> Cast | None:
        """Count a vote. Returns the signer's earlier one if that names another block."""
        votes = self._slots.setdefault(slot, {})
        earlier = votes.get(signer)
        if earlier is not None:
            return earlier if earlier.block_hash != block_hash else None
        votes[signer] = Cast(block_hash, signature)
        if verified:
            self._verified.setdefault(slot, set()).add(signer)
        if slot not in self._certificates:
            count = sum(1 for cast in votes.values() if cast.block_hash == block_hash)
            if count >= self._need:
                self.ripe[slot] = block_hash
        return None

    def ripen(self, slot: Slot) -> tuple[Certificate | None, list[int]]:
        """Verify a ripe slot's votes until q are good. (certificate or None, signers whose signature was bad)."""
        block_hash = self.ripe.pop(slot)
        votes, verified = self._slots[slot], self._verified.setdefault(slot, set())
        phase, view, height = slot
        vote = Vote(phase, self._epoch, view, height, block_hash)
        digest, good, bad = vote.digest(self._domain), list[tuple[int, bytes]](), list[int]()
        for signer in sorted(votes):
            cast = votes[signer]
            if cast.block_hash != block_hash:
                continue
            if signer not in verified:
                if self._recover(digest, cast.signature) != self._validators[signer]:
                    bad.append(signer)
                    continue
                verified.add(signer)
            good.append((signer, cast.signature))
            if len(good) == self._need:
                break
        for signer in bad:
            del votes[signer]
        if len(good) < self._need:
            return None, bad
        certificate = certify(vote, good, self._need)
        self._check.trust(certificate)
        self._certificates[slot] = certificate
        return certificate, bad

    def votes(self, slot: Slot) -> dict[int, Cast]:
        """Votes of a slot by signer."""
        return self._slots.get(slot, {})

    def slots(self) -> int:
        """How many slots are kept."""
        return len(self._slots)

    def prune(self, lowest_height: int, lowest_view: int) -> None:
        """Drop all slots below a height or a view."""
        for slot in [s for s in self._slots if s[2] < lowest_height or s[1] < lowest_view]:
            del self._slots[slot]
            self._verified.pop(slot, None)
            self._certificates.pop(slot, None)
            self.ripe.pop(slot, None)
