"""Server prices: the smoothed dual of mta.md 9, its bound, and the core of tasks that prices leave in play.

For prices nu >= 0 per unit of weight,  L(nu) = sum_i nu_i room_i + sum_j max(0, max_i (W_ij - nu_i w_ij))  is at least
what any plan is worth. L is convex and piecewise linear; with every max replaced by  T log sum exp(. / T)  it is smooth
with a dense n x n Hessian, so projected Newton steps find its least point, and lowering T geometrically finds L's.

Large instances: only a core of tasks takes part, at first those that are worth most per unit of weight, as many as can
fill 1.35 times all room. The other tasks are then priced in blocks; those that would earn something at these prices
join the core, and the prices are found anew from where they stand. What remains outside earns nothing at the final
prices or is summed up in the bound, so the bound is one for the whole table and memory stays O(n x core).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import compiled
from edgora.allocator.mta.table import Table
from edgora.allocator.search import Search

__all__ = ["Core", "Priced", "core_of", "dual", "least", "priced"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_WHOLE_PAIRS = 500_000
"""Up to here all tasks are core."""
_FILL = 1.35
"""Share of all room that the first core can fill."""
_BLOCK_PAIRS = 1 << 19
"""Pairs that are looked at together: a block's arrays stay in cache."""
_COOLING = 0.4
_COLD = 5e-5
_COOLING = 0.4
_COLD = 5e-5
STEPS = 4
_NEAR = 1e-3
_REACH = 5.0
"""Temperatures as shares of the mean of tasks' best values: each is _COOLING times the last, down to _COLD."""
_HOT = 0.1
_STEPS = 3
"""Most Newton steps at a temperature."""
_NEAR = 1e-3
"""A predicted decrease below this share of temperature times tasks is not worth a step."""
_REACH = 8.0
"""A step changes no price by more than this many temperatures per usual weight: the quadratic model holds no further."""
_SHORTEST = 1e-3
"""Least share of a step that is tried."""
_FAINT = -20.0
"""A server this many temperatures below a task's best has no share in it."""
_SLIGHT = 2e-3
"""Servers with less of a task than this are left out of the Hessian's other terms, which are quadratic in the shares."""
_SAMPLE = 400
"""Tasks of a sample that large cores get their first prices from."""
_TEPID = 4e-3
"""First temperature of the whole core after a sample."""
_WARM = 1e-3
"""First temperature of a restart with a larger core."""
_NEGLIGIBLE = 1e-5
"""Share of the bound that tasks outside the core may earn together before they must join."""
_SAFE = 1e-12
"""The bound is widened by this share: more than the rounding of its sums."""


@dataclass(frozen=True, eq=False)
class Core:
    """The part of a table that solvers move in: all servers, some tasks; values -inf where the pair is of no use."""

    tasks: Ints
    """The table's index of each task of the core, ascending (c,)."""
    value: Floats
    """W (n,c); -inf where the pair is infeasible or earns nothing."""
    weight: Floats
    """w (1,c) where it does not depend on the server, else (n,c). Whole numbers up to 2^53 are exact."""
    room: Floats
    unit: float
    """1 where all weights are whole numbers, else 0."""


@dataclass(frozen=True, eq=False)
class Priced:
    core: Core
    nu: Floats
    bound: float
    """L(nu) of the whole table."""
    outside: Floats
    """What each task of the table outside the core would earn at the prices, at most 0 but for trifles; -inf inside."""


def priced(table: Table, search: Search | None = None) -> Priced:
    """Prices that make the bound nearly least, and the core that they leave; a search that is over ends it early."""
    chosen, density = _first_core(table)
    core = core_of(table, chosen)
    if not len(chosen):
        return Priced(core, np.zeros(table.n), 0.0, np.full(table.m, -np.inf))
    stride = len(chosen) // _SAMPLE
    if stride > 1:
        sample = _sampled(core, stride)
        nu = least(core, least(sample, _start(sample), _HOT, search), _TEPID, search)
    else:
        nu = least(core, _start(core), _HOT, search)
    inside = np.zeros(table.m, dtype=np.bool_)
    inside[chosen] = True
    while True:
        earns = _earnings(table, nu, ~inside & (density > 0.0))
        joining = np.maximum(earns, 0.0)
        bound = dual(core, nu) + math.fsum(joining)
        if joining.sum() <= _NEGLIGIBLE * bound or (search is not None and search.over()):
            return Priced(core, nu, bound * (1.0 + _SAFE), earns)
        inside |= earns > 0.0
        core = core_of(table, np.flatnonzero(inside))
        nu = least(core, nu, _WARM, search)


