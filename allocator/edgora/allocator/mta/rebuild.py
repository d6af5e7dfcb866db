"""Plans from prices: build one server by server, then ruin and rebuild it in parts (mta.md 13).

Build: servers in order of falling price; each takes the best knapsack of tasks by what they earn here less what they
would earn, at the prices, on the best server that is still to come. What is left over is filled in by regret.

Improve: free two to five servers that compete for tasks, rebuild them in a random or price order by the same rule, with
prices shaken a little, and accept the result as in annealing. Only candidate pairs take part: those whose regret against
the task's best server at the prices is least. Everything a round touches is undone if it is not accepted.

Random numbers come from L'Ecuyer's combined generator in integers below 2^31, so a seed gives the same plan whether or
not the kernels are compiled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import compiled
from edgora.allocator.mta.knapsack import pack, workspace
from edgora.allocator.mta.prices import Core
from edgora.allocator.mta.table import REJECTED

__all__ = ["Candidates", "Rebuilder", "build", "candidates"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROUNDING = 1e-12
"""Rooms of real weights are taken smaller by this share, so that sums in another order still fit."""
_MOST_FREED = 5


@dataclass(frozen=True, eq=False)
class Candidates:
    """The pairs that the search moves in, by server: tasks[start[i] : start[i + 1]]."""

    start: Ints
    tasks: Ints


def candidates(core: Core, nu: Floats, plan: Ints, most_regret: float, cap: int) -> Candidates:
    """Pairs with a regret of at most `most_regret`; per server at most `cap` + thrice what it holds, and all it holds."""
    earns = core.value - nu[:, None] * core.weight
    regret = earns.max(axis=0, initial=0.0) - earns
    n, count = core.value.shape
    lists, held = [], np.bincount(plan[plan >= 0], minlength=n)
    for i in range(n):
        near = np.flatnonzero((regret[i] <= most_regret) & (core.value[i] > 0.0))
        most = cap + 3 * int(held[i])
        if len(near) > most:
            near = near[np.argpartition(regret[i, near], most)[:most]]
        mine = np.zeros(count, dtype=np.bool_)
        mine[near] = True
        mine[plan == i] = True
        lists.append(np.flatnonzero(mine))
    start = np.zeros(n + 1, dtype=np.int64)
    np.cumsum([len(tasks) for tasks in lists], out=start[1:])
    return Candidates(start, np.concatenate(lists).astype(np.int64) if n else np.empty(0, dtype=np.int64))


def room_for(core: Core) -> Floats:
    """Rooms as the kernels use them."""
    return core.room if core.unit else core.room * (1.0 - _ROUNDING)


def build(core: Core, nu: Floats, order: Ints, over: Callable[[], bool] = lambda: False) -> Ints:
    """A plan of the core's tasks: servers in this order, each with the best knapsack against those still to come.

    `over` ends it between two servers: those that are left then hold nothing.
    """
    count = len(core.tasks)
    plan = np.full(count, REJECTED, dtype=np.int64)
    if count:
        real, whole, kept = workspace(count, float(core.room.max()) if core.unit else 0.0)
        ahead, room = np.zeros((len(order), count)), room_for(core)
        _opportunity(core.value, core.weight, nu, order, ahead)
        for k, i in enumerate(order.tolist()):
            if over():
                break
            _fill(i, core.value, core.weight, room, core.unit, ahead[k], plan, real, whole, kept)
    return plan


@compiled
def _opportunity(value: Floats, weight: Floats, nu: Floats, order: Ints, ahead: Floats) -> None:
    """ahead[k, j]: the most that task j would earn at the prices on a server after the k-th, at least 0."""
    n, count = value.shape
    by_server = len(weight) > 1
    for back in range(n - 1):
        k = n - 2 - back
        i = order[k + 1]
        load = weight[i if by_server else 0]
        for j in range(count):
            ahead[k, j] = max(ahead[k + 1, j], value[i, j] - nu[i] * load[j])


@compiled
def _fill(
    i: int, value: Floats, weight: Floats, room: Floats, unit: float, ahead: Floats, plan: Ints,
    real: Floats, whole: Ints, kept: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Give server i the best knapsack of the tasks that no server has, by what they earn beyond `ahead`."""
    count = value.shape[1]
    items, p, w, take = np.empty(count, np.int64), np.empty(count), np.empty(count), np.empty(count, np.bool_)
    load = weight[i if len(weight) > 1 else 0]
    found = 0
    for j in range(count):
        if plan[j] < 0 and value[i, j] > ahead[j]:
            items[found], p[found], w[found] = j, value[i, j] - ahead[j], load[j]
            found += 1
    pack(found, p, w, room[i], unit, True, take, real, whole, kept)
    for t in range(found):
        if take[t]:
            plan[items[t]] = i


