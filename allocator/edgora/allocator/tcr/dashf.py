"""DASHF, the paper's algorithm (tcr.md 7): Dinkelbach's loop around association and resources.

    start     GUCAA, y = its TCR
    part 1    association, phi at fixed resources: semidefinite relaxation, Hungarian rounding, LP   (`association`)
    part 2    resources at fixed association and phi: fractional programming                           (`powers`)
    v = TCR of the result; the best is kept; stop when |v - y| <= tol |v|; y = max(y, v)

`whatif` says what part 1 believes of the resources of pairs: `mixed` keeps the last ones of connected pairs and gives
any other the L-th part of its server, `nominal` gives every pair the L-th part (A8), with the user's last power and
clock.

Within one part 2 nothing falls; from round to round the value may, because the rounding of part 1 knows nothing of the
objective. Both are recorded round by round in `info`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from edgora.allocator.conic.lift import Kind, affordable
from edgora.allocator.conic.program import Solver, require
from edgora.allocator.search import Found, Search, Status
from edgora.allocator.tcr.association import Association, Pairs, Placed
from edgora.allocator.tcr.instance import Instance
from edgora.allocator.tcr.model import Decision
from edgora.allocator.tcr.powers import Climb, Powers

__all__ = ["Best", "Dashf", "climb_record", "place_record"]

Rounds = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Tolerance = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
Whatif = Literal["mixed", "nominal"]


class Best:
    """The best decision so far, offered to whoever called the search."""

    def __init__(self, instance: Instance, search: Search, first: Decision) -> None:
        self._instance, self._search = instance, search
        self.decision, self.tcr = first, instance.model.terms(first).tcr
        search.keep(Found(first, status="interrupted"), self.tcr)

    def offer(self, decision: Decision) -> float:
        """Its TCR."""
        tcr = self._instance.model.terms(decision).tcr
        if tcr > self.tcr:
            self.decision, self.tcr = decision, tcr
            self._search.keep(Found(decision, status="interrupted"), tcr)
        return tcr

    def found(self, status: Status, info: Mapping[str, object]) -> Found:
        """The answer; `status` if the search was not cut off."""
        if self._search.over():
            status = "interrupted" if self._search.stopped() else "time_limit"
        return Found(self.decision, status=status, info=info)


class Dashf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    whatif: Whatif = "mixed"
    lift: Kind = "blocks"
    tight: Literal[0, 1, 2] = 1
    """Rows added to the relaxation: 0 none, 1 the signs, 2 also products and range (`conic.lift`)."""
    outer: Rounds = 10
    fp_iters: Rounds = 9
    """Most surrogates of one part 2."""
    tol: Tolerance = 1e-4
    """Relative, of Dinkelbach's loop and of part 2."""
    solver: Solver = "clarabel"

    default_limit_s: ClassVar[float | None] = None

    @property
    def libraries(self) -> tuple[str, ...]:
        return ("numpy", "scipy", "cvxpy", self.solver)

    def solve(self, instance: Instance, search: Search) -> Found:
        require(self.solver)
        affordable(instance.N, instance.M, self.lift, self.solver)
        model = instance.model
        best = Best(instance, search, model.even(model.spread()))
        association, powers = Association(instance, self.lift, self.tight), Powers(instance)
        nominal = pairs = Pairs.nominal(instance)
        y, converged = best.tcr, False
        rounds: list[dict[str, Any]] = []
        while len(rounds) < self.outer and not converged and not search.over():
            placed = association.place(y, pairs, self.solver)
            start = pairs.chosen(placed.assoc, placed.phi)
            if search.over():
                break
            climb = powers.climb(start, y, self.fp_iters, self.tol, self.solver, search.over)
            v = best.offer(climb.decision)
            rounds.append({"y": y, "tcr": v, "part1": place_record(placed), "part2": climb_record(climb)})
            converged = abs(v - y) <= self.tol * abs(v)
            y = max(y, v)
            mixed = self.whatif == "mixed"
            pairs = nominal.with_connected(climb.decision) if mixed else nominal.with_users(climb.decision)
        return best.found("done", {"converged": converged, "rounds": rounds})


def place_record(placed: Placed) -> dict[str, object]:
    """Part 1 as `info` has it."""
    return {**placed.solved.record(), "fractional": placed.fractional}


def climb_record(climb: Climb) -> dict[str, object]:
    """Part 2 as `info` has it."""
    return {
        "surrogate": list(climb.surrogate),
        "worth": list(climb.worth),
        "solves": [solved.record() for solved in climb.solves],
    }