def dual(core: Core, nu: Floats) -> float:
    """L(nu) over the core's tasks."""
    best = (core.value - nu[:, None] * core.weight).max(axis=0, initial=0.0)
    return math.fsum(best) + math.fsum(nu * core.room)


def _first_core(table: Table) -> tuple[Ints, Floats]:
    """The tasks that are worth most per unit of weight, and this worth for all tasks (0: no use to anyone)."""
    density = np.zeros(table.m)
    if not table.m:
        return np.empty(0, dtype=np.int64), density
    for block in _blocks(table):
        value = np.where(table.feasible[:, block], table.value[:, block], 0.0)
        if table.shared_weight:
            density[block] = value.max(axis=0) / np.maximum(table.weight[block], 1e-300)
        else:
            density[block] = (value / np.maximum(table.weight[:, block], 1e-300)).max(axis=0)
    useful = np.flatnonzero(density > 0.0)
    if table.n * len(useful) <= _WHOLE_PAIRS:
        return useful, density
    order = useful[np.argsort(-density[useful], kind="stable")]
    least = table.weight if table.shared_weight else table.weight.min(axis=0)
    filled = np.cumsum(least[order].astype(np.float64))
    count = int(np.searchsorted(filled, _FILL * float(table.room.sum()))) + 1
    return np.sort(order[:count]), density


def core_of(table: Table, tasks: Ints) -> Core:
    """The core of these tasks."""
    value = np.ascontiguousarray(np.where(table.feasible[:, tasks], table.value[:, tasks], -np.inf))
    value[value <= 0.0] = -np.inf
    weight = np.ascontiguousarray(table.weight[None, tasks] if table.shared_weight else table.weight[:, tasks])
    unit = 1.0 if table.weight.dtype.kind == "i" else 0.0
    return Core(tasks, value, weight.astype(np.float64), table.room.astype(np.float64), unit)


