"""The paper's Q-learning (mta.md 8): state = task in arrival order, action = server, one table Q (m,n) that starts at 0.

    Q[j,i] += rate * (R_ij + discount * max over base(j+1) of Q[j+1,.] - Q[j,i]),   base(j) = {i : R_ij != 0}

Two modes differ in the candidates of a task and in what counts as the best episode. Draws follow the streams of
mta.md 7: per choice one `random() < epsilon` to exploit, else `c[integers(len(c))]`; nothing is drawn for no candidate.
The kernels go through their rows number by number and take either container: arrays where they are compiled, nested lists
where they are not, since there an array's scalar costs three times a list's.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import COMPILED, compiled
from edgora.allocator.mta.table import REJECTED, Plan

__all__ = ["Learner", "Parameters", "ready"]

Floats = NDArray[np.float64]
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
        self._reward, self._worth, self._base = _rows(reward), _rows(worth), _rows(reward != 0.0)
        self._chosen = parameters
        self._rng = np.random.default_rng(seed)
        self._q = _held(np.zeros((m, n)))
        self._ahead = _held(np.zeros(m + 1))
        """Max over base(j) of Q[j,.]; 0 after the last state, and where base(j) is empty."""
        self._best, self._plan = (_held(np.full(m, REJECTED, dtype=np.int64)) for _ in range(2))
        self._open, self._used = (_held(np.zeros(n, dtype=np.bool_)) for _ in range(2))
        self._best_worth = _held(np.full(1, -np.inf))
        self.curve: list[float] = []

    @property
    def best(self) -> Plan:
        return np.array(self._best, dtype=np.int64)

    def feasible(self, episodes: int, candidates: Bools, weight: Floats, room: Floats) -> None:
        """Episodes of mode `feasible` (8.3): candidates (n,m) as far as their weight still fits."""
        curve, chosen = _held(np.empty(episodes)), self._chosen
        _feasible(
            self._rng, chosen.rate, chosen.discount, chosen.epsilon, self._reward, self._worth, self._base,
            _rows(candidates), _rows(weight), _held(room), self._q, self._ahead, self._best, self._best_worth, curve,
            self._plan, self._open,
        )  # fmt: skip
        self.curve += [float(total) for total in curve]

    def paper(self, episodes: int, cycles: Floats, capacity: Floats, freq: Floats, deadline: Floats) -> None:
        """Episodes of mode `paper` (8.2), as written."""
        curve, chosen = _held(np.empty(episodes)), self._chosen
        _paper(
            self._rng, chosen.rate, chosen.discount, chosen.epsilon, self._reward, self._base, _rows(cycles),
            _held(capacity), _held(freq), _held(deadline), self._q, self._ahead, self._best, self._best_worth, curve,
            self._plan, self._open, self._used,
        )  # fmt: skip
        self.curve += [float(total) for total in curve]


def _held(array: NDArray[Any]) -> Any:
    """The container that the kernels are quick with."""
    return np.ascontiguousarray(array) if COMPILED else array.tolist()


def _rows(array: NDArray[Any]) -> Any:
    """(n,m) as one row of servers for each task."""
    return _held(array.T)


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
def _choose(rng: np.random.Generator, epsilon: float, open_: Any, q: Any) -> int:
    """Among the open servers, of which there is one: the best by Q, lowest index on ties, or a uniform one."""
    if rng.random() < epsilon:
        best, most = -1, -math.inf
        for i in range(len(q)):
            if open_[i] and q[i] > most:
                best, most = i, q[i]
        return best
    count = 0
    for i in range(len(q)):
        if open_[i]:
            count += 1
    skip = rng.integers(0, count)
    for i in range(len(q)):
        if open_[i]:
            if skip == 0:
                return i
            skip -= 1
    return -1  # not reached: skip < count


@compiled
def _learn(rate: float, discount: float, j: int, i: int, gain: float, base: Any, q: Any, ahead: Any) -> None:
    old = q[i]
    new = old + rate * (gain + discount * ahead[j + 1] - old)
    q[i] = new
    if base[i]:
        most = ahead[j]
        if new >= most:
            ahead[j] = new
        elif old == most:
            most = -math.inf
            for k in range(len(q)):
                if base[k] and q[k] > most:
                    most = q[k]
            ahead[j] = most


@compiled
def _feasible(
    rng: np.random.Generator, rate: float, discount: float, epsilon: float, reward: Any, worth: Any, base: Any,
    candidates: Any, weight: Any, room: Any, q: Any, ahead: Any, best: Any, best_worth: Any, curve: Any, plan: Any,
    open_: Any,
) -> None:  # fmt: skip
    m, n = len(best), len(room)
    for k in range(len(curve)):
        left, total = room.copy(), 0.0
        for j in range(m):
            load, able = weight[j], candidates[j]
            some = False
            for i in range(n):
                fits = able[i] and load[i] <= left[i]
                open_[i] = fits
                if fits:
                    some = True
            if not some:
                plan[j] = -1
                continue
            i = _choose(rng, epsilon, open_, q[j])
            _learn(rate, discount, j, i, reward[j][i], base[j], q[j], ahead)
            left[i] -= load[i]
            plan[j] = i
            total += worth[j][i]
        curve[k] = total
        if total > best_worth[0]:
            best_worth[0] = total
            best[:] = plan


@compiled
def _paper(
    rng: np.random.Generator, rate: float, discount: float, epsilon: float, reward: Any, base: Any, cycles: Any,
    capacity: Any, freq: Any, deadline: Any, q: Any, ahead: Any, best: Any, best_worth: Any, curve: Any, plan: Any,
    open_: Any, used: Any,
) -> None:  # fmt: skip
    m, n = len(best), len(freq)
    for k in range(len(curve)):
        charged, total = freq.copy(), 0.0
        for i in range(n):
            charged[i], used[i] = 0.0, False
        for j in range(m):
            plan[j] = -1
            count = 0
            for i in range(n):
                open_[i] = base[j][i]
                if open_[i]:
                    count += 1
            if count == 0:
                continue
            i = _choose(rng, epsilon, open_, q[j])
            if used[i] and (charged[i] > capacity[i] or (capacity[i] - charged[i]) / freq[i] < deadline[j]):
                open_[i] = False
                if count == 1:
                    continue
                i = _choose(rng, epsilon, open_, q[j])
            _learn(rate, discount, j, i, reward[j][i], base[j], q[j], ahead)
            charged[i] += cycles[j][i]
            used[i] = True
            plan[j] = i
            total += reward[j][i]
        curve[k] = total
        if total > best_worth[0]:
            best_worth[0] = total
            best[:] = plan
