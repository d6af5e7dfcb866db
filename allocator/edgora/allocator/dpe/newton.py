"""One Newton step of many pairs towards their best resources at given prices (F4-F6).

A pair's point is (l, g1, g2): l = ln(1 + SNR) stands for its bandwidth b (see `pairs`), g1 and g2 are its clocks. At
prices lam and mu its surplus V - lam b - mu (g1 + g2) is greatest where in logarithms of b, g1, g2

    b dV/db = lam b,   g1 dV/dg1 = mu g1,   g2 dV/dg2 = mu g2

`probe` values the points and prepares the step; `advance` takes it, for prices that may move at the same time. Between
the two, whoever knows how prices hang together (budgets of a group, the dual of all pairs) chooses their movement from
the sums that `probe` gives: what the pairs take, and how that changes with the prices.

The Hessian is diagonal minus rank one, so it is inverted in closed form. The diagonal carries the pair's own marginal
values instead of the prices: the two agree at the optimum, and away from it this form is positive semidefinite because
V is concave, so no curvature is ever dropped (F10). Steps are cut to a factor e^2 or e^-3. No bandwidth falls below
1e-13 of its server's, which is what a user of no worth is left with.

`balance` is that choice for groups: users on one server, whose prices move so that both of its budgets are met.

Each of the three is written twice: for whole arrays, and as a loop for numba to compile. The loops are some five times
as fast on the few pairs of a group and twice as fast on thousands, but importing numba and loading machine code takes
seconds, where a whole solve takes hundredths. So arrays are the default, and `loops` is for processes that live long;
without numba it gives the arrays. The two forms differ in the last digit of exponentials.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.dpe.pairs import (
    CAP_A,
    CAP_B,
    ETA,
    ETA_B,
    ETA_S,
    FREE_A,
    FREE_B,
    G_STAR,
    KAPPA,
    L_CAP,
    L_LEAST,
    L_MOST,
    LEAST_CLOCK,
    TAU,
    C,
    Kernels,
    air,
)  # fmt: skip

__all__ = ["ARRAYS", "GAIN_2", "GAIN_B", "OFF", "ROWS", "SUMS", "TAKEN_B", "TAKEN_F", "WORTH", "loops"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# Rows of what `probe` fills in.
TAKEN_B, TAKEN_F = 0, 1
"""Bandwidth b and clock g1 + g2 of the point."""
SUMS = slice(0, 7)
"""b, f, then -db/dlam, -db/dmu = -df/dlam, -df/dmu, and the movement of b and of f at unmoved prices."""
WORTH, GAIN_B, GAIN_1, GAIN_2, OFF, SIGMA, U = range(7, 14)
"""V; b dV/db, g1 dV/dg1, g2 dV/dg2; the greatest relative residual; -d l/d ln b; and nine rows: the movements of ln b,
ln g1 and ln g2, each at unmoved prices, per unit of lam and per unit of mu."""
ROWS = U + 9

_DOWN, _UP = -3.0, 2.0
"""Furthest step of a logarithm."""
_CHEAPER, _DEARER = -0.8, 4.0
"""Furthest step of a price, as a part of it."""
_STIFF = 1e-12
"""Least response of a group to a price, relative: where all members are at their least, the price still falls."""
_FLAT = 1e-12
"""Least curvature along a pair's ray, relative."""
_SMALL = 0.05
"""As in `pairs`."""
_CHUNK = 3000
"""Most pairs at once: what is computed between input and output then stays in a core's cache."""
_TINY = 1e-300
"""Keeps quotients finite where a user of no worth has no curvature either."""


def _parts(length: int) -> list[slice]:
    size = math.ceil(length / math.ceil(length / _CHUNK))
    return [slice(at, at + size) for at in range(0, length, size)]


