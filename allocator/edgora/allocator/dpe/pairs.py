"""What a user costs on a server, and how that changes with its resources: constants of every pair, and curves.

With everything that can be offloaded offloaded (F2), pair (n, m) is worth

    V = c_nm / K,   K = tau + A(b) + G1(g1) + G2(g2)     tau = w_t t0_m / D_n

    A    least air cost of a bit over bandwidth b, the power chosen by F4, in weighted cost per bit
    G1   cost of processing a bit at clock g1: eta_s (w_t/g1 + w_e kappa g1^2);  G2 the same for the block

The curves are written in logarithms of b, g1, g2. A needs no inner search for the power: it is a closed form of
l = ln(1 + SNR), which therefore stands for the bandwidth. With s = e^l - 1, e = 1 - e^-l and k = l - e,

    power at its cap   (l <= l_cap)   b = c P / s,                        A = (w_t + w_e P) ln2 / (b l),   -d ln l/d ln b = e / l
    power inside       (l >  l_cap)   b = w_t c / (w_e k e^l), p = s b/c, A = w_e ln2 e^l / c,             -d ln l/d ln b = k / l^2

where c = g_nm/N0 and l_cap solves l = e (1 + w_t/(w_e P)). In both, dA/d ln b = -A k/l, and

    d2A/d(ln b)2 = A (k^2 + sigma (l e - k)) / l^2       sigma = e at the cap, k/l inside

The curves join at l_cap with their first derivatives (F5), so Newton may cross it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.dpe.model import Model

__all__ = [
    "CAP_A", "CAP_B", "ETA", "ETA_B", "ETA_S", "FREE_A", "FREE_B", "G_STAR", "KAPPA", "LEAST_CLOCK", "L_CAP", "L_LEAST",
    "L_MOST", "TAU", "Air", "C", "Kernels", "Pairs", "air", "log_snr_at",
]  # fmt: skip

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_LN2 = math.log(2.0)
_HUGE = 1e300
"""Stands for an infinite clock: its products stay finite."""
_UNWANTED = 1e-14
"""Least preference of a pair, relative to the greatest: one that is worth nothing still gets its least resources."""
_LEAST_B, _MOST_B, _LEAST_F = 1e-13, 4.0, 1e-25
"""Least and most share of a server's bandwidth; least share of its clock, far below what goes with the former."""
_SMALL = 0.05
"""Below this l, k loses digits as a difference and is summed as a series."""

# Rows of `Pairs.rows`.
CAP_B, FREE_B, CAP_A, FREE_A, L_CAP, TAU, C, ETA_S, ETA_B, KAPPA, G_STAR, LEAST_CLOCK, L_LEAST, L_MOST = range(14)
ETA = slice(ETA_S, ETA_B + 1)
"""Work of both clocks, one row each."""


Probe = Callable[[Floats, float, Floats, Floats, Floats, Floats], None]
Advance = Callable[[Floats, Floats, Floats, Floats, Floats, Floats, Floats, bool], None]


Balance = Callable[[Floats, Indices, Floats, NDArray[np.bool_], Floats, Floats, Floats], None]


class Kernels(NamedTuple):
    """The parts of a Newton step, in one of their two forms (see `newton`)."""

    probe: Probe
    balance: Balance
    advance: Advance


class Air(NamedTuple):
    """The air curve at l: bandwidth, cost A, -dA/d ln b, d2A/d(ln b)2, sigma."""

    b: Floats
    cost: Floats
    slope: Floats
    bend: Floats
    sigma: Floats


