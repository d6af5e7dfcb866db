"""Plans near the bound, among the sets of tasks that cost their servers least.

At good multipliers a plan near the Lagrangian bound holds sets of small loss alone (`subsets`), and where pairs are few these
sets are few, too. So two searches (`selection`) reach what rebuilding does not in that time:

    widen     all plans within some distance of the bound, from search to search a larger one: there is none, and the bound
              falls by that distance; or the best of them is the best plan
    regroup   the best plan that gives some servers other tasks, of theirs and those that nobody serves

Both ask for what each server's sets lose, and are exact.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.mta.blocks import Flat, members
from edgora.allocator.mta.descent import descended
from edgora.allocator.mta.lagrange import Lagrangian, evaluate
from edgora.allocator.mta.selection import Selection
from edgora.allocator.mta.subsets import nearest
from edgora.allocator.mta.table import REJECTED

__all__ = ["Nearby"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SETS, _MOST = 2_000, 50_000
"""Sets that are searched first, and at most."""
_FARTHER = 1.5
"""How much farther from the bound the next search goes."""
_EVALUATIONS, _BELOW = 250, 3.0
"""To settle multipliers: evaluations of the bound on the first sets, and how far below it they aim, in times of what those lose."""
_SEARCHED, _SLICE = 2_000_000, 200_000
"""Looks at sets of a search, about 10 ms; and between two looks at the clock."""
_GROUP, _LEAST = 8.0, 4.0
"""Servers that are regrouped: one less after a search that was too long, a fifth of one more after others."""
_REGROUPED, _REGROUPED_SETS = 300_000, 3_000
"""Looks and sets of a search among some servers."""
_EVEN = 0.05
"""Share of all loss that makes every server equally likely to be regrouped; the rest goes by its own loss."""
_MARGIN = 1e-9
"""Relative: by so much more is searched than the bound falls, against rounding."""


class Nearby:
    """The searches on a Lagrangian's servers, for plans of its core whose pairs are worth `value` (n,c)."""

    def __init__(self, lagrangian: Lagrangian, value: Floats, seed: int, over: Callable[[], bool]) -> None:
        self._lagrangian, self._value, self._over = lagrangian, value, over
        self._random = np.random.default_rng(seed)
        self._u = lagrangian.best_u
        self._left, self._weight, self._room, *_ = lagrangian.knapsacks(range(len(value)))
        self._best, self._parts = self._at(self._u)
        """The bound at the multipliers, and each server's part of it (n,)."""
        self._near, self._group = 0.0, _GROUP
        self.bound = self._best
        self.done = False
        """Whether there is nothing to be searched any more, or the last search was too long."""

    def settle(self, worth: float) -> None:
        """Better multipliers, by descent on the sets that lose least, till that betters the bound by little."""
        self.done = True
        while not self._over() and (gap := self._best - worth) > _MARGIN * self._best:
            near = gap / 8.0
            while (found := self._nearest(near, _SETS)) is None:
                near /= 4.0
                if near < _MARGIN * self._best:
                    return
            while near < gap and len(found[1]) < _SETS // 3 and (more := self._nearest(2.0 * near, _SETS)) is not None:
                found, near = more, 2.0 * near
            u = descended(found[0], self._lagrangian, self._u, self._best - _BELOW * near, _EVALUATIONS)
            bound, parts = self._at(u)
            before = self._best
            if bound < before:
                self._u, self._best, self._parts = u, bound, parts
                self.bound = min(self.bound, bound)
            if before - bound < near:
                self._near, self.done = near, False
                return

    def widen(self, worth: float) -> Ints | None:
        """Search farther from the bound than before, as far as plans are worth more than `worth`; the best of them."""
        near, margin = min(self._near, self._best - worth), _MARGIN * self._best
        self._near *= _FARTHER
        found = self._nearest(near + margin, _MOST)
        if found is None:
            self.done = True
            return None
        flat, losses, servers = found
        search = Selection(flat, losses, self._u, near + margin)
        while not search.done and search.looks < _SEARCHED and not self._over():
            search.run(_SLICE)
        self.done = not search.done
        if search.done:
            self.bound = min(self.bound, self._best - min(search.loss, near))
        return self._plan(flat, servers, search.rows)

    def regroup(self, plan: Ints) -> Ints | None:
        """Have some servers, mostly those that lose most, share anew what they and nobody hold; None if that is no better."""
        n, every = self._value.shape[0], np.arange(len(plan))
        served = plan != REJECTED
        worth = np.bincount(plan[served], self._value[plan[served], every[served]], n)
        loss = np.maximum(0.0, self._parts - worth + np.bincount(plan[served], self._u[served], n))
        chance = loss + _EVEN * max(float(loss.sum()), _MARGIN) / n
        servers = np.sort(self._random.choice(n, min(n, int(self._group)), replace=False, p=chance / chance.sum()))
        fixed = served & ~np.isin(plan, servers)
        u = np.where(fixed, 0.0, self._u)
        value, weight, room, unit, parts, *work = self._lagrangian.knapsacks(servers.tolist())
        value[:, fixed] = -np.inf
        gap = float(evaluate(value, weight, room, unit, u, parts, *work)) - float(worth[servers].sum())
        gap -= _MARGIN * float(worth.sum())  # better by that much
        if gap <= 0.0:
            return None
        found = nearest(value, weight, room, u, parts, gap, _REGROUPED_SETS)
        if found is None:
            self._group = max(_LEAST, self._group - 1.0)
            return None
        flat, losses, among = found
        search = Selection(flat, losses, u, gap)
        search.run(_REGROUPED)
        self._group = self._group + 0.2 if search.done else max(_LEAST, self._group - 1.0)
        changed = self._plan(flat, servers[among], search.rows)
        return None if changed is None else np.where(fixed, plan, changed)

    def _at(self, u: Floats) -> tuple[float, Floats]:
        bound, parts, _ = self._lagrangian.at(u)
        return bound, parts.copy()

    def _nearest(self, gap: float, most: int) -> tuple[Flat, Floats, Ints] | None:
        """All servers' sets that lose at most `gap`, if they are at most so many."""
        return nearest(self._left, self._weight, self._room, self._u, self._parts, gap, most)

    def _plan(self, flat: Flat, servers: Ints, rows: Ints | None) -> Ints | None:
        """The plan in which the blocks' servers hold these sets."""
        if rows is None:
            return None
        plan = np.full(len(self._u), REJECTED, dtype=np.int64)
        for server, tasks in zip(servers.tolist(), members(flat.tasks[rows], len(plan)), strict=True):
            plan[tasks] = server
        return plan
