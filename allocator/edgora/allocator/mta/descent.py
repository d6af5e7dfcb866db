"""The Lagrangian bound over blocks of servers (`blocks`): subgradient descent on lists of sets, and what it shows.

At multipliers u >= 0 of the tasks,

    L(u) = sum_j u_j + sum_b max(0, max_S V_S - u(S)) + the knapsacks of servers that have no block

is at least what any plan is worth. With lists an evaluation takes microseconds, so the descent is as good as the LP of
column generation over the same blocks, in a small part of its time. Sets that lose more than the gap are in no better plan.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import compiled
from edgora.allocator.mta.blocks import BITS, Block, Flat, profits, sums
from edgora.allocator.mta.lagrange import Lagrangian, deflected, evaluate

__all__ = ["Descent", "descended"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_EVALUATIONS = 500
_STALL, _SHORTEN = 5, 0.7
"""Evaluations without progress after which steps are shortened, and to what."""
_NEAR, _MOST = 0.3, 1_000
"""The descent is over the sets that lose at most this share of the gap, and at most so many of each block."""
_ROUNDING = 1e-12
_BYTES = 8


class Descent:
    """Better multipliers than `u`; the bound there, and what each set and each block has there."""

    def __init__(
        self, blocks: Sequence[Block], unlisted: Sequence[int], lagrangian: Lagrangian, u: Floats, worth: float
    ) -> None:
        self._blocks, self._lagrangian = blocks, lagrangian
        width = -(-len(u) // BITS)
        flat = Flat.of(blocks, width)
        self._knapsacks: Any = lagrangian.knapsacks(unlisted)
        self.u = u
        self.bound, profit, parts = self._at(flat, u)
        gap = self.bound - worth
        loss = _per_set(flat, parts) - profit
        near = loss <= _NEAR * gap
        for first, last in zip(flat.starts[:-1].tolist(), flat.starts[1:].tolist(), strict=True):
            if int(near[first:last].sum()) > _MOST:
                near[first:last] &= loss[first:last] <= np.partition(loss[first:last], _MOST)[_MOST]
        active, best = flat.only(near), u.copy()
        held = np.zeros((len(blocks) + len(unlisted), len(u)))
        self.evaluations = int(
            _descend(
                _EVALUATIONS, worth, active.tasks, active.value, active.starts, u.copy(), best, held,
                np.zeros((width * _BYTES, 256)), *self._knapsacks,
            )
        )  # fmt: skip
        bound, better, others = self._at(flat, best)
        if bound < self.bound:
            self.u, self.bound, profit, parts = best, bound, better, others
        self.parts = parts
        """Most profit of each block (b,)."""
        loss = _per_set(flat, parts) - profit
        self.losses = [loss[a:b] for a, b in zip(flat.starts[:-1].tolist(), flat.starts[1:].tolist(), strict=True)]
        """What each set of each block falls short of it."""
        self.taken: Bools = self._knapsacks[5]
        """What open servers take there (o,c)."""
        self.share = held / max(1, self.evaluations)
        """How often each block, and after them each open server, held each task (b + o, c): near an LP's solution."""

    def _at(self, flat: Flat, u: Floats) -> tuple[float, Floats, Floats]:
        """L(u), each set's profit and each block's most."""
        profit = profits(flat, u)
        parts = np.zeros(len(self._blocks))
        listed = np.flatnonzero(np.diff(flat.starts))
        if len(listed):
            parts[listed] = np.maximum(np.maximum.reduceat(profit, flat.starts[listed]), 0.0)
        value, weight, room, unit, *work = self._knapsacks
        rest: float = evaluate(value, weight, room, unit, u, *work)
        return (rest + float(parts.sum())) * (1.0 + _ROUNDING), profit, parts


def descended(flat: Flat, lagrangian: Lagrangian, u: Floats, target: float, evaluations: int) -> Floats:
    """The multipliers of the least bound that so many evaluations find on these sets alone, or the first below `target`."""
    best, table = u.copy(), np.zeros((flat.tasks.shape[1] * _BYTES, 256))
    held = np.zeros((len(flat.starts) - 1, len(u)))
    nobody: Any = lagrangian.knapsacks(())
    _descend(evaluations, target, flat.tasks, flat.value, flat.starts, u.copy(), best, held, table, *nobody)
    return best


def _per_set(flat: Flat, parts: Floats) -> Floats:
    return np.repeat(parts, np.diff(flat.starts))


@compiled
def _descend(
    evaluations: int, target: float, tasks: Ints, value: Floats, starts: Ints, u: Floats, best_u: Floats, held: Floats,
    table: Floats, open_value: Floats, weight: Floats, room: Floats, unit: float, servers: Floats, taken: Bools,
    items: Ints, scratch: Floats, take: Bools, real: Floats, whole: Ints, kept: Bools,
) -> int:  # fmt: skip
    """Deflected steps, as in `lagrange`. Counts in `held` who held what; returns how often."""
    blocks, width, count = len(starts) - 1, tasks.shape[1], len(u)
    slope, direction = np.empty(count), np.zeros(count)
    least, factor, stalled = math.inf, 1.0, 0
    for turn in range(evaluations):
        total = evaluate(open_value, weight, room, unit, u, servers, taken, items, scratch, take, real, whole, kept)
        sums(u, table)
        for j in range(count):
            slope[j] = 1.0
        for b in range(blocks):
            best, row = 0.0, -1
            for k in range(starts[b], starts[b + 1]):
                profit = value[k]
                for word in range(width):
                    left, at = tasks[k, word], word * _BYTES
                    while left > 0:
                        profit -= table[at, left & 255]
                        left >>= 8
                        at += 1
                if profit > best:
                    best, row = profit, k
            total += best
            if row >= 0:
                for word in range(width):
                    left, j = tasks[row, word], word * BITS
                    while left > 0:
                        if left & 1:
                            slope[j] -= 1.0
                            held[b, j] += 1.0
                        left >>= 1
                        j += 1
        for i in range(len(servers)):
            for j in range(count):
                if taken[i, j]:
                    slope[j] -= 1.0
                    held[blocks + i, j] += 1.0
        if total < least:
            if least == math.inf or total < least - 1e-3 * (least - target):
                stalled = 0
            least = total
            best_u[:] = u
        else:
            stalled += 1
            if stalled > _STALL:
                factor, stalled = factor * _SHORTEN, 0
                u[:] = best_u
                direction[:] = 0.0
                continue
        length = deflected(u, slope, direction)
        if total <= target or length <= 0.0:
            return turn + 1
        step = factor * (total - target) / length
        for j in range(count):
            u[j] = max(0.0, u[j] - step * direction[j])
    return evaluations
