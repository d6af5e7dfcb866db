"""This node's audit chains at rest (market.md 5): the seeds behind the tips that its ADVERTs commit.

A seed is random, made once and durable before its tip is told to anybody: a lost one would mean missed draws, a
guessable one would let an executor foresee its audits. The ledger's state says which value was opened last, so no
position is stored. After a renewal the older chain serves until the ledger has the newer one's tip.
"""

import secrets

from edgora.market.draws import LENGTH, AuditChain
from edgora.ports.journal import Journal

__all__ = ["AuditChains"]

_SEEDS = "audit.seeds"


class AuditChains:
    """At most two chains, the newest last."""

    def __init__(self, journal: Journal, length: int = LENGTH) -> None:
        self._journal, self._length = journal, length
        stored = journal.get(_SEEDS) or b""
        self._seeds = [stored[i : i + 32] for i in range(0, len(stored), 32)]
        self._chains = [AuditChain(seed, length) for seed in self._seeds]
        if not self._seeds:
            self.renew()

    @property
    def tip(self) -> bytes:
        """The newest chain's first tip: what an ADVERT commits."""
        return self._chains[-1].first_tip

    def left(self, tip: bytes) -> int:
        """Draws left from this tip; 0 if it is not ours."""
        return max(chain.left(tip) for chain in self._chains)

    def newest_has(self, tip: bytes) -> bool:
        """Whether the ledger's tip is of the newest chain: then its first tip was used, and may never be committed again."""
        return tip == self._seeds[-1] or self._chains[-1].left(tip) > 0

    def preimage(self, tip: bytes) -> bytes | None:
        """P with H(p) = tip; None if the tip is not of our chains, or is the end of one."""
        return next((found for chain in self._chains if (found := chain.preimage(tip)) is not None), None)

    def renew(self) -> None:
        """Start a new chain; its tip goes into the next ADVERT."""
        self._seeds = [*self._seeds[-1:], secrets.token_bytes(32)]
        self._journal.put(_SEEDS, b"".join(self._seeds))
        self._chains = [*self._chains[-1:], AuditChain(self._seeds[-1], self._length)]