class Rebuilder:
    """The state of one improvement: the current plan, the best so far, and everything the kernel needs."""

    def __init__(self, core: Core, nu: Floats, plan: Ints, pairs: Candidates, seed: int) -> None:
        self._core, self._nu, self._room = core, nu, room_for(core)
        self.plan, self.best = plan.copy(), plan.copy()
        self._worth = np.zeros(2)
        """Of the current plan and of the best."""
        self._rng = np.array([seed % 2147483562 + 1, (seed * 40_009 + 12_345) % 2147483398 + 1], dtype=np.int64)
        self.restrict(pairs)
        self.restart(plan)

    def restrict(self, pairs: Candidates) -> None:
        """Move in these pairs from now on; they must hold every pair of the current plan."""
        core = self._core
        self._pairs = pairs
        longest = int(np.diff(pairs.start).max(initial=0))
        room = float(self._room.max()) if core.unit and len(self._room) else 0.0
        self._work = workspace(longest, room)
        self._items = np.empty((2, _MOST_FREED * (longest + 1)), dtype=np.int64)
        self._profits = np.empty((2, longest + 1))
        self._take = np.empty(longest + 1, dtype=np.bool_)

    def restart(self, plan: Ints) -> None:
        """Go on from this plan; the best so far stays if it is better."""
        worth = self.worth(plan)
        self.plan[:], self._worth[0] = plan, worth
        if worth > self._worth[1]:
            self.best[:], self._worth[1] = plan, worth

    @property
    def best_worth(self) -> float:
        return float(self._worth[1])

    def worth(self, plan: Ints) -> float:
        tasks = np.flatnonzero(plan >= 0)
        return float(self._core.value[plan[tasks], tasks].sum())

    def run(self, rounds: int, temperature: float, shake: float) -> int:
        """So many rounds at a temperature; returns how many were accepted with a change."""
        core, pairs = self._core, self._pairs
        return int(_rounds(
            rounds, temperature, shake, core.value, core.weight, self._room, core.unit, self._nu, pairs.start, pairs.tasks,
            self.plan, self.best, self._worth, self._rng, self._items, self._profits, self._take, *self._work,
        ))  # fmt: skip


@compiled
def _uniform(rng: Ints) -> Any:
    """L'Ecuyer's combined generator: uniform on (0, 1)."""
    first, second = rng[0] * 40014 % 2147483563, rng[1] * 40692 % 2147483399
    rng[0], rng[1] = first, second
    mixed = first - second
    if mixed < 1:
        mixed += 2147483562
    return mixed / 2147483563.0


@compiled
def _choose(freed: Ints, start: Ints, tasks: Ints, plan: Ints, rng: Ints) -> Any:
    """Two to five servers: the first at random, the others holders of tasks the first could take, or at random."""
    n = len(start) - 1
    wanted = min(n, 2 + int(_uniform(rng) * (_MOST_FREED - 1)))
    freed[0] = int(_uniform(rng) * n)
    count = 1
    for _ in range(4 * _MOST_FREED):
        if count == wanted:
            break
        low, high = start[freed[0]], start[freed[0] + 1]
        i = -1
        if high > low and _uniform(rng) < 0.7:
            i = plan[tasks[low + int(_uniform(rng) * (high - low))]]
        if i < 0:
            i = int(_uniform(rng) * n)
        known = False
        for k in range(count):
            known = known or freed[k] == i
        if not known:
            freed[count] = i
            count += 1
    return count


