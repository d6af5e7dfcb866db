"""DAUR, the paper's algorithm, and AAUCO, its first half (dpe.md 6 and 7).

    P1   maximise the sum of ratios A/B of all users and servers                                 (14)
    P2   the same in epigraph form (Lemma 1)
    P3   maximise sum alpha (A - beta B); at a KKT point alpha = 1/B, beta = A/B (Lemma 2)       (17)-(20)

P3 is solved in turns: an association step with resources held (`association`), a resource step with the association
held (`fp`), at most three times. The user terms of P3 vanish for every share, alpha of a user with nothing left would
be 1/0, and so both are left out; the epigraph delays equal the sums of delays.

The resource step never lowers DPE. The association step may: it holds every pair at the share of an equal crowd, and
rounds. So the best point seen is what is returned.
"""

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgora.allocator.conic.program import ProgramError, Solver
from edgora.allocator.dpe import association, fp
from edgora.allocator.dpe.association import Associated, Rank, Rounding, Weights
from edgora.allocator.dpe.model import Decision, Model
from edgora.allocator.search import Found, Search, Status

__all__ = ["Aauco", "Daur", "split"]

Floats = NDArray[np.float64]

_GROWTH = 1e-4
"""Relative growth of DPE below which the outer loop ends."""

_TOLERANCE = 1e-7

Part = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Gamma = Literal["gamma0", "half"] | Part
Times = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class _Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What both solvers take."""

    lift: Literal["blocks", "full"] = "blocks"
    """One PSD matrix a user, or one over all: the same relaxation."""
    rank: Rank = "keep"
    """Whether a penalty brings back rank one."""
    rlt: Literal[0, 1] = 0
    """1: also the rows sum_m W_nm = phi_n and phi_min x <= W <= phi_max x, which the paper does not have."""
    rounding: Rounding = "rank1"
    gamma: Gamma = "gamma0"
    """Split of a server's clock: best for delay alone, 1/2, or this number."""
    weights: Weights = "user"
    solver: Solver = "clarabel"
    """Of the semidefinite and the resource programs."""
    tolerance: Annotated[float, msgspec.Meta(gt=0, le=0.01)] | None = None
    """That solver's; null: 1e-7 for Clarabel, the solver's own for another.

    Clarabel's own 1e-8 is more than the last rounds of the penalty can give: near rank one they end `almost solved`.
    """
    tau_w: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 175.0
    """Weight of the rank penalty, the objective in Mbit."""
    dc_rounds: Times = 10
    """Most penalised solves of an association step."""

    default_limit_s: ClassVar[float | None] = None

    @property
    def libraries(self) -> tuple[str, ...]:
        return ("numpy", "scipy", "cvxpy", self.solver)

    @property
    def _tolerance(self) -> float | None:
        return _TOLERANCE if self.tolerance is None and self.solver == "clarabel" else self.tolerance

    def associate(self, model: Model, at: Decision, p: Floats, search: Search, rng: np.random.Generator) -> Associated:
        """The association step from a point, every pair at its nominal share and this power."""
        return association.associate(
            model,
            at.assoc,
            at.phi,
            association.nominal(model, p, split(model, self.gamma)),
            kind=self.lift,
            rank=self.rank,
            rlt=bool(self.rlt),
            how=self.rounding,
            weights=self.weights,
            tau=self.tau_w,
            rounds=self.dc_rounds,
            solver=self.solver,
            tolerance=self._tolerance,
            rng=rng,
            over=search.over,
        )

    def start(self, model: Model) -> Decision:
        """phi = 1/2 within its range, the association of GUCAA, average resources, the users' best clocks (F1)."""
        e = model.instance
        half = float(np.clip(0.5, e.phi_min, e.phi_max))
        at = model.average(model.gucaa(), half, split(model, self.gamma))
        return dataclasses.replace(at, fu=model.best_fu)

    def placed(self, model: Model, step: Associated, p: Floats) -> Decision:
        """An association step's answer with average resources."""
        at = model.average(step.assoc, 0.0, split(model, self.gamma))
        return dataclasses.replace(at, phi=step.phi, p=p, fu=model.best_fu)


