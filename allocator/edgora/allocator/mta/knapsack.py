"""One server's knapsack: exactly for weights of any kind, or quickly on a grid.

    maximise sum p_t x_t   subject to   sum w_t x_t <= room,   x binary,   p > 0

With e the efficiency of the break item (the first that does not fit, best efficiency first), a solution that departs
from the greedy prefix at item t loses at least |p_t - e w_t| against Dantzig's bound. Items whose loss exceeds the gap
between that bound and greedy's value are decided at once. What is left goes to one of two dynamic programmes:

* over the cells of the room, vectorised, where weights are whole multiples of `unit` and the cells are few: exact for
  small integers.
* over the list of undominated (weight, profit) states, whose cost depends on how many sums matter and not on the unit:
  exact for reals and for 2^48 units of fuel. A state is dropped when its profit, plus e times its room left, plus what
  the undecided items can add, does not exceed the best value; items are taken by falling loss, so that the many-way
  ties near the break item come last. Where a list outgrows its workspace the search ends with the best solution so far
  and the greatest bound of the open states: still a proven bound, no longer the optimum.

With `rounded`, for plans rather than bounds, a list that grows long is given up for the cells, weights rounded up to a
cell of room/2048: the solution is allowed, and nearly always the optimum.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import compiled

__all__ = ["Work", "pack", "workspace"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Work = tuple[Floats, Ints, NDArray[np.bool_]]
"""Scratch arrays of `pack`, reused from call to call."""

_STATES = 1 << 12
"""Most states of a list."""
_NODES = 1 << 15
"""Most "take" decisions that are remembered for one knapsack."""
_CELLS = 1 << 22
"""Most cells times items of the dynamic programme over cells."""
_MOST_CELLS = 1 << 16
"""Largest room of whole weights that is worth its cells."""
_GRID = 2047.0
"""Cells of the room where weights are rounded."""
_SHORT = 512
"""Most states of a list before rounding is the cheaper way."""
_CROWD = 64
"""From so many items on it pays to drop those that others of the same weight make needless."""
_BAND, _HELD = 12, 9.0
"""The same where fewer than _HELD of the lightest items fit, from _BAND items on."""
_INSERTION = 128
"""Up to here insertion sort is the quicker one."""
_EDGE = 1e-12
"""Relative difference at which two profits are one: the bound is widened by it."""


def workspace(items: int, room: float = 0.0) -> Work:
    """Scratch space for knapsacks of up to `items` items; for cells of whole weights if the room is not too large."""
    length = max(items + 1, _STATES)
    cells = int(_GRID if room > _MOST_CELLS else max(room, _GRID)) + 3
    kept = np.empty(min(_CELLS, cells * (items + 1)), dtype=np.bool_)
    return np.empty((5, max(length, cells))), np.empty((7, max(length, _NODES)), dtype=np.int64), kept


@compiled
def _by_cells(
    count: int, base_p: float, free: int, p: Floats, w: Floats, free_room: float, unit: float,
    take: NDArray[np.bool_], real: Floats, whole: Ints, kept: NDArray[np.bool_], value: float, bound: float,
) -> Any:  # fmt: skip
    """bound: to be returned unless the value is above it."""
    queue, status = whole[1], whole[2]
    cells = math.floor(free_room / unit) + 1
    now, then = real[1], real[2]
    now[:cells] = 0.0
    for at in range(free):
        t = queue[at]
        need, profit = math.ceil(w[t] / unit), p[t]
        row = kept[at * cells : (at + 1) * cells]
        if need >= cells:
            row[:] = False
            continue
        then[:need] = now[:need]
        row[:need] = False
        for c in range(need, cells):
            grown = now[c - need] + profit
            better = grown > now[c]
            row[c] = better
            then[c] = grown if better else now[c]
        now, then = then, now
    if base_p + now[cells - 1] > value:
        value = base_p + now[cells - 1]
        for t in range(count):
            take[t] = status[t] == 1
        c = cells - 1
        for back in range(free):
            at = free - 1 - back
            if kept[at * cells + c]:
                take[queue[at]] = True
                c -= math.ceil(w[queue[at]] / unit)
    return value, max(value, bound)


@compiled
def _by_states(
    count: int, base_p: float, free: int, p: Floats, w: Floats, free_room: float, edge: float, rest: float, most_states: int,
    take: NDArray[np.bool_], real: Floats, whole: Ints, value: float, bound: float,
) -> Any:  # fmt: skip
    queue, status = whole[1], whole[2]
    state_w, state_p, next_w, next_p = real[1], real[2], real[3], real[4]
    state_id, next_id, parent, item = whole[3], whole[4], whole[5], whole[6]
    most_states, most_nodes = min(most_states, len(state_id)), len(parent)
    best, best_node = value - base_p, -1  # of the free items' part; -1: greedy's own
    states, nodes, unfinished = 1, 0, 0.0
    state_w[0], state_p[0], state_id[0] = 0.0, 0.0, -1
    for at in range(free):
        if 2 * states > most_states or nodes + states > most_nodes:
            for k in range(states):
                unfinished = max(unfinished, state_p[k] + edge * (free_room - state_w[k]) + rest)
            break
        t = queue[at]
        rest -= max(0.0, p[t] - edge * w[t])
        out, stay, grow, highest = 0, 0, 0, -1.0
        while True:
            weight_stay = state_w[stay] if stay < states else math.inf
            weight_grow = state_w[grow] + w[t] if grow < states else math.inf
            if weight_grow > free_room:
                weight_grow = math.inf  # the list is sorted: nothing after it fits either
            if weight_stay == math.inf and weight_grow == math.inf:
                break
            grown = weight_grow < weight_stay
            if grown:
                weight, profit = weight_grow, state_p[grow] + p[t]
                grow += 1
            else:
                weight, profit = weight_stay, state_p[stay]
                stay += 1
            if profit <= highest:
                continue
            if grown and profit > best:
                best, best_node = profit, nodes
                parent[nodes], item[nodes] = state_id[grow - 1], t
                nodes += 1
                if profit + edge * (free_room - weight) + rest > best + _EDGE * abs(best + base_p):
                    next_w[out], next_p[out], next_id[out] = weight, profit, best_node
                    out += 1
                highest = profit
                continue
            if profit + edge * (free_room - weight) + rest <= best + _EDGE * abs(best + base_p):
                continue
            highest = profit
            next_w[out], next_p[out] = weight, profit
            if grown:
                parent[nodes], item[nodes] = state_id[grow - 1], t
                next_id[out] = nodes
                nodes += 1
            else:
                next_id[out] = state_id[stay - 1]
            out += 1
        states = out
        state_w, next_w = next_w, state_w
        state_p, next_p = next_p, state_p
        state_id, next_id = next_id, state_id
        if states == 0:
            break

    value = base_p + best
    if best_node >= 0:
        for t in range(count):
            take[t] = status[t] == 1
        while best_node >= 0:
            take[item[best_node]] = True
            best_node = parent[best_node]
    return value, min(bound, max(value, base_p + unfinished) * (1.0 + _EDGE))


@compiled
def _foremost(count: int, p: Floats, w: Floats, room: float, unit: float, order: Ints, whole: Ints) -> Any:
    """List the items that can matter in `order`; returns how many.

    Of equally heavy items only the most profitable are worth a thought, as many as the room holds.
    """
    first, filled, best = whole[3], whole[4], whole[5]
    cells = math.floor(room / unit)
    first[: cells + 2] = 0
    for t in range(count):
        if w[t] <= room:
            first[math.ceil(w[t] / unit) + 1] += 1
    for size in range(cells + 1):
        fits = first[size + 1] if size == 0 else min(first[size + 1], cells // size)
        first[size + 1] = first[size] + fits
        filled[size] = 0
    for t in range(count):
        if w[t] > room:
            continue
        size = math.ceil(w[t] / unit)
        start, end = first[size], first[size + 1]
        at = start + filled[size]
        if at == end:
            at -= 1
            if p[t] <= p[best[at]]:
                continue
        else:
            filled[size] += 1
        while at > start and p[best[at - 1]] < p[t]:
            best[at] = best[at - 1]
            at -= 1
        best[at] = t
    live = first[cells + 1]
    order[:live] = best[:live]
    return live


@compiled
def _undominated(count: int, p: Floats, w: Floats, room: float, most: int, order: Ints, real: Floats) -> Any:
    """List the items that can matter where no more than `most` fit together; returns how many.

    An item is needless if `most` others are worth no less and weigh no more: one of them is always free to replace it.
    """
    keys, lightest = real[1], real[2]
    for t in range(count):
        keys[t] = -p[t]
    ranked = np.argsort(keys[:count], kind="mergesort")
    live, seen = 0, 0
    for at in range(count):
        t = ranked[at]
        if w[t] > room or (seen == most and w[t] >= lightest[most - 1]):
            continue
        order[live] = t
        live += 1
        place = seen if seen < most else most - 1
        seen = place + 1
        while place > 0 and lightest[place - 1] > w[t]:
            lightest[place] = lightest[place - 1]
            place -= 1
        lightest[place] = w[t]
    return live


@compiled
def pack(
    count: int, p: Floats, w: Floats, room: float, unit: float, rounded: bool, take: NDArray[np.bool_],
    real: Floats, whole: Ints, kept: NDArray[np.bool_],
) -> Any:  # fmt: skip
    """Solve over the first `count` items; sets `take`. Returns (value, bound), equal up to 1e-12 if solved exactly.

    unit: all weights are whole multiples of it; 0 where they are not. real, whole, kept: the `workspace`.
    """
    total, gain, lightest = 0.0, 0.0, math.inf
    for t in range(count):
        total += w[t]
        gain += p[t]
        lightest = min(lightest, w[t])
        take[t] = True
    if total <= room:
        return gain, gain

    efficiency, order, status = real[0], whole[0], whole[2]
    live = count
    if unit > 0.0 and count > _CROWD and room / unit + 3.0 < whole.shape[1]:
        live = _foremost(count, p, w, room, unit, order, whole)
    elif count > _BAND and room < _HELD * lightest:
        live = _undominated(count, p, w, room, max(1, math.floor(room / lightest)), order, real)
    if live < count:
        take[:count] = False
        status[:count] = 0
    else:
        for t in range(count):
            order[t] = t
    for at in range(live):
        t = order[at]
        efficiency[t] = p[t] / w[t] if w[t] > 0.0 else math.inf
        take[t] = True
    if live <= _INSERTION:
        for k in range(live):
            t, at = order[k], k
            e = efficiency[t]
            while at > 0 and efficiency[order[at - 1]] < e:
                order[at] = order[at - 1]
                at -= 1
            order[at] = t
    else:
        ranked, keys = order[:live].copy(), np.empty(live)
        for at in range(live):
            keys[at] = -efficiency[ranked[at]]
        order[:live] = ranked[np.argsort(keys, kind="mergesort")]

    used, value, edge, bound, at_break = 0.0, 0.0, 0.0, 0.0, -1
    for at in range(live):
        t = order[at]
        if used + w[t] <= room:
            used += w[t]
            value += p[t]
        else:
            take[t] = False
            if at_break < 0:
                at_break, edge = at, efficiency[t]
                bound = value + (room - used) * edge
    if bound <= value * (1.0 + _EDGE):
        return value, max(value, bound)

    # Decide what loses too much the other way; queue the rest, greatest loss first. Status 1: in for sure.
    gap = bound - value
    queue = whole[1]
    low, high, free = 0, live - 1, 0
    base_w, base_p, rest = 0.0, 0.0, 0.0
    while low < at_break or high >= at_break:
        loss_low, loss_high = -1.0, -1.0
        if low < at_break:
            t = order[low]
            loss_low = p[t] - edge * w[t]
        if high >= at_break:
            t = order[high]
            loss_high = edge * w[t] - p[t]
        if loss_low > loss_high:
            t = order[low]
            low += 1
            if loss_low >= gap:
                status[t] = 1
                base_w += w[t]
                base_p += p[t]
                continue
            rest += loss_low
        else:
            t = order[high]
            high -= 1
            if loss_high >= gap:
                status[t] = 0
                continue
        status[t] = 0
        queue[free] = t
        free += 1

    free_room = room - base_w
    if unit > 0.0 and (free_room / unit + 1.0) * free <= len(kept) and free_room / unit + 1.0 < real.shape[1]:
        return _by_cells(count, base_p, free, p, w, free_room, unit, take, real, whole, kept, value, value)
    limit = _SHORT if rounded else len(real[1])
    value, bound = _by_states(count, base_p, free, p, w, free_room, edge, rest, limit, take, real, whole, value, bound)
    if rounded and bound > value * (1.0 + 1e-9) and (_GRID + 1.0) * free <= len(kept):
        cell = free_room / _GRID
        return _by_cells(count, base_p, free, p, w, free_room, cell, take, real, whole, kept, value, bound)
    return value, bound
