"""Branch and bound over the Lagrangian bound (`lagrange`): depth first, one task a level.

At a node some tasks have their server, or are rejected, and count no longer; the others have multipliers inherited from
the parent, improved by a few subgradient steps. From the losses at the best multipliers follow, without another
descent, bounds for every child "task j goes to server i" and "task j is rejected". Children that cannot beat the best
plan are dropped, pairs likewise; the task whose children are fewest and lose most is branched on, least loss first.
Every node's Lagrangian solution is also repaired into a plan.

The bound at any moment is the greatest of the open children's. The search stops and resumes between nodes.
"""

import math

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import compiled
from edgora.allocator.mta.knapsack import workspace
from edgora.allocator.mta.lagrange import evaluate, losses, tables
from edgora.allocator.mta.prices import Core

__all__ = ["Branching"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FREE = -2
_ROUNDING = 1e-12
_STEPS = 24
"""Most evaluations at a node."""
_SHARP = 2.0
"""How much a child's loss, in gaps, counts in the choice of the task to branch on."""
_SAME = 1e-10
"""Relative difference in worth at which two plans count as one."""


class Branching:
    """One search over the tasks of a core, in the pairs of `value`, for plans worth more than `plan`."""

    def __init__(
        self, core: Core, value: Floats, u: Floats, nu: Floats, plan: Ints, worth: float, bound: float
    ) -> None:
        n, count = value.shape
        self._value, self._weight, self._unit = value.copy(), core.weight, core.unit
        self._room = core.room.copy() if core.unit else core.room * (1.0 + _ROUNDING)
        self._true_room = core.room if core.unit else core.room * (1.0 - _ROUNDING)
        self._nu = nu
        self._u, self._fixed = u.copy(), np.full(count, _FREE, dtype=np.int64)
        self.best = plan.copy()
        self._state = np.array([worth, 0.0, bound, 0.0])
        """Best worth, worth of what is fixed, bound of the root, nodes."""
        self._depth = np.array([-2], dtype=np.int64)
        """Level of the open children; -2: the root is yet to be looked at; -1: done."""
        depth = count + 1
        self._levels_i = np.zeros((depth, 4), dtype=np.int64)  # task, children, next child, trail
        self._servers = np.zeros((depth, n + 1), dtype=np.int64)
        self._bounds = np.zeros((depth, n + 1))
        self._bases = np.zeros(depth)
        self._us, self._rooms = np.zeros((depth, count)), np.zeros((depth, n))
        self._trail, self._trail_values = np.zeros(n * count + 1, dtype=np.int64), np.zeros(n * count + 1)
        self._work = (
            np.empty(count + 1, dtype=np.int64), np.empty((2, count + 1)), np.empty(count + 1, dtype=np.bool_),
            *tables(core), *workspace(count, float(core.room.max(initial=0.0)) if core.unit else 0.0),
        )  # fmt: skip

    @property
    def worth(self) -> float:
        return float(self._state[0])

    @property
    def bound(self) -> float:
        """Proven bound on any plan in the given pairs."""
        depth = int(self._depth[0])
        if depth == -2:
            return float(self._state[2])
        bound = self.worth
        for level in range(depth + 1):
            _, children, following, _ = self._levels_i[level].tolist()
            bound = max(bound, *self._bounds[level, following:children].tolist(), bound)
        return min(bound, float(self._state[2]))

    @property
    def nodes(self) -> int:
        return int(self._state[3])

    @property
    def done(self) -> bool:
        return int(self._depth[0]) == -1

    def run(self, nodes: int) -> None:
        """Look at so many nodes more."""
        _branch(
            nodes, self._value, self._weight, self._room, self._true_room, self._unit, self._u, self._nu, self._fixed, self.best,
            self._state, self._depth, self._levels_i, self._servers, self._bounds, self._bases, self._us, self._rooms,
            self._trail, self._trail_values, *self._work,
        )  # fmt: skip


@compiled
def _repair(
    value: Floats, weight: Floats, room: Floats, taken: NDArray[np.bool_], fixed: Ints, best: Ints, state: Floats
) -> None:
    """The Lagrangian solution as a plan: double tasks stay where they are worth most, the rest is filled by worth."""
    n, count = value.shape
    by_server = len(weight) > 1
    plan, left = fixed.copy(), room.copy()
    worth = state[1]
    for j in range(count):
        if plan[j] != _FREE:
            continue
        most = 0.0
        for i in range(n):
            if taken[i, j] and value[i, j] > most and weight[i if by_server else 0, j] <= left[i]:
                most, plan[j] = value[i, j], i
        if plan[j] >= 0:
            worth += most
            left[plan[j]] -= weight[plan[j] if by_server else 0, j]
    while True:
        most, task, server = 0.0, -1, -1
        for j in range(count):
            if plan[j] == _FREE:
                for i in range(n):
                    if value[i, j] > most and weight[i if by_server else 0, j] <= left[i]:
                        most, task, server = value[i, j], j, i
        if task < 0:
            break
        plan[task] = server
        worth += most
        left[server] -= weight[server if by_server else 0, task]
    if worth > state[0] * (1.0 + _SAME):
        state[0] = worth
        for j in range(count):
            best[j] = max(plan[j], -1)


@compiled
def _branch(
    limit: int, value: Floats, weight: Floats, room: Floats, true_room: Floats, unit: float, u: Floats, nu: Floats, fixed: Ints,
    best: Ints, state: Floats, depth: Ints, levels: Ints, servers: Ints, bounds: Floats, bases: Floats, us: Floats,
    rooms: Floats, trail: Ints, trail_values: Floats, items: Ints, scratch: Floats, take: NDArray[np.bool_],
    ahead: Floats, behind: Floats, real: Floats, whole: Ints, kept: NDArray[np.bool_],
) -> None:  # fmt: skip
    n, count = value.shape
    by_server = len(weight) > 1
    part, taken = np.empty(n), np.empty((n, count), np.bool_)
    loss, spare = np.empty((n, count)), np.empty(count)
    slope, direction, least_u = np.empty(count), np.empty(count), np.empty(count)
    trailing = 0
    if depth[0] >= 0:
        trailing = levels[depth[0], 3]
        # Exclusions below the open level are still in place: the level's own undoing needs the whole trail.
        trailing = int(bases[len(bases) - 1])
    for _ in range(limit):
        d = depth[0]
        if d == -1:
            return
        parent_bound = state[2]
        if d >= 0:
            while trailing > levels[d, 3]:
                trailing -= 1
                at = trail[trailing]
                value[at // count, at % count] = trail_values[trailing]
            room[:] = rooms[d]
            u[:] = us[d]
            state[1] = bases[d]
            task, following = levels[d, 0], levels[d, 2]
            fixed[task] = _FREE
            if following == levels[d, 1] or bounds[d, following] <= state[0] * (1.0 + _SAME):
                depth[0] -= 1
                bases[len(bases) - 1] = trailing
                continue
            levels[d, 2] += 1
            parent_bound = bounds[d, following]
            i = servers[d, following]
            fixed[task] = i
            if i >= 0:
                room[i] -= weight[i if by_server else 0, task]
                state[1] += value[i, task]
            for k in range(n):
                if value[k, task] > -math.inf:
                    trail[trailing], trail_values[trailing] = k * count + task, value[k, task]
                    trailing += 1
                    value[k, task] = -math.inf
            u[task] = 0.0
        state[3] += 1.0

        # Descend.
        cut = state[0] * (1.0 + _SAME)
        least, pace, stall = math.inf, 1.0, 0
        direction[:] = 0.0
        settled = False
        for _ in range(_STEPS):
            total = state[1] + evaluate(
                value, weight, room, unit, u, part, taken, items, scratch, take, real, whole, kept
            )
            if total < least:
                least = total
                least_u[:] = u
                stall = 0
                if least <= cut:
                    break
            else:
                stall += 1
                if stall == 3:
                    pace, stall = pace * 0.5, 0
            across, along, length = 0.0, 0.0, 0.0
            for j in range(count):
                slope[j] = 1.0 if fixed[j] == _FREE else 0.0
            for k in range(n):
                for j in range(count):
                    if taken[k, j]:
                        slope[j] -= 1.0
            settled = True
            for j in range(count):
                if slope[j] > 0.0 and u[j] <= 0.0:
                    slope[j] = 0.0
                settled = settled and slope[j] == 0.0
                across += slope[j] * direction[j]
                along += direction[j] * direction[j]
            if settled:  # no task twice, none that has a price left out: this solution is the node's optimum
                break
            turn = max(0.0, -1.5 * across / along) if along > 0.0 else 0.0
            for j in range(count):
                direction[j] = slope[j] + turn * direction[j]
                length += direction[j] * direction[j]
            if length <= 0.0:
                break
            size = pace * (total - cut) / length
            for j in range(count):
                if fixed[j] == _FREE:
                    u[j] = max(0.0, u[j] - size * direction[j])
        least = min(least, parent_bound)
        bases[len(bases) - 1] = trailing
        if least <= cut:
            if d < 0:
                depth[0] = -1
            continue
        u[:] = least_u
        least = min(least, state[1] + evaluate(
            value, weight, room, unit, u, part, taken, items, scratch, take, real, whole, kept
        ))  # fmt: skip
        _repair(value, weight, room if unit > 0.0 else room - 2.0 * _ROUNDING * true_room, taken, fixed, best, state)
        cut = state[0] * (1.0 + _SAME)
        gap = least - cut
        if gap <= 0.0:
            if d < 0:
                depth[0] = -1
            continue
        spare[:] = 0.0
        losses(
            0, n, gap, value, weight, room, unit, u, nu, part, taken, loss, spare, items, scratch, take, ahead, behind,
            real, whole, kept,
        )  # fmt: skip
        # The knapsacks are independent, so their losses add up: of whoever must give the task up, and the one to take it.
        for j in range(count):
            for k in range(n):
                loss[k, j] += spare[j]
            spare[j] += u[j]

        # Exclude pairs; choose the task to branch on.
        chosen, least_score = -1, math.inf
        dead = False
        for j in range(count):
            if fixed[j] != _FREE:
                continue
            score, children = 0.0, 0
            if spare[j] < gap:
                score += math.exp(-_SHARP * spare[j] / gap)
                children += 1
            for k in range(n):
                if value[k, j] > -math.inf:
                    if loss[k, j] >= gap:
                        trail[trailing], trail_values[trailing] = k * count + j, value[k, j]
                        trailing += 1
                        value[k, j] = -math.inf
                    else:
                        score += math.exp(-_SHARP * loss[k, j] / gap)
                        children += 1
            if children == 0:
                dead = True
                break
            if children == 1 and spare[j] < gap:
                score = 1.0 + score  # can only be rejected: nothing to gain from branching
            if score < least_score:
                least_score, chosen = score, j
        bases[len(bases) - 1] = trailing
        if dead or chosen < 0:
            if d < 0:
                depth[0] = -1
            continue
        d += 1
        d = max(d, 0)
        depth[0] = d
        levels[d, 0], levels[d, 2], levels[d, 3] = chosen, 0, trailing
        bases[d], us[d], rooms[d] = state[1], u, room
        children = 0
        for k in range(-1, n):
            lost = spare[chosen] if k < 0 else (loss[k, chosen] if value[k, chosen] > -math.inf else math.inf)
            if lost >= gap:
                continue
            at = children
            while at > 0 and bounds[d, at - 1] < least - lost:
                bounds[d, at], servers[d, at] = bounds[d, at - 1], servers[d, at - 1]
                at -= 1
            bounds[d, at], servers[d, at] = least - lost, k
            children += 1
        levels[d, 1] = children
