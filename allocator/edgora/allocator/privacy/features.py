"""What a learner sees of a miner (privacy.md 3, 4): its streams, its channel, the server's level, and two shared numbers.

Order: D1 of every stream over the mean of new data, less 1; D0 of every stream over the same mean; 2 g - 1; the level as
three bits; and where there are several miners, the share of good channels and the mean buffer over the mean of new
data. For one stream of 50..150 kb these are D1/100 - 1, D0/100, 2 g - 1 and the level.
"""

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.privacy.instance import Instance
from edgora.allocator.privacy.model import State

__all__ = ["bounds", "features", "width"]

Floats32 = NDArray[np.float32]


def width(instance: Instance) -> int:
    """Features of a miner."""
    return 2 * instance.M + 4 + (2 if instance.N > 1 else 0)


def features(state: State, instance: Instance) -> Floats32:
    """Every miner's features (B,N,width)."""
    M, mean = instance.M, np.float32(instance.constants.mean_kb)
    found = np.empty((*state.g.shape, width(instance)), dtype=np.float32)
    np.divide(state.D1, mean, out=found[:, :, :M], casting="same_kind")
    found[:, :, :M] -= 1.0
    np.divide(state.D0, mean, out=found[:, :, M : 2 * M], casting="same_kind")
    found[:, :, 2 * M] = 2 * state.g - 1
    found[:, :, 2 * M + 1 : 2 * M + 4] = state.level[:, None, None] == np.arange(3)
    if instance.N > 1:
        found[:, :, 2 * M + 4] = state.g.mean(axis=1)[:, None]
        found[:, :, 2 * M + 5] = (state.D0.mean(axis=(1, 2)) / mean)[:, None]
    return found


def bounds(instance: Instance) -> tuple[Floats32, Floats32]:
    """Least and greatest features of a miner."""
    c, M = instance.constants, instance.M
    mean = c.mean_kb
    shared = [(0.0, 1.0), (0.0, c.B / mean)] if instance.N > 1 else []
    rows = [(c.D1_lo / mean - 1.0, c.D1_hi / mean - 1.0)] * M + [(0.0, c.B / mean)] * M
    rows += [(-1.0, 1.0)] + [(0.0, 1.0)] * 3 + shared
    low, high = np.array(rows, dtype=np.float32).T
    slack = np.float32(1e-6)  # a quotient may round past its bound
    return low - slack, high + slack
