"""A server's audit chain: the preimages that its DRAWs open one after the other (market.md 5).

tip = H^N(seed) is committed by an ADVERT; each DRAW shows the next p with H(p) = tip, and p becomes the tip. Whoever
knows the seed knows them all, nobody else the next one. The state holds the tip, so a server that restarts finds its
place again from the seed alone.
"""

from edgora.wire.hashing import keccak
from edgora.wire.units import Digest

__all__ = ["LENGTH", "AuditChain"]

LENGTH = 2**16
"""N: draws until the chain must be renewed."""


class AuditChain:
    """All links of one chain, seed first. 2^16 links take some 4 MiB and a tenth of a second."""

    __slots__ = ("_links", "_place")

    def __init__(self, seed: bytes, length: int = LENGTH) -> None:
        links = [Digest(seed)]
        for _ in range(length):
            links.append(keccak(links[-1]))
        self._links = links
        self._place = length

    @property
    def first_tip(self) -> Digest:
        """What the ADVERT commits."""
        return self._links[-1]

    def preimage(self, tip: bytes) -> Digest | None:
        """The p with H(p) = tip; None if the tip is not of this chain, or is its end: time to renew."""
        while self._place and self._links[self._place] != tip:
            self._place -= 1
        if self._place == 0:
            if tip not in self._links:
                self._place = len(self._links) - 1
                return None
            self._place = self._links.index(Digest(tip))
        return self._links[self._place - 1] if self._place else None

    def left(self, tip: bytes) -> int:
        """Draws that are left from this tip; 0 also for a foreign tip."""
        return self._place if self.preimage(tip) is not None else 0
