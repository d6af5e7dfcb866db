"""The sets of tasks that a server may hold in a plan better than the best: the columns of Dantzig-Wolfe's master problem.

At multipliers u a plan is worth no more than  L(u) - sum_i (part_i - profit_i(S_i)),  S_i what server i holds: a set whose
profit falls short of its server's best by more than the gap is in no better plan. Where servers hold few tasks and the gap
is small, few sets are left, and a program over them has no knapsack whose fractions weaken its bound.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import compiled
from edgora.allocator.mta.blocks import BITS, Block, Flat

__all__ = ["nearest", "subsets"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LOOKS = 1_000
"""Tasks that are looked at for each set asked for: bounds from fractions let some dead ends through."""
_TOO_MANY, _FIT = -1, -2
"""In place of a count: there are more sets than asked for, or they are hard to find; the server holds all at once."""


def subsets(
    value: Floats, weight: Floats, room: Floats, u: Floats, parts: Floats, gap: float, most: int
) -> dict[int, Block]:
    """The sets of each server that is left at most so many of them, as its block; other servers are not named.

    value (n,c), -inf for pairs that are out; weight (1,c) or (n,c); parts (n,): the best profit of each server at u, or a
    bound on it; gap: L(u) less the worth to beat. A server that holds all its tasks at once is not named either.
    """
    found: dict[int, Block] = {}
    width = -(-value.shape[1] // BITS)
    for i in range(len(value)):
        sets, worth, gain = np.empty((most, width), dtype=np.int64), np.empty(most), np.empty(most)
        count = int(_of_server(i, value, weight, room, u, parts[i] - gap, most, sets, worth, gain))
        if count >= 0:
            sets = sets[:count].copy()
            found[i] = Block(sets, worth[:count].copy(), i, sets)
    return found


def nearest(
    value: Floats, weight: Floats, room: Floats, u: Floats, parts: Floats, gap: float, most: int
) -> tuple[Flat, Floats, Ints] | None:
    """The same sets of all servers, where these are at most so many together; their losses (k,), and each block's server (b,).

    The sets of a block are by rising loss. A server that holds all its tasks at once has a block for each of them.
    """
    sets, worth, loss = np.empty((most, -(-value.shape[1] // BITS)), dtype=np.int64), np.empty(most), np.empty(most)
    room_for = int((value > 0.0).sum()) + len(value)
    starts, servers = np.zeros(room_for + 1, dtype=np.int64), np.empty(room_for, dtype=np.int64)
    blocks = int(_nearest(value, weight, room, u, parts, gap, most, sets, worth, loss, starts, servers))
    if blocks < 0:
        return None
    count = starts[blocks]
    return Flat(sets[:count], worth[:count], starts[: blocks + 1]), loss[:count], servers[:blocks]


@compiled
def _nearest(
    value: Floats, weight: Floats, room: Floats, u: Floats, parts: Floats, gap: float, most: int, sets: Ints,
    worth: Floats, loss: Floats, starts: Ints, servers: Ints,
) -> Any:  # fmt: skip
    """Write them down; how many blocks there are, -1 if there are too many sets."""
    blocks, at, width = 0, 0, sets.shape[1]
    found, total, gain = np.empty((most, width), np.int64), np.empty(most), np.empty(most)
    for i in range(len(value)):
        count = _of_server(i, value, weight, room, u, parts[i] - gap, most - at, found, total, gain)
        if count == _TOO_MANY:
            return -1
        if count >= 0:
            for k in np.argsort(-gain[:count]):
                sets[at] = found[k]
                worth[at], loss[at] = total[k], parts[i] - gain[k]
                at += 1
            servers[blocks] = i
            blocks += 1
            starts[blocks] = at
            continue
        for j in np.flatnonzero(value[i] > 0.0):
            profit = value[i, j] - u[j]
            for taken in (profit > 0.0, profit <= 0.0):  # the better one first
                lost = 0.0 if taken == (profit > 0.0) else abs(profit)
                if lost > gap:
                    continue
                if at == most:
                    return -1
                sets[at] = 0
                if taken:
                    sets[at, j // BITS] = 1 << (j % BITS)
                worth[at], loss[at] = value[i, j] if taken else 0.0, lost
                at += 1
            servers[blocks] = i
            blocks += 1
            starts[blocks] = at
    return blocks


@compiled
def _of_server(
    i: int, value: Floats, weight: Floats, room: Floats, u: Floats, need: float, most: int, sets: Ints, worth: Floats,
    gain: Floats,
) -> Any:  # fmt: skip
    """`_listed` of a server, or _FIT."""
    tasks = np.flatnonzero(value[i] > 0.0)
    load = weight[i if len(weight) > 1 else 0][tasks]
    if load.sum() <= room[i]:
        return _FIT
    profit = value[i][tasks] - u[tasks]
    order = np.argsort(-profit / np.maximum(load, 1e-300))
    tasks = tasks[order]
    return _listed(profit[order], load[order], value[i][tasks], tasks, room[i], need, most, sets, worth, gain)


@compiled
def _listed(
    profit: Floats, weight: Floats, value: Floats, tasks: Ints, room: float, need: float, most: int, sets: Ints,
    worth: Floats, gain: Floats,
) -> Any:  # fmt: skip
    """Write down the sets that fit and bring `need`, what they are worth, and what they bring; how many, or _TOO_MANY.

    The densest tasks come first. Each set is met once, as its last task beside those before it.
    """
    k, width = len(profit), sets.shape[1]
    following, held = np.zeros(k + 1, np.int64), np.zeros((k + 1, width), np.int64)
    brought, left, total = np.zeros(k + 1), np.zeros(k + 1), np.zeros(k + 1)
    left[0] = room
    count, looks, depth, fresh = 0, 0, 0, True
    while depth >= 0:
        if fresh and brought[depth] >= need:
            if count == most:
                return _TOO_MANY
            for word in range(width):
                sets[count, word] = held[depth, word]
            worth[count], gain[count] = total[depth], brought[depth]
            count += 1
        fresh = False
        t = following[depth]
        reach, free = brought[depth], left[depth]
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
            return _TOO_MANY
        if t == k or reach < need:
            depth -= 1
            continue
        following[depth] = t + 1
        if weight[t] <= left[depth]:
            for word in range(width):
                held[depth + 1, word] = held[depth, word]
            held[depth + 1, tasks[t] // BITS] |= 1 << (tasks[t] % BITS)
            following[depth + 1] = t + 1
            brought[depth + 1] = brought[depth] + profit[t]
            left[depth + 1] = left[depth] - weight[t]
            total[depth + 1] = total[depth] + value[t]
            depth += 1
            fresh = True
    return count
