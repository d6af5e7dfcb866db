"""Priced, the platform's own solver: prices first, then the few associations that prices leave open, each exactly.

1. `market.descend` finds prices at which the bound F7 is least; a dozen looks at all pairs.
2. At those prices almost every user has one best server, and `listing` hands out associations by rising loss. Each is
   solved to its optimum (F5); no association below the best one's loss can be better, so when the list runs out, the
   best is proven (F9). Its bound is the greatest certified one of the associations that were listed.
3. Where there are many servers, the best association makes several of the listed ones' moves at once, and its own turn in
   the list comes late. Gains of associations that touch different servers add up exactly (F3): their union is valued
   after each batch.

It is anytime: every improvement is kept, and cut off, the bound is what the next association could be worth at most.
The fast mode, `proof=0`, looks at the first 256 associations. Where the list is long because users or servers are alike
and there are few users, `exact` proves instead. No step draws a random number: the same instance has the same answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgora.allocator.dpe.exact import MOST_USERS, Exact
from edgora.allocator.dpe.listing import Book, Listing, Moves, Valued
from edgora.allocator.dpe.market import Market, descend
from edgora.allocator.dpe.model import Model
from edgora.allocator.dpe.pairs import Pairs
from edgora.allocator.search import Found, Search, Status

__all__ = ["Priced"]

Switch = bool | Annotated[int, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]

_FAST = 256
"""Associations that the fast mode looks at."""
_FIRST, _BATCH = 8, 256
"""Associations that are solved together, at first and from then on: a step costs hardly more for many than for few."""
_TABLE = 1 << 16
"""Greatest table of `exact` that is worth its time instead of a long list: seconds."""
_PROOF = 1e-9
"""Relative gap at which a value counts as proven."""
_ROUNDING = 1e-12
"""Of sums of surpluses, relative: an association this close to the threshold is looked at all the same."""


@dataclass(slots=True)
class _Run:
    """The best association so far, and what is proven about the rest."""

    model: Model
    search: Search
    book: Book
    best: Moves = ()
    worth: float = -np.inf
    bound: float = np.inf
    """Of the server part."""
    listed: int = 0
    gainers: list[Valued] = field(default_factory=list)
    """Those that are worth more than the base."""
    curve: list[list[float]] = field(default_factory=list)
    """Associations looked at, objective and bound, after each batch."""

    def look(self, listing: Listing, total: float, most: int) -> Status:
        """Value associations by rising loss until one of the reasons to end."""
        certified, size = -np.inf, _FIRST
        while True:
            below = total - self.worth + _ROUNDING * abs(total)
            batch = listing.next(min(size, most - self.listed), below)
            if not batch:
                self.bound = min(self.bound, max(certified, self.worth))
                return "optimal"
            before = self.worth
            certified = max(certified, self._value([moves for _, moves in batch]))
            union = self.book.union(self.gainers)
            if len(union) > 1:
                certified = max(certified, self._value([union]))
            self.listed += len(batch)
            self.bound = min(self.bound, max(certified, total - batch[-1][0]))
            self.curve.append([self.listed, self.model.user_part + self.worth, self.model.user_part + self.bound])
            if self.worth > before:
                self.search.keep(self.found("interrupted"), self.model.user_part + self.worth)
            if self.search.over():
                return "interrupted" if self.search.stopped() else "time_limit"
            if self.listed >= most:
                return "done"
            size = _BATCH

    def _value(self, asked: Sequence[Moves]) -> float:
        """Value these associations, keep the best, and answer the greatest of their certified bounds."""
        every = self.book.value(asked)
        for valued in every:
            if valued.worth > self.worth:
                self.best, self.worth = valued.moves, valued.worth
        self.gainers += [valued for valued in every if valued.worth > self.book.worth]
        return max(valued.bound for valued in every)

    def found(self, status: Status, info: dict[str, object] | None = None) -> Found:
        plan, residual = self.book.decision(self.model, self.best)
        bound = self.model.user_part + max(self.bound, self.worth)
        return Found(plan, bound, status, {**(info or {}), "residual": residual})


class Priced(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    proof: Switch = True
    """Whether to go on until the best is proven; 0: the fast mode."""
    associations: Count = 50_000
    """Most associations to look at for a proof."""

    compiled: Switch = False
    """Whether numba, where installed, compiles the inner loops: seconds once, then half the time."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def solve(self, model: Model, search: Search) -> Found:
        pairs = Pairs.of(model, compiled=bool(self.compiled))
        market = Market(pairs)
        descent = descend(market, search.over)
        priced = market.look()
        book = Book(pairs, priced.surplus.argmax(axis=1), market.points)
        run = _Run(model, search, book)
        (first,) = book.value([()])
        run.best, run.worth = first.moves, first.worth
        search.keep(run.found("interrupted"), model.user_part + run.worth)
        upper, total = market.certified(priced.bound - first.worth)
        listing = Listing(upper)
        if (listing.base != book.base).any():  # a tie
            run.book, run.best, run.worth = Book(pairs, listing.base, market.points), (), -np.inf
        run.bound = total
        few = model.instance.N <= MOST_USERS and pairs.M << pairs.N <= _TABLE
        most = _FAST if not self.proof else min(self.associations, pairs.M << pairs.N) if few else self.associations
        status = run.look(listing, total, most)
        proven = run.bound - run.worth <= _PROOF * (model.user_part + run.worth)
        info: dict[str, object] = {
            "dual_bound": model.user_part + total, "looks": [model.user_part + d for d in descent],
            "associations": run.listed, "groups": run.book.groups, "curve": run.curve,
        }  # fmt: skip
        if self.proof and few and not proven and status == "done":
            proof = Exact().solve(model, search)
            if proof.status == "optimal":
                return Found(proof.plan, proof.bound, proof.status, {**info, **proof.info})
            status = proof.status
        return run.found("optimal" if proven and status in {"optimal", "done"} else status, info)
