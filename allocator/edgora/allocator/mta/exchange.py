"""Exchanges of tasks of one weight: a plan's cheapest rotations, found as negative cycles (mta.md 13, priced).

Tasks that weigh the same can change places without a look at rooms: j leaves server t for u, another leaves u for v, and
so on, until the last one takes j's place, or goes to a server with room for it. Where rooms are wide, a plan that is built
from prices has many tasks on servers that are not their best, though each server is filled as it should be; ruin and
rebuild, which frees a few servers at a time, would have to find each rotation by chance.

The graph of one weight has a node for each server and one for nowhere. The edge from t to u costs what the best task for
this move loses by it; a task without a server may come in from nowhere, one with a server may go there, and the edge to
nowhere is free from a server with room for one task more: nothing need leave it. A negative cycle is an exchange that
gains its length. Bellman-Ford starts at the prices, with which hardly any edge is short at the optimum, so it soon finds
a cycle or that there is none. Each weight is gone through once: what its rotations leave is best for its own graph.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import compiled
from edgora.allocator.mta.prices import Core

__all__ = ["exchanged", "worthwhile"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_EACH = 1
"""Tasks of each weight for each server, on average, from which on exchanges are looked for: else there are few."""
_TRIFLE = 1e-9
"""Shortest cycle, as a share of the mean of tasks' best values: well above the rounding of sums along it."""


def worthwhile(core: Core) -> bool:
    """Whether weights are whole, do not depend on the server, and many tasks share each."""
    if not core.unit or len(core.weight) != 1:
        return False
    return len(core.tasks) >= _EACH * len(core.room) * len(np.unique(core.weight))


def exchanged(core: Core, nu: Floats, plan: Ints, over: Callable[[], bool] = lambda: False) -> Ints:
    """The plan after all gainful rotations of each weight; never worth less, and no server holds more than it may.

    `over` ends them between two weights.
    """
    better, weight = plan.copy(), core.weight[0]
    left = core.room - np.bincount(better[better >= 0], weights=weight[better >= 0], minlength=len(core.room))
    shortest = _TRIFLE * float(core.value.max(axis=0, initial=0.0).mean())
    for size in np.unique(weight).tolist():
        if over():
            break
        _rotate(core.value, np.flatnonzero(weight == size), size, nu, shortest, better, left)
    return better


@compiled
def _edges(
    value: Floats, tasks: Ints, size: float, plan: Ints, left: Floats, t: int, cost: Floats, mover: Ints
) -> None:
    """Costs of the edges from node t, and which task moves along each; -1: none does."""
    n = len(left)
    cost[t, :], mover[t, :] = np.inf, -1
    if t == n:
        cost[t, :n] = 0.0  # nothing comes in: the cycle begins at a server that one task leaves
    elif left[t] >= size:
        cost[t, n] = 0.0
    here = t if t < n else -1
    for k in range(len(tasks)):
        j = tasks[k]
        if plan[j] != here:
            continue
        own = value[t, j] if t < n else 0.0
        if t < n and own < cost[t, n]:
            cost[t, n], mover[t, n] = own, j
        for u in range(n):
            if u != t and own - value[u, j] < cost[t, u]:
                cost[t, u], mover[t, u] = own - value[u, j], j


@compiled
def _cycle(cost: Floats, dist: Floats, parent: Ints, shortest: float) -> Any:
    """A node of a negative cycle among the parents, or -1: Bellman-Ford from `dist`, looking at what changed last."""
    nodes = len(dist)
    parent[:] = -1
    fresh, after = np.ones(nodes, np.bool_), np.zeros(nodes, np.bool_)
    seen = np.empty(nodes, np.int64)
    for _ in range(nodes + 1):
        after[:] = False
        changed = False
        for t in range(nodes):
            if fresh[t]:
                for u in range(nodes):
                    if dist[t] + cost[t, u] < dist[u] - shortest:
                        dist[u] = dist[t] + cost[t, u]
                        parent[u], after[u], changed = t, True, True
        if not changed:
            return -1
        fresh[:] = after
        seen[:] = -1
        for first in range(nodes):
            u = first
            while u >= 0 and seen[u] < 0:
                seen[u] = first
                u = parent[u]
            if u >= 0 and seen[u] == first:
                return u
    return -1


@compiled
def _rotate(
    value: Floats, tasks: Ints, size: float, nu: Floats, shortest: float, plan: Ints, left: Floats
) -> None:  # fmt: skip
    n = len(left)
    cost, mover = np.empty((n + 1, n + 1)), np.empty((n + 1, n + 1), np.int64)
    for t in range(n + 1):
        _edges(value, tasks, size, plan, left, t, cost, mover)
    dist, parent, touched = np.empty(n + 1), np.empty(n + 1, np.int64), np.empty(n + 1, np.int64)
    while True:
        dist[:n], dist[n] = -size * nu, 0.0
        begin = _cycle(cost, dist, parent, shortest)
        if begin < 0:
            return
        count, length, u = 0, 0.0, begin
        while count == 0 or u != begin:
            length += cost[parent[u], u]
            touched[count] = u
            count, u = count + 1, parent[u]
        if length >= 0.0:  # no more than rounding
            return
        for k in range(count):
            u = touched[k]
            t = parent[u]
            j = mover[t, u]
            if j >= 0:
                plan[j] = u if u < n else -1
                if t < n:
                    left[t] += size
                if u < n:
                    left[u] -= size
        for k in range(count):
            _edges(value, tasks, size, plan, left, touched[k], cost, mover)
