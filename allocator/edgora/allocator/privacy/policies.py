"""Policies that need no learning, and what a policy is.

A policy decides for a batch of systems at once, from what is known before the slot. The same object plays in
evaluations, in exact tables (every state as one batch), in the environments and on a device.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np

from edgora.allocator.learn.weights import Arrays
from edgora.allocator.privacy.coupling import alone, flips, stakes
from edgora.allocator.privacy.exact import relative_values
from edgora.allocator.privacy.instance import Instance
from edgora.allocator.privacy.model import Bits, Floats, State

__all__ = ["Chances", "Constant", "Inverse", "Myopic", "Plan", "Planned", "Policy", "Table", "Uniform", "lookahead"]


@runtime_checkable
class Policy(Protocol):
    def act(self, state: State) -> Bits:
        """Which streams go to the server (B,N,M)."""
        ...


@runtime_checkable
class Chances(Protocol):
    """A policy of one stream that draws its decision: tables take its chances, not its draws."""

    def chances(self, state: State) -> Floats:
        """Chance that each stream goes to the server (B,N,M)."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What a solver of this problem hands back."""

    policy: Policy
    arrays: Arrays | None = None
    """Of a learned policy: what its file holds."""
    header: Mapping[str, object] = field(default_factory=dict)


class Constant:
    """NO: everything on the device. EO: everything at the server."""

    def __init__(self, *, offload: bool) -> None:
        self._offload = offload

    def act(self, state: State) -> Bits:
        return np.full(state.D1.shape, self._offload, dtype=np.bool_)


class Uniform:
    """Every stream by a fair coin of its own, from a generator that is not the environment's."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 1])

    def act(self, state: State) -> Bits:
        return self._rng.random(state.D1.shape) < self.chances(state)

    def chances(self, state: State) -> Floats:
        return np.full(state.D1.shape, 0.5)


class Inverse:
    """Offload over the bad channel only: neither the usage nor the place can be told from what is sent."""

    def act(self, state: State) -> Bits:
        return np.broadcast_to((state.g == 0)[:, :, None], state.D1.shape)


class Myopic:
    """The best reward of the slot; with many miners, the better of the flip search and each miner's best alone."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def act(self, state: State) -> Bits:
        slot = stakes(self._instance.model, state)
        own = alone(slot)
        if self._instance.N == 1:
            return own
        searched = flips(slot)
        return np.where((slot.total(searched) >= slot.total(own))[:, None, None], searched, own)


class Planned:
    """Exact rewards of the slot plus a continuation of one miner's afterstates: VI, RVI, and for many miners lookahead.

    One miner takes its best decision, which is then optimal; many miners are searched by flips.
    """

    def __init__(self, instance: Instance, U: Floats) -> None:
        """`U` is each afterstate's continuation, already discounted, as `exact.Miner` indexes them."""
        self._instance = instance
        c = instance.constants
        self._buffers = round(c.B / c.grid) + 1
        self._U = U.reshape(self._buffers**instance.M, 2, 3)

    def act(self, state: State) -> Bits:
        M, c = self._instance.M, self._instance.constants
        left = np.rint(self._instance.model.left(state.D0 + state.D1) / c.grid).astype(np.int64)
        values = []
        for code in range(2**M):
            index = np.zeros(state.g.shape, dtype=np.int64)
            for m in range(M):
                index = index * self._buffers + (0 if code >> m & 1 else left[:, :, m])
            values.append(self._U[index, state.g, state.level[:, None]])
        slot = replace(stakes(self._instance.model, state), joint=np.stack(values, axis=2))
        return alone(slot) if self._instance.N == 1 else flips(slot)


def lookahead(instance: Instance) -> Planned:
    """The flip search with the relative values of the one-miner average-reward optimum."""
    return Planned(instance, relative_values(instance)[1])


class Table:
    """A table of one stream's decisions or chances by (D1, D0, g, level), for any number of streams."""

    def __init__(self, instance: Instance, table: Floats, seed: int = 0) -> None:
        """`table` (K, buffers, 2, 3): chances to offload; 0 and 1 are decisions."""
        self._c, self._table = instance.constants, np.asarray(table, dtype=np.float64)
        self._mixed = bool(((self._table > 0.0) & (self._table < 1.0)).any())
        self._rng = np.random.default_rng([seed, 1])

    def act(self, state: State) -> Bits:
        chances = self.chances(state)
        return self._rng.random(chances.shape) < chances if self._mixed else chances >= 0.5

    def chances(self, state: State) -> Floats:
        c = self._c
        i1 = np.rint((state.D1 - c.D1_lo) / c.grid).astype(np.int64)
        i0 = np.rint(state.D0 / c.grid).astype(np.int64)
        found: Floats = self._table[i1, i0, state.g[:, :, None], state.level[:, None, None]]
        return found