def _probe_arrays(rows: Floats, w_t: float, point: Floats, lam: Floats, mu: Floats, out: Floats) -> None:
    if len(lam) > _CHUNK:
        for part in _parts(len(lam)):
            _probe_arrays(rows[:, part], w_t, point[:, part], lam[part], mu[part], out[:, part])
        return
    eta = rows[ETA]
    curve, clocks = air(point[0], rows), point[1:]
    b = curve.b
    delay, energy = w_t / clocks, rows[KAPPA] * clocks * clocks
    cost, slope, bend = eta * (delay + energy), eta * (delay - 2.0 * energy), eta * (delay + 4.0 * energy)
    total = rows[TAU] + curve.cost + cost[0] + cost[1]
    worth = rows[C] / total
    q = worth / total  # dV/dK = -q
    air_slope = curve.slope
    gain_b, gain_g = q * air_slope, q * slope
    r_b, r_g = gain_b - lam * b, gain_g - mu * clocks
    d_b, d_g = q * curve.bend + gain_b + _TINY, q * bend + gain_g + _TINY
    off_g = np.abs(r_g) / (q * eta * delay + _TINY)
    out[GAIN_B], out[GAIN_1 : GAIN_2 + 1], out[WORTH], out[SIGMA] = gain_b, gain_g, worth, curve.sigma
    least = (point[0] >= rows[L_MOST]) & (r_b < 0.0)
    if least.any():  # these keep their least bandwidth; what is left of their clocks still finds its place
        r_b, air_slope = np.where(least, 0.0, r_b), np.where(least, 0.0, air_slope)
        d_b = np.where(least, np.inf, d_b)
        slowest = (np.minimum(clocks[0], clocks[1]) <= rows[LEAST_CLOCK] * (1.0 + 1e-9)) & (r_g < 0.0)
        r_g, slope, off_g = np.where(slowest, 0.0, r_g), np.where(slowest, 0.0, slope), np.where(slowest, 0.0, off_g)
        d_g = np.where(slowest, np.inf, d_g)
    out[OFF] = np.maximum(np.abs(r_b) / (gain_b + _TINY), np.maximum(off_g[0], off_g[1]))
    w_b, w_g = air_slope / d_b, slope / d_g
    rank = 2.0 * q / total
    t = slope * w_g
    rank /= np.maximum(1.0 - rank * (air_slope * w_b + t[0] + t[1]), _FLAT)
    t = clocks * w_g
    s_b, s_g = b * w_b, t[0] + t[1]
    t = w_g * r_g
    s_r = w_b * r_b + t[0] + t[1]
    mix_b, mix_g = w_b * rank, w_g * rank
    out[U], out[U + 1], out[U + 2] = r_b / d_b + mix_b * s_r, b / d_b + mix_b * s_b, mix_b * s_g
    out[U + 3 :: 3], out[U + 4 :: 3], out[U + 5 :: 3] = r_g / d_g + mix_g * s_r, mix_g * s_b, clocks / d_g + mix_g * s_g
    out[TAKEN_B], out[TAKEN_F] = b, clocks[0] + clocks[1]
    out[2], out[3], out[5] = b * out[U + 1], b * out[U + 2], b * out[U]
    out[4] = clocks[0] * out[U + 5] + clocks[1] * out[U + 8]
    out[6] = clocks[0] * out[U + 3] + clocks[1] * out[U + 6]


def _balance_arrays(
    probed: Floats,
    start: Indices,
    budgets: Floats,
    slack: NDArray[np.bool_],
    prices: Floats,
    moved: Floats,
    off: Floats,
) -> None:
    sums = np.add.reduceat(probed[SUMS], start, axis=1)
    over = sums[:2] - budgets
    t_b, t_f = sums[5:] + over
    h_bb, h_ff = sums[2:5:2] + _STIFF * budgets / (prices + _STIFF * _STIFF)
    h_bf = sums[3]
    determinant = h_bb * h_ff - h_bf * h_bf
    moved[0], moved[1] = (t_b * h_ff - t_f * h_bf) / determinant, (t_f * h_bb - t_b * h_bf) / determinant
    if slack.any():
        moved[0], moved[1] = np.where(slack, t_b / h_bb, moved[0]), np.where(slack, 0.0, moved[1])
        over[1, slack] = 0.0
    np.maximum(moved, _CHEAPER * prices, out=moved)
    np.minimum(moved, _DEARER * prices, out=moved)
    off[:] = np.maximum(np.maximum.reduceat(probed[OFF], start), (np.abs(over) / budgets).max(axis=0))


