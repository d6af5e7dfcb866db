"""Rank one by an alternating difference of convex functions (dpe.md 6, "keep").

A PSD matrix S has rank one exactly where its trace equals its largest eigenvalue. So what a relaxation drops comes
back as a penalty on the rank gap

    gap(S) = sum over blocks of tr S - lambda_max(S) >= 0,        maximise  f(S) - tau gap(S)

Theory of operation. lambda_max is convex, so the penalised objective is concave minus convex. With u the unit leading
eigenvector of the last S, lambda_max(S') >= <u u^T, S'> for every S', with equality at the last S. A round maximises

    f(S) - tau (tr S - <u u^T, S>) = f(S) - <tau (I - u u^T), S>

which lies below the penalised objective and touches it at the last point: the penalised objective never falls from
round to round. It can stop at a critical point whose rank is higher; `gaps` says so.

The penalty enters as a matrix of weights for each block, a parameter of the program: a round compiles nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.conic.lift import Lifted
from edgora.allocator.conic.program import Solved

__all__ = ["Alternated", "Ended", "alternate", "leading", "penalty", "rank_gap"]

Floats = NDArray[np.float64]

Ended = Literal["rank one", "still", "rounds", "cut off"]
"""Why the rounds ended: the gap is closed, it moves no more, the last round was reached, the caller said so."""


@dataclass(frozen=True, slots=True)
class Alternated:
    """The last point of the rounds, and how they went; entry 0 of each list is the relaxation without penalty."""

    lifted: Lifted
    solves: list[Solved]
    objectives: list[float]
    """f(S), without the penalty."""
    gaps: list[float]
    ended: Ended

    def penalised(self, tau: float) -> list[float]:
        """f(S) - tau gap(S): never falls."""
        return [f - tau * gap for f, gap in zip(self.objectives, self.gaps, strict=True)]


def leading(matrices: Floats) -> tuple[Floats, Floats]:
    """The largest eigenvalue (blocks,) and its unit eigenvector (blocks,k) of symmetric matrices (blocks,k,k)."""
    values, vectors = np.linalg.eigh(matrices)
    return values[:, -1], vectors[:, :, -1]


def rank_gap(matrices: Floats) -> float:
    """Sum over blocks of trace minus largest eigenvalue; 0 exactly where every block has rank one."""
    values, _ = leading(matrices)
    return float(np.trace(matrices, axis1=1, axis2=2).sum() - values.sum())


def penalty(matrices: Floats) -> Floats:
    """I - u u^T for each block, u its leading eigenvector: the gap, linearised at these matrices, is its product with S."""
    _, u = leading(matrices)
    weights: Floats = np.eye(matrices.shape[-1]) - u[:, :, None] * u[:, None, :]
    return weights


def alternate(
    relax: Callable[[Floats | None], tuple[Solved, Lifted, float]],
    tau: float,
    *,
    rounds: int = 10,
    closed: float = 1e-4,
    still: float = 1e-6,
    over: Callable[[], bool] = bool,
) -> Alternated:
    """Solve the relaxation, then up to `rounds` penalised ones.

    `relax` maximises f(S) - <weights, S> (None: f alone) and answers the solve, its point and f there. Ends when the
    gap is below `closed`, moved by less than `still`, or `over` says so. ProgramError passes through.
    """
    solved, lifted, objective = relax(None)
    solves, objectives, gaps = [solved], [objective], [rank_gap(lifted.matrices)]
    for _ in range(rounds):
        if gaps[-1] < closed:
            return Alternated(lifted, solves, objectives, gaps, "rank one")
        if len(gaps) > 2 and abs(gaps[-1] - gaps[-2]) < still:
            return Alternated(lifted, solves, objectives, gaps, "still")
        if over():
            return Alternated(lifted, solves, objectives, gaps, "cut off")
        solved, lifted, objective = relax(tau * penalty(lifted.matrices))
        solves.append(solved)
        objectives.append(objective)
        gaps.append(rank_gap(lifted.matrices))
    return Alternated(lifted, solves, objectives, gaps, "rank one" if gaps[-1] < closed else "rounds")
