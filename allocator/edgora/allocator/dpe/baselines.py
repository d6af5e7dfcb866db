"""The paper's baselines without a semidefinite program: RUCAA, GUCAA and GUCRO (dpe.md 7).

    rucaa    random association, average resources
    gucaa    greedy association, average resources
    gucro    greedy association, optimised resources

AAUCO, the fourth, is the first half of DAUR and stands beside it.
"""

import dataclasses
from typing import ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgora.allocator.dpe.continuous import continuous
from edgora.allocator.dpe.model import Decision, Model
from edgora.allocator.search import Found, Search, Status
from edgora.wire.errors import Refused

__all__ = ["Gucaa", "Gucro", "Rucaa"]


class Rucaa(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every user to a server drawn uniformly; phi = gamma = 1/2, everything else in equal shares and at its cap."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def solve(self, model: Model, search: Search) -> Found:
        e = model.instance
        drawn = np.random.default_rng([e.seed or 0, search.seed]).integers(0, e.M, e.N)
        return Found(_average(model, drawn))


class Gucaa(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Users in index order, each to a server with the fewest users so far; the rest as RUCAA."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def solve(self, model: Model, search: Search) -> Found:  # noqa: ARG002 - it is over at once
        return Found(_average(model, model.gucaa()))


class Gucro(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """GUCAA's association with everything offloaded and its resources optimised."""

    resources: Literal["exact", "fp"] = "exact"
    """The optimum for this association (F5), or the resource step of DAUR."""
    solver: Literal["clarabel", "scs", "mosek"] = "clarabel"
    """Of the resource programs, where resources is fp."""

    default_limit_s: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        if self.resources == "exact" and self.solver != "clarabel":
            detail = f"solver is {self.solver}, but resources=exact has no convex program to solve"
            raise Refused(detail, field="solver", fix="--set resources=fp")

    @property
    def libraries(self) -> tuple[str, ...]:
        return ("numpy",) if self.resources == "exact" else ("numpy", "cvxpy", self.solver)

    def solve(self, model: Model, search: Search) -> Found:
        assoc = model.gucaa()
        if self.resources == "exact":
            solved = continuous(model, assoc)
            return Found(solved.decision, info={"kkt_residual": solved.residual, "newton_steps": solved.steps})
        from edgora.allocator.dpe import fp  # only this needs a convex solver

        start = dataclasses.replace(model.average(assoc, model.instance.phi_max, model.gamma0), fu=model.best_fu)
        step = fp.allocate(model, start, solver=self.solver, tolerance=None, over=search.over)
        info = {"server_parts": step.server_parts, "solves": [solve.record() for solve in step.solves]}
        status: Status = "interrupted" if search.stopped() else "time_limit" if search.over() else "done"
        return Found(step.decision, status=status, info=info)


def _average(model: Model, assoc: NDArray[np.int64]) -> Decision:
    """Average resources, and half of the data offloaded where the range of phi has its middle."""
    e = model.instance
    return model.average(assoc, float(np.clip(0.5, e.phi_min, e.phi_max)), 0.5)
