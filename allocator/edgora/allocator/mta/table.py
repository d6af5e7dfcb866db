"""The assignment table: the one form that solvers work on (mta.md 13).

    maximise sum W_ij x_ij   subject to   sum_j w_ij x_ij <= room_i,   sum_i x_ij <= 1,   x_ij = 0 unless feasible

Paper instances and live rounds both map to it. Every comparison is exact: where the problem allows a relative
tolerance (1e-9 in mta.md 4), whoever builds the table has put it into `room`. Weights that do not depend on the
server have shape (m,), else (n,m); they are int64 where the source is integer, so that sums of them are exact too.
A plan is an int64 vector: a_j is the executing server of task j, -1 if it is rejected.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["REJECTED", "Plan", "Table", "Weights", "completed"]

Floats = NDArray[np.float64]
Plan = NDArray[np.int64]
Weights = NDArray[np.int64] | NDArray[np.float64]

REJECTED = -1
"""Entry of a plan for a task that nobody executes."""

_CHUNK = 8192
"""Pairs that `completed` looks at before it discards, in one vectorised step, those that have become impossible."""


@dataclass(frozen=True, eq=False)
class Table:
    """Value W (n,m), weight w (m,) or (n,m), room (n,), feasible (n,m). A feasible pair fits an empty server."""

    value: Floats
    weight: Weights
    room: Weights
    feasible: NDArray[np.bool_]
    home: Plan | None = None
    """Server that each task's input lies on (m,), REJECTED where that server takes no part; None: nobody knows."""

    def __post_init__(self) -> None:
        n, m = self.value.shape
        if self.weight.shape not in {(m,), (n, m)} or self.room.shape != (n,) or self.feasible.shape != (n, m):
            raise ValueError("value, weight, room and feasible do not have the shapes of one table")
        if n * m > _CHUNK and self.shared_weight:  # mostly nothing changes: then a large array is not made twice
            tight = np.flatnonzero(self.room < self.weight.max()).tolist()
            if not any((self.feasible[i] & (self.weight > self.room[i])).any() for i in tight):
                return
        object.__setattr__(self, "feasible", self.feasible & (self.weight <= self.room[:, None]))

    @property
    def n(self) -> int:
        return len(self.room)

    @property
    def m(self) -> int:
        return int(self.value.shape[1])

    @property
    def shared_weight(self) -> bool:
        """Whether a task weighs the same on every server: the fast path of some solvers."""
        return self.weight.ndim == 1

    def weights(self) -> Weights:
        """The weights with shape (n,m), without a copy."""
        weights: Any = np.broadcast_to(self.weight, self.value.shape)
        return cast("Weights", weights)

    def rejected(self) -> Plan:
        """The plan that rejects every task: always allowed."""
        return np.full(self.m, REJECTED, dtype=np.int64)

    def left(self, plan: Plan) -> Weights:
        """Room that a plan leaves on each server; negative where it takes too much."""
        tasks = np.flatnonzero(plan != REJECTED)
        servers = plan[tasks]
        left = self.room.copy()
        np.subtract.at(left, servers, self.weight[tasks] if self.shared_weight else self.weight[servers, tasks])
        return left

    def allows(self, plan: Plan) -> bool:
        """Whether every chosen pair is feasible and no server is over its room."""
        tasks = np.flatnonzero(plan != REJECTED)
        return bool(self.feasible[plan[tasks], tasks].all()) and bool((self.left(plan) >= 0).all())

    def worth(self, plan: Plan) -> float:
        """Sum of W over the chosen pairs, correctly rounded, so it does not depend on their order."""
        tasks = np.flatnonzero(plan != REJECTED)
        return math.fsum(self.value[plan[tasks], tasks])

    def priced_bound(self, nu: Floats) -> float:
        """Upper bound on every allowed plan's worth from server prices nu >= 0 per unit of weight (mta.md 9).

        sum_i nu_i room_i + sum_j max(0, max_i (W_ij - nu_i w_ij)); nu = 0 gives the sum of each task's best value.
        """
        reduced = np.where(self.feasible, self.value - nu[:, None] * self.weights(), 0.0)
        best = reduced.max(axis=0, initial=0.0)
        return math.fsum(best) + math.fsum(nu * self.room)

    def fill(self, plan: Plan) -> Plan:
        """The plan completed by the offline greedy: rejected tasks' pairs with W > 0, best first.

        From the empty plan this is the global greedy of mta.md 7.
        """
        return completed(plan, self.value, self.weights(), self.left(plan), self.feasible & (self.value > 0.0))

    def without_overload(self, plan: Plan) -> Plan:
        """The plan less its infeasible pairs and, on servers over their room, its least valuable tasks."""
        kept = plan.copy()
        tasks = np.flatnonzero(kept != REJECTED)
        kept[tasks[~self.feasible[kept[tasks], tasks]]] = REJECTED
        for i in np.flatnonzero(self.left(kept) < 0).tolist():
            held = np.flatnonzero(kept == i)
            for j in held[np.argsort(self.value[i, held], kind="stable")].tolist():
                if self.left(kept)[i] >= 0:
                    break
                kept[j] = REJECTED
        return kept


def completed(plan: Plan, value: NDArray[Any], weight: Weights, left: Weights, candidates: NDArray[np.bool_]) -> Plan:
    """The plan with rejected tasks given to candidate pairs by value descending, then task, then server, as they fit.

    value, weight and candidates have shape (n,m); left is the room that the plan leaves and is used up. Comparisons
    are those of the arrays' own types, so integers of any size are compared exactly (market.md 4).
    """
    filled, servers_count = plan.copy(), len(left)
    # Task-major flattening makes the stable sort break ties by lower task, then lower server.
    flat, weight_by_task = value.T.ravel(), weight.T
    pairs = np.flatnonzero((candidates & (plan == REJECTED)).T.ravel())
    pairs = pairs[np.argsort(-flat[pairs], kind="stable")]
    for start in range(0, len(pairs), _CHUNK):
        tasks, servers = np.divmod(pairs[start : start + _CHUNK], servers_count)
        weights = weight_by_task[tasks, servers]
        still = np.flatnonzero((filled[tasks] == REJECTED) & (weights <= left[servers]))
        for j, i, w in zip(tasks[still].tolist(), servers[still].tolist(), weights[still], strict=True):
            if filled[j] == REJECTED and w <= left[i]:
                filled[j] = i
                left[i] -= w
    return filled
