"""Greedy in arrival order (mta.md 7): each task to the best W > 0 among the servers that can still take it.

Ties go to the lower server.
"""

from typing import ClassVar

import msgspec
import numpy as np

from edgora.allocator.mta.table import Table
from edgora.allocator.search import Found, Search

__all__ = ["Greedy"]


class Greedy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def on_table(self, table: Table, search: Search) -> Found:  # noqa: ARG002 - draws nothing and ends by its own rule
        plan, left = table.rejected(), table.room.copy()
        value = np.where(table.feasible, table.value, -np.inf).T.copy()
        weights = table.weights().T
        for j in range(table.m):
            offers = np.where(weights[j] <= left, value[j], -np.inf)
            i = int(offers.argmax())
            if offers[i] > 0.0:
                plan[j] = i
                left[i] -= weights[j, i]
        return Found(plan)
