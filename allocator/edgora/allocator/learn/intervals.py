"""Means with 95 % confidence intervals over independent seeds.

Seeds are independent, the slots of one seed are not: they share a layout. So an interval counts seeds, not slots
(Student's t), and a ratio of two means is given the delta method's interval.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from edgora.allocator.learn.problem import Statistic

__all__ = ["mean", "ratio"]

_TWO_SIDED = 0.975


def mean(values: Sequence[float] | ArrayLike) -> Statistic:
    """Mean of one value for each seed."""
    sample = np.asarray(values, dtype=np.float64)
    centre = float(sample.mean())
    return _around(centre, sample - centre)


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Statistic:
    """Mean of the one over mean of the other, each with one value for each seed."""
    over, under = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    below = float(under.mean())
    centre = float(over.mean()) / below
    return _around(centre, (over - centre * under) / below)


def _around(centre: float, residuals: np.ndarray) -> Statistic:
    n = residuals.size
    if n < 2:
        return Statistic(centre, None, None)
    half = float(stdtrit(n - 1, _TWO_SIDED)) * math.sqrt(float(residuals @ residuals) / (n - 1) / n)
    return Statistic(centre, centre - half, centre + half)
