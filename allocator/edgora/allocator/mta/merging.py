"""Servers merged into groups until the bound meets the best plan.

The Lagrangian bound (`lagrange`) lets every server choose its own best set of tasks at the tasks' multipliers; what is left of
the gap comes from servers that want the same tasks. Where two servers are one block (`blocks`), whose sets are disjoint
unions of theirs, the two no longer compete, and the bound is lower. A step takes an open node, first that of all plans,

1. solves the master problem over its blocks, by column generation:

       maximise sum_b sum_S V_S y_S,   sum_S y_S <= 1 for each block b,   sum_{S holds j} y_S <= 1 for each task j

   At any multipliers u of the tasks,  L(u) = sum_j u_j + sum_b max(0, max_S V_S - u(S))  is a bound, whatever the LP's precision;
2. drops each set whose profit falls short of its block's best by more than the gap: it is in no better plan;
3. merges the pairs of blocks that share most of some tasks in the LP's solution, where what they may hold stays short;
4. where nothing could be merged, branches: a block holds a task that the LP splits, or it does not.

A lower bound shortens the lists, and shorter lists let larger groups merge: at 20 x 50 a gap of 0.1 to 0.3 % is closed
in a second, mostly without a branch. A server with too many sets to list is priced by its knapsack until the gap is
small enough. Column generation over groups is Dantzig and Wolfe's decomposition with coarser blocks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.mta.blocks import Block, merged, profits, single
from edgora.allocator.mta.lagrange import Lagrangian
from edgora.allocator.mta.table import REJECTED

__all__ = ["Merging"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_LISTED = 30_000
"""Most sets of a server that are listed."""
_LISTS = (20_000, 200_000, 1_000_000)
"""Most sets of a merged block; the next where no pair stays below."""
_AGAIN = 0.8
"""Servers with too many sets are listed anew when the gap has fallen to this share."""
_ROUNDS = 20
"""Most rounds of column generation."""
_CLOSE = 0.02
"""... which ends when the LP's value is as near to the bound, in gaps."""
_START, _MORE = 40, 10
"""Columns of each block in the first LP, and most that a round adds."""
_REACH = 0.5
"""Added columns lose at most this share of the gap."""
_SMOOTH = 0.5
"""New columns are sought between the LP's multipliers and the best so far, which jump less (Wentges 1997)."""
_TINY = 1e-7
_PROOF = 1e-9
"""Relative difference in worth at which no plan is better."""


