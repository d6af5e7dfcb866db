"""The hash chain behind DRAW (market.md 5): tip = H^N(seed), opened one preimage at a time, from the tip down.

The seed is random, made once and kept in the journal before its tip is told to anybody: a lost seed would mean missed
draws, a guessable one would let an executor foresee its audits. The ledger says which value was opened last, so no
position is stored; the chain (2 MiB) is recomputed from the seed at start.
"""

import secrets

from edgora.ports.journal import Journal
from edgora.wire.hashing import keccak

__all__ = ["LENGTH", "AuditChain"]

LENGTH = 1 << 16
_SEEDS = "audit.seeds"


class AuditChain:
    """Chains by their seeds, newest last. An older one serves until the ledger has the newer one's tip."""

    def __init__(self, journal: Journal, length: int = LENGTH) -> None:
        self._journal, self._length = journal, length
        stored = journal.get(_SEEDS) or b""
        self._seeds = [stored[i : i + 32] for i in range(0, len(stored), 32)]
        if not self._seeds:
            self._add()
        self._tables = [self._table(seed) for seed in self._seeds]

    def _add(self) -> None:
        self._seeds = [*self._seeds[-1:], secrets.token_bytes(32)]
        self._journal.put(_SEEDS, b"".join(self._seeds))

    def _table(self, seed: bytes) -> bytes:
        """H^0(seed) .. H^N(seed), 32 octets each."""
        values = [seed]
        for _ in range(self._length):
            values.append(keccak(values[-1]))
        return b"".join(values)

    def _place(self, tip: bytes) -> tuple[bytes, int] | None:
        for table in self._tables:
            at = table.find(tip)
            while at % 32 and at >= 0:
                at = table.find(tip, at + 1)
            if at >= 0:
                return table, at // 32
        return None

    @property
    def tip(self) -> bytes:
        """The newest chain's tip: what an ADVERT commits."""
        return self._tables[-1][-32:]

    def left(self, tip: bytes) -> int:
        """Preimages that may still be opened below this tip; 0 if the tip is not ours."""
        found = self._place(tip)
        return 0 if found is None else found[1]

    def preimage(self, tip: bytes) -> bytes | None:
        """P with H(p) = tip, or None: the tip is not of our chains, or it is a seed."""
        found = self._place(tip)
        if found is None or found[1] == 0:
            return None
        table, index = found
        return table[32 * (index - 1) : 32 * index]

    def renew(self) -> None:
        """Start a new chain; its tip goes into the next ADVERT. The old one stays usable until then."""
        self._add()
        self._tables = [self._tables[-1], self._table(self._seeds[-1])]
