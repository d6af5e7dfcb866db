"""`ga`, the paper's genetic algorithm, run anew in every slot (baas.md 5).

A chromosome holds a UE and a level for each server. Its fitness is the true utility of the slot, which the GA knows
and the learners do not: so it beats every flat network, whatever the paper's figures say (baas.md 10.16). Duplicates
cost nothing but the second server's task, as in the environment.

All copies evolve side by side: a generation is a handful of array operations over (copies, population, servers).
"""

import numpy as np

from edgora.allocator.baas.model import Choice, Floats, Ints, Slots, execute, grant, mining_value, worth
from edgora.allocator.baas.params import LEVELS

__all__ = ["Genetic"]


class Genetic:
    """Binary tournament, uniform crossover, mutation for each gene, elitism 1."""

    def __init__(self, seed: int, population: int = 50, generations: int = 60, mutation: float = 0.05) -> None:
        self._rng = np.random.default_rng(seed)
        self._population, self._generations, self._mutation = population, generations, mutation

    def decide(self, slots: Slots) -> Choice:
        rng, P = self._rng, self._population
        B, U, M = slots.copies, slots.params.U, slots.params.M
        shape = (B, P, M)
        utility = _Utility(slots)
        rows = np.arange(B)[:, None]
        ue, level = rng.integers(-1, U, shape), rng.integers(0, len(LEVELS), shape)
        fitness = utility(ue, level)
        for _ in range(self._generations):
            mother, father = (self._tournament(fitness) for _ in range(2))
            from_mother = rng.random(shape) < 0.5
            young_ue = np.where(from_mother, ue[rows, mother], ue[rows, father])
            from_mother = rng.random(shape) < 0.5
            young_level = np.where(from_mother, level[rows, mother], level[rows, father])
            changed = rng.random(shape) < self._mutation
            young_ue[changed] = rng.integers(-1, U, int(changed.sum()))
            changed = rng.random(shape) < self._mutation
            young_level[changed] = rng.integers(0, len(LEVELS), int(changed.sum()))
            best = fitness.argmax(axis=1)
            young_ue[:, 0], young_level[:, 0] = ue[rows[:, 0], best], level[rows[:, 0], best]
            ue, level = young_ue, young_level
            fitness = utility(ue, level)
        best = fitness.argmax(axis=1)
        return Choice(ue[rows[:, 0], best], np.asarray(LEVELS)[level[rows[:, 0], best]])

    def _tournament(self, fitness: Floats) -> Ints:
        """Places of as many parents as there are chromosomes: the fitter of two drawn ones."""
        B, P = fitness.shape
        first, second = self._rng.integers(0, P, (2, B, P))
        rows = np.arange(B)[:, None]
        fitter: Ints = np.where(fitness[rows, first] >= fitness[rows, second], first, second)
        return fitter


class _Utility:
    """Reward of many choices for the same slots."""

    def __init__(self, slots: Slots) -> None:
        self._params = slots.params
        self._pairs = worth(slots).reshape(slots.copies, -1)
        self._cap = slots.cap[:, None, :]
        self._value = mining_value(slots.params, slots.b)[:, None, :] / slots.params.H

    def __call__(self, ue: Ints, level: Ints) -> Floats:
        """(B,P,M) genes -> (B,P) rewards."""
        B, P, M = ue.shape
        assign = execute(ue.reshape(B * P, M)).reshape(B, P, M)
        at = np.maximum(assign, 0) * M + np.arange(M)
        served = np.take_along_axis(self._pairs, at.reshape(B, P * M), axis=1).reshape(B, P, M)
        request = np.asarray(LEVELS)[level]
        mining = self._value * grant(self._params, request, self._cap)
        total: Floats = (mining + np.where(assign >= 0, served, 0.0)).sum(axis=2)
        return total
