"""The sets of tasks that a server may hold in a plan better than the best: the columns of Dantzig-Wolfe's master problem.

At multipliers u a plan is worth no more than  L(u) - sum_i (part_i - profit_i(S_i)),  S_i what server i holds: a set whose
profit falls short of its server's best by more than the gap is in no better plan. Where servers hold few tasks and the gap
is small, few sets are left, and a program over them has no knapsack whose fractions weaken its bound.
"""

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import compiled

__all__ = ["subsets"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_LOOKS = 1_000
"""Tasks that are looked at for each set asked for: bounds from fractions let some dead ends through."""


def subsets(
    value: Floats, weight: Floats, room: Floats, u: Floats, parts: Floats, gap: float, most: int
) -> dict[int, Bools]:
    """Sets (k,c) over the c tasks of each server that is left at most so many of them; other servers are not named.

    value (n,c), -inf for pairs that are out; weight (1,c) or (n,c); parts (n,): the best profit of each server at u, or a
    bound on it; gap: L(u) less the worth to beat. A server that holds all its tasks at once is not named either.
    """
    found: dict[int, Bools] = {}
    for i in range(len(value)):
        tasks = np.flatnonzero(value[i] > 0.0)
        load = weight[i if len(weight) > 1 else 0, tasks]
        if load.sum() <= room[i]:
            continue
        profit = value[i, tasks] - u[tasks]
        order = np.argsort(-profit / np.maximum(load, 1e-300), kind="stable")
        taken = np.zeros((most, len(tasks)), dtype=np.bool_)
        count = int(_listed(profit[order], load[order], float(room[i]), float(parts[i]) - gap, most, taken))
        if count >= 0:
            sets = np.zeros((count, value.shape[1]), dtype=np.bool_)
            sets[:, tasks[order]] = taken[:count]
            found[i] = sets
    return found


@compiled
def _listed(profit: Floats, weight: Floats, room: float, need: float, most: int, taken: Bools) -> int:
    """Fill `taken` with the sets that fit and bring `need`; how many there are, -1 if too many. Densest tasks first."""
    k = len(profit)
    place, chosen = np.zeros(k + 1, np.int64), np.zeros(k, np.bool_)  # place: 0 to be looked at, 1 taken, 2 left out
    brought, left = np.zeros(k + 1), np.zeros(k + 1)
    left[0] = room
    count, looks, t = 0, 0, 0
    while t >= 0:
        if t == k:
            if brought[t] >= need:
                if count == most:
                    return -1
                taken[count] = chosen
                count += 1
            t -= 1
            continue
        if place[t] == 0:
            reach, free = brought[t], left[t]
            for s in range(t, k):
                looks += 1
                if profit[s] <= 0.0:
                    break
                if weight[s] > free:
                    reach += profit[s] * free / weight[s]
                    break
                reach += profit[s]
                free -= weight[s]
            if looks > _LOOKS * most:
                return -1
            if reach < need:
                t -= 1
                continue
        place[t] += 1
        if place[t] == 1 and weight[t] > left[t]:
            place[t] = 2
        if place[t] == 3:
            t -= 1
            continue
        chosen[t] = place[t] == 1
        brought[t + 1] = brought[t] + (profit[t] if chosen[t] else 0.0)
        left[t + 1] = left[t] - (weight[t] if chosen[t] else 0.0)
        t += 1
        place[t] = 0
    return count
