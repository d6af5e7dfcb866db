"""Random, feasible (mta.md 7): in arrival order, uniform among the servers that can take the task.

A server can take it when the pair is feasible and the weight still fits. Nothing is drawn for a task that no server
can take, which keeps the stream of a seed as the specification fixes it.
"""

from typing import ClassVar

import msgspec
import numpy as np

from edgora.allocator.mta.table import Table
from edgora.allocator.search import Found, Search

__all__ = ["RandomFeasible"]


class RandomFeasible(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def on_table(self, table: Table, search: Search) -> Found:
        rng = np.random.default_rng(search.seed)
        plan, left = table.rejected(), table.room.copy()
        feasible, weights = np.ascontiguousarray(table.feasible.T), table.weights().T
        for j in range(table.m):
            candidates = np.flatnonzero(feasible[j] & (weights[j] <= left))
            if len(candidates):
                i = candidates[rng.integers(len(candidates))]
                plan[j] = i
                left[i] -= weights[j, i]
        return Found(plan)