class Merging:
    """The blocks of a Lagrangian's servers, and the bound over them, for plans worth more than the best."""

    def __init__(self, lagrangian: Lagrangian, worth: float, over: Callable[[], bool]) -> None:
        self._over = over
        self._lagrangian, self._value = lagrangian, lagrangian.value
        self._u = lagrangian.best_u.copy()
        self.bound = lagrangian.at(self._u)[0]
        self._blocks: list[Block] = []
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
        """Bound, drop, merge, seeking plans worth more than `worth`; a plan of the core that the LP suggests."""
        shared = self._wanted() > 1
        self._blocks = [block.seen(shared) for block in self._blocks]
        self._u = np.where(shared, self._u, 0.0)  # nobody bids for a task that one block alone may hold
        master = _Master(self._blocks, self._open, self._lagrangian, self._u)
        master.solve(worth, self._over)
        self._u, self.bound = master.u, min(self.bound, master.bound)
        gap = _gap(master.bound, worth)
        losses = []
        for b, profit in enumerate(master.profits):
            loss = master.parts[b] - profit
            kept = loss <= gap
            self._blocks[b] = self._blocks[b].only(kept)
            losses.append(loss[kept])
        self.stuck = not (self._list(gap) or self._merge(losses, master.split(), gap))
        return master.plan()

    def pairs(self) -> Bools:
        """Which server may hold which task in a better plan (n,c)."""
        held = np.zeros(self._value.shape, dtype=np.bool_)
        for block in self._blocks:
            block.mark(held)
        held[self._open] = self._value[self._open] > 0.0
        return held

    def _wanted(self) -> Ints:
        """How many blocks and open servers may hold each task (c,)."""
        wanted: Ints = (self._value[self._open] > 0.0).sum(axis=0)
        for block in self._blocks:
            wanted = wanted + block.union(len(wanted))
        return wanted

    def _list(self, gap: float) -> bool:
        """Make blocks of the open servers whose sets are few enough by now."""
        if not self._open or gap > _AGAIN * self._listed_at:
            return False
        self._listed_at, left = gap, []
        for server in self._open:
            found = {} if self._over() else self._lagrangian.sets(self._u, gap, _LISTED, [server])
            self._blocks += [single(server, sets, self._value[server]) for sets in found.values()]
            left += [] if found else [server]
        listed, self._open = len(left) < len(self._open), left
        return listed

    def _merge(self, losses: list[Floats], split: Floats, gap: float) -> bool:
        """Merge blocks two by two, those first that share most of the tasks which the LP splits (b,c)."""
        common = np.minimum(split[:, None], split[None]).sum(axis=2)
        one, other = np.nonzero(np.triu(common, 1) > _TINY)
        order = np.argsort(-common[one, other], kind="stable")
        wanted = self._wanted()
        mine = [block.union(len(wanted)) for block in self._blocks]
        for most in _LISTS:
            left, found = set(range(len(self._blocks))), []
            for a, b in zip(one[order].tolist(), other[order].tolist(), strict=True):
                if a in left and b in left and not self._over():
                    others = wanted - mine[a] - mine[b] > 0
                    both = merged(self._blocks[a], self._blocks[b], (losses[a], losses[b]), gap, most, others)
                    if both is not None:
                        left -= {a, b}
                        found.append(both)
            if found:
                self._blocks = [*found, *(self._blocks[b] for b in sorted(left))]
                return True
        return False


