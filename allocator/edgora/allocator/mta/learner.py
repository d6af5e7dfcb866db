"""The paper's Q-learning (mta.md 8): state = task in arrival order, action = server, one table Q (m,n) that starts at 0.

    Q[j,i] += rate * (R_ij + discount * max over base(j+1) of Q[j+1,.] - Q[j,i]),   base(j) = {i : R_ij != 0}

Two modes differ in the candidates of a task and in what counts as the best episode. Draws follow the streams of
mta.md 7: per choice one `random() < epsilon` to exploit, else `c[integers(len(c))]`; nothing is drawn for no candidate.
The rows are vectorised, so the kernels are of use uncompiled as well.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import COMPILED, compiled
from edgora.allocator.mta.table import REJECTED, Plan

__all__ = ["Learner", "Parameters", "ready"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Parameters:
    rate: float
    discount: float
    epsilon: float
    """Probability to exploit."""


class Learner:
    """One run: what is learned, the best episode's plan, and the worth of every episode so far."""

    def __init__(self, reward: Floats, worth: Floats, parameters: Parameters, seed: int) -> None:
        """reward, worth: R and what an episode is judged by (n,m)."""
        n, m = reward.shape
        self._reward, self._worth = np.ascontiguousarray(reward.T), np.ascontiguousarray(worth.T)
        self._base = self._reward != 0.0
        self._chosen = parameters
        self._rng = np.random.default_rng(seed)
        self._q = np.zeros((m, n))
        self._ahead = np.zeros(m + 1)
        """Max over base(j) of Q[j,.]; 0 after the last state, and where base(j) is empty."""
        self.best: Plan = np.full(m, REJECTED, dtype=np.int64)
        self._best_worth = np.full(1, -np.inf)
        self.curve: list[float] = []

    def feasible(self, episodes: int, candidates: Bools, weight: Floats, room: Floats) -> None:
        """Episodes of mode `feasible` (8.3): candidates (n,m) as far as their weight still fits."""
        curve, chosen = np.empty(episodes), self._chosen
        _feasible(
            self._rng, chosen.rate, chosen.discount, chosen.epsilon, self._reward, self._worth, self._base,
            np.ascontiguousarray(candidates.T), np.ascontiguousarray(weight.T), room, self._q, self._ahead, self.best,
            self._best_worth, curve,
        )  # fmt: skip
        self.curve += curve.tolist()

    def paper(self, episodes: int, cycles: Floats, capacity: Floats, freq: Floats, deadline: Floats) -> None:
        """Episodes of mode `paper` (8.2), as written."""
        curve, chosen = np.empty(episodes), self._chosen
        _paper(
            self._rng, chosen.rate, chosen.discount, chosen.epsilon, self._reward, self._base,
            np.ascontiguousarray(cycles.T), capacity, freq, deadline, self._q, self._ahead, self.best,
            self._best_worth, curve,
        )  # fmt: skip
        self.curve += curve.tolist()


@cache
def ready() -> None:
    """Have the kernels compiled, or loaded, before a clock runs."""
    if COMPILED:
        one = np.ones((1, 1))
        fixed = np.ones(1)
        fixed.flags.writeable = False  # as the arrays of an instance are
        learner = Learner(one, one, Parameters(0.5, 0.5, 0.5), 0)
        learner.feasible(1, one > 0.0, one, np.ones(1))
        learner.paper(1, one, fixed, fixed, fixed)


@compiled
def _choose(rng: np.random.Generator, epsilon: float, open_: Bools, q: Floats) -> Any:
    """Among the open servers, of which there is one: the best by Q, lowest index on ties, or a uniform one."""
    if rng.random() < epsilon:
        return np.where(open_, q, -np.inf).argmax()
    c = open_.nonzero()[0]
    return c[rng.integers(0, len(c))]


@compiled
def _learn(rate: float, discount: float, j: int, i: int, gain: float, base: Bools, q: Floats, ahead: Floats) -> None:
    old = q[i]
    new = old + rate * (gain + discount * ahead[j + 1] - old)
    q[i] = new
    if base[i]:
        most = ahead[j]
        if new >= most:
            ahead[j] = new
        elif old == most:
            ahead[j] = np.where(base, q, -np.inf).max()


@compiled
def _feasible(
    rng: np.random.Generator, rate: float, discount: float, epsilon: float, reward: Floats, worth: Floats, base: Bools,
    candidates: Bools, weight: Floats, room: Floats, q: Floats, ahead: Floats, best: Ints, best_worth: Floats,
    curve: Floats,
) -> None:  # fmt: skip
    m = len(best)
    plan = np.empty(m, np.int64)
    for k in range(len(curve)):
        left, total = room.copy(), 0.0
        for j in range(m):
            load, row = weight[j], q[j]
            open_ = candidates[j] & (load <= left)
            if not open_[open_.argmax()]:
                plan[j] = -1
                continue
            i = _choose(rng, epsilon, open_, row)
            _learn(rate, discount, j, i, reward[j, i], base[j], row, ahead)
            left[i] -= load[i]
            plan[j] = i
            total += worth[j, i]
        curve[k] = total
        if total > best_worth[0]:
            best_worth[0] = total
            best[:] = plan


@compiled
def _paper(
    rng: np.random.Generator, rate: float, discount: float, epsilon: float, reward: Floats, base: Bools, cycles: Floats,
    capacity: Floats, freq: Floats, deadline: Floats, q: Floats, ahead: Floats, best: Ints, best_worth: Floats,
    curve: Floats,
) -> None:  # fmt: skip
    m, n = reward.shape
    plan = np.empty(m, np.int64)
    for k in range(len(curve)):
        charged, used, total = np.zeros(n), np.zeros(n, np.bool_), 0.0
        for j in range(m):
            plan[j] = -1
            open_ = base[j].copy()
            if not open_.any():
                continue
            i = _choose(rng, epsilon, open_, q[j])
            if used[i] and (charged[i] > capacity[i] or (capacity[i] - charged[i]) / freq[i] < deadline[j]):
                open_[i] = False
                if not open_.any():
                    continue
                i = _choose(rng, epsilon, open_, q[j])
            _learn(rate, discount, j, i, reward[j, i], base[j], q[j], ahead)
            charged[i] += cycles[j, i]
            used[i] = True
            plan[j] = i
            total += reward[j, i]
        curve[k] = total
        if total > best_worth[0]:
            best_worth[0] = total
            best[:] = plan
