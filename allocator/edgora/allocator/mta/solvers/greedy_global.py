"""Greedy, global (mta.md 7): all feasible pairs with W > 0 by decreasing W; take what fits. Offline, deterministic.

The market's built-in greedy (market.md 4) is the same rule in integers.
"""

from typing import ClassVar

import msgspec

from edgora.allocator.mta.table import Table
from edgora.allocator.search import Found, Search

__all__ = ["GreedyGlobal"]


class GreedyGlobal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def on_table(self, table: Table, search: Search) -> Found:  # noqa: ARG002 - draws nothing and ends by its own rule
        return Found(table.fill(table.rejected()))
