"""One set of each block, no two with a task in common: branch and bound over listed sets (`blocks`, `subsets`).

At multipliers u >= 0 a plan in which block b takes the set S_b is worth

    L(u) - sum_b loss_b(S_b) - sum of u_j over the tasks j in no S_b

where loss_b is what a set brings less than its block's best. A plan close to the bound takes sets of small loss and leaves
out hardly a task, because multipliers are large beside the gap. So this is a search for an exact cover within a budget. At
each node, as long as many sets leave,

1. a set leaves that loses more than the budget less the least that the other blocks lose;
2. a set leaves that holds a task which all sets of another block hold;
3. a set leaves that lacks a task which is worth more than the budget and which no other block can hold;
4. a task that no block can hold is paid for.

Then one block takes its sets in turn, by rising loss: the one with the fewest for the loss they span.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import compiled
from edgora.allocator.mta.blocks import BITS, Flat

__all__ = ["Selection"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Rows = NDArray[np.int32]

_AGAIN = 0.8
"""The sets of a node are looked at again when no more than this share of them is left."""
_LEVEL, _FRESH, _LOOKS, _FOUND = 0, 1, 2, 3
"""In the state: level of the tree, -1 when the search is done; whether its node is new; looks at sets, and selections, so far."""


class Selection:
    """The search for the least loss below a gap. It can be stopped at any look, and goes on where it was."""

    def __init__(self, flat: Flat, losses: Floats, u: Floats, gap: float) -> None:
        """losses (k,): of the sets, ascending within each block; u: the tasks' multipliers (c,)."""
        blocks, sets, width = len(flat.starts) - 1, len(flat.value), flat.tasks.shape[1]
        active = np.empty((blocks + 1, sets), dtype=np.int32)  # of each level the rows that are left, block by block
        begin, end = np.zeros((blocks + 1, blocks), dtype=np.int64), np.zeros((blocks + 1, blocks), dtype=np.int64)
        active[0], begin[0], end[0] = np.arange(sets), flat.starts[:-1], flat.starts[1:]
        waiting = np.ones((blocks + 1, blocks), dtype=np.bool_)  # blocks that have not taken a set
        spent, held = np.zeros(blocks + 1), np.zeros((blocks + 1, width), dtype=np.int64)
        branch, place = np.zeros(blocks + 1, dtype=np.int64), np.zeros(blocks + 1, dtype=np.int64)
        levels = (active, begin, end, waiting, spent, held, branch, place)
        chosen, self._best = np.full(blocks, -1), np.full(blocks, -1)
        self._least = np.array([gap])
        self._state = np.array([0, 1, 0, 0])
        self._search: tuple[Any, ...] = (
            flat.tasks, losses, u, *levels, chosen, self._best, self._least, self._state
        )  # fmt: skip

    @property
    def loss(self) -> float:
        """The least loss so far, or the gap."""
        return float(self._least[0])

    @property
    def rows(self) -> Ints | None:
        """Of each block the row of its set in the best selection so far, among all the sets (b,)."""
        return self._best if self._state[_FOUND] else None

    @property
    def done(self) -> bool:
        """Whether there is no better selection."""
        return bool(self._state[_LEVEL] < 0)

    @property
    def looks(self) -> int:
        return int(self._state[_LOOKS])

    def run(self, looks: int) -> None:
        """Search on until about so many more sets have been looked at."""
        _search(self.looks + looks, *self._search)


@compiled
def _search(
    looks: int, tasks: Ints, loss: Floats, u: Floats, active: Rows, begin: Ints, end: Ints, waiting: Bools, spent: Floats,
    held: Ints, branch: Ints, place: Ints, chosen: Ints, best: Ints, least: Floats, state: Ints,
) -> None:  # fmt: skip
    blocks, width = begin.shape[1], tasks.shape[1]
    low, masks = np.zeros(blocks), np.zeros((2 * blocks + 4, width), np.int64)
    while state[_LEVEL] >= 0 and state[_LOOKS] < looks:
        d = state[_LEVEL]
        if state[_FRESH]:
            state[_FRESH] = 0
            total = _reduced(d, tasks, loss, u, active, begin, end, waiting, spent, held, least[0], low, masks, state)
            if total >= least[0]:
                state[_LEVEL] -= 1
                continue
            block, fewest = -1, np.inf
            for b in range(blocks):
                if not waiting[d, b]:
                    continue
                span = loss[active[d, end[d, b] - 1]] - loss[active[d, begin[d, b]]]
                count = end[d, b] - begin[d, b]
                score = 0.0 if count == 1 else count / max(span, 1e-12)
                if score < fewest:
                    block, fewest = b, score
            if block < 0:
                least[0] = total
                best[:] = chosen
                state[_FOUND] += 1
                state[_LEVEL] -= 1
                continue
            branch[d], place[d] = block, begin[d, block]
        block = branch[d]
        if place[d] >= end[d, block]:
            state[_LEVEL] -= 1
            continue
        row = active[d, place[d]]
        place[d] += 1
        chosen[block] = row
        if _taken(d, block, row, tasks, loss, active, begin, end, waiting, spent, held, least[0], low, state):
            state[_LEVEL] += 1
            state[_FRESH] = 1


