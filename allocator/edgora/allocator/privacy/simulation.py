"""A batch of systems, slot after slot, by the normative random stream (privacy.md 3).

Rule 1: the draws of a slot never depend on decisions, so policies that are given one seed meet the same data.
Rule 2: nothing ends. A run is cut where its caller stops; the last state is an ordinary state.

Order of draws from `default_rng(seed)`: on reset g, then D1; after every slot D1, channel flips, background level.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.privacy.exact import Miner
from edgora.allocator.privacy.instance import CHAIN, Instance
from edgora.allocator.privacy.model import Bits, Floats, Ints, Outcome, State

__all__ = ["Simulation", "TableSimulation"]

_CUMULATIVE = np.cumsum(np.array(CHAIN), axis=1)
_FIELDS = ("D1", "D0", "g", "level", "backlog")
_FIRST, _SECOND = np.ascontiguousarray(_CUMULATIVE[:, 0]), np.ascontiguousarray(_CUMULATIVE[:, 1])


Seed = int | Sequence[int]
"""What `default_rng` takes; learners train on streams (seed, 2), which no evaluation plays."""


class Simulation:
    """`batch` systems side by side."""

    def __init__(self, instance: Instance, batch: int, seed: Seed) -> None:
        self.instance, self.batch = instance, batch
        self._model, self._c = instance.model, instance.constants
        self._shape = (batch, instance.N, instance.M)
        self.state = self.reset(seed)

    def reset(self, seed: Seed) -> State:
        """Start anew: empty buffers, no background work, drawn channels and data."""
        self._rng = np.random.default_rng(seed)
        g = self._rng.integers(0, 2, self._shape[:2])
        self.state = State(
            D1=self._new_data(), D0=np.zeros(self._shape), g=g, level=np.zeros(self.batch, dtype=np.int64),
            backlog=np.zeros(self.batch),
        )  # fmt: skip
        return self.state

    def step(self, x: Bits | Ints) -> Outcome:
        """One slot: the decision's outcome, and the next state in `state`."""
        state = self.state
        outcome = self._model.slot(state, x)
        D1 = self._new_data()
        g, level = self._move(state.g, state.level)
        self.state = State(D1=D1, D0=outcome.D0, g=g, level=level, backlog=outcome.backlog)
        return outcome

    def _new_data(self) -> Floats:
        steps = self._rng.integers(0, self._c.K, self._shape).astype(np.float64)
        return self._c.D1_lo + self._c.grid * steps

    def _move(self, g: Ints, level: Ints) -> tuple[Ints, Ints]:
        flip = self._rng.random(g.shape) >= self._c.sigma
        v = self._rng.random(self.batch)
        rows = _CUMULATIVE[level]
        return np.where(flip, 1 - g, g), (v[:, None] >= rows[:, :2]).sum(axis=1)

    def snapshot(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Everything that a resumed run needs: the state's arrays, and the generator's state as JSON."""
        state = self.state
        return {f"simulation/{name}": getattr(state, name) for name in _FIELDS}, dict(self._rng.bit_generator.state)

    def restore(self, arrays: Mapping[str, NDArray[Any]], generator: Mapping[str, Any]) -> None:
        """Continue where `snapshot` was taken."""
        self.state = State(**{name: arrays[f"simulation/{name}"] for name in _FIELDS})
        self._rng.bit_generator.state = generator


class TableSimulation:
    """The same slots for many systems of one miner with one stream, by looking outcomes up: same draws, same numbers.

    A system is one index into the states of `exact.Miner`; a slot costs a few gathers instead of some sixty operations.
    """

    def __init__(self, tables: Miner, batch: int, seed: int) -> None:
        self._tables, self.batch = tables, batch
        c = tables.instance.constants
        self._K, self._block, self._sigma = c.K, 6 * tables.buffers, c.sigma
        self._after = tables.after // 6 * 6
        self.rewards = np.ascontiguousarray(tables.reward)
        self.index = self.reset(seed)

    def reset(self, seed: int) -> Ints:
        """Start anew; the states' indices."""
        self._rng = np.random.default_rng(seed)
        self._g = self._rng.integers(0, 2, self.batch)
        self._level = np.zeros(self.batch, dtype=np.int64)
        self.index = self._rng.integers(0, self._K, self.batch) * self._block + 3 * self._g
        return self.index

    def step(self, actions: Ints | Bits) -> tuple[Ints, Floats]:
        """One slot: the cell (2 state + action) that was played, and its reward. The next states are in `index`."""
        cell = 2 * self.index + actions
        buffers = self._after.take(cell)
        data = self._rng.integers(0, self._K, self.batch)
        self._g ^= self._rng.random(self.batch) >= self._sigma
        v = self._rng.random(self.batch)
        level = self._level
        self._level = (v >= _FIRST.take(level)).astype(np.int64)
        self._level += v >= _SECOND.take(level)
        self.index = data * self._block
        self.index += buffers
        self.index += 3 * self._g
        self.index += self._level
        return cell, self.rewards.take(cell)