def _advance_arrays(
    rows: Floats, probed: Floats, point: Floats, dlam: Floats, dmu: Floats, reach: Floats, course: Floats, damped: bool
) -> None:
    if len(dlam) > _CHUNK:
        for part in _parts(len(dlam)):
            _advance_arrays(
                rows[:, part], probed[:, part], point[:, part], dlam[part], dmu[part], reach[part], course[part], damped
            )
        return
    step = probed[U::3] - dlam * probed[U + 1 :: 3] - dmu * probed[U + 2 :: 3]
    if damped:
        np.minimum(np.where(step[1] * course < 0.0, 0.4, 1.3) * reach, 1.0, out=reach)
        course[:] = step[1]
    step = np.minimum(np.maximum(step, _DOWN * reach), _UP * reach)
    step[0] *= -probed[SIGMA] / point[0]
    point *= np.exp(step)
    np.minimum(np.maximum(point[0], rows[L_LEAST]), rows[L_MOST], out=point[0])
    np.minimum(point[1:], rows[G_STAR], out=point[1:])
    below = np.minimum(point[1], point[2]) < rows[LEAST_CLOCK]
    if below.any():  # both at their least, split as is best for so slow a clock
        root = np.sqrt(rows[ETA][:, below])
        point[1:, below] = rows[LEAST_CLOCK, below] / root.min(axis=0) * root


def _probe_loop(rows: Floats, w_t: float, point: Floats, lam: Floats, mu: Floats, out: Floats) -> None:
    for i in range(point.shape[1]):
        # The air curve, as `pairs.air` has it.
        x, g1, g2 = point[0, i], point[1, i], point[2, i]
        if x < _SMALL:
            e = -math.expm1(-x)
            tail = 1.0 - x / 9.0
            for j in range(8, 2, -1):
                tail = 1.0 - x / j * tail
            k = 0.5 * x * x * tail
            growth = math.exp(x)
        else:
            growth = math.exp(x)
            e = 1.0 - 1.0 / growth
            k = x - e
        share = k / x
        if x > rows[L_CAP, i]:
            b, cost, sigma = rows[FREE_B, i] / (k * growth), rows[FREE_A, i] * growth, share
        else:
            b = rows[CAP_B, i] / (e * growth)
            cost, sigma = rows[CAP_A, i] / (b * x), e
        slope = cost * share
        bend = slope * share + cost * sigma * (x * e - k) / (x * x)
        # The clocks.
        eta1, eta2, kappa = rows[ETA_S, i], rows[ETA_B, i], rows[KAPPA, i]
        delay1, delay2 = eta1 * w_t / g1, eta2 * w_t / g2
        energy1, energy2 = eta1 * kappa * g1 * g1, eta2 * kappa * g2 * g2
        slope1, slope2 = delay1 - 2.0 * energy1, delay2 - 2.0 * energy2
        total = rows[TAU, i] + cost + (delay1 + energy1) + (delay2 + energy2)
        worth = rows[C, i] / total
        q = worth / total
        gain_b, gain_1, gain_2 = q * slope, q * slope1, q * slope2
        r_b, r_1, r_2 = gain_b - lam[i] * b, gain_1 - mu[i] * g1, gain_2 - mu[i] * g2
        inv_b = 1.0 / (q * bend + gain_b + _TINY)
        inv_1 = 1.0 / (q * (delay1 + 4.0 * energy1) + gain_1 + _TINY)
        inv_2 = 1.0 / (q * (delay2 + 4.0 * energy2) + gain_2 + _TINY)
        off_1, off_2 = abs(r_1) / (q * delay1 + _TINY), abs(r_2) / (q * delay2 + _TINY)
        if x >= rows[L_MOST, i] and r_b < 0.0:
            r_b, slope, inv_b = 0.0, 0.0, 0.0
            if min(g1, g2) <= rows[LEAST_CLOCK, i] * (1.0 + 1e-9):
                if r_1 < 0.0:
                    r_1, slope1, inv_1, off_1 = 0.0, 0.0, 0.0, 0.0
                if r_2 < 0.0:
                    r_2, slope2, inv_2, off_2 = 0.0, 0.0, 0.0, 0.0
        w_b, w_1, w_2 = slope * inv_b, slope1 * inv_1, slope2 * inv_2
        rank = 2.0 * q / total
        rank /= max(1.0 - rank * (slope * w_b + slope1 * w_1 + slope2 * w_2), _FLAT)
        s_b, s_g, s_r = b * w_b, g1 * w_1 + g2 * w_2, w_b * r_b + w_1 * r_1 + w_2 * r_2
        w_b, w_1, w_2 = w_b * rank, w_1 * rank, w_2 * rank
        u0, ul, um = r_b * inv_b + w_b * s_r, b * inv_b + w_b * s_b, w_b * s_g
        v0, vl, vm = r_1 * inv_1 + w_1 * s_r, w_1 * s_b, g1 * inv_1 + w_1 * s_g
        z0, zl, zm = r_2 * inv_2 + w_2 * s_r, w_2 * s_b, g2 * inv_2 + w_2 * s_g
        out[0, i], out[1, i], out[2, i], out[3, i] = b, g1 + g2, b * ul, b * um
        out[4, i], out[5, i], out[6, i] = g1 * vm + g2 * zm, b * u0, g1 * v0 + g2 * z0
        out[7, i], out[8, i], out[9, i], out[10, i] = worth, gain_b, gain_1, gain_2
        out[11, i], out[12, i] = max(abs(r_b) / (gain_b + _TINY), off_1, off_2), sigma
        out[13, i], out[14, i], out[15, i] = u0, ul, um
        out[16, i], out[17, i], out[18, i] = v0, vl, vm
        out[19, i], out[20, i], out[21, i] = z0, zl, zm