def _blocks(table: Table) -> list[slice]:
    width = max(1, _BLOCK_PAIRS // max(1, table.n))
    return [slice(at, min(at + width, table.m)) for at in range(0, table.m, width)]


def _earnings(table: Table, nu: Floats, wanted: NDArray[np.bool_]) -> Floats:
    """What each wanted task would earn on its best server at the prices, negative where it would lose (m,)."""
    earns = np.full(table.m, -np.inf)
    if wanted.any():
        for block in _blocks(table):
            weight = table.weight[None, block] if table.shared_weight else table.weight[:, block]
            reduced = table.value[:, block] - nu[:, None] * weight
            earns[block] = np.where(table.feasible[:, block], reduced, -np.inf).max(axis=0)
        earns[~wanted] = -np.inf
    return earns


def _sampled(core: Core, stride: int) -> Core:
    """Every stride-th task by worth of a unit, with rooms to match: its prices are nearly the core's."""
    density = (core.value / np.maximum(core.weight, 1e-300)).max(axis=0)
    picked = np.argsort(-density, kind="stable")[stride // 2 :: stride]
    value, weight = np.ascontiguousarray(core.value[:, picked]), np.ascontiguousarray(core.weight[:, picked])
    return Core(core.tasks[picked], value, weight, core.room / stride, core.unit)


def _start(core: Core) -> Floats:
    """Half the mean worth of a unit of weight on each server."""
    useful = np.isfinite(core.value)
    weight = np.where(useful, core.weight, 0.0).sum(axis=1)
    start: Floats = 0.5 * np.where(useful, core.value, 0.0).sum(axis=1) / np.maximum(weight, 1e-300)
    return start


def least(core: Core, nu: Floats, hot: float = _HOT, search: Search | None = None) -> Floats:
    """Newton's method on the smoothed dual while it cools; returns the prices with the least true L."""
    n, tasks = core.value.shape
    scale, usual = float(core.value.max(axis=0).mean()), float(core.weight.mean())
    top, listed = np.empty(tasks), np.empty(tasks, dtype=np.int64)
    server, share = np.empty((tasks, n), dtype=np.int64), np.empty((tasks, n))
    gradient, hessian, step = np.empty(n), np.empty((n, n)), np.empty(n)

    def smoothed(at: Floats, derivatives: bool) -> float:
        return float(_smoothed(
            core.value, core.weight, core.room, at, temperature, derivatives, top, listed, server, share,
            gradient, hessian,
        ))  # fmt: skip

    best, least = np.zeros(n), float(_true(core.value, core.weight, core.room, np.zeros(n), top))
    temperature = hot * scale
    while temperature >= _COLD * scale:
        for _ in range(_STEPS):
            if search is not None and search.over():
                return best
            value = smoothed(nu, derivatives=True)
            slope = float(_newton(gradient, hessian, nu, _REACH * temperature / usual, step))
            if slope > -_NEAR * temperature * tasks:
                break
            length = 1.0
            while length > _SHORTEST:
                tried = np.maximum(nu + length * step, 0.0)
                if smoothed(tried, derivatives=False) < value + 0.1 * length * slope:
                    break
                length *= 0.4
            else:
                break
            nu = tried
        true = float(_true(core.value, core.weight, core.room, nu, top))
        if true < least:
            best, least = nu, true
        temperature *= _COOLING
    return best


@compiled
def _true(value: Floats, weight: Floats, room: Floats, nu: Floats, top: Floats) -> Any:
    """L(nu); top becomes each task's greatest earning."""
    n, tasks = value.shape
    by_server = len(weight) > 1
    top[:] = 0.0
    total = 0.0
    for i in range(n):
        price, row, load = nu[i], value[i], weight[i if by_server else 0]
        for j in range(tasks):
            top[j] = max(top[j], row[j] - price * load[j])
        total += price * room[i]
    for j in range(tasks):
        total += top[j]
    return total


@compiled
def _smoothed(
    value: Floats, weight: Floats, room: Floats, nu: Floats, temperature: float, derivatives: bool,
    top: Floats, listed: Ints, server: Ints, share: Floats, gradient: Floats, hessian: Floats,
) -> Any:  # fmt: skip
    """The smoothed dual; with derivatives, also its gradient and Hessian in nu.

    Per task only the servers within _FAINT temperatures of its best count, a few of many: they are listed first.
    """
    n, tasks = value.shape
    by_server = len(weight) > 1
    total = _true(value, weight, room, nu, top)
    listed[:] = 0
    for i in range(n):
        price, row, load = nu[i], value[i], weight[i if by_server else 0]
        for j in range(tasks):
            below = row[j] - price * load[j] - top[j]
            if below > _FAINT * temperature:
                server[j, listed[j]] = i
                share[j, listed[j]] = math.exp(below / temperature)
                listed[j] += 1
    if derivatives:
        gradient[:] = room
        hessian[:] = 0.0
    for j in range(tasks):
        mass = math.exp(-top[j] / temperature)
        for k in range(listed[j]):
            mass += share[j, k]
        total += temperature * math.log(mass)
        if derivatives:
            kept = 0
            for k in range(listed[j]):
                i = server[j, k]
                load = weight[i if by_server else 0, j]
                part = share[j, k] / mass
                gradient[i] -= part * load
                hessian[i, i] += part * (1.0 - part) * load * load
                if part > _SLIGHT:
                    for k2 in range(kept):
                        hessian[i, server[j, k2]] -= part * load * share[j, k2]
                    server[j, kept], share[j, kept] = i, part * load
                    kept += 1
    if derivatives:
        for i in range(n):
            for k in range(i + 1):
                hessian[i, k] /= temperature
    return total


@compiled
def _newton(gradient: Floats, hessian: Floats, nu: Floats, reach: float, step: Floats) -> Any:
    """The Newton step by Cholesky (lower half, in place), cut to `reach`; returns the slope along it.

    Prices at 0 that would fall stay where they are.
    """
    n = len(nu)
    ridge = 0.0
    for i in range(n):
        ridge = max(ridge, hessian[i, i])
    ridge = 1e-6 * ridge + 1e-300
    for i in range(n):
        step[i] = -gradient[i]
        pinned = nu[i] <= 0.0 and gradient[i] > 0.0
        if pinned:
            step[i] = 0.0
            hessian[i, :i] = 0.0
            for k in range(i + 1, n):
                hessian[k, i] = 0.0
            hessian[i, i] = 1.0
        else:
            hessian[i, i] += ridge
    for i in range(n):
        row = hessian[i]
        for k in range(i):
            other = hessian[k]
            total = row[k]
            for t in range(k):
                total -= row[t] * other[t]
            row[k] = total / other[k]
        total = row[i]
        for t in range(i):
            total -= row[t] * row[t]
        row[i] = math.sqrt(max(total, ridge))
        total = step[i]
        for t in range(i):
            total -= row[t] * step[t]
        step[i] = total / row[i]
    for back in range(n):
        i = n - 1 - back
        step[i] /= hessian[i, i]
        for t in range(i):
            step[t] -= hessian[i, t] * step[i]
    slope = 0.0
    for i in range(n):
        step[i] = min(max(step[i], -reach), reach)
        slope += step[i] * gradient[i]
    return slope
