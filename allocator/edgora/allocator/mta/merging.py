"""Servers merged into groups until the bound meets the best plan.

The Lagrangian bound (`lagrange`) lets every server choose its own best set of tasks at the tasks' multipliers; what is left of
the gap comes from servers that want the same tasks. Where two servers are one block (`blocks`), whose sets are disjoint
unions of theirs, the two no longer compete, and the bound is lower. A step

1. lowers the bound over the blocks at hand (`descent`);
2. drops each set that is in no better plan: it loses more than the gap, alone or together with the least that the
   others lose beside it;
3. makes a plan of what is left, block by block;
4. merges the pairs of blocks that take the same tasks in turn, where what they may hold stays short.

A lower bound shortens the lists, and shorter lists let larger groups merge: at 20 x 50 a gap of 0.1 to 0.3 % is closed
within tenths of a second, mostly without a branch. A server with too many sets to list keeps its knapsack until the gap is
small enough. The bound over groups is that of Dantzig and Wolfe's decomposition with coarser blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import compiled
from edgora.allocator.mta.blocks import Block, Flat, members, merged, profits, single, words
from edgora.allocator.mta.descent import Descent
from edgora.allocator.mta.lagrange import Lagrangian
from edgora.allocator.mta.table import REJECTED

__all__ = ["Merging"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_LISTED = 10_000
"""Most sets of a server that are listed."""
_LISTS = (1_000, 10_000, 100_000)
"""Most sets of a merged block; the next where no pair stays below."""
_PASSES, _LEFT = 2, 0.98
"""Most passes over all sets for what others lose beside them; another one where less than this share is left."""
_BESIDE = 200
"""Most sets of another block that are looked at for one that is disjoint."""
_SPLIT = 0.02
"""A block that holds a task more often than this, and not always, shares it with others."""
_OVERLAPS = 20
"""Pairs of blocks that are tried where none is seen to take turns, those with the shortest lists first."""
_AGAIN = 0.8
"""Servers with too many sets are listed anew when the gap has fallen to this share."""
_PROOF = 1e-9
"""Relative difference in worth at which no plan is better."""


@dataclass(slots=True)
class _Seen:
    """What the last descent showed of each block, and what follows for blocks merged since."""

    parts: list[float]
    losses: list[Floats]
    """By rising loss."""
    share: Floats
    """(b,c)"""

    def add(self, part: float, losses: Floats, share: Floats) -> None:
        self.parts.append(part)
        self.losses.append(losses)
        self.share = np.concatenate((self.share, share[None]))

    def only(self, kept: list[int]) -> None:
        self.parts, self.losses = [self.parts[b] for b in kept], [self.losses[b] for b in kept]
        self.share = self.share[kept]


class Merging:
    """The blocks of a Lagrangian's servers, and the bound over them, for plans worth more than the best."""

    def __init__(self, lagrangian: Lagrangian, worth: float, over: Callable[[], bool]) -> None:
        self._over = over
        self._lagrangian, self._value = lagrangian, lagrangian.value
        self._u = lagrangian.best_u.copy()
        self.bound = lagrangian.at(self._u)[0]
        self._blocks: list[Block] = []
        self._width = words(np.zeros((0, len(self._u)), dtype=np.bool_)).shape[1]
        self._open: list[int] = []
        """Servers without a block."""
        self._listed_at = np.inf
        """Gap at which open servers were listed last."""
        self.stuck = False
        """Whether the last step changed nothing but, perhaps, the best plan."""
        fit = lagrangian.fit()
        for i, value in enumerate(self._value):
            if not fit[i]:
                self._open.append(i)
                continue
            for task in np.flatnonzero(value > 0.0):  # of a server that holds all at once, each is for itself
                held = np.zeros((2, len(value)), dtype=np.bool_)
                held[1, task] = True
                self._blocks.append(single(i, held, value))
        self._list(_gap(self.bound, worth))

    def step(self, worth: float) -> Ints:
        """Bound, drop, merge, seeking plans worth more than `worth`; a plan of the core."""
        shared = self._shared()
        self._u = np.where(members(shared, len(self._u)), self._u, 0.0)  # nobody bids for what one block alone may hold
        self._blocks = [block.seen(shared) for block in self._blocks]
        descent = Descent(self._blocks, self._open, self._lagrangian, self._u, worth)
        self._u, self.bound = descent.u, min(self.bound, descent.bound)
        gap = _gap(descent.bound, worth)
        self._drop(descent.losses, gap)
        plan = self._plan(descent)
        if not all(map(len, self._blocks)):  # a block without a set: no plan is better
            self.bound, self.stuck = min(self.bound, worth), True
            return plan
        self.stuck = not (self._list(gap) or self._merge(descent, gap))
        return plan

    def pairs(self) -> Bools:
        """Which server may hold which task in a better plan (n,c)."""
        held = np.zeros(self._value.shape, dtype=np.bool_)
        for block in self._blocks:
            block.mark(held)
        held[self._open] = self._value[self._open] > 0.0
        return held

    def _unions(self) -> list[Ints]:
        """What each block and each open server may hold (words,)."""
        return [block.union() for block in self._blocks] + list(words(self._value[self._open] > 0.0))

    def _shared(self) -> Ints:
        """What two of them may hold (words,)."""
        once = twice = np.zeros(self._width, dtype=np.int64)
        for union in self._unions():
            once, twice = once | union, twice | (once & union)
        return twice

    def _drop(self, losses: list[Floats], gap: float) -> None:
        """Keep the sets that a better plan may hold, by rising loss."""
        for b, loss in enumerate(losses):
            kept = np.flatnonzero(loss <= gap)
            kept = kept[np.argsort(loss[kept], kind="stable")]
            self._blocks[b], losses[b] = self._blocks[b].only(kept), loss[kept]
        for _ in range(0 if self._over() else _PASSES):
            flat = Flat.of(self._blocks, self._width)
            order = np.argsort(np.diff(flat.starts), kind="stable")
            good = np.ones(len(flat.value), dtype=np.bool_)
            _beside(flat.tasks, np.concatenate([np.zeros(0), *losses]), flat.starts, order, gap, good)
            for b, (first, last) in enumerate(zip(flat.starts[:-1].tolist(), flat.starts[1:].tolist(), strict=True)):
                mine = good[first:last]
                self._blocks[b], losses[b] = self._blocks[b].only(mine), losses[b][mine]
            if good.sum() > _LEFT * len(good):
                return

    def _plan(self, descent: Descent) -> Ints:
        """Block after block the best of its sets that is free, those first that lose most by their second best."""
        plan = np.full(len(self._u), REJECTED, dtype=np.int64)
        flat = Flat.of(self._blocks, self._width)
        second = np.array([loss[1] if len(loss) > 1 else np.inf for loss in descent.losses])
        rows = np.empty(len(self._blocks), dtype=np.int64)
        _greedy(flat.tasks, flat.starts, np.argsort(-second, kind="stable"), rows)
        for block, row in zip(self._blocks, rows.tolist(), strict=True):
            if row >= 0:
                block.give(row, plan)
        for server, taken in zip(self._open, descent.taken, strict=True):
            plan[taken & (plan == REJECTED)] = server
        return plan

    def _list(self, gap: float) -> bool:
        """Make blocks of the open servers whose sets are few enough by now."""
        if not self._open or gap > _AGAIN * self._listed_at:
            return False
        self._listed_at = gap
        found = self._lagrangian.sets(self._u, gap, _LISTED, self._open)
        self._blocks += found.values()
        listed, self._open = bool(found), [server for server in self._open if server not in found]
        return listed

    def _merge(self, descent: Descent, gap: float) -> bool:
        """Merge blocks two by two where what they hold together stays short: all that stay shortest, or else some others."""
        seen = _Seen(descent.parts.tolist(), descent.losses, descent.share[: len(self._blocks)])
        shortest, *longer = _LISTS
        changed = False
        while any(self._sweep(seen, gap, shortest, pairs(seen)) for pairs in (self._turns, self._overlaps)):
            changed = True
        return changed or any(
            self._sweep(seen, gap, most, self._turns(seen) + self._overlaps(seen)) for most in longer
        )  # fmt: skip

    def _sweep(self, seen: "_Seen", gap: float, most: int, pairs: list[tuple[int, int]]) -> bool:
        """Merge each of these pairs of which neither is merged before; whether there was one."""
        unions = np.array(self._unions())
        left, fresh = set(range(len(self._blocks))), []
        for a, b in pairs:
            if a not in left or b not in left or self._over():
                continue
            others = np.bitwise_or.reduce(np.delete(unions, (a, b), axis=0), axis=0)
            theirs = float(self._u[members(unions[a] | unions[b], len(self._u))].sum())
            best, losses = seen.parts[a] + seen.parts[b] + theirs, (seen.losses[a], seen.losses[b])
            both = merged(self._blocks[a], self._blocks[b], losses, gap, most, others, best)
            if both is None:
                continue
            left -= {a, b}
            profit = profits(Flat.of([both], self._width), self._u)
            order = np.argsort(-profit, kind="stable")
            fresh.append(both.only(order))
            part = max(0.0, float(profit.max(initial=0.0)))
            seen.add(part, part - profit[order], np.minimum(seen.share[a] + seen.share[b], 1.0))
        seen.only([*sorted(left), *range(len(self._blocks), len(self._blocks) + len(fresh))])
        self._blocks = [*(self._blocks[k] for k in sorted(left)), *fresh]
        return bool(fresh)

    def _turns(self, seen: "_Seen") -> list[tuple[int, int]]:
        """Pairs of blocks that take the same tasks in turn, those first that do so most."""
        share = np.where((seen.share > _SPLIT) & (seen.share < 1.0 - _SPLIT), seen.share, 0.0)
        common = np.minimum(share[:, None], share[None]).sum(axis=2)
        one, other = np.nonzero(np.triu(common, 1) > _SPLIT)
        order = np.argsort(-common[one, other], kind="stable")
        return list(zip(one[order].tolist(), other[order].tolist(), strict=True))

    def _overlaps(self, _: "_Seen") -> list[tuple[int, int]]:
        """Pairs that may hold a task in common, those with the shortest lists."""
        held = np.array([block.union() for block in self._blocks]).reshape(len(self._blocks), self._width)
        size = np.array([len(block) for block in self._blocks], dtype=np.float64)
        one, other = np.nonzero(np.triu((held[:, None] & held[None]).any(axis=2), 1))
        order = np.argsort(size[one] * size[other], kind="stable")[:_OVERLAPS]
        return list(zip(one[order].tolist(), other[order].tolist(), strict=True))


