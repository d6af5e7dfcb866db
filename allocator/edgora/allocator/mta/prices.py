"""Server prices: the smoothed dual of mta.md 9, its bound, and the core of tasks that prices leave in play.

For prices nu >= 0 per unit of weight,  L(nu) = sum_i nu_i room_i + sum_j max(0, max_i (W_ij - nu_i w_ij))  is at least
what any plan is worth. L is convex and piecewise linear; with every max replaced by  T log sum exp(. / T)  it is smooth
with a dense n x n Hessian, so projected Newton steps find its least point, and lowering T geometrically finds L's.

Large instances: a sample of the tasks that are worth most per unit of weight gets its prices first; servers that hardly
any of its tasks suits are priced one by one over the whole table. The core is then every task that earns something at
these prices, or nearly. A few cold steps on it are enough for a first plan. The other tasks are priced again at the end;
those that would earn something join the core, and the prices are found anew from where they stand. What remains outside
earns nothing at the final prices or is summed up in the bound, so the bound is one for the whole table, and memory
beyond the table's own stays O(n x core). The table is gone through server by server, in buffers that stay in cache.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import compiled
from edgora.allocator.mta.table import Table
from edgora.allocator.search import Search

__all__ = ["COLD", "Core", "Priced", "colder", "core_of", "dual", "least", "priced", "reachable", "refined"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_WHOLE_PAIRS = 500_000
"""Up to here all tasks are core."""
_FILL = 1.35
"""Share of all room that the tasks fill from which a sample is taken."""
_SAMPLE = 200
"""Tasks of a sample that large cores get their first prices from; at least as many as servers."""
_SUITED = 3.0
"""A sample prices a server whose room, and that of _FEW tasks more, its tasks could fill so many times."""
_FEW = 4.0
_SLACK = 1e-3
"""Tasks that lose no more than this at the sample's prices are core, in units of the temperature."""
_COOLING = 0.4
COLD = 2e-5
"""Temperatures as shares of the mean of tasks' best values: each is _COOLING times the last, down to COLD."""
_HOT = 0.1
"""First temperature from prices that are a guess."""
_MILD = 1e-2
"""... from a good guess: one whose bound is below _CLOSER times the other's."""
_CLOSER = 0.4
_TEPID = 4e-3
"""... of the whole core after a sample."""
_WARM = 1e-3
"""... of a restart with a larger core."""
_COLDEST = 2e-5
"""... of the whole core after a sample, for a first plan at once."""
_STEPS = 2
"""Newton steps at a temperature ..."""
_MOST_STEPS = 6
"""... and at most, while some price has still far to go."""
_NEAR = 1e-3
"""A predicted decrease below this share of temperature times tasks is not worth a step."""
_REACH = 8.0
"""A step changes no price by more than this many temperatures per usual weight: the quadratic model holds no further."""
_STRIDE = 4.0
"""A price that was cut there and would go on in the same direction may go this many times as far in the next step."""
_SHORTEST = 1e-3
"""Least share of a step that is tried."""
_FAINT = -20.0
"""A server this many temperatures below a task's best has no share in it."""
_SLIGHT = 2e-3
"""Servers with less of a task than this are left out of the Hessian's other terms, which are quadratic in the shares."""
_MANY = 0.2
"""Share of the servers from which on a task's part of the Hessian is added row by row."""
_NEGLIGIBLE = 1e-5
"""Share of the bound that tasks outside the core may earn together before they must join."""
_FEW_FIT = 8.0
"""Rooms that hold more tasks than this can be filled to the brim."""
_MOST_SUMS = 1 << 14
"""Largest room whose sums are listed."""
_BARRED = 1e300
"""What an infeasible pair loses: more than any value."""
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
    """What each server can be filled with (`reachable`), at most its room."""
    unit: float
    """1 where all weights are whole numbers, else 0."""


