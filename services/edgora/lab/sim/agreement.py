"""What correct machines publish, held against one chain (ledger.md 19: P1, P2, P6, P7).

The first machine that publishes a height sets the block there; the slow reference executes it once. Whoever publishes
that height after it, or takes its state from its peers, must come to the same block, receipts and state root. The first
commit certificate of a height is checked by the product's offline check. Every difference is a `Violation`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgora.crypto.proof import check_certificate
from edgora.lab.sim.load import Load
from edgora.lab.sim.reference import Reference
from edgora.lab.sim.violation import Violation
from edgora.ledger.effects import Executed, SnapshotImage
from edgora.wire.eip712 import Domain
from edgora.wire.ledger import Certificate, Phase

if TYPE_CHECKING:
    from edgora.lab.sim.host import Host

__all__ = ["Agreement"]

ROOT_EVERY = 40
"""Blocks between two from-scratch checks of the state root."""


class Agreement:
    """The one chain, with what was published beside it."""

    def __init__(
        self,
        reference: Reference,
        validators: Sequence[bytes],
        domain: Domain,
        recover: Callable[[bytes, bytes], bytes],
        load: Load,
    ) -> None:
        self._reference = reference
        self._validators = validators
        self._domain = domain
        self._recover = recover
        self._load = load
        self._hashes: list[bytes] = [bytes(reference.headers[0].struct_hash())]
        self.certificates: dict[int, Certificate] = {}
        """A commit certificate by height, where some replica published one."""
        self.bodies: dict[int, Executed] = {}

    def published(self, host: "Host", executed: Executed) -> bool:
        """A correct machine says COMMITTED. True if it is the first one at this height."""
        reference, header = self._reference, executed.block.header
        height, block_hash = header.height, bytes(header.struct_hash())
        first = height == reference.height + 1
        if height > reference.height + 1:
            raise Violation(
                "P1", f"replica {host.name} publishes height {height} before {reference.height + 1} is known"
            )
        if first:
            reference.commit(executed.block, executed.state_root)
            self._hashes.append(block_hash)
            self.bodies[height] = executed
            self._load.check(*reference.ran)
            if height % ROOT_EVERY == 0:
                reference.check_root()
        if self._hashes[height] != block_hash:
            raise Violation("P1", f"replica {host.name} commits another block at height {height}")
        if executed.receipts != reference.receipts[height]:
            raise Violation("P6", f"replica {host.name} has other receipts at height {height}: {executed.receipts} "
                            f"where the order gives {reference.receipts[height]}")  # fmt: skip
        if executed.state_root != reference.roots[height]:
            raise Violation("P2", f"replica {host.name} has another state root after height {height}")
        if executed.certificate is not None and height not in self.certificates:
            self._check_certificate(height, block_hash, executed.certificate)
        host.height = max(host.height, height)
        self._load.published(host, executed.receipts)
        return first

    def _check_certificate(self, height: int, block_hash: bytes, certificate: Certificate) -> None:
        vote = certificate.vote
        if (vote.phase, vote.height, vote.block_hash) != (Phase.COMMIT, height, block_hash):
            raise Violation("P7", f"the certificate beside block {height} signs {vote}")
        fault = check_certificate(certificate, self._validators, self._domain, self._recover)
        if fault is not None:
            raise Violation("P7", f"the certificate beside block {height}: {fault}")
        self.certificates[height] = certificate

    def installed(self, host: "Host", image: SnapshotImage) -> None:
        """A correct machine took its state from its peers: it must be the state of the agreed chain."""
        if image.height > self._reference.height or self._hashes[image.height] != image.block_hash:
            raise Violation("P1", f"replica {host.name} takes the state of an unknown block at height {image.height}")
        if image.state_root != self._reference.roots[image.height]:
            raise Violation("P2", f"replica {host.name} takes another state at height {image.height}")
        host.height = max(host.height, image.height)

    def results_certified(self) -> bool:
        """Whether the results of every block that has some stand under a certified header."""
        reference = self._reference
        results = next((h for h in range(reference.height, 0, -1) if reference.receipts[h]), 0)
        top = max(self.certificates, default=0)
        return results == 0 or reference.headers[top].exec_height >= results
