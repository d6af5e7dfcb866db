"""The Lagrangian bound over tasks: as strong as column generation over server subsets (Dantzig-Wolfe), without an LP.

For multipliers u >= 0 of the tasks' constraints,

    L(u) = sum_j u_j + sum_i max { sum_j (W_ij - u_j) x_ij : sum_j w_ij x_ij <= room_i, x binary }

is at least what any plan is worth. Its least value is the Dantzig-Wolfe bound, far below the LP's where servers hold few
tasks. It is approached by deflected subgradients with Polyak's step towards the best plan's worth, from the multipliers
that server prices imply. Each knapsack is solved exactly (`knapsack.pack`); its bound enters the sum, so L(u) is proven
even where a knapsack was cut short.

At any u a pair (i,j) can be probed: with x_ij = 1 the knapsack of i loses a known amount. Pairs whose loss exceeds the gap
to the best plan are in no better plan, and leave the core.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import compiled
from edgora.allocator.mta.blocks import Block
from edgora.allocator.mta.knapsack import pack, workspace
from edgora.allocator.mta.prices import Core
from edgora.allocator.mta.subsets import subsets

__all__ = ["Lagrangian", "deflected", "evaluate", "losses", "tables"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_ROUNDING = 1e-12
"""Rooms of real weights are taken larger by this share, and L(u) widened by it: more than the rounding of the sums."""
_STALL = 10
"""Evaluations without progress after which the step is shortened."""
_SHORTEN = 0.85
_ON_CELLS = 12
"""A probe by tables over cells costs as much as this many evaluations; without them each pair is a knapsack."""
_TABLE = 1 << 20
"""Most cells of a table of `losses`."""


class Lagrangian:
    """The descent of L(u) on a core; pairs that probing excludes are set to -inf in its own copy of the values."""

    def __init__(self, core: Core, nu: Floats, least_worth: float, lp_bound: float) -> None:
        """Start from the multipliers of server prices; leave out pairs whose regret at them exceeds the gap.

        lp_bound is L(nu) of these very prices: the regret is a loss against that bound and no other.
        """
        earns = core.value - nu[:, None] * core.weight
        self.u: Floats = earns.max(axis=0, initial=0.0)
        self.value = np.where(self.u - earns > lp_bound - least_worth * (1.0 - 1e-9), -np.inf, core.value)
        self._weight, self._unit = core.weight, core.unit
        self._room = core.room if core.unit else core.room * (1.0 + _ROUNDING)
        count, n = len(core.tasks), len(core.room)
        self._work = workspace(count, float(core.room.max(initial=0.0)) if core.unit else 0.0)
        self._scratch = np.empty((2, count + 1))
        self._items, self._take = np.empty(count + 1, dtype=np.int64), np.empty(count + 1, dtype=np.bool_)
        self.taken = np.zeros((n, count), dtype=np.bool_)
        self.best_u = self.u.copy()
        """Multipliers of the least L(u) so far."""
        self._direction = np.zeros(count)
        self._servers = np.zeros(n)
        self._nu = nu
        self._ahead, self._behind = tables(core)
        self._state = np.array([np.inf, 1.0, 0.0, 0.0])
        """Least L so far, step factor, evaluations since it fell, evaluations in all."""

    @property
    def bound(self) -> float:
        """Least L(u) so far. Plans that use excluded pairs may be worth up to `least_worth` more."""
        return float(self._state[0])

    @property
    def step(self) -> float:
        """How long steps still are; below 0.01 the descent has converged."""
        return float(self._state[1])

    @property
    def evaluations(self) -> int:
        return int(self._state[3])

    @property
    def probing(self) -> int:
        """About how many evaluations a probe costs: fewer of them have not brought the bound down far enough for one."""
        n, cells = len(self._room), float(self._room.max(initial=0.0)) * (self.value.shape[1] + 1)
        if self._unit and cells <= len(self._ahead):
            return _ON_CELLS
        return max(_ON_CELLS, int((self.value > 0.0).sum()) // (4 * max(1, n)))

    def run(self, evaluations: int, target: float) -> None:
        """So many steps towards `target`, the best worth known."""
        _descend(
            evaluations, target, self.value, self._weight, self._room, self._unit, self.u, self.best_u,
            self._direction, self._servers, self._state, self.taken, self._items, self._scratch, self._take, *self._work,
        )  # fmt: skip

    def sharpen(self) -> None:
        """Go back to the best multipliers and take longer steps again."""
        self.u[:] = self.best_u
        self._direction[:] = 0.0
        self._state[1], self._state[2] = 1.0, 0.0

    def at(self, u: Floats) -> tuple[float, Floats, Bools]:
        """L(u) at other multipliers, each server's part of it (n,), and what each takes (n,c)."""
        self.u[:] = u
        total: float = evaluate(
            self.value, self._weight, self._room, self._unit, self.u, self._servers, self.taken, self._items,
            self._scratch, self._take, *self._work,
        )  # fmt: skip
        return total, self._servers, self.taken

    def _evaluated(self) -> float:
        """L at the best multipliers; each server's part of it is in `_servers`."""
        return self.at(self.best_u)[0]

    def fit(self) -> Bools:
        """Which servers hold all the tasks at once that may still be theirs (n,)."""
        load = np.where(self.value > 0.0, self._weight, 0.0).sum(axis=1)
        fit: Bools = load <= self._room
        return fit

    def subsets(self, worth: float, most: int) -> dict[int, Block]:
        """What each server may hold in a plan better than `worth`, where these are at most so many sets."""
        return self.sets(self.best_u, self._evaluated() - worth * (1.0 - 1e-9), most, range(len(self._room)))

    def sets(self, u: Floats, gap: float, most: int, servers: Sequence[int]) -> dict[int, Block]:
        """The same of some servers, for plans that lose at most `gap` against a bound at these multipliers."""
        _, parts, _ = self.at(u)
        value = np.full_like(self.value, -np.inf)
        value[servers] = self.value[servers]
        return subsets(value, self._weight, self._room, u, parts, gap, most)

    def knapsacks(self, servers: Sequence[int]) -> tuple[Any, ...]:
        """What `evaluate` takes for these servers alone, but for the multipliers after the fourth; the sixth is what they take."""
        rows = np.array(servers, dtype=np.int64)
        weight = self._weight[rows] if len(self._weight) > 1 else self._weight
        return (
            self.value[rows], weight, self._room[rows], self._unit, np.zeros(len(rows)), np.zeros((len(rows), len(self.u)), np.bool_),
            self._items, self._scratch, self._take, *self._work,
        )  # fmt: skip

    def probe(self, worth: float, over: Callable[[], bool]) -> None:
        """Exclude the pairs that no plan better than `worth` holds, seen from the best multipliers; none if cut off."""
        n, count = self.value.shape
        total = self._evaluated()
        most = total - worth * (1.0 - 1e-9)
        loss, out = np.empty((n, count)), np.zeros(count)
        for i in range(n):
            if over():
                return
            losses(
                i, i + 1, most, self.value, self._weight, self._room, self._unit, self.u, self._nu, self._servers,
                self.taken, loss, out, self._items, self._scratch, self._take, self._ahead, self._behind, *self._work,
            )  # fmt: skip
        self.value[loss + out > most] = -np.inf