@dataclass(frozen=True, slots=True)
class Pairs:
    """Constants of all N M pairs; pair (n, m) is column n M + m."""

    N: int
    M: int
    rows: Floats
    """(14, N M), the rows named above."""
    w_t: float
    B: Floats
    F: Floats
    g_star: Floats
    """(M,); `_HUGE` where no clock is too fast."""
    budgets: Floats
    """B and F (2, M)."""
    kernels: Kernels
    wanted: Floats | None
    """Preference over the one that the rows hold, which is never quite 0 (N M,); None: all are 1."""

    @classmethod
    def of(cls, model: Model, *, compiled: bool = False) -> "Pairs":
        from edgora.allocator.dpe import newton  # written on top of pairs

        e = model.instance
        snr_hz, power, shape = model.snr_hz, e.p_max[:, None], (e.N, e.M)
        g_star = np.minimum(model.g_star, _HUGE)
        if e.w_e > 0.0:
            free_b, free_a, l_cap = e.w_t / e.w_e * snr_hz, e.w_e * _LN2 / snr_hz, _cap(e.w_t / (e.w_e * e.p_max))
        else:  # energy is free: the power is always at its cap
            free_b, free_a, l_cap = np.zeros(shape), np.zeros(shape), np.full(e.N, np.inf)
        preferred = np.maximum(e.c_s, max(_UNWANTED * float(e.c_s.max()), 1e-30))
        rows = (
            snr_hz * power, free_b, (e.w_t + e.w_e * power) * _LN2, free_a, l_cap[:, None],
            e.w_t * e.t_chain / (e.phi_max * e.d)[:, None], preferred,
            e.eta_s, e.omega_b * e.eta_b, e.w_e * e.kappa_s, g_star, e.fs_max * _LEAST_F,
        )  # fmt: skip
        table = np.zeros((len(rows) + 2, e.N * e.M))
        for row, values in enumerate(rows):
            table[row] = np.broadcast_to(values, shape).ravel()
        table[L_LEAST] = log_snr_at(np.tile(e.B * _MOST_B, e.N), table)
        table[L_MOST] = log_snr_at(np.tile(e.B * _LEAST_B, e.N), table)
        return cls(
            e.N,
            e.M,
            table,
            e.w_t,
            e.B,
            e.fs_max,
            g_star,
            np.array([e.B, e.fs_max]),
            newton.loops() if compiled else newton.ARRAYS,
            None if (preferred == e.c_s).all() else (e.c_s / preferred).ravel(),
        )


def air(log_snr: Floats, rows: Floats) -> Air:
    """The air curve of pairs with these constants at l = ln(1 + SNR) > 0."""
    e = -np.expm1(-log_snr)
    k = _excess(log_snr, e)
    share, growth = k / log_snr, np.exp(log_snr)
    snr = e * growth
    b = rows[CAP_B] / snr
    cost = rows[CAP_A] / (b * log_snr)
    sigma = e
    free = log_snr > rows[L_CAP]
    if free.any():
        b = np.where(free, rows[FREE_B] / (k * growth), b)
        cost = np.where(free, rows[FREE_A] * growth, cost)
        sigma = np.where(free, share, e)
    slope = cost * share
    bend = slope * share + cost * sigma * (log_snr * e - k) / (log_snr * log_snr)
    return Air(b, cost, slope, bend, sigma)


def log_snr_at(b: Floats, rows: Floats) -> Floats:
    """l at these bandwidths, Hz; close enough to start Newton from, which takes its bandwidth from l."""
    log_snr: Floats = np.log1p(rows[CAP_B] / b)
    free = log_snr > rows[L_CAP]
    if free.any():
        x, target = log_snr[free], np.log(rows[FREE_B][free] / b[free])
        for _ in range(8):  # Newton on ln(k e^l), whose derivative is l / k
            k = _excess(x, -np.expm1(-x))
            step = (np.log(k) + x - target) * k / x
            x = np.maximum(x - step, 0.05 * x)
            if (np.abs(step) <= 1e-5 * x).all():
                break
        log_snr[free] = x
    return log_snr


def _excess(log_snr: Floats, e: Floats) -> Floats:
    """k = l - e; for small l, where the difference loses digits, l^2/2 - l^3/6 + ..."""
    k = log_snr - e
    return np.where(log_snr < _SMALL, _excess_series(log_snr), k) if log_snr.min() < _SMALL else k


def _excess_series(log_snr: Floats) -> Floats:
    tail: Floats = 1.0 - log_snr / 9.0
    for j in (8.0, 7.0, 6.0, 5.0, 4.0, 3.0):
        tail = 1.0 - log_snr / j * tail
    excess: Floats = 0.5 * log_snr * log_snr * tail
    return excess


def _cap(ratio: Floats) -> Floats:
    """l_cap: the root of l = (1 - e^-l)(1 + ratio) above 0. Newton from above falls onto it."""
    log_snr: Floats = 1.0 + ratio
    for _ in range(100):
        rest = np.exp(-log_snr)
        step = (log_snr - (1.0 + ratio) * (1.0 - rest)) / (1.0 - (1.0 + ratio) * rest)
        log_snr = log_snr - np.maximum(step, 0.0)
        if (step <= 1e-15 * log_snr).all():
            break
    return log_snr
