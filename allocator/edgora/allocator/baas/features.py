"""What learners of pairs look at: demands, speeds and times in units near 1, whatever U and M.

    UE       work W, data d, desired time tau
    server   speed f, reputation Y, block b
    pair     execution time W / f, upload time d / r (0 in `paper`)

All float32. The pair features are the physics that everybody knows; what a pair is worth, and what a block pays, is
left to be learned.
"""

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.baas.model import Ints, Slots
from edgora.allocator.baas.params import Params

__all__ = [
    "BLOCK", "PAIR", "SERVED", "SERVER", "TOTALS", "UE", "Floats32", "blocks", "flat", "flat_size", "pairs", "served",
    "servers", "totals", "ues",
]  # fmt: skip

Floats32 = NDArray[np.float32]

UE, SERVER, PAIR, BLOCK, TOTALS = 3, 2, 2, 2, 8
"""Features of each kind."""
SERVED = UE + SERVER + PAIR
"""Features of a served pair."""


def ues(slots: Slots) -> Floats32:
    """(B,U,3)."""
    return np.stack((slots.d * slots.xi / 25.0, slots.d / 25.0, slots.tau / 10.0), axis=-1, dtype=np.float32)


def servers(slots: Slots) -> Floats32:
    """(B,M,2): speed, reputation."""
    return np.stack((slots.f / 5.0, slots.Y), axis=-1, dtype=np.float32)


def pairs(slots: Slots) -> tuple[Floats32, Floats32 | None]:
    """Execution and upload time of every pair, each (B,U,M); None where data takes no time."""
    work = slots.d * slots.xi / 5.0
    execution: Floats32 = np.divide(work[:, :, None], slots.f[:, None, :], dtype=np.float32)
    if slots.rate is None:
        return execution, None
    upload: Floats32 = np.divide(slots.d[:, :, None] / 5.0, slots.rate, dtype=np.float32)
    return execution, upload


def served(slots: Slots, assign: Ints) -> Floats32:
    """What each server serves: its UE's, its own and the pair's features (B,M,7); meaningless where it idles."""
    ue = np.maximum(assign, 0)
    rows = np.arange(slots.copies)[:, None]
    d, work = slots.d[rows, ue], slots.d[rows, ue] * slots.xi[rows, ue]
    upload = np.zeros_like(d) if slots.rate is None else d / 5.0 / slots.rate[rows, ue, np.arange(assign.shape[1])]
    return np.stack(
        (work / 25.0, d / 25.0, slots.tau[rows, ue] / 10.0, slots.f / 5.0, slots.Y, work / 5.0 / slots.f, upload),
        axis=-1, dtype=np.float32,
    )  # fmt: skip


def blocks(slots: Slots) -> Floats32:
    """(B,M,2): block, reputation."""
    return np.stack((slots.b / 10.0, slots.Y), axis=-1, dtype=np.float32)


def totals(slots: Slots) -> Floats32:
    """What a slot offers as a whole, for a value function: means over UEs and servers (B,8)."""
    by_ue, by_server = ues(slots), servers(slots)
    return np.concatenate((by_ue.mean(1), by_ue.std(1), by_server.mean(1)), axis=1, dtype=np.float32)


def flat_size(params: Params) -> int:
    """Length of `flat`."""
    if params.obs == "paper":
        return params.U + params.M
    return 3 * params.U + 3 * params.M + (params.U * params.M if params.profile == "hetero" else 0)


def flat(slots: Slots) -> Floats32:
    """The concatenated state that the paper's networks read, each entry near -1..1 (B, flat_size)."""
    params = slots.params

    def centred(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
        return (2.0 * values - low - high) / max(high - low, 1e-9) if high > low else np.zeros_like(values)

    parts = [centred(slots.xi, params.xi_lo, params.xi_hi), slots.Y - 1.0]
    if params.obs == "full":
        parts += [centred(slots.d, params.d_lo, params.d_hi), centred(slots.tau, params.tau_lo, params.tau_hi)]
        parts += [centred(slots.b, params.b_lo, params.b_hi), slots.f / 5.0 - 1.0]
        if slots.rate is not None:
            parts.append(np.log(slots.rate / 50.0).reshape(slots.copies, -1) / 2.0)
    return np.concatenate(parts, axis=1, dtype=np.float32)