@dataclass(frozen=True, eq=False)
class Priced:
    core: Core
    nu: Floats
    bound: float
    """L(nu) of the whole table."""
    sampled: bool
    """Whether the prices come from a sample, and a few cold steps."""
    outside: Floats
    """What each task of the table outside the core would earn at the prices, at most 0 but for trifles; -inf inside."""


def priced(table: Table, search: Search | None = None) -> Priced:
    """Prices that make the bound nearly least, and the core that they leave; a search that is over ends it early."""
    room, density = reachable(table), _densities(table)
    useful = np.flatnonzero(density > 0.0)
    if table.n * len(useful) <= _WHOLE_PAIRS:
        core = core_of(table, useful, room)
        if not len(useful):
            return Priced(core, np.zeros(table.n), 0.0, False, np.full(table.m, -np.inf))
        nu = least(core, _start(core), _HOT, search)
        return Priced(core, nu, dual(core, nu) * (1.0 + _SAFE), False, np.full(table.m, -np.inf))
    sampled, stride = _sample(table, density, room)
    sample = core_of(table, sampled, room / stride)
    nu, hot = _first_prices(sample)
    nu = _scarce(table, sample, least(sample, nu, hot, search), room)
    inside = _earnings(table, nu) > -_SLACK * _scale(sample)
    core = core_of(table, np.flatnonzero(inside & (density > 0.0)), room)
    return _closed(table, core, least(core, nu, _COLDEST, search), True, search)


def refined(table: Table, found: Priced, cold: float = COLD, search: Search | None = None) -> Priced:
    """The same from higher temperatures: for prices that were found on a sample and turn out not to be good enough."""
    return _closed(table, found.core, least(found.core, found.nu, _TEPID, search, cold), False, search)


def colder(table: Table, found: Priced, hot: float, cold: float, search: Search | None = None) -> Priced:
    """The same between these temperatures, below COLD: nearer to L's least."""
    return _closed(table, found.core, least(found.core, found.nu, hot, search, cold), False, search)


def _closed(table: Table, core: Core, nu: Floats, sampled: bool, search: Search | None) -> Priced:
    """Prices and core once nothing outside would earn, beyond trifles, that the core does not hold."""
    while True:
        outside = _earnings(table, nu)
        outside[core.tasks] = -np.inf
        joining = np.maximum(outside, 0.0)
        bound = dual(core, nu) + math.fsum(joining)
        if joining.sum() <= _NEGLIGIBLE * bound or (search is not None and search.over()):
            return Priced(core, nu, bound * (1.0 + _SAFE), sampled, outside)
        inside = outside > -_SLACK * _scale(core)
        inside[core.tasks] = True
        core = core_of(table, np.flatnonzero(inside), core.room)
        nu = least(core, nu, _WARM, search)


def dual(core: Core, nu: Floats) -> float:
    """L(nu) over the core's tasks."""
    best = (core.value - nu[:, None] * core.weight).max(axis=0, initial=0.0)
    return math.fsum(best) + math.fsum(nu * core.room)


