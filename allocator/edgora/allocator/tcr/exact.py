"""`exact`: every association, its resources settled; for M^N <= 4096 (tcr.md 9).

Each association has local optima of server power (F5), so the best few are also searched for power modes.
"""

from typing import ClassVar

import msgspec
import numpy as np

from edgora.allocator.search import Found, Search
from edgora.allocator.tcr.instance import Instance
from edgora.allocator.tcr.priced import closed, opened
from edgora.wire.errors import Refused

__all__ = ["MOST", "Exact"]

MOST = 4096
"""Associations that are enumerated at most."""

_CHUNK = 512
_BEST = 4
"""Associations whose power modes are searched."""


class Exact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """It has no options."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def solve(self, instance: Instance, search: Search) -> Found:
        """The best of all associations. Raises Refused where there are more than 4096."""
        N, M = instance.N, instance.M
        if M > 1 and N * np.log(M) > np.log(MOST + 0.5):
            detail = f"exact enumerates M^N associations, at most {MOST}: N = {N}, M = {M} has more; use priced"
            raise Refused(detail, field="N")
        climb = opened(instance, search)
        every = np.arange(M**N)[:, None] // M ** np.arange(N - 1, -1, -1) % M
        values = np.full(len(every), -np.inf)
        for first in range(0, len(every), _CHUNK):
            if search.over():
                break
            values[first : first + _CHUNK] = climb.settled(every[first : first + _CHUNK]).value
        for at in np.argsort(-values, kind="stable")[:_BEST].tolist():
            if search.over():
                break
            climb.finish(climb.modes(climb.settled(every[at : at + 1])))
        return closed(climb, search)
