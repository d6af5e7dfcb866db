"""Exact: every partition of the users over the servers (F8), for up to 12 users.

Users compete within a server alone (F3), so the worth of every set of users on every server is all there is to know:
M 2^N groups, solved together. The best partition follows by dynamic programming over sets of users: with servers 0..m,
set S is worth the best of group (T, m) plus what S without T is worth on servers 0..m-1, in 3^N steps a server.
"""

from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgora.allocator.dpe.continuous import Groups, continuous, solve_groups
from edgora.allocator.dpe.model import Model
from edgora.allocator.dpe.pairs import Pairs
from edgora.allocator.search import Found, Search
from edgora.wire.errors import Refused

__all__ = ["MOST_USERS", "Exact"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

MOST_USERS = 12
_CHUNK = 2048
"""Groups that are solved at once: how often the clock is looked at."""


class Exact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def solve(self, model: Model, search: Search) -> Found:
        e = model.instance
        if e.N > MOST_USERS:
            raise Refused(f"N is {e.N}: exact takes at most {MOST_USERS} users; use priced", field="N")
        pairs = Pairs.of(model)
        first = continuous(model, model.gucaa(), pairs)
        start = Found(first.decision, status="interrupted")
        search.keep(start, model.dpe(first.decision))
        sets = np.arange(1, 1 << e.N)
        member = (sets[:, None] >> np.arange(e.N)) & 1 == 1
        worth, loosest = np.zeros((e.M, 1 << e.N)), 0.0
        for m in range(e.M):
            for at in range(0, len(sets), _CHUNK):
                if search.over():
                    return Found(first.decision, status="interrupted" if search.stopped() else "time_limit")
                part, users = np.nonzero(member[at : at + _CHUNK])
                begin = np.searchsorted(part, np.arange(len(member[at : at + _CHUNK])))
                solved = solve_groups(pairs, Groups(users * e.M + m, begin, np.full(len(begin), m)))
                worth[m, at + 1 : at + 1 + len(begin)] = solved.worth
                loosest = max(loosest, float((solved.bound - solved.worth).max()))
        best = continuous(model, _partition(worth, e.N), pairs)
        bound = model.user_part + max(best.bound, best.worth + min(e.M, e.N) * loosest)
        info = {"groups": int(e.M * len(sets)), "certificate": loosest, "residual": best.residual}
        search.keep(Found(best.decision, bound, "optimal", info), model.dpe(best.decision))
        return Found(best.decision, bound, "optimal", info)


def _partition(worth: Floats, users: int) -> Indices:
    """The best association; worth[m, T] is that of the set T on server m."""
    servers, everyone = len(worth), (1 << users) - 1
    best, taken = worth[0].copy(), [np.arange(everyone + 1)]
    for m in range(1, servers):
        value, choice = best.copy(), np.zeros(everyone + 1, dtype=np.int64)
        for here in range(1, everyone + 1):
            rest = _subsets(everyone & ~here)
            both = rest | here
            offered = worth[m, here] + best[rest]
            better = offered > value[both]
            value[both[better]], choice[both[better]] = offered[better], here
        best = value
        taken.append(choice)
    assoc, left = np.zeros(users, dtype=np.int64), everyone
    for m in range(servers - 1, -1, -1):
        here = int(taken[m][left])
        assoc[(here >> np.arange(users)) & 1 == 1] = m
        left &= ~here
    return assoc


def _subsets(of: int) -> Indices:
    """All subsets of a set of users, the empty one first."""
    found = np.zeros(1, dtype=np.int64)
    while of:
        lowest = of & -of
        found = np.concatenate((found, found | lowest))
        of ^= lowest
    return found