def tables(core: Core) -> tuple[Floats, Floats]:
    """Scratch space of `losses`, enough for the cells of most servers' rooms."""
    cells = float(core.room.max(initial=0.0)) + 2.0 if core.unit else 0.0
    length = int(min(_TABLE, cells * (len(core.tasks) + 2)))
    return np.empty(length), np.empty(length)


@compiled
def evaluate(
    value: Floats, weight: Floats, room: Floats, unit: float, u: Floats, servers: Floats, taken: NDArray[np.bool_],
    items: Ints, scratch: Floats, take: NDArray[np.bool_], real: Floats, whole: Ints, kept: NDArray[np.bool_],
) -> Any:  # fmt: skip
    """L(u); fills each server's part of it and the pairs that attain it."""
    n, count = value.shape
    by_server = len(weight) > 1
    p, w = scratch[0], scratch[1]
    total = 0.0
    for i in range(n):
        row, load = value[i], weight[i if by_server else 0]
        found = 0
        for j in range(count):
            taken[i, j] = False
            if row[j] > u[j] and load[j] <= room[i]:
                items[found], p[found], w[found] = j, row[j] - u[j], load[j]
                found += 1
        _, servers[i] = pack(found, p, w, room[i], unit, False, take, real, whole, kept)
        total += servers[i]
        for t in range(found):
            if take[t]:
                taken[i, items[t]] = True
    for j in range(count):
        total += u[j]
    return total * (1.0 + _ROUNDING)


@compiled
def deflected(u: Floats, slope: Floats, direction: Floats) -> Any:
    """Turn the direction of descent to the slope, away from the last one where the two are at an obtuse angle; its squared length.

    Camerini, Fratta and Maffioli 1975. No multiplier falls below 0.
    """
    across, along, length = 0.0, 0.0, 0.0
    for j in range(len(u)):
        if slope[j] > 0.0 and u[j] <= 0.0:
            slope[j] = 0.0
        across += slope[j] * direction[j]
        along += direction[j] * direction[j]
    turn = max(0.0, -1.5 * across / along) if along > 0.0 else 0.0
    for j in range(len(u)):
        direction[j] = slope[j] + turn * direction[j]
        length += direction[j] * direction[j]
    return length


