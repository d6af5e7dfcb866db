"""The floors of baas.md 5: `random`, which scores are measured from, and `greedy`.

random   a uniform matching of size min(U, M), levels uniform on the five.
greedy   servers in index order take the best free UE by w, only w > 0; hash power in proportion to reputation.
"""

import numpy as np

from edgora.allocator.baas.model import IDLE, Choice, Ints, Slots, worth
from edgora.allocator.baas.params import LEVELS, P_MAX, P_MIN

__all__ = ["Greedy", "Random", "explored", "random_matching"]


class Random:
    """Plays with a generator of its own."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def decide(self, slots: Slots) -> Choice:
        assign = random_matching(self._rng, slots.copies, slots.params.U, slots.params.M)
        return Choice(assign, self._rng.choice(LEVELS, size=assign.shape))


class Greedy:
    """Server by server; needs no search and no learning."""

    def decide(self, slots: Slots) -> Choice:
        params = slots.params
        free = worth(slots)
        assign = np.full((slots.copies, params.M), IDLE, dtype=np.int64)
        rows = np.arange(slots.copies)
        for m in range(params.M):
            ue = free[:, :, m].argmax(axis=1)
            takes = free[rows, ue, m] > 0.0
            assign[takes, m] = ue[takes]
            free[rows[takes], ue[takes], :] = -np.inf
        Y = slots.Y
        return Choice(assign, np.clip(params.H * Y / Y.sum(axis=1, keepdims=True), P_MIN, P_MAX))


def explored(slots: Slots, choice: Choice, rng: np.random.Generator, epsilon: float) -> Choice:
    """The choice, or in a share epsilon of the copies a random one: how every learner here explores."""
    explores = (rng.random(slots.copies) < epsilon)[:, None]
    drawn = Random(int(rng.integers(2**63))).decide(slots)
    return Choice(np.where(explores, drawn.assign, choice.assign), np.where(explores, drawn.request, choice.request))


def random_matching(rng: np.random.Generator, copies: int, U: int, M: int) -> Ints:
    """A matching of size min(U, M) for each copy, all equally likely (B,M)."""
    size = min(U, M)
    ues = rng.random((copies, U)).argsort(axis=1)[:, :size]
    servers = rng.random((copies, M)).argsort(axis=1)[:, :size]
    assign = np.full((copies, M), IDLE, dtype=np.int64)
    np.put_along_axis(assign, servers, ues, axis=1)
    return assign