def reachable(table: Table) -> Floats:
    """Rooms without what no set of feasible tasks can fill, where weights are small integers and few tasks fit (n,).

    A server of room 27 whose feasible tasks weigh 10 and 11 holds 22 at most. No plan loses anything by it, but every
    bound from prices falls by the price of the 5 that stay empty.
    """
    room = table.room.astype(np.float64)
    if table.weight.dtype.kind != "i" or not table.shared_weight or not table.m:
        return room
    order = np.argsort(table.weight, kind="stable")
    sizes, first, counts = np.unique(table.weight[order], return_index=True, return_counts=True)
    few = np.flatnonzero(room <= min(_FEW_FIT * float(table.weight.mean()), _MOST_SUMS))
    for i in few.tolist():
        held = int(table.room[i])
        sums, within = 1, (1 << (held + 1)) - 1  # bit s: some set weighs s
        for kind in np.flatnonzero(np.logical_or.reduceat(table.feasible[i].take(order), first)).tolist():
            size, step = int(sizes[kind]), 1
            left = min(int(counts[kind]), held // size)
            while left:  # so many of one weight, by binary splitting
                step = min(step, left)
                sums |= (sums << (step * size)) & within
                left, step = left - step, 2 * step
        room[i] = sums.bit_length() - 1
    return room


def _densities(table: Table) -> Floats:
    """What each task is worth per unit of weight on its best server; 0: no use to anyone (m,)."""
    density, row = np.zeros(table.m), np.empty(table.m)
    for i in range(table.n):
        np.multiply(table.value[i], table.feasible[i], out=row)
        if not table.shared_weight:
            row /= np.maximum(table.weight[i], 1e-300)
        np.maximum(density, row, out=density)
    return density / np.maximum(table.weight, 1e-300) if table.shared_weight else density


def _earnings(table: Table, nu: Floats) -> Floats:
    """What each task would earn on its best server at the prices, negative where it would lose (m,)."""
    earns, row, barred = np.full(table.m, -np.inf), np.empty(table.m), np.empty(table.m)
    for i in range(table.n):
        np.multiply(table.weight if table.shared_weight else table.weight[i], nu[i], out=row)
        np.subtract(table.value[i], row, out=row)
        np.multiply(~table.feasible[i], _BARRED, out=barred)
        row -= barred
        np.maximum(earns, row, out=earns)
    earns[earns < -0.5 * _BARRED] = -np.inf
    return earns


def _sample(table: Table, density: Floats, room: Floats) -> tuple[Ints, int]:
    """Of the tasks that are worth most per unit and fill _FILL times all room, every so many-th, and this stride."""
    order = np.flatnonzero(density > 0.0)
    order = order[np.argsort(-density[order], kind="stable")]
    lightest = table.weight if table.shared_weight else table.weight.min(axis=0)
    filled = np.cumsum(lightest[order].astype(np.float64))
    count = min(len(order), int(np.searchsorted(filled, _FILL * float(room.sum()))) + 1)
    stride = max(1, count // max(_SAMPLE, table.n))
    return np.sort(order[:count][stride // 2 :: stride]), stride


def core_of(table: Table, tasks: Ints, room: Floats | None = None) -> Core:
    """The core of these tasks; `room` where it is not the table's."""
    value = table.value[:, tasks]
    value[~table.feasible[:, tasks] | (value <= 0.0)] = -np.inf
    weight = np.ascontiguousarray(table.weight[None, tasks] if table.shared_weight else table.weight[:, tasks])
    unit = 1.0 if table.weight.dtype.kind == "i" else 0.0
    room = table.room.astype(np.float64) if room is None else room
    return Core(tasks, np.ascontiguousarray(value), weight.astype(np.float64), room, unit)


def _scarce(table: Table, sample: Core, nu: Floats, room: Floats) -> Floats:
    """The prices, with better ones for servers that hardly any task of the sample suits: it says nothing about them.

    Each is priced in turn at what its marginal task gains there over what it would earn elsewhere.
    """
    suits = np.where(np.isfinite(sample.value), sample.weight, 0.0).sum(axis=1)
    little = _SUITED * (sample.room + _FEW * sample.weight.mean())
    servers = np.flatnonzero((suits < little) & (room > 0.0))
    if not len(servers):
        return nu
    nu = nu.copy()
    nu[servers] = _BARRED
    elsewhere = np.maximum(_earnings(table, nu), 0.0)
    for i in servers[np.argsort(-table.value[servers].max(axis=1), kind="stable")].tolist():
        weight = table.weight if table.shared_weight else table.weight[i]
        tasks = np.flatnonzero(table.feasible[i] & (table.value[i] > elsewhere))
        gain = (table.value[i, tasks] - elsewhere[tasks]) / weight[tasks]
        order = np.argsort(-gain, kind="stable")
        marginal = int(np.searchsorted(np.cumsum(weight[tasks[order]]), room[i], side="right"))
        nu[i] = gain[order[marginal]] if marginal < len(order) else 0.0
        elsewhere[tasks] = np.maximum(elsewhere[tasks], table.value[i, tasks] - nu[i] * weight[tasks])
    return nu


def _scale(core: Core) -> float:
    """Mean of tasks' best values: the unit of temperatures."""
    return float(core.value.max(axis=0).mean())


def _start(core: Core) -> Floats:
    """Half the mean worth of a unit of weight on each server."""
    useful = np.isfinite(core.value)
    weight = np.where(useful, core.weight, 0.0).sum(axis=1)
    start: Floats = 0.5 * np.where(useful, core.value, 0.0).sum(axis=1) / np.maximum(weight, 1e-300)
    return start


def _first_prices(core: Core) -> tuple[Floats, float]:
    """Where to start, and how hot: on each server the worth of a unit that is marginal if all room were one server's.

    Near enough where rooms are scarce and servers like the same tasks; else nothing is gained over `_start`.
    """
    density = core.value / np.maximum(core.weight, 1e-300)
    best = density.max(axis=0)
    order = np.argsort(-best, kind="stable")
    filled = np.cumsum(core.weight.min(axis=0)[order])
    share = min(1.0, float(np.searchsorted(filled, core.room.sum())) / len(order))
    marginal = np.zeros(len(density))
    for i, row in enumerate(density):
        held = np.sort(row[np.isfinite(row)])
        if len(held):
            marginal[i] = held[min(len(held) - 1, int((1.0 - share) * len(held)))]
    half = _start(core)
    if dual(core, marginal) < dual(core, half) * _CLOSER:
        return marginal, _MILD
    return half, _HOT


def least(core: Core, nu: Floats, hot: float = _HOT, search: Search | None = None, cold: float = COLD) -> Floats:
    """Newton's method on the smoothed dual while it cools; returns the prices with the least true L."""
    n, tasks = core.value.shape
    scale, usual = _scale(core), float(core.weight.mean())
    top, listed = np.empty(tasks), np.empty(tasks, dtype=np.int64)
    server, share, mass = np.empty((tasks, n), dtype=np.int64), np.empty((tasks, n)), np.empty(tasks)
    gradient, hessian, step, dense = np.empty(n), np.empty((n, n)), np.empty(n), np.zeros(n)
    best, least = np.zeros(n), float(_true(core.value, core.weight, core.room, np.zeros(n), top))

    def smoothed(at: Floats) -> float:
        nonlocal best, least
        true, value = _smoothed(core.value, core.weight, core.room, at, temperature, top, listed, server, share, mass)
        if true < least:
            best, least = at, true
        return float(value)

    def derive() -> None:
        """Fills gradient and Hessian at the last point looked at."""
        _derive(core.weight, core.room, temperature, listed, server, share, mass, dense, gradient, hessian)

    temperature = hot * scale
    while temperature >= min(hot, cold) * scale:
        value, reach = smoothed(nu), np.full(n, _REACH * temperature / usual)
        derive()
        for taken in range(_MOST_STEPS):
            if search is not None and search.over():
                return best
            slope = float(_newton(gradient, hessian, nu, reach, step))
            if slope > -_NEAR * temperature * tasks:
                break
            length = 1.0
            while length > _SHORTEST:
                tried = np.maximum(nu + length * step, 0.0)
                reached = smoothed(tried)
                if reached < value + 0.1 * length * slope:
                    break
                length *= 0.4
            else:
                break
            nu, value = tried, reached
            derive()
            onward = (np.abs(step) >= reach) & (gradient * step < 0.0)
            if taken >= _STEPS - 1 and not onward.any():
                break
            reach = np.where(onward, _STRIDE * reach, _REACH * temperature / usual)
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
    value: Floats, weight: Floats, room: Floats, nu: Floats, temperature: float,
    top: Floats, listed: Ints, server: Ints, share: Floats, mass: Floats,
) -> Any:  # fmt: skip
    """L(nu) and the smoothed dual; and what `_derive` needs: the servers that count, and their shares of each task's mass.

    Per task only the servers within _FAINT temperatures of its best count, often a few of many: they are listed first.
    """
    n, tasks = value.shape
    by_server = len(weight) > 1
    true = _true(value, weight, room, nu, top)
    total = true
    listed[:] = 0
    for i in range(n):
        price, row, load = nu[i], value[i], weight[i if by_server else 0]
        for j in range(tasks):
            below = row[j] - price * load[j] - top[j]
            if below > _FAINT * temperature:
                server[j, listed[j]] = i
                share[j, listed[j]] = math.exp(below / temperature)
                listed[j] += 1
    for j in range(tasks):
        mass[j] = math.exp(-top[j] / temperature)
        for k in range(listed[j]):
            mass[j] += share[j, k]
        total += temperature * math.log(mass[j])
    return true, total


@compiled
def _derive(
    weight: Floats, room: Floats, temperature: float, listed: Ints, server: Ints, share: Floats, mass: Floats,
    dense: Floats, gradient: Floats, hessian: Floats,
) -> None:  # fmt: skip
    """The smoothed dual's gradient and the upper half of its Hessian in nu, once after `_smoothed`, whose lists it uses up.

    `dense` is all 0 before and after.
    """
    n = len(room)
    by_server = len(weight) > 1
    gradient[:] = room
    hessian[:] = 0.0
    for j in range(len(mass)):
        kept = 0
        for k in range(listed[j]):
            i = server[j, k]
            load = weight[i if by_server else 0, j]
            part = share[j, k] / mass[j]
            gradient[i] -= part * load
            hessian[i, i] += part * (1.0 - part) * load * load
            if part > _SLIGHT:
                server[j, kept], share[j, kept] = i, part * load
                kept += 1
        if kept > _MANY * n:  # whole rows are quicker than many single entries
            for k in range(kept):
                dense[server[j, k]] = share[j, k]
            for k in range(kept):
                after, part = server[j, k] + 1, share[j, k]
                row, others = hessian[after - 1, after:], dense[after:]
                for t in range(len(others)):
                    row[t] -= part * others[t]
            for k in range(kept):
                dense[server[j, k]] = 0.0
        else:
            for k in range(kept):
                row, part = hessian[server[j, k]], share[j, k]
                for k2 in range(k + 1, kept):
                    row[server[j, k2]] -= part * share[j, k2]
    for i in range(n):
        for k in range(i, n):
            hessian[i, k] /= temperature


@compiled
def _newton(gradient: Floats, hessian: Floats, nu: Floats, reach: Floats, step: Floats) -> Any:
    """The Newton step by Cholesky (upper half, in place), cut to `reach`; returns the slope along it.

    Prices at 0 that would fall stay where they are. Inner loops run along rows, which compilers vectorise.
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
            for k in range(i):
                hessian[k, i] = 0.0
            hessian[i, i:] = 0.0
            hessian[i, i] = 1.0
        else:
            hessian[i, i] += ridge
    for k in range(n):
        pivot = hessian[k]
        root = math.sqrt(max(pivot[k], ridge))
        pivot[k] = root
        for t in range(k + 1, n):
            pivot[t] /= root
        step[k] /= root
        done = step[k]
        for t in range(k + 1, n):
            step[t] -= pivot[t] * done
        for i in range(k + 1, n):
            part = pivot[i]
            if part != 0.0:
                row = hessian[i]
                for t in range(i, n):
                    row[t] -= part * pivot[t]
    for back in range(n):
        i = n - 1 - back
        row = hessian[i]
        total = step[i]
        for t in range(i + 1, n):
            total -= row[t] * step[t]
        step[i] = total / row[i]
    slope = 0.0
    for i in range(n):
        step[i] = min(max(step[i], -reach[i]), reach[i])
        slope += step[i] * gradient[i]
    return slope