def _gap(bound: float, worth: float) -> float:
    """What a set may lose and still be in a better plan."""
    return bound - worth * (1.0 - _PROOF)


@compiled
def _beside(tasks: Ints, loss: Floats, starts: Ints, order: Ints, gap: float, kept: Bools) -> None:
    """Leave out the sets that lose more than the gap together with the least that every other block loses beside them."""
    width = tasks.shape[1]
    for b in range(len(order)):
        for k in range(starts[b], starts[b + 1]):
            total = loss[k]
            for other in order:
                if other == b or total > gap:
                    continue
                least, looks = np.inf, 0
                for row in range(starts[other], starts[other + 1]):
                    if not kept[row]:
                        continue
                    looks += 1
                    disjoint = True
                    for word in range(width):
                        if tasks[k, word] & tasks[row, word] != 0:
                            disjoint = False
                    if disjoint or looks == _BESIDE or total + loss[row] > gap:
                        least = loss[row]
                        break
                total += least
            kept[k] = total <= gap


@compiled
def _greedy(tasks: Ints, starts: Ints, order: Ints, rows: Ints) -> None:
    """Of each block the first set that is disjoint from those of the blocks before it, as its row in the block; or -1."""
    held = np.zeros(tasks.shape[1], np.int64)
    for b in order:
        rows[b] = -1
        for k in range(starts[b], starts[b + 1]):
            free = True
            for word in range(len(held)):
                if tasks[k, word] & held[word] != 0:
                    free = False
            if free:
                rows[b] = k - starts[b]
                held |= tasks[k]
                break
