"""The two exact halves of a slot: an assignment of UEs to servers, and a fractional knapsack of hash power.

Worths add up and hash power does not depend on who is served, so the best choice of a slot is the best matching plus
the best split (baas.md 6). Everything that scores pairs, the learned policies too, decodes here.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from edgora.allocator.baas.model import IDLE, Floats, Ints
from edgora.allocator.baas.params import P_MIN

__all__ = ["fill", "match", "matching"]

_LARGE = 20_000
"""Pairs from which on pruning costs less than it saves."""


def matching(worth: NDArray[np.floating]) -> Ints:
    """UE of each server (M,) in a matching of the greatest sum of worths (U,M); IDLE rather than a worth <= 0."""
    U, M = worth.shape
    rows = None
    if _LARGE < U * M and 4 * M < U:
        # A server never needs a UE beyond its best M: one of those is free, whatever the M - 1 others took.
        best = np.argpartition(worth, U - M, axis=0)[U - M :]
        rows = np.unique(best)
        worth = worth[rows]
    gains = np.maximum(worth, 0.0)
    ues, servers = linear_sum_assignment(gains, maximize=True)
    good = gains[ues, servers] > 0.0
    assign = np.full(M, IDLE, dtype=np.int64)
    assign[servers[good]] = ues[good] if rows is None else rows[ues[good]]
    return assign


def match(worth: NDArray[np.floating]) -> Ints:
    """`matching` for each copy: (B,U,M) -> (B,M)."""
    return np.stack([matching(one) for one in worth])


def fill(value: Floats, cap: Floats, total: float) -> Floats:
    """Hash power of the greatest sum of value x power: 20 for all, then up to cap by descending value until `total` is spent.

    `value` and `cap` are (..., M).
    """
    order = np.argsort(-value, axis=-1, kind="stable")
    room = np.take_along_axis(cap, order, axis=-1) - P_MIN
    before = np.cumsum(room, axis=-1) - room
    budget = total - P_MIN * value.shape[-1]
    extra = np.clip(budget - before, 0.0, room)
    power: Floats = np.empty_like(extra)
    np.put_along_axis(power, order, extra, axis=-1)
    power += P_MIN
    return power
