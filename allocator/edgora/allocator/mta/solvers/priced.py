"""Priced: the platform's own heuristic with its own proven bound (mta.md 13); anytime, for any assignment table.

Prices from the smoothed dual give a bound and a first plan within milliseconds. The rest of the budget goes to ruin and
rebuild, with a share for the Lagrangian bound, which also leaves out what no better plan holds. With a twentieth of a second
and few pairs, plans near the bound are searched (`nearby`): that finds exchanges that rebuilding misses, lowers the bound,
and often ends with a proof. With a few tenths of a second servers merge instead, after a glance at branch and bound.

With `rounds` the budget is a number of rounds instead of time, and a seed repeats digit for digit.
"""

from typing import Annotated, ClassVar

import msgspec

from edgora.allocator.compiled import COMPILED
from edgora.allocator.mta.anytime import Anytime, ready
from edgora.allocator.mta.table import Table
from edgora.allocator.search import Found, Search

__all__ = ["Priced"]


_LATER_S, _MERGE_S = 0.05, 0.3
"""Least budgets that have time for more than rebuilding and the Lagrangian bound; and for servers to merge."""


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
        timed, horizon_s = self.rounds is None, anytime.horizon_s
        if timed and horizon_s < _LATER_S:
            after = [anytime.after(share) for share in (0.45, 0.6)]
            anytime.improve(after[0])
            anytime.tighten(after[1], converged=0.01)
        elif timed and horizon_s < _MERGE_S and anytime.few:
            after = [anytime.after(share) for share in (0.15, 0.3, 0.75)]
            anytime.improve(after[0])
            anytime.tighten(after[1], converged=0.3)
            anytime.select(after[2])
        else:
            merging = timed and horizon_s >= _MERGE_S and COMPILED
            after = [anytime.after(share) for share in ((0.15, 0.3, 0.4, 0.5) if merging else (0.25, 0.45, 0.6, 0.85))]
            anytime.improve(after[0])
            anytime.tighten(after[1], converged=0.01)
            anytime.improve(after[2])
            anytime.branch(after[3])
            if merging:
                anytime.merge(anytime.after(0.9))
        anytime.improve(1.0)
        return anytime.found()
