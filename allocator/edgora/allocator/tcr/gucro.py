"""GUCRO, the paper's baseline without association (tcr.md 8): part 2 of DASHF alone.

Association, phi and gamma are GUCAA's; Dinkelbach's loop runs over part 2, each starting where the last one ended.
"""

from typing import Any, ClassVar

import msgspec
import numpy as np

from edgora.allocator.conic.program import Solver, require
from edgora.allocator.search import Found, Search
from edgora.allocator.tcr.association import LEAST_PHI, Pairs
from edgora.allocator.tcr.dashf import Best, Rounds, Tolerance, climb_record
from edgora.allocator.tcr.instance import Instance
from edgora.allocator.tcr.powers import Powers

__all__ = ["Gucro"]


class Gucro(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    outer: Rounds = 10
    fp_iters: Rounds = 9
    tol: Tolerance = 1e-4
    solver: Solver = "clarabel"

    default_limit_s: ClassVar[float | None] = None

    @property
    def libraries(self) -> tuple[str, ...]:
        return ("numpy", "scipy", "cvxpy", self.solver)

    def solve(self, instance: Instance, search: Search) -> Found:
        require(self.solver)
        model = instance.model
        shared = model.even(model.spread())
        best = Best(instance, search, shared)
        powers, nominal = Powers(instance), Pairs.nominal(instance)
        pairs, phi = nominal, np.maximum(shared.phi, min(LEAST_PHI, instance.params.phi_max))
        y, converged = best.tcr, False
        rounds: list[dict[str, Any]] = []
        while len(rounds) < self.outer and not converged and not search.over():
            start = pairs.chosen(shared.assoc, phi)
            climb = powers.climb(start, y, self.fp_iters, self.tol, self.solver, search.over)
            v = best.offer(climb.decision)
            rounds.append({"y": y, "tcr": v, "part2": climb_record(climb)})
            converged = abs(v - y) <= self.tol * abs(v)
            y = max(y, v)
            pairs = nominal.with_connected(climb.decision)
        return best.found("done", {"converged": converged, "rounds": rounds})