class _Master:
    """The master problem of some blocks and open servers: column generation from multipliers u."""

    def __init__(self, blocks: Sequence[Block], unlisted: Sequence[int], lagrangian: Lagrangian, u: Floats) -> None:
        import highspy as library  # only `exact` needs it

        self._blocks, self._open, self._lagrangian = tuple(blocks), tuple(unlisted), lagrangian
        self._held: list[set[int]] = [set() for _ in self._blocks]
        self._columns: list[tuple[int, int, Bools]] = []
        """Block, row in it, tasks; of an open server its place after the blocks, and no row."""
        self._x = np.zeros(0)
        rows = len(blocks) + len(unlisted) + len(u)
        highspy: Any = library  # partly typed
        lp = highspy.HighsLp()
        lp.num_row_, lp.num_col_, lp.sense_ = rows, 0, highspy.ObjSense.kMaximize
        lp.row_lower_, lp.row_upper_ = np.full(rows, -highspy.kHighsInf), np.ones(rows)
        lp.a_matrix_.format_, lp.a_matrix_.start_ = highspy.MatrixFormat.kColwise, np.zeros(1, dtype=np.int32)
        self._highs, self._infinite = highspy.Highs(), highspy.kHighsInf
        self._highs.silent()
        self._highs.setOptionValue("threads", 1)
        self._highs.passModel(lp)
        self.u, self.bound = u, np.inf
        """The best multipliers, and L there."""
        self.profits: list[Floats] = []
        """There, of each block's sets."""
        self.parts = np.zeros(0)
        """The best of them, and of what open servers may hold."""

    def solve(self, worth: float, over: Callable[[], bool]) -> None:
        total, profits_, parts, taken = self._priced(self.u)
        self._keep(self.u, total, profits_, parts)
        self._add(profits_, parts, taken, np.inf, _START)
        for turn in range(_ROUNDS):
            self._highs.run()
            solution, least = self._highs.getSolution(), self._highs.getInfo().objective_function_value
            self._x = np.array(solution.col_value)
            duals = np.maximum(np.array(solution.row_dual)[len(self.parts) :], 0.0)
            if self.bound - least <= _CLOSE * max(least - worth, 0.0) or self.bound <= worth or over():
                return
            added = False
            for share in (0.0 if turn == _ROUNDS - 1 else _SMOOTH, 0.0):
                u = share * self.u + (1.0 - share) * duals
                total, profits_, parts, taken = self._priced(u)
                if total < self.bound:
                    self._keep(u, total, profits_, parts)
                added = self._add(profits_, parts, taken, _REACH * (self.bound - worth), _MORE)
                if added:
                    break
            if not added:
                return

    def _keep(self, u: Floats, total: float, profits_: list[Floats], parts: Floats) -> None:
        self.u, self.bound, self.profits, self.parts = u, total, profits_, parts

    def _priced(self, u: Floats) -> tuple[float, list[Floats], Floats, Bools]:
        """L(u); the profits of each block's sets, the best of each block and open server, and what the latter take."""
        found = [profits(block, u) for block in self._blocks]
        best = [max(0.0, float(profit.max(initial=0.0))) for profit in found]
        _, parts, taken = self._lagrangian.at(u)
        every = np.array([*best, *parts[list(self._open)]])
        return float(u.sum() + every.sum()), found, every, taken[list(self._open)]

    def _add(self, profits_: list[Floats], parts: Floats, taken: Bools, reach: float, most: int) -> bool:
        """Add the best sets of each block that are no columns yet, and what open servers take."""
        fresh: list[tuple[int, int, Bools]] = []
        value: list[float] = []
        for b, (block, profit) in enumerate(zip(self._blocks, profits_, strict=True)):
            near = np.argpartition(-profit, min(most, len(profit)) - 1)[:most] if len(profit) else np.zeros(0, int)
            rows = [k for k in near[profit[near] >= parts[b] - reach].tolist() if k not in self._held[b]]
            self._held[b].update(rows)
            value += block.value[rows].tolist()
            fresh += [
                (b, k, tasks)
                for k, tasks in zip(rows, block.only(np.array(rows, int)).members(len(self.u)), strict=True)
            ]
        known = {(b, tasks.tobytes()) for b, row, tasks in self._columns if row < 0}
        for k, (server, tasks) in enumerate(zip(self._open, taken, strict=True)):
            if (len(self._blocks) + k, tasks.tobytes()) not in known:
                fresh.append((len(self._blocks) + k, -1, tasks.copy()))
                value.append(float(self._lagrangian.value[server, tasks].sum()))
        if not fresh:
            return False
        self._columns += fresh
        held = [np.concatenate(([b], len(parts) + np.flatnonzero(tasks))) for b, _, tasks in fresh]
        start = np.concatenate(([0], np.cumsum([len(rows) for rows in held])[:-1])).astype(np.int32)
        index = np.concatenate(held).astype(np.int32)
        self._highs.addCols(
            len(fresh), np.array(value), np.zeros(len(fresh)), np.full(len(fresh), self._infinite), len(index), start, index,
            np.ones(len(index)),
        )  # fmt: skip
        return True

    def plan(self) -> Ints:
        """The LP's solution as a plan: its greatest columns that have no block and no task in common."""
        plan = np.full(len(self.u), REJECTED, dtype=np.int64)
        done: set[int] = set()
        for at in np.argsort(-self._x, kind="stable").tolist():
            b, row, tasks = self._columns[at]
            if self._x[at] <= _TINY or b in done or (plan[tasks] != REJECTED).any():
                continue
            done.add(b)
            if row >= 0:
                self._blocks[b].give(row, plan)
            else:
                plan[tasks] = self._open[b - len(self._blocks)]
        return plan

    def split(self) -> Floats:
        """How much of each task that the LP splits each block has (b,c)."""
        split = np.zeros((len(self.parts), len(self.u)))
        for (b, _, tasks), x in zip(self._columns, self._x.tolist(), strict=False):
            split[b, tasks] += x
        split[(split < _TINY) | (split > 1.0 - _TINY)] = 0.0
        return split[: len(self._blocks)]


def _gap(bound: float, worth: float) -> float:
    """What a set may lose and still be in a better plan."""
    return bound - worth * (1.0 - _PROOF)
