"""Associated: each task to its own source where that server can take it, the rest by the offline greedy.

How a policy with another objective (tcr, dpe) acts in a round (market.md 4): its UEs have uploaded to the server that
it chose for them, so serving each at its source is following it. Tasks are taken in arrival order. A table without
homes, as a paper instance has, leaves nothing but the greedy.
"""

from typing import ClassVar

import msgspec

from edgora.allocator.mta.table import REJECTED, Table
from edgora.allocator.search import Found, Search

__all__ = ["Associated"]


class Associated(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def on_table(self, table: Table, search: Search) -> Found:  # noqa: ARG002 - draws nothing and ends by its own rule
        plan = table.rejected()
        if table.home is not None:
            left, weights = table.room.copy(), table.weights()
            for j, i in enumerate(table.home.tolist()):
                if i != REJECTED and table.feasible[i, j] and weights[i, j] <= left[i]:
                    plan[j] = i
                    left[i] -= weights[i, j]
        return Found(table.fill(plan))