@dataclass(slots=True)
class _Log:
    """The best point so far and what happened on the way."""

    model: Model
    search: Search
    best: Decision
    worth: float
    steps: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.process_time)

    def note(self, kind: str, outer: int, at: Decision, **more: object) -> float:
        """Add a step, keep its point if it is the best, and answer its DPE."""
        worth = self.model.dpe(at)
        cpu_s = time.process_time() - self.began
        self.steps.append({"step": kind, "outer": outer, "dpe": worth, "cpu_s": cpu_s, **more})
        if worth > self.worth or len(self.steps) == 1:
            self.best, self.worth = at, worth
            self.search.keep(Found(at), worth)
        return worth

    def associated(self, step: Associated, outer: int, at: Decision) -> None:
        rounds = step.rounds
        self.note(
            "association",
            outer,
            at,
            relaxed=rounds.objectives,
            rank_gaps=rounds.gaps,
            ended=rounds.ended,
            solves=[solve.record() for solve in rounds.solves],
        )

    def resourced(self, step: fp.Resourced, outer: int) -> None:
        self.note(
            "resources",
            outer,
            step.decision,
            server_parts=step.server_parts,
            surrogates=step.surrogates,
            solves=[solve.record() for solve in step.solves],
        )

    def found(self, status: Status, **more: object) -> Found:
        return Found(self.best, status=status, info={"steps": self.steps, **more})


class Aauco(_Options, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The first association step of DAUR with average resources, its shares and full power (dpe.md 7)."""

    def solve(self, model: Model, search: Search) -> Found:
        at = self.start(model)
        log = _Log(model, search, at, -np.inf)
        step = self.associate(model, at, at.p, search, np.random.default_rng(search.seed))
        log.associated(step, 1, self.placed(model, step, at.p))
        return log.found("interrupted" if search.stopped() else "time_limit" if search.over() else "done")


class Daur(_Options, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Association and resource steps in turns."""

    order: Literal["association_first", "fp_first"] = "association_first"
    """Algorithm 1 prints the resources first, its experiments run the association first (A6)."""
    outer: Times = 3
    """Most turns."""
    fp_iters: Times = 12
    """Most solves of a resource step."""

    def solve(self, model: Model, search: Search) -> Found:
        """A failed solve after the first turn has an answer ends the search with it, status `numerical`."""
        at = self.start(model)
        log = _Log(model, search, at, model.dpe(at))
        rng = np.random.default_rng(search.seed)
        try:
            status = self._turns(model, log, at, rng)
        except ProgramError as error:
            if not log.steps:
                raise
            return log.found("numerical", failure=error.detail)
        return log.found(status)

    def _turns(self, model: Model, log: _Log, at: Decision, rng: np.random.Generator) -> Status:
        search, last = log.search, -np.inf
        for outer in range(1, self.outer + 1):
            for half in range(2):
                if (half == 0) == (self.order == "association_first"):
                    step = self.associate(model, at, at.p, search, rng)
                    at = self.placed(model, step, at.p)
                    log.associated(step, outer, at)
                else:
                    resourced = self._allocate(model, at, search)
                    at = resourced.decision
                    log.resourced(resourced, outer)
                if search.over():
                    return "interrupted" if search.stopped() else "time_limit"
            if log.worth - last <= _GROWTH * abs(log.worth):
                break
            last = log.worth
        return "done"

    def _allocate(self, model: Model, at: Decision, search: Search) -> fp.Resourced:
        return fp.allocate(
            model, at, solver=self.solver, tolerance=self._tolerance, rounds=self.fp_iters, over=search.over
        )


def split(model: Model, gamma: Gamma) -> Floats:
    """gamma as a split of every server's clock (M,)."""
    match gamma:
        case "gamma0":
            return model.gamma0
        case "half":
            return np.full(model.instance.M, 0.5)
        case float():
            return np.full(model.instance.M, gamma)