@compiled
def _descend(
    evaluations: int, target: float, value: Floats, weight: Floats, room: Floats, unit: float, u: Floats,
    best_u: Floats, direction: Floats, servers: Floats, state: Floats, taken: NDArray[np.bool_],
    items: Ints, scratch: Floats, take: NDArray[np.bool_], real: Floats, whole: Ints, kept: NDArray[np.bool_],
) -> None:  # fmt: skip
    n, count = value.shape
    slope = np.empty(count)
    for _ in range(evaluations):
        total = evaluate(value, weight, room, unit, u, servers, taken, items, scratch, take, real, whole, kept)
        state[3] += 1.0
        if total < state[0]:
            if state[0] == math.inf or total < state[0] - 1e-3 * (state[0] - target):
                state[2] = 0.0
            state[0] = total
            best_u[:] = u
        else:
            state[2] += 1.0
            if state[2] > _STALL:
                state[1], state[2] = state[1] * _SHORTEN, 0.0
                u[:] = best_u
                direction[:] = 0.0
                continue
        if total <= target:
            break
        for j in range(count):
            slope[j] = 1.0
        for i in range(n):
            for j in range(count):
                if taken[i, j]:
                    slope[j] -= 1.0
        length = deflected(u, slope, direction)
        if length <= 0.0:
            state[1] = 0.0
            break
        step = state[1] * (total - target) / length
        for j in range(count):
            u[j] = max(0.0, u[j] - step * direction[j])


@compiled
def losses(
    first: int, last: int, most: float, value: Floats, weight: Floats, room: Floats, unit: float, u: Floats, nu: Floats,
    servers: Floats, taken: NDArray[np.bool_], loss: Floats, spare: Floats, items: Ints, scratch: Floats,
    take: NDArray[np.bool_], ahead: Floats, behind: Floats, real: Floats, whole: Ints, kept: NDArray[np.bool_],
) -> None:  # fmt: skip
    """What servers first..last-1 lose, each for itself, if they must serve a task that they do not take, or may not one
    that they take: `loss`, negative in the second case, inf where the pair cannot be. `spare` gathers the second kind.

    `evaluate` came before, at the same u. A lower bound by the price nu_i is enough where it exceeds `most`.
    """
    count = value.shape[1]
    by_server = len(weight) > 1
    p, w = scratch[0], scratch[1]
    for i in range(first, last):
        row, load, price = value[i], weight[i if by_server else 0], nu[i]
        found, by_price = 0, price * room[i]
        for j in range(count):
            loss[i, j] = math.inf
            if row[j] > u[j] and load[j] <= room[i]:
                items[found], p[found], w[found] = j, row[j] - u[j], load[j]
                found += 1
                by_price += max(0.0, row[j] - u[j] - price * load[j])
        cells = math.floor(room[i] / unit) + 1 if unit > 0.0 else 0
        on_cells = unit > 0.0 and room[i] >= 0.0 and (room[i] / unit + 1.0) * (found + 1) <= len(ahead)
        if on_cells:
            _both_ways(found, p, w, unit, cells, ahead, behind)
        at = 0
        for tried in range(count):
            if row[tried] == -math.inf or load[tried] > room[i]:
                continue
            profit = row[tried] - u[tried]
            inside = profit > 0.0
            k = at
            at += inside
            if not taken[i, tried]:
                floor = servers[i] - by_price + price * load[tried] - profit
                if floor > most:
                    loss[i, tried] = floor
                    continue
            free = room[i] if taken[i, tried] else room[i] - load[tried]
            if on_cells:
                top = math.floor(free / unit)
                other = ahead[found * cells + top]
                if inside:
                    other = 0.0
                    for c in range(top + 1):
                        other = max(other, ahead[k * cells + c] + behind[(k + 1) * cells + top - c])
            else:
                if inside:
                    held_p, held_w = p[k], w[k]
                    p[k], w[k] = p[found - 1], w[found - 1]
                _, other = pack(found - inside, p, w, free, unit, False, take, real, whole, kept)
                if inside:
                    p[found - 1], w[found - 1] = p[k], w[k]
                    p[k], w[k] = held_p, held_w
            if taken[i, tried]:
                out = max(0.0, servers[i] - other)
                loss[i, tried] = -out
                spare[tried] += out
            else:
                loss[i, tried] = max(0.0, servers[i] - profit - other)


@compiled
def _both_ways(found: int, p: Floats, w: Floats, unit: float, cells: int, ahead: Floats, behind: Floats) -> None:
    """Most profit in each room of the first k items (ahead, row k) and of the items from k on (behind, row k)."""
    ahead[:cells] = 0.0
    behind[found * cells : (found + 1) * cells] = 0.0
    for k in range(found):
        need, profit, at = math.ceil(w[k] / unit), p[k], k * cells
        for c in range(need):
            ahead[at + cells + c] = ahead[at + c]
        for c in range(need, cells):
            ahead[at + cells + c] = max(ahead[at + c], ahead[at + c - need] + profit)
    for back in range(found):
        k = found - 1 - back
        need, profit, at = math.ceil(w[k] / unit), p[k], (k + 1) * cells
        for c in range(need):
            behind[at - cells + c] = behind[at + c]
        for c in range(need, cells):
            behind[at - cells + c] = max(behind[at + c], behind[at + c - need] + profit)