def _balance_loop(
    probed: Floats,
    start: Indices,
    budgets: Floats,
    slack: NDArray[np.bool_],
    prices: Floats,
    moved: Floats,
    off: Floats,
) -> None:
    groups = len(start)
    for k in range(groups):
        used_b, used_f, h_bb, h_bf, h_ff, t_b, t_f, most = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(start[k], start[k + 1] if k + 1 < groups else probed.shape[1]):
            used_b, used_f = used_b + probed[0, i], used_f + probed[1, i]
            h_bb, h_bf, h_ff = h_bb + probed[2, i], h_bf + probed[3, i], h_ff + probed[4, i]
            t_b, t_f = t_b + probed[5, i], t_f + probed[6, i]
            if not probed[11, i] <= most:  # not a number counts as off
                most = probed[11, i]
        B, F, lam, mu = budgets[0, k], budgets[1, k], prices[0, k], prices[1, k]
        over_b, over_f = used_b - B, used_f - F
        t_b, t_f = t_b + over_b, t_f + over_f
        h_bb, h_ff = h_bb + _STIFF * B / (lam + _STIFF * _STIFF), h_ff + _STIFF * F / (mu + _STIFF * _STIFF)
        most = max(most, abs(over_b) / B)
        if slack[k]:
            dlam, dmu = t_b / h_bb, 0.0
        else:
            determinant = h_bb * h_ff - h_bf * h_bf + _TINY
            dlam, dmu = (t_b * h_ff - t_f * h_bf) / determinant, (t_f * h_bb - t_b * h_bf) / determinant
            most = max(most, abs(over_f) / F)
        moved[0, k] = min(max(dlam, _CHEAPER * lam), _DEARER * lam)
        moved[1, k] = min(max(dmu, _CHEAPER * mu), _DEARER * mu)
        off[k] = most


def _advance_loop(
    rows: Floats, probed: Floats, point: Floats, dlam: Floats, dmu: Floats, reach: Floats, course: Floats, damped: bool
) -> None:
    for i in range(point.shape[1]):
        du = probed[13, i] - dlam[i] * probed[14, i] - dmu[i] * probed[15, i]
        dv = probed[16, i] - dlam[i] * probed[17, i] - dmu[i] * probed[18, i]
        dz = probed[19, i] - dlam[i] * probed[20, i] - dmu[i] * probed[21, i]
        if damped:
            reach[i] = min((0.4 if dv * course[i] < 0.0 else 1.3) * reach[i], 1.0)
            course[i] = dv
        low, high = _DOWN * reach[i], _UP * reach[i]
        du, dv, dz = min(max(du, low), high), min(max(dv, low), high), min(max(dz, low), high)
        x = point[0, i]
        x *= math.exp(-probed[12, i] * du / x)
        point[0, i] = min(max(x, rows[L_LEAST, i]), rows[L_MOST, i])
        g1 = min(point[1, i] * math.exp(dv), rows[G_STAR, i])
        g2 = min(point[2, i] * math.exp(dz), rows[G_STAR, i])
        least = rows[LEAST_CLOCK, i]
        if min(g1, g2) < least:
            root1, root2 = math.sqrt(rows[ETA_S, i]), math.sqrt(rows[ETA_B, i])
            g1, g2 = least / min(root1, root2) * root1, least / min(root1, root2) * root2
        point[1, i], point[2, i] = g1, g2


ARRAYS = Kernels(_probe_arrays, _balance_arrays, _advance_arrays)


@functools.cache
def loops() -> Kernels:
    """The compiled form; the arrays where numba is not installed."""
    from edgora.allocator.compiled import COMPILED, compiled  # imports numba

    return Kernels(compiled(_probe_loop), compiled(_balance_loop), compiled(_advance_loop)) if COMPILED else ARRAYS
