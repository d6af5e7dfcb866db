"""`exact` and `priced`: the controller knows worths and block values when it decides, so a slot is solved, not learned.

exact   the best matching by w, plus the best split by v: proven optimal for the slot (baas.md 6.1).
priced  the same with w_um + theta (tau_u - T_um): a second under the desired time lifts reputation, and with it the
        caps of later slots, so it is paid for. Not optimal for the slot; better over an episode (baas.md 6.2).
bound   what no policy exceeds in a slot, whatever it did before: the optimum with every cap at 100 (baas.md 8).
"""

import numpy as np

from edgora.allocator.baas.matching import fill, match
from edgora.allocator.baas.model import Choice, Floats, Ints, Slots, mining_value, worth
from edgora.allocator.baas.params import P_MAX

__all__ = ["best", "bound", "optimum"]


def best(slots: Slots, theta: float = 0.0) -> Choice:
    """The per-slot optimum under present caps; with theta, what pays for reputation too."""
    return Choice(match(worth(slots, theta)), fill(mining_value(slots.params, slots.b), slots.cap, slots.params.H))


def optimum(slots: Slots) -> Floats:
    """Most reward of each slot under present caps (B,)."""
    return _reward(slots, match(worth(slots)), slots.cap)


def bound(slots: Slots) -> Floats:
    """Most reward of each slot with every cap at 100 MHash/s (B,)."""
    return _reward(slots, match(worth(slots)), np.full_like(slots.b, P_MAX))


def _reward(slots: Slots, assign: Ints, cap: Floats) -> Floats:
    params = slots.params
    value = mining_value(params, slots.b)
    mining: Floats = (value * fill(value, cap, params.H)).sum(axis=1) / params.H
    pairs = worth(slots)
    active = assign >= 0
    served = np.take_along_axis(pairs, np.where(active, assign, 0)[:, None, :], axis=1)[:, 0, :]
    mining += np.where(active, served, 0.0).sum(axis=1)
    return mining