@compiled
def _taken(
    d: int, block: int, row: int, tasks: Ints, loss: Floats, active: Rows, begin: Ints, end: Ints, waiting: Bools,
    spent: Floats, held: Ints, least: float, low: Floats, state: Ints,
) -> bool:  # fmt: skip
    """Fill the next level with what is left where a block takes a set; whether a selection there may lose less than `least`.

    First comes each block's best set that is free: then those alone are looked at that can still be beside it.
    """
    blocks, width = begin.shape[1], tasks.shape[1]
    total = spent[d] + loss[row]
    spent[d + 1] = total
    for b in range(blocks):
        waiting[d + 1, b] = waiting[d, b] and b != block
        if not waiting[d + 1, b]:
            continue
        low[b] = np.inf
        for k in range(begin[d, b], end[d, b]):
            free = True
            for word in range(width):
                if tasks[active[d, k], word] & tasks[row, word] != 0:
                    free = False
            if free:
                begin[d + 1, b] = k
                low[b] = loss[active[d, k]]
                state[_LOOKS] += k - begin[d, b]
                break
        total += low[b]
        if total >= least:
            state[_LOOKS] += 1
            return False
    for word in range(width):
        held[d + 1, word] = held[d, word] | tasks[row, word]
    at = 0
    for b in range(blocks):
        if not waiting[d + 1, b]:
            continue
        first, room = begin[d + 1, b], least - total + low[b]
        begin[d + 1, b] = at
        for k in range(first, end[d, b]):
            other = active[d, k]
            state[_LOOKS] += 1
            if loss[other] >= room:
                break
            free = True
            for word in range(width):
                if tasks[other, word] & tasks[row, word] != 0:
                    free = False
            if free:
                active[d + 1, at] = other
                at += 1
        end[d + 1, b] = at
    return True


@compiled
def _reduced(
    d: int, tasks: Ints, loss: Floats, u: Floats, active: Rows, begin: Ints, end: Ints, waiting: Bools, spent: Floats,
    held: Ints, least: float, low: Floats, masks: Ints, state: Ints,
) -> Any:  # fmt: skip
    """Drop the sets of a level that no selection below `least` has; the least that one can lose, infinite if there is none."""
    blocks, width = begin.shape[1], tasks.shape[1]
    union, common = masks[:blocks], masks[blocks : 2 * blocks]  # what some, and what all sets of a block hold
    once, twice, fixed, must = masks[2 * blocks], masks[2 * blocks + 1], masks[2 * blocks + 2], masks[2 * blocks + 3]
    while True:
        total = spent[d]
        once[:] = 0
        twice[:] = 0
        fixed[:] = 0
        must[:] = 0
        for b in range(blocks):
            if not waiting[d, b]:
                continue
            if begin[d, b] == end[d, b]:
                return np.inf
            low[b] = loss[active[d, begin[d, b]]]
            total += low[b]
            state[_LOOKS] += end[d, b] - begin[d, b]
            for word in range(width):
                some, every = 0, -1
                for k in range(begin[d, b], end[d, b]):
                    some |= tasks[active[d, k], word]
                    every &= tasks[active[d, k], word]
                union[b, word], common[b, word] = some, every
                if fixed[word] & every != 0:
                    return np.inf
                fixed[word] |= every
                twice[word] |= once[word] & some
                once[word] |= some
        for j in range(len(u)):
            if not ((held[d, j // BITS] | once[j // BITS]) >> (j % BITS)) & 1:
                total += u[j]
        if total >= least:
            return total
        for j in range(len(u)):
            if u[j] >= least - total:
                must[j // BITS] |= 1 << (j % BITS)
        before, after, empty = 0, 0, False
        for b in range(blocks):
            if not waiting[d, b]:
                continue
            room, kept = least - total + low[b], begin[d, b]
            for k in range(begin[d, b], end[d, b]):
                row = active[d, k]
                if loss[row] >= room:
                    break
                good = True
                for word in range(width):
                    own, alone = tasks[row, word], union[b, word] & must[word] & ~twice[word]
                    if own & fixed[word] & ~common[b, word] != 0 or own & alone != alone:
                        good = False
                if good:
                    active[d, kept] = row
                    kept += 1
            before += end[d, b] - begin[d, b]
            after += kept - begin[d, b]
            empty = empty or kept == begin[d, b]
            end[d, b] = kept
        if empty:
            return np.inf
        if after >= _AGAIN * before:
            return total
