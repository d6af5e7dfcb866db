"""Priced: the platform's own heuristic with its own proven bound (mta.md 13); anytime, for any assignment table.

Prices from the smoothed dual give a bound and a first plan within milliseconds. The rest of the budget goes to ruin and
rebuild, with a share for the Lagrangian bound, which also leaves out what no better plan holds, and a share for branch
and bound on what is left, which finds the last exchanges that rebuilding misses and often ends with a proof. With a few
tenths of a second servers merge, too: at 20 x 50 a second then leaves a quarter of the gap.

With `rounds` the budget is a number of rounds instead of time, and a seed repeats digit for digit.
"""

from typing import Annotated, ClassVar

import msgspec

from edgora.allocator.mta.anytime import Anytime, ready
from edgora.allocator.mta.table import Table
from edgora.allocator.search import Found, Search

__all__ = ["Priced"]


_TREE_S = 0.05
"""Least budget that has time for branch and bound ..."""
_MERGE_S = 0.3
"""... and for servers to merge."""


class Priced(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rounds: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Rounds of rebuilding, or their worth in other steps; None: until the time is over."""

    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def __post_init__(self) -> None:
        ready()

    @property
    def default_limit_s(self) -> float | None:
        return 1.0 if self.rounds is None else None

    def on_table(self, table: Table, search: Search) -> Found:
        anytime = Anytime(table, search, self.rounds)
        anytime.first()
        anytime.cool(0.9)
        if self.rounds is None and anytime.horizon_s < _TREE_S:
            middle, late = anytime.after(0.45), anytime.after(0.6)
            anytime.improve(middle)
            anytime.tighten(late, converged=0.01)
        else:
            merging = self.rounds is None and anytime.horizon_s >= _MERGE_S
            shares = (0.15, 0.3, 0.4, 0.5) if merging else (0.25, 0.45, 0.6, 0.85)
            after = [anytime.after(share) for share in shares]
            anytime.improve(after[0])
            anytime.tighten(after[1], converged=0.01)
            anytime.improve(after[2])
            anytime.branch(after[3])
            if merging:
                anytime.merge(anytime.after(0.9))
        anytime.improve(1.0)
        return anytime.found()