@compiled
def _rounds(
    rounds: int, temperature: float, shake: float, value: Floats, weight: Floats, room: Floats, unit: float, nu: Floats,
    start: Ints, tasks: Ints, plan: Ints, best: Ints, worth: Floats, rng: Ints, items: Ints, profits: Floats,
    take: NDArray[np.bool_], real: Floats, whole: Ints, kept: NDArray[np.bool_],
) -> Any:  # fmt: skip
    by_server = len(weight) > 1
    freed, price, left = np.empty(_MOST_FREED, np.int64), np.empty(_MOST_FREED), np.empty(_MOST_FREED)
    held, mine = items[0], items[1]
    p, w = profits[0], profits[1]
    accepted = 0
    for _ in range(rounds):
        count = _choose(freed, start, tasks, plan, rng)
        # Order: by falling price, or as chosen. Prices shaken.
        for k in range(count):
            price[k] = nu[freed[k]] * (1.0 + shake * (2.0 * _uniform(rng) - 1.0))
        if _uniform(rng) < 0.5:
            for k in range(1, count):
                at = k
                while at > 0 and price[at - 1] < price[at]:
                    price[at - 1], price[at] = price[at], price[at - 1]
                    freed[at - 1], freed[at] = freed[at], freed[at - 1]
                    at -= 1
        # Ruin.
        taken, before = 0, 0.0
        bounds = np.empty(_MOST_FREED + 1, np.int64)
        bounds[0] = 0
        for k in range(count):
            i = freed[k]
            for at in range(start[i], start[i + 1]):
                j = tasks[at]
                if plan[j] == i:
                    held[taken] = j
                    before += value[i, j]
                    taken += 1
            bounds[k + 1] = taken
        for k in range(count):
            for at in range(bounds[k], bounds[k + 1]):
                plan[held[at]] = -1
        # Rebuild.
        after = 0.0
        for k in range(count):
            i = freed[k]
            load = weight[i if by_server else 0]
            found = 0
            for at in range(start[i], start[i + 1]):
                j = tasks[at]
                if plan[j] >= 0:
                    continue
                profit = value[i, j]
                for later in range(k + 1, count):
                    i2 = freed[later]
                    other = value[i2, j] - price[later] * weight[i2 if by_server else 0, j]
                    profit = min(profit, value[i, j] - other)
                if profit > 0.0:
                    mine[found], p[found], w[found] = j, profit, load[j]
                    found += 1
            pack(found, p, w, room[i], unit, True, take, real, whole, kept)
            free = room[i]
            for t in range(found):
                if take[t]:
                    plan[mine[t]] = i
                    after += value[i, mine[t]]
                    free -= w[t]
            left[k] = free
        # What the later servers did not take after all may still fit an earlier one.
        for k in range(count):
            i = freed[k]
            load = weight[i if by_server else 0]
            for at in range(start[i], start[i + 1]):
                j = tasks[at]
                if plan[j] < 0 and load[j] <= left[k] and value[i, j] > 0.0:
                    plan[j] = i
                    after += value[i, j]
                    left[k] -= load[j]
        gain = after - before
        if gain >= 0.0 or (temperature > 0.0 and _uniform(rng) < np.exp(gain / temperature)):
            worth[0] += gain
            if gain != 0.0:
                accepted += 1
            if worth[0] > worth[1] * (1.0 + 1e-13):
                worth[1] = worth[0]
                best[:] = plan
            continue
        for k in range(count):
            i = freed[k]
            for at in range(start[i], start[i + 1]):
                if plan[tasks[at]] == i:
                    plan[tasks[at]] = -1
        for k in range(count):
            for at in range(bounds[k], bounds[k + 1]):
                plan[held[at]] = freed[k]
    return accepted
