"""AAUCO, the paper's baseline without resources (tcr.md 8): part 1 of DASHF alone.

Every pair is valued at the L-th part, y is the last TCR. Resources are then shared equally, with phi from the linear
program at those resources. Rounds until |v - y| <= tol |v|; the best is kept.
"""

from typing import Any, ClassVar, Literal

import msgspec

from edgora.allocator.conic.lift import Kind, affordable
from edgora.allocator.conic.program import Solver, require
from edgora.allocator.search import Found, Search
from edgora.allocator.tcr.association import Association, Coefficients, Pairs, offload
from edgora.allocator.tcr.dashf import Best, Rounds, Tolerance, place_record
from edgora.allocator.tcr.instance import Instance

__all__ = ["Aauco"]


class Aauco(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    lift: Kind = "blocks"
    tight: Literal[0, 1, 2] = 1
    outer: Rounds = 10
    tol: Tolerance = 1e-4
    solver: Solver = "clarabel"

    default_limit_s: ClassVar[float | None] = None

    @property
    def libraries(self) -> tuple[str, ...]:
        return ("numpy", "scipy", "cvxpy", self.solver)

    def solve(self, instance: Instance, search: Search) -> Found:
        require(self.solver)
        affordable(instance.N, instance.M, self.lift, self.solver)
        model, nominal = instance.model, Pairs.nominal(instance)
        best = Best(instance, search, model.even(model.spread()))
        association = Association(instance, self.lift, self.tight)
        y, converged = best.tcr, False
        rounds: list[dict[str, Any]] = []
        while len(rounds) < self.outer and not converged and not search.over():
            placed = association.place(y, nominal, self.solver)
            shared = model.even(placed.assoc)
            k = Coefficients.of(instance, nominal.with_connected(shared))
            phi = offload(instance, y, k, placed.assoc, association.low)
            v = best.offer(model.even(placed.assoc, phi))
            rounds.append({"y": y, "tcr": v, "part1": place_record(placed)})
            converged = abs(v - y) <= self.tol * abs(v)
            y = v
        return best.found("done", {"converged": converged, "rounds": rounds})
